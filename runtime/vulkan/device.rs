//! The device: `vkhmm_port::Device` over the parts of this crate.

use crate::bind::{self, Batches, Binder, Point};
use crate::context::Context;
use crate::control::{self, Control};
use crate::copy::Copier;
use crate::dispatch::Dispatcher;
use crate::error::{KernelError, refused};
use crate::exit;
use crate::import::VulkanImport;
use crate::inject::{Can, Injector};
use crate::kernel::{KernelOptions, VulkanKernel};
use crate::latch::DeviceLatch;
use crate::memory::{Arena, FRAME_BYTES, Scratch, SparseSpace, VulkanBuffer};
use crate::queues::{Queue, Submitting};
use crate::recycle::{InFlight, Recording};
use crate::report::DeviceReport;
use crate::shadow::Shadow;
use crate::staging::Staging;
use crate::validation::ValidationLog;
use crate::visibility::{self, HostView};
use crate::wait::Submitted;
use ash::vk;
use core::fmt;
use core::time::Duration;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket, Timeline};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, DeviceError, DeviceProfile, Direction, RawBytes, Role, Submission};

/// One Vulkan device with its queues, arena and staging rings. Dropping it waits for its queues; buffers, kernels and imports
/// may outlive it, the Vulkan device goes with the last of them.
///
/// Lock contract: `shadow` owns what is known of frames under the frame guard; held for one look-up and change; innermost.
pub struct VulkanDevice {
    pub(crate) profile: DeviceProfile,
    pub(crate) report: DeviceReport,
    pub(crate) injector: Injector,
    /// Only under the frame guard.
    pub(crate) shadow: Option<Mutex<Shadow>>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) roles: [usize; 6],
    /// All timelines share one VkQueue.
    pub(crate) one_queue: bool,
    pub(crate) submitted: Submitted,
    /// Submissions so far, in the order in which they began to be made.
    pub(crate) orders: AtomicU64,
    pub(crate) arena: Arena,
    /// Only where there are sparse buffers, as is what orders their binds.
    pub(crate) sparse: Option<SparseSpace>,
    pub(crate) binder: Option<Binder>,
    pub(crate) staging: Staging,
    pub(crate) scratch: Option<Scratch>,
    pub(crate) cache: KernelCache,
    pub(crate) log: ValidationLog,
    pub(crate) ctx: Arc<Context>,
    /// Opened by drop and closed after every other field is gone: all that is driver work.
    pub(crate) section: Option<exit::Section>,
}

/// What is left to do once a submission is done: where its times go, and what the host may read then.
type Aftermath = (Vec<Arc<AtomicU64>>, Vec<(HostView, u64, u64)>);

/// What a submission gives to the driver.
enum Work {
    Commands(vk::CommandBuffer),
    Binds(Batches),
}

/// The pipeline cache for the kernels of one device.
pub(crate) struct KernelCache {
    ctx: Arc<Context>,
    pub(crate) handle: vk::PipelineCache,
}

impl KernelCache {
    pub(crate) fn new(ctx: &Arc<Context>) -> Result<Self, DeviceError> {
        // SAFETY: vkCreatePipelineCache without initial data has no conditions.
        let made = unsafe { ctx.device.create_pipeline_cache(&vk::PipelineCacheCreateInfo::default(), None) };
        let handle = made.map_err(|e| ctx.failed("make a pipeline cache", 0, e))?;
        Ok(Self { ctx: Arc::clone(ctx), handle })
    }
}

impl Drop for KernelCache {
    fn drop(&mut self) {
        // SAFETY: vkDestroyPipelineCache: who compiles borrows the device that owns this, so nobody does now.
        unsafe { self.ctx.device.destroy_pipeline_cache(self.handle, None) };
    }
}

impl VulkanDevice {
    /// Whether its kernels run on the CPU, in this process.
    pub fn is_software(&self) -> bool {
        self.ctx.physical.is_software()
    }

    /// What was found and chosen, in words.
    pub fn report(&self) -> &DeviceReport {
        &self.report
    }

    /// What the validation layer said so far; empty where validation is off.
    pub fn validation_messages(&self) -> Vec<String> {
        self.log.messages()
    }

    /// The layer's messages, for longer than the device lives.
    pub fn validation_log(&self) -> ValidationLog {
        self.log.clone()
    }

    /// What opens once nothing uses the Vulkan device any more: this value is dropped, and every kernel, buffer and import made
    /// from it.
    pub fn latch(&self) -> DeviceLatch {
        self.ctx.latch.0.clone()
    }

    /// The logical device, for whoever makes objects of its own beside ours: a timeline that a release waits for. It lives as long
    /// as `self`, and so must not they.
    pub fn logical(&self) -> &ash::Device {
        &self.ctx.device
    }

    /// The semaphore of a timeline: whoever waits for one of its values, already submitted or promised, waits for the ticket. It
    /// lives as long as `self`; only `self` signals it.
    ///
    /// # Panics
    /// If there is no such timeline.
    pub fn timeline_semaphore(&self, timeline: Timeline) -> vk::Semaphore {
        self.queues[usize::from(timeline.0)].semaphore
    }

    /// How many calls of the port that can fail were made (`grow`, `buffer`, `reserve`, `in_place`, `import`, `control`, `submit`, `completed`,
    /// `wait`, `read_frames`, `write_frames`): what [`crate::Switches::lose_at_call`] counts.
    pub fn calls(&self) -> u64 {
        self.injector.calls()
    }

    /// Makes a kernel from a SPIR-V module (words in host byte order). What it needs is compared with the device here, so a
    /// launch can only fail for its arguments.
    ///
    /// The module must be valid SPIR-V for Vulkan: the driver is entitled to anything on one that is not. That, and what the
    /// kernel does when it runs, is the promise of whoever calls the `unsafe` function in front of this one.
    ///
    /// # Errors
    /// [`KernelError`] names what is missing, what is needed and what the device has.
    pub fn kernel(&self, words: &[u32], options: KernelOptions) -> Result<Arc<VulkanKernel>, KernelError> {
        let _section = exit::section();
        if self.ctx.is_lost() {
            return Err(DeviceError::Lost { operation: "make a kernel" }.into());
        }
        VulkanKernel::new(&self.ctx, self.cache.handle, words, options).map(Arc::new)
    }

    fn queue(&self, role: Role) -> &Queue {
        &self.queues[self.roles[role as usize]]
    }

    /// Reads every counter and ends what is done.
    pub(crate) fn poll(&self) -> Result<Uses, DeviceError> {
        let mut reached = Uses::NONE;
        for queue in &self.queues {
            let value = if self.ctx.mock { queue.settle_mock()? } else { queue.counter()? };
            queue.recycler.retire(value, queue.timestamp_mask)?;
            queue.reported.fetch_max(value, Ordering::AcqRel);
            reached.add(Ticket { timeline: queue.timeline, value });
        }
        if self.ctx.is_lost() {
            return Err(DeviceError::Lost { operation: "read a timeline" });
        }
        Ok(reached)
    }

    /// The semaphores to wait for: the named values of other queues, and whatever was reported as done there: the caller may
    /// build on it, and only a wait (of a value long reached) makes its writes visible here.
    fn waits(&self, own: &Queue, state: &Submitting, named: &Uses) -> Uses {
        let mut all = Uses::NONE;
        for other in self.queues.iter().filter(|q| q.timeline != own.timeline) {
            let value = named.on(other.timeline).max(other.reported.load(Ordering::Acquire));
            if value > state.waited.on(other.timeline) {
                all.add(Ticket { timeline: other.timeline, value });
            }
        }
        all
    }

    /// Records `commands`; what is to be timed and invalidated comes back.
    fn record(
        &self,
        queue: &Queue,
        recording: &mut Recording,
        commands: &[Command<Self>],
    ) -> Result<Aftermath, DeviceError> {
        let (ctx, cmd) = (&*self.ctx, recording.cmd);
        let timed = queue.timestamp_mask != 0;
        let empty = self.scratch.as_ref().map_or(vk::Buffer::null(), |s| s.buffer);
        let mut dispatcher = Dispatcher::new(ctx, recording, commands, empty, timed)?;
        if dispatcher.is_some() && !queue.capabilities.contains(vk::QueueFlags::COMPUTE) {
            return Err(refused("submit", "a kernel on a queue that only copies"));
        }
        let (arena, staging) = (&self.arena, &self.staging);
        let copier = Copier { ctx, arena, staging, cmd, regions_max: self.profile.regions_max as usize };
        let mut invalidate = Vec::new();
        for command in commands {
            match command {
                Command::CopyIn { source, regions } => copier.copy_in(source, regions)?,
                Command::CopyOut { target, regions } => copier.copy_out(target, regions, &mut invalidate)?,
                Command::Move { regions } => copier.copy_within(regions)?,
                Command::Fill { device_offset, bytes, word } => copier.fill(*device_offset, *bytes, *word)?,
                // `binds` has seen to it: no submission that holds one gets here.
                Command::Bind { .. } => return Err(refused("submit", "a bind among commands")),
                Command::Barrier => visibility::barrier(ctx, cmd),
                Command::Dispatch { kernel, bindings, push, groups, elapsed_ns } => {
                    if let Some(dispatcher) = &mut dispatcher {
                        dispatcher.dispatch(kernel, bindings, push, *groups, elapsed_ns)?;
                    }
                }
            }
        }
        visibility::end_of_submission(ctx, cmd);
        // SAFETY: vkEndCommandBuffer: begun by `Recycler::take`, recorded by this thread alone.
        unsafe { ctx.device.end_command_buffer(cmd) }.map_err(|e| ctx.failed("record commands", 0, e))?;
        Ok((dispatcher.map(|d| d.clocks).unwrap_or_default(), invalidate))
    }

    /// Gives a recorded command buffer to the driver.
    fn give(
        &self,
        queue: &Queue,
        cmd: vk::CommandBuffer,
        waits: &Uses,
        foreign: &[Point],
        value: u64,
    ) -> Result<(), DeviceError> {
        let semaphore = |semaphore: vk::Semaphore, value: u64| {
            vk::SemaphoreSubmitInfo::default()
                .semaphore(semaphore)
                .value(value)
                .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        };
        let waits: Vec<vk::SemaphoreSubmitInfo<'_>> = waits
            .iter()
            .map(|ticket| semaphore(self.timeline_semaphore(ticket.timeline), ticket.value))
            .chain(foreign.iter().map(|(theirs, value)| semaphore(*theirs, *value)))
            .collect();
        let signals = [semaphore(queue.semaphore, value)];
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(cmd)];
        let info = [vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&commands)
            .signal_semaphore_infos(&signals)];
        let _door = queue.door.enter();
        // SAFETY: vkQueueSubmit2: the door of the queue is held; the command buffer is executable and not pending; the value
        // is above every value signalled or pending (`submit` checks); waits name timelines of this device, or such of the
        // application's as it promised (`Submission::foreign`).
        unsafe { (self.ctx.sync2.submit)(queue.handle, 1, info.as_ptr(), vk::Fence::null()) }
            .result()
            .map_err(|e| self.ctx.failed("submit", 0, e))
    }
}

impl fmt::Debug for VulkanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VulkanDevice").field("name", &self.profile.name).finish_non_exhaustive()
    }
}

impl Device for VulkanDevice {
    type Kernel = VulkanKernel;
    type Buffer = VulkanBuffer;
    type Import = VulkanImport;
    type Semaphore = vk::Semaphore;
    type Control = Control;

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError> {
        let _section = exit::section();
        let bytes = u64::from(count) * FRAME_BYTES;
        self.injector.enter(&self.ctx, "grow the arena", Can::Fail(bytes))?;
        let address = self.arena.grow(first, count, self.profile.piece_bytes_max)?;
        self.compare(|shadow| shadow.grown(FrameRun { first, count }));
        Ok(address)
    }

    fn shrink(&self, first: FrameIndex) {
        let _section = exit::section();
        let run = self.arena.shrink(first);
        self.compare(|shadow| shadow.shrunk(run));
    }

    fn watches_frames(&self) -> bool {
        self.shadow.is_some()
    }

    fn frames_claimed(&self, run: FrameRun) {
        self.compare(|shadow| shadow.claimed(run).map(|()| self.arena.guard(run, true)));
    }

    fn frames_released(&self, run: FrameRun) {
        let _section = exit::section();
        self.compare(|shadow| shadow.released(run, &self.reached()).map(|()| self.arena.guard(run, false)));
    }

    fn buffer(&self, run: FrameRun) -> Result<VulkanBuffer, DeviceError> {
        let _section = exit::section();
        let bytes = u64::from(run.count) * FRAME_BYTES;
        self.injector.enter(&self.ctx, "make a span's buffer", Can::Fail(bytes))?;
        self.arena.buffer(run)
    }

    fn reserve(&self, bytes: u64) -> Result<VulkanBuffer, DeviceError> {
        const OPERATION: &str = "reserve a sparse buffer";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::Fail(bytes))?;
        match &self.sparse {
            Some(sparse) => sparse.reserve(&self.ctx, bytes),
            None => Err(refused(OPERATION, self.profile.reasons[0].clone())),
        }
    }

    fn in_place(&self, import: &Arc<VulkanImport>) -> Result<VulkanBuffer, DeviceError> {
        const OPERATION: &str = "work in place";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::Fail(import.bytes))?;
        VulkanBuffer::in_place(&self.ctx, import)
            .ok_or_else(|| refused(OPERATION, self.profile.reasons[1].clone()))
    }

    fn address(&self, buffer: &VulkanBuffer) -> u64 {
        buffer.address
    }

    fn import(&self, bytes: RawBytes) -> Result<VulkanImport, DeviceError> {
        const OPERATION: &str = "import host memory";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::Fail(bytes.len() as u64))?;
        if self.profile.import.is_none() {
            return Err(refused(OPERATION, self.report.import.clone()));
        }
        VulkanImport::new(&self.ctx, bytes, self.profile.in_place_bytes_max.is_some())
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        const OPERATION: &str = "submit";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::Fail(0))?;
        let queue = self.queue(role);
        // Before the lock: what a finished submission kept is destroyed here, and that takes time.
        queue.recycler.retire(queue.counter()?, queue.timestamp_mask)?;
        let mut state = queue.submitting.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = submission.signals;
        let last = queue.signalled.load(Ordering::Acquire);
        if ticket.timeline != queue.timeline || ticket.value <= last {
            let message = format!("{ticket:?} after value {last} of {:?}", queue.timeline);
            return Err(refused(OPERATION, message));
        }
        let waits = self.waits(queue, &state, &submission.waits);
        let (work, recording, clocks, invalidate) = match self.binds(role, &submission)? {
            Some(binds) => (Work::Binds(self.note_binds(binds)?), None, Vec::new(), Vec::new()),
            None => {
                let mut recording = queue.recycler.take()?;
                match self.record(queue, &mut recording, &submission.commands) {
                    Ok((clocks, views)) => (Work::Commands(recording.cmd), Some(recording), clocks, views),
                    Err(e) => {
                        queue.recycler.give(recording);
                        return Err(e);
                    }
                }
            }
        };
        self.compare(|shadow| {
            let mut known = state.waited;
            known.merge(&waits);
            shadow.submitted(ticket, &known, &self.accesses(&submission.commands))
        });
        let commands = submission.commands;
        let (value, order) = (ticket.value, self.next_order());
        queue.recycler.push(InFlight { value, order, recording, commands, clocks, invalidate });
        // Before the driver has it: the counter may be read as soon as it moves.
        queue.signalled.store(ticket.value, Ordering::Release);
        let given = match work {
            Work::Commands(cmd) => self.give(queue, cmd, &waits, &submission.foreign, ticket.value),
            Work::Binds(batches) => self.give_binds(queue, &mut state, &batches, &waits, ticket),
        };
        if let Err(e) = given {
            queue.signalled.store(last, Ordering::Release);
            if let [Command::Bind { binds }] = &queue.recycler.pop()[..] {
                bind::forget(binds);
            }
            return Err(e);
        }
        state.waited.merge(&waits);
        drop(state);
        self.submitted.add();
        Ok(())
    }

    fn completed(&self) -> Result<Uses, DeviceError> {
        let _section = exit::section();
        self.injector.enter(&self.ctx, "read the timelines", Can::BeLost)?;
        self.poll()
    }

    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        self.wait_for_more(seen, timeout)
    }

    fn reach(&self, uses: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        self.wait_for_all(uses, timeout)
    }

    fn control(&self, bytes: u64, direction: Direction) -> Result<Control, DeviceError> {
        let _section = exit::section();
        self.injector.enter(&self.ctx, control::OPERATION, Can::Fail(bytes))?;
        Control::new(self.arena.memory(), bytes, direction)
    }

    fn control_at(&self, control: &Control) -> (RawBytes, u64) {
        (control.bytes(), control.address())
    }

    fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        self.staging.slot(direction, slot)
    }

    fn read_frames(&self, device_offset: u64, to: RawBytes) -> Result<(), DeviceError> {
        const OPERATION: &str = "read device memory";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::BeLost)?;
        let allowed = self.profile.memory.cpu_reads;
        let (view, offset) = self.arena.view(OPERATION, device_offset, to.len(), allowed)?;
        self.compare(|shadow| shadow.by_cpu(device_offset, to.len() as u64, false, &self.reached()));
        view.invalidate(&self.ctx, offset, to.len() as u64)?;
        to.copy_from(view.bytes().slice(offset as usize, to.len()));
        Ok(())
    }

    fn frames_at(&self, first: FrameIndex) -> Option<RawBytes> {
        self.profile.memory.cpu_reads.then(|| self.arena.bytes_at(first))?
    }

    fn write_frames(&self, device_offset: u64, from: RawBytes) -> Result<(), DeviceError> {
        const OPERATION: &str = "write device memory";
        let _section = exit::section();
        self.injector.enter(&self.ctx, OPERATION, Can::BeLost)?;
        let allowed = self.profile.memory.cpu_writes;
        let (view, offset) = self.arena.view(OPERATION, device_offset, from.len(), allowed)?;
        self.compare(|shadow| shadow.by_cpu(device_offset, from.len() as u64, true, &self.reached()));
        view.bytes().slice(offset as usize, from.len()).copy_from(from);
        view.flush(&self.ctx, offset, from.len() as u64)
    }

    fn budget_bytes(&self) -> Option<u64> {
        self.arena.budget()
    }
}

impl Drop for VulkanDevice {
    fn drop(&mut self) {
        self.section = Some(exit::section());
        // An injected loss is no reason not to wait: the queues still run. A real one is: nothing does.
        // Each queue by its timeline: vkDeviceWaitIdle would need every queue of the device, and some may be an application's.
        self.queues.iter().for_each(Queue::drain);
    }
}
