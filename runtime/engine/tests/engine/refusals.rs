//! What the engine refuses, what it says then, and that nothing has changed; guards, limits, pagemaps and stray touches.

use crate::common::*;
use std::time::Duration;
use vkhmm_core::units::PageIndex;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{Config, EngineError, GuardKind, PlacementKind};
use vkhmm_port::fake::TouchError;

#[test]
fn residency_names_runs_and_faults_nothing_in() {
    let w = World::small();
    let x = w.alloc(3 * w.block());
    w.store(&x, 0, &[1; 128]);
    w.launch(&set(2), &[(&x, 64..128, Overwrite)]);
    w.rest();
    let faults = w.host.calls().faults;
    let runs = w.engine.residency(&x, (5..300).into()).unwrap();
    let told: Vec<_> =
        runs.iter().map(|r| (r.bytes.start, r.bytes.end, letter(r.location), r.dirty)).collect();
    assert_eq!(told, [(5, 64, 'H', false), (64, 128, 'D', true), (128, 300, '.', false)]);
    assert_eq!(w.host.calls().faults, faults);
}

#[test]
fn stray_touches_are_poisoned_and_forgotten_by_the_next_allocation() {
    within(20, || {
        let w = World::small();
        let stray = PageIndex(w.block() / w.page());
        assert_eq!(w.host.touch(stray, false), Err(TouchError::Poisoned(stray)));
        let x = w.alloc(2 * w.block() + 1);
        assert_eq!(w.load(&x, w.block()..w.block() + 3), [0; 3]);
        let beyond = PageIndex(w.page_at(&x, 2 * w.block()).0 + 1);
        assert_eq!(w.host.touch(beyond, true), Err(TouchError::Poisoned(beyond)), "past the last page");
        let page = w.page_at(&x, 0);
        w.engine.free(&x);
        assert_eq!(w.host.touch(page, true), Err(TouchError::Poisoned(page)), "after free");
        let y = w.alloc(2 * w.block() + 1);
        assert_eq!(y.offset(), x.offset());
        assert_eq!(w.load_all(&y), [0; 257]);
        assert_eq!(w.engine.stats().faults_stray, 2);
    });
}

#[test]
fn what_cannot_fit_is_refused_and_changes_nothing() {
    each_framed(|w| {
        let frames = u64::from(w.setup.limit_frames);
        let x = w.alloc((frames + 1) * w.frame());
        w.store(&x, 0, &[1; 30]);
        w.store(&x, 5 * w.block(), &[2; 30]);
        let y = w.alloc(w.block());
        w.launch(&set(3), &[(&y, 0..y.bytes(), Overwrite)]);
        w.rest();
        let before = (w.map(&x), w.map(&y), w.engine.stats().launches, w.engine.device_memory());
        let refused = w.try_launch(&add(1), &[(&x, 0..x.bytes(), Write), (&y, 0..1, Write)]);
        match refused {
            Err(EngineError::WorkingSetTooLarge { need, limit, .. }) => {
                assert!(need > limit && limit == frames * w.frame());
            }
            other => panic!("{:?}", other.map(|_| "launched")),
        }
        let after = (w.map(&x), w.map(&y), w.engine.stats().launches, w.engine.device_memory());
        assert_eq!(before, after);
        w.rest();
        w.launch(&add(1), &[(&x, 0..w.block(), Write), (&y, 0..1, Write)]);
        assert_eq!(w.load(&x, 0..2), [2; 2]);
        assert_eq!(w.load(&y, 0..2), [4, 3]);
    });
}

#[test]
fn the_limit_moves_and_trim_gives_back() {
    each_framed(|w| {
        let x = w.alloc(16 * w.frame());
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        assert_eq!(w.engine.device_memory().1, 16 * w.frame());
        let went = w.engine.trim(1).unwrap();
        assert!(went >= w.frame());
        assert_eq!(w.engine.device_memory().1, 16 * w.frame() - went);
        let in_span = x.placement().0 == PlacementKind::Span;
        assert!(!in_span || went == 16 * w.frame(), "the only span went");
        w.launch(&add(1), &[(&x, 0..8 * w.frame(), Write)]);
        let evicted = w.engine.set_device_memory_limit(8 * w.frame()).unwrap();
        let (limit, owned) = w.engine.device_memory();
        assert!(evicted > 0 && limit == 8 * w.frame() && owned <= limit && !(in_span && owned > 0));
        let refused = w.try_launch(&add(1), &[(&x, 0..9 * w.frame(), Write)]);
        assert!(matches!(refused, Err(EngineError::WorkingSetTooLarge { .. })));
        w.launch(&add(1), &[(&x, 0..8 * w.frame(), Write)]);
        w.engine.set_device_memory_limit(100 * w.frame()).unwrap();
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        let got = w.load_all(&x);
        assert_eq!((got[0], got[x.bytes() as usize - 1]), (5, 3));
    });
}

#[test]
fn a_killed_pagemap_gives_no_frames_and_can_be_taken_down() {
    each_framed(|w| {
        let x = w.alloc(2 * w.block());
        w.launch(&set(4), &[(&x, 0..x.bytes(), Overwrite)]);
        let map = w.engine.pagemaps().remove(0);
        assert!(w.engine.unregister_pagemap(map.id(), Duration::from_millis(1)).is_err(), "it is live");
        w.engine.kill_pagemap(map.id()).unwrap();
        let refused = w.try_launch(&add(1), &[(&x, 0..4, Write)]);
        assert!(matches!(refused, Err(EngineError::NoPagemap)));
        assert_eq!(w.load(&x, 0..2), [4, 4]);
        w.engine.unregister_pagemap(map.id(), Duration::from_secs(5)).unwrap();
        assert_eq!(w.device.frames(), 0);
        assert_eq!(w.load_all(&x), vec![4; x.bytes() as usize]);
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![5; x.bytes() as usize]);
    });
}

#[test]
fn requests_outside_a_range_are_refused() {
    let w = World::small();
    let x = w.alloc(100);
    let out = |r: Result<(), EngineError>| assert!(matches!(r, Err(EngineError::OutOfRange { .. })));
    out(w.try_launch(&look(), &[(&x, 0..101, Read)]).map(drop));
    out(w.engine.bring_home(&x, (90..101).into(), GuardKind::Read));
    out(w.engine.guard(&x, (101..102).into(), GuardKind::Write).map(drop));
    out(w.engine.prefetch_to_host(&x, (0..101).into()).map(drop));
    out(w.engine.prefetch_to_device(&x, (0..101).into()).map(drop));
    out(w.engine.residency(&x, (0..101).into()).map(drop));
    out(w.engine.check(&x, (0..101).into()));
    w.engine.free(&x);
    let refused = w.try_launch(&look(), &[(&x, 0..1, Read)]);
    assert!(matches!(refused, Err(EngineError::UnknownRange { argument: 0 })));
    let full = w.engine.alloc(1 << 40, "too much");
    assert!(matches!(full, Err(EngineError::OutOfAddressSpace { .. })));
}

#[test]
fn addresses_are_found_and_empty_arguments_are_null() {
    let w = World::small();
    let x = w.alloc(100);
    let base = vkhmm_port::HostMemory::base(&w.host);
    let (found, offset) = w.engine.find(base + x.offset() as usize + 99).unwrap();
    assert!(found.id() == x.id() && offset == 99);
    assert!(w.engine.find(base + x.offset() as usize + 100).is_none());
    w.launch(&look(), &[(&x, 5..5, Write)]);
    assert_eq!(w.map(&x), ".......");
    w.rest();
    assert_eq!(w.engine.stats().launches, 1);
}

#[test]
fn guards_keep_launches_away_until_dropped() {
    each(|w| {
        let x = w.alloc(2 * w.block());
        w.launch(&set(5), &[(&x, 0..x.bytes(), Overwrite)]);
        for kind in [GuardKind::Read, GuardKind::Write] {
            let guard = w.engine.guard(&x, (0..x.bytes()).into(), kind).unwrap();
            assert!(w.engine.is_home(&x, (0..4).into(), GuardKind::Read) || kind == GuardKind::Read);
            let faults = w.host.calls().faults;
            assert_eq!(w.load(&x, 0..4), [5; 4]);
            assert_eq!(w.host.calls().faults, faults);
            let refused = w.try_launch(&add(1), &[(&x, 0..4, Write)]);
            assert!(matches!(refused, Err(EngineError::Guarded { .. })));
            let refused = w.try_launch(&look(), &[(&x, 0..4, Read)]);
            assert!(matches!(refused, Err(EngineError::Guarded { .. })));
            w.engine.drop_guard(&x, (0..x.bytes()).into(), guard);
            w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
        }
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![6; x.bytes() as usize]);
    });
}

#[test]
fn many_guards_on_one_block_stop_nobody_else() {
    within(10, || {
        let w = World::small();
        let x = w.alloc(w.block());
        w.launch(&set(5), &[(&x, 0..x.bytes(), Overwrite)]);
        let guards: Vec<_> =
            (0..100).map(|_| w.engine.guard(&x, (0..16).into(), GuardKind::Read).unwrap()).collect();
        assert_eq!(w.load_all(&x), [5; 128]);
        w.launch(&add(1), &[(&x, 64..128, Write)]);
        assert_eq!(w.load(&x, 63..65), [5, 6]);
        for guard in guards {
            assert!(matches!(w.try_launch(&add(1), &[(&x, 0..16, Write)]), Err(EngineError::Guarded { .. })));
            w.engine.drop_guard(&x, (0..16).into(), guard);
        }
        w.launch(&add(1), &[(&x, 0..16, Write)]);
        assert_eq!(w.load(&x, 0..1), [6]);
    });
}

#[test]
fn default_config_is_production() {
    assert_eq!(Config::default().geometry, vkhmm_core::units::Geometry::PRODUCTION);
}
