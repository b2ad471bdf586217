//! Prefetch is a hint: it follows the launches before it, takes from nobody, and says what it left out.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vkhmm_core::advice::Side;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind, SkipReason};
use vkhmm_port::fake::FakeKernel;

/// Sets every byte once `go` says so.
fn gated(go: &Arc<AtomicBool>, value: u8) -> FakeKernel {
    let go = Arc::clone(go);
    FakeKernel::new(move |bindings, _, _| {
        until("the kernel may go on", || go.load(Ordering::Acquire));
        bindings.iter().for_each(|b| b.fill(value));
    })
}

#[test]
fn a_prefetch_home_follows_the_launch_that_writes_the_bytes() {
    each_framed(|w| {
        let go = Arc::new(AtomicBool::new(false));
        let x = w.alloc(2 * w.block());
        // The first launch takes holds; the second one, which is resident, takes none.
        for round in 0..2 {
            go.store(false, Ordering::Release);
            w.launch(&gated(&go, 7 + round), &[(&x, 0..x.bytes(), Overwrite)]);
            w.engine.flush();
            let hint = w.engine.prefetch_to_host(&x, (0..x.bytes()).into()).unwrap();
            assert!(!hint.ops().is_empty() && hint.skipped().is_empty());
            assert!(
                !w.engine.wait(&hint.ops()[0], Some(Duration::from_millis(5))).unwrap(),
                "the kernel runs"
            );
            go.store(true, Ordering::Release);
            w.arrived(&hint);
            let home = w.map(&x);
            let want = if w.setup.publish_read_only && w.setup.protect || w.declared() { 'S' } else { 'H' };
            assert!(home.chars().all(|c| c == want), "{home}");
            assert_eq!(w.engine.stats().out_prefetch_bytes, u64::from(round + 1) * x.bytes());
            assert_eq!(w.load_all(&x), vec![7 + round; x.bytes() as usize]);
            assert_eq!(w.engine.stats().out_fault_bytes, 0);
            w.rest();
        }
    });
}

#[test]
fn what_was_freed_or_discarded_meanwhile_needs_no_way_home() {
    each_framed(|w| {
        let go = Arc::new(AtomicBool::new(false));
        let (x, y) = (w.alloc(w.block()), w.alloc(w.block()));
        let ops: Vec<_> = [&x, &y].map(|r| w.launch(&gated(&go, 7), &[(r, 0..r.bytes(), Overwrite)])).into();
        w.engine.flush();
        let hints = [&x, &y].map(|r| w.engine.prefetch_to_host(r, (0..r.bytes()).into()).unwrap());
        w.engine.free(&x);
        w.engine.discard(&y, (0..y.bytes()).into()).unwrap();
        go.store(true, Ordering::Release);
        ops.iter().for_each(|op| w.wait(op));
        hints.iter().for_each(|hint| w.arrived(hint));
        w.rest();
    });
}

#[test]
fn a_batch_goes_in_one_admission() {
    each_framed(|w| {
        let ranges = [2, 1, 3].map(|blocks| w.alloc(blocks * w.block()));
        ranges.iter().for_each(|r| w.store(r, 0, &vec![1; r.bytes() as usize]));
        let parts: Vec<_> = ranges.iter().map(|r| (Arc::clone(r), (0..r.bytes()).into())).collect();
        let hint = w.engine.prefetch(&parts, Side::Device).unwrap();
        assert_eq!((hint.ops().len(), hint.moved_bytes()), (1, 6 * w.block()));
        w.arrived(&hint);
        for range in &ranges {
            assert!(w.map(range).chars().all(|c| c == 'S'), "{}", w.map(range));
        }
        let again = w.engine.prefetch(&parts, Side::Device).unwrap();
        assert_eq!(again.moved_bytes(), 0, "all of it is there");
        w.launch(&add(1), &[(&ranges[0], 0..ranges[0].bytes(), Write)]);
        let back = w.engine.prefetch(&parts, Side::Host).unwrap();
        w.arrived(&back);
        w.rest();
        assert_eq!(w.load_all(&ranges[0]), vec![2; ranges[0].bytes() as usize]);
    });
}

#[test]
fn a_hint_brings_what_there_is_room_for_and_says_the_rest() {
    for setup in framed() {
        within(20, move || {
            let frames = 3 * setup.geometry.subs_per_block();
            let w = World::new(Setup { limit_frames: frames, ..setup });
            let x = w.alloc(5 * w.block());
            w.store(&x, 0, &vec![1; x.bytes() as usize]);
            let hint = w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
            assert_eq!(hint.moved_bytes(), 3 * w.block());
            let left: Vec<_> = hint.skipped().iter().map(|s| (s.bytes, s.why)).collect();
            assert_eq!(left, [((3 * w.block()..x.bytes()).into(), SkipReason::NoRoom)]);
            assert_eq!(w.engine.stats().prefetch_skipped_bytes, 2 * w.block());
            hint.ops().iter().for_each(|op| w.wait(op));
            // A second hint takes nothing from the first.
            let again = w.engine.prefetch_to_device(&x, (4 * w.block()..x.bytes()).into()).unwrap();
            assert_eq!((again.moved_bytes(), again.skipped().len()), (0, 1));
            let map = w.map(&x);
            assert!(map[..map.len() * 3 / 5].chars().all(|c| c == 'S'), "{map}");
            // A launch takes what it needs.
            w.launch(&add(1), &[(&x, 2 * w.block()..5 * w.block(), Write)]);
            assert_eq!(w.load(&x, 0..1), [1]);
            assert_eq!(w.load(&x, x.bytes() - 1..x.bytes()), [2]);
            w.rest();
        });
    }
}

#[test]
fn a_hint_takes_nothing_that_a_launch_uses_and_never_waits() {
    for setup in framed() {
        within(20, move || {
            let frames = 2 * setup.geometry.subs_per_block();
            let w = World::new(Setup { limit_frames: frames, ..setup });
            let go = Arc::new(AtomicBool::new(false));
            let (x, y) = (w.alloc(2 * w.block()), w.alloc(w.block()));
            w.store(&y, 0, &vec![3; y.bytes() as usize]);
            w.launch(&gated(&go, 7), &[(&x, 0..x.bytes(), Overwrite)]);
            w.engine.flush();
            let evictions = |w: &World| {
                let stats = w.engine.stats();
                stats.evictions_clean + stats.evictions_dirty
            };
            let before = Instant::now();
            let hint = w.engine.prefetch_to_device(&y, (0..y.bytes()).into()).unwrap();
            assert!(before.elapsed() < Duration::from_secs(5), "it waited for the kernel");
            assert_eq!((hint.moved_bytes(), evictions(&w)), (0, 0));
            assert!(matches!(hint.skipped()[0].why, SkipReason::NoRoom | SkipReason::Busy));
            go.store(true, Ordering::Release);
            w.rest();
            // The last launch's bytes are not colder than a hint; what an earlier one used is.
            let hint = w.engine.prefetch_to_device(&y, (0..y.bytes()).into()).unwrap();
            assert_eq!((hint.moved_bytes(), evictions(&w)), (0, 0), "{:?}", hint.skipped());
            w.launch(&look(), &[(&x, 0..w.frame(), Read)]);
            w.rest();
            assert_eq!(w.load(&x, 0..1), [7]);
            w.engine.free(&x);
            until("its frames are back", || w.engine.device_memory().1 == 0);
            let hint = w.engine.prefetch_to_device(&y, (0..y.bytes()).into()).unwrap();
            w.arrived(&hint);
            assert_eq!(hint.moved_bytes(), y.bytes());
            w.rest();
        });
    }
}

#[test]
fn guards_and_a_killed_pagemap_are_reasons_and_wrong_input_is_an_error() {
    within(20, || {
        let w = World::small();
        let (x, gone) = (w.alloc(4 * w.block()), w.alloc(10));
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let kept = w.block()..2 * w.block();
        let guard = w.engine.guard(&x, kept.clone().into(), GuardKind::Read).unwrap();
        let hint = w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
        let left: Vec<_> = hint.skipped().iter().map(|s| (s.bytes, s.why)).collect();
        assert_eq!(left, [(kept.clone().into(), SkipReason::Guarded)]);
        assert_eq!(hint.moved_bytes(), 3 * w.block());
        w.engine.drop_guard(&x, kept.into(), guard);
        w.engine.free(&gone);
        for to in [Side::Host, Side::Device] {
            let both = [(Arc::clone(&x), (0..1).into()), (Arc::clone(&gone), (0..1).into())];
            let refused = w.engine.prefetch(&both, to);
            assert!(matches!(refused, Err(EngineError::UnknownRange { argument: 1 })));
            let refused = w.engine.prefetch(&[(Arc::clone(&x), (0..x.bytes() + 1).into())], to);
            assert!(matches!(refused, Err(EngineError::OutOfRange { .. })));
        }
        w.rest();
        let map = w.engine.pagemaps().remove(0);
        w.engine.kill_pagemap(map.id()).unwrap();
        let hint = w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
        assert_eq!(hint.skipped()[0].why, SkipReason::NoPagemap);
        w.device.lose();
        until("the loss is noticed", || w.engine.prefetch_to_device(&x, (0..1).into()).is_err());
        assert!(matches!(
            w.engine.prefetch_to_device(&x, (0..1).into()),
            Err(EngineError::DeviceLost { .. } | EngineError::Lost { .. })
        ));
    });
}
