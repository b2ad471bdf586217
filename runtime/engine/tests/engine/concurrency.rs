//! Many threads at once: nobody starves, nobody waits for what has nothing to do with him, and what is counted is right.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_port::fake::FakeKernel;

#[test]
fn launches_over_the_same_ranges_in_opposite_order_end() {
    for import in [true, false] {
        within(60, move || {
            // Room for one launch; each names both ranges.
            let w = World::new(Setup { limit_frames: 8, import, ..Setup::default() });
            let (x, y) = (w.alloc(4 * w.block()), w.alloc(4 * w.block()));
            w.store(&x, 0, &[0; 512]);
            std::thread::scope(|scope| {
                for t in 0..4_u64 {
                    let (w, x, y) = (&w, &x, &y);
                    scope.spawn(move || {
                        let (a, b) = if t % 2 == 0 { (x, y) } else { (y, x) };
                        for round in 0..1000_u64 {
                            let at = (round + t) % 2 * 256;
                            w.launch(&add(1), &[(a, at..at + 256, Write), (b, at..at + 256, Write)]);
                        }
                    });
                }
            });
            let sums = |r| w.load_all(r).iter().map(|v| u64::from(*v)).sum::<u64>();
            // 4000 launches, half of them on each half: 2000 mod 256 everywhere.
            assert_eq!((sums(&x), sums(&y)), (512 * (2000 % 256), 512 * (2000 % 256)));
            w.rest();
        });
    }
}

#[test]
fn a_reader_is_served_against_four_launching_threads() {
    within(60, || {
        let w = World::small();
        let x = w.alloc(w.block());
        let over = AtomicBool::new(false);
        let launches = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        w.wait(&w.launch(&add(1), &[(&x, 0..16, Write)]));
                        launches.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let mut all = 0;
            for _ in 0..100 {
                let before = launches.load(Ordering::Relaxed);
                w.load(&x, 0..1);
                // Those that were in flight, and those that raced with the touch's message on a loaded machine.
                let passed = launches.load(Ordering::Relaxed) - before;
                assert!(passed < 1000, "{passed} launches went first");
                all += passed;
            }
            assert!(all < 2000, "{all} launches went before 100 loads");
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(u64::from(w.load(&x, 0..1)[0]), launches.load(Ordering::Relaxed) % 256);
    });
}

#[test]
fn unrelated_touches_do_not_wait_for_a_slow_kernel() {
    within(60, || {
        let kind = MemoryKind::DeviceCoherent;
        let w = World::new(Setup { kind, timelines: 1, import: false, limit_frames: 60, ..Setup::default() });
        let (x, y) = (w.alloc(8 * w.block()), w.alloc(8 * w.block()));
        w.launch(&set(3), &[(&y, 0..y.bytes(), Overwrite)]);
        w.rest();
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let slow = FakeKernel::new(move |bindings, _, _| {
            std::thread::sleep(Duration::from_millis(700));
            bindings[0].fill(5);
            flag.store(true, Ordering::SeqCst);
        });
        w.launch(&slow, &[(&x, 0..x.bytes(), Overwrite)]);
        w.engine.flush();
        std::thread::scope(|scope| {
            for t in 0..64 {
                let (w, x, done) = (&w, &x, &done);
                scope.spawn(move || {
                    assert_eq!(w.load(x, t * 16..t * 16 + 1), [5]);
                    assert!(done.load(Ordering::SeqCst), "a touch of the kernel's page waits for it");
                });
            }
            until("the touches are parked", || w.engine.stats().faults_parked > 50);
            assert_eq!(w.load_all(&y), vec![3; y.bytes() as usize]);
            assert!(!done.load(Ordering::SeqCst), "the scan came after the kernel");
            assert!(w.engine.stats().path_cpu_bytes >= y.bytes());
        });
    });
}

/// A world whose queue is busy for a while, so that launches gather in the open batch.
fn busy() -> (World, Range, Range) {
    let age = Duration::from_secs(5);
    let w = World::new(Setup { delay: Duration::from_millis(30), batch_age: age, ..Setup::default() });
    let (x, y) = (w.alloc(2 * w.block()), w.alloc(2 * w.block()));
    for r in [&x, &y] {
        w.launch(&set(0), &[(r, 0..256, Overwrite)]);
    }
    w.rest();
    w.launch(&add(1), &[(&x, 0..256, Write)]);
    (w, x, y)
}

#[test]
fn resident_launches_share_submits_and_conflicts_alone_get_barriers() {
    within(30, || {
        let (w, x, y) = busy();
        let before = w.engine.stats();
        w.launch(&add(1), &[(&x, 0..256, Write)]);
        w.launch(&add(1), &[(&y, 0..256, Write)]);
        assert_eq!(w.engine.stats().since(&before).barriers, 0, "no conflict, no barrier");
        w.launch(&add(1), &[(&x, 0..256, Write)]);
        assert_eq!(w.engine.stats().since(&before).barriers, 1, "store after store");
        w.launch(&look(), &[(&y, 0..256, Read)]);
        w.launch(&look(), &[(&y, 0..256, Read)]);
        assert_eq!(w.engine.stats().since(&before).barriers, 1, "two loads do not conflict");
        w.launch(&add(1), &[(&y, 0..256, Write)]);
        let s = w.engine.stats().since(&before);
        assert_eq!((s.barriers, s.launches, s.launches_resident, s.submits), (2, 6, 6, 0), "{s}");
        assert_eq!((w.load(&x, 0..1), w.load(&y, 0..1)), (vec![3], vec![2]));
    });
    within(30, || {
        let (w, x, _) = busy();
        let before = w.engine.stats();
        for _ in 0..100 {
            w.launch(&add(1), &[(&x, 0..256, Write)]);
        }
        let s = w.engine.stats().since(&before);
        assert_eq!(s.launches_resident, 100);
        assert!(s.submits <= 3, "{} submits", s.submits);
        assert_eq!(w.load(&x, 255..256), [101]);
    });
}

#[test]
fn a_batch_left_alone_is_submitted_soon() {
    within(30, || {
        let w = World::new(Setup { delay: Duration::from_millis(20), ..Setup::default() });
        let x = w.alloc(w.block());
        w.launch(&set(1), &[(&x, 0..128, Overwrite)]);
        w.rest();
        w.launch(&add(1), &[(&x, 0..128, Write)]);
        let op = w.launch(&add(1), &[(&x, 0..128, Write)]);
        let start = Instant::now();
        until("nobody flushes, and it is over", || op.status() == vkhmm_engine::OpStatus::Done);
        assert!(start.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn resident_launches_race_with_touches_evictions_and_each_other() {
    for setup in combinations() {
        within(30, move || {
            let w = World::new(setup);
            let (x, y) = (w.alloc(2 * w.block()), w.alloc(2 * w.block()));
            let count = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for t in 0..3 {
                    let (w, x, y, count) = (&w, &x, &y, &count);
                    let first = FakeKernel::new(|b, _, _| map(b[0], |v| v.wrapping_add(1)));
                    scope.spawn(move || {
                        for i in 0..100 {
                            w.launch(&first, &[(x, 0..x.bytes(), Write), (y, 0..8, Read)]);
                            count.fetch_add(1, Ordering::Relaxed);
                            if (i + t) % 30 == 0 {
                                w.engine.trim(1).expect("alive");
                            }
                        }
                    });
                }
                let (w, x) = (&w, &x);
                if !w.declared() {
                    scope.spawn(move || {
                        for i in 0..200 {
                            w.load(x, i % x.bytes()..i % x.bytes() + 1);
                        }
                    });
                }
            });
            assert_eq!(w.load_all(&x), vec![(count.load(Ordering::Relaxed) % 256) as u8; x.bytes() as usize]);
            w.rest();
        });
    }
}
