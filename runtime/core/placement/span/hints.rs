//! Hints: what may be placed without taking anything from anybody who needs it; and advice on who goes first.
//!
//! A hint gets free frames, and those of spans that are *cold*: idle, not pinned, not part of the last launch, and not brought by
//! another hint that no launch has used yet. It never packs, and never has its own bytes evicted to bring them again.

use super::super::subset::SubSet;
use super::super::{Plan, SpanId, Want};
use super::plan::Reach;
use super::{Span, SpanPlacement};
use crate::advice::Keep;
use crate::runmap::RunMap;
use crate::units::{OpId, RangeId};
use crate::uses::Uses;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// What is known beside the spans.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Hints {
    /// The launch clock at the last launch.
    pub(super) last_launch: u64,
    /// Sub-blocks that hints brought and no launch has used since.
    brought: BTreeMap<RangeId, SubSet>,
    /// Where advice says who goes first.
    keeps: BTreeMap<RangeId, RunMap<Keep>>,
    /// What goes later than its price says, for a while.
    favours: Vec<Favour>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Favour {
    range: RangeId,
    subs: Range<u32>,
    until: u64,
}

/// How many times dearer favoured spans are.
const LATER: u64 = 16;

impl Hints {
    /// A launch uses sub-blocks.
    pub(super) fn used(&mut self, range: RangeId, subs: &Range<u32>) {
        if let Some(brought) = self.brought.get_mut(&range) {
            brought.remove(subs);
            if brought.count() == 0 {
                self.brought.remove(&range);
            }
        }
    }

    pub(super) fn forget(&mut self, range: RangeId) {
        self.brought.remove(&range);
        self.keeps.remove(&range);
        self.favours.retain(|favour| favour.range != range);
    }

    /// What giving a span up costs at `now`, given what the policy says it costs.
    pub(super) fn price(&self, span: &Span, price: u64, now: u64) -> u64 {
        let favoured = |favour: &&Favour| {
            let shares = favour.subs.start < span.subs.end && span.subs.start < favour.subs.end;
            favour.range == span.range && shares && favour.until > now
        };
        let later = self.favours.iter().any(|favour| favoured(&favour));
        let price = if later { price.saturating_mul(LATER) } else { price };
        let Some(keeps) = self.keeps.get(&span.range) else { return price };
        let said = keeps.over(u64::from(span.subs.start)..u64::from(span.subs.end));
        let keep = said.into_iter().map(|(_, keep)| keep).max().unwrap_or_default();
        keep.price(price, span.dirty.count() > 0)
    }

    fn is_waiting(&self, span: &Span) -> bool {
        self.brought.get(&span.range).is_some_and(|brought| brought.within(&span.subs).count() > 0)
    }
}

impl SpanPlacement {
    /// Places all wants of the hint `op`, or none: in free frames and those of cold spans alone. Goes on as [`Placement::admit`].
    ///
    /// [`Placement::admit`]: super::super::Placement::admit
    ///
    /// # Panics
    /// As there.
    pub fn admit_hint(&mut self, op: OpId, wants: &[Want], now: u64, completed: &Uses) -> Option<Plan> {
        assert!(!self.ops.contains_key(&op), "operation {} was admitted before", op.0);
        self.settle();
        let hot: Vec<SpanId> =
            self.spans.values().filter(|s| self.is_hot(s, completed)).map(|s| s.id).collect();
        let before = self.now;
        self.now = before.max(now);
        // What is pinned stays where it is, whatever an attempt does.
        hot.iter().for_each(|id| self.spans.get_mut(id).expect("just found").pins += 1);
        let mut groups = self.groups(wants);
        let mut plan = None;
        if self.check_apart(&groups).is_ok() {
            plan = self.attempt(op, &groups, wants, Reach::Move);
            if plan.is_none() && groups.iter().any(|group| group.home) {
                groups.iter_mut().for_each(|group| group.home = false);
                plan = self.attempt(op, &groups, wants, Reach::Move);
            }
        }
        hot.iter().for_each(|id| self.spans.get_mut(id).expect("pinned spans stay").pins -= 1);
        let Some(plan) = plan else {
            self.now = before;
            return None;
        };
        for want in wants {
            self.hints.brought.entry(want.range).or_default().insert(want.subs.clone());
        }
        Some(self.known(&groups, plan))
    }

    fn is_hot(&self, span: &Span, completed: &Uses) -> bool {
        span.last_use >= self.hints.last_launch || !span.uses.done(completed) || self.hints.is_waiting(span)
    }

    /// What advice says of sub-blocks: when their frames are given up.
    pub fn set_keep(&mut self, range: RangeId, subs: Range<u32>, keep: Keep) {
        let keeps = self.hints.keeps.entry(range).or_default();
        keeps.change(u64::from(subs.start)..u64::from(subs.end), |old| *old = keep);
        if keeps.is_empty() {
            self.hints.keeps.remove(&range);
        }
    }

    /// Sub-blocks are to be given up later, for `ahead` on the launch clock from now.
    pub fn favour(&mut self, range: RangeId, subs: Range<u32>, ahead: u64) {
        let (now, until) = (self.now, self.now.saturating_add(ahead));
        self.hints
            .favours
            .retain(|favour| favour.until > now && (favour.range != range || favour.subs != subs));
        self.hints.favours.push(Favour { range, subs, until });
    }
}
