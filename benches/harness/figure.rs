//! A figure: a number with its spread, and the class that says what it is worth.

use crate::Sample;

/// What a figure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A count: the same in every run, gated.
    C,
    /// Modelled seconds: the production engine in virtual time against a stated link, the same in every run, gated.
    M,
    /// Measured on a real device, named and dated.
    D,
    /// Measured where device memory is host memory: only ratios to the same mechanism mean anything.
    L,
}

impl Class {
    /// The class of what is measured on a device of this kind, as doctor calls it: `L` on "software" devices, else `D`.
    pub fn of_device(kind: &str) -> Self {
        if kind == "software" { Self::L } else { Self::D }
    }

    /// Whether a figure of this class is the same on every machine, so that a missed goal is a failure and not weather.
    pub fn is_gated(self) -> bool {
        matches!(self, Self::C | Self::M)
    }

    /// Its letter.
    pub fn letter(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::M => "M",
            Self::D => "D",
            Self::L => "L",
        }
    }

    /// What readers of a table must know about it.
    pub fn reading(self) -> &'static str {
        match self {
            Self::C => "counts, the same in every run",
            Self::M => "modelled seconds on a stated link, the same in every run",
            Self::D => "measured on the device named",
            Self::L => {
                "measured where device memory is host memory: only ratios to the same mechanism mean anything"
            }
        }
    }
}

/// A number with its quartiles. A count has no spread: its quartiles are itself, and it has one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Half of the runs are at or below it.
    pub median: f64,
    /// A quarter of the runs are at or below it.
    pub lower: f64,
    /// Three quarters of the runs are at or below it.
    pub upper: f64,
    /// How many runs it comes from.
    pub runs: usize,
}

impl Figure {
    /// A number that is the same in every run.
    pub fn exact(value: f64) -> Self {
        Self { median: value, lower: value, upper: value, runs: 1 }
    }

    /// Median and quartiles of measured runs.
    pub fn of(sample: &Sample) -> Self {
        Self {
            median: sample.quantile(0.5),
            lower: sample.quantile(0.25),
            upper: sample.quantile(0.75),
            runs: sample.runs(),
        }
    }

    /// The same in another unit.
    #[must_use]
    pub fn scaled(self, by: f64) -> Self {
        Self { median: self.median * by, lower: self.lower * by, upper: self.upper * by, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_same_everywhere_is_gated() {
        assert!(Class::C.is_gated() && Class::M.is_gated());
        assert!(!Class::D.is_gated() && !Class::L.is_gated());
        assert_eq!([Class::of_device("software"), Class::of_device("discrete")], [Class::L, Class::D]);
    }

    #[test]
    fn a_figure_has_the_quartiles_of_its_sample() {
        let sample = Sample::of(&[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let figure = Figure::of(&sample).scaled(10.0);
        assert_eq!(figure, Figure { median: 50.0, lower: 30.0, upper: 70.0, runs: 9 });
    }
}
