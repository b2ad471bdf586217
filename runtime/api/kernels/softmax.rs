//! softmax: a group of invocations for each row; rows too long for one are reduced like vectors.

use super::elementwise::words;
use super::mat::Mat;
use super::modules::Module;
use super::operand::{Launches, Role, Words, refuse};
use super::panel::{Panel, tallest};
use super::reduce::reduce;
use crate::launch::{Grid, Launch};
use crate::{AccessKind, Result, Runtime};

/// Longest row of one group: some software devices end longer loops.
const COLUMNS_MAX: usize = 1 << 18;
/// Most rows of one launch: a grid numbers 2²⁶ groups.
const ROWS_MAX: usize = 1 << 25;
/// Invocations of one group.
const LANES: usize = 64;

/// Each row of `out` is the softmax of the same row of `a`: exp(a - m) divided by its sum over the row, m being the row's largest
/// element. Both have one shape.
///
/// A row of each must fit the device's memory at once, unless it has more than 262,144 elements.
///
/// # Errors
/// As the [module](super) says; `Shape` also for transposed views.
pub fn softmax(rt: &Runtime, a: Mat<'_>, out: Mat<'_>) -> Result<Launch> {
    let a = Panel::new("softmax", "a", a, Role::In)?.upright("softmax", "a")?;
    let out = Panel::new("softmax", "out", out, Role::Out)?.upright("softmax", "out")?;
    if out.shape() != a.shape() {
        let need = format!("it has the shape of a, {} x {}", a.rows, a.cols);
        return refuse("softmax", "out", format!("{} x {}", out.rows, out.cols), need);
    }
    out.apart("softmax", "out", &[("a", &a)])?;
    let mut launches = Launches::new(rt);
    if a.rows == 0 || a.cols == 0 {
        return launches.done();
    }
    if a.cols > COLUMNS_MAX {
        for row in 0..a.rows {
            launches.append(long_row(rt, &a, &out, row)?);
        }
        return launches.done();
    }
    let limit = rt.device_memory().0;
    let height = tallest(a.rows_max(false).min(out.rows_max(false)).min(a.rows).min(ROWS_MAX), |rows| {
        let windows = if rows == a.rows { 1 } else { 2 };
        windows * (a.device_bytes(rows) + out.device_bytes(rows)) <= limit
    });
    for row in (0..a.rows).step_by(height) {
        let rows = row..(row + height).min(a.rows);
        let values = [rows.len(), a.cols, a.stride, out.stride].map(|value| value as u32);
        let (from, to) = (a.part(rows.clone(), AccessKind::Read), out.part(rows.clone(), out.overwriting()));
        launches.add(Module::Softmax, Grid::linear(rows.len() * LANES), [from, to], &values)?;
    }
    launches.done()
}

/// One row, in windows: its largest element, exponentials, their sum, quotients.
fn long_row(rt: &Runtime, a: &Panel<'_>, out: &Panel<'_>, row: usize) -> Result<Launch> {
    let row = row..row + 1;
    let x = Words::new("softmax", "a", a.part(row.clone(), AccessKind::Read), Role::In)?;
    let y = |role, kind| Words::new("softmax", "out", out.part(row.clone(), kind), role);
    let mut scalar = rt.alloc_named::<f32>(1, "vkhmm kernels, a row's largest element and sum")?;
    let mut launch =
        reduce(rt, [Module::Max; 2], 1, &x, None, &Words::new("", "", scalar.overwrite(), Role::Out)?)?;
    let top = Words::new("", "", scalar.read(), Role::In)?;
    launch.append(words(rt, Module::Exp, 0, Some(&top), Some(&x), &y(Role::Out, AccessKind::Overwrite)?)?);
    let mut scalar = rt.alloc_named::<f32>(1, "vkhmm kernels, a row's sum")?;
    let sum = Words::new("", "", scalar.overwrite(), Role::Out)?;
    launch.append(reduce(rt, [Module::Sum; 2], 1, &y(Role::In, AccessKind::Read)?, None, &sum)?);
    let sum = Words::new("", "", scalar.read(), Role::In)?;
    launch.append(words(rt, Module::Divide, 0, Some(&sum), None, &y(Role::InOut, AccessKind::Write)?)?);
    Ok(launch)
}
