//! What a launch costs: vkhmm against plain Vulkan with the same kernel on the same device, pair by pair in one process; and the
//! engine alone, by how large the arguments are. `cargo bench --bench launch_overhead [-- --quick] [--json]`.

mod flat;
mod nothing;
mod queue;
mod raw;

use anyhow::Result;
use clap::Parser;

/// Measures launches against plain Vulkan.
#[derive(Parser)]
struct Options {
    /// A fifth of the pairs
    #[arg(long)]
    quick: bool,
    /// One JSON object a line instead of the table
    #[arg(long)]
    json: bool,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// First quartile, median, third quartile.
pub(crate) type Quartiles = [f64; 3];

/// One figure.
pub(crate) struct Row {
    what: String,
    ours: Quartiles,
    unit: &'static str,
    raw: Option<Quartiles>,
    /// What is judged: its name, its value, and the most that it is to be.
    judged: Option<(&'static str, f64, f64)>,
}

impl Row {
    pub(crate) fn alone(what: String, ours: Quartiles, unit: &'static str) -> Self {
        Self { what, ours, unit, raw: None, judged: None }
    }

    pub(crate) fn pair(what: &str, ours: Quartiles, raw: Quartiles, unit: &'static str) -> Self {
        Self { what: what.into(), ours, unit, raw: Some(raw), judged: None }
    }

    pub(crate) fn with(self, name: &'static str, value: f64, goal: f64) -> Self {
        Self { judged: Some((name, value, goal)), ..self }
    }
}

pub(crate) fn quartiles(mut values: Vec<f64>) -> Quartiles {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|q| values[(values.len() - 1) * q / 4])
}

fn main() -> Result<()> {
    let options = Options::parse();
    let pairs = if options.quick { 200 } else { 1000 };
    let (device, class, mut rows) = queue::measure(pairs)?;
    rows.extend(flat::measure(pairs)?);
    if options.json {
        rows.iter().for_each(|row| json(&device, class, pairs, row));
        return Ok(());
    }
    println!("Launches, {pairs} pairs, interleaved; first quartile, median, third quartile. Class {class}.");
    println!("Device: {device}.\n");
    println!("{:<46} {:>27} {:>27}   judged", "", "vkhmm", "plain Vulkan");
    for row in &rows {
        let show = |q: Quartiles| format!("{:>8.2} {:>8.2} {:>8.2}", q[0], q[1], q[2]);
        let raw = row.raw.map_or(String::new(), show);
        let judged = row.judged.map_or(String::new(), |(name, value, goal)| {
            let verdict = if value <= goal { "" } else { "  <-- above" };
            format!("{value:.3} {name} (at most {goal}){verdict}")
        });
        println!("{:<46} {} {:>26} {:>3}  {judged}", row.what, show(row.ours), raw, row.unit);
    }
    Ok(())
}

fn json(device: &str, class: char, pairs: usize, row: &Row) {
    let list = |q: Quartiles| format!("[{:.4},{:.4},{:.4}]", q[0], q[1], q[2]);
    let (name, value, goal) = row.judged.unwrap_or(("", 0.0, 0.0));
    println!(
        "{{\"bench\":\"launch_overhead\",\"class\":\"{class}\",\"device\":\"{}\",\"what\":\"{}\",\"pairs\":{pairs},\"unit\":\"{}\",\
         \"ours\":{},\"raw\":{},\"judged\":\"{name}\",\"value\":{value:.4},\"goal\":{goal}}}",
        device.replace(['"', '\\'], "_"),
        row.what,
        row.unit,
        list(row.ours),
        row.raw.map_or("null".into(), list),
    );
}
