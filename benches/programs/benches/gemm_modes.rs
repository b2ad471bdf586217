//! C = A B in square tiles, each contiguous, with device memory from four times the data down to a quarter:
//! `cargo bench -p vkhmm-programs --bench gemm_modes`. Every product is checked; values are small whole numbers, so that it is exact.

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use vkhmm_bench::{Options, Report};
use vkhmm_programs::{AccessKind, Array, Case, Program, Step, Use, measure};

/// Multiplies matrices by hand, with managed memory, with prefetch and in place, with less and less device memory.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const GEMM: &[u8] = include_bytes!("../../../shaders/spv/gemm.spv");
/// Elements of C that an invocation computes.
const PER_INVOCATION: usize = 32;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("gemm_modes", cli.common);
    let quick = report.options().quick;
    let program = if quick { gemm(4, 128) } else { gemm(6, 256) };
    // One product is no round to learn from: the gate is what is reached (least recently used: 1.46), not the goal of 1.15.
    let quarter = Case::short(0.25, quick.then_some(1.55));
    let cases = if quick {
        vec![Case::FITS, quarter]
    } else {
        vec![Case::FITS, Case::short(1.0, None), Case::short(0.5, None), quarter]
    };
    measure(&mut report, &program, &cases)?;
    Ok(report.finish()?)
}

/// The element at a row and column of A (0) or B (1): from -2 to 2.
fn element(matrix: usize, row: usize, column: usize) -> f32 {
    ((row * 7 + column * 13 + row * column + matrix) % 5) as f32 - 2.0
}

/// Matrices of `side` x `side` tiles of `edge` x `edge`.
fn gemm(side: usize, edge: usize) -> Program {
    let n = side * edge;
    let tile = edge * edge;
    let rows = |matrix| (0..n).map(move |row| (0..n).map(move |column| element(matrix, row, column)));
    let tiled = |of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        let place = |at: usize| {
            let (of_tile, inside) = (at / tile, at % tile);
            (of_tile / side * edge + inside / edge, of_tile % side * edge + inside % edge)
        };
        (0..n * n).map(place).map(|(row, column)| of(row, column)).collect()
    };
    let b: Vec<Vec<f32>> = rows(1).map(Iterator::collect).collect();
    let product: Vec<Vec<f32>> = rows(0)
        .map(|row| {
            let mut sums = vec![0.0; n];
            for (left, of_b) in row.zip(&b) {
                sums.iter_mut().zip(of_b).for_each(|(sum, right)| *sum += left * right);
            }
            sums
        })
        .collect();
    let array = |name, initial, expected| Array { name, initial, expected, stays: false };
    let arrays = vec![
        array("A", tiled(&|row, column| element(0, row, column)), None),
        array("B", tiled(&|row, column| element(1, row, column)), None),
        array("C", vec![0.0; n * n], Some(tiled(&|row, column| product[row][column]))),
    ];
    let mut steps = Vec::new();
    for (i, j) in (0..side * side).map(|at| (at / side, at % side)) {
        // To and fro, as one writes a loop that uses first what it used last.
        let j = if i % 2 == 0 { j } else { side - 1 - j };
        for turn in 0..side {
            let k = if (i * side + j) % 2 == 0 { turn } else { side - 1 - turn };
            let of = |array, row: usize, column: usize, access| {
                let start = (row * side + column) * tile;
                Use { array, words: start..start + tile, access }
            };
            let to = if turn == 0 { AccessKind::Overwrite } else { AccessKind::Write };
            let uses = vec![of(0, i, k, AccessKind::Read), of(1, k, j, AccessKind::Read), of(2, i, j, to)];
            let edge = edge as u32;
            let push = vec![edge, edge, edge, edge, edge, edge, u32::from(turn > 0)];
            steps.push(Step { kernel: 0, items: tile / PER_INVOCATION, uses, push });
        }
    }
    let name = format!("gemm of {n} in tiles of {edge}");
    Program { name, kernels: vec![("gemm", GEMM)], arrays, tile_words: tile, steps }
}
