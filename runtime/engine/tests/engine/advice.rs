//! Advice, discard, pins and the thrash guard over the fakes: what each changes, and that no byte is another for it.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vkhmm_core::advice::{Advice, Side};
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind, PlacementKind, SkipReason};
use vkhmm_port::fake::FakeKernel;

fn all(x: &Range) -> vkhmm_core::units::ByteRange {
    (0..x.bytes()).into()
}

#[test]
fn what_is_discarded_is_not_copied_home_and_its_neighbours_are() {
    each_framed(|w| {
        let x = w.alloc(3 * w.block());
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        // In the middle of pages: those partly inside keep what they are.
        let (from, to) = (w.page() + 3, 2 * w.block() + 5);
        let dead = 2 * w.page()..2 * w.block();
        let saved = w.engine.discard(&x, (from..to).into()).unwrap();
        assert_eq!(saved, dead.end - dead.start);
        assert_eq!(w.engine.stats().discarded_bytes, saved);
        let got = w.load_all(&x);
        for (i, byte) in got.iter().enumerate() {
            let want: &[u8] = if dead.contains(&(i as u64)) { &[0, 1] } else { &[2] };
            assert!(want.contains(byte), "byte {i} is {byte}");
        }
        assert_eq!(w.load_all(&x), got, "the same every time");
        assert_eq!(w.engine.stats().out_bytes(), x.bytes() - saved);
        // The device sees what the host sees.
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let kernel = {
            let seen = Arc::clone(&seen);
            FakeKernel::new(move |bindings, _, _| *seen.lock().unwrap() = bindings[0].to_vec())
        };
        let op = w.launch(&kernel, &[(&x, 0..x.bytes(), Read)]);
        w.wait(&op);
        assert_eq!(*seen.lock().unwrap(), got);
        assert_eq!(w.engine.discard(&x, all(&x)).unwrap(), 0, "the host has all of it");
        w.rest();
        assert_eq!(w.load_all(&x), got);
    });
}

#[test]
fn a_discard_comes_after_the_launch_that_runs_and_gives_its_frames_back() {
    each_framed(|w| {
        let go = Arc::new(AtomicBool::new(false));
        let gated = |value| {
            let go = Arc::clone(&go);
            FakeKernel::new(move |bindings, _, _| {
                until("the kernel may go on", || go.load(Ordering::Acquire));
                bindings.iter().for_each(|b| b.fill(value));
            })
        };
        let x = w.alloc(2 * w.block());
        let before = w.launch(&gated(5), &[(&x, 0..x.bytes(), Overwrite)]);
        w.engine.flush();
        w.engine.discard(&x, all(&x)).unwrap();
        go.store(true, Ordering::Release);
        w.store(&x, 0, &[9; 7]);
        let got = w.load_all(&x);
        w.wait(&before);
        assert_eq!(got[..7], [9; 7]);
        assert_eq!(w.load_all(&x), got, "the launch before writes nothing after");
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        w.rest();
        w.engine.discard(&x, all(&x)).unwrap();
        w.rest();
        assert_eq!(w.engine.device_memory().1, 0, "nothing is in the way, so its frames are back");
        assert_eq!(w.engine.stats().out_evict_bytes, 0);
        let outside = w.engine.discard(&x, (0..x.bytes() + 1).into());
        assert!(matches!(outside, Err(EngineError::OutOfRange { .. })));
    });
}

/// Where R cannot show a page read-only, coming home ends the device's copy.
#[test]
fn a_hint_takes_no_pinned_page_from_the_device() {
    for setup in framed() {
        within(20, move || {
            let w = World::new(setup);
            let x = w.alloc(w.block());
            w.launch(&set(5), &[(&x, 0..x.bytes(), Overwrite)]);
            let half = w.block() / 2;
            let pin = w.engine.pin(&x, (0..half).into(), Side::Device).unwrap();
            w.rest();
            let hint = w.engine.prefetch_to_host(&x, all(&x)).unwrap();
            w.rest();
            assert_ne!(w.location(&x, 0), Location::Host, "pinned to the device");
            let kept = w.location(&x, 0) == Location::Device;
            assert_eq!(hint.skipped().iter().any(|s| s.why == SkipReason::Guarded), kept);
            assert_ne!(w.location(&x, half), Location::Device, "not pinned");
            w.engine.unpin(&x, (0..half).into(), pin);
            w.engine.prefetch_to_host(&x, all(&x)).unwrap();
            w.rest();
            assert_ne!(w.location(&x, 0), Location::Device, "unpinned, it goes");
            assert_eq!(w.load_all(&x), vec![5; x.bytes() as usize]);
        });
    }
}

#[test]
fn a_host_pin_refuses_launches_and_a_device_pin_keeps_frames() {
    for setup in framed() {
        within(20, move || {
            let per_block = setup.geometry.subs_per_block();
            let w = World::new(Setup { limit_frames: 4 * per_block, ..setup });
            let (x, y) = (w.alloc(2 * w.block()), w.alloc(4 * w.block()));
            w.store(&x, 0, &vec![1; x.bytes() as usize]);
            let home = w.engine.pin(&x, all(&x), Side::Host).unwrap();
            let refused = w.try_launch(&look(), &[(&x, 0..1, Read)]);
            assert!(matches!(refused, Err(EngineError::Guarded { .. })));
            let hint = w.engine.prefetch_to_device(&x, all(&x)).unwrap();
            assert!(hint.skipped().iter().all(|s| s.why == SkipReason::Guarded) && hint.moved_bytes() == 0);
            w.store(&x, 3, &[4]);
            w.engine.unpin(&x, all(&x), home);

            let pin = w.engine.pin(&x, all(&x), Side::Device).unwrap();
            w.rest();
            assert!(w.map(&x).chars().all(|c| c == 'S'), "{}", w.map(&x));
            assert!(
                w.engine.attributes(&x, all(&x)).unwrap().iter().all(|a| a.pinned_device && !a.pinned_host)
            );
            let calls = w.engine.stats().in_bytes();
            // More than is left: refused, with what pins hold; what fits beside it goes.
            match w.try_launch(&look(), &[(&y, 0..y.bytes(), Read)]) {
                Err(EngineError::WorkingSetTooLarge { held, .. }) => assert_eq!(held, 2 * w.block()),
                other => panic!("{:?}", other.map(drop)),
            }
            for i in 0..6 {
                let from = i % 3 * w.block();
                w.launch(&set(i as u8), &[(&y, from..from + w.block(), Overwrite)]);
            }
            w.engine.trim(u64::MAX).unwrap();
            w.rest();
            assert!(w.map(&x).chars().all(|c| c == 'S'), "pinned pages were evicted: {}", w.map(&x));
            // Touches stand: a load takes a duplicate, a store its page, and the frame stays.
            w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
            assert_eq!(w.load(&x, 3..5), [5, 2]);
            w.store(&x, 0, &[7]);
            assert_eq!(w.location(&x, 0), Location::Host);
            assert_eq!(w.engine.trim(u64::MAX).unwrap() % w.block(), 0);
            w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
            assert_eq!((w.load(&x, 0..1), w.load(&x, 3..4)), (vec![8], vec![6]));
            assert!(w.engine.stats().in_bytes() > calls);
            w.engine.unpin(&x, all(&x), pin);
            assert!(w.engine.attributes(&x, all(&x)).unwrap().iter().all(|a| !a.pinned_device));
            w.engine.trim(u64::MAX).unwrap();
            w.rest();
            assert_eq!(w.engine.device_memory().1, 0, "unpinned, it goes");
            // A pin outlives its range, and a pin that does not fit changes nothing.
            let pin = w.engine.pin(&x, (0..1).into(), Side::Device).unwrap();
            w.rest();
            w.engine.free(&x);
            until("its frames are back", || w.engine.device_memory().1 == 0);
            w.engine.unpin(&x, (0..1).into(), pin);
            let big = w.alloc(5 * w.block());
            let refused = w.engine.pin(&big, all(&big), Side::Device);
            assert!(matches!(refused, Err(EngineError::WorkingSetTooLarge { held: 0, .. })));
            assert!(w.engine.attributes(&big, all(&big)).unwrap().iter().all(|a| !a.pinned_device));
            w.rest();
        });
    }
}

#[test]
fn a_launch_around_a_pinned_part_is_refused_where_it_would_have_to_move() {
    for setup in spans() {
        within(20, move || {
            let per_block = setup.geometry.subs_per_block();
            let w = World::new(Setup { limit_frames: 4 * per_block, ..setup });
            // More than the limit: no home for all of it.
            let x = w.alloc(5 * w.block());
            let pin = w.engine.pin(&x, (w.block()..2 * w.block()).into(), Side::Device).unwrap();
            let refused = w.try_launch(&look(), &[(&x, 0..3 * w.block(), Read)]);
            assert!(matches!(refused, Err(EngineError::PinnedApart { .. })));
            w.engine.unpin(&x, (w.block()..2 * w.block()).into(), pin);
            w.launch(&look(), &[(&x, 0..3 * w.block(), Read)]);
            w.rest();
        });
    }
}

/// Touches are answered by messages; asked about in their threads first; and answered there, if the CPU reads what they need.
fn answerers() -> [Setup; 3] {
    let messages = Setup { geometry: LARGE, ..Setup::default() };
    let asked = Setup { in_thread: true, ..messages.clone() };
    [messages, asked.clone(), Setup { kind: MemoryKind::DeviceCoherent, ..asked }]
}

#[test]
fn advice_says_how_much_comes_home_and_whose_frames_go_first() {
    for setup in answerers() {
        within(20, move || advised(&World::new(Setup { limit_frames: 24, ..setup })));
    }
}

fn advised(w: &World) {
    let ranges = [0; 3].map(|_| w.alloc(w.block()));
    let [plain, host, device] = &ranges;
    w.engine.advise(host, all(host), Advice::PreferredLocation(Some(Side::Host))).unwrap();
    w.engine.advise(device, all(device), Advice::PreferredLocation(Some(Side::Device))).unwrap();
    let home = |range: &Range| {
        w.launch(&set(1), &[(range, 0..range.bytes(), Overwrite)]);
        w.rest();
        w.load(range, 0..1);
    };
    home(host);
    until("the whole block is home", || !w.map(host).contains('D'));
    home(plain);
    home(device);
    w.rest();
    assert_eq!(w.map(device), ["S".repeat(8), "D".repeat(56)].concat(), "its sub-block alone");
    assert_eq!(w.engine.trim(1).unwrap(), w.block());
    assert_eq!(w.map(host), "H".repeat(64), "the host's goes first");
    assert_eq!(w.engine.trim(1).unwrap(), w.block());
    assert_eq!(w.map(plain), "H".repeat(64), "then what nothing was said of");
    assert_eq!(w.location(device, w.block() - 1), Location::Device);
    // Read-mostly: of what the device has, a store takes its own sub-block alone.
    w.launch(&set(2), &[(plain, 0..plain.bytes(), Overwrite)]);
    w.rest();
    w.load(plain, 0..1);
    w.engine.advise(plain, all(plain), Advice::ReadMostly(true)).unwrap();
    // It follows the load: the policy would bring two.
    w.store(plain, w.frame(), &[3]);
    w.rest();
    let map = w.map(plain);
    assert_eq!(map, ["S", "H", "D", "D", "D", "D", "D", "D"].map(|c| c.repeat(8)).concat());
    // What was said can be asked, and taken back.
    let half = (0..w.block() / 2).into();
    w.engine.advise(plain, half, Advice::ReadMostly(false)).unwrap();
    w.engine.prefetch_to_host(plain, (w.block() - 1..w.block()).into()).unwrap();
    let told = w.engine.attributes(plain, all(plain)).unwrap();
    let shown: Vec<_> =
        told.iter().map(|a| (a.bytes, a.advised.read_mostly, a.advised.last_prefetch)).collect();
    let last = w.block() - w.page();
    assert_eq!(
        shown,
        [
            (half, false, None),
            ((w.block() / 2..last).into(), true, None),
            ((last..w.block()).into(), true, Some(Side::Host)),
        ]
    );
    w.rest();
    let told = w.engine.attributes(plain, all(plain)).unwrap();
    let places = told.iter().map(|a| a.places.host + a.places.shared + a.places.device);
    assert_eq!(places.sum::<u64>(), w.block());
    w.engine.free(plain);
    let refused = w.engine.advise(plain, half, Advice::ReadMostly(true));
    assert!(matches!(refused, Err(EngineError::UnknownRange { .. })));
    let outside = w.engine.advise(host, (0..w.block() + 1).into(), Advice::ReadMostly(true));
    assert!(matches!(outside, Err(EngineError::OutOfRange { .. })));
}

#[test]
fn accessed_by_works_in_place_before_the_first_use() {
    let base = Setup { in_place: Some(0), ..Setup::default() };
    for setup in [base.clone(), Setup { sparse: Some(1 << 30), ..base }] {
        within(20, move || {
            let w = World::new(setup);
            let (x, y, z) = (w.alloc(2 * w.block()), w.alloc(2 * w.block()), w.alloc(w.block()));
            for range in [&x, &y, &z] {
                w.engine.advise(range, all(range), Advice::AccessedBy(true)).unwrap();
                assert_eq!(range.placement().0, PlacementKind::InPlace);
            }
            // Taken back for a part, it is no longer said of all of it.
            w.engine.advise(&z, (0..1).into(), Advice::AccessedBy(false)).unwrap();
            assert_ne!(z.placement().0, PlacementKind::InPlace);
            w.store(&x, 0, &vec![1; x.bytes() as usize]);
            w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
            w.launch(&copy_plus_one(), &[(&x, 0..w.block(), Read), (&y, 0..w.block(), Write)]);
            assert_eq!(w.load(&y, 0..2), [3, 3]);
            let stats = w.engine.stats();
            assert_eq!(stats.in_bytes() + stats.out_bytes() + stats.zeroed_bytes, 0, "nothing moves");
            assert_eq!(stats.launches_in_place, 2);
            // Used as it was, it stays so.
            w.engine.advise(&x, all(&x), Advice::AccessedBy(false)).unwrap();
            assert_eq!(x.placement().0, PlacementKind::InPlace);
            w.launch(&add(1), &[(&z, 0..z.bytes(), Write)]);
            w.engine.advise(&z, all(&z), Advice::AccessedBy(true)).unwrap();
            let told = w.engine.attributes(&z, all(&z)).unwrap();
            assert!(told.iter().all(|a| a.advised.accessed_by && !a.in_place));
            assert_eq!(w.load(&z, 0..1), [1]);
            let pin = w.engine.pin(&x, all(&x), Side::Device).unwrap();
            w.engine.unpin(&x, all(&x), pin);
            [x, y, z].iter().for_each(|range| w.engine.free(range));
            until("all is back", || w.imports.count() == 0 && w.engine.stats().sparse_bytes == 0);
        });
    }
    // Where the device cannot, it is only noted, with the reason.
    let w = World::small();
    let x = w.alloc(w.block());
    w.engine.advise(&x, all(&x), Advice::AccessedBy(true)).unwrap();
    let (kind, why) = x.placement();
    assert!(kind == PlacementKind::Span && why.contains("although advised"), "{why}");
}

#[test]
fn a_block_that_is_taken_back_and_forth_is_guarded() {
    for setup in answerers() {
        within(20, move || taken_back_and_forth(&World::new(setup)));
    }
}

fn taken_back_and_forth(w: &World) {
    let x = w.alloc(2 * w.block());
    let rounds = std::cell::Cell::new(0_u32);
    // Time is real here: slow rounds count for nothing.
    until("the guard begins", || {
        rounds.set(rounds.get() + 1);
        let n = rounds.get() as u8;
        w.store(&x, 0, &[n]);
        w.launch(&add(1), &[(&x, 0..w.block(), Write)]);
        if w.setup.in_thread {
            w.rest(); // a touch that has to wait is answered by its message
        }
        assert_eq!(w.load(&x, 0..1), [n.wrapping_add(1)]);
        let hint = w.engine.prefetch_to_device(&x, all(&x)).unwrap();
        let guarded = hint.skipped().iter().any(|s| s.why == SkipReason::Thrashing);
        if guarded {
            assert_eq!(hint.skipped()[0].bytes, (0..w.block()).into());
        }
        guarded
    });
    assert!(rounds.get() >= 3, "{rounds:?}");
    let stats = w.engine.stats();
    assert!(stats.thrash_guards >= 1 && stats.thrash_events >= 3, "{stats:?}");
    until("it expires", || {
        let told = w.engine.attributes(&x, all(&x)).unwrap();
        assert!(!told.last().unwrap().thrash_guarded, "the other block is calm");
        !told[0].thrash_guarded
    });
    assert_eq!(w.engine.thrash_guarded_blocks(), 0);
    w.rest();
}

#[test]
fn a_guard_for_reading_may_be_pinned_beside() {
    within(20, || {
        let w = World::small();
        let x = w.alloc(w.block());
        let pins = [0; 2].map(|_| w.engine.pin(&x, all(&x), Side::Host).unwrap());
        let guard = w.engine.guard(&x, all(&x), GuardKind::Write).unwrap();
        w.engine.unpin(&x, all(&x), pins[0]);
        w.engine.drop_guard(&x, all(&x), guard);
        assert!(matches!(w.try_launch(&look(), &[(&x, 0..1, Read)]), Err(EngineError::Guarded { .. })));
        w.engine.unpin(&x, all(&x), pins[1]);
        w.launch(&look(), &[(&x, 0..1, Read)]);
        w.rest();
    });
}
