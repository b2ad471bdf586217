//! PageRank of a graph four times larger than the device's memory: `pagerank`, `pagerank --graph FILE`.
//!
//! The arrays are passed whole. Which ranks a vertex needs only the edges say, which are on the device: so no launch could name what
//! it will touch. The kernel finds out, and that moves: see `docs/PAGING.md`. Between two steps the CPU reads the ranks, as a slice.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::anyhow;
use clap::Parser;
use common::graph::Graph;
use common::source::{Paged, Source, progress};
use common::{Failure, amount};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vkhmm::{Grid, Managed, Runtime, Stats};

/// The vertices of a graph by rank: how likely somebody is there who follows edges, and now and then starts anew anywhere.
///
/// The ranks are compared with the CPU's in f64. Exit code: 0 for right ranks, 1 for wrong ones or a failing device, 2 for input that
/// cannot be used.
#[derive(Parser)]
#[command(name = "pagerank")]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// How many steps
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: usize,
    /// How likely one more edge is followed
    #[arg(long, value_name = "P", default_value_t = 0.85)]
    damping: f64,
    /// How many of the first to print
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
}

/// Most that a rank may be off, in ranks: sums of many terms in f32.
const ALLOWED: f64 = 1e-3;

fn main() -> ExitCode {
    common::exit("pagerank", run(&Options::parse()))
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&options.damping) {
        return Err(Failure::Input(anyhow!("--damping {}: a probability, from 0 to 1", options.damping)));
    }
    let graph = options.source.load()?;
    // Edges, and per vertex an offset, its rank, two shares and its degree.
    let bytes = 4 * (graph.edges() + 5 * graph.vertices() + 1) as u64;
    let rt = common::runtime(options.source.limit(bytes))?;
    let found = rank(&rt, &graph, options)?;
    common::print(&report(&rt, &graph, options, &found, bytes))?;
    if options.source.stats {
        common::print(&rt.stats().to_string())?;
    }
    let right = graph.ranks(options.damping, options.steps);
    let off = found.ranks.iter().zip(&right).map(|(have, want)| (f64::from(*have) - want).abs() / want);
    let off = off.fold(0.0, |most: f64, off| if off.is_nan() { f64::INFINITY } else { most.max(off) });
    if off > ALLOWED {
        return Err(anyhow!("a rank is off by {off:.1e} of itself, {ALLOWED:.0e} is allowed").into());
    }
    common::print(&format!("check      no rank is off the CPU's by more than {off:.1e} of itself"))
}

/// The ranks, and what they cost.
struct Found {
    ranks: Managed<f32>,
    paged: Paged,
    moved: Stats,
    time: Duration,
}

fn rank(rt: &Runtime, graph: &Graph, options: &Options) -> Result<Found, Failure> {
    // SAFETY: paged_pagerank.comp ends, stays inside its ranges, and stores nothing before an item's last try.
    let step = unsafe { rt.kernel_paged(include_bytes!("../shaders/spv/paged_pagerank.spv"))? };
    let (vertices, edges) = (graph.vertices(), graph.edges());
    let mut ranks = rt.alloc_named::<f32>(vertices, "ranks")?;
    // What each vertex gives along each of its edges, before a step and behind it.
    let mut shares = rt.alloc_named::<f32>(vertices, "shares")?;
    let mut next = rt.alloc_named::<f32>(vertices, "next shares")?;
    let mut offsets = rt.alloc_named::<u32>(vertices + 1, "offsets")?;
    let mut sources = rt.alloc_named::<u32>(edges.max(1), "sources")?;
    let mut degrees = rt.alloc_named::<u32>(vertices, "degrees")?;
    // By the edges that lead to a vertex.
    let givers = graph.transposed();
    offsets.copy_from_slice(&givers.offsets);
    sources[..edges].copy_from_slice(&givers.targets);
    let first = 1.0 / vertices as f32;
    ranks.fill(first);
    for v in 0..vertices {
        degrees[v] = graph.targets_of(v).len() as u32;
        shares[v] = if degrees[v] == 0 { 0.0 } else { first / degrees[v] as f32 };
    }

    let (before, start, mut paged) = (rt.stats(), Instant::now(), Paged::default());
    let bar = progress(options.steps as u64, "steps");
    for _ in 0..options.steps {
        // Vertices without edges give to all alike. These are plain loads, which bring home what they touch.
        let loose = ranks.iter().zip(&*degrees).filter(|(_, degree)| **degree == 0);
        let loose: f64 = loose.map(|(rank, _)| f64::from(*rank)).sum();
        let base = (1.0 - options.damping + options.damping * loose) / vertices as f64;
        let launch = rt.launch_paged(
            &step,
            Grid::linear(vertices),
            (
                ranks.overwrite(),
                next.overwrite(),
                offsets.read(),
                sources.read(),
                shares.read(),
                degrees.read(),
                vertices as u32,
                base as f32,
                options.damping as f32,
            ),
        )?;
        launch.wait()?;
        std::mem::swap(&mut shares, &mut next);
        paged.add(&launch);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let time = start.elapsed();
    // Home with all of them, before it is counted what moved.
    drop(ranks.host()?);
    Ok(Found { ranks, paged, moved: rt.stats().since(&before), time })
}

fn report(rt: &Runtime, graph: &Graph, options: &Options, found: &Found, bytes: u64) -> String {
    let (device, software) = common::device(rt);
    let note = if software { " (a software device: its times say little)" } else { "" };
    let seconds = found.time.as_secs_f64().max(1e-9);
    let traversed = options.steps * graph.edges();
    let mut lines = vec![
        format!(
            "graph      {} vertices, {} edges; {} of arrays, {} of device memory",
            graph.vertices(),
            graph.edges(),
            amount(bytes),
            amount(rt.device_memory().0)
        ),
        format!("device     {device}{note}"),
        format!(
            "time       {seconds:.3} s for {} steps, {:.2} million edges a second",
            options.steps,
            traversed as f64 / seconds / 1e6
        ),
        found.paged.report(&found.moved, bytes),
        "ranks      vertex        rank".into(),
    ];
    let mut order: Vec<usize> = (0..graph.vertices()).collect();
    order.sort_by(|a, b| found.ranks[*b].total_cmp(&found.ranks[*a]));
    let first = order.iter().take(options.top);
    lines.extend(first.map(|v| format!("           {v:>6}  {:.4e}", found.ranks[*v])));
    lines.join("\n")
}
