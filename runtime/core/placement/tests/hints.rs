//! Hints take from nobody who needs it; advice says who goes first.

use super::*;
use crate::advice::Keep;

fn hint(p: &mut SpanPlacement, op: u64, wants: &[Want], completed: u64) -> Option<Plan> {
    let plan = p.admit_hint(OpId(op), wants, op, &uses(completed))?;
    p.commit(OpId(op), &Uses::NONE);
    p.submitted(OpId(op), &uses(op));
    Some(plan)
}

/// A launch as the engine makes it: admitted, and noted as a use.
fn launch(p: &mut SpanPlacement, op: u64, wants: &[Want]) -> Plan {
    let plan = super::launch(p, op, wants);
    wants.iter().for_each(|want| p.touch(want.range, want.subs.clone(), op, Use::Read));
    plan
}

fn both(slot: u32, subs: Range<u32>) -> [Want; 2] {
    [want(slot, 100, subs.clone()), scattered(slot, 100, subs)]
}

#[test]
fn a_hint_takes_free_frames_and_cold_spans_only() {
    for at in 0..2 {
        let mut p = placement(&[8]);
        let w = |slot, subs| both(slot, subs)[at].clone();
        launch(&mut p, 1, &[w(1, 0..4)]);
        launch(&mut p, 2, &[w(2, 0..4)]);
        let before = p.stats();
        // The older launch runs, the later one is the last: nothing is cold.
        assert_eq!(hint(&mut p, 3, &[w(3, 0..4)], 0), None);
        assert_eq!(p.stats(), before);
        assert!(p.covers(range(1), 0..4) && p.covers(range(2), 0..4), "nothing has changed");
        // It is over.
        let plan = hint(&mut p, 4, &[w(3, 0..4)], 1).unwrap();
        assert!(plan.evictions.iter().all(|e| e.range == range(1)), "{plan:?}");
        assert_eq!(plan.evictions.iter().map(|e| e.subs.len()).sum::<usize>(), 4);
        // What a hint brought no other one takes, until a launch has used it and another one came.
        assert_eq!(hint(&mut p, 5, &[w(1, 0..8)], 9), None, "the last launch's is not cold");
        launch(&mut p, 6, &[w(2, 0..4)]);
        assert_eq!(hint(&mut p, 7, &[w(1, 0..4)], 9), None, "range 3 was brought by a hint");
        p.touch(range(3), 0..4, 8, Use::Read);
        launch(&mut p, 9, &[w(2, 0..4)]);
        assert!(hint(&mut p, 10, &[w(1, 0..4)], 9).is_some());
        // A launch takes whatever it needs.
        launch(&mut p, 11, &[w(4, 0..8)]);
        assert_eq!(p.stats().owned, 8);
        assert_eq!(p.stats().pinned, 0);
    }
}

#[test]
fn a_hint_evicts_nothing_that_is_queued_or_pinned() {
    for at in 0..2 {
        let mut p = placement(&[8]);
        let w = |slot, subs| both(slot, subs)[at].clone();
        p.admit(OpId(1), &[w(1, 0..4)], 1).unwrap();
        p.commit(OpId(1), &Uses::NONE);
        launch(&mut p, 2, &[w(2, 0..4)]);
        assert!(p.pin(range(2), 0..4));
        for op in 3..9 {
            p.touch(range(9), 0..1, op, Use::Read);
        }
        assert_eq!(hint(&mut p, 10, &[w(3, 0..1)], 9), None);
        p.submitted(OpId(1), &uses(1));
        assert!(hint(&mut p, 11, &[w(3, 0..1)], 9).is_some());
    }
}

#[test]
fn advice_says_whose_frames_go_first() {
    for at in 0..2 {
        let mut p = placement(&[12]);
        let w = |slot, subs| both(slot, subs)[at].clone();
        for slot in 1..4 {
            launch(&mut p, u64::from(slot), &[w(slot, 0..4)]);
        }
        p.set_keep(range(1), 0..8, Keep::Last);
        p.set_keep(range(3), 0..8, Keep::First);
        let gone = |p: &mut SpanPlacement, op: u64| {
            let evictions = p.evict(OpId(op), EvictGoal::Frames(1));
            p.commit(OpId(op), &Uses::NONE);
            evictions[0].range
        };
        assert_eq!(gone(&mut p, 10), range(3));
        p.set_keep(range(1), 0..8, Keep::Usual);
        p.favour(range(1), 0..4, 1000);
        assert_eq!(gone(&mut p, 11), range(2), "range 1 is older, and favoured");
        assert_eq!(gone(&mut p, 12), range(1));
    }
}

#[test]
fn what_lies_within_is_given_up_alone() {
    let mut p = placement(&[16]);
    launch(&mut p, 1, &[scattered(1, 12, 0..12)]);
    let gone = p.evict(OpId(2), EvictGoal::Within(range(1), 3, 9));
    assert!(gone.iter().map(|e| e.subs.clone()).eq(core::iter::once(4..8)), "{gone:?}");
}
