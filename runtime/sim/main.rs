//! `vkhmm-sim <seed>`: replays the smoke scenario under one seed and prints its trace. Exit status 1 if it failed.

use std::process::ExitCode;
use vkhmm_sim::smoke;

fn main() -> ExitCode {
    let Some(seed) = std::env::args().nth(1).and_then(|s| s.parse().ok()) else {
        eprintln!("usage: vkhmm-sim <seed>    (a number; the one that a failed test named)");
        return ExitCode::from(2);
    };
    let run = smoke::play(seed);
    for line in &run.trace {
        println!("{line}");
    }
    match run.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("seed {seed} failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
