//! Programs with more data than device memory, as data: arrays cut into tiles, and launches on tiles in an order. What a programmer
//! writes by hand and what managed memory does run the same launches and are checked against the same results.
//!
//! ```text
//!   Program ──► Schedule   what goes in and out, with the future known (Belady's MIN): the least, and the hand-written plan
//!      │           └─────► Explicit   naive, and double-buffered on all queues; no engine under it
//!      └─────────────────► Player     managed memory: launches alone, with prefetch, in place
//! ```

mod explicit;
mod measure;
mod player;
mod schedule;

pub use explicit::Explicit;
pub use measure::{Case, measure};
pub use player::{Mode, Player};
pub use schedule::{Action, Schedule, Turn};
pub use vkhmm::AccessKind;

use core::ops::Range;

/// Bytes of device memory that a tile's start is a multiple of.
pub(crate) const FRAME: u64 = 65536;

/// An array of 32-bit floats.
#[derive(Clone, Debug)]
pub struct Array {
    /// What messages call it.
    pub name: &'static str,
    /// What it holds before the first launch.
    pub initial: Vec<f32>,
    /// What it must hold at the end, on the host; `None`: nobody asks.
    pub expected: Option<Vec<f32>>,
    /// It is small, used all the time, and never cut: the hand-written program keeps it on the device.
    pub stays: bool,
}

/// One use of an array by a launch.
#[derive(Clone, Debug)]
pub struct Use {
    /// Which array.
    pub array: usize,
    /// Which elements: inside one tile, unless the array stays.
    pub words: Range<usize>,
    /// What for.
    pub access: AccessKind,
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which of the program's kernels.
    pub kernel: usize,
    /// Invocations.
    pub items: usize,
    /// Its arguments, in the order of its bindings.
    pub uses: Vec<Use>,
    /// Its push constants.
    pub push: Vec<u32>,
}

/// Arrays, kernels, and launches in order.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name, as in tables.
    pub name: String,
    /// Shipped kernels: name and module.
    pub kernels: Vec<(&'static str, &'static [u8])>,
    /// Its memory.
    pub arrays: Vec<Array>,
    /// Elements of a tile, of every array that does not stay.
    pub tile_words: usize,
    /// The launches.
    pub steps: Vec<Step>,
}

/// A tile: an array that does not stay, and which of its tiles.
pub type Tile = (usize, usize);

impl Program {
    /// Bytes of all arrays.
    pub fn footprint(&self) -> u64 {
        self.arrays.iter().map(|array| 4 * array.initial.len() as u64).sum()
    }

    /// Bytes of a tile.
    pub fn tile_bytes(&self) -> u64 {
        4 * self.tile_words as u64
    }

    /// The tile that a use is in; `None` for arrays that stay.
    ///
    /// # Panics
    /// If it crosses a tile's end: the program is wrong.
    pub fn tile(&self, used: &Use) -> Option<Tile> {
        if self.arrays[used.array].stays {
            return None;
        }
        let tile = used.words.start / self.tile_words;
        assert!(used.words.end <= (tile + 1) * self.tile_words, "{used:?} crosses tile {tile}");
        Some((used.array, tile))
    }

    /// Tiles of all arrays that do not stay.
    pub fn tiles(&self) -> usize {
        self.cut().map(|(_, array)| array.initial.len() / self.tile_words).sum()
    }

    /// Bytes of the arrays that stay, each in frames of its own.
    pub fn staying_bytes(&self) -> u64 {
        let staying = self.arrays.iter().filter(|array| array.stays);
        staying.map(|array| (4 * array.initial.len() as u64).next_multiple_of(FRAME)).sum()
    }

    /// Whether what an array holds before the first launch is of use to anybody.
    pub fn is_read_first(&self, array: usize) -> bool {
        let mut uses = self.steps.iter().flat_map(|step| &step.uses);
        uses.find(|used| used.array == array).is_some_and(|used| used.access != AccessKind::Overwrite)
    }

    fn cut(&self) -> impl Iterator<Item = (usize, &Array)> {
        self.arrays.iter().enumerate().filter(|(_, array)| !array.stays)
    }

    /// Whether `have` is what array `array` must hold at the end.
    ///
    /// # Errors
    /// Says how many elements are wrong, and which is the first.
    pub fn check(&self, array: usize, have: &[f32], by: &str) -> anyhow::Result<()> {
        let Array { name, expected, .. } = &self.arrays[array];
        let Some(expected) = expected else { return Ok(()) };
        let mut wrong = have.iter().zip(expected).enumerate().filter(|(_, (have, right))| have != right);
        match wrong.next() {
            None => Ok(()),
            Some((at, (have, right))) => anyhow::bail!(
                "{}, {by}: {} elements of {name} are wrong, the first at {at}: {have} instead of {right}",
                self.name,
                1 + wrong.count()
            ),
        }
    }
}
