//! Sparse symmetric matrices in compressed rows: from MatrixMarket files, or of a Poisson equation whose answers are known.

use anyhow::{Context, Result, bail, ensure};
use std::f64::consts::PI;
use std::io::BufRead;

/// Row `r` has the elements `starts[r]..starts[r + 1]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sparse {
    pub(crate) starts: Vec<u32>,
    pub(crate) columns: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Sparse {
    pub(crate) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Bytes of its three arrays.
    pub(crate) fn bytes(&self) -> u64 {
        4 * (self.starts.len() + 2 * self.values.len()) as u64
    }

    /// A x, in f64.
    pub(crate) fn times(&self, x: &[f64]) -> Vec<f64> {
        let row = |r: usize| self.starts[r] as usize..self.starts[r + 1] as usize;
        let element = |i: usize| f64::from(self.values[i]) * x[self.columns[i] as usize];
        (0..self.rows()).map(|r| row(r).map(element).sum()).collect()
    }

    /// From `(row, column, value)` in any order; several for one place are added up.
    fn from_entries(rows: usize, mut entries: Vec<(u32, u32, f32)>) -> Result<Self> {
        entries.sort_unstable_by_key(|(row, col, _)| (*row, *col));
        let mut it = Self { starts: vec![0; rows + 1], ..Self::default() };
        let mut last = None;
        for (row, col, value) in entries {
            if last == Some((row, col)) {
                *it.values.last_mut().context("an entry before")? += value;
            } else {
                it.columns.push(col);
                it.values.push(value);
                it.starts[row as usize + 1] += 1;
                last = Some((row, col));
            }
        }
        for r in 0..rows {
            it.starts[r + 1] += it.starts[r];
        }
        Ok(it)
    }

    /// Reads a real symmetric matrix in MatrixMarket's coordinate format.
    pub(crate) fn read(reader: impl BufRead) -> Result<Self> {
        let mut lines = reader.lines().enumerate().map(|(i, line)| (i + 1, line));
        let (_, head) = lines.next().context("the file is empty")?;
        let head = head?.to_ascii_lowercase();
        let words: Vec<&str> = head.split_whitespace().collect();
        let known =
            matches!(words[..], ["%%matrixmarket", "matrix", "coordinate", "real" | "integer", "symmetric"]);
        ensure!(known, "line 1: {head:?} found, %%MatrixMarket matrix coordinate real symmetric expected");
        let (mut size, mut entries) = (None, Vec::new());
        for (number, line) in lines {
            let line = line?;
            if line.starts_with('%') || line.trim().is_empty() {
                continue;
            }
            let place = || format!("line {number}: {line:?}");
            let mut words = line.split_whitespace();
            let mut whole = || words.next().and_then(|word| word.parse::<u32>().ok());
            let (Some(first), Some(second)) = (whole(), whole()) else {
                bail!("{}: two whole numbers expected", place())
            };
            let Some(rows) = size else {
                ensure!(first == second && first > 0, "{}: a square matrix is needed", place());
                size = Some(first);
                continue;
            };
            let value = words.next().and_then(|word| word.parse::<f32>().ok());
            let value =
                value.filter(|v| v.is_finite()).with_context(|| format!("{}: a number expected", place()))?;
            ensure!(
                (1..=rows).contains(&first) && (1..=rows).contains(&second),
                "{}: rows and columns from 1 to {rows} expected",
                place()
            );
            let (row, col) = (first - 1, second - 1);
            entries.push((row, col, value));
            if row != col {
                entries.push((col, row, value));
            }
        }
        Self::from_entries(size.context("no line with rows, columns and entries")? as usize, entries)
    }

    /// The Poisson equation in a cube of `side`³ points inside, its edge kept at zero, in trilinear finite elements: 27 elements a row.
    /// It is K⊗M⊗M + M⊗K⊗M + M⊗M⊗K, with K = (−1, 2, −1) and M = (1, 4, 1) / 6 along each axis.
    pub(crate) fn poisson(side: usize) -> Self {
        let (k, m) = ([-1.0f64, 2.0, -1.0], [1.0f64 / 6.0, 4.0 / 6.0, 1.0 / 6.0]);
        let mut it = Self { starts: vec![0], ..Self::default() };
        let near = |at: usize| (at.max(1) - 1..(at + 2).min(side)).map(move |to| (to, to + 1 - at));
        for i in 0..side * side * side {
            let [z, y, x] = [i / side / side, i / side % side, i % side];
            for (tz, c) in near(z) {
                for (ty, b) in near(y) {
                    for (tx, a) in near(x) {
                        it.columns.push(((tz * side + ty) * side + tx) as u32);
                        it.values.push((k[a] * m[b] * m[c] + m[a] * k[b] * m[c] + m[a] * m[b] * k[c]) as f32);
                    }
                }
            }
            it.starts.push(it.columns.len() as u32);
        }
        it
    }
}

/// A sum of sine waves in the cube, and how many: each is an eigenvector of [`Sparse::poisson`] with an eigenvalue of its own, so
/// conjugate gradients find it in as many steps. They are short waves: of long ones f32 sees little beside the largest eigenvalue.
pub(crate) fn waves(side: usize) -> (Vec<f64>, usize) {
    let waves = [[20, 25, 18], [30, 40, 22], [50, 35, 45], [60, 60, 25], [70, 55, 65], [85, 75, 78]];
    let sine = |percent: usize| -> Vec<f64> {
        let waves = (percent * side).div_ceil(100) as f64;
        (1..=side).map(|i| (waves * PI * i as f64 / (side + 1) as f64).sin()).collect()
    };
    let mut sum = vec![0.0; side * side * side];
    for (number, [a, b, c]) in waves.into_iter().enumerate() {
        let (x, y, z) = (sine(a), sine(b), sine(c));
        for (i, v) in sum.iter_mut().enumerate() {
            *v += z[i / side / side] * y[i / side % side] * x[i % side] / (1.0 + number as f64 / 4.0);
        }
    }
    (sum, waves.len())
}
