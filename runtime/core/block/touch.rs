//! CPU touches: what to do about one, and the transitions that the answers name; and R, weakened under a borrow.

use super::{Block, Hold, HoldKind};
use crate::mask::PageMask;
use crate::pagemap::Location;
use crate::units::OpId;

/// What to do about a CPU touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAnswer {
    /// The page is lost, or no page of the allocation: poison it.
    Poison,
    /// Give these pages (first touch) host pages, then [`Block::born`], then publish read-write.
    Born(PageMask),
    /// Publish these pages read-write. [`Block::make_host`] first: any duplicate is dropped.
    ReadWrite(PageMask),
    /// Publish these pages read-only.
    ReadOnly(PageMask),
    /// Copy these pages home ([`Block::begin_home`]), publish when the bytes are there.
    Home(PageMask),
    /// Somebody holds the page: the touch is parked and is answered when that operation is done.
    Park(OpId),
    /// No room to note another operation: parked, answered when any operation on the block is done.
    ParkFull,
}

impl Block {
    /// What to do about a touch of `page`. `extent` are the pages that policy would serve with it; of these only such pages are
    /// taken as have the same answer. Parking is noted here; everything else is done by the transition that the answer names.
    pub fn fault(&mut self, page: u32, write: bool, extent: PageMask, duplicates: bool) -> FaultAnswer {
        let answer = self.look(page, write, extent, duplicates);
        if matches!(answer, FaultAnswer::Park(_) | FaultAnswer::ParkFull) {
            self.park(page, write);
        }
        if write && matches!(answer, FaultAnswer::ReadWrite(_)) {
            self.note_upload(page);
        }
        answer
    }

    /// As [`Block::fault`], for whoever may find that he cannot do it: nothing is noted.
    pub fn look(&self, page: u32, write: bool, extent: PageMask, duplicates: bool) -> FaultAnswer {
        if !self.used.contains(page) || self.lost.contains(page) {
            return FaultAnswer::Poison;
        }
        let location = self.location(page);
        // Whoever reads A in place bears readers, but no store and no birth; where nothing can be published read-only, a load
        // is answered as a store is.
        let stores = write || !duplicates || location == Location::Absent;
        let blocking = |h: &&Hold| {
            h.mask.contains(page)
                && (h.kind == HoldKind::Exclusive || (h.kind == HoldKind::InPlace && stores))
        };
        if let Some(hold) = self.holds.iter().chain(&self.paged).find(blocking) {
            return FaultAnswer::Park(hold.op);
        }
        let in_place = self.holds_of(HoldKind::InPlace);
        let free = (extent & self.used).minus(&self.held_exclusive) | PageMask::single(page);
        let unread = free.minus(&in_place);
        match location {
            Location::Lost => FaultAnswer::Poison,
            Location::Absent => FaultAnswer::Born(unread & self.absent()),
            Location::Host if in_place.contains(page) => {
                // An admitted launch is about to copy it in: loads go on, stores wait.
                FaultAnswer::ReadOnly(free & in_place & self.host_valid)
            }
            Location::Host => FaultAnswer::ReadWrite(unread & self.host_valid.minus(&self.dev().valid)),
            Location::Shared if write => {
                // Only the sub-block of the store, and what is uploaded with it: other pages keep their duplicates.
                let sub = PageMask::single(page).rounded_to(self.geometry.pages_per_sub);
                let with = self.upload_with(page).minus(&self.held_exclusive).minus(&in_place);
                FaultAnswer::ReadWrite((unread & sub & self.host_valid) | with)
            }
            Location::Shared if duplicates => {
                FaultAnswer::ReadOnly(free & self.host_valid & self.dev().valid)
            }
            Location::Shared => FaultAnswer::ReadWrite(unread & self.host_valid),
            Location::Device if !self.has_room(1) => FaultAnswer::ParkFull,
            // An admitted launch is yet to say which of the pages it reads are copied in: none becomes Host meanwhile.
            Location::Device => FaultAnswer::Home(if stores { unread } else { free } & self.dirty()),
        }
    }

    /// Of `pages` those that can become Host and be shown read-write now, whatever touch they come with.
    pub fn storable(&self, pages: PageMask) -> PageMask {
        (pages & self.used & self.host_valid)
            .minus(&self.held_exclusive)
            .minus(&self.holds_of(HoldKind::InPlace))
    }

    /// Notes a touch that cannot be answered now.
    pub fn park(&mut self, page: u32, write: bool) {
        if write {
            self.parked_write.insert(&PageMask::single(page));
        } else {
            self.parked_read.insert(&PageMask::single(page));
        }
    }

    /// Takes a parked touch out, to be asked about again.
    pub fn take_parked(&mut self, page: u32, write: bool) {
        if write { &mut self.parked_write } else { &mut self.parked_read }.remove(&PageMask::single(page));
    }

    /// Absent → Host: the pages now have host pages of zeros.
    pub fn born(&mut self, mask: PageMask) {
        debug_assert!(self.absent().covers(&mask), "only absent pages are born");
        self.host_valid |= mask;
    }

    /// Shared → Host (and Host → Host): the CPU is about to write, so every device copy of the pages is stale.
    pub fn make_host(&mut self, mask: PageMask) {
        debug_assert!(self.host_valid.covers(&mask), "only pages with host bytes become Host without a copy");
        debug_assert!(!self.held_exclusive.intersects(&mask), "nobody else may hold what the CPU writes");
        let ended = self.dev().valid & mask;
        self.uploads.stored(ended);
        self.dev_mut().valid.remove(&mask);
    }

    /// R now shows these pages read-write.
    pub fn published_read_write(&mut self, mask: PageMask) {
        debug_assert!(
            self.host_valid.covers(&mask) && !self.dev().valid.intersects(&mask),
            "I2: writable means no device copy"
        );
        self.mapped |= mask;
        self.writable |= mask;
        self.evicted.remove(&mask);
        self.answered(mask);
    }

    /// R now shows these pages read-only.
    pub fn published_read_only(&mut self, mask: PageMask) {
        debug_assert!(self.host_valid.covers(&mask), "published means current");
        debug_assert!(!self.writable.intersects(&mask), "L0: publishing never weakens");
        self.mapped |= mask;
        self.parked_read.remove(&mask);
    }

    fn answered(&mut self, mask: PageMask) {
        self.parked_read.remove(&mask);
        self.parked_write.remove(&mask);
    }

    /// These pages are poisoned: nobody waits for them any more.
    pub fn poisoned(&mut self, mask: PageMask) {
        self.answered(mask);
        self.mapped.remove(&mask);
        self.writable.remove(&mask);
    }

    // ── R is weakened (only under a borrow: L0) ──────────────────────────────────────────────────────────────────────────

    /// R no longer shows these pages.
    pub fn revoked(&mut self, mask: PageMask) {
        self.mapped.remove(&mask);
        self.writable.remove(&mask);
    }

    /// R shows these pages read-only at most.
    pub fn protected(&mut self, mask: PageMask) {
        self.writable.remove(&mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::LaunchMasks;
    use crate::units::{FrameIndex, Geometry};

    #[test]
    fn what_an_admitted_launch_reads_does_not_become_host_with_its_neighbour() {
        let geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };
        let (both, sub) = (PageMask::range(0..2), PageMask::range(0..4));
        let mut block = Block::new(geometry, PageMask::range(0..8));
        block.set_frame(0, FrameIndex(0));
        let masks = LaunchMasks { overwrite: both, ..LaunchMasks::default() };
        block.launch_hold(OpId(1), OpId(2), &masks);
        block.launch_commit(OpId(2), &masks);
        assert!(block.finish(OpId(1)));
        // It has its holds, and has yet to say what it copies in.
        let masks = LaunchMasks { read: PageMask::single(1), ..LaunchMasks::default() };
        block.launch_hold(OpId(3), OpId(4), &masks);
        assert_eq!(block.fault(0, true, sub, true), FaultAnswer::Home(PageMask::single(0)));
        assert_eq!(block.fault(0, false, sub, false), FaultAnswer::Home(PageMask::single(0)));
        // Who only loads leaves the device's copies valid.
        assert_eq!(block.fault(0, false, sub, true), FaultAnswer::Home(both));
    }
}
