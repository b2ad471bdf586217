//! Whole launches of the kernels that people have.

use super::*;

/// `out[g] = f(x[g], y[g])`, 64 groups to a sub-block.
fn triad(group: u32, ask: Ask<'_>) -> bool {
    // Probe all, then vote.
    let got = [ask(0, group / 64, READ), ask(1, group / 64, READ), ask(2, group / 64, WRITE)];
    got.into_iter().all(|got| got)
}

fn triad_ranges(subs: u32, per_block: u32) -> [PagedRange; 3] {
    [
        range(subs, per_block, Use::Read),
        range(subs, per_block, Use::Read),
        range(subs, per_block, Use::Overwrite),
    ]
}

#[test]
fn triad_runs_each_group_once_and_moves_each_page_once() {
    for (subs, capacity, per_block) in
        [(512, 384, 1), (512, 96, 1), (512, 384, 32), (64, 48, 1), (512, 4096, 32), (512, 12, 1)]
    {
        let ranges = triad_ranges(subs, per_block);
        let ran = Machine::new(capacity).run(subs * 64, 0, &ranges, &mut |group, _, ask| triad(group, ask));
        assert_eq!(ran.end, Ok(()));
        assert!(ran.runs() <= 1.2, "{subs} sub-blocks, {capacity} frames: {ran:?}");
        assert_eq!(ran.moved, [subs, subs, 0], "{subs} sub-blocks, {capacity} frames: {ran:?}");
        let rounds = u64::from(subs * 3).div_ceil(u64::from(capacity));
        assert!(ran.report.rounds <= 2 * rounds + 4, "{ran:?}");
    }
}

#[test]
fn one_group_that_does_not_fit_is_too_large_and_nothing_else_is() {
    for groups in [1, 5, 100, 3000] {
        for need in [1, 2, 7, 30] {
            let ranges = [range(groups * need, 1, Use::Write)];
            let run = |capacity| {
                Machine::new(capacity).run(groups, 0, &ranges, &mut |group, _, ask| {
                    let missed = (0..need).filter(|i| !ask(0, group * need + i, WRITE)).count();
                    missed == 0
                })
            };
            assert_eq!(run(need).end, Ok(()), "{groups} groups of {need}");
            let short = run(need - 1);
            assert_eq!(short.end, Err(Stuck::TooLarge { need, have: need - 1 }), "{short:?}");
        }
    }
}

#[test]
fn with_more_frames_a_stuck_launch_goes_on() {
    let mut planner = Planner::new(1, 0, vec![range(4, 1, Use::Read)]);
    let misses = [[0, 0, 0, READ], [0, 2, 0, READ]];
    let outcome = Outcome {
        done: &[0],
        items_done: 0,
        misses: &misses,
        overflow: false,
        missing: &|_, _| &[],
        touched: &|_, _| &[],
    };
    planner.next(1, 1).unwrap();
    planner.outcome(&outcome);
    assert_eq!(planner.next(1, 1), Err(Stuck::TooLarge { need: 2, have: 1 }));
    let round = planner.next(2, 2).unwrap().unwrap();
    let held = |sub| Held { range: 0, subs: sub..sub + 1, access: Use::Read };
    assert_eq!(round, Round { ids: vec![0], lanes: 0, hold: vec![held(0), held(2)], frames: 2 });
    planner.outcome(&Outcome { done: &[1], misses: &[], ..outcome });
    assert_eq!(planner.next(2, 2), Ok(None));
}

#[test]
fn a_group_that_never_votes_is_named() {
    let ran = Machine::new(8)
        .run(50, 0, &triad_ranges(4, 1), &mut |group, _, ask| triad(group, ask) && group != 37);
    assert_eq!(ran.end, Err(Stuck::Silent { group: 37 }));
}

#[test]
fn nothing_to_do_is_done_at_once() {
    let ran = Machine::new(0).run(0, 0, &triad_ranges(4, 1), &mut |_, _, _| false);
    assert_eq!((ran.end, ran.report.rounds), (Ok(()), 0));
    let mut ranges = triad_ranges(4, 1);
    ranges.iter_mut().for_each(|range| range.resident = true);
    let ran = Machine::new(0).run(256, 0, &ranges, &mut |group, _, ask| triad(group, ask));
    assert_eq!(
        (ran.end, ran.report.rounds, ran.report.group_runs),
        (Ok(()), 1, 256),
        "in place nothing is missed"
    );
}

/// `out[g, i] = x[index[g, i]]`, 256 items a group.
fn gather(group: u32, item: u32, subs: u32, skew: bool, ask: Ask<'_>) -> bool {
    let mut to = mix(group, item, 1) % subs;
    if skew {
        to = to.min(mix(group, item, 2) % subs).min(mix(group, item, 3) % subs);
    }
    ask(0, group / 64, READ) && ask(1, to, READ) && ask(2, group / 64, WRITE)
}

#[test]
fn gather_by_items_reads_the_source_about_once() {
    let tries = [
        (2048, 16, 200, false, [1.01, 1.2, 3.5]),
        (2048, 16, 200, true, [1.01, 1.2, 3.5]),
        // What goes by the group is as much as the source, and does not fit with it.
        (4096, 16, 64, false, [1.01, 1.7, 4.0]),
    ];
    for (groups, items, subs, skew, limits) in tries {
        let affine = groups / 64;
        let ranges =
            [range(affine, 1, Use::Read), range(subs, 1, Use::Read), range(affine, 1, Use::Overwrite)];
        let all = subs + 2 * affine;
        for (part, limit) in [1, 2, 4].into_iter().zip(limits) {
            let ran = Machine::new(all / part)
                .run(groups, items, &ranges, &mut |group, item, ask| gather(group, item, subs, skew, ask));
            assert_eq!(ran.end, Ok(()));
            let moved = f64::from(ran.moved.iter().sum::<u32>()) / f64::from(subs + affine);
            assert!(moved <= limit, "{subs} sub-blocks at {part}x: {moved:.2} {ran:?}");
            assert!(ran.report.rounds <= 40, "{subs} sub-blocks at {part}x: {ran:?}");
        }
    }
}

/// Tiles of a product of square matrices, all of K in one group: a panel of rows, and one of columns.
fn gemm(group: u32, tiles: u32, ask: Ask<'_>) -> bool {
    let (row, column) = (group / tiles, group % tiles);
    let mut all = true;
    for k in 0..tiles {
        all &= ask(0, row * tiles + k, READ);
        all &= ask(1, k * tiles + column, READ);
    }
    ask(2, row * tiles + column, WRITE) && all
}

#[test]
fn gemm_ends_with_hardly_more_than_what_one_group_needs() {
    let tiles = 16;
    let square = tiles * tiles;
    let ranges = [range(square, 1, Use::Read), range(square, 1, Use::Read), range(square, 1, Use::Write)];
    for (capacity, runs) in
        [(3 * square, 2.5), (3 * square / 2, 3.0), (3 * square / 4, 4.0), (2 * tiles + 1, 6.0)]
    {
        let ran =
            Machine::new(capacity).run(square, 0, &ranges, &mut |group, _, ask| gemm(group, tiles, ask));
        assert_eq!(ran.end, Ok(()));
        assert!(ran.runs() <= runs, "{capacity} frames: {ran:?}");
    }
    let ran = Machine::new(2 * tiles).run(square, 0, &ranges, &mut |group, _, ask| gemm(group, tiles, ask));
    assert_eq!(ran.end, Err(Stuck::TooLarge { need: 2 * tiles + 1, have: 2 * tiles }));
}

/// As a search through a graph: each step is known by what the last one read.
fn chain(group: u32, item: u32, steps: u32, subs: u32, ask: Ask<'_>) -> bool {
    let mut at = mix(group, item, 0) % subs;
    for step in 0..steps {
        if !ask(0, at, READ) {
            return false;
        }
        at = mix(at, item, step) % subs;
    }
    ask(1, mix(group, item, 9) % subs, WRITE)
}

#[test]
fn chains_of_addresses_end() {
    let ranges = [range(100, 1, Use::Read), range(100, 1, Use::Write)];
    for items in [0, 1, 8] {
        for steps in [1, 3, 6] {
            for capacity in [200, 100, 30, steps + 1] {
                let ran = Machine::new(capacity)
                    .run(64, items, &ranges, &mut |group, item, ask| chain(group, item, steps, 100, ask));
                assert_eq!(ran.end, Ok(()), "{items} items of {steps} steps, {capacity} frames");
            }
        }
    }
}

#[test]
fn any_kernel_ends_or_is_too_large() {
    for seed in 0..300 {
        let mut random = random(seed);
        let (groups, items) = (1 + random(80), [0, 0, 1, 3, 5][random(5) as usize]);
        let ranges: Vec<PagedRange> = (0..1 + random(3))
            .map(|_| {
                let access = [Use::Read, Use::Write, Use::Overwrite][random(3) as usize];
                range(1 + random(40), 1 + random(4), access)
            })
            .collect();
        let asks = random(6);
        let mut kernel = |group: u32, item: u32, ask: Ask<'_>| {
            let mut all = true;
            for i in 0..asks {
                let at = mix(group, item, i + seed as u32) % ranges.len() as u32;
                let of = &ranges[at as usize];
                let write = of.access.writes() && mix(item, group, i) % 2 == 0;
                all &= ask(at, mix(i, group, item) % of.subs, if write { WRITE } else { READ });
                // Half of them go on by what they read.
                if !all && seed % 2 == 0 {
                    return false;
                }
            }
            all
        };
        // What one group, or item, needs.
        let mut most = 0;
        for (group, item) in (0..groups).flat_map(|group| (0..items.max(1)).map(move |item| (group, item))) {
            let mut blocks = BTreeSet::new();
            kernel(group, item, &mut |range, sub, _| {
                blocks.insert((range, sub / ranges[range as usize].subs_per_block));
                true
            });
            let frames = |(at, block): &(u32, u32)| {
                let of = &ranges[*at as usize];
                of.subs_per_block.min(of.subs - block * of.subs_per_block)
            };
            most = most.max(blocks.iter().map(frames).sum::<u32>());
        }
        let capacity = (most + random(8)).saturating_sub(3);
        let machine = Machine {
            capacity,
            mine: capacity,
            list: [usize::MAX, 0, 1, 5][random(4) as usize],
            remote: [0, 0, 1, 3][random(4) as usize],
            most: [0, 1, 3, groups][random(4) as usize],
        };
        let ran = machine.run(groups, items, &ranges, &mut kernel);
        match ran.end {
            Ok(()) => {
                assert!(machine.capacity >= most || machine.remote > 0, "seed {seed}: more than there is");
            }
            Err(Stuck::TooLarge { need, have }) => {
                assert!(machine.capacity < most && need <= most && need > have, "seed {seed}: {ran:?}");
            }
            Err(stuck) => panic!("seed {seed}: {stuck:?}"),
        }
    }
}

#[test]
fn a_round_has_no_more_groups_than_there_is_room_for() {
    let mut planner =
        Planner::new(GROUPS_MAX + 32, 0, vec![PagedRange { resident: true, ..range(1, 1, Use::Read) }]);
    let mut done = vec![0_u32; GROUPS_MAX as usize / 32 + 1];
    let mut rounds = 0;
    while let Some(round) = planner.next(1, 1).unwrap() {
        assert!(round.ids.len() <= GROUPS_MAX as usize);
        round.ids.iter().for_each(|id| done[*id as usize / 32] |= 1 << (id % 32));
        planner.outcome(&Outcome {
            done: &done,
            items_done: 0,
            misses: &[],
            overflow: false,
            missing: &|_, _| &[],
            touched: &|_, _| &[],
        });
        rounds += 1;
    }
    assert_eq!(rounds, 2);
}

/// Each item reads two sub-blocks far away, the second as the first says, and one that it shares with its neighbours; it stores to one.
fn far(group: u32, item: u32, salt: u32, subs: u32, ask: Ask<'_>) -> bool {
    let unit = group * 4 + item;
    let first = mix(unit, salt, 1) % subs;
    let second = mix(first, unit, salt) % subs;
    ask(0, first, READ) && ask(0, second, READ) && ask(0, unit / 4, READ) && ask(1, unit / 4, WRITE)
}

#[test]
fn where_hardly_more_than_one_item_fits_rounds_are_few() {
    let ranges = [range(6, 1, Use::Read), range(6, 1, Use::Write)];
    // An item needs four frames at most. A part that does not suffice is no reason to have no more than four.
    for (mine, capacity, mean, worst) in
        [(3, 6, 36, 50), (4, 4, 66, 85), (5, 5, 39, 60), (6, 6, 25, 38), (2, 4, 76, 92), (8, 8, 10, 20)]
    {
        let run = |salt| {
            let machine = Machine { mine, ..Machine::new(capacity) };
            let ran = machine.run(6, 4, &ranges, &mut |group, item, ask| far(group, item, salt, 6, ask));
            assert_eq!(ran.end, Ok(()));
            assert!(ran.report.rounds <= worst, "{mine} of {capacity} frames: {ran:?}");
            ran.report.rounds
        };
        let all: u64 = (0..100).map(run).sum();
        assert!(all <= mean * 100, "{mine} of {capacity} frames: {all} rounds of 100 launches");
    }
}

#[test]
fn what_is_remote_takes_no_frames_and_no_rounds() {
    let ranges = [range(64, 4, Use::Read), range(8, 1, Use::Write)];
    let far = |group: u32, item: u32, ask: Ask<'_>| {
        ask(0, mix(group, item, 3) % 64, READ) && ask(1, group % 8, WRITE)
    };
    let moved = |remote| Machine { remote, ..Machine::new(16) }.run(40, 4, &ranges, &mut { far });
    let (before, after) = (moved(0), moved(1));
    assert_eq!((before.end, after.end), (Ok(()), Ok(())));
    assert!(after.moved[0] < before.moved[0], "{before:?} {after:?}");
}

#[test]
fn a_range_under_two_numbers_takes_its_frames_once() {
    let ranges = [range(9, 1, Use::Read), PagedRange { same_as: Some(0), ..range(9, 1, Use::Write) }];
    let ran = Machine::new(1).run(9, 0, &ranges, &mut |group, _, ask| {
        let got = [ask(0, group, READ), ask(1, group, WRITE)];
        got == [true; 2]
    });
    assert_eq!(ran.end, Ok(()), "a group needs one frame");
}

#[test]
fn rounds_have_no_more_groups_than_there_is_time_for() {
    let ranges = triad_ranges(64, 1);
    let mut planner = Planner::new(640, 0, ranges.to_vec());
    planner.set_most(100);
    let mut done = vec![0_u32; 20];
    let mut widths = Vec::new();
    while let Some(round) = planner.next(1000, 1000).unwrap() {
        widths.push(round.ids.len());
        // All of it is there from the second round on.
        let runs = widths.len() > 1;
        round.ids.iter().filter(|_| runs).for_each(|id| done[*id as usize / 32] |= 1 << (id % 32));
        let outcome = Outcome {
            done: &done,
            items_done: 0,
            misses: &[],
            overflow: false,
            missing: &|_, _| &[],
            touched: &|_, _| &[],
        };
        planner.outcome(&outcome);
    }
    assert_eq!(widths[1..], [100, 100, 100, 100, 100, 100, 40]);
}
