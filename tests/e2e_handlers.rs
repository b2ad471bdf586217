//! Handlers never wait, admission is first come first served, and a CPU reader is not starved: on the real ports.

mod common;

use common::{
    SUB, WORDS, checked, clean, declared, kernel, moving, open, setting, skipped, spv, timed_kernel, watchdog,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vkhmm::{AccessKind, Builder, Error, Grid, Managed, MemoryError, MemoryKind};

const RAW: &str = "raw touches beside launches mean nothing under declared";

/// 256 threads wait for pages of a long kernel; another array on the device is read meanwhile.
#[test]
fn a_scan_ends_while_256_threads_wait_for_a_long_kernel() {
    const THREADS: usize = 256;
    let _dog = watchdog("no waiting handlers", 90);
    // On DeviceCoherent memory the CPU reads frames itself, so the only queue may be busy.
    let rt = open(checked().memory_kind(MemoryKind::DeviceCoherent));
    if declared(&rt) {
        return skipped(RAW);
    }
    let (spin, add) = (timed_kernel(&rt, spv::SPIN), kernel(&rt, spv::ADD_ONE));
    let words = THREADS * 4 * WORDS;
    let mut busy = rt.alloc::<u32>(words).expect("alloc");
    let mut other = rt.alloc::<u32>(4 * words).expect("alloc");
    rt.fill(other.overwrite(), 11).expect("fill");
    rt.launch(&add, Grid::linear(4 * words), (other.write(),)).expect("launch").wait().expect("wait");
    // How long the machine takes for one round of every word decides how many make about two seconds.
    let start = Instant::now();
    let short = rt.launch(&spin, Grid::linear(words), (busy.write(), 100_u32, words as u32));
    short.expect("launch").wait().expect("wait");
    let rounds = (100.0 * 2.0 / start.elapsed().as_secs_f64()).clamp(100.0, 30_000.0) as u32;

    let long = rt.launch(&spin, Grid::linear(words), (busy.write(), rounds, words as u32)).expect("launch");
    rt.flush();
    let touched = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (busy, touched, long) = (&busy, &touched, &long);
        for thread in 0..THREADS {
            scope.spawn(move || {
                let at = thread * 4 * WORDS;
                if thread % 2 == 0 {
                    std::hint::black_box(busy[at]);
                } else {
                    // SAFETY: a raw load that is meant to wait for the kernel.
                    unsafe { busy.as_ptr().add(at).read_volatile() };
                }
                assert!(long.is_done(), "a touch was answered before the kernel was done");
                touched.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Let them park.
        std::thread::sleep(Duration::from_millis(200));
        let started = Instant::now();
        let good = other.iter().all(|w| *w == 12);
        let (took, over) = (started.elapsed(), long.is_done());
        println!("scan {took:?}; the kernel {}", if over { "was over" } else { "still ran" });
        assert!(good, "the scan read wrong data");
        assert!(!over, "the scan of unrelated data ({took:?}) waited for the long kernel");
    });
    assert_eq!(touched.into_inner(), THREADS as u64);
    assert!(matches!(long.wait(), Ok(())) && !matches!(long.elapsed(), None | Some(Duration::ZERO)));
    let waits = rt.waits();
    println!("{waits:?}");
    let ours = waits.iter().find(|w| w.label.contains("e2e_handlers.rs")).expect("the touches waited");
    assert!(ours.time >= Duration::from_millis(200), "{ours:?}");
    assert!(!matches!(rt.trim(1), Err(Error::Memory(MemoryError::DeviceLost { .. }))));
    clean(&rt);
}

/// Four threads name the same arrays in opposite orders; the limit fits one launch at a time.
fn opposite_orders(arrays: usize, access: AccessKind, strict: bool) {
    let rounds = setting("VKHMM_ADMISSION_ROUNDS", 2_500) as usize;
    let rt = open(moving().device_memory_limit(2 * SUB as u64).strict_io(strict));
    let (bump, copy) = (kernel(&rt, spv::BUMP), kernel(&rt, spv::COPY));
    let words = SUB / 4;
    let arrays: Vec<Managed<u32>> = (0..arrays).map(|_| rt.alloc(words).expect("alloc")).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (rt, arrays, bump, copy) = (&rt, &arrays, &bump, &copy);
            scope.spawn(move || {
                for round in 0..rounds {
                    let pair = (&arrays[round % arrays.len()], &arrays[(round + 1) % arrays.len()]);
                    let (from, to) = if thread % 2 == 0 { pair } else { (pair.1, pair.0) };
                    let alone = round % 16 == 0;
                    // SAFETY: nobody touches the elements until the threads have ended; the launches are ordered by what they
                    // declare.
                    let (first, second) = unsafe {
                        let whole = if alone { AccessKind::Write } else { access };
                        (from.raw(AccessKind::Read, ..), to.raw(whole, ..))
                    };
                    let launched = if alone {
                        // So that spans of all come and go.
                        rt.launch(bump, Grid::linear(words), (second, 0_u32, 1_u32))
                    } else {
                        rt.launch(copy, Grid::linear(words), (first, second))
                    };
                    if let Err(error) = launched {
                        panic!("thread {thread}, round {round}: {error}");
                    }
                    if alone {
                        rt.trim(SUB as u64).expect("trim");
                    }
                }
            });
        }
    });
    rt.sync().expect("sync");
    println!("{}", rt.stats());
    assert_eq!(rt.stats().launches, 4 * rounds as u64);
    for (index, array) in arrays.iter().enumerate() {
        // Every kernel leaves an array of equal words equal.
        assert!(array.iter().all(|word| *word == array[0]), "array {index} is of several launches");
    }
    clean(&rt);
}

#[test]
fn launches_in_opposite_orders_under_a_limit_that_fits_one_all_end() {
    let _dog = watchdog("opposite orders", 180);
    opposite_orders(2, AccessKind::Write, false);
    // Twice what the device holds.
    opposite_orders(4, AccessKind::Overwrite, true);
}

/// The reader of a page that four threads launch on without end is served, and nothing is lost.
fn a_reader_against_launchers(builder: Builder, strict: bool) {
    const LAUNCHERS: usize = 4;
    let rt = open(builder.strict_io(strict));
    if declared(&rt) {
        return skipped(RAW);
    }
    let bump = kernel(&rt, spv::BUMP);
    let x = rt.alloc::<u32>(WORDS).expect("alloc");
    let stop = AtomicBool::new(false);
    let (launched, answers) = std::thread::scope(|scope| {
        let (rt, x, bump, stop) = (&rt, &x, &bump, &stop);
        let launchers: Vec<_> = (0..LAUNCHERS as u32)
            .map(|owner| {
                scope.spawn(move || {
                    let mut done = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        // SAFETY: each launcher has words of its own; the reader only looks, and is meant to wait.
                        let access = unsafe { x.raw(AccessKind::Write, ..) };
                        let arguments = (access, owner, LAUNCHERS as u32);
                        rt.launch(bump, Grid::linear(WORDS / LAUNCHERS), arguments).expect("launch");
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_secs(2);
        let (mut answers, mut last) = (0_usize, [0_u32; LAUNCHERS]);
        while Instant::now() < end {
            let owner = answers % LAUNCHERS;
            // SAFETY: a volatile load of mapped memory; it waits for whatever launch has the page.
            let now = unsafe { x.as_ptr().add(owner).read_volatile() };
            assert!(now >= last[owner], "the page went back in time: {} then {now}", last[owner]);
            last[owner] = now;
            answers += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<u32> = launchers.into_iter().map(|l| l.join().expect("launcher")).collect();
        (counts, answers)
    });
    rt.sync().expect("sync");
    let all: u32 = launched.iter().sum();
    println!("{}, strict_io({strict}): {answers} answers against {launched:?} launches", x.placement());
    for (word, value) in x.iter().enumerate() {
        assert_eq!(*value, launched[word % LAUNCHERS], "word {word}: an update was lost; {launched:?}");
    }
    assert!(answers >= 100, "{answers} answers against {all} launches");
    assert!(answers * 3 >= all.min(300) as usize, "{answers} answers against {all} launches");
    clean(&rt);
}

#[test]
fn a_reader_is_served_against_four_launching_threads() {
    let _dog = watchdog("fairness", 90);
    for (builder, strict) in [(moving(), false), (moving(), true), (checked(), false)] {
        // The page of the last one is used in place, where it can be.
        a_reader_against_launchers(builder, strict);
    }
}
