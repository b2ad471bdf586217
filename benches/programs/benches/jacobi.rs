//! A five-point stencil, slab by slab between two arrays: each step reads a slab of the one with the rows around it, and overwrites
//! a slab of the other. `cargo bench -p vkhmm-programs --bench jacobi`. Values are multiples of powers of two, so that results are
//! exact.

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use vkhmm_bench::{Options, Report};
use vkhmm_programs::{AccessKind, Array, Case, Program, Step, Use, measure};

/// Runs a stencil by hand, with managed memory, with prefetch and in place, with less and less device memory.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const JACOBI: &[u8] = include_bytes!("../../../shaders/spv/jacobi.spv");
/// Steps in time.
const ROUNDS: usize = 4;
/// As in the kernel.
const HAS_ABOVE: u32 = 1;
const HAS_BELOW: u32 = 2;

/// Most bytes in, over what knows the future.
const GOAL: f64 = 1.15;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("jacobi", cli.common);
    // A row is a sub-block or two: rows around a slab move alone.
    let (columns, slabs, rows) = if report.options().quick { (16384, 8, 8) } else { (16384, 16, 16) };
    let cases = [Case::FITS, Case::short(0.75, Some(GOAL)), Case::short(0.25, Some(GOAL))];
    measure(&mut report, &jacobi(columns, slabs, rows), &cases)?;
    Ok(report.finish()?)
}

fn step_by_cpu(old: &[f32], columns: usize) -> Vec<f32> {
    let at = |index: Option<usize>| index.and_then(|index| old.get(index)).copied().unwrap_or(0.0);
    let element = |index: usize| {
        let column = index % columns;
        let vertical = at(index.checked_sub(columns)) + at(index.checked_add(columns));
        let left = if column > 0 { at(Some(index - 1)) } else { 0.0 };
        let right = if column + 1 < columns { at(Some(index + 1)) } else { 0.0 };
        0.25 * (vertical + left + right)
    };
    (0..old.len()).map(element).collect()
}

/// `slabs` slabs of `rows` rows.
fn jacobi(columns: usize, slabs: usize, rows: usize) -> Program {
    let initial: Vec<f32> = (0..columns * slabs * rows).map(|at| (at * 31 % 17) as f32).collect();
    let expected = (0..ROUNDS).fold(initial.clone(), |old, _| step_by_cpu(&old, columns));
    let slab_words = rows * columns;
    let mut steps = Vec::new();
    for (round, slab) in (0..ROUNDS * slabs).map(|at| (at / slabs, at % slabs)) {
        let (from, to) = (round % 2, (round + 1) % 2);
        let (start, end) = (slab * slab_words, (slab + 1) * slab_words);
        let of = |array, words, access| Use { array, words, access };
        // Where there is no row, the kernel does not look at the argument.
        let above = if slab > 0 { start - columns..start } else { start..start + columns };
        let below = if slab + 1 < slabs { end..end + columns } else { end - columns..end };
        let uses = vec![
            of(from, above, AccessKind::Read),
            of(from, start..end, AccessKind::Read),
            of(from, below, AccessKind::Read),
            of(to, start..end, AccessKind::Overwrite),
        ];
        let edges = if slab > 0 { HAS_ABOVE } else { 0 } | if slab + 1 < slabs { HAS_BELOW } else { 0 };
        steps.push(Step {
            kernel: 0,
            items: slab_words,
            uses,
            push: vec![rows as u32, columns as u32, edges],
        });
    }
    let array = |name, initial, expected| Array { name, initial, expected, stays: false };
    let arrays =
        vec![array("even", initial.clone(), Some(expected)), array("odd", vec![0.0; initial.len()], None)];
    let name = format!("jacobi of {columns} x {}", slabs * rows);
    Program { name, kernels: vec![("jacobi", JACOBI)], arrays, tile_words: slab_words, steps }
}
