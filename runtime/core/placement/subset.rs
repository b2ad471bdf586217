//! A set of sub-block numbers as ascending, disjoint, non-touching runs: which of a span's sub-blocks are dirty.

use alloc::vec::Vec;
use core::ops::Range;

/// The runs. Few in practice: launches write whole arguments.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct SubSet {
    runs: Vec<Range<u32>>,
}

impl SubSet {
    /// How many numbers are in the set.
    pub(super) fn count(&self) -> u32 {
        self.runs.iter().map(|r| r.end - r.start).sum()
    }

    /// Adds a run.
    pub(super) fn insert(&mut self, run: Range<u32>) {
        if run.is_empty() {
            return;
        }
        let from = self.runs.partition_point(|r| r.end < run.start);
        let to = self.runs.partition_point(|r| r.start <= run.end);
        let start = self.runs.get(from).map_or(run.start, |r| r.start.min(run.start));
        let end = if to > from { self.runs[to - 1].end.max(run.end) } else { run.end };
        self.runs.splice(from..to, [if to > from { start..end } else { run }]);
    }

    /// Takes a run out.
    pub(super) fn remove(&mut self, run: &Range<u32>) {
        let mut left = Vec::with_capacity(self.runs.len() + 1);
        for r in &self.runs {
            for part in [r.start..r.end.min(run.start), r.start.max(run.end)..r.end] {
                if part.start < part.end {
                    left.push(part);
                }
            }
        }
        if !run.is_empty() {
            self.runs = left;
        }
    }

    /// What of the set is inside `run`.
    #[must_use]
    pub(super) fn within(&self, run: &Range<u32>) -> Self {
        let clip = |r: &Range<u32>| r.start.max(run.start)..r.end.min(run.end);
        Self { runs: self.runs.iter().map(clip).filter(|r| r.start < r.end).collect() }
    }

    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: &Self) {
        for run in &other.runs {
            self.insert(run.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn agrees_with_a_naive_set() {
        let mut seed = 7_u64;
        let mut next = |n: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % n
        };
        let (mut set, mut twin) = (SubSet::default(), BTreeSet::new());
        for _ in 0..5000 {
            let start = next(40);
            let run = start..start + next(9);
            if next(2) == 0 {
                twin.extend(run.clone());
                set.insert(run.clone());
            } else {
                twin.retain(|s| !run.contains(s));
                set.remove(&run);
            }
            assert_eq!(set.runs.iter().cloned().flatten().collect::<BTreeSet<_>>(), twin);
            assert!(
                set.runs.windows(2).all(|w| w[0].end < w[1].start) && set.runs.iter().all(|r| !r.is_empty())
            );
            assert_eq!(set.count() as usize, twin.len());
            let clip = next(40)..20 + next(30);
            let want = twin.iter().filter(|s| clip.contains(s)).count();
            assert_eq!(set.within(&clip).count() as usize, want);
        }
    }
}
