//! The production engine in the simulated world, under random programs and trouble: a fixed set of seeds that must meet
//! everything, fresh ones for a while, a world that goes on for long, and the command line.

use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vkhmm_sim::scene::{Met, play, play_long, play_many};

/// What a set of a thousand seeds must have met at least once; the rarest of it comes several times.
const WANTED: [&str; 86] = [
    "ended early: too large",
    "error: acquired",
    "error: busy",
    "error: device lost",
    "error: device refused",
    "error: guarded",
    "error: host refused",
    "error: lost",
    "error: no pagemap",
    "error: out of host memory",
    "error: too large",
    "event: acquire",
    "event: acquire cancelled",
    "event: bind",
    "event: block of a paged launch that became remote",
    "event: bytes read by the CPU",
    "event: bytes through imports",
    "event: bytes through staging",
    "event: device bytes read in the touching thread",
    "event: eviction",
    "event: eviction of dirty pages",
    "event: import refused",
    "event: launch in place",
    "event: launch that waited",
    "event: loss",
    "event: lost page",
    "event: move inside the device",
    "event: miss of a paged launch",
    "event: paged launch",
    "event: parked touch",
    "event: resident launch",
    "event: round of a paged launch",
    "event: stray touch",
    "event: thrash",
    "event: touch answered in its thread",
    "event: unbind",
    "event: zeros made on the device",
    "failed: buffer",
    "failed: grow",
    "failed: import",
    "failed: in_place",
    "failed: poison",
    "failed: populate",
    "failed: protect",
    "failed: publish read-only",
    "failed: publish read-write",
    "failed: punch",
    "failed: reserve",
    "failed: revoke",
    "failed: submit",
    "faults: Declared",
    "faults: Full",
    "faults: UserOnly",
    "memory: DeviceBar",
    "memory: DeviceCoherent",
    "memory: DevicePrivate",
    "memory: UnifiedMemory",
    "queues: 1",
    "queues: 3",
    "queues: the application's too",
    "shown by: block",
    "shown by: page",
    "step: acquire",
    "step: advise",
    "step: batch",
    "step: bring home",
    "step: discard",
    "step: free and allocate",
    "step: guard",
    "step: launch",
    "step: paged launch",
    "step: pin",
    "step: prefetch to the device",
    "step: set the limit",
    "step: tear down",
    "step: transfer",
    "step: trim",
    "step: windows",
    "trouble: DeviceCall",
    "trouble: DoubledFaults",
    "trouble: HostCall",
    "trouble: LateFaults",
    "trouble: Loss",
    "trouble: SpuriousFaults",
    "trouble: Stalls",
    "trouble: Zaps",
];

fn missing(met: &Met) -> Vec<&'static str> {
    WANTED.into_iter().filter(|what| met.count(what) == 0).collect()
}

#[test]
fn a_thousand_seeds_are_clean_and_meet_everything() {
    let played = play_many(0..1_000, None, false).expect_success();
    assert_eq!(missing(&played.met), [""; 0], "not met in {} runs", played.runs);
    let some = play_many(0..1, None, false);
    assert!(!missing(&some.met).is_empty(), "one run cannot meet it all: the names are not compared");
    println!("{} decisions, {:.0} runs/s\n{}", played.decisions, played.rate(), played.met);
}

#[test]
fn fresh_seeds_are_clean_for_a_while() {
    let seconds =
        std::env::var("VKHMM_SIM_SECONDS").map_or(20.0, |s| s.parse().expect("a number of seconds"));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let first = (clock.as_nanos() as u64) >> 20;
    let played = play_many(first..u64::MAX, Some(Duration::from_secs_f64(seconds)), false);
    println!("seeds {first}..{}: {} runs, {:.0} runs/s", played.end, played.runs, played.rate());
    played.expect_success();
}

#[test]
fn a_million_decisions_in_one_world_are_clean() {
    let (run, met) = play_long(7, 1_000_000);
    assert!(run.steps >= 1_000_000 || run.failure.is_some(), "{} decisions", run.steps);
    println!("{} decisions, {:.1} s of virtual time\n{met}", run.steps, run.time_ns as f64 / 1e9);
    run.expect_success();
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let (first, second) = (play(seed), play(seed));
        for (a, b) in first.trace.iter().zip(&second.trace) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert_ne!(first.trace.last(), play(seed + 1).trace.last(), "seeds {seed} and its neighbour are one");
    }
}

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vkhmm-sim")).args(arguments).output().expect("the program runs")
}

#[test]
fn the_command_line_replays_and_says_how_it_ended() {
    let (first, second) = (command(&["3"]), command(&["3"]));
    assert!(first.status.success() && first.stdout == second.stdout && !first.stdout.is_empty());
    let quiet = command(&["--seeds", "0..5", "--quiet"]);
    assert!(quiet.status.success() && quiet.stdout.is_empty() && quiet.stderr.is_empty());
    let told = command(&["--seeds", "0..5", "--minutes", "5"]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success() && text.contains("seeds 0..5: 5 runs"), "{text}");
    let long = command(&["--long", "20000", "5"]);
    assert!(long.status.success() && String::from_utf8_lossy(&long.stdout).contains("decisions"));
    assert!(command(&["--help"]).status.success());
    for wrong in
        [&["--seeds"][..], &["--seeds", "5"], &["x"], &["--frobnicate"], &[], &["1", "--seeds", "0..2"]]
    {
        let output = command(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?} says what is wrong");
    }
}
