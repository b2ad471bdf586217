//! Paged launches by hand: control memory laid out as `vkhmm_core::paging::layout` says, tables that a test fills as it likes, and what
//! kernels left there.

use super::{FRAME, Rig, clock};
use std::sync::Arc;
use vkhmm_core::paging::layout::{MAGIC, READ, WRITE, entry, feedback, range, record};
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_port::{Command, Device, Direction, RawBytes, Role};
use vkhmm_vulkan::{Control, VulkanBuffer, VulkanKernel};

/// Words of 32 bits in control memory, reached by index.
pub(crate) struct Words {
    bytes: RawBytes,
    pub(crate) address: u64,
    /// Keeps the memory.
    _control: Control,
}

impl Words {
    pub(crate) fn new(rig: &Rig, words: usize, direction: Direction) -> Self {
        let control = rig.device().control(words.max(1) as u64 * 4, direction).expect("control memory");
        let (bytes, address) = rig.device().control_at(&control);
        Self { bytes, address, _control: control }
    }

    pub(crate) fn set(&self, at: usize, word: u32) {
        self.bytes.slice(at * 4, 4).write(&word.to_ne_bytes());
    }

    /// An address, or anything else of two words.
    pub(crate) fn set_wide(&self, at: usize, value: u64) {
        self.set(at, value as u32);
        self.set(at + 1, (value >> 32) as u32);
    }

    pub(crate) fn all(&self) -> Vec<u32> {
        self.bytes.to_vec().chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect()
    }

    pub(crate) fn clear(&self) {
        self.bytes.fill(0);
    }
}

/// One range: where its blocks lie is the test's choice.
pub(crate) struct Paged {
    pub(crate) bytes: u64,
    pub(crate) access: u32,
    /// A first frame per block; `None` while nothing of it is there.
    pub(crate) blocks: Vec<Option<u32>>,
    pub(crate) table: Words,
    missing: Words,
    touched: Words,
}

/// Sub-blocks of a block.
pub(crate) const SUBS: u32 = 32;
/// Bytes of a block.
const BLOCK: usize = 2 << 20;

impl Paged {
    /// A range whose blocks lie at these frames, nothing of it resident yet.
    pub(crate) fn new(rig: &Rig, bytes: u64, access: u32, blocks: &[u32]) -> Self {
        assert_eq!(bytes.div_ceil(FRAME * u64::from(SUBS)), blocks.len() as u64);
        Self {
            bytes,
            access,
            blocks: blocks.iter().copied().map(Some).collect(),
            table: Words::new(rig, blocks.len() * entry::WORDS, Direction::In),
            missing: Words::new(rig, blocks.len() * 2, Direction::Out),
            touched: Words::new(rig, blocks.len() * 2, Direction::Out),
        }
    }

    pub(crate) fn subs(&self) -> u32 {
        self.bytes.div_ceil(FRAME) as u32
    }

    /// Which sub-blocks are there, and which of them may be stored to; all others are not.
    pub(crate) fn map(
        &self,
        span: &Arc<VulkanBuffer>,
        rig: &Rig,
        resident: impl Fn(u32) -> bool,
        writable: impl Fn(u32) -> bool,
    ) {
        let bits = |block: u32, set: &dyn Fn(u32) -> bool| {
            (0..SUBS)
                .filter(|bit| block * SUBS + bit < self.subs() && set(block * SUBS + bit))
                .fold(0, |bits, bit| bits | 1 << bit)
        };
        for (block, first) in (0..).zip(&self.blocks) {
            let at = block as usize * entry::WORDS;
            let (there, stores) = (bits(block, &resident), bits(block, &|s| resident(s) && writable(s)));
            // What has no bit may have any address: one that would crash.
            let address =
                first.map_or(0xdead_0000_0000, |first| rig.device().address(span) + u64::from(first) * FRAME);
            self.table.set_wide(at + entry::ADDRESS, if there == 0 { 0xdead_0000_0000 } else { address });
            self.table.set(at + entry::RESIDENT, there);
            self.table.set(at + entry::WRITABLE, stores);
        }
    }

    /// Brings `words` to the range, block by block.
    pub(crate) fn fill(&self, rig: &mut Rig, words: &[u32]) {
        let bytes = bytes_of(words);
        assert_eq!(bytes.len() as u64, self.bytes);
        for (first, block) in self.blocks.iter().zip(bytes.chunks(BLOCK)) {
            for (i, part) in block.chunks(FRAME as usize * 4).enumerate() {
                let first = u64::from(first.expect("the block lies somewhere"));
                rig.upload(first * FRAME + i as u64 * FRAME * 4, part);
            }
        }
    }

    /// All of the range, as the device has it.
    pub(crate) fn read(&self, rig: &mut Rig) -> Vec<u32> {
        let mut out = Vec::new();
        for (i, first) in self.blocks.iter().enumerate() {
            let first = u64::from(first.expect("the block lies somewhere")) * FRAME;
            let bytes = (self.bytes as usize - i * BLOCK).min(BLOCK);
            for at in (0..bytes).step_by(FRAME as usize * 4) {
                out.extend(rig.download(first + at as u64, (bytes - at).min(FRAME as usize * 4)));
            }
        }
        out.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect()
    }

    fn plane(&self, words: &Words, access: u32) -> Vec<u32> {
        let half = self.blocks.len();
        let all = words.all();
        let plane = if access == WRITE { &all[half..] } else { &all[..half] };
        (0..self.subs()).filter(|sub| plane[*sub as usize / 32] >> (sub % 32) & 1 == 1).collect()
    }

    /// Sub-blocks that were asked for in this way and were not there.
    pub(crate) fn missing(&self, access: u32) -> Vec<u32> {
        self.plane(&self.missing, access)
    }

    /// Sub-blocks that were asked for in this way and were there.
    pub(crate) fn touched(&self, access: u32) -> Vec<u32> {
        self.plane(&self.touched, access)
    }

    pub(crate) fn clear(&self) {
        self.missing.clear();
        self.touched.clear();
    }
}

/// What came of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Misses as they were counted, listed or not.
    pub(crate) count: u32,
    pub(crate) outside: u32,
    /// Range, sub-block, group, access, in the order of the numbers.
    pub(crate) misses: Vec<[u32; 4]>,
}

/// A paged launch: its record, and what goes with it.
pub(crate) struct Launch {
    record: Words,
    ids: Words,
    feedback: Words,
    pub(crate) done: Words,
    pub(crate) items_done: Words,
    pub(crate) ranges: Vec<Paged>,
    /// All device memory that ranges lie in.
    pub(crate) span: Arc<VulkanBuffer>,
    groups: u32,
    capacity: u32,
    round: u32,
}

impl Launch {
    /// A launch of `grid` groups over `ranges`, which lie in the first `frames` frames; `capacity` misses find room.
    pub(crate) fn new(
        rig: &Rig,
        grid: [u32; 3],
        items: u32,
        ranges: Vec<Paged>,
        frames: u32,
        capacity: u32,
    ) -> Self {
        let groups = grid.iter().product::<u32>();
        let words = |n: u32, direction| Words::new(rig, n as usize, direction);
        let launch = Self {
            record: words((record::FIRST_RANGE + ranges.len() * range::WORDS) as u32, Direction::In),
            ids: words(groups, Direction::In),
            feedback: words((feedback::FIRST + capacity as usize * feedback::WORDS) as u32, Direction::Out),
            done: words(groups.div_ceil(32), Direction::Out),
            items_done: words((groups * items).div_ceil(32), Direction::Out),
            span: Arc::new(
                rig.device().buffer(FrameRun { first: FrameIndex(0), count: frames }).expect("a span"),
            ),
            ranges,
            groups,
            capacity,
            round: 0,
        };
        let at = &launch.record;
        at.set(record::MAGIC, MAGIC);
        at.set(record::RANGES, launch.ranges.len() as u32);
        (0..).zip(grid).for_each(|(i, n)| at.set(record::GRID + i, n));
        at.set_wide(record::IDS, launch.ids.address);
        at.set_wide(record::FEEDBACK, launch.feedback.address);
        at.set(record::CAPACITY, capacity);
        at.set(record::ITEMS, items);
        at.set_wide(record::DONE, launch.done.address);
        at.set_wide(record::ITEMS_DONE, launch.items_done.address);
        for (i, paged) in launch.ranges.iter().enumerate() {
            let first = record::FIRST_RANGE + i * range::WORDS;
            at.set_wide(first + range::TABLE, paged.table.address);
            at.set_wide(first + range::BYTES, paged.bytes);
            at.set(first + range::SUB_SHIFT, 16);
            at.set(first + range::BLOCK_SHIFT, 5);
            at.set_wide(first + range::MISSING, paged.missing.address);
            at.set_wide(first + range::TOUCHED, paged.touched.address);
            at.set(first + range::PLANE, paged.blocks.len() as u32);
            at.set(first + range::ACCESS, paged.access);
        }
        launch
    }

    /// Everything there, and writable where the range is.
    pub(crate) fn map_all(&self, rig: &Rig) {
        for range in &self.ranges {
            range.map(&self.span, rig, |_| true, |_| range.access & WRITE != 0);
        }
    }

    /// The kernel's push constants: the record's address, then `rest`.
    pub(crate) fn push(&self, rest: &[u32]) -> Vec<u8> {
        let mut push = self.record.address.to_ne_bytes().to_vec();
        rest.iter().for_each(|word| push.extend(word.to_ne_bytes()));
        push
    }

    /// Says which groups run, and clears what the last round left.
    pub(crate) fn prepare(&mut self, ids: &[u32], lanes: u32) {
        self.round += 1;
        self.record.set(record::GROUPS, ids.len() as u32);
        self.record.set(record::LANES, lanes);
        self.record.set(record::ROUND, self.round);
        (0..).zip(ids).for_each(|(i, id)| self.ids.set(i, *id));
        self.feedback.clear();
        self.ranges.iter().for_each(Paged::clear);
    }

    /// One round of these groups, dispatched in this shape.
    pub(crate) fn round(
        &mut self,
        rig: &mut Rig,
        kernel: &Arc<VulkanKernel>,
        rest: &[u32],
        ids: &[u32],
        lanes: u32,
        groups: [u32; 3],
    ) -> Outcome {
        self.prepare(ids, lanes);
        let dispatch = Command::Dispatch {
            kernel: Arc::clone(kernel),
            bindings: Vec::new(),
            push: self.push(rest),
            groups,
            elapsed_ns: clock(),
        };
        rig.run(Role::Compute, vec![dispatch]);
        self.outcome()
    }

    /// What kernels left.
    pub(crate) fn outcome(&self) -> Outcome {
        let words = self.feedback.all();
        let count = words[feedback::COUNT];
        let listed = count.min(self.capacity) as usize;
        let list = words[feedback::FIRST..].chunks_exact(feedback::WORDS);
        let mut misses: Vec<[u32; 4]> = list.clone().take(listed).map(|m| [m[0], m[1], m[2], m[3]]).collect();
        assert!(list.skip(listed).all(|m| m == [0; 4]), "written behind what was counted");
        misses.sort_unstable();
        Outcome { count, outside: words[feedback::OUTSIDE], misses }
    }

    /// Groups that are not done.
    pub(crate) fn open(&self) -> Vec<u32> {
        let done = self.done.all();
        (0..self.groups).filter(|g| done[*g as usize / 32] >> (g % 32) & 1 == 0).collect()
    }

    /// How many items are done.
    pub(crate) fn items(&self) -> u32 {
        self.items_done.all().iter().map(|word| word.count_ones()).sum()
    }

    /// Rounds of random tables, each with `share` in 256 of all sub-blocks, until everything is done; how many.
    pub(crate) fn run_at_random(
        &mut self,
        rig: &mut Rig,
        kernel: &Arc<VulkanKernel>,
        rest: &[u32],
        share: u32,
        rounds: u32,
    ) -> u32 {
        for round in 0..rounds {
            let open = self.open();
            if open.is_empty() {
                return round;
            }
            for (i, range) in (0..).zip(&self.ranges) {
                let there = |plane: u32| {
                    move |sub: u32| {
                        let mut x = (sub + 1).wrapping_mul(0x9e37_79b9) ^ (round * 64 + i * 2 + plane);
                        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
                        x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
                        (x ^ (x >> 16)) & 0xff < share
                    }
                };
                range.map(&self.span, rig, there(0), |sub| range.access & WRITE != 0 && there(1)(sub));
            }
            // Over two dimensions, and more groups than ids.
            let groups = [1000, open.len().div_ceil(1000) as u32, 1];
            let outcome = self.round(rig, kernel, rest, &open, u32::MAX, groups);
            assert_eq!(outcome.outside, 0);
        }
        assert!(self.open().is_empty(), "{} groups are not done after {rounds} rounds", self.open().len());
        rounds
    }
}

/// Words as bytes.
pub(crate) fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Both ways to use an element.
pub(crate) const BOTH: u32 = READ | WRITE;
