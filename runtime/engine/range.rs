//! Ranges: what one allocation reserves, its blocks, and its gate; and the space they are cut from.

use crate::prefetch::Homebound;
use crate::{Op, Ports};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use vkhmm_core::advice::Advised;
use vkhmm_core::block::{Block, Summary};
use vkhmm_core::mask::PageMask;
use vkhmm_core::runmap::RunMap;
use vkhmm_core::stream::Stream;
use vkhmm_core::units::{BlockIndex, ByteRange, Geometry, OpId, PageIndex, PageRun, RangeId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Exec, Mutex, Rank};

/// How kernels reach a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlacementKind {
    /// Through a buffer over neighbouring frames, which may be others next time.
    Span,
    /// Through one buffer for life, in which frames come and go.
    Sparse,
    /// Through one buffer for life over the host bytes themselves: nothing moves.
    InPlace,
}

/// How kernels reach one range, and why so.
pub(crate) struct Way<D: Device> {
    pub(crate) kind: PlacementKind,
    /// The buffer for life: of a sparse range from the start, in place once its bytes are imported.
    pub(crate) buffer: Option<Arc<D::Buffer>>,
    pub(crate) why: Arc<str>,
    /// Chosen because of advice, or in spite of it.
    pub(crate) advised: bool,
}

/// Sub-blocks that a request's plan gave frames.
pub(crate) type Claim<P> = (core::ops::Range<u32>, Arc<Op<P>>);

/// One allocation: whole blocks, each with its lock.
pub struct RangeCell<P: Ports> {
    pub(crate) id: RangeId,
    pub(crate) label: Arc<str>,
    pub(crate) first: BlockIndex,
    /// Length in bytes, as asked for.
    pub(crate) bytes: u64,
    pub(crate) geometry: Geometry,
    /// Lock: block. Owns one block's state · may block on host system calls for its own pages · must never wait for the device,
    /// touch R, or be taken after gate, arena or submit.
    pub(crate) blocks: Vec<<P::Exec as Exec>::Mutex<Block>>,
    /// Lock: gate. Owns the residency bitmaps and last uses · blocks on nothing.
    pub(crate) gate: <P::Exec as Exec>::Mutex<Gate>,
    /// Lock: leaf. Owns the requests whose plans claimed frames for these sub-blocks and may have left some of them alone.
    pub(crate) claims: <P::Exec as Exec>::Mutex<Vec<Claim<P>>>,
    /// Lock: leaf. Owns the fault-around policy · blocks on nothing.
    pub(crate) stream: <P::Exec as Exec>::Mutex<Stream>,
    /// Lock: leaf. Owns how kernels reach the range · blocks on nothing.
    pub(crate) way: <P::Exec as Exec>::Mutex<Way<P::Device>>,
    /// Lock: leaf. Owns the imports of this range's blocks · blocks on nothing.
    pub(crate) imports: <P::Exec as Exec>::Mutex<Imports<P::Device>>,
    /// A request has asked how kernels reach it: that stays so. Set under the lock of `way`.
    pub(crate) is_used: AtomicBool,
    /// Lock: leaf. Owns what was said about its pages · blocks on nothing.
    pub(crate) advised: <P::Exec as Exec>::Mutex<RunMap<Advised>>,
    /// Whether anything was advised.
    pub(crate) is_advised: AtomicBool,
    /// Lock: leaf. Owns the pins to the device, and their sub-blocks · blocks on nothing.
    pub(crate) device_pins: <P::Exec as Exec>::Mutex<Vec<(OpId, core::ops::Range<u32>)>>,
    /// Lock: leaf. Owns what goes home once those who hold it are done · blocks on nothing.
    pub(crate) homebound: <P::Exec as Exec>::Mutex<Vec<Homebound<P>>>,
    /// How many there are, or are being looked at.
    pub(crate) homebound_count: AtomicU32,
    /// When the oldest unanswered touch was parked; zero if none is.
    pub(crate) parked_since: AtomicU64,
    pub(crate) dead: AtomicBool,
    /// Bytes in A may still be written by a lost device: never reused while it exists.
    pub(crate) quarantined: AtomicBool,
    /// Its host pages could not be given back at once, which was said.
    pub(crate) unpunched: AtomicBool,
}

/// Which parts of A the device can reach.
pub(crate) struct Imports<D: Device> {
    /// Byte range of the reservation → import. Pieces are disjoint.
    pub(crate) pieces: Vec<(ByteRange, Arc<D::Import>)>,
    /// A try failed or was refused by the limit: stage from now on.
    pub(crate) refused: bool,
}

/// The range gate: lets resident launches pass without visiting blocks.
///
/// A launch on the fast path tests the bits, counts itself in, submits, then swaps the count for its ticket. Whoever takes a page
/// from the device holds the block's lock, clears its bits here, and parks while the count is not zero.
pub(crate) struct Gate {
    device_valid: Bits,
    device_only: Bits,
    /// Launches between decision and submit.
    pub(crate) deciding: u32,
    /// Last uses by launches that took no holds.
    pub(crate) uses: Uses,
    /// Somebody who took pages from the device met a deciding launch since the last one left.
    pub(crate) awaited: bool,
    /// Blocks whose parked touches are asked about again when a deciding launch leaves.
    pub(crate) waiting: Vec<u32>,
}

#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    set: u32,
}

impl Bits {
    fn new(len: u32) -> Self {
        Self { words: alloc::vec![0; len.div_ceil(64) as usize], set: 0 }
    }

    fn put(&mut self, i: u32, value: bool) {
        let word = &mut self.words[(i / 64) as usize];
        let bit = 1_u64 << (i % 64);
        match (*word & bit != 0, value) {
            (false, true) => {
                *word |= bit;
                self.set += 1;
            }
            (true, false) => {
                *word &= !bit;
                self.set -= 1;
            }
            _ => {}
        }
    }

    /// Whether the bits `from..to` of `len` are all set; and how many words that took to find out.
    fn all(&self, from: u32, to: u32, len: u32) -> (bool, u32) {
        if self.set == len || from >= to {
            return (true, 0);
        }
        let (first, last) = (from / 64, (to - 1) / 64);
        let mut read = 0;
        let all = self.words[first as usize..=last as usize].iter().zip(first..).all(|(word, i)| {
            read += 1;
            let low = if i == first { !0 << (from % 64) } else { !0 };
            let high = if i == last { !0 >> (63 - (to - 1) % 64) } else { !0 };
            let asked = low & high;
            word & asked == asked
        });
        (all, read)
    }
}

impl Gate {
    fn new(blocks: u32) -> Self {
        Self {
            device_valid: Bits::new(blocks),
            device_only: Bits::new(blocks),
            deciding: 0,
            uses: Uses::NONE,
            awaited: false,
            waiting: Vec::with_capacity(blocks.min(64) as usize),
        }
    }

    /// Notes a block's summary.
    pub(crate) fn put(&mut self, block: u32, summary: Summary) {
        self.device_valid.put(block, summary.device_valid);
        self.device_only.put(block, summary.device_only);
    }

    /// Closes itself for a block whose pages leave the device. The uses to wait for, unless a launch is deciding.
    pub(crate) fn close(&mut self, block: u32) -> Option<Uses> {
        self.put(block, Summary { device_valid: false, device_only: false });
        (self.deciding == 0).then_some(self.uses)
    }

    /// Whether the blocks let a launch pass: valid on the device, and for writers unreadable by the host. And how many words were
    /// read for it.
    pub(crate) fn lets_pass(&self, from: u32, to: u32, writes: bool, blocks: u32) -> (bool, u32) {
        let bits = if writes { &self.device_only } else { &self.device_valid };
        bits.all(from, to, blocks)
    }
}

impl<P: Ports> RangeCell<P> {
    pub(crate) fn new(
        exec: &P::Exec,
        geometry: Geometry,
        id: RangeId,
        first: BlockIndex,
        bytes: u64,
        label: Arc<str>,
        way: Way<P::Device>,
    ) -> Arc<Self> {
        let count = blocks_for(bytes, geometry);
        let pages = bytes.div_ceil(u64::from(geometry.page_bytes));
        let blocks = (0..count)
            .map(|b| {
                let before = u64::from(b) * u64::from(geometry.pages_per_block);
                let used = (pages - before).min(u64::from(geometry.pages_per_block)) as u32;
                exec.mutex(Rank::Block, Block::new(geometry, PageMask::range(0..used)))
            })
            .collect();
        Arc::new(Self {
            id,
            label,
            first,
            bytes,
            geometry,
            blocks,
            gate: exec.mutex(Rank::Gate, Gate::new(count)),
            claims: exec.mutex(Rank::Leaf, Vec::new()),
            stream: exec.mutex(Rank::Leaf, Stream::new()),
            way: exec.mutex(Rank::Leaf, way),
            imports: exec.mutex(Rank::Leaf, Imports { pieces: Vec::new(), refused: false }),
            is_used: AtomicBool::new(false),
            advised: exec.mutex(Rank::Leaf, RunMap::default()),
            is_advised: AtomicBool::new(false),
            device_pins: exec.mutex(Rank::Leaf, Vec::new()),
            homebound: exec.mutex(Rank::Leaf, Vec::new()),
            homebound_count: AtomicU32::new(0),
            parked_since: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            quarantined: AtomicBool::new(false),
            unpunched: AtomicBool::new(false),
        })
    }

    /// The handle that names it.
    pub fn id(&self) -> RangeId {
        self.id
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Label, as given or made from the caller's place.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// How kernels reach it, and why so.
    pub fn placement(&self) -> (PlacementKind, Arc<str>) {
        let way = self.way.lock();
        (way.kind, Arc::clone(&way.why))
    }

    pub(crate) fn kind(&self) -> PlacementKind {
        self.way.lock().kind
    }

    pub(crate) fn is_sparse(&self) -> bool {
        self.kind() == PlacementKind::Sparse
    }

    /// The buffer for life, if it has one.
    pub(crate) fn buffer(&self) -> Option<Arc<<P::Device as Device>::Buffer>> {
        self.way.lock().buffer.clone()
    }

    /// Offset of the first byte in the reservation.
    pub fn offset(&self) -> u64 {
        u64::from(self.first.0) * self.geometry.block_bytes()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(crate) fn block_count(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// First page of block `block` in the reservation.
    pub(crate) fn first_page(&self, block: u32) -> PageIndex {
        self.geometry.first_page(BlockIndex(self.first.0 + block))
    }

    /// A run inside block `block` as pages of the reservation.
    pub(crate) fn run(&self, block: u32, pages: &core::ops::Range<u32>) -> PageRun {
        PageRun {
            first: PageIndex(self.first_page(block).0 + u64::from(pages.start)),
            count: pages.end - pages.start,
        }
    }

    /// All blocks as pages of the reservation.
    pub(crate) fn whole(&self) -> PageRun {
        PageRun { first: self.first_page(0), count: self.block_count() * self.geometry.pages_per_block }
    }

    /// Blocks that `bytes` (offsets into the range) touch, with the pages touched and those wholly covered in each.
    pub(crate) fn cut(&self, bytes: ByteRange) -> impl Iterator<Item = (u32, PageMask, PageMask)> + use<P> {
        let g = self.geometry;
        let (touched, covered) = (g.pages_touched(&bytes), self.covered(bytes));
        let per = u64::from(g.pages_per_block);
        let blocks =
            if touched.count == 0 { 0..0 } else { touched.first.0 / per..(touched.end().0).div_ceil(per) };
        blocks.map(move |b| {
            let clip = |run: PageRun| {
                let from = run.first.0.clamp(b * per, (b + 1) * per) - b * per;
                let to = run.end().0.clamp(b * per, (b + 1) * per) - b * per;
                if run.count == 0 || from >= to {
                    PageMask::EMPTY
                } else {
                    PageMask::range(from as u32..to as u32)
                }
            };
            (b as u32, clip(touched), clip(covered))
        })
    }

    /// Pages wholly inside `bytes`; the allocation's last page counts as covered when `bytes` reaches the allocation's end.
    fn covered(&self, bytes: ByteRange) -> PageRun {
        let end = if bytes.end == self.bytes {
            bytes.end.next_multiple_of(u64::from(self.geometry.page_bytes))
        } else {
            bytes.end
        };
        self.geometry.pages_covered(&ByteRange { start: bytes.start, end })
    }
}

/// Whole blocks that `bytes` need.
pub(crate) fn blocks_for(bytes: u64, geometry: Geometry) -> u32 {
    bytes.div_ceil(geometry.block_bytes()) as u32
}

/// The reservation's blocks: free runs, and who owns the others.
pub(crate) struct Space<P: Ports> {
    free: BTreeMap<u32, u32>,
    slots: Vec<Slot<P>>,
    vacant: Vec<u32>,
    /// Block → slot + 1; grown as far as blocks were ever handed out.
    owner: Vec<u32>,
    /// Free blocks with poisoned pages.
    strays: alloc::collections::BTreeSet<u32>,
}

struct Slot<P: Ports> {
    generation: u32,
    range: Option<Arc<RangeCell<P>>>,
}

impl<P: Ports> Space<P> {
    pub(crate) fn new(blocks: u32) -> Self {
        Self {
            free: BTreeMap::from([(0, blocks)]),
            slots: Vec::new(),
            vacant: Vec::new(),
            owner: Vec::new(),
            strays: Default::default(),
        }
    }

    /// The labels of the ranges that somebody owns, in no order.
    pub(crate) fn labels(&self) -> Vec<Arc<str>> {
        let ranges = self.slots.iter().filter_map(|slot| slot.range.as_ref());
        ranges.filter(|range| !range.is_dead()).map(|range| Arc::clone(&range.label)).collect()
    }

    /// The first run of `count` free blocks, taken; and a slot for its range.
    pub(crate) fn reserve(&mut self, count: u32) -> Option<(BlockIndex, RangeId)> {
        let (first, len) = self.free.iter().find(|(_, len)| **len >= count).map(|(f, l)| (*f, *l))?;
        self.free.remove(&first);
        if len > count {
            self.free.insert(first + count, len - count);
        }
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, range: None });
            self.slots.len() as u32 - 1
        });
        let id = RangeId { slot, generation: self.slots[slot as usize].generation };
        Some((BlockIndex(first), id))
    }

    /// The reserved blocks belong to `range` now.
    pub(crate) fn install(&mut self, range: &Arc<RangeCell<P>>) {
        let end = (range.first.0 + range.block_count()) as usize;
        if self.owner.len() < end {
            self.owner.resize(end, 0);
        }
        self.owner[range.first.0 as usize..end].fill(range.id.slot + 1);
        self.slots[range.id.slot as usize].range = Some(Arc::clone(range));
    }

    /// The range's blocks are free again. Returns the table's reference, to be dropped outside the lock.
    pub(crate) fn remove(&mut self, range: &RangeCell<P>) -> Option<Arc<RangeCell<P>>> {
        let (mut first, mut len) = (range.first.0, range.block_count());
        self.owner[first as usize..(first + len) as usize].fill(0);
        let slot = &mut self.slots[range.id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let old = slot.range.take();
        self.vacant.push(range.id.slot);
        if let Some((before, before_len)) = self.free.range(..first).next_back().map(|(f, l)| (*f, *l)) {
            if before + before_len == first {
                self.free.remove(&before);
                first = before;
                len += before_len;
            }
        }
        if let Some(after) = self.free.remove(&(first + len)) {
            len += after;
        }
        self.free.insert(first, len);
        old
    }

    /// A page of a block that nobody owns was poisoned.
    pub(crate) fn note_stray(&mut self, block: BlockIndex) {
        self.strays.insert(block.0);
    }

    /// Whether any of the range's blocks has poisoned pages from before; they are forgotten.
    pub(crate) fn take_strays(&mut self, range: &RangeCell<P>) -> bool {
        let blocks = range.first.0..range.first.0 + range.block_count();
        let found: Vec<u32> = self.strays.range(blocks).copied().collect();
        found.iter().for_each(|b| {
            self.strays.remove(b);
        });
        !found.is_empty()
    }

    /// Who owns `block`, dead or alive.
    pub(crate) fn find(&self, block: BlockIndex) -> Option<Arc<RangeCell<P>>> {
        let slot = self.owner.get(block.0 as usize).copied()?.checked_sub(1)?;
        self.slots[slot as usize].range.clone()
    }

    /// The range that `id` names, if it still does.
    pub(crate) fn get(&self, id: RangeId) -> Option<Arc<RangeCell<P>>> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.range.clone()
    }

    /// Every range, dead or alive.
    pub(crate) fn all(&self) -> Vec<Arc<RangeCell<P>>> {
        self.slots.iter().filter_map(|s| s.range.clone()).collect()
    }
}
