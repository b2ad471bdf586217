//! Uploads: the host rewrites an array, a launch reads it, again and again; against staging that stays mapped, in which the host
//! writes the same words, and which is copied to the device and read by the same kernel. `./x bench upload [-- --quick]`.
//!
//! Each round does both ways, one after the other, and compares what the kernel saw.

mod raw;

use anyhow::{Result, ensure};
use clap::Parser;
use raw::Raw;
use std::process::ExitCode;
use vkhmm::{Grid, Kernel, Launch, Managed, Runtime};
use vkhmm_bench::{
    Baseline, Class, Column, ColumnId, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios,
    rounds, timed,
};

/// Measures rewriting an array on the host for launches that read it, against staging that stays mapped.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const CHECKSUM: &[u8] = include_bytes!("../../shaders/spv/checksum.spv");
/// Work groups: few, so that the kernel's time is reading.
const GROUPS: u32 = 1024;
const BYTES: usize = 256 << 20;
const BYTES_QUICK: usize = 32 << 20;
const ROUNDS: usize = 100;
const ROUNDS_QUICK: usize = 10;
/// Most bytes of one launch: what every device binds (Vulkan specification, "Required Limits": maxStorageBufferRange).
const PIECE: usize = 128 << 20;
/// Until the runtime has seen what is done here.
const WARM_UP: usize = 3;
/// Most that a round may cost, in rounds by way of staging.
const GOAL: f64 = 1.3;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("upload", cli.common);
    let (bytes, count) = if report.options().quick { (BYTES_QUICK, ROUNDS_QUICK) } else { (BYTES, ROUNDS) };
    let (mut uploads, mut gates) = (None, Vec::new());
    for (name, in_place_bytes) in [("through frames", 0), ("in place", bytes as u64)] {
        if !report.options().wants(name) {
            continue;
        }
        let mut rig = Rig::new(bytes, in_place_bytes)?;
        let uploads = uploads.get_or_insert_with(|| Uploads::new(bytes, rig.class));
        let found = rounds(count, WARM_UP, |round| rig.round(round as u32))?;
        gates.push(uploads.row(name, &found, rig.class));
    }
    uploads.into_iter().for_each(|uploads| report.table(uploads.table));
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(report.finish()?)
}

/// Both ways on one device.
struct Rig {
    rt: Runtime,
    class: Class,
    checksum: Kernel,
    words: Managed<u32>,
    sum: Managed<u32>,
    raw: Raw,
}

impl Rig {
    fn new(bytes: usize, in_place_bytes: u64) -> Result<Self> {
        let builder = Runtime::builder().device_memory_limit(2 * bytes as u64);
        let rt = builder.in_place_bytes(in_place_bytes).strict_io(false).build()?;
        // SAFETY: shipped with vkhmm: reads what it is given first, adds to the first word of what it is given second.
        let checksum = unsafe { rt.kernel(CHECKSUM)? };
        let found = &rt.doctor().device;
        let chosen = &found.candidates[found.chosen];
        let raw = Raw::open(&chosen.name, bytes, CHECKSUM, GROUPS)?;
        let class = Class::of_device(&chosen.kind);
        let (words, sum) = (rt.alloc(bytes / 4)?, rt.alloc(1)?);
        Ok(Self { rt, class, checksum, words, sum, raw })
    }

    /// Seconds of a round, of its stores alone, and faults; then seconds of a round by way of staging, and of its stores.
    ///
    /// # Errors
    /// The two kernels saw different words, or others than were written; a byte went twice; the runtime's own errors.
    fn round(&mut self, round: u32) -> Result<[f64; 5]> {
        let before = self.rt.stats();
        let (launched, ours) = timed(|| {
            let ((), stores) = timed(|| write(&mut self.words, round));
            let mut launch = None;
            for from in (0..self.words.len()).step_by(PIECE / 4) {
                let to = self.words.len().min(from + PIECE / 4);
                let words = self.words.slice(from..to);
                let arguments = (words.read(), self.sum.write());
                // All add to one word: the last is over when all are.
                launch = Some(self.rt.launch(&self.checksum, Grid::groups(GROUPS, 1, 1), arguments)?);
            }
            launch.iter().try_for_each(Launch::wait)?;
            Ok::<_, vkhmm::Error>(stores)
        });
        let stores = launched?;
        let stats = self.rt.stats().since(&before);
        let total = self.sum[0];
        let moved = stats.in_bytes();
        let bytes = self.words.len() as u64 * 4;
        ensure!(moved <= bytes + 4096, "round {round}: {moved} bytes moved in instead of {bytes}");
        let (launched, plain) = timed(|| {
            let ((), stores) = timed(|| write(self.raw.staging(), round));
            self.raw.run().map(|total| (stores, total))
        });
        let (plain_stores, expected) = launched?;
        ensure!(total == expected, "round {round}: sums {total:#x} and {expected:#x}");
        if round == 0 {
            let pieces = self.words.chunks(PIECE / 4);
            let have = pieces.fold(0, |sum, words| words.iter().zip(0_u32..).fold(sum, checksum));
            ensure!(total == have, "the kernel saw {total:#x} instead of {have:#x}");
        }
        Ok([ours, stores, (stats.faults_read + stats.faults_write) as f64, plain, plain_stores])
    }
}

/// What the host does each round: every word is another one.
fn write(words: &mut [u32], round: u32) {
    words.iter_mut().zip(0_u32..).for_each(|(word, n)| *word = n.wrapping_mul(3) ^ round);
}

/// What the kernel adds for each word.
fn checksum(sum: u32, (word, n): (&u32, u32)) -> u32 {
    sum.wrapping_add((word ^ n.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b))
}

/// The table.
struct Uploads {
    table: Table,
    plain: ColumnId,
    plain_stores: ColumnId,
    ours: ColumnId,
    stores: ColumnId,
    ratio: ColumnId,
    faults: ColumnId,
}

impl Uploads {
    fn new(bytes: usize, class: Class) -> Self {
        let title = format!("The host rewrites {} MiB, a launch reads them", bytes >> 20);
        let mut table = Table::new("upload", title, class);
        let staging = |name: &str| Column::baseline(Baseline::GoodExplicit, "ms").named(name);
        let plain = table.column(staging("mapped staging"));
        let plain_stores = table.column(staging("its stores"));
        let ours = table.column(Column::ours("vkhmm", "ms"));
        let stores = table.column(Column::ours("its stores", "ms"));
        let ratio = table.column(Column::ours("times staging", ""));
        let faults = table.column(Column::ours("faults a round", ""));
        table.without_others("the same words are written in the place they are copied from");
        Self { table, plain, plain_stores, ours, stores, ratio, faults }
    }

    fn row(&mut self, name: &str, found: &[Vec<f64>; 5], class: Class) -> Gate {
        let figure = |at: usize| Figure::of(&Sample::of(&found[at]));
        let ratio = Figure::of(&ratios(&found[0], &found[3]));
        let row = Row::named(name)
            .with(self.plain, figure(3).scaled(1e3))
            .with(self.plain_stores, figure(4).scaled(1e3))
            .with(self.ours, figure(0).scaled(1e3))
            .with(self.stores, figure(1).scaled(1e3))
            .with(self.ratio, ratio)
            .with(self.faults, figure(2));
        self.table.row(row);
        Gate::new(format!("{name}: a round / mapped staging"), class, Goal::AtMost(GOAL), ratio.median)
    }
}
