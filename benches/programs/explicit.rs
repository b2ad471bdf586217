//! What a programmer writes without managed memory: data in host memory that the device reaches, slots in device memory, a plan made
//! ahead. On the device's own port, so that queues, submissions and kernels are those that managed memory has under it.

use crate::{AccessKind, Action, FRAME, Program, Schedule, Step, Tile, Turn, Use};
use anyhow::{Context, Result, ensure};
use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{BoundRange, Command, Device, RawBytes, Region, Role, Source, Submission, Target};
use vkhmm_vulkan::{Config, KernelOptions, VulkanBuffer, VulkanDevice, VulkanImport, VulkanKernel};

/// Longest wait for the device: software devices compile at the first run.
const PATIENCE: Duration = Duration::from_secs(120);
/// Host memory that the device's way to it is tried with.
const PROBE_BYTES: usize = 2 << 20;
/// Invocations of a group of the shipped kernels.
const GROUP: usize = 64;

/// An array in host memory that stays mapped for the device.
struct Host {
    bytes: RawBytes,
    import: Arc<VulkanImport>,
}

/// Who last wrote a slot, and who has used it at all.
#[derive(Clone, Copy, Default)]
struct SlotUses {
    ready: Uses,
    all: Uses,
}

/// What is known of slots and tiles on their way.
struct Flow {
    slots: Vec<SlotUses>,
    staying: Uses,
    home: HashMap<Tile, Uses>,
}

/// A device, a program's arrays and its kernels.
pub struct Explicit<'p> {
    program: &'p Program,
    device: VulkanDevice,
    kernels: Vec<Arc<VulkanKernel>>,
    hosts: Vec<Host>,
    buffer: Arc<VulkanBuffer>,
    /// Where each array that stays begins; the slots come behind.
    staying: Vec<Option<u64>>,
    slots_at: u64,
    slot_bytes: u64,
    next: Uses,
}

impl<'p> Explicit<'p> {
    /// Opens the device that `name` names, with memory for all of `program`.
    ///
    /// # Errors
    /// No usable device; no memory; host memory cannot be imported.
    pub fn open(program: &'p Program, name: Option<String>) -> Result<Self> {
        // The device tries whether it reaches host memory at all.
        let probe = Some(host_bytes(PROBE_BYTES)?);
        let device = VulkanDevice::open(Config { device: name, ..Config::default() }, probe)?;
        let (mut at, mut staying) = (0, Vec::new());
        for array in &program.arrays {
            staying.push(array.stays.then_some(at));
            at += if array.stays { (4 * array.initial.len() as u64).next_multiple_of(FRAME) } else { 0 };
        }
        let slot_bytes = program.tile_bytes().next_multiple_of(FRAME);
        let frames = (at + slot_bytes * program.tiles() as u64) / FRAME;
        device.grow(FrameIndex(0), frames as u32)?;
        let buffer = device.buffer(FrameRun { first: FrameIndex(0), count: frames as u32 })?.into();
        let hosts = program.arrays.iter().map(|array| Host::new(&device, 4 * array.initial.len()));
        let hosts = hosts.collect::<Result<_>>()?;
        let kernels = program.kernels.iter().map(|(name, spirv)| kernel(&device, name, spirv));
        let kernels = kernels.collect::<Result<_>>()?;
        let (slots_at, next) = (at, Uses::NONE);
        Ok(Self { program, device, kernels, hosts, buffer, staying, slots_at, slot_bytes, next })
    }

    /// The device's name.
    pub fn device_name(&self) -> &str {
        &self.device.profile().name
    }

    /// Whether its kernels run on the CPU.
    pub fn is_software(&self) -> bool {
        let report = self.device.report();
        report.candidates[report.chosen].kind == "software"
    }

    /// Seconds of the naive way: for each launch its tiles in, the kernel, and what it wrote out, each waited for.
    ///
    /// # Errors
    /// A lost device; wrong results.
    pub fn naive(&mut self) -> Result<f64> {
        self.timed("naive explicit", |explicit| {
            let mut flow = explicit.begin(explicit.program.tiles())?;
            for step in &explicit.program.steps {
                let (mut turn, mut out, mut at) = (Turn::default(), Vec::new(), HashMap::new());
                for used in &step.uses {
                    let tile = explicit.program.tile(used);
                    let slot = tile.map(|tile| {
                        let next = at.len();
                        *at.entry(tile).or_insert_with(|| {
                            turn.before.push(Action::Fetch(tile, next));
                            next
                        })
                    });
                    if let (Some(tile), Some(slot), true) = (tile, slot, used.access != AccessKind::Read) {
                        out.push(Action::WriteBack(tile, slot));
                    }
                    turn.slots.push(slot);
                }
                explicit.copies(&turn.before, &mut flow)?;
                explicit.wait()?;
                explicit.kernel(step, &turn, &mut flow)?;
                explicit.wait()?;
                explicit.copies(&out, &mut flow)?;
                explicit.wait()?;
            }
            explicit.end(&flow)
        })
    }

    /// Seconds of the good way: `plan`, with copies of later launches beside the kernels of earlier ones as far as slots allow.
    ///
    /// # Errors
    /// A lost device; wrong results.
    pub fn good(&mut self, plan: &Schedule) -> Result<f64> {
        self.timed("good explicit", |explicit| {
            let mut flow = explicit.begin(explicit.program.tiles())?;
            for (step, turn) in explicit.program.steps.iter().zip(&plan.turns) {
                explicit.copies(&turn.before, &mut flow)?;
                explicit.kernel(step, turn, &mut flow)?;
            }
            explicit.copies(&plan.end, &mut flow)?;
            explicit.end(&flow)
        })
    }

    /// Seconds of the kernels alone, with everything on the device; `plan` has room for all tiles.
    ///
    /// # Errors
    /// A lost device.
    pub fn in_core(&mut self, plan: &Schedule) -> Result<f64> {
        self.fill();
        let mut flow = self.begin(self.program.tiles())?;
        let fetches: Vec<Action> = plan.turns.iter().flat_map(|turn| turn.before.clone()).collect();
        self.copies(&fetches, &mut flow)?;
        self.wait()?;
        let start = Instant::now();
        for (step, turn) in self.program.steps.iter().zip(&plan.turns) {
            self.kernel(step, turn, &mut flow)?;
        }
        self.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Fills the arrays, times `work`, checks the results.
    fn timed(&mut self, by: &str, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<f64> {
        self.fill();
        let start = Instant::now();
        work(self)?;
        let time = start.elapsed().as_secs_f64();
        for (at, host) in self.hosts.iter().enumerate() {
            let bytes = host.bytes.to_vec();
            let have =
                bytes.chunks_exact(4).map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            let have: Vec<f32> = have.take(self.program.arrays[at].initial.len()).collect();
            self.program.check(at, &have, by)?;
        }
        Ok(time)
    }

    fn fill(&self) {
        for (host, array) in self.hosts.iter().zip(&self.program.arrays) {
            let bytes: &[u8] = bytemuck::cast_slice(&array.initial);
            host.bytes.slice(0, bytes.len()).write(bytes);
        }
    }

    /// What stays comes in.
    fn begin(&mut self, slots: usize) -> Result<Flow> {
        let mut flow =
            Flow { slots: vec![SlotUses::default(); slots], staying: Uses::NONE, home: HashMap::new() };
        for at in 0..self.hosts.len() {
            if let Some(to) = self.staying[at] {
                let region = Region { host_offset: 0, device_offset: to, bytes: self.bytes_of(at) };
                let ticket = self.copy_in(at, region, Uses::NONE)?;
                flow.staying.add(ticket);
            }
        }
        Ok(flow)
    }

    /// Results among what stays go home; then everything is over.
    fn end(&mut self, flow: &Flow) -> Result<()> {
        for at in 0..self.hosts.len() {
            if let (Some(from), true) = (self.staying[at], self.program.arrays[at].expected.is_some()) {
                let region = Region { host_offset: 0, device_offset: from, bytes: self.bytes_of(at) };
                self.copy_out(at, region, flow.staying)?;
            }
        }
        self.wait()
    }

    fn copies(&mut self, actions: &[Action], flow: &mut Flow) -> Result<()> {
        for action in actions {
            match *action {
                Action::Fetch(tile, slot) => {
                    let mut after = flow.slots[slot].all;
                    flow.home.get(&tile).inspect(|home| after.merge(home));
                    let ticket = self.copy_in(tile.0, self.region(tile, slot), after)?;
                    flow.slots[slot] = SlotUses::default();
                    flow.slots[slot].ready.add(ticket);
                    flow.slots[slot].all.add(ticket);
                }
                Action::WriteBack(tile, slot) => {
                    let ticket = self.copy_out(tile.0, self.region(tile, slot), flow.slots[slot].ready)?;
                    flow.slots[slot].all.add(ticket);
                    flow.home.entry(tile).or_default().add(ticket);
                }
            }
        }
        Ok(())
    }

    fn kernel(&mut self, step: &Step, turn: &Turn, flow: &mut Flow) -> Result<()> {
        let mut after = flow.staying;
        for (used, slot) in step.uses.iter().zip(&turn.slots) {
            let Some(slot) = *slot else { continue };
            let slot = &flow.slots[slot];
            after.merge(if used.access == AccessKind::Read { &slot.ready } else { &slot.all });
        }
        let bindings =
            step.uses.iter().zip(&turn.slots).map(|(used, slot)| self.bound(used, *slot)).collect();
        let dispatch = Command::Dispatch {
            kernel: Arc::clone(&self.kernels[step.kernel]),
            bindings,
            push: bytemuck::cast_slice(&step.push).to_vec(),
            groups: [step.items.div_ceil(GROUP) as u32, 1, 1],
            elapsed_ns: Arc::default(),
        };
        let ticket = self.submit(Role::Compute, after, dispatch)?;
        for (used, slot) in step.uses.iter().zip(&turn.slots) {
            match slot {
                Some(slot) => {
                    flow.slots[*slot].all.add(ticket);
                    if used.access != AccessKind::Read {
                        flow.slots[*slot].ready.add(ticket);
                    }
                }
                None => flow.staying.add(ticket),
            }
        }
        Ok(())
    }

    fn bytes_of(&self, array: usize) -> u64 {
        4 * self.program.arrays[array].initial.len() as u64
    }

    fn slot_at(&self, slot: usize) -> u64 {
        self.slots_at + slot as u64 * self.slot_bytes
    }

    fn region(&self, (_, tile): Tile, slot: usize) -> Region {
        let bytes = self.program.tile_bytes();
        Region { host_offset: tile as u64 * bytes, device_offset: self.slot_at(slot), bytes }
    }

    fn bound(&self, used: &Use, slot: Option<usize>) -> BoundRange<VulkanDevice> {
        let inside = match slot {
            Some(_) => used.words.start % self.program.tile_words,
            None => used.words.start,
        };
        let start = slot.map_or_else(|| self.staying[used.array].unwrap_or(0), |slot| self.slot_at(slot));
        BoundRange {
            buffer: Some(Arc::clone(&self.buffer)),
            offset: start + 4 * inside as u64,
            bytes: 4 * used.words.len() as u64,
        }
    }

    fn copy_in(&mut self, array: usize, region: Region, after: Uses) -> Result<Ticket> {
        let source = Source::Import(Arc::clone(&self.hosts[array].import));
        self.submit(Role::CopyIn, after, Command::CopyIn { source, regions: vec![region] })
    }

    fn copy_out(&mut self, array: usize, region: Region, after: Uses) -> Result<Ticket> {
        let target = Target::Import(Arc::clone(&self.hosts[array].import));
        self.submit(Role::CopyOut, after, Command::CopyOut { target, regions: vec![region] })
    }

    fn submit(&mut self, role: Role, after: Uses, command: Command<VulkanDevice>) -> Result<Ticket> {
        let timeline = self.device.profile().timeline(role);
        let signals = Ticket { timeline, value: self.next.on(timeline) + 1 };
        let mut waits = Uses::NONE;
        after.iter().filter(|ticket| ticket.timeline != timeline).for_each(|ticket| waits.add(ticket));
        let submission = Submission { waits, foreign: Vec::new(), commands: vec![command], signals };
        self.device.submit(role, submission)?;
        self.next.add(signals);
        Ok(signals)
    }

    /// Waits for all that was submitted.
    fn wait(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !self.next.done(&self.device.completed()?) {
            ensure!(Instant::now() < until, "{} has not come to an end in {PATIENCE:?}", self.device_name());
            self.device.reach(&self.next, PATIENCE)?;
        }
        Ok(())
    }
}

impl Host {
    fn new(device: &VulkanDevice, bytes: usize) -> Result<Self> {
        let bytes = host_bytes(bytes)?;
        let import = device.import(bytes).context("data that the device reaches where it lies")?;
        Ok(Self { bytes, import: Arc::new(import) })
    }
}

/// Zeros for the rest of the process, in whole frames.
fn host_bytes(bytes: usize) -> Result<RawBytes> {
    let layout = Layout::from_size_align(bytes.next_multiple_of(FRAME as usize), FRAME as usize)?;
    // SAFETY: alloc_zeroed: no array is empty.
    let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).context("host memory")?;
    // SAFETY: RawBytes::new: just allocated, never freed, and no reference into it is made.
    Ok(unsafe { RawBytes::new(start, layout.size()) })
}

fn kernel(device: &VulkanDevice, name: &str, spirv: &[u8]) -> Result<Arc<VulkanKernel>> {
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let options = KernelOptions { name: name.into(), ..KernelOptions::default() };
    device.kernel(&words, options).with_context(|| format!("the shipped kernel {name}"))
}
