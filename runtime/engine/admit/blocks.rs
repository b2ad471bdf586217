//! What is to happen to which block: the launch's own pages, evictions, moves, new frames.

use super::wants::want_of;
use crate::launch::LaunchSpec;
use crate::range::RangeCell;
use crate::{Engine, Ports};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use vkhmm_core::block::{LaunchMasks, pages_of_sub};
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::{EvictGoal, Eviction, Plan, Want};
use vkhmm_core::units::{FrameIndex, RangeId};
use vkhmm_port::Mutex;

/// What is to happen to one block.
pub(crate) struct BlockPlan<P: Ports> {
    pub(crate) range: Arc<RangeCell<P>>,
    pub(crate) index: u32,
    /// The launch works on A itself.
    pub(crate) in_place: bool,
    /// The launch's own pages.
    pub(crate) masks: LaunchMasks,
    /// Pages whose device copies go.
    pub(crate) evict: PageMask,
    /// Sub-blocks that change frames: number and new frame.
    pub(crate) moves: Vec<(u32, FrameIndex)>,
    /// Frames of the launch's pages: sub-block and frame.
    pub(crate) frames: Vec<(u32, FrameIndex)>,
    /// How many of its pages R was to be taken from, or had no host page, when they were looked at last.
    pub(crate) to_take: u32,
}

/// By block of the reservation, so that locks are taken ascending.
pub(crate) type Blocks<P> = BTreeMap<u32, BlockPlan<P>>;

impl<P: Ports> BlockPlan<P> {
    /// Nothing.
    pub(crate) fn new(range: &Arc<RangeCell<P>>, index: u32) -> Self {
        Self {
            range: Arc::clone(range),
            index,
            in_place: false,
            masks: LaunchMasks::default(),
            evict: PageMask::EMPTY,
            moves: Vec::new(),
            frames: Vec::new(),
            to_take: 0,
        }
    }
}

impl<P: Ports> Engine<P> {
    fn plan_of<'a>(blocks: &'a mut Blocks<P>, range: &Arc<RangeCell<P>>, index: u32) -> &'a mut BlockPlan<P> {
        blocks.entry(range.first.0 + index).or_insert_with(|| BlockPlan::new(range, index))
    }

    pub(crate) fn argument_blocks(&self, spec: &LaunchSpec<P>) -> Blocks<P> {
        let mut blocks = Blocks::new();
        for argument in &spec.arguments {
            let Some(range) = argument.target() else { continue };
            let in_place = range.is_in_place();
            for (index, touched, covered) in range.cut(argument.bytes) {
                let plan = Self::plan_of(&mut blocks, range, index);
                plan.in_place = in_place;
                plan.masks.add(&argument.masks(touched, covered));
            }
        }
        blocks
    }

    /// Calls `each` with block, sub-block in it, and sub-block in the range.
    fn for_subs(&self, subs: &Range<u32>, mut each: impl FnMut(u32, u32, u32)) {
        let per_block = self.config.geometry.subs_per_block();
        subs.clone().for_each(|sub| each(sub / per_block, sub % per_block, sub));
    }

    /// The evictions that take a launch's own bytes; those of its neighbours may go with the launch.
    pub(super) fn own_evictions(&self, blocks: &Blocks<P>, evictions: &[Eviction]) -> Vec<EvictGoal> {
        let g = self.config.geometry;
        // Both may be thousands.
        let firsts: BTreeMap<RangeId, u32> =
            blocks.iter().map(|(at, plan)| (plan.range.id, at - plan.index)).collect();
        let mine = |e: &&Eviction| {
            let Some(first) = firsts.get(&e.range) else { return false };
            let mut mine = false;
            self.for_subs(&e.subs, |index, sub, _| {
                let plan = blocks.get(&(first + index));
                mine |= plan.is_some_and(|plan| pages_of_sub(sub, g).intersects(&plan.masks.all()));
            });
            mine
        };
        let goal = |e: &Eviction| EvictGoal::Within(e.range, e.subs.start, e.subs.end);
        evictions.iter().filter(mine).map(goal).collect()
    }

    /// False if a range is gone meanwhile: its frames come back by themselves.
    pub(super) fn add_evictions(&self, blocks: &mut Blocks<P>, evictions: &[Eviction]) -> bool {
        for eviction in evictions {
            let Some(range) = self.space.lock().get(eviction.range) else { return false };
            self.for_subs(&eviction.subs, |index, sub, _| {
                Self::plan_of(blocks, &range, index).evict |= pages_of_sub(sub, self.config.geometry);
            });
        }
        true
    }

    pub(super) fn add_moves(&self, blocks: &mut Blocks<P>, plan: &Plan) -> bool {
        for moved in &plan.moves {
            let Some(range) = self.space.lock().get(moved.range) else { return false };
            self.for_subs(&moved.subs, |index, sub, of_range| {
                let to = FrameIndex(moved.to.0 + (of_range - moved.subs.start));
                Self::plan_of(blocks, &range, index).moves.push((sub, to));
            });
        }
        true
    }

    pub(super) fn frames_of(
        &self,
        block: &BlockPlan<P>,
        wants: &[Want],
        plan: &Plan,
    ) -> Vec<(u32, FrameIndex)> {
        let per_block = self.config.geometry.subs_per_block();
        let all = block.masks.all();
        (0..per_block)
            .filter(|sub| pages_of_sub(*sub, self.config.geometry).intersects(&all))
            .filter_map(|sub| {
                let of_range = block.index * per_block + sub;
                let want = want_of(wants, block.range.id, of_range)?;
                Some((sub, plan.placed[want].frame_of(of_range)))
            })
            .collect()
    }
}
