//! The workloads of the paging bench, each right at one, two and four times the device's memory, bit by bit against the CPU, with the
//! validation layer on. On every driver: see tests/drivers.sh.
//!
//! All of them are exact: numbers are small and whole, so that floats come out the same in every order of summation.

mod common;
#[allow(dead_code, reason = "of what the examples share, only graphs and numbers are used here")]
#[path = "../examples/common/mod.rs"]
mod examples;
#[path = "../benches/paging/matrices.rs"]
mod matrices;
#[allow(dead_code, reason = "the bench takes its runtimes from there")]
#[path = "../benches/paging/play.rs"]
mod play;
#[allow(dead_code, reason = "which are affine is the bench's")]
#[path = "../benches/paging/recipes.rs"]
mod recipes;
#[path = "../benches/paging/work.rs"]
mod work;

use common::{clean, moves, moving, open, watchdog};
use examples::graph::Graph;
use play::{Player, limit};
use recipes::Recipe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Data of each, about.
const BYTES: usize = 48 << 20;

/// Data, in device memories: all sizes, or the one that VKHMM_WORKLOADS_AT names, on drivers that take their time.
fn parts() -> Vec<u64> {
    match common::setting("VKHMM_WORKLOADS_AT", 0) {
        0 => vec![1, 2, 4],
        part => vec![part],
    }
}

fn right(recipe: &Recipe, graph: &Graph) {
    let work = (recipe.make)(BYTES, graph);
    for part in parts() {
        let begun = Instant::now();
        let rt = open(moving().device_memory_limit(limit(&work, part).next_multiple_of(1 << 16)));
        let mut player = Player::new(&work, rt).expect("memory");
        let counts = player.play().unwrap_or_else(|error| panic!("{}, {part}x: {error:#}", work.name));
        println!("{}, {part}x: {counts:?}, {:.1?}", work.name, begun.elapsed());
        let moved = moves(&player.arrays[0]);
        assert!(!moved || counts.bytes >= work.needed(), "{}, {part}x: {counts:?}", work.name);
        clean(&player.rt);
    }
}

#[test]
fn every_workload_is_right_at_every_size() {
    let _dog = watchdog("workloads", 300);
    let (graph, next) = (matrices::graph(BYTES), AtomicUsize::new(0));
    // Two at a time: each waits a good part of its time. The long ones are last in the list.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(recipe) = recipes::ALL.iter().rev().nth(next.fetch_add(1, Ordering::Relaxed)) {
                    right(recipe, &graph);
                }
            });
        }
    });
}
