//! The way home: copies that a touch, a guard or a prefetch asks for, and evictions.

use super::{Block, Cause, Hold, HoldKind, Transfer, subs_of};
use crate::mask::PageMask;
use crate::units::{FrameIndex, OpId};

impl Block {
    /// Device → Shared (`keep`) or Host: from now on `op` copies the pages home, and the CPU waits for it.
    pub fn begin_home(&mut self, op: OpId, mask: PageMask, keep: bool, cause: Cause) {
        self.home_now(mask, keep);
        self.transfers.push(Transfer { op, mask, cause });
        self.add_hold(Hold { op, kind: HoldKind::Exclusive, mask });
    }

    /// Device → Shared (`keep`) or Host at once: the CPU has copied the bytes home while the block's lock was held, and whoever wrote
    /// them is done.
    pub fn home_now(&mut self, mask: PageMask, keep: bool) {
        debug_assert!(self.dirty().covers(&mask), "only pages that the device alone has go home");
        debug_assert!(!self.held_exclusive.intersects(&mask), "two movers of one page");
        self.host_valid |= mask;
        if !keep {
            self.dev_mut().valid.remove(&mask);
        }
    }

    /// The device copies of `pages` go, and their frames. Returns the pages whose bytes `op`, which holds them exclusively, must
    /// copy home. The caller has checked [`Block::can_evict`].
    pub fn begin_evict(&mut self, op: OpId, pages: PageMask, cause: Cause) -> PageMask {
        let dirty = self.dirty() & pages;
        self.evicted |= self.dev().valid & pages;
        self.host_valid |= dirty;
        self.dev_mut().valid.remove(&pages);
        if !dirty.is_empty() {
            self.transfers.push(Transfer { op, mask: dirty, cause });
        }
        for sub in subs_of(pages, self.geometry) {
            self.dev_mut().frames[sub as usize] = FrameIndex::NONE;
        }
        dirty
    }

    /// Whether the device copies of `pages` can be taken away now: nothing there is on its way home, no touch is parked but behind
    /// a paged operation, and there is room to note it.
    pub fn can_evict(&self, pages: PageMask) -> bool {
        self.has_room(1)
            && !self.moving().intersects(&pages)
            && !(self.parked_read | self.parked_write).minus(&self.paged_pages()).intersects(&pages)
    }
}
