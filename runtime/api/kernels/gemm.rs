//! gemm, gram, syrk: products of matrices, cut into windows of whole rows where they do not fit the device together.
//!
//! Of a row-major matrix only whole rows are contiguous, so each operand is cut along its rows in memory: C into panels, A into
//! panels of the same rows (transposed: into pieces of k), B into pieces of k (transposed: of n). A panel of C, with its rows of
//! A, stays on the device while pieces of B stream through; or all of B stays, and panels stream. [`Cut::best`] looks for the
//! least bytes moved. With whole rows these grow with the panels' number: products of matrices very much larger than the device
//! are better cut into square tiles, each contiguous in memory of its own, with one gemm for each.

use super::mat::Mat;
use super::modules::Module;
use super::operand::{Launches, Role, refuse};
use super::panel::Panel;
use crate::launch::{Grid, Launch};
use crate::{AccessKind, Result, Runtime};
use std::ops::Range;

/// Most products in a row that one launch adds up: some software devices end longer loops.
const DEPTH_MAX: usize = 32_768;
/// What one invocation computes.
const TILE: (usize, usize) = (8, 4);

/// `c = alpha a b + beta c`. `a` is m x k, `b` k x n, `c` m x n; each may be part of a larger matrix, or a transposed view. With
/// `beta` zero the old `c` is not read, also not where it is no number.
///
/// A row of each (as it lies in memory) must fit the device's memory at once; what moves is least if all of `b`, or a good part
/// of `a` and `c`, does.
///
/// # Errors
/// As the [module](super) says; `Shape` if the three do not fit each other.
pub fn gemm(rt: &Runtime, alpha: f32, a: Mat<'_>, b: Mat<'_>, beta: f32, c: Mat<'_>) -> Result<Launch> {
    let a = Panel::new("gemm", "a", a, Role::In)?;
    let b = Panel::new("gemm", "b", b, Role::In)?;
    let c = Panel::new("gemm", "c", c, if beta == 0.0 { Role::Out } else { Role::InOut })?;
    let ((m, k), n) = (a.shape(), b.shape().1);
    if b.shape().0 != k {
        let need = format!("as many rows are needed as a has columns, {k}");
        return refuse("gemm", "b", shown(&b), need);
    }
    if c.shape() != (m, n) {
        return refuse("gemm", "c", shown(&c), format!("the product of a and b is {m} x {n}"));
    }
    c.apart("gemm", "c", &[("a", &a), ("b", &b)])?;
    Product { alpha, a, b, beta, c, part: Part::All, square: false }.run(rt)
}

/// `c = a aᵀ`, the Gram matrix of the rows of `a`. `a` is n x k, `c` n x n.
///
/// # Errors
/// As [`gemm`].
pub fn gram(rt: &Runtime, a: Mat<'_>, c: Mat<'_>) -> Result<Launch> {
    symmetric(rt, "gram", 1.0, a, 0.0, c, Part::All)
}

/// `c = alpha a aᵀ + beta c` for the lower triangle of `c` and its diagonal; what is above stays as it is. `a` is n x k, `c` n x n:
/// the trailing update of a blocked Cholesky factorisation.
///
/// # Errors
/// As [`gemm`].
pub fn syrk(rt: &Runtime, alpha: f32, a: Mat<'_>, beta: f32, c: Mat<'_>) -> Result<Launch> {
    symmetric(rt, "syrk", alpha, a, beta, c, Part::Lower)
}

fn symmetric(
    rt: &Runtime,
    kernel: &'static str,
    alpha: f32,
    a: Mat<'_>,
    beta: f32,
    c: Mat<'_>,
    part: Part,
) -> Result<Launch> {
    let a = Panel::new(kernel, "a", a, Role::In)?;
    // What is above the diagonal stays: the old elements are needed in any case.
    let role = if beta == 0.0 && part == Part::All { Role::Out } else { Role::InOut };
    let c = Panel::new(kernel, "c", c, role)?;
    let n = a.shape().0;
    if c.shape() != (n, n) {
        return refuse(kernel, "c", shown(&c), format!("the product of a and its transpose is {n} x {n}"));
    }
    c.apart(kernel, "c", &[("a", &a)])?;
    let b = a.again().t();
    Product { alpha, a, b, beta, c, part, square: true }.run(rt)
}

fn shown(panel: &Panel<'_>) -> String {
    let (rows, cols) = panel.shape();
    format!("{rows} x {cols}")
}

/// Which elements of C are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Lower,
    Upper,
}

/// A product whose shapes fit.
struct Product<'a> {
    alpha: f32,
    a: Panel<'a>,
    b: Panel<'a>,
    beta: f32,
    c: Panel<'a>,
    part: Part,
    /// Whether A and B are the same memory.
    square: bool,
}

/// One launch: which rows and columns of C, which products, and whether it is the first for these elements.
struct Step {
    m: Range<usize>,
    n: Range<usize>,
    k: Range<usize>,
    first: bool,
}

impl Product<'_> {
    fn run(self, rt: &Runtime) -> Result<Launch> {
        let it = self.upright();
        let ((m, k), n) = (it.a.shape(), it.b.shape().1);
        let mut launches = Launches::new(rt);
        if m == 0 || n == 0 {
            return launches.done();
        }
        let cut = Cut::best(&it, rt.device_memory().0);
        let mut back = false;
        for (index, m) in windows(m, cut.m).enumerate() {
            // To and fro, so that what was used last is used first.
            let turned = |all: Vec<Range<usize>>| -> Vec<Range<usize>> {
                if index % 2 == 1 { all.into_iter().rev().collect() } else { all }
            };
            let mut fresh = it.c_is_born();
            for n in turned(windows(n, cut.n).collect()) {
                let mut pieces: Vec<_> = windows(k, cut.k).collect();
                if back {
                    pieces.reverse();
                }
                back = !back;
                let mut first = true;
                for piece in pieces {
                    for part in windows(piece.len(), DEPTH_MAX) {
                        let k = piece.start + part.start..piece.start + part.end;
                        let step = Step { m: m.clone(), n: n.clone(), k, first };
                        if it.is_needed(&step) {
                            it.launch(&mut launches, &step, &piece, fresh)?;
                            (first, fresh) = (false, false);
                        }
                    }
                }
            }
        }
        launches.done()
    }

    /// Where rows of C lie as columns, the transposed product: it has them as rows.
    fn upright(self) -> Self {
        if !self.c.transposed {
            return self;
        }
        let part = match self.part {
            Part::All => Part::All,
            Part::Lower => Part::Upper,
            Part::Upper => Part::Lower,
        };
        Self { a: self.b.t(), b: self.a.t(), c: self.c.t(), part, ..self }
    }

    /// Whether all that a panel of C was before is dead.
    fn c_is_born(&self) -> bool {
        self.beta == 0.0 && self.part == Part::All && self.c.dense()
    }

    fn is_needed(&self, step: &Step) -> bool {
        match self.part {
            Part::All => true,
            Part::Lower => step.n.start < step.m.end,
            Part::Upper => step.m.start < step.n.end,
        }
    }

    /// `piece` is what of k is on the device: a whole window, of which the step adds up a part.
    fn launch(
        &self,
        launches: &mut Launches<'_>,
        step: &Step,
        piece: &Range<usize>,
        fresh: bool,
    ) -> Result<()> {
        let Step { m, n, k, first } = step;
        // Which rows of memory go to the device, and the first element of them that is meant.
        let skipped = k.start - piece.start;
        let (a_rows, a0) =
            if self.a.transposed { (piece, skipped * self.a.stride + m.start) } else { (m, k.start) };
        let (b_rows, b0) =
            if self.b.transposed { (n, k.start) } else { (piece, skipped * self.b.stride + n.start) };
        let (a, before_a) = self.a.bound(a_rows.clone());
        let (b, before_b) = self.b.bound(b_rows.clone());
        let (a0, b0) = (before_a + a0, before_b + b0);
        let c = self.c.part(m.clone(), if fresh { AccessKind::Overwrite } else { AccessKind::Write });
        let wide = [(&self.a, a0), (&self.b, b0)]
            .iter()
            .all(|(panel, first)| panel.stride % 4 == 0 && first % 4 == 0);
        let beta = if *first { self.beta } else { 1.0 };
        let values = [
            m.len() as u32,
            n.len() as u32,
            k.len() as u32,
            self.a.stride as u32,
            self.b.stride as u32,
            self.c.stride as u32,
            a0 as u32,
            b0 as u32,
            n.start as u32,
            self.alpha.to_bits(),
            beta.to_bits(),
            self.part as u32,
            (m.start as i64 - n.start as i64) as i32 as u32,
        ];
        let module = Module::Gemm { a_t: self.a.transposed, b_t: self.b.transposed, wide };
        let grid = Grid::linear(m.len().div_ceil(TILE.0) * n.len().div_ceil(TILE.1));
        launches.add(module, grid, [a, b, c], &values)
    }
}

/// `count` items in windows; one window of nothing if there are none.
fn windows(count: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..count.div_ceil(each).max(1)).map(move |i| i * each..((i + 1) * each).min(count))
}

/// Lengths of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    m: usize,
    n: usize,
    k: usize,
}

impl Cut {
    /// The cut that moves the least with `limit` bytes of device memory; where none fits for sure, one of which the engine says.
    fn best(product: &Product<'_>, limit: u64) -> Self {
        let (m, k) = product.a.shape();
        let n = product.b.shape().1;
        let whole = Self { m, n, k };
        if whole.fits(product, limit, 1) {
            return whole;
        }
        let most = Self::most(product);
        let cuts = |length: usize, most: usize, to: usize| {
            let parts = if most == usize::MAX { 1 } else { length };
            counts(parts).map(move |count| match length.div_ceil(count).min(most) {
                each if each < to => each.max(1),
                each => each.next_multiple_of(to).min(length).min(most),
            })
        };
        let best = |ahead: u64, limit: u64| {
            let mut best: Option<(u128, Self)> = None;
            for m in cuts(m, most.m, TILE.0) {
                for n in cuts(n, most.n, TILE.1) {
                    for k in cuts(k, most.k, 4) {
                        let cut = Self { m, n, k };
                        let cost = cut.cost(product, limit);
                        if best.is_none_or(|(least, _)| cost < least) && cut.fits(product, limit, ahead) {
                            best = Some((cost, cut));
                        }
                    }
                }
            }
            best.map(|(_, cut)| cut)
        };
        // Room for the next windows beside those in use; where that cannot be, for those in use alone.
        let found = best(2, limit).or_else(|| best(1, limit));
        // Windows may need less than they do at most.
        let found = found.or_else(|| best(1, limit + 4 * 65536));
        let least = |length: usize, most: usize| if most == usize::MAX { length } else { length.min(1) };
        found.unwrap_or_else(|| Self { m: least(m, most.m), n: least(n, most.n), k: least(k, most.k) })
    }

    /// The most of each that a launch may be given; of what is not cut, anything.
    fn most(product: &Product<'_>) -> Self {
        let Product { a, b, c, .. } = product;
        let rows = |cut: bool, panel: &Panel<'_>| if cut { panel.rows_max(true) } else { usize::MAX };
        Self {
            m: c.rows_max(false).min(rows(!a.transposed, a)),
            n: rows(b.transposed, b),
            k: rows(a.transposed, a).min(rows(!b.transposed, b)),
        }
    }

    /// How many windows of m, n and k.
    fn counts(&self, product: &Product<'_>) -> (u64, u64, u64) {
        let (m, k) = product.a.shape();
        let count = |length: usize, each: usize| length.div_ceil(each.max(1)).max(1) as u64;
        (count(m, self.m), count(product.b.shape().1, self.n), count(k, self.k))
    }

    /// Bytes that move, and what launches cost beside.
    fn cost(&self, product: &Product<'_>, limit: u64) -> u128 {
        let (m, n, k) = self.counts(product);
        let [m, n, k] = [m, n, k].map(u128::from);
        let a = match (product.a.transposed, k) {
            (true, 2..) => m * n,
            _ => 1,
        };
        let b = match (product.b.transposed, n, k) {
            (true, 1, _) | (false, _, 1) => 1,
            _ => m,
        };
        let [in_a, in_b, in_c] = [&product.a, &product.b, &product.c].map(|panel| u128::from(panel.bytes()));
        a * in_a + b * in_b + in_c + m * n * k * u128::from(limit / 256)
    }

    /// Whether what a launch needs fits, with room for `ahead` of the windows that change from launch to launch.
    fn fits(&self, product: &Product<'_>, limit: u64, ahead: u64) -> bool {
        let (m, n, k) = self.counts(product);
        let Product { a, b, c, .. } = product;
        let (a_rows, b_rows) =
            (if a.transposed { self.k } else { self.m }, if b.transposed { self.n } else { self.k });
        if a_rows > a.rows_max(true) || b_rows > b.rows_max(true) || self.m > c.rows_max(false) {
            return false;
        }
        let same = product.square && m * n * k == 1;
        let (a_bytes, b_bytes) = (a.device_bytes(a_rows), if same { 0 } else { b.device_bytes(b_rows) });
        let (panel, pieces) = if a.transposed { (0, a_bytes + b_bytes) } else { (a_bytes, b_bytes) };
        let panel = panel + c.device_bytes(self.m);
        let (panels, streams) = match (m, n * k) {
            (_, 2..) => (1, ahead),
            (2.., _) => (ahead, 1),
            _ => (1, 1),
        };
        panels * panel + streams * pieces <= limit
    }
}

/// Into how many parts a side of `most` may be cut: every small number, and larger ones in steps of an eighth.
fn counts(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1), |count| Some(count + 1 + count / 8)).take_while(move |c| *c <= most.max(1))
}
