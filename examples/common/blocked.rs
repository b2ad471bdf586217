//! C = A B for matrices larger than the device: which tiles, in which order, and what that costs in bytes.
//!
//! ```text
//!             n            for each tile (i, j) of C:            one launch:  C(i,j) += A(i,l) B(l,j)
//!         ┌──┬──┬──┐           for each piece l of k, to and fro
//!       k │  │▓▓│  │               launch                        C(i,j) stays on the device for all of its l,
//!     k   ├──┼──┼──┤                                             A(i,l) and B(l,j) stream through: there is room
//!   ┌──┬──┼──┼──┼──┤                                             for the next two beside the two in use, so that
//!   │▓▓│  │  │██│  │ m                                           they are copied in while the kernel runs
//!   └──┴──┴──┴──┴──┘
//! ```
//!
//! A launch names contiguous slices, and a tile of a row-major matrix is none; so each matrix lies tile by tile in its managed
//! memory ([`Tiles`]). The reader puts each element in its place at once, so this costs no copy. A tall panel of whole rows would
//! be contiguous as it is, but with whole rows the bytes moved grow with n / M instead of 1 / sqrt(M).
//!
//! Moved: A once for each tile column of C, B once for each tile row, C home once; C is born on the device. [`Plan::new`] looks
//! for the least of it. No order of the same products moves less than [`Plan::lower_bound`].

use super::Random;
use super::tiles::{Tiles, device_bytes};
use std::collections::VecDeque;
use vkhmm::kernels::{self, Mat};
use vkhmm::{Launch, Managed, Runtime};

/// The kernel computes 8 x 4 elements of C at a time.
const KERNEL_ROWS: usize = 8;
const KERNEL_COLUMNS: usize = 4;

/// Every product can be cut for that much device memory: three granules.
pub(crate) const LIMIT_MIN: u64 = 3 * 65536;

/// How one product is cut.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) a: Tiles,
    pub(crate) b: Tiles,
    pub(crate) c: Tiles,
    limit: u64,
}

/// Sizes of the tiles: C is cut into `rows` x `columns`, k into `depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    rows: usize,
    columns: usize,
    depth: usize,
}

impl Plan {
    /// The cut of (m x k) (k x n) that moves the least with `limit` bytes of device memory; `None` if no tile fits.
    pub(crate) fn new(m: usize, n: usize, k: usize, limit: u64) -> Option<Self> {
        // Room for the next tiles of A and B beside those in use; where that cannot be, for those in use alone.
        let cut = [2, 1].iter().find_map(|ahead| Cut::best(m, n, k, limit, *ahead))?;
        Some(Self {
            a: Tiles::new(m, k, cut.rows, cut.depth),
            b: Tiles::new(k, n, cut.depth, cut.columns),
            c: Tiles::new(m, n, cut.rows, cut.columns),
            limit,
        })
    }

    /// Rows and columns of C, and products per element.
    pub(crate) fn shape(&self) -> (usize, usize, usize) {
        (self.c.rows, self.c.columns, self.a.columns)
    }

    /// Number of launches.
    pub(crate) fn launches(&self) -> usize {
        self.c.down() * self.c.across() * self.a.across()
    }

    /// Bytes of A, B and C.
    pub(crate) fn footprint(&self) -> u64 {
        let (m, n, k) = self.shape();
        4 * (m * k + k * n + m * n) as u64
    }

    /// Bytes to and from the device that this plan asks for, if tiles are not padded and nothing is kept from one tile of C to
    /// the next: (in, out).
    pub(crate) fn planned(&self) -> (u64, u64) {
        let (m, n, k) = self.shape();
        (4 * (m * k * self.c.across() + k * n * self.c.down()) as u64, 4 * (m * n) as u64)
    }

    /// Bytes, both ways together, that no order of these products can save with this limit. A and B must come in and C must go
    /// home; and with S elements of memory at least 2mnk / sqrt(S) - 2S elements move (Smith, Lowery, Langou, van de Geijn,
    /// "A Tight I/O Lower Bound for Matrix Multiplication", 2019). Whichever is larger.
    pub(crate) fn lower_bound(&self) -> u64 {
        let (m, n, k) = self.shape();
        let s = (self.limit / 4) as f64;
        let elements = 2.0 * m as f64 * n as f64 * k as f64 / s.sqrt() - 2.0 * s;
        self.footprint().max((4.0 * elements) as u64)
    }

    /// The launches in order: tile row and tile column of C, piece of k, and whether it is the first one of its tile. To and fro,
    /// so that what was used last is used first.
    fn order(&self) -> impl Iterator<Item = (usize, usize, usize, bool)> + use<> {
        let (down, across, pieces) = (self.c.down(), self.c.across(), self.a.across());
        let turn = |odd: bool, at: usize, of: usize| if odd { of - 1 - at } else { at };
        (0..down * across).flat_map(move |tile| {
            let (i, j) = (tile / across, turn(tile / across % 2 == 1, tile % across, across));
            (0..pieces).map(move |l| (i, j, turn(tile % 2 == 1, l, pieces), l == 0))
        })
    }

    /// Computes `c`, and calls `progress` with the number of launches that are over. Returns once all are.
    ///
    /// # Errors
    /// Of the launches.
    pub(crate) fn run(
        &self,
        rt: &Runtime,
        (a, b): (&Managed<f32>, &Managed<f32>),
        c: &mut Managed<f32>,
        progress: impl Fn(usize),
    ) -> vkhmm::Result<()> {
        let mut running: VecDeque<Launch> = VecDeque::new();
        for (launched, (i, j, l, first)) in self.order().enumerate() {
            let (ta, tb, tc) = (self.a.tile(i, l), self.b.tile(l, j), self.c.tile(i, j));
            let (a, b) = (a.slice(ta.elements.clone()), b.slice(tb.elements.clone()));
            let mut c = c.slice_mut(tc.elements.clone());
            // The ends of rows go along: tiles of B and C are as wide as their rows are apart.
            let left = Mat::new(a.read(), ta.rows, ta.columns).stride(ta.stride);
            let right = Mat::new(b.read(), tb.rows, tb.stride);
            // The first piece writes C, so nothing of C comes in; the others add to it.
            let product = Mat::new(c.write(), tc.rows, tc.stride);
            running.push_back(kernels::gemm(rt, 1.0, left, right, if first { 0.0 } else { 1.0 }, product)?);
            while running.front().is_some_and(Launch::is_done) {
                running.pop_front();
            }
            progress(launched + 1 - running.len());
        }
        while let Some(launch) = running.pop_front() {
            launch.wait()?;
            progress(self.launches() - running.len());
        }
        Ok(())
    }

    /// Compares `count` random elements of C with the CPU's in f64. The largest error, where 1 is what f32 may be off: k roundings
    /// of half a unit in the last place, of the sum of |a b|; it holds for every order of the additions.
    pub(crate) fn check(
        &self,
        (a, b, c): (&[f32], &[f32], &[f32]),
        count: usize,
        random: &mut Random,
    ) -> f64 {
        let (m, n, k) = self.shape();
        let count = if m * n == 0 { 0 } else { count };
        let mut worst = 0.0f64;
        for _ in 0..count {
            let (row, column) = (random.below(m), random.below(n));
            let (mut sum, mut size) = (0.0, 0.0);
            for p in 0..k {
                let product = f64::from(a[self.a.at(row, p)]) * f64::from(b[self.b.at(p, column)]);
                sum += product;
                size += product.abs();
            }
            let have = c[self.c.at(row, column)];
            if have.is_finite() && size.is_finite() {
                let allowed = k as f64 * f64::from(f32::EPSILON) / 2.0 * size + f64::from(f32::MIN_POSITIVE);
                worst = worst.max((f64::from(have) - sum).abs() / allowed);
            } else if size <= f64::from(f32::MAX) {
                // Infinite or not a number, and the input does not explain it.
                worst = f64::INFINITY;
            }
        }
        worst
    }
}

impl Cut {
    fn best(m: usize, n: usize, k: usize, limit: u64, ahead: u64) -> Option<Self> {
        let mut best: Option<(u64, usize, Self)> = None;
        for across in counts(n.div_ceil(KERNEL_COLUMNS)) {
            for down in counts(m.div_ceil(KERNEL_ROWS)) {
                let rows = m.div_ceil(down).max(1).next_multiple_of(KERNEL_ROWS);
                let columns = n.div_ceil(across).max(1).next_multiple_of(KERNEL_COLUMNS);
                let Some(depth) = deepest(rows, columns, k, limit, ahead) else { continue };
                let moved = (m * k * n.div_ceil(columns) + k * n * m.div_ceil(rows)) as u64;
                let launches = m.div_ceil(rows) * n.div_ceil(columns) * k.div_ceil(depth);
                if best.as_ref().is_none_or(|(m, l, _)| (moved, launches) < (*m, *l)) {
                    best = Some((moved, launches, Self { rows, columns, depth }));
                }
            }
        }
        best.map(|(.., cut)| cut)
    }
}

/// Into how many parts a side of `most` units may be cut: every small number, and larger ones in steps of 3 %.
fn counts(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |count| Some(count + 1 + count / 32))
        .take_while(move |c| *c <= most.max(1))
}

/// The largest equal pieces of k whose tiles fit beside a tile of C.
fn deepest(rows: usize, columns: usize, k: usize, limit: u64, ahead: u64) -> Option<usize> {
    let tile = device_bytes(rows, columns);
    let fits = |depth: usize| {
        let (a, b) = (device_bytes(rows, depth), device_bytes(depth, columns));
        tile + ahead * (a + b) <= limit
    };
    // From above: what the room for A and B would hold without rounding up to whole granules.
    let room = limit.checked_sub(tile)? / ahead / (4 * (rows + columns) as u64);
    let mut pieces = k.div_ceil((room as usize / 4 * 4).max(4)).max(1);
    loop {
        let depth = k.div_ceil(pieces).next_multiple_of(4).max(4);
        if fits(depth) {
            return Some(depth);
        }
        // Thin pieces only move more padding; a few steps make up for the rounding.
        pieces += pieces.div_ceil(8);
        if depth <= 16 {
            return None;
        }
    }
}
