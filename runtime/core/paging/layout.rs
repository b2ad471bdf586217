//! What host and shaders agree on; `shaders/vkhmm.glsl` says the same. All of it is in control memory, in 32-bit words of the
//! device's byte order; an address is two words, the low one first. Only the host writes the record, the tables and the ids, between
//! submissions alone; kernels write feedback and bits by atomics, and the host takes them back to zero between submissions.
//!
//! ```text
//!  push constants, first two words ──► record ──┬─► ids: the groups of this dispatch, by their linear number in the grid
//!                                               ├─► feedback: how many misses, then {range, sub-block, group, access} of each
//!                                               ├─► done bits of groups, and of items where a kernel goes on by items
//!                                               └─► ranges ──┬─► table: per block its address, bits: resident, writable
//!                                                            ├─► missing: a bit per sub-block, loads then stores
//!                                                            └─► touched: a bit per sub-block, loads then stores
//! ```

/// Changes with anything below; a kernel carries the one it was compiled with.
pub const VERSION: u32 = 1;

/// The specialisation constant whose default is the [`VERSION`] of a paged kernel, and whose presence says that it is one. Compilers
/// of before 2023 take no id above 2046.
pub const MARKER_ID: u32 = 1896;

/// The specialisation constant whose default says how many items a group has; a kernel that has none goes on by groups.
pub const ITEMS_ID: u32 = 1897;

/// First word of a record; its low byte is the [`VERSION`].
pub const MAGIC: u32 = 0x6761_7001;

/// Words of the record, by index.
pub mod record {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// How many ranges there are.
    pub const RANGES: usize = 1;
    /// Groups of this dispatch: as many ids.
    pub const GROUPS: usize = 2;
    /// Of each group only so many items, the first unfinished ones, may run: kernels that go on by items.
    pub const LANES: usize = 3;
    /// The grid: groups in x, y and z.
    pub const GRID: usize = 4;
    /// Which round it is, counted from one.
    pub const ROUND: usize = 7;
    /// Address of the ids.
    pub const IDS: usize = 8;
    /// Address of the feedback.
    pub const FEEDBACK: usize = 10;
    /// Misses that the feedback has room for.
    pub const CAPACITY: usize = 12;
    /// Items of a group, where the kernel goes on by items; otherwise zero.
    pub const ITEMS: usize = 13;
    /// Address of the done bits of groups.
    pub const DONE: usize = 14;
    /// Address of the done bits of items: of item `i` of group `g` bit `g * items + i`.
    pub const ITEMS_DONE: usize = 16;
    /// First word of the first range.
    pub const FIRST_RANGE: usize = 20;
}

/// Words of a range in the record, by index from its first.
pub mod range {
    /// Address of its table.
    pub const TABLE: usize = 0;
    /// Length in bytes, low word first.
    pub const BYTES: usize = 2;
    /// Logarithm of a sub-block's bytes.
    pub const SUB_SHIFT: usize = 4;
    /// Logarithm of a block's sub-blocks.
    pub const BLOCK_SHIFT: usize = 5;
    /// Address of the missing bits.
    pub const MISSING: usize = 6;
    /// Address of the touched bits.
    pub const TOUCHED: usize = 8;
    /// Words of one plane of bits: those for stores begin so many words behind those for loads.
    pub const PLANE: usize = 10;
    /// What may be asked for: [`super::READ`], [`super::WRITE`] or both.
    pub const ACCESS: usize = 11;
    /// Words of one range.
    pub const WORDS: usize = 12;
}

/// Words of a block's entry, by index.
pub mod entry {
    /// Device address of the block's first byte, wherever its bytes lie; anything where no bit is set.
    pub const ADDRESS: usize = 0;
    /// A bit per sub-block: its bytes are there.
    pub const RESIDENT: usize = 2;
    /// A bit per sub-block: stores are allowed, too.
    pub const WRITABLE: usize = 3;
    /// Words of an entry.
    pub const WORDS: usize = 4;
}

/// Words of the feedback, by index.
pub mod feedback {
    /// Misses so far, also such as found no room.
    pub const COUNT: usize = 0;
    /// Elements asked for that no range has, or in a way that it was not given: a fault of the kernel.
    pub const OUTSIDE: usize = 1;
    /// First word of the first miss.
    pub const FIRST: usize = 4;
    /// Words of a miss: range, sub-block, group, access.
    pub const WORDS: usize = 4;
}

/// An element is loaded.
pub const READ: u32 = 1;
/// An element is stored.
pub const WRITE: u32 = 2;
