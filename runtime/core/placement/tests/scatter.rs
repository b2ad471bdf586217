//! Each rule of scattered ranges by itself. Units have four sub-blocks here.

use super::*;
use std::vec;

fn bind(slot: u32, subs: Range<u32>, first: u32) -> Binding {
    let frames = run(first, subs.end - subs.start);
    Binding { range: range(slot), subs, frames }
}

fn evicted(plan: &Plan) -> Vec<(u32, Range<u32>)> {
    plan.evictions.iter().map(|e| (e.range.slot, e.subs.clone())).collect()
}

#[test]
fn a_want_claims_just_what_it_lacks() {
    let mut p = placement(&[32]);
    let plan = launch(&mut p, 1, &[scattered(0, 100, 2..5)]);
    assert_eq!(plan.binds, [bind(0, 2..5, 0)]);
    assert_eq!(plan.placed, [Placed { span: None, frames: vec![run(0, 3)], subs: 2..5 }]);
    launch(&mut p, 2, &[scattered(1, 100, 0..1)]);
    // 1 and 5..9 are missing: two stretches of sub-blocks, in two runs of frames.
    let plan = launch(&mut p, 3, &[scattered(0, 100, 1..9)]);
    assert_eq!(plan.binds, [bind(0, 1..2, 8), bind(0, 5..9, 4)]);
    assert_eq!(plan.placed[0].frames, [run(8, 1), run(0, 3), run(4, 4)]);
    assert_eq!((plan.placed[0].frame_of(1), plan.placed[0].frame_of(4)), (FrameIndex(8), FrameIndex(2)));
    let plan = launch(&mut p, 4, &[scattered(0, 100, 1..9)]);
    assert_eq!((&plan.binds, &plan.moves, &plan.evictions), (&vec![], &vec![], &vec![]));
    assert_eq!(p.stats().owned, 9, "no home beyond the want");
}

#[test]
fn binds_are_as_long_as_neighbouring_wants_and_free_runs_allow() {
    let mut p = placement(&[20]);
    let plan = launch(&mut p, 1, &[scattered(0, 100, 8..12), scattered(0, 100, 0..8), scattered(1, 4, 0..2)]);
    assert_eq!(plan.binds, [bind(0, 0..12, 0), bind(1, 0..2, 12)]);
    // Free are 0..12 and 14..20: the longest run first, and no run is cut that need not be.
    p.release(range(0), Deps::default());
    p.reap(&uses(1));
    launch(&mut p, 2, &[scattered(2, 100, 4..6)]);
    let plan = launch(&mut p, 3, &[scattered(3, 100, 0..16)]);
    assert_eq!(plan.binds, [bind(3, 0..12, 0), bind(3, 12..16, 16)]);
    assert_eq!(p.frame_of(range(2), 4), Some(FrameIndex(14)), "from the shorter run");
}

#[test]
fn neighbouring_wants_are_placed_as_one() {
    let mut p = placement(&[8, 12]);
    let plan = launch(&mut p, 1, &[scattered(0, 100, 8..12), scattered(0, 100, 0..8)]);
    assert_eq!(plan.binds, [bind(0, 0..12, 8)], "not eight of them in the run of eight");
}

#[test]
fn what_the_launch_moves_is_not_its_victim() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[want(0, 100, 0..4)]);
    launch(&mut p, 2, &[scattered(1, 8, 0..8)]);
    let plan = p.admit(OpId(3), &[want(0, 100, 2..6), scattered(2, 8, 0..4)], 3).unwrap();
    assert_eq!((plan.moves.len(), evicted(&plan)), (1, vec![(1, 0..4)]), "though range 0 is older");
}

#[test]
fn no_bind_and_no_place_crosses_pieces() {
    let mut p = placement(&[8, 8]);
    let plan = launch(&mut p, 1, &[scattered(0, 16, 0..16)]);
    assert_eq!(plan.binds, [bind(0, 0..8, 0), bind(0, 8..16, 8)]);
    assert_eq!(plan.placed[0].frames, [run(0, 8), run(8, 8)]);
    assert_eq!(p.find(range(0), 6..10).unwrap().frames, [run(6, 2), run(8, 2)]);
}

#[test]
fn idle_frames_go_before_waiting_ones_and_those_before_victims() {
    let mut p = placement(&[12]);
    launch(&mut p, 1, &[scattered(0, 4, 0..4)]);
    launch(&mut p, 2, &[scattered(1, 4, 0..4)]);
    p.release(range(0), Deps::default());
    // Frames 0..4 wait for launch 1, 8..12 for nobody.
    let plan = p.admit(OpId(3), &[scattered(2, 12, 0..4)], 3).unwrap();
    assert_eq!((plan.binds, plan.deps, plan.evictions), (vec![bind(2, 0..4, 8)], Deps::default(), vec![]));
    p.abort(OpId(3));
    let plan = p.admit(OpId(3), &[scattered(2, 12, 0..6)], 3).unwrap();
    assert_eq!((plan.binds.len(), plan.deps, plan.evictions), (2, Deps::of(uses(1)), vec![]));
    p.abort(OpId(3));
    let plan = p.admit(OpId(3), &[scattered(2, 12, 0..9)], 3).unwrap();
    assert_eq!((evicted(&plan), plan.deps), (vec![(1, 0..4)], Deps::of(uses(2))));
}

#[test]
fn victims_are_single_units_clean_before_dirty_old_before_recent() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[scattered(0, 16, 0..16)]);
    for (unit, written) in [(0, true), (2, false), (3, false), (1, false)] {
        p.touch(range(0), unit * 4..unit * 4 + 4, u64::from(10 + unit), used(written));
    }
    let plan = p.admit(OpId(20), &[scattered(1, 16, 0..2)], 20).unwrap();
    assert_eq!(evicted(&plan), [(0, 4..8)], "the oldest of those that are clean");
    assert!(plan.evictions[0].scattered && plan.evictions[0].frames == [run(4, 4)]);
    assert_eq!(plan.binds, [bind(1, 0..2, 4)]);
    p.abort(OpId(20));
    p.note_clean(range(0), 0..4);
    let plan = p.admit(OpId(20), &[scattered(1, 16, 0..5)], 20).unwrap();
    assert_eq!(evicted(&plan), [(0, 0..4), (0, 4..8)]);
    assert_eq!(plan.binds, [bind(1, 0..5, 0)], "what lay apart is neighbours again");
    p.abort(OpId(20));
    let evictions = p.evict(OpId(21), EvictGoal::Frames(5));
    assert_eq!(evictions.iter().map(|e| e.subs.clone()).collect::<Vec<_>>(), [0..4, 4..8]);
}

#[test]
fn what_was_noted_last_counts_and_outlives_an_abort() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 8, 0..8)]);
    // More than the notes hold: some are with the spans, some not yet.
    for now in 2..200 {
        p.touch(range(0), 0..4, now, used(now == 5));
        p.touch(range(0), (now % 4) as u32..4, now, Use::Read);
    }
    for op in 200..203 {
        let plan = p.admit(OpId(op), &[scattered(1, 4, 0..4)], 200).unwrap();
        assert_eq!(evicted(&plan), [(0, 4..8)], "it was not used since launch 1");
        p.abort(OpId(op));
    }
    // Cleaned and long unused, against written just now.
    p.note_clean(range(0), 0..4);
    p.touch(range(0), 0..8, 201, Use::Read);
    p.touch(range(0), 5..6, 201, Use::Write);
    let plan = p.admit(OpId(204), &[scattered(1, 4, 0..4)], 204).unwrap();
    assert_eq!(evicted(&plan), [(0, 0..4)]);
}

#[test]
fn a_later_note_never_makes_an_earlier_one_unsaid() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 8, 0..8)]);
    // Read after it was written: still to be written back.
    p.touch(range(0), 0..4, 2, Use::Write);
    p.touch(range(0), 0..4, 3, Use::Read);
    p.touch(range(0), 4..8, 4, Use::Read);
    assert_eq!(evicted(&p.admit(OpId(10), &[scattered(1, 4, 0..4)], 10).unwrap()), [(0, 4..8)]);
    // Told late of an earlier use: the last one counts.
    let mut p = placement_by(&[8], UNIT, Arc::new(Plain));
    launch(&mut p, 1, &[scattered(0, 8, 0..8)]);
    p.touch(range(0), 0..4, 9, Use::Read);
    p.touch(range(0), 0..8, 5, Use::Read);
    assert_eq!(evicted(&p.admit(OpId(10), &[scattered(1, 4, 0..4)], 10).unwrap()), [(0, 4..8)]);
}

#[test]
fn spans_and_scattered_ranges_are_each_others_victims() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[want(0, 8, 0..3), scattered(1, 8, 0..4)]);
    let plan = p.admit(OpId(2), &[scattered(2, 8, 0..8)], 2).unwrap();
    assert_eq!(evicted(&plan), [(0, 0..3), (1, 0..4)]);
    assert_eq!(plan.evictions.iter().map(|e| e.scattered).collect::<Vec<_>>(), [false, true]);
    p.abort(OpId(2));
    let plan = p.admit(OpId(2), &[want(2, 100, 0..8)], 2).unwrap();
    assert_eq!((evicted(&plan).len(), plan.placed[0].frames.clone()), (2, vec![run(0, 8)]));
    assert_eq!(plan.binds, [], "spans are not bound");
}

#[test]
fn what_a_window_frees_beyond_itself_is_there_for_the_same_launch() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 8, 0..4)]);
    launch(&mut p, 2, &[scattered(1, 8, 0..4)]);
    let plan = p.admit(OpId(3), &[want(2, 100, 0..2), scattered(3, 8, 0..2)], 3).unwrap();
    assert_eq!((evicted(&plan), plan.binds), (vec![(0, 0..4)], vec![bind(3, 0..2, 2)]));
}

#[test]
fn a_launch_never_evicts_what_it_wants_itself() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 8, 0..4)]);
    launch(&mut p, 2, &[scattered(1, 8, 0..4)]);
    let plan = p.admit(OpId(3), &[scattered(0, 8, 0..8)], 3).unwrap();
    assert_eq!((evicted(&plan), plan.binds), (vec![(1, 0..4)], vec![bind(0, 4..8, 4)]));
    p.abort(OpId(3));
    let error = p.admit(OpId(3), &[scattered(0, 8, 0..4), scattered(2, 8, 0..5)], 3).unwrap_err();
    assert_eq!(error, AdmitError::TooLarge { need: 9, have: 8, limit: 8, held: 0, largest_run: 8 });
}

#[test]
fn what_reaches_beyond_a_want_is_given_up_where_frames_are_tight() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 16, 0..8)]);
    // Sub-blocks 2..4 are in a span with 0..2, which nobody needs now.
    let plan = p.admit(OpId(2), &[scattered(0, 16, 2..8)], 2).unwrap();
    assert_eq!((evicted(&plan), &plan.binds), (vec![], &vec![]));
    p.abort(OpId(2));
    let plan = launch(&mut p, 2, &[scattered(0, 16, 2..10)]);
    assert_eq!((evicted(&plan), plan.binds), (vec![(0, 0..4)], vec![bind(0, 2..4, 0), bind(0, 8..10, 2)]));
}

#[test]
fn beside_a_span_that_needs_the_room_its_own_frames_are_given_up_as_a_last_resort() {
    let mut p = placement(&[10]);
    let parts = [scattered(0, 8, 0..2), scattered(1, 8, 0..2), scattered(2, 8, 0..2)];
    launch(&mut p, 1, &parts);
    p.release(range(0), Deps::default());
    p.release(range(2), Deps::default());
    // Eight frames are left, but no eight neighbours: frames 2..4 are in between.
    let plan = p.admit(OpId(2), &[want(3, 100, 0..8), scattered(1, 8, 0..2)], 2).unwrap();
    assert_eq!((evicted(&plan), plan.binds), (vec![(1, 0..2)], vec![bind(1, 0..2, 8)]));
}

#[test]
fn pinned_and_queued_spans_stay() {
    let mut p = placement(&[12]);
    launch(&mut p, 1, &[scattered(0, 12, 0..12)]);
    assert!(p.pin(range(0), 3..5) && !p.pin(range(0), 11..13));
    assert_eq!(p.stats().pinned, 8, "both units that have some");
    let error = p.admit(OpId(2), &[scattered(1, 8, 0..5)], 2).unwrap_err();
    assert_eq!(error, AdmitError::TooLarge { need: 5, have: 4, limit: 12, held: 8, largest_run: 4 });
    let plan = p.admit(OpId(2), &[scattered(1, 8, 0..4)], 2).unwrap();
    assert_eq!(evicted(&plan), [(0, 8..12)]);
    p.commit(OpId(2), &Uses::NONE);
    // Pinned sub-blocks are joined where they are; the rest of the range is fetched beside them.
    let must_wait = Err(AdmitError::MustWait { ops: vec![OpId(2)] });
    assert_eq!(p.admit(OpId(3), &[scattered(0, 12, 0..12)], 3), must_wait);
    p.submitted(OpId(2), &uses(2));
    assert_eq!(p.admit(OpId(3), &[scattered(0, 12, 0..12)], 3).unwrap().binds, [bind(0, 8..12, 8)]);
    p.abort(OpId(3));
    p.unpin(range(0), 3..5);
    assert_eq!(p.stats().pinned, 0);
    assert_eq!(evicted(&p.admit(OpId(3), &[scattered(1, 8, 0..6)], 3).unwrap()).len(), 1);
}

#[test]
fn what_an_open_plan_makes_or_takes_is_not_there_for_others() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[scattered(0, 8, 0..4)]);
    p.admit(OpId(2), &[scattered(0, 8, 0..6)], 2).unwrap();
    assert!(p.covers(range(0), 0..4) && !p.covers(range(0), 3..5));
    assert_eq!((p.find(range(0), 3..5), p.frame_of(range(0), 4)), (None, Some(FrameIndex(4))));
    let must_wait = Err(AdmitError::MustWait { ops: vec![OpId(2)] });
    assert_eq!(p.admit(OpId(3), &[scattered(0, 8, 5..7)], 3), must_wait);
    p.admit(OpId(3), &[scattered(0, 8, 1..3)], 3).unwrap();
    p.abort(OpId(3));
    p.commit(OpId(2), &Uses::NONE);
    assert_eq!(p.find(range(0), 3..5).unwrap().frames, [run(3, 2)]);
    p.submitted(OpId(2), &uses(2));
    // An eviction that is open may bring its frames back.
    p.evict(OpId(4), EvictGoal::Within(range(0), 0, u32::MAX));
    assert!(!p.covers(range(0), 0..1));
    let must_wait = Err(AdmitError::MustWait { ops: vec![OpId(4)] });
    assert_eq!(p.admit(OpId(5), &[scattered(0, 8, 0..1)], 5), must_wait);
    p.abort(OpId(4));
    assert!(p.covers(range(0), 0..6));
}

#[test]
fn abort_undoes_claims_and_evictions_and_a_released_range_stays_away() {
    let mut p = placement(&[12]);
    launch(&mut p, 1, &[scattered(0, 12, 0..8)]);
    p.touch(range(0), 0..8, 1, Use::Write);
    let before = p.without_counters();
    let plan = p.admit(OpId(2), &[scattered(1, 12, 0..10)], 2).unwrap();
    assert_eq!((plan.evictions.len(), plan.binds.len()), (2, 1));
    p.abort(OpId(2));
    assert_eq!(p.without_counters(), before);
    p.admit(OpId(3), &[scattered(1, 12, 0..10)], 3).unwrap();
    assert_eq!(p.release(range(0), Deps::of(uses(7))).len(), 2, "gone, though a plan had ended them before");
    p.abort(OpId(3));
    assert_eq!((p.stats().owned, p.stats().retired, p.covers(range(0), 0..1)), (0, 8, false));
    p.reap(&uses(6));
    assert_eq!(p.stats().free, 4);
    p.reap(&uses(7));
    assert_eq!(p.stats().free, 12);
    launch(&mut p, 4, &[scattered(1, 12, 0..6)]);
    assert_eq!(p.release(range(1), Deps::default()).len(), 2, "a unit and a half");
}

#[test]
fn a_smaller_limit_evicts_at_the_next_launch() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[scattered(0, 16, 0..12)]);
    p.set_limit(8);
    let plan = launch(&mut p, 2, &[scattered(1, 16, 0..4)]);
    assert_eq!((evicted(&plan), p.stats().owned), (vec![(0, 0..4), (0, 4..8)], 8));
    assert!(matches!(
        p.admit(OpId(3), &[scattered(1, 16, 0..9)], 3),
        Err(AdmitError::TooLarge { limit: 8, .. })
    ));
}

#[test]
#[should_panic(expected = "is scattered or not")]
fn a_range_is_scattered_or_not() {
    _ = placement(&[8]).admit(OpId(1), &[scattered(0, 8, 0..1), want(0, 8, 4..5)], 1);
}
