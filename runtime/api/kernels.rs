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
//! **Errors.** Every function returns [`Error::Shape`] where sizes, strides or kinds of access do not fit, or where what is written has
//! an element of what is read, before anything runs; and those of [`Runtime::launch`]. Of these, one that concerns a later window
//! leaves what earlier ones wrote.

mod conv;
mod elementwise;
mod gemm;
mod mat;
mod modules;
mod operand;
mod panel;
mod reduce;
mod softmax;
mod spmv;
mod transpose;

pub use conv::conv2d;
pub use elementwise::{axpy, copy, fill, scale};
pub use gemm::{gemm, gram, syrk};
pub use mat::{Csr, Mat};
pub(crate) use modules::Module;
pub use reduce::{arg_min, dot, max, sum};
pub use softmax::softmax;
pub use spmv::spmv;
pub use transpose::transpose;

#[cfg(doc)]
use crate::{Access, Error, Runtime};
