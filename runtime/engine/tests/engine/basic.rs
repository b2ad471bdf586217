//! Each flow once, alone: what a first user of the engine would try.

use crate::common::*;
use std::time::Duration;
use vkhmm_core::pagemap::Location;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind};

#[test]
fn first_touch_is_zeros_and_stores_stay() {
    each(|w| {
        let x = w.alloc(5 * w.block() + 3);
        assert_eq!(w.map(&x).trim_matches('.'), "");
        assert_eq!(w.load(&x, w.block()..w.block() + 5), [0; 5]);
        w.store(&x, 7, b"hello");
        assert_eq!(w.load(&x, 6..13), *b"\0hello\0");
        assert_eq!(w.location(&x, 7), Location::Host);
    });
}

#[test]
fn a_launch_is_seen_by_the_next_touch() {
    each(|w| {
        let x = w.alloc(3 * w.block());
        w.store(&x, 0, &vec![5; 3 * w.block() as usize]);
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![6; x.bytes() as usize]);
        for round in 0..5 {
            w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
            w.store(&x, w.page(), &[round]);
        }
        assert_eq!(w.load(&x, 0..1), [11]);
        assert_eq!(w.load(&x, w.page()..w.page() + 2), [4, 11]);
    });
}

#[test]
fn fresh_memory_is_zeros_on_the_device_too() {
    each(|w| {
        let x = w.alloc(2 * w.block() - 5);
        w.launch(&add(3), &[(&x, 0..x.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![3; x.bytes() as usize]);
        let (y, z) = (w.alloc(w.block()), w.alloc(w.block()));
        w.launch(&copy_plus_one(), &[(&y, 0..y.bytes(), Read), (&z, 0..z.bytes(), Overwrite)]);
        assert_eq!(w.load_all(&z), vec![1; z.bytes() as usize]);
        assert_eq!(w.load_all(&y), vec![0; y.bytes() as usize]);
        assert_eq!(w.engine.stats().zeroed_bytes > 0, !w.in_place(&x) || !w.in_place(&y));
    });
}

#[test]
fn reading_duplicates_and_a_store_ends_the_duplicate() {
    let w = World::small();
    let x = w.alloc(w.block());
    w.store(&x, 0, &[9; 128]);
    let op = w.launch(&look(), &[(&x, 0..128, Read)]);
    w.wait(&op);
    assert_eq!(w.map(&x), "SSSSSSSS");
    let faults = w.host.calls().faults;
    assert_eq!(w.load(&x, 0..128), [9; 128]);
    assert_eq!(w.host.calls().faults, faults, "a duplicated page is read without a fault");
    w.store(&x, 17, &[1]);
    assert_eq!(w.map(&x), "HHHHSSSS", "its sub-block loses the duplicate, no other");
    let before = w.engine.stats();
    w.launch(&add(1), &[(&x, 0..128, Write)]);
    assert_eq!(w.load(&x, 16..19), [10, 2, 10]);
    let moved = w.engine.stats().since(&before);
    assert_eq!(moved.in_launch_bytes, 64, "half of it was there already");
}

#[test]
fn an_overwrite_copies_nothing_in_and_keeps_neighbours() {
    each(|w| {
        let x = w.alloc(w.block());
        let page = w.page();
        w.store(&x, 0, &vec![7; x.bytes() as usize]);
        let before = w.engine.stats();
        w.launch(&set(1), &[(&x, 0..2 * page, Overwrite)]);
        assert_eq!(w.engine.stats().since(&before).in_bytes(), 0);
        let (a, b) = (3 * page + 5, 5 * page - 2);
        w.launch(&set(2), &[(&x, a..b, Overwrite)]);
        let mut twin = vec![7; x.bytes() as usize];
        twin[..2 * page as usize].fill(1);
        twin[a as usize..b as usize].fill(2);
        assert_eq!(w.load_all(&x), twin);
    });
}

#[test]
fn an_overwrite_that_ends_with_the_allocation_copies_nothing_in() {
    let w = World::small();
    let x = w.alloc(w.block() + 20);
    w.store(&x, 0, &[7; 148]);
    w.launch(&set(1), &[(&x, 0..148, Overwrite)]);
    w.rest();
    assert_eq!(w.engine.stats().in_bytes(), 0);
    assert_eq!(w.load_all(&x), [1; 148]);
}

#[test]
fn arguments_may_share_pages_and_ranges() {
    each(|w| {
        let x = w.alloc(2 * w.block());
        let page = w.page();
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let half = page / 2;
        // Two arguments in one page, one range twice, and a read of what is written.
        w.launch(&add(1), &[(&x, 0..half, Write), (&x, half..page, Overwrite)]);
        w.launch(
            &add(1),
            &[(&x, page..2 * page, Write), (&x, w.block()..w.block() + half, Write), (&x, 0..4, Write)],
        );
        let got = w.load_all(&x);
        assert_eq!(got[..4], [3; 4]);
        assert_eq!(got[4..page as usize], vec![2; page as usize - 4]);
        assert_eq!(got[page as usize..2 * page as usize], vec![2; page as usize]);
        assert_eq!(got[w.block() as usize], 2);
    });
}

#[test]
fn eviction_makes_room_and_loses_nothing() {
    for setup in framed() {
        within(20, move || {
            let w = World::new(Setup { limit_frames: 2 * setup.geometry.subs_per_block(), ..setup });
            let arrays: Vec<_> = (0..5).map(|_| w.alloc(w.block())).collect();
            for (i, x) in arrays.iter().enumerate() {
                w.store(x, 0, &vec![i as u8; x.bytes() as usize]);
            }
            for _ in 0..3 {
                for x in &arrays {
                    w.launch(&add(10), &[(x, 0..x.bytes(), Write)]);
                }
            }
            for (i, x) in arrays.iter().enumerate() {
                assert_eq!(w.load_all(x), vec![i as u8 + 30; x.bytes() as usize], "array {i}");
            }
            let (limit, owned) = w.engine.device_memory();
            assert!(owned <= limit);
            let stats = w.engine.stats();
            assert!(stats.evictions_dirty > 0 && stats.refault_bytes > 0, "{stats}");
            w.rest();
        });
    }
}

#[test]
fn evicting_clean_pages_copies_nothing_home() {
    let w = World::limited(4);
    let (x, y) = (w.alloc(2 * w.block()), w.alloc(2 * w.block()));
    w.store(&x, 0, &[1; 256]);
    w.store(&y, 0, &[1; 256]);
    w.launch(&look(), &[(&x, 0..256, Read)]);
    w.launch(&look(), &[(&y, 0..256, Read)]);
    w.rest();
    let stats = w.engine.stats();
    assert_eq!((stats.out_bytes(), stats.evictions_dirty), (0, 0));
    assert!(stats.evictions_clean > 0);
    assert_eq!(w.map(&x), "H".repeat(16));
}

/// Half a block a launch, so that the cheapest victim often shares the launch's block, and has to go home first: alone.
#[test]
fn a_victim_in_a_launchs_own_block_takes_nothing_else_with_it() {
    each_in_spans(|w| {
        let parts = 6;
        w.engine.set_device_memory_limit((parts - 1) * w.frame()).unwrap();
        let x = w.alloc(parts * w.frame());
        w.store(&x, 0, &vec![0; x.bytes() as usize]);
        for part in (0..4 * parts).map(|launch| launch % parts) {
            let op = w.launch(&add(1), &[(&x, part * w.frame()..(part + 1) * w.frame(), Write)]);
            w.wait(&op);
        }
        // Every part once, then one or two a round; all of them each time if the others went, too.
        let fetched = w.engine.stats().in_bytes() / w.frame();
        assert!(fetched <= 2 * parts, "{fetched} parts of {parts} were fetched in four rounds");
        assert_eq!(w.load_all(&x), vec![4; x.bytes() as usize]);
    });
}

#[test]
fn a_span_that_must_move_moves_by_device_copy() {
    each_in_spans(|w| {
        // Larger than the limit, so it has no home span: a second argument beside the first moves it.
        let frames = w.setup.limit_frames;
        let x = w.alloc(u64::from(frames) * w.frame() * 5 / 4);
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let quarter = u64::from(frames) / 8 * w.frame();
        w.launch(&add(1), &[(&x, 0..quarter, Write)]);
        w.launch(&add(1), &[(&x, 0..2 * quarter, Write)]);
        let mut twin = vec![1; x.bytes() as usize];
        twin[..2 * quarter as usize].fill(2);
        twin[..quarter as usize].fill(3);
        assert_eq!(w.load_all(&x), twin);
        assert_eq!(w.engine.stats().moved_bytes, quarter);
    });
}

#[test]
fn a_span_that_cannot_move_comes_home_first() {
    for setup in combinations() {
        within(20, move || {
            let w = World::new(Setup { limit_frames: 4 * setup.geometry.subs_per_block(), ..setup });
            let x = w.alloc(6 * w.block());
            w.store(&x, 0, &vec![1; x.bytes() as usize]);
            for (from, to) in [(0, 3), (1, 5), (2, 4), (0, 4), (3, 6)] {
                w.launch(&add(1), &[(&x, from * w.block()..to * w.block(), Write)]);
            }
            let got = w.load_all(&x);
            let counts = [3, 4, 5, 5, 3, 2];
            for (i, n) in counts.into_iter().enumerate() {
                let block = w.block() as usize;
                assert_eq!(got[i * block..(i + 1) * block], vec![n; block], "block {i}");
            }
            w.rest();
        });
    }
}

#[test]
fn prefetches_move_and_lose_nothing() {
    each_framed(|w| {
        let x = w.alloc(2 * w.block() + 5);
        w.store(&x, 3, &[1; 20]);
        let hint = w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
        w.rest();
        w.arrived(&hint);
        assert!(w.map(&x).chars().all(|c| c == 'S'), "{}", w.map(&x));
        let stats = w.engine.stats();
        assert!(stats.in_prefetch_bytes > 0 && stats.in_launch_bytes == 0);
        // At once after a prefetch, with its copies in flight.
        let y = w.alloc(2 * w.block());
        w.store(&y, 0, &[4; 20]);
        w.engine.prefetch_to_device(&y, (0..y.bytes()).into()).unwrap();
        w.launch(&add(1), &[(&y, 0..y.bytes(), Write)]);
        let started = w.engine.prefetch_to_host(&y, (0..y.bytes()).into()).unwrap();
        w.arrived(&started);
        w.rest();
        if w.setup.publish_read_only || w.declared() {
            until("home", || {
                w.engine.is_home(&y, (0..y.bytes()).into(), GuardKind::Read) || {
                    w.engine.prefetch_to_host(&y, (0..y.bytes()).into()).unwrap();
                    false
                }
            });
        }
        assert_eq!(w.load(&y, 0..21), [vec![5; 20], vec![1]].concat());
    });
}

#[test]
fn a_resident_launch_waits_for_a_prefetch_in_flight() {
    let w = World::new(Setup { delay: Duration::from_millis(5), ..Setup::default() });
    let z = w.alloc(w.block());
    w.launch(&set(0), &[(&z, 0..128, Overwrite)]);
    w.rest();
    // The last one's copy comes late, behind the others on its queue; a kernel on an idle queue would be faster.
    let arrays = [0; 4].map(|_| w.alloc(w.block()));
    for x in &arrays {
        w.store(x, 0, &[3; 128]);
        w.engine.prefetch_to_device(x, (0..128).into()).unwrap();
    }
    w.launch(&copy_plus_one(), &[(&arrays[3], 0..128, Read), (&z, 0..128, Overwrite)]);
    assert_eq!(w.load_all(&z), [4; 128]);
}

#[test]
fn freed_memory_is_reclaimed_after_its_last_use_and_is_zeros_again() {
    for delay in [0, 2] {
        for setup in combinations() {
            within(20, move || {
                let w = World::new(Setup { delay: Duration::from_millis(delay), blocks: 8, ..setup });
                for round in 0..8 {
                    let x = loop {
                        match w.engine.alloc(4 * w.block(), "again") {
                            Ok(x) => break x,
                            Err(EngineError::OutOfAddressSpace { .. }) => {
                                std::thread::sleep(Duration::from_millis(1));
                            }
                            Err(error) => panic!("{error}"),
                        }
                    };
                    assert_eq!(w.load(&x, 0..3), [0; 3], "round {round}");
                    w.store(&x, 2 * w.block(), &[9; 9]);
                    w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
                    w.engine.free(&x);
                }
                w.rest();
                until("all frames are back", || w.engine.device_memory().1 == 0);
                until("all imports are gone", || w.imports.count() == 0);
            });
        }
    }
}

#[test]
fn a_guarded_page_dropped_by_the_kernel_is_published_again() {
    within(10, || {
        let w = World::small();
        let x = w.alloc(w.block());
        w.store(&x, 0, &[3; 128]);
        w.host.zap(w.page_at(&x, 0));
        assert_eq!(w.load(&x, 0..1), [3]);
        w.launch(&look(), &[(&x, 0..128, Read)]);
        w.rest();
        w.host.zap(w.page_at(&x, 0));
        assert_eq!(w.load(&x, 0..1), [3]);
        assert_eq!(w.location(&x, 0), Location::Shared);
    });
}
