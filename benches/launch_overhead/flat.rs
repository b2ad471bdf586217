//! What a launch costs in the engine alone, by how much its arguments are: real locks, no device (`nothing`).

use crate::nothing::{NoDevice, NoHost, NoPorts};
use crate::{Row, quartiles};
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Argument, BindTo, Config, Engine, LaunchSpec, RangeCell};
use vkhmm_port::{Fault, FaultSource, HostError};

type Range = Arc<RangeCell<NoPorts>>;

const BLOCK: u64 = 2 << 20;
const SIZES: [(u64, &str); 3] = [(1 << 20, "1 MiB"), (256 << 20, "256 MiB"), (64 << 30, "64 GiB")];
/// Launches under way at a time: what is measured is one after the other.
const BURST: usize = 64;
/// Likewise of launches that take holds, of which a block bears no more.
const BURST_HELD: usize = 64;

struct NoFaults;

impl FaultSource for NoFaults {
    fn next(&self, _: &mut Vec<Fault>, timeout: Option<Duration>) -> core::result::Result<(), HostError> {
        std::thread::sleep(timeout.unwrap_or(Duration::from_millis(100)));
        Ok(())
    }
    fn interrupt(&self) {}
}

/// An engine over nothing.
struct World {
    engine: Arc<Engine<NoPorts>>,
    device: Arc<NoDevice>,
}

impl World {
    fn new() -> Result<Self> {
        let host = Arc::new(NoHost::new(1 << 40));
        let device = Arc::new(NoDevice::new());
        let config = Config {
            device_memory_limit: Some(80 << 30),
            strict_io: false,
            import_bytes_min: u64::MAX,
            fault_threads: 1,
            ..Config::default()
        };
        let engine = Engine::new(vkhmm_linux::LinuxExec::new(), host, Arc::clone(&device), config);
        engine.start(Some(Arc::new(NoFaults)))?;
        Ok(Self { engine, device })
    }

    fn spec(arguments: &[(&Range, ByteRange, AccessKind)], label: &Arc<str>) -> LaunchSpec<NoPorts> {
        let argument = |(range, bytes, access): &(&Range, ByteRange, AccessKind)| Argument {
            range: Some(Arc::clone(range)),
            bytes: *bytes,
            access: *access,
            bind: BindTo::Binding,
        };
        LaunchSpec {
            kernel: Some(Arc::new(())),
            groups: [1, 1, 1],
            arguments: arguments.iter().map(argument).collect(),
            push: vec![0; 4],
            label: Arc::clone(label),
        }
    }

    /// Nanoseconds of each of `count` launches, a burst of them at a time, with the device at work on none that is measured.
    fn time(
        &self,
        arguments: &[(&Range, ByteRange, AccessKind)],
        count: usize,
        burst: usize,
    ) -> Result<Vec<f64>> {
        let label: Arc<str> = "measured".into();
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            self.device.hold(true);
            // The first finds an idle queue and is submitted at once.
            self.engine.launch(Self::spec(arguments, &label))?;
            for _ in 0..burst - 1 {
                let spec = Self::spec(arguments, &label);
                let start = Instant::now();
                let op = self.engine.launch(spec)?;
                times.push(start.elapsed().as_nanos() as f64);
                drop(op);
            }
            self.engine.flush();
            self.device.hold(false);
            self.engine.sync()?;
        }
        Ok(times)
    }
}

/// Rows: engine time per launch by size, whole and in part; then loops with a small argument in place.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (part, what) in [(false, "whole range"), (true, "all blocks but one")] {
        let mut least = None;
        for (bytes, name) in SIZES {
            let world = World::new()?;
            // The first block never comes to the device: what is asked is asked of the bitmaps.
            let range = world.engine.alloc(if part { bytes + BLOCK } else { bytes }, "x")?;
            let all = ByteRange { start: if part { BLOCK } else { 0 }, end: range.bytes() };
            let op =
                world.engine.launch(World::spec(&[(&range, all, AccessKind::Overwrite)], &"warm".into()))?;
            world.engine.wait(&op, None)?;
            let before = world.engine.stats();
            let times = quartiles(world.time(&[(&range, all, AccessKind::Write)], rounds, BURST)?);
            let passed = world.engine.stats().launches_resident - before.launches_resident;
            ensure!(passed as usize >= rounds, "only {passed} launches passed the gate");
            let median = times[1];
            let (first_bytes, first) = *least.get_or_insert((bytes, median));
            let slope = (median - first) / ((bytes - first_bytes) as f64 / BLOCK as f64).max(1.0);
            rows.push(Row::alone(format!("engine, {what}, {name}"), times, "ns").with(
                "ns per 2 MiB",
                slope,
                1.0,
            ));
            world.engine.free(&range);
            world.engine.stop();
        }
    }
    let world = World::new()?;
    let (large, small) = (world.engine.alloc(256 << 20, "x")?, world.engine.alloc(64 << 10, "small")?);
    let whole = |range: &Range| ByteRange { start: 0, end: range.bytes() };
    let op = world
        .engine
        .launch(World::spec(&[(&large, whole(&large), AccessKind::Overwrite)], &"warm".into()))?;
    world.engine.wait(&op, None)?;
    let resident = (&large, whole(&large), AccessKind::Write);
    let read = (&small, whole(&small), AccessKind::Read);
    let written = (&small, whole(&small), AccessKind::Write);
    let alone = quartiles(world.time(&[resident], rounds, BURST)?);
    for (what, arguments) in [
        ("with 64 KiB read in place", [resident, read]),
        ("with 64 KiB written in place", [resident, written]),
    ] {
        let times = quartiles(world.time(&arguments, rounds, BURST_HELD)?);
        let ratio = times[1] / alone[1];
        rows.push(Row::alone(format!("engine, 256 MiB {what}"), times, "ns").with("times alone", ratio, 3.0));
    }
    world.engine.stop();
    Ok(rows)
}
