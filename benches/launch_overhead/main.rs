//! What a launch costs: vkhmm against plain Vulkan with the same kernel on the same device, pair by pair in one process; and the
//! engine alone, by how large the arguments are. `./x bench launch_overhead [-- --quick] [--json]`.
//!
//! Times are of class L or D and gate nothing in CI; there the counts do: locks, words read, submissions and barriers of a launch
//! (runtime/engine/tests/launch_counts.rs).

mod flat;
mod nothing;
mod queue;
mod raw;

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use vkhmm_bench::{Options, Report};

/// Measures launches against plain Vulkan, and the engine alone.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

fn main() -> Result<ExitCode> {
    let mut report = Report::new("launch_overhead", Cli::parse().common);
    let pairs = if report.options().quick { 200 } else { 1000 };
    report.note(format!("{pairs} pairs, interleaved."));
    queue::measure(&mut report, pairs)?;
    flat::measure(&mut report, pairs)?;
    Ok(report.finish()?)
}
