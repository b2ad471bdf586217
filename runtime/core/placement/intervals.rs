//! A set of numbers as runs in a search tree: what of a scattered range is in committed spans. Each call is O(log runs), where
//! [`super::subset::SubSet`] is better for the few runs of one span.

use alloc::collections::BTreeMap;
use core::ops::Range;

/// Start → end, ascending, disjoint and not touching.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Intervals {
    runs: BTreeMap<u32, u32>,
}

impl Intervals {
    /// Whether all of `run` is in the set.
    pub(super) fn covers(&self, run: &Range<u32>) -> bool {
        self.runs.range(..=run.start).next_back().is_some_and(|(_, end)| run.end <= *end)
    }

    /// Adds a run, none of which is in the set.
    pub(super) fn insert(&mut self, run: Range<u32>) {
        let end = self.runs.remove(&run.end).unwrap_or(run.end);
        if let Some((_, left)) = self.runs.range_mut(..run.start).next_back() {
            if *left == run.start {
                *left = end;
                return;
            }
        }
        self.runs.insert(run.start, end);
    }

    /// Takes out a run, all of which is in the set.
    pub(super) fn remove(&mut self, run: Range<u32>) {
        let Some((start, end)) = self.runs.range_mut(..=run.start).next_back() else { return };
        let (start, old) = (*start, core::mem::replace(end, run.start));
        if start == run.start {
            self.runs.remove(&start);
        }
        if run.end < old {
            self.runs.insert(run.end, old);
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
        let mut seed = 3_u64;
        let mut next = |n: u32| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32 % n
        };
        let (mut set, mut twin) = (Intervals::default(), BTreeSet::new());
        for _ in 0..5000 {
            let start = next(40);
            let run = start..start + 1 + next(8);
            let (all, none) =
                (run.clone().all(|n| twin.contains(&n)), run.clone().all(|n| !twin.contains(&n)));
            assert_eq!(set.covers(&run), all);
            if none {
                twin.extend(run.clone());
                set.insert(run);
            } else if all {
                twin.retain(|n| !run.contains(n));
                set.remove(run);
            } else {
                let n = run.into_iter().find(|n| twin.contains(n)).unwrap_or_default();
                twin.remove(&n);
                set.remove(n..n + 1);
            }
            assert_eq!(set.runs.iter().flat_map(|(a, b)| *a..*b).collect::<BTreeSet<_>>(), twin);
            let runs: std::vec::Vec<_> = set.runs.iter().collect();
            assert!(runs.windows(2).all(|w| w[0].1 < w[1].0) && runs.iter().all(|(a, b)| a < b));
        }
    }
}
