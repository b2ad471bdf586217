//! Loss and failure of the device, forced at the n-th call for every n of launches, evictions, touches and prefetches: every byte
//! is current, or Lost and named; nothing is stale, nothing hangs. The first setup takes every n, the others leave some out;
//! VKHMM_LOSS_STEP=1 leaves none out.

mod common;

use common::script::{Array, Play, rows};
use common::{again, checked, declared, forbidden, kernel, open, quiet, role, setting, spv, watchdog};
use std::time::{Duration, Instant};
use vkhmm::{Failure, Location, Switches};

/// The n-th calls to try: all of them, or every `step`-th; all with VKHMM_LOSS_STEP=1.
fn calls(step: u64) -> impl Iterator<Item = u64> {
    (1..10_000).step_by(setting("VKHMM_LOSS_STEP", step) as usize)
}

#[test]
fn lost_at_every_call() {
    // Every call in the first row, and in the last, whose calls are few; the others repeat it with fewer.
    for (setup, step) in rows().into_iter().zip([1, 3, 3, 1]) {
        let started = Instant::now();
        let (mut runs, mut lost_runs, mut most, mut untouched) = (0, 0, 0, 0);
        let mut steps = std::collections::BTreeSet::new();
        for n in calls(step) {
            let _dog = watchdog(&format!("lost at call {n}, {setup:?}"), 60);
            let Some(mut play) = Play::open(setup, Switches { lose_at_call: Some(n), ..Switches::default() })
            else {
                continue;
            };
            let outcome = play.run();
            assert!(outcome.failed.is_empty(), "call {n}: {:?}", outcome.failed);
            runs += 1;
            let lost = play.check();
            if outcome.lost_at.is_some() || play.rt.device_calls() >= n {
                lost_runs += 1;
                steps.extend(outcome.lost_at);
                most = most.max(lost);
                play.after_loss();
            } else {
                assert_eq!(lost, 0);
                untouched += 1;
            }
            quiet(&play.rt);
            if untouched >= 2 {
                break;
            }
        }
        let time = started.elapsed();
        println!(
            "{setup:?}: {lost_runs} of {runs} runs lost, at steps {steps:?}, at most {most} bytes; {time:?}"
        );
        assert!(
            untouched >= 2 && lost_runs > 15 && most > 0 && steps.len() >= 6,
            "the sweep missed something"
        );
    }
}

#[test]
fn failed_at_every_call() {
    let failures = [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory, Failure::Refused];
    for (setup, failure) in rows().into_iter().zip(failures) {
        let started = Instant::now();
        let (mut runs, mut lost_runs, mut failed, mut untouched) = (0, 0, Vec::new(), 0);
        for n in calls(4) {
            let _dog = watchdog(&format!("{failure:?} at call {n}, {setup:?}"), 60);
            let Some(mut play) =
                Play::open(setup, Switches { fail_at_call: Some((n, failure)), ..Switches::default() })
            else {
                continue;
            };
            let outcome = play.run();
            runs += 1;
            let lost = play.check();
            lost_runs += u32::from(outcome.lost_at.is_some());
            assert!(lost == 0 || outcome.lost_at.is_some() || play.rt.sync().is_err());
            if outcome.lost_at.is_none() && outcome.failed.is_empty() && play.rt.device_calls() < n {
                untouched += 1;
            }
            failed.extend(outcome.failed);
            quiet(&play.rt);
            if untouched >= 2 {
                break;
            }
        }
        println!("{failure:?}: {runs} runs, {lost_runs} lost, errors {failed:?}; {:?}", started.elapsed());
        assert!(untouched >= 2, "the sweep did not reach the end");
    }
}

/// The touch of a lost page ends in a signal, or a panic where slices are brought home; never old bytes.
#[test]
fn touching_lost_pages() {
    const TEST: &str = "touching_lost_pages";
    let setup = rows()[1];
    if role().is_some() {
        for n in 20.. {
            let switches = Switches { lose_at_call: Some(n), ..Switches::default() };
            let Some(mut play) = Play::open(setup, switches) else { continue };
            play.run();
            if play.check() == 0 {
                continue;
            }
            for Array { real, .. } in &play.arrays {
                let lost =
                    real.residency().expect("residency").into_iter().find(|r| r.location == Location::Lost);
                if let Some(run) = lost {
                    println!("touching");
                    println!("loaded {}", real[run.bytes.start as usize / 4]);
                }
            }
        }
    }
    let rt = open(checked());
    let ended = again(TEST, "touch", &[], Duration::from_secs(60));
    assert!(
        ended.text.contains("touching") && !ended.text.contains("loaded"),
        "{:?}: {}",
        ended.status,
        ended.text
    );
    assert!(ended.text.contains("the device was lost"), "one line says so: {}", ended.text);
    if declared(&rt) {
        assert_eq!(ended.status.code(), Some(101), "{}", ended.text);
        assert!(ended.text.contains("were lost with the device"), "{}", ended.text);
    } else {
        assert_eq!(ended.signal(), Some(forbidden(&rt)), "{:?}: {}", ended.status, ended.text);
    }
    common::clean(&rt);
}

/// Without a loss the script ends as its twin does.
#[test]
fn the_script_alone() {
    for setup in rows() {
        let _dog = watchdog("script", 60);
        let mut play = Play::open(setup, Switches::default()).expect("a runtime");
        let outcome = play.run();
        assert!(outcome.lost_at.is_none() && outcome.failed.is_empty());
        assert_eq!(play.check(), 0);
        println!("{setup:?}: {} device calls", play.rt.device_calls());
        let _ = kernel(&play.rt, spv::SCALE);
        common::clean(&play.rt);
    }
}
