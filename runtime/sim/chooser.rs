//! Who decides: which thread is next, when one that could go on is made to let others, and how far time jumps.

use crate::Random;
use crate::script::Script;
use vkhmm_port::Rank;

/// Where a thread can be made to let others go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// Before it takes a lock.
    Lock(Rank),
    /// After it let a lock go.
    Unlock(Rank),
    /// Before it takes, or after it let go, a lock around a record that nobody decides by.
    Record,
    /// Before it looks at or waits for a signal, and after it gave one.
    Signal,
    /// Before a port call, and between the pieces of a copy.
    Port,
    /// Before it looks at the clock.
    Clock,
    /// After it started a thread.
    Spawn,
}

/// The decisions of a run.
#[derive(Debug)]
pub(crate) enum Chooser {
    /// Chance, from one seed.
    Seeded {
        random: Random,
        /// A thread that could go on is made to think about a switch once in so many points.
        stay: u64,
    },
    /// Nobody: a thread runs until it blocks, then the next one in a circle, and time passes only while all wait. For modelled
    /// seconds, where chance would be noise.
    Steady,
    /// A list of deviations from the steady order, for a search.
    Scripted(Script),
}

impl Chooser {
    pub(crate) fn seeded(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let stay = [2, 4, 16][random.below(3) as usize];
        Self::Seeded { random, stay }
    }

    /// Whether what happens is worth a line of the trace.
    pub(crate) fn traces(&self) -> bool {
        match self {
            Self::Seeded { .. } => true,
            Self::Steady => false,
            Self::Scripted(script) => script.traces(),
        }
    }

    /// How often a new thread is chosen, against the others.
    pub(crate) fn weight(&mut self) -> u64 {
        match self {
            Self::Seeded { random, .. } => [1, 4, 16][random.below(3) as usize],
            Self::Steady | Self::Scripted(_) => 1,
        }
    }

    /// How many nanoseconds one step takes.
    pub(crate) fn jump(&mut self) -> u64 {
        match self {
            Self::Seeded { random, .. } => {
                let step = 1 + random.below(2_000);
                // A stall, as of a machine with other things to do.
                if random.one_in(256) { step + random.below(400_000) } else { step }
            }
            Self::Steady | Self::Scripted(_) => 0,
        }
    }

    /// Whether a thread that could go on lets the others have a chance. (A script says so elsewhere: it also says whom.)
    pub(crate) fn yields(&mut self) -> bool {
        match self {
            Self::Seeded { random, stay } => random.one_in(*stay),
            Self::Steady | Self::Scripted(_) => false,
        }
    }

    /// Which of `runnable` (thread and weight, ascending, not empty) goes on after `current`.
    pub(crate) fn next(&mut self, current: usize, runnable: &[(usize, u64)]) -> usize {
        match self {
            Self::Seeded { random, .. } => {
                let mut ticket = random.below(runnable.iter().map(|(_, weight)| weight).sum());
                for (id, weight) in runnable {
                    if ticket < *weight {
                        return *id;
                    }
                    ticket -= weight;
                }
                unreachable!("the ticket is below the sum of the weights")
            }
            Self::Steady | Self::Scripted(_) => {
                runnable.iter().find(|(id, _)| *id > current).unwrap_or(&runnable[0]).0
            }
        }
    }
}
