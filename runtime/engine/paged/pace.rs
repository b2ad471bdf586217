//! How many groups a round may have so that it does not take too long: others wait for the queue, and drivers for the end of each
//! submission.
//!
//! What a group takes is learnt from the rounds so far. Groups that only say what they miss take less than those that work, so a
//! round that is faster than expected is believed at once only when much of it finished, and by and by otherwise; a slower one always.
//! A round that takes a fraction of the time leaves its kernel as many times the groups: short kernels never meet the bound.

/// Groups of a round of which nothing is known yet. So many are as much as a card has at a time some dozen times over.
const GROUPS_FIRST: u32 = 1 << 16;

/// See the file.
pub(super) struct Pace {
    round_ns: u64,
    /// Groups that a round may have.
    pub(super) most: u32,
}

impl Pace {
    /// Rounds are to take so many nanoseconds at most; [`u64::MAX`]: however long they take.
    pub(super) fn new(round_ns: u64) -> Self {
        Self { round_ns, most: if round_ns == u64::MAX { u32::MAX } else { GROUPS_FIRST } }
    }

    /// A round of `groups` groups, of which `finished` have finished, took so long; zero: the device has no clock.
    pub(super) fn ran(&mut self, groups: u32, finished: u32, elapsed_ns: u64) {
        if elapsed_ns == 0 || self.round_ns == u64::MAX {
            self.most = u32::MAX;
            return;
        }
        let fitting = u128::from(self.round_ns) * u128::from(groups) / u128::from(elapsed_ns);
        let fitting = u32::try_from(fitting).unwrap_or(u32::MAX).max(1);
        self.most = if fitting < self.most || finished >= groups.div_ceil(2) {
            fitting
        } else {
            fitting.min(self.most.saturating_mul(2))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_groups_are_believed_at_once_and_fast_ones_when_they_finish() {
        let mut pace = Pace::new(1_000_000);
        assert_eq!(pace.most, GROUPS_FIRST);
        pace.ran(64, 0, 640_000);
        assert_eq!(pace.most, 100, "ten microseconds each");
        pace.ran(100, 10, 10_000);
        assert_eq!(pace.most, 200, "they missed");
        pace.ran(200, 100, 20_000);
        assert_eq!(pace.most, 10_000, "they worked");
        pace.ran(1, 1, 5_000_000);
        assert_eq!(pace.most, 1, "one must run");
    }

    #[test]
    fn without_a_clock_or_a_bound_everything_may_run() {
        let mut pace = Pace::new(1_000_000);
        pace.ran(10, 10, 0);
        assert_eq!(pace.most, u32::MAX);
        let mut pace = Pace::new(u64::MAX);
        assert_eq!(pace.most, u32::MAX);
        pace.ran(10, 10, u64::MAX);
        assert_eq!(pace.most, u32::MAX);
    }
}
