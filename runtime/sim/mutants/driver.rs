//! The copy's own program: `mutant-driver MUTANT FIRST LAST` plays the seeds from FIRST below LAST with one mutation awake (0:
//! none) until a run fails, and prints a line: oracle, seed, text. With `deaf` as a fourth word only what twin and liveness find
//! counts.

use std::sync::atomic::{AtomicU64, Ordering};
use vkhmm_core::mutant::{AWAKE, DEAF};
use vkhmm_sim::scene::play;

/// The seed that is being played.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() {
    assert!(!cfg!(debug_assertions), "in-engine assertions are to be compiled out");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    AWAKE.store(number(0) as u32, Ordering::Relaxed);
    let deaf = words.get(3).is_some_and(|word| word == "deaf");
    DEAF.store(deaf, Ordering::Relaxed);
    std::panic::set_hook(Box::new(|info| {
        // Nothing comes after it: a fake's assertion failed while something else was being cleaned up.
        let text = info.to_string();
        if text.contains("cannot unwind") || text.contains("destructor during cleanup") {
            println!("assertion\t{}\ta panic on top of a panic", SEED.load(Ordering::Relaxed));
            std::process::exit(0);
        }
    }));
    for seed in number(1)..number(2) {
        SEED.store(seed, Ordering::Relaxed);
        let Some(failure) = play(seed).failure else { continue };
        let oracle = oracle(&failure);
        if !deaf || matches!(oracle, "twin" | "liveness") {
            println!("{oracle}\t{seed}\t{}", failure.lines().next().unwrap_or_default());
            return;
        }
    }
}

/// The oracle that a failure's text names; `assertion` if none does: one of the fakes, or of the engine.
fn oracle(failure: &str) -> &'static str {
    const TEXTS: [(&str, &str); 8] = [
        ("twin: ", "twin"),
        ("lost: ", "twin"),
        ("liveness: ", "liveness"),
        ("deadlock: ", "liveness"),
        ("the run does not end", "liveness"),
        ("leak: ", "leak"),
        ("L0: ", "L0"),
        ("check: ", "check"),
    ];
    // The first one: an oracle's own text may have other words in it.
    let found = TEXTS.iter().filter_map(|(text, oracle)| Some((failure.find(text)?, *oracle)));
    found.min().map_or("assertion", |(_, oracle)| oracle)
}
