//! The lower triangle of a matrix in tiles, and the order in which a Cholesky factorisation visits them so that few bytes move.
//!
//! ```text
//!   panels of a stage                  A panel is 128 columns wide. What a group has of it is an allocation of its own: that is what
//!   ┌──┐                               moves together.
//!   │▓▓└──┐
//!   │▓▓▓▓▓└──┐                         A stage works on some panels. Its triangle (dark) stays on the device while the rows below it
//!   ├────────┼──┐                      come in groups, are finished and go: each tile of the stage comes in once, whatever the
//!   │ group  │  └──┐                   number of groups. What costs are the earlier panels, which stream in for every group of a
//!   ├────────┤     └──┐                later stage: so there are few stages, and the last one is a triangle as large as fits.
//!   │ group  │        └──┐
//!   └────────┴───────────┘
//! ```

use super::Random;
use std::ops::Range;
use vkhmm::{Advice, Managed, Runtime, Side};

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 128;
/// Bytes of a tile: one granule.
pub(crate) const TILE_BYTES: u64 = (TILE * TILE * 4) as u64;

/// Where the tiles of a matrix of `size` rows lie. Rows beyond it, up to a whole tile, are those of the identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Triangle {
    pub(crate) size: usize,
    pub(crate) tiles: usize,
}

/// Panels that are worked on together, and how many tile rows at a time below their triangle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) panels: Range<usize>,
    pub(crate) height: usize,
}

impl Stage {
    /// The tile rows of its groups, of `all`: those of its triangle, then those below.
    pub(crate) fn groups(&self, all: usize) -> Vec<Range<usize>> {
        let below = (self.panels.end..all).step_by(self.height.max(1));
        let below = below.map(|start| start..(start + self.height).min(all));
        std::iter::once(self.panels.clone()).chain(below).collect()
    }
}

/// Tile rows of a panel: what moves together.
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    pub(crate) values: Managed<f32>,
}

impl Piece {
    /// The elements of some of its rows.
    pub(crate) fn at(&self, rows: &Range<usize>) -> Range<usize> {
        (rows.start - self.rows.start) * TILE * TILE..(rows.end - self.rows.start) * TILE * TILE
    }
}

impl Triangle {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, tiles: size.div_ceil(TILE) }
    }

    /// Elements to allocate.
    pub(crate) fn len(&self) -> usize {
        half(self.tiles) * TILE * TILE
    }

    /// The elements of some tile rows of a panel.
    pub(crate) fn rows(&self, panel: usize, rows: Range<usize>) -> Range<usize> {
        let before = half(self.tiles) - half(self.tiles - panel);
        let at = |row: usize| (before + row - panel) * TILE * TILE;
        at(rows.start)..at(rows.end)
    }

    /// Where an element is, panels lying one behind the other.
    pub(crate) fn at(&self, row: usize, col: usize) -> usize {
        let (panel, tile) = (col / TILE, row / TILE);
        self.rows(panel, tile..tile + 1).start + row % TILE * TILE + col % TILE
    }

    /// The pieces of a panel, group by group, with their elements.
    pub(crate) fn pieces(
        &self,
        rt: &Runtime,
        stage: &Stage,
        panel: usize,
        a: &[f32],
    ) -> vkhmm::Result<Vec<Piece>> {
        let piece = |group: Range<usize>| {
            let rows = group.start.max(panel)..group.end;
            let from = self.rows(panel, rows.clone());
            let mut values = rt.alloc_named::<f32>(from.len(), &format!("rows {rows:?} of panel {panel}"))?;
            values.copy_from_slice(&a[from]);
            // The CPU takes what it touches, and no more.
            values.advise(Advice::PreferredLocation(Some(Side::Device)))?;
            Ok(Piece { rows, values })
        };
        stage.groups(self.tiles).into_iter().map(piece).collect()
    }

    /// The stages that move the least with room for so many tiles; none if a group of one row does not fit.
    pub(crate) fn plan(&self, room: usize) -> Option<Vec<Stage>> {
        // From the end: for each first panel and width of the stage before it, the tiles read again, and the stage.
        let count = self.tiles;
        let mut best = vec![vec![None; count + 1]; count + 1];
        for row in &mut best[count] {
            *row = Some((0, 0, 0));
        }
        for first in (0..count).rev() {
            for before in 0..=first {
                for width in 1..=count - first {
                    let Some((again, height)) = self.stage(first, width, room, before) else { continue };
                    let Some((rest, ..)) = best[first + width][width] else { continue };
                    if best[first][before].is_none_or(|(least, ..)| again + rest < least) {
                        best[first][before] = Some((again + rest, width, height));
                    }
                }
            }
        }
        let (mut stages, mut first, mut before) = (Vec::new(), 0, 0);
        while first < count {
            let (_, width, height) = best[first][before]?;
            stages.push(Stage { panels: first..first + width, height });
            (first, before) = (first + width, width);
        }
        Some(stages)
    }

    /// Tiles that a stage reads again, and the height of its groups. `before` is the width of the stage before it, whose last group
    /// may still be there.
    fn stage(&self, first: usize, width: usize, room: usize, before: usize) -> Option<(usize, usize)> {
        let (below, streams) = (self.tiles - first - width, if first > 0 { 2 } else { 0 });
        let spare = room.checked_sub(half(width) + streams * width + 2)?;
        let height = (spare / (width + streams)).min(below);
        if below > 0 && height == 0 {
            return None;
        }
        let groups = if below == 0 { 0 } else { below.div_ceil(height) };
        // Only after the first stage: memory of later ones is full of what they updated.
        let left = if first == before { room.saturating_sub(half(before)) } else { 0 };
        let kept = spare.saturating_sub(height * (width + streams)).min(left);
        let again = first * (width * (groups + 1) + below);
        Some((again.saturating_sub(kept), height))
    }

    /// Bytes that no order can save where panels of [`TILE`] columns are factored by the CPU: what it is given was updated on the device,
    /// so it went there and came home; and all of L but the diagonal tiles goes there. With S elements of device memory no order of the
    /// products reads less than n³ / (3 √2 √S) (Beaumont, Eyraud-Dubois, Vérité, Langou, "I/O-Optimal Algorithms for Symmetric Linear
    /// Algebra Kernels", 2022). Whichever is larger.
    pub(crate) fn lower_bound(&self, limit: u64) -> u64 {
        let (n, diagonals) = (self.size, self.size / TILE * half(TILE) + half(self.size % TILE));
        let updated = half(n.saturating_sub(TILE));
        let needed = half(n) - diagonals;
        let products = (n as f64).powi(3) / (3.0 * 2f64.sqrt() * (limit as f64 / 4.0).sqrt());
        4 * ((2 * updated + needed) as u64).max(products as u64)
    }
}

/// Elements of a triangle with its diagonal.
pub(crate) fn half(side: usize) -> usize {
    side * (side + 1) / 2
}

/// A line about the stages, for people.
pub(crate) fn shown(stages: &[Stage]) -> String {
    let stage = |stage: &Stage| match (stage.panels.len(), stage.height) {
        (panels, 0) => format!("{panels} panels"),
        (panels, rows) => format!("{panels} panels ({rows} rows below at a time)"),
    };
    let all: Vec<_> = stages.iter().map(stage).collect();
    format!("stages     in tiles of {TILE} x {TILE}: {}", all.join(", then "))
}

/// The covariance of a Gaussian process at random points of the plane, with some noise: row by row.
pub(crate) fn covariance(size: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut random = Random::new(seed);
    let points: Vec<[f32; 2]> = (0..size).map(|_| [random.unit(), random.unit()]).collect();
    (0..size * size).map(move |i| {
        let ([a, b], [c, d]) = (points[i / size], points[i % size]);
        let near = (-((a - c).powi(2) + (b - d).powi(2)) / 0.02).exp();
        near + if i / size == i % size { 0.1 } else { 0.0 }
    })
}

/// Factors a diagonal tile in place; the number of the column where it turns out not to be positive definite.
pub(crate) fn factor(tile: &mut [f32]) -> Result<(), usize> {
    let mut column = [0.0f32; TILE];
    for k in 0..TILE {
        let pivot = tile[k * TILE + k].sqrt();
        if pivot.is_nan() || pivot <= 0.0 {
            return Err(k);
        }
        tile[k * TILE + k] = pivot;
        for i in k + 1..TILE {
            tile[i * TILE + k] /= pivot;
            column[i] = tile[i * TILE + k];
            let factor = column[i];
            let row = &mut tile[i * TILE + k + 1..=i * TILE + i];
            row.iter_mut().zip(&column[k + 1..=i]).for_each(|(v, c)| *v -= factor * c);
        }
    }
    Ok(())
}

/// The transposed tile, as [`solve`] takes it.
pub(crate) fn transposed(tile: &[f32]) -> Vec<f32> {
    (0..TILE * TILE).map(|i| tile[i % TILE * TILE + i / TILE]).collect()
}

/// Rows of A become rows of L: each times the inverse of the transposed diagonal tile, `upper`.
pub(crate) fn solve(upper: &[f32], rows: &mut [f32]) {
    for row in rows.chunks_exact_mut(TILE) {
        for k in 0..TILE {
            let (done, rest) = row.split_at_mut(k + 1);
            done[k] /= upper[k * TILE + k];
            let factor = done[k];
            let right = &upper[k * TILE + k + 1..(k + 1) * TILE];
            rest.iter_mut().zip(right).for_each(|(v, u)| *v -= factor * u);
        }
    }
}

/// ‖A − L Lᵀ‖ from a few vectors x of random signs: the mean of ‖A x − L Lᵀ x‖² is its square (Frobenius). A x is added up while the
/// elements of A go by, since L takes their place.
pub(crate) struct Residual {
    signs: Vec<Vec<f64>>,
    products: Vec<Vec<f64>>,
    squares: f64,
}

impl Residual {
    pub(crate) fn new(size: usize, vectors: usize, random: &mut Random) -> Self {
        let mut sign = || if random.bits() >> 63 == 0 { 1.0 } else { -1.0 };
        let signs = (0..vectors).map(|_| (0..size).map(|_| sign()).collect()).collect();
        Self { signs, products: vec![vec![0.0; size]; vectors], squares: 0.0 }
    }

    /// An element of A on or below the diagonal.
    pub(crate) fn add(&mut self, row: usize, col: usize, value: f32) {
        let value = f64::from(value);
        self.squares += value * value * if row == col { 1.0 } else { 2.0 };
        for (product, signs) in self.products.iter_mut().zip(&self.signs) {
            product[row] += value * signs[col];
            if row != col {
                product[col] += value * signs[row];
            }
        }
    }

    /// ‖A − L Lᵀ‖ / ‖A‖.
    pub(crate) fn of(&self, triangle: &Triangle, l: &[f32]) -> f64 {
        let n = triangle.size;
        let runs = |row: usize| {
            (0..=row / TILE).map(move |panel| {
                let start = triangle.at(row, panel * TILE);
                (panel * TILE, &l[start..start + TILE.min(row + 1 - panel * TILE)])
            })
        };
        let mut sum = 0.0;
        for (signs, product) in self.signs.iter().zip(&self.products) {
            let mut across = vec![0.0; n];
            for (row, sign) in signs.iter().enumerate() {
                for (col, run) in runs(row) {
                    let to = &mut across[col..col + run.len()];
                    to.iter_mut().zip(run).for_each(|(v, l)| *v += f64::from(*l) * sign);
                }
            }
            for (row, product) in product.iter().enumerate() {
                let dot = |(col, run): (usize, &[f32])| -> f64 {
                    run.iter().zip(&across[col..]).map(|(l, v)| f64::from(*l) * v).sum()
                };
                sum += (product - runs(row).map(dot).sum::<f64>()).powi(2);
            }
        }
        (sum / self.signs.len() as f64 / self.squares).sqrt()
    }
}
