//! What is brought home on a guess: the rest of a touch's extent, and the blocks that a stream is about to reach. Only after the
//! touch itself is answered or on its way, and only with what nobody needs: a block that is busy, a staging slot that is kept for
//! touches, or a kernel that still runs, and the guess is dropped. Nothing here waits. R is only ever strengthened (L0).

use crate::home::{Homeward, Park, Taken};
use crate::range::RangeCell;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use vkhmm_core::block::{Block, Cause, HoldKind};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::BlockIndex;
use vkhmm_port::{Access, Device, Mutex};

/// Most guesses on their way at a time: who touches something else waits behind at most so many blocks.
const IN_FLIGHT_MAX: u32 = 16;

/// What is worth bringing behind a touch.
pub(crate) struct Ahead<P: Ports> {
    pub(crate) range: Arc<RangeCell<P>>,
    /// The touched block.
    pub(crate) block: u32,
    /// What else of it.
    pub(crate) rest: PageMask,
    /// So many blocks behind it, or before it if negative.
    pub(crate) blocks: i32,
    /// The touch was a load: device copies stay valid.
    pub(crate) keep: bool,
}

impl<P: Ports> Engine<P> {
    /// Starts to bring home what is away of `ahead`. Called with no lock held.
    pub(crate) fn bring_ahead(&self, ahead: &Ahead<P>) {
        let range = &ahead.range;
        self.bring_guess(range, ahead.block, ahead.rest, ahead.keep);
        // Where the CPU reads device memory itself there is no copy to run beside it.
        if self.device.profile().memory.cpu_reads {
            return;
        }
        for distance in 1..=i64::from(ahead.blocks.unsigned_abs()) {
            let index = i64::from(ahead.block) + distance * i64::from(ahead.blocks.signum());
            if !(0..i64::from(range.block_count())).contains(&index)
                || !self.bring_guess(range, index as u32, PageMask::range(0..PageMask::CAPACITY), ahead.keep)
            {
                return;
            }
        }
    }

    /// Starts to bring `pages` of a block home, as far as they are away and free. Whether it is worth going on.
    fn bring_guess(&self, range: &Arc<RangeCell<P>>, index: u32, pages: PageMask, keep: bool) -> bool {
        if pages.is_empty() {
            return true;
        }
        if self.stopping.load(Ordering::Acquire) || self.lost.load(Ordering::Acquire) {
            return false;
        }
        let Some(mut block) = range.blocks[index as usize].try_lock() else { return true };
        let held = block.holds_of(HoldKind::Exclusive) | block.holds_of(HoldKind::InPlace);
        let kept = self.kept_on_device(range, index, keep);
        let mask = (block.dirty() & pages).minus(&held).minus(&kept);
        if range.is_dead() || mask.is_empty() || !block.has_room(Block::HOLDS_PER_REQUEST) {
            return true;
        }
        // Behind a kernel that still runs the copy would be in the way of touches that need not wait for it.
        let Some(waits) = self.peek_at_gate(range).filter(|waits| waits.done(&self.completed.lock())) else {
            return false;
        };
        if self.ahead.load(Ordering::Acquire) >= IN_FLIGHT_MAX {
            return false;
        }
        match self.take_from_gate(range, index, Park::No) {
            Taken::After(now) if now == waits => {}
            Taken::After(_) | Taken::Deciding => return false,
        }
        let way = Homeward { mask, keep, cause: Cause::Ahead, waits };
        let Some(op) = self.start_guess(range, index, &mut block, way) else { return false };
        if op.is_over() {
            self.show_near(range, index, &mut block, mask);
        }
        true
    }

    /// Shows R what arrived on a guess, if a stream is about to reach it: the rest is shown when it is touched, since giving pages to
    /// R costs more than a fast link does.
    pub(crate) fn show_near(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        arrived: PageMask,
    ) {
        let at = BlockIndex(range.first.0 + index);
        if !self.faults_parked || !range.stream.lock().is_near(at, self.config.geometry) {
            return;
        }
        let unseen = (arrived & block.host_valid())
            .minus(&block.mapped())
            .minus(&block.lost())
            .minus(&block.holds_of(HoldKind::Exclusive));
        let alone = unseen.minus(&block.device_valid()).minus(&block.holds_of(HoldKind::InPlace));
        let shared = if self.duplicates { unseen & block.device_valid() } else { PageMask::EMPTY };
        // A refusal is no loss: the next touch asks again.
        let _ = self.publish(range, index, block, alone, Access::ReadWrite);
        let _ = self.publish(range, index, block, shared, Access::ReadOnly);
    }
}
