//! The device suite of `port` is worth something: each of these broken devices is caught by it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry};
use vkhmm_core::uses::Uses;
use vkhmm_port::conformance::{DeviceUnderTest, Foreign, run_device};
use vkhmm_port::fake::{FakeBuffer, FakeControl, FakeDeviceOptions, FakeImport, FakeKernel, FakeSemaphore};
use vkhmm_port::{
    Bind, BoundRange, Command, Device, DeviceError, DeviceProfile, Direction, HostMemory, RawBytes, Region,
    Role, Source, SparseProfile, Submission, Target,
};
use vkhmm_sim::{SimDevice, SimExec, device, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    WaitsIgnored,
    TicketBeforeWork,
    FirstRegionOnly,
    FillInBytes,
    MoveBackwards,
    InAndOutShareSlots,
    OutBySlotZeroOnly,
    KernelAtOffsetZero,
    OneDispatchOnly,
    WaitNeverEnds,
    SameAddress,
    ShrinkNothing,
    ProfileChanges,
    GrowsBeyondItsPieces,
    GrowTakesThoughRefused,
    OneSlotTooMany,
    SlotZeroAlways,
    ImportsThoughItSaysNo,
    ReadsThoughItSaysNo,
    WritesThoughItSaysNo,
    CpuWritesLandNowhere,
    CpuWritesBesideItsPlace,
    NoBindQueue,
    ForeignIgnored,
    FirstForeignOnly,
    GroupsBreakIt,
    TimeIsNonsense,
    BindIgnored,
    UnbindIgnored,
    BindsItsNeighbour,
    BindNotOrdered,
    AddressChanges,
    ReservesThoughItSaysNo,
    ControlIsDirty,
    ControlIsUnaligned,
    ControlIsOne,
}

struct Broken {
    device: SimDevice,
    mistake: Mistake,
    /// What it says it is.
    profile: DeviceProfile,
    grown: AtomicBool,
    binds: AtomicU64,
}

impl Broken {
    fn regions(&self, mut regions: Vec<Region>) -> Vec<Region> {
        if self.mistake == Mistake::FirstRegionOnly {
            regions.truncate(1);
        }
        regions
    }

    fn command(&self, command: Command<Self>) -> Command<SimDevice> {
        match command {
            Command::CopyIn { source, regions } => {
                let source = match source {
                    Source::Import(import) => Source::Import(import),
                    Source::Slot(_) if self.mistake == Mistake::SlotZeroAlways => Source::Slot(0),
                    Source::Slot(slot) => Source::Slot(slot),
                };
                Command::CopyIn { source, regions: self.regions(regions) }
            }
            Command::CopyOut { target, regions } => {
                let target = match target {
                    Target::Import(_) if self.mistake == Mistake::OutBySlotZeroOnly => Target::Slot(0),
                    Target::Import(import) => Target::Import(import),
                    Target::Slot(slot) => Target::Slot(slot),
                };
                Command::CopyOut { target, regions: self.regions(regions) }
            }
            Command::Move { mut regions } => {
                if self.mistake == Mistake::MoveBackwards {
                    for r in &mut regions {
                        (r.host_offset, r.device_offset) = (r.device_offset, r.host_offset);
                    }
                }
                Command::Move { regions: self.regions(regions) }
            }
            Command::Fill { device_offset, bytes, word } => {
                let word =
                    if self.mistake == Mistake::FillInBytes { (word & 0xFF) * 0x0101_0101 } else { word };
                Command::Fill { device_offset, bytes, word }
            }
            Command::Bind { binds } => {
                self.binds.fetch_add(1, Ordering::Relaxed);
                let kept = |bind: &Bind<Self>| match self.mistake {
                    Mistake::BindIgnored => bind.frames.is_none(),
                    Mistake::UnbindIgnored => bind.frames.is_some(),
                    _ => true,
                };
                let bind = |Bind { buffer, offset, bytes, frames }| {
                    let beside = self.mistake == Mistake::BindsItsNeighbour && bytes == SMALL.frame_bytes();
                    let frames = frames.map(|first: FrameIndex| FrameIndex(first.0 ^ u32::from(beside)));
                    Bind { buffer, offset, bytes, frames }
                };
                Command::Bind { binds: binds.into_iter().filter(kept).map(bind).collect() }
            }
            Command::Barrier => Command::Barrier,
            Command::Dispatch { kernel, bindings, mut push, groups, elapsed_ns } => {
                let from_zero = self.mistake == Mistake::KernelAtOffsetZero;
                let bound = |b: BoundRange<Self>| BoundRange {
                    buffer: b.buffer,
                    offset: if from_zero { 0 } else { b.offset },
                    bytes: b.bytes,
                };
                let bindings: Vec<_> = bindings.into_iter().map(bound).collect();
                if self.mistake == Mistake::GroupsBreakIt && groups[0] > 1 {
                    push[..4].fill(0);
                }
                if self.mistake == Mistake::TimeIsNonsense {
                    elapsed_ns.store(u64::MAX, Ordering::Release);
                    let elapsed_ns = Arc::default();
                    return Command::Dispatch { kernel, bindings, push, groups, elapsed_ns };
                }
                Command::Dispatch { kernel, bindings, push, groups, elapsed_ns }
            }
        }
    }
}

impl Device for Broken {
    type Kernel = FakeKernel;
    type Buffer = FakeBuffer;
    type Import = FakeImport;
    type Semaphore = FakeSemaphore;
    type Control = FakeControl;

    fn profile(&self) -> &DeviceProfile {
        let other = self.mistake == Mistake::ProfileChanges && self.grown.load(Ordering::Acquire);
        if other { self.device.profile() } else { &self.profile }
    }

    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError> {
        self.grown.store(true, Ordering::Release);
        let too_long = u64::from(count) * SMALL.frame_bytes() > self.profile.piece_bytes_max;
        if too_long && self.mistake == Mistake::GrowTakesThoughRefused {
            self.device.grow(first, 1)?;
        }
        self.device.grow(first, count)
    }

    fn shrink(&self, first: FrameIndex) {
        if self.mistake != Mistake::ShrinkNothing {
            self.device.shrink(first);
        }
    }

    fn buffer(&self, run: FrameRun) -> Result<FakeBuffer, DeviceError> {
        self.device.buffer(run)
    }

    fn reserve(&self, bytes: u64) -> Result<FakeBuffer, DeviceError> {
        assert!(self.profile.sparse.is_some() || self.mistake == Mistake::ReservesThoughItSaysNo);
        self.device.reserve(bytes)
    }

    fn in_place(&self, import: &Arc<FakeImport>) -> Result<FakeBuffer, DeviceError> {
        self.device.in_place(import)
    }

    fn address(&self, buffer: &FakeBuffer) -> u64 {
        match self.mistake {
            Mistake::SameAddress => 4096,
            Mistake::AddressChanges => self.device.address(buffer) + 64 * self.binds.load(Ordering::Relaxed),
            _ => self.device.address(buffer),
        }
    }

    fn import(&self, bytes: RawBytes) -> Result<FakeImport, DeviceError> {
        assert!(self.profile.import.is_some() || self.mistake == Mistake::ImportsThoughItSaysNo);
        self.device.import(bytes)
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        if self.mistake == Mistake::NoBindQueue && role == Role::Bind {
            return Err(DeviceError::Refused { operation: "submit", message: "no such queue".to_owned() });
        }
        let mut commands: Vec<_> = submission.commands.into_iter().map(|c| self.command(c)).collect();
        if self.mistake == Mistake::OneDispatchOnly {
            let mut seen = 0;
            commands.retain(|c| {
                seen += usize::from(matches!(c, Command::Dispatch { .. }));
                !matches!(c, Command::Dispatch { .. }) || seen == 1
            });
        }
        let alone = self.mistake == Mistake::WaitsIgnored
            || self.mistake == Mistake::BindNotOrdered && role == Role::Bind;
        let waits = if alone { Uses::NONE } else { submission.waits };
        let mut foreign = submission.foreign;
        match self.mistake {
            Mistake::ForeignIgnored => foreign.clear(),
            Mistake::FirstForeignOnly => foreign.truncate(1),
            _ => {}
        }
        self.device.submit(role, Submission { waits, foreign, commands, signals: submission.signals })
    }

    fn completed(&self) -> Result<Uses, DeviceError> {
        let mut completed = self.device.completed()?;
        if self.mistake == Mistake::TicketBeforeWork {
            // One too many, wherever something has completed.
            let ahead: Vec<_> = completed.iter().collect();
            ahead.into_iter().for_each(|mut t| {
                t.value += 1;
                completed.add(t);
            });
        }
        Ok(completed)
    }

    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let timeout =
            if self.mistake == Mistake::WaitNeverEnds { Duration::from_secs(1 << 20) } else { timeout };
        self.device.wait(seen, timeout)
    }

    fn control(&self, bytes: u64, direction: Direction) -> Result<FakeControl, DeviceError> {
        let control = self.device.control(bytes, direction)?;
        if self.mistake == Mistake::ControlIsDirty {
            self.device.control_at(&control).0.fill(0xDE);
        }
        Ok(control)
    }

    fn control_at(&self, control: &FakeControl) -> (RawBytes, u64) {
        let (view, address) = self.device.control_at(control);
        match self.mistake {
            Mistake::ControlIsUnaligned => (view, address + 16),
            Mistake::ControlIsOne => (view, 1 << 20),
            _ => (view, address),
        }
    }

    fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        let direction = if self.mistake == Mistake::InAndOutShareSlots { Direction::In } else { direction };
        let slots = self.profile.staging.slots;
        let slot = if self.mistake == Mistake::OneSlotTooMany { slot.min(slots - 1) } else { slot };
        self.device.slot(direction, slot)
    }

    fn read_frames(&self, device_offset: u64, to: RawBytes) -> Result<(), DeviceError> {
        assert!(self.profile.memory.cpu_reads || self.mistake == Mistake::ReadsThoughItSaysNo);
        self.device.read_frames(device_offset, to)
    }

    fn write_frames(&self, device_offset: u64, from: RawBytes) -> Result<(), DeviceError> {
        assert!(self.profile.memory.cpu_writes || self.mistake == Mistake::WritesThoughItSaysNo);
        match self.mistake {
            Mistake::CpuWritesLandNowhere => Ok(()),
            Mistake::CpuWritesBesideItsPlace => {
                self.device.write_frames(device_offset - SMALL.frame_bytes(), from)?;
                self.device.write_frames(device_offset, from)
            }
            _ => self.device.write_frames(device_offset, from),
        }
    }

    fn budget_bytes(&self) -> Option<u64> {
        self.device.budget_bytes()
    }
}

/// 32-bit words xor a number, as the suite asks for.
fn xor() -> FakeKernel {
    FakeKernel::new(|bindings, push, _groups| {
        let number = |at: usize| u32::from_le_bytes(push[at..at + 4].try_into().expect("four bytes"));
        for i in 0..number(0) as usize {
            let word = bindings[0].slice(4 * i, 4);
            let old = u32::from_le_bytes(word.to_vec().try_into().expect("four bytes"));
            word.write(&(old ^ number(4)).to_le_bytes());
        }
    })
}

/// What a device with this mistake is, and what it says that it is.
fn broken(exec: &SimExec, mistake: Mistake) -> Broken {
    let (coherent, discrete) = (MemoryKind::DeviceCoherent, MemoryKind::DevicePrivate);
    let kind = match mistake {
        Mistake::ReadsThoughItSaysNo
        | Mistake::WritesThoughItSaysNo
        | Mistake::CpuWritesLandNowhere
        | Mistake::CpuWritesBesideItsPlace => coherent,
        _ => discrete,
    };
    let options = FakeDeviceOptions {
        kind,
        piece_frames_max: if mistake == Mistake::GrowsBeyondItsPieces { 128 } else { 64 },
        delay: Duration::from_micros(5),
        sparse: Some(SparseProfile { page_bytes: 64, buffer_bytes_max: 1 << 20, space_bytes: 1 << 20 }),
        ..FakeDeviceOptions::default()
    };
    let says = match mistake {
        Mistake::ReadsThoughItSaysNo | Mistake::WritesThoughItSaysNo => {
            FakeDeviceOptions { kind: discrete, ..options.clone() }
        }
        Mistake::ReservesThoughItSaysNo => FakeDeviceOptions { sparse: None, ..options.clone() },
        Mistake::ImportsThoughItSaysNo => FakeDeviceOptions { import: None, ..options.clone() },
        Mistake::GrowsBeyondItsPieces => FakeDeviceOptions { piece_frames_max: 64, ..options.clone() },
        Mistake::ProfileChanges => FakeDeviceOptions { regions_max: 3, ..options.clone() },
        _ => options.clone(),
    };
    let profile = device(exec, SMALL, says).profile().clone();
    let device = device(exec, SMALL, options);
    Broken { device, mistake, profile, grown: AtomicBool::new(false), binds: AtomicU64::new(0) }
}

/// What the suite says about a device with this mistake, under one of a few schedules.
fn verdict(mistake: Mistake) -> Option<String> {
    let suite = move |exec: &SimExec| {
        run_device(exec, &|| {
            let memory = vkhmm_sim::host(exec, SMALL, 32, Default::default());
            let next = AtomicU64::new(0);
            DeviceUnderTest {
                geometry: SMALL,
                device: broken(exec, mistake),
                xor: Arc::new(xor()),
                importable: Box::new(move |bytes| {
                    let start = next.fetch_add(bytes, Ordering::Relaxed);
                    memory.alias((start..start + bytes).into())
                }),
                semaphore: Box::new(|| {
                    let theirs = FakeSemaphore::default();
                    Foreign { semaphore: theirs.clone(), signal: Box::new(move |value| theirs.signal(value)) }
                }),
            }
        });
    };
    (1..4).find_map(|seed| run(seed, suite).failure)
}

#[test]
fn every_mistake_is_caught() {
    assert_eq!(verdict(Mistake::None), None);
    // The case that must speak, for those of one case alone.
    let mistakes = [
        (Mistake::WaitsIgnored, ""),
        (Mistake::TicketBeforeWork, ""),
        (Mistake::FirstRegionOnly, ""),
        (Mistake::FillInBytes, ""),
        (Mistake::MoveBackwards, ""),
        (Mistake::InAndOutShareSlots, ""),
        (Mistake::OutBySlotZeroOnly, ""),
        (Mistake::KernelAtOffsetZero, ""),
        (Mistake::OneDispatchOnly, ""),
        (Mistake::WaitNeverEnds, ""),
        (Mistake::SameAddress, ""),
        (Mistake::ShrinkNothing, ""),
        (Mistake::ProfileChanges, "the profile is sound and does not change"),
        (Mistake::GrowsBeyondItsPieces, "a piece too long is refused"),
        (Mistake::GrowTakesThoughRefused, "a piece too long is refused"),
        (Mistake::OneSlotTooMany, "there is no slot past the last"),
        (Mistake::SlotZeroAlways, "copies use the slot they name"),
        (Mistake::ImportsThoughItSaysNo, "bytes go in and out by import"),
        (Mistake::ReadsThoughItSaysNo, "the CPU reads frames, or is refused"),
        (Mistake::WritesThoughItSaysNo, "the CPU writes frames, or is refused"),
        (Mistake::CpuWritesLandNowhere, "the CPU writes frames, or is refused"),
        (Mistake::CpuWritesBesideItsPlace, "the CPU writes frames, or is refused"),
        (Mistake::NoBindQueue, "an empty submission reaches its ticket"),
        (Mistake::ForeignIgnored, "a release waits for an application's value"),
        (Mistake::FirstForeignOnly, "a release waits for every value it names"),
        (Mistake::GroupsBreakIt, "a kernel runs in as many groups as named"),
        (Mistake::TimeIsNonsense, "a kernel's time is told once it is over"),
        (Mistake::BindIgnored, "not resident"),
        (Mistake::UnbindIgnored, "of a sparse buffer is bound"),
        (Mistake::BindsItsNeighbour, "kernels use what is bound"),
        (Mistake::BindNotOrdered, ""),
        (Mistake::AddressChanges, "the address of a sparse buffer stays"),
        (Mistake::ReservesThoughItSaysNo, "kernels use what is bound"),
        (Mistake::ControlIsDirty, "control memory is apart"),
        (Mistake::ControlIsUnaligned, "control memory is apart"),
        (Mistake::ControlIsOne, "control memory is apart"),
    ];
    for (mistake, case) in mistakes {
        let said = verdict(mistake).unwrap_or_else(|| panic!("the suite lets {mistake:?} pass"));
        assert!(said.contains(case), "{mistake:?} is caught by chance: {said}");
    }
}
