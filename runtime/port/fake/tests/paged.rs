//! Paged kernels of the fakes do what the header for shaders does: both protocols, over every kind of memory.

use super::{SMALL, refused, submission};
use crate::fake::paged::PagedGroup;
use crate::fake::{FakeControl, FakeDevice, FakeDeviceOptions, FakeImports, FakeKernel, locked};
use crate::{Bind, Command, Device, Direction, RawBytes, Role, SparseProfile, Submission};
use core::time::Duration;
use std::sync::{Arc, Mutex};
use vkhmm_core::paging::layout::{MAGIC, READ, WRITE, entry, feedback, range, record};
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;

/// A sub-block of 64 bytes, two to a block.
const SUB: u64 = 64;
const SUBS: u64 = 4;
/// Bytes of the control memory of a rig, by part.
const IDS: u64 = 1024;
const FEEDBACK: u64 = 2048;
const DONE: u64 = 3072;
const ITEMS_DONE: u64 = 3328;
const FIRST_TABLE: u64 = 4096;

/// A launch over some ranges of four sub-blocks, by hand.
struct Rig {
    device: FakeDevice,
    control: FakeControl,
    ticket: u64,
}

impl Rig {
    fn new(ranges: u32, items: u32, capacity: u32) -> Self {
        let sparse = SparseProfile { space_bytes: 1 << 20, buffer_bytes_max: 1 << 20, page_bytes: 64 };
        let options = FakeDeviceOptions {
            sparse: Some(sparse),
            import: Some(FakeImports::default()),
            in_place_bytes_max: Some(1 << 20),
            ..FakeDeviceOptions::default()
        };
        let device = FakeDevice::new(SMALL, options);
        device.grow(FrameIndex(0), 8).unwrap();
        let control = device.control(16 << 10, Direction::In).unwrap();
        let rig = Self { device, control, ticket: 0 };
        let address = rig.address();
        let words = [
            (record::MAGIC, MAGIC),
            (record::RANGES, ranges),
            (record::CAPACITY, capacity),
            (record::ITEMS, items),
            (record::LANES, items),
        ];
        words.into_iter().for_each(|(at, word)| rig.set(at as u64 * 4, word));
        [4, 2, 1].into_iter().enumerate().for_each(|(at, n)| rig.set((record::GRID + at) as u64 * 4, n));
        for (at, part) in [
            (record::IDS, IDS),
            (record::FEEDBACK, FEEDBACK),
            (record::DONE, DONE),
            (record::ITEMS_DONE, ITEMS_DONE),
        ] {
            rig.set_long(at as u64 * 4, address + part);
        }
        for at in 0..ranges {
            let first = rig.range(at);
            let table = FIRST_TABLE + u64::from(at) * 1024;
            rig.set_long(first + range::TABLE as u64 * 4, address + table);
            rig.set_long(first + range::BYTES as u64 * 4, SUBS * SUB - 4);
            rig.set(first + range::SUB_SHIFT as u64 * 4, SUB.trailing_zeros());
            rig.set(first + range::BLOCK_SHIFT as u64 * 4, 1);
            rig.set_long(first + range::MISSING as u64 * 4, address + table + 256);
            rig.set_long(first + range::TOUCHED as u64 * 4, address + table + 512);
            rig.set(first + range::PLANE as u64 * 4, 2);
            rig.set(first + range::ACCESS as u64 * 4, READ | WRITE);
        }
        rig
    }

    fn address(&self) -> u64 {
        self.device.control_at(&self.control).1
    }

    fn range(&self, at: u32) -> u64 {
        (record::FIRST_RANGE + at as usize * range::WORDS) as u64 * 4
    }

    fn bytes(&self, at: u64) -> RawBytes {
        self.device.control_at(&self.control).0.slice(at as usize, 4)
    }

    fn set(&self, at: u64, word: u32) {
        self.bytes(at).write(&word.to_le_bytes());
    }

    fn set_long(&self, at: u64, long: u64) {
        self.set(at, long as u32);
        self.set(at + 4, (long >> 32) as u32);
    }

    fn get(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at).to_vec().try_into().unwrap())
    }

    /// A block of a range is at `address`; some of its two sub-blocks are there, and may be stored to.
    fn map(&self, at: u32, block: u64, address: u64, resident: u32, writable: u32) {
        let entry = FIRST_TABLE + u64::from(at) * 1024 + block * entry::WORDS as u64 * 4;
        self.set_long(entry, address);
        self.set(entry + entry::RESIDENT as u64 * 4, resident);
        self.set(entry + entry::WRITABLE as u64 * 4, writable);
    }

    /// Misses and touches of a range so far: loads, then stores.
    fn bits(&self, at: u32, touched: bool) -> [u32; 2] {
        let plane = FIRST_TABLE + u64::from(at) * 1024 + 256 + 256 * u64::from(touched);
        [self.get(plane), self.get(plane + 8)]
    }

    fn misses(&self) -> Vec<[u32; 4]> {
        let count = self.get(FEEDBACK).min(self.get(record::CAPACITY as u64 * 4));
        let first = |n: u32| FEEDBACK + (feedback::FIRST as u64 + u64::from(n) * 4) * 4;
        (0..count).map(|n| [0, 1, 2, 3].map(|word| self.get(first(n) + word * 4))).collect()
    }

    /// Runs a round of some groups to its end.
    fn round(&mut self, ids: &[u32], body: impl Fn(&mut PagedGroup<'_>) + Send + Sync + 'static) {
        for (at, id) in ids.iter().enumerate() {
            self.set(IDS + at as u64 * 4, *id);
        }
        self.set(record::GROUPS as u64 * 4, ids.len() as u32);
        let kernel = Arc::new(FakeKernel::paged(&self.device, body));
        let push = [&self.address().to_le_bytes()[..], b"push"].concat();
        let groups = [3, 2, 2];
        let elapsed_ns = Arc::default();
        let run = Command::Dispatch { kernel, bindings: Vec::new(), push, groups, elapsed_ns };
        self.ticket += 1;
        self.device.submit(Role::Compute, submission(&self.device, self.ticket, vec![run])).unwrap();
        let ticket = Ticket { timeline: self.device.profile().timeline(Role::Compute), value: self.ticket };
        loop {
            let seen = self.device.completed().unwrap();
            if seen.on(ticket.timeline) >= ticket.value {
                return;
            }
            self.device.wait(&seen, Duration::from_secs(10)).unwrap();
        }
    }

    fn buffer(&self, first: u32, count: u32) -> u64 {
        let run = FrameRun { first: FrameIndex(first), count };
        self.device.address(&self.device.buffer(run).unwrap())
    }
}

#[test]
fn a_group_with_all_its_pages_is_done_and_another_is_not() {
    let mut rig = Rig::new(2, 0, 16);
    let (x, y) = (rig.buffer(0, 2), rig.buffer(4, 2));
    rig.map(0, 0, x, 0b11, 0b00);
    rig.map(1, 0, y, 0b01, 0b01);
    rig.device.at(x, 128).fill(7);
    let kernel = |group: &mut PagedGroup<'_>| {
        assert_eq!((group.push(), group.bytes(0)), (&b"push"[..], 252));
        assert_eq!(group.place(), [group.id() % 4, group.id() / 4, 0]);
        let at = u64::from(group.id()) * 32;
        group.want(0, at..at + 32, READ);
        group.want(1, at..at + 32, WRITE);
        if group.vote() {
            let bytes = group.load(0, at..at + 32);
            group.store(1, at, &bytes);
        }
    };
    rig.round(&[0, 5, 1, 2, 6], kernel);
    assert_eq!(rig.get(DONE), 0b11, "the first sub-block of both ranges is there");
    assert_eq!(rig.device.at(y, 64).to_vec(), [7; 64]);
    assert!(rig.device.at(y + 64, 1).to_vec() != [7], "nothing is stored before the vote");
    assert_eq!((rig.bits(0, true), rig.bits(1, true)), ([0b11, 0], [0, 0b1]));
    assert_eq!((rig.bits(0, false), rig.bits(1, false)), ([0b1100, 0], [0, 0b1110]));
    let misses = [[0, 2, 5, READ], [1, 2, 5, WRITE], [1, 1, 2, WRITE], [0, 3, 6, READ], [1, 3, 6, WRITE]];
    assert_eq!(rig.misses(), misses, "the first group that misses a sub-block is named");
    assert_eq!(rig.get(FEEDBACK + feedback::OUTSIDE as u64 * 4), 0);
}

#[test]
fn misses_without_room_are_counted_and_their_bits_are_set() {
    let mut rig = Rig::new(1, 0, 2);
    rig.round(&[0], |group| {
        group.want(0, 0..252, READ | WRITE);
        assert!(!group.vote());
    });
    assert_eq!((rig.get(FEEDBACK), rig.misses().len(), rig.bits(0, false)), (8, 2, [15, 15]));
}

#[test]
fn what_no_range_has_is_outside_and_ends_nothing() {
    let mut rig = Rig::new(1, 0, 8);
    rig.set(rig.range(0) + range::ACCESS as u64 * 4, READ);
    rig.map(0, 0, rig.buffer(0, 2), 0b11, 0b11);
    rig.map(0, 1, rig.buffer(2, 2), 0b11, 0b11);
    rig.round(&[0, 1, 2], |group| {
        let wants = [(0, 248..256, READ), (1, 0..4, READ), (0, 0..4, WRITE)];
        let (range, bytes, access) = wants[group.id() as usize].clone();
        group.want(range, bytes, access);
        assert!(!group.vote());
    });
    let outside = FEEDBACK + feedback::OUTSIDE as u64 * 4;
    assert_eq!((rig.get(outside), rig.get(DONE), rig.misses()), (3, 0, vec![]));
}

#[test]
fn items_go_on_one_by_one() {
    let mut rig = Rig::new(1, 4, 8);
    let address = rig.buffer(0, 2);
    let kernel = |group: &mut PagedGroup<'_>| {
        for item in group.items() {
            let at = u64::from(item) * 64;
            if group.try_at(0, at..at + 4, READ | WRITE) {
                let before = group.load(0, at..at + 4);
                group.store(0, at, &[before[0] + 1, 0, 0, 0]);
                group.item_done(item);
            }
        }
    };
    rig.device.at(address, 128).fill(0);
    rig.map(0, 0, address, 0b10, 0b10);
    rig.round(&[1], kernel);
    assert_eq!((rig.get(ITEMS_DONE), rig.get(DONE)), (0b10 << 4, 0));
    // Item 0 has the only lane.
    rig.map(0, 0, address, 0b11, 0b11);
    rig.set(record::LANES as u64 * 4, 1);
    rig.round(&[1], kernel);
    assert_eq!((rig.get(ITEMS_DONE), rig.get(DONE)), (0b11 << 4, 0));
    rig.map(0, 0, address, 0, 0);
    rig.map(0, 1, address, 0b11, 0b11);
    rig.set(record::LANES as u64 * 4, 4);
    rig.round(&[1], kernel);
    assert_eq!((rig.get(ITEMS_DONE), rig.get(DONE)), (0b1111 << 4, 0b10));
    assert_eq!(rig.device.at(address, 128).to_vec()[..65].iter().sum::<u8>(), 4, "each item once");
}

#[test]
fn addresses_are_found_in_place_and_in_sparse_buffers() {
    let mut rig = Rig::new(2, 0, 8);
    let sparse = Arc::new(rig.device.reserve(4 * SUB).unwrap());
    let frames = |offset, first| Bind {
        buffer: Arc::clone(&sparse),
        offset,
        bytes: SUB,
        frames: Some(FrameIndex(first)),
    };
    // Apart, and turned round.
    let binds = vec![frames(0, 5), frames(SUB, 2)];
    let timeline = rig.device.profile().timeline(Role::Bind);
    rig.ticket = 1;
    let signals = Ticket { timeline, value: 1 };
    let bind = vec![Command::Bind { binds }];
    rig.device
        .submit(Role::Bind, Submission { waits: Uses::NONE, foreign: vec![], commands: bind, signals })
        .unwrap();
    while rig.device.completed().unwrap().on(timeline) < 1 {
        rig.device.wait(&Uses::NONE, Duration::from_secs(10)).unwrap();
    }
    let host = rig.device.slot(Direction::In, 0).slice(0, 128);
    let import = Arc::new(rig.device.import(host).unwrap());
    let in_place = rig.device.in_place(&import).unwrap();
    host.write(&(0..128).collect::<Vec<u8>>());
    rig.map(0, 0, rig.device.address(&in_place), 0b11, 0b00);
    rig.map(1, 0, rig.device.address(&sparse), 0b11, 0b11);
    rig.ticket = rig.device.completed().unwrap().on(rig.device.profile().timeline(Role::Compute));
    rig.round(&[0], |group| {
        group.want(0, 0..128, READ);
        group.want(1, 0..128, WRITE);
        assert!(group.vote());
        let bytes = group.load(0, 0..128);
        group.store(1, 0, &bytes);
    });
    let frame = |n| rig.device.at(rig.buffer(n, 1), SUB).to_vec();
    assert_eq!((frame(5), frame(2)), ((0..64).collect(), (64..128).collect()));
    let gone = rig.device.address(&in_place);
    drop(in_place);
    drop(import);
    refused("nothing has the device address", || rig.device.at(gone, 4).fill(0));
    refused("nothing has the device address", || rig.device.at(12, 4).fill(0));
}

#[test]
fn a_kernel_that_uses_what_it_did_not_ask_for_is_stopped() {
    let stopped = |body: fn(&mut PagedGroup<'_>), what: &'static str| {
        let mut rig = Rig::new(1, 0, 8);
        rig.map(0, 0, rig.buffer(0, 2), 0b11, 0b11);
        let said = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&said);
        rig.round(&[0], move |group| {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(group)));
            let payload = caught.expect_err("a broken contract");
            *locked(&sink) = payload.downcast_ref::<&str>().map_or_else(
                || payload.downcast_ref::<String>().cloned().unwrap_or_default(),
                |text| (*text).to_owned(),
            );
        });
        assert!(locked(&said).contains(what), "{}", locked(&said));
    };
    stopped(
        |group| {
            group.want(0, 0..4, READ | WRITE);
            group.store(0, 0, &[1]);
        },
        "before its vote",
    );
    stopped(
        |group| {
            group.want(0, 0..4, READ);
            assert!(group.vote());
            group.store(0, 0, &[1]);
        },
        "were not asked for",
    );
    stopped(|group| drop(group.items()), "goes on by groups");
}
