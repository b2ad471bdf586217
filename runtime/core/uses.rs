//! Who still uses a thing: for each timeline the last value to wait for.
//!
//! Frames, spans, freed ranges and imports are released against uses, never by waiting (UVM calls this a tracker).

use crate::units::{Ticket, Timeline};

/// A small map from timeline to the last value that matters. Empty means "used by nobody".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Uses {
    last: [u64; Uses::TIMELINES_MAX],
}

impl Uses {
    /// How many timelines one device may have: four roles and four to spare for an application's semaphores.
    pub const TIMELINES_MAX: usize = 8;

    /// Used by nobody.
    pub const NONE: Self = Self { last: [0; Self::TIMELINES_MAX] };

    /// Remembers that `ticket` uses the thing, too.
    pub fn add(&mut self, ticket: Ticket) {
        let slot = &mut self.last[usize::from(ticket.timeline.0)];
        *slot = (*slot).max(ticket.value);
    }

    /// Remembers all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.last.iter_mut().zip(other.last) {
            *mine = (*mine).max(theirs);
        }
    }

    /// Whether every use is over, given the counters' present values.
    pub fn done(&self, completed: &Self) -> bool {
        self.last.iter().zip(completed.last).all(|(need, have)| *need <= have)
    }

    /// The value to wait for on `timeline`; zero if none.
    pub fn on(&self, timeline: Timeline) -> u64 {
        self.last[usize::from(timeline.0)]
    }

    /// Every use that is there, as tickets.
    pub fn iter(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.last
            .iter()
            .enumerate()
            .filter(|(_, v)| **v > 0)
            .map(|(t, v)| Ticket { timeline: Timeline(t as u8), value: *v })
    }

    /// Whether nobody uses it.
    pub fn is_none(&self) -> bool {
        self.last == [0; Self::TIMELINES_MAX]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_value_per_timeline() {
        let mut uses = Uses::NONE;
        uses.add(Ticket { timeline: Timeline(1), value: 7 });
        uses.add(Ticket { timeline: Timeline(1), value: 3 });
        let mut completed = Uses::NONE;
        completed.add(Ticket { timeline: Timeline(1), value: 6 });
        assert!(!uses.done(&completed));
        completed.add(Ticket { timeline: Timeline(1), value: 7 });
        assert!(uses.done(&completed));
        assert_eq!(uses.iter().count(), 1);
    }
}
