//! The threads: one for each role, in the order of its submissions.

use crate::copy::Gate;
use crate::device::Throttled;
use crate::kernel::Cost;
use crate::link::Link;
use crate::queues::Queues;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;
use vkhmm_port::{
    Bind, BoundRange, Command, Device, DeviceError, Direction, RawBytes, Role, Source, Submission, Target,
};
use vkhmm_vulkan::{VulkanDevice, vk};

/// How long one wait inside the driver lasts at most: the end and a loss are seen no later.
const SLICE: Duration = Duration::from_millis(20);

/// What callers and threads share.
///
/// Lock contract: `next` owns the inner device's ticket values; held across one submission to it; takes the inner device's locks
/// inside, and no other of ours. [`Queues`] and [`Gate`] have their own.
pub(crate) struct Shared {
    pub(crate) inner: VulkanDevice,
    pub(crate) link: Link,
    pub(crate) queues: Queues,
    pub(crate) gate: Gate,
    next: Mutex<Uses>,
}

/// A submission under way: what the inner device is yet to be given, and the modelled time so far.
struct Progress<'a> {
    shared: &'a Shared,
    role: Role,
    pending: Vec<Command<VulkanDevice>>,
    now: Instant,
}

impl Shared {
    pub(crate) fn new(inner: VulkanDevice, link: Link) -> Self {
        Self { inner, link, queues: Queues::new(), gate: Gate::default(), next: Mutex::default() }
    }

    /// Nothing runs or is copied from now on, and every call finds the device lost.
    pub(crate) fn lose(&self) {
        self.queues.end(true);
        self.gate.shut();
    }

    /// The life of the thread of `role`.
    ///
    /// Thread contract: owns the submission it performs · may block on tickets, modelled time and the inner device · ends at a loss
    /// or when the device is dropped, which joins it before the inner device goes · must never take a fault: it copies by the alias.
    pub(crate) fn work(&self, role: Role) {
        while let Some((submission, ready)) = self.queues.next(role) {
            let ticket = submission.signals;
            match self.perform(role, submission, ready) {
                Ok(due) => self.queues.reach(ticket, due),
                Err(DeviceError::Lost { .. }) if self.queues.is_over() => return,
                Err(error) => {
                    eprintln!("throttled device: {role:?}: {error}");
                    return self.lose();
                }
            }
        }
    }

    /// Does what `submission` says, drops what it names, and says when it is over by the model.
    fn perform(
        &self,
        role: Role,
        submission: Submission<Throttled>,
        ready: Instant,
    ) -> Result<Instant, DeviceError> {
        if !submission.foreign.is_empty() {
            self.forward(Role::Release, submission.foreign, Vec::new())?;
        }
        let latency = if submission.commands.is_empty() { Duration::ZERO } else { self.link.latency };
        let mut progress = Progress { shared: self, role, pending: Vec::new(), now: ready + latency };
        submission.commands.iter().try_for_each(|command| progress.command(command))?;
        progress.flush()?;
        Ok(progress.now)
    }

    /// Has the inner device wait for an application's values and do `commands`, and waits until they are done.
    fn forward(
        &self,
        role: Role,
        foreign: Vec<(vk::Semaphore, u64)>,
        commands: Vec<Command<VulkanDevice>>,
    ) -> Result<(), DeviceError> {
        let timeline = self.inner.profile().timeline(role);
        let signals = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let signals = Ticket { timeline, value: next.on(timeline) + 1 };
            let submission = Submission { waits: Uses::NONE, foreign, commands, signals };
            self.inner.submit(role, submission)?;
            next.add(signals);
            signals
        };
        loop {
            let have = self.inner.completed()?;
            if have.on(timeline) >= signals.value {
                return Ok(());
            }
            if self.queues.is_over() {
                return Err(DeviceError::Lost { operation: "wait for the inner device" });
            }
            self.inner.wait(&have, SLICE)?;
        }
    }
}

impl Progress<'_> {
    fn command(&mut self, command: &Command<Throttled>) -> Result<(), DeviceError> {
        match command {
            Command::CopyIn { source, regions } => {
                let host = match source {
                    Source::Import(import) => import.bytes,
                    Source::Slot(slot) => self.shared.inner.slot(Direction::In, *slot),
                };
                return self.copy(Direction::In, host, regions);
            }
            Command::CopyOut { target, regions } => {
                let host = match target {
                    Target::Import(import) => import.bytes,
                    Target::Slot(slot) => self.shared.inner.slot(Direction::Out, *slot),
                };
                return self.copy(Direction::Out, host, regions);
            }
            Command::Move { regions } => {
                let bytes: u64 = regions.iter().map(|region| region.bytes).sum();
                self.now += self.shared.link.kernel(0.0, 2.0 * bytes as f64);
                self.pending.push(Command::Move { regions: regions.clone() });
            }
            Command::Fill { device_offset, bytes, word } => {
                self.now += self.shared.link.kernel(0.0, *bytes as f64);
                let (device_offset, bytes, word) = (*device_offset, *bytes, *word);
                self.pending.push(Command::Fill { device_offset, bytes, word });
            }
            Command::Bind { binds } => self.pending.push(Command::Bind {
                binds: binds
                    .iter()
                    .map(|bind| Bind {
                        buffer: Arc::clone(&bind.buffer),
                        offset: bind.offset,
                        bytes: bind.bytes,
                        frames: bind.frames,
                    })
                    .collect(),
            }),
            Command::Barrier => self.pending.push(Command::Barrier),
            Command::Dispatch { kernel, bindings, push, groups, elapsed_ns } => {
                let time = |Cost { flop, bytes }| self.shared.link.kernel(flop, bytes);
                let takes = kernel.cost.map(time);
                self.now += takes.unwrap_or_default();
                match &kernel.inner {
                    Some(inner) => self.pending.push(Command::Dispatch {
                        kernel: Arc::clone(inner),
                        bindings: bindings.iter().map(bound).collect(),
                        push: push.clone(),
                        groups: *groups,
                        elapsed_ns: Arc::clone(elapsed_ns),
                    }),
                    None => {
                        elapsed_ns.store(takes.unwrap_or_default().as_nanos() as u64, Ordering::Release);
                    }
                }
            }
        }
        Ok(())
    }

    fn copy(
        &mut self,
        direction: Direction,
        host: RawBytes,
        regions: &[vkhmm_port::Region],
    ) -> Result<(), DeviceError> {
        self.flush()?;
        let bytes = regions.iter().map(|region| region.bytes).sum();
        self.now = self.shared.queues.take_link(&self.shared.link, direction, bytes, self.now);
        self.shared.gate.copy(&self.shared.inner, direction, host, regions)
    }

    /// Gives the inner device what has come together, if it is more than barriers.
    fn flush(&mut self) -> Result<(), DeviceError> {
        let commands = std::mem::take(&mut self.pending);
        if commands.iter().all(|command| matches!(command, Command::Barrier)) {
            return Ok(());
        }
        let role = if self.role == Role::Bind { Role::Bind } else { Role::Compute };
        self.shared.forward(role, Vec::new(), commands)
    }
}

/// The same bytes for the inner device.
fn bound(range: &BoundRange<Throttled>) -> BoundRange<VulkanDevice> {
    BoundRange { buffer: range.buffer.clone(), offset: range.offset, bytes: range.bytes }
}
