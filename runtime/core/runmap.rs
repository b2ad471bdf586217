//! A value per number, kept as runs: whatever was never set has the default. For advice, which few set, and then for long stretches.

use alloc::vec::Vec;
use core::ops::Range;

/// Runs of numbers with a value that is not the default: ascending, disjoint, neighbours differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunMap<V> {
    runs: Vec<(Range<u64>, V)>,
}

impl<V> Default for RunMap<V> {
    fn default() -> Self {
        Self { runs: Vec::new() }
    }
}

impl<V: Copy + Default + PartialEq> RunMap<V> {
    /// Whether nothing was set, or all of it back to the default.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The value of `at`.
    pub fn get(&self, at: u64) -> V {
        let after = self.runs.partition_point(|(run, _)| run.end <= at);
        self.runs.get(after).filter(|(run, _)| run.start <= at).map_or(V::default(), |(_, value)| *value)
    }

    /// All of `within`, cut where the value changes.
    pub fn over(&self, within: Range<u64>) -> Vec<(Range<u64>, V)> {
        let mut out = Vec::new();
        let mut at = within.start;
        let first = self.runs.partition_point(|(run, _)| run.end <= within.start);
        for (run, value) in self.runs[first..].iter().take_while(|(run, _)| run.start < within.end) {
            if at < run.start {
                out.push((at..run.start, V::default()));
                at = run.start;
            }
            let end = run.end.min(within.end);
            out.push((at..end, *value));
            at = end;
        }
        if at < within.end {
            out.push((at..within.end, V::default()));
        }
        out
    }

    /// Changes the value of all of `within`.
    pub fn change(&mut self, within: Range<u64>, mut change: impl FnMut(&mut V)) {
        if within.is_empty() {
            return;
        }
        let outside =
            |run: &Range<u64>| [run.start..run.end.min(within.start), run.start.max(within.end)..run.end];
        let mut all: Vec<(Range<u64>, V)> =
            self.runs.iter().flat_map(|(run, value)| outside(run).map(|part| (part, *value))).collect();
        all.extend(self.over(within.clone()).into_iter().map(|(run, mut value)| {
            change(&mut value);
            (run, value)
        }));
        all.retain(|(run, value)| !run.is_empty() && *value != V::default());
        all.sort_by_key(|(run, _)| run.start);
        self.runs.clear();
        for (run, value) in all {
            match self.runs.last_mut() {
                Some((last, same)) if last.end == run.start && *same == value => last.end = run.end,
                _ => self.runs.push((run, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_value_for_every_number() {
        let mut seed = 11_u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let (mut map, mut twin) = (RunMap::<u8>::default(), [0_u8; 48]);
        for _ in 0..3000 {
            let start = next(48);
            let run = start..(start + next(12)).min(48);
            let (keep, value) = (next(2) as u8, next(3) as u8);
            map.change(run.clone(), |v| *v = *v * keep + value);
            run.clone().for_each(|i| twin[i as usize] = twin[i as usize] * keep + value);
            assert!((0..48).all(|i| map.get(i) == twin[i as usize]));
            let told: Vec<u8> = map.over(3..45).into_iter().flat_map(|(r, v)| r.map(move |_| v)).collect();
            assert_eq!(told, &twin[3..45]);
            assert!(map.runs.windows(2).all(|w| w[0].0.end < w[1].0.start || w[0].1 != w[1].1));
            assert_eq!(map.is_empty(), twin.iter().all(|v| *v == 0));
        }
    }
}
