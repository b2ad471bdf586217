//! A = L Lᵀ for a matrix larger than the device's memory: `cholesky`, `cholesky A.npy -o L.npy`.
//!
//! CPU and GPU work on one matrix, in place and in turn: the CPU factors a panel of 128 columns where it lies, as a plain slice; the
//! GPU subtracts its products from the panels to its right. Each step what one of them wrote is what the other reads, and nothing here
//! says so: no transfer, no fence, no copy. See `common/triangle.rs` for the order, and the bytes that none can save.

#[allow(dead_code, reason = "each example uses its part of what they share")]
pub(crate) mod common;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::triangle::{self, Piece, Residual, Stage, TILE, TILE_BYTES, Triangle};
use common::{Failure, Random, amount, npy, source::progress};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::kernels::{self, Mat};
use vkhmm::{Advice, PlacementKind, Runtime, Side};

/// The Cholesky factor of a symmetric positive definite matrix.
///
/// Only the matrix's lower triangle is looked at, and becomes L. Without a file it is the covariance of a Gaussian process at random
/// points of the plane. L is checked against the matrix. Exit code: 0 for a right factor, 1 for a wrong one, a failing device, or more
/// than 1.2 times the least moved at a quarter of the matrix (of 2048 rows or more, in whole tiles), 2 for input that cannot be used.
#[derive(Parser)]
#[command(name = "cholesky")]
pub(crate) struct Options {
    #[command(flatten)]
    memory: Memory,
    /// The matrix, n x n of f32
    #[arg(value_name = "A.npy", conflicts_with = "size")]
    matrix: Option<PathBuf>,
    /// Rows of the matrix, if there is no file
    #[arg(long, value_name = "N", default_value_t = 3072, value_parser = clap::value_parser!(u32).range(1..=65536))]
    size: u32,
    /// The same seed, the same matrix
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Where to write L, with zeros above the diagonal
    #[arg(short, long, value_name = "L.npy")]
    output: Option<PathBuf>,
}

/// Most that the bytes moved may be over the least, where the device has a quarter of the matrix's bytes, and tiles are whole and many.
const TIMES_MAX: f64 = 1.2;
/// Sixteenths of the device's memory that the order counts on: the rest is for holes between allocations.
const ROOM: u64 = 14;
/// Vectors that L is checked with.
const VECTORS: usize = 4;

fn main() -> ExitCode {
    common::exit("cholesky", run(&Options::parse()).map(|_| ()))
}

/// Rows, and the elements of the matrix in row-major order.
fn input(options: &Options) -> anyhow::Result<(usize, npy::Elements)> {
    if let Some(path) = &options.matrix {
        let ((rows, columns), elements) = npy::matrix(path)?;
        let square = rows == columns && rows > 0;
        ensure!(square, "{}: {rows} x {columns}: a square matrix is needed", path.display());
        return Ok((rows, elements));
    }
    let n = options.size as usize;
    Ok((n, Box::new(triangle::covariance(n, options.seed).map(Ok))))
}

/// The matrix by panels, of which more and more is L.
struct Cholesky<'a> {
    rt: &'a Runtime,
    panels: Vec<Vec<Piece>>,
}

impl Cholesky<'_> {
    /// The GPU: subtracts from tile rows of panel `to` what panel `from`, which is L, says.
    fn update(&mut self, from: usize, to: usize, rows: &Range<usize>) -> Result<(), Failure> {
        let (before, after) = self.panels.split_at_mut(to);
        let holds = |row: usize| move |piece: &&Piece| piece.rows.contains(&row);
        let first = rows.start.max(to);
        let target = after[0].iter_mut().find(|piece| piece.rows.contains(&first)).context("no such rows")?;
        let across = before[from].iter().find(holds(to)).context("no such row")?;
        for source in &before[from] {
            let part = first.max(source.rows.start)..rows.end.min(source.rows.end);
            if part.is_empty() {
                continue;
            }
            let (height, at) = (part.len() * TILE, target.at(&part));
            let (l, across) =
                (source.values.slice(source.at(&part)), across.values.slice(across.at(&(to..to + 1))));
            let (l, across) = (Mat::new(l.read(), height, TILE), Mat::new(across.read(), TILE, TILE));
            let mut c = target.values.slice_mut(at);
            kernels::gemm(self.rt, -1.0, l, across.t(), 1.0, Mat::new(c.write(), height, TILE))?;
        }
        Ok(())
    }

    /// The CPU: factors tile rows of a panel, in place.
    fn panel(&mut self, panel: usize, rows: &Range<usize>) -> Result<(), Failure> {
        let (top, below) = self.panels[panel].split_at_mut(1);
        let (mut diagonal, mut rest) = top[0].values.split_at_mut(TILE * TILE)?;
        if rows.contains(&panel) {
            triangle::factor(&mut diagonal).map_err(|column| {
                let row = panel * TILE + column;
                Failure::Input(anyhow!("the matrix is not positive definite: L has no row {row}"))
            })?;
            triangle::solve(&triangle::transposed(&diagonal), &mut rest);
        } else if let Some(piece) = below.iter_mut().find(|piece| piece.rows == *rows) {
            triangle::solve(&triangle::transposed(&diagonal), &mut piece.values);
        }
        Ok(())
    }

    /// One stage, group by group.
    fn stage(&mut self, stage: &Stage, progress: impl Fn(usize)) -> Result<(), Failure> {
        let panels = &stage.panels;
        for rows in stage.groups(self.panels.len()) {
            // What came last may still be there.
            for from in (0..panels.start).rev() {
                for to in panels.clone() {
                    self.update(from, to, &rows)?;
                }
            }
            for from in panels.clone() {
                self.panel(from, &rows)?;
                for to in from + 1..panels.end {
                    self.update(from, to, &rows)?;
                }
                progress(rows.end - from.max(rows.start));
            }
        }
        // The triangle is not needed on the device again.
        for panel in panels.clone() {
            self.panels[panel][0].values.advise(Advice::PreferredLocation(Some(Side::Host)))?;
        }
        Ok(())
    }
}

/// Runs the program: the bytes moved over the least.
pub(crate) fn run(options: &Options) -> Result<f64, Failure> {
    let (n, elements) = input(options).map_err(Failure::Input)?;
    let (at, bytes) = (Triangle::new(n), 4 * (n * n) as u64);
    let target = options.output.as_deref().map(npy::Target::create).transpose().map_err(Failure::Input)?;
    let rt = options.memory.runtime(bytes)?;
    let limit = rt.device_memory().0;
    let room = (limit / TILE_BYTES * ROOM / 16) as usize;
    let least = || format!("a memory limit of {} is too small for tiles of 64 KiB", amount(limit));
    let stages = at.plan(room).with_context(least).map_err(Failure::Input)?;
    let mut residual = Residual::new(n, VECTORS, &mut Random::new(!options.seed));
    let mut a = vec![0.0; at.len()];
    for (i, value) in elements.enumerate().filter(|(i, _)| i % n <= i / n) {
        a[at.at(i / n, i % n)] = value?;
        residual.add(i / n, i % n, a[at.at(i / n, i % n)]);
    }
    (n..at.tiles * TILE).for_each(|i| a[at.at(i, i)] = 1.0);
    let mut it = Cholesky { rt: &rt, panels: Vec::new() };
    for (stage, panel) in stages.iter().flat_map(|stage| stage.panels.clone().map(move |at| (stage, at))) {
        it.panels.push(at.pieces(&rt, stage, panel, &a)?);
    }
    let bar = progress(triangle::half(at.tiles) as u64, "tiles");
    let (before, clock) = (rt.stats(), Instant::now());
    for stage in &stages {
        it.stage(stage, |tiles| bar.inc(tiles as u64))?;
    }
    let mut l = Vec::with_capacity(at.len());
    it.panels.iter().flatten().for_each(|piece| l.extend_from_slice(&piece.values));
    bar.finish_and_clear();
    let (time, moved) = (clock.elapsed().as_secs_f64(), rt.stats().since(&before));
    let (error, bound) = (residual.of(&at, &l), at.lower_bound(limit));
    let allowed = 4.0 * (n as f64).sqrt() * f64::from(f32::EPSILON);
    let lines = [
        memory::head(&rt, &format!("{n} x {n}, of which the lower half is used"), bytes),
        format!("time       {time:.2} s, {:.1} GFLOP/s", (n as f64).powi(3) / 3.0 / time / 1e9),
        triangle::shown(&stages),
        memory::moved(
            &moved,
            it.panels[0][0].values.placement().kind,
            bound,
            "the lower half in, home to the CPU's panels, and in again as L; or n³ / (3 √2 √S)",
        ),
        format!("check      ‖A − L Lᵀ‖ / ‖A‖ = {error:.1e}, {allowed:.1e} is allowed"),
    ];
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    if let Some(target) = target {
        target.write(n, n, (0..n * n).map(|i| if i % n <= i / n { l[at.at(i / n, i % n)] } else { 0.0 }))?;
    }
    let times = memory::times(&moved, bound);
    let gated = it.panels[0][0].values.placement().kind != PlacementKind::InPlace
        && limit >= bytes / 4
        && (n % TILE == 0 && at.tiles >= 16);
    if error.is_nan() || error > allowed {
        return Err(anyhow!("L is wrong: {error:.1e} of A is missing").into());
    } else if gated && times > TIMES_MAX {
        return Err(anyhow!("{times:.2} times the least was moved, {TIMES_MAX} times is allowed").into());
    }
    Ok(times)
}
