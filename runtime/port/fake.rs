//! The fakes: every port over plain memory and `std`, for the tests of whatever drives the ports.
//!
//! ```text
//!   FakeHost ── one allocation is A and what R would show; a page table says what R allows
//!      │ touch, load, store: an application thread; it parks while R forbids it
//!      └── FakeFaults ── one message for each thread that parked
//!   FakeDevice ── pieces of memory, a thread per timeline, memcpy; kernels are closures
//!   FakeExec ── std locks, threads and time, with the lock order checked
//! ```
//!
//! Host and device block and spawn only through an [`Exec`], so `sim` runs the same fakes under its own scheduler. They are strict:
//! whoever breaks a port's contract (a wait for work that nobody submitted, a copy that races with another one, a punch under an
//! import) is stopped by a panic that says so.

mod address;
mod device;
mod exec;
mod host;
pub(crate) mod memory;
pub mod paged;
mod profile;
mod queue;
mod semaphore;
mod sparse;
mod steps;
mod touch;

pub use device::{DeviceCalls, FakeBuffer, FakeControl, FakeDevice, FakeKernel};
pub use exec::{FakeExec, FakeMutex, FakeSignal, HeldRank};
pub use host::{FakeHost, FakeHostOptions, HostCalls, Mapping, Weakened, Weakening};
pub use memory::{FakeImport, FakeImports};
pub use profile::FakeDeviceOptions;
pub use semaphore::FakeSemaphore;
pub use touch::{FakeFaults, TouchError};

#[cfg(test)]
mod tests;

use core::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(doc)]
use crate::Exec;

/// Is told of every port call before it is performed, with no lock held. A simulator traces the line and may switch threads.
pub type Watch = Arc<dyn Fn(Arguments<'_>) + Send + Sync>;

/// Takes a lock that only guards plain data: a panic elsewhere leaves nothing half done in it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
