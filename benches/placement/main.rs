//! What sparse placement costs: binding frames, and kernels on frames that lie in any order. `cargo bench --bench placement`.
//!
//! Every figure is a median of [`ROUNDS`] rounds on the device's own port, with nothing else of the runtime running. What is compared
//! is measured in turn within each round, so that whatever disturbs one disturbs the other; the ratio is the median of the rounds' own.
//! Class L: a software device, whose binds are system calls; class D: a card.

mod rig;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rig::Rig;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::units::FrameIndex;
use vkhmm_port::{BoundRange, Command, Device, Role};
use vkhmm_vulkan::{VulkanBuffer, VulkanDevice};

/// Measures binds of sparse buffers, and kernels on permuted frames against frames in one run
#[derive(Parser)]
struct Options {
    /// Which Vulkan device: a part of its name, or its number
    #[arg(long)]
    device: Option<String>,
    /// 16 MiB for kernels instead of 64
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rounds that count, an odd number: the median is one of them.
const ROUNDS: usize = 11;
const WARM_UP: usize = 2;
/// Where the gather looks.
const SEED: u32 = 12_345;
const FRAME: u64 = rig::GEOMETRY.frame_bytes();
/// Binds in one submission, and frames in each.
const BATCHES: [(u64, u64); 5] = [(1, 1), (16, 1), (256, 1), (1, 32), (16, 32)];

fn main() -> Result<()> {
    let options = Options::parse();
    let words = if options.quick { 4 << 20 } else { 16 << 20 };
    let mut rig = Rig::open(options.device, 3 * words * 4 / FRAME)?;
    let class = if rig.is_software() { 'L' } else { 'D' };
    println!("{}, class {class}, medians of {ROUNDS}", rig.name());
    println!("placement: {}", rig.device().report().placement);
    println!("queues: {}", rig.device().report().roles);
    if rig.device().profile().sparse.is_none() {
        println!("nothing to measure: this device places ranges as spans alone");
        return Ok(());
    }
    binds(&mut rig)?;
    kernels(&mut rig, words)
}

/// Times of several ways, round by round.
fn rounds<const N: usize>(mut round: impl FnMut() -> Result<[Duration; N]>) -> Result<Vec<[Duration; N]>> {
    (0..WARM_UP + ROUNDS).map(|_| round()).skip(WARM_UP).collect()
}

/// The middle one.
fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> Result<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied().context("no rounds")
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Each batch alone, waited for; in front of an empty submission that waits for it on the device, against that submission alone; and
/// taken back.
fn binds(rig: &mut Rig) -> Result<()> {
    println!();
    println!(
        "binds, no two neighbours    bind+wait     per 64 KiB   bind+submit+wait   submit+wait   unbind+wait"
    );
    for (count, frames) in BATCHES {
        let buffer = rig.reserve(count * 2 * frames)?;
        // Every other stretch of the buffer, and the frames from the end: nothing can be merged.
        let batch = |give: bool| {
            (0..count)
                .map(|i| {
                    let first = ((count - 1 - i) * frames) as u32;
                    rig::bind(&buffer, 2 * i * frames, frames, give.then_some(FrameIndex(first)))
                })
                .collect::<Vec<_>>()
        };
        let times = rounds(|| {
            let step = |give: bool| (Role::Bind, vec![Command::Bind { binds: batch(give) }]);
            let bind = rig.timed(vec![step(true)])?;
            let unbind = rig.timed(vec![step(false)])?;
            let alone = rig.timed(vec![(Role::Compute, Vec::new())])?;
            let chained = rig.timed(vec![step(true), (Role::Compute, Vec::new())])?;
            rig.timed(vec![step(false)])?;
            Ok([bind, chained, alone, unbind])
        })?;
        let time = |i: usize| median(times.iter().map(|t| microseconds(t[i])));
        println!(
            "{count:>4} x {:>4} KiB        {:>9.1} us {:>9.2} us     {:>11.1} us {:>10.1} us {:>10.1} us",
            (frames * FRAME) >> 10,
            time(0)?,
            time(0)? / (count * frames) as f64,
            time(1)?,
            time(2)?,
            time(3)?
        );
    }
    Ok(())
}

/// A kernel's arguments: all of two buffers.
fn both(from: &Arc<VulkanBuffer>, to: &Arc<VulkanBuffer>) -> Vec<BoundRange<VulkanDevice>> {
    let all = |buffer: &Arc<VulkanBuffer>| BoundRange {
        buffer: Some(Arc::clone(buffer)),
        offset: 0,
        bytes: buffer.bytes(),
    };
    vec![all(from), all(to)]
}

/// The same kernel from the same frames, which lie in one run or permuted in a sparse buffer, to others that lie likewise.
fn kernels(rig: &mut Rig, words: u64) -> Result<()> {
    let frames = words * 4 / FRAME;
    let dense = [rig.dense(0, frames)?, rig.dense(frames, frames)?];
    let permuted = [rig.permuted(0, frames)?, rig.permuted(frames, frames)?];
    rig.number_frames(frames)?;
    println!();
    println!(
        "kernel on {} MiB       frames in one run     permuted frames    ratio (median, least, most)",
        (words * 4) >> 20
    );
    let stream: fn(u32, u32) -> u32 = |i, _| i;
    let gather: fn(u32, u32) -> u32 = |i, n| rig::gathered(i, SEED) % n;
    for (name, push, spirv, source) in [
        ("stream", Vec::new(), rig::COPY, stream),
        ("random gather", SEED.to_ne_bytes().to_vec(), rig::GATHER, gather),
    ] {
        let kernel = rig.kernel(spirv, name)?;
        let groups = (words / 64).min(65_535) as u32;
        let run = |buffers: &[Arc<VulkanBuffer>; 2]| Command::Dispatch {
            kernel: Arc::clone(&kernel),
            bindings: both(&buffers[0], &buffers[1]),
            push: push.clone(),
            groups: [groups, 1, 1],
            elapsed_ns: Arc::default(),
        };
        let times = rounds(|| {
            Ok([
                rig.timed(vec![(Role::Compute, vec![run(&dense)])])?,
                rig.timed(vec![(Role::Compute, vec![run(&permuted)])])?,
            ])
        })?;
        let ratio = |t: &[Duration; 2]| t[1].as_secs_f64() / t[0].as_secs_f64().max(1e-12);
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        times.iter().map(ratio).for_each(|r| (least, most) = (least.min(r), most.max(r)));
        println!(
            "{name:<20}     {:>12.2} ms   {:>14.2} ms      {:.2} ({least:.2} to {most:.2})",
            median(times.iter().map(|t| microseconds(t[0]) / 1e3))?,
            median(times.iter().map(|t| microseconds(t[1]) / 1e3))?,
            median(times.iter().map(ratio))?
        );
        // The last run was on permuted frames: sub-block k of the source held only the number of its frame.
        let per_frame = (FRAME / 4) as u32;
        for k in 0..frames as u32 {
            let found = rig.words(frames as u32 + rig::frame_of(k, frames as u32))?;
            let right = (0..per_frame).zip(&found).all(|(i, word)| {
                let from = source(k * per_frame + i, words as u32) / per_frame;
                *word == rig::frame_of(from, frames as u32)
            });
            ensure!(right, "{name} on permuted frames left wrong words in sub-block {k}");
        }
    }
    Ok(())
}
