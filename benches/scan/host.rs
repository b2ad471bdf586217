//! Memory that is on the host all along, against a `Vec`: it may cost nothing to have the device in mind.

use anyhow::{Result, ensure};
use std::hint::black_box;
use vkhmm::Runtime;
use vkhmm_bench::{
    Baseline, Class, Column, Figure, Gate, Goal, Report, Row, Sample, Table, ratios, rounds, timed,
};

/// Least part of a `Vec`'s speed, by access.
const GOALS: [(&str, f64); 3] = [("stream", 0.97), ("random", 0.90), ("first fill", 0.80)];

/// Measures the three accesses.
///
/// # Errors
/// No runtime; wrong sums.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    if !report.options().wants("host") {
        return Ok(());
    }
    let bytes: usize = if report.options().quick { 64 << 20 } else { 256 << 20 };
    let (count, runs) = (bytes / 8, report.options().runs());
    let rt = Runtime::builder().in_place_bytes(0).strict_io(false).build()?;
    let title = format!("{} MiB that never leave the host, against a Vec", bytes >> 20);
    let mut table = Table::new("host_resident", title, Class::L);
    let plain = table.column(Column::baseline(Baseline::LowerBound, "ms").named("Vec"));
    let ours = table.column(Column::ours("Managed", "ms"));
    let speed = table.column(Column::ours("of Vec's speed", ""));

    let mut vector = vec![0_u64; count];
    let mut managed = rt.alloc::<u64>(count)?;
    fill(&mut vector);
    fill(&mut managed);
    let expected = stream(&vector);
    let streams = rounds(runs, 2, |_| {
        let (a, plain) = timed(|| stream(black_box(&vector)));
        let (b, ours) = timed(|| stream(black_box(&managed)));
        ensure!(a == expected && b == expected, "stream: wrong sum");
        Ok::<_, anyhow::Error>([plain, ours])
    })?;
    let randoms = rounds(runs, 2, |_| {
        let (a, plain) = timed(|| random(black_box(&vector)));
        let (b, ours) = timed(|| random(black_box(&managed)));
        ensure!(a == b, "random: wrong sum");
        Ok::<_, anyhow::Error>([plain, ours])
    })?;
    drop((vector, managed));
    let fills = rounds(runs, 2, |_| {
        let (vector, plain) = timed(|| {
            let mut vector = vec![0_u64; count];
            fill(&mut vector);
            vector
        });
        let (managed, ours) = timed(|| {
            let mut managed = rt.alloc::<u64>(count)?;
            fill(&mut managed);
            Ok::<_, anyhow::Error>(managed)
        });
        let sums = (stream(&vector), stream(&managed?));
        ensure!(sums.0 == expected && sums.1 == expected, "first fill: wrong sum");
        Ok::<_, anyhow::Error>([plain, ours])
    })?;
    let mut gates = Vec::new();
    for ((name, goal), found) in GOALS.into_iter().zip([streams, randoms, fills]) {
        let figure = |at: usize| Figure::of(&Sample::of(&found[at])).scaled(1e3);
        let ratio = Figure::of(&ratios(&found[0], &found[1]));
        table.row(Row::named(name).with(plain, figure(0)).with(ours, figure(1)).with(speed, ratio));
        let name = format!("host-resident {name}: Managed / Vec");
        gates.push(Gate::new(name, Class::L, Goal::AtLeast(goal), ratio.median));
    }
    table.without_others("nothing leaves the host");
    report.table(table);
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(())
}

fn fill(words: &mut [u64]) {
    words.iter_mut().zip(1..).for_each(|(word, n)| *word = n);
}

fn stream(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Reads a word in eight, each at a place that the one before says.
fn random(words: &[u64]) -> u64 {
    let mask = words.len() - 1;
    let mut at = 1_u64;
    for _ in 0..words.len() / 8 {
        at = (at ^ words[at as usize & mask]).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    at
}
