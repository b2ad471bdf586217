//! Matrices as kernels take them: an access with a shape.

use crate::Access;

/// A matrix of f32 in row-major order: an access, how many rows and columns it has, and how they lie in it.
///
/// A part of a larger matrix is its [`stride`](Self::stride) and where it begins ([`at`](Self::at)); [`t`](Self::t) is the
/// transposed view. What does not lie inside the access is refused by the kernel that is given it ([`crate::Error::Shape`]).
///
/// ```no_run
/// # use vkhmm::{Runtime, kernels::{self, Mat}};
/// # fn main() -> vkhmm::Result<()> {
/// # let rt = Runtime::builder().build()?;
/// let mut a = rt.alloc::<f32>(1000 * 1000)?;
/// let x = rt.alloc::<f32>(200 * 10)?;
/// // The 200 x 200 elements from row 600, column 600 on, of a matrix whose rows are 1000 apart: a -= x xᵀ
/// let part = Mat::new(a.write(), 200, 200).stride(1000).at(600, 600);
/// kernels::syrk(&rt, -1.0, Mat::new(x.read(), 200, 10), 1.0, part)?;
/// # Ok(())
/// # }
/// ```
pub struct Mat<'a> {
    pub(super) access: Access<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: Option<usize>,
    pub(super) row: usize,
    pub(super) col: usize,
    pub(super) transposed: bool,
}

impl<'a> Mat<'a> {
    /// `rows` x `cols` elements, row after row, from the access's first element on.
    pub fn new(access: Access<'a>, rows: usize, cols: usize) -> Self {
        Self { access, rows, cols, stride: None, row: 0, col: 0, transposed: false }
    }

    /// Rows begin `elements` apart; as many as there are columns, unless said.
    #[must_use]
    pub fn stride(mut self, elements: usize) -> Self {
        self.stride = Some(elements);
        self
    }

    /// The first element is not the access's first, but the one in this row and column of it, rows being
    /// [`stride`](Self::stride) apart. Of the elements between its rows nothing is read or written.
    #[must_use]
    pub fn at(mut self, row: usize, col: usize) -> Self {
        (self.row, self.col) = (row, col);
        self
    }

    /// The transposed view: nothing moves, rows are columns. Said last: `stride` and `at` are about how the elements lie.
    #[must_use]
    pub fn t(mut self) -> Self {
        self.transposed = !self.transposed;
        self
    }

    /// Rows, as the kernel sees it.
    pub fn rows(&self) -> usize {
        if self.transposed { self.cols } else { self.rows }
    }

    /// Columns, as the kernel sees it.
    pub fn cols(&self) -> usize {
        if self.transposed { self.rows } else { self.cols }
    }
}

/// A sparse matrix of f32, in compressed rows: row `r` has the elements `row_start[r]..row_start[r + 1]` of `columns` and `values`.
pub struct Csr<'a> {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows + 1` indices (u32) into `columns` and `values`, ascending from 0.
    pub row_start: Access<'a>,
    /// The column of each element (u32), each below `cols`.
    pub columns: Access<'a>,
    /// The elements (f32), as many as `columns`.
    pub values: Access<'a>,
}
