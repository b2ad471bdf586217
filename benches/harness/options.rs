//! The options that every bench has.

use crate::RUNS_MIN;
use clap::Args;
use std::path::PathBuf;

/// Runs of a full measurement.
const RUNS: usize = 15;

/// The options that every bench has.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Smaller sizes and the fewest runs that have quartiles
    #[arg(long)]
    pub quick: bool,
    /// JSON lines instead of tables: one object per figure and per gate
    #[arg(long)]
    pub json: bool,
    /// Draws the tables into this SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Only what has this text in its name
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether what is called `name` was asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_deref().is_none_or(|text| name.contains(text))
    }

    /// How many runs to measure.
    pub fn runs(&self) -> usize {
        if self.quick { RUNS_MIN } else { RUNS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        common: Options,
    }

    #[test]
    fn the_filter_chooses_by_part_of_the_name() {
        let common = Cli::parse_from(["bench", "--bench", "--quick", "--filter", "64 KiB"]).common;
        assert!(common.wants("scan 64 KiB forward") && !common.wants("scan 2 MiB"));
        assert_eq!(common.runs(), RUNS_MIN);
        assert!(Options::default().wants("anything"));
    }
}
