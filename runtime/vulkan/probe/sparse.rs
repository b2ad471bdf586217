//! Sparse buffers: two frames, bound the wrong way round and then the right way.

use super::at_once;
use crate::bind::Binder;
use crate::context::Context;
use crate::device::VulkanDevice;
use crate::error::refused;
use crate::memory::{Arena, FRAME_BYTES, SparseSpace, VulkanBuffer};
use crate::queues::Queue;
use crate::staging::Staging;
use crate::visibility;
use ash::vk;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_port::{Bind, DeviceError, Direction};

const OPERATION: &str = "probe sparse buffers";

/// Writes through a sparse buffer and reads through the frames, and back, before and after the frames change places. An error says
/// why sparse buffers cannot be used; loss of the device is one of them.
pub(crate) fn sparse(
    ctx: &Arc<Context>,
    arena: &Arena,
    staging: &Staging,
    [queue, binding]: [&Queue; 2],
    space: &SparseSpace,
    binder: &Binder,
) -> Result<(), DeviceError> {
    let run = FrameRun { first: FrameIndex(0), count: 2 };
    arena.grow(run.first, run.count, u64::MAX)?;
    let page = space.profile().page_bytes;
    let probed = arena.backed(OPERATION, run).and_then(|backed| {
        if backed.offset % page != 0 {
            let message =
                format!("frames start at {:#x} of their memory, binds in units of {page:#x}", backed.offset);
            return Err(refused(OPERATION, message));
        }
        let buffer = Arc::new(space.reserve(ctx, 2 * FRAME_BYTES)?);
        Probe { ctx, arena, staging, queue, binding, binder, buffer }.go()
    });
    arena.shrink(run.first);
    probed
}

struct Probe<'a> {
    ctx: &'a Arc<Context>,
    arena: &'a Arena,
    staging: &'a Staging,
    queue: &'a Queue,
    binding: &'a Queue,
    binder: &'a Binder,
    buffer: Arc<VulkanBuffer>,
}

impl Probe<'_> {
    fn go(&self) -> Result<(), DeviceError> {
        let frames = self.arena.place(OPERATION, 0, 2 * FRAME_BYTES)?.buffer;
        let sparse = self.buffer.handle;
        self.bind([Some(1), Some(0)])?;
        self.copied("written through crossed binds", sparse, [1, 2], frames, [2, 1])?;
        self.copied("read through crossed binds", frames, [3, 4], sparse, [4, 3])?;
        self.bind([None, None])?;
        self.bind([Some(0), Some(1)])?;
        self.copied("read after the frames changed places", sparse, [0, 0], sparse, [3, 4])?;
        self.copied("written after the frames changed places", sparse, [5, 6], frames, [5, 6])?;
        if self.ctx.buffer_address(sparse) != self.buffer.address {
            return Err(refused(OPERATION, "the buffer's address changed"));
        }
        self.bind([None, None])
    }

    /// Binds these frames to the buffer's two places, or takes them, and waits.
    fn bind(&self, places: [Option<u32>; 2]) -> Result<(), DeviceError> {
        let bind = |place: usize| Bind::<VulkanDevice> {
            buffer: Arc::clone(&self.buffer),
            offset: place as u64 * FRAME_BYTES,
            bytes: FRAME_BYTES,
            frames: places[place].map(FrameIndex),
        };
        let batches = self.binder.prepare(self.arena, &[bind(0), bind(1)])?;
        self.binder.run(self.binding, &batches)
    }

    /// Fills the two frames of `to` with the words `write` (zero: leaves them), and finds the words `expected` in `from`.
    fn copied(
        &self,
        what: &str,
        to: vk::Buffer,
        write: [u32; 2],
        from: vk::Buffer,
        expected: [u32; 2],
    ) -> Result<(), DeviceError> {
        let out = self.staging.ring(Direction::Out);
        let region = vk::BufferCopy::default().size(2 * FRAME_BYTES);
        at_once(self.ctx, self.queue, OPERATION, |recording| {
            let (device, cmd) = (&self.ctx.device, recording.cmd);
            for (at, word) in [0, FRAME_BYTES].into_iter().zip(write).filter(|(_, word)| *word != 0) {
                // SAFETY: vkCmdFillBuffer: `cmd` is being recorded by this thread, both buffers have two frames, all bound.
                unsafe { device.cmd_fill_buffer(cmd, to, at, FRAME_BYTES, word) };
            }
            visibility::barrier(self.ctx, cmd);
            // SAFETY: vkCmdCopyBuffer: as above; a slot of the ring is longer than two frames.
            unsafe { device.cmd_copy_buffer(cmd, from, out.buffer, &[region]) };
            Ok(())
        })?;
        out.view().invalidate(self.ctx, 0, 2 * FRAME_BYTES)?;
        let bytes = out.view().bytes().slice(0, 2 * FRAME_BYTES as usize).to_vec();
        let wrong = bytes
            .chunks_exact(FRAME_BYTES as usize)
            .zip(expected)
            .any(|(frame, word)| frame.chunks_exact(4).any(|found| found != word.to_ne_bytes()));
        if wrong {
            return Err(refused(OPERATION, format!("other bytes than expected were {what}")));
        }
        Ok(())
    }
}
