//! spmv: short rows and long ones, and what cannot be believed.

use crate::rig::{Random, managed, near, shape, with};
use vkhmm::kernels::{self, Csr};
use vkhmm::{Managed, Runtime};

struct Sparse {
    cols: usize,
    row_start: Managed<u32>,
    columns: Managed<u32>,
    values: Managed<f32>,
}

impl Sparse {
    /// Rows of these lengths.
    fn random(rt: &Runtime, cols: usize, lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut random = Random(cols as u64);
        let (mut row_start, mut columns) = (vec![0], Vec::new());
        for length in lengths {
            columns.extend((0..length).map(|_| random.below(cols) as u32));
            row_start.push(columns.len() as u32);
        }
        let values = managed(rt, &random.vector(columns.len()));
        Self { cols, row_start: managed(rt, &row_start), columns: managed(rt, &columns), values }
    }

    fn csr(&self) -> Csr<'_> {
        let (row_start, columns, values) = (self.row_start.read(), self.columns.read(), self.values.read());
        Csr { rows: self.row_start.count() - 1, cols: self.cols, row_start, columns, values }
    }

    fn check(&self, rt: &Runtime, what: &str) {
        let x = managed(rt, &Random(9).vector(self.cols));
        let rows = self.row_start.count() - 1;
        let mut y = managed(rt, &vec![f32::NAN; rows]);
        kernels::spmv(rt, self.csr(), x.read(), y.overwrite()).expect("spmv");
        let (row_start, columns, values, x) =
            (&self.row_start[..], &self.columns[..], &self.values[..], &x[..]);
        near(what, &y, |row| {
            let elements = row_start[row] as usize..row_start[row + 1] as usize;
            let products = elements.clone().map(|e| f64::from(values[e]) * f64::from(x[columns[e] as usize]));
            let size: f64 = products.clone().map(f64::abs).sum();
            (products.sum(), elements.len() as f64 * f64::from(f32::EPSILON) * size)
        });
    }
}

#[test]
fn any_shape() {
    with(None, |rt| {
        let mut random = Random(4);
        let mut short = |rows: usize| (0..rows).map(|_| random.below(9)).collect::<Vec<_>>();
        for (rows, cols) in [(0, 5), (1, 1), (63, 64), (65, 3), (1009, 257)] {
            Sparse::random(rt, cols, short(rows)).check(rt, &format!("{rows} x {cols}"));
        }
        Sparse::random(rt, 3, [0, 0, 0]).check(rt, "no elements");
        let mut long = short(200);
        (long[3], long[4], long[130], long[199]) = (129, 20_000, 5_000, 300);
        Sparse::random(rt, 500, long).check(rt, "some long rows");
    });
}

#[test]
fn a_row_longer_than_one_launch() {
    with(None, |rt| Sparse::random(rt, 7, [3, (1 << 22) + 77, 5]).check(rt, "a very long row"));
}

#[test]
fn larger_than_the_device() {
    with(Some(1 << 20), |rt| {
        let mut random = Random(8);
        let lengths: Vec<_> = (0..60_000).map(|_| random.below(10)).collect();
        Sparse::random(rt, 50_000, lengths).check(rt, "windows of rows");
        Sparse::random(rt, 5_000, [40, 300_000, 2, 150_000]).check(rt, "pieces of rows");
    });
}

#[test]
fn arrays_that_begin_within_frames() {
    // Whole frames of words, each a frame more for beginning one word later: 15 of the 16 that there are, or 20.
    with(Some(1 << 20), |rt| {
        let (frame, ones) = (16_384, |count: usize| managed(rt, &vec![1.0_f32; count + 1]));
        let (rows, elements) = (3 * frame - 1, 4 * frame);
        let starts: Vec<u32> =
            (0..rows + 2).map(|i: usize| i.saturating_sub(1).min(elements) as u32).collect();
        let (row_start, columns) = (managed(rt, &starts), managed(rt, &vec![7_u32; elements + 1]));
        let (values, x, mut y) = (ones(elements), ones(frame), ones(rows));
        let (row_start, columns, values) = (row_start.slice(1..), columns.slice(1..), values.slice(1..));
        let (row_start, columns, values) = (row_start.read(), columns.read(), values.read());
        let csr = Csr { rows, cols: frame, row_start, columns, values };
        y.fill(3.0);
        kernels::spmv(rt, csr, x.slice(1..).read(), y.slice_mut(1..).overwrite()).expect("spmv");
        assert!(y[0] == 3.0 && y[1..].iter().all(|y| *y == 1.0));
    });
}

#[test]
fn what_lies_is_not_believed() {
    with(None, |rt| {
        // Rows that begin beyond the end, and before their beginning; columns that there are not.
        let row_start = managed(rt, &[0_u32, 2, u32::MAX, 1, 4]);
        // Around values and x lies what would be seen in any sum.
        let among = |numbers: &[f32]| {
            let mut all = vec![f32::NAN; 64];
            all[20..20 + numbers.len()].copy_from_slice(numbers);
            managed(rt, &all)
        };
        let mut all = [0_u32; 64];
        all[20..24].copy_from_slice(&[0, 9, u32::MAX, 1]);
        let (columns, values) = (managed(rt, &all), among(&[1.0, 2.0, 4.0, 8.0]));
        let (around, mut y) = (among(&[1.0, 1.0]), managed(rt, &[0.0_f32; 4]));
        let (columns, values, x) = (columns.slice(20..24), values.slice(20..24), around.slice(20..22));
        let csr = || Csr {
            rows: 4,
            cols: 2,
            row_start: row_start.read(),
            columns: columns.read(),
            values: values.read(),
        };
        kernels::spmv(rt, csr(), x.read(), y.overwrite()).expect("spmv");
        assert_eq!(y[..], [1.0, 8.0, 0.0, 8.0]);
        let text = shape(kernels::spmv(rt, Csr { rows: 3, ..csr() }, x.read(), y.overwrite()));
        assert_eq!(text, "spmv: a.row_start is 5 elements: 4 are needed, rows + 1");
        let text = shape(kernels::spmv(rt, csr(), around.slice(20..21).read(), y.overwrite()));
        assert_eq!(text, "spmv: x is 1 elements: 2 are needed, as many as a has columns");
    });
}
