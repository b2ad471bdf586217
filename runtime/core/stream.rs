//! How much to serve with one CPU touch: a sub-block at first, doubling while touches follow each other.

use crate::mask::PageMask;
use crate::units::{Geometry, PageIndex};

/// Per range: where a sequential toucher would come next, and how much it got last time.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    next: PageIndex,
    pages: u32,
}

impl Stream {
    /// Nothing was touched yet.
    pub const fn new() -> Self {
        Self { next: PageIndex(u64::MAX), pages: 0 }
    }

    /// The pages of `page`'s block to serve together: its sub-block when the touch comes out of nowhere (so random touches
    /// commit no more than that), twice the last run when it is where the last run ended.
    pub fn extent(&mut self, page: PageIndex, geometry: Geometry) -> PageMask {
        let sub = geometry.pages_per_sub;
        let in_block = geometry.page_in_block(page);
        let start = in_block / sub * sub;
        let block_start = geometry.first_page(geometry.block_of(page)).0;
        let follows = self.next.0 == block_start + u64::from(start);
        self.pages = if follows { (self.pages * 2).min(geometry.pages_per_block) } else { sub };
        let end = (start + self.pages).min(geometry.pages_per_block);
        self.next = PageIndex(block_start + u64::from(end));
        PageMask::range(start..end)
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_while_sequential_and_falls_back_on_a_jump() {
        let g = Geometry::PRODUCTION;
        let mut s = Stream::new();
        let mut at = 0;
        let mut sizes = alloc::vec::Vec::new();
        while at < 1024 {
            let got = s.extent(PageIndex(at), g).count();
            sizes.push(got);
            at += u64::from(got);
        }
        assert_eq!(sizes, [16, 32, 64, 128, 256, 16, 512]);
        assert_eq!(s.extent(PageIndex(5000), g).count(), 16);
    }
}
