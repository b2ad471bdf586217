//! Roles to queues: a transfer-only family for copies where there is one, two queues of it for both directions at once; else a
//! second compute family; else other queues of the compute family; else one queue for all. Copies and kernels that share a queue
//! share its lock and its timeline, so the same code is right on one queue and on four.
//!
//! Binds, grants and releases have a timeline each, whatever they share a queue with: binds are ordered against submissions by
//! semaphores alone (Vulkan specification, "Sparse Resource Memory Binding"), grants' values are promised before they are submitted,
//! and releases end when an application's work does. Spare queues go to binds, then to releases, then to grants.

use crate::context::Context;
use crate::door::Door;
use crate::error::driver;
use crate::parts::OwnQueue;
use crate::recycle::Recycler;
use ash::vk;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vkhmm_core::units::Timeline;
use vkhmm_core::uses::Uses;
use vkhmm_port::{DeviceError, Role};

/// Which queues to create and which role uses which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// (family, index in the family); the place in the list is the timeline.
    pub(crate) queues: Vec<(u32, u32)>,
    /// For each of [`Role::ALL`] its place in `queues`.
    pub(crate) roles: [usize; 6],
    /// The reason, in words.
    pub(crate) words: String,
}

/// Work of the video engines; their families can copy, but are the last choice.
const VIDEO: vk::QueueFlags = vk::QueueFlags::from_raw(0x20 | 0x40 | 0x100);

/// Work for which a queue has commands.
const ENGINES: vk::QueueFlags = vk::QueueFlags::from_raw(
    vk::QueueFlags::GRAPHICS.as_raw() | vk::QueueFlags::COMPUTE.as_raw() | vk::QueueFlags::TRANSFER.as_raw(),
);

impl Plan {
    /// Chooses for a device with these families, one of which can compute. `shared`: one queue whatever there is. `sparse`: there
    /// will be binds, if a family takes them.
    pub(crate) fn new(families: &[vk::QueueFamilyProperties], shared: bool, sparse: bool) -> Self {
        let find = |want: &dyn Fn(u32, vk::QueueFlags) -> bool| {
            (0_u32..)
                .zip(families)
                .find(|(i, f)| f.queue_count > 0 && want(*i, f.queue_flags))
                .map(|(i, _)| i)
        };
        let compute_flag = vk::QueueFlags::COMPUTE;
        let engines = compute_flag | vk::QueueFlags::GRAPHICS;
        // The universal family first: drivers give it the most and the fastest hardware.
        let compute = find(&|_, f| f.contains(engines))
            .or_else(|| find(&|_, f| f.contains(compute_flag)))
            .expect("choice.rs takes only devices with a compute queue");
        let transfer = |video: bool| {
            find(&|_, f| {
                f.contains(vk::QueueFlags::TRANSFER) && !f.intersects(engines) && f.intersects(VIDEO) == video
            })
        };
        let (copies, kind) = if shared {
            (None, "one shared queue (forced)")
        } else if let Some(family) = transfer(false) {
            (Some(family), "copies on the transfer-only family")
        } else if let Some(family) = find(&|i, f| i != compute && f.contains(compute_flag)) {
            (Some(family), "copies on the second compute family")
        } else if families[compute as usize].queue_count > 1 {
            (Some(compute), "copies on other queues of the compute family")
        } else if let Some(family) = transfer(true) {
            (Some(family), "copies on a video family")
        } else {
            (None, "one shared queue (the device has no other)")
        };
        let mut queues = vec![(compute, 0)];
        let mut roles = [0_usize; 6];
        if let Some(family) = copies {
            let first = u32::from(family == compute);
            let spare = families[family as usize].queue_count - first;
            queues.push((family, first));
            roles[Role::CopyIn as usize] = 1;
            roles[Role::CopyOut as usize] = 1;
            if spare > 1 {
                queues.push((family, first + 1));
                roles[Role::CopyOut as usize] = 2;
            }
        }
        let duplex = if roles[Role::CopyIn as usize] == roles[Role::CopyOut as usize] {
            ""
        } else {
            ", one queue each way"
        };
        let place = |role: Role| {
            let (family, index) = queues[roles[role as usize]];
            format!("family {family} queue {index}")
        };
        let words = format!(
            "{kind}{duplex}: compute {}, copy in {}, copy out {}",
            place(Role::Compute),
            place(Role::CopyIn),
            place(Role::CopyOut)
        );
        let mut plan = Self { queues, roles, words };
        plan.add_own_timelines(families, shared, sparse);
        plan
    }

    /// Binds, grants and releases.
    fn add_own_timelines(&mut self, families: &[vk::QueueFamilyProperties], shared: bool, sparse: bool) {
        let compute = self.queues[self.roles[Role::Compute as usize]];
        let flags = |family: u32| families[family as usize].queue_flags;
        let binds = |family: u32| flags(family).contains(vk::QueueFlags::SPARSE_BINDING);
        if sparse {
            let only = (0..families.len() as u32).find(|f| {
                !shared
                    && binds(*f)
                    && !flags(*f).intersects(ENGINES | VIDEO)
                    && families[*f as usize].queue_count > 0
            });
            let place = only
                .map(|family| (family, 0))
                .or_else(|| self.spare(families, shared, &binds))
                .or_else(|| Some(compute).filter(|(family, _)| binds(*family)))
                .or_else(|| self.queues.iter().copied().find(|(family, _)| binds(*family)));
            match place {
                Some(place) => self.own(Role::Bind, place),
                None => self.words += ", no binds",
            }
        }
        // They end with a barrier like every submission, which queues of these kinds take.
        let any = |family: u32| flags(family).intersects(ENGINES) && !flags(family).intersects(VIDEO);
        for role in [Role::Release, Role::Grant] {
            let place = self.spare(families, shared, &any).unwrap_or(compute);
            self.own(role, place);
        }
    }

    /// A queue that no role has, of a family that will do; of one in use rather than of another, so that few families share.
    fn spare(
        &self,
        families: &[vk::QueueFamilyProperties],
        shared: bool,
        will_do: &dyn Fn(u32) -> bool,
    ) -> Option<(u32, u32)> {
        let used = self.families();
        let others = (0..families.len() as u32).filter(|f| used.iter().all(|(u, _)| u != f)).map(|f| (f, 0));
        let first = used.iter().copied().chain(others);
        let free =
            first.filter(|(family, next)| *next < families[*family as usize].queue_count && will_do(*family));
        free.take(usize::from(!shared)).next()
    }

    /// Gives `role` a timeline of its own on the queue `place`.
    fn own(&mut self, role: Role, place: (u32, u32)) {
        self.roles[role as usize] = self.queues.len();
        self.queues.push(place);
        let name = match role {
            Role::Bind => "binds",
            Role::Grant => "grants",
            _ => "releases",
        };
        self.words += &format!(", {name} family {} queue {}", place.0, place.1);
    }

    /// Whether there is a queue for binds.
    pub(crate) fn binds(&self) -> bool {
        self.roles[Role::Bind as usize] != self.roles[Role::Compute as usize]
    }

    /// Gives each direction of copies and the kernels a timeline of their own, too, whether or not they share a queue.
    pub(crate) fn split(self) -> Self {
        let mut queues = Vec::new();
        let mut roles = [0_usize; 6];
        for role in [Role::Compute, Role::CopyIn, Role::CopyOut, Role::Bind, Role::Release, Role::Grant] {
            if role != Role::Bind || self.binds() {
                roles[role as usize] = queues.len();
                queues.push(self.queues[self.roles[role as usize]]);
            }
        }
        Self { queues, roles, words: format!("{}; a timeline for each (forced)", self.words) }
    }

    /// (family, how many queues of it), each family once.
    pub(crate) fn families(&self) -> Vec<(u32, u32)> {
        let mut out: Vec<(u32, u32)> = Vec::new();
        for (family, index) in &self.queues {
            match out.iter_mut().find(|(f, _)| f == family) {
                Some((_, count)) => *count = (*count).max(index + 1),
                None => out.push((*family, index + 1)),
            }
        }
        out
    }
}

/// How many queues of each family there are in `own`, as a device's families.
pub(crate) fn families_of(
    families: &[vk::QueueFamilyProperties],
    own: &[OwnQueue],
) -> Vec<vk::QueueFamilyProperties> {
    let count = |family: u32| own.iter().filter(|queue| queue.family == family).count() as u32;
    (0..)
        .zip(families)
        .map(|(i, properties)| vk::QueueFamilyProperties { queue_count: count(i), ..*properties })
        .collect()
}

/// The place in `own` of the queue that a plan for it calls (family, index).
pub(crate) fn find(own: &[OwnQueue], (family, index): (u32, u32)) -> Option<usize> {
    let mut of_family = own.iter().enumerate().filter(|(_, queue)| queue.family == family);
    of_family.nth(index as usize).map(|(at, _)| at)
}

/// One VkQueue with its timeline.
///
/// Lock contract: `submitting` owns the order of tickets and what has been waited for; held while one submission is recorded and
/// submitted; may block on the driver; takes `Recycler`'s lock and `door` inside, and no other. `door` (see there) owns the VkQueue,
/// which split timelines share.
pub(crate) struct Queue {
    pub(crate) handle: vk::Queue,
    pub(crate) door: Arc<Door>,
    pub(crate) timeline: Timeline,
    pub(crate) semaphore: vk::Semaphore,
    pub(crate) capabilities: vk::QueueFlags,
    /// Which bits of a timestamp count; none where the queue has no clock.
    pub(crate) timestamp_mask: u64,
    pub(crate) submitting: Mutex<Submitting>,
    pub(crate) recycler: Recycler,
    /// The last ticket given to the driver; changed under `submitting`.
    pub(crate) signalled: AtomicU64,
    /// The largest value that `completed` or `wait` told anyone.
    pub(crate) reported: AtomicU64,
    ctx: Arc<Context>,
}

/// What a queue has waited for, and is in the middle of.
#[derive(Default)]
pub(crate) struct Submitting {
    /// The last value of every other timeline that this queue waited for: what happened before is visible to it.
    pub(crate) waited: Uses,
    /// The last value of [`crate::bind::Binder`]'s own semaphore.
    pub(crate) steps: u64,
}

impl Queue {
    /// Takes every queue of the plan, which was made for what `own` has.
    pub(crate) fn all(ctx: &Arc<Context>, plan: &Plan, own: &[OwnQueue]) -> Result<Vec<Self>, DeviceError> {
        let doors: Vec<_> = own.iter().map(|queue| Arc::new(Door::new(queue.lock.clone()))).collect();
        let make = |(place, queue): (usize, &(u32, u32))| {
            let at = find(own, *queue).expect("the plan was made for these queues");
            Self::new(ctx, place, &own[at], Arc::clone(&doors[at]))
        };
        plan.queues.iter().enumerate().map(make).collect()
    }

    /// Takes one as timeline `place`.
    fn new(ctx: &Arc<Context>, place: usize, own: &OwnQueue, door: Arc<Door>) -> Result<Self, DeviceError> {
        let (family, handle) = (own.family, own.handle);
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: vkCreateSemaphore: timelineSemaphore is required of every device (`features.rs`).
        let semaphore = unsafe { ctx.device.create_semaphore(&info, None) }
            .map_err(|e| driver("create a timeline", 0, e))?;
        let properties = &ctx.physical.families[family as usize];
        let bits = properties.timestamp_valid_bits;
        Ok(Self {
            handle,
            door,
            timeline: Timeline(place as u8),
            semaphore,
            capabilities: properties.queue_flags,
            timestamp_mask: if bits >= 64 { u64::MAX } else { (1_u64 << bits) - 1 },
            submitting: Mutex::default(),
            recycler: Recycler::new(Arc::clone(ctx), family),
            signalled: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            ctx: Arc::clone(ctx),
        })
    }

    /// On the mock device: the queue is idle, and so everything given to it is done.
    pub(crate) fn settle_mock(&self) -> Result<u64, DeviceError> {
        let _door = self.door.enter();
        // SAFETY: vkQueueWaitIdle: the door of the queue is held.
        unsafe { self.ctx.device.queue_wait_idle(self.handle) }
            .map_err(|e| self.ctx.failed("wait for a queue", 0, e))?;
        Ok(self.signalled.load(Ordering::Acquire))
    }

    /// The counter's present value.
    pub(crate) fn counter(&self) -> Result<u64, DeviceError> {
        if self.ctx.mock {
            return Ok(self.reported.load(Ordering::Acquire));
        }
        // SAFETY: vkGetSemaphoreCounterValue: the semaphore is a timeline of this device and lives as long as `self`.
        let value = unsafe { self.ctx.device.get_semaphore_counter_value(self.semaphore) }
            .map_err(|e| self.ctx.failed("read a timeline", 0, e))?;
        if value > self.signalled.load(Ordering::Acquire) {
            // Nobody signals but us. Drivers jump to the end of the timeline when they lose the device.
            return Err(self.ctx.failed("read a timeline", 0, vk::Result::ERROR_DEVICE_LOST));
        }
        Ok(value)
    }
}

impl Queue {
    /// Submits a command buffer of its own and waits for it, past the timeline.
    pub(crate) fn run(&self, operation: &'static str, cmd: vk::CommandBuffer) -> Result<(), DeviceError> {
        let device = &self.ctx.device;
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(cmd)];
        let submit = [vk::SubmitInfo2::default().command_buffer_infos(&commands)];
        // SAFETY: vkCreateFence has no conditions here.
        let fence = unsafe { device.create_fence(&vk::FenceCreateInfo::default(), None) }
            .map_err(|e| self.ctx.failed(operation, 0, e))?;
        let door = self.door.enter();
        // SAFETY: vkQueueSubmit2: the door of the queue is held, the command buffer is executable and the caller's alone, the fence new.
        let submitted = unsafe { (self.ctx.sync2.submit)(self.handle, 1, submit.as_ptr(), fence) }.result();
        drop(door);
        // SAFETY: vkWaitForFences, vkDestroyFence: the fence is of this device; a wait that fails means loss of the device, so nothing
        // uses the fence after it in any case.
        let waited = unsafe {
            let waited = submitted.and_then(|()| device.wait_for_fences(&[fence], true, u64::MAX));
            device.destroy_fence(fence, None);
            waited
        };
        waited.map_err(|e| self.ctx.failed(operation, 0, e))
    }

    /// Waits until everything that was submitted is done, or the driver gives the device up.
    pub(crate) fn drain(&self) {
        if self.ctx.mock {
            // Fails only if the device is lost: then nothing runs.
            let _ = self.settle_mock();
            return;
        }
        // A failure is loss: likewise.
        let _ = self.ctx.reach("wait for a queue", self.semaphore, self.signalled.load(Ordering::Acquire));
        if !self.door.is_shared() && !self.ctx.is_gone() {
            // A software driver's own thread may still be on its way out of the signal that was seen, in what is destroyed next.
            let _door = self.door.enter();
            // SAFETY: vkQueueWaitIdle: the door of the queue is held, and nobody else uses it.
            let _ = unsafe { self.ctx.device.queue_wait_idle(self.handle) };
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: vkDestroySemaphore: `VulkanDevice` waited until the queue is idle, so no submission refers to it.
        unsafe { self.ctx.device.destroy_semaphore(self.semaphore, None) };
    }
}

#[cfg(test)]
mod tests;
