//! Each port's contract as a suite of named cases. The fakes, the simulator, linux and vulkan all run them.
//!
//! A suite is called with a factory that makes a fresh thing under test for every case, prints how many ran, and panics with the
//! case's name at the first broken promise. No case is ever left out: where the profile says that something is absent, its cases
//! check what the port promises instead (it is refused, nothing changes, another way exists), so every implementation runs equally
//! many. Cases start threads and wait through an [`Exec`] only, with a limit, so the same cases run under a simulated scheduler,
//! and a wait that would never end is a failure and not a hang.
//!
//! ```text
//! let exec = FakeExec::new();
//! let ran = run_host(&exec, &|| { let host = FakeHost::new(g, 16, …); HostUnderTest::new(g, host.clone(), host.faults(), host) });
//! ```

mod device;
mod exec;
mod host;

pub use device::{DEVICE_CASES, DeviceUnderTest, Foreign, run_device};
pub use exec::{EXEC_CASES, run_exec};
pub use host::{AppView, HOST_CASES, HostUnderTest, run_host};

use crate::{Exec, Mutex, Rank, Signal};
use core::any::Any;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// No promise of a port takes this long; a case that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long something must not happen to count as not happening.
const QUIET: Duration = Duration::from_millis(20);

/// A name that says what is promised, and the check.
type Case<T> = (&'static str, fn(T));

/// Runs `cases` one by one; how many there were.
fn run_all<T>(port: &str, cases: &[Case<T>], mut make: impl FnMut() -> T) -> usize {
    for (name, case) in cases {
        let outcome = catch_unwind(AssertUnwindSafe(|| case(make())));
        if let Err(payload) = outcome {
            match text_of(&*payload) {
                Some(text) => panic!("{port} conformance: {name}: {text}"),
                None => resume_unwind(payload),
            }
        }
    }
    let count = cases.len();
    println!("{port} conformance: {count} of {count} cases ran");
    count
}

fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied())
}

/// Whether `call` is stopped: by an error, or, where the caller should have known better, by a panic.
fn is_stopped<T, E>(call: impl FnOnce() -> Result<T, E>) -> bool {
    !matches!(catch_unwind(AssertUnwindSafe(call)), Ok(Ok(_)))
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
mod tests;
