//! Spans and operations as entries: found, entered, taken out, undone.

use super::super::arena::Tenant;
use super::super::{Placed, SpanId};
use super::{Before, Span, SpanPlacement};
#[cfg(test)]
use crate::units::FrameRun;
use crate::units::{OpId, RangeId};
use crate::uses::Uses;
#[cfg(test)]
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

impl SpanPlacement {
    /// The state without what only ever grows, for comparing before and after.
    #[cfg(test)]
    pub(in super::super) fn without_counters(&self) -> Self {
        let mut same = Self { next_span: 0, now: 0, lengths: BTreeMap::new(), ..self.clone() };
        same.settle();
        same
    }

    /// The sub-blocks and frames of the span with `sub` in it.
    #[cfg(test)]
    pub(in super::super) fn span_at(&self, range: RangeId, sub: u32) -> Option<(Range<u32>, FrameRun)> {
        self.at(range, sub).map(|span| (span.subs.clone(), span.frames))
    }

    /// The span with `sub` in it.
    pub(super) fn at(&self, range: RangeId, sub: u32) -> Option<&Span> {
        let (_, id) = self.index.range((range, 0)..=(range, sub)).next_back()?;
        self.spans.get(id).filter(|span| span.subs.contains(&sub))
    }

    pub(super) fn covering(&self, range: RangeId, subs: &Range<u32>) -> Option<&Span> {
        self.at(range, subs.start).filter(|span| span.covers(subs))
    }

    /// The spans of `range` that have some of `subs`, ascending.
    pub(super) fn overlapping(&self, range: RangeId, subs: Range<u32>) -> impl Iterator<Item = &Span> + '_ {
        let start = self.at(range, subs.start).map_or(subs.start, |span| span.subs.start);
        self.index.range((range, start)..(range, subs.end)).filter_map(|(_, id)| self.spans.get(id))
    }

    pub(super) fn ids(&self, range: RangeId, subs: &Range<u32>) -> Vec<SpanId> {
        self.overlapping(range, subs.clone()).map(|span| span.id).collect()
    }

    /// Where `subs` of a scattered range are, all of which have frames.
    pub(super) fn scattered_place(&self, range: RangeId, subs: &Range<u32>) -> Placed {
        let mut frames = Vec::new();
        for span in self.overlapping(range, subs.clone()) {
            self.arena.append(&mut frames, span.frames_of(subs));
        }
        Placed { span: None, frames, subs: subs.clone() }
    }

    pub(super) fn spans_of(&self, range: RangeId) -> Vec<SpanId> {
        self.index.range((range, 0)..=(range, u32::MAX)).map(|(_, id)| *id).collect()
    }

    /// Enters a span; its frames are its own from now on.
    pub(super) fn insert(&mut self, span: Span) {
        self.owned += span.frames.count;
        if span.scattered {
            let scatter = self.scattered.entry(span.range).or_default();
            scatter.spans += 1;
            if span.plan.is_none() {
                scatter.there.insert(span.subs.clone());
            }
        }
        self.arena.set(span.frames, Tenant::Span(span.id));
        self.index.insert((span.range, span.subs.start), span.id);
        self.spans.insert(span.id, span);
    }

    /// Takes a span out; the caller says at once who has its frames.
    pub(super) fn take(&mut self, id: SpanId) -> Option<Span> {
        let span = self.spans.remove(&id)?;
        self.owned -= span.frames.count;
        self.pinned -= if span.pins > 0 { span.frames.count } else { 0 };
        if let Some(scatter) = self.scattered.get_mut(&span.range) {
            scatter.spans -= 1;
            if span.plan.is_none() {
                scatter.there.remove(span.subs.clone());
            }
            if scatter.spans == 0 {
                self.scattered.remove(&span.range);
            }
        }
        let key = (span.range, span.subs.start);
        if self.index.get(&key) == Some(&id) {
            self.index.remove(&key);
        }
        Some(span)
    }

    /// Undoes what the plan of `op` has done so far and forgets `op`.
    pub(super) fn undo(&mut self, op: OpId) {
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
    pub(super) fn resolve(&mut self, op: OpId, uses: &Uses) {
        self.arena.change_deps(|deps| deps.resolve(op, uses));
        for before in self.ops.values_mut().flat_map(|record| &mut record.log) {
            if let Before::Free { deps, .. } = before {
                deps.resolve(op, uses);
            }
        }
    }

    /// Remembers that somebody's deps name these operations.
    pub(super) fn name(&mut self, ops: &[OpId]) {
        for op in ops {
            if let Some(record) = self.ops.get_mut(op) {
                record.named = true;
            }
        }
    }
}
