//! Launches: what a kernel is given, running it, and waiting for it.

use crate::buffer::{self, vkhmm_buffer};
use crate::error::vkhmm_result::*;
use crate::error::{Answer, Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{self, Out};
use crate::kernel::{Kernel, vkhmm_kernel};
use crate::runtime::Runtime;
use std::ffi::c_void;
use std::time::Duration;
use vkhmm::{Access, AccessKind, Collected, Grid};

pub(crate) struct Launch(vkhmm::Launch);

impl Kind for Launch {
    const TAG: u64 = 4;
}

impl Launch {
    /// Gives a launch a handle where the caller wants one.
    pub(crate) fn give(launch: vkhmm::Launch, runtime: u64, out: Option<Out<vkhmm_launch>>) -> Answer {
        if let Some(out) = out {
            out.set(vkhmm_launch { id: handles::insert(runtime, Self(launch))? });
        }
        Ok(VKHMM_OK)
    }
}

/// Work on its way. Destroying it changes nothing but the handle. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_launch {
    /// Opaque.
    pub id: u64,
}

/// What may be done with bytes.
pub type vkhmm_access_kind = u32;
/// They are read. Several launches and host threads may read at a time.
pub const VKHMM_ACCESS_READ: u32 = 1;
/// They are read and written.
pub const VKHMM_ACCESS_WRITE: u32 = 2;
/// They are written; what they were is dead, and nothing is copied in. What the kernel leaves out is unspecified afterwards.
pub const VKHMM_ACCESS_OVERWRITE: u32 = 3;

/// Bytes of a buffer, and what a kernel may do with them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_access {
    /// Whose bytes.
    pub buffer: vkhmm_buffer,
    /// The first, from the start of the buffer.
    pub offset: u64,
    /// How many; VKHMM_WHOLE_SIZE for all from there on. None binds nothing and has address zero.
    pub bytes: u64,
    /// What may be done with them.
    pub kind: vkhmm_access_kind,
    /// Zero.
    pub reserved: u32,
}

/// A value for push constants: a scalar, or one struct for the whole block.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_value {
    /// Its bytes; copied by the call.
    pub data: *const c_void,
    /// How many.
    pub bytes: usize,
}

/// How many work groups run.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_grid {
    /// Not zero: enough invocations for that many items, folded over x and y, for kernels that number items by (group.y * groups.x +
    /// group.x) * local_size + local index and check the bound. Zero: `groups` counts.
    pub items: u64,
    /// Groups in x, y and z. None in one of them runs nothing, and still orders.
    pub groups: [u32; 3],
    /// Zero.
    pub reserved: u32,
}

/// The access as the API takes it.
pub(crate) fn access(given: &vkhmm_access, argument: usize) -> Result<Access<'static>, Failure> {
    let kind = match given.kind {
        VKHMM_ACCESS_READ => AccessKind::Read,
        VKHMM_ACCESS_WRITE => AccessKind::Write,
        VKHMM_ACCESS_OVERWRITE => AccessKind::Overwrite,
        other => {
            let text = format!("kind of access {argument} is {other}: pass a VKHMM_ACCESS_ value");
            return Err(Failure::argument(text));
        }
    };
    input::unused(given.reserved, "reserved of an access")?;
    let in_argument = |mut failure: Failure| {
        failure.prefix(&format!("access {argument}: "));
        failure
    };
    let (of, _) = buffer::find(given.buffer).map_err(in_argument)?;
    let part = buffer::part(&of, given.offset, given.bytes).map_err(in_argument)?;
    // SAFETY: C has no borrows: the header gives the law to the program, and a `Pod` byte can hold whatever a race leaves there.
    Ok(unsafe { of.0.raw(kind, part) })
}

/// Runs a kernel on bytes of buffers. Returns at once: the host's views of what it writes are gone, of what it reads are read-only, and
/// everything launched or touched later sees what it did. It blocks only for device memory that earlier launches use.
///
/// Accesses fill the kernel's storage buffers in (set, binding) order; once these are used up, they fill push-constant members that are
/// device addresses, in offset order. Values fill the other members in order; one struct may fill the rest of the block. `launch`, to
/// wait for it, may be NULL.
///
/// # Errors
/// ARGUMENTS, WRITES_READ_ONLY_ARGUMENT, GRID_TOO_LARGE, BINDING_TOO_LARGE, MISALIGNED, FOREIGN, WORKING_SET_TOO_LARGE, GUARDED, LOST,
/// DEVICE_LOST, OUT_OF_HOST_MEMORY, OUT_OF_DEVICE_MEMORY, OUT_OF_RANGE, PAGEMAP, INVALID_ARGUMENT; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_kernel_launch(
    kernel: vkhmm_kernel,
    grid: vkhmm_grid,
    accesses: *const vkhmm_access,
    access_count: usize,
    values: *const vkhmm_value,
    value_count: usize,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    call(|| {
        let mut list = Collected::default();
        // SAFETY: the caller vouches for the pointers, those in the values as well.
        let (out, accesses) = unsafe {
            for value in input::list(values, value_count, "values")? {
                list.value(&input::list(value.data.cast::<u8>(), value.bytes, "data of a value")?);
            }
            (Out::optional(launch, "launch")?, input::list(accesses, access_count, "accesses")?)
        };
        let (of, owner) = handles::get::<Kernel>(kernel.id)?;
        let (rt, _) = handles::get::<Runtime>(owner)?;
        for (i, given) in accesses.iter().enumerate() {
            list.access(access(given, i)?);
        }
        input::unused(grid.reserved, "reserved of the grid")?;
        let [x, y, z] = grid.groups;
        let items = usize::try_from(grid.items).unwrap_or(usize::MAX);
        let grid = if items > 0 { Grid::linear(items) } else { Grid::groups(x, y, z) };
        Launch::give(rt.0.launch(&of.0, grid, list)?, owner, out)
    })
}

/// Sets every 32-bit word of `to` to `word`, on the device. Like any launch: asynchronous and in order. `launch` may be NULL.
///
/// # Errors
/// WORDS if `to` is not whole words or not given for writing; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_fill(
    to: *const vkhmm_access,
    word: u32,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, to) = unsafe { (Out::optional(launch, "launch")?, input::one(to, "to")?) };
        let (_, owner) = buffer::find(to.buffer)?;
        let (rt, _) = handles::get::<Runtime>(owner)?;
        Launch::give(rt.0.fill(access(&to, 0)?, word)?, owner, out)
    })
}

/// Copies all of `from` to `to`, on the device. Like any launch: asynchronous and in order. `launch` may be NULL.
///
/// # Errors
/// WORDS if the two differ in length, are not whole words, or `to` is not given for writing; otherwise as vkhmm_kernel_launch.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_copy(
    from: *const vkhmm_access,
    to: *const vkhmm_access,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, from, to) =
            unsafe { (Out::optional(launch, "launch")?, input::one(from, "from")?, input::one(to, "to")?) };
        let (_, owner) = buffer::find(to.buffer)?;
        let (rt, _) = handles::get::<Runtime>(owner)?;
        Launch::give(rt.0.copy(access(&from, 0)?, access(&to, 1)?)?, owner, out)
    })
}

/// As a timeout: as long as it takes.
pub const VKHMM_FOREVER: u64 = u64::MAX;

/// Waits until it is over, at most `timeout_ns` nanoseconds; TIMEOUT if it is not. May be called any number of times, by any thread.
///
/// # Errors
/// DEVICE_LOST: every page it was to write is lost; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_launch_wait(launch: vkhmm_launch, timeout_ns: u64) -> vkhmm_result {
    call(|| {
        let (of, _) = handles::get::<Launch>(launch.id)?;
        if timeout_ns == VKHMM_FOREVER {
            of.0.wait()?;
            return Ok(VKHMM_OK);
        }
        let done = of.0.wait_timeout(Duration::from_nanos(timeout_ns))?;
        Ok(if done { VKHMM_OK } else { VKHMM_TIMEOUT })
    })
}

/// Whether it is over: 1 or 0.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_launch_is_done(launch: vkhmm_launch, done: *mut u32) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(done, "done")? };
        out.set(handles::get::<Launch>(launch.id)?.0.0.is_done().into());
        Ok(VKHMM_OK)
    })
}

/// How many nanoseconds the kernel ran on the device; NONE before it is over, where the device has no
/// clock, and for kernels that are not timed (vkhmm_kernel_options).
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_launch_elapsed(launch: vkhmm_launch, ns: *mut u64) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(ns, "ns")? };
        let Some(elapsed) = handles::get::<Launch>(launch.id)?.0.0.elapsed() else { return Ok(VKHMM_NONE) };
        out.set(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
        Ok(VKHMM_OK)
    })
}

/// Gives the handle up; the work goes on. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_launch_destroy(launch: vkhmm_launch) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Launch>(launch.id)?);
        Ok(VKHMM_OK)
    })
}
