//! One small kernel at start, on software devices only: their compiler makes process-wide objects when it is first used, and these
//! must be older than our exit handler, or the end of the process takes them down under a kernel that is being compiled.

use crate::context::Context;
use crate::dispatch::Dispatcher;
use crate::kernel::{KernelOptions, VulkanKernel};
use crate::memory::VulkanBuffer;
use crate::probe::at_once;
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
    run(ctx, cache, queue, empty, None)
}

/// The same on the first words of a buffer, each of which becomes [`spun`].
pub(crate) fn run(
    ctx: &Arc<Context>,
    cache: vk::PipelineCache,
    queue: &Queue,
    empty: vk::Buffer,
    words: Option<(Arc<VulkanBuffer>, u32)>,
) -> Result<(), DeviceError> {
    let module: Vec<u32> =
        SPIN.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let kernel = VulkanKernel::new(ctx, cache, &module, KernelOptions::default())
        .map_err(|e| crate::error::refused(OPERATION, e.to_string()))?;
    let count = words.as_ref().map_or(0, |(_, count)| *count);
    let bytes = u64::from(count) * 4;
    let buffer = words.map(|(buffer, _)| buffer);
    let commands = [Command::Dispatch {
        kernel: Arc::new(kernel),
        bindings: vec![BoundRange { buffer, offset: 0, bytes }],
        push: [1_u32.to_ne_bytes(), count.to_ne_bytes()].concat(),
        groups: [count.div_ceil(64).max(1), 1, 1],
        elapsed_ns: Arc::default(),
    }];
    at_once(ctx, queue, OPERATION, |recording| {
        let mut dispatcher = Dispatcher::new(ctx, recording, &commands, empty, false)?;
        for command in &commands {
            let Command::Dispatch { kernel, bindings, push, groups, elapsed_ns } = command else { continue };
            if let Some(dispatcher) = &mut dispatcher {
                dispatcher.dispatch(kernel, bindings, push, *groups, elapsed_ns)?;
            }
        }
        Ok(())
    })
}

/// What one round of the kernel makes of a word.
pub(crate) fn spun(word: u32) -> u32 {
    (0..16).fold(word, |w, _| (w ^ (w >> 15)).wrapping_mul(0x2c1b_3c6d).wrapping_add(0x9e37_79b9))
}
