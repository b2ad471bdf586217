//! What is written lies apart from what is read. Rust's borrows say so; C's and Python's callers have none.

use crate::rig::{Random, managed, near, shape, with};
use vkhmm::AccessKind::{Overwrite, Read, Write};
use vkhmm::kernels::{self, Csr, Mat};
use vkhmm::{Access, AccessKind, Managed};

/// An access of which the compiler does not know whose it is.
fn given<T: vkhmm::Pod>(of: &Managed<T>, kind: AccessKind, part: std::ops::Range<usize>) -> Access<'static> {
    // SAFETY: no reference to the elements is used before the touch that waits for the launches.
    unsafe { of.raw(kind, part) }
}

#[test]
fn one_array_for_both_is_refused() {
    with(None, |rt| {
        let x = managed(rt, &[1.0_f32; 64]);
        let words = managed(rt, &[0_u32; 64]);
        let vector = |kind, part| given(&x, kind, part);
        let (read, out) = (|| vector(Read, 0..16), || vector(Overwrite, 8..24));
        let square = |kind, from| Mat::new(vector(kind, from..from + 16), 4, 4);
        let csr = || Csr {
            rows: 16,
            cols: 16,
            row_start: given(&words, Read, 0..17),
            columns: given(&words, Read, 17..33),
            values: read(),
        };
        for (text, operand, other) in [
            (shape(kernels::copy(rt, read(), out())), "copy: to", "from"),
            (shape(kernels::copy(rt, read(), vector(Overwrite, 0..16))), "copy: to", "from"),
            (shape(kernels::axpy(rt, 2.0, read(), vector(Write, 15..31))), "axpy: y", "x"),
            (shape(kernels::dot(rt, vector(Read, 16..32), read(), vector(Write, 3..4))), "dot: out", "y"),
            (shape(kernels::sum(rt, read(), vector(Overwrite, 0..1))), "sum: out", "x"),
            (shape(kernels::max(rt, read(), vector(Overwrite, 15..16))), "max: out", "x"),
            (shape(kernels::arg_min(rt, read(), vector(Overwrite, 7..8))), "arg_min: out", "x"),
            (
                shape(kernels::gemm(rt, 1.0, square(Read, 0), square(Read, 16), 0.0, square(Write, 31))),
                "gemm: c",
                "b",
            ),
            (shape(kernels::gram(rt, square(Read, 0), square(Overwrite, 0).t())), "gram: c", "a"),
            (shape(kernels::syrk(rt, 1.0, square(Read, 0), 1.0, square(Write, 15))), "syrk: c", "a"),
            (shape(kernels::transpose(rt, square(Read, 0), square(Write, 0))), "transpose: b", "a"),
            (
                shape(kernels::conv2d(rt, square(Read, 0), square(Read, 16), square(Write, 16))),
                "conv2d: out",
                "filter",
            ),
            (shape(kernels::softmax(rt, square(Read, 0), square(Overwrite, 0))), "softmax: out", "a"),
            (shape(kernels::spmv(rt, csr(), vector(Read, 32..48), out())), "spmv: y", "a.values"),
            (
                shape(kernels::spmv(rt, csr(), vector(Read, 32..48), given(&words, Overwrite, 16..32))),
                "spmv: y",
                "a.row_start",
            ),
        ] {
            let start = format!("{operand} is in memory that {other} has, too: what is written lies apart");
            assert!(text.starts_with(&start), "{text}");
        }
        assert_eq!((&x[..], &words[..]), (&[1.0; 64][..], &[0; 64][..]), "a refused call changed something");
        // Neighbours, and nothing of it, are no part of it.
        kernels::copy(rt, read(), vector(Overwrite, 16..32)).expect("neighbours");
        kernels::copy(rt, vector(Read, 5..5), vector(Overwrite, 5..5)).expect("nothing");
        let none = Csr { rows: 0, cols: 16, row_start: given(&words, Read, 0..1), ..csr() };
        kernels::spmv(rt, none, vector(Read, 32..48), vector(Overwrite, 40..40)).expect("no rows");
    });
}

/// A place in a matrix whose rows are so far apart.
#[derive(Clone, Copy, Debug)]
struct Place {
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Place {
    fn elements(self) -> impl Iterator<Item = usize> {
        (0..self.rows)
            .flat_map(move |i| (0..self.cols).map(move |j| (self.row + i) * self.stride + self.col + j))
    }

    fn mat(self, access: Access<'_>) -> Mat<'_> {
        Mat::new(access, self.rows, self.cols).stride(self.stride).at(self.row, self.col)
    }
}

#[test]
fn parts_of_one_matrix_are_told_apart() {
    with(None, |rt| {
        let count = 12 * 12;
        let mut random = Random(3);
        let (mut refused, mut done) = (0, 0);
        for turn in 0..300 {
            let mut place = |rows: usize, cols: usize, stride: usize| Place {
                row: random.below(13 - rows),
                col: random.below(stride + 1 - cols),
                rows,
                cols,
                stride,
            };
            let ((rows, cols), stride) = ([(1, 9), (9, 1), (7, 1), (3, 4), (4, 5)][turn % 5], 11 + turn % 2);
            let (a, b) = (place(rows, cols, stride), place(cols, rows, stride));
            let x = managed(rt, &Random(1).vector(count));
            let old = x.to_vec();
            let meets = a.elements().any(|at| b.elements().any(|other| other == at));
            let from = given(&x, Read, 0..count);
            let result = kernels::transpose(rt, a.mat(from), b.mat(given(&x, Write, 0..count)));
            if meets {
                shape(result);
                assert_eq!(x[..], old, "{a:?} to {b:?}");
                refused += 1;
            } else {
                result.unwrap_or_else(|e| panic!("{a:?} to {b:?}: {e}"));
                let mut want = old.clone();
                let (source, to): (Vec<_>, Vec<_>) = (a.elements().collect(), b.elements().collect());
                (0..rows * cols).for_each(|i| want[to[i % cols * rows + i / cols]] = old[source[i]]);
                near(&format!("{a:?} to {b:?}"), &x, |i| (f64::from(want[i]), 0.0));
                done += 1;
            }
        }
        assert!(refused > 20 && done > 100, "{refused} refused, {done} done");
        // Where rows are not equally far apart, nobody looks closer than at the first and the last element.
        let x = managed(rt, &Random(1).vector(count));
        let a = Place { row: 0, col: 0, rows: 3, cols: 2, stride: 12 };
        let b = Place { row: 0, col: 6, rows: 2, cols: 3, stride: 24 };
        let (from, to) = (given(&x, Read, 0..count), given(&x, Write, 0..count));
        shape(kernels::transpose(rt, a.mat(from), b.mat(to)));
    });
}
