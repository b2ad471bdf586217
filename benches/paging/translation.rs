//! What it costs a kernel to find its addresses in tables: the same body with and without, all data on the device. On the device's own
//! port: one dispatch at a time, timed by the device, nothing else of the runtime running.

use crate::work::Work;
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vkhmm::AccessKind;
use vkhmm_core::paging::layout::{MAGIC, READ, WRITE, entry, feedback, range, record};
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, Direction, RawBytes, Region, Role, Source, Submission, Target};
use vkhmm_vulkan::{Config, Control, KernelOptions, VulkanBuffer, VulkanDevice, VulkanKernel};

/// How the runtime cuts memory.
const GEOMETRY: Geometry = Geometry::PRODUCTION;
const FRAME: u64 = GEOMETRY.frame_bytes();
const BLOCK: u64 = 2 << 20;
/// Longest wait for the device: software devices compile at the first run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Words of control memory.
struct Words {
    bytes: RawBytes,
    address: u64,
    /// Keeps the memory.
    _control: Control,
}

impl Words {
    fn new(device: &VulkanDevice, words: usize, direction: Direction) -> Result<Self> {
        let control = device.control(4 * words.max(1) as u64, direction)?;
        let (bytes, address) = device.control_at(&control);
        Ok(Self { bytes, address, _control: control })
    }

    fn set(&self, at: usize, word: u32) {
        self.bytes.slice(4 * at, 4).write(&word.to_ne_bytes());
    }

    fn set_wide(&self, at: usize, value: u64) {
        self.set(at, value as u32);
        self.set(at + 1, (value >> 32) as u32);
    }
}

/// A work on the device, with tables that say that everything is there.
pub(crate) struct Bench<'w> {
    work: &'w Work,
    device: VulkanDevice,
    plain: Arc<VulkanKernel>,
    paged: Arc<VulkanKernel>,
    /// Where each array begins, in bytes of device memory.
    starts: Vec<u64>,
    /// The addresses that the plain kernel takes.
    addresses: Vec<u8>,
    record: Words,
    done: Vec<Words>,
    /// What else the record points to.
    _tables: Vec<Words>,
    _span: Arc<VulkanBuffer>,
    next: Uses,
}

impl<'w> Bench<'w> {
    /// Brings all of the work's arrays to the device. `plain` is the kernel without tables, which takes the arrays in this order.
    ///
    /// # Errors
    /// No usable device; no memory.
    pub(crate) fn new(work: &'w Work, plain: &[u8], order: &[usize]) -> Result<Self> {
        let device = VulkanDevice::open(Config::default(), None).context("opening the device")?;
        let (mut starts, mut bytes) = (Vec::new(), 0);
        for array in &work.arrays {
            starts.push(bytes);
            bytes += (4 * array.words.len() as u64).next_multiple_of(BLOCK);
        }
        let count = (bytes / FRAME) as u32;
        device.grow(FrameIndex(0), count)?;
        let span = Arc::new(device.buffer(FrameRun { first: FrameIndex(0), count })?);
        let base = device.address(&span);
        let groups: u32 = work.groups.iter().product();
        let (plain, paged) = (kernel(&device, plain, work.name)?, kernel(&device, work.spirv, work.name)?);
        let items = paged.reflection().paged.context("a paged kernel")?.items;
        let record =
            Words::new(&device, record::FIRST_RANGE + work.arrays.len() * range::WORDS, Direction::In)?;
        let ids = Words::new(&device, groups as usize, Direction::In)?;
        (0..groups).for_each(|id| ids.set(id as usize, id));
        let misses = Words::new(&device, feedback::FIRST, Direction::Out)?;
        let done = Words::new(&device, groups.div_ceil(32) as usize, Direction::Out)?;
        let items_done = Words::new(&device, (groups * items).div_ceil(32) as usize, Direction::Out)?;
        record.set(record::MAGIC, MAGIC);
        record.set(record::RANGES, work.arrays.len() as u32);
        record.set(record::GROUPS, groups);
        record.set(record::LANES, u32::MAX);
        (0..3).for_each(|i| record.set(record::GRID + i, work.groups[i]));
        record.set_wide(record::IDS, ids.address);
        record.set_wide(record::FEEDBACK, misses.address);
        record.set(record::ITEMS, items);
        record.set_wide(record::DONE, done.address);
        record.set_wide(record::ITEMS_DONE, items_done.address);
        let mut tables = vec![ids, misses];
        for (i, (array, start)) in work.arrays.iter().zip(&starts).enumerate() {
            let bytes = 4 * array.words.len() as u64;
            let blocks = bytes.div_ceil(BLOCK) as usize;
            let table = Words::new(&device, blocks * entry::WORDS, Direction::In)?;
            let stores = array.access != AccessKind::Read;
            for block in 0..blocks {
                let at = block * entry::WORDS;
                table.set_wide(at + entry::ADDRESS, base + start + block as u64 * BLOCK);
                table.set(at + entry::RESIDENT, u32::MAX);
                table.set(at + entry::WRITABLE, if stores { u32::MAX } else { 0 });
            }
            let [missing, touched] = [(); 2].map(|()| Words::new(&device, 2 * blocks, Direction::Out));
            let (missing, touched) = (missing?, touched?);
            let first = record::FIRST_RANGE + i * range::WORDS;
            record.set_wide(first + range::TABLE, table.address);
            record.set_wide(first + range::BYTES, bytes);
            record.set(first + range::SUB_SHIFT, FRAME.ilog2());
            record.set(first + range::BLOCK_SHIFT, (BLOCK / FRAME).ilog2());
            record.set_wide(first + range::MISSING, missing.address);
            record.set_wide(first + range::TOUCHED, touched.address);
            record.set(first + range::PLANE, blocks as u32);
            record.set(first + range::ACCESS, if stores { READ | WRITE } else { READ });
            tables.extend([table, missing, touched]);
        }
        let addresses = order.iter().flat_map(|array| (base + starts[*array]).to_ne_bytes()).collect();
        let (done, next) = (vec![done, items_done], Uses::NONE);
        let mut bench = Self {
            work,
            device,
            plain,
            paged,
            starts,
            addresses,
            record,
            done,
            _tables: tables,
            _span: span,
            next,
        };
        bench.fill()?;
        Ok(bench)
    }

    /// Nanoseconds of one run without tables.
    ///
    /// # Errors
    /// As the device says.
    pub(crate) fn plain(&mut self) -> Result<f64> {
        self.run(&Arc::clone(&self.plain), self.addresses.clone())
    }

    /// Nanoseconds of one run with tables.
    ///
    /// # Errors
    /// As the device says; groups that are not done.
    pub(crate) fn paged(&mut self) -> Result<f64> {
        self.done.iter().for_each(|words| words.bytes.fill(0));
        let time = self.run(&Arc::clone(&self.paged), self.record.address.to_ne_bytes().to_vec())?;
        let groups: u32 = self.work.groups.iter().product();
        let done: u32 = self.done[0].bytes.to_vec().iter().map(|byte| byte.count_ones()).sum();
        ensure!(done == groups, "{}: {done} of {groups} groups are done", self.work.name);
        Ok(time)
    }

    fn run(&mut self, kernel: &Arc<VulkanKernel>, mut push: Vec<u8>) -> Result<f64> {
        self.work.push.iter().for_each(|word| push.extend(word.to_ne_bytes()));
        let elapsed = Arc::new(AtomicU64::new(0));
        let dispatch = Command::Dispatch {
            kernel: Arc::clone(kernel),
            bindings: Vec::new(),
            push,
            groups: self.work.groups,
            elapsed_ns: Arc::clone(&elapsed),
        };
        self.submit(Role::Compute, dispatch)?;
        Ok(elapsed.load(Ordering::Acquire).max(1) as f64)
    }

    /// Compares the result with the CPU's, and takes it away.
    ///
    /// # Errors
    /// A wrong word.
    pub(crate) fn check(&mut self) -> Result<()> {
        for (array, expected) in &self.work.results {
            let expected: &[u8] = bytemuck::cast_slice(expected);
            let slot = self.device.slot(Direction::Out, 0);
            let start = self.starts[*array];
            for (i, want) in expected.chunks(slot.len()).enumerate() {
                let bytes = (want.len() as u64).next_multiple_of(4);
                let device_offset = start + (i * slot.len()) as u64;
                let region = Region { host_offset: 0, device_offset, bytes };
                let home = Command::CopyOut { target: Target::Slot(0), regions: vec![region] };
                self.submit(Role::CopyOut, home)?;
                ensure!(slot.slice(0, want.len()).to_vec() == want, "{}: wrong words", self.work.name);
                self.submit(Role::Compute, Command::Fill { device_offset, bytes, word: 0 })?;
            }
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        let work = self.work;
        let slot = self.device.slot(Direction::In, 0);
        for (array, start) in work.arrays.iter().zip(self.starts.clone()) {
            let bytes: &[u8] = bytemuck::cast_slice(&array.words);
            for (i, part) in bytes.chunks(slot.len()).enumerate() {
                slot.slice(0, part.len()).write(part);
                let device_offset = start + (i * slot.len()) as u64;
                let region = Region { host_offset: 0, device_offset, bytes: part.len() as u64 };
                self.submit(
                    Role::CopyIn,
                    Command::CopyIn { source: Source::Slot(0), regions: vec![region] },
                )?;
            }
        }
        Ok(())
    }

    /// Submits, and waits.
    fn submit(&mut self, role: Role, command: Command<VulkanDevice>) -> Result<()> {
        let timeline = self.device.profile().timeline(role);
        let signals = Ticket { timeline, value: self.next.on(timeline) + 1 };
        let submission =
            Submission { waits: self.next, foreign: Vec::new(), commands: vec![command], signals };
        self.device.submit(role, submission)?;
        self.next.add(signals);
        let until = Instant::now() + PATIENCE;
        while !self.next.done(&self.device.completed()?) {
            ensure!(Instant::now() < until, "{} has not come to an end in {PATIENCE:?}", self.work.name);
            self.device.reach(&self.next, PATIENCE)?;
        }
        Ok(())
    }
}

fn kernel(device: &VulkanDevice, spirv: &[u8], name: &str) -> Result<Arc<VulkanKernel>> {
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let options = KernelOptions { name: name.into(), timed: true, ..KernelOptions::default() };
    device.kernel(&words, options).with_context(|| format!("the shipped kernel {name}"))
}
