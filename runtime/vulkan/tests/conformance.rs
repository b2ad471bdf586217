//! The port's own suite, over every kind of memory and every switch that changes the way bytes go.

mod common;

use common::Host;
use std::sync::Mutex;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::Geometry;
use vkhmm_port::conformance::{DEVICE_CASES, DeviceUnderTest, Foreign, run_device};
use vkhmm_port::fake::FakeExec;
use vkhmm_vulkan::{Config, KernelOptions, Switches, ValidationLog, VulkanDevice, vk};

/// A timeline that goes with whoever may signal it, which is before the device, and after what waits for it.
struct Timeline {
    device: ash::Device,
    semaphore: vk::Semaphore,
}

impl Drop for Timeline {
    fn drop(&mut self) {
        // SAFETY: vkDestroySemaphore: every case waits for whatever names it.
        unsafe { self.device.destroy_semaphore(self.semaphore, None) };
    }
}

/// A timeline that this test signals from the host.
fn foreign(device: &ash::Device) -> Foreign<VulkanDevice> {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: vkCreateSemaphore: timelineSemaphore is on; the device under test is alive.
    let semaphore = unsafe { device.create_semaphore(&info, None) }.expect("a timeline");
    let timeline = Timeline { device: device.clone(), semaphore };
    let signal = move |value: u64| {
        let info = vk::SemaphoreSignalInfo::default().semaphore(timeline.semaphore).value(value);
        // SAFETY: vkSignalSemaphore: the suite signals values above all before, and nothing else does.
        unsafe { timeline.device.signal_semaphore(&info) }.expect("signal");
    };
    Foreign { semaphore, signal: Box::new(signal) }
}

/// Runs the suite; how many cases ran. No case may make the layer speak.
fn run(memory_kind: Option<MemoryKind>, switches: &Switches) -> usize {
    let logs: Mutex<Vec<ValidationLog>> = Mutex::default();
    let ran = run_device(&FakeExec::new(), &|| {
        let config =
            Config { validation: true, memory_kind, switches: switches.clone(), ..Config::default() };
        let host = Host::new(1 << 20);
        let device =
            VulkanDevice::open(config, Some(host.alias())).expect("a driver and the validation layer");
        logs.lock().expect("no panic").push(device.validation_log());
        let xor = device.kernel(&common::words("xor"), KernelOptions::default()).expect("xor");
        let importable = |bytes: u64| {
            // The suite may leak what it imports.
            let host = Box::leak(Box::new(Host::new(bytes as usize)));
            host.alias()
        };
        let logical = device.logical().clone();
        let semaphore = move || foreign(&logical);
        DeviceUnderTest {
            geometry: Geometry::PRODUCTION,
            device,
            xor,
            importable: Box::new(importable),
            semaphore: Box::new(semaphore),
        }
    });
    for log in logs.into_inner().expect("no panic") {
        assert_eq!(log.messages(), Vec::<String>::new());
    }
    ran
}

#[test]
fn as_production_opens_it() {
    assert_eq!(run(None, &Switches::default()), DEVICE_CASES);
}

#[test]
fn every_kind_of_memory() {
    // DevicePrivate is what the other tests have.
    for kind in [MemoryKind::DeviceBar, MemoryKind::DeviceCoherent, MemoryKind::UnifiedMemory] {
        for import in [true, false] {
            assert_eq!(
                run(Some(kind), &Switches { import, ..Switches::default() }),
                DEVICE_CASES,
                "{kind:?}"
            );
        }
    }
}

#[test]
fn staging_only_one_queue_and_few_regions() {
    let switches =
        Switches { import: false, shared_queue: true, regions_max: Some(3), ..Switches::default() };
    assert_eq!(run(None, &switches), DEVICE_CASES);
}
