//! The device's constants: copies, submissions, edges, imports, kernels. One thread submits and waits.

use crate::{BULK, Constant, GEOMETRY, fact, median, microseconds, nanoseconds, rate, timed};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{ByteRange, FrameIndex, FrameRun, PageIndex, PageRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_linux::LinuxHost;
use vkhmm_port::{BoundRange, Command, Device, HostMemory, Region, Role, Source, Submission, Target};
use vkhmm_vulkan::{Config, KernelOptions, VulkanDevice, VulkanImport, VulkanKernel};

const SAXPY: &[u8] = include_bytes!("../../shaders/spv/saxpy.spv");
const GEMM: &[u8] = include_bytes!("../../shaders/spv/gemm.spv");
/// Submissions in a row, to tell the price of one.
const SUBMITS: u32 = 32;
/// Scattered regions of one copy.
const REGIONS: u64 = 256;
/// Side of the matrices.
const SIDE: u32 = 512;
/// Longest wait for the device: software devices compile at the first run.
const PATIENCE: Duration = Duration::from_secs(120);

/// A device, and the next value of each of its timelines.
pub(crate) struct Rig {
    device: VulkanDevice,
    host: Arc<LinuxHost>,
    next: [u64; Uses::TIMELINES_MAX],
    /// The first bytes of A, where the device takes imports.
    import: Option<Arc<VulkanImport>>,
}

impl Rig {
    /// Opens the device that `name` names, with twice [`BULK`] of frames.
    ///
    /// # Errors
    /// No usable device; no memory.
    pub(crate) fn open(host: &Arc<LinuxHost>, name: Option<String>) -> Result<Self> {
        let all = PageRun { first: PageIndex(0), count: (2 * BULK / u64::from(GEOMETRY.page_bytes)) as u32 };
        host.populate(all)?;
        let probe = host.alias(ByteRange { start: 0, end: GEOMETRY.block_bytes() });
        let config = Config { device: name, ..Config::default() };
        let device = VulkanDevice::open(config, Some(probe)).context("opening the device")?;
        device.grow(FrameIndex(0), (2 * BULK / GEOMETRY.frame_bytes()) as u32)?;
        Ok(Self { device, host: Arc::clone(host), next: [0; Uses::TIMELINES_MAX], import: None })
    }

    /// The device's name, as its driver says it.
    pub(crate) fn name(&self) -> &str {
        &self.device.profile().name
    }

    /// What its frames are.
    pub(crate) fn kind(&self) -> MemoryKind {
        self.device.profile().memory.kind
    }

    /// Measures everything, in the order of the preset.
    ///
    /// # Errors
    /// What the device refused; a wait that does not end.
    pub(crate) fn measure(&mut self) -> Result<Vec<Constant>> {
        let mut all = vec![self.pin()?];
        let one_by_one = self.submits()?;
        let copy_in = median(|| self.copy(&[Role::CopyIn]))?;
        let copy_out = median(|| self.copy(&[Role::CopyOut]))?;
        let both = median(|| self.copy(&[Role::CopyIn, Role::CopyOut]))?;
        let way = if self.import.is_some() { "by import" } else { "through staging slots" };
        let together = both.as_secs_f64() / copy_in.max(copy_out).as_secs_f64();
        let profile = self.device.profile();
        let roles = [Role::CopyIn, Role::CopyOut, Role::Compute].map(|role| profile.timeline(role));
        let apart = (1..3).all(|i| !roles[..i].contains(&roles[i]));
        all.extend([
            rate("h2d", BULK as f64, copy_in, format!("copy of 64 MiB, {way}")),
            rate("d2h", BULK as f64, copy_out, format!("copy of 64 MiB, {way}")),
            fact(
                "duplex",
                together < 1.5,
                format!("both ways at once take {together:.2} times as long as one"),
            ),
            fact("queues", apart, format!("timelines of copies in, copies out and kernels: {roles:?}")),
            microseconds(
                "per_submit_us",
                one_by_one / SUBMITS,
                format!("{SUBMITS} empty submissions, one wait"),
            ),
            self.region()?,
            self.edge()?,
            self.wait_up(one_by_one / SUBMITS)?,
            self.bind()?,
            self.flops()?,
            self.device_bytes()?,
        ]);
        Ok(all)
    }

    fn submit(&mut self, role: Role, waits: Uses, commands: Vec<Command<VulkanDevice>>) -> Result<Ticket> {
        let timeline = self.device.profile().timeline(role);
        let next = &mut self.next[usize::from(timeline.0)];
        *next += 1;
        let signals = Ticket { timeline, value: *next };
        self.device.submit(role, Submission { waits, foreign: Vec::new(), commands, signals })?;
        Ok(signals)
    }

    fn wait(&self, tickets: &[Ticket]) -> Result<()> {
        let mut need = Uses::NONE;
        tickets.iter().for_each(|t| need.add(*t));
        loop {
            let have = self.device.completed()?;
            if need.done(&have) {
                return Ok(());
            }
            self.device.wait(&have, PATIENCE)?;
            let moved = !self.device.completed()?.done(&have);
            ensure!(moved, "{} has not moved for {PATIENCE:?}", self.name());
        }
    }

    /// Runs one submission and waits for it.
    fn run(&mut self, role: Role, commands: Vec<Command<VulkanDevice>>) -> Result<Duration> {
        timed(|| {
            let ticket = self.submit(role, Uses::NONE, commands)?;
            self.wait(&[ticket])
        })
    }

    /// What an import costs, if there are imports; one is kept.
    fn pin(&mut self) -> Result<Constant> {
        let pages = (BULK / u64::from(GEOMETRY.page_bytes)) as u32;
        if self.device.profile().import.is_none() {
            let how = "not measured: this device imports nothing".into();
            return Ok(nanoseconds("pin_ns", Duration::ZERO, pages, how));
        }
        let bytes = self.host.alias(ByteRange { start: 0, end: BULK });
        let time = median(|| timed(|| self.device.import(bytes).map(drop).context("an import")))?;
        self.import = Some(Arc::new(self.device.import(bytes)?));
        Ok(nanoseconds("pin_ns", time, pages, "import and drop of 64 MiB".into()))
    }

    /// So many submissions without work.
    fn submits(&mut self) -> Result<Duration> {
        median(|| {
            timed(|| {
                let mut last = None;
                for _ in 0..SUBMITS {
                    last = Some(self.submit(Role::Compute, Uses::NONE, Vec::new())?);
                }
                self.wait(last.as_slice())
            })
        })
    }

    /// 64 MiB each way named, at once. The host side of both ways and the frames are apart.
    fn copy(&mut self, ways: &[Role]) -> Result<Duration> {
        let submissions: Vec<_> = ways.iter().map(|role| (*role, self.bulk(*role))).collect();
        timed(|| {
            let mut tickets = Vec::new();
            for (role, commands) in submissions {
                tickets.push(self.submit(role, Uses::NONE, commands)?);
            }
            self.wait(&tickets)
        })
    }

    /// Half of the bytes for each way lie apart, so that the two never meet: each way copies its half twice.
    fn bulk(&self, role: Role) -> Vec<Command<VulkanDevice>> {
        let slot = GEOMETRY.block_bytes();
        let half = BULK / 2;
        let base = if role == Role::CopyIn { 0 } else { half };
        let (count, len) = if self.import.is_some() { (2, half) } else { (BULK / slot, slot) };
        let mut commands = Vec::new();
        for i in 0..count {
            let (host_offset, to) =
                if self.import.is_some() { (base, 0) } else { (0, i % (half / slot) * slot) };
            let regions = vec![Region { host_offset, device_offset: 2 * base + to, bytes: len }];
            commands.push(self.copy_command(role, regions));
            commands.push(Command::Barrier);
        }
        commands
    }

    fn copy_command(&self, role: Role, regions: Vec<Region>) -> Command<VulkanDevice> {
        match (role, &self.import) {
            (Role::CopyIn, Some(import)) => {
                Command::CopyIn { source: Source::Import(Arc::clone(import)), regions }
            }
            (Role::CopyIn, None) => Command::CopyIn { source: Source::Slot(0), regions },
            (_, Some(import)) => Command::CopyOut { target: Target::Import(Arc::clone(import)), regions },
            (_, None) => Command::CopyOut { target: Target::Slot(0), regions },
        }
    }

    /// The price of a region: many scattered pages against one run of as many bytes.
    fn region(&mut self) -> Result<Constant> {
        let page = u64::from(GEOMETRY.page_bytes);
        let scattered =
            |i: u64| Region { host_offset: 2 * i * page, device_offset: 2 * i * page, bytes: page };
        let whole = Region { host_offset: 0, device_offset: 0, bytes: REGIONS * page };
        let mut time = |regions: Vec<Region>| {
            median(|| {
                let command = self.copy_command(Role::CopyIn, regions.clone());
                self.run(Role::CopyIn, vec![command])
            })
        };
        let (many, one) = (time((0..REGIONS).map(scattered).collect())?, time(vec![whole])?);
        let each = many.saturating_sub(one) / (REGIONS as u32 - 1);
        Ok(microseconds(
            "per_region_us",
            each,
            format!("{REGIONS} scattered pages against one run, apart from bytes"),
        ))
    }

    /// The price of an edge: a chain that changes queues against one that does not.
    fn edge(&mut self) -> Result<Constant> {
        let profile = self.device.profile();
        if profile.timeline(Role::CopyIn) == profile.timeline(Role::Compute) {
            return Ok(microseconds("per_edge_us", Duration::ZERO, "one queue has no edges".into()));
        }
        let mut chain = |roles: [Role; 2]| {
            median(|| {
                timed(|| {
                    let mut last: Option<Ticket> = None;
                    for i in 0..SUBMITS as usize {
                        let mut waits = Uses::NONE;
                        let own = self.device.profile().timeline(roles[i % 2]);
                        last.iter().filter(|t| t.timeline != own).for_each(|t| waits.add(*t));
                        last = Some(self.submit(roles[i % 2], waits, Vec::new())?);
                    }
                    self.wait(last.as_slice())
                })
            })
        };
        let (apart, same) = (chain([Role::CopyIn, Role::Compute])?, chain([Role::Compute; 2])?);
        let each = apart.saturating_sub(same) / (SUBMITS - 1);
        Ok(microseconds(
            "per_edge_us",
            each,
            format!("{SUBMITS} submissions that change queues, against one queue"),
        ))
    }

    /// What a sleeper adds to a submission.
    fn wait_up(&mut self, submit: Duration) -> Result<Constant> {
        let round = median(|| self.run(Role::Compute, Vec::new()))?;
        let how = "one empty submission and its wait, less a submission".into();
        Ok(microseconds("per_wait_us", round.saturating_sub(submit), how))
    }

    /// A buffer over a span of one block.
    fn bind(&mut self) -> Result<Constant> {
        let run = FrameRun { first: FrameIndex(0), count: GEOMETRY.subs_per_block() };
        let time = median(|| timed(|| self.device.buffer(run).map(drop).context("a buffer")))?;
        Ok(nanoseconds(
            "bind_ns",
            time,
            GEOMETRY.pages_per_block,
            "buffer over 2 MiB, made and dropped".into(),
        ))
    }

    fn kernel(&self, spirv: &[u8], name: &str) -> Result<Arc<VulkanKernel>> {
        let words: Vec<u32> =
            spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let options = KernelOptions { name: name.into(), ..KernelOptions::default() };
        self.device.kernel(&words, options).with_context(|| format!("the shipped kernel {name}"))
    }

    /// Runs a kernel over runs of frames of `bytes` each, one after the other.
    fn dispatch(
        &mut self,
        kernel: &Arc<VulkanKernel>,
        bytes: &[u64],
        push: &[u8],
        groups: u32,
    ) -> Result<Duration> {
        let mut bindings = Vec::new();
        let mut first = 0;
        for bytes in bytes {
            let count = bytes.div_ceil(GEOMETRY.frame_bytes()) as u32;
            let buffer = self.device.buffer(FrameRun { first: FrameIndex(first), count })?;
            bindings.push((Arc::new(buffer), *bytes));
            first += count;
        }
        median(|| {
            let bound = |(buffer, bytes): &(Arc<_>, u64)| BoundRange {
                buffer: Some(Arc::clone(buffer)),
                offset: 0,
                bytes: *bytes,
            };
            let command = Command::Dispatch {
                kernel: Arc::clone(kernel),
                bindings: bindings.iter().map(bound).collect(),
                push: push.to_vec(),
                groups: [groups, 1, 1],
                elapsed_ns: Arc::new(AtomicU64::new(0)),
            };
            self.run(Role::Compute, vec![command])
        })
    }

    fn flops(&mut self) -> Result<Constant> {
        let kernel = self.kernel(GEMM, "gemm")?;
        let bytes = u64::from(SIDE) * u64::from(SIDE) * 4;
        let push: Vec<u8> =
            [SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, 0].iter().flat_map(|v| v.to_ne_bytes()).collect();
        // One invocation for each tile of 8 by 4.
        let groups = SIDE * SIDE / 32 / 64;
        let time = self.dispatch(&kernel, &[bytes; 3], &push, groups)?;
        let flop = 2.0 * f64::from(SIDE).powi(3);
        Ok(rate("flops", flop, time, format!("the shipped gemm kernel at {SIDE}")))
    }

    fn device_bytes(&mut self) -> Result<Constant> {
        let kernel = self.kernel(SAXPY, "saxpy")?;
        let bytes = BULK / 2;
        let count = (bytes / 4) as u32;
        let push: Vec<u8> = [1.0_f32.to_bits(), count].iter().flat_map(|v| v.to_ne_bytes()).collect();
        let time = self.dispatch(&kernel, &[bytes; 2], &push, (count / 64).min(65_535))?;
        Ok(rate("device_bytes", 3.0 * bytes as f64, time, "the shipped saxpy kernel over 64 MiB".into()))
    }
}
