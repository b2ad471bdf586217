//! Matrix times vector, over and over: the programs that collapse when a matrix is a little larger than the device, since every
//! element of it is used once a sweep. `cargo bench -p vkhmm-programs --bench atax_mvt_gesummv`.
//!
//! atax: y = Aᵀ(A x) · mvt: x1 += A y1, x2 += Aᵀ y2 · gesummv: y = 2 A x + 3 B x. Each twice over, in panels of whole rows; results
//! are whole numbers, so that they are exact.

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use vkhmm_bench::{Options, Report};
use vkhmm_programs::{AccessKind, Array, Case, Program, Step, Use, measure};

use AccessKind::{Overwrite, Read, Write};

/// Runs atax, mvt and gesummv by hand, with managed memory, with prefetch and in place, with less and less device memory.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Options,
}

const MATVEC: &[u8] = include_bytes!("../../../shaders/spv/matvec.spv");
const MATVEC_T: &[u8] = include_bytes!("../../../shaders/spv/matvec_t.spv");
/// Which kernel.
const PLAIN: usize = 0;
const TRANSPOSED: usize = 1;
/// How often each program is done.
const ROUNDS: usize = 2;

/// Most bytes in, over what knows the future.
const GOAL: f64 = 1.15;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let mut report = Report::new("atax_mvt_gesummv", cli.common);
    let (n, panels) = if report.options().quick { (1024, 16) } else { (2048, 32) };
    let cases = [Case::FITS, Case::short(0.75, Some(GOAL)), Case::short(0.25, Some(GOAL))];
    for program in [atax(n, panels), mvt(n, panels), gesummv(n, panels)] {
        measure(&mut report, &program, &cases)?;
    }
    Ok(report.finish()?)
}

/// A square matrix of -1, 0 and 1, cut into panels.
struct Matrix {
    n: usize,
    panel_rows: usize,
    elements: Vec<f32>,
}

impl Matrix {
    fn new(n: usize, panels: usize, seed: usize) -> Self {
        let element = |at: usize| ((at / n * 5 + at % n * 3 + at / n * (at % n) + seed) % 3) as f32 - 1.0;
        Self { n, panel_rows: n / panels, elements: (0..n * n).map(element).collect() }
    }

    fn array(&self, name: &'static str) -> Array {
        Array { name, initial: self.elements.clone(), expected: None, stays: false }
    }

    fn times(&self, x: &[f32]) -> Vec<f32> {
        let row = |row: &[f32]| row.iter().zip(x).map(|(a, x)| a * x).sum();
        self.elements.chunks_exact(self.n).map(row).collect()
    }

    fn transposed_times(&self, x: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; self.n];
        for (row, x) in self.elements.chunks_exact(self.n).zip(x) {
            sums.iter_mut().zip(row).for_each(|(sum, a)| *sum += a * x);
        }
        sums
    }

    /// Panel after panel of matrix `a`: for each a launch with its part of `tall` and all of `wide`.
    fn sweep(
        &self,
        kernel: usize,
        a: usize,
        (tall, wide): (usize, usize),
        scale: f32,
        keep: bool,
    ) -> Vec<Step> {
        let (n, rows) = (self.n, self.panel_rows);
        let step = |panel: usize| {
            let part = panel * rows..(panel + 1) * rows;
            let of = |array, words, access| Use { array, words, access };
            let (x, y, beta) = match kernel {
                PLAIN => {
                    let to = if keep { Write } else { Overwrite };
                    (of(wide, 0..n, Read), of(tall, part.clone(), to), keep)
                }
                _ => {
                    let adds = keep || panel > 0;
                    let to = if adds { Write } else { Overwrite };
                    (of(tall, part.clone(), Read), of(wide, 0..n, to), adds)
                }
            };
            let uses = vec![of(a, part.start * n..part.end * n, Read), x, y];
            let beta: f32 = if beta { 1.0 } else { 0.0 };
            let push = vec![rows as u32, n as u32, n as u32, scale.to_bits(), beta.to_bits()];
            let items = if kernel == PLAIN { rows } else { n };
            Step { kernel, items, uses, push }
        };
        (0..n / rows).map(step).collect()
    }

    fn program(&self, name: &str, arrays: Vec<Array>, round: Vec<Step>) -> Program {
        Program {
            name: format!("{name} of {}", self.n),
            kernels: vec![("matvec", MATVEC), ("matvec_t", MATVEC_T)],
            arrays,
            tile_words: self.panel_rows * self.n,
            steps: vec![round; ROUNDS].concat(),
        }
    }
}

fn vector(name: &'static str, initial: Vec<f32>, expected: Option<Vec<f32>>) -> Array {
    Array { name, initial, expected, stays: true }
}

fn ones_and_twos(n: usize) -> Vec<f32> {
    (0..n).map(|at| (at % 2 + 1) as f32).collect()
}

fn atax(n: usize, panels: usize) -> Program {
    let a = Matrix::new(n, panels, 0);
    let x = ones_and_twos(n);
    let y = a.transposed_times(&a.times(&x));
    let arrays = vec![
        a.array("A"),
        vector("x", x, None),
        vector("A x", vec![0.0; n], None),
        vector("y", vec![0.0; n], Some(y)),
    ];
    let round = [a.sweep(PLAIN, 0, (2, 1), 1.0, false), a.sweep(TRANSPOSED, 0, (2, 3), 1.0, false)];
    a.program("atax", arrays, round.concat())
}

fn mvt(n: usize, panels: usize) -> Program {
    let a = Matrix::new(n, panels, 1);
    let y = ones_and_twos(n);
    let after = |sums: Vec<f32>| sums.iter().map(|sum| 1.0 + ROUNDS as f32 * sum).collect::<Vec<f32>>();
    let arrays = vec![
        a.array("A"),
        vector("x1", vec![1.0; n], Some(after(a.times(&y)))),
        vector("x2", vec![1.0; n], Some(after(a.transposed_times(&y)))),
        vector("y", y, None),
    ];
    let round = [a.sweep(PLAIN, 0, (1, 3), 1.0, true), a.sweep(TRANSPOSED, 0, (3, 2), 1.0, true)];
    a.program("mvt", arrays, round.concat())
}

fn gesummv(n: usize, panels: usize) -> Program {
    let (a, b) = (Matrix::new(n, panels, 0), Matrix::new(n, panels, 2));
    let x = ones_and_twos(n);
    let y = a.times(&x).iter().zip(b.times(&x)).map(|(a, b)| 2.0 * a + 3.0 * b).collect();
    let arrays = vec![a.array("A"), b.array("B"), vector("x", x, None), vector("y", vec![0.0; n], Some(y))];
    // A panel of A, then the same panel of B.
    let of_a = a.sweep(PLAIN, 0, (3, 2), 2.0, false);
    let of_b = b.sweep(PLAIN, 1, (3, 2), 3.0, true);
    let round = of_a.into_iter().zip(of_b).flat_map(|(a, b)| [a, b]).collect();
    a.program("gesummv", arrays, round)
}
