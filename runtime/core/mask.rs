//! A set of pages of one block, one bit a page, with the few set operations and the run iteration that plans need.

use core::ops::{BitAnd, BitOr, BitOrAssign, Not, Range};

/// A set of page numbers inside one block.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PageMask {
    words: [u64; PageMask::WORDS],
}

impl PageMask {
    const WORDS: usize = 8;
    /// The most pages a block may have.
    pub const CAPACITY: u32 = 512;
    /// No page.
    pub const EMPTY: Self = Self { words: [0; Self::WORDS] };

    /// The pages of `range`.
    ///
    /// # Panics
    /// If `range` ends past [`Self::CAPACITY`].
    pub fn range(range: Range<u32>) -> Self {
        assert!(range.end <= Self::CAPACITY, "a block has at most {} pages", Self::CAPACITY);
        let mut mask = Self::EMPTY;
        if range.start < range.end {
            let (first, last) = (range.start / 64, (range.end - 1) / 64);
            mask.words[first as usize..=last as usize].fill(u64::MAX);
            mask.words[first as usize] &= u64::MAX << (range.start % 64);
            mask.words[last as usize] &= u64::MAX >> (63 - (range.end - 1) % 64);
        }
        mask
    }

    /// Just `page`.
    pub fn single(page: u32) -> Self {
        Self::range(page..page + 1)
    }

    /// Whether `page` is in the set.
    pub fn contains(&self, page: u32) -> bool {
        self.words[(page / 64) as usize] >> (page % 64) & 1 == 1
    }

    /// How many pages are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.words == [0; Self::WORDS]
    }

    /// Whether the two sets share a page.
    pub fn intersects(&self, other: &Self) -> bool {
        !(*self & *other).is_empty()
    }

    /// Whether every page of `other` is in the set.
    pub fn covers(&self, other: &Self) -> bool {
        other.minus(self).is_empty()
    }

    /// The pages that are here and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        *self & !*other
    }

    /// Adds `other`'s pages.
    pub fn insert(&mut self, other: &Self) {
        *self |= *other;
    }

    /// Takes `other`'s pages out.
    pub fn remove(&mut self, other: &Self) {
        *self = self.minus(other);
    }

    /// The lowest page.
    pub fn first(&self) -> Option<u32> {
        self.next_set(0)
    }

    /// The set as ascending runs of neighbouring pages.
    pub fn runs(&self) -> Runs {
        Runs { mask: *self, at: 0 }
    }

    /// Whether a page of `range` is in the set.
    pub fn meets(&self, range: Range<u32>) -> bool {
        self.next_set(range.start).is_some_and(|page| page < range.end)
    }

    /// The set, grown to whole groups of `group` pages wherever it has one page of the group.
    #[must_use]
    pub fn rounded_to(&self, group: u32) -> Self {
        if group.is_power_of_two() && group <= 64 {
            return Self { words: self.words.map(|word| groups_of(word, group)) };
        }
        let mut out = Self::EMPTY;
        for run in self.runs() {
            out |=
                Self::range(run.start / group * group..(run.end.div_ceil(group) * group).min(Self::CAPACITY));
        }
        out
    }

    fn next_set(&self, from: u32) -> Option<u32> {
        self.next(from, |w| w)
    }

    fn next_clear(&self, from: u32) -> Option<u32> {
        self.next(from, |w| !w)
    }

    fn next(&self, from: u32, of: impl Fn(u64) -> u64) -> Option<u32> {
        let mut at = from;
        while at < Self::CAPACITY {
            let word = of(self.words[(at / 64) as usize]) >> (at % 64);
            if word != 0 {
                return Some(at + word.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }
}

/// The bits of `word`, grown to whole groups of `group`, a power of two that divides 64.
fn groups_of(word: u64, group: u32) -> u64 {
    let one = u64::MAX >> (64 - group);
    // At the first bit of each group: whether any of it is set.
    let (mut any, mut seen) = (word, 1);
    while seen < group {
        any |= any >> seen;
        seen *= 2;
    }
    (any & (u64::MAX / one)) * one
}

/// The runs of a [`PageMask`], ascending.
#[derive(Clone, Debug)]
pub struct Runs {
    mask: PageMask,
    at: u32,
}

impl Iterator for Runs {
    type Item = Range<u32>;

    fn next(&mut self) -> Option<Range<u32>> {
        let start = self.mask.next_set(self.at)?;
        let end = self.mask.next_clear(start).unwrap_or(PageMask::CAPACITY);
        self.at = end;
        Some(start..end)
    }
}

impl BitAnd for PageMask {
    type Output = Self;
    fn bitand(mut self, rhs: Self) -> Self {
        for (a, b) in self.words.iter_mut().zip(rhs.words) {
            *a &= b;
        }
        self
    }
}

impl BitOr for PageMask {
    type Output = Self;
    fn bitor(mut self, rhs: Self) -> Self {
        self |= rhs;
        self
    }
}

impl BitOrAssign for PageMask {
    fn bitor_assign(&mut self, rhs: Self) {
        for (a, b) in self.words.iter_mut().zip(rhs.words) {
            *a |= b;
        }
    }
}

impl Not for PageMask {
    type Output = Self;
    fn not(mut self) -> Self {
        for a in &mut self.words {
            *a = !*a;
        }
        self
    }
}

impl core::fmt::Debug for PageMask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.runs()).finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn twin(mask: &PageMask) -> BTreeSet<u32> {
        (0..PageMask::CAPACITY).filter(|p| mask.contains(*p)).collect()
    }

    #[test]
    fn ranges_and_runs_agree_with_a_naive_set() {
        let mut seed = 0x9e37_79b9_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u32
        };
        for _ in 0..2000 {
            let a = next() % 513;
            let b = a + next() % (513 - a);
            let c = next() % 513;
            let d = c + next() % (513 - c);
            let (m, n) = (PageMask::range(a..b), PageMask::range(c..d));
            assert_eq!(twin(&m), (a..b).collect());
            let both = m | n;
            assert_eq!(twin(&both), &twin(&m) | &twin(&n));
            assert_eq!(twin(&m.minus(&n)), &twin(&m) - &twin(&n));
            assert_eq!(
                both.runs().flatten().collect::<Vec<_>>(),
                twin(&both).into_iter().collect::<Vec<_>>()
            );
            assert_eq!(both.count() as usize, twin(&both).len());
            assert_eq!(m.intersects(&n), !twin(&m).is_disjoint(&twin(&n)));
        }
    }

    #[test]
    fn rounding_grows_to_whole_groups() {
        let m = PageMask::single(17) | PageMask::range(31..33);
        assert!(m.rounded_to(16).runs().eq(core::iter::once(16..48)));
        let set =
            PageMask::range(0..3) | PageMask::range(62..66) | PageMask::single(200) | PageMask::single(511);
        for group in [1, 2, 3, 4, 16, 32, 48, 64, 128, 512] {
            let naive = twin(&set).into_iter().flat_map(|p| p / group * group..(p / group + 1) * group);
            assert_eq!(
                twin(&set.rounded_to(group)),
                naive.filter(|p| *p < 512).collect(),
                "groups of {group}"
            );
            for first in (0..512 / group * group).step_by(group as usize) {
                let range = first..first + group;
                assert_eq!(set.meets(range.clone()), twin(&set).range(range).next().is_some());
            }
        }
    }
}
