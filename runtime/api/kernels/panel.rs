//! A matrix that a kernel was given, checked: rows of it go to launches, since only whole rows are contiguous.

use super::mat::Mat;
use super::operand::{Role, WORDS_MAX, Words, refuse, refuse_shared};
use crate::{Access, AccessKind, Result};
use std::ops::Range;

/// As it lies in memory: `rows` rows of `cols` elements, `stride` apart.
pub(super) struct Panel<'a> {
    words: Words<'a>,
    first: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
    /// Whether rows of memory are what the kernel calls columns.
    pub(super) transposed: bool,
}

impl<'a> Panel<'a> {
    /// Checks that the matrix lies inside its access, no two rows sharing an element.
    pub(super) fn new(kernel: &'static str, operand: &'static str, mat: Mat<'a>, role: Role) -> Result<Self> {
        let Mat { rows, cols, row, col, transposed, .. } = mat;
        let stride = mat.stride.unwrap_or(cols);
        let words = Words::new(kernel, operand, mat.access, role)?;
        let empty = rows == 0 || cols == 0;
        let have =
            || format!("{rows} x {cols} elements from row {row}, column {col} on, rows {stride} apart");
        if !empty && (row > 0 || rows > 1) && col.checked_add(cols).is_none_or(|end| end > stride) {
            return refuse(kernel, operand, have(), "rows lie over each other: say a larger stride");
        }
        let end = (row.checked_add(rows))
            .and_then(|end| end.checked_sub(1))
            .and_then(|last| last.checked_mul(stride)?.checked_add(col)?.checked_add(cols));
        if !empty && end.is_none_or(|end| end > words.len()) {
            let need =
                format!("its access has {} elements: pass more of them, or say fewer rows", words.len());
            return refuse(kernel, operand, have(), need);
        }
        if !empty && (stride > WORDS_MAX || cols > WORDS_MAX) {
            return refuse(kernel, operand, have(), format!("a row has at most {WORDS_MAX} elements"));
        }
        let first = if empty { 0 } else { row * stride + col };
        Ok(Self { words, first, rows, cols, stride, transposed })
    }

    /// Refuses what is written where it has elements of one of those that are read: no borrow says so in C. Parts of one matrix may
    /// lie beside each other.
    pub(super) fn apart(
        &self,
        kernel: &'static str,
        operand: &'static str,
        read: &[(&'static str, &Panel<'_>)],
    ) -> Result<()> {
        match read.iter().find(|(_, other)| self.meets(other)) {
            Some((name, _)) => refuse_shared(kernel, operand, name),
            None => Ok(()),
        }
    }

    /// Whether an element is in both; also where it may be: between rows of different strides nobody looks.
    fn meets(&self, other: &Panel<'_>) -> bool {
        let empty = |it: &Panel<'_>| it.rows == 0 || it.cols == 0;
        if empty(self) || empty(other) || !self.words.same_memory(&other.words) {
            return false;
        }
        let (mine, theirs) = (self.place(), other.place());
        if mine.start >= theirs.end || theirs.start >= mine.end {
            return false;
        }
        let stride = match (self.rows, other.rows) {
            (1, 1) => return true,
            (1, _) => other.stride,
            (_, 1) => self.stride,
            _ if self.stride == other.stride => self.stride,
            _ => return true,
        } as i64;
        // Row i + step of the other begins `off` elements behind row i: they meet where -other.cols < off < self.cols.
        let begin = theirs.start - mine.start;
        let step = (-(other.cols as i64) - begin).div_euclid(stride) + 1;
        let step = step.max(1 - self.rows as i64);
        step < other.rows as i64 && begin + step * stride < self.cols as i64
    }

    /// From its first to behind its last element, in words of the allocation.
    fn place(&self) -> Range<i64> {
        let last = self.first + (self.rows - 1) * self.stride;
        self.words.place(self.first)..self.words.place(last + self.cols)
    }

    /// Refuses a transposed view.
    pub(super) fn upright(self, kernel: &'static str, operand: &'static str) -> Result<Self> {
        if self.transposed {
            return refuse(
                kernel,
                operand,
                "a transposed view",
                "only gemm, gram, syrk and transpose take these",
            );
        }
        Ok(self)
    }

    /// Whether there is nothing between its rows.
    pub(super) fn dense(&self) -> bool {
        self.stride == self.cols || self.rows <= 1
    }

    /// Bytes of device memory that so many of its rows take, at most.
    pub(super) fn device_bytes(&self, rows: usize) -> u64 {
        if rows == 0 || self.cols == 0 {
            return 0;
        }
        let bytes = 4 * ((rows - 1) * self.stride + self.cols) as u64;
        // Windows rarely begin on a frame, and then end in one more.
        let whole = rows == self.rows && self.words.begins_frame(self.first);
        bytes.next_multiple_of(65536) + if whole { 0 } else { 65536 }
    }

    /// Bytes of all its elements.
    pub(super) fn bytes(&self) -> u64 {
        4 * (self.rows * self.cols) as u64
    }

    /// Most rows that one launch may be given, as a binding if so.
    pub(super) fn rows_max(&self, bound: bool) -> usize {
        let words = if bound { self.words.binding_words().min(WORDS_MAX) } else { WORDS_MAX };
        (words.saturating_sub(self.cols) / self.stride.max(1) + 1).min(words / self.cols.max(1)).max(1)
    }

    /// Some of its rows, for a launch: from the first one's first element to the last one's last.
    pub(super) fn part(&self, rows: Range<usize>, kind: AccessKind) -> Access<'a> {
        if rows.is_empty() || self.cols == 0 {
            return self.words.none();
        }
        let at = |row: usize| self.first + row * self.stride;
        self.words.part(at(rows.start)..at(rows.end - 1) + self.cols, kind)
    }

    /// As [`Self::part`] for reading, from where a binding may begin: that many elements before.
    pub(super) fn bound(&self, rows: Range<usize>) -> (Access<'a>, usize) {
        if rows.is_empty() || self.cols == 0 {
            return (self.words.none(), 0);
        }
        let at = |row: usize| self.first + row * self.stride;
        self.words.bound(at(rows.start)..at(rows.end - 1) + self.cols)
    }

    /// The same matrix for reading, once more.
    pub(super) fn again(&self) -> Self {
        let words = self.words.again();
        Self { words, ..*self }
    }

    /// How a kernel that writes all of it is given some of its rows: what lies between rows stays as it is.
    pub(super) fn overwriting(&self) -> AccessKind {
        if self.dense() { AccessKind::Overwrite } else { AccessKind::Write }
    }

    /// Its shape, as the kernel sees it.
    pub(super) fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// The transposed view.
    pub(super) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
}

/// The largest number up to `most` that fits, if all smaller than `most` do below some number; 1 if none does.
pub(super) fn tallest(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(most) {
        return most.max(1);
    }
    let (mut fit, mut misfit) = (1, most.max(2));
    while misfit - fit > 1 {
        let middle = fit + (misfit - fit) / 2;
        if fits(middle) { fit = middle } else { misfit = middle }
    }
    fit
}
