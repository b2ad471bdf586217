//! What lies where in sparse buffers: the table of every live binding, and the check of every bind before a driver sees it.
//!
//! Drivers and their layers let wrong binds pass: a frame bound twice gives two ranges the same bytes, and nobody says so. Here
//! every change of a submission is checked as one; a refusal is a broken invariant of the caller's, and changes nothing.
//!
//! Sub-blocks and frames are numbers of whole frames, so that nothing can be misaligned. Neighbours on both sides are one entry: a
//! range of 64 GiB in one run of frames costs as much as one of 64 KiB.

#[cfg(test)]
mod tests;

use crate::placement::Binding;
use crate::units::{FrameIndex, FrameRun, RangeId};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;

/// Why binds were refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The range was not added, or is gone.
    #[error("{range:?} has no sparse buffer: add the range before its first bind")]
    UnknownRange {
        /// Which.
        range: RangeId,
    },
    /// The range was added before.
    #[error("{range:?} has a sparse buffer already: a range is added once")]
    KnownRange {
        /// Which.
        range: RangeId,
    },
    /// A stretch is empty, or has not as many frames as sub-blocks.
    #[error(
        "sub-blocks {subs:?} of {range:?} cannot lie in frames {frames:?}: there must be as many, at least one"
    )]
    Uneven {
        /// Whose sub-blocks.
        range: RangeId,
        /// Which.
        subs: Range<u32>,
        /// The frames.
        frames: FrameRun,
    },
    /// A stretch ends past its range.
    #[error("sub-blocks {subs:?} are not all in {range:?}, which has {range_subs}")]
    PastEnd {
        /// Whose sub-blocks.
        range: RangeId,
        /// Which.
        subs: Range<u32>,
        /// How many the range has.
        range_subs: u32,
    },
    /// What is to be unbound does not lie there.
    #[error("sub-block {sub} of {range:?} cannot be unbound from frame {}: it is bound to {found:?}", frame.0)]
    NotBound {
        /// Whose sub-block.
        range: RangeId,
        /// Which.
        sub: u32,
        /// Where it was said to lie.
        frame: FrameIndex,
        /// Where it lies.
        found: Option<FrameIndex>,
    },
    /// A sub-block is bound already.
    #[error("sub-block {sub} of {range:?} is bound to frame {} already: unbind it first", frame.0)]
    AlreadyBound {
        /// Whose sub-block.
        range: RangeId,
        /// The first such.
        sub: u32,
        /// Where it lies.
        frame: FrameIndex,
    },
    /// A frame is bound already.
    #[error("frame {} is bound to sub-block {sub} of {range:?} already: unbind it there first", frame.0)]
    FrameTaken {
        /// The first such.
        frame: FrameIndex,
        /// Who has it.
        range: RangeId,
        /// Which sub-block of it.
        sub: u32,
    },
}

/// A range with a sparse buffer: its length, and first sub-block → frames of every stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    subs: u32,
    runs: BTreeMap<u32, FrameRun>,
}

impl Bound {
    /// The last stretch that starts before `end`.
    fn before(&self, end: u32) -> Option<(u32, FrameRun)> {
        self.runs.range(..end).next_back().map(|(sub, frames)| (*sub, *frames))
    }

    fn frame_of(&self, sub: u32) -> Option<FrameIndex> {
        let (start, frames) = self.before(sub.checked_add(1)?)?;
        (sub - start < frames.count).then(|| FrameIndex(frames.first.0 + (sub - start)))
    }
}

/// The table. Neighbouring stretches always differ in where they lie, so a given state has one form.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bindings {
    ranges: BTreeMap<RangeId, Bound>,
    /// First frame of every stretch → whose it is, and its first sub-block and length.
    frames: BTreeMap<u32, (RangeId, u32, u32)>,
}

impl Bindings {
    /// A range of `subs` sub-blocks has a sparse buffer now, with nothing bound.
    ///
    /// # Errors
    /// [`BindError::KnownRange`].
    pub fn add_range(&mut self, range: RangeId, subs: u32) -> Result<(), BindError> {
        if self.ranges.contains_key(&range) {
            return Err(BindError::KnownRange { range });
        }
        self.ranges.insert(range, Bound { subs, runs: BTreeMap::new() });
        Ok(())
    }

    /// The sparse buffer of a range is destroyed, and all its binds with it.
    ///
    /// # Errors
    /// [`BindError::UnknownRange`].
    pub fn remove_range(&mut self, range: RangeId) -> Result<(), BindError> {
        let bound = self.ranges.remove(&range).ok_or(BindError::UnknownRange { range })?;
        for frames in bound.runs.values() {
            self.frames.remove(&frames.first.0);
        }
        Ok(())
    }

    /// Changes the table by one submission: first the unbinds, then the binds; all or nothing.
    ///
    /// # Errors
    /// The first [`BindError`]; nothing has changed then.
    pub fn apply(&mut self, unbinds: &[Binding], binds: &[Binding]) -> Result<(), BindError> {
        let steps = unbinds.iter().map(|unbind| (unbind, false)).chain(binds.iter().map(|bind| (bind, true)));
        let mut done: Vec<(&Binding, bool)> = Vec::new();
        for (stretch, bind) in steps {
            let checked = if bind { self.check_bind(stretch) } else { self.check_unbind(stretch) };
            if let Err(error) = checked {
                done.into_iter().rev().for_each(|(stretch, bound)| self.change(stretch, !bound));
                return Err(error);
            }
            self.change(stretch, bind);
            done.push((stretch, bind));
        }
        Ok(())
    }

    /// Where a sub-block lies.
    pub fn frame_of(&self, range: RangeId, sub: u32) -> Option<FrameIndex> {
        self.ranges.get(&range)?.frame_of(sub)
    }

    /// Whether all of `subs` are bound: what is not must never be read or written by a kernel.
    pub fn covers(&self, range: RangeId, subs: &Range<u32>) -> bool {
        let Some(bound) = self.ranges.get(&range) else { return false };
        let mut at = subs.end;
        while at > subs.start {
            match bound.before(at) {
                Some((start, frames)) if at - start <= frames.count => at = start,
                _ => return false,
            }
        }
        true
    }

    fn check(&self, Binding { range, subs, frames }: &Binding) -> Result<&Bound, BindError> {
        let range = *range;
        let bound = self.ranges.get(&range).ok_or(BindError::UnknownRange { range })?;
        if subs.is_empty() || subs.end - subs.start != frames.count {
            return Err(BindError::Uneven { range, subs: subs.clone(), frames: *frames });
        }
        if subs.end > bound.subs {
            return Err(BindError::PastEnd { range, subs: subs.clone(), range_subs: bound.subs });
        }
        Ok(bound)
    }

    fn check_unbind(&self, unbind: &Binding) -> Result<(), BindError> {
        let bound = self.check(unbind)?;
        let mut sub = unbind.subs.start;
        while sub < unbind.subs.end {
            let frame = FrameIndex(unbind.frames.first.0 + (sub - unbind.subs.start));
            let found = bound.frame_of(sub);
            let (Some((start, frames)), true) = (bound.before(sub + 1), found == Some(frame)) else {
                return Err(BindError::NotBound { range: unbind.range, sub, frame, found });
            };
            sub = start + frames.count;
        }
        Ok(())
    }

    fn check_bind(&self, bind: &Binding) -> Result<(), BindError> {
        let bound = self.check(bind)?;
        // The first stretch that is in the way is the one that reaches into the start, or the next.
        let reaching = bound.frame_of(bind.subs.start).map(|frame| (bind.subs.start, frame));
        let next = || bound.runs.range(bind.subs.clone()).next().map(|(sub, frames)| (*sub, frames.first));
        if let Some((sub, frame)) = reaching.or_else(next) {
            return Err(BindError::AlreadyBound { range: bind.range, sub, frame });
        }
        let first = bind.frames.first.0;
        let reaching =
            self.frames.range(..=first).next_back().filter(|(at, (.., count))| first - *at < *count);
        if let Some((at, (range, sub, count))) =
            reaching.or_else(|| self.frames.range(first..bind.frames.end()).next())
        {
            let frame = first.max(*at);
            debug_assert!(frame - at < *count, "the stretch has the frame");
            return Err(BindError::FrameTaken {
                frame: FrameIndex(frame),
                range: *range,
                sub: sub + (frame - at),
            });
        }
        Ok(())
    }

    /// Binds or unbinds what was checked.
    fn change(&mut self, stretch: &Binding, bind: bool) {
        if bind { self.join(stretch) } else { self.cut(stretch) }
    }

    fn join(&mut self, Binding { range, subs, frames }: &Binding) {
        let (mut start, mut joined) = (subs.start, *frames);
        let Some(bound) = self.ranges.get(range) else { return };
        if let Some((sub, left)) = bound.before(start) {
            if sub + left.count == start && left.end() == joined.first.0 {
                (start, joined) = (sub, FrameRun { first: left.first, count: left.count + joined.count });
            }
        }
        if let Some(right) = bound.runs.get(&subs.end).copied() {
            if right.first.0 == joined.end() {
                self.leave(*range, subs.end);
                joined.count += right.count;
            }
        }
        self.enter(*range, start, joined);
    }

    fn cut(&mut self, Binding { range, subs, .. }: &Binding) {
        let mut end = subs.end;
        while let Some((start, frames)) = self.ranges.get(range).and_then(|bound| bound.before(end)) {
            if start + frames.count <= subs.start {
                break;
            }
            self.leave(*range, start);
            let part = |from: u32, to: u32| FrameRun {
                first: FrameIndex(frames.first.0 + (from - start)),
                count: to - from,
            };
            if start + frames.count > subs.end {
                self.enter(*range, subs.end, part(subs.end, start + frames.count));
            }
            if start < subs.start {
                self.enter(*range, start, part(start, subs.start));
            }
            end = start;
        }
    }

    fn enter(&mut self, range: RangeId, sub: u32, frames: FrameRun) {
        if let Some(bound) = self.ranges.get_mut(&range) {
            bound.runs.insert(sub, frames);
            self.frames.insert(frames.first.0, (range, sub, frames.count));
        }
    }

    fn leave(&mut self, range: RangeId, sub: u32) {
        if let Some(frames) = self.ranges.get_mut(&range).and_then(|bound| bound.runs.remove(&sub)) {
            self.frames.remove(&frames.first.0);
        }
    }
}
