//! conv2d: rows of the result in windows, with the rows of the image around them.

use super::mat::Mat;
use super::modules::Module;
use super::operand::{Launches, Role, refuse};
use super::panel::{Panel, tallest};
use crate::launch::{Grid, Launch};
use crate::{Result, Runtime};

/// Most elements of a filter: some software devices end longer loops.
const TAPS_MAX: usize = 16_384;

/// Each element of `out` is the sum of `filter`'s elements times the neighbourhood of the same element of `image`, the filter's
/// element (rows / 2, cols / 2) lying on it; beyond the border the nearest element of `image` stands (clamp). The filter is not
/// mirrored. `image` and `out` have one shape; `filter` has 1 to 16,384 elements. One plane; call it for each.
///
/// A row of `out`, and as many of `image` as the filter has, must fit the device's memory at once.
///
/// # Errors
/// As the [module](super) says; `Shape` also for transposed views.
pub fn conv2d(rt: &Runtime, image: Mat<'_>, filter: Mat<'_>, out: Mat<'_>) -> Result<Launch> {
    let image = Panel::new("conv2d", "image", image, Role::In)?.upright("conv2d", "image")?;
    let filter = Panel::new("conv2d", "filter", filter, Role::In)?.upright("conv2d", "filter")?;
    let out = Panel::new("conv2d", "out", out, Role::Out)?.upright("conv2d", "out")?;
    if out.shape() != image.shape() {
        let need = format!("it has the image's shape, {} x {}", image.rows, image.cols);
        return refuse("conv2d", "out", format!("{} x {}", out.rows, out.cols), need);
    }
    out.apart("conv2d", "out", &[("image", &image), ("filter", &filter)])?;
    let taps = filter.rows.saturating_mul(filter.cols);
    if taps == 0 || taps > TAPS_MAX {
        let need = format!("1 to {TAPS_MAX} elements are needed: filter several times with smaller ones");
        return refuse("conv2d", "filter", format!("{} x {}", filter.rows, filter.cols), need);
    }
    if image.rows.max(image.cols) > 1 << 30 {
        let need = "at most 2^30 rows and columns are allowed: call it for parts";
        return refuse("conv2d", "image", format!("{} x {}", image.rows, image.cols), need);
    }
    let mut launches = Launches::new(rt);
    if image.rows == 0 || image.cols == 0 {
        return launches.done();
    }
    let (above, limit) = (filter.rows / 2, rt.device_memory().0);
    let most = out.rows_max(false).min(image.rows_max(true).saturating_sub(filter.rows)).min(out.rows).max(1);
    let height = tallest(most, |rows| {
        let each = out.device_bytes(rows) + image.device_bytes((rows + filter.rows - 1).min(image.rows));
        let windows = if rows == out.rows { 1 } else { 2 };
        filter.device_bytes(filter.rows) + windows * each <= limit
    });
    for row in (0..out.rows).step_by(height) {
        let rows = row..(row + height).min(out.rows);
        let last = (rows.end - 1 + filter.rows - 1).saturating_sub(above).min(image.rows - 1);
        let around = row.saturating_sub(above).min(last)..last + 1;
        let (source, before) = image.bound(around.clone());
        let (taps, before_taps) = filter.bound(0..filter.rows);
        let values = [
            row,
            rows.len(),
            image.rows,
            image.cols,
            around.start,
            before,
            image.stride,
            filter.rows,
            filter.cols,
            before_taps,
            filter.stride,
            out.stride,
        ];
        let to = out.part(rows.clone(), out.overwriting());
        let grid = Grid::linear(rows.len() * image.cols);
        launches.add(Module::Conv2d, grid, [source, taps, to], &values.map(|value| value as u32))?;
    }
    launches.done()
}
