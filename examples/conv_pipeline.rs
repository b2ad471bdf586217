//! A photograph through blur, edges and a pyramid: `conv_pipeline photo.png -o out`.
//!
//! Planes of f32, four times larger than the device's memory together. The GPU convolves them; the CPU takes square roots and leaves out
//! every other point, reading what the GPU wrote and writing what it reads next, as slices. Where a plane does not fit, the kernels cut it.

#[allow(dead_code, reason = "each example uses its part of what they share")]
pub(crate) mod common;

use anyhow::{anyhow, ensure};
use clap::Parser;
use common::memory::{self, Memory};
use common::picture::{Picture, byte};
use common::planes::Plane;
use common::{Failure, Random, scene, source::progress};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use vkhmm::kernels;

/// Blurs a picture, finds its edges, and halves it again and again.
///
/// Random points of every result are compared with the CPU's. Exit code: 0 for right pictures, 1 for wrong ones or a failing device, 2 for
/// input that cannot be used.
#[derive(Parser)]
#[command(name = "conv_pipeline")]
pub(crate) struct Options {
    #[command(flatten)]
    memory: Memory,
    /// The picture; without it, an evening at a lake
    #[arg(value_name = "IN.png", conflicts_with_all = ["width", "height"])]
    input: Option<PathBuf>,
    /// The lake's width in points
    #[arg(long, value_name = "N", default_value_t = 1536, value_parser = clap::value_parser!(u32).range(16..=16384))]
    width: u32,
    /// The lake's height in points
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(16..=16384))]
    height: u32,
    /// A folder for photo.png, blur.png, edges.png and pyramid.png
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Brightness of red, green and blue.
const WEIGHTS: [f32; 3] = [0.299, 0.587, 0.114];
/// Brightness changes: how much to the right; transposed, downwards.
const SOBEL: [f32; 9] = [-1.0, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
/// What f32 may be off, of values about 1.
const ALLOWED: f64 = 1e-4;

fn main() -> ExitCode {
    common::exit("conv_pipeline", run(&Options::parse()).map(|_| ()))
}

/// A pyramid, seen from the side: each level beside the one before.
fn montage(levels: &[Plane]) -> Picture {
    let (wide, high) = (levels[0].cols, levels[0].rows);
    Picture::grey(wide + levels.get(1).map_or(0, |l| l.cols), high, |col, row| {
        if col < wide {
            return levels[0].values[row * wide + col];
        }
        let mut top = 0;
        for level in &levels[1..] {
            if row < top + level.rows {
                let inside = col - wide < level.cols;
                return if inside { level.values[(row - top) * level.cols + col - wide] } else { 0.0 };
            }
            top += level.rows;
        }
        0.0
    })
}

/// Runs the program: the bytes moved over the least.
pub(crate) fn run(options: &Options) -> Result<f64, Failure> {
    let photo = match &options.input {
        Some(path) => Picture::read(path).map_err(Failure::Input)?,
        None => scene::evening(options.width as usize, options.height as usize),
    };
    let (cols, rows) = (photo.width, photo.height);
    let usable = || {
        ensure!(rows.min(cols) >= 16, "{cols} x {rows} points: at least 16 x 16 are needed");
        Ok(())
    };
    usable().map_err(Failure::Input)?;
    // Planes in and blurred, what is between, brightness and its two changes, a pyramid twice.
    let plane = 4 * (rows * cols) as u64;
    let bytes = (2 * photo.channels as u64 + 4) * plane + 8 * plane / 3;
    let rt = options.memory.runtime(bytes)?;
    let bell: Vec<f32> = (-4i32..=4).map(|x| (-(x * x) as f32 / 8.0).exp()).collect();
    let bell: Vec<f32> = bell.iter().map(|v| v / bell.iter().sum::<f32>()).collect();
    let turned: Vec<f32> = (0..9).map(|i| SOBEL[i % 3 * 3 + i / 3]).collect();
    let (across, down) = (Plane::of(&rt, "bell", 9, &bell)?, Plane::of(&rt, "bell, upright", 1, &bell)?);
    let (right, below) = (Plane::of(&rt, "to the right", 3, &SOBEL)?, Plane::of(&rt, "below", 3, &turned)?);
    let mut planes = Vec::new();
    for c in 0..photo.channels {
        let values = photo.bytes[c..].iter().step_by(photo.channels).map(|v| f32::from(*v) / 255.0);
        planes.push(Plane::of(&rt, "photo", cols, &values.collect::<Vec<_>>())?);
    }
    let new = |label| Plane::new(&rt, label, rows, cols);

    let (before, clock, bar) = (rt.stats(), Instant::now(), progress(3, "steps"));
    let (mut grey, mut blurred) = (new("brightness")?, Vec::new());
    kernels::fill(&rt, grey.values.overwrite(), 0.0)?;
    for (c, plane) in planes.iter().enumerate() {
        let (mut half, mut blur) = (new("half blurred")?, new("blurred")?);
        half.filter(&rt, plane, &across)?;
        let weight = if planes.len() == 1 { 1.0 } else { WEIGHTS[c] };
        kernels::axpy(&rt, weight, plane.values.read(), grey.values.write())?;
        blur.filter(&rt, &half, &down)?;
        // On the CPU: this waits for what it reads, and brings it home. What is between dies here, and nothing of it comes home.
        let seen: Vec<u8> = blur.values.iter().map(|v| byte(*v)).collect();
        blurred.push((blur, seen));
    }
    bar.inc(1);
    let (mut dx, mut dy) = (new("to the right")?, new("downwards")?);
    dx.filter(&rt, &grey, &right)?;
    dy.filter(&rt, &grey, &below)?;
    let edges: Vec<f32> = dx.values.iter().zip(&*dy.values).map(|(x, y)| x.hypot(*y)).collect();
    bar.inc(1);
    let mut levels = vec![grey];
    // The photo in; blurred, and its changes, home.
    let mut least = (2 * photo.channels as u64 + 2) * plane;
    while let Some(last) = levels.last().filter(|last| last.rows.min(last.cols) >= 32) {
        let (rows, cols) = (last.rows, last.cols);
        let mut half = Plane::new(&rt, "half smooth", rows, cols)?;
        let mut smooth = Plane::new(&rt, "smooth", rows, cols)?;
        half.filter(&rt, last, &across)?;
        smooth.filter(&rt, &half, &down)?;
        let mut next = Plane::new(&rt, "level", rows / 2, cols / 2)?;
        for row in 0..rows / 2 {
            // Every other point of every other row, on the CPU.
            let from = &smooth.values[2 * row * cols..(2 * row + 1) * cols];
            let to = &mut next.values[row * (cols / 2)..(row + 1) * (cols / 2)];
            to.iter_mut().zip(from.iter().step_by(2)).for_each(|(to, from)| *to = *from);
        }
        // Half of the smooth rows home, and the next level in.
        least += 4 * (rows / 2 * cols + next.rows * next.cols) as u64;
        levels.push(next);
    }
    bar.finish_and_clear();
    let (time, moved) = (clock.elapsed().as_secs_f64(), rt.stats().since(&before));

    let (square, mut random) =
        ((0..81).map(|i| bell[i / 9] * bell[i % 9]).collect::<Vec<f32>>(), Random::new(1));
    let mut off: Vec<f64> = Vec::new();
    for (plane, (blur, _)) in planes.iter().zip(&blurred) {
        off.push(blur.off(plane, &square, 9, 1, &mut random));
    }
    off.push(dx.off(&levels[0], &SOBEL, 3, 1, &mut random));
    off.push(dy.off(&levels[0], &turned, 3, 1, &mut random));
    for pair in levels.windows(2) {
        off.push(pair[1].off(&pair[0], &square, 9, 2, &mut random));
    }
    let worst = off.iter().fold(0.0f64, |most, off| most.max(*off));
    let lines = [
        memory::head(&rt, &format!("planes of {cols} x {rows} points"), bytes),
        format!("time       {time:.2} s for {} blurs, 2 edges, {} levels", planes.len(), levels.len()),
        memory::moved(
            &moved,
            levels[0].values.placement().kind,
            least,
            "the photo in; home what the CPU looks at; in again what it makes",
        ),
        format!(
            "check      {} results at random points: none is off by more than {worst:.1e}, {ALLOWED:.0e} is allowed",
            off.len()
        ),
    ];
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    if let Some(folder) = &options.output {
        std::fs::create_dir_all(folder)?;
        let bytes = |i: usize| blurred[i % photo.channels].1[i / photo.channels];
        let blur = Picture { bytes: (0..photo.bytes.len()).map(bytes).collect(), ..photo.clone() };
        let edges = Picture::grey(cols, rows, |col, row| edges[row * cols + col]);
        for (name, picture) in
            [("photo", &photo), ("blur", &blur), ("edges", &edges), ("pyramid", &montage(&levels))]
        {
            picture.write(&folder.join(name).with_extension("png"), None)?;
        }
        common::print(&format!("written    photo, blur, edges, pyramid .png in {}", folder.display()))?;
    }
    if worst > ALLOWED {
        return Err(anyhow!("a point is off by {worst:.1e}").into());
    }
    Ok(memory::times(&moved, least))
}
