//! Each rule of spans by itself.

use super::*;
use std::vec;

#[test]
fn a_small_range_gets_a_home_that_its_parts_never_leave() {
    let mut p = placement(&[16]);
    let plan = launch(&mut p, 1, &[want(0, 8, 2..3)]);
    assert_eq!((plan.placed[0].subs.clone(), plan.placed[0].frames.clone()), (0..8, vec![run(0, 8)]));
    assert_eq!(plan.placed[0].frame_of(2), FrameIndex(2));
    for (op, subs) in [(2, 0..8), (3, 1..5), (4, 7..8)] {
        let again = launch(&mut p, op, &[want(0, 8, subs)]);
        assert_eq!(
            (&again.placed[0].span, &again.moves, &again.evictions),
            (&plan.placed[0].span, &vec![], &vec![])
        );
    }
}

#[test]
fn what_the_last_launches_still_use_is_spared() {
    // A program that is far ahead of the device has everything busy: only the last launches count.
    for (now, busy, victim) in [(3, true, 1), (3, false, 0), (20, true, 0)] {
        let mut p = placement(&[8]);
        for (op, slot) in [(1, 0), (2, 1)] {
            p.admit(OpId(op), &[want(slot, 100, 0..4)], op).unwrap();
            p.commit(OpId(op), &Uses::NONE);
            let mut uses = Uses::NONE;
            uses.add(Ticket { timeline: Timeline(slot as u8), value: 1 });
            p.submitted(OpId(op), &uses);
            p.touch(range(slot), 0..4, op, Use::Read);
        }
        // The second one's work is over, and the first one's is or is not.
        let mut completed = Uses::NONE;
        completed.add(Ticket { timeline: Timeline(1), value: 1 });
        completed.add(Ticket { timeline: Timeline(0), value: if busy { 0 } else { 1 } });
        p.reap(&completed);
        let plan = launch(&mut p, now, &[want(2, 100, 0..4)]);
        assert_eq!(plan.evictions[0].range, range(victim), "at {now}, busy: {busy}");
    }
}

#[test]
fn a_large_range_gets_a_span_per_want_and_reuses_it() {
    let mut p = placement(&[16]);
    let plan = launch(&mut p, 1, &[want(0, 100, 10..16), want(0, 100, 40..44)]);
    assert_eq!(plan.placed.iter().map(|s| s.subs.clone()).collect::<Vec<_>>(), [10..16, 40..44]);
    let again = launch(&mut p, 2, &[want(0, 100, 12..14)]);
    assert_eq!(again.placed[0].span, plan.placed[0].span);
    assert_eq!(p.find(range(0), 40..44).unwrap().span, plan.placed[1].span);
    assert_eq!(p.find(range(0), 40..45), None);
    assert_eq!(
        (p.frame_of(range(0), 41), p.frame_of(range(0), 20)),
        (Some(plan.placed[1].frame_of(41)), None)
    );
}

#[test]
fn ranges_that_do_not_all_fit_get_spans_of_just_the_wants() {
    let mut p = placement(&[16]);
    let lengths = |plan: &Plan| plan.placed.iter().map(|s| s.frames[0].count).collect::<Vec<_>>();
    assert_eq!(lengths(&launch(&mut p, 1, &[want(0, 8, 0..4)])), [8], "alone it has a home");
    let wants = [want(1, 8, 0..4), want(2, 8, 6..8), want(3, 2, 0..1)];
    assert_eq!(lengths(&launch(&mut p, 2, &wants)), [4, 2, 2], "the last one is small");
    // What was evicted still counts, what was freed does not.
    p.evict(OpId(3), EvictGoal::All);
    p.commit(OpId(3), &Uses::NONE);
    assert_eq!(lengths(&launch(&mut p, 4, &[want(1, 8, 0..4)])), [4]);
    p.release(range(2), Deps::default());
    p.release(range(3), Deps::default());
    assert_eq!(lengths(&launch(&mut p, 5, &[want(0, 8, 0..4)])), [8]);
}

#[test]
fn overlap_moves_on_the_device_and_carves_the_old_span() {
    let mut p = placement(&[32]);
    let old = launch(&mut p, 1, &[want(0, 100, 10..16)]).placed[0].clone();
    let plan = launch(&mut p, 2, &[want(0, 100, 14..20)]);
    let new = &plan.placed[0];
    let moved = Move { range: range(0), subs: 14..16, from: old.frame_of(14), to: new.frame_of(14) };
    assert_eq!(
        (&plan.moves, &plan.evictions, &plan.retired),
        (&vec![moved], &vec![], &vec![old.span.unwrap()])
    );
    let rest = p.find(range(0), 10..14).unwrap();
    assert_eq!((rest.subs.clone(), rest.frames), (10..14, vec![run(0, 4)]), "what is left stays where it is");
    // The old frames wait for the launch that moved them away, which waits for all before it.
    assert_eq!(
        p.stats(),
        PlacementStats { total: 32, free: 20, retired: 2, owned: 10, pinned: 0, largest_run: 20 }
    );
    p.reap(&uses(1));
    assert_eq!(p.stats().retired, 2);
    p.reap(&uses(2));
    assert_eq!(p.stats().retired, 0);
}

#[test]
fn a_want_in_the_middle_splits_the_old_span_in_two_and_two_wants_in_three() {
    let mut p = placement(&[40]);
    // A launch on all, then pieces that the whole covers: nothing to do. Then a want beyond it.
    launch(&mut p, 1, &[want(0, 100, 0..12)]);
    let plan = launch(&mut p, 2, &[want(0, 100, 11..15), want(0, 100, 20..22)]);
    assert_eq!(plan.moves.len(), 1);
    let plan = launch(&mut p, 3, &[want(0, 100, 14..21)]);
    assert_eq!(plan.moves.iter().map(|m| m.subs.clone()).collect::<Vec<_>>(), [14..15, 20..21]);
    assert_eq!(p.find(range(0), 11..14).map(|s| s.subs), Some(11..14));
    assert_eq!(p.find(range(0), 21..22).map(|s| s.subs), Some(21..22));
}

#[test]
fn when_old_and_new_do_not_both_fit_the_old_is_evicted_and_fetched_again() {
    let mut p = placement(&[16]);
    let old = launch(&mut p, 1, &[want(0, 100, 0..12)]);
    let plan = launch(&mut p, 2, &[want(0, 100, 4..16)]);
    assert_eq!(
        (plan.moves.len(), plan.evictions[0].span, plan.evictions[0].subs.clone()),
        (0, old.placed[0].span.unwrap(), 0..12)
    );
    assert_eq!(plan.deps, Deps::of(uses(1)), "its frames are in use until launch 1 is over");
}

#[test]
fn what_can_move_is_not_evicted_even_where_that_were_cheaper() {
    let mut p = placement(&[8, 8]);
    launch(&mut p, 1, &[want(0, 100, 0..6)]);
    let other = launch(&mut p, 2, &[want(1, 100, 0..8)]).placed[0].span.unwrap();
    p.touch(range(1), 0..8, 2, Use::Write);
    let plan = launch(&mut p, 100, &[want(0, 100, 4..12)]);
    assert_eq!((plan.moves.len(), plan.evictions[0].span), (1, other));
}

#[test]
fn dirty_sub_blocks_stay_dirty_when_they_move() {
    let mut p = placement(&[10, 5]);
    launch(&mut p, 1, &[want(1, 100, 0..5)]);
    launch(&mut p, 2, &[want(0, 100, 0..4)]);
    p.touch(range(0), 0..4, 2, Use::Write);
    assert_eq!(launch(&mut p, 3, &[want(0, 100, 0..6)]).moves.len(), 1);
    p.touch(range(0), 0..6, 3, Use::Read);
    launch(&mut p, 4, &[want(1, 100, 0..5)]);
    // Range 0 (dirty, older) against range 1 (clean, younger): the write-back weighs more than a little age.
    let mut later = p.clone();
    let plan = launch(&mut p, 8, &[want(2, 100, 0..5)]);
    assert_eq!(plan.evictions.iter().map(|e| e.range).collect::<Vec<_>>(), [range(1)]);
    // And less than much of it: what is written once and never used again does go.
    launch(&mut later, 99, &[want(1, 100, 0..5)]);
    let plan = launch(&mut later, 100, &[want(2, 100, 0..5)]);
    assert_eq!(plan.evictions.iter().map(|e| e.range).collect::<Vec<_>>(), [range(0)]);
}

#[test]
fn the_cheapest_window_goes_clean_before_dirty_and_old_before_recent() {
    let mut p = placement(&[12]);
    for slot in 0..3 {
        launch(&mut p, u64::from(slot) + 1, &[want(slot, 4, 0..4)]);
        p.touch(range(slot), 0..4, u64::from(slot) + 1, used(slot == 0));
    }
    // 0 is oldest but dirty; 1 is older than 2.
    let plan = p.admit(OpId(9), &[want(5, 4, 0..4)], 9).unwrap();
    assert_eq!(plan.evictions.iter().map(|e| e.range).collect::<Vec<_>>(), [range(1)]);
    assert_eq!(plan.deps, Deps::of(uses(2)));
    p.abort(OpId(9));
    p.note_clean(range(0), 0..4);
    let plan = p.admit(OpId(9), &[want(5, 4, 0..4)], 9).unwrap();
    assert_eq!(plan.evictions.iter().map(|e| e.range).collect::<Vec<_>>(), [range(0)]);
}

#[test]
fn queued_spans_are_nobodys_victims_and_the_caller_is_told_whom_to_submit() {
    let mut p = placement(&[8]);
    p.admit(OpId(1), &[want(0, 100, 0..6)], 1).unwrap();
    p.commit(OpId(1), &Uses::NONE);
    let before = p.clone();
    let must_wait = Err(AdmitError::MustWait { ops: vec![OpId(1)] });
    assert_eq!(p.admit(OpId(2), &[want(1, 100, 0..6)], 2), must_wait);
    assert_eq!(p.admit(OpId(2), &[want(0, 100, 4..8)], 2), must_wait, "a part of it cannot move either");
    assert_eq!(p, before, "a refusal changes nothing");
    p.submitted(OpId(1), &uses(1));
    let plan = p.admit(OpId(2), &[want(1, 100, 0..6)], 2).unwrap();
    assert_eq!((plan.evictions.len(), plan.deps), (1, Deps::of(uses(1))));
}

#[test]
fn the_spans_of_an_open_plan_are_nobodys_to_use() {
    let mut p = placement(&[16]);
    p.admit(OpId(1), &[want(0, 4, 0..4)], 1).unwrap();
    assert_eq!(p.find(range(0), 0..4), None);
    assert!(p.frame_of(range(0), 1).is_some());
    assert_eq!(p.admit(OpId(2), &[want(0, 4, 1..2)], 1), Err(AdmitError::MustWait { ops: vec![OpId(1)] }));
    p.commit(OpId(1), &Uses::NONE);
    assert!(p.find(range(0), 0..4).is_some());
    p.admit(OpId(2), &[want(0, 4, 1..2)], 1).unwrap();
}

#[test]
fn pins_stay_and_what_they_leave_too_little_room_for_is_refused_with_the_numbers() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[want(0, 100, 0..6)]);
    let pinned = launch(&mut p, 2, &[want(1, 100, 0..2)]).placed[0].span;
    launch(&mut p, 3, &[want(2, 100, 0..8)]);
    assert!(p.pin(range(1), 1..2) && !p.pin(range(1), 1..3) && !p.pin(range(7), 0..1));
    let error = p.admit(OpId(4), &[want(3, 100, 0..9)], 4).unwrap_err();
    assert_eq!(error, AdmitError::TooLarge { need: 9, have: 14, limit: 16, held: 2, largest_run: 8 });
    let error = p.admit(OpId(4), &[want(1, 100, 1..5)], 4).unwrap_err();
    assert_eq!(error, AdmitError::PinnedApart { range: range(1), subs: 1..5, pinned: 0..2 });
    let reuse = p.admit(OpId(4), &[want(1, 100, 0..1), want(3, 100, 0..8), want(3, 100, 20..26)], 4).unwrap();
    assert_eq!(reuse.placed[0].span, pinned);
    p.abort(OpId(4));
    p.unpin(range(1), 1..2);
    assert_eq!(p.admit(OpId(4), &[want(3, 100, 0..16)], 4).unwrap().evictions.len(), 3);
}

#[test]
fn retired_frames_wait_for_the_operation_then_for_its_ticket() {
    let mut p = placement(&[8]);
    launch(&mut p, 1, &[want(0, 100, 0..8)]);
    p.admit(OpId(2), &[want(1, 100, 0..4)], 2).unwrap();
    p.commit(OpId(2), &uses(40));
    // Launch 2 left four frames over, which wait for it (its write-backs), for launch 1 and for what the engine found.
    let mut deps = Deps::of(uses(40));
    deps.add_op(OpId(2));
    let plan = p.admit(OpId(3), &[want(2, 100, 0..4)], 3).unwrap();
    assert_eq!(plan.deps, deps);
    p.abort(OpId(3));
    p.submitted(OpId(2), &uses(50));
    assert_eq!(p.admit(OpId(3), &[want(2, 100, 0..4)], 3).unwrap().deps, Deps::of(uses(50)));
}

#[test]
fn abort_undoes_moves_evictions_and_claims() {
    let mut p = placement(&[12, 12]);
    launch(&mut p, 1, &[want(0, 100, 0..6)]);
    launch(&mut p, 2, &[want(1, 8, 0..2), want(2, 100, 5..9)]);
    let before = p.clone();
    let plan = p.admit(OpId(3), &[want(0, 100, 4..10), want(3, 100, 0..10), want(1, 8, 1..3)], 3).unwrap();
    assert!(!plan.moves.is_empty() || !plan.evictions.is_empty());
    p.abort(OpId(3));
    assert_eq!(p.without_counters(), before.without_counters());
}

#[test]
fn a_released_range_leaves_frames_that_wait_and_an_abort_does_not_bring_it_back() {
    let mut p = placement(&[8]);
    let span = launch(&mut p, 1, &[want(0, 100, 0..8)]).placed[0].span;
    p.admit(OpId(2), &[want(1, 100, 0..4)], 2).unwrap();
    assert_eq!(
        p.release(range(0), Deps::of(uses(7))),
        [span.unwrap()],
        "gone, though a plan had ended it before"
    );
    p.abort(OpId(2));
    assert_eq!((p.stats().owned, p.stats().retired), (0, 8));
    p.reap(&uses(6));
    assert_eq!(p.stats().free, 0);
    p.reap(&uses(7));
    assert_eq!(p.stats().free, 8);
    assert!(p.find(range(0), 0..1).is_none());
    let next = launch(&mut p, 3, &[want(1, 100, 0..8)]).placed[0].span;
    assert_ne!(next, span);
    assert_eq!(p.release(range(1), Deps::default()), [next.unwrap()]);
}

#[test]
fn a_range_released_under_an_open_plan_keeps_its_frames_for_the_plan() {
    let mut p = placement(&[8]);
    p.admit(OpId(1), &[want(0, 100, 0..8)], 1).unwrap();
    p.release(range(0), Deps::default());
    assert_eq!(p.admit(OpId(2), &[want(1, 100, 0..8)], 2), Err(AdmitError::MustWait { ops: vec![OpId(1)] }));
    p.commit(OpId(1), &Uses::NONE);
    assert_eq!(p.stats().retired, 8);
    p.submitted(OpId(1), &uses(3));
    p.reap(&uses(3));
    assert_eq!(p.stats().free, 8);
}

#[test]
fn eviction_by_goal_takes_what_is_cheap_and_never_what_is_queued_or_pinned() {
    let mut p = placement(&[8, 8]);
    launch(&mut p, 1, &[want(0, 4, 0..4)]);
    launch(&mut p, 2, &[want(1, 4, 0..4)]);
    p.pin(range(1), 0..4);
    launch(&mut p, 3, &[want(2, 4, 0..4)]);
    p.admit(OpId(4), &[want(3, 4, 0..4)], 4).unwrap();
    p.commit(OpId(4), &Uses::NONE);
    let evicted = p.evict(OpId(5), EvictGoal::Frames(1));
    assert_eq!(evicted.iter().map(|e| e.range).collect::<Vec<_>>(), [range(0)], "the oldest");
    p.abort(OpId(5));
    assert_eq!(p.evict(OpId(5), EvictGoal::Within(range(1), 0, u32::MAX)), []);
    p.abort(OpId(5));
    let piece = p.evict(OpId(5), EvictGoal::Piece(FrameIndex(8)));
    assert_eq!(piece.iter().map(|e| e.range).collect::<Vec<_>>(), [range(2)]);
    p.abort(OpId(5));
    assert_eq!(p.evict(OpId(5), EvictGoal::All).len(), 2);
}

#[test]
fn a_piece_goes_only_when_it_is_wholly_free() {
    let mut p = placement(&[8, 4]);
    launch(&mut p, 1, &[want(0, 100, 0..8)]);
    assert_eq!(p.remove_piece(FrameIndex(3)), Err(PieceError::Unknown { first: FrameIndex(3) }));
    assert_eq!(p.remove_piece(FrameIndex(0)), Err(PieceError::Owned { frames: 8 }));
    p.evict(OpId(2), EvictGoal::Piece(FrameIndex(0)));
    assert_eq!(p.remove_piece(FrameIndex(0)), Err(PieceError::Retired { frames: 8 }));
    p.submitted(OpId(2), &uses(2));
    p.reap(&uses(2));
    assert_eq!(p.remove_piece(FrameIndex(0)), Ok(run(0, 8)));
    assert_eq!(p.stats().total, 4);
}

#[test]
fn spans_never_cross_pieces() {
    let mut p = placement(&[8, 8]);
    let error = p.admit(OpId(1), &[want(0, 100, 0..9)], 1).unwrap_err();
    assert_eq!(error, AdmitError::TooLarge { need: 9, have: 16, limit: 16, held: 0, largest_run: 8 });
    launch(&mut p, 1, &[want(0, 100, 0..5)]);
    assert_eq!(launch(&mut p, 2, &[want(1, 100, 0..5)]).placed[0].frames, [run(8, 5)]);
}

#[test]
fn a_smaller_limit_holds_for_the_next_launch() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[want(0, 100, 0..8)]);
    launch(&mut p, 2, &[want(1, 100, 0..4)]);
    p.set_limit(10);
    launch(&mut p, 3, &[want(2, 100, 0..4)]);
    assert!(p.stats().owned <= 10);
    assert!(matches!(
        p.admit(OpId(4), &[want(3, 100, 0..11)], 4),
        Err(AdmitError::TooLarge { limit: 10, .. })
    ));
    launch(&mut p, 4, &[want(3, 100, 0..10)]);
}
