//! One small kernel at start, on software devices only: their compiler makes process-wide objects when it is first used, and these
//! must be older than our exit handler, or the end of the process takes them down under a kernel that is being compiled.

use crate::context::Context;
use crate::dispatch::Dispatcher;
use crate::kernel::{KernelOptions, VulkanKernel};
use crate::queues::Queue;
use ash::vk;
use std::sync::Arc;
use vkhmm_port::{BoundRange, Command, DeviceError};

const OPERATION: &str = "warm up the compiler";
/// Shifts, products, loops and stores; with no words to work on.
static SPIN: &[u8] = include_bytes!("../../shaders/spv/spin.spv");

/// Compiles and runs it, and waits. `empty` stands for its buffer.
pub(crate) fn up(
    ctx: &Arc<Context>,
    cache: vk::PipelineCache,
    queue: &Queue,
    empty: vk::Buffer,
) -> Result<(), DeviceError> {
    let words: Vec<u32> =
        SPIN.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let refused = |reason: String| crate::error::refused(OPERATION, reason);
    let kernel = VulkanKernel::new(ctx, cache, &words, KernelOptions::default())
        .map_err(|e| refused(e.to_string()))?;
    let kernel = Arc::new(kernel);
    let (groups, push) = ([1, 1, 1], vec![0; 8]);
    let bindings = || vec![BoundRange { buffer: None, offset: 0, bytes: 0 }];
    let elapsed_ns = Arc::default();
    let commands = [Command::Dispatch {
        kernel: Arc::clone(&kernel),
        bindings: bindings(),
        push: push.clone(),
        groups,
        elapsed_ns: Arc::clone(&elapsed_ns),
    }];
    let mut recording = queue.recycler.take()?;
    let recorded =
        Dispatcher::new(ctx, &mut recording, &commands, empty, false).and_then(
            |dispatcher| match dispatcher {
                Some(mut dispatcher) => dispatcher.dispatch(&kernel, &bindings(), &push, groups, &elapsed_ns),
                None => Ok(()),
            },
        );
    let ended = recorded.and_then(|()| {
        // SAFETY: vkEndCommandBuffer: the command buffer was begun by `take` and is ours alone.
        unsafe { ctx.device.end_command_buffer(recording.cmd) }.map_err(|e| ctx.failed(OPERATION, 0, e))
    });
    // Nothing named here is dropped before it is waited for.
    let result = ended.and_then(|()| queue.run(OPERATION, recording.cmd));
    queue.recycler.give(recording);
    result
}
