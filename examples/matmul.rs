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
use common::{Failure, Random, amount, npy};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vkhmm::{Placement, Stats};

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

/// Elements of C that are compared with the CPU.
const SAMPLE: usize = 64;

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

    let bar = progress_bar(plan.launches());
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
        (Format::Json, _) => common::print(&json(&plan, time, &moved, error))?,
        (Format::Text, None) => common::print(&report(&plan, &rt, &c.placement(), time, &moved, error))?,
        (Format::Text, Some(path)) => {
            let report = report(&plan, &rt, &c.placement(), time, &moved, error);
            common::print(&format!("{report}\nwritten    {}", path.display()))?;
        }
    }
    if error <= 1.0 {
        return Ok(());
    }
    Err(anyhow!("the product is wrong: off by {error:.1} times what f32 may be off").into())
}

/// On stderr, and hidden where that is no terminal.
fn progress_bar(launches: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} launches, {eta} left");
    let bar = ProgressBar::new(launches as u64);
    bar.enable_steady_tick(Duration::from_millis(200));
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn gflops(plan: &Plan, time: Duration) -> f64 {
    let (m, n, k) = plan.shape();
    2.0 * m as f64 * n as f64 * k as f64 / time.as_secs_f64().max(1e-9) / 1e9
}

fn report(
    plan: &Plan,
    rt: &vkhmm::Runtime,
    placement: &Placement,
    time: Duration,
    moved: &Stats,
    error: f64,
) -> String {
    let (m, n, k) = plan.shape();
    let (device, software) = common::device(rt);
    let note = if software { " (a software device: its times say little)" } else { "" };
    let (footprint, limit) = (amount(plan.footprint()), amount(rt.device_memory().0));
    let (down, across, pieces) = (plan.c.down(), plan.c.across(), plan.a.across());
    let tile = plan.c.tile(0, 0);
    let (planned_in, planned_out) = plan.planned();
    let (bytes_in, bytes_out) = (moved.in_bytes(), moved.out_bytes());
    let bound = plan.lower_bound();
    let times = (bytes_in + bytes_out) as f64 / bound.max(1) as f64;
    let lines = [
        format!("product    {m} x {k} times {k} x {n}: {footprint} of matrices, {limit} of device memory"),
        format!("device     {device}{note}"),
        format!(
            "plan       C cut {down} x {across} (tiles of {} x {}), k cut {pieces}",
            tile.rows, tile.columns
        ),
        format!("time       {:.2} s, {:.2} GFLOP/s", time.as_secs_f64(), gflops(plan, time)),
        format!("moved in   {} of {} planned", amount(bytes_in), amount(planned_in)),
        format!("moved out  {} of {} planned", amount(bytes_out), amount(planned_out)),
        format!("bound      no order moves less than {}: this is {times:.2} times that", amount(bound)),
        format!(
            "evictions  {} clean, {} dirty; {} binds of {}",
            moved.evictions_clean,
            moved.evictions_dirty,
            moved.binds,
            amount(moved.bound_bytes)
        ),
        format!("placed     {placement}"),
        format!("check      {SAMPLE} elements against the CPU in f64: {error:.4} of what f32 may be off"),
    ];
    lines.join("\n")
}

fn json(plan: &Plan, time: Duration, moved: &Stats, error: f64) -> String {
    let (m, n, k) = plan.shape();
    format!(
        "{{\"m\":{m},\"n\":{n},\"k\":{k},\"launches\":{},\"seconds\":{:.6},\"gflops\":{:.4},\"in_bytes\":{},\"out_bytes\":{},\
         \"lower_bound_bytes\":{},\"footprint_bytes\":{},\"evictions\":{},\"checked\":{SAMPLE},\"error_of_allowed\":{},\"stats\":{}}}",
        plan.launches(),
        time.as_secs_f64(),
        gflops(plan, time),
        moved.in_bytes(),
        moved.out_bytes(),
        plan.lower_bound(),
        plan.footprint(),
        moved.evictions_clean + moved.evictions_dirty,
        if error.is_finite() { format!("{error:.6}") } else { "null".into() },
        moved.to_json(),
    )
}
