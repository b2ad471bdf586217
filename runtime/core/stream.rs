//! Streams: who touches a range in a pattern, where he comes next, and what was brought ahead of him.
//!
//! ```text
//!            from          marker                    to
//!   ───────────┼─────────────┼────────────────────────┼──►  sub-blocks, in the direction of the stream
//!   served     │ shown as it │ there or on its way;   │ not asked for yet
//!   before     │ arrives     │ the marker is not shown │
//! ```
//!
//! A touch of the marker says that the stream goes on: the next window is asked for while the one behind the marker is read. So
//! what is there is always one window ahead, and a stream costs a fault per window.

use crate::units::{BlockIndex, Geometry, PageIndex};

/// Most windows' length, in blocks.
const WINDOW_MAX: u32 = 4;
/// Farthest stride that is looked for, in blocks.
const STRIDE_BLOCKS: i64 = 4;

/// One touch that is part of a stream, or the first of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Sub-blocks from one touch to the next; zero if there is no stream.
    pub(crate) stride: i64,
    /// How many touches of the stream are worth serving at once.
    pub(crate) run: u32,
    /// How many blocks beyond the touched one are to be on their way.
    pub(crate) ahead: u32,
}

/// One toucher.
#[derive(Clone, Copy, Debug)]
struct Lane {
    /// Where its last run began; sub-blocks of the reservation.
    from: i64,
    /// The touch that it goes on with.
    next: i64,
    /// Sub-blocks between touches; a guess while `run` is 1.
    stride: i64,
    /// What it was served last; zero: nobody's lane.
    run: u32,
    /// Length of the window behind the marker, in blocks.
    window: u32,
    /// One past the last sub-block that was asked for.
    to: i64,
    /// Where it was touched last.
    last: i64,
    /// When it was last followed.
    stamp: u64,
}

impl Lane {
    const NONE: Self = Self { from: 0, next: 0, stride: 0, run: 0, window: 0, to: 0, last: 0, stamp: 0 };

    fn is_stream(&self) -> bool {
        self.run > 1
    }

    /// Whether a touch of `sub` is the one that the lane goes on with. Who takes steps of somewhat more than a sub-block leaves one
    /// out now and then, which may be the marker, or the first that was not served.
    fn expects(&self, sub: i64, per_block: u32) -> bool {
        if self.stride.abs() != 1 || self.next == sub {
            return self.next == sub;
        }
        let size = i64::from(per_block);
        let skipped = (sub - self.next) * self.stride;
        if self.window > 0 {
            skipped > 0 && self.next.div_euclid(size) == sub.div_euclid(size)
        } else {
            skipped == 1
        }
    }

    /// Whether a touch of `sub`, which the lane has already, may be its own: not if it lies behind the last one.
    fn meets(&self, sub: i64) -> bool {
        self.has(sub) && (sub - self.last) * self.stride >= 0
    }

    /// Whether `sub` lies in what the lane was given, or was promised.
    fn has(&self, sub: i64) -> bool {
        if self.stride >= 0 { self.from <= sub && sub < self.to } else { self.to < sub && sub <= self.from }
    }
}

/// Per range: the last few touchers. Threads that walk it side by side, and arrays that lie in it one behind the other, have a
/// lane each.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    lanes: [Lane; Self::LANES],
    clock: u64,
}

impl Stream {
    /// So many are told apart.
    pub const LANES: usize = 4;

    /// Nothing was touched yet.
    pub const fn new() -> Self {
        Self { lanes: [Lane::NONE; Self::LANES], clock: 0 }
    }

    /// Notes a touch of `page`.
    pub(crate) fn follow(&mut self, page: PageIndex, g: Geometry) -> Step {
        let sub = (page.0 / u64::from(g.pages_per_sub)) as i64;
        let per_block = g.subs_per_block();
        self.clock += 1;
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.is_stream() && l.expects(sub, per_block)) {
            lane.stamp = self.clock;
            lane.run = (lane.run * 2).min(per_block);
            return lane.go_on(sub, per_block);
        }
        // Somebody comes the other way through what a stream left.
        let turned = self.lanes.iter().find(|l| l.is_stream() && l.has(sub) && l.last - sub == l.stride);
        if let Some(stride) = turned.map(|l| -l.stride) {
            let stamp = self.clock;
            let lane = self.oldest();
            *lane = Lane { from: sub, stride, run: 2, last: sub, stamp, ..Lane::NONE };
            return lane.go_on(sub, per_block);
        }
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.is_stream() && l.meets(sub)) {
            // It met what is still on its way, or could not be brought.
            (lane.last, lane.stamp) = (sub, self.clock);
            return Step { stride: lane.stride, run: lane.run, ahead: 0 };
        }
        let begins = |l: &&mut Lane| l.run == 1 && ((sub - l.from).abs() == 1 || l.next == sub);
        if let Some(lane) = self.lanes.iter_mut().find(begins) {
            let stride = sub - lane.from;
            *lane = Lane { from: sub, stride, run: 2, last: sub, stamp: self.clock, ..Lane::NONE };
            return lane.go_on(sub, per_block);
        }
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.run == 1 && l.from == sub) {
            lane.stamp = self.clock; // the same again: a message twice, or a second thread
            return Step { stride: 0, run: 1, ahead: 0 };
        }
        let far = STRIDE_BLOCKS * i64::from(per_block);
        let away = |l: &Lane| (sub - l.from).abs();
        let near = self.lanes.iter().filter(|l| l.run == 1 && away(l) <= far).min_by_key(|l| away(l));
        let stride = near.map_or(0, |l| sub - l.from);
        let next = if stride == 0 { sub + 1 } else { sub + stride };
        let stamp = self.clock;
        *self.oldest() = Lane { from: sub, next, stride, run: 1, stamp, ..Lane::NONE };
        Step { stride: 0, run: 1, ahead: 0 }
    }

    fn oldest(&mut self) -> &mut Lane {
        self.lanes.iter_mut().min_by_key(|l| l.stamp).expect("there are lanes")
    }

    /// The last touch, of a stream of neighbours, was served with `run` sub-blocks of its block.
    pub(crate) fn served(&mut self, run: u32) {
        if let Some(lane) = self.lanes.iter_mut().find(|l| l.is_stream() && l.stamp == self.clock) {
            let end = lane.from + lane.stride * i64::from(run);
            if (end - lane.next) * lane.stride > 0 {
                (lane.next, lane.to) = (end, end);
            }
        }
    }

    /// Whether a stream is about to reach `block`, so that what arrives there is worth showing at once. Not so the marker's: its
    /// touch is what brings the next window.
    pub fn is_near(&self, block: BlockIndex, g: Geometry) -> bool {
        let per_block = i64::from(g.subs_per_block());
        let first = i64::from(block.0) * per_block;
        let mut streams = self.lanes.iter().filter(|lane| lane.is_stream());
        let marks = |lane: &Lane| lane.window > 0 && lane.next.div_euclid(per_block) == i64::from(block.0);
        if streams.clone().any(marks) {
            return false; // also where another stream left it
        }
        streams.any(|lane| (first..first + per_block).any(|sub| lane.has(sub)))
    }
}

impl Lane {
    /// The stream was touched where it was expected: where it is expected next, and what is to be ahead of it.
    fn go_on(&mut self, sub: i64, per_block: u32) -> Step {
        let size = i64::from(per_block);
        let block = sub.div_euclid(size);
        (self.from, self.last) = (sub, sub);
        let step = |ahead| Step { stride: self.stride, run: self.run, ahead };
        if self.stride.abs() == 1 && self.run == per_block {
            // Whole blocks: the window behind the one that begins here, or the first of all.
            let way = self.stride;
            let last = if self.window == 0 { block } else { block + way * (i64::from(self.window) - 1) };
            self.window = (self.window * 2).clamp(1, WINDOW_MAX);
            let end = last + way * i64::from(self.window);
            let edge = |block: i64| if way > 0 { block * size } else { block * size + size - 1 };
            (self.next, self.to) = (edge(last + way), edge(end + way));
            return step((end - block).unsigned_abs() as u32);
        }
        // Within the block.
        let room = if self.stride > 0 { size - 1 - sub.rem_euclid(size) } else { sub.rem_euclid(size) };
        let more = (room / self.stride.abs()).min(i64::from(self.run) - 1);
        (self.next, self.to) =
            (sub + (more + 1) * self.stride, sub + more * self.stride + self.stride.signum());
        step(0)
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}
