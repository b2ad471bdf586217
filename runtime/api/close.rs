//! The end of a runtime that somebody waits for: an application destroys its device after it.

use crate::runtime::Runtime;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_vulkan::{DeviceLatch, Released};

/// Why a runtime is not closed, with what it takes to go on.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Something else keeps the runtime. Nothing has changed.
    #[error(
        "the runtime is in use: {} arrays ({}), {kernels} kernels, {references} references in all (arrays, their slices and guards, \
         Launch, KernelBuilder, clones of Runtime): drop them, then close `runtime`; what was forgotten (mem::forget) keeps the device \
         for good",
        arrays.len(), arrays.join(", ")
    )]
    InUse {
        /// The runtime.
        runtime: Runtime,
        /// The labels of the arrays that were not dropped.
        arrays: Vec<Arc<str>>,
        /// Handles of kernels.
        kernels: usize,
        /// References to the runtime beside `runtime`, those of arrays and launches among them; an array has two.
        references: usize,
    },
    /// What was launched is not over yet. The runtime ends by itself; `closing` can be waited for again.
    #[error(
        "the device is still at work {waited:?} after the runtime was let go: wait again before it is destroyed"
    )]
    Busy {
        /// What to wait for.
        closing: Closing,
        /// How long this wait lasted.
        waited: Duration,
    },
    /// The process is ending, and the threads that would let go have been stopped. They will not touch the device again; what they
    /// made from it is still there.
    #[error(
        "the process is ending: close runtimes before main returns; vkhmm does not touch the device any more"
    )]
    Ending,
    /// A forked child has neither threads nor device.
    #[error("this process is a forked child of the one that has the device: nothing to close here")]
    ForkedChild,
}

impl fmt::Debug for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A runtime on its way down, which nobody can use any more.
#[derive(Clone, Debug)]
pub struct Closing {
    latch: DeviceLatch,
}

impl Closing {
    /// Waits at most `timeout` until no thread of vkhmm's and nothing made by it uses the device.
    ///
    /// # Errors
    /// `Busy`, `Ending`.
    pub fn wait(self, timeout: Duration) -> Result<(), CloseError> {
        match self.latch.wait(timeout) {
            Released::Yes => Ok(()),
            Released::NotYet => Err(CloseError::Busy { closing: self, waited: timeout }),
            Released::Never => Err(CloseError::Ending),
        }
    }
}

impl Runtime {
    /// Lets go of this handle, which must be the last, and waits at most `timeout` until no thread of the runtime's and nothing made
    /// by it uses the Vulkan device. After `Ok` an application's device may be destroyed, and one of the runtime's own is.
    ///
    /// What was launched is finished first; so a kernel that waits for something that only the caller can do ends in `Busy`. Dropping
    /// the last handle instead does the same without a wait.
    ///
    /// # Errors
    /// `InUse` gives the runtime back, with what to drop; `Busy` gives back what to wait for; `Ending`, `ForkedChild`.
    pub fn close(self, timeout: Duration) -> Result<(), CloseError> {
        if !self.inner.owned() {
            return Err(CloseError::ForkedChild);
        }
        let references = Arc::strong_count(&self.inner) - 1;
        // The runtime's own kernels know it, too.
        let shipped = self.inner.shipped.iter().filter(|kernel| kernel.get().is_some()).count();
        let kernels = Arc::weak_count(&self.inner).saturating_sub(shipped);
        if references + kernels > 0 {
            let arrays = self.inner.engine.labels();
            return Err(CloseError::InUse { runtime: self, arrays, kernels, references });
        }
        let latch = self.inner.engine.device().latch();
        drop(self);
        Closing { latch }.wait(timeout)
    }
}
