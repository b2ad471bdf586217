//! The application's own Vulkan device: what vkhmm asks of it, and a runtime over it.
//!
//! ```text
//!   Requirements::query ──► the application merges, creates its device ──► Parts ──► Runtime::from_vulkan
//!                                                                                      │ … launches, touches …
//!   the application destroys its device ◄── Ok ◄── Runtime::close ◄────────────────────┘
//! ```
//!
//! A CPU touch is answered by a thread of vkhmm's, and that thread must never wait for a lock of the application's: the thread that
//! holds it may be the one that touches. So vkhmm wants a queue of its own. Where the device has none to spare, the application's
//! queue does under a lock ([`QueueLock`]), if touches need no queue: the memory is [`crate::MemoryKind::DeviceCoherent`] or
//! [`crate::MemoryKind::UnifiedMemory`], or the fault engine is [`crate::FaultEngine::Declared`].

pub use vkhmm_port::Role;
pub use vkhmm_vulkan::{
    FeatureChain, Level, Need, OwnQueue, Parts, QueueLock, Requirements, Wanted, WantedQueue, load_device,
    load_instance, vk,
};

use crate::Result;
use crate::builder::Builder;
use crate::runtime::Runtime;

impl Runtime {
    /// A runtime over a device that the application made and keeps; the defaults of [`Runtime::builder`] for the rest.
    ///
    /// # Errors
    /// As [`Builder::from_vulkan`].
    ///
    /// # Safety
    /// The contract of [`Parts`], until [`Runtime::close`] has returned `Ok`.
    pub unsafe fn from_vulkan(parts: Parts) -> Result<Self> {
        // SAFETY: the caller's promise is the same.
        unsafe { Self::builder().from_vulkan(parts) }
    }
}

impl Builder {
    /// Opens host memory, and starts a runtime over a device that the application made and keeps. Small submissions are run and
    /// waited for meanwhile; on a shared queue they come after what is there already.
    ///
    /// [`Builder::device`] and [`Builder::validation`] are the application's business here, and so are the environment variables of
    /// these two. `Parts::limit_bytes` is the device memory limit unless [`Builder::device_memory_limit`] is called.
    ///
    /// # Errors
    /// `Device` names what is required and not turned on, or what does not fit together; `SharedQueue` if CPU touches would need a
    /// queue that the application shares; `Setting` if a device or validation was asked for; otherwise as [`Builder::build`].
    ///
    /// # Safety
    /// The contract of [`Parts`], until [`Runtime::close`] has returned `Ok`.
    pub unsafe fn from_vulkan(self, parts: Parts) -> Result<Runtime> {
        self.open(Some(parts))
    }
}
