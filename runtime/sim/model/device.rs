//! ModelDevice: frames without bytes. A submission is priced when it comes; the clockwork of [`super::machine`] says when it ends.

use super::exec::ModelExec;
use super::host::{ModelHost, PIECE_BYTES_MAX};
use super::kernels::{self, Body};
use super::link::{LinkModel, each, ns, us};
use super::machine::{Job, Machine};
use super::play::Placement;
use crate::SimSignal;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vkhmm_core::units::{ByteRange, FrameIndex, FrameRun, Geometry, Timeline};
use vkhmm_core::uses::Uses;
use vkhmm_port::fake::{FakeHost, FakeHostOptions};
use vkhmm_port::{
    Command, Device, DeviceError, DeviceProfile, Direction, Exec, HostMemory, ImportProfile,
    MemoryKindProfile, RawBytes, Region, Role, Signal, SparseProfile, StagingProfile, Submission,
};

/// What one kernel does: its place under the roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Operations.
    pub flop: f64,
    /// Bytes of device memory read and written.
    pub bytes: f64,
}

/// What runs.
pub(super) enum Kernel {
    /// Touches what its launch declares.
    Declared(Work),
    /// Asks for what it touches.
    Paged(Box<dyn Body>),
}

/// Memory that host and kernels share: the one thing here that has bytes.
pub(super) struct Control {
    memory: Arc<FakeHost>,
    bytes: u64,
    address: u64,
}

impl Control {
    fn at(&self) -> RawBytes {
        self.memory.alias(ByteRange { start: 0, end: self.bytes })
    }
}

/// What went over the link and through the device, as the device saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes from the host, by copy or CPU.
    pub bytes_in: u64,
    /// Bytes to the host, by copy or CPU.
    pub bytes_out: u64,
    /// Bytes moved inside the device.
    pub bytes_moved: u64,
    /// Bytes filled.
    pub bytes_filled: u64,
    /// Bytes put into sparse buffers or taken out.
    pub bytes_bound: u64,
    /// Regions of all copies.
    pub regions: u64,
    /// Submissions.
    pub submits: u64,
    /// Kernels.
    pub kernels: u64,
    /// Nanoseconds of all kernels.
    pub kernel_ns: u64,
    /// Nanoseconds of all copies between host and device.
    pub copy_ns: u64,
}

struct State {
    machine: Machine,
    moved: Moved,
    /// When the one who waits for completions looks again by itself.
    sleeps_until: u64,
    address_next: u64,
    /// Control memory by its address, with its length.
    controls: BTreeMap<u64, (Weak<FakeHost>, u64)>,
}

/// A device without memory.
pub(super) struct ModelDevice {
    exec: ModelExec,
    model: LinkModel,
    geometry: Geometry,
    profile: DeviceProfile,
    host: ModelHost,
    /// Lock: owns clockwork and counts · blocks on nothing · never held across a call of `exec` or of a signal.
    state: Mutex<State>,
    /// Passed when something ends earlier than the sleeper expects.
    sooner: SimSignal,
}

impl ModelDevice {
    pub(super) fn new(
        exec: &ModelExec,
        model: &LinkModel,
        geometry: Geometry,
        limit: u64,
        placement: Placement,
        host: &ModelHost,
    ) -> Self {
        let profile = profile(model, limit, placement);
        let queues = usize::from(profile.timeline_count);
        let machine = Machine::new(queues, model.duplex, us(model.per_edge_us));
        let state = State {
            machine,
            moved: Moved::default(),
            sleeps_until: u64::MAX,
            address_next: 0x10_0000_0000,
            controls: BTreeMap::new(),
        };
        Self {
            exec: exec.clone(),
            model: *model,
            geometry,
            profile,
            host: host.clone(),
            state: Mutex::new(state),
            sooner: exec.signal(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has done so far.
    pub(super) fn moved(&self) -> Moved {
        self.state().moved
    }

    /// Nanoseconds of a submission, and its kernels' own.
    fn price(
        &self,
        submission: &Submission<Self>,
        moved: &mut Moved,
        controls: &BTreeMap<u64, (Weak<FakeHost>, u64)>,
    ) -> (u64, Vec<(usize, u64)>) {
        let model = &self.model;
        let bytes_of = |regions: &[Region]| regions.iter().map(|r| r.bytes).sum::<u64>();
        let mut copies = 0;
        let mut other = us(model.per_submit_us);
        let mut kernels = Vec::new();
        for (at, command) in submission.commands.iter().enumerate() {
            if let Command::CopyIn { regions, .. }
            | Command::CopyOut { regions, .. }
            | Command::Move { regions } = command
            {
                assert!(regions.len() <= self.profile.regions_max as usize, "too many regions in one copy");
                moved.regions += regions.len() as u64;
                other += us(model.per_region_us) * regions.len() as u64;
            }
            match command {
                Command::CopyIn { regions, .. } => {
                    moved.bytes_in += bytes_of(regions);
                    copies += ns(bytes_of(regions) as f64, model.h2d);
                }
                Command::CopyOut { regions, .. } => {
                    moved.bytes_out += bytes_of(regions);
                    copies += ns(bytes_of(regions) as f64, model.d2h);
                }
                Command::Move { regions } => {
                    moved.bytes_moved += bytes_of(regions);
                    // Read and written.
                    other += ns(2.0 * bytes_of(regions) as f64, model.device_bytes);
                }
                Command::Fill { bytes, .. } => {
                    moved.bytes_filled += bytes;
                    other += ns(*bytes as f64, model.device_bytes);
                }
                Command::Bind { binds } => {
                    let bytes: u64 = binds.iter().map(|b| b.bytes).sum();
                    moved.bytes_bound += bytes;
                    let frames = bytes / self.geometry.frame_bytes();
                    other += us(model.rebind_us) + us(model.rebind_frame_us) * frames;
                }
                Command::Barrier => {}
                Command::Dispatch { kernel, push, .. } => {
                    let work = match &**kernel {
                        Kernel::Declared(work) => *work,
                        // Now: until its end the host changes nothing that it reads, and reads nothing that it writes.
                        Kernel::Paged(body) => {
                            kernels::run(&|address| control(controls, address), push, &**body)
                        }
                    };
                    let ns = model.kernel_ns(work.flop, work.bytes);
                    moved.kernels += 1;
                    moved.kernel_ns += ns;
                    other += ns;
                    kernels.push((at, ns));
                }
            }
        }
        moved.submits += 1;
        moved.copy_ns += copies;
        (copies + other, kernels)
    }
}

/// The bytes from a device address to the end of the control memory that it is in.
fn control(controls: &BTreeMap<u64, (Weak<FakeHost>, u64)>, address: u64) -> (Arc<FakeHost>, RawBytes) {
    let (first, (memory, bytes)) = controls.range(..=address).next_back().expect("an address of something");
    let memory = memory.upgrade().expect("who runs has its control memory");
    let there = memory.alias(ByteRange { start: address - first, end: *bytes });
    (memory, there)
}

/// As the real ones are: see `runtime/vulkan/open.rs`.
fn profile(model: &LinkModel, limit: u64, placement: Placement) -> DeviceProfile {
    let (timelines, timeline_count) =
        if model.queues { ([0, 1, 2, 3, 4, 5], 6) } else { ([0, 0, 0, 1, 2, 3], 4) };
    let readable = model.kind.can_hold_descriptors();
    DeviceProfile {
        name: model.name.to_owned(),
        memory: MemoryKindProfile {
            kind: model.kind,
            flags: model.kind.required_flags(),
            cpu_reads: readable,
            cpu_writes: model.kind.is_addressable(),
        },
        timelines: timelines.map(Timeline),
        timeline_count,
        limit_bytes_default: limit,
        piece_bytes_max: u64::MAX,
        staging: StagingProfile { slots: 8, slot_bytes: 2 << 20 },
        import: Some(ImportProfile { alignment_bytes: 4096, piece_bytes_max: PIECE_BYTES_MAX }),
        sparse: (placement == Placement::Sparse).then_some(SparseProfile {
            page_bytes: 64 << 10,
            buffer_bytes_max: 1 << 47,
            space_bytes: 1 << 47,
        }),
        in_place_bytes_max: None,
        reasons: ["as the run says".to_owned(), "the model knows frames".to_owned()],
        queue_is_shared: false,
        regions_max: 256,
        inline_copy_bytes: 1 << 20,
        groups_max: [65_535; 3],
        binding_bytes_max: u64::MAX,
        binding_alignment_bytes: 4,
    }
}

impl Device for ModelDevice {
    type Kernel = Kernel;
    /// Its device address.
    type Buffer = u64;
    type Import = ();
    type Semaphore = ();
    type Control = Control;

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    fn grow(&self, _: FrameIndex, count: u32) -> Result<u64, DeviceError> {
        let mut state = self.state();
        let address = state.address_next;
        state.address_next += (u64::from(count) + 1) * self.geometry.frame_bytes();
        Ok(address)
    }

    fn shrink(&self, _: FrameIndex) {}

    fn buffer(&self, run: FrameRun) -> Result<u64, DeviceError> {
        let pages = u64::from(run.count) * u64::from(self.geometry.pages_per_sub);
        self.exec.elapse(each(pages, self.model.bind_ns));
        Ok(u64::from(run.first.0) * self.geometry.frame_bytes())
    }

    fn reserve(&self, bytes: u64) -> Result<u64, DeviceError> {
        let mut state = self.state();
        let address = state.address_next;
        state.address_next += bytes;
        Ok(address)
    }

    fn in_place(&self, _: &Arc<()>) -> Result<u64, DeviceError> {
        self.reserve(0)
    }

    fn address(&self, buffer: &u64) -> u64 {
        *buffer
    }

    fn import(&self, bytes: RawBytes) -> Result<(), DeviceError> {
        let pages = (bytes.len() as u64).div_ceil(u64::from(self.geometry.page_bytes));
        self.exec.elapse(each(pages, self.model.pin_ns));
        Ok(())
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        assert_eq!(submission.signals.timeline, self.profile.timeline(role), "the timeline of its role");
        self.exec.elapse(us(self.model.per_submit_us));
        let now = self.exec.now();
        let sooner = {
            let mut state = self.state();
            let State { machine, moved, sleeps_until, controls, .. } = &mut *state;
            let before = moved.copy_ns;
            let (ns, kernels) = self.price(&submission, moved, controls);
            let elapsed = |(at, ns): (usize, u64)| match &submission.commands[at] {
                Command::Dispatch { elapsed_ns, .. } => Some((elapsed_ns.clone(), ns)),
                _ => None,
            };
            let kernels = kernels.into_iter().filter_map(elapsed).collect();
            let Submission { waits, commands, signals, .. } = submission;
            let copies = moved.copy_ns > before;
            machine.push(now, Job { waits, signals, ns, copies, kernels, keeps: Box::new(commands) });
            machine.next_end().is_some_and(|end| end < *sleeps_until)
        };
        if sooner {
            self.sooner.notify();
        }
        Ok(())
    }

    fn completed(&self) -> Result<Uses, DeviceError> {
        let now = self.exec.now();
        Ok(self.state().machine.completed(now))
    }

    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let end = self.exec.now().saturating_add(timeout.as_nanos() as u64);
        let mut slept = false;
        loop {
            let epoch = self.sooner.epoch();
            let now = self.exec.now();
            let until = {
                let mut state = self.state();
                let news = !state.machine.completed(now).done(seen);
                if news || now >= end {
                    // Until the next call nobody sleeps, so nobody needs to be told.
                    state.sleeps_until = 0;
                    drop(state);
                    if news && slept {
                        self.exec.wake_up();
                    }
                    return Ok(());
                }
                let until = state.machine.next_end().map_or(end, |at| at.min(end));
                state.sleeps_until = until;
                until
            };
            slept = true;
            self.sooner.wait(epoch, Some(Duration::from_nanos(until - now)));
        }
    }

    fn control(&self, bytes: u64, _: Direction) -> Result<Control, DeviceError> {
        let page_bytes = (bytes as u32).next_power_of_two().max(4096);
        let whole = Geometry { page_bytes, pages_per_sub: 1, pages_per_block: 1 };
        let memory = Arc::new(FakeHost::new(whole, 1, FakeHostOptions::default()));
        let mut state = self.state();
        let address = state.address_next;
        state.address_next += u64::from(page_bytes).next_multiple_of(self.geometry.frame_bytes());
        state.controls.retain(|_, (memory, _)| memory.strong_count() > 0);
        state.controls.insert(address, (Arc::downgrade(&memory), bytes));
        Ok(Control { memory, bytes, address })
    }

    fn control_at(&self, control: &Control) -> (RawBytes, u64) {
        (control.at(), control.address)
    }

    fn slot(&self, _: Direction, _: u32) -> RawBytes {
        self.host.untouched(self.profile.staging.slot_bytes)
    }

    fn read_frames(&self, _: u64, to: RawBytes) -> Result<(), DeviceError> {
        self.state().moved.bytes_out += to.len() as u64;
        self.exec.elapse(ns(to.len() as f64, self.model.d2h));
        Ok(())
    }

    fn write_frames(&self, _: u64, from: RawBytes) -> Result<(), DeviceError> {
        self.state().moved.bytes_in += from.len() as u64;
        self.exec.elapse(ns(from.len() as f64, self.model.h2d));
        Ok(())
    }

    fn budget_bytes(&self) -> Option<u64> {
        Some(self.profile.limit_bytes_default)
    }
}
