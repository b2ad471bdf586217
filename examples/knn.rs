//! Leave-one-out nearest neighbour under a limit smaller than the Gram matrix it is computed from:
//! `knn --data examples/data/digits.npy --labels examples/data/digits-labels.npy`.
//!
//! The device fills one managed n x n matrix panel by panel, the CPU reads it as a plain slice; see `common/neighbours.rs`.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::{Failure, neighbours, npy};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::PlacementKind;

/// Guesses each row's label from the row nearest to it, and counts how often that is right.
///
/// Distances are exact: what f32 on the device cannot tell apart is compared in f64, and ties go to the first row. Exit code: 0,
/// 1 for a count other than expected or a failing device, 2 for input that cannot be used.
#[derive(Parser)]
#[command(name = "knn")]
struct Options {
    #[command(flatten)]
    memory: Memory,
    /// The rows, n x d: f32, f64 or whole numbers
    #[arg(long, value_name = "F.npy")]
    data: PathBuf,
    /// Their labels, n of any type of number
    #[arg(long, value_name = "F.npy")]
    labels: PathBuf,
    /// Fails with exit code 1 unless so many rows are right
    #[arg(long, value_name = "N")]
    expect: Option<usize>,
}

fn main() -> ExitCode {
    common::exit("knn", run(&Options::parse()))
}

/// The rows and their number of columns, and the labels.
fn input(data: &Path, labels: &Path) -> anyhow::Result<(Vec<f64>, usize, Vec<u64>)> {
    let name = |path: &Path| path.display().to_string();
    let (file, labels_file) = (npy::open(data)?, npy::open(labels)?);
    let (rows, columns) = npy::rows_and_columns(file.header()).with_context(|| name(data))?;
    let shape = labels_file.header().shape();
    ensure!(shape.len() == 1, "{}: shape {shape:?}: labels have one dimension", name(labels));
    ensure!(
        shape[0] == rows as u64,
        "{} has {rows} rows and {} has {} labels: each row needs one",
        name(data),
        name(labels),
        shape[0]
    );
    let numbers = npy::numbers(file).with_context(|| name(data))?;
    let keys = npy::keys(labels_file).with_context(|| name(labels))?;
    Ok((numbers, columns, keys))
}

fn run(options: &Options) -> Result<(), Failure> {
    let (data, columns, labels) = input(&options.data, &options.labels).map_err(Failure::Input)?;
    let bytes = 4 * (data.len() + labels.len() * labels.len()) as u64;
    let (rt, start) = (options.memory.runtime(bytes)?, Instant::now());
    let answer = neighbours::leave_one_out(&rt, &data, columns, &labels)?;
    let (time, moved) = (start.elapsed().as_secs_f64(), rt.stats());
    let kind = if answer.moved { PlacementKind::Span } else { PlacementKind::InPlace };
    let lines = [
        memory::head(&rt, "the rows, and the Gram matrix", bytes),
        format!("time       {time:.2} s, {} launches; {} rows decided in f64", answer.panels, answer.close),
        memory::moved(&moved, kind, bytes, "the rows in, the Gram matrix home"),
        format!("check      {} of {} right", answer.right, answer.rows),
    ];
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    match options.expect {
        Some(count) if count != answer.right => {
            Err(anyhow!("{} of {} right, {count} expected", answer.right, answer.rows).into())
        }
        _ => Ok(()),
    }
}
