//! Sparse ranges of 64 GiB: 32,768 units, a million frames. The bounds on time are loose; what they catch is one scan per unit, which
//! would take minutes.

use super::*;
use std::time::{Duration, Instant};

const FRAMES: u32 = 1 << 20;
const BOUND: Duration = Duration::from_secs(5);

/// A placement of a million frames in units of 32.
fn large() -> SpanPlacement {
    placement_of(&[FRAMES], 32)
}

fn within(what: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let took = start.elapsed();
    std::println!("{what}: {took:?}");
    assert!(took < BOUND, "{what} took {took:?}");
}

#[test]
fn sixty_four_gib_are_admitted_evicted_and_brought_back_at_once() {
    let mut p = large();
    let all = |slot| [scattered(slot, FRAMES, 0..FRAMES)];
    within("admit", || assert_eq!(launch(&mut p, 1, &all(0)).binds.len(), 1));
    within("replace all by victims", || {
        let plan = launch(&mut p, 2, &all(1));
        assert_eq!((plan.evictions.len(), plan.binds.len()), (32_768, 1));
    });
    within("use again", || assert_eq!(launch(&mut p, 3, &all(1)).binds.len(), 0));
    within("evict and abort", || {
        assert_eq!(p.evict(OpId(4), EvictGoal::Frames(FRAMES)).len(), 32_768);
        p.abort(OpId(4));
    });
    within("release and reap", || {
        assert_eq!(p.release(range(1), Deps::default()).len(), 32_768);
        p.reap(&uses(3));
    });
    assert_eq!(p.stats().free, FRAMES);
}

#[test]
fn a_resident_launch_costs_the_same_for_64_gib() {
    let mut p = large();
    launch(&mut p, 1, &[scattered(0, FRAMES, 0..FRAMES)]);
    within("100,000 resident launches", || {
        for now in 0..100_000 {
            assert!(p.covers(range(0), 0..FRAMES));
            p.touch(range(0), 0..FRAMES, now, used(now % 2 == 0));
            p.touch(range(0), 1..FRAMES / 2, now, used(now % 3 == 0));
        }
    });
}

#[test]
fn notes_of_many_windows_cost_what_their_spans_cost() {
    let mut p = large();
    launch(&mut p, 1, &[scattered(0, FRAMES, 0..FRAMES)]);
    within("400,000 launches on windows", || {
        for now in 0..400_000 {
            p.touch(range(0), now..now + 32, u64::from(now), used(now % 2 == 0));
        }
    });
}

#[test]
fn one_unit_at_a_time_costs_little_beside_64_gib() {
    let mut p = large();
    launch(&mut p, 1, &[scattered(0, FRAMES, 0..FRAMES)]);
    launch(&mut p, 2, &[scattered(1, FRAMES, 0..32 * 16)]);
    within("100 launches that evict one unit each", || {
        for op in 3..103 {
            let unit = op as u32 * 32 * 16;
            let plan = launch(&mut p, op, &[scattered(1, FRAMES, unit..unit + 32)]);
            assert_eq!(plan.evictions.len(), 1);
        }
    });
}
