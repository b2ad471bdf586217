//! The CPU's side of managed memory: reading in order what the device has, against the fault mechanism alone; touches by several
//! threads; and memory that is on the host all along, against a `Vec`.
//!
//! The device's memory is readable by the CPU, so a copy home is a memcpy on both sides. Every word read is checked.

#[path = "../fault_latency/engines.rs"]
mod engines;
mod host;

use anyhow::{Result, ensure};
use clap::Parser;
use engines::{ENGINES, Engine};
use std::process::ExitCode;
use std::sync::Barrier;
use vkhmm::{Managed, Runtime};
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds, timed,
};
use vkhmm_floors::{Floor, Mechanism, Order, PAGE};

/// Measures what the CPU sees of managed memory: scans of what the device has, touches by several threads, and host memory.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const WORDS: usize = PAGE / 4;
const BLOCK: usize = 2 << 20;
/// The orders of a scan. A step of one page more than a granule meets another page of the next granule each time.
const ORDERS: [(&str, Order); 4] = [
    ("forward", Order::Forward),
    ("backward", Order::Backward),
    ("every 17th page", Order::Every(17)),
    ("every 513th page", Order::Every(513)),
];
/// Least part of the mechanism's speed that a scan has.
const SCAN_GOAL: f64 = 0.8;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("scan", cli.common);
    host::measure(&mut report)?;
    scans(&mut report)?;
    threads(&mut report)?;
    Ok(report.finish()?)
}

/// Runs `measure` for each engine that there is, and notes why others are left out.
fn each_engine(
    report: &mut Report,
    limit: u64,
    mut measure: impl FnMut(&mut Report, &Engine, &Runtime) -> Result<()>,
) -> Result<()> {
    for engine in &ENGINES {
        if !report.options().wants(engine.name) {
            continue;
        }
        match engine.open(limit)? {
            Ok(rt) => measure(report, engine, &rt)?,
            Err(reason) => report.note(format!("{}: left out, {reason}", engine.name)),
        }
    }
    Ok(())
}

fn scans(report: &mut Report) -> Result<()> {
    let bytes: usize = if report.options().quick { 32 << 20 } else { 256 << 20 };
    let runs = report.options().runs();
    let title = format!(
        "Reading a word per page of {} MiB that the device has, in the mechanism's own speed",
        bytes >> 20
    );
    let mut table = Table::new("device_resident", title, Class::L);
    let small =
        table.column(Column::baseline(Baseline::LowerBound, "ms").named("mechanism alone, 64 KiB a fault"));
    let large = table.column(Column::baseline(Baseline::LowerBound, "ms").named("2 MiB a fault"));
    let ours = table.column(Column::ours("vkhmm", "ms"));
    let of_small = table.column(Column::ours("of 64 KiB speed", ""));
    let of_large = table.column(Column::ours("of 2 MiB speed", ""));
    let faults = table.column(Column::ours("faults", ""));
    let mut gates = Vec::new();
    each_engine(report, bytes as u64, |report, engine, rt| {
        let Some(mechanism) = engine.floor else { return Ok(()) };
        let mut floor = Floor::new(mechanism, bytes)?;
        let mut memory = rt.alloc::<u32>(bytes / 4)?;
        for (name, order) in ORDERS {
            let name = format!("{} {name}", engine.name);
            if !report.options().wants(&name) {
                continue;
            }
            let found = rounds(runs, 1, |round| {
                let [a, b] = [64 << 10, 2 << 20].map(|granule| floor.scan(granule, order, bytes / PAGE));
                let [time, count] = scan(rt, &mut memory, order, round as u32 + 1)?;
                Ok::<_, anyhow::Error>([a, b, time, count])
            })?;
            let figure = |at: usize| Figure::of(&Sample::of(&found[at]));
            let [with_small, with_large] = [0, 1].map(|at| Figure::of(&ratios(&found[at], &found[2])));
            let row = Row::named(&name)
                .with(small, figure(0).scaled(1e3))
                .with(large, figure(1).scaled(1e3))
                .with(ours, figure(2).scaled(1e3))
                .with(of_small, with_small)
                .with(of_large, with_large)
                .with(faults, figure(3));
            table.row(row);
            // By `mprotect` R is changed in blocks: not compared with 64 KiB a touch, but where all is wanted.
            let by_blocks = mechanism == Mechanism::Segv && matches!(order, Order::Every(_));
            let compared = [("64 KiB", with_small, !by_blocks), ("2 MiB", with_large, true)];
            for (granule, ratio, _) in compared.into_iter().filter(|(.., fair)| *fair) {
                let name = format!("{name}: speed of the mechanism at {granule}");
                gates.push(Gate::new(name, Class::L, Goal::AtLeast(SCAN_GOAL), ratio.median));
            }
        }
        Ok(())
    })?;
    table.without_others("nothing is computed; an explicit program copies everything before it reads");
    report.table(table);
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(())
}

/// Seconds to read a word per page of what the device has, and how many faults that made.
///
/// # Errors
/// Wrong bytes; the runtime's own errors.
fn scan(rt: &Runtime, memory: &mut Managed<u32>, order: Order, word: u32) -> Result<[f64; 2]> {
    rt.fill(memory.overwrite(), word)?.wait()?;
    rt.sync()?;
    let before = rt.stats();
    let words: &[u32] = memory;
    let pages = words.len() / WORDS;
    let (wrong, time) = timed(|| order.pages(pages).filter(|page| words[page * WORDS] != word).count());
    let after = rt.stats().since(&before);
    ensure!(wrong == 0, "{wrong} of {pages} pages had wrong bytes");
    ensure!(after.out_bytes() > 0, "nothing came home, so nothing was measured");
    Ok([time, (after.faults_read + after.faults_write) as f64])
}

/// Touches of single pages, one per block, by several threads.
fn threads(report: &mut Report) -> Result<()> {
    let blocks = if report.options().quick { 64 } else { 128 };
    let runs = report.options().runs();
    let mut table =
        Table::new("threads", "Touches of 4 KiB by several threads, each page alone in its block", Class::L);
    let alone = table.column(Column::baseline(Baseline::LowerBound, "1/ms").named("mechanism alone"));
    let ours = table.column(Column::ours("vkhmm", "1/ms"));
    let ratio = table.column(Column::ours("of the mechanism's", ""));
    each_engine(report, (blocks * BLOCK) as u64, |report, engine, rt| {
        let Some(mechanism) = engine.floor else { return Ok(()) };
        let mut floor = Floor::new(mechanism, blocks * BLOCK)?;
        let mut memory = rt.alloc::<u32>(blocks * BLOCK / 4)?;
        let pages: Vec<usize> = (0..blocks).map(|block| block * (BLOCK / PAGE) + block % 64).collect();
        for count in [1, 2, 4, 8] {
            let name = format!("{} x{count}", engine.name);
            if !report.options().wants(&name) {
                continue;
            }
            let found = rounds(runs, 1, |round| {
                floor.device_writes(&pages);
                let alone = floor.faults_per_ms(count, PAGE, &pages);
                Ok::<_, anyhow::Error>([alone, touches(rt, &mut memory, &pages, count, round as u32 + 1)?])
            })?;
            let row = Row::named(&name)
                .with(alone, Figure::of(&Sample::of(&found[0])))
                .with(ours, Figure::of(&Sample::of(&found[1])))
                .with(ratio, Figure::of(&ratios(&found[1], &found[0])));
            table.row(row);
        }
        Ok(())
    })?;
    table.without_others("touches are served, nothing is computed");
    report.table(table);
    Ok(())
}

/// Touches per millisecond when so many threads share out these pages, which the device has.
///
/// # Errors
/// Wrong bytes; the runtime's own errors.
fn touches(
    rt: &Runtime,
    memory: &mut Managed<u32>,
    pages: &[usize],
    threads: usize,
    word: u32,
) -> Result<f64> {
    for page in pages {
        rt.fill(memory.slice_mut(page * WORDS..(page + 1) * WORDS).overwrite(), word)?;
    }
    rt.sync()?;
    let barrier = Barrier::new(threads + 1);
    let words: &[u32] = memory;
    let (seconds, right) = std::thread::scope(|scope| {
        let touch = |share: usize| {
            let (barrier, pages) =
                (&barrier, pages.chunks(pages.len().div_ceil(threads)).nth(share).unwrap_or_default());
            scope.spawn(move || {
                barrier.wait();
                let right = pages.iter().filter(|page| words[*page * WORDS] == word).count();
                barrier.wait();
                right
            })
        };
        let all: Vec<_> = (0..threads).map(touch).collect();
        barrier.wait();
        let (_, seconds) = timed(|| barrier.wait());
        let right = all.into_iter().map(|thread| thread.join().expect("a thread only reads")).sum::<usize>();
        (seconds, right)
    });
    ensure!(right == pages.len(), "{} of {} pages had wrong bytes", pages.len() - right, pages.len());
    Ok(pages.len() as f64 / (seconds * 1e3))
}
