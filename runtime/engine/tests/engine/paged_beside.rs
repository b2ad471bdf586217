//! Everybody who meets a paged launch that is not over: nobody hangs, nobody waits in a turn for it, no byte is lost.

use crate::common::paged::*;
use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::advice::Side;
use vkhmm_core::paging::layout::READ;
use vkhmm_core::units::{ByteRange, PageRun};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind, OpStatus, PlacementKind, SkipReason};
use vkhmm_port::fake::{DeviceCalls, FakeHost, FakeKernel};
use vkhmm_port::{Access, HostError, HostMemory, HostProfile, RawBytes};

/// A paged launch of which some groups have run, and the others may not begin.
fn begun(w: &World) -> (Triad, Brake, Operation) {
    let t = Triad::new(w, 60);
    let brake = Brake::new(20);
    let op = t.launch(w, &brake);
    until("a round is held up", || brake.is_on());
    (t, brake, op)
}

fn waits(w: &World, op: &Operation) {
    until("it waits for the paged launch", || w.engine.report().contains("until a paged launch is over"));
    assert_ne!(op.status(), OpStatus::Done);
}

#[test]
fn launches_that_only_read_what_it_reads_run_beside_it_and_others_after_it() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        let copy = w.alloc(t.x.bytes());
        let bytes = 0..t.x.bytes().min(2 * w.block());
        let beside =
            w.launch(&copy_plus_one(), &[(&t.x, bytes.clone(), Read), (&copy, bytes.clone(), Overwrite)]);
        assert_ne!(op.status(), OpStatus::Done, "it was admitted beside it");
        std::thread::scope(|scope| {
            let launches = [
                scope.spawn(|| w.launch(&add(1), &[(&t.z, bytes.clone(), Write)])),
                scope.spawn(|| w.launch(&set(5), &[(&t.x, 0..7, Write)])),
                scope.spawn(|| w.launch(&look(), &[(&t.y, 3..9, Read)])),
                scope.spawn(|| t.launch(w, &brake)),
            ];
            waits(w, &op);
            assert!(launches.iter().all(|launch| !launch.is_finished()));
            brake.release();
            launches.into_iter().for_each(|launch| w.wait(&launch.join().unwrap()));
        });
        w.wait(&beside);
        assert_eq!(w.load(&copy, 8..9), [t.a[8].wrapping_add(1)]);
        assert_eq!(w.load(&t.y, 59..60), [t.b[59].wrapping_add(2)], "both ran, one after the other");
        assert_eq!(w.load(&t.x, 7..8), [t.a[7]]);
        assert_eq!(w.load(&t.x, 0..1), [5]);
    });
}

#[test]
fn a_launch_that_reads_queues_behind_a_store_that_waits() {
    each_of(beside(60), |w| {
        if w.declared() {
            return;
        }
        let (t, brake, op) = begun(w);
        std::thread::scope(|scope| {
            scope.spawn(|| w.store(&t.x, 0, &[t.a[0].wrapping_add(1)]));
            until("the store waits", || w.engine.leftovers().parked > 0);
            let launch = scope.spawn(|| w.launch(&look(), &[(&t.x, 0..1, Read)]));
            waits(w, &op);
            brake.release();
            w.wait(&launch.join().unwrap());
        });
        assert_eq!(w.load(&t.z, 0..1), [t.sums()[0]]);
        assert_eq!(w.load(&t.x, 0..1), [t.a[0].wrapping_add(1)]);
    });
}

#[test]
fn frames_are_taken_from_it_while_touches_wait_for_it() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        let other = w.alloc(4 * w.block());
        let limit = w.engine.device_memory().0;
        std::thread::scope(|scope| {
            let loads = [0, t.z.bytes() - 1].map(|at| {
                (
                    at,
                    scope.spawn({
                        let t = &t;
                        move || w.load(&t.z, at..at + 1)
                    }),
                )
            });
            std::thread::sleep(Duration::from_millis(1));
            let evicting = scope.spawn(|| {
                for round in 0..6 {
                    w.engine.trim(u64::MAX).unwrap();
                    w.launch(&set(round), &[(&other, 0..other.bytes(), Overwrite)]);
                    w.engine.set_device_memory_limit(limit - (u64::from(round) % 2) * 2 * w.block()).unwrap();
                }
            });
            brake.release();
            for (at, load) in loads {
                assert_eq!(load.join().unwrap(), [t.sums()[at as usize]]);
            }
            evicting.join().unwrap();
        });
        w.wait(&op);
        t.verify(w);
        assert_eq!(w.load_all(&other), vec![5; other.bytes() as usize]);
    });
}

#[test]
fn what_is_given_up_or_asked_for_meanwhile_is_left_alone() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        assert_eq!(w.engine.discard(&t.y, (0..t.y.bytes()).into()).unwrap(), 0, "its bytes are still needed");
        let all = |range: &Range| (Arc::clone(range), (0..range.bytes()).into());
        let to_device = w.engine.prefetch(&[all(&t.z)], Side::Device).unwrap();
        assert!(
            w.in_place(&t.z) || to_device.skipped().iter().all(|skipped| skipped.why == SkipReason::Busy),
            "{:?}",
            to_device.skipped()
        );
        let to_host = w.engine.prefetch(&[all(&t.z), all(&t.y)], Side::Host).unwrap();
        let home = w.engine.prefetch(&[all(&t.x)], Side::Device).unwrap();
        brake.release();
        w.wait(&op);
        to_host.ops().iter().chain(home.ops()).for_each(|op| w.wait(op));
        t.verify(w);
    });
}

#[test]
fn guards_and_pins_come_after_it_or_refuse_it() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        let (part, other) = (0..w.page(), t.x.bytes() - 10..t.x.bytes());
        std::thread::scope(|scope| {
            let guards = [(&t.x, GuardKind::Read), (&t.z, GuardKind::Write)].map(|(range, kind)| {
                let part = part.clone();
                scope.spawn(move || w.engine.guard(range, part.into(), kind).unwrap())
            });
            let pin = scope.spawn(|| w.engine.pin(&t.x, other.clone().into(), Side::Device).unwrap());
            std::thread::sleep(Duration::from_millis(3));
            assert!(guards.iter().all(|guard| !guard.is_finished()), "guards wait");
            if w.in_place(&t.x) {
                until("a pin keeps nothing there, and does not wait", || pin.is_finished());
            } else {
                assert!(!pin.is_finished(), "a pin waits");
            }
            brake.release();
            let [x, z] = guards.map(|guard| guard.join().unwrap());
            w.wait(&op);
            w.engine.drop_guard(&t.x, part.clone().into(), x);
            let pin = pin.join().unwrap();
            // Guarded: refused, and nothing has changed.
            let refused = w.engine.launch_paged(w.paged_spec(&triad(w, &brake), 60, &t.accesses()));
            assert!(matches!(refused, Err(EngineError::Guarded { .. })), "{:?}", refused.map(drop));
            w.engine.drop_guard(&t.z, part.clone().into(), z);
            // Pinned in a span: the rest of its block cannot come along. Elsewhere it is no matter.
            let launched = w.engine.launch_paged(w.paged_spec(&triad(w, &brake), 60, &t.accesses()));
            if t.x.placement().0 == PlacementKind::Span {
                assert!(matches!(launched, Err(EngineError::PinnedApart { .. })), "{:?}", launched.map(drop));
                t.verify(w);
            } else {
                w.wait(&launched.unwrap());
                assert_eq!(w.load(&t.y, 0..1), [t.b[0].wrapping_add(2)]);
            }
            w.engine.unpin(&t.x, other.clone().into(), pin);
        });
        w.wait(&t.launch(w, &brake));
    });
}

#[test]
fn an_acquire_is_busy_and_what_is_acquired_refuses_it() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        for (range, access) in [(&t.x, Read), (&t.x, Write), (&t.z, Read)] {
            let busy = w.acquire(&[(range, 0..16, access)]).map(drop);
            assert!(matches!(busy, Err(EngineError::Busy { .. })), "{busy:?}");
        }
        brake.release();
        w.wait(&op);
        let acquired = w.acquired(&[(&t.x, 0..16, Read)]);
        let refused = w.engine.launch_paged(w.paged_spec(&triad(w, &brake), 60, &t.accesses()));
        assert!(matches!(refused, Err(EngineError::Acquired { .. })), "{:?}", refused.map(drop));
        acquired.cancel();
        t.verify(w);
    });
}

#[test]
fn a_range_that_is_freed_lives_until_it_is_over() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        w.engine.free(&t.x);
        w.engine.free(&t.y);
        let late = w.alloc(w.block());
        assert!(late.offset() != t.x.offset() && late.offset() != t.y.offset());
        brake.release();
        w.engine.sync().unwrap();
        assert_eq!(op.status(), OpStatus::Done, "sync waits for it");
        assert_eq!(w.load_all(&t.z), t.sums());
        until("they are reclaimed", || w.engine.leftovers().zombies == 0);
        let gone = w.engine.launch_paged(w.paged_spec(&triad(w, &brake), 60, &t.accesses())).map(drop);
        assert!(matches!(gone, Err(EngineError::UnknownRange { argument: 0 })), "{gone:?}");
    });
}

#[test]
fn two_share_the_frames_and_a_third_reads_beside_them() {
    let setups = beside(60).into_iter().map(|setup| Setup { blocks: 256, ..setup });
    each_of(setups.collect(), |w| {
        let (one, two) = (Triad::new(w, 60), Triad::new(w, 60));
        let out = w.alloc(one.x.bytes());
        let brake = Brake::new(10);
        let ops = [one.launch(w, &brake), two.launch(w, &brake)];
        let copy = FakeKernel::paged(&w.device, |group| {
            let part = part_of(group);
            group.want(0, part.clone(), READ);
            group.want(1, part.clone(), vkhmm_core::paging::layout::WRITE);
            if group.vote() {
                let bytes = group.load(0, part.clone());
                group.store(1, part.start, &bytes);
            }
        });
        let third = w.launch_paged(&copy, 60, &[(&one.x, Read), (&out, Overwrite)]);
        brake.release();
        ops.iter().chain([&third]).for_each(|op| w.wait(op));
        one.verify(w);
        two.verify(w);
        assert_eq!(w.load_all(&out), one.a);
    });
}

#[test]
fn stopping_does_not_wait_for_it_and_it_ends_all_the_same() {
    for setup in beside(60) {
        within(20, move || {
            let w = World::new(setup);
            let (_t, brake, op) = begun(&w);
            let engine = Arc::downgrade(&w.engine);
            drop(w);
            assert_ne!(op.status(), OpStatus::Done);
            brake.release();
            until("it is over", || op.status() == OpStatus::Done);
            drop(op);
            until("all threads have let go", || engine.strong_count() == 0);
        });
    }
}

#[test]
fn a_loss_takes_all_that_it_was_to_write_and_nothing_else() {
    for setup in beside(60) {
        within(20, move || {
            let w = World::new(setup);
            let (t, brake, op) = begun(&w);
            w.device.lose();
            brake.release();
            let lost = w.engine.wait(&op, None);
            assert!(matches!(lost, Err(EngineError::DeviceLost { .. })), "{lost:?}");
            until("the loss is settled", || w.engine.who_is_busy() == "no operation is open");
            for range in [&t.y, &t.z] {
                for at in (0..range.bytes()).step_by(w.page() as usize) {
                    let lost = w.engine.check(range, (at..at + 1).into());
                    assert!(matches!(lost, Err(EngineError::Lost { .. })), "byte {at}: {lost:?}");
                }
            }
            assert_eq!(w.load_all(&t.x), t.a);
            let refused =
                w.engine.launch_paged(w.paged_spec(&triad(&w, &brake), 60, &t.accesses())).map(drop);
            assert!(matches!(refused, Err(EngineError::DeviceLost { .. })), "{refused:?}");
        });
    }
}

#[test]
fn without_frames_it_ends_and_what_finished_stays() {
    each_of(beside(60), |w| {
        let (t, brake, op) = begun(w);
        let maps = w.engine.pagemaps();
        maps.iter().for_each(|map| w.engine.kill_pagemap(map.id()).unwrap());
        brake.release();
        match w.engine.wait(&op, None) {
            Err(EngineError::NoPagemap) => assert!(op.paging().is_some_and(|report| report.rounds > 0)),
            // In place, or there was room for all of it.
            other => assert!(other.unwrap()),
        }
        for map in maps {
            w.engine.unregister_pagemap(map.id(), Duration::from_secs(10)).unwrap();
        }
        // Of z what nobody finished is anything: it was to be overwritten.
        let (got, new) = (w.load_all(&t.z), t.sums());
        assert_eq!(w.load_all(&t.x), t.a);
        let (before, after) = (&t.b, t.b.iter().map(|b| b.wrapping_add(1)).collect::<Vec<u8>>());
        let y = w.load_all(&t.y);
        for part in 0..t.groups as usize {
            let bytes = part * PART as usize..(part + 1) * PART as usize;
            let done = y[bytes.clone()] == after[bytes.clone()];
            assert!(done || y[bytes.clone()] == before[bytes.clone()], "part {part} is whole");
            assert!(!done || got[bytes.clone()] == new[bytes], "part {part} of both");
        }
    });
}

#[test]
fn as_many_as_there_is_room_for_read_at_once_and_the_next_one_waits() {
    each_of(beside(60), |w| {
        let t = Triad::new(w, 60);
        let brake = Brake::new(0);
        let theirs = brake.clone();
        let look = FakeKernel::paged(&w.device, move |group| {
            theirs.pass();
            group.want(0, part_of(group), READ);
            group.vote();
        });
        let launch = || w.launch_paged(&look, 60, &[(&t.x, Read)]);
        let first: Vec<_> = (0..7).map(|_| launch()).collect();
        std::thread::scope(|scope| {
            let next = scope.spawn(launch);
            waits(w, &first[6]);
            assert!(!next.is_finished());
            brake.release();
            w.wait(&next.join().unwrap());
        });
        first.iter().for_each(|op| w.wait(op));
        t.launch(w, &brake);
        t.verify(w);
    });
}

/// A host whose process may be a forked child.
struct Forked {
    host: FakeHost,
    child: Arc<AtomicBool>,
}

impl HostMemory for Forked {
    fn profile(&self) -> &HostProfile {
        self.host.profile()
    }
    fn base(&self) -> usize {
        self.host.base()
    }
    fn owned(&self) -> bool {
        !self.child.load(Ordering::Acquire)
    }
    fn alias(&self, range: ByteRange) -> RawBytes {
        self.host.alias(range)
    }
    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.host.populate(run)
    }
    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.host.revoke(run)
    }
    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.host.protect(run)
    }
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.host.publish(run, access)
    }
    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.host.poison(run)
    }
    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.host.punch(run)
    }
}

#[test]
fn a_forked_child_is_told_so_and_touches_nothing() {
    within(20, || {
        let child = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&child);
        let w = World::with_host(Setup { limit_frames: 17, ..Setup::default() }, |host| Forked {
            host,
            child: theirs,
        });
        let (t, brake) = (Triad::new(&w, 60), Brake::new(u32::MAX));
        let op = t.launch(&w, &brake);
        w.wait(&op);
        child.store(true, Ordering::Release);
        let asked = || DeviceCalls { wait: 0, ..w.device.calls() };
        let calls = asked();
        let refused = w.engine.launch_paged(w.paged_spec(&triad(&w, &brake), 60, &t.accesses())).map(drop);
        assert!(matches!(refused, Err(EngineError::ForkedChild)), "{refused:?}");
        assert!(matches!(w.engine.wait(&op, None), Err(EngineError::ForkedChild)));
        assert_eq!(asked(), calls);
        child.store(false, Ordering::Release);
        t.verify(&w);
    });
}
