//! Conjugate gradients on a sparse matrix larger than the device's memory: `cg`, `cg A.mtx`.
//!
//! The matrix is read-mostly and streams through, the vectors stay; the scalars are the CPU's, which reads each sum of the GPU's as an
//! element of a slice, and waits by that.

#[allow(dead_code, reason = "each example uses its part of what they share")]
pub(crate) mod common;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::sparse::{self, Sparse};
use common::{Failure, source::progress};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::kernels::{self, Csr};
use vkhmm::{Advice, Managed, Pod, Runtime};

/// Solves A x = b for a symmetric positive definite A, with b made from an x that is known.
///
/// Without a file, A is the Poisson equation in a cube, and x a sum of six of its eigenvectors: the method must end after six steps,
/// give or take what f32 loses. Exit code: 0 for the right x, 1 for a wrong one or a failing device, 2 for input that cannot be used.
#[derive(Parser)]
#[command(name = "cg")]
pub(crate) struct Options {
    #[command(flatten)]
    memory: Memory,
    /// The matrix: MatrixMarket, coordinate, real, symmetric
    #[arg(value_name = "A.mtx", conflicts_with = "side")]
    matrix: Option<PathBuf>,
    /// Points along the cube's side, if there is no file
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(20..=512))]
    side: u32,
    /// Ends where the residual is so much smaller than b
    #[arg(long, value_name = "R", default_value_t = 1e-5)]
    tolerance: f64,
    /// Most steps
    #[arg(long, value_name = "N", default_value_t = 2000)]
    steps: usize,
}

fn main() -> ExitCode {
    common::exit("cg", run(&Options::parse()).map(|_| ()))
}

/// The matrix, the x to find, and in how many steps, if that is known.
fn input(options: &Options) -> anyhow::Result<(Sparse, Vec<f64>, Option<usize>)> {
    ensure!(options.tolerance > 0.0, "--tolerance {}: a positive number", options.tolerance);
    if let Some(path) = &options.matrix {
        let name = || path.display().to_string();
        let matrix = Sparse::read(BufReader::new(File::open(path).with_context(name)?)).with_context(name)?;
        let ones = vec![1.0; matrix.rows()];
        return Ok((matrix, ones, None));
    }
    let side = options.side as usize;
    let (x, steps) = sparse::waves(side);
    Ok((Sparse::poisson(side), x, Some(steps)))
}

/// What one step needs.
struct Solver<'a> {
    rt: &'a Runtime,
    starts: Managed<u32>,
    columns: Managed<u32>,
    values: Managed<f32>,
    x: Managed<f32>,
    r: Managed<f32>,
    p: Managed<f32>,
    q: Managed<f32>,
    sum: Managed<f32>,
}

impl<'a> Solver<'a> {
    fn new(rt: &'a Runtime, a: &Sparse, b: &[f64]) -> vkhmm::Result<Self> {
        fn array<T: Pod>(rt: &Runtime, label: &str, from: &[T]) -> vkhmm::Result<Managed<T>> {
            let mut array = rt.alloc_named(from.len(), label)?;
            array.copy_from_slice(from);
            Ok(array)
        }
        let b: Vec<f32> = b.iter().map(|v| *v as f32).collect();
        let it = Self {
            rt,
            starts: array(rt, "row starts", &a.starts)?,
            columns: array(rt, "columns", &a.columns)?,
            values: array(rt, "values", &a.values)?,
            x: rt.alloc_named(b.len(), "x")?,
            r: array(rt, "residual", &b)?,
            p: array(rt, "direction", &b)?,
            q: rt.alloc_named(b.len(), "A times direction")?,
            sum: rt.alloc_named(1, "sum")?,
        };
        it.starts.advise(Advice::ReadMostly(true))?;
        it.columns.advise(Advice::ReadMostly(true))?;
        it.values.advise(Advice::ReadMostly(true))?;
        Ok(it)
    }

    /// The residual's square.
    fn square(&mut self) -> vkhmm::Result<f64> {
        kernels::dot(self.rt, self.r.read(), self.r.read(), self.sum.overwrite())?;
        Ok(f64::from(self.sum[0]))
    }

    /// One step, from the residual's square to the next one.
    fn step(&mut self, square: f64) -> vkhmm::Result<f64> {
        let (rt, rows) = (self.rt, self.x.count());
        let (row_start, columns, values) = (self.starts.read(), self.columns.read(), self.values.read());
        let a = Csr { rows, cols: rows, row_start, columns, values };
        kernels::spmv(rt, a, self.p.read(), self.q.overwrite())?;
        kernels::dot(rt, self.p.read(), self.q.read(), self.sum.overwrite())?;
        let along = (square / f64::from(self.sum[0])) as f32;
        kernels::axpy(rt, along, self.p.read(), self.x.write())?;
        kernels::axpy(rt, -along, self.q.read(), self.r.write())?;
        let next = self.square()?;
        kernels::scale(rt, (next / square) as f32, self.p.write())?;
        kernels::axpy(rt, 1.0, self.r.read(), self.p.write())?;
        Ok(next)
    }
}

/// The length of a vector.
fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|v| v * v).sum::<f64>().sqrt()
}

/// Runs the program: the bytes moved over the least.
pub(crate) fn run(options: &Options) -> Result<f64, Failure> {
    let (a, right, expected) = input(options).map_err(Failure::Input)?;
    let b = a.times(&right);
    let vector = 4 * b.len() as u64;
    let bytes = a.bytes() + 4 * vector;
    let rt = options.memory.runtime(bytes)?;
    let mut solver = Solver::new(&rt, &a, &b)?;

    let (before, clock, bar) =
        (rt.stats(), Instant::now(), progress(expected.unwrap_or(options.steps) as u64, "steps"));
    let first = solver.square()?;
    let (mut square, mut steps) = (first, 0);
    while square > first * options.tolerance.powi(2) && steps < options.steps {
        square = solver.step(square)?;
        steps += 1;
        bar.inc(1);
    }
    let x: Vec<f64> = solver.x.iter().map(|v| f64::from(*v)).collect();
    bar.finish_and_clear();
    let (time, moved) = (clock.elapsed().as_secs_f64(), rt.stats().since(&before));
    let left = norm(a.times(&x).iter().zip(&b).map(|(have, want)| have - want)) / norm(b.iter().copied());
    let off = norm(x.iter().zip(&right).map(|(have, want)| have - want)) / norm(right.iter().copied());
    // The matrix, residual and direction in, x home; then each step what the device could not keep.
    let not_kept = bytes.saturating_sub(rt.device_memory().0);
    let bound = a.bytes() + 3 * vector + not_kept * (steps as u64).saturating_sub(1);
    let must = expected.map_or("no number is known".to_owned(), |n| format!("{n} eigenvectors: {n} must do"));
    let lines = [
        memory::head(&rt, &format!("{} rows, {} elements, four vectors", a.rows(), a.values.len()), bytes),
        format!(
            "time       {time:.2} s, {:.0} million elements a second",
            (steps * a.values.len()) as f64 / time / 1e6
        ),
        memory::moved(
            &moved,
            solver.values.placement().kind,
            bound,
            "all in, x home; each further step what the device cannot keep",
        ),
        format!("steps      {steps} ({must})"),
        format!("check      ‖A x − b‖ / ‖b‖ = {left:.1e} in f64; x is off by {off:.1e}"),
    ];
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    // f32 loses a digit or two of the residual that the steps keep; x of a matrix from a file may be off by its condition more.
    let late = expected.is_some_and(|expected| steps > expected + 2);
    if left.is_nan()
        || left > 10.0 * options.tolerance.max(1e-6)
        || (expected.is_some() && off > 1e-3)
        || late
    {
        return Err(
            anyhow!("no solution after {steps} steps: residual {left:.1e}, x off by {off:.1e}").into()
        );
    }
    Ok(memory::times(&moved, bound))
}
