//! The graph that a command line asks for, and how much of the device its run may use.

use super::graph::Graph;
use super::{Failure, amount, size};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Duration;
use vkhmm::{Paging, Stats};

/// How large a graph of 2^scale vertices may be.
const SCALE_MAX: i64 = 28;
/// The least that a limit is set to unasked: a block of 2 MiB for each of five arrays.
const LIMIT_MIN: u64 = 10 << 20;

/// Which graph, and how much device memory for it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Source {
    /// An edge list (two vertices a line, from 0) or a MatrixMarket file; without it, a random graph
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scale", "edges_per_vertex", "seed"])]
    pub(crate) graph: Option<PathBuf>,
    /// Each edge of the file goes back, too
    #[arg(long, requires = "graph")]
    pub(crate) both_ways: bool,
    /// A random graph of 2^N vertices, as the Graph500 benchmark makes them
    #[arg(long, value_name = "N", default_value_t = 18, value_parser = clap::value_parser!(u32).range(1..=SCALE_MAX))]
    pub(crate) scale: u32,
    /// Its edges per vertex, each of which goes both ways
    #[arg(long, value_name = "K", default_value_t = 32)]
    pub(crate) edges_per_vertex: usize,
    /// The same seed, the same graph
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Most device memory to use [default: a quarter of what the arrays take]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory_limit: Option<u64>,
    /// Prints all counters, too
    #[arg(long)]
    pub(crate) stats: bool,
}

impl Source {
    /// Reads or grows the graph.
    pub(crate) fn load(&self) -> Result<Graph, Failure> {
        if let Some(path) = &self.graph {
            let graph = Graph::read(path, self.both_ways).with_context(|| path.display().to_string());
            return graph.map_err(Failure::Input);
        }
        let count = self.edges_per_vertex.saturating_mul(1 << self.scale);
        let bar = progress(count as u64, "edges");
        let graph =
            Graph::kronecker(self.scale, self.edges_per_vertex, self.seed, |n| bar.set_position(n as u64));
        bar.finish_and_clear();
        graph.context("this graph is too large").map_err(Failure::Input)
    }

    /// How much device memory to use for arrays of so many bytes together.
    pub(crate) fn limit(&self, bytes: u64) -> u64 {
        self.memory_limit.unwrap_or_else(|| (bytes / 4).next_multiple_of(1 << 16).max(LIMIT_MIN))
    }
}

/// On stderr, and hidden where that is no terminal.
pub(crate) fn progress(length: u64, what: &str) -> ProgressBar {
    let template = format!("{{elapsed_precise}} {{wide_bar}} {{pos}}/{{len}} {what} {{msg}}");
    let bar = ProgressBar::new(length);
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What all paged launches of a run did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paged {
    pub(crate) launches: u64,
    pub(crate) rounds: u64,
    pub(crate) groups: u64,
    pub(crate) group_runs: u64,
}

impl Paged {
    /// Adds a launch that is over.
    pub(crate) fn add(&mut self, launch: &vkhmm::Launch) {
        if let Some(Paging { rounds, groups, group_runs, .. }) = launch.paging() {
            self.launches += 1;
            self.rounds += rounds;
            self.groups += u64::from(groups);
            self.group_runs += group_runs;
        }
    }

    /// Lines for people: what was run, and what moved for it, against arrays of so many bytes.
    pub(crate) fn report(&self, moved: &Stats, bytes: u64) -> String {
        let all = moved.in_bytes() + moved.out_bytes();
        format!(
            "paging     {} launches in {} rounds, each group ran {:.2} times a launch\n\
             moved      {} in, {} home: {:.2} times the arrays, which are {}",
            self.launches,
            self.rounds,
            self.group_runs as f64 / self.groups.max(1) as f64,
            amount(moved.in_bytes()),
            amount(moved.out_bytes()),
            all as f64 / bytes.max(1) as f64,
            amount(bytes),
        )
    }
}
