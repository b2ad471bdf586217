//! The import probe: only a driver that imports the caller's own memory, copies both ways and leaves the right bytes is
//! trusted with imports. It runs on a command buffer of its own and waits for the queue, so no timeline moves.

use crate::context::Context;
use crate::error::refused;
use crate::import::VulkanImport;
use crate::memory::Arena;
use crate::queues::Queue;
use crate::visibility;
use ash::vk;
use std::sync::Arc;
use vkhmm_core::units::FrameIndex;
use vkhmm_port::{DeviceError, RawBytes};

const OPERATION: &str = "probe the import of host memory";
/// Bytes that are copied each way at most.
const HALF_BYTES: usize = 1 << 20;

/// Imports `host`, copies its first half to the device and from there to its second half, and compares. `host` is zero
/// afterwards. An error says why imports cannot be used; loss of the device is one of them.
pub(crate) fn import(
    ctx: &Arc<Context>,
    arena: &Arena,
    queue: &Queue,
    host: RawBytes,
) -> Result<(), DeviceError> {
    let alignment = (ctx.physical.import_alignment as usize).max(1);
    let half = (host.len() / 2).min(HALF_BYTES) / alignment * alignment;
    if half == 0 {
        return Err(refused(OPERATION, format!("{} bytes are too few to try with", host.len())));
    }
    let host = host.slice(0, half * 2);
    let pattern: Vec<u8> =
        (0..half as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let import = VulkanImport::new(ctx, host)?;
    // Written after the import: a driver that imports a snapshot is found out.
    host.slice(0, half).write(&pattern);
    host.slice(half, half).fill(0x5a);
    let frames = (half as u64).div_ceil(crate::memory::FRAME_BYTES) as u32;
    arena.grow(FrameIndex(0), frames, u64::MAX)?;
    let copied = arena
        .place(OPERATION, 0, half as u64)
        .and_then(|place| there_and_back(ctx, queue, import.buffer, place.buffer, half as u64));
    arena.shrink(FrameIndex(0));
    drop(import);
    let back = host.slice(half, half).to_vec();
    host.fill(0);
    copied?;
    if back != pattern {
        let wrong = back.iter().zip(&pattern).filter(|(a, b)| a != b).count();
        return Err(refused(OPERATION, format!("{wrong} of {half} bytes came back different")));
    }
    Ok(())
}

/// `host[0..half]` → `device` → `host[half..]`, waited for.
fn there_and_back(
    ctx: &Context,
    queue: &Queue,
    host: vk::Buffer,
    device: vk::Buffer,
    half: u64,
) -> Result<(), DeviceError> {
    let recording = queue.recycler.take()?;
    let cmd = recording.cmd;
    let region = |from: u64, to: u64| vk::BufferCopy::default().src_offset(from).dst_offset(to).size(half);
    // SAFETY: vkCmdCopyBuffer, vkEndCommandBuffer: `cmd` was begun by `take` and is ours alone; the host buffer is two halves
    // long, the device buffer at least one.
    let ended = unsafe {
        ctx.device.cmd_copy_buffer(cmd, host, device, &[region(0, 0)]);
        visibility::barrier(ctx, cmd);
        ctx.device.cmd_copy_buffer(cmd, device, host, &[region(0, half)]);
        visibility::end_of_submission(ctx, cmd);
        ctx.device.end_command_buffer(cmd)
    };
    let result = ended.map_err(|e| ctx.failed(OPERATION, half, e)).and_then(|()| queue.run(OPERATION, cmd));
    queue.recycler.give(recording);
    result
}
