//! The kernels of modelled paged launches, group by group as `shaders/paged_*.comp` are: what they ask for, and what they then do.

use super::device::Work;
use super::kernels::{Body, Round};
use super::trace::Access;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_core::units::Geometry;

const FRAME: u64 = Geometry::PRODUCTION.frame_bytes();

/// What is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// z = x + s y in f32, 16,384 elements a group.
    Triad,
    /// A product of a tall matrix and a square one of 2,048, a tile of 64 by 32 a group.
    Gemm,
    /// One word for each index, indices by Zipf's law, 8,192 a group, each an item.
    Gather,
}

/// All of them.
pub const PROGRAMS: [Program; 3] = [Program::Triad, Program::Gemm, Program::Gather];

/// Rows and columns of the square matrix.
const SIDE: u64 = 2048;
/// Elements of a group.
const TRIAD_TILE: u64 = 16384;
const GATHER_TILE: u64 = 8192;
/// Bytes that a load of one word at random takes.
const SECTOR: f64 = 32.0;

impl Program {
    /// Its name, as in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Triad => "triad",
            Self::Gemm => "gemm",
            Self::Gather => "gather-zipf",
        }
    }

    /// Its ranges in the order of their numbers, of about so many bytes together; its groups.
    pub(super) fn shape(self, bytes: u64) -> (Vec<(u64, Access)>, u32) {
        let tiles = |bytes: u64, each: u64| (bytes / each).max(1);
        match self {
            Self::Triad => {
                let groups = tiles(bytes, 3 * 4 * TRIAD_TILE);
                let each = groups * TRIAD_TILE * 4;
                (vec![(each, Access::Overwrite), (each, Access::Read), (each, Access::Read)], groups as u32)
            }
            Self::Gemm => {
                let rows = 64 * tiles(bytes.saturating_sub(4 * SIDE * SIDE), 2 * 4 * SIDE * 64);
                let tall = rows * SIDE * 4;
                let ranges =
                    vec![(tall, Access::Overwrite), (tall, Access::Read), (4 * SIDE * SIDE, Access::Read)];
                (ranges, (rows / 64 * (SIDE / 32)) as u32)
            }
            Self::Gather => {
                let groups = tiles(bytes, 8 * 4 * GATHER_TILE);
                let each = groups * GATHER_TILE * 4;
                let ranges = vec![(each, Access::Overwrite), (each, Access::Read), (6 * each, Access::Read)];
                (ranges, groups as u32)
            }
        }
    }

    pub(super) fn items(self) -> u32 {
        if self == Self::Gather { GATHER_TILE as u32 } else { 0 }
    }

    /// The kernel, over ranges of so many groups.
    pub(super) fn kernel(self, groups: u32) -> Box<dyn Body> {
        match self {
            Self::Triad => Box::new(Triad),
            Self::Gemm => Box::new(Gemm),
            Self::Gather => Box::new(Gather::new(groups)),
        }
    }

    /// What the kernel does when everything is there.
    pub(super) fn work(self, groups: u32) -> Work {
        let (flop, bytes) = match self {
            Self::Triad => TRIAD,
            Self::Gemm => GEMM,
            Self::Gather => (0.0, GATHER_TILE as f64 * (4.0 + SECTOR + 4.0)),
        };
        Work { flop: flop * f64::from(groups), bytes: bytes * f64::from(groups) }
    }

    /// Bytes that must go in, and home: every sub-block that is touched, once.
    pub(super) fn needed(self, bytes: u64) -> (u64, u64) {
        let (ranges, groups) = self.shape(bytes);
        let of = |access: Access| ranges.iter().filter(move |range| range.1 == access).map(|range| range.0);
        let (reads, home) = (of(Access::Read).sum::<u64>(), of(Access::Overwrite).sum());
        if self != Self::Gather {
            return (reads, home);
        }
        let gather = Gather::new(groups);
        let all = u64::from(groups) * GATHER_TILE;
        let mut touched = vec![false; (ranges[2].0 / FRAME) as usize];
        (0..all).for_each(|i| touched[gather.sub(i) as usize] = true);
        (ranges[1].0 + touched.iter().filter(|sub| **sub).count() as u64 * FRAME, home)
    }
}

/// Operations and bytes of one group.
const TRIAD: (f64, f64) = (2.0 * TRIAD_TILE as f64, 12.0 * TRIAD_TILE as f64);
/// The square matrix and the rows stay in the device's caches for the tiles beside each other: what comes from memory is a part of them.
const GEMM: (f64, f64) = (2.0 * 64.0 * 32.0 * SIDE as f64, 4.0 * (64 * 32 + 64 * SIDE / (SIDE / 32)) as f64);
/// Nothing but looks into tables.
const NOTHING: Work = Work { flop: 0.0, bytes: 0.0 };

struct Triad;

impl Body for Triad {
    fn group(&self, round: &mut Round, group: u32) -> Work {
        let first = u64::from(group) * TRIAD_TILE * 4;
        let mut want = |range, access| round.want(group, range, first..first + TRIAD_TILE * 4, access);
        let there = [want(1, READ), want(2, READ), want(0, WRITE)] == [true; 3];
        if !there {
            return NOTHING;
        }
        round.done(group);
        Work { flop: TRIAD.0, bytes: TRIAD.1 }
    }
}

struct Gemm;

impl Body for Gemm {
    fn group(&self, round: &mut Round, group: u32) -> Work {
        let row = u64::from(group) / (SIDE / 32) * 64;
        let rows = row * SIDE * 4..(row + 64) * SIDE * 4;
        // Rows of the square matrix are shorter than a sub-block: all of it is asked for, as vkhmm_want_rows does.
        let a = round.want(group, 1, rows.clone(), READ);
        let b = round.want(group, 2, 0..4 * SIDE * SIDE, READ);
        let c = round.want(group, 0, rows, WRITE);
        if !(a && b && c) {
            return NOTHING;
        }
        round.done(group);
        Work { flop: GEMM.0, bytes: GEMM.1 }
    }
}

struct Gather {
    /// Of the source.
    words: u64,
    log2: f64,
}

impl Gather {
    fn new(groups: u32) -> Self {
        let words = 6 * u64::from(groups) * GATHER_TILE;
        Self { words, log2: (words as f64).log2() }
    }

    /// The source's sub-block that element `i` comes from: of the k-th word as many as one k-th of the first.
    fn sub(&self, i: u64) -> u64 {
        let mixed = (i ^ i >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let part = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        let place = (self.log2 * part).exp2() as u64;
        (place.clamp(1, self.words) - 1) * 4 / FRAME
    }
}

impl Body for Gather {
    fn group(&self, round: &mut Round, group: u32) -> Work {
        let first = u64::from(group) * GATHER_TILE;
        let bytes = first * 4..(first + GATHER_TILE) * 4;
        let there = [round.want(group, 1, bytes.clone(), READ), round.want(group, 0, bytes, WRITE)];
        if there != [true; 2] {
            return NOTHING;
        }
        let (open, mut all) = round.open(group);
        let (mut work, mut asked) = (NOTHING, vec![false; (self.words * 4 / FRAME) as usize]);
        for item in open {
            let sub = self.sub(first + u64::from(item));
            work.bytes += 4.0;
            let there = round.look(2, sub);
            if there {
                work.bytes += SECTOR + 4.0;
                round.item_done(group, item);
            } else {
                all = false;
            }
            // What is absent; and one in 32 of the first quarter says what is in use, as the shader does.
            let tells = !there || item < GATHER_TILE as u32 / 4 && item % 32 == 0;
            if tells && !core::mem::replace(&mut asked[sub as usize], true) {
                round.ask(group, 2, sub, READ);
            }
        }
        if all {
            round.done(group);
        }
        work
    }
}
