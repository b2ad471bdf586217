//! Discard: the contents of pages are dead, so nothing is copied home.

use super::Block;
use crate::mask::PageMask;

impl Block {
    /// Device, Shared → Host: the bytes in A stand for the pages from now on, whatever they are (they were this allocation's, or are
    /// zeros). Whoever still works on the frames does so to no effect, under its holds. Pages on their way home go on being so.
    /// Returns the pages that changed, and of these whose copy home is saved.
    pub fn discard(&mut self, pages: PageMask) -> (PageMask, PageMask) {
        let pages = (pages & self.dev().valid).minus(&self.moving());
        let saved = self.dirty() & pages;
        self.host_valid |= pages;
        self.evicted.remove(&pages);
        self.dev_mut().valid.remove(&pages);
        (pages, saved)
    }
}

#[cfg(test)]
mod tests {
    use crate::block::{Block, Cause, FaultAnswer, LaunchMasks};
    use crate::check::check;
    use crate::mask::PageMask;
    use crate::pagemap::Location;
    use crate::units::{FrameIndex, Geometry, OpId};

    const GEOMETRY: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

    #[test]
    fn what_is_discarded_needs_no_copy_and_its_neighbours_do() {
        let mut block = Block::new(GEOMETRY, PageMask::range(0..8));
        block.set_frame(0, FrameIndex(0));
        block.set_frame(1, FrameIndex(1));
        let masks = LaunchMasks {
            overwrite: PageMask::range(0..6),
            read: PageMask::range(6..8),
            ..LaunchMasks::default()
        };
        block.launch_hold(OpId(1), OpId(2), &masks);
        block.launch_commit(OpId(2), &masks);
        // The kernel runs: who touches what was discarded waits for it, and needs no copy then.
        let dead = PageMask::range(2..7);
        assert_eq!(block.discard(dead), (dead, PageMask::range(2..6)));
        assert_eq!(check(&block), Ok(()));
        assert_eq!(block.dirty(), PageMask::range(0..2));
        assert_eq!(block.fault(2, false, PageMask::range(0..8), true), FaultAnswer::Park(OpId(1)));
        block.finish(OpId(1));
        block.finish(OpId(2));
        let all = PageMask::range(0..8);
        assert_eq!(block.fault(2, false, all, true), FaultAnswer::ReadWrite(dead));
        assert_eq!(block.fault(0, false, all, true), FaultAnswer::Home(PageMask::range(0..2)));
        // A launch that reads it has it copied in again.
        let masks = LaunchMasks { read: PageMask::range(0..3), ..LaunchMasks::default() };
        block.take_parked(2, false);
        block.launch_hold(OpId(3), OpId(4), &masks);
        assert_eq!(block.launch_commit(OpId(4), &masks).copy_in, PageMask::single(2));
    }

    #[test]
    fn bytes_on_their_way_home_arrive() {
        let mut block = Block::new(GEOMETRY, PageMask::range(0..8));
        block.set_frame(0, FrameIndex(0));
        let masks = LaunchMasks { overwrite: PageMask::range(0..4), ..LaunchMasks::default() };
        block.launch_hold(OpId(1), OpId(2), &masks);
        block.launch_commit(OpId(2), &masks);
        block.finish(OpId(1));
        block.begin_home(OpId(3), PageMask::range(0..2), true, Cause::Fault);
        assert_eq!(block.discard(PageMask::range(1..3)), (PageMask::single(2), PageMask::single(2)));
        assert_eq!(check(&block), Ok(()));
        assert_eq!(block.location(1), Location::Shared);
        assert_eq!(block.location(2), Location::Host);
    }
}
