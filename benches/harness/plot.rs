//! Charts of tables as one SVG file: a panel per table and unit, a line per column, quartiles as bars.

use crate::Table;
use crate::table::Line;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use std::io;
use std::path::Path;

const PANEL: (u32, u32) = (900, 420);
/// A wider span than this is drawn by its logarithm.
const LOG_FROM: f64 = 20.0;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One chart: its title, whether x has names instead of places, and its lines.
struct Panel {
    title: String,
    unit: &'static str,
    names: Option<Vec<String>>,
    lines: Vec<Line>,
}

/// Draws all tables into `path`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(path: &Path, tables: &[Table]) -> io::Result<()> {
    std::fs::write(path, svg(tables)?)
}

fn svg(tables: &[Table]) -> io::Result<String> {
    let panels: Vec<Panel> = tables.iter().flat_map(panels).collect();
    let mut text = String::new();
    {
        let rows = panels.len().max(1);
        let root = SVGBackend::with_string(&mut text, (PANEL.0, PANEL.1 * rows as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(io::Error::other)?;
        for (area, panel) in root.split_evenly((rows, 1)).iter().zip(&panels) {
            panel.draw(area)?;
        }
        root.present().map_err(io::Error::other)?;
    }
    Ok(text)
}

fn panels(table: &Table) -> Vec<Panel> {
    let of = |(unit, lines): (&'static str, Vec<Line>)| {
        let named = || {
            let mut names = Vec::new();
            for (x, name, _) in lines.iter().flat_map(|(_, points)| points) {
                names.resize(names.len().max(*x as usize + 1), String::new());
                names[*x as usize].clone_from(name);
            }
            names
        };
        let names = (!table.has_axis()).then(named);
        Panel { title: table.title().to_owned(), unit, names, lines }
    };
    table.lines().into_iter().map(of).collect()
}

/// The range of some values with a margin, and whether it is drawn by its logarithm.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64, bool) {
    let finite = values.filter(|v| v.is_finite());
    let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
    match () {
        () if low > high => (0.0, 1.0, false),
        () if low > 0.0 && high / low >= LOG_FROM => (low / 1.3, high * 1.3, true),
        () => (low.min(0.0), high.max(low.min(0.0) + f64::MIN_POSITIVE) * 1.1 + 1e-12, false),
    }
}

impl Panel {
    fn draw(&self, area: &Canvas<'_>) -> io::Result<()> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let (bottom, top, log_y) = span(points().flat_map(|(_, _, f)| [f.lower, f.median, f.upper]));
        let (left, right, log_x) = match &self.names {
            Some(names) => (-0.5, names.len() as f64 - 0.5, false),
            None => span(points().map(|(x, _, _)| *x)),
        };
        match (log_x, log_y) {
            (false, false) => self.chart(area, left..right, bottom..top),
            (false, true) => self.chart(area, left..right, (bottom..top).log_scale()),
            (true, false) => self.chart(area, (left..right).log_scale(), bottom..top),
            (true, true) => self.chart(area, (left..right).log_scale(), (bottom..top).log_scale()),
        }
    }

    fn chart<X, Y>(&self, area: &Canvas<'_>, x: X, y: Y) -> io::Result<()>
    where
        X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(io::Error::other)?;
        let x_label = |x: &f64| self.x_label(*x);
        let y_label = |y: &f64| short(*y);
        let unit = if self.unit.is_empty() { "ratio" } else { self.unit };
        let mut mesh = chart.configure_mesh();
        mesh.x_label_formatter(&x_label).y_label_formatter(&y_label).y_desc(unit).light_line_style(WHITE);
        if let Some(names) = &self.names {
            mesh.x_labels(names.len().clamp(1, 12));
        }
        mesh.draw().map_err(io::Error::other)?;
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let color = Palette99::pick(number).to_rgba();
            let line = LineSeries::new(points.iter().map(|(x, _, f)| (*x, f.median)), color.stroke_width(2));
            let series = chart.draw_series(line).map_err(io::Error::other)?;
            series
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
            let bars = points
                .iter()
                .map(|(x, _, f)| ErrorBar::new_vertical(*x, f.lower, f.median, f.upper, color.filled(), 6));
            chart.draw_series(bars).map_err(io::Error::other)?;
        }
        let mut labels = chart.configure_series_labels();
        labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3));
        labels.draw().map_err(io::Error::other)
    }

    fn x_label(&self, x: f64) -> String {
        match &self.names {
            Some(names) if (x - x.round()).abs() < 1e-6 && x >= 0.0 => {
                names.get(x as usize).cloned().unwrap_or_default()
            }
            Some(_) => String::new(),
            None => short(x),
        }
    }
}

/// A label of few letters.
fn short(value: f64) -> String {
    let size = value.abs();
    let (divisor, letter) = match () {
        () if size >= 1_073_741_824.0 => (1_073_741_824.0, "Gi"),
        () if size >= 1_048_576.0 => (1_048_576.0, "Mi"),
        () if size >= 1024.0 => (1024.0, "Ki"),
        () => (1.0, ""),
    };
    let scaled = value / divisor;
    if scaled != 0.0 && scaled.abs() < 0.01 {
        return format!("{scaled:.1e}");
    }
    let text = format!("{scaled:.2}");
    format!("{}{letter}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Column, Figure, Row};

    #[test]
    fn a_panel_per_unit_with_every_line_and_name() {
        let mut table = Table::new("t", "Copies & more", Class::L);
        let (time, ratio) =
            (table.column(Column::ours("time", "s")), table.column(Column::ours("times", "")));
        for (name, x) in [("small", 1.0), ("large", 1e6)] {
            let figure = Figure { median: x, lower: x / 2.0, upper: x * 2.0, runs: 9 };
            table.row(Row::named(name).with(time, figure).with(ratio, Figure::exact(1.0)));
        }
        let text = svg(&[table]).expect("a chart in memory");
        assert_eq!(text.matches("Copies &amp; more").count(), 2, "{text}");
        for part in ["<svg", "small", "large", "time [s]", "ratio", "polyline"] {
            assert!(text.contains(part), "{part:?} is not in the chart");
        }
    }

    #[test]
    fn an_axis_over_decades_is_logarithmic() {
        assert!(span([1.0, 1000.0].into_iter()).2);
        assert!(!span([1.0, 10.0].into_iter()).2);
        assert!(!span([0.0, 1000.0].into_iter()).2);
        assert_eq!([1.5, 4096.0, 1_073_741_824.0, 0.001].map(short), ["1.5", "4Ki", "1Gi", "1.0e-3"]);
    }

    #[test]
    fn no_tables_are_an_empty_chart() {
        assert!(svg(&[]).expect("a chart in memory").contains("<svg"));
    }
}
