//! How the sub-blocks of a range were used, on the device or not: runs that were always used together, in the order of addresses.

use crate::policy::{Habits, Kinds, Reuse, Use};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// A use of more runs than this makes one of them: it says what the program works on now, and bounds what a note costs.
const RUNS_PER_USE: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    end: u32,
    reuse: Reuse,
}

/// Start → run, disjoint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct History {
    runs: BTreeMap<u32, Run>,
    habits: Habits,
}

impl History {
    /// `subs` were used by one launch.
    pub(super) fn note(&mut self, kinds: &mut Kinds, subs: Range<u32>, now: u64, what: Use) {
        self.split(subs.start);
        self.split(subs.end);
        let habits = &mut self.habits;
        let (mut at, mut count, mut gaps) = (subs.start, 0, Vec::new());
        for (start, run) in self.runs.range_mut(subs.clone()) {
            if at < *start {
                gaps.push(at..*start);
            }
            run.reuse.note(habits, kinds, now, what);
            at = run.end;
            count += 1;
        }
        if at < subs.end {
            gaps.push(at..subs.end);
        }
        if count + gaps.len() > RUNS_PER_USE {
            let merged: Vec<u32> = self.runs.range(subs.clone()).map(|(start, _)| *start).collect();
            let taken: Vec<Run> = merged.iter().filter_map(|start| self.runs.remove(start)).collect();
            let reuse = taken.first().map_or_else(|| Reuse::new(now, what), |run| run.reuse);
            self.runs.insert(subs.start, Run { end: subs.end, reuse });
            return;
        }
        for gap in gaps {
            self.runs.insert(gap.start, Run { end: gap.end, reuse: Reuse::new(now, what) });
        }
    }

    /// The host read `subs`.
    pub(super) fn note_read(&mut self, subs: &Range<u32>) {
        let start = self.start_of(subs.start);
        self.runs.range_mut(start..subs.end).for_each(|(_, run)| run.reuse.note_read());
    }

    /// `subs` cut into runs that were used together, and how; `None`: never.
    pub(super) fn over(&self, subs: Range<u32>) -> impl Iterator<Item = (Range<u32>, Option<&Reuse>)> + '_ {
        let mut at = subs.start;
        let mut runs = self.runs.range(self.start_of(subs.start)..subs.end).peekable();
        core::iter::from_fn(move || {
            if at >= subs.end {
                return None;
            }
            let from = at;
            while runs.next_if(|(_, run)| run.end <= from).is_some() {}
            match runs.peek() {
                Some((start, run)) if **start <= from => {
                    at = run.end.min(subs.end);
                    Some((from..at, Some(&run.reuse)))
                }
                Some((start, _)) => {
                    at = **start;
                    Some((from..at, None))
                }
                None => {
                    at = subs.end;
                    Some((from..at, None))
                }
            }
        })
    }

    pub(super) fn habits(&self) -> &Habits {
        &self.habits
    }

    /// Where the run with `sub` in it starts; `sub` if there is none.
    fn start_of(&self, sub: u32) -> u32 {
        let before = self.runs.range(..=sub).next_back();
        before.filter(|(_, run)| sub < run.end).map_or(sub, |(start, _)| *start)
    }

    fn split(&mut self, at: u32) {
        let Some((_, run)) = self.runs.range_mut(..at).next_back() else { return };
        if at < run.end {
            let rest = run.clone();
            run.end = at;
            self.runs.insert(at, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    fn lasts(history: &History, subs: Range<u32>) -> Vec<(Range<u32>, Option<u64>)> {
        history.over(subs).map(|(run, reuse)| (run, reuse.map(|reuse| reuse.last()))).collect()
    }

    #[test]
    fn runs_are_cut_where_uses_begin_and_end() {
        let mut history = History::default();
        history.note(&mut Kinds::default(), 2..8, 1, Use::Read);
        history.note(&mut Kinds::default(), 6..10, 2, Use::Read);
        let all = vec![(0..2, None), (2..6, Some(1)), (6..8, Some(2)), (8..10, Some(2)), (10..12, None)];
        assert_eq!(lasts(&history, 0..12), all);
        assert_eq!(lasts(&history, 4..7), [(4..6, Some(1)), (6..7, Some(2))]);
        assert_eq!(lasts(&history, 20..21), [(20..21, None)]);
    }

    #[test]
    fn a_use_of_very_many_runs_makes_one_of_them() {
        let mut history = History::default();
        (0..100).for_each(|n| history.note(&mut Kinds::default(), n * 2..n * 2 + 1, u64::from(n), Use::Read));
        history.note(&mut Kinds::default(), 0..400, 200, Use::Read);
        assert_eq!(lasts(&history, 0..400), [(0..400, Some(200))]);
    }
}
