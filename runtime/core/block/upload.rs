//! Uploads: pages that the host rewrites before the device has read their duplicate twice. A duplicate saved nothing there, and
//! ending it page by page cost a fault per sub-block; so next time the first store ends it for all of them.
//!
//! What is legal is little. A launch that reads was given `&`, so it may make R read-only and nothing more (L0): the pages do
//! become Shared, and the first store of each round faults. That store is the moment: the run is Host and writable at once, which
//! only strengthens R. It is a guess: pages that were not to be stored to lose a good duplicate, and are copied in once more. So
//! every eighth time one sub-block is left out; if no store comes to it before the device reads again, the block is asked anew.

use super::Block;
use crate::mask::PageMask;
use crate::uses::Uses;

/// Every so many guesses a sub-block is left out.
const WITNESS_EVERY: u8 = 8;

/// What a block remembers of its duplicates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uploads {
    /// Shared pages that the device has read once.
    once: PageMask,
    /// Pages whose last duplicate a store ended before it was read twice.
    moved: PageMask,
    /// The sub-block that was left out of the last guess.
    witness: PageMask,
    guesses: u8,
    /// What launches without holds had used when the last duplicates were made.
    seen: Uses,
}

impl Uploads {
    /// A launch reads `read`, and `copied` of it is copied in; it writes `exclusive`. `shared` are the duplicates from before.
    pub(super) fn launched(
        &mut self,
        read: PageMask,
        copied: PageMask,
        exclusive: PageMask,
        shared: PageMask,
    ) {
        if (self.witness & shared).intersects(&read) {
            self.moved = PageMask::EMPTY;
        }
        self.witness = PageMask::EMPTY;
        let again = read & shared | exclusive;
        self.once.remove(&again);
        self.moved.remove(&again);
        self.once |= copied & read;
    }

    /// A store ends the duplicates of `mask`.
    pub(super) fn stored(&mut self, mask: PageMask) {
        self.moved |= mask & self.once;
        self.moved.remove(&mask.minus(&self.once));
        self.once.remove(&mask);
    }
}

impl Block {
    /// Duplicates that a store to `page` ends with that page's own sub-block.
    pub(super) fn upload_with(&self, page: u32) -> PageMask {
        let (all, witness) = self.upload_guess(page);
        all.minus(&witness)
    }

    /// A store to `page` is answered: the guess that went with it counts.
    pub fn note_upload(&mut self, page: u32) {
        let (all, witness) = self.upload_guess(page);
        let of_page = PageMask::single(page).rounded_to(self.geometry.pages_per_sub);
        if of_page.covers(&all) {
            return;
        }
        self.uploads.guesses = self.uploads.guesses.wrapping_add(1);
        if !witness.is_empty() {
            self.uploads.witness = witness;
        }
    }

    /// What was uploaded with `page`, and, for one guess in [`WITNESS_EVERY`], a sub-block of it that tells whether the host still
    /// rewrites all of it.
    fn upload_guess(&self, page: u32) -> (PageMask, PageMask) {
        let of_page = PageMask::single(page).rounded_to(self.geometry.pages_per_sub);
        let all = self.uploads.moved & self.uploads.once & self.host_valid & self.dev().valid;
        if !all.contains(page) {
            return (PageMask::EMPTY, PageMask::EMPTY);
        }
        let is_tested = self.uploads.guesses.wrapping_add(1) % WITNESS_EVERY == 0;
        if of_page.covers(&all) || !is_tested {
            return (all, PageMask::EMPTY);
        }
        let last =
            all.minus(&of_page).runs().last().map_or(PageMask::EMPTY, |run| PageMask::single(run.end - 1));
        (all, last.rounded_to(self.geometry.pages_per_sub).minus(&of_page))
    }

    /// Duplicates were made while launches without holds had used `uses`.
    pub fn note_duplicates(&mut self, uses: &Uses) {
        self.uploads.seen = *uses;
    }

    /// Whether launches without holds may have read the block's duplicates again: then they are worth having.
    pub fn was_read_again(&mut self, uses: &Uses) -> bool {
        let again = self.uploads.seen != *uses;
        if again {
            self.uploads.once = PageMask::EMPTY;
            self.uploads.moved.remove(&self.devices[0].valid);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{FaultAnswer, LaunchMasks};
    use crate::units::{FrameIndex, Geometry, OpId};

    const G: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 16 };

    /// A block of four sub-blocks, born and writable.
    fn block() -> Block {
        let all = PageMask::range(0..16);
        let mut block = Block::new(G, all);
        (0..4).for_each(|sub| block.set_frame(sub, FrameIndex(sub)));
        block.born(all);
        block.published_read_write(all);
        block
    }

    fn read(block: &mut Block, pages: PageMask) -> u32 {
        let masks = LaunchMasks { read: pages, ..LaunchMasks::default() };
        block.launch_hold(OpId(1), OpId(2), &masks);
        block.protected(pages);
        let work = block.launch_commit(OpId(2), &masks);
        block.finish(OpId(1));
        block.finish(OpId(2));
        work.copy_in.count()
    }

    /// Stores to every page of `pages`: how many faults that took.
    fn store(block: &mut Block, pages: PageMask) -> u32 {
        let mut faults = 0;
        for page in pages.runs().flatten() {
            if block.writable().contains(page) {
                continue;
            }
            faults += 1;
            let FaultAnswer::ReadWrite(mask) =
                block.fault(page, true, PageMask::single(page).rounded_to(4), true)
            else {
                panic!("a duplicate ends at once")
            };
            block.make_host(mask);
            block.published_read_write(mask);
        }
        faults
    }

    #[test]
    fn what_is_rewritten_before_it_is_read_twice_takes_one_fault_a_round() {
        let (mut block, all) = (block(), PageMask::range(0..16));
        let rounds = (0..17).map(|_| {
            assert_eq!(read(&mut block, all), 16);
            store(&mut block, all)
        });
        let rounds: alloc::vec::Vec<u32> = rounds.collect();
        assert_eq!(
            rounds,
            [4, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2],
            "the witness is asked every eighth time"
        );
    }

    #[test]
    fn what_somebody_holds_is_not_uploaded_with_a_store() {
        let (mut block, all) = (block(), PageMask::range(0..16));
        read(&mut block, all);
        store(&mut block, all);
        read(&mut block, all);
        // It has its holds, and has yet to say what it copies in.
        let masks = LaunchMasks {
            read: PageMask::range(8..12),
            write: PageMask::range(13..14),
            ..LaunchMasks::default()
        };
        block.launch_hold(OpId(3), OpId(4), &masks);
        let free = all.minus(&masks.all());
        assert_eq!(block.fault(0, true, PageMask::range(0..4), true), FaultAnswer::ReadWrite(free));
    }

    #[test]
    fn what_is_read_twice_keeps_its_duplicates() {
        let (mut block, all) = (block(), PageMask::range(0..16));
        for _ in 0..5 {
            read(&mut block, all);
            assert_eq!(read(&mut block, all), 0);
            assert_eq!(store(&mut block, PageMask::single(5)), 1);
            assert_eq!(
                block.dirty().count() + block.device_valid().count(),
                12,
                "one sub-block of four is Host"
            );
        }
        // Likewise where the second reader took no hold.
        let mut uses = Uses::NONE;
        read(&mut block, all);
        store(&mut block, all);
        read(&mut block, all);
        uses.add(crate::units::Ticket { timeline: crate::units::Timeline(1), value: 3 });
        assert!(block.was_read_again(&uses));
        assert_eq!(store(&mut block, PageMask::single(5)), 1);
        assert_eq!(block.device_valid().count(), 12);
    }

    #[test]
    fn who_stops_rewriting_all_of_it_is_noticed() {
        let (mut block, all) = (block(), PageMask::range(0..16));
        for _ in 0..3 {
            read(&mut block, all);
            store(&mut block, all);
        }
        let copied = (0..20).map(|_| {
            let copied = read(&mut block, all);
            store(&mut block, PageMask::single(0));
            copied
        });
        let copied: alloc::vec::Vec<u32> = copied.collect();
        assert_eq!(copied[0], 16);
        let late = &copied[10..];
        assert!(late.iter().all(|pages| *pages == 4), "from then on a sub-block a round: {copied:?}");
    }
}
