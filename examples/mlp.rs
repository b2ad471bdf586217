//! A network that learns to read digits, and a stack of layers four times larger than the device's memory: `mlp`.
//!
//! Images, weights and what is between are managed: the GPU trains, the CPU looks at the guesses as a slice. Then images go through a deep
//! stack, whose layers stream in as launches name them: as fast as copies written by hand, and how fast were it all on the device?

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::{anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::network::{Images, Network};
use common::stack::{self, UNITS};
use common::{Failure, npy, source::progress};
use std::io::Cursor;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::PlacementKind;
use vkhmm_programs::{Explicit, Mode, Player, Program, Schedule};

/// Trains a network of two layers on handwritten digits, then streams a stack of layers.
///
/// Exit code: 0 if at least 97 of 100 digits that it has never seen are read rightly and every way through the stack ends with the same
/// bits, 1 if not or where a device fails, 2 for options that cannot be.
#[derive(Parser)]
#[command(name = "mlp")]
pub(crate) struct Options {
    #[command(flatten)]
    memory: Memory,
    /// Steps of training
    #[arg(long, value_name = "N", default_value_t = 150)]
    steps: usize,
    /// Layers of the stack, of 1 MiB each
    #[arg(long, value_name = "N", default_value_t = 32)]
    layers: usize,
    /// How often images go through the stack
    #[arg(long, value_name = "N", default_value_t = 3)]
    batches: usize,
    /// Images that go through the stack together
    #[arg(long, value_name = "N", default_value_t = 128)]
    images: usize,
    /// Measures no other ways through the stack
    #[arg(long)]
    alone: bool,
}

const POINTS: &[u8] = include_bytes!("data/digits.npy");
const LABELS: &[u8] = include_bytes!("data/digits-labels.npy");
/// Every so many rows one is held out.
const HELD_OUT: usize = 5;
/// How often each way through the stack is measured.
const ROUNDS: usize = 3;
/// Of a hundred, how many that were held out must be right.
const RIGHT_MIN: f64 = 97.0;

fn main() -> ExitCode {
    common::exit("mlp", run(&Options::parse()).map(|_| ()))
}

/// Learns to read; a line about how well.
fn digits(options: &Options, points: &[f64]) -> Result<(String, f64), Failure> {
    let labels = npy::keys(npy::check(Cursor::new(LABELS))?)?;
    let rt = common::runtime(8 << 20)?;
    let images = |held_out: bool| {
        let rows = points.chunks_exact(64).zip(&labels).enumerate();
        let rows = rows.filter(|(i, _)| (i % HELD_OUT == 0) == held_out).map(|(_, row)| row);
        let (rows, labels): (Vec<&[f64]>, Vec<u64>) = rows.unzip();
        Images::new(&rt, &rows, &labels)
    };
    let (mut seen, mut unseen) = (images(false)?, images(true)?);
    let (mut network, start, bar) =
        (Network::new(&rt, 3)?, Instant::now(), progress(options.steps as u64, "steps"));
    for step in 1..=options.steps {
        network.train(&mut seen)?;
        if step % 25 == 0 {
            // Now and then the CPU looks, and waits by that.
            let known = network.right(&mut seen)?;
            bar.set_message(format!("{known} of {} known", seen.count));
        }
        bar.inc(1);
    }
    let (known, right) = (network.right(&mut seen)?, network.right(&mut unseen)?);
    bar.finish_and_clear();
    let time = start.elapsed().as_secs_f64();
    let percent = 100.0 * right as f64 / unseen.count as f64;
    let line = format!(
        "digits     {right} of {} held out are right ({percent:.1} %), {known} of the {} it learned from; {} steps in {time:.1} s",
        unseen.count, seen.count, options.steps
    );
    Ok((line, percent))
}

/// The same launches, written by hand.
struct ByHand<'p> {
    explicit: Explicit<'p>,
    plan: Schedule,
    all: Schedule,
}

/// Opens the device for that; none where it cannot be used so, and says why.
fn others(program: &Program, room: usize) -> Option<ByHand<'_>> {
    let explicit = Explicit::open(program, std::env::var("VKHMM_DEVICE").ok());
    let explicit = explicit.map_err(|error| eprintln!("mlp: not by hand on this device: {error:#}")).ok()?;
    let (plan, all) = (Schedule::new(program, room), Schedule::new(program, program.tiles()));
    Some(ByHand { explicit, plan, all })
}

impl ByHand<'_> {
    /// Seconds with double buffering, and with everything on the device.
    fn play(&mut self) -> anyhow::Result<(f64, f64)> {
        Ok((self.explicit.good(&self.plan)?, self.explicit.in_core(&self.all)?))
    }
}

/// Runs the program: the stack's bytes moved over the least.
pub(crate) fn run(options: &Options) -> Result<f64, Failure> {
    let Options { layers, batches, images, .. } = *options;
    let usable = || {
        let sizes =
            (1..=4096).contains(&layers) && (1..=1000).contains(&batches) && (8..=4096).contains(&images);
        ensure!(sizes, "1 to 4096 layers, 1 to 1000 batches, 8 to 4096 images");
        Ok(())
    };
    usable().map_err(Failure::Input)?;
    let points = npy::numbers(npy::check(Cursor::new(POINTS))?)?;
    let (line, percent) = digits(options, &points)?;
    common::print(&line)?;
    if percent < RIGHT_MIN {
        return Err(anyhow!("{percent:.1} % are right, {RIGHT_MIN} % are needed").into());
    }

    let program = stack::stack(&points, layers, batches, images);
    let program =
        program.ok_or_else(|| Failure::Input(anyhow!("the sums of {layers} layers are not exact")))?;
    let rt = options.memory.runtime(program.footprint())?;
    let limit = rt.device_memory().0;
    let head =
        memory::head(&rt, &format!("{layers} layers of {UNITS} x {UNITS}, and images"), program.footprint());
    drop(rt);
    let room = (limit.saturating_sub(program.staying_bytes()) / program.tile_bytes()) as usize;
    if room == 0 {
        return Err(Failure::Input(anyhow!("a memory limit of {limit} bytes has no room for one layer")));
    }
    let mut player = Player::new(&program, limit)?;
    let mut by_hand = if options.alone { None } else { others(&program, room) };
    // Once for the compiler of a software device; then in turn, and the best of each counts.
    player.play(Mode::Demand)?;
    let (mut times, mut moved) = ([f64::INFINITY; 3], Default::default());
    for _ in 0..if options.alone { 1 } else { ROUNDS } {
        let (time, stats) = player.play(Mode::Demand)?;
        times[0] = times[0].min(time);
        moved = stats;
        if let Some(by_hand) = &mut by_hand {
            let (good, in_core) = by_hand.play()?;
            (times[1], times[2]) = (times[1].min(good), times[2].min(in_core));
        }
    }
    // Part of a layer may stay, too: as if the device had room for the whole of it, and for nothing but layers.
    let most = (limit.div_ceil(program.tile_bytes()) as usize).min(program.tiles());
    let least = Schedule::new(&program, most).fetched as u64 * program.tile_bytes();
    let stays: usize = [1, 4].iter().map(|array| program.arrays[*array].initial.len()).sum();
    let bound = least + 4 * stays as u64;
    let rate = |seconds: f64| (images * batches) as f64 / seconds;
    let kind = if moved.in_bytes() == 0 { PlacementKind::InPlace } else { PlacementKind::Span };
    let mut lines = vec![head, format!("managed    {:.0} images a second", rate(times[0]))];
    if by_hand.is_some() {
        lines.push(format!(
            "by hand    {:.0} images a second, copies beside kernels on all queues",
            rate(times[1])
        ));
        lines.push(format!("in core    {:.0} images a second, everything on the device", rate(times[2])));
    }
    lines.push(memory::moved(
        &moved,
        kind,
        bound,
        "layers as with the future known, images in, results home",
    ));
    lines.push("check      every way ends with the CPU's bits".into());
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    Ok(memory::times(&moved, bound))
}
