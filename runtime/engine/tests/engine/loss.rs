//! Every step of every flow fails once: by loss of the device, by a device call, by a host call. Then every byte is current, or
//! Lost and named, or as before; nobody hangs; nothing leaks.

use crate::common::*;
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::{EngineError, GuardKind};
use vkhmm_port::fake::{FakeKernel, TouchError};

/// A range, and the values each of its bytes may have now.
struct Known {
    range: Range,
    may_be: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    FirstTouch,
    Fault,
    Launch,
    Resident,
    Evict,
    Prefetch,
    Guard,
    Paged,
}

const FLOWS: [Flow; 8] = [
    Flow::FirstTouch,
    Flow::Fault,
    Flow::Launch,
    Flow::Resident,
    Flow::Evict,
    Flow::Prefetch,
    Flow::Guard,
    Flow::Paged,
];

/// Brings the world to where the flow begins: x on the device (2s), y on the host (10s), z never touched.
fn prepare(w: &World) -> [Known; 3] {
    let [x, y, z] = [4, 2, 4].map(|blocks| w.alloc(blocks * w.block()));
    w.store(&x, 0, &vec![1; x.bytes() as usize]);
    w.store(&y, 0, &vec![10; y.bytes() as usize]);
    w.launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
    w.rest();
    [(x, 2), (y, 10), (z, 0)].map(|(range, value)| Known { range, may_be: vec![value] })
}

/// Runs the flow; what it says decides what the bytes may be. Touches may end in SIGBUS.
fn run(w: &World, flow: Flow, [x, y, z]: &mut [Known; 3]) {
    let launched = |result: Result<Operation, EngineError>, known: &mut Known, value: u8| {
        // After `Ok` the new value or Lost; after `Err` as before.
        if let Ok(op) = result {
            known.may_be = vec![value];
            let _ = w.engine.wait(&op, None);
        }
    };
    let all = |known: &Known| 0..known.range.bytes();
    match flow {
        Flow::FirstTouch => {
            let at = z.range.offset();
            match w.host.load((at..at + 200).into()) {
                Ok(bytes) => assert_eq!(bytes, [0; 200]),
                Err(TouchError::Poisoned(_)) => {}
            }
        }
        Flow::Fault => {
            let at = x.range.offset();
            match w.host.load((at..at + 300).into()) {
                Ok(bytes) => assert_eq!(bytes, [2; 300]),
                Err(TouchError::Poisoned(_)) => {}
            }
            match w.host.store(at + 300, &[2; 40]) {
                Ok(()) | Err(TouchError::Poisoned(_)) => {}
            }
        }
        Flow::Launch => {
            let accesses = [(&y.range, all(y), Write), (&z.range, all(z), Overwrite)];
            let kernel = FakeKernel::new(|b, _, _| {
                map(b[0], |v| v + 1);
                b[1].fill(33);
            });
            let result = w.try_launch(&kernel, &accesses);
            if result.is_ok() {
                z.may_be = vec![33];
            }
            launched(result, y, 11);
        }
        Flow::Resident => {
            launched(w.try_launch(&add(1), &[(&x.range, all(x), Write)]), x, 3);
        }
        Flow::Evict => {
            launched(w.try_launch(&set(44), &[(&z.range, all(z), Overwrite)]), z, 44);
            let _ = w.engine.trim(1 << 20);
        }
        Flow::Prefetch => {
            let _ = w.engine.prefetch_to_host(&x.range, all(x).into());
            let _ = w.engine.prefetch_to_device(&y.range, all(y).into());
            let _ = w.engine.prefetch_to_device(&z.range, all(z).into());
            let _ = w.engine.sync();
        }
        Flow::Guard => {
            for kind in [GuardKind::Read, GuardKind::Write] {
                if let Ok(guard) = w.engine.guard(&x.range, all(x).into(), kind) {
                    w.engine.drop_guard(&x.range, all(x).into(), guard);
                }
            }
        }
        Flow::Paged => {
            let kernel = paged_kernel(w);
            let ranges = [(&x.range, Read), (&y.range, Write), (&z.range, Write)];
            let groups = (x.range.bytes() / w.page()) as u32;
            let launch = || w.engine.launch_paged(w.paged_spec(&kernel, groups, &ranges));
            if let Ok(op) = launch() {
                (y.may_be, z.may_be) = (vec![11], vec![33]);
                if w.engine.wait(&op, None).is_err() && !is_lost(w) {
                    // A round failed, after others were done. The next launch ends what it began.
                    w.wait(&launch().expect("it failed once"));
                }
            }
        }
    }
    let _ = w.engine.sync();
}

/// A page a group: loads x, stores 11 to y as far as that goes, and 33 to z.
fn paged_kernel(w: &World) -> FakeKernel {
    let page = w.page();
    FakeKernel::paged(&w.device, move |group| {
        let at = u64::from(group.id()) * page;
        let (bytes, to_y) = (at..at + page, at < group.bytes(1));
        group.want(0, bytes.clone(), READ);
        if to_y {
            group.want(1, bytes.clone(), WRITE);
        }
        group.want(2, bytes.clone(), WRITE);
        if group.vote() {
            assert!(group.load(0, bytes.clone()).iter().all(|v| *v == 2));
            if to_y {
                group.store(1, at, &vec![11; page as usize]);
            }
            group.store(2, at, &vec![33; page as usize]);
        }
    })
}

/// Whether the device is lost, or a submit failed, which is the same; waits until the engine has noticed.
fn is_lost(w: &World) -> bool {
    use vkhmm_port::Device;
    let limit = w.engine.device_memory().0;
    let noticed = || w.engine.set_device_memory_limit(limit).is_err();
    if w.device.completed().is_err() {
        until("the engine notices", noticed);
    }
    noticed()
}

/// The bytes are what they may be, page by page, or Lost by name. Without a loss nothing is Lost.
fn verify(w: &World, known: &[Known; 3], lost: bool) {
    if lost {
        until("the loss is settled", || w.engine.who_is_busy() == "no operation is open");
        let refused = w.try_launch(&look(), &[(&known[0].range, 0..1, Read)]);
        assert!(matches!(refused, Err(EngineError::DeviceLost { .. } | EngineError::Lost { .. })));
    }
    for Known { range, may_be } in known {
        for at in (0..range.bytes()).step_by(w.page() as usize) {
            let page = at..(at + w.page()).min(range.bytes());
            match w.engine.check(range, page.clone().into()) {
                Ok(()) => {}
                Err(EngineError::Lost { .. }) if lost => {
                    let touch = w.host.touch(w.page_at(range, at), false);
                    assert!(matches!(touch, Err(TouchError::Poisoned(_))), "a lost page is SIGBUS");
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            // Also where a failed call left a page that cannot be shown: its bytes come home.
            w.engine.bring_home(range, page.clone().into(), GuardKind::Read).expect("not lost");
            let place = range.offset() + page.start..range.offset() + page.end;
            let got = vkhmm_port::HostMemory::alias(&w.host, place.into()).to_vec();
            assert!(
                may_be.iter().any(|v| got.iter().all(|g| g == v)),
                "page at {at} of {:?}: {got:?}, not {may_be:?}\n{}",
                range.id(),
                w.map(range)
            );
        }
    }
}

/// What is left works, and nothing is left over.
fn close(w: &World, known: [Known; 3]) {
    w.rest();
    for Known { range, may_be } in &known {
        w.launch(&add(1), &[(range, 0..range.bytes(), Write)]);
        let want = may_be[0].wrapping_add(1);
        assert_eq!(w.load_all(range), vec![want; range.bytes() as usize]);
    }
    w.rest();
    known.iter().for_each(|k| w.engine.free(&k.range));
    drop(known);
    until("all frames are back", || w.engine.device_memory().1 == 0);
    until("all imports are gone", || w.imports.count() == 0);
}

fn setups() -> [Setup; 10] {
    let base = Setup { limit_frames: 12, ..Setup::default() };
    [
        base.clone(),
        Setup { import: false, ..base.clone() },
        Setup { timelines: 1, ..base.clone() },
        Setup { timelines: 1, import: false, slots: 1, ..base.clone() },
        Setup { kind: MemoryKind::DeviceCoherent, import: false, ..base.clone() },
        Setup { kind: MemoryKind::DeviceCoherent, queue_is_shared: true, ..base.clone() },
        Setup { kind: MemoryKind::UnifiedMemory, in_place: Some(0), ..base.clone() },
        Setup { in_place: Some(2 * SMALL.block_bytes()), ..base.clone() },
        Setup { sparse: Some(1 << 30), ..base.clone() },
        Setup { sparse: Some(1 << 30), timelines: 1, import: false, ..base },
    ]
}

/// Arms the `n`-th call for every `n` until one is no longer reached.
fn sweep(arm: fn(&World, u64), fired: fn(&World, u64) -> bool) {
    for setup in setups() {
        for flow in FLOWS {
            let mut n = 1;
            loop {
                let setup = setup.clone();
                let label = format!("call {n} of {flow:?} with {setup:?}");
                let body = move || {
                    let w = World::new(setup);
                    let mut known = prepare(&w);
                    arm(&w, n);
                    run(&w, flow, &mut known);
                    let again = fired(&w, n);
                    arm(&w, 0);
                    let lost = is_lost(&w);
                    verify(&w, &known, lost);
                    if !lost {
                        close(&w, known);
                    }
                    again
                };
                let outcome = std::panic::catch_unwind(|| within(15, body));
                match outcome {
                    Ok(true) => n += 1,
                    Ok(false) => break,
                    Err(panic) => {
                        eprintln!("{label}");
                        std::panic::resume_unwind(panic);
                    }
                }
                assert!(n < 500, "{label}: no end");
            }
        }
    }
}

fn device_calls(w: &World) -> u64 {
    let calls = w.device.calls();
    calls.grow + calls.buffer + calls.import + calls.control + calls.submit + calls.frames
}

#[test]
fn the_device_is_lost_at_every_call() {
    sweep(|w, n| w.device.lose_at_call(n), |w, _| is_lost(w));
}

#[test]
fn every_device_call_fails_once() {
    // A call that fails is not counted, so a flow that made fewer than `n` calls was not hit.
    thread_local!(static BEFORE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    sweep(
        |w, n| {
            w.device.fail_call(n);
            if n > 0 {
                BEFORE.set(device_calls(w));
            }
        },
        |w, n| is_lost(w) || device_calls(w) - BEFORE.get() >= n,
    );
}

#[test]
fn every_host_call_fails_once() {
    thread_local!(static BEFORE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    fn count(w: &World) -> u64 {
        let c = w.host.calls();
        c.populate + c.revoke + c.protect + c.publish + c.poison + c.punch
    }
    sweep(
        |w, n| {
            w.host.fail_call(n);
            if n > 0 {
                BEFORE.set(count(w));
            }
        },
        |w, n| count(w) - BEFORE.get() >= n,
    );
}

#[test]
fn a_loss_in_the_middle_of_everything_ends_everything() {
    for round in 0..30_u64 {
        within(20, move || {
            let setup = setups()[round as usize % setups().len()].clone();
            let w = World::new(Setup { delay: Duration::from_micros(100), ..setup });
            let x = w.alloc(4 * w.block());
            std::thread::scope(|scope| {
                let (w, x) = (&w, &x);
                for t in 0..3 {
                    scope.spawn(move || {
                        let mut random = Random::new(round * 7 + t);
                        loop {
                            let a = random.below(x.bytes());
                            let b = a + 1 + random.below(x.bytes() - a);
                            let at = x.offset() + a;
                            let over = match random.below(4) {
                                0 => w.host.load((at..at + 1).into()).is_err(),
                                1 => w.host.store(at, &[1]).is_err(),
                                2 => w.engine.prefetch_to_host(x, (a..b).into()).is_err(),
                                _ => w.try_launch(&add(1), &[(x, a..b, Write)]).is_err(),
                            };
                            if over {
                                break;
                            }
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(2 + round % 7));
                w.device.lose();
            });
            until("nothing is open", || w.engine.who_is_busy() == "no operation is open");
            let told = w.engine.launch(w.spec(&look(), &[(&x, 0..1, Read)]));
            assert!(told.is_err());
            let y = w.alloc(w.block());
            w.store(&y, 0, &[3; 128]);
            assert_eq!(w.load_all(&y), [3; 128], "the host works on");
            w.engine.free(&y);
            w.engine.free(&x);
        });
    }
}

/// After `stop` our threads finish what is in flight and let go of the engine, also when the device is gone.
#[test]
fn threads_end_after_stop() {
    for setup in setups() {
        for lose in [false, true] {
            let setup = Setup { delay: Duration::from_millis(3), ..setup.clone() };
            within(20, move || {
                let w = World::new(setup);
                let x = w.alloc(4 * w.block());
                w.store(&x, 0, &[1; 512]);
                w.launch(&add(1), &[(&x, 0..512, Write)]);
                w.engine.prefetch_to_host(&x, (0..512).into()).unwrap();
                w.launch(&add(1), &[(&x, 0..100, Write)]);
                if lose {
                    w.device.lose();
                    let _ = w.try_launch(&add(1), &[(&x, 0..100, Write)]);
                } else {
                    w.engine.free(&x);
                }
                let engine = std::sync::Arc::downgrade(&w.engine);
                drop((x, w));
                until("nobody holds the engine", || engine.strong_count() == 0);
            });
        }
    }
}
