//! Touches that are answered in the threads that made them: what can be answered so is, all else comes as a message, and blocks are
//! shown whole where R is best changed so.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_engine::AccessKind::{Read, Write};
use vkhmm_port::fake::{FakeKernel, Mapping};

fn coherent() -> Setup {
    Setup { in_thread: true, kind: MemoryKind::DeviceCoherent, geometry: LARGE, ..Setup::default() }
}

/// Everything that `act` touches is answered in this thread.
fn at_once(w: &World, what: &str, act: impl FnOnce()) {
    let (before, messages) = (w.engine.stats(), w.host.calls().faults);
    act();
    let (done, faults) = (w.engine.stats().since(&before), w.host.calls().faults - messages);
    assert_eq!((faults, done.faults_parked), (0, 0), "{what}: messages, and those parked");
    assert!(done.faults_in_thread > 0, "{what}: nothing was answered in its thread");
    assert_eq!(done.faults_in_thread, done.faults_read + done.faults_write, "{what}: counted twice");
}

/// The launch is over, and the completion thread has seen it.
fn done(w: &World, op: &Operation) {
    w.wait(op);
    w.rest();
}

#[test]
fn what_needs_no_wait_is_answered_in_the_thread() {
    let w = World::new(coherent());
    let (block, page) = (w.block(), w.page());
    let x = w.alloc(2 * block);
    at_once(&w, "birth", || w.store(&x, 0, &vec![1; 2 * block as usize]));
    w.host.zap(w.page_at(&x, 0));
    at_once(&w, "a mapping dropped behind us", || assert_eq!(w.load(&x, 0..1), [1]));
    done(&w, &w.launch(&add(1), &[(&x, 0..2 * block, Write)]));
    at_once(&w, "a load from the device", || assert_eq!(w.load(&x, 0..1), [2]));
    assert_eq!(w.location(&x, 0), Location::Shared);
    w.host.zap(w.page_at(&x, 0));
    at_once(&w, "a load of a duplicate", || assert_eq!(w.load(&x, 0..1), [2]));
    at_once(&w, "a store to a duplicate", || w.store(&x, 0, &[9]));
    assert_eq!(w.location(&x, 0), Location::Host);
    at_once(&w, "a store to the device's", || w.store(&x, block + 5 * page, &[7]));
    let stats = w.engine.stats();
    assert_eq!(stats.path_cpu_bytes, stats.out_fault_bytes, "{stats}");
    assert!(stats.out_fault_bytes > 0, "{stats}");
    done(&w, &w.launch(&add(1), &[(&x, 0..2 * block, Write)]));
    let mut want = vec![3; 2 * block as usize];
    (want[0], want[(block + 5 * page) as usize]) = (10, 8);
    at_once(&w, "all of it", || assert_eq!(w.load_all(&x), want));
}

#[test]
fn what_has_to_wait_comes_as_a_message() {
    for setup in [coherent(), Setup { kind: MemoryKind::DevicePrivate, ..coherent() }] {
        let private = setup.kind == MemoryKind::DevicePrivate;
        let w = World::new(setup);
        let x = w.alloc(w.block());
        w.store(&x, 0, &vec![1; w.block() as usize]);
        let open = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&open);
        let slow = FakeKernel::new(move |bindings, _, _| {
            while !gate.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(50));
            }
            bindings.iter().for_each(|b| map(*b, |v| v + 1));
        });
        // The second launch takes no hold: only its ticket keeps the touch away.
        let ops =
            [w.launch(&slow, &[(&x, 0..w.block(), Write)]), w.launch(&slow, &[(&x, 0..w.block(), Write)])];
        let before = w.engine.stats();
        std::thread::scope(|scope| {
            let touch = scope.spawn(|| w.load(&x, 0..1));
            until("the touch is parked", || w.engine.stats().since(&before).faults_parked > 0);
            assert!(!touch.is_finished());
            open.store(true, Ordering::Release);
            assert_eq!(touch.join().unwrap(), [3]);
        });
        ops.iter().for_each(|op| done(&w, op));
        let before = w.engine.stats();
        assert_eq!(w.load_all(&x), vec![3; w.block() as usize]);
        let by_message = w.engine.stats().since(&before).faults_parked > 0;
        assert_eq!(by_message, private, "the CPU reads this memory, or does not");
    }
}

/// Nor does a handler thread make an operation of what it can copy itself; one would be made, kept and looked for at its end.
#[test]
fn what_needs_no_wait_makes_no_operation() {
    let w = World::new(Setup { in_thread: false, plain: true, ..coherent() });
    let (blocks, page) = (8, w.page());
    let x = w.alloc(blocks * w.block());
    let launched = || {
        let op = w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        done(&w, &op);
        op.number()
    };
    launched();
    let ops_of = |touch: &dyn Fn()| {
        let first = launched();
        touch();
        launched() - first
    };
    let none = ops_of(&|| {});
    let before = w.engine.stats();
    let some = ops_of(&|| {
        for block in 0..blocks {
            assert_eq!(w.load(&x, block * w.block()..block * w.block() + 1), [4]);
            w.store(&x, block * w.block() + w.frame() + page, &[7]);
        }
    });
    let touches = w.engine.stats().since(&before);
    assert_eq!((touches.faults_read, touches.faults_write), (blocks, blocks), "{touches}");
    assert_eq!(touches.faults_parked + touches.faults_in_thread, 0, "{touches}");
    assert_eq!(touches.path_cpu_bytes, 2 * blocks * w.frame(), "{touches}");
    assert_eq!(some, none, "operations between two launches, with touches and without");
    let mut want = vec![5; x.bytes() as usize];
    (0..blocks).for_each(|block| want[(block * w.block() + w.frame() + page) as usize] = 8);
    assert_eq!(w.load_all(&x), want);
}

#[test]
fn a_stray_touch_is_poisoned_by_a_message() {
    let w = World::new(coherent());
    let x = w.alloc(w.page());
    let free = vkhmm_core::units::PageIndex((x.offset() + 5 * w.block()) / w.page());
    assert!(w.host.touch(free, false).is_err());
    assert_eq!((w.engine.stats().faults_stray, w.engine.stats().faults_in_thread), (1, 0));
}

#[test]
fn nobody_asks_an_engine_that_has_stopped() {
    let w = World::new(coherent());
    let x = w.alloc(w.block());
    w.store(&x, 0, &[1]);
    let engine = Arc::downgrade(&w.engine);
    let host = w.host.clone();
    w.engine.free(&x);
    drop(x);
    drop(w);
    until("the resolver has let go of the engine", || engine.strong_count() == 0);
    assert_eq!(host.mapping(vkhmm_core::units::PageIndex(0)), Mapping::Absent);
}

#[test]
fn ranges_come_and_go_under_touches() {
    let w = World::new(coherent());
    let (over, keep) = (AtomicBool::new(false), w.alloc(w.block()));
    std::thread::scope(|scope| {
        let (w, over, keep) = (&w, &over, &keep);
        scope.spawn(move || {
            while !over.load(Ordering::Acquire) {
                w.host.zap(w.page_at(keep, 0));
                w.load(keep, 0..1);
                // Whoever owns it just now, if anybody does.
                let _ = w.host.touch(w.page_at(keep, w.block()), false);
            }
        });
        for _ in 0..300 {
            let x = w.alloc(2 * w.block());
            w.store(&x, w.block(), &[1]);
            w.engine.free(&x);
        }
        over.store(true, Ordering::Release);
    });
    w.engine.free(&keep);
    until("all ranges are back", || w.engine.leftovers().ranges == 0);
    assert_eq!(w.host.populated_pages(), 0);
}

#[test]
fn where_r_is_best_changed_by_blocks_a_touch_shows_its_block() {
    for in_thread in [false, true] {
        let w = World::new(Setup { by_block: true, in_thread, ..coherent() });
        let (block, page) = (w.block(), w.page());
        let x = w.alloc(8 * block);
        let touch_each = |what: &str, write: bool| {
            let before = w.host.calls();
            for b in (0..8).rev() {
                let at = b * block + 37 * page;
                if write {
                    w.store(&x, at, &[b as u8])
                } else {
                    assert_eq!(w.load(&x, at..at + 1)[0], b as u8 + 1)
                }
            }
            assert_eq!(w.host.calls().publish - before.publish, 8, "{what}: a call for each block");
            let shown = if write { Mapping::ReadWrite } else { Mapping::ReadOnly };
            assert!(
                (0..8 * block / page).all(|p| w.host.mapping(w.page_at(&x, p * page)) == shown),
                "{what}"
            );
        };
        touch_each("birth", true);
        done(&w, &w.launch(&add(1), &[(&x, 0..8 * block, Write)]));
        touch_each("loads from the device", false);
        assert!(w.map(&x).chars().all(|c| c == 'S'), "{}", w.map(&x));
        touch_each("stores to duplicates", true);
        assert!(w.map(&x).chars().all(|c| c == 'H'), "{}", w.map(&x));
        done(&w, &w.launch(&look(), &[(&x, 3 * block..4 * block, Read)]));
        let before = w.engine.stats();
        w.store(&x, 3 * block, &[1]);
        assert_eq!(w.engine.stats().since(&before).out_fault_bytes, 0);
        // A store beside what a launch is reading in place, or holds, stays beside it: only free pages come along.
        assert_eq!(w.location(&x, 3 * block + 63 * page), Location::Host);
    }
}
