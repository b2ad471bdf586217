//! Pass one: holds, host pages, mappings. Everything here is undone when any part of it is refused.

use super::blocks::{BlockPlan, Blocks};
use super::{Aim, Found, Ops, Refusal};
use crate::home::{Park, Taken};
use crate::stats::Counters;
use crate::trace::TraceCause;
use crate::{Engine, EngineError, Ports};
use alloc::sync::Arc;
use vkhmm_core::block::{Block, Conflict, Hold, HoldKind, pages_of_sub};
use vkhmm_core::mask::PageMask;
use vkhmm_port::{Exec, HostMemory, Mutex};

impl<P: Ports> Engine<P> {
    pub(super) fn check_block(&self, plan: &BlockPlan<P>, block: &Block) -> Result<(), Refusal> {
        // Whoever frees says so before it looks at the blocks: one that is held now is not forgotten.
        if plan.range.is_dead() && !plan.masks.all().is_empty() {
            return Err(Refusal::Freed);
        }
        // First of all: what is acquired ends no wait by itself.
        self.check_open(plan, block).map_err(Refusal::Error)?;
        block.launch_check(&plan.masks).map_err(|conflict| match conflict {
            Conflict::Wait => Refusal::Wait,
            Conflict::Guarded(_) => {
                Refusal::Error(EngineError::Guarded { label: Arc::clone(&plan.range.label) })
            }
            Conflict::Lost => Refusal::Lost,
        })
    }

    /// Takes every hold, or none.
    pub(super) fn take_holds(
        &self,
        ops: &Ops<P>,
        blocks: &Blocks<P>,
        found: &mut Found<P>,
    ) -> Result<(), Refusal> {
        for (done, plan) in blocks.values().enumerate() {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            let outcome = self.hold_block(ops, plan, &mut block, found);
            if let Err(refusal) = outcome {
                block.abort(&ops.ids());
                self.resume(&plan.range, plan.index, &mut block, PageMask::EMPTY);
                self.refresh_gate(&plan.range, plan.index, &block);
                drop(block);
                for earlier in blocks.values().take(done) {
                    let mut block = earlier.range.blocks[earlier.index as usize].lock();
                    block.abort(&ops.ids());
                    self.resume(&earlier.range, earlier.index, &mut block, PageMask::EMPTY);
                    self.refresh_gate(&earlier.range, earlier.index, &block);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn hold_block(
        &self,
        ops: &Ops<P>,
        plan: &BlockPlan<P>,
        block: &mut Block,
        found: &mut Found<P>,
    ) -> Result<(), Refusal> {
        self.check_block(plan, block)?;
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
        found.uses.merge(&block.uses());
        let after = |id| found.after.extend(self.op(id));
        if plan.in_place {
            block.in_place_deps(&plan.masks, after);
        } else {
            block.launch_deps(&plan.masks, after);
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
        // The gate's launches may still read what is copied in again.
        if !ops.main.is_open() {
            found.uses.merge(&plan.range.gate.lock().uses);
        } else if let Taken::After(uses) = self.take_from_gate(&plan.range, plan.index, Park::No) {
            // An application's queue comes after launches whose tickets are known; the gate lets no other one pass.
            found.uses.merge(&uses);
        } else {
            return Err(Refusal::Wait);
        }
        // The way home never allocates: every page has its host page before the device may have the only copy.
        for run in (all & block.absent()).runs() {
            self.host.populate(plan.range.run(plan.index, &run)).map_err(|e| Refusal::Error(e.into()))?;
        }
        if plan.in_place {
            block.in_place_hold(ops.main.id, &plan.masks);
        } else {
            block.launch_hold(ops.main.id, ops.copy.id, &plan.masks);
        }
        self.weaken(plan, block).map_err(Refusal::Error)
    }

    /// Takes R away from what the launch writes, and stores from what it reads: program order, and L0's only place.
    fn weaken(&self, plan: &BlockPlan<P>, block: &mut Block) -> Result<(), EngineError> {
        let start = self.exec.now();
        let protects = self.host.profile().protect;
        let (revoke, protect) = if self.config.strict_io || !protects {
            let read =
                if self.config.strict_io { block.mapped() } else { block.writable() } & plan.masks.read;
            (block.mapped() & plan.masks.exclusive() | read, PageMask::EMPTY)
        } else {
            (block.mapped() & plan.masks.exclusive(), block.writable() & plan.masks.read)
        };
        for run in revoke.runs() {
            let pages = plan.range.run(plan.index, &run);
            self.host.revoke(pages)?;
            block.revoked(PageMask::range(run));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        for run in protect.runs() {
            let pages = plan.range.run(plan.index, &run);
            self.host.protect(pages)?;
            block.protected(PageMask::range(run));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        Counters::add(&self.counters.revoke_ns, self.exec.now() - start);
        Ok(())
    }
}
