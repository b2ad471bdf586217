//! Acquire and release: an application uses managed memory in command buffers of its own.
//!
//! ```text
//!   acquire ── admission: frames, holds, copies in ──► Acquired { buffers, wait }      main is open, its spans are pinned
//!                └─ last of all: Role::Grant signals `wait` ─ ─► the application's submission waits for it
//!   release ── Role::Release waits for (semaphore, value) and signals our ticket ──► main lands, its holds end
//!   cancel  ── what was to be overwritten becomes zero ─────────────────────────────► likewise
//! ```
//!
//! An acquire never waits for the device, and nobody waits on the device for an acquire that is open: no ticket says when it ends.
//! Who would have to is refused, or, on a CPU, parks. Once it is released it is an operation like any other.

use crate::admit::blocks::BlockPlan;
use crate::admit::{Admitted, Aim, Ops, Refusal};
use crate::range::RangeCell;
use crate::report::Place;
use crate::stats::Counters;
use crate::submit::End;
use crate::{Argument, Engine, EngineError, LaunchSpec, Op, PlacementKind, Ports};
use crate::{arena::NoFrames, launch::Bound};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;
use vkhmm_core::block::Block;
use vkhmm_core::placement::{Placement, Want};
use vkhmm_core::units::{OpId, RangeId, Ticket};
use vkhmm_port::{Device, Exec, HostMemory, Mutex, Signal};

/// Most holds of open acquires on one block: the others are for work that ends by itself.
const OPEN_HOLDS_MAX: usize = vkhmm_core::block::Block::HOLDS_MAX / 2;
/// How often an acquire looks again while launches of other threads are between decision and submit.
const DECIDING_TRIES: u32 = 64;

/// Where the bytes of one argument lie on the device.
pub struct AcquiredPart<P: Ports> {
    /// The buffer; `None` for an empty argument.
    pub buffer: Option<Arc<<P::Device as Device>::Buffer>>,
    /// First byte, from the buffer's start.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Device address of the first byte; zero for an empty argument.
    pub address: u64,
    /// Whether buffer, offset and address are the same at every acquire of these bytes.
    pub stable: bool,
}

/// Managed memory in the hands of an application, until it is released or cancelled. Dropping it cancels it, and says so.
pub struct Acquired<P: Ports> {
    engine: Arc<Engine<P>>,
    main: Arc<Op<P>>,
    parts: Vec<AcquiredPart<P>>,
    wants: Vec<Want>,
    /// Device bytes of pages that are to be overwritten: what is there is anybody's.
    foreign: Vec<(u64, u64)>,
    wait: Ticket,
    over: bool,
}

impl<P: Ports> Acquired<P> {
    /// One per argument, in order.
    pub fn parts(&self) -> &[AcquiredPart<P>] {
        &self.parts
    }

    /// What the application's work is to wait for, on the timeline of [`vkhmm_port::Role::Grant`]. It is reached without any
    /// further call.
    pub fn wait(&self) -> Ticket {
        self.wait
    }

    /// As given.
    pub fn label(&self) -> &Arc<str> {
        &self.main.label
    }

    /// Gives the bytes back: the application has submitted all work that uses them, and work that makes `semaphore` reach `value`
    /// after it. Returns at once; operations from now on come after that value, without anybody waiting for it here. After loss of
    /// the device, and in a forked child, nothing happens.
    pub fn release(mut self, semaphore: <P::Device as Device>::Semaphore, value: u64) {
        self.end(End::Released(semaphore, value));
    }

    /// Gives the bytes back unused: nothing was submitted that uses them. What was acquired for overwriting is zero from now on, or in
    /// place what it was.
    pub fn cancel(mut self) {
        let foreign = core::mem::take(&mut self.foreign);
        self.end(End::Cancelled(foreign));
    }

    fn end(&mut self, end: End<P>) {
        if core::mem::replace(&mut self.over, true) || !self.engine.host.owned() {
            return;
        }
        let (engine, main) = (&self.engine, &self.main);
        engine.end_opening(main, end);
        engine.acquires_open.fetch_sub(1, Ordering::AcqRel);
        {
            let mut arena = engine.arena.lock();
            self.wants.iter().for_each(|want| arena.placement.unpin(want.range, want.subs.clone()));
        }
        // Whoever met the pins asks again.
        engine.progress.notify();
    }
}

impl<P: Ports> Drop for Acquired<P> {
    fn drop(&mut self) {
        if self.over || !self.engine.host.owned() {
            return;
        }
        self.engine.exec.report(format_args!(
            "`{}` was dropped without release: it is cancelled; work that was submitted for it uses memory that others may have",
            self.main.label
        ));
        let foreign = core::mem::take(&mut self.foreign);
        self.end(End::Cancelled(foreign));
    }
}

impl<P: Ports> Engine<P> {
    /// Brings the arguments to the device for an application's own work: all of them, or none. `bind` of an argument says nothing
    /// here. Host views are revoked or protected as for a launch; later work on the same bytes comes after the release.
    ///
    /// Never waits for the device. [`EngineError::Busy`] is said instead: nothing has changed then, but for pages of the same
    /// arguments that stood in their own way, and are going home. Reads beside reads are granted. Where the device's only queue is
    /// the application's too, it returns once the grant is in that queue, which may take free staging slots.
    ///
    /// # Errors
    /// `Busy`; `Acquired`, where one that is open has bytes, a place on the device that cannot grow, or too much of a block;
    /// `WorkingSetTooLarge`; and those of [`Engine::launch`]. Nothing has changed then.
    pub fn acquire(
        self: &Arc<Self>,
        arguments: Vec<Argument<P>>,
        label: Arc<str>,
    ) -> Result<Acquired<P>, EngineError> {
        self.check_alive()?;
        let spec = LaunchSpec { kernel: None, groups: [0; 3], arguments, push: Vec::new(), label };
        self.check_arguments(&spec)?;
        spec.arguments.iter().filter_map(Argument::target).for_each(|range| {
            self.settle_way(range);
        });
        let (wants, of_argument) = self.wants(&spec, false);
        self.check_capacity(&wants)?;
        self.import_arguments(&spec);
        self.catch_up();
        let main = Op::new(&self.exec, self.new_op_id(), Arc::clone(&spec.label));
        main.open();
        self.ops.lock().insert(main.id, Arc::clone(&main));
        // Before its first hold: whoever finds that hold looks.
        self.acquires_open.fetch_add(1, Ordering::AcqRel);
        let (copy, evict) = (self.new_op(&spec.label), self.new_op(&spec.label));
        let ops = Ops { aim: Aim::Acquire, main, copy, evict, round: None };
        match self.admit_at_once(&ops, &spec, &wants, &of_argument) {
            Ok((parts, foreign)) => {
                Counters::add(&self.counters.acquires, 1);
                // Its work, on the same queue, is to come after the grant.
                self.see_submitted();
                let (engine, main) = (Arc::clone(self), ops.main);
                let wait = self.promised(main.id);
                Ok(Acquired { engine, main, parts, wants, foreign, wait, over: false })
            }
            Err(error) => {
                if let EngineError::DeviceLost { cause } = &error {
                    self.note_loss(cause); // a port may have said so first to this acquire
                }
                self.acquires_open.fetch_sub(1, Ordering::AcqRel);
                ops.main.close();
                self.forget_ops(&ops.ids());
                Err(error)
            }
        }
    }

    /// Whether arguments of `bytes` bytes in all can be had beside what is acquired now, as far as the device memory limit says.
    /// Takes nothing and moves nothing.
    pub fn can_acquire(&self, bytes: u64) -> bool {
        let frames = bytes.div_ceil(self.config.geometry.frame_bytes());
        self.check_alive().is_ok() && {
            let arena = self.arena.lock();
            arena.is_live() && frames <= u64::from(arena.unpinned_frames())
        }
    }

    #[allow(
        clippy::type_complexity,
        reason = "what one acquire is given, and what it must not see; named once"
    )]
    fn admit_at_once(
        &self,
        ops: &Ops<P>,
        spec: &LaunchSpec<P>,
        wants: &[Want],
        of_argument: &[Option<usize>],
    ) -> Result<(Vec<AcquiredPart<P>>, Vec<(u64, u64)>), EngineError> {
        let busy = |why: &str| EngineError::Busy { label: Arc::clone(&spec.label), why: why.into() };
        let Some(_turn) = self.take_turn_at_once() else {
            return Err(busy("another request waits for the device, and is before it"));
        };
        let _at = self.places.enter(Place::Admission);
        let mut tries = 0;
        loop {
            let seen = self.progress.epoch();
            self.check_alive()?;
            match self.try_admit(ops, spec, wants, of_argument) {
                Ok(Admitted { bound, .. }) => {
                    ops.main.keep_buffers(bound.iter().flatten().map(|b| Arc::clone(&b.buffer)).collect());
                    return Ok((self.parts(spec, bound), self.to_be_overwritten(spec)));
                }
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Lost) => return Err(self.name_the_lost(spec)),
                Err(Refusal::Freed) => {
                    self.check_arguments(spec)?;
                    unreachable!("dead is for good");
                }
                Err(Refusal::Paged(_)) => return Err(busy("a paged launch uses it")),
                // A launch that another thread is about to submit: that ends without the device.
                Err(Refusal::Wait | Refusal::NoRoom) if tries < DECIDING_TRIES && self.is_deciding(spec) => {
                    tries += 1;
                    self.await_progress(seen, Some(Duration::from_millis(1)));
                }
                Err(Refusal::Wait | Refusal::NoRoom) => return Err(busy(&self.why_busy(spec))),
            }
        }
    }

    fn parts(&self, spec: &LaunchSpec<P>, bound: Vec<Option<Bound<P>>>) -> Vec<AcquiredPart<P>> {
        let part = |(argument, bound): (&Argument<P>, Option<Bound<P>>)| {
            let bytes = argument.bytes.len();
            let Some((range, Bound { buffer, from, .. })) = argument.target().zip(bound) else {
                return AcquiredPart { buffer: None, offset: 0, bytes, address: 0, stable: true };
            };
            let offset = argument.bytes.start - from;
            let address = self.device.address(&buffer) + offset;
            let stable = range.placement().0 != PlacementKind::Span;
            AcquiredPart { buffer: Some(buffer), offset, bytes, address, stable }
        };
        spec.arguments.iter().zip(bound).map(part).collect()
    }

    /// Device bytes of the pages whose old contents were given up. In one's turn: a loss is settled later.
    fn to_be_overwritten(&self, spec: &LaunchSpec<P>) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        for plan in self.argument_blocks(spec).into_values() {
            // In place, what is there is the range's own.
            if !plan.masks.overwrite.is_empty() && !plan.in_place {
                let block = plan.range.blocks[plan.index as usize].lock();
                let pieces = self.pieces(&plan.range, plan.index, &block, plan.masks.overwrite);
                out.extend(pieces.iter().map(|piece| (piece.device, piece.bytes)));
            }
        }
        out
    }

    /// Keeps what was just placed where it is. In one's turn, so nobody else plans meanwhile.
    pub(crate) fn pin_placed(&self, wants: &[Want]) {
        let mut arena = self.arena.lock();
        for want in wants {
            assert!(arena.placement.pin(want.range, want.subs.clone()), "what was placed can be pinned");
        }
    }

    /// Refuses what cannot fit beside what is acquired before anything is touched for it.
    fn check_capacity(&self, wants: &[Want]) -> Result<(), EngineError> {
        let frame_bytes = self.config.geometry.frame_bytes();
        let arena = self.arena.lock();
        let need: u64 = wants.iter().map(|w| u64::from(arena.missing(w))).sum();
        let (have, limit) = (u64::from(arena.unpinned_frames()), u64::from(arena.limit_frames()));
        if need <= have {
            return Ok(());
        }
        let [need, have, limit, held] =
            [need, have, limit, u64::from(arena.placement.stats().pinned)].map(|frames| frames * frame_bytes);
        Err(EngineError::WorkingSetTooLarge { need, have, limit, held, largest_run: have })
    }

    // ── who meets an open acquire ─────────────────────────────────────────────────────────────────────────────────────────

    fn open_op(&self, id: OpId) -> Option<Arc<Op<P>>> {
        self.op(id).filter(|op| op.is_open())
    }

    /// Refuses one more acquire on a block where those that are open have all the holds they may have. Under the block's lock and
    /// in one's turn, so that it stays true.
    pub(crate) fn check_crowd(&self, range: &RangeCell<P>, block: &Block) -> Result<(), EngineError> {
        match block.holds().iter().filter_map(|hold| self.open_op(hold.op)).nth(OPEN_HOLDS_MAX - 1) {
            Some(by) => Err(acquired(range, &by)),
            None => Ok(()),
        }
    }

    /// Refuses a request that would have to wait on the device for an open acquire. Under the block's lock.
    pub(crate) fn check_open(&self, plan: &BlockPlan<P>, block: &Block) -> Result<(), EngineError> {
        if self.acquires_open.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let mut by = None;
        let mut found = |id| by = by.take().or_else(|| self.open_op(id));
        if plan.in_place {
            block.in_place_deps(&plan.masks, found);
        } else {
            block.launch_deps(&plan.masks, |id, _| found(id));
        }
        match by {
            Some(by) => Err(acquired(&plan.range, &by)),
            None => Ok(()),
        }
    }

    /// Refuses a request that would hold pages that an application has, however. Under the block's lock.
    pub(crate) fn check_not_acquired(&self, plan: &BlockPlan<P>, block: &Block) -> Result<(), EngineError> {
        let holders = block.holds().iter().filter(|hold| hold.mask.intersects(&plan.masks.all()));
        match holders.filter_map(|hold| self.open_op(hold.op)).next() {
            Some(by) => Err(acquired(&plan.range, &by)),
            None => Ok(()),
        }
    }

    /// The pages of `range` are pinned apart from what a request wants to have beside them.
    pub(crate) fn acquired_apart(&self, range: RangeId) -> NoFrames {
        for op in self.open_ops() {
            if let Some(at) = op.blocks().into_iter().find(|at| at.range.id == range) {
                return NoFrames::Error(acquired(&at.range, &op));
            }
        }
        let pinned = self.space.lock().get(range).and_then(|range| self.pinned_apart(&range));
        pinned.map_or(NoFrames::Wait, NoFrames::Error) // released meanwhile
    }

    /// What applications have acquired and not released, oldest first.
    pub(crate) fn open_ops(&self) -> Vec<Arc<Op<P>>> {
        self.ops.lock().values().filter(|op| op.is_open()).cloned().collect()
    }

    /// Who has acquired a page of the block for which a touch is parked. Under the block's lock.
    pub(crate) fn acquirer_of_parked(&self, block: &Block) -> Option<Arc<str>> {
        let (reads, writes) = block.parked();
        let holds = block.holds().iter().filter(|hold| hold.mask.intersects(&(reads | writes)));
        holds.filter_map(|hold| self.open_op(hold.op)).map(|op| Arc::clone(&op.label)).next()
    }

    // ── why one is not granted ────────────────────────────────────────────────────────────────────────────────────────────

    fn is_deciding(&self, spec: &LaunchSpec<P>) -> bool {
        spec.arguments.iter().filter_map(Argument::target).any(|range| range.gate.lock().deciding > 0)
    }

    /// In words; what it was may be over by now.
    fn why_busy(&self, spec: &LaunchSpec<P>) -> alloc::string::String {
        for plan in self.argument_blocks(spec).into_values() {
            let (block, all) = (plan.range.blocks[plan.index as usize].lock(), plan.masks.all());
            let (reads, writes) = block.parked();
            let what = if block.moving().intersects(&all) {
                "bytes are on their way home"
            } else if (reads | writes).intersects(&all) {
                "a CPU thread waits for bytes"
            } else if !block.has_room(Block::HOLDS_PER_REQUEST) {
                "too many operations use one block"
            } else {
                continue;
            };
            return alloc::format!("{what} of `{}`", plan.range.label);
        }
        "room on the device depends on work that is not submitted yet".into()
    }
}

fn acquired<P: Ports>(range: &RangeCell<P>, by: &Op<P>) -> EngineError {
    EngineError::Acquired { label: Arc::clone(&range.label), by: Arc::clone(&by.label) }
}
