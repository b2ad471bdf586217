//! Pass one: holds, host pages, mappings. Everything here is undone when any part of it is refused.

use super::blocks::{BlockPlan, Blocks};
use super::parts::Parts;
use super::{Aim, Found, Ops, Refusal};
use crate::home::{Park, Taken};
use crate::stats::Counters;
use crate::trace::TraceCause;
use crate::{Engine, EngineError, MutexOf, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{DerefMut, Range};
use vkhmm_core::block::{Block, Conflict, Hold, HoldKind, pages_of_sub};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::PageRun;
use vkhmm_port::{Exec, HostMemory, Mutex};

/// So many blocks are held, and taken from R, at once. Each call of the system interrupts every processor that runs one of the
/// process's threads, which costs as much as taking 64 KiB away; with more blocks a touch of the first would wait for the last,
/// and copies could not begin.
const GROUP: usize = 4;

/// Neighbouring blocks under their locks.
type Group<'a, P> = Vec<(&'a BlockPlan<P>, <MutexOf<P, Block> as Mutex<Block>>::Guard<'a>)>;

/// A run of pages of the `at`-th block of a group.
struct Part {
    at: usize,
    run: Range<u32>,
    pages: PageRun,
}

impl Part {
    fn meets(&self, next: &Self) -> bool {
        self.pages.end() == next.pages.first
    }

    /// Parts that meet, as one run.
    fn together(parts: &[Self]) -> PageRun {
        PageRun { first: parts[0].pages.first, count: parts.iter().map(|part| part.pages.count).sum() }
    }
}

impl<P: Ports> Engine<P> {
    pub(super) fn check_block(
        &self,
        ops: &Ops<P>,
        plan: &BlockPlan<P>,
        block: &Block,
    ) -> Result<(), Refusal> {
        let refused = |conflict| match conflict {
            Conflict::Wait => Refusal::Wait,
            Conflict::Guarded(_) => {
                Refusal::Error(EngineError::Guarded { label: Arc::clone(&plan.range.label) })
            }
            Conflict::Lost => Refusal::Lost,
            Conflict::Paged(op) => Refusal::Paged(op),
        };
        if ops.round.is_some() {
            // Its operation was let pass, also by those who came later; that holds the range, too, freed or not.
            return block.round_check(&plan.masks).map_err(refused);
        }
        // Whoever frees says so before it looks at the blocks: one that is held now is not forgotten.
        if plan.range.is_dead() && !plan.masks.all().is_empty() {
            return Err(Refusal::Freed);
        }
        // First of all: what is acquired ends no wait by itself.
        self.check_open(plan, block).map_err(Refusal::Error)?;
        self.check_apart(ops.aim, plan, block)?;
        block.launch_check(&plan.masks).map_err(refused)
    }

    /// Takes every hold, or none.
    pub(super) fn take_holds(
        &self,
        ops: &Ops<P>,
        blocks: &Blocks<P>,
        found: &mut Found<P>,
        parts: Option<Parts<'_, P>>,
    ) -> Result<(), Refusal> {
        let plans: Vec<&BlockPlan<P>> = blocks.values().collect();
        let at = |plan: &BlockPlan<P>| plan.range.first.0 + plan.index;
        let mut parts = parts.map(|parts| self.in_parts(parts, &plans));
        let (mut done, most) = (0, GROUP.min(self.blocks_per_part()));
        // Neighbours together, so that R is taken from them in one call.
        for group in plans.chunk_by(|a, b| at(a) + 1 == at(b)).flat_map(|group| group.chunks(most)) {
            let mut held: Group<'_, P> = Vec::with_capacity(group.len());
            let mut outcome = Ok(());
            for plan in group {
                held.push((*plan, plan.range.blocks[plan.index as usize].lock()));
                let (plan, block) = held.last_mut().expect("just pushed");
                outcome = outcome.and_then(|()| self.hold_block(ops, plan, block, found));
            }
            // L0: a paged operation has weakened R for all its rounds.
            let weakens = ops.round.is_none();
            let outcome = outcome.and_then(|()| match weakens {
                true => self.weaken(&mut held).map_err(Refusal::Error),
                false => Ok(()),
            });
            if outcome.is_err() {
                // Before anybody else sees them: R may still show what they hold.
                held.iter_mut().for_each(|(plan, block)| self.undo_holds(ops, plan, block));
                drop(held);
                if !found.ahead.is_empty() {
                    self.await_parts(&ops.copy);
                }
                for plan in &plans[..done] {
                    self.undo_holds(ops, plan, &mut plan.range.blocks[plan.index as usize].lock());
                }
                return outcome;
            }
            drop(held);
            done += group.len();
            if let Some(parts) = &mut parts {
                self.after_group(ops, parts, &plans[..done], group.len(), found);
            }
        }
        Ok(())
    }

    fn undo_holds(&self, ops: &Ops<P>, plan: &BlockPlan<P>, block: &mut Block) {
        block.abort(&ops.ids());
        self.resume(&plan.range, plan.index, block, PageMask::EMPTY);
        self.refresh_gate(&plan.range, plan.index, block);
    }

    fn hold_block(
        &self,
        ops: &Ops<P>,
        plan: &BlockPlan<P>,
        block: &mut Block,
        found: &mut Found<P>,
    ) -> Result<(), Refusal> {
        self.check_block(ops, plan, block)?;
        if ops.aim == Aim::Paged {
            return self.hold_block_for_life(&ops.main, plan, block);
        }
        let moved = plan
            .moves
            .iter()
            .fold(PageMask::EMPTY, |all, (sub, _)| all | pages_of_sub(*sub, self.config.geometry));
        // Frames are given up whole: also pages that are Host by now may still be read there, by a copy home or a kernel.
        let leaving = plan.evict | moved;
        if !leaving.is_empty() {
            if block.moving().intersects(&leaving) || !block.can_evict(leaving & block.device_valid()) {
                return Err(Refusal::Wait);
            }
            match self.take_from_gate(&plan.range, plan.index, Park::No) {
                // What somebody still uses is not idle, so no hint takes it.
                Taken::After(uses) if ops.aim == Aim::Hint && !uses.done(&self.completed.lock()) => {
                    return Err(Refusal::NoRoom);
                }
                Taken::After(uses) => found.uses.merge(&uses),
                Taken::Deciding => return Err(Refusal::Wait),
            }
            let holders = block.holds().iter().filter(|h| h.mask.intersects(&leaving)).map(|h| h.op);
            let holders = holders.filter_map(|id| self.op(id));
            found.after.extend(holders.inspect(|op| assert!(!op.is_open(), "acquired frames are pinned")));
        }
        // Pages whose frames something is written to before the kernel runs.
        let filled = if plan.in_place { PageMask::EMPTY } else { block.launch_fills(&plan.masks) };
        for run in filled.runs() {
            let (per, first) =
                (self.config.geometry.pages_per_sub, plan.index * self.config.geometry.subs_per_block());
            found.filled.push((plan.range.id, first + run.start / per..first + run.end.div_ceil(per)));
        }
        // Launches without holds read them as long as they were valid; whoever ended that noted their uses here.
        if !(leaving | filled).is_empty() || ops.main.is_open() {
            found.uses.merge(&block.uses());
        }
        if plan.in_place {
            block.in_place_deps(&plan.masks, |id| found.after.extend(self.op(id)));
        } else {
            block.launch_deps(&plan.masks, |id, pages| {
                // An application's work has no kernel of ours that could wait alone.
                let copies = filled.intersects(&pages) || ops.main.is_open();
                if copies { &mut found.after } else { &mut found.before_kernel }.extend(self.op(id));
            });
        }
        let evicted = plan.evict & block.device_valid();
        if !evicted.is_empty() {
            block.add_hold(Hold { op: ops.evict.id, kind: HoldKind::Exclusive, mask: evicted });
        }
        let moving = moved & block.device_valid();
        if !moving.is_empty() {
            block.add_hold(Hold { op: ops.copy.id, kind: HoldKind::Exclusive, mask: moving });
        }
        let all = plan.masks.all();
        if all.is_empty() {
            return Ok(());
        }
        if ops.main.is_open() {
            // An application's queue comes after launches whose tickets are known; the gate lets no other one pass.
            match self.take_from_gate(&plan.range, plan.index, Park::No) {
                Taken::After(uses) => found.uses.merge(&uses),
                Taken::Deciding => return Err(Refusal::Wait),
            }
        }
        // The way home never allocates: every page has its host page before the device may have the only copy. Those of a round have
        // had it since their paged launch was made.
        for run in (all & block.absent()).runs().filter(|_| ops.round.is_none()) {
            self.host.populate(plan.range.run(plan.index, &run)).map_err(|e| Refusal::Error(e.into()))?;
        }
        if plan.in_place {
            block.in_place_hold(ops.main.id, &plan.masks);
        } else {
            block.launch_hold(ops.main.id, ops.copy.id, &plan.masks);
        }
        Ok(())
    }

    /// What R shows of what the launch writes, and where it lets store to what the launch reads: to be revoked, to be protected.
    fn shown(&self, plan: &BlockPlan<P>, block: &Block) -> (PageMask, PageMask) {
        let strict = self.config.strict_io;
        let written = block.mapped() & plan.masks.exclusive();
        let read = if strict { block.mapped() } else { block.writable() } & plan.masks.read;
        if strict || !self.host.profile().protect {
            (written | read, PageMask::EMPTY)
        } else {
            (written, read)
        }
    }

    /// For how many pages of the plan the page table has to be changed, or a host page made.
    pub(super) fn to_take(&self, plan: &BlockPlan<P>, block: &Block) -> u32 {
        let (revoke, protect) = self.shown(plan, block);
        revoke.count() + protect.count() + (plan.masks.all() & block.absent()).count()
    }

    /// Takes R away from what the launch writes, and stores from what it reads: program order, and L0's only place.
    pub(crate) fn weaken<B: DerefMut<Target = Block>>(
        &self,
        group: &mut [(&BlockPlan<P>, B)],
    ) -> Result<(), EngineError> {
        let start = self.exec.now();
        let (mut absent, mut read_only) = (Vec::new(), Vec::new());
        for (at, (plan, block)) in group.iter().enumerate() {
            let (revoke, protect) = self.shown(plan, block);
            for run in revoke.runs() {
                absent.push(Part { at, pages: plan.range.run(plan.index, &run), run });
            }
            for run in protect.runs() {
                read_only.push(Part { at, pages: plan.range.run(plan.index, &run), run });
            }
        }
        for parts in absent.chunk_by(Part::meets) {
            let pages = Part::together(parts);
            self.host.revoke(pages)?;
            parts.iter().for_each(|part| group[part.at].1.revoked(PageMask::range(part.run.clone())));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        for parts in read_only.chunk_by(Part::meets) {
            let pages = Part::together(parts);
            self.host.protect(pages)?;
            parts.iter().for_each(|part| group[part.at].1.protected(PageMask::range(part.run.clone())));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        Counters::add(&self.counters.revoke_ns, self.exec.now() - start);
        Ok(())
    }
}
