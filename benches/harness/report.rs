//! What a bench hands out: tables, notes and gates as they come, a chart and the exit code at the end.

use crate::{Gate, Options, Table, plot};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::process::ExitCode;

/// Prints what a bench finds, for people or for machines.
pub struct Report {
    bench: &'static str,
    options: Options,
    tables: Vec<Table>,
    gates: Vec<Gate>,
}

impl Report {
    /// A report of the bench called `bench`.
    pub fn new(bench: &'static str, options: Options) -> Self {
        Self { bench, options, tables: Vec::new(), gates: Vec::new() }
    }

    /// The options it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Says something that is not a figure: the device, a reason, how to read what follows.
    pub fn note(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        if self.options.json {
            println!("{}", json!({"bench": self.bench, "note": text}));
        } else {
            println!("{text}");
        }
    }

    /// Prints a table and keeps it for the chart.
    ///
    /// # Panics
    /// If the table has neither a column nor an excuse for some [`crate::Baseline`].
    pub fn table(&mut self, table: Table) {
        let unexplained = table.unexplained();
        assert!(unexplained.is_empty(), "table {:?} says nothing of {unexplained:?}", table.title());
        if self.options.json {
            table.json(self.bench).iter().for_each(|line| println!("{line}"));
        } else {
            print!("{}", table.text());
        }
        self.tables.push(table);
    }

    /// Prints a gate and remembers whether it fails the bench.
    pub fn gate(&mut self, gate: Gate) {
        if self.options.json {
            println!("{}", gate.json(self.bench));
        } else {
            println!("{}", gate.line());
        }
        self.gates.push(gate);
    }

    /// Shows on stderr how far long work is; nothing where stderr is no terminal.
    pub fn progress(&self, steps: u64, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(steps).with_style(style).with_message(what.to_owned())
    }

    /// Draws the chart if one was asked for. The exit code is a failure if a gate of class C or M was missed.
    ///
    /// # Errors
    /// The chart cannot be written.
    pub fn finish(self) -> std::io::Result<ExitCode> {
        if let Some(path) = &self.options.plot {
            plot::draw(path, &self.tables)?;
            eprintln!("chart: {}", path.display());
        }
        Ok(self.exit_code())
    }

    fn exit_code(&self) -> ExitCode {
        if self.gates.iter().any(Gate::fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Goal};

    #[test]
    fn a_missed_count_fails_the_bench_and_a_missed_time_does_not() {
        let mut report = Report::new("b", Options::default());
        report.gate(Gate::new("time", Class::L, Goal::AtMost(1.0), 2.0));
        assert_eq!(report.exit_code(), ExitCode::SUCCESS);
        report.gate(Gate::new("count", Class::C, Goal::AtMost(1.0), 2.0));
        assert_eq!(report.exit_code(), ExitCode::FAILURE);
    }

    #[test]
    #[should_panic(expected = "zero-copy")]
    fn a_table_without_a_baseline_or_an_excuse_is_refused() {
        Report::new("b", Options::default()).table(Table::new("t", "t", Class::L));
    }
}
