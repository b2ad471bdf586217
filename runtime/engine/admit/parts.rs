//! Parts: the copies of a launch that go ahead of it, part by part, so that the link works while R is still being taken away from the
//! rest. What they copy is held, R is taken from it, and no location changes before the launch is admitted as a whole: if it comes
//! to nothing, frames that nobody owns were written, and that is waited for.

use super::blocks::BlockPlan;
use super::{Found, Ops};
use crate::submit::{Part, Piece};
use crate::trace::TraceCause;
use crate::{Engine, LaunchSpec, Op, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::Cause;
use vkhmm_core::mask::PageMask;
use vkhmm_port::{Mutex, Signal};

/// Whose copies may go ahead.
pub(super) struct Parts<'a, P: Ports> {
    pub(super) spec: &'a LaunchSpec<P>,
    pub(super) cause: Cause,
}

/// How far they are.
pub(super) struct InParts<'a, P: Ports> {
    of: Parts<'a, P>,
    /// Bytes to be taken from R, or to be made there, after the groups so far.
    to_take: u64,
    /// Bytes to be copied that no part has.
    to_copy: u64,
    /// The first entry of `Found::filled` that no part has.
    filled: usize,
}

impl<P: Ports> Engine<P> {
    pub(super) fn blocks_per_part(&self) -> usize {
        let blocks = self.config.part_bytes / self.config.geometry.block_bytes();
        usize::try_from(blocks).unwrap_or(usize::MAX).max(1)
    }

    fn bytes_to_take(&self, plans: &[&BlockPlan<P>]) -> u64 {
        let pages: u64 = plans.iter().map(|plan| u64::from(plan.to_take)).sum();
        pages * u64::from(self.config.geometry.page_bytes)
    }

    pub(super) fn in_parts<'a>(&self, of: Parts<'a, P>, plans: &[&BlockPlan<P>]) -> InParts<'a, P> {
        InParts { of, to_take: self.bytes_to_take(plans), to_copy: 0, filled: 0 }
    }

    /// R is taken from the last `group` of `done`, and no lock is held: submits what is to be copied of `done`, if that is a part and
    /// as much is still to be taken from R.
    pub(super) fn after_group(
        &self,
        ops: &Ops<P>,
        parts: &mut InParts<'_, P>,
        done: &[&BlockPlan<P>],
        group: usize,
        found: &mut Found<P>,
    ) {
        let g = self.config.geometry;
        let group = &done[done.len() - group..];
        parts.to_take = parts.to_take.saturating_sub(self.bytes_to_take(group));
        if parts.to_take < self.config.part_bytes {
            return;
        }
        for plan in group.iter().filter(|plan| !plan.in_place) {
            let copies = plan.range.blocks[plan.index as usize].lock().launch_copies(&plan.masks);
            parts.to_copy += u64::from(copies.count()) * u64::from(g.page_bytes);
        }
        if parts.to_copy < self.config.part_bytes {
            return;
        }
        let [claims, _] = self.claims_of(parts.of.spec, &found.filled[parts.filled..], false);
        let mut ins = Vec::new();
        for plan in &done[found.ahead.len()..] {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            let copies = if plan.in_place { PageMask::EMPTY } else { block.launch_copies(&plan.masks) };
            plan.frames.iter().for_each(|(sub, frame)| block.set_frame(*sub, *frame));
            ins.extend(self.pieces(&plan.range, plan.index, &block, copies));
            found.ahead.push(copies);
        }
        self.note_ins(&ins, parts.of.cause);
        (parts.to_copy, parts.filled) = (0, found.filled.len());
        let copy = Arc::clone(&ops.copy);
        self.put_part(Part { copy, waits: found.uses, after: found.after.clone(), claims, ins });
    }

    pub(super) fn note_ins(&self, ins: &[Piece<P::Device>], cause: Cause) {
        for piece in ins {
            self.note(TraceCause::ToDevice(cause), (piece.host..piece.host + piece.bytes).into());
        }
    }

    /// Waits until nothing of what went ahead as part of `copy` is on its way, or ever will be. In one's turn, so that a loss is
    /// settled after.
    pub(super) fn await_parts(&self, copy: &Op<P>) {
        loop {
            let seen = self.progress.epoch();
            let over = self.submit.lock().has_no_queue() && copy.has_landed();
            if over || self.lost.load(Ordering::Acquire) {
                return;
            }
            self.wait_in_turn(seen);
        }
    }
}
