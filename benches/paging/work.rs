//! What is run: kernels with their data, and what the CPU says must come out. All numbers are small and whole, so that floats are exact
//! in every order of summation, and results are compared bit by bit.

use crate::examples::Random;
use vkhmm::AccessKind;

/// Bytes of a sub-block: what moves at once.
const SUB: usize = 1 << 16;
const PAGE: usize = 4096;

/// An array, passed whole: its first words, and what the kernel does with it.
pub(crate) struct Array {
    pub(crate) name: &'static str,
    pub(crate) words: Vec<u32>,
    pub(crate) access: AccessKind,
    /// Which sub-blocks are touched.
    touched: Vec<bool>,
}

/// How often it is launched.
pub(crate) enum Until {
    /// Once.
    Once,
    /// Again and again, with one more value, the number of launches before; until this array's first word stays zero.
    Zero {
        /// Which.
        array: usize,
    },
}

/// A kernel and its data.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) spirv: &'static [u8],
    pub(crate) arrays: Vec<Array>,
    /// Values behind the accesses, each a word.
    pub(crate) push: Vec<u32>,
    pub(crate) groups: [u32; 3],
    pub(crate) until: Until,
    /// Which arrays are compared, and what must be in them.
    pub(crate) results: Vec<(usize, Vec<u32>)>,
}

impl Array {
    /// An array of which nothing is touched yet.
    pub(crate) fn new(name: &'static str, access: AccessKind, words: Vec<u32>) -> Self {
        let touched = vec![false; (4 * words.len()).div_ceil(SUB)];
        Self { name, words, access, touched }
    }

    /// All of it is touched.
    pub(crate) fn whole(mut self) -> Self {
        self.touched.fill(true);
        self
    }

    /// That word is touched.
    pub(crate) fn touch(&mut self, word: usize) {
        self.touched[4 * word / SUB] = true;
    }

    /// Bytes that must move: in, unless old contents are dead, and home, if stored to.
    fn needed(&self) -> u64 {
        let ways = match self.access {
            AccessKind::Read | AccessKind::Overwrite => 1,
            AccessKind::Write => 2,
        };
        // The last one ends with the array's last page.
        let end = (4 * self.words.len()).next_multiple_of(PAGE);
        let touched = (0..self.touched.len()).filter(|sub| self.touched[*sub]);
        ways * touched.map(|sub| SUB.min(end - sub * SUB) as u64).sum::<u64>()
    }
}

impl Work {
    /// Bytes of all arrays.
    pub(crate) fn bytes(&self) -> u64 {
        self.arrays.iter().map(|array| 4 * array.words.len() as u64).sum()
    }

    /// Bytes that any way of running it must move: what it touches, each sub-block once.
    pub(crate) fn needed(&self) -> u64 {
        self.arrays.iter().map(Array::needed).sum()
    }
}

/// Whole numbers as floats.
pub(crate) fn floats(values: impl IntoIterator<Item = u32>) -> Vec<u32> {
    values.into_iter().map(|value| (value as f32).to_bits()).collect()
}

/// z = x + 3 y, in three arrays of `bytes` together.
pub(crate) fn triad(bytes: usize) -> Work {
    let n = bytes / 12;
    let (x, y) = (0..n as u32, |i: u32| i % 1000);
    let small = |i: u32| i % (1 << 20);
    Work {
        name: "triad",
        spirv: include_bytes!("../../shaders/spv/paged_triad.spv"),
        arrays: vec![
            Array::new("z", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("x", AccessKind::Read, floats(x.clone().map(small))).whole(),
            Array::new("y", AccessKind::Read, floats(x.clone().map(y))).whole(),
        ],
        push: vec![3.0_f32.to_bits(), n as u32],
        groups: [n.div_ceil(16384) as u32, 1, 1],
        until: Until::Once,
        results: vec![(0, floats(x.map(|i| small(i) + 3 * y(i))))],
    }
}

/// Which words a gather asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skew {
    /// Any, alike.
    Uniform,
    /// Of the k-th as many as one k-th of the first: a few are asked for all the time, most hardly ever.
    Zipf,
}

/// A number from 1 to n, k with a likelihood near 1 / k: the exponent of a uniform number is that.
fn zipf(random: &mut Random, n: usize) -> usize {
    let part = (random.bits() >> 11) as f64 / (1_u64 << 53) as f64;
    ((n as f64).powf(part) as usize).clamp(1, n)
}

/// to[i] = source[index[i]]: three quarters of `bytes` are the source's.
pub(crate) fn gather(bytes: usize, skew: Skew) -> Work {
    let (n, words) = (bytes / 32, bytes / 16 * 3);
    let mut random = Random::new(42);
    let word = |place: usize| (place as u32).wrapping_mul(0x9e37_79b9);
    let mut source = Array::new("source", AccessKind::Read, (0..words).map(word).collect());
    let index: Vec<u32> = (0..n)
        .map(|_| match skew {
            Skew::Uniform => random.below(words) as u32,
            Skew::Zipf => zipf(&mut random, words) as u32 - 1,
        })
        .collect();
    index.iter().for_each(|place| source.touch(*place as usize));
    let expected = index.iter().map(|place| word(*place as usize)).collect();
    Work {
        name: if skew == Skew::Zipf { "gather, zipf" } else { "gather, uniform" },
        spirv: include_bytes!("../../shaders/spv/paged_gather.spv"),
        arrays: vec![
            Array::new("to", AccessKind::Overwrite, vec![0; n]).whole(),
            Array::new("index", AccessKind::Read, index).whole(),
            source,
        ],
        push: vec![n as u32],
        groups: [n.div_ceil(8192) as u32, 1, 1],
        until: Until::Once,
        results: vec![(0, expected)],
    }
}
