//! What a program says ahead about bytes: advice, discards, pins; and what was said.

use crate::buffer::{self, Buffer, vkhmm_buffer};
use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{Out, OutList};
use std::sync::Arc;
use vkhmm::{Advice, Attributes, Pin, Side};

/// One of the two sides that bytes may be on.
pub type vkhmm_side = u32;
/// Neither: in attributes, that nothing was said.
pub const VKHMM_SIDE_NONE: u32 = 0;
/// Host memory.
pub const VKHMM_SIDE_HOST: u32 = 1;
/// Device memory.
pub const VKHMM_SIDE_DEVICE: u32 = 2;

/// What is said about bytes.
pub type vkhmm_advice = u32;
/// They had better be on the host when nobody needs them elsewhere: touches bring whole blocks, and their frames are given up first.
pub const VKHMM_ADVICE_PREFER_HOST: u32 = 1;
/// They had better be on the device: touches bring home only what they need, and their frames are given up last.
pub const VKHMM_ADVICE_PREFER_DEVICE: u32 = 2;
/// Takes back either of the above.
pub const VKHMM_ADVICE_PREFER_NONE: u32 = 3;
/// They are read far more often than written, by both sides: a store takes only its 64 KiB from the device.
pub const VKHMM_ADVICE_READ_MOSTLY: u32 = 4;
/// Takes that back.
pub const VKHMM_ADVICE_NOT_READ_MOSTLY: u32 = 5;
/// Kernels are to work on the host's bytes in place. Of a whole buffer only, before its first use on the device; otherwise it is noted,
/// and has no effect.
pub const VKHMM_ADVICE_ACCESSED_BY: u32 = 6;
/// Takes that back.
pub const VKHMM_ADVICE_NOT_ACCESSED_BY: u32 = 7;

/// Says how bytes are going to be used: a hint about all pages that they touch, until something else is said. Moves nothing by itself,
/// and changes no result.
///
/// # Errors
/// INVALID_ARGUMENT, OUT_OF_RANGE; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_advise(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    advice: vkhmm_advice,
) -> vkhmm_result {
    call(|| {
        let advice = match advice {
            VKHMM_ADVICE_PREFER_HOST => Advice::PreferredLocation(Some(Side::Host)),
            VKHMM_ADVICE_PREFER_DEVICE => Advice::PreferredLocation(Some(Side::Device)),
            VKHMM_ADVICE_PREFER_NONE => Advice::PreferredLocation(None),
            VKHMM_ADVICE_READ_MOSTLY => Advice::ReadMostly(true),
            VKHMM_ADVICE_NOT_READ_MOSTLY => Advice::ReadMostly(false),
            VKHMM_ADVICE_ACCESSED_BY => Advice::AccessedBy(true),
            VKHMM_ADVICE_NOT_ACCESSED_BY => Advice::AccessedBy(false),
            other => {
                return Err(Failure::argument(format!("advice is {other}: pass a VKHMM_ADVICE_ value")));
            }
        };
        let (of, _) = buffer::find(buffer)?;
        of.0.slice(buffer::part(&of, offset, bytes)?).advise(advice)?;
        Ok(VKHMM_OK)
    })
}

/// Says that nobody needs what the bytes are: nothing of them is copied home. Pages that are partly others' keep their contents. Until
/// they are written again the bytes are some earlier values of theirs, or zeros. `saved`, the bytes whose copy home is saved, may be NULL.
///
/// # Errors
/// LOST, OUT_OF_RANGE; of handles, FORKED; nothing has changed then.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_discard(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    saved: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::optional(saved, "saved")? };
        let (of, _) = buffer::find(buffer)?;
        let part = buffer::part(&of, offset, bytes)?;
        // SAFETY: C has no borrows: that nothing uses the bytes meanwhile is the caller's.
        let bytes = unsafe { of.0.raw_discard(part)? };
        if let Some(out) = out {
            out.set(bytes);
        }
        Ok(VKHMM_OK)
    })
}

/// Fields drop in order: the pin before the memory it is on.
pub(crate) struct Pinned {
    _pin: Pin,
    _memory: Arc<Buffer>,
}

impl Kind for Pinned {
    const TAG: u64 = 8;
}

/// Bytes kept on one side. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_pinned {
    /// Opaque.
    pub id: u64,
}

/// Brings bytes to `side` and keeps them there until vkhmm_unpin. On the host, launches that name them fail with GUARDED. On the device,
/// nothing takes their frames; a load brings home a duplicate, a store takes its page home.
///
/// # Errors
/// INVALID_ARGUMENT, OUT_OF_RANGE, GUARDED, LOST, DEVICE_LOST, OUT_OF_HOST_MEMORY; on the device WORKING_SET_TOO_LARGE, ACQUIRED; of
/// handles, FORKED. Nothing is pinned then.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_pin(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    side: vkhmm_side,
    pinned: *mut vkhmm_pinned,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(pinned, "pinned")? };
        let (memory, owner) = buffer::find(buffer)?;
        let slice = memory.0.slice(buffer::part(&memory, offset, bytes)?);
        let pin = match side {
            VKHMM_SIDE_HOST => slice.pin_to_host()?,
            VKHMM_SIDE_DEVICE => slice.pin_to_device()?,
            other => {
                let text = format!("side is {other}: pass VKHMM_SIDE_HOST or VKHMM_SIDE_DEVICE");
                return Err(Failure::argument(text));
            }
        };
        out.set(vkhmm_pinned { id: handles::insert(owner, Pinned { _pin: pin, _memory: memory })? });
        Ok(VKHMM_OK)
    })
}

/// Lets the bytes go. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was unpinned before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_unpin(pinned: vkhmm_pinned) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Pinned>(pinned.id)?);
        Ok(VKHMM_OK)
    })
}

/// A run of pages about which the same was said. Flags are 0 or 1.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_attributes {
    /// Of its first byte in the buffer.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Where they had better be.
    pub preferred: vkhmm_side,
    /// Where the last prefetch was to bring them.
    pub last_prefetch: vkhmm_side,
    /// They are read far more often than written.
    pub read_mostly: u32,
    /// Kernels are to work on the host's bytes.
    pub accessed_by: u32,
    /// Kernels do work on the host's bytes, because it was advised or for another reason.
    pub in_place: u32,
    /// A guard or pin keeps them on the host.
    pub pinned_host: u32,
    /// A pin keeps their place on the device.
    pub pinned_device: u32,
    /// Host and device took them from each other: they stay where they are for a while.
    pub thrash_guarded: u32,
}

fn side(side: Option<Side>) -> vkhmm_side {
    match side {
        None => VKHMM_SIDE_NONE,
        Some(Side::Host) => VKHMM_SIDE_HOST,
        Some(Side::Device) => VKHMM_SIDE_DEVICE,
    }
}

fn given(of: &Attributes) -> vkhmm_attributes {
    vkhmm_attributes {
        offset: of.bytes.start,
        bytes: of.bytes.len(),
        preferred: side(of.advised.preferred),
        last_prefetch: side(of.advised.last_prefetch),
        read_mostly: of.advised.read_mostly.into(),
        accessed_by: of.advised.accessed_by.into(),
        in_place: of.in_place.into(),
        pinned_host: of.pinned_host.into(),
        pinned_device: of.pinned_device.into(),
        thrash_guarded: of.thrash_guarded.into(),
    }
}

/// What was said about bytes, and what keeps them where they are: runs of pages, in order. Writes at most `capacity` of them and sets
/// `*needed` to how many there are. Faults nothing in.
///
/// # Errors
/// OUT_OF_RANGE; INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_attributes(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    runs: *mut vkhmm_attributes,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutList::new(runs, capacity, needed, "runs")? };
        let (of, _) = buffer::find(buffer)?;
        let found = of.0.slice(buffer::part(&of, offset, bytes)?).attributes()?;
        out.set(&found.iter().map(given).collect::<Vec<_>>())
    })
}
