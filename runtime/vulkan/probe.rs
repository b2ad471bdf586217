//! Probes at start: only a driver that imports the caller's own memory, copies both ways and leaves the right bytes is trusted with
//! imports; the same goes for kernels on imported memory, and for sparse buffers. Each runs on command buffers of its own and waits for
//! the queue, so no timeline moves.

mod sparse;

use crate::context::Context;
use crate::error::refused;
use crate::import::VulkanImport;
use crate::memory::{Arena, VulkanBuffer};
use crate::queues::Queue;
use crate::recycle::Recording;
use crate::{visibility, warm};
use ash::vk;
use std::sync::Arc;
use vkhmm_core::units::FrameIndex;
use vkhmm_port::{DeviceError, RawBytes};

pub(crate) use sparse::sparse;

const OPERATION: &str = "probe the import of host memory";
/// Bytes that are copied each way at most.
const HALF_BYTES: usize = 1 << 20;

/// Imports `host`, copies its first half to the device and from there to its second half, and compares. `host` is zero
/// afterwards. With `storage` it is an import that kernels may use. An error says why such imports cannot be used; loss of the device
/// is one of them.
pub(crate) fn import(
    ctx: &Arc<Context>,
    arena: &Arena,
    queue: &Queue,
    host: RawBytes,
    storage: bool,
) -> Result<(), DeviceError> {
    let alignment = (ctx.physical.import_alignment as usize).max(1);
    let half = (host.len() / 2).min(HALF_BYTES) / alignment * alignment;
    if half == 0 {
        return Err(refused(OPERATION, format!("{} bytes are too few to try with", host.len())));
    }
    let host = host.slice(0, half * 2);
    let pattern: Vec<u8> =
        (0..half as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let import = VulkanImport::new(ctx, host, storage)?;
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
    let region = |from: u64, to: u64| vk::BufferCopy::default().src_offset(from).dst_offset(to).size(half);
    at_once(ctx, queue, OPERATION, |recording| {
        // SAFETY: vkCmdCopyBuffer: `cmd` was begun by `take` and is ours alone; the host buffer is two halves long, the device
        // buffer at least one.
        unsafe {
            ctx.device.cmd_copy_buffer(recording.cmd, host, device, &[region(0, 0)]);
            visibility::barrier(ctx, recording.cmd);
            ctx.device.cmd_copy_buffer(recording.cmd, device, host, &[region(0, half)]);
        }
        Ok(())
    })
}

/// Lets a kernel work on the first of two pages of `host`, imported: it must find and leave the right words there, and nothing
/// else may change. `host` is zero afterwards.
pub(crate) fn in_place(
    ctx: &Arc<Context>,
    cache: vk::PipelineCache,
    queue: &Queue,
    empty: vk::Buffer,
    host: RawBytes,
) -> Result<(), DeviceError> {
    const OPERATION: &str = "probe the work in place";
    let page = (ctx.physical.import_alignment as usize).max(4096);
    if host.len() < 2 * page {
        return Err(refused(OPERATION, format!("{} bytes are too few to try with", host.len())));
    }
    let host = host.slice(0, 2 * page);
    let import = Arc::new(VulkanImport::new(ctx, host, true)?);
    let words: Vec<u32> = (0..page as u32 / 2).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let (first, second) = words.split_at(page / 4);
    host.write(&bytes(&words));
    let expected = [&first.iter().map(|word| warm::spun(*word)).collect::<Vec<u32>>(), second].concat();
    let buffer = VulkanBuffer::in_place(ctx, &import)
        .ok_or_else(|| refused(OPERATION, "the import has no address"))?;
    let ran = warm::run(ctx, cache, queue, empty, Some((Arc::new(buffer), first.len() as u32)));
    let found = host.to_vec();
    drop(import);
    host.fill(0);
    ran?;
    if found != bytes(&expected) {
        return Err(refused(OPERATION, "a kernel left other bytes than it should have"));
    }
    Ok(())
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Records commands, submits them without touching a timeline, and waits for the queue.
pub(crate) fn at_once(
    ctx: &Context,
    queue: &Queue,
    operation: &'static str,
    record: impl FnOnce(&mut Recording) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let mut recording = queue.recycler.take()?;
    let recorded = record(&mut recording);
    let cmd = recording.cmd;
    let ended = recorded.and_then(|()| {
        visibility::end_of_submission(ctx, cmd);
        // SAFETY: vkEndCommandBuffer: begun by `take` and ours alone.
        unsafe { ctx.device.end_command_buffer(cmd) }.map_err(|e| ctx.failed(operation, 0, e))
    });
    let result = ended.and_then(|()| queue.run(operation, cmd));
    queue.recycler.give(recording);
    result
}
