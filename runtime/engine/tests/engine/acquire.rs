//! An application's own work on managed memory: acquire, submit, release; and who meets it meanwhile.

use crate::common::app::App;
use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vkhmm_core::pagemap::Location;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind, PlacementKind, SkipReason};
use vkhmm_port::RawBytes;
use vkhmm_port::fake::DeviceCalls;

fn in_place(x: &Range) -> bool {
    x.placement().0 == PlacementKind::InPlace
}

fn add_all(n: u8) -> impl FnOnce(&[RawBytes]) + Send + 'static {
    move |parts| parts.iter().for_each(|part| map(*part, |v| v.wrapping_add(n)))
}

#[test]
fn an_applications_work_is_one_more_in_the_order_of_calls() {
    each(|w| {
        let (x, y) = (w.alloc(3 * w.block()), w.alloc(w.block()));
        let mut app = w.app();
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        for round in 0..5 {
            let one = w.acquired(&[(&x, 0..2 * w.block(), Write), (&y, 5..w.block(), Overwrite)]);
            assert_eq!(one.parts().len(), 2);
            assert_eq!(one.parts()[0].bytes, 2 * w.block());
            app.run(one, |parts| {
                map(parts[0], |v| v + 1);
                parts[1].fill(parts[0].slice(0, 1).to_vec()[0]);
            });
            let two = w.acquired(&[(&x, 7..100, Read), (&y, 0..w.block(), Write)]);
            app.run(two, |parts| map(parts[1], |v| v + 1));
            w.launch(&add(2), &[(&x, 0..x.bytes(), Write)]);
            assert_eq!(w.load(&y, 4..6), [1 + round, 4 + 3 * round], "round {round}");
        }
        assert_eq!(w.load(&x, 2 * w.block() - 1..2 * w.block() + 1), [17, 12]);
        assert_eq!(w.engine.stats().acquires, 10);
    });
}

#[test]
fn rounds_go_on_without_a_wait() {
    each(|w| {
        let x = w.alloc(w.block());
        w.store(&x, 0, &[1; 128]);
        let begin = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begin);
        let mut app = App::new(&w.device, move || theirs.load(Ordering::Acquire));
        // Nothing of the application's runs, so nothing is over.
        for _ in 0..12 {
            let acquired = w.acquire(&[(&x, 0..128, Write)]).expect("granted at once");
            app.run(acquired, add_all(1));
        }
        let last = w.launch(&add(10), &[(&x, 0..128, Write)]);
        assert!(
            !w.engine.wait(&last, Some(Duration::from_millis(20))).unwrap(),
            "it comes after all of them"
        );
        begin.store(true, Ordering::Release);
        assert_eq!(w.load(&x, 0..128), [23; 128]);
    });
}

#[test]
fn what_was_released_before_its_copies_is_waited_for_by_resident_launches() {
    each(|w| {
        let x = w.alloc(w.block());
        w.store(&x, 0, &[1; 128]);
        let begin = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begin);
        let mut app = App::new(&w.device, move || theirs.load(Ordering::Acquire));
        // The first copies take the staging slots for a while, so that the acquire's are queued when it is released.
        w.device.stall(Duration::from_millis(10));
        let acquired = w.acquired(&[(&x, 0..w.block(), Write)]);
        app.run(acquired, add_all(1));
        until("its copies are submitted", || w.engine.leftovers().unsent == 0);
        let launch = w.launch(&copy_plus_one(), &[(&x, 0..64, Read), (&x, 64..128, Write)]);
        assert!(!w.engine.wait(&launch, Some(Duration::from_millis(25))).unwrap(), "it comes after the work");
        begin.store(true, Ordering::Release);
        assert_eq!(w.load(&x, 0..1), [2]);
        assert_eq!(w.load(&x, 64..65), [3]);
    });
}

#[test]
fn who_meets_an_open_acquire_is_refused_or_parks() {
    each(|w| {
        let (x, y) = (w.alloc(2 * w.block()), w.alloc(w.block()));
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let mut app = w.app();
        let written = w.acquired(&[(&x, 0..20, Write)]);
        let refused = |outcome: Result<(), EngineError>| match outcome {
            Err(EngineError::Acquired { label, by }) => assert_eq!((&*label, &*by), ("test", "app")),
            other => panic!("{other:?}"),
        };
        refused(w.try_launch(&look(), &[(&x, 0..4, Read)]).map(drop));
        refused(w.try_launch(&add(1), &[(&y, 0..4, Write), (&x, 0..x.bytes(), Write)]).map(drop));
        if !in_place(&x) {
            // A hint leaves out the block that is acquired.
            let hint = w.engine.prefetch_to_device(&x, (0..x.bytes()).into()).unwrap();
            let whys: Vec<_> = hint.skipped().iter().map(|s| (s.bytes, s.why)).collect();
            assert_eq!(whys, [((0..w.block()).into(), SkipReason::Acquired)]);
        }
        refused(w.acquire(&[(&x, 0..4, Read)]).map(drop));
        // Beside it everything goes on, also on pages of the same block.
        w.launch(&add(1), &[(&x, w.block()..2 * w.block(), Write), (&y, 0..4, Write)]);
        w.engine.sync().expect("does not wait for what is acquired");
        let loaded = std::thread::scope(|scope| {
            let toucher = scope.spawn(|| w.load(&x, 0..3));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!toucher.is_finished(), "a touch waits for the release");
            // A launch does not wait behind the touch that waits.
            refused(w.try_launch(&look(), &[(&x, 0..4, Read)]).map(drop));
            app.run(written, add_all(4));
            toucher.join().expect("answered")
        });
        assert_eq!(loaded, [5; 3]);
        assert_eq!(w.load(&x, 19..21), [5, 1]);
        assert_eq!(w.load(&x, w.block()..w.block() + 1), [2]);
        // Readers beside readers.
        let one = w.acquired(&[(&x, 0..64, Read)]);
        let two = w.acquired(&[(&x, 0..64, Read)]);
        w.launch(&copy_plus_one(), &[(&x, 0..64, Read), (&y, 0..64, Overwrite)]);
        refused(w.try_launch(&add(1), &[(&x, 0..4, Write)]).map(drop));
        assert_eq!(w.load(&y, 0..1), [6]);
        // Where nothing can be shown read-only, a load of what is used in place is answered as a store is.
        if w.setup.publish_read_only && w.setup.protect || !in_place(&x) {
            assert_eq!(w.load(&x, 0..1), [5], "readable meanwhile");
        }
        app.run(one, |_| {});
        refused(w.try_launch(&add(1), &[(&x, 0..4, Write)]).map(drop));
        two.cancel();
        w.launch(&add(1), &[(&x, 0..4, Write)]);
        assert_eq!(w.load(&x, 0..1), [6]);
    });
}

#[test]
fn frames_stay_where_they_are_until_release() {
    each(|w| {
        w.engine.set_device_memory_limit(4 * w.frame()).unwrap();
        let (x, y) = (w.alloc(2 * w.frame()), w.alloc(4 * w.frame()));
        let mut app = w.app();
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let acquired = w.acquired(&[(&x, 0..x.bytes(), Write)]);
        if in_place(&x) {
            return acquired.cancel(); // has no frames
        }
        assert!(w.engine.can_acquire(2 * w.frame()) && !w.engine.can_acquire(2 * w.frame() + 1));
        let held = match w.try_launch(&set(1), &[(&y, 0..y.bytes(), Overwrite)]) {
            Err(EngineError::WorkingSetTooLarge { held, .. }) => held,
            other => panic!("{:?}", other.map(drop)),
        };
        assert_eq!(held, 2 * w.frame());
        w.launch(&set(2), &[(&y, 0..2 * w.frame(), Overwrite)]);
        w.launch(&set(2), &[(&y, 2 * w.frame()..4 * w.frame(), Overwrite)]);
        w.engine.trim(u64::MAX).expect("takes what may go");
        assert_eq!(w.engine.device_memory().1, 2 * w.frame());
        w.engine.set_device_memory_limit(0).expect("likewise");
        assert_eq!(w.engine.device_memory().1, 2 * w.frame());
        w.engine.set_device_memory_limit(4 * w.frame()).unwrap();
        app.run(acquired, add_all(1));
        w.launch(&add(1), &[(&y, 0..y.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![2; x.bytes() as usize]);
        assert_eq!(w.load_all(&y), vec![3; y.bytes() as usize]);
    });
}

#[test]
fn too_large_leaves_no_trace() {
    each(|w| {
        w.engine.set_device_memory_limit(8 * w.frame()).unwrap();
        let (x, y) = (w.alloc(4 * w.frame()), w.alloc(9 * w.frame()));
        w.store(&y, 0, &vec![3; y.bytes() as usize]);
        let mut app = w.app();
        let acquired = w.acquired(&[(&x, 0..x.bytes(), Overwrite)]);
        if in_place(&x) {
            return acquired.cancel(); // has no frames
        }
        w.engine.sync().unwrap();
        until("at rest", || w.engine.leftovers().flights == 0 && w.engine.leftovers().operations == 1);
        let look =
            || (w.engine.leftovers(), w.engine.stats(), w.engine.device_memory(), w.map(&x), w.map(&y));
        let before = look();
        // Looks of the completion thread are nothing that anybody asked for.
        let asked = || DeviceCalls { wait: 0, ..w.device.calls() };
        let calls = asked();
        for bytes in [y.bytes(), 5 * w.frame()] {
            match w.acquire(&[(&y, 0..bytes, Write)]) {
                Err(EngineError::WorkingSetTooLarge { need, have, limit, held, .. }) => {
                    assert_eq!((need, have), (bytes, 4 * w.frame()));
                    assert_eq!((limit, held), (8 * w.frame(), 4 * w.frame()));
                }
                other => panic!("{:?}", other.map(drop)),
            }
            assert!(!w.engine.can_acquire(bytes));
        }
        assert_eq!(look(), before);
        assert_eq!(asked(), calls);
        w.engine.audit(|_| None).expect("nothing is broken");
        let half = w.acquired(&[(&y, 0..4 * w.frame(), Write)]);
        app.run(half, add_all(1));
        app.run(acquired, |parts| parts[0].fill(9));
        assert_eq!(w.load(&y, 0..1), [4]);
        assert_eq!(w.load(&x, 0..1), [9]);
    });
}

#[test]
fn what_is_apart_from_the_acquired_says_so() {
    within(20, || {
        let w = World::limited(8);
        // Above the limit: no home for all of it.
        let x = w.alloc(10 * w.frame());
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        let acquired = w.acquired(&[(&x, 0..w.frame(), Read)]);
        let refused = w.try_launch(&look(), &[(&x, 0..4 * w.frame(), Read)]);
        assert!(matches!(refused, Err(EngineError::Acquired { .. })), "{:?}", refused.map(drop));
        acquired.cancel();
        w.launch(&look(), &[(&x, 0..4 * w.frame(), Read)]);
        w.rest();
    });
}

#[test]
fn cancelled_bytes_are_what_they_were_or_zero() {
    each(|w| {
        let x = w.alloc(2 * w.block());
        w.store(&x, 0, &vec![7; x.bytes() as usize]);
        // Full of somebody else's bytes.
        let y = w.alloc(2 * w.block());
        w.launch(&set(0xEE), &[(&y, 0..y.bytes(), Overwrite)]);
        w.rest();
        w.engine.free(&y);
        until("its frames are back", || w.engine.device_memory().1 == 0);
        let end = w.block() + 3;
        w.acquired(&[(&x, 3..end, Overwrite)]).cancel();
        let pages = [w.page() as usize, w.block() as usize];
        let got = w.load_all(&x);
        assert!(got[..pages[0]].iter().all(|b| *b == 7), "partly covered: {got:?}");
        // In place nobody else's bytes were ever there.
        let given_up = if in_place(&x) { 7 } else { 0 };
        assert!(got[pages[0]..pages[1]].iter().all(|b| *b == given_up), "given up: {got:?}");
        assert!(got[pages[1]..].iter().all(|b| *b == 7), "partly covered: {got:?}");
        w.acquired(&[(&x, 0..x.bytes(), Write)]).cancel();
        assert_eq!(w.load_all(&x), got);
        // Dropped: cancelled, and said.
        drop(w.acquired(&[(&x, 0..x.bytes(), Overwrite)]));
        assert_eq!(w.load_all(&x), vec![given_up; x.bytes() as usize]);
        assert_eq!(w.engine.stats().acquires_cancelled, 3);
    });
}

#[test]
fn what_is_on_its_way_home_is_busy_and_nothing_waits() {
    each(|w| {
        let x = w.alloc(w.block());
        w.launch(&set(3), &[(&x, 0..x.bytes(), Overwrite)]);
        w.rest();
        w.device.stall(Duration::from_millis(300));
        let started = w.engine.prefetch_to_host(&x, (0..x.bytes()).into()).unwrap();
        if !started.ops().is_empty() {
            let before = Instant::now();
            match w.acquire(&[(&x, 0..x.bytes(), Write)]) {
                Err(EngineError::Busy { label, why }) => {
                    assert_eq!((&*label, &*why), ("app", "bytes are on their way home of `test`"));
                }
                other => panic!("{:?}", other.map(drop)),
            }
            assert!(before.elapsed() < Duration::from_millis(250), "it waited");
            // Behind a launch that waits for the same bytes there is no turn to be had.
            std::thread::scope(|scope| {
                let launch = scope.spawn(|| w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]));
                until("it waits", || w.engine.report().contains("are being admitted"));
                let other = w.alloc(w.block());
                let before = Instant::now();
                let outcome = w.acquire(&[(&other, 0..16, Write)]);
                let waits = !launch.is_finished();
                assert!(
                    !waits || matches!(outcome, Err(EngineError::Busy { .. })),
                    "{:?}",
                    outcome.map(drop)
                );
                assert!(before.elapsed() < Duration::from_millis(250), "it waited");
                launch.join().expect("launched");
            });
            assert_eq!(w.load(&x, 0..1), [4]);
        }
        w.acquired(&[(&x, 0..x.bytes(), Write)]).cancel();
    });
}

#[test]
fn a_freed_range_stays_until_its_release() {
    each(|w| {
        let x = w.alloc(w.block());
        w.store(&x, 0, &[1; 16]);
        let mut app = w.app();
        let acquired = w.acquired(&[(&x, 0..x.bytes(), Write)]);
        w.engine.free(&x);
        let y = w.alloc(w.block());
        assert_ne!(y.offset(), x.offset(), "its address is not given away");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(w.engine.leftovers().zombies, 1);
        app.run(acquired, add_all(1));
        until("it is reclaimed", || w.engine.leftovers().zombies == 0);
        until("its frames are back", || w.engine.device_memory().1 == 0);
    });
}

#[test]
fn a_buffer_lives_as_long_as_the_applications_work() {
    within(20, || {
        let w = World::limited(4);
        let (x, y) = (w.alloc(2 * w.frame()), w.alloc(4 * w.frame()));
        let begin = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&begin);
        let mut app = App::new(&w.device, move || theirs.load(Ordering::Acquire));
        let acquired = w.acquired(&[(&x, 0..x.bytes(), Overwrite)]);
        let buffer = Arc::downgrade(acquired.parts()[0].buffer.as_ref().unwrap());
        app.run(acquired, |parts| parts[0].fill(5));
        // Evicts x once it is released on the device, and lets its span go at once.
        let launch = w.launch(&set(6), &[(&y, 0..y.bytes(), Overwrite)]);
        assert!(buffer.strong_count() > 0, "its work has not begun");
        begin.store(true, Ordering::Release);
        w.wait(&launch);
        until("the buffer is gone", || buffer.strong_count() == 0);
        assert_eq!(w.load(&x, 0..2), [5, 5]);
        assert_eq!(w.load(&y, 0..2), [6, 6]);
        w.rest();
    });
}

#[test]
fn loss_ends_what_is_acquired() {
    each(|w| {
        if w.setup.timelines == 0 {
            return;
        }
        let world = World::new(w.setup.clone());
        let (x, y) = (world.alloc(world.block()), world.alloc(world.block()));
        world.store(&x, 0, &[1; 16]);
        world.store(&y, 0, &[2; 16]);
        let mut app = world.app();
        let (one, two) = (world.acquired(&[(&x, 0..64, Write)]), world.acquired(&[(&y, 0..64, Read)]));
        let three = world.acquired(&[(&x, 64..128, Overwrite)]);
        world.engine.sync().unwrap();
        world.device.lose();
        until("the loss is known", || {
            matches!(world.engine.check(&x, (0..16).into()), Err(EngineError::Lost { .. }))
        });
        let lost = world.engine.check(&x, (0..16).into());
        assert!(matches!(lost, Err(EngineError::Lost { .. })), "{lost:?}");
        world.engine.check(&y, (0..16).into()).expect("what is read was on the host all the time");
        until("it is settled", || world.location(&x, 0) == Location::Lost);
        assert_eq!(world.load(&y, 0..16), [2; 16]);
        app.run(one, |_| {});
        two.cancel();
        drop(three);
        assert!(matches!(world.acquire(&[(&y, 0..4, Read)]), Err(EngineError::DeviceLost { .. })));
        assert!(!world.engine.can_acquire(1));
        until("all has ended", || world.engine.who_is_busy() == "no operation is open");
    });
}

#[test]
fn many_open_readers_leave_room_for_others() {
    within(20, || {
        let w = World::small();
        let (x, y) = (w.alloc(w.block()), w.alloc(w.block()));
        w.store(&x, 0, &[1; 128]);
        let mut open = Vec::new();
        let refused = loop {
            match w.acquire(&[(&x, 0..16, Read)]) {
                Ok(one) => open.push(one),
                Err(EngineError::Busy { .. }) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(refused, EngineError::Acquired { .. }) && open.len() > 8,
            "{refused}, {}",
            open.len()
        );
        w.launch(&copy_plus_one(), &[(&x, 64..128, Read), (&y, 0..64, Overwrite)]);
        w.launch(&add(1), &[(&x, 64..128, Write)]);
        assert_eq!(w.load(&x, 63..65), [1, 2]);
        assert_eq!(w.load(&y, 0..1), [2]);
        open.into_iter().for_each(|one| one.cancel());
        w.launch(&add(1), &[(&x, 0..16, Write)]);
        assert_eq!(w.load(&x, 0..1), [2]);
        w.rest();
    });
}

#[test]
fn a_report_names_what_is_acquired() {
    let w = World::small();
    let x = w.alloc(w.block());
    let acquired = w.acquire_as("frame 7", &[(&x, 0..4, Write)]).unwrap();
    // A report waits for no lock: what somebody holds just then is left out.
    until("the report names it", || {
        let report = w.engine.report();
        report.contains("acquired and not released: #") && report.contains("`frame 7`, for 0.")
    });
    acquired.cancel();
    until("the report has it no more", || !w.engine.report().contains("not released"));
    w.rest();
}

#[test]
fn empty_arguments_and_those_outside_are_what_they_are_for_launches() {
    let w = World::small();
    let x = w.alloc(100);
    let mut app = w.app();
    let empty = w.acquire(&[(&x, 5..5, Write)]).unwrap();
    assert!(empty.parts()[0].buffer.is_none() && empty.parts()[0].address == 0);
    let value = app.semaphore.value();
    empty.release(app.semaphore.clone(), value);
    w.acquire(&[]).unwrap().cancel();
    assert!(matches!(w.acquire(&[(&x, 0..101, Read)]), Err(EngineError::OutOfRange { .. })));
    let guard = w.engine.guard(&x, (0..4).into(), GuardKind::Read).unwrap();
    assert!(matches!(w.acquire(&[(&x, 0..4, Read)]), Err(EngineError::Guarded { .. })));
    w.engine.drop_guard(&x, (0..4).into(), guard);
    app.run(w.acquire(&[(&x, 0..4, Read)]).unwrap(), |_| {});
    w.engine.free(&x);
    assert!(matches!(w.acquire(&[(&x, 0..4, Read)]), Err(EngineError::UnknownRange { argument: 0 })));
    w.rest();
}

/// On a device with one queue for all, what waits for an application's work holds up everything behind it: also a grant that the
/// application promised that work to wait for.
#[test]
fn an_end_comes_after_every_grant_that_its_application_may_wait_for() {
    within(20, || {
        let one_queue = Setup { timelines: 1, one_queue: true, import: false, slots: 1, ..Setup::default() };
        let w = World::new(one_queue);
        let (x, y) = (w.alloc(w.block()), w.alloc(3 * w.block()));
        w.store(&x, 0, &[1; 128]);
        w.store(&y, 0, &vec![2; y.bytes() as usize]);
        let mut app = w.app();
        let early = w.acquired(&[(&x, 0..x.bytes(), Write)]);
        until("its copies are over", || w.engine.leftovers().flights == 0);
        // Three copies by one slot: the grant is promised, and far from kept.
        w.device.stall(Duration::from_millis(200));
        let late = w.acquired(&[(&y, 0..y.bytes(), Write)]);
        assert!(w.engine.leftovers().unsent > 0, "the device is stalled");
        // Their queue is in order, too: what was acquired last comes first there.
        let last = app.submit(&late, add_all(1));
        let first = app.submit(&early, |parts| parts[0].fill(7));
        early.release(app.semaphore.clone(), first);
        assert_eq!(w.load(&x, 0..1), [7], "its holds do not end before it does");
        w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
        late.release(app.semaphore.clone(), last);
        w.launch(&add(1), &[(&y, 0..y.bytes(), Write)]);
        assert_eq!(w.load_all(&x), vec![8; x.bytes() as usize]);
        assert_eq!(w.load_all(&y), vec![4; y.bytes() as usize]);
        w.rest();
    });
}
