//! Bugs that were found, each as the shortest story that shows it.

use crate::common::*;
use std::time::Duration;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::GuardKind;
use vkhmm_port::fake::FakeKernel;

fn slow(millis: u64) -> FakeKernel {
    FakeKernel::new(move |_, _, _| std::thread::sleep(Duration::from_millis(millis)))
}

/// Copies of two sub-blocks were merged into one region because their frames had neighbouring numbers, in two pieces.
#[test]
fn a_copy_never_crosses_arena_pieces() {
    for import in [true, false] {
        within(20, move || {
            let w = World::new(Setup { piece_frames: 1, limit_frames: 8, import, ..Setup::default() });
            let x = w.alloc(2 * w.block());
            for sub in 0..4 {
                let at = sub * w.frame();
                w.launch(&set(sub as u8 + 1), &[(&x, at..at + w.frame(), Overwrite)]);
            }
            w.rest();
            w.engine.bring_home(&x, (0..x.bytes()).into(), GuardKind::Read).unwrap();
            assert_eq!(w.load_all(&x), [[1; 64], [2; 64], [3; 64], [4; 64]].concat());
        });
    }
}

/// A span was claimed from frames that a late fill still wrote; the launch that claimed it waited for the fill, but the next one
/// that copied into another part of the same span did not.
#[test]
fn later_users_of_a_claimed_span_wait_for_its_former_users() {
    within(20, || {
        let w = World::new(Setup { limit_frames: 16, ..Setup::default() });
        let (z, y) = (w.alloc(w.block()), w.alloc(4 * w.block()));
        w.store(&y, 0, &[7; 4 * 128]);
        w.store(&z, 0, &[7; 128]);
        for _ in 0..5 {
            w.launch(&slow(20), &[(&z, 0..128, Write)]);
            // Zeros for fresh memory, behind the slow kernel on its queue.
            let x = w.alloc(4 * w.block());
            w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
            // Evicts x; copies nothing in.
            w.launch(&set(9), &[(&y, 0..128, Overwrite)]);
            w.launch(&add(1), &[(&y, 256..512, Write)]);
            assert_eq!(w.load(&y, 256..512), [8; 256]);
            w.store(&y, 256, &[7; 256]);
            w.engine.free(&x);
            w.rest();
        }
    });
}

/// A page that a store was bringing home is Host already; its span was evicted while the copy still read the frame.
#[test]
fn an_eviction_waits_for_copies_home_of_pages_that_are_host_by_now() {
    within(30, || {
        let w = World::new(Setup { limit_frames: 6, delay: Duration::from_millis(5), ..Setup::default() });
        let arrays = [0; 6].map(|_| w.alloc(64));
        let y = w.alloc(6 * 64);
        w.store(&y, 0, &[200; 6 * 64]);
        for x in &arrays {
            w.launch(&set(7), &[(x, 0..64, Overwrite)]);
        }
        w.rest();
        std::thread::scope(|scope| {
            // One copy after the other, each a while: the last frame is read long after the frames are given away.
            for x in &arrays {
                scope.spawn(|| w.store(x, 5, &[99]));
            }
            until("all copies home have begun", || {
                arrays.iter().all(|x| w.location(x, 5) != vkhmm_core::pagemap::Location::Device)
            });
            w.launch(&add(1), &[(&y, 0..y.bytes(), Write)]);
        });
        for x in &arrays {
            assert_eq!(w.load_all(x), [vec![7; 5], vec![99], vec![7; 58]].concat());
        }
    });
}

/// Pages that an admitted launch was about to copy in: a load in that moment was never answered, or made them writable.
#[test]
fn loads_go_on_while_launches_copy_in() {
    for setup in combinations().into_iter().filter(|s| s.faults == vkhmm_port::FaultMode::Full) {
        within(20, move || {
            let w = World::new(setup);
            let x = w.alloc(4 * w.block());
            w.store(&x, 0, &[5]);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for i in 0..300 {
                        w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
                        if i % 10 == 0 {
                            w.engine.trim(1 << 20).unwrap();
                        }
                    }
                });
                for i in 0..300 {
                    w.host.zap(w.page_at(&x, i % x.bytes()));
                    assert_eq!(w.load(&x, 0..1), [5]);
                }
            });
        });
    }
}

/// A touch of a dropped range after its punch poisoned the page, and the next tenant of the address inherited the poison.
#[test]
fn late_touches_of_a_dropped_range_do_not_poison_the_next_one() {
    within(20, || {
        let w = World::new(Setup { blocks: 2, ..Setup::default() });
        let page = vkhmm_core::units::PageIndex(0);
        for _ in 0..300 {
            let x = loop {
                match w.engine.alloc(2 * w.block(), "x") {
                    Ok(x) => break x,
                    Err(_) => std::thread::yield_now(),
                }
            };
            assert_eq!(w.load(&x, 0..1), [0]);
            w.launch(&look(), &[(&x, 0..1, Read)]);
            w.engine.free(&x);
            let late = vkhmm_port::Fault { page, write: false };
            w.host.inject(late);
            w.host.inject(late);
        }
    });
}

/// Six holds were taken where room for three was checked.
#[test]
fn a_block_with_many_launches_in_flight_makes_launches_wait() {
    within(20, || {
        let w = World::new(Setup { delay: Duration::from_millis(5), ..Setup::default() });
        let x = w.alloc(w.block());
        w.store(&x, 0, &[0; 128]);
        for i in 0..200 {
            let at = i % 8 * 16;
            let next = (at + 16) % 128;
            let first = FakeKernel::new(|bindings, _, _| map(bindings[0], |v| v + 1));
            w.launch(&first, &[(&x, at..at + 16, Write), (&x, next..next + 8, Read)]);
        }
        assert_eq!(w.load_all(&x), [25; 128]);
    });
}

/// A kernel that only reads a range names lost pages: the error named none, under a lock that it then wanted again.
#[test]
fn a_launch_on_lost_pages_says_which() {
    within(20, || {
        let w = World::small();
        let x = w.alloc(2 * w.block());
        w.launch(&set(1), &[(&x, 128..160, Overwrite)]);
        w.rest();
        w.device.lose();
        until("the loss is settled", || w.location(&x, 128) == vkhmm_core::pagemap::Location::Lost);
        let told = w.engine.check(&x, (0..256).into());
        assert!(
            matches!(told, Err(vkhmm_engine::EngineError::Lost { start: 128, end: 160, .. })),
            "{told:?}"
        );
    });
}
