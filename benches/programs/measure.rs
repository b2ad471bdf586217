//! A table for a program: each way to run it, with device memory from four times its data down to a quarter.

use crate::{Explicit, Mode, Player, Program, Schedule};
use anyhow::{Result, ensure};
use vkhmm::Stats;
use vkhmm_bench::{Baseline, Class, Column, Figure, Gate, Goal, Report, Row, Sample, Table, ratios, rounds};

/// Device memory to run with.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Device memory over the program's data.
    pub limit: f64,
    /// Most bytes in, over what knows the future; `None`: counted, not gated.
    pub most_in: Option<f64>,
}

impl Case {
    /// All data fits: everything comes in once, but for pages that a part of an overwritten vector shares.
    pub const FITS: Self = Self { limit: 4.0, most_in: Some(1.01) };

    /// Less memory than data.
    pub const fn short(limit: f64, most_in: Option<f64>) -> Self {
        Self { limit, most_in }
    }
}

const WARM_UP: usize = 1;
const MIB: f64 = 1048576.0;

/// Measures `program` in each case, and reports a table and its gates.
///
/// # Errors
/// A device that is not usable, wrong results, counts that differ between runs.
pub fn measure(report: &mut Report, program: &Program, cases: &[Case]) -> Result<()> {
    let mut explicit = Explicit::open(program, None)?;
    let class = Class::of_device(if explicit.is_software() { "software" } else { "" });
    let title = format!(
        "{}: {:.1} MiB of data, {} launches; {}",
        program.name,
        program.footprint() as f64 / MIB,
        program.steps.len(),
        explicit.device_name()
    );
    let mut table = Table::new(program.name.replace(' ', "_"), title, class);
    let counted = |column: Column| column.class(Class::C);
    let columns = [
        counted(Column::baseline(Baseline::LowerBound, "MiB").named("in, least")),
        counted(Column::ours("in", "MiB")),
        counted(Column::ours("in / least", "")),
        counted(Column::baseline(Baseline::LowerBound, "MiB").named("out, least")),
        counted(Column::ours("out", "MiB")),
        counted(Column::ours("moved inside", "MiB")),
        Column::baseline(Baseline::InCore, "ms"),
        Column::baseline(Baseline::NaiveExplicit, "ms"),
        Column::baseline(Baseline::GoodExplicit, "ms"),
        Column::baseline(Baseline::ZeroCopy, "ms"),
        Column::ours("demand", "ms"),
        Column::ours("prefetch", "ms"),
        Column::ours("demand / good", ""),
        Column::ours("prefetch / good", ""),
    ]
    .map(|column| table.column(column));
    let full = Schedule::new(program, program.tiles());
    let mut in_place = Player::in_place(program);
    let mut gates = Vec::new();
    for case in cases {
        let name = format!("{} at {}", program.name, case.limit);
        if !report.options().wants(&name) {
            continue;
        }
        let limit = (program.footprint() as f64 * case.limit) as u64;
        let room = (limit.saturating_sub(program.staying_bytes()) / program.tile_bytes()) as usize;
        let plan = Schedule::new(program, room.min(program.tiles()));
        let counts = |stats: &Stats| [stats.in_bytes(), stats.out_bytes(), stats.moved_bytes];
        let run = || anyhow::Ok(counts(&Player::new(program, limit)?.play(Mode::Counted)?.1));
        let (first, again) = (run()?, run()?);
        ensure!(first == again, "{name}: counts differ between runs: {first:?} and {again:?}");
        let [least_in, least_out] =
            [plan.fetched, plan.written].map(|tiles| tiles as u64 * program.tile_bytes());
        let staying = |meant: &dyn Fn(usize) -> bool| -> u64 {
            let arrays = program.arrays.iter().enumerate().filter(|(at, array)| array.stays && meant(*at));
            arrays.map(|(_, array)| 4 * array.initial.len() as u64).sum()
        };
        let least_in = least_in + staying(&|at| program.is_read_first(at));
        let least_out = least_out + staying(&|at| program.arrays[at].expected.is_some());
        let times_least = first[0] as f64 / least_in as f64;
        let mut demand = Player::new(program, limit)?;
        let mut ahead = Player::new(program, limit)?;
        let found = rounds(report.options().runs(), WARM_UP, |_| {
            let zero_copy =
                in_place.as_mut().map_or(Ok(f64::NAN), |player| player.play(Mode::Demand).map(|r| r.0));
            anyhow::Ok([
                explicit.in_core(&full)?,
                explicit.naive()?,
                explicit.good(&plan)?,
                zero_copy?,
                demand.play(Mode::Demand)?.0,
                ahead.play(Mode::Prefetch)?.0,
            ])
        })?;
        let mib = |bytes: u64| Figure::exact(bytes as f64 / MIB);
        let figures = [
            mib(least_in),
            mib(first[0]),
            Figure::exact(times_least),
            mib(least_out),
            mib(first[1]),
            mib(first[2]),
        ];
        let mut row = Row::at(format!("limit x{}", case.limit), case.limit);
        for (column, figure) in columns.iter().zip(figures) {
            row = row.with(*column, figure);
        }
        for (at, times) in found.iter().enumerate() {
            row = match (&in_place, at) {
                (Err(error), 3) => row.without(columns[6 + at], error.to_string()),
                _ => row.with(columns[6 + at], Figure::of(&Sample::of(times)).scaled(1e3)),
            };
        }
        row = row.with(columns[12], Figure::of(&ratios(&found[4], &found[2])));
        row = row.with(columns[13], Figure::of(&ratios(&found[5], &found[2])));
        table.row(row);
        if let Some(most) = case.most_in {
            gates.push(Gate::new(format!("{name}: in / least"), Class::C, Goal::AtMost(most), times_least));
        }
    }
    report.table(table);
    gates.into_iter().for_each(|gate| report.gate(gate));
    Ok(())
}
