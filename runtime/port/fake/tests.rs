//! The switches and the strictness of the fakes; what they share with the real ports is in `conformance`.

mod paged;
mod sparse;

use super::*;
use crate::host::{Access, Errno, FaultMode, HostError, HostMemory};
use crate::{Command, Device, DeviceError, Fault, FaultSource, Region, Role, Source, Submission};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry, PageIndex, PageRun, Ticket};
use vkhmm_core::uses::Uses;

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

fn run(first: u64, count: u32) -> PageRun {
    PageRun { first: PageIndex(first), count }
}

fn submission(device: &FakeDevice, value: u64, commands: Vec<Command<FakeDevice>>) -> Submission<FakeDevice> {
    let timeline = device.profile().timeline(Role::Compute);
    Submission { waits: Uses::NONE, foreign: Vec::new(), commands, signals: Ticket { timeline, value } }
}

fn fill(frame: u64) -> Command<FakeDevice> {
    Command::Fill { device_offset: frame * SMALL.frame_bytes(), bytes: SMALL.frame_bytes(), word: 7 }
}

#[track_caller]
fn refused(what: &str, f: impl FnOnce()) {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("a broken contract");
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.unwrap_or_else(|| (*payload.downcast_ref::<&str>().expect("a message")).to_owned());
    assert!(text.contains(what), "{text}");
}

#[test]
fn the_nth_host_call_fails_and_changes_nothing() {
    let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
    host.populate(run(0, 4)).unwrap();
    host.fail_call(2);
    host.publish(run(0, 2), Access::ReadWrite).unwrap();
    assert!(matches!(host.revoke(run(0, 2)), Err(HostError::Refused { operation: "revoke", .. })));
    assert_eq!(host.mapping(PageIndex(0)), Mapping::ReadWrite);
    host.revoke(run(0, 2)).unwrap();
    assert_eq!(host.calls(), HostCalls { populate: 1, publish: 1, revoke: 2, ..HostCalls::default() });
}

#[test]
fn host_memory_can_run_out() {
    let host =
        FakeHost::new(SMALL, 2, FakeHostOptions { populated_pages_max: 3, ..FakeHostOptions::default() });
    host.populate(run(0, 2)).unwrap();
    assert!(matches!(host.populate(run(0, 4)), Err(HostError::OutOfMemory { .. })));
    host.punch(run(0, 1)).unwrap();
    host.populate(run(1, 3)).unwrap();
    assert!(host.publish(run(0, 1), Access::ReadWrite).is_err(), "a hole cannot be mapped");
}

#[test]
fn touches_that_cannot_succeed_are_errors() {
    let host = FakeHost::new(
        SMALL,
        1,
        FakeHostOptions { faults: FaultMode::Declared, ..FakeHostOptions::default() },
    );
    // Nobody is parked there, so only poison can stop a touch.
    assert_eq!(host.touch(PageIndex(2), false), Ok(()));
    host.poison(run(2, 1)).unwrap();
    assert_eq!(host.touch(PageIndex(2), false), Err(TouchError::Poisoned(PageIndex(2))));
    let host = FakeHost::new(SMALL, 1, FakeHostOptions::default());
    host.poison(run(2, 1)).unwrap();
    assert_eq!(host.store(2 * 16, &[1]), Err(TouchError::Poisoned(PageIndex(2))));
    host.revoke(run(2, 1)).unwrap();
    assert_eq!(host.mapping(PageIndex(2)), Mapping::Absent);
}

#[test]
fn a_punch_under_an_import_is_refused() {
    let imports = FakeImports::default();
    let host =
        FakeHost::new(SMALL, 2, FakeHostOptions { imports: imports.clone(), ..FakeHostOptions::default() });
    let device = FakeDevice::new(
        SMALL,
        FakeDeviceOptions { import: Some(imports.clone()), ..FakeDeviceOptions::default() },
    );
    let import = device.import(host.alias(SMALL.bytes_of(run(0, 8)))).unwrap();
    host.punch(run(8, 8)).unwrap();
    refused("under a device import", || host.punch(run(7, 2)).unwrap());
    drop(import);
    assert_eq!(imports.count(), 0);
    host.punch(run(7, 2)).unwrap();
}

#[test]
fn the_nth_device_call_fails_or_loses_it() {
    let device = FakeDevice::new(SMALL, FakeDeviceOptions { frames_max: 6, ..FakeDeviceOptions::default() });
    assert!(matches!(device.grow(FrameIndex(0), 7), Err(DeviceError::OutOfDeviceMemory { .. })));
    device.fail_call(2);
    device.grow(FrameIndex(0), 4).unwrap();
    assert!(matches!(device.grow(FrameIndex(4), 2), Err(DeviceError::OutOfDeviceMemory { .. })));
    device.grow(FrameIndex(4), 2).unwrap();
    assert_eq!(device.frames(), 6);
    device.lose_at_call(1);
    let submitted = device.submit(Role::Compute, submission(&device, 1, vec![fill(0)]));
    assert!(matches!(submitted, Err(DeviceError::Lost { operation: "submit" })));
    assert!(device.completed().is_err());
    assert!(device.wait(&Uses::NONE, Duration::from_secs(60)).is_err(), "at once, not after a minute");
}

#[test]
fn a_loss_ends_waits_for_work_that_lags() {
    let options = FakeDeviceOptions { delay: Duration::from_secs(60), ..FakeDeviceOptions::default() };
    let device = FakeDevice::new(SMALL, options);
    device.grow(FrameIndex(0), 1).unwrap();
    device.submit(Role::Compute, submission(&device, 1, vec![fill(0)])).unwrap();
    assert_eq!(device.completed().unwrap(), Uses::NONE);
    let waiting = device.clone();
    let wait = std::thread::spawn(move || waiting.wait(&Uses::NONE, Duration::from_secs(60)).is_err());
    device.lose();
    assert!(wait.join().unwrap());
}

#[test]
fn a_kernel_that_panics_loses_the_device() {
    let device = FakeDevice::new(SMALL, FakeDeviceOptions::default());
    let kernel = Arc::new(FakeKernel::new(|_, _, _| panic!("a kernel's own mistake")));
    let elapsed_ns = Arc::default();
    let launch = Command::Dispatch { kernel, bindings: vec![], push: vec![], groups: [1; 3], elapsed_ns };
    device.submit(Role::Compute, submission(&device, 1, vec![launch])).unwrap();
    assert!(device.wait(&Uses::NONE, Duration::from_secs(60)).is_err());
}

#[test]
fn submissions_that_break_the_contract_are_refused() {
    let device = FakeDevice::new(SMALL, FakeDeviceOptions { regions_max: 2, ..FakeDeviceOptions::default() });
    device.grow(FrameIndex(0), 2).unwrap();
    let try_it =
        |value, commands| device.submit(Role::Compute, submission(&device, value, commands)).unwrap();
    let copy = |device_offset| Region { host_offset: 0, device_offset, bytes: 16 };
    let copy_in = |regions| Command::CopyIn { source: Source::Slot(0), regions };
    refused("the next value", || try_it(2, vec![]));
    refused("are not inside the piece", || try_it(1, vec![fill(2)]));
    refused("3 regions in one copy", || try_it(1, vec![copy_in(vec![copy(0), copy(16), copy(32)])]));
    refused("no barrier between them", || try_it(1, vec![fill(0), copy_in(vec![copy(0)])]));
    let mut waits = Uses::NONE;
    waits.add(Ticket { timeline: device.profile().timeline(Role::CopyIn), value: 1 });
    refused("nobody submitted", || {
        let late = Submission { waits, ..submission(&device, 1, vec![]) };
        device.submit(Role::Compute, late).unwrap();
    });
    try_it(1, vec![fill(0), Command::Barrier, copy_in(vec![copy(0)]), fill(1)]);
    refused("on memory that the CPU cannot reach", || {
        device.read_frames(0, device.slot(crate::Direction::Out, 0).slice(0, 16)).unwrap();
    });
    assert_eq!(device.profile().memory.kind, MemoryKind::DevicePrivate);
    let buffer = device.buffer(vkhmm_core::units::FrameRun { first: FrameIndex(0), count: 1 }).unwrap();
    refused("a piece in use", || device.shrink(FrameIndex(0)));
    drop(buffer);
}

#[test]
fn the_lock_order_is_checked() {
    use crate::exec::{Exec, Mutex, Rank};
    let exec = FakeExec::new();
    let (outer, inner) = (exec.mutex(Rank::Space, ()), exec.mutex(Rank::Arena, ()));
    let held = inner.lock();
    assert!(outer.try_lock().is_some(), "nobody waits in try_lock");
    refused("lock order", || drop(outer.lock()));
    drop(held);
    drop(outer.lock());
}

#[test]
fn a_call_fails_as_it_is_told() {
    let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
    host.fail_call_with(1, Errno(11));
    assert!(matches!(host.revoke(run(0, 1)), Err(HostError::Refused { source: Errno(11), .. })));
    host.fail_call_with(1, Errno(12));
    assert!(matches!(host.publish(run(0, 1), Access::ReadOnly), Err(HostError::OutOfMemory { .. })));
    assert_eq!(host.told_to_fail(), ["revoke", "publish read-only"]);
    let device = FakeDevice::new(SMALL, FakeDeviceOptions::default());
    device.fail_call_with(2, DeviceError::OutOfHostMemory { operation: "told" });
    device.grow(FrameIndex(0), 1).unwrap();
    assert!(matches!(device.grow(FrameIndex(1), 1), Err(DeviceError::OutOfHostMemory { .. })));
    assert_eq!(device.told_to_fail(), ["grow"]);
}

#[test]
fn whatever_weakens_a_mapping_is_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let weakened: Weakened = Arc::new(move |w| locked(&sink).push((w.operation, w.page.0, w.from, w.to)));
    let host =
        FakeHost::new(SMALL, 2, FakeHostOptions { weakened: Some(weakened), ..FakeHostOptions::default() });
    host.populate(run(0, 4)).unwrap();
    host.publish(run(0, 3), Access::ReadWrite).unwrap();
    host.protect(run(1, 3)).unwrap();
    host.publish(run(0, 1), Access::ReadOnly).unwrap();
    host.revoke(run(2, 2)).unwrap();
    host.poison(run(3, 1)).unwrap();
    host.punch(run(0, 4)).unwrap();
    let (ro, rw, none) = (Mapping::ReadOnly, Mapping::ReadWrite, Mapping::Absent);
    let wanted = [
        ("protect", 1, rw, ro),
        ("protect", 2, rw, ro),
        ("publish read-only", 0, rw, ro),
        ("revoke", 2, ro, none),
        ("punch", 0, ro, none),
        ("punch", 1, ro, none),
    ];
    assert_eq!(*locked(&told), wanted);
}

#[test]
fn messages_are_doubled_and_kept_back() {
    let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
    let faults = host.faults();
    let now = || {
        let mut got = Vec::new();
        faults.next(&mut got, Some(Duration::ZERO)).unwrap();
        got.iter().map(|fault: &Fault| fault.page.0).collect::<Vec<_>>()
    };
    let message = |page| host.inject(Fault { page: PageIndex(page), write: false });
    host.double_faults(true);
    message(1);
    host.double_faults(false);
    assert_eq!(now(), [1, 1]);
    host.hold_faults(true);
    message(2);
    message(3);
    assert_eq!(now(), []);
    host.hold_faults(false);
    assert_eq!(now(), [3, 2], "the latest first");
}

#[test]
fn between_barriers_the_last_command_comes_first_if_so_told() {
    let device = FakeDevice::new(SMALL, FakeDeviceOptions { reversed: true, ..FakeDeviceOptions::default() });
    device.grow(FrameIndex(0), 1).unwrap();
    let buffer = Arc::new(device.buffer(FrameRun { first: FrameIndex(0), count: 1 }).unwrap());
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |n: u8| {
        let order = Arc::clone(&order);
        Command::Dispatch {
            kernel: Arc::new(FakeKernel::new(move |_, _, _| locked(&order).push(n))),
            bindings: vec![crate::BoundRange { buffer: Some(Arc::clone(&buffer)), offset: 0, bytes: 4 }],
            push: Vec::new(),
            groups: [1; 3],
            elapsed_ns: Arc::default(),
        }
    };
    device.stall(Duration::from_millis(2));
    let commands = vec![note(1), note(2), Command::Barrier, note(3), note(4)];
    let start = std::time::Instant::now();
    device.submit(Role::Compute, submission(&device, 1, commands)).unwrap();
    device.wait(&Uses::NONE, Duration::from_secs(10)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(1), "the device stalled");
    assert_eq!(*locked(&order), [2, 1, 4, 3]);
}
