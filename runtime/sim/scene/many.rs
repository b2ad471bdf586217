//! Many seeds on all cores, each world on one of them.

use super::{Met, watch};
use crate::Run;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What many seeds led to.
#[derive(Debug, Default)]
pub struct Played {
    /// What was met, in how many runs.
    pub met: Met,
    /// Runs.
    pub runs: u64,
    /// Scheduling decisions of all runs.
    pub decisions: u64,
    /// The runs that failed, by seed: the first one only, unless all were asked for.
    pub failed: Vec<Run>,
    /// One past the last seed that was played.
    pub end: u64,
    /// Real time.
    pub took: Duration,
}

impl Played {
    /// Runs a second.
    pub fn rate(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64()
    }

    /// What was played, if all was well.
    ///
    /// # Panics
    /// With the end of the trace and the failure of the first run that failed.
    pub fn expect_success(mut self) -> Self {
        if !self.failed.is_empty() {
            self.failed.swap_remove(0).expect_success();
        }
        self
    }
}

/// Plays `seeds` until all are played, `time` is over, or, unless `all`, one has failed; then every seed before it was played, too.
pub fn play_many(seeds: Range<u64>, time: Option<Duration>, all: bool) -> Played {
    let start = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let limit = AtomicU64::new(seeds.end);
    // Lock: owns the sum · held for an addition.
    let sum = Mutex::new(Played::default());
    let work = || {
        while time.is_none_or(|time| start.elapsed() < time) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= limit.load(Ordering::Relaxed) {
                return;
            }
            let (run, met) = watch(seed);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.met.add_run(&met);
            sum.runs += 1;
            sum.decisions += run.steps;
            sum.end = sum.end.max(seed + 1);
            if run.failure.is_some() {
                sum.failed.push(run);
                if !all {
                    limit.fetch_min(seed, Ordering::Relaxed);
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut played = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    played.failed.sort_by_key(|run| run.seed);
    played.took = start.elapsed();
    played
}
