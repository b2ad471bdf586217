//! Rounds of a paged launch: how long they are, and that nobody but their launch is said to wait.

use crate::common::paged::*;
use crate::common::*;
use std::time::Duration;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::AccessKind::Write;
use vkhmm_port::fake::FakeKernel;

/// One millisecond for each group, whether it misses or not.
fn slow(w: &World) -> FakeKernel {
    FakeKernel::paged(&w.device, |group| {
        std::thread::sleep(Duration::from_millis(1));
        let part = part_of(group);
        group.want(0, part.clone(), READ | WRITE);
        if group.vote() {
            let new: Vec<u8> = group.load(0, part.clone()).iter().map(|v| v.wrapping_add(1)).collect();
            group.store(0, part.start, &new);
        }
    })
}

#[test]
fn a_round_has_the_groups_that_there_is_time_for() {
    within(60, || {
        let groups = 200;
        let run = |round_time| {
            let w = World::new(Setup { blocks: 100, limit_frames: 200, round_time, ..Setup::default() });
            let x = w.alloc(u64::from(groups) * PART);
            let op = w.launch_paged(&slow(&w), groups, &[(&x, Write)]);
            w.wait(&op);
            assert_eq!(w.load_all(&x), vec![1; x.bytes() as usize]);
            w.rest();
            op.paging().expect("it had rounds")
        };
        let bounded = run(Duration::from_millis(20));
        assert!(bounded.window_max <= 20 && bounded.rounds > 10, "{bounded:?}");
        let unbounded = run(Duration::MAX);
        assert!(unbounded.rounds <= 4, "{unbounded:?}");
        // Far below the bound there are no more rounds than without one.
        assert_eq!(run(Duration::from_secs(60)).rounds, unbounded.rounds);
    });
}

#[test]
fn what_rounds_wait_for_nobody_is_said_to_wait_for() {
    each_of(beside(60), |w| {
        let t = Triad::new(w, 60);
        let before = w.engine.stats();
        let op = t.launch(w, &Brake::new(u32::MAX));
        until("it is over", || w.engine.wait(&op, Some(Duration::ZERO)).unwrap());
        let stats = w.engine.stats().since(&before);
        assert!(stats.paged_rounds > 0);
        assert_eq!((stats.launches_waited, stats.waits), (0, 0), "{:?}", w.engine.waits());
        t.verify(w);
    });
}

#[test]
fn items_of_many_groups_are_counted_in_every_round() {
    // Items of a group are no whole word of bits, and groups go on at different times.
    for items in [1_u32, 7, 33] {
        within(60, move || {
            let w = World::new(Setup { limit_frames: 6, ..Setup::default() });
            let x = w.alloc(40 * w.frame());
            let (bytes, frame) = (x.bytes(), w.frame());
            let kernel = FakeKernel::paged(&w.device, move |group| {
                for item in group.items() {
                    let at = u64::from(group.id() * items + item);
                    let far = at * 37 * frame % bytes;
                    if at >= bytes
                        || group.try_at(0, far..far + 1, READ) && group.try_at(0, at..at + 1, WRITE)
                    {
                        if at < bytes {
                            group.store(0, at, &[at as u8]);
                        }
                        group.item_done(item);
                    }
                }
            });
            let mut spec = w.paged_spec(&kernel, (bytes as u32).div_ceil(items), &[(&x, Write)]);
            spec.items = items;
            let op = w.engine.launch_paged(spec).unwrap();
            w.wait(&op);
            assert_eq!(w.load_all(&x), (0..bytes).map(|at| at as u8).collect::<Vec<u8>>());
            w.rest();
        });
    }
}
