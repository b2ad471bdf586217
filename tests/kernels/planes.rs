//! transpose, conv2d, softmax.

use crate::rig::{Random, managed, near, shape, with};
use vkhmm::kernels::{self, Mat};
use vkhmm::{Access, Managed, Runtime};

/// A matrix inside a larger one: two rows and three columns before it, and one column behind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lay {
    Dense,
    Part,
}

impl Lay {
    const BOTH: [Self; 2] = [Self::Dense, Self::Part];

    fn random(self, rt: &Runtime, random: &mut Random, rows: usize, cols: usize) -> Managed<f32> {
        let count = if self == Self::Dense { rows * cols } else { (rows + 2) * (cols + 4) };
        managed(rt, &random.vector(count))
    }

    fn mat(self, access: Access<'_>, rows: usize, cols: usize) -> Mat<'_> {
        let mat = Mat::new(access, rows, cols);
        if self == Self::Dense { mat } else { mat.stride(cols + 4).at(2, 3) }
    }

    fn at(self, cols: usize, row: usize, col: usize) -> usize {
        if self == Self::Dense { row * cols + col } else { (row + 2) * (cols + 4) + col + 3 }
    }

    /// The elements; fails unless all others are as they were.
    fn elements(self, have: &[f32], old: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        let mut rest = have.to_vec();
        let mut elements = Vec::with_capacity(rows * cols);
        for (row, col) in (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col))) {
            let at = self.at(cols, row, col);
            elements.push(have[at]);
            rest[at] = old[at];
        }
        assert!(rest == old, "what is not of the matrix has changed");
        elements
    }
}

fn transposes(rt: &Runtime, m: usize, n: usize, from: Lay, to: Lay) {
    let mut random = Random(m as u64);
    let a = from.random(rt, &mut random, m, n);
    let mut b = to.random(rt, &mut random, n, m);
    let mut c = from.random(rt, &mut random, m, n);
    let (old_b, old_c) = (b.to_vec(), c.to_vec());
    kernels::transpose(rt, from.mat(a.read(), m, n), to.mat(b.write(), n, m)).expect("transpose");
    // The view of the result's transpose: a copy.
    kernels::transpose(rt, from.mat(a.read(), m, n), from.mat(c.write(), m, n).t()).expect("copy");
    let (b, c) = (to.elements(&b, &old_b, n, m), from.elements(&c, &old_c, m, n));
    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
        let want = a[from.at(n, i, j)].to_bits();
        assert_eq!((b[j * m + i].to_bits(), c[i * n + j].to_bits()), (want, want), "{m} x {n} at ({i}, {j})");
    }
}

#[test]
fn transposed() {
    with(None, |rt| {
        for (m, n) in [(0, 3), (3, 0), (1, 1), (1, 9), (9, 1), (4, 4), (31, 67), (130, 65)] {
            for (from, to) in Lay::BOTH.into_iter().flat_map(|from| Lay::BOTH.map(|to| (from, to))) {
                transposes(rt, m, n, from, to);
            }
        }
        let (a, mut b) = (managed(rt, &[1.0_f32; 12]), managed(rt, &[2.0_f32; 12]));
        let text = shape(kernels::transpose(rt, Mat::new(a.read(), 3, 4), Mat::new(b.write(), 3, 4)));
        assert_eq!(text, "transpose: b is 3 x 4: a transposed is 4 x 3");
    });
    with(Some(1 << 20), |rt| {
        transposes(rt, 700, 900, Lay::Dense, Lay::Dense);
        transposes(rt, 5000, 120, Lay::Part, Lay::Dense);
        transposes(rt, 120, 5000, Lay::Dense, Lay::Part);
    });
}

fn convolves(rt: &Runtime, (m, n): (usize, usize), (taps_m, taps_n): (usize, usize), lay: Lay) {
    let mut random = Random((m * taps_n) as u64);
    let image = lay.random(rt, &mut random, m, n);
    let taps = lay.random(rt, &mut random, taps_m, taps_n);
    let mut out = lay.random(rt, &mut random, m, n);
    let old = out.to_vec();
    let filter = lay.mat(taps.read(), taps_m, taps_n);
    kernels::conv2d(rt, lay.mat(image.read(), m, n), filter, lay.mat(out.write(), m, n)).expect("conv2d");
    let what = format!("{m} x {n} by {taps_m} x {taps_n}");
    let clamped =
        |at: usize, tap: usize, taps: usize, end: usize| (at + tap).saturating_sub(taps / 2).min(end - 1);
    near(&what, &lay.elements(&out, &old, m, n), |at| {
        let (mut sum, mut size) = (0.0, 0.0);
        for (i, j) in (0..taps_m).flat_map(|i| (0..taps_n).map(move |j| (i, j))) {
            let (row, col) = (clamped(at / n, i, taps_m, m), clamped(at % n, j, taps_n, n));
            let product = f64::from(taps[lay.at(taps_n, i, j)]) * f64::from(image[lay.at(n, row, col)]);
            sum += product;
            size += product.abs();
        }
        (sum, (taps_m * taps_n) as f64 * f64::from(f32::EPSILON) * size + 1e-30)
    });
}

#[test]
fn convolved() {
    with(None, |rt| {
        for size in [(0, 4), (4, 0), (1, 1), (1, 40), (40, 1), (33, 65)] {
            for taps in [(1, 1), (3, 3), (2, 5), (7, 4), (9, 90)] {
                Lay::BOTH.into_iter().for_each(|lay| convolves(rt, size, taps, lay));
            }
        }
        let (a, mut b) = (managed(rt, &[1.0_f32; 12]), managed(rt, &[2.0_f32; 12]));
        let filter = || Mat::new(a.read(), 3, 3);
        let text = shape(kernels::conv2d(rt, Mat::new(a.read(), 3, 4), filter(), Mat::new(b.write(), 4, 3)));
        assert_eq!(text, "conv2d: out is 4 x 3: it has the image's shape, 3 x 4");
        let text = shape(kernels::conv2d(
            rt,
            Mat::new(a.read(), 3, 4),
            Mat::new(a.read(), 0, 3),
            Mat::new(b.write(), 3, 4),
        ));
        assert!(text.starts_with("conv2d: filter is 0 x 3: 1 to 16384 elements are needed"), "{text}");
        let text =
            shape(kernels::conv2d(rt, Mat::new(a.read(), 4, 3).t(), filter(), Mat::new(b.write(), 3, 4)));
        assert!(text.contains("a transposed view"), "{text}");
    });
    with(Some(1 << 20), |rt| {
        convolves(rt, (900, 700), (3, 5), Lay::Dense);
        convolves(rt, (2500, 130), (30, 2), Lay::Part);
    });
}

fn softens(rt: &Runtime, rows: usize, cols: usize, lay: Lay) {
    let a = lay.random(rt, &mut Random(cols as u64), rows, cols);
    let mut scaled = managed(rt, &a);
    kernels::scale(rt, 30.0, scaled.write()).expect("scale");
    let mut out = lay.random(rt, &mut Random(3), rows, cols);
    let old = out.to_vec();
    kernels::softmax(rt, lay.mat(scaled.read(), rows, cols), lay.mat(out.write(), rows, cols))
        .expect("softmax");
    let out = lay.elements(&out, &old, rows, cols);
    for row in 0..rows {
        let x: Vec<f64> = (0..cols).map(|col| f64::from(scaled[lay.at(cols, row, col)])).collect();
        let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - top).exp()).sum();
        // Vulkan lets exp be off by 3 + 2 |x| units.
        near(&format!("{rows} x {cols}, row {row}"), &out[row * cols..(row + 1) * cols], |col| {
            let want = (x[col] - top).exp() / sum;
            (want, want * f64::from(f32::EPSILON) * (150.0 + 2.0 * (top - x[col])) + 1e-37)
        });
    }
}

#[test]
fn softened() {
    with(None, |rt| {
        for (rows, cols) in [(0, 3), (3, 0), (1, 1), (5, 1), (3, 63), (70, 65), (2, 1009), (2, 300_001)] {
            Lay::BOTH.into_iter().for_each(|lay| softens(rt, rows, cols, lay));
        }
        let (a, mut b) = (managed(rt, &[1e30_f32; 12]), managed(rt, &[2.0_f32; 12]));
        let text = shape(kernels::softmax(rt, Mat::new(a.read(), 3, 4), Mat::new(b.write(), 4, 3)));
        assert_eq!(text, "softmax: out is 4 x 3: it has the shape of a, 3 x 4");
        kernels::softmax(rt, Mat::new(a.read(), 3, 4), Mat::new(b.write(), 3, 4)).expect("large elements");
        assert_eq!(b[..], [0.25; 12]);
    });
    with(Some(1 << 20), |rt| {
        softens(rt, 2000, 300, Lay::Dense);
        softens(rt, 500, 1000, Lay::Part);
        softens(rt, 1, 300_007, Lay::Dense);
    });
}
