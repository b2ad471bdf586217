//! What a round tells a planner: who finished, what was missed and found, what follows from the group's number.

use super::line::{Line, Point};
use super::{GROUPS_MAX, Miss, NOBODY, Outcome, POINTS_KEPT, Planner};
use crate::paging::layout::{READ, WRITE};
use crate::policy::Use;
use alloc::vec::Vec;

impl Planner {
    /// What came of the round that was planned last.
    pub fn outcome(&mut self, outcome: &Outcome<'_>) {
        self.width = self.ran.len() as u32;
        let sample = !core::mem::replace(&mut self.sampled, true);
        self.report.rounds += 1;
        self.report.group_runs += u64::from(self.width);
        self.report.window_max = self.report.window_max.max(self.width);
        if !sample {
            let least = self.report.window_min;
            self.report.window_min = if least == 0 { self.width } else { least.min(self.width) };
        }
        self.kept.clear();
        for sub in self.plan.list() {
            self.kept.push((*sub, self.plan.access(*sub)));
            if self.how(*sub) == Use::Overwrite {
                self.stored[sub.0 as usize][sub.1 as usize] = true;
            }
        }
        let (groups, items) = self.count(outcome);
        let progress = groups > 0 || items > 0;
        self.collect(outcome);
        if !self.stretch {
            self.asked.clear(&self.ranges);
            self.tries = 0;
        }
        self.grew = false;
        let missed = self.misses.iter().map(|miss| (miss.sub, miss.access));
        for (sub, access) in self.touched.iter().copied().chain(missed) {
            self.grew |= self.asked.add(&self.ranges, sub, access, u32::MAX).1;
            self.habits[sub.0 as usize].access |= access;
        }
        for (at, habit) in self.habits.iter_mut().enumerate() {
            habit.most = habit.most.max(self.asked.frames(at));
        }
        self.learn();
        self.idle = !progress;
        self.stretch = !progress && !sample;
        if sample {
            self.begin();
        } else if progress {
            self.widen(groups, items);
        }
    }

    /// Notes who is done; how many groups and items are so since.
    fn count(&mut self, outcome: &Outcome<'_>) -> (u32, u64) {
        for (mine, theirs) in self.done.iter_mut().zip(outcome.done) {
            *mine |= theirs;
        }
        if let (Some(last), over @ 1..) = (self.done.last_mut(), self.groups % 32) {
            *last &= (1 << over) - 1;
        }
        let finished = self.done.iter().map(|word| word.count_ones()).sum();
        let groups = finished - self.finished;
        let items = outcome.items_done.saturating_sub(self.items_done);
        (self.finished, self.items_done) = (finished, self.items_done + items);
        while self.oldest < self.groups && super::is_set(&self.done, self.oldest) {
            self.oldest += 1;
        }
        (groups, items)
    }

    /// Reads what was missed and found. A miss that no range has is a kernel's mistake, and none.
    fn collect(&mut self, outcome: &Outcome<'_>) {
        self.misses.clear();
        self.touched.clear();
        for [range, sub, group, access] in outcome.misses.iter().copied() {
            let known = self.ranges.get(range as usize).is_some_and(|of| sub < of.subs && !of.resident);
            if known && group < self.groups {
                self.misses.push(Miss { group, sub: (range, sub), access });
            }
        }
        let listed = self.misses.len();
        for (at, range) in self.ranges.iter().enumerate().filter(|(_, range)| !range.resident) {
            for access in [READ, WRITE] {
                let (at, subs) = (at as u32, range.subs);
                let found = ones((outcome.touched)(at, access), subs).map(|sub| ((at, sub), access));
                self.touched.extend(found);
                if outcome.overflow {
                    let missing = ones((outcome.missing)(at, access), subs);
                    let miss = |sub| Miss { group: NOBODY, sub: (at, sub), access };
                    self.misses.extend(missing.map(miss));
                }
            }
        }
        if outcome.overflow {
            // Those in the list are among the bits, too.
            let each = |miss: &Miss| {
                let (sub, asked) = (miss.sub, miss.access);
                [READ, WRITE]
                    .into_iter()
                    .filter(move |access| asked & access != 0)
                    .map(move |access| (sub, access))
            };
            let mut known: Vec<_> = self.misses[..listed].iter().flat_map(each).collect();
            known.sort_unstable();
            let is_known = |miss: &Miss| known.binary_search(&(miss.sub, miss.access)).is_ok();
            self.misses.retain(|miss| miss.group != NOBODY || !is_known(miss));
        }
        self.misses.sort_by_key(|miss| miss.group);
        self.report.misses += self.misses.len() as u64;
    }

    /// Looks for a line in what was missed.
    fn learn(&mut self) {
        let mut fresh: Vec<Vec<Point>> = self.ranges.iter().map(|_| Vec::new()).collect();
        for miss in self.misses.iter().filter(|miss| miss.group != NOBODY) {
            let (range, sub) = miss.sub;
            join(&mut fresh[range as usize], Point { group: miss.group, low: sub, high: sub });
        }
        for (habit, fresh) in self.habits.iter_mut().zip(fresh).filter(|(_, fresh)| !fresh.is_empty()) {
            let mut both: Vec<Point> = habit.points.iter().chain(&fresh).copied().collect();
            both.sort_by_key(|point| point.group);
            let mut all = Vec::with_capacity(both.len());
            both.into_iter().for_each(|point| join(&mut all, point));
            while all.len() > POINTS_KEPT {
                all = all.into_iter().step_by(2).collect();
            }
            habit.line = Line::through(&all);
            habit.points = all;
            if habit.line.is_none() {
                habit.line = Line::through(&fresh);
                habit.points = fresh;
            }
        }
    }

    /// After the sample: as many groups as will have what no line tells.
    fn begin(&mut self) {
        let untold = (0..self.ranges.len()).filter(|at| self.habits[*at].line.is_none());
        let frames: u32 = untold.map(|at| self.asked.frames(at)).sum();
        if self.items == 0 && frames > 0 {
            let groups = u64::from(self.capacity) * u64::from(self.width) / u64::from(frames);
            self.window = u32::try_from(groups).unwrap_or(u32::MAX).clamp(1, self.window);
        }
    }

    /// After progress: as many groups as will have all that they ask for.
    fn widen(&mut self, groups: u32, items: u64) {
        let (width, cost) = (self.width, u64::from(self.asked.cost().max(1)));
        let fitting = (u64::from(width) * u64::from(self.capacity) / cost)
            .clamp(1, u64::from(self.groups.min(GROUPS_MAX))) as u32;
        if self.items > 0 {
            let most = groups * 2 >= width || items * 4 >= u64::from(width) * u64::from(self.lanes);
            // Twice as many may ask for what is there already; or not, and it took some rounds to come back.
            let room = cost * 2 <= u64::from(self.capacity);
            self.patience = if room { 1 } else { self.patience };
            self.calm += u32::from(most);
            if !most || self.calm < self.patience {
                return;
            }
            self.calm = 0;
            if self.lanes < self.items {
                self.lanes = self.items.min(self.lanes * 2);
            } else {
                self.window = self.window.max(width.saturating_mul(2)).min(self.groups.min(GROUPS_MAX));
            }
        } else if fitting < width {
            self.window = fitting;
        } else if groups >= width.div_ceil(2) {
            self.window = self.window.max(fitting.min(width.saturating_mul(2)));
        }
    }
}

/// Adds a point, which is of the last group or a later one.
fn join(points: &mut Vec<Point>, point: Point) {
    match points.last_mut() {
        Some(last) if last.group == point.group => {
            last.low = last.low.min(point.low);
            last.high = last.high.max(point.high);
        }
        _ => points.push(point),
    }
}

/// The places of ones among the first `count` bits.
fn ones(words: &[u32], count: u32) -> impl Iterator<Item = u32> + '_ {
    let of_word = |(at, word): (usize, &u32)| {
        let (mut word, at) = (*word, at as u32 * 32);
        core::iter::from_fn(move || {
            let bit = word.checked_sub(1).map(|_| word.trailing_zeros())?;
            word &= word - 1;
            Some(at + bit)
        })
    };
    words.iter().enumerate().flat_map(of_word).take_while(move |bit| *bit < count)
}
