//! Random operations against a twin of plain bytes: whatever the interleaving, memory is as if each launch had run inside
//! `launch`. Which operations and which states of a page were met is counted, and a missed one fails.

mod hints;
mod paged;
mod player;

use crate::common::*;
use player::{Area, Met, Player};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_core::pagemap::Location;

/// Everything is at rest: no operation, and once all is freed no frame and no import is left.
fn settle(w: &World, ranges: Vec<Range>) {
    w.rest();
    ranges.iter().for_each(|range| w.engine.free(range));
    drop(ranges);
    until("all frames are back", || w.engine.device_memory().1 == 0);
    until("all imports are gone", || w.imports.count() == 0);
}

fn alone(setup: Setup, seed: u64, steps: u32) -> Met {
    within(30, move || {
        let w = World::new(Setup { limit_frames: 12, ..setup });
        let areas = [1, 5, 3].map(|blocks| Area::whole(&w, blocks * w.block() - (seed + blocks) % 17));
        let mut player = Player {
            w: &w,
            random: Random::new(seed),
            areas: areas.into(),
            met: Met::default(),
            last: None,
            open_paged: Vec::new(),
            alone: true,
            log: Vec::new(),
            wrong: Arc::default(),
        };
        for _ in 0..steps {
            player.step();
        }
        player.finish();
        let (met, ranges) = (player.met, player.areas.into_iter().map(|a| a.range).collect());
        settle(&w, ranges);
        met
    })
}

fn together(setup: Setup, seed: u64, threads: u64, steps: u32) -> Met {
    within(30, move || {
        let w = World::new(Setup { limit_frames: 24, ..setup });
        let page = w.page();
        let shared = w.alloc(3 * w.block());
        let twin: Vec<u8> = (0..shared.bytes()).map(|i| (i * 7) as u8).collect();
        w.store(&shared, 0, &twin);
        let (one, other) = (w.alloc(6 * w.block()), w.alloc(2 * w.block() + 5));
        // Cuts on pages, in the middle of blocks: the threads share blocks, but no page.
        let cut = |range: &Range, t: u64| {
            let pages = range.bytes().div_ceil(page);
            (pages * t / threads * page, (pages * (t + 1) / threads * page).min(range.bytes()))
        };
        let met = Mutex::new(Met::default());
        std::thread::scope(|scope| {
            for t in 0..threads {
                let (w, met, shared, twin) = (&w, &met, &shared, &twin);
                let mine = [&one, &other].map(|range| {
                    let (start, end) = cut(range, t);
                    let twin = vec![0; (end - start) as usize];
                    Area { range: Arc::clone(range), start, twin, whole: false, read_only: false }
                });
                scope.spawn(move || {
                    let common = Area {
                        range: Arc::clone(shared),
                        start: 0,
                        twin: twin.clone(),
                        whole: false,
                        read_only: true,
                    };
                    let mut areas: Vec<Area> = mine.into();
                    areas.push(common);
                    areas.push(Area::whole(w, w.block()));
                    let mut player = Player {
                        w,
                        random: Random::new(seed * 31 + t),
                        areas,
                        met: Met::default(),
                        last: None,
                        open_paged: Vec::new(),
                        alone: false,
                        log: Vec::new(),
                        wrong: Arc::default(),
                    };
                    for _ in 0..steps {
                        player.step();
                    }
                    player.finish();
                    w.engine.free(&player.areas[3].range);
                    met.lock().unwrap().merge(player.met);
                });
            }
        });
        settle(&w, vec![shared, one, other]);
        met.into_inner().unwrap()
    })
}

fn seeds(usual: u64) -> u64 {
    std::env::var("VKHMM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}

/// Runs `body` over combinations and seeds; on failure says which it was.
fn every(usual: u64, body: impl Fn(Setup, u64) -> Met + Copy) -> Met {
    let mut met = Met::default();
    for seed in 0..seeds(usual) {
        for (i, setup) in combinations().into_iter().enumerate() {
            let delay = Duration::from_micros([0, 0, 300][((seed + i as u64) % 3) as usize]);
            let setup = Setup { delay, ..setup };
            if std::env::var("VKHMM_ONLY").is_ok_and(|only| only != i.to_string()) {
                continue;
            }
            let run = || body(setup.clone(), seed);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(part) => met.merge(part),
                Err(panic) => {
                    eprintln!("seed {seed}, combination {i}: {setup:?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    met
}

#[test]
fn one_thread_sees_plain_memory() {
    let met = every(8, |setup, seed| alone(setup, seed, 120));
    let named: Vec<_> = met.operations.keys().copied().collect();
    let all = [
        "advise",
        "batch",
        "bring home",
        "discard",
        "disturb",
        "flush",
        "free and allocate",
        "guard",
        "launch",
        "limit",
        "load",
        "paged launch",
        "paged launch that does not fit",
        "pin",
        "prefetch to device",
        "prefetch to host",
        "refused launch",
        "residency",
        "store",
        "sync",
        "trim",
        "unregister",
        "wait",
    ];
    assert_eq!(named, all, "operations met: {:?}", met.operations);
    // Impossible, so not wanted: an absent page held or pinned (a launch gives it a location in the same call, a guard gives it
    // birth), a device page pinned (a guard brings it home first), and Lost, which is `loss.rs`.
    let wanted = [
        (Location::Absent, "free"),
        (Location::Host, "free"),
        (Location::Host, "shared"),
        (Location::Host, "exclusive"),
        (Location::Host, "pinned"),
        (Location::Shared, "free"),
        (Location::Shared, "shared"),
        (Location::Shared, "exclusive"),
        (Location::Shared, "pinned"),
        (Location::Device, "free"),
        (Location::Device, "shared"),
        (Location::Device, "exclusive"),
    ];
    for (location, hold) in wanted {
        assert!(met.states.contains(&(letter(location), hold)), "{location:?} and {hold} was never met");
    }
    for (location, hold) in [('D', "pinned"), ('.', "pinned")] {
        assert!(!met.states.contains(&(location, hold)), "{location} and {hold} is impossible");
    }
}

#[test]
fn two_threads_see_plain_memory_each() {
    every(4, |setup, seed| together(setup, seed, 2, 80));
}

#[test]
fn three_threads_see_plain_memory_each() {
    every(3, |setup, seed| together(setup, seed + 1000, 3, 60));
}
