//! Releases wait for semaphores that are not ours, and for nothing else; here the test is the application, which signals from the host.

use crate::{Config, VulkanDevice};
use ash::vk;
use core::time::Duration;
use std::time::Instant;
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, DeviceError, Role, Submission};

const PATIENCE: Duration = Duration::from_secs(60);

fn device() -> VulkanDevice {
    let config = Config { validation: true, ..Config::default() };
    VulkanDevice::open(config, None).expect("a Vulkan driver and the validation layer")
}

fn semaphore(device: &VulkanDevice) -> vk::Semaphore {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: vkCreateSemaphore: timelineSemaphore is on.
    unsafe { device.ctx.device.create_semaphore(&info, None) }.expect("a timeline")
}

fn submit(
    device: &VulkanDevice,
    role: Role,
    value: u64,
    waits: &[Ticket],
    foreign: &[(vk::Semaphore, u64)],
) -> Result<Ticket, DeviceError> {
    let signals = Ticket { timeline: device.profile().timeline(role), value };
    let mut uses = Uses::NONE;
    waits.iter().for_each(|t| uses.add(*t));
    let foreign = foreign.to_vec();
    device.submit(role, Submission { waits: uses, foreign, commands: Vec::new(), signals })?;
    Ok(signals)
}

fn reached(device: &VulkanDevice, ticket: Ticket) -> bool {
    device.completed().expect("completed").on(ticket.timeline) >= ticket.value
}

fn wait(device: &VulkanDevice, ticket: Ticket) {
    let start = Instant::now();
    while !reached(device, ticket) {
        assert!(start.elapsed() < PATIENCE, "{ticket:?} is not reached");
        let seen = device.completed().expect("completed");
        device.wait(&seen, Duration::from_millis(100)).expect("wait");
    }
}

#[test]
fn a_release_ends_when_an_applications_semaphores_do() {
    let device = device();
    let theirs = [semaphore(&device), semaphore(&device)];
    let granted = submit(&device, Role::Grant, 1, &[], &[]).expect("submit");
    wait(&device, granted);
    let released =
        submit(&device, Role::Release, 1, &[granted], &[(theirs[0], 5), (theirs[1], 2)]).expect("submit");
    let signal = |which: usize, value: u64| {
        let info = vk::SemaphoreSignalInfo::default().semaphore(theirs[which]).value(value);
        // SAFETY: vkSignalSemaphore: the value is above the present one, and nothing else signals it.
        unsafe { device.ctx.device.signal_semaphore(&info) }.expect("signal");
    };
    for (which, value) in [(0, 4), (1, 2)] {
        signal(which, value);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!reached(&device, released), "semaphore {which} at {value} is not enough");
    }
    signal(0, 5);
    let after = submit(&device, Role::Compute, 1, &[released], &[]).expect("submit");
    wait(&device, after);
    assert!(reached(&device, released));
    for semaphore in theirs {
        // SAFETY: vkDestroySemaphore: what waited for it is done.
        unsafe { device.ctx.device.destroy_semaphore(semaphore, None) };
    }
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

#[test]
fn others_may_wait_for_a_timelines_semaphore_and_only_releases_wait_for_theirs() {
    let device = device();
    let granted = submit(&device, Role::Grant, 7, &[], &[]).expect("submit");
    let ours = [device.timeline_semaphore(granted.timeline)];
    let values = [granted.value];
    let info = vk::SemaphoreWaitInfo::default().semaphores(&ours).values(&values);
    // SAFETY: vkWaitSemaphores: a timeline of this device.
    unsafe { device.ctx.device.wait_semaphores(&info, PATIENCE.as_nanos() as u64) }.expect("reached");
    for role in [Role::CopyIn, Role::CopyOut, Role::Compute, Role::Bind, Role::Grant] {
        let error = submit(&device, role, 9, &[], &[(ours[0], 7)]).expect_err("not a release");
        assert!(error.to_string().contains("releases alone"), "{error}");
    }
    assert_eq!(device.validation_messages(), Vec::<String>::new());
}

#[test]
fn grants_and_releases_have_timelines_of_their_own() {
    for shared_queue in [false, true] {
        let mut config = Config { validation: true, ..Config::default() };
        config.switches.shared_queue = shared_queue;
        let device = VulkanDevice::open(config, None).expect("a Vulkan driver and the validation layer");
        let profile = device.profile();
        let mut alone = vec![Role::Grant, Role::Release];
        alone.extend(profile.sparse.map(|_| Role::Bind));
        for role in alone {
            let same = profile.timelines.iter().filter(|t| **t == profile.timeline(role)).count();
            assert_eq!(same, 1, "{role:?}: {}", device.report().roles);
            let other = Command::<VulkanDevice>::Barrier;
            let signals = Ticket { timeline: profile.timeline(role), value: 1 };
            let submission =
                Submission { waits: Uses::NONE, foreign: Vec::new(), commands: vec![other], signals };
            assert_eq!(device.submit(role, submission).is_ok(), role != Role::Bind);
        }
    }
}
