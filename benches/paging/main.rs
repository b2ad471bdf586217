//! Kernels that ask for what they touch: what finding addresses in tables costs, and what moves when they are given one, two and four
//! times the device's memory.
//!
//! Every result is compared with the CPU's, bit by bit, and so with that of the run where everything fits. Bytes moved are held against
//! bytes needed: every sub-block of 64 KiB that is touched, once. Where addresses come from data, which miss is told first decides a
//! round or two: their gates leave room for that.

#[allow(dead_code, reason = "of what the examples share, only graphs and numbers are used here")]
#[path = "../../examples/common/mod.rs"]
mod examples;
mod matrices;
mod play;
mod recipes;
mod translation;
mod work;

use anyhow::{Context, Result};
use clap::Parser;
use play::{Counts, Player, limit, runtime};
use recipes::Recipe;
use std::process::ExitCode;
use translation::Bench;
use vkhmm::Grid;
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds, timed,
};
use work::{Skew, Work};

/// Measures paged launches: translation, rounds, bytes moved.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const MIB: usize = 1 << 20;
/// Data, in device memories.
const PARTS: [u64; 3] = [1, 2, 4];
/// Most time of a kernel with tables, in times without: resolved for each 64 KiB, and for each element.
const TRANSLATION: [f64; 2] = [1.10, 1.3];
/// Most time of a triad on four times the device's memory, in times of one that has everything there.
const OUT_OF_CORE: f64 = 1.6;
/// Most bytes moved, in bytes needed: where pages follow from the group's number; where all fits, with a counter that goes to and fro
/// with each launch; and of a skewed gather at 2x.
const MOVED: [f64; 3] = [1.0, 1.01, 1.3];
/// Most rounds of a launch, in device memories that its data is: where pages follow from the group's number, and elsewhere.
const ROUNDS: [u64; 2] = [2, 8];
/// Most runs of a group, where pages follow from its number.
const RUNS: f64 = 1.25;

fn main() -> Result<ExitCode> {
    let mut report = Report::new("paging", Cli::parse().common);
    let (timed, counted) = if report.options().quick { (24 * MIB, 48 * MIB) } else { (96 * MIB, 96 * MIB) };
    translation(&mut report, timed)?;
    out_of_core(&mut report, timed)?;
    movement(&mut report, counted)?;
    Ok(report.finish()?)
}

/// A kernel with and without tables.
struct Pair {
    name: &'static str,
    work: Work,
    plain: &'static [u8],
    /// In which order the plain one takes the arrays.
    order: [usize; 3],
    /// Most time with tables, in times without.
    goal: f64,
}

/// The same bodies with and without tables, everything on the device.
fn translation(report: &mut Report, bytes: usize) -> Result<()> {
    let mut table =
        Table::new("translation", "A kernel with tables against the same on plain addresses", Class::L);
    let plain = table.column(Column::baseline(Baseline::InCore, "ms").named("plain addresses"));
    let tables = table.column(Column::ours("tables", "ms"));
    let ratio = table.column(Column::ours("tables / plain", ""));
    table.without_others("nothing moves here: kernels alone are compared");
    let triad = Pair {
        name: "triad, resolved for each 64 KiB",
        work: work::triad(bytes),
        plain: include_bytes!("../../shaders/spv/plain_triad.spv"),
        order: [1, 2, 0],
        goal: TRANSLATION[0],
    };
    let gather = Pair {
        name: "gather, resolved for each element",
        work: work::gather(bytes, Skew::Uniform),
        plain: include_bytes!("../../shaders/spv/plain_gather.spv"),
        order: [0, 1, 2],
        goal: TRANSLATION[1],
    };
    for Pair { name, work, plain: spirv, order, goal } in [triad, gather] {
        if !report.options().wants(name) {
            continue;
        }
        let mut bench = Bench::new(&work, spirv, &order)?;
        bench.plain()?;
        bench.check()?;
        bench.paged()?;
        bench.check()?;
        let found = rounds(report.options().runs(), 1, |number| {
            // Who comes first has the colder caches.
            Ok::<_, anyhow::Error>(if number % 2 == 0 {
                let first = bench.plain()?;
                [first, bench.paged()?]
            } else {
                let second = bench.paged()?;
                [bench.plain()?, second]
            })
        })?;
        let figure = Figure::of(&ratios(&found[1], &found[0]));
        let ms = |at: usize| Figure::of(&Sample::of(&found[at])).scaled(1e-6);
        table.row(Row::named(name).with(plain, ms(0)).with(tables, ms(1)).with(ratio, figure));
        report.gate(Gate::new(name, Class::L, Goal::AtMost(goal), figure.median));
    }
    report.table(table);
    Ok(())
}

/// A triad whose data lies on the host, against the same with everything on the device, and against a launch that declares all of it.
fn out_of_core(report: &mut Report, bytes: usize) -> Result<()> {
    let name = "triad from the host";
    if !report.options().wants(name) {
        return Ok(());
    }
    let mut table = Table::new("out_of_core", "A triad whose data lies on the host", Class::L);
    let resident = table.column(Column::baseline(Baseline::InCore, "ms").named("all resident"));
    let declared =
        table.column(Column::baseline(Baseline::GoodExplicit, "ms").named("declared, where it fits"));
    let paged = table.column(Column::ours("paged", "ms"));
    let times = table.column(Column::ours("paged / all resident", ""));
    let against = table.column(Column::ours("paged / declared", ""));
    table.without_others("a launch that declares its data is what these are compared with elsewhere");
    let work = work::triad(bytes);
    let mut there = Player::new(&work, runtime(limit(&work, 1))?)?;
    there.play()?;
    let mut fits = Declared::new(&work)?;
    for part in PARTS {
        let mut player = Player::new(&work, runtime(limit(&work, part))?)?;
        let found = rounds(report.options().runs(), 1, |_| {
            let resident = timed_launch(&mut there)?;
            let declared = fits.time()?;
            player.fill();
            Ok::<_, anyhow::Error>([resident, declared, timed_launch(&mut player)?])
        })?;
        player.check()?;
        let ms = |at: usize| Figure::of(&Sample::of(&found[at])).scaled(1e3);
        let slower = Figure::of(&ratios(&found[2], &found[0]));
        let row = Row::named(format!("{part}x"))
            .with(resident, ms(0))
            .with(declared, ms(1))
            .with(paged, ms(2))
            .with(times, slower)
            .with(against, Figure::of(&ratios(&found[2], &found[1])));
        table.row(row);
        if part == 4 {
            report.gate(Gate::new(
                "triad, 4x / all resident",
                Class::L,
                Goal::AtMost(OUT_OF_CORE),
                slower.median,
            ));
        }
    }
    report.table(table);
    Ok(())
}

/// Seconds of a launch and its end.
fn timed_launch(player: &mut Player<'_>) -> Result<f64> {
    let (result, time) = timed(|| player.launch(0)?.wait().context("a paged launch"));
    result.map(|()| time)
}

/// A triad by a launch that declares its data, which fits.
struct Declared {
    rt: vkhmm::Runtime,
    kernel: vkhmm::Kernel,
    arrays: [vkhmm::Managed<u32>; 3],
    groups: [u32; 3],
    n: u32,
}

impl Declared {
    fn new(work: &Work) -> Result<Self> {
        let rt = runtime(limit(work, 1))?;
        // SAFETY: kernel: shipped with vkhmm: ends, and stays inside the n elements of each array that it is given.
        let kernel = unsafe { rt.kernel(include_bytes!("../../shaders/spv/plain_triad.spv"))? };
        let n = work.arrays[0].words.len();
        let mut arrays = [rt.alloc::<u32>(n)?, rt.alloc::<u32>(n)?, rt.alloc::<u32>(n)?];
        let data = work.arrays.iter().map(|array| &array.words);
        arrays.iter_mut().zip(data).for_each(|(array, data)| array.copy_from_slice(data));
        Ok(Self { rt, kernel, arrays, groups: work.groups, n: n as u32 })
    }

    /// Seconds of a launch whose data lies on the host, until its end.
    fn time(&mut self) -> Result<f64> {
        // A store to each page brings it home.
        self.arrays.iter_mut().for_each(|array| array.iter_mut().step_by(1024).for_each(|word| *word |= 0));
        let [z, x, y] = &mut self.arrays;
        let arguments = (x.read(), y.read(), z.overwrite(), 3.0_f32, self.n);
        let (result, time) =
            timed(|| self.rt.launch(&self.kernel, Grid::Groups(self.groups), arguments)?.wait());
        result?;
        Ok(time)
    }
}

/// What each workload moves.
fn movement(report: &mut Report, bytes: usize) -> Result<()> {
    let mut table =
        Table::new("movement", "Paged launches on one, two and four times the device's memory", Class::C);
    let needed = table.column(Column::baseline(Baseline::LowerBound, "MiB").named("needed"));
    let moved = table.column(Column::ours("moved", "MiB"));
    let ratio = table.column(Column::ours("moved / needed", ""));
    let launches = table.column(Column::ours("launches", ""));
    let of_rounds = table.column(Column::ours("rounds", ""));
    let runs = table.column(Column::ours("group runs / groups", ""));
    table.without_others("bytes are counted here, and needed is the least that any of them moves");
    let graph = matrices::graph(bytes);
    for Recipe { affine, make } in recipes::ALL {
        let work = make(bytes, &graph);
        for part in PARTS {
            let name = format!("{}, {part}x", work.name);
            if !report.options().wants(&name) {
                continue;
            }
            let counts: Counts =
                Player::new(&work, runtime(limit(&work, part))?)?.play().with_context(|| name.clone())?;
            let mib = |bytes: u64| Figure::exact(bytes as f64 / MIB as f64);
            let times = counts.bytes as f64 / work.needed() as f64;
            let often = counts.group_runs as f64 / counts.groups as f64;
            let row = Row::named(&name)
                .with(needed, mib(work.needed()))
                .with(moved, mib(counts.bytes))
                .with(ratio, Figure::exact(times))
                .with(launches, Figure::exact(counts.launches as f64))
                .with(of_rounds, Figure::exact(counts.rounds as f64))
                .with(runs, Figure::exact(often));
            table.row(row);
            let mut gate = |what: &str, goal, measured| {
                report.gate(Gate::new(format!("{name}: {what}"), Class::C, Goal::AtMost(goal), measured));
            };
            let most = ROUNDS[usize::from(!affine)] * part;
            gate("rounds a launch", most as f64, counts.rounds as f64 / counts.launches as f64);
            if affine {
                gate("group runs / groups", RUNS, often);
            }
            match work.name {
                _ if affine => gate("moved / needed", MOVED[0], times),
                _ if part == 1 => gate("moved / needed", MOVED[1], times),
                "gather, zipf" if part == 2 => gate("moved / needed", MOVED[2], times),
                _ => {}
            }
        }
    }
    report.table(table);
    Ok(())
}
