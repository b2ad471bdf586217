//! What each round of a paged launch holds and runs. Pure: it is told what the last round did, and says what the next one is.
//!
//! ```text
//!   sample: a few groups of the whole grid, nothing held ──► which ranges follow from the group's number, and how (lines)
//!   round:  the oldest unfinished groups, as many as the window
//!           hold  1 everything that this *stretch* asked for    2 what the lines say of these groups
//!                 3 what the oldest of them missed              4 what was touched, where no line tells
//!   outcome: somebody finished ──► a new stretch, perhaps with a wider window
//!            nobody did        ──► the same groups again with all that they asked for; if that does not fit, or was nothing new,
//!                                  half as many groups, at one group half its items: a new stretch; at one of these, more
//!                                  frames than the launch's part of them
//! ```
//!
//! **It ends.** A stretch is the rounds without progress with the same groups and items; what they asked for (missed or touched) is
//! *asked*. Within a stretch every round but the last asks for a sub-block, or an access, that is not in *asked* yet, since *asked* is
//! held, and fits the `F` frames there are; only twice may it go on although it does not fit. So a stretch has at most `2 F + 4` rounds.
//! It ends with progress, or with half as many groups or items; that happens at most `log2(groups) + log2(items)` times in a row, and
//! then it runs one group, or one item of it, on all frames if need be. With all that this one asked for in this stretch held, either it
//! asks for something new that fits, or it finishes, or what it alone needs does not fit ([`Stuck::TooLarge`]), or it does neither, which is no fault of the
//! frames ([`Stuck::Silent`]). What is remote changes between stretches alone. There are `groups * max(items, 1)` steps of progress at most, and one sample.
//! [`Planner::rounds_max`] is the product.

mod choose;
mod line;
mod outcome;
mod pages;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use super::layout::READ;
use super::layout::WRITE;
use crate::policy::Use;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use line::{Line, Point};
use pages::{Pages, Sub};

/// Groups of a sample at most.
const SAMPLE_MAX: u32 = 64;

/// A sample is so small a part of a grid.
const SAMPLE_PART: u32 = 10;

/// Of a grid with fewer groups a sample would tell nothing.
const GRID_MIN: u32 = 30;

/// Groups of one round at most: what is told of them has its place.
pub const GROUPS_MAX: u32 = 1 << 20;

/// Rounds that a stretch of items goes on though what it asked for does not fit: reading an index, a source and a target takes so many.
const TRIES: u32 = 2;

/// Rounds of items that go well before more of them are tried at once, though there may not be room for them.
const PATIENCE_MAX: u32 = 64;

/// Points that a line is kept by.
const POINTS_KEPT: usize = 256;

/// A range of a paged launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagedRange {
    /// Sub-blocks of it.
    pub subs: u32,
    /// Frames are taken for so many sub-blocks at once, aligned; at the end for what there is. 1: singly.
    pub subs_per_block: u32,
    /// What the kernel may do.
    pub access: Use,
    /// It is used in place: always there, and never planned.
    pub resident: bool,
}

/// What to run next, and what to hold for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Groups by their linear numbers, in the order of the dispatch: both halves of it have the same mix.
    pub ids: Vec<u32>,
    /// Of each so many items, the first unfinished ones; zero where the kernel does not go on by items.
    pub lanes: u32,
    /// Runs of sub-blocks, by range and place, none twice.
    pub hold: Vec<Held>,
    /// Frames that these take.
    pub frames: u32,
}

/// Sub-blocks that are there in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which range.
    pub range: u32,
    /// Which of its sub-blocks.
    pub subs: Range<u32>,
    /// What the round may do to them. `Overwrite` only once for each sub-block.
    pub access: Use,
}

/// One plane of a range's bits.
pub type Bits<'a> = &'a dyn Fn(u32, u32) -> &'a [u32];

/// What came of a round.
#[derive(Clone, Copy)]
pub struct Outcome<'a> {
    /// A bit for each group that is done, in this round or before.
    pub done: &'a [u32],
    /// Items that are done in all; zero where the kernel does not go on by items.
    pub items_done: u64,
    /// What the round missed, in order: range, sub-block, group, access.
    pub misses: &'a [[u32; 4]],
    /// There were more; the bits have them all.
    pub overflow: bool,
    /// What the round missed, by range and access ([`READ`] or [`WRITE`]): a bit for each sub-block.
    pub missing: Bits<'a>,
    /// What the round found there, likewise.
    pub touched: Bits<'a>,
}

/// Nothing more can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// What one group needs at once, or one of its items where the kernel goes on by items, does not fit. With more frames the planner
    /// goes on.
    TooLarge {
        /// Frames needed, as far as it came.
        need: u32,
        /// Frames there are.
        have: u32,
    },
    /// A group that had all that it asked for did not finish, and asked for nothing else: a fault of the kernel.
    Silent {
        /// Which.
        group: u32,
    },
}

/// What a paged launch took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rounds.
    pub rounds: u64,
    /// Groups of the grid.
    pub groups: u32,
    /// Groups of all rounds.
    pub group_runs: u64,
    /// Misses.
    pub misses: u64,
    /// The fewest groups of a round, the sample left out.
    pub window_min: u32,
    /// The most groups of a round.
    pub window_max: u32,
}

/// Of what was missed, but by whom was not written down.
const NOBODY: u32 = u32::MAX;

/// A miss.
#[derive(Clone, Copy, Debug)]
struct Miss {
    group: u32,
    sub: Sub,
    access: u32,
}

/// What is known of a range.
struct Habit {
    /// What groups missed, in order of them.
    points: Vec<Point>,
    line: Option<Line>,
    /// What is done to it, as far as seen.
    access: u32,
    /// The most frames that were asked for at once.
    most: u32,
}

/// See the file.
pub struct Planner {
    groups: u32,
    items: u32,
    ranges: Vec<PagedRange>,
    habits: Vec<Habit>,
    /// A bit for each group.
    done: Vec<u32>,
    /// No group before is unfinished.
    oldest: u32,
    finished: u32,
    items_done: u64,
    /// Groups that a round may have.
    window: u32,
    lanes: u32,
    /// The round that was planned last: its groups, what it holds, and the frames there were.
    ran: Vec<u32>,
    plan: Pages,
    capacity: u32,
    /// Frames to plan with where a part of them does not suffice: twice what one group or item needed, so that it need not be alone.
    least: u32,
    /// Rounds with progress since there were as many items at once; after so many there will be more, though not all may fit.
    calm: u32,
    patience: u32,
    /// So many groups had the last one that ran.
    width: u32,
    /// Overwritten sub-blocks that a round held: their bytes count.
    stored: Vec<Vec<bool>>,
    /// What was asked for in this stretch.
    asked: Pages,
    /// The last round was one of a stretch that goes on; whether it asked for anything new.
    stretch: bool,
    grew: bool,
    /// Nobody finished in the last round.
    idle: bool,
    /// It was given so many rounds though not all of that fits.
    tries: u32,
    /// What the last round missed, by group; what it found.
    misses: Vec<Miss>,
    touched: Vec<(Sub, u32)>,
    /// What it held.
    kept: Vec<(Sub, u32)>,
    sampled: bool,
    report: Report,
}

impl Planner {
    /// A plan for `groups` groups of `items` items each (0: the kernel goes on by groups) over `ranges`.
    ///
    /// # Panics
    /// If a range takes frames for no sub-blocks at once.
    pub fn new(groups: u32, items: u32, ranges: Vec<PagedRange>) -> Self {
        assert!(
            ranges.iter().all(|range| range.subs_per_block > 0),
            "frames are taken for one sub-block at least"
        );
        let habit = |_: &PagedRange| Habit { points: Vec::new(), line: None, access: 0, most: 0 };
        Self {
            groups,
            items,
            habits: ranges.iter().map(habit).collect(),
            done: vec![0; groups.div_ceil(32) as usize],
            oldest: 0,
            finished: 0,
            items_done: 0,
            window: groups.clamp(1, GROUPS_MAX),
            lanes: items,
            ran: Vec::new(),
            plan: Pages::new(&ranges),
            capacity: 0,
            least: 0,
            calm: 0,
            patience: 1,
            width: 0,
            stored: ranges.iter().map(|range| vec![false; range.subs as usize]).collect(),
            asked: Pages::new(&ranges),
            stretch: false,
            grew: false,
            idle: false,
            tries: 0,
            misses: Vec::new(),
            touched: Vec::new(),
            kept: Vec::new(),
            sampled: groups < GRID_MIN || ranges.iter().all(|range| range.resident),
            report: Report { groups, ..Report::default() },
            ranges,
        }
    }

    /// What to run next, with `mine` frames to hold, or as many of `all` as one group or item needs that these do not suffice for;
    /// `None`: everything is done. Asked again without an outcome, it plans anew.
    ///
    /// # Errors
    /// See [`Stuck`]; nothing has changed then.
    pub fn next(&mut self, mine: u32, all: u32) -> Result<Option<Round>, Stuck> {
        self.plan.clear(&self.ranges);
        self.ran.clear();
        self.capacity = mine.max(self.least.min(all));
        if self.finished == self.groups {
            return Ok(None);
        }
        if !self.sampled {
            let last = u64::from(self.groups - 1);
            let count = u64::from((self.groups / SAMPLE_PART).min(SAMPLE_MAX));
            self.ran.extend((0..count).map(|i| (i * last / (count - 1)) as u32));
            return Ok(Some(self.round()));
        }
        let fits = self.asked.cost() <= self.capacity;
        let whole = self.stretch && fits && self.grew;
        // Items that go on step by step find what is kept for them, where not all of it fits.
        let again = self.items > 0 && self.width > 1 && !fits && self.stretch && self.tries < TRIES;
        if self.stretch && !whole && !again {
            self.narrow(all)?;
        }
        self.tries += u32::from(again);
        self.choose(self.stretch && !again);
        Ok(Some(self.round()))
    }

    /// Half as many groups, or items of the one; if that is one, as many frames as it needs.
    fn narrow(&mut self, all: u32) -> Result<(), Stuck> {
        let need = self.asked.cost();
        if self.width > 1 {
            self.window = self.width / 2;
            self.width = self.window;
        } else if self.lanes > 1 {
            self.lanes /= 2;
        } else if need > all.max(self.capacity) {
            return Err(Stuck::TooLarge { need, have: all.max(self.capacity) });
        } else if need > self.capacity {
            self.least = need.saturating_mul(2);
            self.capacity = self.least.min(all);
            // All was narrow because the part was.
            (self.calm, self.patience) = (0, 1);
            return Ok(());
        } else {
            return Err(Stuck::Silent { group: self.oldest });
        }
        self.stretch = false;
        (self.calm, self.patience) = (0, PATIENCE_MAX.min(self.patience * 2));
        Ok(())
    }
}

impl Planner {
    /// Whether it may be told that sub-blocks are remote now, or no longer: not within a stretch, in which what was asked for is held.
    pub fn is_between(&self) -> bool {
        !self.stretch
    }

    /// From now on these sub-blocks, whole blocks, are *remote*: there for loads without frames, and never planned. Or they are no longer.
    ///
    /// # Panics
    /// Within a stretch; if the range may be stored to; if they are no whole blocks.
    pub fn set_remote(&mut self, range: u32, subs: Range<u32>, remote: bool) {
        assert!(self.is_between(), "a stretch goes on with what it has");
        assert_eq!(self.ranges[range as usize].access, Use::Read, "what is remote is not stored to");
        self.asked.set_remote(&self.ranges, range, subs.clone(), remote);
        self.plan.set_remote(&self.ranges, range, subs, remote);
        self.habits[range as usize].most = self.asked.frames(range as usize);
    }

    /// What it took so far.
    pub fn report(&self) -> Report {
        self.report
    }

    /// No more rounds than that, with `capacity` frames throughout: see the file.
    pub fn rounds_max(&self, capacity: u32) -> u64 {
        let bits = |n: u32| u64::from(u32::BITS - n.leading_zeros());
        let steps = u64::from(self.groups).saturating_mul(u64::from(self.items.max(1)));
        let each =
            (bits(self.groups) + bits(self.items) + 1) * (2 * u64::from(capacity) + 2 + u64::from(TRIES));
        steps.saturating_mul(each).saturating_add(1)
    }
}

fn is_set(bits: &[u32], at: u32) -> bool {
    bits[at as usize / 32] & 1 << (at % 32) != 0
}
