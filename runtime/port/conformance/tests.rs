//! The fakes keep the contracts, whatever they are told to be.

use super::*;
use crate::fake::{
    FakeDevice, FakeDeviceOptions, FakeExec, FakeHost, FakeHostOptions, FakeKernel, FakeSemaphore,
};
use crate::{FaultMode, RawBytes, SparseProfile};
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::Geometry;

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

fn host(geometry: Geometry, options: &FakeHostOptions) -> usize {
    run_host(&FakeExec::new(), &|| {
        let host = FakeHost::new(geometry, 16, options.clone());
        let parks = options.faults != FaultMode::Declared;
        let it = HostUnderTest::new(geometry, host.clone(), host.faults(), host);
        if options.in_thread && parks { it.asking_in_threads() } else { it }
    })
}

#[test]
fn fake_host_keeps_the_contract() {
    let best = FakeHostOptions::default();
    assert_eq!(host(SMALL, &best), HOST_CASES);
    assert_eq!(host(Geometry::PRODUCTION, &best), HOST_CASES);
    for granule_pages in [2, 8] {
        for in_thread in [false, true] {
            let options = FakeHostOptions { granule_pages, in_thread, ..best.clone() };
            assert_eq!(host(SMALL, &options), HOST_CASES);
        }
    }
    for (publish_read_only, protect) in [(false, true), (true, false), (false, false)] {
        for faults in [FaultMode::Full, FaultMode::UserOnly, FaultMode::Declared] {
            let in_thread = !protect;
            let options = FakeHostOptions { publish_read_only, protect, faults, in_thread, ..best.clone() };
            assert_eq!(host(SMALL, &options), HOST_CASES);
        }
    }
}

fn device(geometry: Geometry, options: &FakeDeviceOptions) -> usize {
    run_device(&FakeExec::new(), &|| DeviceUnderTest {
        geometry,
        device: FakeDevice::new(geometry, FakeDeviceOptions { piece_frames_max: 64, ..options.clone() }),
        xor: Arc::new(FakeKernel::new(xor)),
        importable: Box::new(leaked),
        semaphore: Box::new(|| {
            let theirs = FakeSemaphore::default();
            Foreign { semaphore: theirs.clone(), signal: Box::new(move |value| theirs.signal(value)) }
        }),
    })
}

fn leaked(bytes: u64) -> RawBytes {
    let span = Box::leak(vec![0_u8; bytes as usize].into_boxed_slice());
    let start = core::ptr::NonNull::from(&mut *span).cast();
    // SAFETY: leaked memory stays mapped, and the one reference to it ends here.
    unsafe { RawBytes::new(start, bytes as usize) }
}

fn xor(bindings: &[RawBytes], push: &[u8], _groups: [u32; 3]) {
    let number = |at: usize| u32::from_le_bytes(push[at..at + 4].try_into().unwrap());
    for i in 0..number(0) as usize {
        let word = bindings[0].slice(4 * i, 4);
        let old = u32::from_le_bytes(word.to_vec().try_into().unwrap());
        word.write(&(old ^ number(4)).to_le_bytes());
    }
}

#[test]
fn fake_device_keeps_the_contract() {
    let discrete = FakeDeviceOptions::default();
    assert_eq!(device(SMALL, &discrete), DEVICE_CASES);
    assert_eq!(device(Geometry::PRODUCTION, &discrete), DEVICE_CASES);
    let lagging = FakeDeviceOptions { delay: Duration::from_millis(2), ..discrete.clone() };
    let few = FakeDeviceOptions { timelines: 1, regions_max: 1, staging_slots: 1, ..discrete.clone() };
    for options in [lagging, few.clone(), FakeDeviceOptions { import: None, ..few }] {
        assert_eq!(device(SMALL, &options), DEVICE_CASES);
    }
    let sparse = SparseProfile { page_bytes: 16, buffer_bytes_max: 1 << 30, space_bytes: 1 << 30 };
    let sparse = FakeDeviceOptions { sparse: Some(sparse), ..discrete.clone() };
    assert_eq!(device(Geometry::PRODUCTION, &sparse), DEVICE_CASES);
    for (timelines, delay) in [(1, 0), (3, 0), (1, 1), (3, 1)] {
        let options = FakeDeviceOptions { timelines, delay: Duration::from_millis(delay), ..sparse.clone() };
        assert_eq!(device(SMALL, &options), DEVICE_CASES);
    }
    let in_place = FakeDeviceOptions { in_place_bytes_max: Some(1 << 20), ..discrete.clone() };
    assert_eq!(device(SMALL, &in_place), DEVICE_CASES);
    assert_eq!(device(Geometry::PRODUCTION, &in_place), DEVICE_CASES);
    for kind in MemoryKind::ALL {
        for import in [discrete.import.clone(), None] {
            let options = FakeDeviceOptions { kind, import, ..discrete.clone() };
            assert_eq!(device(SMALL, &options), DEVICE_CASES);
        }
    }
}

#[test]
fn fake_exec_keeps_the_contract() {
    assert_eq!(run_exec(&FakeExec::new()), EXEC_CASES);
}
