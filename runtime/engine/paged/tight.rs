//! What of the frames cannot be had at once, although they are free: what is pinned may keep them apart.
//!
//! A round that could not be placed is planned again with one frame less. Forgotten at the next round, it would be planned twice for
//! ever; kept for good, frames that come together again would never be used. So it holds for some rounds, and for more of them each time
//! that it turns out to hold still.

/// Rounds for which a refusal is taken to stand, at most.
const ROUNDS_MAX: u32 = 64;

/// See the file.
pub(super) struct Tight {
    /// So many frames at most.
    pub(super) frames: u32,
    /// Rounds that were admitted since, and how many are to be.
    admitted: u32,
    rounds: u32,
}

impl Tight {
    /// Nothing is known.
    pub(super) const NOT: Self = Self { frames: u32::MAX, admitted: 0, rounds: 1 };

    /// More than `frames` could not be placed.
    pub(super) fn refused(&mut self, frames: u32) {
        *self = Self { frames, admitted: 0, rounds: ROUNDS_MAX.min(self.rounds * 2) };
    }

    pub(super) fn admitted(&mut self) {
        self.admitted += 1;
        if self.admitted > self.rounds {
            self.frames = u32::MAX;
        }
    }

    /// Whether it was learnt for another round than the next one.
    pub(super) fn is_old(&self) -> bool {
        self.frames < u32::MAX && self.admitted > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stands_for_more_rounds_each_time() {
        let (mut tight, mut refused) = (Tight::NOT, 0);
        for _ in 0..1000 {
            if tight.frames > 5 {
                tight.refused(5);
                refused += 1;
                assert!(!tight.is_old());
            }
            tight.admitted();
        }
        assert!((10..30).contains(&refused), "{refused} of 1000 rounds were planned twice");
        assert!(tight.is_old());
        (0..=ROUNDS_MAX).for_each(|_| tight.admitted());
        assert_eq!(tight.frames, u32::MAX, "it is tried again");
        assert!(!tight.is_old());
    }
}
