//! Scattered ranges: gaps filled with frames of any place, and uses noted per range instead of per span.
//!
//! A span of a scattered range is one run of frames within one unit. A gap takes the shortest free run that has room for all of it,
//! else the longest there is, so that binds are few; frames that wait for nobody go first, then those that wait, then victims'.

use super::super::arena::Tenant;
use super::super::intervals::Intervals;
use super::super::subset::SubSet;
use super::super::{Binding, Plan};
use super::hands::Victims;
use super::{Span, SpanPlacement};
use crate::units::{FrameIndex, FrameRun, OpId, RangeId};
use crate::uses::Uses;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

/// Uses noted before the spans are told; bounds what a note costs.
const NOTES_MAX: usize = 64;

/// What is known of a scattered range as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Scatter {
    /// How many spans it has, those of open plans among them.
    pub(super) spans: u32,
    /// Sub-blocks in committed spans.
    pub(super) there: Intervals,
    /// Uses that the spans have not been told of, oldest first.
    notes: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    subs: Range<u32>,
    now: u64,
    written: bool,
}

impl Scatter {
    /// Notes a use; answers whether the spans are to be told now.
    pub(super) fn note(&mut self, subs: Range<u32>, now: u64, written: bool) -> bool {
        // Launches repeat: what this one says again, or says more of, need not be said before.
        let again = |old: &Note| subs.start <= old.subs.start && old.subs.end <= subs.end && old.now <= now;
        self.notes.retain(|old| !(again(old) && (written || !old.written)));
        self.notes.push(Note { subs, now, written });
        self.notes.len() >= NOTES_MAX
    }

    pub(super) fn settled(&self) -> bool {
        self.notes.is_empty()
    }
}

/// Runs of frames to take from, in order of length.
struct Pool {
    runs: BTreeSet<(u32, FrameIndex)>,
}

impl Pool {
    fn new(runs: &[FrameRun]) -> Self {
        Self { runs: runs.iter().map(|run| (run.count, run.first)).collect() }
    }

    /// Up to `most` frames, at least one: of the shortest run that has as many, else all of the longest.
    fn take(&mut self, most: u32) -> Option<FrameRun> {
        let longest = self.runs.last()?.0;
        let (count, first) = *self.runs.range((longest.min(most), FrameIndex(0))..).next()?;
        self.runs.remove(&(count, first));
        let taken = count.min(most);
        if taken < count {
            self.runs.insert((count - taken, FrameIndex(first.0 + taken)));
        }
        Some(FrameRun { first, count: taken })
    }
}

impl SpanPlacement {
    /// How many of `subs` are in no span.
    pub(super) fn missing(&self, range: RangeId, subs: &Range<u32>) -> u32 {
        if self.scattered.get(&range).is_some_and(|scatter| scatter.there.covers(subs)) {
            return 0;
        }
        let there: u32 = self.overlapping(range, subs.clone()).map(|span| span.frames_of(subs).count).sum();
        subs.end - subs.start - there
    }

    /// Frames that any plan may claim without a victim.
    pub(super) fn claimable(&self) -> u32 {
        let free = self.arena.unowned().filter(|(_, tenant)| matches!(tenant, Tenant::Free(_)));
        free.map(|(run, _)| run.count).sum()
    }

    /// What `op` needs and is there, it uses; what is not there is a gap. Where frames are `tight`, a span that reaches beyond the
    /// need is given up, and its part of the need is a gap, too.
    pub(super) fn join_scattered(
        &mut self,
        op: OpId,
        (range, need): (RangeId, &Range<u32>),
        tight: bool,
        gaps: &mut Vec<(RangeId, Range<u32>)>,
        plan: &mut Plan,
    ) {
        let mut at = need.start;
        for id in self.ids(range, need) {
            let Some(span) = self.spans.get(&id) else { continue };
            let (subs, movable) = (span.subs.clone(), span.movable());
            if tight && movable && (subs.start < need.start || need.end < subs.end) {
                self.give_up(op, id, plan);
                continue;
            }
            if at < subs.start {
                gaps.push((range, at..subs.start));
            }
            at = subs.end;
            self.join(op, id);
        }
        if at < need.end {
            gaps.push((range, at..need.end));
        }
    }

    /// Claims frames for the gaps and binds them; `None` if there are too few.
    pub(super) fn fill_gaps(
        &mut self,
        op: OpId,
        mut gaps: Vec<(RangeId, Range<u32>)>,
        victims: &mut Victims,
        plan: &mut Plan,
    ) -> Option<()> {
        let need: u32 = gaps.iter().map(|(_, gap)| gap.end - gap.start).sum();
        if need == 0 {
            return Some(());
        }
        let claimable = self.arena.unowned().filter(|(_, tenant)| tenant.claimable(op));
        let mut have: u32 = claimable.map(|(run, _)| run.count).sum();
        // With victims, all that is free is used anyway: as one, since that has the longest runs.
        let all = have < need;
        while have < need {
            let id = self.victim(victims)?;
            have += self.give_up(op, id, plan);
        }
        let mut idle = Pool::new(&self.arena.unowned_runs(|tenant| tenant.idle() && !all));
        let waits = |tenant: &Tenant| tenant.claimable(op) && (all || !tenant.idle());
        let mut waiting = Pool::new(&self.arena.unowned_runs(waits));
        // Longest first; equally long ones in order of range.
        gaps.sort_by_key(|(_, gap)| Reverse(gap.end - gap.start));
        let mut binds = Vec::new();
        for (range, gap) in gaps {
            let mut at = gap.start;
            while at < gap.end {
                let left = gap.end - at;
                let frames = idle.take(left).or_else(|| waiting.take(left)).expect("the frames were counted");
                let subs = at..at + frames.count;
                at = subs.end;
                self.clear(op, frames, plan);
                self.make_spans(op, range, subs.clone(), frames.first);
                binds.push(Binding { range, subs, frames });
            }
        }
        binds.sort_by_key(|bind| (bind.range, bind.subs.start));
        for bind in binds {
            match plan.binds.last_mut() {
                Some(last)
                    if (last.range, last.subs.end, last.frames.end())
                        == (bind.range, bind.subs.start, bind.frames.first.0)
                        && !self.arena.starts_piece(bind.frames.first) =>
                {
                    last.subs.end = bind.subs.end;
                    last.frames.count += bind.frames.count;
                }
                _ => plan.binds.push(bind),
            }
        }
        Some(())
    }

    /// Makes spans of `subs`, unit by unit, in frames from `first` on.
    fn make_spans(&mut self, op: OpId, range: RangeId, subs: Range<u32>, first: FrameIndex) {
        let mut at = subs.start;
        while at < subs.end {
            let end = subs.end.min((at / self.unit + 1).saturating_mul(self.unit));
            let frames = FrameRun { first: FrameIndex(first.0 + (at - subs.start)), count: end - at };
            let span = Span {
                id: self.new_id(),
                range,
                subs: at..end,
                frames,
                scattered: true,
                last_use: self.now,
                dirty: SubSet::default(),
                uses: Uses::NONE,
                queued: Vec::from([op]),
                pins: 0,
                plan: Some(op),
            };
            self.insert_fresh(op, span);
            at = end;
        }
    }

    /// Tells the spans of all ranges what was noted. Before spans are given up, so that an abort brings all of it back.
    pub(super) fn settle(&mut self) {
        let noted = self.scattered.iter().filter(|(_, scatter)| !scatter.settled());
        let ranges: Vec<RangeId> = noted.map(|(range, _)| *range).collect();
        ranges.into_iter().for_each(|range| self.settle_range(range));
    }

    pub(super) fn settle_range(&mut self, range: RangeId) {
        let Some(scatter) = self.scattered.get_mut(&range) else { return };
        for Note { subs, now, written } in core::mem::take(&mut scatter.notes) {
            self.stamp(range, subs, now, written);
        }
    }

    /// Tells the spans that have some of `subs` that they were used.
    pub(super) fn stamp(&mut self, range: RangeId, subs: Range<u32>, now: u64, written: bool) {
        for id in self.ids(range, &subs) {
            let Some(span) = self.spans.get_mut(&id) else { continue };
            span.last_use = span.last_use.max(now);
            if written {
                span.dirty.insert(subs.start.max(span.subs.start)..subs.end.min(span.subs.end));
            }
        }
    }
}
