//! A matrix product larger than the device: `matmul A.npy B.npy -o C.npy --memory-limit 64MiB`.
//!
//! Each matrix lives in one managed allocation, tile by tile, because a launch names contiguous slices and a tile of a row-major
//! matrix is none; see `common/blocked.rs` for the choice of tiles, their order, and the bytes that no order can save. A tile of C
//! stays on the device until it is done; tiles of A and B stream through, the next ones while the kernel runs. No transfer is
//! written anywhere: the program launches kernels on slices, and reads C.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::{Context, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use common::blocked::{LIMIT_MIN, Plan};
use common::product::{self, SAMPLE};
use common::{Failure, Random, amount, npy};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Multiplies matrices that are larger than the device's memory.
///
/// A and B are two-dimensional f32 arrays in row-major order, as numpy.save writes them. Random elements of the product are
/// compared with the CPU's. Exit code: 0 for a checked product, 1 for a wrong one or a failing device, 2 for input that cannot be
/// used.
#[derive(Parser)]
#[command(
    name = "matmul",
    args_conflicts_with_subcommands = true,
    override_usage = "matmul <A.npy> <B.npy> [-o <C.npy>] [OPTIONS]\n       matmul --random <M> <K> <N> [OPTIONS]\n       \
                      matmul generate <ROWS> <COLUMNS> <OUT.npy>"
)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    multiply: Multiply,
}

#[derive(clap::Args)]
struct Multiply {
    /// The left matrix, m x k
    #[arg(value_name = "A.npy", required_unless_present = "random", conflicts_with = "random")]
    a: Option<PathBuf>,
    /// The right matrix, k x n
    #[arg(value_name = "B.npy", required_unless_present = "random", conflicts_with = "random")]
    b: Option<PathBuf>,
    /// Where to write the product; without it, the product is checked and dropped
    #[arg(short, long, value_name = "C.npy")]
    output: Option<PathBuf>,
    /// Most device memory to use
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = common::size)]
    memory_limit: u64,
    /// What to print on stdout
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    stats: Format,
    /// Multiplies random matrices, m x k and k x n, instead of files
    #[arg(long, num_args = 3, value_names = ["M", "K", "N"])]
    random: Option<Vec<usize>>,
    /// Seed of the random matrices, and of the choice of elements to check
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a matrix of random elements between -1 and 1
    Generate {
        /// Its rows
        rows: usize,
        /// Its columns
        columns: usize,
        /// Where to write it
        #[arg(value_name = "OUT.npy")]
        output: PathBuf,
        /// The same seed writes the same matrix
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A few lines for people
    Text,
    /// One JSON object with every counter
    Json,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.command {
        Some(Command::Generate { rows, columns, output, seed }) => generate(rows, columns, &output, seed),
        None => multiply(&options.multiply),
    };
    common::exit("matmul", result)
}

fn generate(rows: usize, columns: usize, output: &std::path::Path, seed: u64) -> Result<(), Failure> {
    let count = count(rows, columns).map_err(Failure::Input)?;
    let mut random = Random::new(seed);
    let target = npy::Target::create(output).map_err(Failure::Input)?;
    Ok(target.write(rows, columns, (0..count).map(|_| random.unit()))?)
}

/// Elements of a matrix that this machine can count the bytes of.
fn count(rows: usize, columns: usize) -> anyhow::Result<usize> {
    let count = rows.checked_mul(columns).filter(|count| *count <= isize::MAX as usize / 64);
    count.with_context(|| format!("{rows} x {columns} elements are too many for any machine"))
}

/// m, k, n and the elements of A and B.
fn input(options: &Multiply) -> anyhow::Result<([usize; 3], npy::Elements, npy::Elements)> {
    let random = |seed| {
        let mut random = Random::new(seed);
        Box::new(std::iter::repeat_with(move || Ok(random.unit()))) as npy::Elements
    };
    let ([m, k, n], a, b) = match (&options.random, &options.a, &options.b) {
        (Some(sizes), ..) => {
            let sizes = <[usize; 3]>::try_from(sizes.as_slice()).context("--random takes M, K and N")?;
            (sizes, random(options.seed), random(!options.seed))
        }
        (None, Some(path_a), Some(path_b)) => {
            let (((m, k), a), ((k_b, n), b)) = (npy::matrix(path_a)?, npy::matrix(path_b)?);
            ensure!(k == k_b, "A is {m} x {k} and B is {k_b} x {n}: A needs as many columns as B has rows");
            ([m, k, n], a, b)
        }
        _ => return Err(anyhow!("two matrices are needed")),
    };
    for (rows, columns) in [(m, k), (k, n), (m, n)] {
        count(rows, columns)?;
    }
    Ok(([m, k, n], a, b))
}

fn multiply(options: &Multiply) -> Result<(), Failure> {
    let ([m, k, n], elements_a, elements_b) = input(options).map_err(Failure::Input)?;
    let limit = options.memory_limit;
    let plan = Plan::new(m, n, k, limit);
    let least = || format!("a memory limit of {} is too small, {} will do", amount(limit), amount(LIMIT_MIN));
    let plan = plan.with_context(least).map_err(Failure::Input)?;
    let target = options.output.as_deref().map(npy::Target::create).transpose().map_err(Failure::Input)?;
    let rt = common::runtime(limit)?;
    let mut a = rt.alloc_named::<f32>(plan.a.len(), "A")?;
    let mut b = rt.alloc_named::<f32>(plan.b.len(), "B")?;
    let mut c = rt.alloc_named::<f32>(plan.c.len(), "C")?;
    plan.a.fill(&mut a, elements_a).context("reading A").map_err(Failure::Input)?;
    plan.b.fill(&mut b, elements_b).context("reading B").map_err(Failure::Input)?;

    let bar = product::progress_bar(plan.launches());
    let (before, start) = (rt.stats(), Instant::now());
    plan.run(&rt, (&a, &b), &mut c, |over| bar.set_position(over as u64))?;
    let time = start.elapsed();
    bar.finish_and_clear();
    let error = {
        let c = c.host()?;
        if let Some(target) = target {
            target.write(m, n, plan.c.iter(&c))?;
        }
        plan.check((&a, &b, &c), SAMPLE, &mut Random::new(options.seed))
    };
    let moved = rt.stats().since(&before);
    match (options.stats, &options.output) {
        (Format::Json, _) => common::print(&product::json(&plan, time, &moved, error))?,
        (Format::Text, None) => {
            common::print(&product::report(&plan, &rt, &c.placement(), time, &moved, error))?
        }
        (Format::Text, Some(path)) => {
            let report = product::report(&plan, &rt, &c.placement(), time, &moved, error);
            common::print(&format!("{report}\nwritten    {}", path.display()))?;
        }
    }
    if error <= 1.0 {
        return Ok(());
    }
    Err(anyhow!("the product is wrong: off by {error:.1} times what f32 may be off").into())
}
