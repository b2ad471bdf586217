//! The exhaustive search: the production engine on two pages and one frame, under every schedule that deviates from the steady
//! order in at most so many places.
//!
//! Delay-bounded search: the steady order is one schedule; each deviation from it costs one, and all lists of deviations up to the
//! bound are run. It is complete to the bound and needs nothing of the engine but that every lock, signal and port call goes
//! through [`vkhmm_port::Exec`]. States are counted, not used to cut the search short: what is on a thread's stack is part of a
//! state and cannot be compared.

mod blocks;
mod coverage;
mod scenario;
mod watcher;

pub use blocks::{Pure, Reached, reach};
pub use coverage::{Cell, Coverage, EVENTS, Event, HOLDS, Held, LOCATIONS};
pub use scenario::{Scenario, Shape, Step};

use crate::script::Script;
use crate::world::run_scripted;
use crate::{Deviation, Deviations, Grain, Limits, Run};
use std::collections::HashSet;
use std::sync::Arc;
use watcher::Watcher;

/// More decisions than any schedule of such a scenario takes.
const LIMITS: Limits = Limits { steps: 100_000, time_ns: 1_200_000_000_000, trace_lines: usize::MAX };

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Schedules run.
    pub schedules: u64,
    /// Most branch points that one of them had.
    pub points_max: usize,
    /// States of the blocks seen whenever a block's lock was let go.
    pub states: HashSet<u64>,
    /// Which event met which state.
    pub coverage: Coverage,
    /// The first failure, with the script that leads to it.
    pub failure: Option<(Deviations, String)>,
}

impl Found {
    /// Adds what another search found.
    pub fn merge(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.points_max = self.points_max.max(other.points_max);
        self.states.extend(other.states);
        self.coverage.merge(&other.coverage);
        if self.failure.is_none() {
            self.failure = other.failure;
        }
    }
}

/// Runs every schedule of `scenario` with at most `deviations` deviations; stops at the first failure.
pub fn search(scenario: &Scenario, grain: Grain, deviations: usize) -> Found {
    let mut found = Found::default();
    let mut path = Deviations::default();
    descend(scenario, grain, deviations, &mut path, &mut found);
    found
}

fn descend(scenario: &Scenario, grain: Grain, left: usize, path: &mut Deviations, found: &mut Found) {
    let (run, branches) = play(scenario, grain, path, false, found);
    if let Some(failure) = run.failure {
        found.failure = Some((path.clone(), failure));
        return;
    }
    if left == 0 {
        return;
    }
    let first = path.0.last().map_or(0, |last| last.point as usize + 1);
    for (point, alternatives) in branches.into_iter().enumerate().skip(first) {
        for choice in 1..=alternatives {
            path.0.push(Deviation { point: point as u32, choice });
            descend(scenario, grain, left - 1, path, found);
            path.0.pop();
            if found.failure.is_some() {
                return;
            }
        }
    }
}

/// Plays one schedule again, with its trace.
pub fn replay(scenario: &Scenario, grain: Grain, script: &Deviations) -> Run {
    play(scenario, grain, script, true, &mut Found::default()).0
}

fn play(
    scenario: &Scenario,
    grain: Grain,
    path: &Deviations,
    traced: bool,
    found: &mut Found,
) -> (Run, Vec<u8>) {
    let watcher = Arc::new(Watcher::default());
    let (play, eyes) = (scenario.clone(), Arc::clone(&watcher));
    let script = Script::new(path, grain, traced);
    let observer: Arc<Watcher> = Arc::clone(&watcher);
    let (mut run, script) =
        run_scripted(script, LIMITS, observer, move |exec| scenario::perform(exec, &play, &eyes));
    let (coverage, states, broken) = watcher.finish();
    if run.failure.is_none() {
        run.failure = broken;
    }
    found.schedules += 1;
    found.points_max = found.points_max.max(script.branches.len());
    found.coverage.merge(&coverage);
    found.states.extend(states);
    (run, script.branches)
}
