//! y = 2x + y over 10 million elements, in a quarter of the device memory that they need: windows stream through.

#[allow(dead_code, reason = "each example uses its part of what they share")]
mod common;

use anyhow::anyhow;
use clap::Parser;
use common::Failure;
use common::memory::{self, Memory};
use common::source::progress;
use std::process::ExitCode;
use vkhmm::{Grid, PlacementKind};

/// Scales and adds vectors that are larger than the device's memory.
///
/// Exit code: 0 for a right answer for which nothing moved twice, 1 for a wrong one or a failing device, 2 for input that cannot be used.
#[derive(Parser)]
#[command(name = "saxpy")]
struct Options {
    #[command(flatten)]
    memory: Memory,
    /// Elements of each vector
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    size: u32,
}

fn main() -> ExitCode {
    common::exit("saxpy", run(&Options::parse()))
}

fn run(options: &Options) -> Result<(), Failure> {
    let n = options.size as usize;
    let rt = options.memory.runtime(8 * n as u64)?;
    let (mut x, mut y) = (rt.alloc::<f32>(n)?, rt.alloc::<f32>(n)?);
    x.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 1000) as f32);
    y.fill(1.0);
    // SAFETY: saxpy.comp ends, has no data race and stays inside x and y.
    let saxpy = unsafe { rt.kernel(include_bytes!("../shaders/spv/saxpy.spv"))? };
    let (bar, before) = (progress(n as u64, "elements"), rt.stats());
    for w in rt.windows(n, 2 * size_of::<f32>(), 2) {
        let (count, end) = (w.len() as u32, w.end);
        let (x, mut y) = (x.slice(w.clone()), y.slice_mut(w));
        rt.launch(&saxpy, Grid::linear(y.len()), (x.read(), y.write(), 2.0f32, count))?;
        bar.set_position(end as u64);
    }
    // Reading y is all it takes: each touch waits for its window and brings that part home.
    let wrong = y.iter().enumerate().find(|(i, v)| **v != 2.0 * (i % 1000) as f32 + 1.0);
    bar.finish_and_clear();
    if let Some((i, v)) = wrong {
        return Err(anyhow!("element {i} is {v}").into());
    }
    let moved = rt.stats().since(&before);
    // Windows are whole granules of 64 KiB; the arrays end in whole pages.
    let (kind, least) = (y.placement().kind, 3 * (n as u64 * 4).next_multiple_of(4096));
    let lines = [
        memory::head(&rt, &format!("two vectors of {n} elements"), 8 * n as u64),
        memory::moved(&moved, kind, least, "x and y in, y home"),
        format!("check      all {n} elements are right"),
    ];
    common::print(&lines.join("\n"))?;
    options.memory.print(&moved)?;
    if kind != PlacementKind::InPlace && moved.in_bytes() + moved.out_bytes() != least {
        return Err(
            anyhow!("{} bytes moved, {least} are needed", moved.in_bytes() + moved.out_bytes()).into()
        );
    }
    Ok(())
}
