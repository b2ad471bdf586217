//! Paged launches: what a kernel touches moves, whatever the frames; and to everybody else it ran inside the call.

use crate::common::paged::*;
use crate::common::*;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, TraceCause};
use vkhmm_port::fake::FakeKernel;

#[test]
fn ranges_of_four_times_the_frames_are_paged_and_touches_find_what_ran() {
    let mut setups = beside(60);
    let shared = combinations().into_iter().filter(|setup| setup.queue_is_shared);
    setups.extend(shared.map(|setup| Setup { limit_frames: 18, ..setup }));
    each_of(setups, |w| {
        let t = Triad::new(w, 60);
        let before = w.engine.stats();
        let op = t.launch(w, &Brake::new(u32::MAX));
        // Whoever touches what is written waits for all of it.
        assert_eq!(w.load(&t.z, 5..6), [t.sums()[5]]);
        t.verify(w);
        w.wait(&op);
        let report = op.paging().expect("it had rounds");
        assert_eq!(report.groups, 60);
        assert!(report.group_runs >= 60 && report.rounds > 0, "{report:?}");
        let stats = w.engine.stats().since(&before);
        assert_eq!((stats.launches_paged, stats.launches), (1, 1));
        assert_eq!((stats.paged_rounds, stats.paged_group_runs), (report.rounds, report.group_runs));
        assert!(w.in_place(&t.x) || report.in_bytes > 0, "{report:?}");
        // What is overwritten is copied in at most once it was evicted; the same again, from where it is now.
        w.wait(&t.launch(w, &Brake::new(u32::MAX)));
        assert_eq!(w.load(&t.y, 0..1), [t.b[0].wrapping_add(2)]);
        w.store(&t.x, 0, &[1]);
    });
}

#[test]
fn the_app_loses_its_mappings_in_the_call_and_never_later() {
    let setups = beside(60).into_iter().map(|setup| Setup { strict: true, ..setup });
    each_of(setups.collect(), |w| {
        let t = Triad::new(w, 60);
        let brake = Brake::new(30);
        let op = t.launch(w, &brake);
        let seen = w.engine.trace_events().len();
        std::thread::scope(|scope| {
            scope.spawn(|| w.load_all(&t.x));
            brake.release();
            w.wait(&op);
        });
        let revoked = |e: &vkhmm_engine::TraceEvent| e.cause == TraceCause::Revoke;
        let late = w.engine.trace_events().iter().skip(seen).filter(|e| revoked(e)).count();
        assert_eq!(late, 0, "L0: rounds weaken nothing");
        t.verify(w);
    });
}

#[test]
fn a_store_during_the_rounds_is_seen_by_none_of_them_and_lands_after() {
    each_of(beside(60), |w| {
        let t = Triad::new(w, 60);
        let brake = Brake::new(3);
        let op = t.launch(w, &brake);
        std::thread::scope(|scope| {
            let stores: Vec<_> = [0, t.x.bytes() / 2, t.x.bytes() - 1]
                .map(|at| {
                    let t = &t;
                    scope.spawn(move || w.store(&t.x, at, &[t.a[at as usize].wrapping_add(100)]))
                })
                .into();
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(stores.iter().all(|store| !store.is_finished()), "stores wait");
            if w.setup.publish_read_only && w.setup.protect && !w.declared() {
                assert_eq!(w.load(&t.x, 40..41), [t.a[40]], "loads do not");
            }
            brake.release();
            stores.into_iter().for_each(|store| store.join().unwrap());
        });
        w.wait(&op);
        assert_eq!(w.load_all(&t.z), t.sums());
        assert_eq!(w.load(&t.x, 0..1), [t.a[0].wrapping_add(100)]);
    });
}

#[test]
fn items_go_on_where_they_were_whatever_their_addresses() {
    each_of(beside(64), |w| {
        // y[i] = x[random(i)], eight items a group.
        let bytes = 64 * PART;
        let (x, y) = (w.alloc(bytes), w.alloc(bytes));
        let a = values(bytes, 3);
        w.store(&x, 0, &a);
        let from = |i: u64| Random::new(i).below(64 * PART);
        let kernel = FakeKernel::paged(&w.device, move |group| {
            for item in group.items() {
                let i = u64::from(group.id()) * 8 + u64::from(item);
                if group.try_at(0, from(i)..from(i) + 1, READ) && group.try_at(1, i..i + 1, WRITE) {
                    let value = group.load(0, from(i)..from(i) + 1);
                    group.store(1, i, &value);
                    group.item_done(item);
                }
            }
        });
        let mut spec = w.paged_spec(&kernel, (bytes / 8) as u32, &[(&x, Read), (&y, Overwrite)]);
        spec.items = 8;
        let op = w.engine.launch_paged(spec).unwrap();
        w.wait(&op);
        let want: Vec<u8> = (0..bytes).map(|i| a[from(i) as usize]).collect();
        assert_eq!(w.load_all(&y), want, "{:?}", op.paging());
    });
}

#[test]
fn misses_beyond_the_list_are_found_by_their_bits() {
    for sparse in [None, Some(1 << 30)] {
        within(20, move || {
            let w = World::new(Setup { blocks: 6000, limit_frames: 11_000, sparse, ..Setup::default() });
            // Each group touches as many sub-blocks as one round tells of, and more.
            let frames = 5000;
            let x = w.alloc(frames * w.frame());
            let frame = w.frame();
            let kernel = FakeKernel::paged(&w.device, move |group| {
                let of_group = u64::from(group.id()) * frames / 2;
                let subs = of_group..of_group + frames / 2;
                for sub in subs.clone() {
                    group.want(0, sub * frame..sub * frame + 1, WRITE);
                }
                if group.vote() {
                    subs.for_each(|sub| group.store(0, sub * frame, &[sub as u8]));
                }
            });
            let op = w.launch_paged(&kernel, 2, &[(&x, Write)]);
            w.wait(&op);
            assert!(op.paging().unwrap().misses >= 4096, "{:?}", op.paging());
            let got = w.load_all(&x);
            assert!((0..frames).all(|sub| got[(sub * frame) as usize] == sub as u8));
            w.rest();
        });
    }
}

#[test]
fn what_one_group_needs_and_cannot_have_is_said_and_the_rest_stays() {
    for sparse in [None, Some(1 << 30)] {
        within(20, move || {
            let w = World::new(Setup { limit_frames: 8, sparse, ..Setup::default() });
            let x = w.alloc(40 * w.frame());
            w.store(&x, 0, &vec![1; x.bytes() as usize]);
            let frame = w.frame();
            // The first group fits, the second does not.
            let kernel = FakeKernel::paged(&w.device, move |group| {
                let bytes = if group.id() == 0 { 0..frame } else { frame..30 * frame };
                group.want(0, bytes.clone(), READ | WRITE);
                if group.vote() {
                    group.store(0, bytes.start, &vec![7; (bytes.end - bytes.start) as usize]);
                }
            });
            let op = w.launch_paged(&kernel, 2, &[(&x, Write)]);
            match w.engine.wait(&op, None) {
                Err(EngineError::WorkingSetTooLarge { need, have, limit, .. }) => {
                    assert!(need > have && have <= limit, "{need} {have} {limit}");
                }
                other => panic!("{other:?}"),
            }
            assert!(op.failure().is_some());
            w.rest();
            assert_eq!(w.load(&x, 0..frame), vec![7; frame as usize]);
            assert_eq!(w.load(&x, frame..x.bytes()), vec![1; (x.bytes() - frame) as usize]);
            // With more frames it is no matter.
            w.engine.set_device_memory_limit(40 * frame).unwrap();
            w.wait(&w.launch_paged(&kernel, 2, &[(&x, Write)]));
            assert_eq!(w.load(&x, 0..30 * frame), vec![7; 30 * frame as usize]);
        });
    }
}

#[test]
fn faults_of_a_kernel_are_said() {
    each_of(beside(8), |w| {
        let t = Triad::new(w, 8);
        let past = FakeKernel::paged(&w.device, |group| {
            group.want(0, 0..group.bytes(0) + 1, READ);
            group.vote();
        });
        let stores = FakeKernel::paged(&w.device, |group| {
            group.want(0, 0..1, WRITE);
            group.vote();
        });
        let silent = FakeKernel::paged(&w.device, |group| group.want(0, 0..1, READ));
        for (kernel, name) in [(past, "outside"), (stores, "outside"), (silent, "finish")] {
            let op = w.launch_paged(&kernel, 8, &t.accesses());
            let error = w.engine.wait(&op, None).expect_err("the kernel is wrong");
            assert!(matches!(error, EngineError::Outside { .. } | EngineError::Unfinished { .. }), "{error}");
            assert!(error.to_string().contains(name), "{error}");
            w.rest();
        }
        t.launch(w, &Brake::new(u32::MAX));
        t.verify(w);
    });
}

#[test]
fn an_empty_grid_runs_nothing_and_is_ordered_like_any_other() {
    each_of(beside(8), |w| {
        let t = Triad::new(w, 8);
        let op = w.launch_paged(&triad(w, &Brake::new(0)), 0, &t.accesses());
        w.wait(&op);
        assert!(op.paging().is_none_or(|report| report.rounds == 0));
        assert_eq!(w.load_all(&t.y), t.b);
        let none = w.engine.launch_paged(w.paged_spec(&triad(w, &Brake::new(0)), 0, &[])).unwrap();
        w.wait(&none);
    });
    let w = World::small();
    let mut spec = w.paged_spec(&look(), 1, &[]);
    spec.groups = [1 << 16, 1 << 16, 1];
    let refused = w.engine.launch_paged(spec).map(drop);
    assert!(matches!(refused, Err(EngineError::TooManyGroups { most: 0xffff_ffff, .. })), "{refused:?}");
}

#[test]
fn what_nobody_has_written_is_zeros_for_loads_meanwhile_and_for_the_kernel() {
    each_of(beside(60), |w| {
        let (x, z) = (w.alloc(60 * PART), w.alloc(60 * PART));
        let brake = Brake::new(10);
        let theirs = brake.clone();
        let copy = FakeKernel::paged(&w.device, move |group| {
            theirs.pass();
            let part = part_of(group);
            group.want(0, part.clone(), READ);
            group.want(1, part.clone(), READ | WRITE);
            if group.vote() {
                let (x, z) = (group.load(0, part.clone()), group.load(1, part.clone()));
                assert!(x.iter().chain(&z).all(|v| *v == 0));
                group.store(1, part.start, &vec![9; PART as usize]);
            }
        });
        let op = w.launch_paged(&copy, 60, &[(&x, Read), (&z, Write)]);
        if w.setup.publish_read_only && w.setup.protect {
            assert_eq!(w.load_all(&x), vec![0; x.bytes() as usize], "it waits for nobody");
        }
        brake.release();
        assert_eq!(w.load_all(&z), vec![9; z.bytes() as usize]);
        w.wait(&op);
        w.store(&x, 0, &[1]);
    });
}

#[test]
fn a_range_that_is_named_twice_is_not_dead_because_one_of_them_overwrites() {
    each_of(beside(60), |w| {
        let x = w.alloc(60 * PART);
        let a = values(x.bytes(), 5);
        w.store(&x, 0, &a);
        let step = FakeKernel::paged(&w.device, |group| {
            let part = part_of(group);
            group.want(0, part.clone(), READ);
            group.want(1, part.clone(), WRITE);
            if group.vote() {
                let new: Vec<u8> = group.load(0, part.clone()).iter().map(|v| v.wrapping_add(1)).collect();
                group.store(1, part.start, &new);
            }
        });
        w.wait(&w.launch_paged(&step, 60, &[(&x, Read), (&x, Overwrite)]));
        assert_eq!(w.load_all(&x), a.iter().map(|v| v.wrapping_add(1)).collect::<Vec<u8>>());
    });
}

#[test]
fn grids_of_any_shape_are_counted_in_one_row() {
    for groups in [[70_000, 1, 1], [7, 100, 3], [1, 1, 70_000]] {
        within(20, move || {
            let w = World::small();
            let all: u32 = groups.iter().product();
            let x = w.alloc(u64::from(all.div_ceil(1024)));
            let kernel = FakeKernel::paged(&w.device, move |group| {
                let id = group.id();
                let [px, py, pz] = group.place();
                assert_eq!(id, (pz * groups[1] + py) * groups[0] + px);
                if id % 1024 > 0 {
                    group.vote();
                    return;
                }
                let at = u64::from(id / 1024);
                group.want(0, at..at + 1, READ | WRITE);
                if group.vote() {
                    let was = group.load(0, at..at + 1)[0];
                    group.store(0, at, &[was + 1]);
                }
            });
            let mut spec = w.paged_spec(&kernel, 0, &[(&x, Write)]);
            spec.groups = groups;
            w.wait(&w.engine.launch_paged(spec).unwrap());
            assert_eq!(w.load_all(&x), vec![1; x.bytes() as usize], "each ran once");
            w.rest();
        });
    }
}

#[test]
fn room_that_is_pinned_apart_is_used_as_far_as_it_goes() {
    within(60, || {
        let per = {
            let probe = World::new(Setup { geometry: LARGE, ..Setup::default() });
            probe.block() / probe.frame()
        };
        let limit_frames = 3 * per as u32 + 1;
        let w = World::new(Setup { geometry: LARGE, limit_frames, sparse: None, ..Setup::default() });
        // A pinned frame in the middle leaves room for two blocks, and not for three that are as many frames.
        let half = (per + per / 2) * w.frame();
        let (before, pinned) = (w.alloc(half), w.alloc(w.frame()));
        w.wait(&w.launch(&look(), &[(&before, 0..half, Read)]));
        let to = vkhmm_core::advice::Side::Device;
        w.engine.pin(&pinned, (0..w.frame()).into(), to).expect("a pin");
        w.engine.free(&before);
        w.engine.sync().expect("sync");
        w.engine.trim(u64::MAX).expect("trim");
        let x = w.alloc(8 * w.block());
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let block = w.block();
        let kernel = FakeKernel::paged(&w.device, move |group| {
            let first = u64::from(group.id()) * block;
            group.want(0, first..first + 1, READ);
            group.want(0, first + block..first + block + 1, READ);
            group.vote();
        });
        w.wait(&w.launch_paged(&kernel, 3, &[(&x, Read)]));
    });
}
