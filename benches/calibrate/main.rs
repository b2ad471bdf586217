//! Measures this machine's constants for the link model and prints them as a preset. `./x calibrate [--name NAME] [--device NAME]`.
//!
//! Every figure is the median of [`ROUNDS`] rounds on the runtime's own ports, with nothing else of the runtime running. Put the
//! printed preset into `runtime/sim/model/presets.rs`; the comment beside each constant says how it was measured.

mod device;
mod host;

use anyhow::{Context, Result, bail};
use clap::Parser;
use device::Rig;
use std::time::{Duration, Instant};
use vkhmm_core::units::Geometry;

/// Measures this machine's constants for the link model and prints them as a preset
#[derive(Parser)]
struct Options {
    /// What to call the preset
    #[arg(long, default_value = "this-machine")]
    name: String,
    /// Which Vulkan device: a part of its name, or its number
    #[arg(long)]
    device: Option<String>,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rounds that count, an odd number: the median is one of them.
const ROUNDS: usize = 11;
const WARM_UP: usize = 2;
/// Bytes of a bulk copy.
const BULK: u64 = 64 << 20;
/// How the runtime cuts memory.
const GEOMETRY: Geometry = Geometry::PRODUCTION;

/// One constant as the preset has it, and how it came about.
struct Constant {
    field: &'static str,
    value: String,
    how: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.name.is_empty() || !options.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        bail!("--name must be letters, digits and dashes, not {:?}", options.name);
    }
    let opened = vkhmm_linux::open(&vkhmm_linux::Config {
        reservation_bytes: Some(4 * BULK),
        ..vkhmm_linux::Config::default()
    })
    .context("opening host memory")?;
    let host = &opened.host;
    let mut constants = host::measure(host)?;
    let mut rig = Rig::open(host, options.device)?;
    constants.extend(rig.measure()?);
    print_preset(&options.name, &rig, &opened.report, &constants);
    Ok(())
}

/// The median time of `round`, which times itself; what comes back first is not counted.
fn median(mut round: impl FnMut() -> Result<Duration>) -> Result<Duration> {
    let mut times = Vec::with_capacity(ROUNDS);
    for i in 0..WARM_UP + ROUNDS {
        let time = round()?;
        if i >= WARM_UP {
            times.push(time);
        }
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

/// The time that `work` takes.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Bytes per second, as the preset writes it.
fn rate(field: &'static str, amount: f64, time: Duration, how: String) -> Constant {
    let per_second = amount / time.as_secs_f64().max(1e-12);
    let value = if per_second >= 1e12 {
        format!("{:.2}e12", per_second / 1e12)
    } else {
        format!("{:.2}e9", per_second / 1e9)
    };
    Constant { field, value, how }
}

/// Nanoseconds for each of `count`.
fn nanoseconds(field: &'static str, time: Duration, count: u32, how: String) -> Constant {
    let value = format!("{:.1}", time.as_secs_f64() * 1e9 / f64::from(count));
    Constant { field, value, how }
}

/// Microseconds.
fn microseconds(field: &'static str, time: Duration, how: String) -> Constant {
    Constant { field, value: format!("{:.2}", time.as_secs_f64() * 1e6), how }
}

/// Yes or no.
fn fact(field: &'static str, value: bool, how: String) -> Constant {
    Constant { field, value: value.to_string(), how }
}

fn print_preset(name: &str, rig: &Rig, host: &vkhmm_linux::EngineReport, constants: &[Constant]) {
    println!("/// {}, measured by `./x calibrate`: medians of {ROUNDS}.", rig.name());
    println!("/// Linux {}, host memory by `{}`.", host.kernel, host.chosen.name());
    println!("pub const {}: LinkModel = LinkModel {{", name.to_ascii_uppercase().replace('-', "_"));
    println!("    name: {name:?},");
    println!("    about: {:?},", rig.name());
    for Constant { field, value, how } in constants {
        println!("    {:<28} // {how}", format!("{field}: {value},"));
    }
    println!(
        "    {:<28} // what the runtime makes its arena of",
        format!("kind: MemoryKind::{:?},", rig.kind())
    );
    println!("}};");
}
