//! What one touch of a page costs that the device has, by fault engine: p50 and p99, against the same mechanism with nothing of
//! vkhmm around it, and where the time goes.
//!
//! The device's memory is readable by the CPU, so a copy home is a memcpy on both sides. One page in each 2 MiB block is on the
//! device, and blocks are touched in an order that is no stream, so that every touch brings exactly its 4 KiB: the counters say so.

mod engines;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use engines::{ENGINES, Engine};
use std::process::ExitCode;
use vkhmm::{Managed, Runtime, TraceCause};
use vkhmm_bench::{
    Baseline, Class, Column, ColumnId, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios,
    rounds,
};
use vkhmm_floors::{Floor, PAGE, clock_ns, pin};

/// Measures touches of single pages that the device has, by fault engine, against the engine's mechanism alone.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const BLOCK: usize = 2 << 20;
const WORDS: usize = PAGE / 4;
/// Most that a touch may cost, in touches of the mechanism alone.
const GOAL: f64 = 1.25;
/// Where the time goes, in the order of [`Floor::parts`].
const PARTS: [&str; 3] = ["detect and plan", "copy", "map and wake"];

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("fault_latency", cli.common);
    let mut tables = Tables::new();
    let blocks = if report.options().quick { 64 } else { 128 };
    for engine in &ENGINES {
        for one_core in [true, false] {
            let name = if one_core { format!("{}, one core", engine.name) } else { engine.name.to_owned() };
            if report.options().wants(&name) {
                // Threads run where their maker may: so do the runtime's and the floor's.
                std::thread::scope(|scope| {
                    let measuring = scope.spawn(|| {
                        if one_core {
                            pin(0);
                        }
                        tables.measure(&mut report, engine, &name, blocks)
                    });
                    measuring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })?;
            }
        }
    }
    tables.finish(&mut report);
    Ok(report.finish()?)
}

/// The two tables, and the gates that go below them.
struct Tables {
    latency: Table,
    floor: [ColumnId; 2],
    ours: [ColumnId; 2],
    ratio: ColumnId,
    parts: Table,
    parts_floor: ColumnId,
    parts_ours: ColumnId,
    gates: Vec<Gate>,
}

impl Tables {
    fn new() -> Self {
        let title = "A touch of a 4 KiB page that the device has, by fault engine";
        let mut latency = Table::new("latency", title, Class::L);
        let floor = ["p50", "p99"].map(|part| {
            latency
                .column(Column::baseline(Baseline::LowerBound, "us").named(format!("mechanism alone {part}")))
        });
        let ours = ["p50", "p99"].map(|part| latency.column(Column::ours(format!("vkhmm {part}"), "us")));
        let ratio = latency.column(Column::ours("p50 / p50", ""));
        let title = "Where the time of a touch goes";
        let mut parts = Table::new("parts", title, Class::L);
        let parts_floor = parts.column(Column::baseline(Baseline::LowerBound, "us").named("mechanism alone"));
        let parts_ours = parts.column(Column::ours("vkhmm", "us"));
        Self { latency, floor, ours, ratio, parts, parts_floor, parts_ours, gates: Vec::new() }
    }

    fn measure(&mut self, report: &mut Report, engine: &Engine, name: &str, blocks: usize) -> Result<()> {
        let rt = match engine.open((blocks * BLOCK) as u64)? {
            Ok(rt) => rt,
            Err(reason) => {
                let row = Row::named(name).without(self.ratio, reason);
                self.latency.row(row);
                return Ok(());
            }
        };
        let Some(mechanism) = engine.floor else { return Ok(()) };
        let mut floor = Floor::new(mechanism, blocks * BLOCK)?;
        let mut memory = rt.alloc::<u32>(blocks * BLOCK / 4)?;
        // Warm as the floor's is: every page went to the device and home once, so no touch pays for a page of the system's.
        rt.fill(memory.overwrite(), 1)?;
        rt.sync()?;
        ensure!(memory.iter().all(|word| *word == 1), "the first fill did not come home");
        let (mut mine, mut parts) = (Vec::new(), [const { Vec::new() }; 3]);
        let mut floors = Vec::new();
        let mut floor_parts = [const { Vec::new() }; 3];
        let found = rounds(report.options().runs(), 1, |round| {
            let pages: Vec<usize> = (0..blocks).map(|n| place(order(n, blocks), round)).collect();
            floor.device_writes(&pages);
            let alone = Sample::of(&floor.latencies(&pages));
            floor.device_writes(&pages);
            for part in floor.parts(&pages) {
                floor_parts.iter_mut().zip(part).for_each(|(all, ns)| all.push(ns));
            }
            let touches = touch(&rt, &mut memory, blocks, round)?;
            let times: Vec<f64> = touches.iter().map(|parts| parts.iter().sum()).collect();
            for touch in &touches {
                parts.iter_mut().zip(touch).for_each(|(all, ns)| all.push(*ns));
            }
            let with = Sample::of(&times);
            floors.push(alone.quantile(0.99) * 1e6);
            mine.push(with.quantile(0.99) / 1e3);
            Ok::<_, anyhow::Error>([alone.median() * 1e6, with.median() / 1e3])
        })?;
        let ratio = Figure::of(&ratios(&found[1], &found[0]));
        let figure = |values: &[f64]| Figure::of(&Sample::of(values));
        let row = Row::named(name)
            .with(self.floor[0], figure(&found[0]))
            .with(self.floor[1], figure(&floors))
            .with(self.ours[0], figure(&found[1]))
            .with(self.ours[1], figure(&mine))
            .with(self.ratio, ratio);
        self.latency.row(row);
        for ((part, ours), floors) in PARTS.iter().zip(&parts).zip(&floor_parts) {
            let row = Row::named(format!("{name} {part}"))
                .with(self.parts_floor, figure(floors).scaled(1e-3))
                .with(self.parts_ours, figure(ours).scaled(1e-3));
            self.parts.row(row);
        }
        let name = format!("{name}: 4 KiB touch / mechanism alone");
        self.gates.push(Gate::new(name, Class::L, Goal::AtMost(GOAL), ratio.median));
        Ok(())
    }

    fn finish(mut self, report: &mut Report) {
        self.latency.without_others("a touch is served, nothing is computed");
        self.parts.without_others("a touch is served, nothing is computed");
        report.table(self.latency);
        report.table(self.parts);
        report.note(
            "Plan is what vkhmm's first part has above the mechanism's: finding the range, the policy, the state. Its copy is between \
             two events of its trace, and includes what is written down about it. Opening a page wakes its toucher in one call. \
             On one core a wake costs no other core's attention; without pinning the scheduler decides, and much else with it.",
        );
        self.gates.into_iter().for_each(|gate| report.gate(gate));
    }
}

/// The `n`-th block to be touched: no two in a row are neighbours.
fn order(n: usize, blocks: usize) -> usize {
    (n * 37 + 11) % blocks
}

/// The page of a block that is on the device in this round: another one each round.
fn place(block: usize, round: usize) -> usize {
    block * (BLOCK / PAGE) + (block * 5 + round) % (BLOCK / PAGE)
}

/// Puts one page of each block on the device, touches each, and says where the time of each touch went, in nanoseconds.
///
/// # Errors
/// Wrong bytes; a touch that brought more or less than its page; the runtime's own errors.
fn touch(rt: &Runtime, memory: &mut Managed<u32>, blocks: usize, round: usize) -> Result<Vec<[f64; 3]>> {
    let place = |block: usize| place(block, round) * WORDS;
    let word = |block: usize| (round as u32) << 16 | block as u32;
    for block in 0..blocks {
        let at = place(block);
        rt.fill(memory.slice_mut(at..at + WORDS).overwrite(), word(block))?;
    }
    rt.sync()?;
    let words: &[u32] = memory;
    let before = rt.stats();
    let mut spans = Vec::with_capacity(blocks);
    for n in 0..blocks {
        let block = order(n, blocks);
        let start = clock_ns();
        let have = words[place(block)];
        let end = clock_ns();
        ensure!(have == word(block), "block {block} has {have:#x} instead of {:#x}", word(block));
        spans.push((start, end));
    }
    let after = rt.stats().since(&before);
    ensure!(after.faults_read == blocks as u64, "{blocks} touches made {} faults", after.faults_read);
    ensure!(
        after.out_fault_bytes == (blocks * PAGE) as u64,
        "{blocks} touches brought {} bytes",
        after.out_fault_bytes
    );
    ensure!(after.path_cpu_bytes == after.out_fault_bytes, "the bytes did not come by the CPU");
    // Touches come one after the other, so what happened between two looks at the clock belongs to one.
    let events = rt.trace_events();
    let parts = spans.into_iter().map(|(start, end)| {
        let within = |wanted: fn(&TraceCause) -> bool| {
            let mut found =
                events.iter().filter(|event| (start..=end).contains(&event.at_ns) && wanted(&event.cause));
            found.next().map(|event| event.at_ns).context("a touch left no trace")
        };
        let begun = within(|cause| matches!(cause, TraceCause::ToHost(_)))?;
        let copied = within(|cause| matches!(cause, TraceCause::Touch))?;
        Ok([begun - start, copied - begun, end - copied].map(|ns| ns as f64))
    });
    parts.collect()
}
