//! How the sub-blocks of a range were used, on the device or not: runs that were always used together, in the order of addresses.

use crate::policy::{Habits, Reuse, Use};
use alloc::collections::BTreeMap;
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
    pub(super) fn note(&mut self, subs: Range<u32>, now: u64, what: Use) {
        self.split(subs.start);
        self.split(subs.end);
        let habits = &mut self.habits;
        let (mut at, mut count, mut gaps) = (subs.start, 0, alloc::vec::Vec::new());
        for (start, run) in self.runs.range_mut(subs.clone()) {
            if at < *start {
                gaps.push(at..*start);
            }
            run.reuse.note(habits, now, what);
            at = run.end;
            count += 1;
        }
        if at < subs.end {
            gaps.push(at..subs.end);
        }
        if count + gaps.len() > RUNS_PER_USE {
            let (first, _) = self.runs.range(subs.clone()).next().expect("there are more than one");
            let reuse = self.runs[first].reuse;
            self.runs.retain(|start, _| !subs.contains(start));
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
