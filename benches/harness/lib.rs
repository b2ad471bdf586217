//! What the benches share, so that every figure is told the same way: a [`Class`] says what it is worth, a [`Sample`] has at
//! least nine runs, a [`Table`] has columns for the baselines, a [`Gate`] compares with a goal, a [`Report`] prints all of it.
//!
//! ```no_run
//! use clap::Parser;
//! use vkhmm_bench::{Baseline, Class, Column, Figure, Gate, Goal, Options, Report, Row, Sample, Table, ratios, rounds};
//!
//! /// What this bench measures.
//! #[derive(Parser)]
//! struct Cli {
//!     #[command(flatten)]
//!     common: Options,
//! }
//!
//! fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
//!     let cli = Cli::parse();
//!     let mut report = Report::new("example", cli.common);
//!     let mut table = Table::new("copies", "Copies of 1 MiB", Class::L);
//!     let plain = table.column(Column::baseline(Baseline::GoodExplicit, "s"));
//!     let ours = table.column(Column::ours("prefetch", "s"));
//!     let times = table.column(Column::ours("prefetch / explicit", ""));
//!     table.without(Baseline::ZeroCopy, "nothing is computed");
//!     // Interleaved: each round measures all ways, so that what disturbs one disturbs the others.
//!     let [a, b] = rounds(9, 2, |_| Ok::<_, std::io::Error>([1.0, 1.1]))?;
//!     let ratio = Figure::of(&ratios(&b, &a));
//!     table.row(Row::at("1 MiB", 1048576.0).with(plain, Figure::of(&Sample::of(&a))).with(ours, Figure::of(&Sample::of(&b))).with(times, ratio));
//!     report.table(table);
//!     report.gate(Gate::new("prefetch / explicit", Class::L, Goal::AtMost(1.3), ratio.median));
//!     Ok(report.finish()?)
//! }
//! ```

mod figure;
mod gate;
mod options;
mod plot;
mod report;
mod sample;
mod table;

pub use figure::{Class, Figure};
pub use gate::{Gate, Goal};
pub use options::Options;
pub use report::Report;
pub use sample::{RUNS_MIN, Sample, cold, ratios, rounds, timed};
pub use table::{Baseline, Column, ColumnId, Phase, Row, Table};
