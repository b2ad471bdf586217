//! The port's own suite over the throttled device: by import, by staging, and with both directions on one slow link. No case may
//! make the validation layer speak.

use core::ptr::NonNull;
use std::alloc::Layout;
use std::sync::Mutex;
use std::time::Duration;
use vkhmm_core::units::Geometry;
use vkhmm_port::RawBytes;
use vkhmm_port::conformance::{DEVICE_CASES, DeviceUnderTest, Foreign, run_device};
use vkhmm_port::fake::FakeExec;
use vkhmm_throttled::{Link, Options, Throttled};
use vkhmm_vulkan::{Config, KernelOptions, ValidationLog, vk};

/// Does something when it goes.
struct Finally<F: FnMut()>(F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Makes timelines that this test signals from the host.
fn semaphores(device: &Throttled) -> Box<dyn Fn() -> Foreign<Throttled>> {
    let logical = device.inner().logical().clone();
    Box::new(move || {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: vkCreateSemaphore: timelineSemaphore is on; the device under test is alive.
        let semaphore = unsafe { logical.create_semaphore(&info, None) }.expect("a timeline");
        let theirs = logical.clone();
        // SAFETY: vkDestroySemaphore: every case waits for whatever names it; the suite drops this before the device.
        let goes = Finally(move || unsafe { theirs.destroy_semaphore(semaphore, None) });
        let theirs = logical.clone();
        let signal = move |value: u64| {
            let _until = &goes;
            let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
            // SAFETY: vkSignalSemaphore: the suite signals values above all before, and nothing else does.
            unsafe { theirs.signal_semaphore(&info) }.expect("signal");
        };
        Foreign { semaphore, signal: Box::new(signal) }
    })
}

/// So many bytes of zeros in whole pages, for ever: the suite may leak what it imports.
fn importable(bytes: u64) -> RawBytes {
    let layout = Layout::from_size_align(bytes as usize, 4096).expect("a size of these tests");
    // SAFETY: alloc_zeroed: the suite asks for more than no bytes.
    let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
    // SAFETY: RawBytes::new: just allocated, never freed, and no reference to it is made.
    unsafe { RawBytes::new(start, bytes as usize) }
}

/// Runs the suite; how many cases ran.
fn run(link: Link, options: Options) -> usize {
    let spirv = include_bytes!("../../../runtime/vulkan/tests/kernels/xor.spv");
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let logs: Mutex<Vec<ValidationLog>> = Mutex::default();
    let ran = run_device(&FakeExec::new(), &|| {
        let config = Config { validation: true, ..Config::default() };
        let device = Throttled::open(config, link, options).expect("a driver and the validation layer");
        logs.lock().expect("no panic").push(device.validation_log());
        let xor = device.kernel(&words, KernelOptions::default()).expect("xor");
        let semaphore = semaphores(&device);
        DeviceUnderTest {
            geometry: Geometry::PRODUCTION,
            device,
            xor,
            importable: Box::new(importable),
            semaphore,
        }
    });
    for log in logs.into_inner().expect("no panic") {
        assert_eq!(log.messages(), Vec::<String>::new());
    }
    ran
}

#[test]
fn by_import() {
    assert_eq!(run(Link::GENEROUS, Options::default()), DEVICE_CASES);
}

#[test]
fn by_staging_alone() {
    assert_eq!(run(Link::GENEROUS, Options { import: false, ..Options::default() }), DEVICE_CASES);
}

#[test]
fn behind_a_slow_link_that_is_shared() {
    let link = Link {
        inward: 400e6,
        outward: 400e6,
        duplex: false,
        latency: Duration::from_micros(300),
        flops: 1e9,
        device_bytes: 1e9,
        ..Link::GENEROUS
    };
    assert_eq!(run(link, Options::default()), DEVICE_CASES);
}
