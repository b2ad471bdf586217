//! transpose: rows of the result stay on the device while rows of the source stream through.

use super::mat::Mat;
use super::modules::Module;
use super::operand::{Launches, Role, refuse};
use super::panel::{Panel, tallest};
use crate::launch::{Grid, Launch};
use crate::{AccessKind, Result, Runtime};

/// An invocation moves so many rows and columns.
const SIDE: usize = 4;

/// `b = aᵀ`, bit by bit. `a` is m x n, `b` n x m.
///
/// A row of each must fit the device's memory at once.
///
/// # Errors
/// As the [module](super) says.
pub fn transpose(rt: &Runtime, a: Mat<'_>, b: Mat<'_>) -> Result<Launch> {
    // Element (i, j) of b is element (i, j) of the transposed view.
    let a = Panel::new("transpose", "a", a, Role::In)?.t();
    let b = Panel::new("transpose", "b", b, Role::Out)?;
    let (rows, cols) = a.shape();
    if b.shape() != (rows, cols) {
        let need = format!("a transposed is {rows} x {cols}");
        return refuse("transpose", "b", format!("{} x {}", b.shape().0, b.shape().1), need);
    }
    b.apart("transpose", "b", &[("a", &a)])?;
    let (a, b) = if b.transposed { (a.t(), b.t()) } else { (a, b) };
    let mut launches = Launches::new(rt);
    if b.rows == 0 || b.cols == 0 {
        return launches.done();
    }
    let limit = rt.device_memory().0;
    let turned = a.transposed;
    // Rows of b and of a that are on the device at once: all of a, or a few at a time.
    let fits = |ahead, b_rows, a_rows| b.device_bytes(b_rows) + ahead * a.device_bytes(a_rows) <= limit;
    let most = (a.rows_max(true), b.rows_max(false));
    let (a_rows, b_rows) = if !turned {
        let height = tallest(b.rows.min(most.0).min(most.1), |height| {
            height == b.rows && fits(1, height, height)
                || 2 * (b.device_bytes(height) + a.device_bytes(height)) <= limit
        });
        (height, height)
    } else if fits(1, 1, a.rows.min(most.0)) && a.device_bytes(a.rows) <= limit / 2 {
        (a.rows.min(most.0), tallest(b.rows.min(most.1), |rows| fits(1, rows, a.rows)))
    } else {
        let a_rows = tallest(a.rows.min(most.0), |rows| a.device_bytes(rows) <= limit / 8);
        (a_rows, tallest(b.rows.min(most.1), |rows| fits(2, rows, a_rows)))
    };
    let mut back = false;
    for row in (0..b.rows).step_by(b_rows) {
        let down = row..(row + b_rows).min(b.rows);
        let mut pieces: Vec<_> = if turned {
            (0..a.rows).step_by(a_rows).map(|at| at..(at + a_rows).min(a.rows)).collect()
        } else {
            vec![down.clone()]
        };
        if back {
            pieces.reverse();
        }
        back = !back;
        for (number, piece) in pieces.into_iter().enumerate() {
            let kind = if number == 0 { b.overwriting() } else { AccessKind::Write };
            let (from, before) = a.bound(piece.clone());
            let stride = a.stride as u32;
            // Of the piece: columns of b if a is turned, else rows.
            let (cols, a0, steps, b0) = if turned {
                (piece.len(), before + down.start, [1, stride], piece.start)
            } else {
                (b.cols, before, [stride, 1], 0)
            };
            let values = [down.len(), cols, a0]
                .into_iter()
                .map(|value| value as u32)
                .chain(steps)
                .chain([b0 as u32, b.stride as u32]);
            let grid = Grid::linear(down.len().div_ceil(SIDE) * cols.div_ceil(SIDE));
            let values: Vec<u32> = values.collect();
            launches.add(Module::Transpose, grid, [from, b.part(down.clone(), kind)], &values)?;
        }
    }
    launches.done()
}
