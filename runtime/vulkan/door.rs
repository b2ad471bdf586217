//! The door of one VkQueue: who is inside may submit. A queue that an application shares has the application's lock behind ours.

use crate::exit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The lock of a queue that an application uses, too. vkhmm takes it around vkQueueSubmit2 and vkQueueBindSparse on that queue and
/// nowhere else, holds it for one call of the driver, and takes nothing inside.
///
/// It is taken by whoever calls vkhmm and by vkhmm's threads, with locks of vkhmm held: so a thread that holds it calls nothing of
/// vkhmm. It may touch managed memory as [`crate::Parts`] says (5), but not under the fault engine `declared`, whose slices are calls.
pub trait QueueLock: Send + Sync {
    /// Returns once the calling thread alone may use the queue. Does not panic.
    fn lock(&self);

    /// Ends what `lock` of the same thread began. Does not panic.
    fn unlock(&self);
}

/// Lock contract: `ours` owns the VkQueue (external synchronisation of its calls) among our timelines, `shared` owns it between the
/// application and us; both are held for one driver call that does not wait for the device; nothing is taken inside.
#[derive(Default)]
pub(crate) struct Door {
    ours: Mutex<()>,
    shared: Option<Arc<dyn QueueLock>>,
}

/// A stay inside.
pub(crate) struct Inside<'a> {
    shared: Option<&'a dyn QueueLock>,
    _ours: MutexGuard<'a, ()>,
}

impl Door {
    pub(crate) fn new(shared: Option<Arc<dyn QueueLock>>) -> Self {
        Self { ours: Mutex::default(), shared }
    }

    /// Whether an application uses the queue, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Waits for one's turn.
    pub(crate) fn enter(&self) -> Inside<'_> {
        debug_assert!(
            exit::inside(),
            "who holds an application's lock must not be parked at the next driver call"
        );
        let ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = self.shared.as_deref();
        if let Some(lock) = shared {
            lock.lock();
        }
        Inside { shared, _ours: ours }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.shared {
            lock.unlock();
        }
    }
}
