//! FakeSemaphore: a timeline of the application's, which a test sets.

use super::locked;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Wakes the queues of a device; false once that is gone.
type Waker = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
struct Inner {
    value: AtomicU64,
    /// Owns the wakers of devices that waited for this · blocks on nothing · never held while they notify.
    wakers: Mutex<Vec<Waker>>,
}

/// A timeline of an application's that a [`super::FakeDevice`] waits for. Clones are the same timeline; it begins at zero.
#[derive(Clone, Default)]
pub struct FakeSemaphore(Arc<Inner>);

impl FakeSemaphore {
    /// Its present value.
    pub fn value(&self) -> u64 {
        self.0.value.load(Ordering::Acquire)
    }

    /// Sets its value, as the application's work would, and lets devices that wait for it look.
    ///
    /// # Panics
    /// If that is less than it was.
    pub fn signal(&self, value: u64) {
        let before = self.0.value.swap(value, Ordering::AcqRel);
        assert!(before <= value, "a timeline never goes back: from {before} to {value}");
        let mut wakers = core::mem::take(&mut *locked(&self.0.wakers));
        wakers.retain(|wake| wake());
        // Those that came meanwhile look at the value after this.
        locked(&self.0.wakers).append(&mut wakers);
    }

    pub(super) fn wakes(&self, waker: impl Fn() -> bool + Send + Sync + 'static) {
        locked(&self.0.wakers).push(Box::new(waker));
    }
}
