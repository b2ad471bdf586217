//! The latch of a logical device: shut while anything of ours can use it, open for good once nothing can.

use crate::exit;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one wait lasts at most: the end of the process, which nobody announces, is seen no later.
const SLICE: Duration = Duration::from_millis(50);

/// Tells when a device is let go of; outlives it, and keeps nothing alive.
#[derive(Clone, Debug, Default)]
pub struct DeviceLatch {
    shared: Arc<Shared>,
}

/// Lock contract: `open` owns the answer; held for one look or change; nothing is taken or called inside.
#[derive(Debug, Default)]
struct Shared {
    open: Mutex<bool>,
    opened: Condvar,
}

/// What a wait at a latch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Nothing of ours uses the device, or will; all that we made from it is destroyed.
    Yes,
    /// Something still does.
    NotYet,
    /// The process is ending: our threads have been stopped before they let go. They will not touch the device again, but what was
    /// made from it is there.
    Never,
}

impl DeviceLatch {
    /// Waits at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> Released {
        let until = Instant::now().checked_add(timeout);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.map_or(SLICE, |u| u.saturating_duration_since(Instant::now()));
            match () {
                () if *open => return Released::Yes,
                () if exit::is_ending() => return Released::Never,
                () if left.is_zero() => return Released::NotYet,
                () => {}
            }
            let waited = self.shared.opened.wait_timeout(open, left.min(SLICE));
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Opens its latch when it is dropped: the last field of whatever must be gone by then.
pub(crate) struct Opens(pub(crate) DeviceLatch);

impl Drop for Opens {
    fn drop(&mut self) {
        *self.0.shared.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.shared.opened.notify_all();
    }
}
