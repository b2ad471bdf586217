//! The production engine in the simulated world: a thousand seeds, no lost byte, no deadlock, and the same trace twice.

use vkhmm_sim::smoke::play;

#[test]
fn a_thousand_seeds_lose_nothing() {
    for seed in 0..1_000 {
        play(seed).expect_success();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let (first, second) = (play(seed), play(seed));
        for (a, b) in first.trace.iter().zip(&second.trace) {
            assert_eq!(a, b, "seed {seed}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}
