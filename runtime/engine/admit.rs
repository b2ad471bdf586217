//! Admission: every launch that moves anything, one after the other. It claims frames and victims for all arguments or none,
//! takes its holds block by block ascending, and only then changes anything. What must wait gives back all it took and waits
//! for work that needs no admission, so no cycle exists.

pub(crate) mod blocks;
mod commit;
mod evict;
mod holds;
mod paged;
mod parts;
mod turns;
mod wants;

pub(crate) use turns::Turns;

use crate::arena::{NoFrames, Placing};
use crate::launch::Bound;
use crate::paged::Tables;
use crate::range::Claim;
use crate::report::Place;
use crate::stats::Counters;
use crate::submit::pieces_bytes;
use crate::{Argument, Engine, EngineError, LaunchSpec, Op, OpStatus, Ports, Watch};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use parts::Parts;
use vkhmm_core::block::Cause;
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::{Placed, Want};
use vkhmm_core::units::{OpId, RangeId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Mutex, Signal};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// A kernel is to run, or nothing is and its order is kept.
    Launch,
    /// An application's own work.
    Acquire,
    /// Bytes are to be on the device and to stay there.
    Pin,
    /// Bytes may be wanted on the device.
    Hint,
    /// Room is to be made.
    Evict,
    /// A paged operation is to hold its ranges; its rounds are launches.
    Paged,
}

/// The three operations of one request: itself, its copies in (and moves), its evictions.
pub(crate) struct Ops<P: Ports> {
    pub(crate) aim: Aim,
    pub(crate) main: Arc<Op<P>>,
    pub(crate) copy: Arc<Op<P>>,
    pub(crate) evict: Arc<Op<P>>,
    /// The tables that it writes, if it is a round of a paged operation.
    pub(crate) round: Option<Arc<Tables<P>>>,
}

impl<P: Ports> Ops<P> {
    pub(crate) fn ids(&self) -> [OpId; 3] {
        [self.main.id, self.copy.id, self.evict.id]
    }
}

pub(crate) enum Refusal {
    /// Something is on its way: ask again when anything has happened.
    Wait,
    /// Only what others need is left. For hints alone.
    NoRoom,
    /// Pages are lost; which, is looked up once no lock is held.
    Lost,
    /// A range that the launch names was freed meanwhile; which, likewise.
    Freed,
    /// A paged operation holds pages: it needs turns to come to its end, so that is waited for without one.
    Paged(OpId),
    Error(EngineError),
}

/// What an admitted request has.
pub(crate) struct Admitted<P: Ports> {
    /// Where its arguments lie.
    pub(crate) bound: Vec<Option<Bound<P>>>,
    /// Bytes that are copied in for it.
    pub(crate) in_bytes: u64,
    /// Those, and what is made there.
    pub(crate) moved_bytes: u64,
}

impl From<NoFrames> for Refusal {
    fn from(no: NoFrames) -> Self {
        match no {
            NoFrames::Wait => Self::Wait,
            NoFrames::NoRoom => Self::NoRoom,
            NoFrames::Error(error) => Self::Error(error),
        }
    }
}

/// What planning and pass one found that the device must wait for. Operations, and not their numbers: one may be over, and out of
/// the table, before its uses are asked for.
struct Found<P: Ports> {
    uses: Uses,
    /// Before anything is copied.
    after: Vec<Arc<Op<P>>>,
    /// Before the kernel.
    before_kernel: Vec<Arc<Op<P>>>,
    /// Sub-blocks that are copied or filled before the kernel.
    filled: Vec<(RangeId, Range<u32>)>,
    /// Pages of the first blocks whose copies are on their way already.
    ahead: Vec<PageMask>,
}

impl<P: Ports> Found<P> {
    fn new(uses: Uses, after: Vec<Arc<Op<P>>>) -> Self {
        Self { uses, after, before_kernel: Vec::new(), filled: Vec::new(), ahead: Vec::new() }
    }
}

impl<P: Ports> Engine<P> {
    /// The slow path of a launch, all of a pin to the device, and of a round, which writes its tables.
    pub(crate) fn launch_admitted(
        &self,
        op: &Arc<Op<P>>,
        spec: &LaunchSpec<P>,
        aim: Aim,
        round: Option<Arc<Tables<P>>>,
    ) -> Result<Admitted<P>, EngineError> {
        spec.arguments.iter().filter_map(Argument::target).for_each(|range| {
            self.settle_way(range);
        });
        let (wants, of_argument) = self.wants(spec, round.is_some());
        // What can never be placed is refused below; it must not pin the host's pages first.
        let subs: u64 = wants.iter().map(|w| u64::from(w.subs.end - w.subs.start)).sum();
        if subs <= u64::from(self.arena.lock().limit_frames()) {
            self.import_arguments(spec);
        }
        self.catch_up();
        let (copy, evict) = (self.new_op(&spec.label), self.new_op(&spec.label));
        let counted = round.is_none();
        let ops = Ops { aim, main: Arc::clone(op), copy, evict, round };
        let outcome = self.in_turn(spec, counted, || self.try_admit(&ops, spec, &wants, &of_argument));
        if outcome.is_err() {
            self.forget_ops(&[ops.copy.id, ops.evict.id]);
        }
        outcome
    }

    /// Tries in one's turn until it is done, or can never be. Whoever meets a paged operation gives the turn back, and asks for another
    /// one once that is over. `counted`: the wait is somebody's, and told of.
    pub(crate) fn in_turn<T>(
        &self,
        spec: &LaunchSpec<P>,
        counted: bool,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, EngineError> {
        let mut waited = false;
        let mut watch = Watch::new(self);
        let outcome = 'turns: loop {
            let turn = self.take_turn();
            let at = self.places.enter(Place::Admission);
            let paged = loop {
                let seen = self.progress.epoch();
                if let Err(error) = self.check_alive() {
                    break 'turns Err(error);
                }
                match attempt() {
                    Ok(done) => break 'turns Ok(done),
                    Err(Refusal::Error(error)) => break 'turns Err(error),
                    Err(Refusal::Lost) => break 'turns Err(self.name_the_lost(spec)),
                    Err(Refusal::Freed) => {
                        break 'turns Err(self.check_arguments(spec).expect_err("dead is for good"));
                    }
                    Err(Refusal::Paged(op)) => break op,
                    Err(Refusal::Wait | Refusal::NoRoom) => {
                        waited = true;
                        self.flush();
                        self.wait_in_turn(seen);
                        watch.check(self, || alloc::format!("launch `{}` waits for admission", spec.label));
                    }
                }
            };
            drop(at);
            drop(turn);
            waited = true;
            self.wait_for_paged(paged, &mut watch, &spec.label);
        };
        // What rounds wait for is the paged launch's own work.
        if counted {
            watch.over(self, &spec.label);
            Counters::add(&self.counters.launches_waited, u64::from(waited));
        }
        outcome
    }

    /// The error that names what is lost of a launch's arguments.
    pub(crate) fn name_the_lost(&self, spec: &LaunchSpec<P>) -> EngineError {
        let of = |a: &Argument<P>| a.target().and_then(|range| self.check(range, a.bytes).err());
        let named = spec.arguments.iter().find_map(of);
        named.unwrap_or_else(|| EngineError::DeviceLost { cause: self.loss_cause() })
    }

    pub(crate) fn import_arguments(&self, spec: &LaunchSpec<P>) {
        for argument in &spec.arguments {
            if let Some(range) = argument.target() {
                let block_bytes = self.config.geometry.block_bytes();
                let to = argument.bytes.end.div_ceil(block_bytes) as u32;
                self.ensure_import(range, (argument.bytes.start / block_bytes) as u32..to);
            }
        }
    }

    /// Earlier requests that claimed the frames of these sub-blocks: they may have left some of them alone, whose former users only
    /// they waited for. First those for whose sake copies wait, since they go to such frames, then those that only the kernel waits
    /// for; an application's own work has no kernel of ours that could.
    fn claims_of(
        &self,
        spec: &LaunchSpec<P>,
        filled: &[(RangeId, Range<u32>)],
        acquires: bool,
    ) -> [Vec<Arc<Op<P>>>; 2] {
        let completed = *self.completed.lock();
        let (mut copies, mut kernel, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (range, argument) in spec.arguments.iter().filter_map(|a| Some((a.framed()?, a))) {
            let subs = argument.subs(self.config.geometry.frame_bytes());
            let known = range.claims.lock().clone();
            let is_over =
                |(_, op): &Claim<P>| op.status() != OpStatus::Queued && op.waited().done(&completed);
            let (gone, kept): (Vec<_>, Vec<_>) = known.into_iter().partition(is_over);
            range.claims.lock().retain(|(_, op)| kept.iter().any(|(_, k)| k.id == op.id));
            let meet = |a: &Range<u32>, b: &Range<u32>| a.start < b.end && b.start < a.end;
            for (of, op) in kept.into_iter().filter(|(of, _)| meet(of, &subs)) {
                let is_filled =
                    acquires || filled.iter().any(|(id, filled)| *id == range.id && meet(filled, &of));
                if is_filled { &mut copies } else { &mut kernel }.push(op);
            }
            over.extend(gone);
        }
        drop(over);
        [copies, kernel]
    }

    /// `of_argument` says which place an argument is part of.
    fn note_claim(
        &self,
        op: &Arc<Op<P>>,
        spec: &LaunchSpec<P>,
        placed: &[Placed],
        of_argument: &[Option<usize>],
    ) {
        for (argument, want) in spec.arguments.iter().zip(of_argument) {
            let (Some(range), Some(want)) = (argument.framed(), want) else { continue };
            range.claims.lock().push((placed[*want].subs.clone(), Arc::clone(op)));
        }
    }

    /// Admits a request, or changes nothing.
    pub(crate) fn try_admit(
        &self,
        ops: &Ops<P>,
        spec: &LaunchSpec<P>,
        wants: &[Want],
        of_argument: &[Option<usize>],
    ) -> Result<Admitted<P>, Refusal> {
        let mut blocks = self.argument_blocks(spec);
        for plan in blocks.values_mut() {
            let block = plan.range.blocks[plan.index as usize].lock();
            self.check_block(ops, plan, &block)?;
            if ops.main.is_open() {
                self.check_crowd(&plan.range, &block).map_err(Refusal::Error)?;
            }
            let to_take = self.to_take(plan, &block);
            drop(block);
            plan.to_take = to_take;
        }
        let Placing { plan, buffers, after } = self.place(ops.main.id, wants, ops.aim)?;
        let acquires = ops.aim == Aim::Acquire;
        let undo = |refusal: Refusal| {
            self.unplace(ops.main.id, &plan);
            Err(refusal)
        };
        let own = self.own_evictions(&blocks, &plan.evictions);
        if !own.is_empty() {
            // Comes home first, in an item of its own, so that its bytes are there when they are copied in again.
            self.unplace(ops.main.id, &plan);
            if ops.aim == Aim::Hint {
                return Err(Refusal::NoRoom);
            }
            for goal in own {
                if acquires { self.evict_at_once(goal) } else { self.evict_in_turn(goal).map(drop) }
                    .map_err(Refusal::Error)?;
            }
            return Err(Refusal::Wait);
        }
        if !self.add_evictions(&mut blocks, &plan.evictions) || !self.add_moves(&mut blocks, &plan) {
            return undo(Refusal::Wait);
        }
        for block in blocks.values_mut() {
            block.frames = self.frames_of(block, wants, &plan);
        }
        let mut found = Found::new(plan.deps.uses, after);
        let cause =
            if matches!(ops.aim, Aim::Launch | Aim::Acquire) { Cause::Launch } else { Cause::Prefetch };
        // What waits for nobody has nobody to wait for if it comes to nothing; who gives up frames is known at the end alone.
        let parts =
            matches!(ops.aim, Aim::Launch | Aim::Pin) && plan.evictions.is_empty() && plan.moves.is_empty();
        let parts = parts.then_some(Parts { spec, cause });
        if let Err(refusal) = self.take_holds(ops, &blocks, &mut found, parts) {
            return undo(refusal);
        }
        let ahead: u64 = found.ahead.iter().map(|pages| u64::from(pages.count())).sum();
        let [claims, kernel_claims] = self.claims_of(spec, &found.filled, ops.main.is_open());
        let mut item = self.commit(ops, &blocks, found, cause);
        (item.claims, item.kernel_claims) = (claims, kernel_claims);
        if !plan.deps.is_none() || !plan.evictions.is_empty() || !plan.binds.is_empty() {
            self.note_claim(&ops.main, spec, &plan.placed, of_argument);
        }
        let touched: Vec<_> = spec
            .arguments
            .iter()
            .zip(of_argument)
            // A hint is no use: it makes nothing older.
            .filter(|_| ops.aim != Aim::Hint)
            .filter_map(|(a, w)| Some(((*w)?, a.subs(self.config.geometry.frame_bytes()), a.access.as_use())))
            .collect();
        let named = self.named(&plan.evictions, &plan.binds);
        item.binds = self.keep_plan(ops.main.id, &plan, &named, wants, &item.waits, &touched);
        let frame_bytes = self.config.geometry.frame_bytes();
        let bound: Vec<Option<Bound<P>>> = of_argument
            .iter()
            .zip(&spec.arguments)
            .map(|(want, argument)| match want.and_then(|w| Some((w, buffers[w].as_ref()?))) {
                Some((w, buffer)) => Some(Bound::in_span(&plan.placed[w], Arc::clone(buffer), frame_bytes)),
                None => argument.target().map(|range| Bound::in_range(range)),
            })
            .collect();
        if let Some(kernel) = &spec.kernel {
            let in_place = blocks.values().any(|plan| plan.in_place);
            Counters::add(&self.counters.launches_in_place, u64::from(in_place));
            Self::keep_addressed(&ops.main, spec, &bound);
            item.dispatch = Some(self.dispatch(Arc::clone(kernel), spec, &bound));
            if let Some(tables) = &ops.round {
                tables.fill(self, spec, &bound);
            }
        }
        if acquires || ops.aim == Aim::Pin {
            self.pin_placed(wants);
        }
        let arrived = if matches!(ops.aim, Aim::Launch | Aim::Acquire) {
            &self.counters.in_launch_bytes
        } else {
            &self.counters.in_prefetch_bytes
        };
        let bytes = pieces_bytes(&item.ins) + ahead * u64::from(self.config.geometry.page_bytes);
        Counters::add(arrived, bytes);
        let moved_bytes = bytes + item.fills.iter().map(|(_, bytes)| bytes).sum::<u64>();
        self.put(item);
        Ok(Admitted { bound, in_bytes: bytes, moved_bytes })
    }
}
