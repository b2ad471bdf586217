//! Copies home: device bytes to A, because a CPU thread touched them, a guard or prefetch asked, or a `declared` slice is made.
//!
//! Nothing here waits. A copy that finds no staging slot is noted; the completion thread starts it when one is free.
//!
//! "Nothing allocates under a block lock" is not met here to the letter: the operation, its pieces and its commands are made under
//! the lock, because what moves is decided there. The rule keeps a handler from faulting on managed memory in its own allocator;
//! the engine allocates from the process's global allocator only, and that is never managed memory, so no allocation here can
//! become a touch of R or wait for a lock of ours.

use crate::op::{BlockRef, Flight, Op, OpStatus};
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::submit::{HomeJob, Piece, import_copies, pieces_bytes};
use crate::trace::TraceCause;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::{Block, Cause};
use vkhmm_core::mask::PageMask;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, HostMemory, Mutex, Role, Signal};

/// Which pages go home, and how.
pub(crate) struct Homeward {
    /// Pages that the device alone has.
    pub(crate) mask: PageMask,
    /// The device copies stay valid (Shared).
    pub(crate) keep: bool,
    pub(crate) cause: Cause,
    /// The last writers.
    pub(crate) waits: Uses,
}

/// What becomes of a touch that meets a deciding launch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Park {
    /// It is parked, and asked about again when the launch is through.
    Yes,
    /// There is none, or it waits for something else; whoever asked waits for progress.
    No,
}

/// What taking pages from the device met at the range gate.
pub(crate) enum Taken {
    /// The bits are cleared; wait for these uses.
    After(Uses),
    /// A launch is between decision and submit: come back when it is through.
    Deciding,
}

/// Pages of one block as stretches that are neighbours on both sides: offset in the reservation, offset in device memory, bytes.
pub(crate) fn stretches<P: Ports>(
    range: &RangeCell<P>,
    index: u32,
    block: &Block,
    pages: PageMask,
) -> impl Iterator<Item = (u64, u64, u64)> {
    let page_bytes = u64::from(range.geometry.page_bytes);
    let first = range.first_page(index).0;
    let mut pages = pages.runs().flatten().peekable();
    core::iter::from_fn(move || {
        let page = pages.next()?;
        let (host, device) = ((first + u64::from(page)) * page_bytes, block.device_offset(page));
        let mut bytes = page_bytes;
        let follows = |next: &u32, bytes| {
            (first + u64::from(*next)) * page_bytes == host + bytes
                && block.device_offset(*next) == device + bytes
        };
        while pages.next_if(|next| follows(next, bytes)).is_some() {
            bytes += page_bytes;
        }
        Some((host, device, bytes))
    })
}

impl<P: Ports> Engine<P> {
    /// Closes the gate for a block whose pages leave the device, under the block's lock.
    pub(crate) fn take_from_gate(&self, range: &RangeCell<P>, block: u32, park: Park) -> Taken {
        let mut gate = range.gate.lock();
        if let Some(uses) = gate.close(block) {
            return Taken::After(uses);
        }
        gate.awaited = true;
        if park == Park::Yes && !gate.waiting.contains(&block) {
            gate.waiting.push(block);
        }
        Taken::Deciding
    }

    /// What [`Self::take_from_gate`] would say to wait for, and nothing changed; `None` while a launch is deciding.
    pub(crate) fn peek_at_gate(&self, range: &RangeCell<P>) -> Option<Uses> {
        let gate = range.gate.lock();
        (gate.deciding == 0).then_some(gate.uses)
    }

    /// Tells the gate what the block is like now, under the block's lock.
    pub(crate) fn refresh_gate(&self, range: &RangeCell<P>, index: u32, block: &Block) {
        debug_assert_eq!(vkhmm_core::check::check(block), Ok(()), "block {index} of `{}`", range.label);
        let summary = block.summary(|op| self.is_ordered(op));
        range.gate.lock().put(index, summary);
    }

    /// The pieces of `pages` of one block, each a run of neighbouring pages on both sides.
    pub(crate) fn pieces(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &Block,
        pages: PageMask,
    ) -> Vec<Piece<P::Device>> {
        let stretches = stretches(range, index, block, pages);
        let piece = |(host, device, bytes)| Piece { host, device, bytes, import: None };
        let mut out: Vec<Piece<P::Device>> = stretches.map(piece).collect();
        self.add_imports(range, &mut out);
        out
    }

    /// Starts to bring pages home, under the block's lock. Returns the operation, which is
    /// over already when the CPU could do it.
    pub(crate) fn start_home(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        way: Homeward,
    ) -> Arc<Op<P>> {
        let op = self.new_op(&range.label);
        self.start_home_as(&op, range, index, block, way);
        op
    }

    /// [`Engine::start_home`] for an operation that is there already.
    pub(crate) fn start_home_as(
        &self,
        op: &Arc<Op<P>>,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        way: Homeward,
    ) {
        let pieces = self.pieces(range, index, block, way.mask);
        self.start_pieces(op, range, index, block, way, (pieces, None));
    }

    /// As [`Self::start_home`], for what nobody waits for: `None`, with nothing changed, where it would need a staging slot that is
    /// kept for touches.
    pub(crate) fn start_guess(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        way: Homeward,
    ) -> Option<Arc<Op<P>>> {
        let pieces = self.pieces(range, index, block, way.mask);
        let by_queue = !self.device.profile().memory.cpu_reads;
        let slot = match by_queue && pieces.iter().any(|p| p.import.is_none()) {
            true => Some(self.slots.lock().take_for_guess()?),
            false => None,
        };
        self.ahead.fetch_add(1, Ordering::AcqRel);
        let op = self.new_op(&range.label);
        self.start_pieces(&op, range, index, block, way, (pieces, slot));
        if op.is_over() {
            self.ahead.fetch_sub(1, Ordering::AcqRel);
        }
        Some(op)
    }

    /// `by`: what moves, and the slot for it, if it has one already.
    fn start_pieces(
        &self,
        op: &Arc<Op<P>>,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        way: Homeward,
        by: (Vec<Piece<P::Device>>, Option<u32>),
    ) {
        let (pieces, slot) = by;
        let Homeward { mask, keep, cause, waits } = way;
        let keep = keep && self.duplicates;
        op.skip_queue();
        let bytes = pieces_bytes(&pieces);
        let counter = match cause {
            Cause::Fault => &self.counters.out_fault_bytes,
            Cause::Evict | Cause::Launch => &self.counters.out_evict_bytes,
            Cause::Prefetch => &self.counters.out_prefetch_bytes,
            Cause::Ahead => &self.counters.out_ahead_bytes,
        };
        Counters::add(counter, bytes);
        for run in mask.runs() {
            self.note(TraceCause::ToHost(cause), self.config.geometry.bytes_of(range.run(index, &run)));
        }
        block.begin_home(op.id, mask, keep, cause);
        if !keep {
            block.add_uses(&waits);
        }
        op.remember(alloc::vec![BlockRef { range: Arc::clone(range), block: index }]);
        let mut job = HomeJob { op: Arc::clone(op), pieces, waits };
        if self.queue_is_shared {
            match self.put_fence(job) {
                Some(reached) => job = reached,
                None => return,
            }
        }
        let done = self.queue_is_shared || waits.done(&self.completed.lock());
        // What was said to be lost under this lock stays lost.
        let done = done && !self.lost.load(Ordering::Acquire);
        if self.device.profile().memory.cpu_reads && done && self.read_by_cpu(&job.pieces) {
            Counters::add(&self.counters.path_cpu_bytes, bytes);
            drop(op.take_blocks());
            op.set_status(OpStatus::Done);
            self.ops.lock().remove(&op.id);
            block.finish(op.id);
            self.progress.notify(); // a sync may have listed it
        } else if !self.queue_is_shared {
            self.send_home(job, slot);
        }
    }

    pub(crate) fn read_by_cpu(&self, pieces: &[Piece<P::Device>]) -> bool {
        pieces.iter().all(|piece| {
            let to = self.host.alias((piece.host..piece.host + piece.bytes).into());
            match self.device.read_frames(piece.device, to) {
                Ok(()) => true,
                Err(error) => {
                    self.note_loss(&alloc::format!("{error}"));
                    false
                }
            }
        })
    }

    /// Submits a copy home: straight to A, or through `slot`, or any slot if one is free, or later.
    pub(crate) fn send_home(&self, job: HomeJob<P>, slot: Option<u32>) {
        let op = Arc::clone(&job.op);
        if job.pieces.iter().all(|p| p.import.is_some()) {
            let commands = import_copies(self.device.profile().regions_max, &job.pieces, true);
            Counters::add(&self.counters.path_import_bytes, pieces_bytes(&job.pieces));
            let mut submit = self.submit.lock();
            op.set_status(OpStatus::Submitted);
            self.submit_locked(&mut submit, Role::CopyOut, job.waits, commands, |t| Flight::of(t, &op));
            return;
        }
        let slot = {
            let mut slots = self.slots.lock();
            match slot.or_else(|| slots.free_out.pop()) {
                Some(slot) => slot,
                None => {
                    slots.homes.push_back(job);
                    return;
                }
            }
        };
        let mut submit = self.submit.lock();
        op.set_status(OpStatus::Submitted);
        self.stage_out_locked(&mut submit, &op, &job.pieces, job.waits, slot);
    }
}
