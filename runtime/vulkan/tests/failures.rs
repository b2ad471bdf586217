//! Failures on demand: loss at a call, one failure at a call, and a clean end after both.

mod common;

use common::{Host, Rig};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, DeviceError, Role, Submission};
use vkhmm_vulkan::{Failure, KernelOptions};

fn is_lost<T>(result: Result<T, DeviceError>) -> bool {
    matches!(result, Err(DeviceError::Lost { .. }))
}

#[test]
fn after_loss_every_call_says_so_and_teardown_is_clean() {
    let mut rig = Rig::open(|c| c.switches.lose_at_call = Some(4));
    rig.device().grow(FrameIndex(0), 32).expect("call 1");
    let fill = |word: u32| Command::Fill { device_offset: 0, bytes: 2 << 20, word };
    rig.submit(Role::Compute, Uses::NONE, vec![fill(1)]);
    rig.submit(Role::Compute, Uses::NONE, vec![fill(2)]);
    assert_eq!(rig.device().calls(), 3);
    let device = rig.device();
    assert!(is_lost(device.completed()), "call 4");
    assert!(is_lost(device.wait(&Uses::NONE, Duration::from_secs(60))));
    assert!(is_lost(device.grow(FrameIndex(32), 32)));
    assert!(is_lost(device.buffer(FrameRun { first: FrameIndex(0), count: 1 })));
    assert!(is_lost(device.import(rig.host.alias())));
    assert!(is_lost(device.read_frames(0, rig.host.alias().slice(0, 4096))));
    assert!(is_lost(device.write_frames(0, rig.host.alias().slice(0, 4096))));
    let signals = Ticket { timeline: device.profile().timeline(Role::Compute), value: 3 };
    assert!(is_lost(device.submit(
        Role::Compute,
        Submission { waits: Uses::NONE, foreign: Vec::new(), commands: vec![], signals }
    )));
    assert!(device.kernel(&common::words("scale"), KernelOptions::default()).is_err());
    assert_eq!(device.calls(), 11);
}

#[test]
fn a_waiting_thread_learns_of_the_loss() {
    let rig = Rig::open(|c| c.switches.lose_at_call = Some(3));
    let seen = rig.device().completed().expect("call 1");
    let device = Arc::clone(rig.device());
    let waiter = std::thread::spawn(move || device.wait(&seen, Duration::from_secs(60)));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rig.device().calls(), 2);
    assert!(is_lost(rig.device().completed()));
    assert!(is_lost(waiter.join().expect("no panic")));
}

#[test]
fn one_call_fails_as_told_and_the_next_works() {
    for (failure, text) in [
        (Failure::OutOfDeviceMemory, "no device memory for 2097152 bytes"),
        (Failure::OutOfHostMemory, "no host memory"),
        (Failure::Refused, "injected"),
    ] {
        let rig = Rig::open(|c| c.switches.fail_at_call = Some((2, failure)));
        rig.device().grow(FrameIndex(0), 32).expect("call 1");
        // Calls that can only be lost pass the failure on.
        rig.device().completed().expect("call 2");
        let error = rig.device().grow(FrameIndex(32), 32).expect_err("call 3").to_string();
        assert!(error.contains(text), "{error}");
        rig.device().grow(FrameIndex(32), 32).expect("call 4");
    }
}

#[test]
fn a_submission_that_fails_leaves_its_ticket_for_the_next() {
    let mut rig = Rig::open(|c| c.switches.fail_at_call = Some((2, Failure::Refused)));
    rig.device().grow(FrameIndex(0), 32).expect("call 1");
    let signals = Ticket { timeline: rig.device().profile().timeline(Role::Compute), value: 1 };
    let submission = Submission { waits: Uses::NONE, foreign: Vec::new(), commands: vec![], signals };
    assert!(rig.device().submit(Role::Compute, submission).is_err());
    rig.run(Role::Compute, vec![Command::Fill { device_offset: 0, bytes: 4, word: 7 }]);
    assert_eq!(rig.download(0, 4), 7_u32.to_le_bytes());
}

#[test]
fn what_is_still_running_is_waited_for_before_teardown() {
    let host = Host::new(4 << 20);
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 64).expect("grow");
    if rig.without_imports() {
        return;
    }
    let import = Arc::new(rig.device().import(host.alias()).expect("import"));
    for word in 0..50 {
        rig.submit(Role::Compute, Uses::NONE, vec![Command::Fill { device_offset: 0, bytes: 4 << 20, word }]);
    }
    let regions = vec![vkhmm_port::Region { host_offset: 0, device_offset: 0, bytes: 4 << 20 }];
    let target = vkhmm_port::Target::Import(import);
    rig.submit(Role::Compute, Uses::NONE, vec![Command::CopyOut { target, regions }]);
    drop(rig);
    assert_eq!(host.view().slice(0, 4).to_vec(), 49_u32.to_le_bytes());
}
