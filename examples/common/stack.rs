//! A deep stack of layers as a list of launches, which are played with managed memory and by hand.
//!
//! Weights are whole numbers, few of them not zero, so that every sum is exact: each way must end with the same bits, which the CPU
//! knows beforehand.

use super::Random;
use vkhmm_programs::{AccessKind, Array, Program, Step, Use};

/// Units of a layer.
pub(crate) const UNITS: usize = 512;
/// Elements of a layer.
const LAYER: usize = UNITS * UNITS;
/// Whole numbers beyond this one are not exact in f32.
const EXACT: f32 = 16_777_216.0;

/// The arrays, as the program numbers them.
const WEIGHTS: usize = 0;
const IMAGES: usize = 1;
const SUMS: usize = 2;
const HIDDEN: usize = 3;
const RESULT: usize = 4;

/// `batches` times `images` images (64 points each, repeated) through `layers` layers; none if a sum would not be exact.
pub(crate) fn stack(points: &[f64], layers: usize, batches: usize, images: usize) -> Option<Program> {
    let (mut random, count) = (Random::new(5), batches * images * UNITS);
    let at = |i: usize| points[(i / UNITS * 64 + i % 64) % points.len()] as f32;
    let input: Vec<f32> = (0..count).map(at).collect();
    let (mut weights, mut values) = (vec![0.0f32; layers * LAYER], input.clone());
    for layer in weights.chunks_exact_mut(LAYER) {
        // Each unit takes one of the layer before as it is; every eighth adds another and takes off a third.
        let mut next = vec![0.0f32; count];
        for unit in 0..UNITS {
            let terms = [(random.below(UNITS), 1.0), (random.below(UNITS), 1.0), (random.below(UNITS), -1.0)];
            for (from, weight) in &terms[..if unit % 8 == 0 { 3 } else { 1 }] {
                layer[from * UNITS + unit] += weight;
                for row in 0..batches * images {
                    next[row * UNITS + unit] += weight * values[row * UNITS + from];
                }
            }
        }
        values = next.iter().map(|v| v.max(0.0)).collect();
    }
    values.iter().all(|v| *v < EXACT / 4.0).then_some(())?;
    let array = |name, initial, expected, stays| Array { name, initial, expected, stays };
    let between = || vec![0.0; images * UNITS];
    Some(Program {
        name: "stack".into(),
        kernels: vec![
            ("gemm", include_bytes!("../../shaders/spv/gemm.spv")),
            ("relu", include_bytes!("../../shaders/spv/relu.spv")),
        ],
        arrays: vec![
            array("weights", weights, None, false),
            array("images", input, None, true),
            array("sums", between(), None, true),
            array("hidden", between(), None, true),
            array("result", vec![0.0; count], Some(values), true),
        ],
        tile_words: LAYER,
        steps: steps(layers, batches, images),
    })
}

/// For each batch and layer: a product, and what is below zero is zero.
fn steps(layers: usize, batches: usize, images: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for batch in 0..batches {
        let (words, all) = (images * UNITS, 0..images * UNITS);
        let own = batch * words..(batch + 1) * words;
        for layer in 0..layers {
            let used = |array, words, access| Use { array, words, access };
            let from = if layer == 0 { (IMAGES, own.clone()) } else { (HIDDEN, all.clone()) };
            let to = if layer + 1 == layers { (RESULT, own.clone()) } else { (HIDDEN, all.clone()) };
            let [rows, units] = [images as u32, UNITS as u32];
            steps.push(Step {
                kernel: 0,
                items: images.div_ceil(8) * UNITS / 4,
                uses: vec![
                    used(from.0, from.1, AccessKind::Read),
                    used(WEIGHTS, layer * LAYER..(layer + 1) * LAYER, AccessKind::Read),
                    used(SUMS, all.clone(), AccessKind::Overwrite),
                ],
                push: vec![rows, units, units, units, units, units, 0],
            });
            steps.push(Step {
                kernel: 1,
                items: words,
                uses: vec![
                    used(SUMS, all.clone(), AccessKind::Read),
                    used(to.0, to.1, AccessKind::Overwrite),
                ],
                push: vec![words as u32, 0],
            });
        }
    }
    steps
}
