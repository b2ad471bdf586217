//! The simulated ports keep the contracts of `port`, under many schedules.

use core::time::Duration;
use vkhmm_core::units::Geometry;
use vkhmm_port::conformance::{DeviceUnderTest, HostUnderTest, run_device, run_exec, run_host};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions};
use vkhmm_sim::{device, host, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[test]
fn exec() {
    for seed in 0..20 {
        run(seed, |exec| assert_eq!(run_exec(exec), 9)).expect_success();
    }
}

#[test]
fn host_memory() {
    for seed in 0..20 {
        let cases = |exec: &vkhmm_sim::SimExec| {
            run_host(exec, &|| {
                let host = host(exec, SMALL, 16, FakeHostOptions::default());
                HostUnderTest::new(SMALL, host.clone(), host.faults(), host)
            })
        };
        run(seed, move |exec| assert_eq!(cases(exec), 21)).expect_success();
    }
}

#[test]
fn devices() {
    for seed in 0..20 {
        let options =
            FakeDeviceOptions { delay: Duration::from_micros(seed * 10), ..FakeDeviceOptions::default() };
        run(seed, move |exec| {
            let ran = run_device(exec, &|| DeviceUnderTest {
                geometry: SMALL,
                device: device(exec, SMALL, options.clone()),
                xor: None,
                importable: None,
            });
            assert_eq!(ran, 15);
        })
        .expect_success();
    }
}
