//! Ranges with a sparse buffer: address and buffer stay, only what is needed comes and goes, and where there is no such buffer the
//! reason is told.

use crate::common::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{Argument, BindTo, Config, Engine, EngineError, LaunchSpec, PlacementKind};
use vkhmm_port::Device;
use vkhmm_port::fake::{FakeExec, FakeKernel};

fn sparse() -> Setup {
    Setup { sparse: Some(1 << 30), ..Setup::default() }
}

/// Adds one to every byte of its binding, and notes the address in its push constants.
fn noting(seen: &Arc<Mutex<Vec<u64>>>) -> FakeKernel {
    let seen = Arc::clone(seen);
    FakeKernel::new(move |bindings, push, _| {
        map(bindings[0], |v| v.wrapping_add(1));
        seen.lock().unwrap().push(u64::from_ne_bytes(push[..8].try_into().unwrap()));
    })
}

/// The same bytes, as a binding and by address.
fn both(range: &Range, bytes: core::ops::Range<u64>) -> Vec<Argument<TestPorts>> {
    [BindTo::Binding, BindTo::Address(0)]
        .map(|bind| Argument {
            range: Some(Arc::clone(range)),
            bytes: bytes.clone().into(),
            access: Write,
            bind,
        })
        .into()
}

#[test]
fn the_address_never_changes_over_thousands_of_evictions() {
    within(120, || {
        let w = World::new(Setup { limit_frames: 16, blocks: 64, geometry: LARGE, ..sparse() });
        // Four times the limit, and a neighbour that pushes as well.
        let (x, y) = (w.alloc(8 * w.block()), w.alloc(2 * w.block()));
        let mut twin = vec![0_u8; x.bytes() as usize];
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut expected = Vec::new();
        let mut random = Random::new(7);
        for round in 0..1500 {
            let start = random.below(x.bytes());
            let len = 1 + random.below((10 * w.frame()).min(x.bytes() - start));
            let spec = LaunchSpec {
                kernel: Some(Arc::new(noting(&seen))),
                groups: [1; 3],
                arguments: both(&x, start..start + len),
                push: vec![0; 8],
                label: "kernel".into(),
            };
            w.engine.launch(spec).expect("a window fits");
            twin[start as usize..(start + len) as usize].iter_mut().for_each(|v| *v = v.wrapping_add(1));
            expected.push(start);
            if round % 3 == 0 {
                let at = random.below(w.block());
                w.launch(&add(1), &[(&y, at..at + w.block(), Write)]);
            }
            if round % 50 == 0 {
                assert_eq!(w.load(&x, start..start + len), twin[start as usize..(start + len) as usize]);
            }
        }
        w.rest();
        let seen = seen.lock().unwrap();
        let base = seen[0] - expected[0];
        for (address, start) in seen.iter().zip(&expected) {
            assert_eq!(*address - *start, base, "buffer and address stay");
        }
        assert_eq!(w.load_all(&x), twin);
        let stats = w.engine.stats();
        let evictions = stats.evictions_dirty + stats.evictions_clean;
        assert!(evictions > 2000, "{evictions} evictions");
        assert_eq!((stats.moved_bytes, w.device.calls().reserve, w.device.calls().buffer), (0, 2, 0));
        assert!(stats.unbound_bytes > 2000 * w.frame() && stats.bound_bytes >= stats.unbound_bytes);
        assert_eq!(w.device.frames_bound() as u64 * w.frame(), stats.bound_bytes - stats.unbound_bytes);
        w.engine.audit(|_| None).unwrap();
    });
}

#[test]
fn only_what_is_named_comes_and_resident_launches_bind_nothing() {
    let w = World::new(Setup { geometry: LARGE, ..sparse() });
    let x = w.alloc(3 * w.block());
    let at = w.block() + 2 * w.frame();
    w.launch(&set(1), &[(&x, at..at + w.frame(), Overwrite)]);
    w.rest();
    assert_eq!(
        (w.engine.stats().binds, w.engine.stats().bound_bytes),
        (1, w.frame()),
        "no home for all of it"
    );
    // Its neighbours come, it stays.
    w.launch(&set(2), &[(&x, w.block()..2 * w.block(), Write)]);
    w.rest();
    assert_eq!((w.engine.stats().binds, w.engine.stats().bound_bytes), (2, w.block()));
    let before = w.engine.stats();
    for _ in 0..20 {
        w.launch(&add(1), &[(&x, w.block()..2 * w.block(), Write)]);
    }
    w.rest();
    let since = w.engine.stats().since(&before);
    assert_eq!((since.launches_resident, since.binds, since.bound_bytes), (20, 0, 0));
    assert_eq!(w.load(&x, w.block()..2 * w.block()), vec![22; w.block() as usize]);
}

#[test]
fn what_is_given_up_is_unbound() {
    let w = World::new(sparse());
    let x = w.alloc(16 * w.frame());
    w.launch(&set(3), &[(&x, 0..x.bytes(), Overwrite)]);
    w.rest();
    assert_eq!(w.device.frames_bound(), 16);
    w.engine.set_device_memory_limit(5 * w.frame()).unwrap();
    w.rest();
    assert!(w.device.frames_bound() <= 5);
    w.engine.trim(u64::MAX).unwrap();
    w.rest();
    assert_eq!((w.device.frames_bound(), w.engine.device_memory().1), (0, 0));
    assert_eq!(w.load_all(&x), vec![3; x.bytes() as usize]);
    // Spans and sparse ranges take each other's frames.
    w.launch(&add(1), &[(&x, 0..4 * w.frame(), Write)]);
    let map = w.engine.pagemaps().remove(0);
    w.engine.kill_pagemap(map.id()).unwrap();
    w.engine.unregister_pagemap(map.id(), Duration::from_secs(5)).unwrap();
    assert_eq!((w.device.frames_bound(), w.device.frames()), (0, 0));
    assert_eq!(w.load(&x, 0..2), [4, 4]);
    w.engine.free(&x);
    until("the buffer is gone", || w.engine.stats().sparse_bytes == 0);
}

/// The buffer of a freed range goes, and with it its binds, before others get its frames.
#[test]
fn freed_ranges_in_use_go_later() {
    within(30, || {
        let w = World::new(Setup { limit_frames: 8, delay: Duration::from_millis(2), ..sparse() });
        for n in 0..40 {
            let x = w.alloc(4 * w.block());
            w.launch(&set(n), &[(&x, 0..x.bytes(), Overwrite)]);
            if n % 3 == 0 {
                w.engine.trim(w.frame()).ok();
            }
            w.engine.free(&x);
            if n % 10 == 9 {
                w.rest();
            }
        }
        w.rest();
        until("all buffers are gone", || w.engine.stats().sparse_bytes == 0);
        assert_eq!(w.device.frames_bound(), 0);
    });
}

/// What is Host again is unbound without a hold: the unbind alone names the buffer.
#[test]
fn a_buffer_goes_after_the_unbind_that_names_it() {
    within(30, || {
        let w = World::new(sparse());
        let x = w.alloc(2 * w.block());
        w.launch(&set(3), &[(&x, 0..x.bytes(), Overwrite)]);
        w.rest();
        w.store(&x, 0, &vec![4; x.bytes() as usize]);
        w.rest();
        assert!(w.device.frames_bound() > 0, "its pages are Host, its frames are not given up");
        w.device.stall(Duration::from_millis(300));
        w.engine.trim(u64::MAX).unwrap();
        w.engine.free(&x);
        assert!(w.engine.stats().sparse_bytes > 0 && w.device.frames_bound() > 0, "the device is stalled");
        until("the buffer is gone", || w.engine.stats().sparse_bytes == 0);
        assert_eq!(w.device.frames_bound(), 0);
    });
}

/// Sub-blocks between two arguments get frames, too; nobody holds them, so whoever uses them first has only the claim to wait for.
#[test]
fn whoever_uses_a_neighbour_first_waits_for_its_bind() {
    within(30, || {
        let w = World::new(Setup { geometry: LARGE, delay: Duration::from_millis(10), ..sparse() });
        let others = [0; 3].map(|_| w.alloc(w.frame()));
        let x = w.alloc(w.block());
        // Binds take their time, one after the other.
        for other in &others {
            w.engine.prefetch_to_device(other, (0..other.bytes()).into()).unwrap();
        }
        let ends = [(&x, 0..w.frame(), Read), (&x, 7 * w.frame()..8 * w.frame(), Read)];
        let both = LaunchSpec { kernel: None, ..w.spec(&look(), &ends) };
        w.engine.launch(both).unwrap();
        w.launch(&set(5), &[(&x, 3 * w.frame()..4 * w.frame(), Overwrite)]);
        w.rest();
        assert_eq!(w.engine.stats().bound_bytes, w.block() + 3 * w.frame());
        assert_eq!(w.load(&x, 4 * w.frame() - 1..4 * w.frame() + 1), [5, 0]);
    });
}

/// Copies that ride in the compute queue are over while the bind beside them waits for its turn: nothing is resident before both are.
#[test]
fn what_was_prefetched_is_resident_once_it_is_bound() {
    within(30, || {
        let w = World::new(Setup { timelines: 1, delay: Duration::from_millis(10), ..sparse() });
        let others = [0; 6].map(|_| w.alloc(w.frame()));
        let x = w.alloc(w.block());
        w.store(&x, 0, &[4; 128]);
        // Binds take their time, one after the other; their copies go together.
        for range in others.iter().chain([&x]) {
            w.engine.prefetch_to_device(range, (0..range.bytes()).into()).unwrap();
        }
        w.engine.flush();
        w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
        w.rest();
        w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
        w.rest();
        assert_eq!(w.engine.stats().launches_resident, 1);
    });
}

fn why(range: &Range) -> String {
    let (kind, why) = range.placement();
    assert_eq!(kind, PlacementKind::Span, "{why}");
    why.to_string()
}

#[test]
fn where_there_is_no_sparse_buffer_the_reason_is_told() {
    let w = World::new(Setup { sparse: Some(10 * 64), ..Setup::default() });
    let x = w.engine.alloc_stable(6 * 64 - 5, "x").unwrap();
    assert_eq!((x.placement().0, w.engine.stats().sparse_bytes), (PlacementKind::Sparse, 6 * 64));
    let y = w.alloc(5 * 64);
    assert!(why(&y).contains("are taken of"), "{}", why(&y));
    assert_eq!(w.device.calls().reserve, 1, "the driver is not asked for what is not to be had");
    match w.engine.alloc_stable(5 * 64, "z").map(drop) {
        Err(EngineError::NotStable { label, bytes, why }) => {
            assert_eq!((&*label, bytes), ("z", 320));
            assert!(why.contains("are taken of"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    w.engine.free(&x);
    assert_eq!(w.engine.stats().sparse_bytes, 0);
    let z = w.engine.alloc_stable(5 * 64, "z").unwrap();
    // In a span and in a sparse buffer, side by side.
    w.launch(&set(1), &[(&z, 0..320, Overwrite), (&y, 0..320, Overwrite)]);
    assert_eq!((w.load_all(&z), w.load_all(&y)), (vec![1; 320], vec![1; 320]));
    // The driver's own reason.
    let w = World::new(sparse());
    w.device.fail_call(1);
    let x = w.alloc(64);
    assert!(why(&x).contains("told to fail") && w.engine.stats().sparse_bytes == 0, "{}", why(&x));
    assert!(why(&World::small().alloc(64)).contains("no sparse buffers"));
    let long = w.alloc(64);
    assert_eq!(long.placement().0, PlacementKind::Sparse);
}

#[test]
fn sparse_buffers_can_be_turned_off() {
    let w = World::new(sparse());
    let config = Config { geometry: SMALL, sparse: false, in_place_bytes: 0, ..Config::default() };
    let engine: Arc<Engine<TestPorts>> =
        Engine::new(FakeExec::new(), Arc::new(w.host.clone()), Arc::new(w.device.clone()), config);
    let x = engine.alloc(64, "x").unwrap();
    assert!(why(&x).contains("turned off"));
    assert!(w.device.profile().sparse.is_some());
}
