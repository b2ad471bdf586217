//! How frames change hands inside one plan: claimed, carved, given up, each change logged for its undoing.

use super::super::arena::Tenant;
use super::super::subset::SubSet;
use super::super::{Deps, EvictGoal, Eviction, Move, Plan, SpanId};
use super::{Before, Record, Scatter, Span, SpanPlacement};
use crate::units::{FrameIndex, FrameRun, OpId, RangeId};
use alloc::collections::{BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

impl SpanPlacement {
    pub(super) fn plan_eviction(&mut self, op: OpId, goal: EvictGoal) -> Vec<Eviction> {
        assert!(!self.ops.contains_key(&op), "operation {} was admitted before", op.0);
        self.ops.insert(op, Record::default());
        let mut plan = Plan::default();
        self.settle();
        match goal {
            EvictGoal::Frames(frames) => {
                let mut victims = Victims::default();
                let mut freed = 0;
                while freed < frames {
                    let Some(id) = self.victim(&mut victims) else { break };
                    freed += self.give_up(op, id, &mut plan);
                }
            }
            EvictGoal::Within(..) | EvictGoal::Piece(_) | EvictGoal::All => {
                let piece = self
                    .arena
                    .pieces()
                    .find(|piece| matches!(goal, EvictGoal::Piece(first) if first == piece.first));
                let meant = |span: &Span| match goal {
                    EvictGoal::Within(range, from, to) => {
                        span.range == range && from <= span.subs.start && span.subs.end <= to
                    }
                    EvictGoal::Piece(_) => {
                        piece.is_some_and(|p| p.first <= span.frames.first && span.frames.end() <= p.end())
                    }
                    _ => true,
                };
                let ids: Vec<SpanId> = self
                    .spans
                    .values()
                    .filter(|span| span.movable() && meant(span))
                    .map(|span| span.id)
                    .collect();
                for id in ids {
                    self.give_up(op, id, &mut plan);
                }
            }
        }
        plan.evictions
    }

    /// A span that is there already is used by `op`, too.
    pub(super) fn join(&mut self, op: OpId, id: SpanId) {
        let now = self.now;
        let (Some(span), Some(record)) = (self.spans.get_mut(&id), self.ops.get_mut(&op)) else { return };
        if !span.queued.contains(&op) {
            span.queued.push(op);
            record.joined.push((id, span.last_use));
            span.last_use = now;
        }
    }

    /// Takes `run` for a new span, whose id it answers: spans in it go, and what must be over before its use is noted.
    pub(super) fn claim(&mut self, op: OpId, run: FrameRun, plan: &mut Plan) -> (SpanId, FrameRun) {
        let victims: Vec<SpanId> = self
            .arena
            .over(run)
            .filter_map(|(_, tenant)| if let Tenant::Span(id) = tenant { Some(*id) } else { None })
            .collect();
        for id in victims {
            self.give_up(op, id, plan);
        }
        self.clear(op, run, plan);
        let id = self.new_id();
        self.arena.set(run, Tenant::Span(id));
        (id, run)
    }

    /// Notes how the frames of `run`, which nobody owns, were before and what must be over before their use.
    pub(super) fn clear(&mut self, op: OpId, run: FrameRun, plan: &mut Plan) {
        let parts: Vec<(FrameRun, Tenant)> =
            self.arena.over(run).map(|(part, tenant)| (part, tenant.clone())).collect();
        for (run, tenant) in parts {
            match tenant {
                Tenant::Free(deps) => {
                    plan.deps.merge(&deps);
                    self.log(op, Before::Free { run, deps });
                }
                Tenant::Held { deps, .. } => plan.deps.merge(&deps),
                Tenant::Span(id) => unreachable!("frames {run:?} are still of span {}", id.0),
            }
        }
    }

    /// Cuts `subs` out of the spans that have them: what is left lives on as spans of its own, the rest moves to `to`.
    /// Answers which of the moved sub-blocks are dirty.
    pub(super) fn carve(
        &mut self,
        op: OpId,
        range: RangeId,
        subs: &Range<u32>,
        to: FrameRun,
        plan: &mut Plan,
    ) -> SubSet {
        let mut dirty = SubSet::default();
        for id in self.ids(range, subs) {
            let Some(old) = self.retire(op, id, plan) else { continue };
            let frame = |sub: u32| FrameIndex(old.frames.first.0 + (sub - old.subs.start));
            let moved = old.subs.start.max(subs.start)..old.subs.end.min(subs.end);
            plan.moves.push(Move {
                range,
                subs: moved.clone(),
                from: frame(moved.start),
                to: FrameIndex(to.first.0 + (moved.start - subs.start)),
            });
            dirty.merge(&old.dirty.within(&moved));
            for rest in [old.subs.start..moved.start, moved.end..old.subs.end] {
                if rest.is_empty() {
                    continue;
                }
                let id = self.new_id();
                let frames = FrameRun { first: frame(rest.start), count: rest.end - rest.start };
                let dirty = old.dirty.within(&rest);
                self.insert_fresh(op, Span { id, subs: rest, frames, dirty, plan: Some(op), ..old.clone() });
            }
        }
        dirty
    }

    /// Evicts a span for `op`; answers how many frames it had.
    pub(super) fn give_up(&mut self, op: OpId, id: SpanId, plan: &mut Plan) -> u32 {
        let Some(span) = self.retire(op, id, plan) else { return 0 };
        plan.evictions.push(Eviction {
            span: id,
            range: span.range,
            subs: span.subs,
            frames: Vec::from([span.frames]),
            scattered: span.scattered,
        });
        span.frames.count
    }

    /// Ends a span; its frames are held for `op`.
    fn retire(&mut self, op: OpId, id: SpanId, plan: &mut Plan) -> Option<Span> {
        let span = self.take(id)?;
        debug_assert!(
            self.scattered.get(&span.range).is_none_or(Scatter::settled),
            "span {} of {:?} has notes that its undoing would lose",
            id.0,
            span.range
        );
        self.arena.set(span.frames, Tenant::Held { op, deps: Deps::of(span.uses) });
        // A remainder that this very plan made was never anybody's: the log has what it was cut from.
        if span.plan.is_none() {
            self.log(op, Before::Span(span.clone()));
            plan.retired.push(id);
        }
        Some(span)
    }

    pub(super) fn insert_fresh(&mut self, op: OpId, span: Span) {
        if let Some(record) = self.ops.get_mut(&op) {
            record.fresh.push(span.id);
        }
        self.insert(span);
    }

    pub(super) fn new_id(&mut self) -> SpanId {
        self.next_span += 1;
        SpanId(self.next_span)
    }

    fn log(&mut self, op: OpId, before: Before) {
        if let Some(record) = self.ops.get_mut(&op) {
            record.log.push(before);
        }
    }

    /// The next span to give up; one that was cut up meanwhile gives nothing.
    pub(super) fn victim(&self, victims: &mut Victims) -> Option<SpanId> {
        let Victims { sources, queue } = victims;
        let queue = queue.get_or_insert_with(|| {
            let movable = self.spans.values().filter(|span| span.movable() && !sources.contains(&span.id));
            let price = |span: &Span| self.price(span) / u64::from(span.frames.count);
            movable.map(|span| Reverse((price(span), span.id))).collect()
        });
        queue.pop().map(|Reverse((_, id))| id)
    }
}

/// The spans that may be given up, the cheapest per frame first; priced once, when the first one is asked for.
#[derive(Default)]
pub(super) struct Victims {
    /// Spans that the plan moves, which it must not evict.
    pub(super) sources: BTreeSet<SpanId>,
    queue: Option<BinaryHeap<Reverse<(u64, SpanId)>>>,
}
