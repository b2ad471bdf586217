//! The port's own suite, over every kind of memory and every switch that changes the way bytes go.

mod common;

use common::Host;
use std::sync::Mutex;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::Geometry;
use vkhmm_port::conformance::{DEVICE_CASES, DeviceUnderTest, run_device};
use vkhmm_port::fake::FakeExec;
use vkhmm_vulkan::{Config, KernelOptions, Switches, ValidationLog, VulkanDevice};

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
        DeviceUnderTest { geometry: Geometry::PRODUCTION, device, xor, importable: Box::new(importable) }
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
