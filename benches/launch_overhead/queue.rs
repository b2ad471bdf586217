//! Launches through the public interface against plain Vulkan: the call, the round trip, a hundred in a row.

use crate::raw::Raw;
use anyhow::{Result, ensure};
use std::time::Instant;
use vkhmm::{Grid, Kernel, Managed, Runtime};
use vkhmm_bench::{
    Baseline, Class, Column, ColumnId, Figure, Gate, Goal, Report, Row, Sample, Table, ratios,
};

const SCALE: &[u8] = include_bytes!("../../shaders/spv/scale.spv");
/// Floats that a launch works on: little, so that what is seen is the launch.
const ITEMS: usize = 1024;
const GROUPS: u32 = ITEMS as u32 / 64;
/// Launches under way at a time where nobody waits for each.
const BURST: usize = 20;
/// Launches in a row before a wait.
const ROW: usize = 100;
/// Most that a call may take above plain Vulkan's, in microseconds.
const CALL_GOAL: f64 = 2.0;
/// Most that a round trip may take, in plain Vulkan's.
const TRIP_GOAL: f64 = 1.05;
/// Most that a hundred launches may take, in command buffers of a hundred dispatches.
const ROW_GOAL: f64 = 1.10;

struct Rig {
    rt: Runtime,
    scale: Kernel,
    x: Managed<f32>,
    raw: Raw,
}

impl Rig {
    fn new(in_place_bytes: u64) -> Result<Self> {
        let rt = Runtime::builder()
            .device_memory_limit(64 << 20)
            .in_place_bytes(in_place_bytes)
            .strict_io(false)
            .build()?;
        // SAFETY: shipped with vkhmm: scales what it is given, and nothing else.
        let scale = unsafe { rt.kernel(SCALE)? };
        let mut x = rt.alloc::<f32>(ITEMS)?;
        x.fill(3.0);
        let raw = Raw::open(&device(&rt).0, ITEMS as u64 * 4, SCALE)?;
        let mut rig = Self { rt, scale, x, raw };
        for _ in 0..10 {
            rig.ours()?.wait()?;
            rig.raw.launch(GROUPS, 1, 1.0)?;
            rig.raw.wait()?;
        }
        Ok(rig)
    }

    fn ours(&mut self) -> Result<vkhmm::Launch> {
        Ok(self.rt.launch(&self.scale, Grid::groups(GROUPS, 1, 1), (self.x.write(), 1.0_f32))?)
    }

    /// Microseconds of calls that nobody waits for.
    fn pipelined(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        while times[0].len() < pairs {
            for _ in 0..BURST {
                let start = Instant::now();
                let launch = self.ours()?;
                times[0].push(us(start));
                drop(launch);
                let start = Instant::now();
                self.raw.launch(GROUPS, 1, 1.0)?;
                times[1].push(us(start));
            }
            self.rt.sync()?;
            self.raw.wait()?;
        }
        Ok(times)
    }

    /// Microseconds from launch until it is known to be over.
    fn round_trips(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..pairs {
            let start = Instant::now();
            self.ours()?.wait()?;
            times[0].push(us(start));
            let start = Instant::now();
            self.raw.launch(GROUPS, 1, 1.0)?;
            self.raw.wait()?;
            times[1].push(us(start));
        }
        Ok(times)
    }

    /// Microseconds of a hundred launches, each after the one before, and a wait; against one command buffer of as many.
    fn rows(&mut self, pairs: usize) -> Result<[Vec<f64>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..pairs {
            let start = Instant::now();
            let mut last = None;
            for _ in 0..ROW {
                last = Some(self.ours()?);
            }
            last.expect("a hundred launches").wait()?;
            times[0].push(us(start));
            let start = Instant::now();
            self.raw.launch(GROUPS, ROW, 1.0)?;
            self.raw.wait()?;
            times[1].push(us(start));
        }
        Ok(times)
    }
}

/// Name and class of the device.
fn device(rt: &Runtime) -> (String, Class) {
    let report = &rt.doctor().device;
    let chosen = &report.candidates[report.chosen];
    (chosen.name.clone(), Class::of_device(&chosen.kind))
}

fn us(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// The table, and the gates that go below it.
struct Launches {
    table: Table,
    class: Class,
    plain: ColumnId,
    ours: ColumnId,
    ratio: ColumnId,
    more: ColumnId,
    gates: Vec<Gate>,
}

impl Launches {
    fn new(device: &str, class: Class) -> Self {
        let mut table = Table::new("launch", format!("Launches of a small kernel on {device}"), class);
        let plain = table.column(Column::baseline(Baseline::GoodExplicit, "us").named("plain Vulkan"));
        let ours = table.column(Column::ours("vkhmm", "us"));
        let ratio = table.column(Column::ours("vkhmm / plain", ""));
        let more = table.column(Column::ours("median - median", "us"));
        table.without_others("the same kernel runs on bytes that lie where it wants them");
        Self { table, class, plain, ours, ratio, more, gates: Vec::new() }
    }

    /// A row, and the medians' difference and the median ratio.
    fn row(&mut self, name: &str, [ours, plain]: [Vec<f64>; 2]) -> (f64, f64) {
        let ratio = Figure::of(&ratios(&ours, &plain));
        let [ours, plain] = [ours, plain].map(|times| Figure::of(&Sample::of(&times)));
        let more = ours.median - plain.median;
        let row = Row::named(name).with(self.plain, plain).with(self.ours, ours).with(self.ratio, ratio);
        self.table.row(row.with(self.more, Figure::exact(more)));
        (more, ratio.median)
    }

    fn gate(&mut self, name: &str, goal: f64, measured: f64) {
        self.gates.push(Gate::new(name, self.class, Goal::AtMost(goal), measured));
    }
}

/// Measures the call, the round trip and a hundred in a row, with what the kernel works on in frames and in place.
///
/// # Errors
/// Something moved; wrong bytes; the runtime's own errors.
pub(crate) fn measure(report: &mut Report, pairs: usize) -> Result<()> {
    let mut launches: Option<Launches> = None;
    for (in_place_bytes, place) in [(0, "resident"), (64 << 10, "in place")] {
        let names = ["call, pipelined", "round trip", "100 in a row, then a wait"];
        let [call, trip, row] = names.map(|name| format!("{name}, {place}"));
        let [wants_call, wants_trip, wants_row] =
            [&call, &trip, &row].map(|name| report.options().wants(name));
        if !wants_call && !wants_trip && !wants_row {
            continue;
        }
        let mut rig = Rig::new(in_place_bytes)?;
        let (name, class) = device(&rig.rt);
        let launches = launches.get_or_insert_with(|| Launches::new(&name, class));
        let before = rig.rt.stats();
        if wants_call {
            let (more, _) = launches.row(&call, rig.pipelined(pairs)?);
            launches.gate(&format!("{call}: us above plain Vulkan"), CALL_GOAL, more);
        }
        if wants_trip {
            let (_, ratio) = launches.row(&trip, rig.round_trips(pairs)?);
            launches.gate(&format!("{trip}: times plain Vulkan"), TRIP_GOAL, ratio);
        }
        if wants_row {
            let (_, ratio) = launches.row(&row, rig.rows(pairs.div_ceil(10))?);
            launches.gate(&format!("{row}: times one command buffer"), ROW_GOAL, ratio);
        }
        let counted = rig.rt.stats().since(&before);
        ensure!(counted.in_bytes() == 0 && counted.out_bytes() == 0, "something moved: {counted}");
        ensure!(rig.x.iter().all(|v| *v == 3.0), "wrong bytes");
    }
    if let Some(launches) = launches {
        report.table(launches.table);
        launches.gates.into_iter().for_each(|gate| report.gate(gate));
    }
    Ok(())
}
