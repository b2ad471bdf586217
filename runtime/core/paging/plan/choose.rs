//! Which groups a round has, and what it holds.

use super::pages::Sub;
use super::{Held, Miss, NOBODY, Planner, Round, is_set};
use crate::paging::layout::WRITE;
use crate::policy::Use;
use alloc::vec::Vec;

impl Planner {
    /// The groups of the next round, and what it holds.
    pub(super) fn choose(&mut self, whole: bool) {
        let Self { ranges, plan, asked, habits, ran, capacity, .. } = self;
        let capacity = *capacity;
        if whole {
            for sub in asked.list() {
                plan.add(ranges, *sub, asked.access(*sub), capacity);
            }
        }
        // What no line tells has its share, at least until everything is known.
        let untold = |at: usize| habits[at].line.is_none();
        let unknown: u32 = habits.iter().filter(|habit| habit.line.is_none()).map(|habit| habit.most).sum();
        let share = if whole { 0 } else { unknown.min(capacity / 2) };
        // A stretch goes on with the groups it has.
        let window = if self.stretch { self.width } else { self.window };
        let mut next = self.oldest;
        while (ran.len() as u32) < window && next < self.groups {
            let group = next;
            next += 1;
            if is_set(&self.done, group) {
                continue;
            }
            let mut all = true;
            for (at, habit) in habits.iter().enumerate() {
                for sub in habit.line.iter().flat_map(|line| line.of(group, ranges[at].subs)) {
                    all &= plan.add(ranges, (at as u32, sub), habit.access, capacity - share).0;
                }
            }
            if !all && !ran.is_empty() && !self.stretch {
                next = group;
                break;
            }
            ran.push(group);
        }
        let missed =
            self.misses.iter().filter(|miss| miss.group == NOBODY || !is_set(&self.done, miss.group));
        let (now, later): (Vec<&Miss>, _) = missed.partition(|miss| miss.group < next);
        let found = self.touched.iter().filter(|((range, _), _)| untold(*range as usize));
        // Items find by chance what others asked for; groups that are not in this round ask for it later.
        let by_chance = |miss: &&Miss| miss.group == NOBODY || self.items > 0 && untold(miss.sub.0 as usize);
        let missed: Vec<_> = now.into_iter().map(|miss| (miss.sub, miss.access)).collect();
        let found: Vec<_> = found.copied().collect();
        let chance = later.into_iter().filter(by_chance).map(|miss| (miss.sub, miss.access));
        // While nobody finishes, what was found is what everybody came as far as.
        let (first, second) = if self.idle { (found, missed) } else { (missed, found) };
        // Whatever else was held is there still, and others may ask for it.
        let kept = self.kept.iter().filter(|((range, _), _)| untold(*range as usize)).copied();
        for (sub, access) in first.into_iter().chain(second).chain(kept).chain(chance) {
            plan.add(ranges, sub, access, capacity);
        }
    }

    /// The round that `ran` and `plan` say.
    pub(super) fn round(&mut self) -> Round {
        let mut subs = self.plan.list().to_vec();
        subs.sort_unstable();
        let mut hold: Vec<Held> = Vec::new();
        for (range, sub) in subs {
            let access = self.how((range, sub));
            match hold.last_mut() {
                Some(last) if last.range == range && last.subs.end == sub && last.access == access => {
                    last.subs.end += 1;
                }
                _ => hold.push(Held { range, subs: sub..sub + 1, access }),
            }
        }
        let (even, odd) = (self.ran.iter().step_by(2), self.ran.iter().skip(1).step_by(2));
        Round { ids: even.chain(odd).copied().collect(), lanes: self.lanes, hold, frames: self.plan.cost() }
    }

    /// What a round does to a sub-block that it holds.
    pub(super) fn how(&self, sub: Sub) -> Use {
        let (at, stores) = (sub.0 as usize, self.plan.access(sub) & WRITE != 0);
        match self.ranges[at].access {
            _ if !stores => Use::Read,
            Use::Overwrite if self.stored[at][sub.1 as usize] => Use::Write,
            access => access,
        }
    }
}
