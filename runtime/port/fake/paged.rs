//! Paged kernels of a FakeDevice: closures that do what `shaders/include/vkhmm.glsl` does, by the words of
//! [`vkhmm_core::paging::layout`], on whatever lies at the addresses that they find there.
//!
//! ```text
//!   by groups   want, want, …  ──► vote ──► at, at, … (nothing is stored before)
//!   by items    for each item of `items`: try_at, try_at, …, stores ──► item_done
//! ```
//!
//! Both are strict: bytes that were not asked for, or are not there, stop the kernel by a panic.

use super::device::Shared;
use super::{FakeDevice, FakeKernel};
use crate::Exec;
use core::ops::Range;
use std::sync::{Arc, Weak};
use vkhmm_core::paging::layout::{MAGIC, READ, WRITE, entry, feedback, range, record};

impl FakeKernel {
    /// A paged kernel of `device`: does `body` for each group that the launch names.
    pub fn paged<X: Exec>(
        device: &FakeDevice<X>,
        body: impl Fn(&mut PagedGroup<'_>) + Send + Sync + 'static,
    ) -> Self {
        let shared: Weak<Shared<X>> = Arc::downgrade(device.shared());
        Self::new(move |_, push, groups| {
            let shared = shared.upgrade().expect("a device outlives its kernels' runs");
            let find = |address, bytes: &mut [u8], store: bool| {
                let found = shared.find(address, bytes.len() as u64);
                if store {
                    found.bytes.write(bytes);
                } else {
                    bytes.copy_from_slice(&found.bytes.to_vec());
                }
            };
            run(Memory(&find), push, groups, &body);
        })
    }
}

/// Loads or stores bytes at a device address.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a dyn Fn(u64, &mut [u8], bool));

impl Memory<'_> {
    fn word(self, address: u64) -> u32 {
        let mut bytes = [0; 4];
        (self.0)(address, &mut bytes, false);
        u32::from_le_bytes(bytes)
    }

    fn set_word(self, address: u64, word: u32) {
        (self.0)(address, &mut word.to_le_bytes(), true);
    }

    /// Two words.
    fn long(self, address: u64) -> u64 {
        u64::from(self.word(address)) | u64::from(self.word(address + 4)) << 32
    }

    fn bit(self, plane: u64, at: u64) -> bool {
        self.word(plane + at / 32 * 4) & 1 << (at % 32) != 0
    }

    /// Sets a bit; whether it was not set before.
    fn set_bit(self, plane: u64, at: u64) -> bool {
        let address = plane + at / 32 * 4;
        let before = self.word(address);
        self.set_word(address, before | 1 << (at % 32));
        before & 1 << (at % 32) == 0
    }
}

fn run(memory: Memory<'_>, push: &[u8], groups: [u32; 3], body: &dyn Fn(&mut PagedGroup<'_>)) {
    let (launch, push) = push.split_at(8);
    let record = u64::from_le_bytes(launch.try_into().expect("eight bytes"));
    let word = |at: usize| memory.word(record + at as u64 * 4);
    assert_eq!(word(record::MAGIC), MAGIC, "no record of a paged launch at {record:#x}");
    let count = word(record::GROUPS);
    assert!(groups.iter().product::<u32>() >= count, "{count} groups in a dispatch of {groups:?}");
    for at in 0..count {
        let ids = memory.long(record + record::IDS as u64 * 4);
        let mut group = PagedGroup {
            memory,
            record,
            push,
            id: memory.word(ids + u64::from(at) * 4),
            missed: false,
            voted: false,
            wanted: Vec::new(),
        };
        body(&mut group);
        group.end();
    }
}

/// What a paged kernel is given for one group.
pub struct PagedGroup<'a> {
    memory: Memory<'a>,
    record: u64,
    push: &'a [u8],
    id: u32,
    missed: bool,
    voted: bool,
    /// What it got: range, bytes, access.
    wanted: Vec<(u32, Range<u64>, u32)>,
}

impl PagedGroup<'_> {
    /// Its linear number in the grid.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its place in the grid.
    pub fn place(&self) -> [u32; 3] {
        let [x, y] = [0, 1].map(|at| self.word(record::GRID + at));
        [self.id % x, self.id / x % y, self.id / x / y]
    }

    /// Push constants after the launch's address.
    pub fn push(&self) -> &[u8] {
        self.push
    }

    /// Bytes of a range.
    pub fn bytes(&self, range: u32) -> u64 {
        self.long(self.range(range) + range::BYTES)
    }

    /// Asks for bytes of a range, to load them ([`READ`]), to store to them ([`WRITE`]) or both. Nothing is there before the vote.
    pub fn want(&mut self, range: u32, bytes: Range<u64>, access: u32) {
        assert!(!self.voted, "a want after the vote");
        if self.probe(range, &bytes, access) {
            self.wanted.push((range, bytes, access));
        } else {
            self.missed = true;
        }
    }

    /// Whether everything that was wanted is there; then the group is done, and does its work now.
    pub fn vote(&mut self) -> bool {
        assert!(self.word(record::ITEMS) == 0, "a vote of a kernel that goes on by items");
        self.voted = !self.missed;
        if self.voted {
            self.memory.set_bit(self.long(record::DONE), u64::from(self.id));
        }
        self.voted
    }

    /// Loads bytes that were wanted.
    ///
    /// # Panics
    /// If they were not, for loads, or the group did not vote.
    pub fn load(&self, range: u32, bytes: Range<u64>) -> Vec<u8> {
        self.check(range, &bytes, READ);
        let mut out = vec![0; (bytes.end - bytes.start) as usize];
        self.pieces(range, &bytes, &mut out, false);
        out
    }

    /// Stores to bytes that were wanted.
    ///
    /// # Panics
    /// If they were not, for stores, or the group did not vote.
    pub fn store(&self, range: u32, at: u64, bytes: &[u8]) {
        let to = at..at + bytes.len() as u64;
        self.check(range, &to, WRITE);
        self.pieces(range, &to, &mut bytes.to_vec(), true);
    }

    /// The items that may run now, for kernels that go on by items.
    pub fn items(&self) -> Vec<u32> {
        let (items, lanes) = (self.word(record::ITEMS), self.word(record::LANES));
        assert!(items > 0, "items of a kernel that goes on by groups");
        (0..items).filter(|item| !self.is_done(*item)).take(lanes as usize).collect()
    }

    /// Asks for bytes, for an item; whether they are there, and may be loaded or stored now.
    pub fn try_at(&mut self, range: u32, bytes: Range<u64>, access: u32) -> bool {
        assert!(self.word(record::ITEMS) > 0, "a try of a kernel that goes on by groups");
        let there = self.probe(range, &bytes, access);
        if there {
            self.wanted.push((range, bytes, access));
        }
        there
    }

    /// An item has done its work.
    pub fn item_done(&mut self, item: u32) {
        let items = u64::from(self.word(record::ITEMS));
        let at = u64::from(self.id) * items + u64::from(item);
        self.memory.set_bit(self.long(record::ITEMS_DONE), at);
    }

    fn is_done(&self, item: u32) -> bool {
        let items = u64::from(self.word(record::ITEMS));
        self.memory.bit(self.long(record::ITEMS_DONE), u64::from(self.id) * items + u64::from(item))
    }

    /// A group whose items are all done is done.
    fn end(&self) {
        let items = self.word(record::ITEMS);
        if items > 0 && (0..items).all(|item| self.is_done(item)) {
            self.memory.set_bit(self.long(record::DONE), u64::from(self.id));
        }
    }

    /// The word of the record at `at`.
    fn word(&self, at: usize) -> u32 {
        self.memory.word(self.record + at as u64 * 4)
    }

    fn long(&self, at: usize) -> u64 {
        self.memory.long(self.record + at as u64 * 4)
    }

    fn range(&self, range: u32) -> usize {
        record::FIRST_RANGE + range as usize * range::WORDS
    }

    /// Asks for every sub-block of `bytes`; whether all are there.
    fn probe(&self, range: u32, bytes: &Range<u64>, access: u32) -> bool {
        let known = range < self.word(record::RANGES) && access & !(READ | WRITE) == 0;
        let at = self.range(range);
        if !known || bytes.end > self.long(at + range::BYTES) || access & !self.word(at + range::ACCESS) != 0
        {
            let outside = self.long(record::FEEDBACK) + feedback::OUTSIDE as u64 * 4;
            self.memory.set_word(outside, self.memory.word(outside) + 1);
            return false;
        }
        let shift = self.word(at + range::SUB_SHIFT);
        let mut all = true;
        if !bytes.is_empty() {
            for sub in bytes.start >> shift..=(bytes.end - 1) >> shift {
                for one in [READ, WRITE].into_iter().filter(|one| access & one != 0) {
                    all &= self.probe_sub(range, sub, one);
                }
            }
        }
        all
    }

    fn probe_sub(&self, range: u32, sub: u64, access: u32) -> bool {
        let at = self.range(range);
        let (entry, bit) = self.entry(range, sub);
        let is = |word: usize| self.memory.word(entry + word as u64 * 4) & 1 << bit != 0;
        let there = is(entry::RESIDENT) && (access == READ || is(entry::WRITABLE));
        let plane = self.long(at + if there { range::TOUCHED } else { range::MISSING });
        let plane = plane + u64::from(access == WRITE) * u64::from(self.word(at + range::PLANE)) * 4;
        if self.memory.set_bit(plane, sub) && !there {
            let list = self.long(record::FEEDBACK);
            let count = self.memory.word(list + feedback::COUNT as u64 * 4);
            self.memory.set_word(list + feedback::COUNT as u64 * 4, count + 1);
            if count < self.word(record::CAPACITY) {
                let first = list + (feedback::FIRST + count as usize * feedback::WORDS) as u64 * 4;
                for (word, value) in [range, sub as u32, self.id, access].into_iter().enumerate() {
                    self.memory.set_word(first + word as u64 * 4, value);
                }
            }
        }
        there
    }

    /// The entry of a sub-block's block, and its bit there.
    fn entry(&self, range: u32, sub: u64) -> (u64, u64) {
        let at = self.range(range);
        let shift = self.word(at + range::BLOCK_SHIFT);
        let entry = self.long(at + range::TABLE) + (sub >> shift) * entry::WORDS as u64 * 4;
        (entry, sub & ((1 << shift) - 1))
    }

    /// # Panics
    /// If the bytes were not found there, in one want.
    fn check(&self, range: u32, bytes: &Range<u64>, access: u32) {
        assert!(
            self.voted || self.word(record::ITEMS) > 0,
            "a group uses memory before its vote, or without one"
        );
        let covers = |known: &(u32, Range<u64>, u32)| {
            known.0 == range
                && known.1.start <= bytes.start
                && bytes.end <= known.1.end
                && known.2 & access != 0
        };
        assert!(self.wanted.iter().any(covers), "bytes {bytes:?} of range {range} were not asked for");
    }

    /// Loads or stores, sub-block by sub-block: they need not lie together.
    fn pieces(&self, range: u32, bytes: &Range<u64>, data: &mut [u8], store: bool) {
        let at = self.range(range);
        let (sub_shift, block_shift) = (self.word(at + range::SUB_SHIFT), self.word(at + range::BLOCK_SHIFT));
        let mut from = bytes.start;
        while from < bytes.end {
            let sub = from >> sub_shift;
            let end = bytes.end.min((sub + 1) << sub_shift);
            let within = from & ((1 << (sub_shift + block_shift)) - 1);
            let address = self.memory.long(self.entry(range, sub).0 + entry::ADDRESS as u64 * 4);
            let part = (from - bytes.start) as usize..(end - bytes.start) as usize;
            (self.memory.0)(address + within, &mut data[part], store);
            from = end;
        }
    }
}
