//! Placement: which frames a launch's arguments get, what must move or go for them, and when frames may be used again.
//!
//! A placement owns frames, spans and the eviction order. It knows ranges by id and sub-block number only: no address, no page,
//! no page state. It answers with a [`Plan`]; the engine carries the plan out and then says [`Placement::commit`] or
//! [`Placement::abort`], and later [`Placement::submitted`]. All calls come from one caller at a time (the engine's arena lock).
//!
//! ```text
//!   admit(op) ──► Plan ──► commit(op) ──────────► submitted(op, tickets) ──► reap(completed)
//!                  │       retired frames wait    … wait for the tickets     … wait for nothing
//!                  └─────► abort(op): as if never asked
//! ```
//!
//! [`SpanPlacement`] is the first one: an argument lies in one run of neighbouring frames, a *span*, or, where its range has a
//! sparse buffer, in as many small spans as there are gaps to fill.

mod arena;
mod error;
mod intervals;
mod span;
mod subset;
#[cfg(test)]
mod tests;

pub use error::{AdmitError, PieceError};
pub use span::SpanPlacement;

use crate::pagemap::FrameSource;
use crate::policy::Use;
use crate::units::{FrameIndex, FrameRun, OpId, RangeId};
use crate::uses::Uses;
use alloc::vec::Vec;
use core::ops::Range;

/// A span, for its whole life the same run of frames under the same sub-blocks. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u64);

/// What a launch needs of one range: the union of its arguments that overlap or share a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Which range.
    pub range: RangeId,
    /// Length of the whole range in sub-blocks.
    pub range_subs: u32,
    /// The sub-blocks needed, at least one.
    pub subs: Range<u32>,
    /// The range has a sparse buffer: any frames will do.
    pub scattered: bool,
}

/// What must be over before frames may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Deps {
    /// Submitted work.
    pub uses: Uses,
    /// Queued operations, whose tickets are not known yet; ascending.
    pub ops: Vec<OpId>,
}

impl Deps {
    /// Waits for `uses` only.
    pub const fn of(uses: Uses) -> Self {
        Self { uses, ops: Vec::new() }
    }

    /// Whether there is nothing to wait for.
    pub fn is_none(&self) -> bool {
        self.ops.is_empty() && self.uses.is_none()
    }

    /// Waits for `op`, too.
    pub fn add_op(&mut self, op: OpId) {
        if let Err(at) = self.ops.binary_search(&op) {
            self.ops.insert(at, op);
        }
    }

    /// Waits for everything `other` waits for, too.
    pub fn merge(&mut self, other: &Self) {
        self.uses.merge(&other.uses);
        for op in &other.ops {
            self.add_op(*op);
        }
    }

    /// Now that the tickets of `op` are known: waits for them instead. Answers whether it did wait for `op`.
    pub fn resolve(&mut self, op: OpId, uses: &Uses) -> bool {
        let Ok(at) = self.ops.binary_search(&op) else { return false };
        self.ops.remove(at);
        self.uses.merge(uses);
        true
    }
}

/// Where a want lies. Sub-block `subs.start + i` is in the `i`-th frame, counted through the runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The span that covers it, which is then one run of frames; `None` where it is scattered.
    pub span: Option<SpanId>,
    /// The frames, as many as sub-blocks.
    pub frames: Vec<FrameRun>,
    /// The sub-blocks: all of the span, or just the want's where it is scattered.
    pub subs: Range<u32>,
}

impl Placed {
    /// The frame of sub-block `sub`.
    ///
    /// # Panics
    /// If the sub-block is not here.
    pub fn frame_of(&self, sub: u32) -> FrameIndex {
        assert!(self.subs.contains(&sub), "sub-block {sub} is not in {:?}", self.subs);
        let mut left = sub - self.subs.start;
        for run in &self.frames {
            if left < run.count {
                return FrameIndex(run.first.0 + left);
            }
            left -= run.count;
        }
        unreachable!("{} sub-blocks have fewer frames: {:?}", self.subs.len(), self.frames)
    }
}

/// Sub-blocks of a scattered range that get frames, neighbours on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Whose sub-blocks.
    pub range: RangeId,
    /// Which.
    pub subs: Range<u32>,
    /// As many frames.
    pub frames: FrameRun,
}

/// Sub-blocks that change frames: their device-valid pages are copied from the old to the new frames before use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Whose sub-blocks.
    pub range: RangeId,
    /// Which.
    pub subs: Range<u32>,
    /// Old frame of the first one; the rest follow.
    pub from: FrameIndex,
    /// New frame of the first one; the rest follow.
    pub to: FrameIndex,
}

/// A span that gives up its frames: its dirty pages are brought home, all of it forgets its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The span, which is gone.
    pub span: SpanId,
    /// Whose sub-blocks.
    pub range: RangeId,
    /// Which.
    pub subs: Range<u32>,
    /// Where they were, in the order of the sub-blocks.
    pub frames: Vec<FrameRun>,
    /// The range is sparse: what lay there is to be unbound.
    pub scattered: bool,
}

/// What has to happen for a launch. Evictions first, then moves, then use. A range may be evicted from and placed by the same
/// plan: then it comes home and is copied in again.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// One place per want, in the same order.
    pub placed: Vec<Placed>,
    /// Device copies.
    pub moves: Vec<Move>,
    /// What makes room.
    pub evictions: Vec<Eviction>,
    /// New frames of scattered ranges, which are nowhere in `moves`: ascending, as few and long as the frames allow.
    pub binds: Vec<Binding>,
    /// Every span that exists no longer, evicted or cut up by a move: what the engine keeps per span can go after its last use.
    pub retired: Vec<SpanId>,
    /// What must be over before the newly claimed frames are written. Write-backs of `evictions` come on top.
    pub deps: Deps,
}

/// What [`Placement::evict`] is to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictGoal {
    /// Spans of at least that many frames in all, the cheapest first.
    Frames(u32),
    /// Of one range the spans that lie inside these sub-blocks: first, and one past the last.
    Within(RangeId, u32, u32),
    /// Everything in the piece that starts here, so that it can be removed.
    Piece(FrameIndex),
    /// Everything.
    All,
}

/// How the frames are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PlacementStats {
    /// All frames.
    pub total: u32,
    /// Frames that can be written now.
    pub free: u32,
    /// Frames without an owner that wait for somebody's last use.
    pub retired: u32,
    /// Frames of spans.
    pub owned: u32,
    /// Frames of pinned spans, a part of `owned`.
    pub pinned: u32,
    /// Longest run of frames without an owner.
    pub largest_run: u32,
}

/// Places ranges in frames. Deterministic: the same calls give the same answers.
pub trait Placement {
    /// Takes the frames of a registered pagemap as one piece. No span crosses pieces.
    ///
    /// # Panics
    /// If some of the frames are here already; the registry's ids and this say otherwise of each other then.
    fn add_frames(&mut self, source: FrameSource);

    /// Gives a piece back, once nothing owns its frames or waits for them.
    ///
    /// # Errors
    /// [`PieceError`] says what is in the way; nothing has changed then.
    fn remove_piece(&mut self, first: FrameIndex) -> Result<FrameRun, PieceError>;

    /// Sets how many frames spans may own in all. A smaller limit takes effect as launches come; to make it true at once,
    /// [`Self::evict`] the difference.
    fn set_limit(&mut self, frames: u32);

    /// The committed span that covers all of `subs`, if one does; of a scattered range, the frames of exactly `subs`, if all of
    /// them are in committed spans.
    fn find(&self, range: RangeId, subs: Range<u32>) -> Option<Placed>;

    /// Whether [`Self::find`] would answer; takes no longer for more sub-blocks.
    fn covers(&self, range: RangeId, subs: Range<u32>) -> bool;

    /// The frame of one sub-block, as the last plan has it.
    fn frame_of(&self, range: RangeId, sub: u32) -> Option<FrameIndex>;

    /// Places all wants of launch `op`, or none. `now` is the launch clock, which never goes back. From here to
    /// [`Self::submitted`] the spans of `op` are nobody's victims.
    ///
    /// # Errors
    /// [`AdmitError`]; nothing has changed then.
    ///
    /// # Panics
    /// If `op` was admitted before, a want is empty or ends past its range, or a range is scattered in one want and not in another.
    fn admit(&mut self, op: OpId, wants: &[Want], now: u64) -> Result<Plan, AdmitError>;

    /// The plan of `op` is carried out. `found` is what the engine knows of the last uses of what was moved or evicted and
    /// placement was not told of by [`Self::submitted`] (launches that took only a range's gate).
    fn commit(&mut self, op: OpId, found: &Uses);

    /// The plan of `op` was not carried out: everything is as before it, spans included.
    ///
    /// # Panics
    /// If `op` was committed.
    fn abort(&mut self, op: OpId);

    /// `op` was submitted (or cancelled: no uses): whatever waited for it waits for `uses`. Commits it if nobody has.
    fn submitted(&mut self, op: OpId, uses: &Uses);

    /// Frames whose uses are all over are free.
    fn reap(&mut self, completed: &Uses);

    /// A launch used sub-blocks at `now`; if it wrote, their pages on the device are newer than the host's. A hint for the choice of
    /// victims. Takes no longer for more sub-blocks, once they are scattered.
    fn touch(&mut self, range: RangeId, subs: Range<u32>, now: u64, what: Use);

    /// The host has current copies of these sub-blocks, since it reads them. A hint for the choice of victims.
    fn note_clean(&mut self, range: RangeId, subs: Range<u32>);

    /// Keeps the spans that have some of `subs` where they are until they are unpinned as often. Answers false, and pins
    /// nothing, if some of `subs` are in no span.
    fn pin(&mut self, range: RangeId, subs: Range<u32>) -> bool;

    /// Undoes one [`Self::pin`]. What is gone is ignored.
    fn unpin(&mut self, range: RangeId, subs: Range<u32>);

    /// Whether some of `range` is pinned.
    fn is_pinned(&self, range: RangeId) -> bool;

    /// A range is freed: its spans are gone, their frames wait for `deps` and for whoever placement knows uses them. Operations
    /// in `deps` have yet to be [submitted](Self::submitted). Answers which spans those were, also such as
    /// an open plan has ended: if it is aborted, nobody else says that they are gone.
    fn release(&mut self, range: RangeId, deps: Deps) -> Vec<SpanId>;

    /// Gives up spans that are neither pinned nor queued; possibly fewer than the goal says. Commit, abort and submit as with
    /// [`Self::admit`].
    ///
    /// # Panics
    /// If `op` was admitted before.
    fn evict(&mut self, op: OpId, goal: EvictGoal) -> Vec<Eviction>;

    /// How the frames are used.
    fn stats(&self) -> PlacementStats;

    /// The frames that nobody owns and nothing waits for, in ascending order: `stats().free` of them, now.
    fn idle(&self) -> Vec<FrameRun>;
}
