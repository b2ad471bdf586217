//! gpu-allocator behind one lock, with the memory type always chosen by us: the pieces of the arena, the staging rings and
//! small fixed buffers come from here.

use crate::context::Context;
use crate::error::refused;
use crate::visibility::{HostView, VIEW_ALIGNMENT};
use ash::vk;
use core::ptr::NonNull;
use gpu_allocator::vulkan::{
    Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc,
};
use gpu_allocator::{AllocationError, AllocationSizes, MemoryLocation};
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_port::{DeviceError, RawBytes};

/// Blocks that small allocations share; anything above has memory of exactly its own size, freed with it.
const SHARED_BLOCK_BYTES: u64 = 4 << 20;

/// Lock contract: `inner` owns the allocator's books; may block on the driver's vkAllocateMemory and vkMapMemory; takes no
/// other lock inside.
pub(crate) struct DeviceMemory {
    inner: Mutex<Allocator>,
    pub(crate) ctx: Arc<Context>,
}

impl DeviceMemory {
    pub(crate) fn new(ctx: &Arc<Context>) -> Result<Self, DeviceError> {
        let inner = Allocator::new(&AllocatorCreateDesc {
            instance: ctx.instance.raw.clone(),
            device: ctx.device.clone(),
            physical_device: ctx.physical.handle,
            debug_settings: gpu_allocator::AllocatorDebugSettings::default(),
            buffer_device_address: true,
            allocation_sizes: AllocationSizes::new(SHARED_BLOCK_BYTES, SHARED_BLOCK_BYTES),
        })
        .map_err(|e| refused("create the allocator", e.to_string()))?;
        Ok(Self { inner: Mutex::new(inner), ctx: Arc::clone(ctx) })
    }

    /// Memory of type `index` for `buffer`, `slack` bytes longer than it needs, and binds it.
    pub(crate) fn bind_new(
        &self,
        operation: &'static str,
        buffer: vk::Buffer,
        index: u32,
        slack: u64,
    ) -> Result<Allocation, DeviceError> {
        // SAFETY: vkGetBufferMemoryRequirements: the caller just made the buffer.
        let mut requirements = unsafe { self.ctx.device.get_buffer_memory_requirements(buffer) };
        if requirements.memory_type_bits & (1 << index) == 0 {
            return Err(refused(operation, format!("memory type {index} does not take such buffers")));
        }
        // One bit left, so that the allocator's own preferences have nothing to choose from.
        requirements.memory_type_bits = 1 << index;
        requirements.alignment = requirements.alignment.max(VIEW_ALIGNMENT);
        requirements.size = (requirements.size + slack).next_multiple_of(VIEW_ALIGNMENT);
        let bytes = requirements.size;
        let mut allocator = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let allocation = allocator
            .allocate(&AllocationCreateDesc {
                name: operation,
                requirements,
                location: MemoryLocation::Unknown,
                linear: true,
                // Not gpu-allocator's dedicated scheme: that ties the memory to one VkBuffer
                // (VUID-vkBindBufferMemory-memory-01508), and spans bind buffers of their own into a piece.
                allocation_scheme: AllocationScheme::GpuAllocatorManaged,
            })
            .map_err(|e| match e {
                AllocationError::OutOfMemory => DeviceError::OutOfDeviceMemory { operation, bytes },
                other => refused(operation, other.to_string()),
            })?;
        // SAFETY: vkBindBufferMemory: the buffer is fresh, the memory is of an allowed type, aligned and long enough (all from
        // its own requirements). `memory()` is not freed while the allocation exists.
        let bound =
            unsafe { self.ctx.device.bind_buffer_memory(buffer, allocation.memory(), allocation.offset()) };
        if let Err(e) = bound {
            // Freeing only fails for allocations of another allocator.
            let _ = allocator.free(allocation);
            return Err(self.ctx.failed(operation, bytes, e));
        }
        Ok(allocation)
    }

    /// Gives memory back. Buffers bound to it are not used any more.
    pub(crate) fn free(&self, allocation: Allocation) {
        let mut allocator = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Freeing only fails for allocations of another allocator.
        let freed = allocator.free(allocation);
        debug_assert!(freed.is_ok(), "an allocation of another allocator");
    }

    /// `bytes` of an allocation from `skip` on where they are mapped; `None` if its memory is not HOST_VISIBLE.
    pub(crate) fn mapped(allocation: &Allocation, skip: u64, bytes: u64) -> Option<RawBytes> {
        let start: NonNull<u8> = allocation.mapped_ptr()?.cast();
        assert!(skip + bytes <= allocation.size(), "a view longer than its allocation");
        // SAFETY: RawBytes::new: gpu-allocator maps HOST_VISIBLE memory for as long as it exists, the owner of the view frees
        // the allocation after its last use, and nobody makes a reference to mapped memory.
        let raw =
            unsafe { RawBytes::new(start, (skip + bytes) as usize) }.slice(skip as usize, bytes as usize);
        Some(raw)
    }

    /// The same as the CPU sees them, between flushes and invalidations.
    pub(crate) fn view(&self, allocation: &Allocation, skip: u64, bytes: u64) -> Option<HostView> {
        let raw = Self::mapped(allocation, skip, bytes)?;
        // SAFETY: `memory()`: the handle is only used to flush and invalidate while the allocation exists.
        let memory = unsafe { allocation.memory() };
        Some(HostView::new(
            &self.ctx,
            memory,
            allocation.offset() + skip,
            raw,
            allocation.memory_properties(),
        ))
    }
}
