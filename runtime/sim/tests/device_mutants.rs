//! The device suite of `port` is worth something: each of these broken devices is caught by it.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry};
use vkhmm_core::uses::Uses;
use vkhmm_port::conformance::{DeviceUnderTest, run_device};
use vkhmm_port::fake::{FakeBuffer, FakeDeviceOptions, FakeImport, FakeKernel};
use vkhmm_port::{
    BoundRange, Command, Device, DeviceError, DeviceProfile, Direction, HostMemory, RawBytes, Region, Role,
    Source, Submission, Target,
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
}

struct Broken {
    device: SimDevice,
    mistake: Mistake,
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
            Command::Barrier => Command::Barrier,
            Command::Dispatch { kernel, bindings, push, groups, elapsed_ns } => {
                let from_zero = self.mistake == Mistake::KernelAtOffsetZero;
                let bound = |b: BoundRange<Self>| BoundRange {
                    buffer: b.buffer,
                    offset: if from_zero { 0 } else { b.offset },
                    bytes: b.bytes,
                };
                let bindings = bindings.into_iter().map(bound).collect();
                Command::Dispatch { kernel, bindings, push, groups, elapsed_ns }
            }
        }
    }
}

impl Device for Broken {
    type Kernel = FakeKernel;
    type Buffer = FakeBuffer;
    type Import = FakeImport;

    fn profile(&self) -> &DeviceProfile {
        self.device.profile()
    }

    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError> {
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

    fn address(&self, buffer: &FakeBuffer) -> u64 {
        if self.mistake == Mistake::SameAddress { 4096 } else { self.device.address(buffer) }
    }

    fn import(&self, bytes: RawBytes) -> Result<FakeImport, DeviceError> {
        self.device.import(bytes)
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        let mut commands: Vec<_> = submission.commands.into_iter().map(|c| self.command(c)).collect();
        if self.mistake == Mistake::OneDispatchOnly {
            let mut seen = 0;
            commands.retain(|c| {
                seen += usize::from(matches!(c, Command::Dispatch { .. }));
                !matches!(c, Command::Dispatch { .. }) || seen == 1
            });
        }
        let waits = if self.mistake == Mistake::WaitsIgnored { Uses::NONE } else { submission.waits };
        self.device.submit(role, Submission { waits, commands, signals: submission.signals })
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

    fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        let direction = if self.mistake == Mistake::InAndOutShareSlots { Direction::In } else { direction };
        self.device.slot(direction, slot)
    }

    fn read_frames(&self, device_offset: u64, to: RawBytes) -> Result<(), DeviceError> {
        self.device.read_frames(device_offset, to)
    }

    fn write_frames(&self, device_offset: u64, from: RawBytes) -> Result<(), DeviceError> {
        self.device.write_frames(device_offset, from)
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

/// What the suite says about a device with this mistake, under one of a few schedules.
fn verdict(mistake: Mistake) -> Option<String> {
    let suite = move |exec: &SimExec| {
        run_device(exec, &|| {
            let options =
                FakeDeviceOptions { delay: Duration::from_micros(5), ..FakeDeviceOptions::default() };
            let memory = vkhmm_sim::host(exec, SMALL, 32, Default::default());
            let next = AtomicU64::new(0);
            DeviceUnderTest {
                geometry: SMALL,
                device: Broken { device: device(exec, SMALL, options), mistake },
                xor: Some(Arc::new(xor())),
                importable: Some(Box::new(move |bytes| {
                    let start = next.fetch_add(bytes, Ordering::Relaxed);
                    memory.alias((start..start + bytes).into())
                })),
            }
        });
    };
    (1..4).find_map(|seed| run(seed, suite).failure)
}

#[test]
fn every_mistake_is_caught() {
    assert_eq!(verdict(Mistake::None), None);
    let mistakes = [
        Mistake::WaitsIgnored,
        Mistake::TicketBeforeWork,
        Mistake::FirstRegionOnly,
        Mistake::FillInBytes,
        Mistake::MoveBackwards,
        Mistake::InAndOutShareSlots,
        Mistake::OutBySlotZeroOnly,
        Mistake::KernelAtOffsetZero,
        Mistake::OneDispatchOnly,
        Mistake::WaitNeverEnds,
        Mistake::SameAddress,
        Mistake::ShrinkNothing,
    ];
    for mistake in mistakes {
        assert!(verdict(mistake).is_some(), "the suite lets {mistake:?} pass");
    }
}
