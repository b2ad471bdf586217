//! More data than device memory: an array is worked on chunk by chunk in four orders, with 0.5 to 3 times as much data as fits.
//! Counts what moves, against what a program that knows the future would move, and against copying each chunk in and out.
//!
//! Each launch is waited for, so that the counts are the same in every run; two runs check that. Without --quick times are compared
//! with the same launches in core, too. The
//! array's words are checked: each was changed as often as its chunk was worked on.

mod patterns;

use anyhow::{Result, ensure};
use clap::Parser;
use patterns::{Pattern, unavoidable};
use std::process::ExitCode;
use vkhmm::{Grid, Kernel, Runtime, Stats};
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds, timed,
};

/// Works on more data than the device has memory for, and counts what moves.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
    /// The policies to compare
    #[arg(long, value_delimiter = ',', default_value = "adaptive,plain")]
    policy: Vec<String>,
}

const CHUNK: usize = 1 << 20;
/// Data, in device memories.
const FACTORS: [f64; 8] = [0.5, 0.75, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0];
const FACTORS_QUICK: [f64; 3] = [0.5, 1.25, 2.0];
/// Most bytes to fetch, in unavoidable ones.
const GOAL: f64 = 1.15;
const ADD_ONE: &[u8] = include_bytes!("../../shaders/spv/add_one.spv");

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("oversub", cli.common);
    let (chunks, factors) =
        if report.options().quick { (24, &FACTORS_QUICK[..]) } else { (96, &FACTORS[..]) };
    for policy in &cli.policy {
        measure(&mut report, policy, chunks, factors)?;
    }
    Ok(report.finish()?)
}

fn measure(report: &mut Report, policy: &str, chunks: usize, factors: &[f64]) -> Result<()> {
    let title = format!("{chunks} MiB in chunks of 1 MiB, by order and device memory; policy {policy}");
    let mut table = Table::new(format!("oversub_{policy}"), title, Class::C);
    let naive = table.column(Column::baseline(Baseline::NaiveExplicit, "MiB"));
    let least =
        table.column(Column::baseline(Baseline::LowerBound, "MiB").named("fetches that know the future"));
    let fetched = table.column(Column::ours("fetched", "MiB"));
    let ratio = table.column(Column::ours("fetched / unavoidable", ""));
    let least_back =
        table.column(Column::baseline(Baseline::LowerBound, "MiB").named("write-backs that know it"));
    let back = table.column(Column::ours("written back", "MiB"));
    let moved = table.column(Column::ours("moved inside", "MiB"));
    let in_core = table.column(Column::baseline(Baseline::InCore, "ms").class(Class::L));
    let slower = table.column(Column::ours("times in-core", "").class(Class::L));
    table.without(
        Baseline::GoodExplicit,
        "in bytes, what knows the future is the best that a program can do by hand",
    );
    table.without(
        Baseline::ZeroCopy,
        "it moves nothing, and pays at each access; where device memory is host memory that shows nothing",
    );
    let mut gates = Vec::new();
    for (name, pattern) in Pattern::ALL {
        let sequence = pattern.sequence(chunks);
        for factor in factors {
            let name = format!("{name} x{factor}");
            if !report.options().wants(&name) {
                continue;
            }
            let room = (chunks as f64 / factor) as usize;
            let (fetches, writes) = unavoidable(&sequence, room);
            let counts = |stats: &Stats| [stats.in_bytes(), stats.out_evict_bytes, stats.moved_bytes];
            let (_, stats) = run(&sequence, chunks, room, policy)?;
            let (_, again) = run(&sequence, chunks, room, policy)?;
            let first = counts(&stats);
            ensure!(
                first == counts(&again),
                "{name}: counts differ between runs: {first:?} and {:?}",
                counts(&again)
            );
            let mib = |bytes: u64| Figure::exact(bytes as f64 / CHUNK as f64);
            let [bytes_in, bytes_back, bytes_moved] = first;
            let times = bytes_in as f64 / (fetches * CHUNK) as f64;
            let row = Row::named(&name)
                .with(naive, Figure::exact(sequence.len() as f64))
                .with(least, Figure::exact(fetches as f64))
                .with(fetched, mib(bytes_in))
                .with(ratio, Figure::exact(times))
                .with(least_back, Figure::exact(writes as f64))
                .with(back, mib(bytes_back))
                .with(moved, mib(bytes_moved));
            let row = if report.options().quick {
                row.without(in_core, "--quick counts only").without(slower, "--quick counts only")
            } else {
                let found = rounds(report.options().runs(), 0, |_| {
                    let (core, _) = run(&sequence, chunks, 2 * chunks, policy)?;
                    let (time, _) = run(&sequence, chunks, room, policy)?;
                    Ok::<_, anyhow::Error>([core, time])
                })?;
                row.with(in_core, Figure::of(&Sample::of(&found[0])).scaled(1e3))
                    .with(slower, Figure::of(&ratios(&found[1], &found[0])))
            };
            table.row(row);
            // Only the default policy promises anything, and only what looking back can tell: what comes at random is foreseen by
            // nobody, and is counted, not gated. Of a cycle, only the quick sizes have been measured.
            let told = match pattern {
                Pattern::Streaming | Pattern::Block => true,
                Pattern::Cyclic => report.options().quick,
                Pattern::Random => false,
            };
            if policy == "adaptive" && told {
                gates.push(Gate::new(
                    format!("{name}: fetched / unavoidable"),
                    Class::C,
                    Goal::AtMost(GOAL),
                    times,
                ));
            }
        }
    }
    report.table(table);
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(())
}

/// Works on the chunks in order with room for `room` of them. Seconds, and what happened meanwhile.
///
/// # Errors
/// Wrong words; the runtime's own errors.
fn run(sequence: &[usize], chunks: usize, room: usize, policy: &str) -> Result<(f64, Stats)> {
    let builder = Runtime::builder().device_memory_limit((room * CHUNK) as u64).policy(policy);
    let rt = builder.in_place_bytes(0).strict_io(false).build()?;
    let add_one = kernel(&rt)?;
    let words = CHUNK / 4;
    let mut array = rt.alloc::<u32>(chunks * words)?;
    array.iter_mut().zip(0..).for_each(|(word, n)| *word = n);
    let before = rt.stats();
    let (result, time) = timed(|| {
        sequence.iter().try_for_each(|chunk| {
            let mut part = array.slice_mut(chunk * words..(chunk + 1) * words);
            rt.launch(&add_one, Grid::linear(words), (part.write(),))?.wait()
        })
    });
    result?;
    let stats = rt.stats().since(&before);
    for chunk in 0..chunks {
        let added = sequence.iter().filter(|other| **other == chunk).count();
        let right = array[chunk * words..(chunk + 1) * words].iter().zip(chunk * words..);
        let wrong = right.filter(|(have, n)| **have as usize != n + added).count();
        ensure!(wrong == 0, "chunk {chunk}: {wrong} words are wrong");
    }
    Ok((time, stats))
}

fn kernel(rt: &Runtime) -> Result<Kernel> {
    // SAFETY: the shipped module adds one to each word of its only buffer, inside its bounds, and ends.
    Ok(unsafe { rt.kernel(ADD_ONE)? })
}
