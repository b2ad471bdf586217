//! Lifetimes: drop during flight, reuse after it, `forget`, exit with a kernel running, fork, touches of what is not there.

mod common;

use common::{
    PAGE, SIGSEGV, WORDS, again, by_blocks, checked, clean, declared, forbidden, fork_here, in_fork, kernel,
    moving, open, quiet, role, setting, skipped, spv, wait_for, watchdog,
};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use vkhmm::{AccessKind, Error, Grid, Launch, Managed, Result, Runtime};

/// Rounds of `spin` that keep lavapipe busy for some tenths of a second, with 4,096 words.
const ROUNDS: u32 = 20_000;

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("statm") * PAGE as u64
}

#[test]
fn dropped_in_flight_and_allocated_again_is_zeros() {
    let _dog = watchdog("drop in flight", 60);
    let rt = open(checked().reservation(16 << 20).device_memory_limit(16 << 20));
    let spin = kernel(&rt, spv::SPIN);
    for round in 0..10 {
        let mut x = rt.alloc::<u32>(4096).expect("alloc");
        x.fill(7);
        let launch = rt.launch(&spin, Grid::linear(4096), (x.write(), ROUNDS / 10, 4096u32)).expect("launch");
        let old = x.as_ptr().addr();
        let started = Instant::now();
        drop(x);
        assert!(started.elapsed() < Duration::from_millis(50), "drop blocked for {:?}", started.elapsed());
        // The address is not reused while the kernel runs; whatever comes back is zeros.
        let y = rt.alloc::<u32>(4096).expect("alloc");
        assert!(y.as_ptr().addr() != old || launch.is_done());
        assert!(y.iter().all(|v| *v == 0), "round {round}");
        launch.wait().expect("a launch outlives what it writes");
        drop(y);
        // Now it is reused: all of the reservation can be had again, and is zeros.
        let until = Instant::now() + Duration::from_secs(10);
        let all = loop {
            match rt.alloc::<u64>(2 << 20) {
                Ok(all) => break all,
                Err(error) => assert!(Instant::now() < until, "the block never came back: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(all.iter().step_by(PAGE / 8).all(|v| *v == 0));
    }
    clean(&rt);
}

#[test]
fn forgotten_handles_leak_memory_and_nothing_else() {
    let _dog = watchdog("forget", 60);
    let rt = open(moving());
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut x = rt.alloc::<u32>(4096).expect("alloc");
    for _ in 0..100 {
        std::mem::forget(rt.launch(&add_one, Grid::linear(4096), (x.write(),)).expect("launch"));
    }
    assert!(x.iter().all(|v| *v == 100));
    for _ in 0..100 {
        let mut leaked = rt.alloc::<u32>(4096).expect("alloc");
        rt.launch(&add_one, Grid::linear(4096), (leaked.write(),)).expect("launch");
        std::mem::forget(leaked);
    }
    // A guard that is forgotten holds its pages for good, and no others.
    let guarded = rt.alloc::<u32>(2 * WORDS).expect("alloc");
    std::mem::forget(guarded.slice(..WORDS).host().expect("guard"));
    assert_eq!(guarded.slice(..WORDS).prefetch_to_device().expect("a hint").skipped().len(), 1);
    guarded.slice(WORDS..).prefetch_to_device().expect("prefetch").wait().expect("wait");
    assert!(x.iter().all(|v| *v == 100));
    clean(&rt);
}

#[test]
fn kernels_and_runtimes_dropped_while_they_run() {
    let _dog = watchdog("drop everything", 60);
    for _ in 0..5 {
        let rt = open(checked());
        let spin = kernel(&rt, spv::SPIN);
        let mut x = rt.alloc::<u32>(4096).expect("alloc");
        let launch = rt.launch(&spin, Grid::linear(4096), (x.write(), ROUNDS / 10, 4096u32)).expect("launch");
        drop(spin);
        drop(rt);
        // The array keeps its runtime; the launch outlives all.
        assert_ne!(x[0], 0);
        drop(x);
        launch.wait().expect("wait");
    }
    let rt = open(checked());
    let mut x = rt.alloc::<u32>(4096).expect("alloc");
    let two: Vec<Runtime> = (0..3).map(|_| open(checked())).collect();
    let mut arrays: Vec<Managed<u32>> = two.iter().map(|rt| rt.alloc(4096).expect("alloc")).collect();
    for round in 1..20 {
        for (rt, array) in two.iter().zip(&mut arrays) {
            rt.fill(array.overwrite(), round).expect("fill");
        }
        rt.fill(x.overwrite(), round + 1).expect("fill");
        assert!(arrays.iter().all(|a| a.iter().all(|v| *v == round)) && x.iter().all(|v| *v == round + 1));
    }
    two.iter().for_each(quiet);
    clean(&rt);
}

/// Runs this test in a process of its own: what is measured is the process's memory. Whether this is that process.
fn alone(test: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let ended = again(test, "alone", &[], Duration::from_secs(600));
    println!("{}", ended.text);
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
    false
}

#[test]
fn memory_stays_flat() {
    if !alone("memory_stays_flat") {
        return;
    }
    let _dog = watchdog("flat memory", 300);
    let rounds = 1_000_000;
    let rt = open(checked());
    let round = |i: usize| {
        let mut x = rt.alloc::<u32>(1).expect("alloc");
        if i % 16 == 0 {
            assert_eq!(x[0], 0, "fresh");
            x[0] = i as u32 + 1;
        }
        if i % 1024 == 0 {
            rt.fill(x.overwrite(), 1).expect("fill");
        }
    };
    (0..rounds / 20).for_each(round);
    rt.sync().expect("sync");
    let before = resident_bytes();
    let started = Instant::now();
    (0..rounds).for_each(round);
    rt.sync().expect("sync");
    let grown = resident_bytes().saturating_sub(before);
    println!("{rounds} alloc/free: {:?}, {} KiB more", started.elapsed(), grown >> 10);
    assert!(grown < 16 << 20, "{} KiB more after {rounds} rounds", grown >> 10);
    clean(&rt);
}

#[test]
fn fifty_thousand_live_allocations_of_a_page() {
    if !alone("fifty_thousand_live_allocations_of_a_page") {
        return;
    }
    let _dog = watchdog("many allocations", 120);
    let rt = open(moving().device_memory_limit(16 << 20));
    let mut count = 50_000;
    if by_blocks(&rt) {
        // Each is two mappings of the process once it is touched: the page, and what is behind it.
        let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("a number of mappings");
        count = count.min(most.trim().parse::<usize>().expect("a number") / 3);
        println!("segv-mprotect: {count} live allocations, for vm.max_map_count is {most}");
    }
    let room = rt.doctor().host.reservation_bytes / (2 << 20);
    if room < count as u64 {
        return skipped(&format!("{count} live allocations: the reservation has {room} blocks"));
    }
    let add_one = kernel(&rt, spv::ADD_ONE);
    let before = resident_bytes();
    let started = Instant::now();
    let mut all: Vec<Managed<u32>> = (0..count).map(|_| rt.alloc(WORDS).expect("alloc")).collect();
    all.iter_mut().enumerate().for_each(|(i, x)| x[0] = i as u32);
    let each = resident_bytes().saturating_sub(before) / count as u64;
    println!("{count} live allocations: {:?}, {each} bytes each", started.elapsed());
    assert!(each <= 20 << 10, "{each} bytes each");
    // Each can be launched on, one after another, at a limit that holds 256 of them.
    let launched = 1500;
    for x in all.iter_mut().step_by(count / launched) {
        rt.launch(&add_one, Grid::linear(1), (x.slice_mut(..1).write(),)).expect("launch");
    }
    for (i, x) in all.iter().enumerate().step_by(7) {
        assert_eq!(x[0], i as u32 + u32::from(i % (count / launched) == 0));
    }
    println!("{launched} of them launched on: {:?}", started.elapsed());
    drop(all);
    clean(&rt);
}

// ── at exit ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static ARRAY: OnceLock<Managed<u32>> = OnceLock::new();

#[test]
fn a_static_runtime_with_a_kernel_running_at_exit() {
    const TEST: &str = "a_static_runtime_with_a_kernel_running_at_exit";
    if role().is_some() {
        let rt = RUNTIME.get_or_init(|| open(checked()));
        let x = ARRAY.get_or_init(|| rt.alloc(1 << 16).expect("alloc"));
        let spin = kernel(rt, spv::SPIN);
        // SAFETY: nothing else uses the array.
        let access = unsafe { x.raw(AccessKind::Write, ..) };
        rt.launch(&spin, Grid::linear(1 << 16), (access, ROUNDS, 1u32 << 16)).expect("launch");
        rt.flush();
        println!("leaving");
        return;
    }
    for _ in 0..setting("VKHMM_EXITS", 3) {
        let ended = again(TEST, "exit", &[], Duration::from_secs(20));
        assert_eq!(ended.status.code(), Some(0), "{:?} after {:?}: {}", ended.status, ended.took, ended.text);
        assert!(ended.took < Duration::from_secs(8) && ended.text.contains("leaving"), "{:?}", ended.took);
    }
}

#[test]
fn exit_right_after_the_last_drop() {
    const TEST: &str = "exit_right_after_the_last_drop";
    if role().is_some() {
        let rt = open(checked());
        let mut x = rt.alloc::<u32>(4096).expect("alloc");
        rt.fill(x.overwrite(), 1).expect("fill");
        drop((x, rt));
        return;
    }
    for _ in 0..setting("VKHMM_EXITS", 8) {
        let ended = again(TEST, "exit", &[], Duration::from_secs(20));
        assert_eq!(ended.status.code(), Some(0), "{:?} after {:?}: {}", ended.status, ended.took, ended.text);
    }
}

// ── touches of what is not there ───────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn stray_touches_are_never_zeros() {
    const TEST: &str = "stray_touches_are_never_zeros";
    if let Some(role) = role() {
        let rt = open(checked());
        let mut x = rt.alloc::<u8>(3 * PAGE + 5).expect("alloc");
        x.fill(9);
        let inside = x.as_ptr();
        let target = match &*role {
            "past the end" => inside.wrapping_add(4 * PAGE),
            "far past the end" => inside.wrapping_add(100 << 20),
            "before the start" => inside.wrapping_sub(1 << 20),
            _ => {
                rt.fill(x.slice_mut(..PAGE).overwrite(), 1).expect("fill").wait().expect("wait");
                drop(x);
                std::thread::sleep(Duration::from_millis(50));
                inside
            }
        };
        let write = role == "write after free";
        // SAFETY: nobody else has this address; the touch ends this process.
        let byte = unsafe {
            if write {
                target.cast_mut().write_volatile(1);
            }
            target.read_volatile()
        };
        println!("loaded {byte}");
        return;
    }
    let rt = open(checked());
    let signal = forbidden(&rt);
    for role in ["past the end", "far past the end", "after free", "write after free"] {
        let ended = again(TEST, role, &[], Duration::from_secs(20));
        if declared(&rt) {
            // No faults: what is not owned is not mapped, or still readable memory of the reservation; never another's bytes.
            println!("declared: {role}: {:?} {}", ended.signal(), ended.text.contains("loaded 0"));
            continue;
        }
        assert_eq!(ended.signal(), Some(signal), "{role}: {:?}\n{}", ended.status, ended.text);
        assert!(!ended.text.contains("loaded"), "{role}: {}", ended.text);
    }
    if declared(&rt) {
        skipped("stray touches under declared are undefined");
    }
    clean(&rt);
}

// ── fork ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// An array with pages in every state: absent, host, shared, device; and a launch that may still run.
struct States {
    rt: Runtime,
    x: Managed<u32>,
    busy: Managed<u32>,
    launch: Launch,
}

impl States {
    fn new() -> Self {
        let rt = open(checked());
        let mut x = rt.alloc::<u32>(64 * WORDS).expect("alloc");
        let mut busy = rt.alloc::<u32>(4096).expect("alloc");
        busy.fill(1);
        x.slice_mut(..48 * WORDS).fill(5);
        rt.fill(x.slice_mut(16 * WORDS..32 * WORDS).overwrite(), 6).expect("fill").wait().expect("wait");
        x.slice(32 * WORDS..48 * WORDS).prefetch_to_device().expect("prefetch").wait().expect("wait");
        let spin = kernel(&rt, spv::SPIN);
        let launch = rt.launch(&spin, Grid::linear(4096), (busy.write(), ROUNDS, 4096u32)).expect("launch");
        rt.flush();
        Self { rt, x, busy, launch }
    }

    /// Every page is as it was, for loads, stores and launches.
    fn check(&mut self) {
        self.launch.wait().expect("wait");
        assert_ne!(self.busy[4095], 1);
        for (page, words) in self.x.chunks(WORDS).enumerate() {
            let want = [5, 6, 5, 0][page / 16];
            assert!(words.iter().all(|v| *v == want), "page {page}: {}", words[0]);
        }
        let add_one = kernel(&self.rt, spv::ADD_ONE);
        self.rt.launch(&add_one, Grid::linear(64 * WORDS), (self.x.write(),)).expect("launch");
        self.x[0] += 1;
        assert_eq!((self.x[0], self.x[16 * WORDS], self.x[63 * WORDS]), (7, 7, 1));
        clean(&self.rt);
    }
}

fn forked<T>(result: Result<T>) -> bool {
    result.is_err_and(|e: Error| e.is_forked_child())
}

/// The calls of the child that were answered wrongly, as bits.
fn every_call(s: &mut States) -> i32 {
    let first = s.x.as_ptr();
    let scale = spv::SCALE;
    let answers = [
        forked(s.rt.alloc::<u8>(1)),
        forked(s.rt.alloc_stable::<u8>(1)),
        forked(s.x.check()),
        forked(s.x.try_slice().map(|_| ())),
        forked(s.x.host()),
        forked(s.x.host_mut()),
        forked(s.x.residency()),
        forked(s.x.prefetch_to_device()),
        forked(s.x.prefetch_to_host()),
        forked(s.rt.fill(s.x.overwrite(), 1)),
        forked(s.rt.copy(s.x.slice(..8).read(), s.busy.slice_mut(..8).write())),
        // SAFETY: the shipped module is valid; no kernel comes of it here.
        forked(unsafe { s.rt.kernel(scale) }),
        forked(s.rt.sync()),
        forked(s.rt.trim(u64::MAX)),
        forked(s.rt.set_device_memory_limit(1 << 20)),
        forked(s.launch.wait()),
        forked(s.launch.wait_timeout(Duration::from_secs(1))),
        forked(s.rt.kill_pagemap(vkhmm::pagemap::PagemapId(1))),
        forked(s.rt.unregister_pagemap(vkhmm::pagemap::PagemapId(1), Duration::ZERO)),
        s.x.read_from(&mut std::io::repeat(1)).is_err(),
        s.x.write_to(&mut std::io::sink()).is_err(),
    ];
    // These cannot fail, and must not hang.
    s.rt.flush();
    let _ =
        (s.rt.stats(), s.rt.doctor().verdict(), s.rt.device_memory(), s.launch.is_done(), s.launch.elapsed());
    let _ = (
        s.rt.page_flags(first),
        s.rt.is_addressable(first),
        s.rt.pagemaps().len(),
        s.x.placement().to_string(),
        s.rt.windows(5, 4, 2).len(),
    );
    match answers.iter().position(|right| !right) {
        Some(wrong) => wrong as i32 + 1,
        None => 0,
    }
}

#[test]
fn every_call_in_a_child_says_so() {
    const TEST: &str = "every_call_in_a_child_says_so";
    if role().is_none() {
        let ended = again(TEST, "parent", &[], Duration::from_secs(40));
        return assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
    }
    let mut states = States::new();
    let ended = in_fork(|| every_call(&mut states));
    assert_eq!(ended.code(), Some(0), "the call with this number was not refused: {ended:?}");
    states.check();
}

#[test]
fn touching_in_a_child_is_a_segfault() {
    use std::os::unix::process::ExitStatusExt;
    const TEST: &str = "touching_in_a_child_is_a_segfault";
    if role().is_none() {
        let ended = again(TEST, "parent", &[], Duration::from_secs(40));
        return assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
    }
    let mut states = States::new();
    for page in [0, 16, 32, 48] {
        let ended = in_fork(|| states.x[page * WORDS] as i32);
        assert_eq!(ended.signal(), Some(SIGSEGV), "load from page {page}: {ended:?}");
        let ended = in_fork(|| {
            states.x[page * WORDS] = 9;
            0
        });
        assert_eq!(ended.signal(), Some(SIGSEGV), "store to page {page}: {ended:?}");
    }
    states.check();
}

#[test]
fn a_child_that_drops_everything_leaves_the_parent_alone() {
    const TEST: &str = "a_child_that_drops_everything_leaves_the_parent_alone";
    if role().is_none() {
        let ended = again(TEST, "parent", &[], Duration::from_secs(60));
        return assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
    }
    let mut states = States::new();
    let kernels = kernel(&states.rt, spv::ADD_ONE);
    match fork_here() {
        None => {
            let States { rt, x, busy, launch } = states;
            drop(kernels);
            drop(x);
            drop(launch);
            drop(busy);
            drop(rt);
            // Destructors and atexit handlers run, as when main returns.
            std::process::exit(0);
        }
        Some(pid) => {
            let ended = wait_for(pid);
            assert_eq!(ended.code(), Some(0), "the child's own exit code: {ended:?}");
        }
    }
    states.check();
}
