//! The logical device, and what everything made from it shares. Whoever holds a Vulkan object holds the context, so the device
//! is destroyed after the last of them.

use crate::config::Switches;
use crate::error::{OpenError, driver};
use crate::features::Features;
use crate::instance::Instance;
use crate::latch::{DeviceLatch, Opens};
use crate::physical::Physical;
use crate::requirements::Requirements;
use crate::wait::WAIT_SLICE;
use ash::vk;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use vkhmm_port::DeviceError;

/// The three functions of synchronization2 that are used, from core 1.3 or from the extension.
pub(crate) struct Sync2 {
    pub(crate) submit: vk::PFN_vkQueueSubmit2,
    pub(crate) barrier: vk::PFN_vkCmdPipelineBarrier2,
    pub(crate) timestamp: vk::PFN_vkCmdWriteTimestamp2,
}

/// The logical device.
pub(crate) struct Context {
    pub(crate) device: ash::Device,
    owned: bool,
    pub(crate) sync2: Sync2,
    /// VK_EXT_external_memory_host, where it is there.
    pub(crate) external_host: Option<ash::ext::external_memory_host::Device>,
    pub(crate) physical: Physical,
    /// The features that are on.
    pub(crate) features: Features,
    /// The queue families in use, each once.
    pub(crate) families: Vec<u32>,
    /// What an application uses managed buffers as, beside what we do.
    pub(crate) usage: vk::BufferUsageFlags,
    /// Host-visible memory may be coherent ([`crate::Switches::coherent`]).
    pub(crate) coherent: bool,
    /// Timelines stand still ([`crate::Switches::mock`]).
    pub(crate) mock: bool,
    /// The driver said VK_ERROR_DEVICE_LOST, or a test says that it did.
    lost: AtomicBool,
    /// The driver itself said so: nothing runs any more, and waiting for it is pointless.
    gone: AtomicBool,
    pub(crate) instance: Instance,
    /// Opens after all else is gone.
    pub(crate) latch: Opens,
}

/// What a context is made from.
pub(crate) struct Given {
    pub(crate) instance: Instance,
    pub(crate) device: ash::Device,
    /// Whether the device is ours to destroy.
    pub(crate) owned: bool,
    pub(crate) physical: Physical,
    /// The features that are on.
    pub(crate) features: Features,
    /// The queue families that touch managed buffers, each once.
    pub(crate) families: Vec<u32>,
    /// What managed buffers are used as besides.
    pub(crate) usage: vk::BufferUsageFlags,
}

/// Makes a logical device with everything that `requirements` ask for.
pub(crate) fn create_device(
    instance: &Instance,
    physical: &Physical,
    requirements: &mut Requirements,
) -> Result<ash::Device, OpenError> {
    let extensions: Vec<*const c_char> = requirements.extensions.iter().map(|e| e.what.as_ptr()).collect();
    let counts = requirements.queue_counts();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let priorities = vec![1.0_f32; most as usize];
    let queues: Vec<vk::DeviceQueueCreateInfo<'_>> = counts
        .iter()
        .map(|(family, count)| {
            vk::DeviceQueueCreateInfo::default()
                .queue_family_index(*family)
                .queue_priorities(&priorities[..*count as usize])
        })
        .collect();
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .push_next(requirements.features.head());
    // SAFETY: vkCreateDevice: the handle is of this instance; families and counts come from its own list (`Plan`), features
    // and extensions are subsets of what it reports, and every pointer outlives the call.
    let device = unsafe { instance.raw.create_device(physical.handle, &info, None) };
    device.map_err(|e| driver("create the device", 0, e).into())
}

impl Context {
    /// Over a logical device that is there. From now on the context destroys it, if it is ours.
    pub(crate) fn new(given: Given, switches: &Switches) -> Self {
        let Given { instance, device, owned, physical, features, families, usage } = given;
        let sync2 = if physical.api >= vk::API_VERSION_1_3 {
            let fp = device.fp_v1_3();
            Sync2 {
                submit: fp.queue_submit2,
                barrier: fp.cmd_pipeline_barrier2,
                timestamp: fp.cmd_write_timestamp2,
            }
        } else {
            let khr = ash::khr::synchronization2::Device::new(&instance.raw, &device);
            Sync2 {
                submit: khr.fp().queue_submit2_khr,
                barrier: khr.fp().cmd_pipeline_barrier2_khr,
                timestamp: khr.fp().cmd_write_timestamp2_khr,
            }
        };
        let external_host = physical
            .extensions
            .external_memory_host
            .then(|| ash::ext::external_memory_host::Device::new(&instance.raw, &device));
        Self {
            device,
            owned,
            sync2,
            external_host,
            physical,
            features,
            families,
            usage,
            coherent: switches.coherent,
            mock: switches.mock,
            lost: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            instance,
            latch: Opens(DeviceLatch::default()),
        }
    }

    /// Whether the device is lost, by the driver or by a test.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// From now on every call returns `Lost`.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether the driver itself gave the device up.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Translates what the driver returned, and remembers a loss.
    pub(crate) fn failed(&self, operation: &'static str, bytes: u64, result: vk::Result) -> DeviceError {
        if result == vk::Result::ERROR_DEVICE_LOST {
            self.gone.store(true, Ordering::Release);
            self.lose();
        }
        driver(operation, bytes, result)
    }

    /// Waits until the timeline `semaphore` has reached `value`, which is submitted; or until the driver gives the device up.
    pub(crate) fn reach(
        &self,
        operation: &'static str,
        semaphore: vk::Semaphore,
        value: u64,
    ) -> Result<(), DeviceError> {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        loop {
            if self.is_gone() {
                return Err(DeviceError::Lost { operation });
            }
            // SAFETY: vkWaitSemaphores: the callers name a timeline of this device that lives longer.
            match unsafe { self.device.wait_semaphores(&info, WAIT_SLICE.as_nanos() as u64) } {
                Ok(()) => return Ok(()),
                Err(vk::Result::TIMEOUT) => {}
                Err(e) => {
                    // Remembers a loss, which ends this; what else a wait can return is the driver's want of memory.
                    let _ = self.failed(operation, 0, e);
                    std::thread::sleep(WAIT_SLICE);
                }
            }
        }
    }

    /// A buffer without memory. Shared by exactly the families in use (ours, and those that an application names) where they are
    /// several: managed memory has no layout at stake, and ownership transfers per frame would double the barriers.
    pub(crate) fn new_buffer(
        &self,
        operation: &'static str,
        bytes: u64,
        usage: vk::BufferUsageFlags,
        imported: bool,
    ) -> Result<vk::Buffer, DeviceError> {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default()
            .handle_types(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
        let mut info = vk::BufferCreateInfo::default()
            .size(bytes)
            .usage(usage)
            .sharing_mode(sharing(&self.families))
            .queue_family_indices(&self.families);
        if imported {
            info = info.push_next(&mut external);
        }
        // SAFETY: vkCreateBuffer: size is checked by the callers to be above zero, CONCURRENT only with two families or more,
        // the chained structure only where VK_EXT_external_memory_host is on (`import.rs` checks).
        unsafe { self.device.create_buffer(&info, None) }.map_err(|e| self.failed(operation, bytes, e))
    }

    /// A sparse buffer, shared as the others are.
    pub(crate) fn new_sparse_buffer(
        &self,
        operation: &'static str,
        bytes: u64,
        usage: vk::BufferUsageFlags,
    ) -> Result<vk::Buffer, DeviceError> {
        let info = vk::BufferCreateInfo::default()
            .flags(vk::BufferCreateFlags::SPARSE_BINDING | vk::BufferCreateFlags::SPARSE_RESIDENCY)
            .size(bytes)
            .usage(usage)
            .sharing_mode(sharing(&self.families))
            .queue_family_indices(&self.families);
        // SAFETY: vkCreateBuffer: as above; the callers ask only where both sparse features are on, and keep to the device's sparse
        // address space.
        unsafe { self.device.create_buffer(&info, None) }.map_err(|e| self.failed(operation, bytes, e))
    }

    /// Device address of a buffer made with SHADER_DEVICE_ADDRESS and bound to memory.
    pub(crate) fn buffer_address(&self, buffer: vk::Buffer) -> u64 {
        let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
        // SAFETY: bufferDeviceAddress is required of every device (`choice.rs`); the callers name such buffers only.
        unsafe { self.device.get_buffer_device_address(&info) }
    }
}

/// Concurrent only where several families are in use: with one it is invalid (VUID-VkBufferCreateInfo-sharingMode-00914), with several
/// an exclusive buffer would have to change owners.
fn sharing(families: &[u32]) -> vk::SharingMode {
    if families.len() > 1 { vk::SharingMode::CONCURRENT } else { vk::SharingMode::EXCLUSIVE }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _section = crate::exit::section();
        if !self.owned {
            return;
        }
        // SAFETY: vkDestroyDevice: every object holds an Arc of the context, so all of them are destroyed; `VulkanDevice` waited
        // for the queues before it let go.
        unsafe { self.device.destroy_device(None) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_shared_by_exactly_the_families_in_use() {
        assert_eq!(sharing(&[3]), vk::SharingMode::EXCLUSIVE);
        assert_eq!(sharing(&[0, 1]), vk::SharingMode::CONCURRENT);
    }
}
