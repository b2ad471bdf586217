//! Managed memory in the application's own command buffers: acquire, submit, release.

use crate::buffer::{self, Buffer};
use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{self, Out, OutList};
use crate::launch::{self, vkhmm_access};
use crate::runtime::{Runtime, vkhmm_runtime};
use crate::vk::{VkBuffer, VkSemaphore};
use std::ffi::c_char;
use std::sync::Arc;
use vkhmm::vulkan::vk::{self, Handle};

/// Fields drop in order: the hold before the memory it is on.
pub(crate) struct Acquired {
    hold: vkhmm::Acquired<'static>,
    _memory: Vec<Arc<Buffer>>,
}

impl Kind for Acquired {
    const TAG: u64 = 6;
}

/// Bytes in the application's hands, until vkhmm_release or vkhmm_acquired_cancel. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_acquired {
    /// Opaque.
    pub id: u64,
}

/// Where the bytes of one access lie on the device.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_placed {
    /// The buffer, shared by the queue families that the parts named; VK_NULL_HANDLE for an empty access.
    pub buffer: VkBuffer,
    /// First byte, from the start of the VkBuffer.
    pub offset: u64,
    /// How many bytes.
    pub size: u64,
    /// Device address of the first byte; zero for an empty access.
    pub address: u64,
    /// 1 if buffer, offset and address are the same at every acquire of these bytes: descriptors may be written once.
    pub stable: u32,
    /// Zero.
    pub reserved: u32,
}

/// A timeline semaphore and a value of it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_wait {
    /// The runtime's: only wait for it, on its device.
    pub semaphore: VkSemaphore,
    /// What it reaches without a further call.
    pub value: u64,
}

/// Brings bytes to the device for the application's own command buffers: all accesses, or none. It comes after everything launched before
/// on the same bytes, and takes the host's views away as a launch does. `placed` is an array of `count` places, in the accesses' order.
/// The application's submissions that use them wait for `wait` first. `label` is for reports and errors, NULL for none.
///
/// Never waits for the device. Until the release the frames stay where they are: later launches have the rest of the device memory limit.
/// Launches and acquires that conflict with it are refused, CPU touches wait. Reads beside reads are granted.
///
/// # Errors
/// BUSY: it would have to wait, ask again later; WORKING_SET_TOO_LARGE: it does not fit beside what is acquired already, as
/// vkhmm_can_acquire tells; ACQUIRED: somebody else has it; and those of vkhmm_kernel_launch that are about memory.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_acquire(
    runtime: vkhmm_runtime,
    accesses: *const vkhmm_access,
    count: usize,
    label: *const c_char,
    acquired: *mut vkhmm_acquired,
    placed: *mut vkhmm_placed,
    wait: *mut vkhmm_wait,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (accesses, label, out, wait) = unsafe {
            (
                input::list(accesses, count, "accesses")?,
                input::text(label, "label")?,
                Out::new(acquired, "acquired")?,
                Out::new(wait, "wait")?,
            )
        };
        let mut written = 0;
        // SAFETY: the caller vouches for `count` places; the number is ours.
        let placed = unsafe { OutList::new(placed, count, &raw mut written, "placed")? };
        let (rt, owner) = handles::get::<Runtime>(runtime.id)?;
        let mut memory = Vec::with_capacity(count);
        let mut list = Vec::with_capacity(count);
        for (i, given) in accesses.iter().enumerate() {
            list.push(launch::access(given, i)?);
            memory.push(buffer::find(given.buffer)?.0);
        }
        let hold = rt.0.acquire_named(list, label.as_deref().unwrap_or("(no label)"))?;
        let places: Vec<vkhmm_placed> = hold
            .places()
            .iter()
            .map(|place| vkhmm_placed {
                buffer: place.buffer.as_raw(),
                offset: place.offset,
                size: place.size,
                address: place.address,
                stable: place.stable.into(),
                reserved: 0,
            })
            .collect();
        let (semaphore, value) = hold.wait();
        out.set(vkhmm_acquired { id: handles::insert(owner, Acquired { hold, _memory: memory })? });
        wait.set(vkhmm_wait { semaphore: semaphore.as_raw(), value });
        placed.set(&places)
    })
}

/// The object of a handle, which is stale from now on.
fn take(acquired: vkhmm_acquired) -> Result<Acquired, Failure> {
    let taken = Arc::into_inner(handles::remove::<Acquired>(acquired.id)?);
    Ok(taken.expect("nobody but this function takes them"))
}

/// Gives the bytes back after work that is submitted: everything that touches them from now on comes after `value`, without a wait here,
/// and the next acquire of them is granted at once. After the loss of the device nothing happens.
///
/// The caller promises: work is submitted that makes `semaphore`, a timeline semaphore of the runtime's device, reach `value`, and
/// nothing keeps it from being done; the semaphore lives until it has, and a later launch or touch of the bytes is through,
/// vkhmm_runtime_sync has returned or the runtime is closed; all work on the bytes waited for `wait`, stayed inside them, stored only to
/// what was acquired for writing, and is done when `value` is reached.
///
/// # Errors
/// INVALID_ARGUMENT for a semaphore that is VK_NULL_HANDLE; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_release(
    acquired: vkhmm_acquired,
    semaphore: VkSemaphore,
    value: u64,
) -> vkhmm_result {
    call(|| {
        if semaphore == 0 {
            return Err(Failure::argument(
                "semaphore is VK_NULL_HANDLE: vkhmm_acquired_cancel gives back without work",
            ));
        }
        // SAFETY: the promises are the caller's, as documented: they are about Vulkan work, not about memory of this process.
        unsafe { take(acquired)?.hold.release(vk::Semaphore::from_raw(semaphore), value) };
        Ok(VKHMM_OK)
    })
}

/// Gives the bytes back; no work that uses them was submitted. What was acquired with VKHMM_ACCESS_OVERWRITE is zero from now on.
///
/// # Errors
/// Of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_acquired_cancel(acquired: vkhmm_acquired) -> vkhmm_result {
    call(|| {
        take(acquired)?.hold.cancel();
        Ok(VKHMM_OK)
    })
}

/// Whether accesses of `bytes` bytes in all fit the device memory limit beside what is acquired now: 1 or 0. Takes and moves nothing.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_can_acquire(
    runtime: vkhmm_runtime,
    bytes: u64,
    yes: *mut u32,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(yes, "yes")? };
        out.set(handles::get::<Runtime>(runtime.id)?.0.0.can_acquire(bytes).into());
        Ok(VKHMM_OK)
    })
}
