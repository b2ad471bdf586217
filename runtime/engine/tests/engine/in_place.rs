//! Ranges that kernels use in place: nothing moves, holds alone keep order, and a loss takes exactly what was being written.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind, PlacementKind};
use vkhmm_port::FaultMode;
use vkhmm_port::fake::{FakeKernel, TouchError};

fn unified() -> Setup {
    Setup { kind: MemoryKind::UnifiedMemory, in_place: Some(0), ..Setup::default() }
}

/// A kernel that does nothing until `open`.
fn waits_for(open: &Arc<AtomicBool>) -> FakeKernel {
    let open = Arc::clone(open);
    FakeKernel::new(move |bindings, _, _| {
        while !open.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_micros(50));
        }
        bindings.iter().for_each(|b| map(*b, |v| v.wrapping_add(1)));
    })
}

#[test]
fn nothing_moves() {
    for setup in [unified(), Setup { in_place: Some(u64::MAX), ..Setup::default() }] {
        for faults in [FaultMode::Full, FaultMode::Declared] {
            for strict in [false, true] {
                let setup = Setup { faults, strict, ..setup.clone() };
                within(20, move || {
                    let w = World::new(setup);
                    let x = w.alloc(5 * w.block() + 3);
                    w.store(&x, 0, &vec![1; x.bytes() as usize]);
                    for round in 0..20 {
                        let at = round * w.page() + round % 5;
                        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
                        w.launch(&look(), &[(&x, at..x.bytes(), Read)]);
                        w.launch(&set(7), &[(&x, at..at + 2 * w.page(), Overwrite)]);
                        w.store(&x, at, &[round as u8]);
                        let got = w.load_all(&x);
                        assert_eq!(got[at as usize..at as usize + 3], [round as u8, 7, 7]);
                    }
                    w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
                    assert!(w.engine.prefetch_to_host(&x, (0..x.bytes()).into()).unwrap().ops().is_empty());
                    w.rest();
                    let (stats, calls) = (w.engine.stats(), w.device.calls());
                    assert_eq!(stats.in_bytes() + stats.out_bytes() + stats.zeroed_bytes, 0, "{stats}");
                    assert_eq!((calls.bytes_in, calls.bytes_out, calls.frames, calls.grow), (0, 0, 0, 0));
                    assert_eq!((calls.import, calls.in_place), (1, 1), "imported once, whole");
                    assert_eq!((stats.launches, stats.launches_in_place), (60, 60));
                    assert_eq!(stats.imported_bytes, x.bytes().next_multiple_of(w.page()));
                    assert_eq!(w.engine.device_memory().1, 0, "no frame is taken");
                    assert!(w.map(&x).chars().all(|c| c == 'H'), "{}", w.map(&x));
                    w.engine.free(&x);
                    until("the import is gone", || w.imports.count() == 0);
                    assert_eq!(w.engine.stats().imported_bytes, 0);
                });
            }
        }
    }
}

#[test]
fn small_ranges_are_worked_on_where_they_are_and_large_ones_move() {
    let w = World::new(Setup { in_place: Some(100), ..Setup::default() });
    let (small, large) = (w.alloc(100), w.alloc(101));
    w.store(&small, 0, &[3; 100]);
    w.store(&large, 0, &[3; 101]);
    w.launch(&add(1), &[(&small, 0..100, Write), (&large, 0..101, Write)]);
    assert_eq!(small.placement().0, PlacementKind::InPlace);
    assert_eq!(large.placement().0, PlacementKind::Span);
    w.rest();
    assert_eq!((w.map(&small), w.map(&large)), ("HHHHHHH".into(), "DDDDDDD".into()));
    // Only the pages needed are imported, not the block.
    assert_eq!(w.imports.count(), 2);
    assert_eq!(w.engine.stats().imported_bytes, 112 + 128);
    let moved = w.engine.stats().in_bytes();
    assert_eq!(moved, 112, "the large one's pages");
    assert_eq!((w.load_all(&small), w.load_all(&large)), (vec![4; 100], vec![4; 101]));
}

#[test]
fn loads_go_on_beside_readers_and_stores_wait_for_them() {
    within(20, || {
        let w = World::new(unified());
        let x = w.alloc(w.block());
        w.store(&x, 0, &[5; 128]);
        let open = Arc::new(AtomicBool::new(false));
        let sum = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (gate, seen) = (Arc::clone(&open), Arc::clone(&sum));
        let kernel = FakeKernel::new(move |bindings, _, _| {
            while !gate.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(50));
            }
            *seen.lock().unwrap() = bindings[0].to_vec();
        });
        let op = w.launch(&kernel, &[(&x, 0..64, Read)]);
        w.engine.flush();
        assert_eq!(w.load_all(&x), [5; 128], "loads do not wait");
        assert_eq!(w.engine.stats().faults_parked, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| w.store(&x, 3, &[9]));
            until("the store waits", || w.engine.stats().faults_parked == 1);
            assert_eq!(w.load(&x, 0..16), [5; 16], "and nothing is stored meanwhile");
            w.store(&x, 100, &[7]); // beside what is read
            open.store(true, Ordering::Release);
        });
        w.wait(&op);
        assert_eq!(*sum.lock().unwrap(), [5; 64]);
        assert_eq!(w.load(&x, 2..5), [5, 9, 5]);
    });
}

#[test]
fn nobody_sees_what_is_being_written() {
    within(20, || {
        let w = World::new(unified());
        let x = w.alloc(w.block());
        w.store(&x, 0, &[1; 128]);
        let open = Arc::new(AtomicBool::new(false));
        let op = w.launch(&waits_for(&open), &[(&x, 0..64, Write)]);
        w.engine.flush();
        assert_eq!(w.load(&x, 64..128), [1; 64], "beside it everything goes on");
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| w.load(&x, 0..1));
            until("the load waits", || w.engine.stats().faults_parked == 1);
            assert!(!w.engine.is_home(&x, (0..1).into(), GuardKind::Read));
            open.store(true, Ordering::Release);
            assert_eq!(reader.join().unwrap(), [2]);
        });
        w.wait(&op);
    });
}

#[test]
fn readers_run_beside_readers_and_writers_follow_in_order() {
    within(20, || {
        let w = World::new(unified());
        let (x, y) = (w.alloc(w.block()), w.alloc(w.block()));
        w.store(&x, 0, &[1; 128]);
        w.launch(&add(1), &[(&x, 0..128, Write)]);
        w.rest();
        let barriers = w.device.calls().barriers;
        let open = Arc::new(AtomicBool::new(false));
        // The first keeps the queue busy, so that the others share a batch.
        w.launch(&waits_for(&open), &[(&y, 0..1, Write)]);
        for _ in 0..3 {
            w.launch(&look(), &[(&x, 0..128, Read)]);
        }
        w.launch(&add(1), &[(&x, 0..64, Write)]);
        w.launch(&add(1), &[(&x, 64..128, Write)]);
        w.launch(&add(1), &[(&x, 32..96, Write)]);
        open.store(true, Ordering::Release);
        assert_eq!(w.load_all(&x), [vec![3; 32], vec![4; 64], vec![3; 32]].concat());
        w.rest();
        let needed = w.device.calls().barriers - barriers;
        assert!(
            needed <= 2,
            "{needed} barriers: readers beside readers and writers of other bytes need none"
        );
    });
}

#[test]
fn a_refused_import_means_frames_for_life_and_says_why() {
    let w = World::new(Setup { import_limit: 128, ..unified() });
    let (x, y) = (w.alloc(w.block()), w.alloc(w.block() + 1));
    w.store(&y, 0, &[4; 129]);
    w.launch(&add(1), &[(&x, 0..128, Write), (&y, 0..129, Write)]);
    assert_eq!(x.placement().0, PlacementKind::InPlace);
    let (kind, why) = y.placement();
    assert_eq!(kind, PlacementKind::Span);
    assert!(why.contains("not in place") && why.contains("the limit of 128"), "{why}");
    w.rest();
    assert_eq!(w.map(&y), "DDDDDDDDD");
    assert_eq!((w.load_all(&x), w.load_all(&y)), (vec![1; 128], vec![5; 129]));
    // Room for the import comes too late.
    w.engine.free(&x);
    until("the import is gone", || w.imports.count() == 0);
    w.launch(&add(1), &[(&y, 0..129, Write)]);
    assert_eq!(y.placement().0, PlacementKind::Span);
    assert_eq!(w.load_all(&y), [6; 129]);

    let w = World::new(unified());
    for call in 1..=2 {
        let x = w.alloc(10);
        w.device.fail_call(call);
        w.launch(&set(3), &[(&x, 0..10, Overwrite)]);
        let (kind, why) = x.placement();
        assert!(kind == PlacementKind::Span && why.contains("told to fail"), "call {call}: {why}");
        assert_eq!(w.load_all(&x), [3; 10]);
        // For copies it may be imported all the same.
        assert_eq!(w.engine.stats().imported_bytes, 128);
        w.engine.free(&x);
        until("the import is gone", || w.imports.count() == 0);
        assert_eq!(w.engine.stats().imported_bytes, 0);
    }
}

#[test]
fn what_is_stable_is_said_at_once() {
    let w = World::new(Setup { import_limit: 128, ..unified() });
    let x = w.engine.alloc_stable(128, "kept").expect("the limit allows it");
    assert_eq!(w.imports.count(), 1, "imported at once");
    match w.engine.alloc_stable(1, "other") {
        Err(EngineError::NotStable { label, bytes: 1, why }) => {
            assert!(&*label == "other" && why.contains("the limit of 128"), "{why}");
        }
        other => panic!("{:?}", other.map(|_| "stable")),
    }
    w.engine.free(&x);
    w.engine.alloc_stable(1, "other").expect("there is room now");
    let refused = World::small().engine.alloc_stable(1, "no way");
    assert!(matches!(refused, Err(EngineError::NotStable { .. })));
}

#[test]
fn a_loss_takes_what_was_being_written_and_nothing_else() {
    within(20, || {
        let w = World::new(unified());
        let x = w.alloc(2 * w.block());
        w.store(&x, 0, &[1; 256]);
        let done = w.launch(&add(1), &[(&x, 0..32, Write)]);
        w.wait(&done);
        let open = Arc::new(AtomicBool::new(false));
        // Running, behind it in the queue, in the open batch; read and written.
        w.launch(&waits_for(&open), &[(&x, 32..48, Write)]);
        w.launch(&look(), &[(&x, 48..128, Read)]);
        w.launch(&set(4), &[(&x, 130..170, Overwrite)]);
        w.device.lose();
        open.store(true, Ordering::Release);
        until("the loss is settled", || {
            matches!(w.engine.check(&x, (32..48).into()), Err(EngineError::Lost { .. }))
                && w.engine.who_is_busy() == "no operation is open"
        });
        let map: String = w.map(&x);
        assert_eq!(map, "HHXHHHHHXXXHHHHH");
        assert_eq!(w.load(&x, 0..32), [2; 32], "what was over keeps its bytes");
        assert_eq!(w.load(&x, 48..128), [1; 80], "what was read keeps its bytes");
        assert_eq!(w.load(&x, 176..256), [1; 80]);
        let page = w.page_at(&x, 32);
        assert_eq!(w.host.touch(page, false), Err(TouchError::Poisoned(page)));
        // The device may still write there: the address is not used again while it exists.
        w.engine.free(&x);
        assert_ne!(w.alloc(w.block()).offset(), x.offset());
    });
}

#[test]
fn a_range_is_reclaimed_after_its_last_launch() {
    within(20, || {
        let w = World::new(unified());
        let x = w.alloc(w.block());
        let open = Arc::new(AtomicBool::new(false));
        let op = w.launch(&waits_for(&open), &[(&x, 0..128, Write)]);
        w.engine.flush();
        w.engine.free(&x);
        let y = w.alloc(w.block());
        assert_ne!(y.offset(), x.offset());
        assert_eq!(w.imports.count(), 1, "a kernel works on it");
        open.store(true, Ordering::Release);
        w.wait(&op);
        until("the import is gone", || w.imports.count() == 0);
        until("the address is free", || w.alloc(w.block()).offset() == x.offset());
    });
}

#[test]
fn frames_are_not_needed() {
    let w = World::new(Setup { limit_frames: 1, ..unified() });
    let x = w.alloc(10 * w.block());
    w.launch(&add(3), &[(&x, 0..x.bytes(), Write)]);
    assert_eq!(w.load_all(&x), vec![3; x.bytes() as usize]);
    assert_eq!((w.engine.trim(1 << 20).unwrap(), w.device.frames()), (0, 0));
    assert_eq!(w.map(&x).chars().filter(|c| *c == 'H').count(), 80);
    assert_eq!(w.location(&x, 0), Location::Host);
}
