//! The scripts of the end-to-end tests on the real ports, with trouble: calls of host memory and of the device fail at every n, take
//! their time, and touches are told late, twice, in disorder or without a toucher. Every step is right, or an error that says why
//! and costs no byte that it does not name, and nothing hangs. VKHMM_INJECT_STEP=1 leaves no n out, VKHMM_INJECT_SECONDS is how long
//! random operations go on.

mod common;

use common::script::{Play, rows};
use common::{
    BLOCK, WORDS, again, checked, clean, declared, forbidden, kernel, memory, model, moving, open, quiet,
    role, setting, setups, spv, watchdog,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vkhmm::{
    Errno, Failure, FaultTrouble, Grid, HostCall, HostFailure, HostSwitches, Managed, MemoryError,
    MemoryKind, Runtime, Switches,
};

const EAGAIN: Errno = Errno(11);
const ENOMEM: Errno = Errno(12);
const EEXIST: Errno = Errno(17);
const ENOENT: Errno = Errno(2);
const EINVAL: Errno = Errno(22);

/// The n-th calls to try: every `step`-th, or all.
fn calls(step: u64) -> impl Iterator<Item = u64> {
    (1..100_000).step_by(setting("VKHMM_INJECT_STEP", step) as usize)
}

fn failing(fail: HostFailure) -> Switches {
    Switches { host: HostSwitches { fail: Some(fail), ..HostSwitches::default() }, ..Switches::default() }
}

/// Touches in disorder, and every third call of the host slow.
fn disorder(seed: u64) -> HostSwitches {
    let faults =
        FaultTrouble { seed, late: Duration::from_micros(1500), twice_percent: 30, spurious_percent: 20 };
    HostSwitches { fail: None, slow: Some((3, Duration::from_micros(100))), faults: Some(faults) }
}

#[test]
fn the_host_fails_at_every_call() {
    for (setup, errno) in rows().into_iter().zip([ENOMEM, EEXIST, EINVAL]) {
        let started = Instant::now();
        let (mut runs, mut never, mut untouched, mut errors) = (0, 0, 0, BTreeSet::new());
        let mut gate = true;
        for n in calls(1) {
            let _dog = watchdog(&format!("host call {n} says {errno}, {setup:?}"), 60);
            let fail = HostFailure { call: None, n, times: 1, errno };
            let Some(mut play) = Play::open(setup, failing(fail)) else {
                never += 1;
                continue;
            };
            let outcome = play.run();
            runs += 1;
            gate = !declared(&play.rt);
            assert_eq!(outcome.lost_at, None, "host call {n} lost something");
            errors.extend(outcome.failed);
            if play.rt.host_calls(None) < n {
                untouched += 1;
            } else {
                assert_eq!(play.check(), 0, "host call {n} lost something");
                quiet(&play.rt);
            }
            if untouched >= 2 {
                break;
            }
        }
        let (time, kinds) = (started.elapsed(), errors.len());
        println!("{setup:?}, {errno}: {runs} runs, {never} never began, {kinds} errors; {time:?}");
        assert!(untouched >= 2, "the sweep did not reach the end");
        // Where R is no gate, launches take nothing from it that could be refused.
        assert!(never >= 2 && (kinds >= 2 || !gate), "the sweep missed something: {errors:?}");
    }
}

/// Calls of one kind, two or three in a row: where there is a second try, it fails, too.
#[test]
fn every_kind_of_call_fails_again_and_again() {
    let setup = rows()[0];
    let errnos = [ENOMEM, EAGAIN, ENOENT, EAGAIN, EEXIST, EINVAL];
    for (call, errno) in HostCall::ALL.into_iter().zip(errnos) {
        let started = Instant::now();
        let (mut runs, mut errors) = (0, BTreeSet::new());
        for n in calls(2) {
            let times = 2 + n / 2 % 2;
            let _dog = watchdog(&format!("{call:?} {n}, {times} times"), 60);
            let Some(mut play) =
                Play::open(setup, failing(HostFailure { call: Some(call), n, times, errno }))
            else {
                continue;
            };
            let outcome = play.run();
            runs += 1;
            assert_eq!(outcome.lost_at, None, "{call:?} {n} lost something");
            errors.extend(outcome.failed);
            let untouched = play.rt.host_calls(Some(call)) < n;
            assert_eq!(play.check(), 0, "{call:?} {n} lost something");
            quiet(&play.rt);
            if untouched {
                break;
            }
        }
        println!("{call:?}, {errno}: {runs} runs, {} errors; {:?}", errors.len(), started.elapsed());
    }
}

/// The device is lost while touches come in disorder, and poisoning what is lost fails at first.
#[test]
fn loss_with_touches_in_disorder() {
    for (row, setup) in rows().into_iter().enumerate() {
        let started = Instant::now();
        let (mut runs, mut lost_runs) = (0, 0);
        for n in calls(5).skip(row) {
            let _dog = watchdog(&format!("lost at call {n}, {setup:?}, in disorder"), 60);
            let fail =
                HostFailure { call: Some(HostCall::Poison), n: 1 + n % 3, times: n % 8, errno: EAGAIN };
            let host = HostSwitches { fail: Some(fail), ..disorder(n) };
            let Some(mut play) =
                Play::open(setup, Switches { lose_at_call: Some(n), host, ..Switches::default() })
            else {
                continue;
            };
            let outcome = play.run();
            assert!(outcome.failed.is_empty(), "call {n}: {:?}", outcome.failed);
            runs += 1;
            let lost = play.check();
            if outcome.lost_at.is_some() || play.rt.device_calls() >= n {
                lost_runs += 1;
                play.after_loss();
                quiet(&play.rt);
            } else {
                assert_eq!(lost, 0);
                break;
            }
        }
        println!("{setup:?}: {lost_runs} of {runs} runs lost; {:?}", started.elapsed());
        assert!(lost_runs > 3, "the sweep missed something");
    }
}

/// Calls of the device fail while touches come in disorder.
#[test]
fn device_calls_fail_with_touches_in_disorder() {
    let failures = [Failure::Refused, Failure::OutOfDeviceMemory, Failure::OutOfHostMemory];
    for ((row, setup), failure) in rows().into_iter().enumerate().zip(failures) {
        let started = Instant::now();
        let (mut runs, mut failed) = (0, BTreeSet::new());
        for n in calls(9).skip(row) {
            let _dog = watchdog(&format!("{failure:?} at call {n}, {setup:?}, in disorder"), 60);
            let switches =
                Switches { fail_at_call: Some((n, failure)), host: disorder(n), ..Switches::default() };
            let Some(mut play) = Play::open(setup, switches) else { continue };
            let outcome = play.run();
            runs += 1;
            let lost = play.check();
            assert!(lost == 0 || outcome.lost_at.is_some() || play.rt.sync().is_err());
            quiet(&play.rt);
            let untouched = outcome.failed.is_empty() && lost == 0 && play.rt.device_calls() < n;
            failed.extend(outcome.failed);
            if untouched {
                break;
            }
        }
        println!("{failure:?}: {runs} runs, {} errors; {:?}", failed.len(), started.elapsed());
    }
}

#[test]
fn random_operations_with_touches_in_disorder() {
    let time = Duration::from_secs(setting("VKHMM_INJECT_SECONDS", 10));
    let (first, started) = (common::Random::fresh_seed(), Instant::now());
    let (mut seen, mut states) = (BTreeMap::new(), BTreeMap::new());
    println!("seeds from {first}");
    let mut seed = first;
    while started.elapsed() < time {
        let all = setups();
        let setup = all[seed as usize % all.len()];
        let _dog = watchdog(&format!("model in disorder, seed {seed}, {setup:?}"), 60);
        let switches = Switches { host: disorder(seed), ..Switches::default() };
        model::run(setup, switches, seed, &mut seen, &mut states);
        seed += 1;
    }
    println!("seeds {first}..{seed} of {} operations in {:?}", model::STEPS, started.elapsed());
}

/// Four threads load every page while the device takes it again and again.
#[test]
fn parked_threads_with_touches_in_disorder() {
    const PAGES: usize = 600;
    let time = Duration::from_secs(setting("VKHMM_INJECT_SECONDS", 10) / 3);
    let _dog = watchdog("parked threads in disorder", 60 + 2 * time.as_secs());
    for (setup, seed) in rows().into_iter().zip(1..) {
        let rt = open(setup.with(Switches { host: disorder(seed), ..Switches::default() }));
        if declared(&rt) {
            return common::skipped("parked threads: slices come home as they are made");
        }
        let add_one = kernel(&rt, spv::ADD_ONE);
        // What the scanners see, and what the kernel counts up: one launch adds one to every word.
        let mut counters: Managed<u32> = rt.alloc_named(PAGES * WORDS, "counters").expect("alloc");
        let started = Instant::now();
        let (mut launches, mut touches) = (0, 0);
        while started.elapsed() < time / 3 {
            rt.launch(&add_one, Grid::linear(PAGES * WORDS), (counters.write(),)).expect("launch");
            launches += 1;
            let seen = &counters;
            touches += std::thread::scope(|scope| {
                let scan = |thread: usize| {
                    scope.spawn(move || {
                        (0..PAGES)
                            .filter(|page| seen[(page * 7 + thread * 150) % PAGES * WORDS] == launches)
                            .count()
                    })
                };
                let scans: Vec<_> = (0..4).map(scan).collect();
                scans.into_iter().map(|s| s.join().expect("a scan")).sum::<usize>()
            });
        }
        assert_eq!(touches, launches as usize * 4 * PAGES, "a touch saw another value");
        let faults = rt.stats().faults_read;
        println!("{setup:?}: {launches} launches, {touches} loads, {faults} messages");
        clean(&rt);
    }
}

/// Raw loads and stores of first and later touches while calls of the host fail: the right bytes, or the signal where no second try was
/// left; never others, and never a thread that waits for ever.
#[test]
fn raw_touches_while_the_host_fails() {
    const TEST: &str = "raw_touches_while_the_host_fails";
    if let Some(role) = role() {
        let mut numbers = role.split(' ').map(|n| n.parse::<u64>().expect("a number"));
        let mut number = || numbers.next().expect("three numbers");
        let call = HostCall::ALL[number() as usize];
        let fail = HostFailure { call: Some(call), n: number(), times: number(), errno: ENOMEM };
        return raw_touches(failing(fail));
    }
    let rt = open(checked());
    let (parks, deadly) = (!declared(&rt), forbidden(&rt));
    drop(rt);
    for (kind, call) in [(0, HostCall::Populate), (3, HostCall::Publish)] {
        let (mut fine, mut ended) = (0, 0);
        for (n, times) in [(2, 1), (4, 1), (7, 1), (2, 3), (5, 3), (3, u64::MAX)] {
            let child = again(TEST, &format!("{kind} {n} {times}"), &[], Duration::from_secs(60));
            let what = format!(
                "{call:?} {n}, {times} times: {:?} after {:?}: {}",
                child.status, child.took, child.text
            );
            assert!(child.took < Duration::from_secs(50), "hangs: {what}");
            assert!(!child.text.contains("wrong"), "{what}");
            match child.signal() {
                // Where slices are brought home as they are made, making one is what fails.
                None if !parks && child.status.code() == Some(101) => {
                    let said = child.text.contains("a managed slice cannot be read: no host memory for");
                    assert!(said && call == HostCall::Populate, "{what}");
                    ended += 1;
                }
                None => {
                    assert!(child.status.success() && child.text.contains("all right"), "{what}");
                    fine += 1;
                }
                Some(signal) => {
                    assert!(signal == deadly && times > 1, "one failure costs nobody's life: {what}");
                    ended += 1;
                }
            }
        }
        println!("{call:?}: {fine} fine, {ended} ended");
        assert!(fine >= 3 || !parks, "{call:?}");
        assert!(ended > 0 || !parks, "{call:?} never failed for good");
    }
}

/// The guard says what the system refused; nothing dies of it, and the bytes are there as soon as they can be shown.
#[test]
fn a_host_that_cannot_show_says_so() {
    let _dog = watchdog("never shown", 60);
    let fail = HostFailure { call: Some(HostCall::Publish), n: 1, times: 12, errno: ENOMEM };
    let rt = open(moving().switches(failing(fail)));
    let mut x: Managed<u32> = rt.alloc_named(2 * WORDS, "x").expect("alloc");
    rt.fill(x.overwrite(), 7).expect("fill");
    if declared(&rt) {
        return common::skipped("R that cannot be shown: it is mapped always");
    }
    let mut refused = 0;
    while let Err(error) = x.host_mut() {
        let error = memory::<()>(Err(error));
        assert!(matches!(error, MemoryError::Host(_)) && error.to_string().contains("publish"), "{error}");
        refused += 1;
    }
    // Two tries each.
    assert_eq!(refused, 6);
    assert!(x.check().is_ok() && x.iter().all(|v| *v == 7));
    clean(&rt);
}

/// A test that hangs is ended, and says who waits where, and for what.
#[test]
fn a_hang_says_who_waits_for_what() {
    const TEST: &str = "a_hang_says_who_waits_for_what";
    if role().is_some() {
        let _dog = watchdog("on purpose", 3);
        let rt = open(checked().memory_kind(MemoryKind::DevicePrivate));
        let spin = kernel(&rt, spv::SPIN);
        const N: usize = 256 * WORDS;
        let mut x: Managed<u32> = rt.alloc_named(N, "hung").expect("alloc");
        // Minutes of work, several times over.
        for _ in 0..8 {
            rt.launch(&spin, Grid::linear(N), (x.write(), 59_999u32, N as u32)).expect("launch");
        }
        let seen = &x;
        std::thread::scope(|scope| {
            let toucher = std::thread::Builder::new().name("toucher".into());
            toucher.spawn_scoped(scope, move || println!("never: {}", seen[WORDS])).expect("a thread");
            let waiter = std::thread::Builder::new().name("waiter".into());
            waiter.spawn_scoped(scope, || rt.sync().expect("never")).expect("a thread");
        });
        panic!("it does not hang");
    }
    let parks = !declared(&open(checked()));
    let child = again(TEST, "hang", &[("VKHMM_WATCHDOG", "1")], Duration::from_secs(60));
    assert_eq!(child.signal(), Some(6), "{:?}: {}", child.status, child.text);
    let expected = [
        "watchdog: `on purpose` hangs after 3 s",
        "toucher",
        "waiter",
        "vkhmm-complete",
        "vkhmm-submit",
        "operations: ",
        "`main` Submitted, open for ",
        "threads: 1 wait for an operation",
        "threads: 1 wait for the device",
        "`hung` block 0 (256 on the device): #",
        "holds pages 0..256 Exclusive",
        // By itself, before the watchdog: what I6 promises.
        "vkhmm: waiting for `main`",
    ];
    for line in expected {
        assert!(child.text.contains(line), "`{line}` is missing: {}", child.text);
    }
    if parks {
        let parked =
            ["parked loads on pages 1..2", "`hung`: a touch waits for", "vkhmm: a touch of `hung` waits for"];
        for line in parked {
            assert!(child.text.contains(line), "`{line}` is missing: {}", child.text);
        }
    }
    println!("{}", child.text);
}

fn raw_touches(switches: Switches) {
    let rt: Runtime = match checked().switches(switches).build() {
        Ok(rt) => rt,
        Err(error) => return println!("all right: {error}"),
    };
    let add_one = kernel(&rt, spv::ADD_ONE);
    let n = 3 * BLOCK / 4;
    let mut x: Managed<u32> = rt.alloc(n).expect("alloc");
    // Every page's first word, by stores; then by the device; then by loads, backwards.
    x.iter_mut().step_by(WORDS).enumerate().for_each(|(i, v)| *v = i as u32);
    let stop = AtomicBool::new(false);
    for round in 1..4 {
        if rt.launch(&add_one, Grid::linear(n), (x.write(),)).is_err() {
            rt.launch(&add_one, Grid::linear(n), (x.write(),)).expect("the second try");
        }
        let seen = &x;
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    for i in (0..n / WORDS).rev().skip(thread * 100) {
                        if seen[i * WORDS] != i as u32 + round {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(!stop.load(Ordering::Relaxed), "wrong bytes in round {round}");
    }
    println!("all right");
}
