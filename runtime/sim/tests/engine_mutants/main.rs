//! The oracles of the simulator are worth something: each law of the engine, broken on purpose in a copy of its sources, is found
//! by the flat twin or by the demand that everything ends, within a stated number of seeds and with the engine's own assertions
//! compiled out. Prints the table of docs/TESTING.md.
//!
//! ```text
//!   mutants/*.rs ─► scratch: copy, edit, one build ─► driver ─► hunt: seeds 0, 1, 2 … with one mutant awake
//! ```

mod hunt;
#[path = "../../mutants/list.rs"]
mod list;
mod scratch;

use hunt::{Found, hunt};
use list::{Mutant, Proof};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// What must be among the mutants, whatever else is.
const TWELVE: [&str; 12] = [
    "copy before revoke",
    "publish before copied",
    "hold released before the syscall returned",
    "gate not cleared by the fault path",
    "retired frame reused early",
    "Shared to Host forgets to invalidate",
    "partial page treated as overwrite",
    "wake lost on a parked fault",
    "stale completion accepted",
    "victim chosen among queued operations",
    "admission taken in argument order",
    "prefetch revokes without &mut",
];

/// Seeds that are played with no mutant awake, beside those that found one.
const CLEAN_SEEDS: u64 = 500;

/// What became of one mutant.
struct Fate {
    /// Whoever failed first, with every oracle listening.
    first: Option<Found>,
    /// Twin or liveness, if asked for.
    proof: Option<Found>,
    /// One of these seeds fails with no mutant awake, too.
    fails_asleep: bool,
}

fn fate(driver: &Path, number: usize, mutant: &Mutant) -> Fate {
    let first = hunt(driver, number, 0..mutant.seeds, false);
    let proof = match (&mutant.proof, &first) {
        (Proof::Application, Some(found)) if !found.is_applications() => {
            hunt(driver, number, found.seed..mutant.seeds, true)
        }
        (Proof::Application, found) => found.clone(),
        (Proof::Any(_), _) => None,
    };
    let plain = |found: &Found| hunt(driver, 0, found.seed..found.seed + 1, false).is_some();
    let fails_asleep = first.iter().chain(&proof).any(plain);
    Fate { first, proof, fails_asleep }
}

/// Every mutant's fate, two hunts at a time.
fn fates(driver: &Path, mutants: &[&Mutant]) -> Vec<Fate> {
    let next = Mutex::new(0);
    let fates: Vec<Mutex<Option<Fate>>> = mutants.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = {
                        let mut next = next.lock().expect("no hunter panics with it");
                        *next += 1;
                        *next - 1
                    };
                    let Some(mutant) = mutants.get(at) else { return };
                    let fate = fate(driver, at + 1, mutant);
                    *fates[at].lock().expect("one hunter has it") = Some(fate);
                }
            });
        }
    });
    fates.into_iter().filter_map(|fate| fate.into_inner().expect("the hunters are done")).collect()
}

#[test]
fn every_mutant_is_found() {
    let mutants = list::all();
    for name in TWELVE {
        assert!(mutants.iter().any(|m| m.name == name), "no mutant `{name}`");
    }
    let start = Instant::now();
    let driver = scratch::build(&mutants);
    println!("built in {:.0} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    if let Some(found) = hunt(&driver, 0, 0..CLEAN_SEEDS, false) {
        panic!("with no mutant awake, seed {} fails: {}", found.seed, found.text);
    }
    let fates = fates(&driver, &mutants);
    println!("| mutant | law | first found by | in seeds | twin or liveness | in seeds | bound |");
    println!("|---|---|---|---:|---|---:|---:|");
    let mut holes = Vec::new();
    for (Mutant { name, law, proof, seeds, .. }, fate) in mutants.iter().zip(&fates) {
        let cells = |found: &Option<Found>| {
            found.as_ref().map_or("– | –".to_owned(), |f| format!("{} | {}", f.oracle, f.seed + 1))
        };
        println!("| {name} | {law} | {} | {} | {seeds} |", cells(&fate.first), cells(&fate.proof));
        if fate.fails_asleep {
            holes.push(format!("`{name}`: its seed fails with no mutant awake, too"));
        }
        let found = match proof {
            Proof::Application => fate.proof.as_ref().filter(|found| found.is_applications()),
            Proof::Any(_) => fate.first.as_ref().filter(|found| found.oracle != "none"),
        };
        if found.is_none() {
            let last = fate.first.as_ref().map_or("nobody noticed", |found| &found.text);
            holes.push(format!("`{name}` lives after {seeds} seeds ({last})"));
        }
    }
    for mutant in &mutants {
        if let Proof::Any(why) = mutant.proof {
            println!("`{}`: {why}", mutant.name);
        }
    }
    println!("{} mutants, hunted in {:.0} s", mutants.len(), start.elapsed().as_secs_f64());
    assert!(holes.is_empty(), "the oracles have holes:\n  {}", holes.join("\n  "));
}
