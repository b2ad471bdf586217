//! The device is gone: what of a block is lost, and what keeps its bytes.

use super::{Block, HoldKind};
use crate::mask::PageMask;
use crate::units::FrameIndex;

impl Block {
    /// Pages whose only current bytes the device has, or is about to put into A, and what paged operations are to write, wherever it
    /// is between two rounds: what its loss would take.
    pub fn at_stake(&self) -> PageMask {
        (self.dirty() | self.moving() | self.written_in_place() | self.paged_written()) & self.used
    }

    /// Pages that unfinished launches write where they are. Old bytes and new ones lie there mixed until they are over.
    fn written_in_place(&self) -> PageMask {
        if self.in_place { self.holds_of(HoldKind::Exclusive) } else { PageMask::EMPTY }
    }

    /// The device is gone: what it alone had, what was on its way home, and what it was to write in place is lost; all else, also
    /// what it read in place, keeps its bytes. Every hold ends. Returns the pages lost now and whether it may still write to A (the
    /// range is then quarantined).
    pub fn lose(&mut self) -> (PageMask, bool) {
        let writes = !(self.moving() | self.written_in_place()).is_empty();
        let lost = self.at_stake();
        self.lost |= lost;
        self.host_valid.remove(&lost);
        let planes = self.dev_mut();
        planes.valid = PageMask::EMPTY;
        planes.frames = [FrameIndex::NONE; Self::SUBS_MAX];
        self.holds.clear();
        self.paged.clear();
        self.transfers.clear();
        // A guard keeps what is left: its pages are home, so none of them is lost.
        self.refresh_holds();
        (lost, writes)
    }
}
