//! Leave-one-out nearest neighbour: each row's label is guessed from the row nearest to it, for all rows against all.
//!
//! The device computes the Gram matrix G = X Xᵀ, row panel by row panel, into one managed n x n matrix that may be larger than the
//! device; the CPU then reads that matrix as the plain slice it is: d²(i, j) = G[i][i] + G[j][j] - 2 G[i][j].
//!
//! The answer does not depend on f32. X is moved to its mean and scaled, which changes no order of distances; every f32 distance
//! has a bound for its error; and where several rows may be the nearest, the CPU compares them in f64. Ties go to the first row.

use super::{Failure, amount, in_place};
use anyhow::{anyhow, ensure};
use vkhmm::{Grid, Runtime};

/// Most columns that the kernel adds up in one go: some software devices end longer loops.
const COLUMNS_MAX: usize = 65_000;
/// Most bytes that every Vulkan device binds.
const BINDING_MAX: usize = 1 << 27;
/// Panels start on a multiple of so many rows: wherever n is, that is a multiple of 256 bytes, the strictest alignment.
const ROWS_STEP: usize = 64;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Rows whose nearest neighbour has their label.
    pub(crate) right: usize,
    /// All rows.
    pub(crate) rows: usize,
    /// Row panels that were launched.
    pub(crate) panels: usize,
    /// Rows where f32 could not tell which is the nearest, and f64 decided.
    pub(crate) close: usize,
    /// Bytes of X and of the Gram matrix.
    pub(crate) bytes: (u64, u64),
    /// Whether the Gram matrix moved.
    pub(crate) moved: bool,
}

/// Rows of one panel, so that the data and two panels fit the limit (or one, if two cannot).
fn panel_rows(rows: usize, columns: usize, limit: u64) -> anyhow::Result<usize> {
    let (data, row) = ((rows * columns * 4).next_multiple_of(65536), rows * 4);
    let limit_bytes = usize::try_from(limit)?;
    // A panel of whole rows seldom ends with a granule, and shares one with the next.
    let fits = |panels: usize| {
        let room = limit_bytes.saturating_sub(data) / panels;
        let most = room.saturating_sub(2 * 65536).min(BINDING_MAX) / row / ROWS_STEP * ROWS_STEP;
        if most > 0 { Some(most) } else { (rows * row + 65536 <= room).then_some(rows) }
    };
    let found = [2, 1].into_iter().find_map(fits).filter(|_| data <= BINDING_MAX);
    found.map(|panel| panel.min(rows)).ok_or_else(|| {
        let need = data + ROWS_STEP.min(rows) * row + 2 * 65536;
        let [limit, data, most, need] = [limit, data as u64, BINDING_MAX as u64, need as u64].map(amount);
        anyhow!(
            "a memory limit of {limit} is too small: the data ({data}, at most {most}) and {ROWS_STEP} rows of the Gram matrix \
             need {need} together"
        )
    })
}

/// Guesses every row's label from its nearest neighbour. `data` is row-major, a row for each label.
///
/// # Errors
/// `Input` for shapes, values or limits that cannot be; otherwise what the runtime says.
pub(crate) fn leave_one_out(
    rt: &Runtime,
    data: &[f64],
    columns: usize,
    labels: &[u64],
) -> Result<Answer, Failure> {
    let rows = labels.len();
    let x_scaled = scaled(data, rows, columns).map_err(Failure::Input)?;
    let panel = panel_rows(rows, columns, rt.device_memory().0).map_err(Failure::Input)?;
    // SAFETY: gram.comp ends, has no data race and stays inside X and the panel.
    let gram =
        unsafe { rt.kernel_builder(include_bytes!("../../shaders/spv/gram.spv")).name("gram").build()? };
    let mut x = rt.alloc_named::<f32>(rows * columns, "X")?;
    x.copy_from_slice(&x_scaled);
    let mut g = rt.alloc_named::<f32>(rows * rows, "Gram matrix")?;
    let starts = (0..rows).step_by(panel);
    let panels = starts.len();
    for start in starts {
        let count = panel.min(rows - start);
        let sizes = [start, count, rows, columns].map(|size| size as u32);
        // One invocation computes 4 x 4 elements.
        let grid = Grid::linear(count.div_ceil(4) * rows.div_ceil(4));
        let mut part = g.slice_mut(start * rows..(start + count) * rows);
        rt.launch(&gram, grid, (x.read(), part.overwrite(), sizes))?;
    }
    let moved = !in_place(&g);
    // From here on it is a slice: each first touch waits for its panel, and brings that part home.
    let g: &[f32] = &g;
    let own: Vec<f64> = (0..rows).map(|i| f64::from(g[i * rows + i])).collect();
    let mut answer = Answer {
        right: 0,
        rows,
        panels,
        close: 0,
        bytes: (4 * (rows * columns) as u64, 4 * (rows * rows) as u64),
        moved,
    };
    for (i, products) in g.chunks_exact(rows).enumerate() {
        let (nearest, close) = nearest(i, products, &own, data, columns);
        answer.right += usize::from(labels[nearest] == labels[i]);
        answer.close += usize::from(close);
    }
    Ok(answer)
}

/// The data moved to its mean and scaled by a power of two, so that no square overflows.
fn scaled(data: &[f64], rows: usize, columns: usize) -> anyhow::Result<Vec<f32>> {
    ensure!(rows >= 2, "{rows} rows: a neighbour takes at least two");
    ensure!((1..=COLUMNS_MAX).contains(&columns), "{columns} columns: 1 to {COLUMNS_MAX} can be used");
    if let Some(at) = data.iter().position(|v| !v.is_finite()) {
        return Err(anyhow!(
            "row {}, column {} is {}: not a number to measure with",
            at / columns,
            at % columns,
            data[at]
        ));
    }
    let largest = |data: &mut dyn Iterator<Item = f64>| data.fold(0.0f64, |most, v| most.max(v.abs()));
    // Twice: sums of the raw values must not overflow, and the differences use the whole range again.
    let first = power_above(largest(&mut data.iter().copied()));
    let mut mean = vec![0.0; columns];
    for row in data.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(mean, v)| *mean += v / first / rows as f64);
    }
    let centred = || data.iter().enumerate().map(|(at, v)| v / first - mean[at % columns]);
    let second = power_above(largest(&mut centred()));
    Ok(centred().map(|v| (v / second) as f32).collect())
}

/// A power of two, in f64's range, not below `v`; 1 for zero.
fn power_above(v: f64) -> f64 {
    if v == 0.0 { 1.0 } else { v.log2().ceil().clamp(-1000.0, 1000.0).exp2() }
}

/// The row nearest to row `i`, and whether f32 left more than one candidate. `products` is row `i` of the Gram matrix, `own` its
/// diagonal.
fn nearest(i: usize, products: &[f32], own: &[f64], data: &[f64], columns: usize) -> (usize, bool) {
    // Each product is off by at most `columns` roundings and those of its two factors, relative to |x| |y|, which is at most half
    // of |x|² + |y|²; d² has two of them and both squares. Doubled, to be above the bound's own roundings.
    let unit = f64::from(f32::EPSILON) / 2.0;
    let relative = 4.0 * (columns as f64 + 4.0) * unit;
    let absolute = columns as f64 * f64::from(f32::MIN_POSITIVE);
    let others = || (0..own.len()).filter(move |j| *j != i);
    let bounds = |j: usize| {
        let squared = own[i] + own[j] - 2.0 * f64::from(products[j]);
        let error = relative * (own[i] + own[j]) + absolute;
        (squared - error, squared + error)
    };
    let surely = others().map(|j| bounds(j).1).fold(f64::INFINITY, f64::min);
    let mut candidates = others().filter(|j| bounds(*j).0 <= surely);
    let first = candidates.next().unwrap_or(usize::from(i == 0));
    let Some(second) = candidates.next() else { return (first, false) };
    let row = |j: usize| &data[j * columns..(j + 1) * columns];
    let exact = |j: usize| -> f64 { row(i).iter().zip(row(j)).map(|(a, b)| (a - b) * (a - b)).sum() };
    let start = (first, exact(first));
    let best = std::iter::once(second)
        .chain(candidates)
        .map(|j| (j, exact(j)))
        .fold(start, |best, next| if next.1 < best.1 { next } else { best });
    (best.0, true)
}
