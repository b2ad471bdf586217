//! gemm, gram, syrk.

use crate::common::{Scratch, checked, clean, open, watchdog};
use crate::rig::{Random, managed, shape, with};
use ndarray::Array2;
use vkhmm::kernels::{self, Mat};
use vkhmm::{Error, Managed, MemoryError, Runtime};

/// A matrix as a test lays it: inside a larger one, perhaps transposed.
#[derive(Clone, Copy, Debug)]
struct Lay {
    row: usize,
    col: usize,
    stride: Option<usize>,
    transposed: bool,
}

const PLAIN: Lay = Lay { row: 0, col: 0, stride: None, transposed: false };

impl Lay {
    const fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns in memory, and elements of the whole.
    fn stored(self, rows: usize, cols: usize) -> (usize, usize, usize, usize) {
        let (rows, cols) = if self.transposed { (cols, rows) } else { (rows, cols) };
        let stride = self.stride.map_or(cols, |extra| self.col + cols + extra);
        (rows, cols, stride, (self.row + rows) * stride + 3)
    }

    fn mat<'a>(self, access: vkhmm::Access<'a>, rows: usize, cols: usize) -> Mat<'a> {
        let (rows, cols, stride, _) = self.stored(rows, cols);
        let mat = Mat::new(access, rows, cols);
        let mat = if self.stride.is_some() { mat.stride(stride).at(self.row, self.col) } else { mat };
        if self.transposed { mat.t() } else { mat }
    }

    /// What is seen in these elements, in f64.
    fn view(self, elements: &[f32], rows: usize, cols: usize) -> Array2<f64> {
        let (rows, cols, stride, _) = self.stored(rows, cols);
        let at = |(i, j): (usize, usize)| f64::from(elements[(self.row + i) * stride + self.col + j]);
        let stored = Array2::from_shape_fn((rows, cols), at);
        if self.transposed { stored.reversed_axes() } else { stored }
    }
}

struct Case {
    size: [usize; 3],
    lay: [Lay; 3],
    alpha: f32,
    beta: f32,
}

fn random(rt: &Runtime, random: &mut Random, lay: Lay, rows: usize, cols: usize) -> Managed<f32> {
    let (.., count) = lay.stored(rows, cols);
    managed(rt, &random.vector(count))
}

/// Fails unless `have` is alpha a b + beta old as far as f32 can say, and what is not of C is as it was.
fn check(what: &str, case: &Case, a: &Array2<f64>, b: &Array2<f64>, old: &[f32], have: &[f32], lower: bool) {
    let [m, n, k] = case.size;
    let lay = case.lay[2];
    let want = a.dot(b);
    let size = a.mapv(f64::abs).dot(&b.mapv(f64::abs));
    let (before, after) = (lay.view(old, m, n), lay.view(have, m, n));
    let (alpha, beta) = (f64::from(case.alpha), f64::from(case.beta));
    for ((i, j), after) in after.indexed_iter() {
        let before = before[[i, j]];
        let old = if case.beta == 0.0 { 0.0 } else { beta * before };
        let (want, size) = (alpha * want[[i, j]] + old, alpha.abs() * size[[i, j]] + old.abs());
        if lower && j > i {
            assert_eq!(*after, before, "{what}: ({i}, {j}) is above the diagonal");
            continue;
        }
        let allowed = (k + 4) as f64 * f64::from(f32::EPSILON) * size + 1e-30;
        assert!((after - want).abs() <= allowed, "{what}: ({i}, {j}) is {after}, {want} wanted");
    }
    let (rows, cols, stride, _) = lay.stored(m, n);
    for (at, (old, have)) in old.iter().zip(have).enumerate() {
        // A matrix without columns has no elements, and the allocation is too short for a row of it.
        let (row, col) = (at.checked_div(stride).unwrap_or(usize::MAX), at.checked_rem(stride).unwrap_or(0));
        let inside = (lay.row..lay.row + rows).contains(&row) && (lay.col..lay.col + cols).contains(&col);
        assert!(inside || old == have, "{what}: element {at}, which is not of C, was {old} and is {have}");
    }
}

fn run(rt: &Runtime, case: &Case) {
    let [m, n, k] = case.size;
    let what = format!("{m} x {n} x {k}, {:?}", case.lay);
    let mut r = Random(m as u64 * 31 + n as u64 * 7 + k as u64);
    let a = random(rt, &mut r, case.lay[0], m, k);
    let b = random(rt, &mut r, case.lay[1], k, n);
    let mut c = random(rt, &mut r, case.lay[2], m, n);
    let old = c.to_vec();
    let (left, right) = (case.lay[0].mat(a.read(), m, k), case.lay[1].mat(b.read(), k, n));
    let product = case.lay[2].mat(c.write(), m, n);
    kernels::gemm(rt, case.alpha, left, right, case.beta, product).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (left, right) = (case.lay[0].view(&a, m, k), case.lay[1].view(&b, k, n));
    check(&what, case, &left, &right, &old, &c, false);
}

#[test]
fn any_shape() {
    with(None, |rt| {
        for size in [
            [0, 5, 5],
            [5, 0, 5],
            [5, 5, 0],
            [1, 1, 1],
            [8, 4, 4],
            [9, 5, 3],
            [17, 31, 67],
            [64, 64, 64],
            [1, 257, 7],
            [257, 1, 130],
        ] {
            run(rt, &Case { size, lay: [PLAIN; 3], alpha: 1.0, beta: 0.0 });
            run(rt, &Case { size, lay: [PLAIN; 3], alpha: -0.5, beta: 2.0 });
        }
    });
}

#[test]
fn parts_of_larger_matrices_and_transposed_ones() {
    with(None, |rt| {
        let part = Lay { row: 3, col: 5, stride: Some(2), transposed: false };
        let even = Lay { row: 2, col: 4, stride: Some(4), transposed: false };
        for a in [PLAIN, PLAIN.t(), part, part.t(), even.t()] {
            for b in [PLAIN, PLAIN.t(), part, part.t(), even.t()] {
                for c in [PLAIN, part, part.t()] {
                    run(rt, &Case { size: [37, 29, 23], lay: [a, b, c], alpha: 1.5, beta: 1.0 });
                }
                run(rt, &Case { size: [24, 36, 40], lay: [a, b, PLAIN.t()], alpha: 1.0, beta: 0.0 });
            }
        }
    });
}

#[test]
fn larger_than_the_device() {
    // 0.6 to 3 MiB each with 1 MiB; both ways of every operand.
    with(Some(1 << 20), |rt| {
        for size in [[400, 390, 410], [900, 130, 150], [64, 1200, 300], [70, 60, 7000]] {
            for (a, b) in [(PLAIN, PLAIN), (PLAIN.t(), PLAIN), (PLAIN, PLAIN.t()), (PLAIN.t(), PLAIN.t())] {
                run(rt, &Case { size, lay: [a, b, PLAIN], alpha: 1.0, beta: 0.0 });
            }
        }
        let part = Lay { row: 3, col: 5, stride: Some(20), transposed: false };
        run(rt, &Case { size: [300, 350, 310], lay: [part, part.t(), part], alpha: 1.0, beta: -1.0 });
    });
}

#[test]
fn little_room() {
    // Six frames: one row of each, wherever it lies. And two, with which nothing can be done.
    with(Some(6 * 65536), |rt| {
        run(rt, &Case { size: [150, 160, 170], lay: [PLAIN; 3], alpha: 1.0, beta: 0.0 });
        run(rt, &Case { size: [150, 160, 170], lay: [PLAIN, PLAIN.t(), PLAIN], alpha: 1.0, beta: 0.0 });
    });
    with(Some(2 * 65536), |rt| {
        let (a, b) = (managed(rt, &[1.0_f32; 30_000]), managed(rt, &[1.0_f32; 30_000]));
        let mut c = managed(rt, &[1.0_f32; 30_000]);
        let (a, b) = (Mat::new(a.read(), 150, 200), Mat::new(b.read(), 200, 150));
        let refused = kernels::gemm(rt, 1.0, a, b, 0.0, Mat::new(c.write(), 150, 150));
        assert!(matches!(refused, Err(Error::Memory(MemoryError::WorkingSetTooLarge { .. }))), "{refused:?}");
    });
}

#[test]
fn one_row_of_each_fits() {
    // 16 frames, and rows of c and b, or of a, that are nearly four.
    with(Some(1 << 20), |rt| {
        run(rt, &Case { size: [11, 60_000, 5], lay: [PLAIN; 3], alpha: 1.0, beta: 0.5 });
        run(rt, &Case { size: [60_000, 5, 11], lay: [PLAIN.t(), PLAIN, PLAIN.t()], alpha: 1.0, beta: 0.5 });
        run(rt, &Case { size: [5, 11, 60_000], lay: [PLAIN, PLAIN.t(), PLAIN], alpha: 1.0, beta: 0.5 });
    });
}

#[test]
fn deeper_than_one_launch() {
    with(None, |rt| {
        for (a, b) in [(PLAIN, PLAIN), (PLAIN.t(), PLAIN.t())] {
            run(rt, &Case { size: [9, 5, 70_001], lay: [a, b, PLAIN], alpha: 1.0, beta: 0.5 });
        }
    });
}

#[test]
fn old_elements_that_are_no_numbers_are_not_read() {
    with(None, |rt| {
        let (a, b) = (managed(rt, &[2.0f32; 16]), managed(rt, &[3.0f32; 16]));
        let mut c = managed(rt, &[f32::NAN; 16]);
        let (a, b) = (Mat::new(a.read(), 4, 4), Mat::new(b.read(), 4, 4));
        kernels::gemm(rt, 1.0, a, b, 0.0, Mat::new(c.overwrite(), 4, 4)).expect("gemm");
        assert_eq!(c[..], [24.0; 16]);
    });
}

#[test]
fn what_was_added_up_is_never_given_up() {
    let _watchdog = watchdog("gemm", 60);
    let trace = Scratch::new("gemm");
    let rt = open(checked().record_launches(&trace.0));
    run(&rt, &Case { size: [9, 5, 70_001], lay: [PLAIN; 3], alpha: 1.0, beta: 0.0 });
    let lines = std::fs::read_to_string(&trace.0).expect("the trace is there at once");
    let overwrites: Vec<bool> = lines.lines().map(|line| line.contains(r#""access":"overwrite""#)).collect();
    assert_eq!(overwrites, [true, false, false], "only the first launch may let the old c go: {lines}");
    clean(&rt);
}

/// gram and syrk of n x k.
fn squares(rt: &Runtime, n: usize, k: usize, lay: Lay, c: Lay) {
    let mut r = Random(n as u64);
    let a = random(rt, &mut r, lay, n, k);
    let mut gram = random(rt, &mut r, c, n, n);
    let mut lower = managed(rt, &gram);
    let old = gram.to_vec();
    kernels::gram(rt, lay.mat(a.read(), n, k), c.mat(gram.overwrite(), n, n)).expect("gram");
    kernels::syrk(rt, -1.0, lay.mat(a.read(), n, k), 1.0, c.mat(lower.write(), n, n)).expect("syrk");
    let left = lay.view(&a, n, k);
    let right = left.clone().reversed_axes();
    let case = |alpha, beta| Case { size: [n, n, k], lay: [lay, lay.t(), c], alpha, beta };
    check("gram", &case(1.0, 0.0), &left, &right, &old, &gram, false);
    check("syrk", &case(-1.0, 1.0), &left, &right, &old, &lower, true);
}

#[test]
fn squares_of_matrices() {
    with(None, |rt| {
        let part = Lay { row: 1, col: 2, stride: Some(3), transposed: false };
        for (n, k) in [(0, 3), (3, 0), (1, 1), (8, 8), (31, 17), (130, 64)] {
            for lay in [PLAIN, PLAIN.t(), part] {
                squares(rt, n, k, lay, PLAIN);
                squares(rt, n, k, lay, part.t());
            }
        }
    });
    with(Some(1 << 20), |rt| {
        squares(rt, 700, 200, PLAIN, PLAIN);
        squares(rt, 500, 500, PLAIN.t(), PLAIN);
    });
}

#[test]
fn refusals_name_shapes() {
    with(None, |rt| {
        let (x, y) = (managed(rt, &[1.0f32; 24]), managed(rt, &[1.0f32; 24]));
        let mut z = managed(rt, &[1.0f32; 24]);
        let text = shape(kernels::gemm(
            rt,
            1.0,
            Mat::new(x.read(), 4, 6),
            Mat::new(y.read(), 4, 6),
            0.0,
            Mat::new(z.write(), 4, 6),
        ));
        assert_eq!(text, "gemm: b is 4 x 6: as many rows are needed as a has columns, 6");
        let text = shape(kernels::gemm(
            rt,
            1.0,
            Mat::new(x.read(), 4, 6),
            Mat::new(y.read(), 4, 6).t(),
            0.0,
            Mat::new(z.write(), 4, 6),
        ));
        assert_eq!(text, "gemm: c is 4 x 6: the product of a and b is 4 x 4");
        let text = shape(kernels::gram(rt, Mat::new(x.read(), 5, 6), Mat::new(z.write(), 5, 5)));
        assert!(
            text.starts_with("gram: a is 5 x 6 elements") && text.contains("its access has 24 elements"),
            "{text}"
        );
        let text =
            shape(kernels::syrk(rt, 1.0, Mat::new(x.read(), 4, 6), 0.0, Mat::new(z.overwrite(), 4, 4)));
        assert!(text.starts_with("syrk: c is given for overwriting"), "{text}");
        let text = shape(kernels::gram(rt, Mat::new(x.read(), 4, 6).stride(5), Mat::new(z.write(), 4, 4)));
        assert!(text.contains("rows lie over each other"), "{text}");
        let huge = usize::MAX / 2;
        shape(kernels::gram(rt, Mat::new(x.read(), huge, 6).stride(huge), Mat::new(z.write(), 4, 4)));
        assert!(z.iter().all(|z| *z == 1.0), "a refused call changed something");
    });
}
