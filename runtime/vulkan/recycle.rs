//! Command pools, descriptor pools and clocks, each used by one submission at a time and used again once its ticket is reached.
//! A submission's commands are kept as long, and with them every kernel, buffer and import that they name.

use crate::context::Context;
use crate::device::VulkanDevice;
use crate::exit;
use crate::visibility::HostView;
use ash::vk;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_port::{Command, DeviceError};

/// What one submission is recorded with.
pub(crate) struct Recording {
    pool: vk::CommandPool,
    pub(crate) cmd: vk::CommandBuffer,
    descriptors: Option<(vk::DescriptorPool, u32, u32)>,
    queries: Option<(vk::QueryPool, u32)>,
}

/// A submission that the device has, or is about to get.
pub(crate) struct InFlight {
    /// Its value on the queue's timeline.
    pub(crate) value: u64,
    /// Its place among the submissions of all queues.
    pub(crate) order: u64,
    /// None of a submission of binds, which records no commands.
    pub(crate) recording: Option<Recording>,
    /// Keeps what the commands name.
    pub(crate) commands: Vec<Command<VulkanDevice>>,
    /// Where each dispatch's time goes, in order; empty where the queue has no clock.
    pub(crate) clocks: Vec<Arc<AtomicU64>>,
    /// What the host may read afterwards: view, offset, length.
    pub(crate) invalidate: Vec<(HostView, u64, u64)>,
}

/// Lock contract: `lists` owns what is free and what is in flight on one queue; held while results are read and caches
/// invalidated (calls that do not wait for the device); takes no other lock, and drops nothing of the caller's inside.
pub(crate) struct Recycler {
    ctx: Arc<Context>,
    family: u32,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    free: Vec<Recording>,
    in_flight: VecDeque<InFlight>,
    /// Done, but for their times: where reading them waits for an idle device, it is put off until the queue is empty.
    unread: VecDeque<(Recording, Vec<Arc<AtomicU64>>)>,
}

/// Most recordings whose times are put off; older ones are reported without.
const UNREAD_MAX: usize = 64;

impl Recycler {
    pub(crate) fn new(ctx: Arc<Context>, family: u32) -> Self {
        Self { ctx, family, lists: Mutex::default() }
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A recording, emptied and begun.
    pub(crate) fn take(&self) -> Result<Recording, DeviceError> {
        let free = self.lists().free.pop();
        let recording = match free {
            Some(recording) => recording,
            None => self.make()?,
        };
        match self.begin(&recording) {
            Ok(()) => Ok(recording),
            Err(e) => {
                self.give(recording);
                Err(e)
            }
        }
    }

    fn make(&self) -> Result<Recording, DeviceError> {
        const OPERATION: &str = "make a command buffer";
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(self.family)
            .flags(vk::CommandPoolCreateFlags::TRANSIENT);
        // SAFETY: vkCreateCommandPool: the family is one the device was created with.
        let pool = unsafe { self.ctx.device.create_command_pool(&info, None) }
            .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: vkAllocateCommandBuffers: the pool is fresh and used by this thread alone.
        match unsafe { self.ctx.device.allocate_command_buffers(&info) } {
            Ok(buffers) => Ok(Recording { pool, cmd: buffers[0], descriptors: None, queries: None }),
            Err(e) => {
                // SAFETY: vkDestroyCommandPool: nothing was allocated from it.
                unsafe { self.ctx.device.destroy_command_pool(pool, None) };
                Err(self.ctx.failed(OPERATION, 0, e))
            }
        }
    }

    fn begin(&self, recording: &Recording) -> Result<(), DeviceError> {
        const OPERATION: &str = "begin a command buffer";
        let device = &self.ctx.device;
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: vkResetCommandPool, vkResetDescriptorPool, vkBeginCommandBuffer: the recording is out of the lists, so this
        // thread alone has it, and its last submission is done (`retire`).
        unsafe {
            device
                .reset_command_pool(recording.pool, vk::CommandPoolResetFlags::empty())
                .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
            if let Some((pool, _, _)) = recording.descriptors {
                device
                    .reset_descriptor_pool(pool, vk::DescriptorPoolResetFlags::empty())
                    .map_err(|e| self.ctx.failed(OPERATION, 0, e))?;
            }
            device.begin_command_buffer(recording.cmd, &begin).map_err(|e| self.ctx.failed(OPERATION, 0, e))
        }
    }

    /// Puts a recording back that was not submitted.
    pub(crate) fn give(&self, recording: Recording) {
        self.lists().free.push(recording);
    }

    /// Notes a submission just before the driver gets it, so that whoever sees its ticket reached finds it here.
    pub(crate) fn push(&self, entry: InFlight) {
        if self.ctx.physical.is_software() {
            exit::began();
        }
        self.lists().in_flight.push_back(entry);
    }

    /// Order and value of the oldest submission above `seen` that nobody has ended yet.
    pub(crate) fn oldest(&self, seen: u64) -> Option<(u64, u64)> {
        let lists = self.lists();
        lists.in_flight.iter().find(|entry| entry.value > seen).map(|entry| (entry.order, entry.value))
    }

    /// Takes the newest submission back: the driver refused it. Its commands.
    pub(crate) fn pop(&self) -> Vec<Command<VulkanDevice>> {
        let Some(entry) = self.lists().in_flight.pop_back() else { return Vec::new() };
        self.ended(1);
        entry.recording.into_iter().for_each(|recording| self.give(recording));
        entry.commands
    }

    /// Ends every submission up to `value`: times are stored and host caches are in order when this returns, in whichever
    /// thread it did. What the submissions kept is dropped after the lock.
    pub(crate) fn retire(&self, value: u64, timestamp_mask: u64) -> Result<(), DeviceError> {
        let mut kept = Vec::new();
        let mut result = Ok(());
        let mut lists = self.lists();
        while lists.in_flight.front().is_some_and(|entry| entry.value <= value) {
            let Some(entry) = lists.in_flight.pop_front() else { break };
            for (view, offset, len) in &entry.invalidate {
                result = result.and(view.invalidate(&self.ctx, *offset, *len));
            }
            kept.push(entry.commands);
            match entry.recording {
                Some(recording) if entry.clocks.is_empty() => lists.free.push(recording),
                Some(recording) => lists.unread.push_back((recording, entry.clocks)),
                None => {}
            }
        }
        let idle = lists.in_flight.is_empty();
        while let Some((recording, clocks)) = lists.unread.pop_front() {
            if idle || !self.ctx.physical.queries_wait {
                result = result.and(self.read_clocks(&recording, &clocks, timestamp_mask));
            } else if lists.unread.len() < UNREAD_MAX {
                lists.unread.push_front((recording, clocks));
                break;
            }
            lists.free.push(recording);
        }
        drop(lists);
        self.ended(kept.len());
        drop(kept);
        result
    }

    fn ended(&self, count: usize) {
        if self.ctx.physical.is_software() {
            exit::ended(count);
        }
    }

    fn read_clocks(
        &self,
        recording: &Recording,
        clocks: &[Arc<AtomicU64>],
        mask: u64,
    ) -> Result<(), DeviceError> {
        let Some((pool, _)) = recording.queries else { return Ok(()) };
        let mut ticks = vec![0_u64; clocks.len() * 2];
        // SAFETY: vkGetQueryPoolResults: the queries were reset and written by the recording's command buffer, which is done.
        unsafe { self.ctx.device.get_query_pool_results(pool, 0, &mut ticks, vk::QueryResultFlags::TYPE_64) }
            .map_err(|e| self.ctx.failed("read kernel times", 0, e))?;
        let period = f64::from(self.ctx.physical.limits.timestamp_period);
        for (clock, ticks) in clocks.iter().zip(ticks.chunks_exact(2)) {
            let elapsed = ticks[1].wrapping_sub(ticks[0]) & mask;
            // Zero means "not done", so a kernel below the clock's resolution took one.
            clock.store(((elapsed as f64 * period) as u64).max(1), Ordering::Release);
        }
        Ok(())
    }
}

impl Recording {
    /// A pool with room for that many sets and storage buffers.
    pub(crate) fn descriptor_pool(
        &mut self,
        ctx: &Context,
        sets: u32,
        buffers: u32,
    ) -> Result<vk::DescriptorPool, DeviceError> {
        if let Some((pool, have_sets, have_buffers)) = self.descriptors {
            if have_sets >= sets && have_buffers >= buffers {
                return Ok(pool);
            }
            // SAFETY: vkDestroyDescriptorPool: its sets belong to a submission that is done (`begin`).
            unsafe { ctx.device.destroy_descriptor_pool(pool, None) };
            self.descriptors = None;
        }
        let (sets, buffers) = (sets.next_power_of_two(), buffers.max(1).next_power_of_two());
        let sizes = [vk::DescriptorPoolSize::default()
            .ty(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(buffers)];
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(sets).pool_sizes(&sizes);
        // SAFETY: vkCreateDescriptorPool: counts are above zero.
        let pool = unsafe { ctx.device.create_descriptor_pool(&info, None) }
            .map_err(|e| ctx.failed("make a descriptor pool", 0, e))?;
        self.descriptors = Some((pool, sets, buffers));
        Ok(pool)
    }

    /// A pool with room for that many timestamps.
    pub(crate) fn query_pool(&mut self, ctx: &Context, count: u32) -> Result<vk::QueryPool, DeviceError> {
        if let Some((pool, have)) = self.queries {
            if have >= count {
                return Ok(pool);
            }
            // SAFETY: vkDestroyQueryPool: the submission that used it is done (`begin`).
            unsafe { ctx.device.destroy_query_pool(pool, None) };
            self.queries = None;
        }
        let count = count.next_power_of_two();
        let info = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(count);
        // SAFETY: vkCreateQueryPool: the count is above zero.
        let pool = unsafe { ctx.device.create_query_pool(&info, None) }
            .map_err(|e| ctx.failed("make a query pool", 0, e))?;
        self.queries = Some((pool, count));
        Ok(pool)
    }
}

impl Drop for Recycler {
    fn drop(&mut self) {
        let lists = std::mem::take(&mut *self.lists());
        self.ended(lists.in_flight.len());
        let done = lists.free.into_iter().chain(lists.unread.into_iter().map(|(recording, _)| recording));
        let recordings = done.chain(lists.in_flight.into_iter().filter_map(|e| e.recording));
        for recording in recordings {
            // SAFETY: vkDestroy*Pool: `VulkanDevice` waited until the queue is idle, or the driver gave the device up.
            unsafe {
                self.ctx.device.destroy_command_pool(recording.pool, None);
                if let Some((pool, _, _)) = recording.descriptors {
                    self.ctx.device.destroy_descriptor_pool(pool, None);
                }
                if let Some((pool, _)) = recording.queries {
                    self.ctx.device.destroy_query_pool(pool, None);
                }
            }
        }
    }
}
