//! Host guards: bytes kept on the host between begin and end, so that system calls on them work under every fault engine.

use crate::buffer::{self, Buffer, vkhmm_buffer};
use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::Out;
use crate::launch::{VKHMM_ACCESS_READ, VKHMM_ACCESS_WRITE, vkhmm_access_kind};
use std::ffi::c_void;
use std::sync::Arc;
use vkhmm::{HostGuard, HostGuardMut};

enum Hold {
    Read(#[expect(dead_code, reason = "held, not looked at")] HostGuard<'static, u8>),
    Write(#[expect(dead_code, reason = "held, not looked at")] HostGuardMut<'static, u8>),
}

/// Fields drop in order: the hold before the memory it is on.
pub(crate) struct Guard {
    _hold: Hold,
    _memory: Arc<Buffer>,
}

impl Kind for Guard {
    const TAG: u64 = 5;
}

/// Bytes held on the host. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_guard {
    /// Opaque.
    pub id: u64,
}

/// Brings bytes home, waiting for kernels that have them, and keeps them on the host until vkhmm_host_end: read, written and handed to
/// system calls (read, write, O_DIRECT) they behave as ordinary memory under every fault engine. `kind` is VKHMM_ACCESS_READ, or
/// VKHMM_ACCESS_WRITE to change them. `pointer`, the address of the first of them, may be NULL. While the guard is open, launches
/// that write the bytes (or, with VKHMM_ACCESS_WRITE, use them at all) fail with GUARDED.
///
/// # Errors
/// LOST, DEVICE_LOST, OUT_OF_HOST_MEMORY, OUT_OF_RANGE, INVALID_ARGUMENT; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_host_begin(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    kind: vkhmm_access_kind,
    guard: *mut vkhmm_guard,
    pointer: *mut *mut c_void,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, pointer) = unsafe { (Out::new(guard, "guard")?, Out::optional(pointer, "pointer")?) };
        let (memory, owner) = buffer::find(buffer)?;
        let part = buffer::part(&memory, offset, bytes)?;
        let first = memory.0.as_ptr().wrapping_add(part.start);
        // SAFETY: `Guard` keeps the memory; nothing here reads through the hold, and the borrow law of the bytes is the caller's.
        let hold = unsafe {
            match kind {
                VKHMM_ACCESS_READ => Hold::Read(memory.0.raw_host(part)?),
                VKHMM_ACCESS_WRITE => Hold::Write(memory.0.raw_host_mut(part)?),
                other => {
                    let text = format!("kind is {other}: pass VKHMM_ACCESS_READ or VKHMM_ACCESS_WRITE");
                    return Err(Failure::argument(text));
                }
            }
        };
        out.set(vkhmm_guard { id: handles::insert(owner, Guard { _hold: hold, _memory: memory })? });
        if let Some(pointer) = pointer {
            pointer.set(first.cast_mut().cast());
        }
        Ok(VKHMM_OK)
    })
}

/// Lets the bytes go. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was ended before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_host_end(guard: vkhmm_guard) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Guard>(guard.id)?);
        Ok(VKHMM_OK)
    })
}
