//! Bandwidth of migration: managed memory to the device and home again, against what programs do without it. The same bytes go
//! from the program's memory to the device's and back: by `vkCmdCopyBuffer` alone (the lower bound: its bytes lie in staging
//! already), naively, well, and managed. `./x bench [--quick] [--json] [--plot FILE.svg]`.
//!
//! Each round measures all ways one after the other, so that whatever disturbs one disturbs the others. Each round checks the
//! counters (every byte moved, none twice) and the bytes that came home. Cold runs each have fresh memory on both sides.

mod raw;
mod ways;

use anyhow::{Result, ensure};
use clap::Parser;
use raw::{Piece, Raw, Way};
use std::process::ExitCode;
use vkhmm::{PlacementKind, Runtime};
use vkhmm_bench::{
    Baseline, Class, Column, ColumnId, Figure, Gate, Goal, Options, Report, Row, Sample, Table, cold, ratios,
    rounds,
};
use ways::Shape;

/// Measures migration between host and device against a plain copy of the same bytes.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const SMALLEST: usize = 4 << 10;
const LARGEST: usize = 1 << 30;
const LARGEST_QUICK: usize = 16 << 20;
/// Cold runs make everything anew; larger ones than this take too long to be made nine times.
const LARGEST_COLD: usize = 64 << 20;
/// Arrays of a batch.
const BATCH: usize = 16;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let largest = if cli.common.quick { LARGEST_QUICK } else { LARGEST };
    let rt = Runtime::builder()
        .device_memory_limit(2 * largest as u64)
        .in_place_bytes(0)
        .strict_io(false)
        .build()?;
    let found = &rt.doctor().device;
    let chosen = &found.candidates[found.chosen];
    let mut bench = Bench {
        class: Class::of_device(&chosen.kind),
        device: chosen.name.clone(),
        report: Report::new("migrate_bw", cli.common),
        rt: rt.clone(),
    };
    bench.report.note(format!("Device: {}", bench.device));
    for way in [Way::In, Way::Out] {
        bench.sizes(way, largest)?;
    }
    bench.shapes(if largest == LARGEST { 64 << 20 } else { largest })?;
    Ok(bench.report.finish()?)
}

struct Bench {
    rt: Runtime,
    report: Report,
    class: Class,
    device: String,
}

/// The columns that every table has.
struct Columns {
    naive: ColumnId,
    good: ColumnId,
    copy: ColumnId,
    ours: ColumnId,
    of_good: ColumnId,
    of_copy: ColumnId,
}

impl Columns {
    fn new(table: &mut Table) -> Self {
        Self {
            naive: table.column(Column::baseline(Baseline::NaiveExplicit, "ms")),
            good: table.column(Column::baseline(Baseline::GoodExplicit, "ms")),
            copy: table.column(Column::baseline(Baseline::LowerBound, "ms").named("vkCmdCopyBuffer alone")),
            ours: table.column(Column::ours("prefetch", "ms")),
            of_good: table.column(Column::ours("prefetch / good explicit", "")),
            of_copy: table.column(Column::ours("prefetch / copy alone", "")),
        }
    }

    /// A row of what [`Bench::warm`] found.
    fn row(&self, row: Row, found: &[Vec<f64>; 5]) -> Row {
        let figure = |at: usize| Figure::of(&Sample::of(&found[at])).scaled(1e3);
        row.with(self.naive, figure(0))
            .with(self.good, figure(1))
            .with(self.copy, figure(2))
            .with(self.ours, figure(3))
            .with(self.of_good, Figure::of(&ratios(&found[3], &found[1])))
            .with(self.of_copy, Figure::of(&ratios(&found[3], &found[2])))
    }
}

impl Bench {
    fn sizes(&mut self, way: Way, largest: usize) -> Result<()> {
        let (name, title) = match way {
            Way::In => ("to_device", "Bytes of the program to the device"),
            Way::Out => ("to_host", "Bytes of the device to the program"),
        };
        let mut table = Table::new(name, title, self.class);
        let columns = Columns::new(&mut table);
        let touch = (way == Way::Out).then(|| {
            (
                table.column(Column::ours("touch in order", "ms")),
                table.column(Column::ours("touch / good explicit", "")),
            )
        });
        let cold_good = table.column(Column::baseline(Baseline::GoodExplicit, "ms").cold());
        let cold_ours = table.column(Column::ours("prefetch", "ms").cold());
        let sizes =
            std::iter::successors(Some(SMALLEST), |bytes| Some(bytes * 4)).take_while(|b| *b <= largest);
        let progress = self.report.progress(sizes.clone().count() as u64, title);
        let mut gate = None;
        for bytes in sizes {
            let label = size(bytes);
            progress.inc(1);
            if !self.report.options().wants(&format!("{name} {label}")) {
                continue;
            }
            let shape = Shape::contiguous(bytes);
            let found = self.warm(way, &shape)?;
            let mut row = columns.row(Row::at(&label, bytes as f64), &found);
            if let Some((time, ratio)) = touch {
                row = row.with(time, Figure::of(&Sample::of(&found[4])).scaled(1e3));
                row = row.with(ratio, Figure::of(&ratios(&found[4], &found[1])));
            }
            if bytes <= LARGEST_COLD {
                let [plain, ours] = self.cold(way, &shape)?;
                row = row
                    .with(cold_good, Figure::of(&plain).scaled(1e3))
                    .with(cold_ours, Figure::of(&ours).scaled(1e3));
            } else {
                let reason =
                    format!("more than {} made anew for each run takes too long", size(LARGEST_COLD));
                row = row.without(cold_good, &reason).without(cold_ours, &reason);
            }
            table.row(row);
            gate = Some((label, ratios(&found[3], &found[1]).median()));
        }
        progress.finish_and_clear();
        self.excuse(&mut table);
        self.report.table(table);
        if let Some((label, ratio)) = gate {
            let name = format!("{name} {label}: prefetch / good explicit");
            self.report.gate(Gate::new(name, self.class, Goal::AtMost(1.0 / 0.9), ratio));
        }
        Ok(())
    }

    fn shapes(&mut self, bytes: usize) -> Result<()> {
        for way in [Way::In, Way::Out] {
            let (name, what) =
                if way == Way::In { ("shapes_to_device", "to") } else { ("shapes_to_host", "from") };
            let mut table = Table::new(name, format!("Bytes {what} the device, by shape"), self.class);
            let columns = Columns::new(&mut table);
            let shapes = [
                ("contiguous", Shape::contiguous(bytes)),
                ("every other 64 KiB", Shape::strided(bytes, 64 << 10)),
                ("every 16th 4 KiB", Shape::strided(bytes / 8, 4 << 10).apart(16)),
                ("16 arrays", Shape::batched(bytes, BATCH)),
            ];
            for (label, shape) in shapes {
                if self.report.options().wants(&format!("{name} {label}")) {
                    let found = self.warm(way, &shape)?;
                    let label = format!("{label}: {}", size(shape.bytes()));
                    table.row(columns.row(Row::named(label), &found));
                }
            }
            self.excuse(&mut table);
            self.report.table(table);
        }
        Ok(())
    }

    fn excuse(&self, table: &mut Table) {
        table.without(Baseline::ZeroCopy, "nothing is computed, bytes that do not move are not measured");
        table.without(Baseline::InCore, "nothing is computed, bytes that are there already do not move");
    }

    /// Seconds of naive, good, copy alone, prefetch, touch; the last is prefetch again on the way in.
    fn warm(&self, way: Way, shape: &Shape) -> Result<[Vec<f64>; 5]> {
        let raw = Raw::open(&self.device, shape.span())?;
        let pieces = shape.pieces();
        let mut program = vec![0_u8; shape.span()];
        let mut memory = shape.alloc(&self.rt)?;
        rounds(self.report.options().runs(), 2, |round| {
            let word = round as u32 + 1;
            let naive = both_ways(&raw, way, &mut program, &pieces, word, Raw::naive)?;
            let good = both_ways(&raw, way, &mut program, &pieces, word, Raw::good)?;
            let copy = raw.copy(way, &pieces)?;
            let mut ours = |way_home: ways::Home| -> Result<f64> {
                let before = self.rt.stats();
                let time = match way {
                    Way::In => shape.prefetch_in(&mut memory)?,
                    Way::Out => shape.bring_home(&self.rt, &mut memory, word, way_home)?,
                };
                let moved = self.rt.stats().since(&before);
                let counted = if way == Way::In { moved.in_bytes() } else { moved.out_bytes() };
                ensure!(
                    memory.iter().all(|part| part.placement().kind != PlacementKind::InPlace),
                    "nothing migrates on this device, kernels work on host memory; VKHMM_IMPORT_LIMIT=0 makes them move it"
                );
                ensure!(
                    counted == shape.bytes() as u64,
                    "{way:?}: of {} bytes {counted} moved",
                    shape.bytes()
                );
                Ok(time)
            };
            let prefetch = ours(ways::Home::Prefetch)?;
            let touch = if way == Way::Out { ours(ways::Home::Touch)? } else { prefetch };
            Ok([naive, good, copy, prefetch, touch])
        })
    }

    /// Good explicit and prefetch with everything new.
    fn cold(&self, way: Way, shape: &Shape) -> Result<[Sample; 2]> {
        let (runs, pieces) = (vkhmm_bench::RUNS_MIN, shape.pieces());
        let plain = cold(
            runs,
            || Ok::<_, anyhow::Error>((Raw::open(&self.device, shape.span())?, vec![1_u8; shape.span()])),
            |(raw, mut program)| raw.good(way, &mut program, &pieces),
        )?;
        let ours = cold(
            runs,
            || shape.alloc(&self.rt),
            |mut memory| match way {
                Way::In => shape.prefetch_in(&mut memory),
                Way::Out => shape.bring_home(&self.rt, &mut memory, 7, ways::Home::Prefetch),
            },
        )?;
        Ok([Sample::of(&plain), Sample::of(&ours)])
    }
}

/// How [`Raw`] moves the program's bytes.
type Explicit = fn(&Raw, Way, &mut [u8], &[Piece]) -> Result<f64>;

/// Moves bytes in and out again by one explicit way, checks that they came back, and says how long the asked-for way took.
fn both_ways(
    raw: &Raw,
    way: Way,
    program: &mut [u8],
    pieces: &[Piece],
    word: u32,
    by: Explicit,
) -> Result<f64> {
    let byte = word as u8 | 0x40;
    pieces.iter().for_each(|piece| program[piece.at..piece.at + piece.bytes].fill(byte));
    let in_time = by(raw, Way::In, program, pieces)?;
    pieces.iter().for_each(|piece| program[piece.at..piece.at + piece.bytes].fill(0));
    let out_time = by(raw, Way::Out, program, pieces)?;
    let right =
        pieces.iter().all(|piece| program[piece.at..piece.at + piece.bytes].iter().all(|have| *have == byte));
    ensure!(right, "an explicit copy brought wrong bytes");
    Ok(if way == Way::In { in_time } else { out_time })
}

/// Bytes in words.
fn size(bytes: usize) -> String {
    match bytes {
        0x4000_0000.. => format!("{} GiB", bytes >> 30),
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}
