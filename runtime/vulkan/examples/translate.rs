//! What it costs a kernel to find its addresses in tables: each paged kernel against the same body on plain addresses, everything
//! resident. Prints medians of ratios of runs that alternate; absolute times say nothing here. `-- ROUNDS` sets how many.

#[path = "../tests/common/mod.rs"]
mod common;

use common::paging::{Launch, Paged};
use common::{FRAME, Rig, clock};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_core::units::FrameIndex;
use vkhmm_port::{Command, Device, Role};
use vkhmm_vulkan::{KernelOptions, VulkanKernel};

macro_rules! shipped {
    ($name:literal) => {
        include_bytes!(concat!("../../../shaders/spv/", $name, ".spv"))
    };
}

/// A range: its words, and whether it is stored to.
struct Range {
    words: u32,
    access: u32,
    /// What word `i` is.
    word: fn(u32) -> u32,
}

/// A kernel with and without tables.
struct Pair {
    name: &'static str,
    plain: &'static [u8],
    paged: &'static [u8],
    ranges: Vec<Range>,
    /// What is pushed behind the addresses.
    push: Vec<u32>,
    groups: u32,
    items: u32,
}

fn hash(i: u32) -> u32 {
    let x = (i ^ (i >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

fn pairs() -> Vec<Pair> {
    const N: u32 = 4 << 20;
    const SIDE: u32 = 1024;
    const SOURCE: u32 = 16 << 20;
    let range = |words, access, word| Range { words, access, word };
    vec![
        Pair {
            name: "triad, a resolve per 64 KiB",
            plain: shipped!("plain_triad"),
            paged: shipped!("paged_triad"),
            ranges: vec![range(N, WRITE, |_| 0), range(N, READ, |i| i), range(N, READ, |i| i)],
            push: vec![3.0_f32.to_bits(), N],
            groups: N / 16384,
            items: 0,
        },
        Pair {
            name: "gather, a resolve per element",
            plain: shipped!("plain_gather"),
            paged: shipped!("paged_gather"),
            ranges: vec![
                range(N, WRITE, |_| 0),
                range(N, READ, |i| hash(i) % SOURCE),
                range(SOURCE, READ, |i| i),
            ],
            push: vec![N],
            groups: N / 8192,
            items: 8192,
        },
        Pair {
            name: "gemm, a resolve per row of a tile",
            plain: shipped!("plain_gemm"),
            paged: shipped!("paged_gemm"),
            ranges: vec![
                range(SIDE * SIDE, WRITE, |_| 0),
                range(SIDE * SIDE, READ, |i| i & 0x3fff_ffff),
                range(SIDE * SIDE, READ, |i| i & 0x3fff_ffff),
            ],
            push: vec![SIDE, SIDE, SIDE],
            groups: SIDE / 64 * (SIDE / 32),
            items: 0,
        },
    ]
}

/// Nanoseconds of one run.
fn time(rig: &mut Rig, kernel: &Arc<VulkanKernel>, push: &[u8], groups: u32) -> u64 {
    let elapsed = clock();
    let dispatch = Command::Dispatch {
        kernel: Arc::clone(kernel),
        bindings: Vec::new(),
        push: push.to_vec(),
        groups: [groups, 1, 1],
        elapsed_ns: Arc::clone(&elapsed),
    };
    rig.run(Role::Compute, vec![dispatch]);
    elapsed.load(Ordering::Acquire).max(1)
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(15);
    for pair in pairs() {
        let mut rig = Rig::open(|config| config.validation = false);
        let blocks: Vec<u32> = pair.ranges.iter().map(|r| (r.words * 4).div_ceil(2 << 20)).collect();
        let frames = blocks.iter().sum::<u32>() * 32;
        rig.device().grow(FrameIndex(0), frames).expect("grow");
        let (mut ranges, mut next) = (Vec::new(), 0);
        for (range, blocks) in pair.ranges.iter().zip(&blocks) {
            let at: Vec<u32> = (next..next + blocks).map(|block| block * 32).collect();
            next += blocks;
            let paged = Paged::new(&rig, u64::from(range.words) * 4, range.access, &at);
            paged.fill(&mut rig, &(0..range.words).map(range.word).collect::<Vec<_>>());
            ranges.push(paged);
        }
        let mut launch = Launch::new(&rig, [pair.groups, 1, 1], pair.items, ranges, frames, 64);
        launch.map_all(&rig);
        let options = || KernelOptions { timed: true, ..KernelOptions::default() };
        let make = |spirv: &[u8]| {
            let words: Vec<u32> =
                spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
            rig.device().kernel(&words, options()).expect("a shipped kernel")
        };
        let (plain, paged) = (make(pair.plain), make(pair.paged));
        let base = rig.device().address(&launch.span);
        let mut addresses = Vec::new();
        for range in &launch.ranges {
            let at = base + u64::from(range.blocks[0].expect("it lies somewhere")) * FRAME;
            addresses.extend(at.to_ne_bytes());
        }
        addresses.extend(pair.push.iter().flat_map(|word| word.to_ne_bytes()));
        let ids: Vec<u32> = (0..pair.groups).collect();
        let (mut ratios, mut least) = (Vec::new(), [u64::MAX; 2]);
        for round in 0..=rounds {
            launch.prepare(&ids, u32::MAX);
            launch.done.clear();
            launch.items_done.clear();
            let push = launch.push(&pair.push);
            let (first, second) = if round % 2 == 0 {
                let first = time(&mut rig, &plain, &addresses, pair.groups);
                (first, time(&mut rig, &paged, &push, pair.groups))
            } else {
                let second = time(&mut rig, &paged, &push, pair.groups);
                (time(&mut rig, &plain, &addresses, pair.groups), second)
            };
            assert!(launch.open().is_empty(), "{}: not all done", pair.name);
            // The first run compiles.
            if round > 0 {
                ratios.push(second as f64 / first as f64);
                least = [least[0].min(first), least[1].min(second)];
            }
        }
        let best = least[1] as f64 / least[0] as f64;

        println!("{:<36} {:.2} (of the quickest runs: {best:.2})", pair.name, median(ratios));
    }
}
