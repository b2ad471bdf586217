//! Windows over arrays that are larger than the device.

use std::ops::Range;

/// Bytes of one frame: windows start and end on frames of each array where they can.
const FRAME_BYTES: usize = 65536;

/// Ranges of items; see [`crate::Runtime::windows`].
#[derive(Clone, Debug)]
pub struct Windows {
    next: usize,
    len: usize,
    step: usize,
}

impl Windows {
    pub(crate) fn new(len: usize, bytes_per_item: usize, depth: usize, limit: u64) -> Self {
        let each = usize::try_from(limit).unwrap_or(usize::MAX) / depth.max(1);
        let most = (each / bytes_per_item.max(1)).max(1);
        // A multiple of 65,536 items is whole frames whatever an item's size; small limits make do with a power of two.
        let step = if most >= FRAME_BYTES { most / FRAME_BYTES * FRAME_BYTES } else { 1 << most.ilog2() };
        Self { next: 0, len, step }
    }

    /// Items of every window but the last.
    pub fn step(&self) -> usize {
        self.step
    }
}

impl Iterator for Windows {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        if self.next >= self.len {
            return None;
        }
        let start = self.next;
        self.next = start.saturating_add(self.step).min(self.len);
        Some(start..self.next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.len - self.next).div_ceil(self.step);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Windows {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_once_and_fit() {
        for (len, per_item, depth, limit) in
            [(10_000_000, 8, 2, 20 << 20), (5, 4, 2, 1 << 20), (0, 4, 2, 1 << 20), (1 << 20, 12, 3, 1 << 20)]
        {
            let windows = Windows::new(len, per_item, depth, limit);
            assert!((windows.step() * per_item * depth) as u64 <= limit);
            assert_eq!(windows.len(), windows.clone().count());
            let mut next = 0;
            for w in windows {
                assert_eq!(w.start, next);
                next = w.end;
            }
            assert_eq!(next, len);
        }
    }
}
