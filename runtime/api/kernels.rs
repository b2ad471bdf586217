//! Kernels that are there already: safe to call, in f32, on arrays of any size; no SPIR-V and no grid of the caller's.
//!
//! ```no_run
//! use vkhmm::{Runtime, kernels};
//! use vkhmm::kernels::Mat;
//!
//! # fn main() -> vkhmm::Result<()> {
//! let rt = Runtime::builder().build()?;
//! let (a, b) = (rt.alloc::<f32>(300 * 200)?, rt.alloc::<f32>(200 * 100)?);
//! let mut c = rt.alloc::<f32>(300 * 100)?;
//! let (left, right) = (Mat::new(a.read(), 300, 200), Mat::new(b.read(), 200, 100));
//! kernels::gemm(&rt, 1.0, left, right, 0.0, Mat::new(c.overwrite(), 300, 100))?; // c = a b
//! println!("{}", c[0]);
//! # Ok(())
//! # }
//! ```
//!
//! Each is asynchronous and in order, as [`Runtime::launch`] is; results, also those of one element, stay in managed memory, so
//! that nothing waits before somebody looks. Arrays are given as [`Access`]es: what is only read as `read()`, what is read and
//! written as `write()`, what is only written as either `write()` or `overwrite()`; in both cases nothing of the latter is copied
//! in, as far as all of it is written. Matrices are [`Mat`]s.
//!
//! **Size.** Nothing but the host's memory limits it. Where the arrays do not fit the device's memory limit together, a call is
//! several launches on windows of whole rows, cut and ordered so that few bytes move. Each function says what has to fit at
//! once; what does not is `WorkingSetTooLarge`, as of any launch.
//!
//! **Order.** Sums are made in an order that depends on the sizes and the device memory limit, never on the device or on time:
//! the same call gives the same bits again.
//!
//! **Errors.** Every function returns [`Error::Shape`] where sizes, strides or kinds of access do not fit, before anything runs; and
//! those of [`Runtime::launch`]. Of these, one that concerns a later window leaves what earlier ones wrote.

mod elementwise;
mod gemm;
mod mat;
mod modules;
mod operand;
mod panel;

pub use elementwise::{axpy, copy, fill, scale};
pub use gemm::{gemm, gram, syrk};
pub use mat::{Csr, Mat};
pub(crate) use modules::Module;

use crate::launch::Launch;
use crate::{Access, Error, Result, Runtime};

/// `out[0]` = the sum of `x[i] * y[i]`. Both have the same length; `out` is one element.
///
/// # Errors
/// As the [module](self) says.
pub fn dot(rt: &Runtime, x: Access<'_>, y: Access<'_>, out: Access<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// `out[0]` = the sum of `x`; 0 of no elements.
///
/// # Errors
/// As the [module](self) says.
pub fn sum(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// `out[0]` = the largest of `x`; what is not a number is passed over, and of nothing it is minus infinity.
///
/// # Errors
/// As the [module](self) says.
pub fn max(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// `out[0]` (u32) = the index of the smallest of `x`, the first one of equal ones; what is not a number is passed over, and of
/// nothing it is `u32::MAX`.
///
/// # Errors
/// As the [module](self) says; `Shape` if `x` has 2³² elements or more.
pub fn arg_min(rt: &Runtime, x: Access<'_>, out: Access<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// `b = aᵀ`. `a` is m x n, `b` n x m.
///
/// # Errors
/// As the [module](self) says.
pub fn transpose(rt: &Runtime, a: Mat<'_>, b: Mat<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// Each element of `out` is the sum of `filter`'s elements times the neighbourhood of the same element of `image`, the filter's
/// element (rows / 2, cols / 2) lying on it; beyond the border the nearest element of `image` stands (clamp). The filter is not
/// mirrored. `image` and `out` have one shape; `filter` has 1 to 16,384 elements. One plane; call it for each.
///
/// # Errors
/// As the [module](self) says.
pub fn conv2d(rt: &Runtime, image: Mat<'_>, filter: Mat<'_>, out: Mat<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// `y = a x` for a sparse `a`; `x` has as many elements as `a` columns, `y` as many as rows. Elements in columns that `a` does not
/// have count nothing, and no row begins or ends beyond the elements that there are.
///
/// Where all of it does not fit the device's memory, rows go in windows, for which the CPU reads `row_start`, and so waits for what
/// writes it.
///
/// # Errors
/// As the [module](self) says.
pub fn spmv(rt: &Runtime, a: Csr<'_>, x: Access<'_>, y: Access<'_>) -> Result<Launch> {
    unimplemented!("follows")
}

/// Each row of `out` is the softmax of the same row of `a`: exp(a - m) divided by its sum over the row, m being the row's largest
/// element. Both have one shape.
///
/// # Errors
/// As the [module](self) says.
pub fn softmax(rt: &Runtime, a: Mat<'_>, out: Mat<'_>) -> Result<Launch> {
    unimplemented!("follows")
}
