//! Binds, submitted: what sparse buffers lose, then what they get. vkQueueBindSparse orders nothing by itself, neither its batches nor
//! against other submissions on its queue; a timeline of its own orders the batches, and values of timelines all the rest.

use crate::context::Context;
use crate::device::VulkanDevice;
use crate::error::{driver, refused};
use crate::memory::{Arena, FRAME_BYTES, Over, Reserved, VulkanBuffer};
use crate::queues::{Queue, Submitting};
use ash::vk;
use std::sync::{Arc, PoisonError};
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Bind, Command, DeviceError, Role, Submission};

const OPERATION: &str = "bind frames";

/// A value of a timeline.
pub(crate) type Point = (vk::Semaphore, u64);

/// Binds of one buffer in one driver call.
type Share = (vk::Buffer, Vec<vk::SparseMemoryBind>);

/// Driver calls, in order: at least one, at most two.
pub(crate) type Batches = Vec<Vec<Share>>;

/// Orders the batches of binds. Used under [`Submitting`]'s lock of the one queue that binds.
pub(crate) struct Binder {
    ctx: Arc<Context>,
    step: vk::Semaphore,
}

impl Binder {
    pub(crate) fn new(ctx: &Arc<Context>) -> Result<Self, DeviceError> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: vkCreateSemaphore: timelineSemaphore is required of every device (`choice.rs`).
        let step =
            unsafe { ctx.device.create_semaphore(&info, None) }.map_err(|e| driver(OPERATION, 0, e))?;
        Ok(Self { ctx: Arc::clone(ctx), step })
    }

    /// What the driver is told of `binds`: first all that loses frames, then all that gets some.
    pub(crate) fn prepare(
        &self,
        arena: &Arena,
        binds: &[Bind<VulkanDevice>],
    ) -> Result<Batches, DeviceError> {
        let mut batches = vec![shares(arena, binds, false)?, shares(arena, binds, true)?];
        batches.retain(|batch| !batch.is_empty());
        if batches.is_empty() {
            batches.push(Vec::new());
        }
        Ok(batches)
    }

    /// After `waits`, does one batch after the other, and then reaches `signal`. Offsets are right (`note`), and nobody uses the
    /// stretches.
    pub(crate) fn submit(
        &self,
        queue: &Queue,
        state: &mut Submitting,
        batches: &Batches,
        waits: &[Point],
        signal: Option<Point>,
    ) -> Result<(), DeviceError> {
        let last = batches.len() - 1;
        let first_step = state.steps;
        state.steps += last as u64;
        for (i, batch) in batches.iter().enumerate() {
            let step = (self.step, first_step + i as u64);
            let before: &[Point] = if i == 0 { waits } else { &[step] };
            let after = if i == last { signal } else { Some((self.step, step.1 + 1)) };
            self.give(queue, batch, before, after.as_slice())?;
        }
        Ok(())
    }

    /// Does the batches one after the other, past the queue's timeline, and waits for them.
    pub(crate) fn run(&self, queue: &Queue, batches: &Batches) -> Result<(), DeviceError> {
        let mut state = queue.submitting.lock().unwrap_or_else(PoisonError::into_inner);
        let done = state.steps + batches.len() as u64;
        self.submit(queue, &mut state, batches, &[], Some((self.step, done)))?;
        state.steps = done;
        drop(state);
        if self.ctx.mock { queue.settle_mock().map(drop) } else { self.ctx.reach(OPERATION, self.step, done) }
    }

    /// One batch, in a driver call of its own.
    fn give(
        &self,
        queue: &Queue,
        batch: &[Share],
        waits: &[Point],
        signals: &[Point],
    ) -> Result<(), DeviceError> {
        let (wait_semaphores, wait_values): (Vec<_>, Vec<_>) = waits.iter().copied().unzip();
        let (signal_semaphores, signal_values): (Vec<_>, Vec<_>) = signals.iter().copied().unzip();
        let buffers: Vec<vk::SparseBufferMemoryBindInfo<'_>> = batch
            .iter()
            .map(|(buffer, binds)| vk::SparseBufferMemoryBindInfo::default().buffer(*buffer).binds(binds))
            .collect();
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let info = vk::BindSparseInfo::default()
            .wait_semaphores(&wait_semaphores)
            .signal_semaphores(&signal_semaphores)
            .buffer_binds(&buffers)
            .push_next(&mut values);
        let _door = queue.door.enter();
        // SAFETY: vkQueueBindSparse: the door of the queue is held and its family has SPARSE_BINDING (`Plan`); the binds are aligned,
        // inside their buffers (`note`) and inside memory that exists while its frames hold pages (`Device::shrink`), of a type
        // that sparse buffers take (`SparseSpace::query`); waits and signals are timelines with one value each.
        unsafe { self.ctx.device.queue_bind_sparse(queue.handle, &[info], vk::Fence::null()) }
            .map_err(|e| self.ctx.failed(OPERATION, 0, e))
    }
}

impl Drop for Binder {
    fn drop(&mut self) {
        // SAFETY: vkDestroySemaphore: `VulkanDevice` waited until the queue is idle, so no bind refers to it.
        unsafe { self.ctx.device.destroy_semaphore(self.step, None) };
    }
}

/// The binds that give frames, or those that take them; neighbours on both sides are one.
fn shares(arena: &Arena, binds: &[Bind<VulkanDevice>], give: bool) -> Result<Vec<Share>, DeviceError> {
    let mut shares: Vec<Share> = Vec::new();
    for bind in binds.iter().filter(|b| b.frames.is_some() == give) {
        for next in resolved(arena, bind)? {
            match shares.last_mut().filter(|(buffer, _)| *buffer == bind.buffer.handle) {
                Some((_, list)) => match list.last_mut().filter(|before| continues(before, &next)) {
                    Some(before) => before.size += next.size,
                    None => list.push(next),
                },
                None => shares.push((bind.buffer.handle, vec![next])),
            }
        }
    }
    Ok(shares)
}

/// One bind for the driver; as many as pieces, if the frames lie in several.
fn resolved(arena: &Arena, bind: &Bind<VulkanDevice>) -> Result<Vec<vk::SparseMemoryBind>, DeviceError> {
    let one = |offset: u64, bytes: u64| vk::SparseMemoryBind::default().resource_offset(offset).size(bytes);
    let Some(FrameIndex(first)) = bind.frames else { return Ok(vec![one(bind.offset, bind.bytes)]) };
    let count =
        u32::try_from(bind.bytes / FRAME_BYTES).ok().filter(|count| first.checked_add(*count).is_some());
    let Some(count) = count else {
        return Err(refused(OPERATION, format!("{:#x} bytes of frames from frame {first}", bind.bytes)));
    };
    let mut out = Vec::new();
    let mut done = 0;
    while done < count {
        let run = FrameRun { first: FrameIndex(first + done), count: count - done };
        let backed = arena.backed(OPERATION, run)?;
        let bytes = u64::from(backed.frames) * FRAME_BYTES;
        let offset = bind.offset + u64::from(done) * FRAME_BYTES;
        out.push(one(offset, bytes).memory(backed.memory).memory_offset(backed.offset));
        done += backed.frames;
    }
    Ok(out)
}

/// Whether `next` goes on where `before` ends, on both sides.
fn continues(before: &vk::SparseMemoryBind, next: &vk::SparseMemoryBind) -> bool {
    let beside = before.memory == next.memory && before.resource_offset + before.size == next.resource_offset;
    beside
        && (next.memory == vk::DeviceMemory::null()
            || before.memory_offset + before.size == next.memory_offset)
}

fn reserved(buffer: &VulkanBuffer) -> Result<&Reserved, String> {
    match &buffer.over {
        Over::Sparse(reserved) => Ok(reserved),
        _ => Err("the buffer is not sparse".into()),
    }
}

/// Notes `binds` in their buffers. If one is wrong, nothing is noted.
fn note(binds: &[Bind<VulkanDevice>]) -> Result<(), DeviceError> {
    let losing = binds.iter().filter(|b| b.frames.is_none());
    let order: Vec<&Bind<VulkanDevice>> = losing.chain(binds.iter().filter(|b| b.frames.is_some())).collect();
    for (done, bind) in order.iter().enumerate() {
        let change = |bind: &Bind<VulkanDevice>, bound: bool| {
            reserved(&bind.buffer).and_then(|r| r.change(bound, bind.offset, bind.bytes))
        };
        if let Err(message) = change(bind, bind.frames.is_some()) {
            for bind in order[..done].iter().rev() {
                change(bind, bind.frames.is_none()).expect("what was just noted can be taken back");
            }
            return Err(refused(OPERATION, message));
        }
    }
    Ok(())
}

/// Takes back what [`note`] noted.
pub(crate) fn forget(binds: &[Bind<VulkanDevice>]) {
    let getting = binds.iter().filter(|b| b.frames.is_some());
    for bind in getting.chain(binds.iter().filter(|b| b.frames.is_none())) {
        let noted =
            reserved(&bind.buffer).and_then(|r| r.change(bind.frames.is_none(), bind.offset, bind.bytes));
        debug_assert!(noted.is_ok(), "{noted:?}");
    }
}

impl VulkanDevice {
    /// The binds of a submission; `None` if it is one of commands. A queue that binds may have no commands at all.
    pub(crate) fn binds<'a>(
        &self,
        role: Role,
        submission: &'a Submission<Self>,
    ) -> Result<Option<&'a [Bind<Self>]>, DeviceError> {
        if role != Role::Release && !submission.foreign.is_empty() {
            return Err(refused(OPERATION, "semaphores of others are waited for by releases alone"));
        }
        let is_bind = |command: &Command<Self>| matches!(command, Command::Bind { .. });
        match &submission.commands[..] {
            [Command::Bind { .. }] if self.binder.is_none() => {
                Err(refused(OPERATION, self.profile.reasons[0].clone()))
            }
            [Command::Bind { binds }] if role == Role::Bind => Ok(Some(binds)),
            [] if role == Role::Bind && self.binder.is_some() => Ok(Some(&[])),
            commands if commands.iter().any(is_bind) || (role == Role::Bind && self.binder.is_some()) => {
                Err(refused(OPERATION, "binds are a submission of their own, of the role for binds"))
            }
            _ => Ok(None),
        }
    }

    /// Notes binds, and what the driver is to be told of them. On failure nothing is noted.
    pub(crate) fn note_binds(&self, binds: &[Bind<Self>]) -> Result<Batches, DeviceError> {
        let Some(binder) = &self.binder else { return Ok(Batches::new()) };
        let batches = binder.prepare(&self.arena, binds)?;
        note(binds)?;
        Ok(batches)
    }

    /// Gives noted binds to the driver.
    pub(crate) fn give_binds(
        &self,
        queue: &Queue,
        state: &mut Submitting,
        batches: &Batches,
        waits: &Uses,
        ticket: Ticket,
    ) -> Result<(), DeviceError> {
        let Some(binder) = &self.binder else { return Ok(()) };
        let waits: Vec<Point> =
            waits.iter().map(|t| (self.timeline_semaphore(t.timeline), t.value)).collect();
        let signal = Some((queue.semaphore, ticket.value));
        binder.submit(queue, state, batches, &waits, signal)
    }
}
