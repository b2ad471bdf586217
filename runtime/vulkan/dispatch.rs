//! Kernels, recorded: descriptor sets that cover exactly the named bytes, push constants, the dispatch, and a clock around it.

use crate::context::Context;
use crate::device::VulkanDevice;
use crate::error::refused;
use crate::kernel::VulkanKernel;
use crate::memory::Over;
use crate::recycle::Recording;
use ash::vk;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use vkhmm_port::{BoundRange, Command, DeviceError};

const OPERATION: &str = "run a kernel";

/// What the dispatches of one submission take from its recording.
pub(crate) struct Dispatcher<'a> {
    ctx: &'a Context,
    cmd: vk::CommandBuffer,
    pool: vk::DescriptorPool,
    queries: Option<vk::QueryPool>,
    /// What stands in for an empty argument: null, or the scratch buffer where the device has no null descriptors.
    empty: vk::Buffer,
    next_query: u32,
    /// Where the times go, in the order of the queries.
    pub(crate) clocks: Vec<Arc<AtomicU64>>,
}

impl<'a> Dispatcher<'a> {
    /// Sizes the pools for `commands`; `None` if there is nothing to dispatch.
    pub(crate) fn new(
        ctx: &'a Context,
        recording: &mut Recording,
        commands: &[Command<VulkanDevice>],
        empty: vk::Buffer,
        clock: bool,
    ) -> Result<Option<Self>, DeviceError> {
        let (mut count, mut timed, mut sets, mut buffers) = (0_u32, 0_u32, 0_u32, 0_u32);
        for command in commands {
            if let Command::Dispatch { kernel, .. } = command {
                count += 1;
                timed += u32::from(clock && kernel.timed);
                sets += kernel.set_layouts.len() as u32;
                buffers += kernel.reflection().bindings.len() as u32;
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let pool = recording.descriptor_pool(ctx, sets.max(1), buffers)?;
        let queries = if timed > 0 { Some(recording.query_pool(ctx, timed * 2)?) } else { None };
        if let Some(queries) = queries {
            // SAFETY: vkCmdResetQueryPool: the pool holds at least `timed * 2` queries, none in use (`Recycler::take`).
            unsafe { ctx.device.cmd_reset_query_pool(recording.cmd, queries, 0, timed * 2) };
        }
        let clocks = Vec::with_capacity(timed as usize);
        Ok(Some(Self { ctx, cmd: recording.cmd, pool, queries, empty, next_query: 0, clocks }))
    }

    /// Records one kernel.
    pub(crate) fn dispatch(
        &mut self,
        kernel: &VulkanKernel,
        bindings: &[BoundRange<VulkanDevice>],
        push: &[u8],
        groups: [u32; 3],
        elapsed: &Arc<AtomicU64>,
    ) -> Result<(), DeviceError> {
        self.check(kernel, bindings, push, groups)?;
        let (device, cmd) = (&self.ctx.device, self.cmd);
        let sets = self.descriptor_sets(kernel, bindings)?;
        let mut words = push.to_vec();
        words.resize(push.len().next_multiple_of(4), 0);
        // SAFETY: vkCmdBindPipeline, vkCmdBindDescriptorSets, vkCmdPushConstants, vkCmdDispatch: `cmd` is being recorded by this
        // thread for a compute queue (`submit` checks), layout and pipeline belong together (`VulkanKernel`), each set was made
        // with the layout of its number, the push range is the layout's own, and the counts are within limits (`check`).
        unsafe {
            device.cmd_bind_pipeline(cmd, vk::PipelineBindPoint::COMPUTE, kernel.pipeline);
            if !sets.is_empty() {
                let point = vk::PipelineBindPoint::COMPUTE;
                device.cmd_bind_descriptor_sets(cmd, point, kernel.layout, 0, &sets, &[]);
            }
            if !words.is_empty() {
                device.cmd_push_constants(cmd, kernel.layout, vk::ShaderStageFlags::COMPUTE, 0, &words);
            }
        }
        let queries = self.queries.filter(|_| kernel.timed);
        self.tick(queries);
        // SAFETY: vkCmdDispatch: the command buffer is being recorded, pipeline and descriptors were bound just above.
        unsafe { device.cmd_dispatch(cmd, groups[0], groups[1], groups[2]) };
        self.tick(queries);
        if queries.is_some() {
            self.clocks.push(Arc::clone(elapsed));
        }
        Ok(())
    }

    /// What the engine compared with the profile and the reflection before; a mismatch here is its mistake, and named.
    fn check(
        &self,
        kernel: &VulkanKernel,
        bindings: &[BoundRange<VulkanDevice>],
        push: &[u8],
        groups: [u32; 3],
    ) -> Result<(), DeviceError> {
        let limits = &self.ctx.physical.limits;
        let reflection = kernel.reflection();
        let no = |message: String| Err(refused(OPERATION, format!("kernel {}: {message}", kernel.name())));
        if bindings.len() != reflection.bindings.len() {
            return no(format!("{} bindings for {}", bindings.len(), reflection.bindings.len()));
        }
        if push.len() != reflection.push.bytes as usize {
            return no(format!("{} bytes of push constants for {}", push.len(), reflection.push.bytes));
        }
        let most = limits.max_compute_work_group_count;
        if groups.iter().zip(most).any(|(have, most)| *have > most) {
            return no(format!("{groups:?} groups, at most {most:?}"));
        }
        for (bound, info) in bindings.iter().zip(&reflection.bindings) {
            let Some(buffer) = &bound.buffer else { continue };
            let inside = bound.offset.checked_add(bound.bytes).is_some_and(|end| end <= buffer.bytes);
            let aligned = bound.offset % limits.min_storage_buffer_offset_alignment.max(1) == 0;
            let short = bound.bytes <= u64::from(limits.max_storage_buffer_range);
            if !inside || !aligned || !short {
                return no(format!(
                    "{} takes {:#x}+{:#x} of {:#x} (alignment {}, at most {})",
                    info.name,
                    bound.offset,
                    bound.bytes,
                    buffer.bytes,
                    limits.min_storage_buffer_offset_alignment,
                    limits.max_storage_buffer_range
                ));
            }
            let Over::Sparse(reserved) = &buffer.over else { continue };
            if let Some(hole) = reserved.hole(bound.offset, bound.bytes) {
                return no(format!(
                    "{} takes {:#x}+{:#x} of a sparse buffer, in which no frame lies at {hole:#x}",
                    info.name, bound.offset, bound.bytes
                ));
            }
        }
        Ok(())
    }

    fn descriptor_sets(
        &self,
        kernel: &VulkanKernel,
        bindings: &[BoundRange<VulkanDevice>],
    ) -> Result<Vec<vk::DescriptorSet>, DeviceError> {
        if kernel.set_layouts.is_empty() {
            return Ok(Vec::new());
        }
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.pool)
            .set_layouts(&kernel.set_layouts);
        // SAFETY: vkAllocateDescriptorSets: the pool was sized for all dispatches of this submission (`new`) and is used by this
        // thread alone.
        let sets = unsafe { self.ctx.device.allocate_descriptor_sets(&info) }
            .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
        let ranges: Vec<[vk::DescriptorBufferInfo; 1]> = bindings
            .iter()
            .map(|bound| match &bound.buffer {
                Some(buffer) if bound.bytes > 0 => [vk::DescriptorBufferInfo::default()
                    .buffer(buffer.handle)
                    .offset(bound.offset)
                    .range(bound.bytes)],
                _ => [vk::DescriptorBufferInfo::default().buffer(self.empty).offset(0).range(vk::WHOLE_SIZE)],
            })
            .collect();
        let writes: Vec<vk::WriteDescriptorSet<'_>> = kernel
            .reflection()
            .bindings
            .iter()
            .zip(&ranges)
            .map(|(info, range)| {
                vk::WriteDescriptorSet::default()
                    .dst_set(sets[info.set as usize])
                    .dst_binding(info.binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .buffer_info(range)
            })
            .collect();
        // SAFETY: vkUpdateDescriptorSets: the sets are fresh; ranges are inside their buffers, aligned and not too long
        // (`check`); a null buffer only where nullDescriptor is on (`empty`).
        unsafe { self.ctx.device.update_descriptor_sets(&writes, &[]) };
        Ok(sets)
    }

    fn tick(&mut self, queries: Option<vk::QueryPool>) {
        let Some(queries) = queries else { return };
        let stage = vk::PipelineStageFlags2::COMPUTE_SHADER;
        // SAFETY: vkCmdWriteTimestamp2: the query is inside the pool and was reset in this command buffer (`new`); the queue
        // has a clock (`timed`).
        unsafe { (self.ctx.sync2.timestamp)(self.cmd, stage, queries, self.next_query) };
        self.next_query += 1;
    }
}
