//! Modelled paged kernels: what `shaders/vkhmm.glsl` does with record, tables and bits, by the words of
//! [`vkhmm_core::paging::layout`]; but no byte of a range is loaded or stored. What a group would have done is answered as work.

use super::device::Work;
use core::ops::Range;
use std::sync::Arc;
use vkhmm_core::paging::layout::{MAGIC, READ, WRITE, entry, feedback, range, record};
use vkhmm_port::RawBytes;
use vkhmm_port::fake::FakeHost;

/// A kernel that asks for what it touches.
pub(super) trait Body: Send + Sync {
    /// One group: asks, and says what is done. What it did is answered.
    fn group(&self, round: &mut Round, group: u32) -> Work;
}

/// Finds the control memory at an address, with what keeps it.
type Find<'a> = &'a dyn Fn(u64) -> (Arc<FakeHost>, RawBytes);

/// Words of control memory, read as a whole, and written back as a whole where they changed.
struct Words {
    at: RawBytes,
    _keeps: Arc<FakeHost>,
    words: Vec<u32>,
}

impl Words {
    fn read(find: Find<'_>, address: u64, count: usize) -> Self {
        let (keeps, there) = find(address);
        let at = there.slice(0, 4 * count);
        let words =
            at.to_vec().chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect();
        Self { at, _keeps: keeps, words }
    }

    fn write(&self) {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.at.write(&bytes);
    }

    fn has(&self, bit: u64) -> bool {
        self.words[(bit / 32) as usize] >> (bit % 32) & 1 != 0
    }

    /// Whether it was not set before.
    fn set(&mut self, bit: u64) -> bool {
        let fresh = !self.has(bit);
        self.words[(bit / 32) as usize] |= 1 << (bit % 32);
        fresh
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.words[at]) | u64::from(self.words[at + 1]) << 32
    }
}

/// One range, as the tables of a round have it.
struct Tables {
    bytes: u64,
    access: u32,
    sub_shift: u32,
    block_shift: u32,
    plane: u32,
    entries: Words,
    missing: Words,
    touched: Words,
}

/// A round of a paged launch, as its kernel sees it.
pub(super) struct Round {
    ranges: Vec<Tables>,
    feedback: Words,
    capacity: u32,
    items: u32,
    lanes: u32,
    done: Words,
    items_done: Words,
}

/// Runs all groups of a dispatch with these push constants; what they did together.
pub(super) fn run(find: Find<'_>, push: &[u8], body: &dyn Body) -> Work {
    let address = u64::from_ne_bytes(push[..8].try_into().expect("eight bytes"));
    let head = Words::read(find, address, record::FIRST_RANGE);
    assert_eq!(head.words[record::MAGIC], MAGIC, "no record of a paged launch at {address:#x}");
    let count = head.words[record::RANGES] as usize;
    let all = Words::read(find, address, record::FIRST_RANGE + count * range::WORDS);
    let ranges = (0..count).map(|i| tables(find, &all, record::FIRST_RANGE + i * range::WORDS));
    let groups: u32 = head.words[record::GRID..record::GRID + 3].iter().product();
    let (items, capacity) = (head.words[record::ITEMS], head.words[record::CAPACITY]);
    let told = feedback::FIRST + capacity as usize * feedback::WORDS;
    let mut round = Round {
        ranges: ranges.collect(),
        feedback: Words::read(find, head.long(record::FEEDBACK), told),
        capacity,
        items,
        lanes: head.words[record::LANES],
        done: Words::read(find, head.long(record::DONE), groups.div_ceil(32) as usize),
        items_done: Words::read(find, head.long(record::ITEMS_DONE), (groups * items).div_ceil(32) as usize),
    };
    let ids = Words::read(find, head.long(record::IDS), head.words[record::GROUPS] as usize);
    let mut sum = Work { flop: 0.0, bytes: 0.0 };
    for id in &ids.words {
        let work = body.group(&mut round, *id);
        sum = Work { flop: sum.flop + work.flop, bytes: sum.bytes + work.bytes };
    }
    let changed = round.ranges.iter().flat_map(|tables| [&tables.missing, &tables.touched]);
    changed.chain([&round.feedback, &round.done, &round.items_done]).for_each(Words::write);
    sum
}

fn tables(find: Find<'_>, record: &Words, first: usize) -> Tables {
    let word = |at: usize| record.words[first + at];
    let (bytes, sub_shift, block_shift) =
        (record.long(first + range::BYTES), word(range::SUB_SHIFT), word(range::BLOCK_SHIFT));
    let blocks = bytes.div_ceil(1 << (sub_shift + block_shift)) as usize;
    let plane = word(range::PLANE);
    Tables {
        bytes,
        access: word(range::ACCESS),
        sub_shift,
        block_shift,
        plane,
        entries: Words::read(find, record.long(first + range::TABLE), blocks * entry::WORDS),
        missing: Words::read(find, record.long(first + range::MISSING), 2 * plane as usize),
        touched: Words::read(find, record.long(first + range::TOUCHED), 2 * plane as usize),
    }
}

impl Tables {
    /// Whether a sub-block is there for that.
    fn there(&self, sub: u64, access: u32) -> bool {
        let entry = (sub >> self.block_shift) as usize * entry::WORDS;
        let word = if access & WRITE != 0 { entry::WRITABLE } else { entry::RESIDENT };
        self.entries.words[entry + word] >> (sub & ((1 << self.block_shift) - 1)) & 1 != 0
    }
}

impl Round {
    /// Asks for bytes: whether all are there. Who is not is recorded.
    ///
    /// # Panics
    /// If the range has not so many, or was not given for that: modelled kernels ask for what is theirs.
    pub(super) fn want(&mut self, group: u32, number: u32, bytes: Range<u64>, access: u32) -> bool {
        let range = &self.ranges[number as usize];
        assert!(bytes.end <= range.bytes && access & !range.access == 0, "{bytes:?} of range {number}");
        if bytes.is_empty() {
            return true;
        }
        let subs = bytes.start >> range.sub_shift..=(bytes.end - 1) >> range.sub_shift;
        let mut all = true;
        for sub in subs {
            all &= self.ask(group, number, sub, access);
        }
        all
    }

    /// The same for one sub-block.
    pub(super) fn ask(&mut self, group: u32, number: u32, sub: u64, access: u32) -> bool {
        let range = &mut self.ranges[number as usize];
        let there = range.there(sub, access);
        let bits = if there { &mut range.touched } else { &mut range.missing };
        let mut fresh = false;
        for (plane, one) in [(0, READ), (u64::from(range.plane) * 32, WRITE)] {
            fresh |= access & one != 0 && bits.set(plane + sub);
        }
        if fresh && !there {
            let place = self.feedback.words[feedback::COUNT];
            self.feedback.words[feedback::COUNT] += 1;
            if place < self.capacity {
                let first = feedback::FIRST + place as usize * feedback::WORDS;
                let miss = [number, sub as u32, group, access];
                self.feedback.words[first..first + feedback::WORDS].copy_from_slice(&miss);
            }
        }
        there
    }

    /// Whether a sub-block is there for loads; tells nobody.
    pub(super) fn look(&self, number: u32, sub: u64) -> bool {
        self.ranges[number as usize].there(sub, READ)
    }

    /// The group is done.
    pub(super) fn done(&mut self, group: u32) {
        self.done.set(group.into());
    }

    /// The items that may run now, and whether those are all that are open.
    pub(super) fn open(&self, group: u32) -> (Vec<u32>, bool) {
        let first = u64::from(group) * u64::from(self.items);
        let (mut now, mut more) = (Vec::with_capacity(self.items as usize), false);
        for item in (0..self.items).filter(|item| !self.items_done.has(first + u64::from(*item))) {
            more = now.len() == self.lanes as usize;
            if more {
                break;
            }
            now.push(item);
        }
        (now, !more)
    }

    /// An item of a group is done.
    pub(super) fn item_done(&mut self, group: u32, item: u32) {
        self.items_done.set(u64::from(group) * u64::from(self.items) + u64::from(item));
    }
}
