//! Tables: rows of figures under columns, some of which are baselines.

use crate::{Class, Figure};
use serde_json::{Value, json};

/// What ours is compared with. Every table has each, or says why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Copy everything, run, copy back.
    NaiveExplicit,
    /// Double-buffered through persistently mapped staging, on a transfer queue where there is one.
    GoodExplicit,
    /// Kernels work on host memory.
    ZeroCopy,
    /// Everything is on the device already.
    InCore,
    /// The larger of compute and unavoidable bytes through the link; or the same mechanism with nothing around it.
    LowerBound,
}

impl Baseline {
    const ALL: [Self; 5] =
        [Self::NaiveExplicit, Self::GoodExplicit, Self::ZeroCopy, Self::InCore, Self::LowerBound];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NaiveExplicit => "naive explicit",
            Self::GoodExplicit => "good explicit",
            Self::ZeroCopy => "zero-copy",
            Self::InCore => "in-core",
            Self::LowerBound => "lower bound",
        }
    }
}

/// Whether caches, mappings and buffers had been used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Each run on something fresh.
    Cold,
    /// After runs that do not count.
    Warm,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    name: String,
    unit: &'static str,
    baseline: Option<Baseline>,
    phase: Phase,
    class: Option<Class>,
}

impl Column {
    /// What is under test. The unit is empty for ratios.
    pub fn ours(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, baseline: None, phase: Phase::Warm, class: None }
    }

    /// What it is compared with.
    pub fn baseline(baseline: Baseline, unit: &'static str) -> Self {
        Self { baseline: Some(baseline), ..Self::ours(baseline.name(), unit) }
    }

    /// A baseline with more to say than its kind.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Measured on something fresh each time.
    #[must_use]
    pub fn cold(self) -> Self {
        Self { phase: Phase::Cold, ..self }
    }

    /// Of another class than the table.
    #[must_use]
    pub fn class(self, class: Class) -> Self {
        Self { class: Some(class), ..self }
    }

    fn title(&self) -> String {
        let cold = if self.phase == Phase::Cold { " cold" } else { "" };
        let unit = if self.unit.is_empty() { String::new() } else { format!(" [{}]", self.unit) };
        let class = self.class.map(|class| format!(" ({})", class.letter())).unwrap_or_default();
        format!("{}{cold}{unit}{class}", self.name)
    }
}

/// A column of the table that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnId(usize);

/// A row: a name, where it lies on the axis of a chart, and what was found for some columns.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    x: Option<f64>,
    cells: Vec<(ColumnId, Result<Figure, String>)>,
}

impl Row {
    /// A row of its own kind; a chart puts such rows side by side.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), x: None, cells: Vec::new() }
    }

    /// A row with a place on the axis.
    pub fn at(name: impl Into<String>, x: f64) -> Self {
        Self { x: Some(x), ..Self::named(name) }
    }

    /// Adds a figure.
    #[must_use]
    pub fn with(mut self, column: ColumnId, figure: Figure) -> Self {
        self.cells.push((column, Ok(figure)));
        self
    }

    /// Says why there is no figure.
    #[must_use]
    pub fn without(mut self, column: ColumnId, reason: impl Into<String>) -> Self {
        self.cells.push((column, Err(reason.into())));
        self
    }

    fn cell(&self, column: usize) -> Option<&Result<Figure, String>> {
        self.cells.iter().find(|(id, _)| id.0 == column).map(|(_, cell)| cell)
    }
}

/// Rows of figures.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    title: String,
    class: Class,
    columns: Vec<Column>,
    rows: Vec<Row>,
    missing: Vec<(Baseline, String)>,
}

/// A line of a chart: its title, and (x, name of x, figure).
pub(crate) type Line = (String, Vec<(f64, String, Figure)>);

impl Table {
    /// An empty table. `name` is for machines, `title` for people.
    pub fn new(name: impl Into<String>, title: impl Into<String>, class: Class) -> Self {
        let (columns, rows, missing) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: name.into(), title: title.into(), class, columns, rows, missing }
    }

    /// Adds a column.
    pub fn column(&mut self, column: Column) -> ColumnId {
        self.columns.push(column);
        ColumnId(self.columns.len() - 1)
    }

    /// Says why a baseline is not in this table.
    pub fn without(&mut self, baseline: Baseline, reason: impl Into<String>) {
        self.missing.push((baseline, reason.into()));
    }

    /// Says why no baseline but those that are here, or excused already, is in this table.
    pub fn without_others(&mut self, reason: &str) {
        let others = Baseline::ALL.into_iter().filter(|baseline| !self.has(*baseline)).collect::<Vec<_>>();
        others.into_iter().for_each(|baseline| self.without(baseline, reason));
    }

    /// Adds a row.
    pub fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The figure in a cell.
    pub fn figure(&self, row: &str, column: ColumnId) -> Option<Figure> {
        let row = self.rows.iter().find(|candidate| candidate.name == row)?;
        row.cell(column.0)?.as_ref().ok().copied()
    }

    /// Baselines that the table neither has nor excuses.
    pub(crate) fn unexplained(&self) -> Vec<&'static str> {
        Baseline::ALL
            .iter()
            .filter(|baseline| !self.has(**baseline))
            .map(|baseline| baseline.name())
            .collect()
    }

    fn has(&self, baseline: Baseline) -> bool {
        self.columns.iter().any(|column| column.baseline == Some(baseline))
            || self.missing.iter().any(|(missing, _)| *missing == baseline)
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// The table for people. A measured cell is `median (lower–upper)`.
    pub(crate) fn text(&self) -> String {
        let mut grid = vec![
            [String::new()].into_iter().chain(self.columns.iter().map(Column::title)).collect::<Vec<_>>(),
        ];
        let mut notes = Vec::new();
        for row in &self.rows {
            let mut line = vec![row.name.clone()];
            for column in 0..self.columns.len() {
                line.push(match row.cell(column) {
                    Some(Ok(figure)) => shown(figure),
                    Some(Err(reason)) => {
                        let at = notes.iter().position(|note| note == reason).unwrap_or_else(|| {
                            notes.push(reason.clone());
                            notes.len() - 1
                        });
                        format!("n/a {}", at + 1)
                    }
                    None => String::new(),
                });
            }
            grid.push(line);
        }
        let width = |column: usize| grid.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..=self.columns.len()).map(width).collect();
        let mut text =
            format!("\n{} (class {}: {})\n", self.title, self.class.letter(), self.class.reading());
        for line in &grid {
            let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| {
                if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        for (number, note) in notes.iter().enumerate() {
            text += &format!("n/a {}: {note}\n", number + 1);
        }
        for (number, (_, reason)) in self.missing.iter().enumerate() {
            if self.missing[..number].iter().all(|(_, earlier)| earlier != reason) {
                let same = self.missing.iter().filter(|(_, other)| other == reason);
                let names: Vec<_> = same.map(|(baseline, _)| baseline.name()).collect();
                text += &format!("no {}: {reason}\n", names.join(", "));
            }
        }
        text
    }

    /// One object per cell.
    pub(crate) fn json(&self, bench: &str) -> Vec<Value> {
        let mut lines = Vec::new();
        for row in &self.rows {
            for (at, column) in self.columns.iter().enumerate() {
                let Some(cell) = row.cell(at) else { continue };
                let mut line = json!({
                    "bench": bench, "table": self.name, "row": row.name, "column": column.name, "unit": column.unit,
                    "class": column.class.unwrap_or(self.class).letter(),
                    "phase": if column.phase == Phase::Cold { "cold" } else { "warm" },
                });
                let mut put = |key: &str, value: Value| line[key] = value;
                if let Some(x) = row.x {
                    put("x", json!(x));
                }
                if let Some(baseline) = column.baseline {
                    put("baseline", json!(baseline.name()));
                }
                match cell {
                    Ok(figure) => {
                        put("median", json!(figure.median));
                        put("lower_quartile", json!(figure.lower));
                        put("upper_quartile", json!(figure.upper));
                        put("runs", json!(figure.runs));
                    }
                    Err(reason) => put("missing", json!(reason)),
                }
                lines.push(line);
            }
        }
        lines
    }

    /// What a chart draws: per unit its lines.
    pub(crate) fn lines(&self) -> Vec<(&'static str, Vec<Line>)> {
        let mut panels: Vec<(&'static str, Vec<Line>)> = Vec::new();
        for (at, column) in self.columns.iter().enumerate() {
            let points: Vec<_> = (self.rows.iter().enumerate())
                .filter_map(|(number, row)| {
                    let figure = row.cell(at)?.as_ref().ok()?;
                    Some((row.x.unwrap_or(number as f64), row.name.clone(), *figure))
                })
                .collect();
            if points.is_empty() {
                continue;
            }
            let line = (column.title(), points);
            match panels.iter_mut().find(|(unit, _)| *unit == column.unit) {
                Some((_, lines)) => lines.push(line),
                None => panels.push((column.unit, vec![line])),
            }
        }
        panels
    }

    /// Whether its rows have places on an axis.
    pub(crate) fn has_axis(&self) -> bool {
        self.rows.iter().all(|row| row.x.is_some())
    }
}

/// Three or four digits that matter.
fn digits(value: f64) -> String {
    let size = value.abs();
    match () {
        () if value == value.trunc() && size < 1e15 => format!("{value:.0}"),
        () if size >= 100.0 => format!("{value:.0}"),
        () if size >= 10.0 => format!("{value:.1}"),
        () if size >= 1.0 => format!("{value:.2}"),
        () if size >= 1e-3 => format!("{value:.3}"),
        () => format!("{value:.2e}"),
    }
}

fn shown(figure: &Figure) -> String {
    if figure.runs == 1 {
        digits(figure.median)
    } else {
        format!("{} ({}–{})", digits(figure.median), digits(figure.lower), digits(figure.upper))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Table, ColumnId) {
        let mut table = Table::new("copies", "Copies", Class::L);
        let plain = table.column(Column::baseline(Baseline::NaiveExplicit, "s").cold());
        let ours = table.column(Column::ours("faults", "").class(Class::C));
        table.without(Baseline::InCore, "nothing is computed");
        table.row(
            Row::at("4 KiB", 4096.0)
                .with(plain, Figure { median: 1.0, lower: 0.5, upper: 1.25, runs: 9 })
                .with(ours, Figure::exact(3.0)),
        );
        table.row(Row::at("8 KiB", 8192.0).without(plain, "no \"device\"").with(ours, Figure::exact(4.0)));
        (table, ours)
    }

    #[test]
    fn the_text_has_every_figure_its_spread_and_every_reason() {
        let text = example().0.text();
        for part in [
            "class L",
            "naive explicit cold [s]",
            "faults (C)",
            "1 (0.500–1.25)",
            "n/a 1: no \"device\"",
            "no in-core: nothing is computed",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn machines_get_one_object_per_cell() {
        let lines = example().0.json("b");
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["phase"], "cold");
        assert_eq!((lines[0]["class"].as_str(), lines[1]["class"].as_str()), (Some("L"), Some("C")));
        assert_eq!((lines[0]["median"].as_f64(), lines[0]["runs"].as_u64()), (Some(1.0), Some(9)));
        assert_eq!(lines[2]["missing"], "no \"device\"");
        assert_eq!(lines[3]["x"], 8192.0);
    }

    #[test]
    fn baselines_are_there_or_excused() {
        let (mut table, ours) = example();
        assert_eq!(table.unexplained(), ["good explicit", "zero-copy", "lower bound"]);
        table.without(Baseline::ZeroCopy, "reason");
        assert_eq!(table.unexplained(), ["good explicit", "lower bound"]);
        table.without_others("another");
        assert!(table.unexplained().is_empty());
        assert!(table.text().contains("no good explicit, lower bound: another"), "{}", table.text());
        assert_eq!(table.figure("8 KiB", ours), Some(Figure::exact(4.0)));
    }

    #[test]
    fn digits_that_matter() {
        assert_eq!(
            [0.00001234, 0.0625, 1.2345, 12.345, 1234.5, 3.0].map(digits),
            ["1.23e-5", "0.062", "1.23", "12.3", "1234", "3"]
        );
    }
}
