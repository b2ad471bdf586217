//! How a launch is placed: attempts from the best to the last resort, each undone if it fails.

use super::super::arena::Tenant;
use super::super::{AdmitError, Plan, SpanId, Want};
use super::hands::Victims;
use super::{Before, Record, Span, SpanPlacement};
use crate::units::{FrameRun, OpId, RangeId};
use crate::uses::Uses;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Range;

/// The part of the limit that a home may take where not all fits.
const HOME_SHARE: u32 = 8;

/// What a launch needs of one range.
pub(super) struct Group {
    range: RangeId,
    range_subs: u32,
    /// Ascending and disjoint.
    needs: Vec<Range<u32>>,
    /// Whether to place all of the range.
    pub(super) home: bool,
    /// Any frames will do.
    scattered: bool,
}

impl Group {
    fn needed(&self) -> u32 {
        self.needs.iter().map(|need| need.end - need.start).sum()
    }
}

/// How far an attempt goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Sub-blocks with a new span move there by device copy.
    Move,
    /// They may be evicted, too, and copied in again; so may scattered spans that reach beyond the need.
    Refetch,
    /// Everything that may go goes, then all is packed.
    Everything,
}

impl SpanPlacement {
    pub(super) fn plan_launch(&mut self, op: OpId, wants: &[Want], now: u64) -> Result<Plan, AdmitError> {
        assert!(!self.ops.contains_key(&op), "operation {} was admitted before", op.0);
        let mut groups = self.groups(wants);
        self.check_apart(&groups)?;
        let before = self.now;
        self.now = self.now.max(now);
        if self.needs_victims(&groups) {
            self.settle();
        }
        loop {
            for reach in [Reach::Move, Reach::Refetch] {
                if let Some(plan) = self.attempt(op, &groups, wants, reach) {
                    return Ok(self.known(&groups, plan));
                }
            }
            // The home that costs most beyond the need goes first.
            let homes = groups.iter_mut().filter(|group| group.home);
            let Some(group) = homes.max_by_key(|group| group.range_subs - group.needed()) else { break };
            group.home = false;
        }
        // Where all are scattered, there is nothing to pack.
        if groups.iter().any(|group| !group.scattered) {
            if let Some(plan) = self.attempt(op, &groups, wants, Reach::Everything) {
                return Ok(self.known(&groups, plan));
            }
        }
        self.now = before;
        Err(self.refusal(&groups))
    }

    pub(super) fn known(&mut self, groups: &[Group], plan: Plan) -> Plan {
        self.lengths.extend(groups.iter().map(|group| (group.range, group.range_subs)));
        plan
    }

    pub(super) fn groups(&self, wants: &[Want]) -> Vec<Group> {
        let mut by_range: BTreeMap<RangeId, Group> = BTreeMap::new();
        for Want { range, range_subs, subs, scattered } in wants {
            assert!(
                subs.start < subs.end && subs.end <= *range_subs,
                "want {subs:?} of a range of {range_subs}"
            );
            let group = by_range.entry(*range).or_insert_with(|| Group {
                range: *range,
                range_subs: *range_subs,
                needs: Vec::new(),
                home: false,
                scattered: *scattered,
            });
            assert_eq!(group.scattered, *scattered, "{range:?} is scattered or not");
            group.needs.push(subs.clone());
        }
        let mut groups: Vec<Group> = by_range.into_values().collect();
        let all_fit = self.all_fit(groups.iter().map(|group| (group.range, group.range_subs)));
        for group in &mut groups {
            let scattered = group.scattered;
            group.needs.sort_by_key(|need| need.start);
            group.needs.dedup_by(|next, need| {
                // Scattered neighbours are filled as one, so that their frames are neighbours, too.
                let overlap = next.start < need.end || (scattered && next.start == need.end);
                if overlap {
                    need.end = need.end.max(next.end);
                }
                overlap
            });
            group.home = !group.scattered
                && !self.covers_all(group)
                && (all_fit || self.is_small(group.range_subs))
                && self.overlapping(group.range, 0..group.range_subs).all(Span::movable)
                && self.owed(group.range, &(0..group.range_subs)).next().is_none();
        }
        groups
    }

    /// Whether all ranges known and `more` fit the limit together.
    fn all_fit(&self, more: impl Iterator<Item = (RangeId, u32)>) -> bool {
        let known: u64 = self.lengths.values().map(|subs| u64::from(*subs)).sum();
        let new = more.filter(|(range, _)| !self.lengths.contains_key(range));
        known + new.map(|(_, subs)| u64::from(subs)).sum::<u64>() <= u64::from(self.limit)
    }

    /// Whether a range may have a home beside more than fits.
    fn is_small(&self, range_subs: u32) -> bool {
        range_subs <= self.limit / HOME_SHARE
    }

    /// Whether a want's range would get frames for all of itself.
    pub fn offers_home(&self, want: &Want) -> bool {
        let one = core::iter::once((want.range, want.range_subs));
        !want.scattered && (self.is_small(want.range_subs) || self.all_fit(one))
    }

    /// Whether the plan may have to give up spans.
    fn needs_victims(&self, groups: &[Group]) -> bool {
        let mut missing = 0_u32;
        for group in groups {
            match group.scattered {
                true => missing = missing.saturating_add(self.missing_of(group)),
                false if self.covers_all(group) => {}
                false => return true,
            }
        }
        missing > self.claimable() || missing.saturating_add(self.owned) > self.limit
    }

    fn missing_of(&self, group: &Group) -> u32 {
        group.needs.iter().map(|need| self.missing(group.range, need)).sum()
    }

    fn covers_all(&self, group: &Group) -> bool {
        group.needs.iter().all(|need| self.covering(group.range, need).is_some())
    }

    /// The open plans that took some of `subs` and would bring them back if aborted: nobody else may place them till then.
    fn owed<'a>(&'a self, range: RangeId, subs: &'a Range<u32>) -> impl Iterator<Item = OpId> + 'a {
        let takes = move |before: &Before| match before {
            Before::Span(span) => {
                span.range == range && span.subs.start < subs.end && subs.start < span.subs.end
            }
            Before::Free { .. } => false,
        };
        self.ops.iter().filter(move |(_, record)| record.log.iter().any(takes)).map(|(op, _)| *op)
    }

    /// Refuses needs whose sub-blocks cannot be brought together: some are pinned, or in use by queued operations.
    pub(super) fn check_apart(&self, groups: &[Group]) -> Result<(), AdmitError> {
        let mut ops = Vec::new();
        for group in groups {
            for need in &group.needs {
                let covered = match group.scattered {
                    true => self.missing(group.range, need) == 0,
                    false => self.covering(group.range, need).is_some(),
                };
                if !covered {
                    ops.extend(self.owed(group.range, need));
                }
                for span in self.overlapping(group.range, need.clone()) {
                    ops.extend(span.plan);
                    if covered || group.scattered {
                        continue;
                    }
                    if span.pins > 0 {
                        let (range, subs, pinned) = (group.range, need.clone(), span.subs.clone());
                        return Err(AdmitError::PinnedApart { range, subs, pinned });
                    }
                    ops.extend(&span.queued);
                }
            }
        }
        if ops.is_empty() { Ok(()) } else { Err(must_wait(ops)) }
    }

    pub(super) fn attempt(
        &mut self,
        op: OpId,
        groups: &[Group],
        wants: &[Want],
        reach: Reach,
    ) -> Option<Plan> {
        let next_span = self.next_span;
        self.ops.insert(op, Record::default());
        let mut plan = Plan::default();
        if self.fill(op, groups, reach, &mut plan).is_none() {
            self.undo(op);
            self.next_span = next_span;
            return None;
        }
        plan.placed = wants
            .iter()
            .map(|want| match want.scattered {
                true => self.scattered_place(want.range, &want.subs),
                false => self.covering(want.range, &want.subs).expect("every want was placed").placed(),
            })
            .collect();
        Some(plan)
    }

    /// Does one attempt; on `None` the caller undoes it.
    fn fill(&mut self, op: OpId, groups: &[Group], reach: Reach, plan: &mut Plan) -> Option<()> {
        if reach == Reach::Everything {
            let all: Vec<SpanId> =
                self.spans.values().filter(|span| span.movable()).map(|span| span.id).collect();
            for id in all {
                self.give_up(op, id, plan);
            }
        }
        let (mut extents, mut gaps) = (Vec::new(), Vec::new());
        for group in groups {
            if group.scattered {
                for need in &group.needs {
                    self.join_scattered(op, (group.range, need), reach != Reach::Move, &mut gaps, plan);
                }
                continue;
            }
            if group.home {
                extents.push((group.range, 0..group.range_subs));
                continue;
            }
            for need in &group.needs {
                match self.covering(group.range, need).map(|span| span.id) {
                    Some(id) => self.join(op, id),
                    None => extents.push((group.range, need.clone())),
                }
            }
        }
        // Longest first; equally long ones in order of range.
        extents.sort_by_key(|(_, subs): &(_, Range<u32>)| core::cmp::Reverse(subs.end - subs.start));
        let mut victims = Victims::default();
        if reach == Reach::Move {
            for (range, subs) in &extents {
                victims.sources.extend(self.overlapping(*range, subs.clone()).map(|span| span.id));
            }
        }
        let mut runs = Vec::new();
        for (_, subs) in &extents {
            let run = self.room(op, subs.end - subs.start, reach, &victims.sources)?;
            runs.push(self.claim(op, run, plan));
        }
        // Before anything moves: what moves is read from where it was.
        self.fill_gaps(op, gaps, &mut victims, plan)?;
        for ((range, subs), (id, run)) in extents.into_iter().zip(runs) {
            let dirty = self.carve(op, range, &subs, run, plan);
            let queued = Vec::from([op]);
            let last_use = self.now;
            self.insert_fresh(
                op,
                Span {
                    id,
                    range,
                    subs,
                    frames: run,
                    scattered: false,
                    last_use,
                    dirty,
                    uses: Uses::NONE,
                    queued,
                    pins: 0,
                    plan: Some(op),
                },
            );
        }
        while self.owned > self.limit {
            let id = self.victim(&mut victims)?;
            self.give_up(op, id, plan);
        }
        Some(())
    }

    /// Frames for a new span: free ones, else the cheapest window.
    fn room(&self, op: OpId, count: u32, reach: Reach, sources: &BTreeSet<SpanId>) -> Option<FrameRun> {
        let free = self.arena.room(op, count);
        if free.is_some() || reach == Reach::Everything {
            return free;
        }
        self.arena.window(count, |tenant| match tenant {
            Tenant::Span(id) => {
                let span = self.spans.get(id)?;
                (span.movable() && !sources.contains(id)).then(|| self.price(span))
            }
            _ => tenant.claimable(op).then_some(0),
        })
    }

    /// Why nothing helped.
    fn refusal(&self, groups: &[Group]) -> AdmitError {
        // With queued operations done, only pinned spans stand; do the needs fit beside them?
        let pinned = |id: &SpanId| self.spans.get(id).is_some_and(|span| span.pins > 0);
        let blocks = |tenant: &Tenant| matches!(tenant, Tenant::Span(id) if pinned(id));
        let (mut lengths, mut need) = (Vec::new(), 0_u32);
        for group in groups {
            for subs in &group.needs {
                let pinned = self.overlapping(group.range, subs.clone()).filter(|span| span.pins > 0);
                let there: u32 = pinned.map(|span| span.frames_of(subs).count).sum();
                let open = subs.end - subs.start - there;
                need = need.saturating_add(open);
                if !group.scattered && open > 0 {
                    lengths.push(open);
                }
            }
        }
        lengths.sort_by_key(|length| core::cmp::Reverse(*length));
        let held = self.pinned;
        let have = self.arena.total().min(self.limit).saturating_sub(held);
        if need <= have && self.arena.fits(&lengths, blocks) {
            let queued = self.spans.values().flat_map(|span| span.queued.iter().copied().chain(span.plan));
            let open = self.ops.iter().filter(|(_, record)| !record.committed).map(|(op, _)| *op);
            let ops: Vec<OpId> = queued.chain(open).collect();
            if !ops.is_empty() {
                return must_wait(ops);
            }
        }
        let largest_run = self.arena.runs(blocks).iter().map(|run| run.count).max().unwrap_or(0);
        AdmitError::TooLarge { need, have, limit: self.limit, held, largest_run }
    }
}

fn must_wait(mut ops: Vec<OpId>) -> AdmitError {
    ops.sort_unstable();
    ops.dedup();
    AdmitError::MustWait { ops }
}
