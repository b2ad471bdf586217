//! The programs of `examples/` at small sizes: their answers, which each checks itself, and the bytes they move, over the least.
#![allow(clippy::duplicate_mod, reason = "each program brings along what it shares with the others")]

#[allow(dead_code, reason = "its main is not run here")]
#[path = "../examples/heat2d.rs"]
mod heat2d;

use clap::Parser;

/// Whether kernels work on the host's own bytes here, so that there is nothing to count.
fn in_place() -> bool {
    std::env::var("VKHMM_MEMORY_KIND").is_ok_and(|kind| kind == "unified-memory")
}

/// Fails unless `times` lies between the least and `most`.
fn near(what: &str, times: f64, most: f64) {
    println!("{what}: {times:.3} times the least");
    assert!(in_place() || (0.999..=most).contains(&times), "{what}: {times} times the least, {most} allowed");
}

#[test]
fn a_plate_cools_as_it_must_at_any_size() {
    let run = |options: &str| {
        let options = format!("heat2d {options}");
        let parsed = heat2d::Options::parse_from(options.split_whitespace());
        heat2d::run(&parsed).unwrap_or_else(|e| panic!("{options}: {e:?}"))
    };
    near("a plate in core", run("--side 512 --steps 24 --over 0.5"), 1.0);
    near("a plate 4 times larger", run("--side 1024 --steps 24 --over 4"), 1.6);
    // A last sweep that is shorter, and a last band that is; one step at a time; bands smaller than their halo.
    near("a plate of odd sizes", run("--side 448 --steps 13 --over 4"), 4.0);
    near("a plate without sweeps", run("--side 512 --steps 3 --sweep 1 --over 2"), 4.0);
    near("a plate of thin bands", run("--side 512 --steps 50 --sweep 40 --over 2"), 4.0);
}
