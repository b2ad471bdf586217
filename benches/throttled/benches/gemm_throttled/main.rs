//! Out-of-core GEMM behind a modelled link, in a quarter of its footprint: `cargo bench -p vkhmm-throttled --bench gemm_throttled`.
//!
//! C = A·B on n × n floats in tiles of a block. A panel of A stays on the device while windows of B pass by, so the link carries
//! 4 n² bytes of A, 16 n² of B and 4 n² of C. Kernels are time alone, by the roofline; copies, admission, eviction and faults are
//! real. The numbers are scaled down so that a run takes seconds; n is 15 · flop/s ÷ link bytes/s, as on the cards that they stand
//! for. Class L, behind the link that is named: what is compared ran on the same link, in turn.

mod explicit;
mod managed;

use anyhow::Result;
use clap::Parser;
use explicit::Explicit;
use managed::Managed;
use std::process::ExitCode;
use std::time::Duration;
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds,
};
use vkhmm_port::Device;
use vkhmm_throttled::{Cost, Link};

/// What this bench measures.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
    /// Which Vulkan device: a part of its name, or its number
    #[arg(long)]
    device: Option<String>,
    /// What the engine did in the last run, and how long its queues stood still
    #[arg(long)]
    explain: bool,
}

/// Rows of A, columns of B.
const N: u64 = 4096;
/// Rows of one tile of A, columns of one window of B: a block each.
const TILE: u64 = 128;
/// Tiles of A that stay while B passes by: a quarter of them.
const PANEL: u64 = 8;
const PANELS: u64 = N / TILE / PANEL;
const WINDOWS: u64 = N / TILE;
/// Bytes of a tile of A and of a window of B.
const STRIP: u64 = TILE * N * 4;
/// Bytes of what one tile and one window give.
const SQUARE: u64 = TILE * TILE * 4;
const MATRIX: u64 = N * N * 4;
/// A quarter of the footprint.
const LIMIT: u64 = 3 * MATRIX / 4;

/// n is 15 · flop/s ÷ bytes/s, so kernels take half as long again as copies in. That is how a card of 27.8 TFLOP/s behind PCIe 4
/// (25 GB/s) is at n = 16,700: here its link is slowed down 125 times, its kernels 509 times, and n is a quarter.
const LINK: Link = link("200 MB/s duplex, 54.6 GFLOP/s", 200e6);
/// Four times as fast, for a run of a quarter of the time; what threads need to wake up weighs four times as much.
const QUICK_LINK: Link = link("800 MB/s duplex, 218 GFLOP/s", 800e6);

const fn link(name: &'static str, bytes_per_second: f64) -> Link {
    Link {
        name,
        inward: bytes_per_second,
        outward: bytes_per_second,
        duplex: true,
        latency: Duration::from_micros(9),
        flops: N as f64 * bytes_per_second / 15.0,
        device_bytes: 640e9,
    }
}

/// One tile with one window.
const STEP: Cost =
    Cost { flop: 2.0 * TILE as f64 * TILE as f64 * N as f64, bytes: (2 * STRIP + SQUARE) as f64 };

const WARM_UP: usize = 1;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("gemm_throttled", cli.common);
    let config = vkhmm_vulkan::Config { device: cli.device, ..Default::default() };
    let link = if report.options().quick { QUICK_LINK } else { LINK };
    let mut explicit = Explicit::new(config.clone(), link)?;
    let plain = Managed::new(config.clone(), link, LIMIT)?;
    let in_core = Managed::new(config, link, 4 * LIMIT)?;
    report.note(format!(
        "{}; n = {N}, limit {} MiB of {} MiB",
        explicit.device().profile().name,
        LIMIT >> 20,
        (3 * MATRIX) >> 20
    ));
    let compute = 2.0 * (N as f64).powi(3) / link.flops;
    let bound = compute.max(20.0 * (N * N) as f64 / link.inward);
    let runs = report.options().runs();
    let [naive, good, core, demand, ahead] = rounds(runs, WARM_UP, |_| {
        Ok::<_, anyhow::Error>([
            explicit.naive()?,
            explicit.double_buffered()?,
            in_core.resident()?,
            plain.demand()?,
            plain.ahead()?,
        ])
    })?;
    let mut table = Table::new("gemm_throttled", "Out-of-core GEMM at a quarter of its footprint", Class::L);
    let lower = table.column(Column::baseline(Baseline::LowerBound, "s"));
    let columns = [
        (Column::baseline(Baseline::InCore, "s"), &core),
        (Column::baseline(Baseline::NaiveExplicit, "s"), &naive),
        (Column::baseline(Baseline::GoodExplicit, "s"), &good),
        (Column::ours("demand", "s"), &demand),
        (Column::ours("prefetch", "s"), &ahead),
    ];
    table.without(Baseline::ZeroCopy, "the modelled link has no way for kernels to reach host memory");
    let mut row = Row::named(format!("n = {N}")).with(lower, Figure::exact(bound));
    for (column, runs) in columns {
        row = row.with(table.column(column), Figure::of(&Sample::of(runs)));
    }
    table.row(row);
    report.table(table);
    for (name, runs) in [("good explicit", &good), ("demand", &demand), ("prefetch", &ahead)] {
        let ratio = Sample::of(runs).median() / bound;
        report.gate(Gate::new(format!("{name} / lower bound"), Class::L, Goal::AtMost(1.15), ratio));
    }
    let ratio = ratios(&ahead, &good).median();
    report.gate(Gate::new("prefetch / good explicit", Class::L, Goal::AtMost(1.15), ratio));
    if cli.explain {
        report.note(plain.explain());
    }
    Ok(report.finish()?)
}
