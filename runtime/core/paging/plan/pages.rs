//! A set of sub-blocks of several ranges, what is to be done with each, and the frames that they take.

use super::PagedRange;
use crate::paging::layout::{READ, WRITE};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// A sub-block: its range, and its place there.
pub(super) type Sub = (u32, u32);

/// See the file.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// By range and sub-block: [`READ`], [`WRITE`], both, or zero where it is not in the set.
    access: Vec<Vec<u8>>,
    /// By range and block: whether its frames are taken.
    blocks: Vec<Vec<bool>>,
    /// By range and sub-block: it takes no frame, and is never in the set.
    remote: Vec<Vec<bool>>,
    /// Everything in the set, in order of its coming.
    list: Vec<Sub>,
    /// Frames, by range.
    frames: Vec<u32>,
    /// Frames of all.
    cost: u32,
}

impl Pages {
    pub(super) fn new(ranges: &[PagedRange]) -> Self {
        let blocks = |range: &PagedRange| range.subs.div_ceil(range.subs_per_block) as usize;
        Self {
            access: ranges.iter().map(|range| vec![0; range.subs as usize]).collect(),
            blocks: ranges.iter().map(|range| vec![false; blocks(range)]).collect(),
            remote: ranges.iter().map(|range| vec![false; range.subs as usize]).collect(),
            list: Vec::new(),
            frames: vec![0; ranges.len()],
            cost: 0,
        }
    }

    pub(super) fn clear(&mut self, ranges: &[PagedRange]) {
        for (range, sub) in self.list.drain(..) {
            let (at, per_block) = (range as usize, ranges[range as usize].subs_per_block);
            self.access[at][sub as usize] = 0;
            self.blocks[at][(sub / per_block) as usize] = false;
        }
        self.frames.fill(0);
        self.cost = 0;
    }

    /// Puts a sub-block in, or asks for more of one that is in; not if all would then take more than `budget` frames. Whether it is in,
    /// and whether that is new.
    pub(super) fn add(
        &mut self,
        ranges: &[PagedRange],
        (range, sub): Sub,
        access: u32,
        budget: u32,
    ) -> (bool, bool) {
        let (at, of) = (range as usize, &ranges[range as usize]);
        if self.remote[at][sub as usize] {
            return (true, false);
        }
        let block = sub / of.subs_per_block;
        if !self.blocks[at][block as usize] {
            let frames = of.subs_per_block.min(of.subs - block * of.subs_per_block);
            if frames > budget.saturating_sub(self.cost) {
                return (false, false);
            }
            self.blocks[at][block as usize] = true;
            self.frames[at] += frames;
            self.cost += frames;
        }
        let known = &mut self.access[at][sub as usize];
        let before = *known;
        *known |= (access & (READ | WRITE)) as u8;
        if before == 0 {
            self.list.push((range, sub));
        }
        (true, *known != before)
    }

    /// From now on these sub-blocks, whole blocks, take no frames and are not in the set; or they may be again.
    pub(super) fn set_remote(&mut self, ranges: &[PagedRange], range: u32, subs: Range<u32>, remote: bool) {
        let (at, of) = (range as usize, &ranges[range as usize]);
        let per_block = of.subs_per_block;
        let whole = subs.start % per_block == 0 && (subs.end % per_block == 0 || subs.end == of.subs);
        assert!(whole, "sub-blocks {subs:?} are no whole blocks");
        self.remote[at][subs.start as usize..subs.end as usize].fill(remote);
        self.list.retain(|(theirs, sub)| *theirs != range || !subs.contains(sub));
        self.access[at][subs.start as usize..subs.end as usize].fill(0);
        for block in subs.start / per_block..subs.end.div_ceil(per_block) {
            if core::mem::take(&mut self.blocks[at][block as usize]) {
                let frames = per_block.min(of.subs - block * per_block);
                self.frames[at] -= frames;
                self.cost -= frames;
            }
        }
    }

    pub(super) fn access(&self, (range, sub): Sub) -> u32 {
        u32::from(self.access[range as usize][sub as usize])
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }

    /// Frames that a range takes.
    pub(super) fn frames(&self, range: usize) -> u32 {
        self.frames[range]
    }

    pub(super) fn list(&self) -> &[Sub] {
        &self.list
    }
}
