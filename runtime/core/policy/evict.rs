//! Whom to evict: how runs of sub-blocks were used, what that says of their next use, and what giving them up costs.
//!
//! Launches repeat, so a run is used again after as long as last time. [`Reuse`] keeps a run's last use and the *step* it came by (how
//! many launches after the one before, and whether it was overwritten); [`Habits`], one for each range, what step came after which,
//! since neighbours are used alike: a sweep's second round tells of all it has yet to reach. [`Kinds`], one for all ranges, tells
//! whether what was read or written comes to be overwritten next, until a range's own habits say. Where the steps do not repeat, the
//! rate of uses counts. All of it stays when the run is evicted.
//!
//! A price is what a copy in (unless the bytes are overwritten first) and a copy out (if dirty) cost, over the time until the next use:
//! who is farthest from its next use is the cheapest, so a cyclic sweep keeps what it has, and results that nobody reads do go.

use alloc::vec::Vec;

/// What a launch does to sub-blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reads them.
    Read,
    /// Reads and writes them.
    Write,
    /// Writes all of them; what they were is of no use to it.
    Overwrite,
}

impl Use {
    /// Whether the host's copy is old afterwards.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// From one use to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// Launches between; zero for the first use ever.
    gap: u64,
    overwrites: bool,
}

impl Step {
    /// Alike, but for what other launches shift.
    fn is_like(self, other: Self) -> bool {
        self.overwrites == other.overwrites && self.gap.abs_diff(other.gap) <= self.gap.max(other.gap) / 8
    }
}

/// How one run of sub-blocks was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    last: u64,
    /// The step that its last use came by, and how often in a row.
    step: Step,
    repeats: u32,
    /// So many uses since then: their rate.
    since: u64,
    uses: u32,
    /// It began overwritten.
    born: bool,
    /// Somebody read what was last written.
    consumed: bool,
}

/// What is thought of a run's next use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// In so many launches, at least one.
    pub within: u64,
    /// Its bytes are overwritten then.
    pub overwrites: bool,
}

/// Uses after which older ones count half.
const USES_MAX: u32 = 16;

impl Reuse {
    /// The first use.
    pub fn new(now: u64, what: Use) -> Self {
        let overwrites = what == Use::Overwrite;
        let step = Step { gap: 0, overwrites };
        let consumed = what == Use::Read;
        Self { last: now, step, repeats: 0, since: now, uses: 1, born: overwrites, consumed }
    }

    /// The launch clock at the last use.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// One more use.
    pub fn note(&mut self, habits: &mut Habits, kinds: &mut Kinds, now: u64, what: Use) {
        self.consumed = what != Use::Overwrite;
        if now <= self.last {
            return;
        }
        let step = Step { gap: now - self.last, overwrites: what == Use::Overwrite };
        let thought = habits.after(self, kinds);
        kinds.learn(self.step.overwrites, step.overwrites);
        if let Some(thought) = thought {
            let right = thought.is_like(step);
            habits.trust = (habits.trust + if right { 1 } else { -1 }).clamp(-TRUST_MAX, TRUST_MAX);
        }
        if self.step.is_like(step) {
            self.repeats += 1;
        } else {
            habits.learn(Habit { step: self.step, repeats: self.repeats, then: step });
            self.repeats = 1;
        }
        self.step = step;
        self.last = now;
        self.uses += 1;
        if self.uses > USES_MAX {
            self.uses /= 2;
            self.since = now - (now - self.since) / 2;
        }
    }

    /// The host read what was written.
    pub fn note_read(&mut self) {
        self.consumed = true;
    }

    /// When it is used next, as far as can be told at `now`.
    pub fn next(&self, habits: &Habits, kinds: &Kinds, now: u64) -> Next {
        let age = now.saturating_sub(self.last);
        let thought =
            habits.after(self, kinds).filter(|step| habits.trust >= 0 && age <= step.gap + step.gap / 8);
        match thought {
            Some(step) => Next { within: step.gap.saturating_sub(age).max(1), overwrites: step.overwrites },
            None => {
                let within = (now.saturating_sub(self.since) / u64::from(self.uses)).max(age);
                // A result that nobody has read yet is wanted sooner than what was read once.
                let within = if self.uses == 1 && self.born && !self.consumed { within / 2 } else { within };
                Next { within: within.max(1), overwrites: self.born && self.consumed }
            }
        }
    }
}

/// After so many of the same step in a row comes that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Habit {
    step: Step,
    repeats: u32,
    then: Step,
}

/// Habits kept for a range.
const HABITS_MAX: usize = 16;
/// Bounds how long a change of mind takes.
const TRUST_MAX: i32 = 8;

/// How the runs of one range are used: what step comes after which.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Habits {
    /// The latest last.
    known: Vec<Habit>,
    /// Thoughts that came true, less those that did not.
    trust: i32,
}

impl Habits {
    fn after(&self, reuse: &Reuse, kinds: &Kinds) -> Option<Step> {
        let habit = self.known.iter().rev().find(|habit| habit.step.is_like(reuse.step));
        match habit {
            Some(habit) if reuse.repeats >= habit.repeats => Some(habit.then),
            None if reuse.repeats == 0 => None,
            None if reuse.repeats == 1 => {
                Some(Step { overwrites: kinds.after(reuse.step.overwrites), ..reuse.step })
            }
            _ => Some(reuse.step),
        }
    }

    fn learn(&mut self, habit: Habit) {
        self.known.retain(|old| !old.step.is_like(habit.step));
        if self.known.len() >= HABITS_MAX {
            self.known.remove(0);
        }
        self.known.push(habit);
    }
}

/// Steps of either kind that are remembered before older ones count half.
const KINDS_MAX: u32 = 64;

/// How runs of all ranges are used: after a step of one kind, how often a run was overwritten next, and how often not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Kinds {
    counts: [[u32; 2]; 2],
}

impl Kinds {
    fn after(&self, overwrites: bool) -> bool {
        let [not, overwritten] = self.counts[usize::from(overwrites)];
        overwritten > not
    }

    fn learn(&mut self, overwrites: bool, then: bool) {
        let counts = &mut self.counts[usize::from(overwrites)];
        counts[usize::from(then)] += 1;
        if counts.iter().sum::<u32>() > KINDS_MAX {
            counts.iter_mut().for_each(|count| *count /= 2);
        }
    }
}

/// A run of sub-blocks on the device that may be given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its frames.
    pub frames: u32,
    /// Those whose bytes the host does not have.
    pub dirty: u32,
    /// The launch clock at its last use.
    pub last_use: u64,
    /// One of the last launches uses it and is not over: what is to come into its frames waits for that, and moves beside no kernel.
    pub busy: bool,
    /// What is thought of its next use; `None`: it has never been used.
    pub next: Option<Next>,
}

/// What a sub-block's copy in costs, times how many launches it stays away.
const COPY_IN: u64 = 1 << 20;
/// What its copy out costs: beside copies in, on a link that carries both ways at once.
const COPY_OUT: u64 = COPY_IN / 2;
/// How many times dearer a busy one is. In a sweep whoever was used last is the farthest from its next use; one from a few launches
/// before costs hardly more bytes, and its frames can be filled while kernels run. Few are busy at a time, however far the program is
/// ahead of the device, so that being strict costs few bytes.
const BUSY: u64 = 32;

/// See [`Policy::price`](super::Policy::price), of [`Adaptive`](super::Adaptive).
pub(super) fn price(victim: &Victim) -> u64 {
    let Some(next) = victim.next else { return 1 };
    let frames = u64::from(victim.frames);
    let copy_in = if next.overwrites { frames } else { frames * COPY_IN };
    let cost = copy_in + u64::from(victim.dirty) * COPY_OUT;
    let cost = if victim.busy { cost * BUSY } else { cost };
    (cost / next.within).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses a run at these times.
    fn used(habits: &mut Habits, uses: &[(u64, Use)]) -> Reuse {
        let mut reuse = Reuse::new(uses[0].0, uses[0].1);
        uses[1..].iter().for_each(|(now, what)| reuse.note(habits, &mut Kinds::default(), *now, *what));
        reuse
    }

    #[test]
    fn what_neighbours_did_is_expected_of_who_was_used_once() {
        let mut habits = Habits::default();
        used(&mut habits, &[(1, Use::Read), (49, Use::Read)]);
        let once = used(&mut habits, &[(20, Use::Read)]);
        assert_eq!(once.next(&habits, &Kinds::default(), 50), Next { within: 18, overwrites: false });
        // Long overdue: as long again as it has not been used.
        assert_eq!(once.next(&habits, &Kinds::default(), 90), Next { within: 70, overwrites: false });
    }

    #[test]
    fn nested_loops_are_learned_with_their_lengths_and_their_kinds() {
        // Overwritten, then changed three times, round after round of 64.
        let round = |at: u64| {
            [(at, Use::Overwrite), (at + 1, Use::Write), (at + 2, Use::Write), (at + 3, Use::Write)]
        };
        let mut habits = Habits::default();
        let uses: Vec<_> = (0..3).flat_map(|n| round(1 + n * 64)).collect();
        let after = |habits: &mut Habits, uses: &[(u64, Use)]| {
            let reuse = used(habits, uses);
            reuse.next(habits, &Kinds::default(), reuse.last())
        };
        assert_eq!(after(&mut habits, &uses), Next { within: 61, overwrites: true });
        assert_eq!(after(&mut habits, &uses[..10]), Next { within: 1, overwrites: false });
        assert_eq!(after(&mut habits, &uses[..9]), Next { within: 1, overwrites: false });
    }

    #[test]
    fn what_was_overwritten_comes_to_be_read_unless_others_were_not() {
        let (mut habits, mut kinds) = (Habits::default(), Kinds::default());
        // Read, then overwritten: since nothing is known of what comes after that, read.
        let mut old = Reuse::new(1, Use::Read);
        old.note(&mut habits, &mut kinds, 25, Use::Overwrite);
        assert_eq!(old.next(&habits, &kinds, 26), Next { within: 23, overwrites: false });
        // In another range what was overwritten was read; now it goes as it went with the first one.
        let mut others = Habits::default();
        let mut fresh = Reuse::new(1, Use::Overwrite);
        fresh.note(&mut others, &mut kinds, 25, Use::Read);
        assert_eq!(fresh.next(&others, &kinds, 26), Next { within: 23, overwrites: true });
    }

    #[test]
    fn without_a_pattern_the_rate_of_uses_counts() {
        let mut habits = Habits::default();
        let times = [3_u64, 4, 30, 37, 39, 80, 81, 120];
        let often = used(&mut habits, &times.map(|now| (now, Use::Read)));
        let seldom = used(&mut habits, &[(3, Use::Read), (70, Use::Read), (120, Use::Read)]);
        assert!(
            often.next(&habits, &Kinds::default(), 121).within
                < seldom.next(&habits, &Kinds::default(), 121).within
        );
    }

    #[test]
    fn results_that_were_read_are_cheap_and_those_that_nobody_read_are_not() {
        let habits = Habits::default();
        let price = |reuse: &Reuse, dirty| {
            let next = Some(reuse.next(&habits, &Kinds::default(), 20));
            price(&Victim { frames: 4, dirty, last_use: reuse.last(), busy: false, next })
        };
        let fresh = Reuse::new(10, Use::Overwrite);
        let mut consumed = fresh;
        consumed.note_read();
        let input = Reuse::new(10, Use::Read);
        assert!(price(&consumed, 0) < price(&input, 0) && price(&input, 0) < price(&fresh, 4));
        assert_eq!(super::price(&Victim { frames: 4, dirty: 0, last_use: 0, busy: false, next: None }), 1);
    }

    #[test]
    fn what_is_remembered_of_a_range_is_bounded() {
        let mut habits = Habits::default();
        let times: Vec<_> = (1..200).map(|n: u64| (n * n * n, Use::Read)).collect();
        used(&mut habits, &times);
        assert!(habits.known.len() <= HABITS_MAX && habits.trust >= -TRUST_MAX);
    }
}
