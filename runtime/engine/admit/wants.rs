//! What a launch wants of placement: its arguments, as runs of sub-blocks that need one place each.

use crate::{Argument, Engine, LaunchSpec, Ports};
use alloc::vec::Vec;
use core::ops::Range;
use vkhmm_core::placement::Want;
use vkhmm_core::units::RangeId;

/// Which want has a sub-block. They are disjoint, and in order.
pub(super) fn want_of(wants: &[Want], range: RangeId, sub: u32) -> Option<usize> {
    let before = wants.partition_point(|want| (want.range, want.subs.start) <= (range, sub));
    let at = before.checked_sub(1)?;
    (wants[at].range == range && wants[at].subs.contains(&sub)).then_some(at)
}

impl<P: Ports> Engine<P> {
    /// One want per range and neighbourhood, in order: arguments that overlap, touch or share a block need one span. Also says which
    /// want each argument is part of.
    ///
    /// A `round` has many arguments, and pays for what it holds: where frames come singly a want is what is held; in spans it is whole
    /// blocks, one by one, so that no span of a round overlaps another one's in part. There none of its arguments crosses a block.
    pub(crate) fn wants(&self, spec: &LaunchSpec<P>, round: bool) -> (Vec<Want>, Vec<Option<usize>>) {
        let g = self.config.geometry;
        let per_block = g.subs_per_block();
        let want = |argument: &Argument<P>| {
            let range = argument.framed()?;
            let (scattered, mut subs) = (range.is_sparse(), argument.subs(g.frame_bytes()));
            let range_subs = range.bytes.div_ceil(g.frame_bytes()) as u32;
            if round && !scattered {
                let end = subs.end.next_multiple_of(per_block);
                subs = subs.start - subs.start % per_block..range_subs.min(end);
            }
            Some(Want { range: range.id, range_subs, subs, scattered })
        };
        let mut all: Vec<Want> = spec.arguments.iter().filter_map(want).collect();
        all.sort_unstable_by_key(|want| (want.range, want.subs.start));
        let unit = if round { 1 } else { per_block };
        let units = |subs: &Range<u32>| subs.start / unit..subs.end.div_ceil(unit);
        let mut wants: Vec<Want> = Vec::with_capacity(all.len());
        for want in all {
            match wants.last_mut() {
                Some(last) if last.range == want.range && units(&want.subs).start < units(&last.subs).end => {
                    last.subs.end = last.subs.end.max(want.subs.end);
                }
                _ => wants.push(want),
            }
        }
        let part_of = |argument: &Argument<P>| {
            let first = argument.subs(g.frame_bytes()).start;
            argument.framed().and_then(|range| want_of(&wants, range.id, first))
        };
        let of_argument = spec.arguments.iter().map(part_of).collect();
        (wants, of_argument)
    }
}
