//! The simulated ports keep the contracts of `port`, under many schedules and in every profile.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::Geometry;
use vkhmm_port::conformance::{
    DEVICE_CASES, DeviceUnderTest, EXEC_CASES, Foreign, HOST_CASES, HostUnderTest, run_device, run_exec,
    run_host,
};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeKernel, FakeSemaphore};
use vkhmm_port::{FaultMode, HostMemory, SparseProfile};
use vkhmm_sim::{device, host, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[test]
fn exec() {
    for seed in 0..20 {
        run(seed, |exec| assert_eq!(run_exec(exec), EXEC_CASES)).expect_success();
    }
}

#[test]
fn host_memory() {
    let modes = [FaultMode::Full, FaultMode::UserOnly, FaultMode::Declared];
    for seed in 0..24 {
        let options = FakeHostOptions {
            faults: modes[seed as usize % 3],
            publish_read_only: seed % 4 != 1,
            protect: seed % 4 != 2,
            granule_pages: 1 << (seed % 2),
            in_thread: seed % 5 < 2,
            ..FakeHostOptions::default()
        };
        let asks = options.in_thread && options.faults != FaultMode::Declared;
        run(seed, move |exec| {
            let ran = run_host(exec, &|| {
                let host = host(exec, SMALL, 16, options.clone());
                let it = HostUnderTest::new(SMALL, host.clone(), host.faults(), host);
                if asks { it.asking_in_threads() } else { it }
            });
            assert_eq!(ran, HOST_CASES);
        })
        .expect_success();
    }
}

#[test]
fn devices() {
    let sparse = SparseProfile { page_bytes: 16, buffer_bytes_max: 1 << 20, space_bytes: 1 << 20 };
    for seed in 0..24 {
        let whole = FakeDeviceOptions::default();
        let options = FakeDeviceOptions {
            kind: MemoryKind::ALL[seed as usize % 4],
            import: whole.import.clone().filter(|_| seed % 8 < 5),
            timelines: if seed % 3 == 1 { 1 } else { 3 },
            sparse: (seed % 2 == 0).then_some(sparse),
            piece_frames_max: 64,
            delay: Duration::from_micros(seed * 10),
            ..whole
        };
        run(seed, move |exec| {
            let ran = run_device(exec, &|| {
                let memory = host(exec, SMALL, 32, FakeHostOptions::default());
                let next = AtomicU64::new(0);
                DeviceUnderTest {
                    geometry: SMALL,
                    device: device(exec, SMALL, options.clone()),
                    xor: Arc::new(xor()),
                    importable: Box::new(move |bytes| {
                        let start = next.fetch_add(bytes, Ordering::Relaxed);
                        memory.alias((start..start + bytes).into())
                    }),
                    semaphore: Box::new(|| {
                        let theirs = FakeSemaphore::default();
                        Foreign {
                            semaphore: theirs.clone(),
                            signal: Box::new(move |value| theirs.signal(value)),
                        }
                    }),
                }
            });
            assert_eq!(ran, DEVICE_CASES);
        })
        .expect_success();
    }
}

/// 32-bit words xor a number, as the suite asks for.
fn xor() -> FakeKernel {
    FakeKernel::new(|bindings, push, _groups| {
        let number = |at: usize| u32::from_le_bytes(push[at..at + 4].try_into().expect("four bytes"));
        for i in 0..number(0) as usize {
            let word = bindings[0].slice(4 * i, 4);
            let old = u32::from_le_bytes(word.to_vec().try_into().expect("four bytes"));
            word.write(&(old ^ number(4)).to_le_bytes());
        }
    })
}
