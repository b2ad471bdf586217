//! Thrash: a block that host and device take from each other again and again. Its guard gives it a minimum residency where it is,
//! twice as long each time, until it has been calm.
//!
//! ```text
//!   launch brings it in ──► host touches it soon after: an event ──► THRESHOLD events in a WINDOW ──► guarded for 5, 10, … 160 ms
//!                                                                    calm for CALM ──► as if nothing had been
//! ```
//!
//! A touch cannot be refused, so residency is no promise: a guarded block keeps its duplicates, comes home in larger pieces, is not
//! fetched ahead or by hints, and its frames are given up later ([`crate::advice`]). Times are nanoseconds of whatever clock the
//! caller has.

/// A touch counts that comes no later than this after what it takes was brought in.
pub const LAPSE_NS: u64 = 5_000_000;
/// Events count together that are no further apart than this.
pub const WINDOW_NS: u64 = 50_000_000;
/// How many of them make a guard.
pub const THRESHOLD: u8 = 3;
/// The first residency.
pub const RESIDENCY_NS: u64 = 5_000_000;
/// Residency doubles at most so often.
pub const DOUBLINGS_MAX: u8 = 5;
/// A block without an event for so long starts from the beginning.
pub const CALM_NS: u64 = 1_000_000_000;

/// What is known of one block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thrash {
    /// When bytes were last copied in for a launch.
    brought_in: Option<u64>,
    last_event: u64,
    events: u8,
    /// Guards since it was last calm.
    guards: u8,
    /// End of the guard.
    until: u64,
}

/// What an event led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody takes it from anybody.
    Calm,
    /// An event, and no guard begins.
    Event,
    /// An event, and a guard begins.
    Guard,
}

impl Thrash {
    /// A launch had bytes of the block copied in.
    pub fn brought_in(&mut self, now: u64) {
        self.brought_in = Some(now);
    }

    /// The host takes bytes from the device.
    pub fn taken_home(&mut self, now: u64) -> Verdict {
        // One event per copy in: later touches take what the first has shown to be contended.
        let soon = self.brought_in.take().is_some_and(|at| now.saturating_sub(at) <= LAPSE_NS);
        if !soon {
            return Verdict::Calm;
        }
        let since = now.saturating_sub(self.last_event);
        if since > CALM_NS {
            self.guards = 0;
        }
        self.events = if since > WINDOW_NS { 1 } else { self.events + 1 };
        self.last_event = now;
        if self.events < THRESHOLD || self.is_guarded(now) {
            self.events = self.events.min(THRESHOLD);
            return Verdict::Event;
        }
        self.until = now + (RESIDENCY_NS << self.guards.min(DOUBLINGS_MAX));
        self.guards = self.guards.saturating_add(1);
        self.events = 0;
        Verdict::Guard
    }

    /// Whether the guard lasts.
    pub const fn is_guarded(&self, now: u64) -> bool {
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A launch, and a touch `after` it.
    fn round(thrash: &mut Thrash, now: &mut u64, after: u64) -> Verdict {
        *now += 1_000_000;
        thrash.brought_in(*now);
        *now += after;
        thrash.taken_home(*now)
    }

    #[test]
    fn the_third_event_begins_a_guard_and_each_lasts_twice_as_long() {
        let (mut thrash, mut now) = (Thrash::default(), 7 * CALM_NS);
        let mut lengths = alloc::vec::Vec::new();
        for _ in 0..8 {
            assert_eq!(round(&mut thrash, &mut now, LAPSE_NS), Verdict::Event);
            assert_eq!(round(&mut thrash, &mut now, LAPSE_NS), Verdict::Event);
            assert_eq!(round(&mut thrash, &mut now, LAPSE_NS), Verdict::Guard);
            lengths.push((thrash.until - now) / RESIDENCY_NS);
            assert_eq!(round(&mut thrash, &mut now, 0), Verdict::Event, "a guard is not begun twice");
            assert!(thrash.is_guarded(now) && !thrash.is_guarded(thrash.until));
            now = now.max(thrash.until) + WINDOW_NS;
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 32, 32]);
        now += CALM_NS;
        for _ in 0..3 {
            round(&mut thrash, &mut now, 0);
        }
        assert_eq!(thrash.until - now, RESIDENCY_NS, "calm forgets");
    }

    #[test]
    fn what_comes_late_or_without_a_launch_is_no_event() {
        let (mut thrash, mut now) = (Thrash::default(), CALM_NS);
        for _ in 0..10 {
            assert_eq!(round(&mut thrash, &mut now, LAPSE_NS + 1), Verdict::Calm);
            assert_eq!(thrash.taken_home(now), Verdict::Calm);
        }
        for _ in 0..10 {
            now += WINDOW_NS;
            assert_eq!(round(&mut thrash, &mut now, 0), Verdict::Event, "too far apart to count together");
        }
        assert!(!thrash.is_guarded(now));
    }
}
