//! Where a queue is the application's too: a thread that holds its lock may touch managed memory, and is answered.

use crate::common::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{Config, Engine, GuardKind};
use vkhmm_port::fake::{FakeDevice, FakeDeviceOptions, FakeExec, FakeHost, FakeHostOptions};

/// A world whose every submission takes the application's lock; counts those that began to.
fn world(kind: MemoryKind, lock: &Arc<Mutex<()>>, begun: &Arc<AtomicU32>) -> World {
    let mut setup = Setup { kind, queue_is_shared: true, import: false, ..Setup::default() };
    setup.batch_age = Duration::from_millis(1);
    let (lock, begun) = (Arc::clone(lock), Arc::clone(begun));
    World::with_device(setup, move |line| {
        if line.to_string().starts_with("submit") {
            begun.fetch_add(1, Ordering::Relaxed);
            drop(lock.lock().unwrap());
        }
    })
}

#[test]
fn who_holds_the_queue_may_touch() {
    for kind in [MemoryKind::DeviceCoherent, MemoryKind::UnifiedMemory] {
        within(20, move || {
            let (lock, begun) = (Arc::new(Mutex::new(())), Arc::default());
            let w = world(kind, &lock, &begun);
            let (x, y) = (w.alloc(2 * w.block()), w.alloc(w.block()));
            w.launch(&set(3), &[(&x, 0..256, Overwrite), (&y, 0..128, Overwrite)]);
            w.rest();
            let held = lock.lock().unwrap();
            let before = begun.load(Ordering::Relaxed);
            std::thread::scope(|scope| {
                // Somebody launches meanwhile, and is stuck in a submission with the lock of all submissions.
                let launch = scope.spawn(|| {
                    w.wait(&w.launch(&add(1), &[(&y, 0..128, Write)]));
                });
                until("the launch is stuck", || begun.load(Ordering::Relaxed) > before);
                assert_eq!(w.load(&x, 0..256), [3; 256], "bytes come home without a queue");
                w.store(&x, 5, &[9]);
                let guard = w.engine.guard(&x, (0..256).into(), GuardKind::Write).unwrap();
                w.engine.drop_guard(&x, (0..256).into(), guard);
                assert!(!launch.is_finished());
                drop(held);
            });
            assert_eq!(w.load(&y, 0..128), [4; 128]);
            let stats = w.engine.stats();
            assert!(stats.path_cpu_bytes == stats.out_bytes() && stats.out_bytes() > 0, "{stats}");
            w.rest();
        });
    }
}

/// What a launch left for later would need the lock that the one holds who waits for it.
#[test]
fn a_launch_that_has_returned_needs_the_lock_no_more() {
    within(20, || {
        let (lock, begun) = (Arc::new(Mutex::new(())), Arc::default());
        let w = world(MemoryKind::DeviceCoherent, &lock, &begun);
        let (x, y) = (w.alloc(2 * w.block()), w.alloc(w.block()));
        for round in 0..30_u8 {
            // Both are staged: by another thread, after the launch.
            w.store(&x, 3, &[round]);
            w.launch(&add(1), &[(&y, 0..128, Write)]);
            w.launch(&add(1), &[(&x, 0..256, Write)]);
            let held = lock.lock().unwrap();
            assert_eq!(w.load(&x, 3..4), [round + 1]);
            assert_eq!(w.load(&y, 0..128), [round + 1; 128]);
            drop(held);
        }
        w.rest();
    });
}

#[test]
fn a_copy_home_waits_for_the_last_writer_behind_a_fence() {
    within(20, || {
        let w = world(MemoryKind::DeviceCoherent, &Arc::default(), &Arc::default());
        let x = w.alloc(w.block());
        w.launch(&set(1), &[(&x, 0..128, Overwrite)]);
        w.rest();
        for round in 0..50_u8 {
            // Resident, so without holds: its ticket at the gate is all that a touch knows of it.
            w.launch(&add(1), &[(&x, 0..128, Write)]);
            let submits = w.engine.stats().submits;
            if round % 3 == 0 {
                w.device.stall(Duration::from_millis(2));
            }
            if round % 2 == 0 {
                assert_eq!(w.load(&x, 0..1), [round + 2]);
            } else {
                w.engine.bring_home(&x, (0..128).into(), GuardKind::Read).unwrap();
                assert_eq!(w.load(&x, 127..128), [round + 2]);
            }
            assert!(w.engine.stats().submits <= submits + 1, "the batch alone");
            w.launch(&look(), &[(&x, 0..128, Read)]);
            w.launch(&add(0), &[(&x, 0..128, Write)]);
        }
        assert!(w.engine.stats().launches_resident > 0);
        w.rest();
    });
}

#[test]
#[should_panic(expected = "touches need a queue")]
fn touches_that_need_the_queue_are_refused() {
    let options = FakeDeviceOptions { queue_is_shared: true, ..FakeDeviceOptions::default() };
    let device = Arc::new(FakeDevice::new(SMALL, options));
    let host = Arc::new(FakeHost::new(SMALL, 4, FakeHostOptions::default()));
    let _ = Engine::<TestPorts>::new(FakeExec::new(), host, device, Config::default());
}
