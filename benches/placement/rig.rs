//! The device on its own port: one thread submits, each step after the one before, and waits.

use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Bind, Command, Device, Direction, Region, Role, Submission, Target};
use vkhmm_vulkan::{Config, KernelOptions, VulkanBuffer, VulkanDevice, VulkanKernel};

pub(crate) const COPY: &[u8] = include_bytes!("../../shaders/spv/copy.spv");
pub(crate) const GATHER: &[u8] = include_bytes!("../../shaders/spv/gather.spv");
/// How the runtime cuts memory.
pub(crate) const GEOMETRY: Geometry = Geometry::PRODUCTION;
/// Longest wait for the device: software devices compile at the first run.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stretch of whole frames that gets frames, or loses them.
pub(crate) fn bind(
    buffer: &Arc<VulkanBuffer>,
    at: u64,
    count: u64,
    frames: Option<FrameIndex>,
) -> Bind<VulkanDevice> {
    let frame = GEOMETRY.frame_bytes();
    Bind { buffer: Arc::clone(buffer), offset: at * frame, bytes: count * frame, frames }
}

/// Which of `count` frames (a power of two) lies in sub-block `sub`: neighbours lie far apart.
pub(crate) fn frame_of(sub: u32, count: u32) -> u32 {
    sub.wrapping_mul(0x9e37_79b1) & (count - 1)
}

/// The hash of `shaders/gather.comp`.
pub(crate) fn gathered(place: u32, seed: u32) -> u32 {
    let mut hash = (place ^ seed).wrapping_mul(0x9e37_79b9);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// A device, and the next value of each of its timelines.
pub(crate) struct Rig {
    device: VulkanDevice,
    next: [u64; Uses::TIMELINES_MAX],
}

impl Rig {
    /// Opens the device that `name` names, with `frames` frames.
    ///
    /// # Errors
    /// No usable device; no memory.
    pub(crate) fn open(name: Option<String>, frames: u64) -> Result<Self> {
        let config = Config { device: name, ..Config::default() };
        let device = VulkanDevice::open(config, None).context("opening the device")?;
        device.grow(FrameIndex(0), frames as u32)?;
        Ok(Self { device, next: [0; Uses::TIMELINES_MAX] })
    }

    pub(crate) fn device(&self) -> &VulkanDevice {
        &self.device
    }

    pub(crate) fn name(&self) -> &str {
        &self.device.profile().name
    }

    /// Whether its kernels run on the CPU.
    pub(crate) fn is_software(&self) -> bool {
        let report = self.device.report();
        report.candidates[report.chosen].kind == "software"
    }

    /// How long the steps take, each submitted to wait for the one before, until the host has seen the last.
    ///
    /// # Errors
    /// What the device refused; a wait that does not end.
    pub(crate) fn timed(&mut self, steps: Vec<(Role, Vec<Command<VulkanDevice>>)>) -> Result<Duration> {
        let start = Instant::now();
        let mut waits = Uses::NONE;
        for (role, commands) in steps {
            let timeline = self.device.profile().timeline(role);
            let next = &mut self.next[usize::from(timeline.0)];
            *next += 1;
            let signals = Ticket { timeline, value: *next };
            self.device.submit(role, Submission { waits, foreign: Vec::new(), commands, signals })?;
            waits = Uses::NONE;
            waits.add(signals);
        }
        loop {
            let have = self.device.completed()?;
            if waits.done(&have) {
                return Ok(start.elapsed());
            }
            self.device.wait(&have, PATIENCE)?;
            ensure!(!self.device.completed()?.done(&have), "{} has not moved for {PATIENCE:?}", self.name());
        }
    }

    /// A sparse buffer of so many frames, with nothing in it.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn reserve(&self, frames: u64) -> Result<Arc<VulkanBuffer>> {
        Ok(Arc::new(self.device.reserve(frames * GEOMETRY.frame_bytes())?))
    }

    /// A buffer over a run of frames.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn dense(&self, first: u64, count: u64) -> Result<Arc<VulkanBuffer>> {
        let run = FrameRun { first: FrameIndex(first as u32), count: count as u32 };
        Ok(Arc::new(self.device.buffer(run)?))
    }

    /// A sparse buffer in which the same frames lie as [`frame_of`] says.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn permuted(&mut self, first: u64, count: u64) -> Result<Arc<VulkanBuffer>> {
        let buffer = self.reserve(count)?;
        let frame = |sub: u64| FrameIndex(first as u32 + frame_of(sub as u32, count as u32));
        let binds = (0..count).map(|sub| bind(&buffer, sub, 1, Some(frame(sub)))).collect();
        self.timed(vec![(Role::Bind, vec![Command::Bind { binds }])])?;
        Ok(buffer)
    }

    /// Fills each of the first `count` frames with its own number.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn number_frames(&mut self, count: u64) -> Result<()> {
        let bytes = GEOMETRY.frame_bytes();
        let fill = |frame: u64| Command::Fill { device_offset: frame * bytes, bytes, word: frame as u32 };
        self.timed(vec![(Role::Compute, (0..count).map(fill).collect())]).map(drop)
    }

    /// The words of a frame.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn words(&mut self, frame: u32) -> Result<Vec<u32>> {
        let bytes = GEOMETRY.frame_bytes();
        let regions = vec![Region { host_offset: 0, device_offset: u64::from(frame) * bytes, bytes }];
        self.timed(vec![(Role::CopyOut, vec![Command::CopyOut { target: Target::Slot(0), regions }])])?;
        let found = self.device.slot(Direction::Out, 0).slice(0, bytes as usize).to_vec();
        Ok(found.chunks_exact(4).map(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]])).collect())
    }

    /// A shipped kernel.
    ///
    /// # Errors
    /// What the device lacks for it.
    pub(crate) fn kernel(&self, spirv: &[u8], name: &str) -> Result<Arc<VulkanKernel>> {
        let words: Vec<u32> =
            spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let options = KernelOptions { name: name.into(), ..KernelOptions::default() };
        self.device.kernel(&words, options).with_context(|| format!("the shipped kernel {name}"))
    }
}
