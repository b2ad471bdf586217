//! What an application's own work names: buffers, and the timelines that it waits for.

use crate::device::VulkanDevice;
use crate::memory::VulkanBuffer;
use ash::vk;
use vkhmm_core::units::Timeline;

impl VulkanBuffer {
    /// The buffer, for an application's descriptors and commands; it is destroyed when this is dropped.
    pub fn raw(&self) -> vk::Buffer {
        self.handle
    }
}

impl VulkanDevice {
    /// The semaphore whose values are the tickets of `timeline`. It lives as long as the device; only the device signals it.
    ///
    /// # Panics
    /// If the device has no such timeline.
    pub fn semaphore(&self, timeline: Timeline) -> vk::Semaphore {
        let queue = self.queues.iter().find(|queue| queue.timeline == timeline);
        queue.expect("a timeline of this device").semaphore
    }
}
