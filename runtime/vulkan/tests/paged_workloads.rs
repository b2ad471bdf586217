//! The paged kernels that vkhmm ships, each over tables of random holes from round to round until it is done: the result must be that of
//! a host, bit by bit, however often a group or item had to begin again.

mod common;

use common::paging::{BOTH, Launch, Paged};
use common::{FRAME, Rig};
use std::sync::Arc;
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_core::units::FrameIndex;
use vkhmm_port::Device;
use vkhmm_vulkan::KernelOptions;

macro_rules! shipped {
    ($name:literal) => {
        include_bytes!(concat!("../../../shaders/spv/", $name, ".spv"))
    };
}

/// Words of a block.
const BLOCK: usize = (2 << 20) / 4;

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

fn hash(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

fn numbers(seed: u32, n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| hash(hash(i).wrapping_add(seed))).collect()
}

/// Small whole numbers as floats: sums of their products are exact.
fn floats(seed: u32, n: usize) -> Vec<u32> {
    numbers(seed, n).into_iter().map(|x| ((x >> 28) as f32).to_bits()).collect()
}

fn float(word: u32) -> f32 {
    f32::from_bits(word)
}

/// One range: its words before, how it is given, and its words after, if they are looked at.
struct Range(Vec<u32>, u32, Option<Vec<u32>>);

/// Runs a kernel in rounds, each with `share` in 256 of all sub-blocks, and compares; the number of rounds.
fn check(spirv: &[u8], grid: [u32; 3], items: u32, ranges: Vec<Range>, push: &[u32], share: u32) -> u32 {
    let mut rig = Rig::open(|_| {});
    let blocks: Vec<u32> = ranges.iter().map(|r| r.0.len().div_ceil(BLOCK) as u32).collect();
    let all = blocks.iter().sum::<u32>();
    rig.device().grow(FrameIndex(0), all * 32).expect("grow");
    // From the last block to the first: no run of elements goes on behind its block.
    let mut next = (0..all).rev();
    let paged: Vec<Paged> = ranges
        .iter()
        .zip(&blocks)
        .map(|(range, blocks)| {
            let at: Vec<u32> = next.by_ref().take(*blocks as usize).map(|block| block * 32).collect();
            Paged::new(&rig, range.0.len() as u64 * 4, range.1, &at)
        })
        .collect();
    for (paged, range) in paged.iter().zip(&ranges) {
        paged.fill(&mut rig, &range.0);
    }
    let kernel: Arc<_> = rig.device().kernel(&words(spirv), KernelOptions::default()).expect("a kernel");
    assert_eq!(kernel.reflection().paged.expect("it is paged").items, items);
    let mut launch = Launch::new(&rig, grid, items, paged, all * 32, 4096);
    let rounds = launch.run_at_random(&mut rig, &kernel, push, share, 3000);
    for (i, (paged, range)) in launch.ranges.iter().zip(&ranges).enumerate() {
        let now = paged.read(&mut rig);
        let expected = range.2.as_ref().unwrap_or(&range.0);
        let wrong = now.iter().zip(expected).position(|(have, want)| have != want);
        assert_eq!(wrong, None, "range {i}, after {rounds} rounds");
    }
    rounds
}

#[test]
fn what_must_not_happen_twice_happens_once() {
    let grid = [1000, 35, 2];
    let groups: u32 = grid.iter().product();
    let before = numbers(1, groups as usize * 64);
    let after = before.iter().map(|x| x.wrapping_mul(2)).collect();
    // Of each plane of the grid: once per group, and the coordinates of all.
    let sum = (0..35_000_u32).map(|i| 1 + i % 1000 + i / 1000).sum();
    let counter = Range(vec![0; 2], BOTH, Some(vec![sum; 2]));
    let kernel = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels/paged_update.spv"));
    let ranges = vec![Range(before, BOTH, Some(after)), counter];
    let rounds = check(&kernel.expect("a kernel of these tests"), grid, 0, ranges, &[groups], 254);
    assert!(rounds > 2, "{rounds}");
}

#[test]
fn gemm_over_blocks_that_end_in_the_middle_of_rows() {
    let (m, n, k) = (192_usize, 160, 4096);
    let (a, b) = (floats(2, m * k), floats(3, k * n));
    let mut c = vec![0.0_f32; m * n];
    for (row, c) in c.chunks_exact_mut(n).enumerate() {
        for p in 0..k {
            let left = float(a[row * k + p]);
            c.iter_mut().zip(&b[p * n..]).for_each(|(c, b)| *c += left * float(*b));
        }
    }
    let after = c.iter().map(|x| x.to_bits()).collect();
    let ranges =
        vec![Range(numbers(4, m * n), WRITE, Some(after)), Range(a, READ, None), Range(b, READ, None)];
    let rounds = check(shipped!("paged_gemm"), [15, 1, 1], 0, ranges, &[m as u32, n as u32, k as u32], 254);
    assert!(rounds > 1, "{rounds}");
}

/// A sparse matrix: offsets, columns. Rows of up to `most` elements, a few of a thousand times as many.
fn sparse(seed: u32, rows: usize, columns: usize, most: u32) -> (Vec<u32>, Vec<u32>) {
    let mut offsets = vec![0];
    for (row, length) in numbers(seed, rows).into_iter().enumerate() {
        let length = if row % 5000 == 77 { most * 1000 } else { length % (most + 1) };
        offsets.push(offsets[row] + length);
    }
    let all = offsets[rows] as usize;
    (offsets, numbers(seed + 1, all).into_iter().map(|x| x % columns as u32).collect())
}

#[test]
fn spmv_with_rows_of_any_length() {
    let (rows, columns) = (20_000_usize, 700_000);
    let (offsets, places) = sparse(5, rows, columns, 20);
    let (values, x) = (floats(7, places.len()), floats(8, columns));
    let row = |row: usize| {
        let elements = offsets[row] as usize..offsets[row + 1] as usize;
        elements
            .map(|e| float(values[e]) * float(x[places[e] as usize]))
            .fold(0.0, |sum, x: f32| sum + x)
            .to_bits()
    };
    let y = (0..rows).map(row).collect();
    let ranges = vec![
        Range(numbers(9, rows), WRITE, Some(y)),
        Range(offsets.clone(), READ, None),
        Range(places, READ, None),
        Range(values, READ, None),
        Range(x, READ, None),
    ];
    // The longest rows need nearly all of x at once.
    let groups = rows.div_ceil(64) as u32;
    let rounds = check(shipped!("paged_spmv_csr"), [groups, 1, 1], 64, ranges, &[rows as u32], 245);
    assert!(rounds > 2, "{rounds}");
}

#[test]
fn pagerank_sums_what_leads_to_a_vertex() {
    let n = 30_000_usize;
    let (offsets, sources) = sparse(10, n, n, 12);
    let share = floats(12, n);
    let degree: Vec<u32> = numbers(13, n).into_iter().map(|x| (1 << (x >> 30)) & !1).collect();
    let rank: Vec<f32> = (0..n)
        .map(|v| {
            let sources = &sources[offsets[v] as usize..offsets[v + 1] as usize];
            1.0 + 0.5 * sources.iter().map(|u| float(share[*u as usize])).sum::<f32>()
        })
        .collect();
    let out = rank.iter().zip(&degree).map(|(r, d)| if *d == 0 { 0 } else { (r / *d as f32).to_bits() });
    let ranges = vec![
        Range(vec![0; n], WRITE, Some(rank.iter().map(|r| r.to_bits()).collect())),
        Range(vec![0; n], WRITE, Some(out.collect())),
        Range(offsets, READ, None),
        Range(sources, READ, None),
        Range(share, READ, None),
        Range(degree, READ, None),
    ];
    let push = [n as u32, 1.0_f32.to_bits(), 0.5_f32.to_bits()];
    check(shipped!("paged_pagerank"), [n.div_ceil(64) as u32, 1, 1], 64, ranges, &push, 200);
}

#[test]
fn bfs_gives_each_vertex_its_level_and_counts_it_once() {
    let n = 300_000_usize;
    let (offsets, edges) = sparse(20, n, n, 3);
    // A level in the middle of a search: some vertices are at it, some before it.
    let depth = 5;
    let before: Vec<u32> =
        numbers(22, n).into_iter().map(|x| if x % 7 == 0 { x % 6 } else { u32::MAX }).collect();
    let mut after = before.clone();
    for v in (0..n).filter(|v| before[*v] == depth) {
        for to in &edges[offsets[v] as usize..offsets[v + 1] as usize] {
            after[*to as usize] = after[*to as usize].min(depth + 1);
        }
    }
    let found = before.iter().zip(&after).filter(|(before, after)| before != after).count() as u32;
    assert!(found > 1000, "{found}");
    let ranges = vec![
        Range(before, BOTH, Some(after)),
        Range(offsets, READ, None),
        Range(edges, READ, None),
        Range(vec![0], BOTH, Some(vec![found])),
    ];
    let groups = n.div_ceil(64) as u32;
    let rounds = check(shipped!("paged_bfs_csr"), [groups, 1, 1], 64, ranges, &[n as u32, depth], 235);
    assert!(rounds > 5, "{rounds}");
}

#[test]
fn hash_probes_go_on_over_the_ends_of_sub_blocks() {
    let (n, slots) = (50_000_usize, 1 << 19_usize);
    let mut table = vec![u32::MAX; slots * 2];
    let place = |table: &[u32], key: u32| {
        ((hash(key) as usize)..)
            .map(|s| s & (slots - 1))
            .find(|s| [key, u32::MAX].contains(&table[s * 2]))
            .expect("room")
    };
    for key in numbers(30, slots / 10 * 9).into_iter().filter(|key| key % 3 != 0) {
        let at = place(&table, key);
        table[at * 2] = key;
        table[at * 2 + 1] = key ^ 0x5555_5555;
    }
    let keys: Vec<u32> =
        (numbers(30, n / 2).into_iter()).chain(numbers(31, n - n / 2)).map(|k| k.min(u32::MAX - 1)).collect();
    let values: Vec<u32> = keys.iter().map(|key| table[place(&table, *key) * 2 + 1]).collect();
    let known = values.iter().filter(|value| **value != u32::MAX).count();
    assert!(known > n / 4 && known < n, "{known}");
    let ranges =
        vec![Range(vec![0; n], WRITE, Some(values)), Range(keys, READ, None), Range(table, READ, None)];
    let push = [n as u32, slots as u32];
    let rounds = check(shipped!("paged_hash_probe"), [n.div_ceil(64) as u32, 1, 1], 64, ranges, &push, 128);
    assert!(rounds > 5, "{rounds}");
    assert_eq!(FRAME % 8, 0, "a pair never lies in two sub-blocks");
}
