//! The frames themselves: pieces, tiled without a gap by segments that each have one tenant, and the search for room in them.

use super::{Deps, SpanId};
use crate::units::{FrameIndex, FrameRun, OpId};
use crate::uses::Uses;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// Who has a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tenant {
    /// A span owns it.
    Span(SpanId),
    /// Nobody owns it; it may be written once the deps are over.
    Free(Deps),
    /// A plan that is not committed yet takes it from its owner: free for that plan, lost to everybody else.
    Held {
        /// Whose plan.
        op: OpId,
        /// What its last owner left.
        deps: Deps,
    },
}

impl Tenant {
    /// Whether nobody owns it and there is nothing to wait for.
    pub(super) fn idle(&self) -> bool {
        matches!(self, Self::Free(deps) if deps.is_none())
    }

    /// Whether the plan of `op` may claim it as it is.
    pub(super) fn claimable(&self, op: OpId) -> bool {
        match self {
            Self::Span(_) => false,
            Self::Free(_) => true,
            Self::Held { op: holder, .. } => *holder == op,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    count: u32,
    tenant: Tenant,
}

/// Neighbouring segments of one piece always differ in tenant, so the tiling of a given state is unique.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Arena {
    pieces: BTreeMap<u32, u32>,
    segments: BTreeMap<u32, Segment>,
    /// Where the segments without an owner start: what is searched most, and few beside thousands of small spans.
    unowned: BTreeSet<u32>,
}

impl Arena {
    pub(super) fn add_piece(&mut self, run: FrameRun) {
        let crosses = |(first, count): (&u32, &u32)| *first < run.end() && run.first.0 < first + count;
        assert!(run.count > 0 && !self.pieces.iter().any(crosses), "frames {run:?} were added before");
        self.pieces.insert(run.first.0, run.count);
        self.put(run.first.0, Segment { count: run.count, tenant: Tenant::Free(Deps::default()) });
    }

    /// Takes out a piece, which is one free segment.
    pub(super) fn remove_piece(&mut self, first: u32) {
        self.pieces.remove(&first);
        self.take_out(first);
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = FrameRun> + '_ {
        self.pieces.iter().map(|(first, count)| FrameRun { first: FrameIndex(*first), count: *count })
    }

    pub(super) fn total(&self) -> u32 {
        self.pieces.values().sum()
    }

    /// Whether a run that goes on at `frame` would cross into another piece.
    pub(super) fn starts_piece(&self, frame: FrameIndex) -> bool {
        self.pieces.contains_key(&frame.0)
    }

    /// The segments that nobody owns, ascending.
    pub(super) fn unowned(&self) -> impl Iterator<Item = (FrameRun, &Tenant)> + '_ {
        self.unowned.iter().filter_map(|at| {
            let segment = self.segments.get(at)?;
            Some((FrameRun { first: FrameIndex(*at), count: segment.count }, &segment.tenant))
        })
    }

    /// The segments that touch `run`, each cut to it.
    pub(super) fn over(&self, run: FrameRun) -> impl Iterator<Item = (FrameRun, &Tenant)> + '_ {
        let start = self.segments.range(..=run.first.0).next_back().map_or(run.first.0, |(at, _)| *at);
        self.segments.range(start..run.end()).filter_map(move |(at, segment)| {
            let from = run.first.0.max(*at);
            let to = run.end().min(at + segment.count);
            (from < to).then(|| (FrameRun { first: FrameIndex(from), count: to - from }, &segment.tenant))
        })
    }

    /// Gives `run`, which lies in one piece, to `tenant`, whoever had it.
    pub(super) fn set(&mut self, run: FrameRun, tenant: Tenant) {
        self.split(run.first.0);
        self.split(run.end());
        let inside: Vec<u32> = self.segments.range(run.first.0..run.end()).map(|(at, _)| *at).collect();
        for at in inside {
            self.take_out(at);
        }
        self.put(run.first.0, Segment { count: run.count, tenant });
        self.join(run.end());
        self.join(run.first.0);
    }

    /// Lets `change` look at the deps of every segment without an owner; it answers whether it changed them.
    pub(super) fn change_deps(&mut self, mut change: impl FnMut(&mut Deps) -> bool) {
        let mut changed = Vec::new();
        for at in &self.unowned {
            let Some(segment) = self.segments.get_mut(at) else { continue };
            if let Tenant::Free(deps) | Tenant::Held { deps, .. } = &mut segment.tenant {
                if change(deps) {
                    changed.push((*at, at + segment.count));
                }
            }
        }
        for (at, end) in changed.into_iter().rev() {
            self.join(end);
            self.join(at);
        }
    }

    /// What `op` holds becomes free: with the deps it had, `op` itself and `found`.
    pub(super) fn let_go(&mut self, op: OpId, found: &Uses) {
        let held: Vec<(FrameRun, Deps)> = self
            .unowned()
            .filter_map(|(run, tenant)| match tenant {
                Tenant::Held { op: holder, deps } if *holder == op => Some((run, deps.clone())),
                _ => None,
            })
            .collect();
        for (run, mut deps) in held {
            deps.add_op(op);
            deps.uses.merge(found);
            self.set(run, Tenant::Free(deps));
        }
    }

    /// The longest runs without an owner in which `meant` holds, in ascending order.
    pub(super) fn unowned_runs(&self, meant: impl Fn(&Tenant) -> bool) -> Vec<FrameRun> {
        let mut runs = Vec::new();
        for (part, _) in self.unowned().filter(|(_, tenant)| meant(tenant)) {
            self.append(&mut runs, part);
        }
        runs
    }

    /// Adds `run` to the end of `runs`: as a part of the last one, if it goes on there in the same piece.
    pub(super) fn append(&self, runs: &mut Vec<FrameRun>, run: FrameRun) {
        match runs.last_mut() {
            Some(last) if last.end() == run.first.0 && !self.starts_piece(run.first) => {
                last.count += run.count
            }
            _ => runs.push(run),
        }
    }

    /// The longest runs that contain no segment that `blocks`, in ascending order.
    pub(super) fn runs(&self, blocks: impl Fn(&Tenant) -> bool) -> Vec<FrameRun> {
        let mut runs = Vec::new();
        for (at, segment) in self.segments.iter().filter(|(_, segment)| !blocks(&segment.tenant)) {
            self.append(&mut runs, FrameRun { first: FrameIndex(*at), count: segment.count });
        }
        runs
    }

    /// `count` frames that `op` may claim as they are, from the shortest run that has them.
    pub(super) fn room(&self, op: OpId, count: u32) -> Option<FrameRun> {
        best_fit(&self.unowned_runs(|tenant| tenant.claimable(op)), count).map(|(_, run)| run)
    }

    /// The cheapest `count` neighbouring frames, where `cost` prices each segment as a whole (`None`: not to be had).
    pub(super) fn window(&self, count: u32, cost: impl Fn(&Tenant) -> Option<u64>) -> Option<FrameRun> {
        let mut best: Option<(u64, u32, u32)> = None;
        for piece in self.pieces() {
            let mut window: Vec<(FrameRun, u64)> = Vec::new();
            let (mut from, mut frames, mut price) = (0, 0, 0_u64);
            for (part, tenant) in self.over(piece) {
                let Some(cost) = cost(tenant) else {
                    (from, frames, price) = (window.len(), 0, 0);
                    continue;
                };
                window.push((part, cost));
                frames += part.count;
                price += cost;
                while frames - window[from].0.count >= count {
                    frames -= window[from].0.count;
                    price -= window[from].1;
                    from += 1;
                }
                let key = (price, frames.wrapping_sub(count), window[from].0.first.0);
                if frames >= count && best.is_none_or(|b| key < b) {
                    best = Some(key);
                }
            }
        }
        best.map(|(.., first)| FrameRun { first: FrameIndex(first), count })
    }

    /// Whether runs of these lengths (longest first) can be placed beside what `blocks`, in the order that placing takes.
    pub(super) fn fits(&self, lengths: &[u32], blocks: impl Fn(&Tenant) -> bool) -> bool {
        let mut runs = self.runs(blocks);
        lengths.iter().all(|length| {
            let Some((at, _)) = best_fit(&runs, *length) else { return false };
            runs[at].first.0 += length;
            runs[at].count -= length;
            true
        })
    }

    fn put(&mut self, at: u32, segment: Segment) {
        if matches!(segment.tenant, Tenant::Span(_)) {
            self.unowned.remove(&at);
        } else {
            self.unowned.insert(at);
        }
        self.segments.insert(at, segment);
    }

    fn take_out(&mut self, at: u32) {
        self.unowned.remove(&at);
        self.segments.remove(&at);
    }

    fn split(&mut self, at: u32) {
        let Some((start, segment)) = self.segments.range_mut(..at).next_back() else { return };
        let end = start + segment.count;
        if end > at {
            segment.count = at - start;
            let tenant = segment.tenant.clone();
            self.put(at, Segment { count: end - at, tenant });
        }
    }

    /// Makes one segment of the two that meet at `at`, if they are alike and of one piece.
    fn join(&mut self, at: u32) {
        if self.pieces.contains_key(&at) {
            return;
        }
        let Some(right) = self.segments.get(&at) else { return };
        let Some((_, left)) = self.segments.range(..at).next_back() else { return };
        if left.tenant == right.tenant {
            let count = right.count;
            self.take_out(at);
            if let Some((_, left)) = self.segments.range_mut(..at).next_back() {
                left.count += count;
            }
        }
    }
}

/// The shortest run of at least `count` frames, and its first `count` frames.
fn best_fit(runs: &[FrameRun], count: u32) -> Option<(usize, FrameRun)> {
    let (at, run) = runs.iter().enumerate().filter(|(_, r)| r.count >= count).min_by_key(|(_, r)| r.count)?;
    Some((at, FrameRun { first: run.first, count }))
}
