//! What the gateway answers: one variant per reason, each saying what was wrong, what is allowed, and what to do.

use super::{MemoryKind, PagemapFlags, PagemapId};
use crate::units::{ByteRange, DeviceIndex, FrameIndex, FrameRun};

/// Why a request was not registered. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The request is for another device's memory.
    #[error("the request names device {}, this registry describes device {}: use that device's registry", device.0, registry.0)]
    WrongDevice {
        /// Whom the request names.
        device: DeviceIndex,
        /// Whom the registry serves.
        registry: DeviceIndex,
    },
    /// `kind` is no code of a [`MemoryKind`].
    #[error(
        "memory kind {code} is unknown: pass one of MemoryKind's codes, 1 to 4 (0 is a request that nobody filled in)"
    )]
    UnknownKind {
        /// What was passed.
        code: u32,
    },
    /// Bits that no flag has.
    #[error("flag bits {bits:#x} are unknown: pass bits of PagemapFlags only")]
    UnknownFlags {
        /// The unknown bits.
        bits: u32,
    },
    /// The kind needs flags that the request lacks; they are never assumed.
    #[error("{kind:?} memory needs {missing:?}, too: state every flag that MemoryKind::required_flags lists")]
    MissingFlags {
        /// The kind asked for.
        kind: MemoryKind,
        /// The flags that are not there.
        missing: PagemapFlags,
    },
    /// Flags that contradict the kind.
    #[error("{flags:?} cannot be true of {kind:?} memory: drop the flags or name the kind that has them")]
    RefusedFlags {
        /// The kind asked for.
        kind: MemoryKind,
        /// The flags that contradict it.
        flags: PagemapFlags,
    },
    /// Descriptors in memory that the CPU cannot load and store.
    #[error(
        "descriptors of {kind:?} memory must live in host memory, because the CPU cannot use them there: drop DESCRIPTORS_IN_DEVICE"
    )]
    DescriptorsUnreachable {
        /// The kind asked for.
        kind: MemoryKind,
    },
    /// The interval ends where it starts.
    #[error("the device addresses at {start:#x} are an empty interval: a pagemap has at least one frame")]
    EmptyRange {
        /// Where it starts and ends.
        start: u64,
    },
    /// The interval ends before it starts.
    #[error(
        "the device addresses end ({end:#x}) before they start ({start:#x}): pass start..end with start < end"
    )]
    InvertedRange {
        /// Start as passed.
        start: u64,
        /// End as passed.
        end: u64,
    },
    /// The interval does not start on a frame.
    #[error(
        "the device addresses start at {start:#x}, which is no multiple of the frame's {frame_bytes} bytes"
    )]
    UnalignedStart {
        /// Start as passed.
        start: u64,
        /// Bytes of one frame.
        frame_bytes: u64,
    },
    /// The interval is not whole frames.
    #[error(
        "the device addresses are {bytes} bytes long, which is no multiple of the frame's {frame_bytes} bytes"
    )]
    UnalignedLength {
        /// Length as passed.
        bytes: u64,
        /// Bytes of one frame.
        frame_bytes: u64,
    },
    /// The frames would not fit into the frame numbers.
    #[error("{count} frames from frame {} on leave the frame numbers, which end before {}", first.0, u32::MAX)]
    FramesOutOfRange {
        /// First frame as passed.
        first: FrameIndex,
        /// How many frames the interval has.
        count: u64,
    },
    /// Some of the addresses have an owner.
    #[error("device addresses {:#x}..{:#x} belong to pagemap {} already: unregister it first, or pass addresses that nobody has", overlap.start, overlap.end, with.0)]
    AddressesOverlap {
        /// Whose they are.
        with: PagemapId,
        /// The addresses in both.
        overlap: ByteRange,
    },
    /// Some of the frames have an owner.
    #[error("{} frames from frame {} on belong to pagemap {} already: number the new frames apart", overlap.count, overlap.first.0, with.0)]
    FramesOverlap {
        /// Whose they are.
        with: PagemapId,
        /// The frames in both.
        overlap: FrameRun,
    },
    /// Nobody owns it.
    #[error("the request names no owner: pass the identity that its frames are compared by")]
    NoOwner,
}

/// Why a registered pagemap refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PagemapError {
    /// No pagemap has this id (any more).
    #[error("there is no pagemap {}: it was never registered, or it was unregistered", id.0)]
    Unknown {
        /// Who was meant.
        id: PagemapId,
    },
    /// It was killed: frames can be given back only.
    #[error("pagemap {} was killed and hands out no frames: take them from a live one", id.0)]
    Dead {
        /// Who was meant.
        id: PagemapId,
    },
    /// More frames than it has left.
    #[error("pagemap {} has {left} frames without a reference, {asked} were asked for", id.0)]
    Exhausted {
        /// Who was meant.
        id: PagemapId,
        /// How many were asked for.
        asked: u32,
        /// How many have no reference.
        left: u32,
    },
    /// More frames than were taken.
    #[error("pagemap {} has {held} frames in use, {released} cannot be given back", id.0)]
    NotHeld {
        /// Who was meant.
        id: PagemapId,
        /// How many were to be given back.
        released: u32,
        /// How many are in use.
        held: u32,
    },
}

/// Why a pagemap was not unregistered. It stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TeardownError {
    /// No pagemap has this id (any more).
    #[error("there is no pagemap {}: it was never registered, or it was unregistered", id.0)]
    Unknown {
        /// Who was meant.
        id: PagemapId,
    },
    /// It still hands out frames, so its last reference cannot be waited for.
    #[error("pagemap {} is live: kill it first, so that no new reference can appear", id.0)]
    Live {
        /// Who was meant.
        id: PagemapId,
    },
    /// Frames are in use.
    #[error("{frames} frames of pagemap {} are in use: evict and release them, then try again", id.0)]
    StillReferenced {
        /// Who was meant.
        id: PagemapId,
        /// How many frames.
        frames: u32,
    },
}
