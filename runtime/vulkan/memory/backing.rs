//! What a piece of the arena is made of: memory from the driver, or guarded memory; each with the piece's buffer, bound.

use super::{Arena, FRAME_BYTES, usage};
use crate::error::refused;
use crate::guard::GuardedMemory;
use ash::vk;
use gpu_allocator::vulkan::Allocation;
use vkhmm_port::DeviceError;

/// The memory under a piece.
pub(super) enum Backing {
    /// From the driver; the first frame starts `skew` bytes into it.
    Driver { allocation: Allocation, skew: u64 },
    /// Under the frame guard.
    Guarded(GuardedMemory),
}

impl Backing {
    /// The memory object, and where the first frame starts in it.
    pub(super) fn place(&self) -> (vk::DeviceMemory, u64) {
        match self {
            // SAFETY: `Allocation::memory`: the handle is used while the allocation exists.
            Self::Driver { allocation, skew } => (unsafe { allocation.memory() }, allocation.offset() + skew),
            Self::Guarded(memory) => (memory.memory, 0),
        }
    }
}

impl Arena {
    /// A piece's buffer and memory from the driver.
    pub(super) fn piece_of_driver(&self, bytes: u64) -> Result<(vk::Buffer, Backing), DeviceError> {
        const OPERATION: &str = "grow the arena";
        let ctx = &self.memory.ctx;
        let buffer = ctx.new_buffer(OPERATION, bytes, usage(ctx.usage), false)?;
        let allocation =
            self.memory.bind_new(OPERATION, buffer, self.kind.index, self.overhead()).inspect_err(|_| {
                // SAFETY: vkDestroyBuffer of a buffer just made and never used.
                unsafe { ctx.device.destroy_buffer(buffer, None) }
            })?;
        let skew = ctx.buffer_address(buffer).wrapping_neg() % FRAME_BYTES;
        let moved =
            if skew == 0 { Ok(buffer) } else { self.rebind(OPERATION, buffer, &allocation, skew, bytes) };
        match moved {
            Ok(buffer) => Ok((buffer, Backing::Driver { allocation, skew })),
            Err(error) => {
                self.memory.free(allocation);
                Err(error)
            }
        }
    }

    /// A piece's buffer and guarded memory.
    pub(super) fn piece_of_guard(&self, bytes: u64) -> Result<(vk::Buffer, Backing), DeviceError> {
        const OPERATION: &str = "grow the guarded arena";
        let ctx = &self.memory.ctx;
        let buffer = ctx.new_buffer(OPERATION, bytes, usage(ctx.usage), true)?;
        let long = (bytes + self.slack).next_multiple_of(FRAME_BYTES);
        let memory = GuardedMemory::new(ctx, OPERATION, buffer, self.kind.index, long).and_then(|memory| {
            match ctx.buffer_address(buffer) % FRAME_BYTES {
                0 => Ok(memory),
                skew => Err(refused(OPERATION, format!("imported memory starts {skew} bytes into a frame"))),
            }
        });
        match memory {
            Ok(memory) => Ok((buffer, Backing::Guarded(memory))),
            Err(error) => {
                // SAFETY: vkDestroyBuffer of a buffer that nothing has used.
                unsafe { ctx.device.destroy_buffer(buffer, None) };
                Err(error)
            }
        }
    }

    /// Replaces a fresh piece's buffer by one that starts `skew` bytes into its memory. On failure there is no buffer.
    fn rebind(
        &self,
        operation: &'static str,
        old: vk::Buffer,
        allocation: &Allocation,
        skew: u64,
        bytes: u64,
    ) -> Result<vk::Buffer, DeviceError> {
        let ctx = &self.memory.ctx;
        // SAFETY: vkDestroyBuffer of a buffer that nothing has used.
        unsafe { ctx.device.destroy_buffer(old, None) };
        if skew % self.grain != 0 {
            let message =
                format!("memory starts {skew} bytes before a frame, in units of {} bytes", self.grain);
            return Err(refused(operation, message));
        }
        let buffer = ctx.new_buffer(operation, bytes, usage(ctx.usage), false)?;
        // SAFETY: vkBindBufferMemory: the memory exists, takes such buffers (`bind_new` checked an equal one), and is a frame
        // longer than needed (`overhead`); `skew` is less than a frame and a multiple of the alignment (checked above).
        let bound =
            unsafe { ctx.device.bind_buffer_memory(buffer, allocation.memory(), allocation.offset() + skew) };
        bound.map(|()| buffer).map_err(|e| {
            // SAFETY: vkDestroyBuffer of a buffer never used.
            unsafe { ctx.device.destroy_buffer(buffer, None) };
            ctx.failed(operation, bytes, e)
        })
    }
}
