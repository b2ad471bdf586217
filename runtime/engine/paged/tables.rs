//! What a paged launch and its kernel tell each other: the words of `core::paging::layout`, in two pieces of control memory. The host
//! writes the one, and reads the other and takes it back to zero, between rounds alone.

use super::PagedSpec;
use crate::launch::{Bound, LaunchSpec};
use crate::{Engine, EngineError, MutexOf, Ports};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::paging::layout::{self, entry, feedback, range, record};
use vkhmm_core::paging::plan::{GROUPS_MAX, Outcome, Round};
use vkhmm_core::units::Geometry;
use vkhmm_port::{Device, Direction, Exec, Mutex, Rank, RawBytes};

/// Misses of a round that are told in order; the bits tell all of them.
const MISSES_MAX: u32 = 4096;

const WORD: u64 = 4;

/// Where things begin, in bytes. Each is aligned for any load.
#[derive(Default)]
struct Space {
    bytes: u64,
}

impl Space {
    fn take(&mut self, words: u64) -> u64 {
        let at = self.bytes;
        self.bytes += (words * WORD).next_multiple_of(256);
        at
    }
}

/// One range of the kernel.
struct Part {
    bytes: u64,
    /// What the kernel may do, as it knows it.
    access: u32,
    blocks: u32,
    /// Words of one plane of bits.
    plane: u32,
    table: u64,
    missing: u64,
    touched: u64,
}

/// What was said of the round that is being admitted.
struct Filled<P: Ports> {
    /// Which range each argument is of.
    ranges: Vec<u32>,
    /// Entries that have bits: range and block.
    entries: Vec<(u32, u32)>,
    /// What entries of remote blocks point at.
    kept: Vec<Arc<<P::Device as Device>::Buffer>>,
}

/// Where a remote block is.
pub(super) struct Place<P: Ports> {
    pub(super) buffer: Arc<<P::Device as Device>::Buffer>,
    /// Of its first byte.
    pub(super) address: u64,
    /// How many sub-blocks it has.
    pub(super) subs: u32,
}

/// The tables of one launch.
pub(crate) struct Tables<P: Ports> {
    geometry: Geometry,
    parts: Vec<Part>,
    groups: u32,
    items: u32,
    grid: [u32; 3],
    /// What the host writes: record, ids, tables.
    input: <P::Device as Device>::Control,
    /// What kernels write: feedback, done bits, missing and touched bits.
    output: <P::Device as Device>::Control,
    ids: u64,
    feedback: u64,
    done: u64,
    items_done: u64,
    /// Lock: leaf. Owns which entries the last round has · blocks on nothing.
    filled: MutexOf<P, Filled<P>>,
}

/// What a round said, in words.
pub(crate) struct Told {
    /// Elements that nobody may ask for.
    pub(crate) outside: u32,
    /// Misses, also such as are not in the list.
    pub(crate) missed: u32,
    done: Vec<u32>,
    items_done: u64,
    misses: Vec<[u32; 4]>,
    /// By range: loads, then stores. Of misses only where the list has not all.
    missing: Vec<[Vec<u32>; 2]>,
    touched: Vec<[Vec<u32>; 2]>,
}

impl Told {
    /// Sub-blocks of a range that were loaded from: a bit for each.
    pub(crate) fn touched(&self, range: u32) -> &[u32] {
        &self.touched[range as usize][0]
    }

    /// As the planner is told.
    pub(crate) fn with<T>(&self, then: impl FnOnce(&Outcome<'_>) -> T) -> T {
        fn plane(of: &[[Vec<u32>; 2]], range: u32, access: u32) -> &[u32] {
            &of[range as usize][usize::from(access == layout::WRITE)]
        }
        then(&Outcome {
            done: &self.done,
            items_done: self.items_done,
            misses: &self.misses,
            overflow: self.missed as usize > self.misses.len(),
            missing: &|range, access| plane(&self.missing, range, access),
            touched: &|range, access| plane(&self.touched, range, access),
        })
    }
}

fn put(to: RawBytes, at: u64, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    to.slice(at as usize, bytes.len()).write(&bytes);
}

fn words(from: RawBytes, at: u64, count: u64) -> Vec<u32> {
    let bytes = from.slice(at as usize, (count * WORD) as usize).to_vec();
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect()
}

fn address_words(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

impl<P: Ports> Tables<P> {
    /// Tables for a launch of `groups` groups: no sub-block is there yet, and nothing done.
    ///
    /// # Errors
    /// As the device says.
    pub(super) fn new(engine: &Engine<P>, spec: &PagedSpec<P>, groups: u32) -> Result<Self, EngineError> {
        let geometry = engine.config.geometry;
        let (mut input, mut output) = (Space::default(), Space::default());
        input.take(record::FIRST_RANGE as u64 + (spec.arguments.len() * range::WORDS) as u64);
        let ids = input.take(u64::from(groups.min(GROUPS_MAX)));
        let feedback = output.take(feedback::FIRST as u64 + u64::from(MISSES_MAX) * feedback::WORDS as u64);
        let done = output.take(u64::from(groups.div_ceil(32)));
        let items_done = output.take(u64::from(groups.saturating_mul(spec.items).div_ceil(32)));
        let mut part = |argument: &super::PagedArgument<P>| {
            let bytes = argument.range.as_ref().map_or(0, |range| range.bytes);
            let plane = bytes.div_ceil(geometry.frame_bytes()).div_ceil(32) as u32;
            let blocks = bytes.div_ceil(geometry.block_bytes()) as u32;
            Part {
                bytes,
                access: if argument.access.writes() { layout::READ | layout::WRITE } else { layout::READ },
                blocks,
                plane,
                table: input.take(u64::from(blocks) * entry::WORDS as u64),
                missing: output.take(u64::from(plane) * 2),
                touched: output.take(u64::from(plane) * 2),
            }
        };
        let parts = spec.arguments.iter().map(&mut part).collect();
        let filled = Filled { ranges: Vec::new(), entries: Vec::new(), kept: Vec::new() };
        Ok(Self {
            geometry,
            parts,
            groups,
            items: spec.items,
            grid: spec.groups,
            input: engine.device.control(input.bytes, Direction::In)?,
            output: engine.device.control(output.bytes, Direction::Out)?,
            ids,
            feedback,
            done,
            items_done,
            filled: engine.exec.mutex(Rank::Leaf, filled),
        })
    }

    /// Address of the record.
    pub(super) fn address(&self, device: &P::Device) -> u64 {
        device.control_at(&self.input).1
    }

    /// Writes the record of a round; `ranges` says which range each argument of its launch is of. The round before is over.
    pub(super) fn begin(&self, device: &P::Device, number: u64, round: &Round, ranges: Vec<u32>) {
        let ((input, at), (_, out)) = (device.control_at(&self.input), device.control_at(&self.output));
        put(input, self.ids, &round.ids);
        let mut head = [0; record::FIRST_RANGE];
        head[record::MAGIC] = layout::MAGIC;
        head[record::RANGES] = self.parts.len() as u32;
        head[record::GROUPS] = round.ids.len() as u32;
        head[record::LANES] = round.lanes;
        head[record::GRID..record::GRID + 3].copy_from_slice(&self.grid);
        head[record::ROUND] = number as u32;
        head[record::CAPACITY] = MISSES_MAX;
        head[record::ITEMS] = self.items;
        for (word, address) in [
            (record::IDS, at + self.ids),
            (record::FEEDBACK, out + self.feedback),
            (record::DONE, out + self.done),
            (record::ITEMS_DONE, out + self.items_done),
        ] {
            head[word..word + 2].copy_from_slice(&address_words(address));
        }
        put(input, 0, &head);
        for (i, part) in self.parts.iter().enumerate() {
            let mut about = [0; range::WORDS];
            for (word, address) in [
                (range::TABLE, at + part.table),
                (range::BYTES, part.bytes),
                (range::MISSING, out + part.missing),
                (range::TOUCHED, out + part.touched),
            ] {
                about[word..word + 2].copy_from_slice(&address_words(address));
            }
            about[range::SUB_SHIFT] = self.geometry.frame_bytes().trailing_zeros();
            about[range::BLOCK_SHIFT] = self.geometry.subs_per_block().trailing_zeros();
            about[range::PLANE] = part.plane;
            about[range::ACCESS] = part.access;
            put(input, ((record::FIRST_RANGE + i * range::WORDS) as u64) * WORD, &about);
        }
        self.filled.lock().ranges = ranges;
    }

    /// Writes the entries of a round that is admitted: its arguments are there, and nobody else. No kernel of the launch runs.
    pub(crate) fn fill(&self, engine: &Engine<P>, spec: &LaunchSpec<P>, bound: &[Option<Bound<P>>]) {
        let (per_block, block_bytes) = (self.geometry.subs_per_block(), self.geometry.block_bytes());
        let (input, _) = engine.device.control_at(&self.input);
        let mut filled = self.filled.lock();
        let mut entries: BTreeMap<(u32, u32), (u64, u32, u32)> = BTreeMap::new();
        for ((argument, bound), range) in spec.arguments.iter().zip(bound).zip(&filled.ranges) {
            let Some(bound) = bound else { continue };
            let first = engine.device.address(&bound.buffer).wrapping_sub(bound.from);
            let subs = argument.subs(self.geometry.frame_bytes());
            for block in subs.start / per_block..subs.end.div_ceil(per_block) {
                let of_block =
                    |sub: u32| sub.clamp(block * per_block, (block + 1) * per_block) - block * per_block;
                let bits = (of_block(subs.start)..of_block(subs.end)).fold(0, |bits, sub| bits | 1 << sub);
                let address = first.wrapping_add(u64::from(block) * block_bytes);
                let (known, resident, writable) = entries.entry((*range, block)).or_insert((address, 0, 0));
                assert_eq!(*known, address, "a block lies in one place");
                *resident |= bits;
                *writable |= if argument.access.writes() { bits } else { 0 };
            }
        }
        for (range, block) in core::mem::take(&mut filled.entries) {
            if !entries.contains_key(&(range, block)) {
                put(input, self.entry(range, block), &[0; entry::WORDS]);
            }
        }
        for (&(range, block), &(address, resident, writable)) in &entries {
            let [low, high] = address_words(address);
            put(input, self.entry(range, block), &[low, high, resident, writable]);
        }
        filled.entries = entries.into_keys().collect();
    }

    /// Where the entry of a block is.
    fn entry(&self, range: u32, block: u32) -> u64 {
        let part = &self.parts[range as usize];
        assert!(block < part.blocks, "an entry of the range's own");
        part.table + u64::from(block) * entry::WORDS as u64 * WORD
    }

    /// From now on a block is there, and no round holds it; or, `None`, as rounds say. No kernel of the launch runs.
    pub(super) fn set_remote(&self, device: &P::Device, range: u32, block: u32, to: Option<Place<P>>) {
        let (input, _) = device.control_at(&self.input);
        let mut filled = self.filled.lock();
        filled.entries.retain(|entry| *entry != (range, block));
        let mut words = [0; entry::WORDS];
        if let Some(Place { buffer, address, subs }) = to {
            let [low, high] = address_words(address);
            words = [low, high, u32::MAX >> (u32::BITS - subs), 0];
            if !filled.kept.iter().any(|kept| Arc::ptr_eq(kept, &buffer)) {
                filled.kept.push(buffer);
            }
        }
        put(input, self.entry(range, block), &words);
    }

    /// What the round that is over said; the feedback is zero again.
    pub(super) fn end(&self, device: &P::Device) -> Told {
        let (out, _) = device.control_at(&self.output);
        let head = words(out, self.feedback, feedback::FIRST as u64);
        let (missed, outside) = (head[feedback::COUNT], head[feedback::OUTSIDE]);
        put(out, self.feedback, &[0; feedback::FIRST]);
        let first = self.feedback + feedback::FIRST as u64 * WORD;
        let list = words(out, first, u64::from(missed.min(MISSES_MAX)) * feedback::WORDS as u64);
        let misses =
            list.chunks_exact(feedback::WORDS).map(|miss| [miss[0], miss[1], miss[2], miss[3]]).collect();
        let clear = |at: u64, plane: u32| {
            out.slice(at as usize, (u64::from(plane) * 2 * WORD) as usize).fill(0);
        };
        let take = |at: u64, plane: u32| {
            let mut loads = words(out, at, u64::from(plane) * 2);
            clear(at, plane);
            let stores = loads.split_off(plane as usize);
            [loads, stores]
        };
        // The list has them all, as a rule.
        let missing = |part: &Part| match missed {
            0 => <[Vec<u32>; 2]>::default(),
            1..=MISSES_MAX => {
                clear(part.missing, part.plane);
                Default::default()
            }
            _ => take(part.missing, part.plane),
        };
        let missing = self.parts.iter().map(missing).collect();
        let touched = self.parts.iter().map(|part| take(part.touched, part.plane)).collect();
        let of_items = u64::from(self.groups.saturating_mul(self.items).div_ceil(32));
        let items_done =
            words(out, self.items_done, of_items).iter().map(|word| u64::from(word.count_ones())).sum();
        let done = words(out, self.done, u64::from(self.groups.div_ceil(32)));
        Told { outside, missed, done, items_done, misses, missing, touched }
    }
}
