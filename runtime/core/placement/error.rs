//! What a placement answers when it cannot: each says what is in the way and what to do.

use crate::units::{FrameIndex, OpId, RangeId};
use alloc::vec::Vec;
use core::ops::Range;

/// Why a launch's wants were not placed. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// They cannot fit, whatever is waited for. Counts are in frames.
    #[error(
        "the launch needs {need} frames of device memory, {have} can be had (limit {limit}, held by pins {held}, longest run \
         {largest_run}): raise the limit, unpin, or launch on smaller parts"
    )]
    TooLarge {
        /// What the wants need beyond what pinned spans cover already.
        need: u32,
        /// What could be had with everything evicted that is not pinned.
        have: u32,
        /// What spans may own in all.
        limit: u32,
        /// What pinned spans own.
        held: u32,
        /// The longest run that could be had with everything evicted that is not pinned.
        largest_run: u32,
    },
    /// A pinned span has a part of the want. It cannot move, so the want cannot be in one run.
    #[error(
        "sub-blocks {pinned:?} of the range are pinned apart from the rest of the launch's {subs:?}: unpin them, or pin all of it at once"
    )]
    PinnedApart {
        /// Whose sub-blocks.
        range: RangeId,
        /// What the launch needs.
        subs: Range<u32>,
        /// What is pinned.
        pinned: Range<u32>,
    },
    /// Only queued operations are in the way: once one of them is submitted, ask again.
    #[error("{} queued operations are in the way: submit them, then ask again", ops.len())]
    MustWait {
        /// Which, ascending; at least one.
        ops: Vec<OpId>,
    },
}

/// Why a piece was not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// No piece starts there.
    #[error("no piece starts at frame {}", first.0)]
    Unknown {
        /// Where it was to start.
        first: FrameIndex,
    },
    /// Spans own some of its frames.
    #[error("{frames} frames of the piece are owned: evict them first")]
    Owned {
        /// How many.
        frames: u32,
    },
    /// Somebody may still use some of its frames.
    #[error("{frames} frames of the piece wait for their last use: reap after it, then try again")]
    Retired {
        /// How many.
        frames: u32,
    },
}
