//! What a launch costs in the engine alone, by how much its arguments are: real locks, no device (`nothing`).

use crate::nothing::{NoDevice, NoHost, NoPorts};
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_bench::{Class, Column, Figure, Gate, Goal, Report, Row, Sample, Table, ratios};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Argument, BindTo, Config, Engine, LaunchSpec, RangeCell};
use vkhmm_port::{Fault, FaultSource, HostError};

type Range = Arc<RangeCell<NoPorts>>;

const BLOCK: u64 = 2 << 20;
const SIZES: [(u64, &str); 3] = [(1 << 20, "1 MiB"), (256 << 20, "256 MiB"), (64 << 30, "64 GiB")];
/// Launches under way at a time: what is measured is one after the other.
const BURST: usize = 64;

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
    fn time(&self, arguments: &[(&Range, ByteRange, AccessKind)], count: usize) -> Result<Vec<f64>> {
        let label: Arc<str> = "measured".into();
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            self.device.hold(true);
            // The first finds an idle queue and is submitted at once.
            self.engine.launch(Self::spec(arguments, &label))?;
            for _ in 0..BURST - 1 {
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

/// Most that a launch may cost for each 2 MiB of its arguments, in nanoseconds.
const SLOPE_GOAL: f64 = 1.0;
/// Most that a small argument in place may make of a launch.
const SMALL_GOAL: f64 = 3.0;

/// Measures engine time per launch by size, whole and in part; then with a small argument in place.
///
/// # Errors
/// Launches did not pass the gate; the engine's own errors.
pub(crate) fn measure(report: &mut Report, rounds: usize) -> Result<()> {
    let mut table = Table::new("engine", "A launch in the engine alone, over no device", Class::L);
    let time = table.column(Column::ours("vkhmm", "ns"));
    let per_block = table.column(Column::ours("per 2 MiB above 1 MiB", "ns"));
    let of_alone = table.column(Column::ours("times without it", ""));
    table.without_others("no device does anything");
    let mut gates = Vec::new();
    for (part, what) in [(false, "whole range"), (true, "all blocks but one")] {
        if !report.options().wants(what) {
            continue;
        }
        let mut least = None;
        for (bytes, name) in SIZES {
            let times = resident(bytes, part, rounds)?;
            let figure = Figure::of(&Sample::of(&times));
            let row = Row::named(format!("{what}, {name}")).with(time, figure);
            let Some((first_bytes, first)) = least else {
                least = Some((bytes, figure.median));
                table.row(row);
                continue;
            };
            let slope = (figure.median - first) / ((bytes - first_bytes) as f64 / BLOCK as f64);
            table.row(row.with(per_block, Figure::exact(slope)));
            let name = format!("{what}, {name}: ns per 2 MiB");
            gates.push(Gate::new(name, Class::L, Goal::AtMost(SLOPE_GOAL), slope));
        }
    }
    let names = ["256 MiB, and 64 KiB read in place", "256 MiB, and 64 KiB written in place"];
    if names.iter().any(|name| report.options().wants(name)) {
        for (name, [alone, with]) in names.into_iter().zip(small(rounds)?) {
            let ratio = Figure::of(&ratios(&with, &alone));
            let row = Row::named(name).with(time, Figure::of(&Sample::of(&with))).with(of_alone, ratio);
            table.row(row);
            let name = format!("{name}: times without it");
            gates.push(Gate::new(name, Class::L, Goal::AtMost(SMALL_GOAL), ratio.median));
        }
    }
    report.table(table);
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(())
}

/// Nanoseconds of launches on so many resident bytes; `part`: of a range whose first block is not.
fn resident(bytes: u64, part: bool, rounds: usize) -> Result<Vec<f64>> {
    let world = World::new()?;
    // The first block never comes to the device: what is asked is asked of the bitmaps.
    let range = world.engine.alloc(if part { bytes + BLOCK } else { bytes }, "x")?;
    let all = ByteRange { start: if part { BLOCK } else { 0 }, end: range.bytes() };
    let op = world.engine.launch(World::spec(&[(&range, all, AccessKind::Overwrite)], &"warm".into()))?;
    world.engine.wait(&op, None)?;
    let before = world.engine.stats();
    let times = world.time(&[(&range, all, AccessKind::Write)], rounds)?;
    let passed = world.engine.stats().launches_resident - before.launches_resident;
    ensure!(passed as usize >= rounds, "only {passed} launches passed the gate");
    world.engine.free(&range);
    world.engine.stop();
    Ok(times)
}

/// Nanoseconds of launches on 256 MiB alone and with 64 KiB that are read in place; then those with 64 KiB written.
fn small(rounds: usize) -> Result<[[Vec<f64>; 2]; 2]> {
    let world = World::new()?;
    let (large, small) = (world.engine.alloc(256 << 20, "x")?, world.engine.alloc(64 << 10, "small")?);
    let whole = |range: &Range| ByteRange { start: 0, end: range.bytes() };
    let spec = World::spec(&[(&large, whole(&large), AccessKind::Overwrite)], &"warm".into());
    let op = world.engine.launch(spec)?;
    world.engine.wait(&op, None)?;
    let resident = (&large, whole(&large), AccessKind::Write);
    let with = |access| {
        let alone = world.time(&[resident], rounds)?;
        let with = world.time(&[resident, (&small, whole(&small), access)], rounds)?;
        Ok::<_, anyhow::Error>([alone, with])
    };
    let found = [with(AccessKind::Read)?, with(AccessKind::Write)?];
    world.engine.stop();
    Ok(found)
}
