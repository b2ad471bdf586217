//! The kernels that are there already: f32, any size, no SPIR-V of the program's.

use crate::buffer;
use crate::error::call;
use crate::error::vkhmm_result;
use crate::handles;
use crate::input::{self, Out};
use crate::launch::{Launch, access, vkhmm_access, vkhmm_launch};
use crate::runtime::Runtime;
use vkhmm::Access;
use vkhmm::kernels::{self, Csr, Mat};

/// A matrix of float in row-major order: an access, how many rows and columns it has, and how they lie in it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_matrix {
    /// The bytes that it lies in.
    pub access: vkhmm_access,
    /// Rows, as they lie.
    pub rows: u64,
    /// Columns, as they lie.
    pub cols: u64,
    /// Elements from the start of a row to the next; zero for as many as there are columns. Of what is between rows nothing is used.
    pub stride: u64,
    /// 1: kernels see the transposed matrix.
    pub transposed: u32,
    /// Zero.
    pub reserved: u32,
}

/// A sparse matrix of float in compressed rows: row r has the elements row_start[r] up to row_start[r + 1] of columns and values.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_csr {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
    /// rows + 1 indices (uint32_t), ascending from 0.
    pub row_start: vkhmm_access,
    /// The column of each element (uint32_t).
    pub columns: vkhmm_access,
    /// The elements (float).
    pub values: vkhmm_access,
}

/// Runs a kernel on arrays of one runtime, the last of which it writes.
///
/// # Safety
/// As [`input::one`] for each access, and as [`Out::optional`].
unsafe fn on_arrays<const N: usize>(
    given: [*const vkhmm_access; N],
    launch: *mut vkhmm_launch,
    run: impl FnOnce(&vkhmm::Runtime, [Access<'static>; N]) -> vkhmm::Result<vkhmm::Launch>,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the contract is the caller's.
        let out = unsafe { Out::optional(launch, "launch")? };
        let mut owner = 0;
        let mut accesses = Vec::with_capacity(N);
        for (i, given) in given.into_iter().enumerate() {
            // SAFETY: the contract is the caller's.
            let given = unsafe { input::one(given, &format!("access {}", i))? };
            accesses.push(access(&given, i)?);
            owner = buffer::find(given.buffer)?.1;
        }
        let (rt, _) = handles::get::<Runtime>(owner)?;
        let accesses = accesses.try_into().ok().expect("one for each given");
        Launch::give(run(&rt.0, accesses)?, owner, out)
    })
}

/// As [`on_arrays`], for matrices.
///
/// # Safety
/// As [`input::one`] for each matrix, and as [`Out::optional`].
unsafe fn on_matrices<const N: usize>(
    given: [*const vkhmm_matrix; N],
    launch: *mut vkhmm_launch,
    run: impl FnOnce(&vkhmm::Runtime, [Mat<'static>; N]) -> vkhmm::Result<vkhmm::Launch>,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the contract is the caller's.
        let out = unsafe { Out::optional(launch, "launch")? };
        let mut owner = 0;
        let mut matrices = Vec::with_capacity(N);
        for (i, given) in given.into_iter().enumerate() {
            // SAFETY: the contract is the caller's.
            let given = unsafe { input::one(given, &format!("matrix {i}"))? };
            input::unused(given.reserved, "reserved of a matrix")?;
            let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let mut matrix = Mat::new(access(&given.access, i)?, size(given.rows), size(given.cols));
            if given.stride > 0 {
                matrix = matrix.stride(size(given.stride));
            }
            matrices.push(if given.transposed != 0 { matrix.t() } else { matrix });
            owner = buffer::find(given.access.buffer)?.1;
        }
        let (rt, _) = handles::get::<Runtime>(owner)?;
        let matrices = matrices.try_into().ok().expect("one for each given");
        Launch::give(run(&rt.0, matrices)?, owner, out)
    })
}

/// Of the vkhmm_kernels_ functions: each is asynchronous and in order, as vkhmm_kernel_launch is; results stay in managed memory. What is
/// larger than the device memory limit goes in windows. What is written must have no element of what is read. An error that concerns a later window leaves what earlier ones wrote. `launch` may
/// be NULL.
///
/// `to[i] = value`.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_fill(
    to: *const vkhmm_access,
    value: f32,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([to], launch, |rt, [to]| kernels::fill(rt, to, value)) }
}

/// `to[i] = from[i]`. Both have the same length.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_copy(
    from: *const vkhmm_access,
    to: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([from, to], launch, |rt, [from, to]| kernels::copy(rt, from, to)) }
}

/// `y[i] += a * x[i]`. Both have the same length.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_axpy(
    a: f32,
    x: *const vkhmm_access,
    y: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x, y], launch, |rt, [x, y]| kernels::axpy(rt, a, x, y)) }
}

/// `x[i] *= a`.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_scale(
    a: f32,
    x: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x], launch, |rt, [x]| kernels::scale(rt, a, x)) }
}

/// `out[0]` = the sum of `x[i] * y[i]`. Both have the same length.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_dot(
    x: *const vkhmm_access,
    y: *const vkhmm_access,
    out: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x, y, out], launch, |rt, [x, y, out]| kernels::dot(rt, x, y, out)) }
}

/// `out[0]` = the sum of `x`.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_sum(
    x: *const vkhmm_access,
    out: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x, out], launch, |rt, [x, out]| kernels::sum(rt, x, out)) }
}

/// `out[0]` = the largest of `x`; what is not a number is passed over, and of nothing it is minus infinity.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_max(
    x: *const vkhmm_access,
    out: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x, out], launch, |rt, [x, out]| kernels::max(rt, x, out)) }
}

/// `out[0]` (uint32_t) = the index of the smallest of `x`, the first one of equal ones; what is not a number is passed over, and of
/// nothing it is UINT32_MAX.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_arg_min(
    x: *const vkhmm_access,
    out: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_arrays([x, out], launch, |rt, [x, out]| kernels::arg_min(rt, x, out)) }
}

/// `c = alpha a b + beta c`. With `beta` zero the old `c` is not read.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_gemm(
    alpha: f32,
    a: *const vkhmm_matrix,
    b: *const vkhmm_matrix,
    beta: f32,
    c: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_matrices([a, b, c], launch, |rt, [a, b, c]| kernels::gemm(rt, alpha, a, b, beta, c)) }
}

/// `c` = `a` times its transposed, the Gram matrix of the rows of `a`.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_gram(
    a: *const vkhmm_matrix,
    c: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_matrices([a, c], launch, |rt, [a, c]| kernels::gram(rt, a, c)) }
}

/// `c = alpha a aT + beta c` for the lower triangle of `c` and its diagonal; what is above stays as it is.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_syrk(
    alpha: f32,
    a: *const vkhmm_matrix,
    beta: f32,
    c: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_matrices([a, c], launch, |rt, [a, c]| kernels::syrk(rt, alpha, a, beta, c)) }
}

/// `b` = `a` transposed.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_transpose(
    a: *const vkhmm_matrix,
    b: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_matrices([a, b], launch, |rt, [a, b]| kernels::transpose(rt, a, b)) }
}

/// Each element of `out` is the sum of `filter`'s elements times the neighbourhood of the same element of `image`, the filter's element
/// (rows / 2, cols / 2) lying on it; beyond the border the nearest element of `image` stands. The filter is not mirrored.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_conv2d(
    image: *const vkhmm_matrix,
    filter: *const vkhmm_matrix,
    out: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe {
        on_matrices([image, filter, out], launch, |rt, [image, filter, out]| {
            kernels::conv2d(rt, image, filter, out)
        })
    }
}

/// Each row of `out` is the softmax of the same row of `a`.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_softmax(
    a: *const vkhmm_matrix,
    out: *const vkhmm_matrix,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { on_matrices([a, out], launch, |rt, [a, out]| kernels::softmax(rt, a, out)) }
}

/// `y = a x` for a sparse `a`. Where all of it does not fit the device memory limit, the CPU reads `row_start`, and so waits for what
/// writes it.
///
/// # Errors
/// SHAPE; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernels_spmv(
    a: *const vkhmm_csr,
    x: *const vkhmm_access,
    y: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    let a = match unsafe { input::one(a, "a") } {
        Ok(a) => a,
        Err(failure) => return call(|| Err(failure)),
    };
    let (rows, cols) =
        (usize::try_from(a.rows).unwrap_or(usize::MAX), usize::try_from(a.cols).unwrap_or(usize::MAX));
    let parts = [&raw const a.row_start, &raw const a.columns, &raw const a.values, x, y];
    // SAFETY: the contract is the caller's; the parts of `a` are here.
    unsafe {
        on_arrays(parts, launch, |rt, [row_start, columns, values, x, y]| {
            kernels::spmv(rt, Csr { rows, cols, row_start, columns, values }, x, y)
        })
    }
}
