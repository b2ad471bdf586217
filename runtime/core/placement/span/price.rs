//! What giving up a span costs, run by run as it was used.

use super::{Span, SpanPlacement};
use crate::policy::{Next, Victim};
use core::ops::Range;

/// How many launches back a use may be for who is still at it to count as busy: what the device works on while copies for the next
/// launch move, however far the program is ahead of it.
const RECENT: u64 = 2;

impl SpanPlacement {
    /// What all of `span` costs, as the policy and advice have it.
    pub(super) fn price(&self, span: &Span) -> u64 {
        self.hints.price(span, self.prices(span).map(|(_, price)| price).sum(), self.now)
    }

    /// The runs of `span`, ascending, and what each costs.
    pub(super) fn prices<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = (Range<u32>, u64)> + 'a {
        let history = self.histories.get(&span.range);
        let runs = history.into_iter().flat_map(|history| history.over(span.subs.clone()));
        // A range that placement was never told of as used: the span's own last use is all there is.
        let whole = history.is_none().then(|| (span.subs.clone(), None));
        runs.chain(whole).map(move |(subs, reuse)| {
            let next = match (history, reuse) {
                (Some(history), Some(reuse)) => Some(reuse.next(history.habits(), &self.kinds, self.now)),
                (Some(_), None) => None,
                (None, _) => {
                    Some(Next { within: self.now.saturating_sub(span.last_use).max(1), overwrites: false })
                }
            };
            let last_use = reuse.map_or(span.last_use, |reuse| reuse.last());
            let victim = Victim {
                frames: subs.end - subs.start,
                dirty: span.dirty.within(&subs).count(),
                last_use,
                busy: self.now.saturating_sub(last_use) <= RECENT && !span.uses.done(&self.completed),
                next,
            };
            (subs, self.policy.0.price(&victim, self.now))
        })
    }
}
