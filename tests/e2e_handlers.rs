//! Handlers never wait, admission is first come first served, and a CPU reader is not starved: on the real ports.

mod common;

use common::{checked, kernel, open, spv};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vkhmm::{AccessKind, Grid, MemoryKind, Runtime};

/// Whether touches fault here. Under `declared` slices are made, not touched, and raw pointers are stale by contract.
fn faults(rt: &Runtime) -> bool {
    let faults = rt.doctor().host.chosen.name() != "declared";
    if !faults {
        println!("not applicable under `declared`: nothing faults there");
    }
    faults
}

#[test]
fn a_scan_ends_while_256_threads_wait_for_a_long_kernel() {
    // On DeviceCoherent memory the CPU reads frames itself, so the only queue may be busy.
    let rt = open(checked().memory_kind(MemoryKind::DeviceCoherent));
    if !faults(&rt) {
        return;
    }
    let (spin, add) = (kernel(&rt, spv::SPIN), kernel(&rt, spv::ADD_ONE));
    let words = 1 << 20;
    let mut busy = rt.alloc::<u32>(words).unwrap();
    let mut other = rt.alloc::<u32>(4 * words).unwrap();
    other.fill(1);
    rt.launch(&add, Grid::linear(4 * words), (other.write(),)).unwrap().wait().unwrap();
    // How long the machine takes for one round of every word decides how many make about two seconds.
    let start = Instant::now();
    rt.launch(&spin, Grid::linear(words), (busy.write(), 100_u32, words as u32)).unwrap().wait().unwrap();
    let rounds = (100.0 * 2.0 / start.elapsed().as_secs_f64()).clamp(100.0, 30_000.0) as u32;

    let long = rt.launch(&spin, Grid::linear(words), (busy.write(), rounds, words as u32)).unwrap();
    rt.flush();
    let page = 1024;
    let touched = AtomicU64::new(0);
    let scanned = std::thread::scope(|scope| {
        let (busy, touched, long) = (&busy, &touched, &long);
        for thread in 0..256 {
            scope.spawn(move || {
                std::hint::black_box(busy[thread * page]);
                assert!(long.is_done(), "a touch was answered before the kernel was done");
                touched.fetch_add(1, Ordering::Relaxed);
            });
        }
        // Let them park.
        std::thread::sleep(Duration::from_millis(200));
        let sum: u64 = other.iter().map(|w| u64::from(*w)).sum();
        (sum, long.is_done())
    });
    assert_eq!(scanned.0, 2 * 4 * words as u64, "the scan read wrong data");
    assert!(!scanned.1, "the scan of unrelated data waited for the long kernel");
    assert_eq!(touched.into_inner(), 256);
    let waits = rt.waits();
    println!("{waits:?}");
    let ours = waits.iter().find(|w| w.label.contains("e2e_handlers.rs")).expect("the touches waited");
    assert!(ours.time >= Duration::from_millis(200), "{ours:?}");
    assert_eq!(rt.validation_messages(), Vec::<String>::new());
}

#[test]
fn launches_in_opposite_order_under_a_limit_that_fits_one_all_end() {
    let frame = 65536;
    let rt = open(checked().device_memory_limit(2 * frame as u64).strict_io(false));
    let bump = kernel(&rt, spv::BUMP);
    let add = kernel(&rt, spv::COPY);
    let words = frame / 4;
    let a = rt.alloc::<u32>(words).unwrap();
    let b = rt.alloc::<u32>(words).unwrap();
    let rounds = 2_500;
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (rt, a, b, bump, add) = (&rt, &a, &b, &bump, &add);
            scope.spawn(move || {
                for round in 0..rounds {
                    // SAFETY: nobody touches the elements until the threads have ended.
                    let (first, second) = unsafe {
                        let (x, y) = if thread % 2 == 0 { (a, b) } else { (b, a) };
                        (x.raw(AccessKind::Read, ..), y.raw(AccessKind::Write, ..))
                    };
                    if round % 16 == 0 {
                        // Alone, so that spans of both come and go.
                        rt.launch(bump, Grid::linear(words), (second, 0_u32, 1_u32)).unwrap();
                        rt.trim(frame as u64).unwrap();
                    } else {
                        rt.launch(add, Grid::linear(words), (first, second)).unwrap();
                    }
                }
            });
        }
    });
    rt.sync().unwrap();
    println!("{}", rt.stats());
    assert_eq!(rt.stats().launches, 4 * rounds as u64);
    assert_eq!(rt.validation_messages(), Vec::<String>::new());
}

#[test]
fn a_reader_is_served_against_four_launching_threads() {
    let rt = open(checked().strict_io(false));
    if !faults(&rt) {
        return;
    }
    let bump = kernel(&rt, spv::BUMP);
    let x = rt.alloc::<u32>(1024).unwrap();
    let stop = AtomicBool::new(false);
    let launches = AtomicU64::new(0);
    let answers = std::thread::scope(|scope| {
        for _ in 0..4 {
            let (rt, x, bump, stop, launches) = (&rt, &x, &bump, &stop, &launches);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // SAFETY: the reader's touches are meant to wait for these launches.
                    let access = unsafe { x.raw(AccessKind::Write, ..) };
                    rt.launch(bump, Grid::linear(1024), (access, 0_u32, 1_u32)).unwrap();
                    launches.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(2);
        let (mut answers, mut last) = (0_u64, 0_u32);
        while Instant::now() < end {
            // SAFETY: a volatile load of mapped memory; it waits for whatever launch has the page.
            let now = unsafe { std::ptr::read_volatile(x.as_ptr()) };
            assert!(now >= last, "the page went back in time: {last} then {now}");
            last = now;
            answers += 1;
        }
        stop.store(true, Ordering::Relaxed);
        answers
    });
    rt.sync().unwrap();
    let launched = launches.into_inner();
    println!("{answers} answers against {launched} launches");
    assert_eq!(u64::from(x[0]), launched, "an update was lost");
    assert!(answers * 3 >= launched.min(300), "{answers} answers against {launched} launches");
    assert_eq!(rt.validation_messages(), Vec::<String>::new());
}
