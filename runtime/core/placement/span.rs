//! Spans: every argument in one run of neighbouring frames, or scattered over many.
//!
//! Contiguous ranges:
//! * A range gets a *home span* for all of itself, so that launches on its parts never move it, where all ranges known fit the limit
//!   together, and where it is at most an eighth of it. For others a span covers just the want, and is reused while it covers.
//! * Sub-blocks that a new span takes over move by device copy; their old span is cut up, their old frames wait for that. When
//!   old and new do not fit side by side, the old span is evicted and copied in again.
//! * Room is made by the cheapest window of neighbouring frames, whole spans at a time.
//! * The last resort evicts all that may go and packs: with nothing held, what fits by count into one piece is always placed.
//!
//! Scattered ranges (`scatter.rs`): what a want lacks gets frames of any place, in spans of one run within one unit (a block), so
//! that victims are small; what it has stays. No homes, windows or moves.
//!
//! Both kinds share frames, limit, prices and log, and are each other's victims.
//!
//! Every change of a plan is logged until its commit, so that a failed attempt and an abort are the same undoing.

mod hands;
mod hints;
mod history;
mod plan;
mod price;
mod scatter;
mod table;

use super::arena::{Arena, Tenant};
use super::subset::SubSet;
use super::{
    AdmitError, Deps, EvictGoal, Eviction, PieceError, Placed, Placement, PlacementStats, Plan, SpanId, Want,
};
use crate::pagemap::FrameSource;
use crate::policy::{Kinds, Policy, Use};
use crate::units::{FrameIndex, FrameRun, OpId, RangeId};
use crate::uses::Uses;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hints::Hints;
use history::History;
use scatter::Scatter;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    id: SpanId,
    range: RangeId,
    subs: Range<u32>,
    frames: FrameRun,
    /// The range is scattered.
    scattered: bool,
    last_use: u64,
    dirty: SubSet,
    /// Submitted work that uses the frames.
    uses: Uses,
    /// Operations that are to use it and have no ticket yet.
    queued: Vec<OpId>,
    pins: u32,
    /// The plan that made it, until it is committed.
    plan: Option<OpId>,
}

impl Span {
    fn placed(&self) -> Placed {
        Placed { span: Some(self.id), frames: Vec::from([self.frames]), subs: self.subs.clone() }
    }

    /// Where those of `subs` are that it has.
    fn frames_of(&self, subs: &Range<u32>) -> FrameRun {
        let from = subs.start.max(self.subs.start);
        let first = FrameIndex(self.frames.first.0 + (from - self.subs.start));
        FrameRun { first, count: subs.end.min(self.subs.end) - from }
    }

    fn covers(&self, subs: &Range<u32>) -> bool {
        self.subs.start <= subs.start && subs.end <= self.subs.end
    }

    /// Whether it may be evicted or moved.
    fn movable(&self) -> bool {
        self.queued.is_empty() && self.pins == 0 && self.plan.is_none()
    }
}

/// A policy; two of the same name are equal.
#[derive(Clone, Debug)]
struct Chosen(Arc<dyn Policy>);

impl PartialEq for Chosen {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Chosen {}

/// What frames were before an uncommitted plan took them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Before {
    Free { run: FrameRun, deps: Deps },
    Span(Span),
}

/// What is known of an operation from its admission until it is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Record {
    /// Spans that were there and have it queued, with their last use before.
    joined: Vec<(SpanId, u64)>,
    /// Spans that its plan made.
    fresh: Vec<SpanId>,
    /// How to undo the plan; empty once committed.
    log: Vec<Before>,
    committed: bool,
    /// Somebody's deps may name it.
    named: bool,
}

/// Placement in spans. See the module's head for its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanPlacement {
    policy: Chosen,
    limit: u32,
    unit: u32,
    now: u64,
    next_span: u64,
    owned: u32,
    /// Frames of pinned spans.
    pinned: u32,
    arena: Arena,
    spans: BTreeMap<SpanId, Span>,
    /// Where the spans of a range start. No sub-block is in two spans.
    index: BTreeMap<(RangeId, u32), SpanId>,
    /// Of every scattered range that has a span.
    scattered: BTreeMap<RangeId, Scatter>,
    /// Of every range that was ever used, until it is released.
    histories: BTreeMap<RangeId, History>,
    kinds: Kinds,
    /// Sub-blocks of every range that was ever placed, until it is released.
    lengths: BTreeMap<RangeId, u32>,
    ops: BTreeMap<OpId, Record>,
    /// What is over, as last told.
    completed: Uses,
    hints: Hints,
}

impl SpanPlacement {
    /// No frames yet; spans may own `limit` frames in all. No span of a scattered range crosses a multiple of `unit` sub-blocks.
    ///
    /// # Panics
    /// If `unit` is zero.
    pub fn new(limit: u32, unit: u32, policy: Arc<dyn Policy>) -> Self {
        assert!(unit > 0, "a unit has sub-blocks");
        Self {
            policy: Chosen(policy),
            limit,
            unit,
            now: 0,
            next_span: 0,
            owned: 0,
            pinned: 0,
            arena: Arena::default(),
            spans: BTreeMap::new(),
            index: BTreeMap::new(),
            scattered: BTreeMap::new(),
            histories: BTreeMap::new(),
            kinds: Kinds::default(),
            lengths: BTreeMap::new(),
            ops: BTreeMap::new(),
            completed: Uses::NONE,
            hints: Hints::default(),
        }
    }
}

impl Placement for SpanPlacement {
    fn add_frames(&mut self, source: FrameSource) {
        self.arena.add_piece(source.run());
    }

    fn remove_piece(&mut self, first: FrameIndex) -> Result<FrameRun, PieceError> {
        let piece = self.arena.pieces().find(|p| p.first == first).ok_or(PieceError::Unknown { first })?;
        let count = |of: fn(&Tenant) -> bool| -> u32 {
            self.arena.over(piece).filter(|(_, tenant)| of(tenant)).map(|(part, _)| part.count).sum()
        };
        let owned = count(|tenant| matches!(tenant, Tenant::Span(_)));
        if owned > 0 {
            return Err(PieceError::Owned { frames: owned });
        }
        let retired = count(|tenant| !matches!(tenant, Tenant::Free(deps) if deps.is_none()));
        // An uncommitted plan may have taken spans out of here and want them back.
        if retired > 0 {
            return Err(PieceError::Retired { frames: retired });
        }
        self.arena.remove_piece(first.0);
        Ok(piece)
    }

    fn set_limit(&mut self, frames: u32) {
        self.limit = frames;
    }

    fn find(&self, range: RangeId, subs: Range<u32>) -> Option<Placed> {
        if !self.covers(range, subs.clone()) {
            return None;
        }
        if self.scattered.contains_key(&range) {
            return Some(self.scattered_place(range, &subs));
        }
        self.covering(range, &subs).map(Span::placed)
    }

    fn covers(&self, range: RangeId, subs: Range<u32>) -> bool {
        match self.scattered.get(&range) {
            Some(scatter) => scatter.there.covers(&subs),
            None => self.covering(range, &subs).is_some_and(|span| span.plan.is_none()),
        }
    }

    fn frame_of(&self, range: RangeId, sub: u32) -> Option<FrameIndex> {
        self.at(range, sub).map(|span| span.frames_of(&(sub..sub + 1)).first)
    }

    fn admit(&mut self, op: OpId, wants: &[Want], now: u64) -> Result<Plan, AdmitError> {
        self.plan_launch(op, wants, now)
    }

    fn commit(&mut self, op: OpId, found: &Uses) {
        let Some(record) = self.ops.get_mut(&op) else { return };
        if core::mem::replace(&mut record.committed, true) {
            return;
        }
        for id in &record.fresh {
            let Some(span) = self.spans.get_mut(id) else { continue };
            span.plan = None;
            if let (true, Some(scatter)) = (span.scattered, self.scattered.get_mut(&span.range)) {
                scatter.there.insert(span.subs.clone());
            }
        }
        if !core::mem::take(&mut record.log).is_empty() {
            record.named = true;
            self.arena.let_go(op, found);
        }
    }

    fn abort(&mut self, op: OpId) {
        let committed = self.ops.get(&op).is_some_and(|record| record.committed);
        assert!(!committed, "operation {} was committed and cannot be aborted", op.0);
        self.undo(op);
    }

    fn submitted(&mut self, op: OpId, uses: &Uses) {
        self.commit(op, &Uses::NONE);
        let record = self.ops.remove(&op);
        for id in record.iter().flat_map(|r| r.joined.iter().map(|(id, _)| id).chain(&r.fresh)) {
            if let Some(span) = self.spans.get_mut(id) {
                // A fresh remainder of a span that was cut up is none of the operation's.
                if span.queued.contains(&op) {
                    span.queued.retain(|queued| *queued != op);
                    span.uses.merge(uses);
                }
            }
        }
        if record.is_none_or(|record| record.named) {
            self.resolve(op, uses);
        }
    }

    fn reap(&mut self, completed: &Uses) {
        self.completed.merge(completed);
        self.arena.change_deps(|deps| {
            let over = !deps.uses.is_none() && deps.uses.done(completed);
            if over {
                deps.uses = Uses::NONE;
            }
            over
        });
    }

    fn touch(&mut self, range: RangeId, subs: Range<u32>, now: u64, what: Use) {
        self.now = self.now.max(now);
        self.hints.last_launch = self.hints.last_launch.max(now);
        self.hints.used(range, &subs);
        self.histories.entry(range).or_default().note(&mut self.kinds, subs.clone(), now, what);
        let written = what.writes();
        match self.scattered.get_mut(&range) {
            Some(scatter) => {
                if scatter.note(subs, now, written) {
                    self.settle_range(range);
                }
            }
            None => self.stamp(range, subs, now, written),
        }
    }

    fn note_clean(&mut self, range: RangeId, subs: Range<u32>) {
        self.settle_range(range);
        if let Some(history) = self.histories.get_mut(&range) {
            history.note_read(&subs);
        }
        for id in self.ids(range, &subs) {
            if let Some(span) = self.spans.get_mut(&id) {
                span.dirty.remove(&subs);
            }
        }
    }

    fn pin(&mut self, range: RangeId, subs: Range<u32>) -> bool {
        let within = |span: &Span| span.frames_of(&subs).count;
        let covered: u32 = self.overlapping(range, subs.clone()).map(within).sum();
        if covered < subs.end - subs.start {
            return false;
        }
        for id in self.ids(range, &subs) {
            if let Some(span) = self.spans.get_mut(&id) {
                span.pins += 1;
                self.pinned += if span.pins == 1 { span.frames.count } else { 0 };
            }
        }
        true
    }

    fn unpin(&mut self, range: RangeId, subs: Range<u32>) {
        for id in self.ids(range, &subs) {
            if let Some(span) = self.spans.get_mut(&id).filter(|span| span.pins > 0) {
                span.pins -= 1;
                self.pinned -= if span.pins == 0 { span.frames.count } else { 0 };
            }
        }
    }

    fn is_pinned(&self, range: RangeId) -> bool {
        self.spans_of(range).iter().any(|id| self.spans.get(id).is_some_and(|span| span.pins > 0))
    }

    fn release(&mut self, range: RangeId, deps: Deps) -> Vec<SpanId> {
        self.hints.forget(range);
        let mut gone = self.spans_of(range);
        self.histories.remove(&range);
        self.lengths.remove(&range);
        for id in &gone {
            let Some(span) = self.take(*id) else { continue };
            let mut left = deps.clone();
            left.uses.merge(&span.uses);
            span.queued.iter().for_each(|op| left.add_op(*op));
            self.name(&left.ops);
            // The log of an uncommitted plan still counts on the frames of the spans it made.
            let tenant = match span.plan {
                Some(op) => Tenant::Held { op, deps: left },
                None => Tenant::Free(left),
            };
            self.arena.set(span.frames, tenant);
        }
        // An abort must not bring the range back.
        let mut named = false;
        for before in self.ops.values_mut().flat_map(|record| &mut record.log) {
            if let Before::Span(span) = before {
                if span.range == range {
                    let mut left = deps.clone();
                    left.uses.merge(&span.uses);
                    // Ended by a plan that may be aborted yet: then nobody else would say that it is gone.
                    gone.push(span.id);
                    *before = Before::Free { run: span.frames, deps: left };
                    named = true;
                }
            }
        }
        if named {
            self.name(&deps.ops);
        }
        gone
    }

    fn evict(&mut self, op: OpId, goal: EvictGoal) -> Vec<Eviction> {
        self.plan_eviction(op, goal)
    }

    fn stats(&self) -> PlacementStats {
        let (total, owned, pinned) = (self.arena.total(), self.owned, self.pinned);
        let free: u32 = self.idle().iter().map(|run| run.count).sum();
        let runs = self.arena.unowned_runs(|_| true);
        let largest_run = runs.iter().map(|run| run.count).max().unwrap_or(0);
        PlacementStats { total, free, retired: total - owned - free, owned, pinned, largest_run }
    }

    fn idle(&self) -> Vec<FrameRun> {
        self.arena.unowned_runs(Tenant::idle)
    }
}
