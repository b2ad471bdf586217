//! Heat in a plate larger than the device's memory: `heat2d -o heat.png`.
//!
//! Bands of rows stream through. Each band comes in with a halo, is carried on several steps in scratch memory that stays on the device
//! (each step takes a row off the halo), and only then goes home: a sweep over the plate costs its bytes once each way, not once a step.
//! What nobody reads again is discarded instead of copied home. No transfer is written anywhere.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::{anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::picture::heat_palette;
use common::{Failure, plate, source::progress};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::{Grid, Kernel, Managed, Runtime};

/// How heat spreads in a square plate whose edge is kept at zero.
///
/// The plate starts as a sum of three sine waves, each of which fades at a rate that is known: every point is compared with that. Exit
/// code: 0 for a right plate, 1 for a wrong one or a failing device, 2 for options that cannot be.
#[derive(Parser)]
#[command(name = "heat2d")]
pub(crate) struct Options {
    #[command(flatten)]
    memory: Memory,
    /// Points along a side, a multiple of 64
    #[arg(long, value_name = "N", default_value_t = 2048)]
    side: usize,
    /// Steps of time
    #[arg(long, value_name = "N", default_value_t = 64)]
    steps: usize,
    /// Steps that a band is carried on while it is on the device
    #[arg(long, value_name = "N", default_value_t = 8)]
    sweep: usize,
    /// Where to write a picture: left the plate at the start, right at the end
    #[arg(short, long, value_name = "FILE.png")]
    output: Option<PathBuf>,
    /// Writes FILE.1.png, FILE.2.png … after each sweep, too; the plate comes home for each
    #[arg(long, requires = "output")]
    sequence: bool,
}

fn main() -> ExitCode {
    common::exit("heat2d", run(&Options::parse()).map(|_| ()))
}

/// The plate now and a sweep later, scratch memory for the steps between, and the kernel.
struct Heat {
    step: Kernel,
    now: Managed<f32>,
    later: Managed<f32>,
    scratch: [Managed<f32>; 2],
    side: usize,
    rows: usize,
}

impl Heat {
    fn new(rt: &Runtime, side: usize, sweep: usize) -> vkhmm::Result<Self> {
        // Two bands at a time, now and later, and the scratch memory take a quarter of the device; the rest keeps what it can.
        let (limit, row) = (rt.device_memory().0 as usize, 4 * side);
        let granule = 65536usize.div_ceil(row);
        let rows = (limit / 4 / row).saturating_sub(8 * sweep) / 6 / granule * granule;
        let rows = rows.clamp(granule, side.next_multiple_of(granule));
        let scratch = |label| rt.alloc_named::<f32>((rows + 2 * sweep).min(side) * side, label);
        Ok(Self {
            // SAFETY: heat.comp ends, has no data race and stays inside its two buffers.
            step: unsafe {
                rt.kernel_builder(include_bytes!("../shaders/spv/heat.spv")).name("heat").build()?
            },
            now: rt.alloc_named(side * side, "plate")?,
            later: rt.alloc_named(side * side, "plate, a sweep later")?,
            scratch: [scratch("even steps")?, scratch("odd steps")?],
            side,
            rows,
        })
    }

    /// Carries all bands on by `steps`.
    fn sweep(&mut self, rt: &Runtime, steps: usize) -> vkhmm::Result<()> {
        let (side, mut dead) = (self.side, 0);
        let wide =
            |band: &Range<usize>, halo: usize| band.start.saturating_sub(halo)..(band.end + halo).min(side);
        let elements = |rows: &Range<usize>| rows.start * side..rows.end * side;
        for start in (0..side).step_by(self.rows) {
            let band = start..(start + self.rows).min(side);
            for step in 0..steps {
                let left = steps - 1 - step;
                let (old, new) = (wide(&band, left + 1), wide(&band, left));
                let [even, odd] = &mut self.scratch;
                let (before, after) = if step % 2 == 0 { (odd, even) } else { (even, odd) };
                let from = match step {
                    0 => self.now.slice(elements(&old)),
                    _ => before.slice(..old.len() * side),
                };
                let mut to = match left {
                    0 => self.later.slice_mut(elements(&new)),
                    _ => after.slice_mut(..new.len() * side),
                };
                let first = new.start - old.start;
                let [cols, rows, first, count] = [side, old.len(), first, new.len()].map(|n| n as u32);
                let arguments = (from.read(), to.overwrite(), cols, rows, first, count, plate::RATE as f32);
                rt.launch(&self.step, Grid::linear(new.len() * side / 4), arguments)?;
            }
            // Rows above the next halo: nobody reads them again, so what the device has of them need not come home.
            let end = if band.end == side { side } else { band.end.saturating_sub(steps).max(dead) };
            self.now.slice_mut(elements(&(dead..end))).discard()?;
            dead = end;
        }
        std::mem::swap(&mut self.now, &mut self.later);
        Ok(())
    }
}

/// Runs the program: the bytes moved over the least.
pub(crate) fn run(options: &Options) -> Result<f64, Failure> {
    let Options { memory, side, steps, sweep, output, sequence } = options;
    let (side, steps, sweep) = (*side, *steps, *sweep);
    let usable = || {
        ensure!(
            (64..=32768).contains(&side) && side % 64 == 0,
            "--side {side}: a multiple of 64, up to 32768"
        );
        ensure!((1..=side).contains(&sweep), "--sweep {sweep}: from 1 to the points along a side");
        Ok(())
    };
    usable().map_err(Failure::Input)?;
    let bytes = 4 * (side * side) as u64;
    let rt = memory.runtime(2 * bytes)?;
    let mut heat = Heat::new(&rt, side, sweep)?;
    let start = plate::after(side, 0);
    heat.now.iter_mut().enumerate().for_each(|(i, v)| *v = start(i / side, i % side) as f32);

    let (before, clock, bar) = (rt.stats(), Instant::now(), progress(steps as u64, "steps"));
    let sweeps = steps.div_ceil(sweep);
    for i in 0..sweeps {
        heat.sweep(&rt, sweep.min(steps - i * sweep))?;
        bar.set_position((i * sweep) as u64);
        if let (Some(path), true) = (output, sequence) {
            let path = path.with_extension(format!("{}.png", i + 1));
            plate::picture(&heat.now, side).write(&path, Some(heat_palette()))?;
        }
    }
    // Reading it is all it takes: each touch waits for its band, and brings that part home.
    let right = plate::after(side, steps);
    let off = heat.now.iter().enumerate().map(|(i, v)| (f64::from(*v) - right(i / side, i % side)).abs());
    let off = off.fold(0.0, |most: f64, off| if off.is_nan() { f64::INFINITY } else { most.max(off) });
    bar.finish_and_clear();
    let (time, moved) = (clock.elapsed().as_secs_f64(), rt.stats().since(&before));
    let not_kept = bytes.saturating_sub(rt.device_memory().0);
    let bound = 2 * bytes + 2 * not_kept * (sweeps as u64).saturating_sub(1);
    let why = format!(
        "the plate in and home, and after each of {} sweeps what does not stay",
        sweeps.saturating_sub(1)
    );
    let mut lines = vec![
        memory::head(&rt, &format!("{side} x {side} points, now and later"), 2 * bytes),
        format!(
            "time       {time:.2} s, {:.0} million points a second; sweeps of {sweep} steps, bands of {} rows",
            (steps * side * side) as f64 / time / 1e6,
            heat.rows
        ),
        memory::moved(&moved, heat.now.placement().kind, bound, &why),
    ];
    let mut coarse = false;
    for wave in plate::waves(side) {
        let [grid, exact] = [wave.factor(side), wave.analytic(side)].map(|fade| fade.powi(steps as i32));
        let (down, across) = (wave.down, wave.across);
        lines.push(format!("wave       {down} x {across} fades to {grid:.5}, without a grid to {exact:.5}"));
        coarse |= (grid / exact - 1.0).abs() > 0.02;
    }
    // Each step rounds a value of at most 1 a few times.
    let allowed = (4 * steps + 4) as f64 * f64::from(f32::EPSILON);
    lines.push(format!("check      no point is off by more than {off:.1e}, {allowed:.1e} is allowed"));
    if let Some(path) = output {
        plate::picture(&heat.now, side).write(path, Some(heat_palette()))?;
        lines.push(format!("written    {}", path.display()));
    }
    common::print(&lines.join("\n"))?;
    memory.print(&moved)?;
    match off > allowed {
        true => Err(anyhow!("a point is off by {off:.1e}").into()),
        false if coarse => Err(anyhow!("the grid is too coarse for its waves: they fade otherwise").into()),
        false => Ok(memory::times(&moved, bound)),
    }
}
