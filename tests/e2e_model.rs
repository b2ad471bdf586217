//! Random operations on managed memory against a plain `Vec` twin, with many seeds, in every kind and both transfer ways.
//! VKHMM_MODEL_SECONDS makes it longer, VKHMM_MODEL_SEED repeats one seed.

mod common;

use common::model::{OPERATIONS, STEPS, run};
use common::{Random, setting, setups, watchdog};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use vkhmm::Switches;

#[test]
fn random_operations_do_what_they_do_to_a_vec() {
    let time = Duration::from_secs(setting("VKHMM_MODEL_SECONDS", 15));
    let one_seed = std::env::var("VKHMM_MODEL_SEED").ok().and_then(|v| v.parse().ok());
    let first = one_seed.unwrap_or_else(Random::fresh_seed);
    let started = Instant::now();
    let (mut seen, mut states) = (BTreeMap::<&str, u32>::new(), BTreeMap::<(u8, bool), u32>::new());
    let mut runs = 0;
    println!("seeds from {first}; VKHMM_MODEL_SEED repeats one");
    'all: loop {
        for setup in setups() {
            // Not before every setup of all kinds had its turn, or those of one kind as many.
            if (runs >= 8 && started.elapsed() > time) || (one_seed.is_some() && runs >= setups().len()) {
                break 'all;
            }
            let seed = if one_seed.is_some() { first } else { first + runs as u64 };
            let _dog = watchdog(&format!("model, seed {seed}, {setup:?}"), 60);
            run(setup, Switches::default(), seed, &mut seen, &mut states);
            runs += 1;
        }
    }
    println!("{runs} runs of {STEPS} operations in {:?}: {seen:?}; states {states:?}", started.elapsed());
    if one_seed.is_none() {
        let missed: Vec<_> = OPERATIONS.iter().filter(|name| !seen.contains_key(*name)).collect();
        assert!(missed.is_empty(), "these operations never ran: {missed:?}");
        // Host, Shared and Device pages, idle and held; absent pages are held by nobody.
        let wanted = [(0, false), (1, false), (2, false), (2, true), (3, false), (3, true)];
        let missed: Vec<_> = wanted.iter().filter(|state| !states.contains_key(*state)).collect();
        assert!(missed.is_empty(), "these states were never met: {missed:?} of {states:?}");
    }
}
