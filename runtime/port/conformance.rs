//! Each port's contract as a suite of named cases. The fakes, the simulator, linux and vulkan all run them.
//!
//! A suite is called with a factory that makes a fresh thing under test for every case, prints one line per case, and panics
//! with the case's name at the first broken promise. Cases start threads and wait through an [`Exec`] only, with a limit, so the
//! same cases run under a simulated scheduler, and a wait that would never end is a failure and not a hang.
//!
//! ```text
//! let exec = FakeExec::new();
//! let ran = run_host(&exec, &|| { let host = FakeHost::new(g, 16, …); HostUnderTest::new(g, host.clone(), host.faults(), host) });
//! ```

mod device;
mod exec;
mod host;

pub use device::{DeviceUnderTest, run_device};
pub use exec::run_exec;
pub use host::{AppView, HostUnderTest, run_host};

use crate::{Exec, Mutex, Rank, Signal};
use core::time::Duration;
use std::sync::Arc;

/// No promise of a port takes this long; a case that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something must not happen to count as not happening.
const QUIET: Duration = Duration::from_millis(20);

/// How a case ended that did not panic.
enum Outcome {
    /// It checked what it is for.
    Ran,
    /// The profile says that there is nothing to check, and what is missing.
    Skipped(&'static str),
}

/// A name that says what is promised, and the check.
type Case<T> = (&'static str, fn(T) -> Outcome);

/// Runs `cases` one by one; how many checked something.
fn run_all<T>(port: &str, cases: &[Case<T>], mut make: impl FnMut() -> T) -> usize {
    let mut ran = 0;
    for (name, case) in cases {
        let told = Told { port, name };
        match case(make()) {
            Outcome::Ran => ran += 1,
            Outcome::Skipped(why) => println!("{port} conformance: {name} SKIPPED: {why}"),
        }
        core::mem::forget(told);
    }
    println!("{port} conformance: {ran} of {} cases ran", cases.len());
    ran
}

/// Names the case that panicked.
struct Told<'a> {
    port: &'a str,
    name: &'a str,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("{} conformance: {} FAILED", self.port, self.name);
    }
}

/// A thread of a case, and its result once there is one.
struct Task<X: Exec, T: Send + 'static> {
    exec: X,
    name: String,
    end: Arc<End<X, T>>,
}

struct End<X: Exec, T: Send + 'static> {
    value: X::Mutex<Option<T>>,
    reached: X::Signal,
}

impl<X: Exec, T: Send + 'static> Task<X, T> {
    fn start(exec: &X, name: &str, body: impl FnOnce() -> T + Send + 'static) -> Self {
        let end = Arc::new(End::<X, T> { value: exec.mutex(Rank::Leaf, None), reached: exec.signal() });
        let theirs = Arc::clone(&end);
        let body = move || {
            let value = body();
            *theirs.value.lock() = Some(value);
            theirs.reached.notify();
        };
        exec.spawn(name, Box::new(body)).expect("a thread for a test");
        Self { exec: exec.clone(), name: name.to_owned(), end }
    }

    /// Whether it is over, after having had `QUIET` to get there.
    fn is_over_soon(&self) -> bool {
        sleep(&self.exec, QUIET);
        self.is_over()
    }

    /// Whether it is over right now.
    fn is_over(&self) -> bool {
        self.end.value.lock().is_some()
    }

    /// Its result.
    fn join(self) -> T {
        let deadline = self.exec.now() + PATIENCE.as_nanos() as u64;
        loop {
            let epoch = self.end.reached.epoch();
            if let Some(value) = self.end.value.lock().take() {
                return value;
            }
            let now = self.exec.now();
            assert!(now < deadline, "thread `{}` did not end within {PATIENCE:?}", self.name);
            self.end.reached.wait(epoch, Some(Duration::from_nanos(deadline - now)));
        }
    }
}

/// Lets `time` pass.
fn sleep<X: Exec>(exec: &X, time: Duration) {
    let never = exec.signal();
    let end = exec.now() + time.as_nanos() as u64;
    loop {
        let now = exec.now();
        if now >= end {
            return;
        }
        never.wait(never.epoch(), Some(Duration::from_nanos(end - now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeDevice, FakeDeviceOptions, FakeExec, FakeHost, FakeHostOptions, FakeKernel};
    use crate::{FaultMode, RawBytes};
    use vkhmm_core::pagemap::MemoryKind;
    use vkhmm_core::units::Geometry;

    const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

    fn host(geometry: Geometry, options: &FakeHostOptions) -> usize {
        run_host(&FakeExec::new(), &|| {
            let host = FakeHost::new(geometry, 16, options.clone());
            HostUnderTest::new(geometry, host.clone(), host.faults(), host)
        })
    }

    #[test]
    fn fake_host_keeps_the_contract() {
        let best = FakeHostOptions::default();
        let all = host(SMALL, &best);
        assert_eq!(host(Geometry::PRODUCTION, &best), all);
        assert_eq!(host(SMALL, &FakeHostOptions { granule_pages: 8, ..best.clone() }), all);
        assert!(host(SMALL, &FakeHostOptions { publish_read_only: false, ..best.clone() }) < all);
        assert!(host(SMALL, &FakeHostOptions { protect: false, ..best.clone() }) < all);
        assert!(host(SMALL, &FakeHostOptions { faults: FaultMode::Declared, ..best }) < all);
    }

    fn device(geometry: Geometry, options: &FakeDeviceOptions) -> usize {
        run_device(&FakeExec::new(), &|| DeviceUnderTest {
            geometry,
            device: FakeDevice::new(geometry, options.clone()),
            xor: Some(Arc::new(FakeKernel::new(xor))),
            importable: Some(Box::new(leaked)),
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
        let private = device(SMALL, &discrete);
        assert_eq!(device(Geometry::PRODUCTION, &discrete), private);
        assert_eq!(
            device(SMALL, &FakeDeviceOptions { timelines: 1, regions_max: 1, ..discrete.clone() }),
            private
        );
        let lagging = FakeDeviceOptions { delay: Duration::from_millis(2), ..discrete.clone() };
        assert_eq!(device(SMALL, &lagging), private);
        let coherent = FakeDeviceOptions { kind: MemoryKind::DeviceCoherent, ..discrete.clone() };
        assert!(device(SMALL, &coherent) > private);
        assert!(device(SMALL, &FakeDeviceOptions { import: None, ..discrete }) < private);
    }

    #[test]
    fn fake_exec_keeps_the_contract() {
        run_exec(&FakeExec::new());
    }
}
