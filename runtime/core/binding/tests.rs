//! Every refusal by itself, and random binds against a table with an entry per sub-block.

extern crate std;

use super::*;
use std::string::ToString;
use std::vec;

fn range(slot: u32) -> RangeId {
    RangeId { slot, generation: 0 }
}

fn bind(slot: u32, subs: Range<u32>, first: u32) -> Binding {
    let frames = FrameRun { first: FrameIndex(first), count: subs.end.saturating_sub(subs.start) };
    Binding { range: range(slot), subs, frames }
}

/// Range 0 has 8 sub-blocks, 2..6 of them in frames 10..14; range 1 has 4, the first in frame 20.
fn table() -> Bindings {
    let mut table = Bindings::default();
    table.add_range(range(0), 8).unwrap();
    table.add_range(range(1), 4).unwrap();
    table.apply(&[], &[bind(0, 2..6, 10), bind(1, 0..1, 20)]).unwrap();
    table
}

/// Applies, expects this refusal, and that nothing has changed.
fn refused(unbinds: &[Binding], binds: &[Binding]) -> BindError {
    let (before, mut table) = (table(), table());
    let error = table.apply(unbinds, binds).unwrap_err();
    assert_eq!(table, before, "{error}: changed something");
    error
}

#[test]
fn binds_are_found_and_given_up() {
    let mut t = table();
    assert_eq!((t.frame_of(range(0), 3), t.frame_of(range(0), 1)), (Some(FrameIndex(11)), None));
    assert!(t.covers(range(0), &(2..6)) && !t.covers(range(0), &(1..6)) && !t.covers(range(0), &(2..7)));
    // The middle goes elsewhere, and its frame to somebody else, in one call.
    t.apply(&[bind(0, 3..5, 11)], &[bind(0, 3..5, 30), bind(1, 1..2, 12)]).unwrap();
    assert!(t.covers(range(0), &(2..6)) && t.covers(range(1), &(0..2)));
    assert_eq!(
        (2..6).filter_map(|sub| t.frame_of(range(0), sub)).map(|frame| frame.0).collect::<Vec<_>>(),
        [10, 30, 31, 13]
    );
    t.remove_range(range(0)).unwrap();
    t.apply(&[], &[bind(1, 2..4, 30)]).unwrap();
    assert!(!t.covers(range(0), &(2..3)) && t.frame_of(range(0), 2).is_none());
}

#[test]
fn a_range_is_added_once_and_removed_once() {
    let mut t = table();
    assert_eq!(t.add_range(range(0), 8), Err(BindError::KnownRange { range: range(0) }));
    t.remove_range(range(0)).unwrap();
    assert_eq!(t.remove_range(range(0)), Err(BindError::UnknownRange { range: range(0) }));
    assert_eq!(t.apply(&[], &[bind(0, 0..1, 1)]), Err(BindError::UnknownRange { range: range(0) }));
}

#[test]
fn a_stretch_has_as_many_frames_as_sub_blocks_inside_its_range() {
    let frames = FrameRun { first: FrameIndex(1), count: 2 };
    let uneven = Binding { range: range(0), subs: 0..1, frames };
    assert_eq!(refused(&[], &[uneven]), BindError::Uneven { range: range(0), subs: 0..1, frames });
    assert!(matches!(refused(&[], &[bind(0, 1..1, 1)]), BindError::Uneven { .. }));
    assert!(matches!(refused(&[bind(0, 3..3, 11)], &[]), BindError::Uneven { .. }));
    let past = BindError::PastEnd { range: range(1), subs: 3..5, range_subs: 4 };
    assert_eq!(refused(&[], &[bind(1, 3..5, 1)]), past);
}

#[test]
fn only_what_lies_exactly_there_is_unbound() {
    let not = |sub, frame, found: Option<u32>| BindError::NotBound {
        range: range(0),
        sub,
        frame: FrameIndex(frame),
        found: found.map(FrameIndex),
    };
    assert_eq!(refused(&[bind(0, 1..3, 9)], &[]), not(1, 9, None));
    assert_eq!(refused(&[bind(0, 5..7, 13)], &[]), not(6, 14, None));
    assert_eq!(refused(&[bind(0, 2..4, 11)], &[]), not(2, 11, Some(10)));
    // A second time in the same call, after the first was done: the first is taken back.
    assert_eq!(refused(&[bind(0, 3..4, 11), bind(0, 2..6, 10)], &[]), not(3, 11, None));
}

#[test]
fn a_sub_block_is_bound_once() {
    let bound = |sub, frame| BindError::AlreadyBound { range: range(0), sub, frame: FrameIndex(frame) };
    assert_eq!(refused(&[], &[bind(0, 4..7, 40)]), bound(4, 12));
    assert_eq!(refused(&[], &[bind(0, 0..3, 40)]), bound(2, 10));
    assert_eq!(refused(&[bind(0, 2..3, 10)], &[bind(0, 0..2, 40), bind(0, 2..4, 50)]), bound(3, 11));
}

#[test]
fn a_frame_is_bound_once_in_all_ranges() {
    let taken =
        |frame, slot, sub| BindError::FrameTaken { frame: FrameIndex(frame), range: range(slot), sub };
    assert_eq!(refused(&[], &[bind(1, 1..3, 12)]), taken(12, 0, 4));
    assert_eq!(refused(&[], &[bind(1, 1..3, 9)]), taken(10, 0, 2));
    assert_eq!(refused(&[], &[bind(0, 0..1, 20)]), taken(20, 1, 0));
    let error = refused(&[bind(0, 2..6, 10)], &[bind(0, 0..2, 10), bind(1, 1..2, 11)]);
    assert_eq!(error, taken(11, 0, 1));
    assert_eq!(
        error.to_string(),
        "frame 11 is bound to sub-block 1 of RangeId { slot: 0, generation: 0 } already: unbind it there first"
    );
}

#[test]
fn neighbours_are_one_entry() {
    let mut t = Bindings::default();
    t.add_range(range(0), 1 << 20).unwrap();
    for sub in (0..1 << 20).step_by(32) {
        t.apply(&[], &[bind(0, sub..sub + 32, sub)]).unwrap();
    }
    assert_eq!((t.frames.len(), t.ranges[&range(0)].runs.len()), (1, 1));
}

#[test]
fn agrees_with_an_entry_per_sub_block() {
    let mut seed = 11_u64;
    let mut below = |n: u32| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as u32 % n
    };
    let mut t = Bindings::default();
    (0..3).for_each(|slot| t.add_range(range(slot), 16).unwrap());
    let mut naive = vec![[None::<u32>; 16]; 3];
    let (mut changed, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            for _ in 0..below(3) {
                let (slot, start) = (below(3), below(16));
                let subs = start..start + 1 + below(16 - start);
                // Often where it lies, else anywhere.
                let there = naive[slot as usize][start as usize].filter(|_| below(4) > 0);
                let first = there.unwrap_or_else(|| below(28));
                list.push(bind(slot, subs, first));
            }
        }
        let mut next = naive.clone();
        let mut allowed = true;
        for (list, binds) in lists.iter().zip([false, true]) {
            for stretch in list {
                for (i, sub) in stretch.subs.clone().enumerate() {
                    let frame = Some(stretch.frames.first.0 + i as u32);
                    let taken = next.iter().flatten().any(|other| *other == frame);
                    let cell = &mut next[stretch.range.slot as usize][sub as usize];
                    allowed &= if binds { cell.is_none() && !taken } else { *cell == frame };
                    *cell = if binds { frame } else { None };
                }
            }
        }
        assert_eq!(t.apply(&lists[0], &lists[1]).is_ok(), allowed, "{lists:?}");
        if allowed {
            naive = next;
        }
        changed += u32::from(allowed);
        refused += u32::from(!allowed);
        for (slot, cells) in naive.iter().enumerate() {
            for (sub, cell) in cells.iter().enumerate() {
                assert_eq!(t.frame_of(range(slot as u32), sub as u32), cell.map(FrameIndex));
            }
            let start = below(16);
            let subs = start..start + 1 + below(16 - start);
            let all = subs.clone().all(|sub| cells[sub as usize].is_some());
            assert_eq!(t.covers(range(slot as u32), &subs), all);
        }
        for (first, (range, sub, count)) in &t.frames {
            assert_eq!(t.ranges[range].runs[sub], FrameRun { first: FrameIndex(*first), count: *count });
        }
    }
    assert!(changed > 2000 && refused > 2000, "{changed} changed, {refused} refused");
}
