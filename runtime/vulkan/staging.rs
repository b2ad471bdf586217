//! The staging rings: host memory that the device copies from and to, one ring per direction, mapped for life. They serve
//! wherever A cannot be imported.

use crate::allocator::DeviceMemory;
use crate::error::refused;
use crate::kind;
use crate::visibility::HostView;
use ash::vk;
use gpu_allocator::vulkan::Allocation;
use std::sync::Arc;
use vkhmm_port::{DeviceError, Direction, RawBytes, StagingProfile};

/// Bytes of one slot: one block. Smaller slots cost a submission each, larger ones fall out of the CPU's cache.
pub(crate) const SLOT_BYTES: u64 = 2 << 20;

/// One direction.
pub(crate) struct Ring {
    pub(crate) buffer: vk::Buffer,
    view: Option<HostView>,
    allocation: Option<Allocation>,
    memory: Arc<DeviceMemory>,
}

impl Ring {
    fn new(memory: &Arc<DeviceMemory>, slots: u32, direction: Direction) -> Result<Self, DeviceError> {
        const OPERATION: &str = "make a staging ring";
        let ctx = &memory.ctx;
        let usage = match direction {
            Direction::In => vk::BufferUsageFlags::TRANSFER_SRC,
            Direction::Out => vk::BufferUsageFlags::TRANSFER_DST,
        };
        let bytes = u64::from(slots) * SLOT_BYTES;
        let buffer = ctx.new_buffer(OPERATION, bytes, usage, false)?;
        let mut ring = Self { buffer, view: None, allocation: None, memory: Arc::clone(memory) };
        // SAFETY: vkGetBufferMemoryRequirements of a buffer just made.
        let bits = unsafe { ctx.device.get_buffer_memory_requirements(buffer) }.memory_type_bits;
        let index = match direction {
            Direction::In => kind::staging_in(&ctx.physical, bits),
            Direction::Out => kind::staging_out(&ctx.physical, bits),
        };
        let index = index.ok_or_else(|| refused(OPERATION, "no memory type is host-visible"))?;
        let allocation = memory.bind_new(OPERATION, buffer, index, 0)?;
        ring.view = memory.view(&allocation, 0, bytes);
        ring.allocation = Some(allocation);
        Ok(ring)
    }

    /// The ring as the CPU sees it.
    pub(crate) fn view(&self) -> &HostView {
        self.view.as_ref().expect("staging memory is host-visible, so the allocator mapped it")
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: vkDestroyBuffer: dropped with the device, whose queues are idle.
        unsafe { self.memory.ctx.device.destroy_buffer(self.buffer, None) };
        if let Some(allocation) = self.allocation.take() {
            self.memory.free(allocation);
        }
    }
}

/// Both rings.
pub(crate) struct Staging {
    inward: Ring,
    outward: Ring,
    slots: u32,
}

impl Staging {
    pub(crate) fn new(memory: &Arc<DeviceMemory>, slots: u32) -> Result<Self, DeviceError> {
        let slots = slots.max(1);
        Ok(Self {
            inward: Ring::new(memory, slots, Direction::In)?,
            outward: Ring::new(memory, slots, Direction::Out)?,
            slots,
        })
    }

    pub(crate) fn profile(&self) -> StagingProfile {
        StagingProfile { slots: self.slots, slot_bytes: SLOT_BYTES }
    }

    /// What the rings are made of, in words.
    pub(crate) fn words(&self) -> String {
        let made_of =
            |ring: &Ring| ring.allocation.as_ref().map(Allocation::memory_properties).unwrap_or_default();
        format!("in: {:?}, out: {:?}", made_of(&self.inward), made_of(&self.outward))
    }

    /// The ring of one direction.
    pub(crate) fn ring(&self, direction: Direction) -> &Ring {
        match direction {
            Direction::In => &self.inward,
            Direction::Out => &self.outward,
        }
    }

    /// Where `slot` starts in its ring's buffer; `None` if there is no such slot.
    pub(crate) fn offset(&self, slot: u32) -> Option<u64> {
        (slot < self.slots).then(|| u64::from(slot) * SLOT_BYTES)
    }

    /// The host's view of a slot.
    pub(crate) fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        let offset = self.offset(slot).unwrap_or_else(|| panic!("slot {slot} of {}", self.slots));
        self.ring(direction).view().bytes().slice(offset as usize, SLOT_BYTES as usize)
    }
}
