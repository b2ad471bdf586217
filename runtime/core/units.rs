//! The quantities of the machine, each a type of its own, and every conversion between them.
//!
//! Core never holds an address: a page is an index into the reservation, a frame an index into device memory.

use core::ops::Range;

/// How the reservation is cut. Production uses [`Geometry::PRODUCTION`]; tests shrink it so that every limit is met at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of one page, the unit of residency.
    pub page_bytes: u32,
    /// Pages of one sub-block, the usual unit of transfer and the size of one frame.
    pub pages_per_sub: u32,
    /// Pages of one block, the unit of bookkeeping and locking. At most [`crate::mask::PageMask::CAPACITY`].
    pub pages_per_block: u32,
}

impl Geometry {
    /// 4 KiB pages, 64 KiB sub-blocks, 2 MiB blocks.
    pub const PRODUCTION: Self = Self { page_bytes: 4096, pages_per_sub: 16, pages_per_block: 512 };

    /// Bytes of one block.
    pub const fn block_bytes(self) -> u64 {
        self.page_bytes as u64 * self.pages_per_block as u64
    }

    /// Bytes of one sub-block, which is also the size of one device frame.
    pub const fn frame_bytes(self) -> u64 {
        self.page_bytes as u64 * self.pages_per_sub as u64
    }

    /// Sub-blocks of one block. At most 32.
    pub const fn subs_per_block(self) -> u32 {
        self.pages_per_block / self.pages_per_sub
    }

    /// The block that holds `page`.
    pub const fn block_of(self, page: PageIndex) -> BlockIndex {
        BlockIndex((page.0 / self.pages_per_block as u64) as u32)
    }

    /// The place of `page` inside its block.
    pub const fn page_in_block(self, page: PageIndex) -> u32 {
        (page.0 % self.pages_per_block as u64) as u32
    }

    /// The first page of `block`.
    pub const fn first_page(self, block: BlockIndex) -> PageIndex {
        PageIndex(block.0 as u64 * self.pages_per_block as u64)
    }

    /// The pages that `bytes` (offsets into the reservation) touch, partly or wholly.
    pub const fn pages_touched(self, bytes: &ByteRange) -> PageRun {
        let first = bytes.start / self.page_bytes as u64;
        let end = bytes.end.div_ceil(self.page_bytes as u64);
        PageRun {
            first: PageIndex(first),
            count: if bytes.start >= bytes.end { 0 } else { (end - first) as u32 },
        }
    }

    /// The pages that lie wholly inside `bytes`.
    pub const fn pages_covered(self, bytes: &ByteRange) -> PageRun {
        let first = bytes.start.div_ceil(self.page_bytes as u64);
        let end = bytes.end / self.page_bytes as u64;
        PageRun { first: PageIndex(first), count: if first >= end { 0 } else { (end - first) as u32 } }
    }

    /// The bytes of `run`.
    pub const fn bytes_of(self, run: PageRun) -> ByteRange {
        let start = run.first.0 * self.page_bytes as u64;
        ByteRange { start, end: start + run.count as u64 * self.page_bytes as u64 }
    }
}

/// A page of the reservation, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

/// A block of the reservation, counted from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockIndex(pub u32);

/// A run of neighbouring pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// First page.
    pub first: PageIndex,
    /// Number of pages; zero is an empty run.
    pub count: u32,
}

impl PageRun {
    /// One past the last page.
    pub const fn end(self) -> PageIndex {
        PageIndex(self.first.0 + self.count as u64)
    }

    /// Whether `page` is one of the run.
    pub const fn contains(self, page: PageIndex) -> bool {
        self.first.0 <= page.0 && page.0 < self.end().0
    }
}

/// A half-open interval of byte offsets into the reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether no byte is inside.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether the two intervals share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl From<Range<u64>> for ByteRange {
    fn from(r: Range<u64>) -> Self {
        Self { start: r.start, end: r.end }
    }
}

/// A sub-block-sized place in device memory, counted over all registered pagemaps of one device. Frames are never addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameIndex(pub u32);

impl FrameIndex {
    /// No frame.
    pub const NONE: Self = Self(u32::MAX);
}

/// A run of neighbouring frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameRun {
    /// First frame.
    pub first: FrameIndex,
    /// Number of frames.
    pub count: u32,
}

impl FrameRun {
    /// One past the last frame.
    pub const fn end(self) -> u32 {
        self.first.0 + self.count
    }
}

/// Which device. One is supported today; planes, placement and uses are indexed by it so that a second one is an entry, not a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct DeviceIndex(pub u8);

/// An allocation, by its slot in the engine's table and the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId {
    /// Slot.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// A launch, migration or acquire, from queued to done. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A device timeline (a monotonic counter that work signals).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u8);

/// A point on a timeline: reached once the counter is at least `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which counter.
    pub timeline: Timeline,
    /// Which value.
    pub value: u64,
}

/// Which side of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Host memory.
    Host,
    /// Device memory.
    Device,
}
