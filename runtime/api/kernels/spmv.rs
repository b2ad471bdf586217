//! spmv: rows of a sparse matrix, and their elements in pieces, stream past a vector that stays.

use super::mat::Csr;
use super::modules::Module;
use super::operand::{Launches, Role, WORDS_MAX, Words, refuse};
use super::panel::tallest;
use crate::launch::{Grid, Launch};
use crate::{Access, AccessKind, Result, Runtime};
use std::ops::Range;

/// Most elements of one launch: some software devices end longer loops than these take, lie they in one row.
const ELEMENTS_MAX: usize = 1 << 22;
/// Bytes of a frame.
const FRAME: u64 = 65536;

/// `y = a x` for a sparse `a`; `x` has as many elements as `a` columns, `y` as many as rows. Elements in columns that `a` does not
/// have count nothing, and no row begins or ends beyond the elements that there are.
///
/// Where all of it does not fit the device's memory, `x` stays there and rows go in windows, for which the CPU reads `row_start`, and
/// so waits for what writes it. `x`, and two rows' starts and results, must fit at once.
///
/// # Errors
/// As the [module](super) says.
pub fn spmv(rt: &Runtime, a: Csr<'_>, x: Access<'_>, y: Access<'_>) -> Result<Launch> {
    let (rows, cols) = (a.rows, a.cols);
    let it = Product {
        row_start: Words::new("spmv", "a.row_start", a.row_start, Role::In)?,
        columns: Words::new("spmv", "a.columns", a.columns, Role::In)?,
        values: Words::new("spmv", "a.values", a.values, Role::In)?,
        x: Words::new("spmv", "x", x, Role::In)?,
        y: Words::new("spmv", "y", y, Role::Out)?,
    };
    for (operand, have, need, why) in [
        ("a.row_start", it.row_start.len(), rows.saturating_add(1), "rows + 1"),
        ("a.columns", it.columns.len(), it.values.len(), "as many as a.values has"),
        ("x", it.x.len(), cols, "as many as a has columns"),
        ("y", it.y.len(), rows, "as many as a has rows"),
    ] {
        if have != need {
            return refuse("spmv", operand, format!("{have} elements"), format!("{need} are needed, {why}"));
        }
    }
    let read =
        [("a.row_start", &it.row_start), ("a.columns", &it.columns), ("a.values", &it.values), ("x", &it.x)];
    it.y.apart("spmv", "y", &read)?;
    for (operand, have, most) in
        [("x", cols, WORDS_MAX), ("y", rows, WORDS_MAX), ("a.values", it.values.len(), u32::MAX as usize)]
    {
        if have > most {
            let need = format!("at most {most} are allowed: call it for parts");
            return refuse("spmv", operand, format!("{have} elements"), need);
        }
    }
    it.run(rt)
}

/// A product whose shapes fit.
struct Product<'a> {
    row_start: Words<'a>,
    columns: Words<'a>,
    values: Words<'a>,
    x: Words<'a>,
    y: Words<'a>,
}

impl Product<'_> {
    fn run(&self, rt: &Runtime) -> Result<Launch> {
        let mut launches = Launches::new(rt);
        let (rows, elements) = (self.y.len(), self.values.len());
        let (x, limit) = (device_bytes(self.x.len()), rt.device_memory().0);
        if rows == 0 {
            return launches.done();
        }
        if x + bytes(rows, elements) <= limit {
            self.launch(&mut launches, 0..rows, 0..elements, ELEMENTS_MAX)?;
            return launches.done();
        }
        // Room for the next window beside the one in use; where little is left of that by rounding, for the one in use alone.
        let free = limit.saturating_sub(x);
        let room = if free / 2 >= 2 * bytes(0, 0) { free / 2 } else { free };
        let starts = self.row_start.host()?;
        let at = |row: usize| (starts[row] as usize).min(elements);
        let mut row = 0;
        while row < rows {
            let fits = |end: usize| bytes(end - row, at(end).saturating_sub(at(row))) <= room;
            let mut end = row + tallest(rows - row, |count| fits(row + count));
            if end - row > 1024 && end < rows {
                // Whole pages, where it costs little.
                end = row + (end - row) / 1024 * 1024;
            }
            let most = usize::try_from(room.saturating_sub(bytes(end - row, 0)) / 8).unwrap_or(ELEMENTS_MAX);
            self.launch(
                &mut launches,
                row..end,
                at(row)..at(end).max(at(row)),
                most.clamp(1024, ELEMENTS_MAX),
            )?;
            row = end;
        }
        launches.done()
    }

    /// Some rows, whose elements lie in `elements`, of which at most `most` go at a time.
    fn launch(
        &self,
        launches: &mut Launches<'_>,
        rows: Range<usize>,
        elements: Range<usize>,
        most: usize,
    ) -> Result<()> {
        for piece in 0..elements.len().div_ceil(most).max(1) {
            let from = elements.start + piece * most;
            let here = from..(from + most).min(elements.end);
            let kind = if piece == 0 { AccessKind::Overwrite } else { AccessKind::Write };
            let accesses = [
                self.row_start.read(rows.start..rows.end + 1),
                self.columns.read(here.clone()),
                self.values.read(here.clone()),
                self.x.read(0..self.x.len()),
                self.y.part(rows.clone(), kind),
            ];
            let values = [rows.len(), self.x.len(), here.start, here.end, usize::from(piece > 0)]
                .map(|value| value as u32);
            launches.add(Module::Spmv, Grid::linear(rows.len()), accesses, &values)?;
        }
        Ok(())
    }
}

/// Bytes of device memory that words take, at most.
fn device_bytes(words: usize) -> u64 {
    (4 * words as u64).next_multiple_of(FRAME) + FRAME
}

/// Of so many rows with so many elements, without x.
fn bytes(rows: usize, elements: usize) -> u64 {
    2 * device_bytes(rows + 1) + 2 * device_bytes(elements)
}
