//! Copies by the CPU: between host bytes and the inner device's memory, which it sees.

use std::sync::{PoisonError, RwLock};
use vkhmm_port::{Device, DeviceError, Direction, RawBytes, Region};
use vkhmm_vulkan::VulkanDevice;

/// Lock contract: owns whether host bytes may be touched; read while one region is copied, written once by a loss, which so waits
/// for the regions being copied; nothing is taken inside but what the inner device's frames need.
#[derive(Default)]
pub(crate) struct Gate {
    shut: RwLock<bool>,
}

impl Gate {
    /// No byte is copied from now on.
    pub(crate) fn shut(&self) {
        *self.shut.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Copies every region, unless the device is lost.
    pub(crate) fn copy(
        &self,
        inner: &VulkanDevice,
        direction: Direction,
        host: RawBytes,
        regions: &[Region],
    ) -> Result<(), DeviceError> {
        for region in regions {
            let shut = self.shut.read().unwrap_or_else(PoisonError::into_inner);
            if *shut {
                return Err(DeviceError::Lost { operation: "copy" });
            }
            let part = host.slice(region.host_offset as usize, region.bytes as usize);
            match direction {
                Direction::In => inner.write_frames(region.device_offset, part)?,
                Direction::Out => inner.read_frames(region.device_offset, part)?,
            }
        }
        Ok(())
    }
}
