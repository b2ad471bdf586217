//! Breadth-first search in a graph four times larger than the device's memory: `bfs`, `bfs --graph FILE`.
//!
//! The graph is passed whole, level by level; which vertices have edges to look at only the levels say, which are on the device. So no
//! launch could name what it will touch. The kernel finds out, and that moves: see `docs/PAGING.md`.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::anyhow;
use clap::Parser;
use common::graph::{Graph, UNREACHED};
use common::source::{Paged, Source, progress};
use common::{Failure, amount};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use vkhmm::{Grid, Managed, Runtime, Stats};

/// How many edges each vertex of a graph is away from one of them.
///
/// The levels are compared with the CPU's. Exit code: 0 for right levels, 1 for wrong ones or a failing device, 2 for input that cannot
/// be used.
#[derive(Parser)]
#[command(name = "bfs")]
pub(crate) struct Options {
    #[command(flatten)]
    source: Source,
    /// The vertex to start from [default: the one with the most edges]
    #[arg(long, value_name = "V")]
    root: Option<usize>,
}

fn main() -> ExitCode {
    common::exit("bfs", run(&Options::parse()))
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let graph = options.source.load()?;
    let root = options.root.unwrap_or_else(|| graph.hub());
    if root >= graph.vertices() {
        let vertices = graph.vertices();
        return Err(Failure::Input(anyhow!(
            "--root {root}: vertices are numbered from 0 to {}",
            vertices - 1
        )));
    }
    let bytes = 4 * (graph.offsets.len() + graph.targets.len() + graph.vertices()) as u64;
    let rt = common::runtime(options.source.limit(bytes))?;
    let search = search(&rt, &graph, root)?;
    common::print(&report(&rt, &graph, root, &search, bytes))?;
    if options.source.stats {
        common::print(&rt.stats().to_string())?;
    }
    let right = graph.levels(root);
    let wrong = search.levels.iter().zip(&right).position(|(have, want)| have != want);
    match wrong {
        None => common::print("check      all levels are those of the CPU"),
        Some(v) => Err(anyhow!("vertex {v} is at level {}, not {}", search.levels[v], right[v]).into()),
    }
}

/// What a search found, and what it cost.
struct Search {
    levels: Managed<u32>,
    paged: Paged,
    moved: Stats,
    time: Duration,
}

/// Levels of all vertices: each launch looks at the edges of one level's vertices.
fn search(rt: &Runtime, graph: &Graph, root: usize) -> Result<Search, Failure> {
    // SAFETY: paged_bfs_csr.comp ends, stays inside its ranges, and what it stores before its last try it may store again.
    let bfs = unsafe { rt.kernel_paged(include_bytes!("../shaders/spv/paged_bfs_csr.spv"))? };
    let vertices = graph.vertices();
    let mut offsets = rt.alloc_named::<u32>(graph.offsets.len(), "offsets")?;
    let mut targets = rt.alloc_named::<u32>(graph.edges().max(1), "targets")?;
    let mut levels = rt.alloc_named::<u32>(vertices, "levels")?;
    let mut found = rt.alloc_named::<u32>(1, "found")?;
    offsets.copy_from_slice(&graph.offsets);
    targets[..graph.edges()].copy_from_slice(&graph.targets);
    levels.fill(UNREACHED);
    levels[root] = 0;

    let (before, start, mut paged) = (rt.stats(), Instant::now(), Paged::default());
    let bar = progress(vertices as u64, "vertices");
    for level in 0_u32.. {
        found[0] = 0;
        let arguments =
            (levels.write(), offsets.read(), targets.read(), found.write(), vertices as u32, level);
        let launch = rt.launch_paged(&bfs, Grid::linear(vertices), arguments)?;
        launch.wait()?;
        paged.add(&launch);
        // A plain load: it waits for nothing, since the launch is over, and brings one page home.
        if found[0] == 0 {
            break;
        }
        bar.inc(u64::from(found[0]));
    }
    bar.finish_and_clear();
    let time = start.elapsed();
    // Home with all of them, before it is counted what moved.
    drop(levels.host()?);
    Ok(Search { levels, paged, moved: rt.stats().since(&before), time })
}

fn report(rt: &Runtime, graph: &Graph, root: usize, search: &Search, bytes: u64) -> String {
    let (device, software) = common::device(rt);
    let note = if software { " (a software device: its times say little)" } else { "" };
    let reached = |v: &usize| search.levels[*v] != UNREACHED;
    let traversed: usize = (0..graph.vertices()).filter(reached).map(|v| graph.targets_of(v).len()).sum();
    let seconds = search.time.as_secs_f64().max(1e-9);
    let depth = search.levels.iter().filter(|level| **level != UNREACHED).max().copied().unwrap_or(0);
    let mut lines = vec![
        format!(
            "graph      {} vertices, {} edges; {} of arrays, {} of device memory",
            graph.vertices(),
            graph.edges(),
            amount(bytes),
            amount(rt.device_memory().0)
        ),
        format!("device     {device}{note}"),
        format!("time       {seconds:.3} s, {:.2} million edges a second", traversed as f64 / seconds / 1e6),
        search.paged.report(&search.moved, bytes),
        format!("levels     from vertex {root}, {traversed} edges traversed"),
    ];
    let at = |level: u32| search.levels.iter().filter(|have| **have == level).count();
    lines.extend((0..=depth).map(|level| format!("           {level:>5} {:>10}", at(level))));
    lines.push(format!("           never {:>10}", at(UNREACHED)));
    lines.join("\n")
}
