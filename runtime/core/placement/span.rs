//! Spans: every argument in one run of neighbouring frames.
//!
//! * A range of at most half the limit gets a *home span* for all of itself, so that launches on its parts never move it.
//!   Where homes do not fit, and for larger ranges, a span covers just the want, and is reused while it covers.
//! * Sub-blocks that a new span takes over move by device copy; their old span is cut up, their old frames wait for that. When
//!   old and new do not fit side by side, the old span is evicted and copied in again.
//! * Room is made by the cheapest window of neighbouring frames, whole spans at a time.
//! * The last resort evicts all that may go and packs: with nothing held, what fits by count into one piece is always placed.
//!
//! Every change of a plan is logged until its commit, so that a failed attempt and an abort are the same undoing.

mod hands;
mod plan;

use super::arena::{Arena, Tenant};
use super::subset::SubSet;
use super::{
    AdmitError, Deps, EvictGoal, Eviction, PieceError, Placed, Placement, PlacementStats, Plan, SpanId, Want,
};
use crate::pagemap::FrameSource;
use crate::units::{FrameIndex, FrameRun, OpId, RangeId};
use crate::uses::Uses;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Age, in launches, at which a span's chance to be used again counts half.
const AGE_HALF: u64 = 16;
/// What a sub-block's copy costs, in the unit of [`Span::price`].
const COPY_COST: u64 = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    id: SpanId,
    range: RangeId,
    subs: Range<u32>,
    frames: FrameRun,
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

    fn covers(&self, subs: &Range<u32>) -> bool {
        self.subs.start <= subs.start && subs.end <= self.subs.end
    }

    /// Whether it may be evicted or moved.
    fn movable(&self) -> bool {
        self.queued.is_empty() && self.pins == 0 && self.plan.is_none()
    }

    /// What giving it up costs: write-backs surely, copies in again by the chance that it is used again soon. Never zero.
    fn price(&self, now: u64) -> u64 {
        let again = COPY_COST * AGE_HALF / (AGE_HALF + now.saturating_sub(self.last_use)) + 1;
        u64::from(self.dirty.count()) * COPY_COST + u64::from(self.frames.count) * again
    }
}

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
    limit: u32,
    now: u64,
    next_span: u64,
    owned: u32,
    arena: Arena,
    spans: BTreeMap<SpanId, Span>,
    /// Where the spans of a range start. No sub-block is in two spans.
    index: BTreeMap<(RangeId, u32), SpanId>,
    ops: BTreeMap<OpId, Record>,
}

impl SpanPlacement {
    /// No frames yet; spans may own `limit` frames in all.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            now: 0,
            next_span: 0,
            owned: 0,
            arena: Arena::default(),
            spans: BTreeMap::new(),
            index: BTreeMap::new(),
            ops: BTreeMap::new(),
        }
    }

    /// The state without what only ever grows, for comparing before and after.
    #[cfg(test)]
    pub(super) fn without_counters(&self) -> Self {
        Self { next_span: 0, now: 0, ..self.clone() }
    }

    /// The span with `sub` in it.
    fn at(&self, range: RangeId, sub: u32) -> Option<&Span> {
        let (_, id) = self.index.range((range, 0)..=(range, sub)).next_back()?;
        self.spans.get(id).filter(|span| span.subs.contains(&sub))
    }

    fn covering(&self, range: RangeId, subs: &Range<u32>) -> Option<&Span> {
        self.at(range, subs.start).filter(|span| span.covers(subs))
    }

    /// The spans of `range` that have some of `subs`, ascending.
    fn overlapping(&self, range: RangeId, subs: Range<u32>) -> impl Iterator<Item = &Span> + '_ {
        let start = self.at(range, subs.start).map_or(subs.start, |span| span.subs.start);
        self.index.range((range, start)..(range, subs.end)).filter_map(|(_, id)| self.spans.get(id))
    }

    fn spans_of(&self, range: RangeId) -> Vec<SpanId> {
        self.index.range((range, 0)..=(range, u32::MAX)).map(|(_, id)| *id).collect()
    }

    /// Enters a span; its frames are its own from now on.
    fn insert(&mut self, span: Span) {
        self.owned += span.frames.count;
        self.arena.set(span.frames, Tenant::Span(span.id));
        self.index.insert((span.range, span.subs.start), span.id);
        self.spans.insert(span.id, span);
    }

    /// Takes a span out; the caller says at once who has its frames.
    fn take(&mut self, id: SpanId) -> Option<Span> {
        let span = self.spans.remove(&id)?;
        self.owned -= span.frames.count;
        let key = (span.range, span.subs.start);
        if self.index.get(&key) == Some(&id) {
            self.index.remove(&key);
        }
        Some(span)
    }

    /// Undoes what the plan of `op` has done so far and forgets `op`.
    fn undo(&mut self, op: OpId) {
        let Some(record) = self.ops.remove(&op) else { return };
        for id in record.fresh {
            // Its frames are among those that the log gives back.
            self.take(id);
        }
        // The entries are disjoint, so their order does not matter.
        for before in record.log {
            match before {
                Before::Free { run, deps } => self.arena.set(run, Tenant::Free(deps)),
                Before::Span(span) => self.insert(span),
            }
        }
        for (id, last_use) in record.joined {
            if let Some(span) = self.spans.get_mut(&id) {
                span.queued.retain(|queued| *queued != op);
                span.last_use = last_use;
            }
        }
        if record.named {
            self.resolve(op, &Uses::NONE);
        }
    }

    /// Whoever waited for `op` waits for `uses`.
    fn resolve(&mut self, op: OpId, uses: &Uses) {
        self.arena.change_deps(|deps| deps.resolve(op, uses));
        for before in self.ops.values_mut().flat_map(|record| &mut record.log) {
            if let Before::Free { deps, .. } = before {
                deps.resolve(op, uses);
            }
        }
    }

    /// Remembers that somebody's deps name these operations.
    fn name(&mut self, ops: &[OpId]) {
        for op in ops {
            if let Some(record) = self.ops.get_mut(op) {
                record.named = true;
            }
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
        self.covering(range, &subs).filter(|span| span.plan.is_none()).map(Span::placed)
    }

    fn frame_of(&self, range: RangeId, sub: u32) -> Option<FrameIndex> {
        self.at(range, sub).map(|span| span.placed().frame_of(sub))
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
            if let Some(span) = self.spans.get_mut(id) {
                span.plan = None;
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
        self.arena.change_deps(|deps| {
            let over = !deps.uses.is_none() && deps.uses.done(completed);
            if over {
                deps.uses = Uses::NONE;
            }
            over
        });
    }

    fn touch(&mut self, range: RangeId, subs: Range<u32>, now: u64, written: bool) {
        self.now = self.now.max(now);
        let ids: Vec<SpanId> = self.overlapping(range, subs.clone()).map(|span| span.id).collect();
        for span in ids {
            let Some(span) = self.spans.get_mut(&span) else { continue };
            span.last_use = span.last_use.max(now);
            if written {
                span.dirty.insert(subs.start.max(span.subs.start)..subs.end.min(span.subs.end));
            }
        }
    }

    fn note_clean(&mut self, range: RangeId, subs: Range<u32>) {
        let ids: Vec<SpanId> = self.overlapping(range, subs.clone()).map(|span| span.id).collect();
        for id in ids {
            if let Some(span) = self.spans.get_mut(&id) {
                span.dirty.remove(&subs);
            }
        }
    }

    fn pin(&mut self, range: RangeId, subs: Range<u32>) -> bool {
        let ids: Vec<SpanId> = self.overlapping(range, subs.clone()).map(|span| span.id).collect();
        let within = |span: &Span| span.subs.end.min(subs.end) - span.subs.start.max(subs.start);
        let covered: u32 = ids.iter().filter_map(|id| self.spans.get(id)).map(within).sum();
        if covered < subs.end - subs.start {
            return false;
        }
        ids.iter().for_each(|id| {
            if let Some(span) = self.spans.get_mut(id) {
                span.pins += 1;
            }
        });
        true
    }

    fn unpin(&mut self, range: RangeId, subs: Range<u32>) {
        let ids: Vec<SpanId> = self.overlapping(range, subs).map(|span| span.id).collect();
        for id in ids {
            if let Some(span) = self.spans.get_mut(&id) {
                span.pins = span.pins.saturating_sub(1);
            }
        }
    }

    fn release(&mut self, range: RangeId, deps: Deps) -> Vec<SpanId> {
        let gone = self.spans_of(range);
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
        let mut stats = PlacementStats { total: self.arena.total(), owned: self.owned, ..Default::default() };
        for (part, tenant) in self.arena.pieces().flat_map(|piece| self.arena.over(piece)) {
            match tenant {
                Tenant::Span(_) => {}
                Tenant::Free(deps) if deps.is_none() => stats.free += part.count,
                Tenant::Free(_) | Tenant::Held { .. } => stats.retired += part.count,
            }
        }
        stats.pinned = self.spans.values().filter(|span| span.pins > 0).map(|span| span.frames.count).sum();
        let runs = self.arena.runs(|tenant| matches!(tenant, Tenant::Span(_)));
        stats.largest_run = runs.iter().map(|run| run.count).max().unwrap_or(0);
        stats
    }
    fn idle(&self) -> Vec<FrameRun> {
        self.arena.runs(|tenant| !matches!(tenant, Tenant::Free(deps) if deps.is_none()))
    }
}
