//! Control memory: small tables that host and kernels share, mapped for life, reached by kernels through their address. Coherent, which
//! every device has (Vulkan specification, "Device Memory"): nobody knows which words of it a kernel stores to.

use crate::allocator::DeviceMemory;
use crate::error::refused;
use crate::kind;
use ash::vk;
use gpu_allocator::vulkan::Allocation;
use std::sync::Arc;
use vkhmm_port::{DeviceError, Direction, RawBytes};

pub(crate) const OPERATION: &str = "make control memory";

/// What addresses are multiples of, so that kernels may load vectors.
const ALIGNMENT: u64 = 256;

/// One piece of it.
pub struct Control {
    buffer: vk::Buffer,
    mapped: RawBytes,
    /// Of the buffer; what is used begins at the first multiple of [`ALIGNMENT`].
    address: u64,
    bytes: u64,
    allocation: Option<Allocation>,
    memory: Arc<DeviceMemory>,
}

impl Control {
    pub(crate) fn new(
        memory: &Arc<DeviceMemory>,
        bytes: u64,
        direction: Direction,
    ) -> Result<Self, DeviceError> {
        let ctx = &memory.ctx;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let length = bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT) + ALIGNMENT;
        let buffer = ctx.new_buffer(OPERATION, length, usage, false)?;
        let made = Self::bind(memory, buffer, length, direction);
        let (allocation, mapped) = made.inspect_err(|_| {
            // SAFETY: vkDestroyBuffer: just made, and known to nobody.
            unsafe { ctx.device.destroy_buffer(buffer, None) };
        })?;
        let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
        // SAFETY: vkGetBufferDeviceAddress: the buffer has SHADER_DEVICE_ADDRESS usage and is bound to memory of the allocator, which
        // allocates all of it for device addresses.
        let address = unsafe { ctx.device.get_buffer_device_address(&info) };
        mapped.fill(0);
        let memory = Arc::clone(memory);
        Ok(Self { buffer, mapped, address, bytes, allocation: Some(allocation), memory })
    }

    fn bind(
        memory: &DeviceMemory,
        buffer: vk::Buffer,
        length: u64,
        direction: Direction,
    ) -> Result<(Allocation, RawBytes), DeviceError> {
        let ctx = &memory.ctx;
        // SAFETY: vkGetBufferMemoryRequirements of a buffer just made.
        let bits = unsafe { ctx.device.get_buffer_memory_requirements(buffer) }.memory_type_bits;
        let index = kind::control(&ctx.physical, bits, direction);
        let index = index.ok_or_else(|| refused(OPERATION, "no memory type is host-visible and coherent"))?;
        let allocation = memory.bind_new(OPERATION, buffer, index, 0)?;
        let mapped = DeviceMemory::mapped(&allocation, 0, length);
        Ok((allocation, mapped.expect("host-visible memory is mapped by the allocator")))
    }

    fn skip(&self) -> u64 {
        self.address.next_multiple_of(ALIGNMENT) - self.address
    }

    pub(crate) fn bytes(&self) -> RawBytes {
        self.mapped.slice(self.skip() as usize, self.bytes as usize)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address + self.skip()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _section = crate::exit::section();
        // SAFETY: vkDestroyBuffer: its owner drops it after the last submission that reaches it (`Device::Control`).
        unsafe { self.memory.ctx.device.destroy_buffer(self.buffer, None) };
        if let Some(allocation) = self.allocation.take() {
            self.memory.free(allocation);
        }
    }
}
