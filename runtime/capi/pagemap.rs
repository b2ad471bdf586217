//! The registered pagemaps, and the descriptor of one page.

use crate::buffer::{location, vkhmm_location};
use crate::error::vkhmm_result::*;
use crate::error::{call, vkhmm_result};
use crate::handles;
use crate::input::{Out, OutList};
use crate::runtime::{Runtime, vkhmm_memory_kind, vkhmm_runtime};
use std::ffi::c_void;
use std::time::Duration;
use vkhmm::PageFlags;
use vkhmm::pagemap::{Pagemap, PagemapFlags, PagemapId};

/// Bits of a page's descriptor.
pub type vkhmm_page_flags = u32;
/// The host's copy is current.
pub const VKHMM_PAGE_HOST_VALID: u32 = 1;
/// The device's copy is current.
pub const VKHMM_PAGE_DEVICE_VALID: u32 = 2;
/// The application's view may have the page mapped.
pub const VKHMM_PAGE_MAY_BE_MAPPED: u32 = 4;
/// The application's view may have the page mapped writable.
pub const VKHMM_PAGE_MAY_BE_WRITABLE: u32 = 8;
/// Somebody reads one of the copies.
pub const VKHMM_PAGE_HELD_SHARED: u32 = 16;
/// Somebody changes the page or its mapping.
pub const VKHMM_PAGE_HELD_EXCLUSIVE: u32 = 32;
/// The page stays where it is until it is unpinned.
pub const VKHMM_PAGE_PINNED: u32 = 64;
/// The only copy is gone with the device.
pub const VKHMM_PAGE_LOST: u32 = 128;

const _: () = {
    assert!(VKHMM_PAGE_HOST_VALID == PageFlags::HOST_VALID.bits() as u32);
    assert!(VKHMM_PAGE_DEVICE_VALID == PageFlags::DEVICE_VALID.bits() as u32);
    assert!(VKHMM_PAGE_MAY_BE_MAPPED == PageFlags::MAY_BE_MAPPED.bits() as u32);
    assert!(VKHMM_PAGE_MAY_BE_WRITABLE == PageFlags::MAY_BE_WRITABLE.bits() as u32);
    assert!(VKHMM_PAGE_HELD_SHARED == PageFlags::HELD_SHARED.bits() as u32);
    assert!(VKHMM_PAGE_HELD_EXCLUSIVE == PageFlags::HELD_EXCLUSIVE.bits() as u32);
    assert!(VKHMM_PAGE_PINNED == PageFlags::PINNED.bits() as u32);
    assert!(VKHMM_PAGE_LOST == PageFlags::LOST.bits() as u32);
};

/// Bits of a pagemap: what is true of its memory, apart from its kind.
pub type vkhmm_pagemap_flags = u32;
/// It is device memory.
pub const VKHMM_PAGEMAP_DEVICE_MEMORY: u32 = 1;
/// The CPU cannot address it.
pub const VKHMM_PAGEMAP_UNADDRESSABLE: u32 = 2;
/// The CPU may store to it.
pub const VKHMM_PAGEMAP_HOST_WRITABLE: u32 = 4;
/// The CPU may load from it at memory speed.
pub const VKHMM_PAGEMAP_HOST_READABLE: u32 = 8;
/// The descriptors live in the device memory itself.
pub const VKHMM_PAGEMAP_DESCRIPTORS_IN_DEVICE: u32 = 16;

const _: () = {
    assert!(VKHMM_PAGEMAP_DEVICE_MEMORY == PagemapFlags::DEVICE_MEMORY.bits());
    assert!(VKHMM_PAGEMAP_UNADDRESSABLE == PagemapFlags::UNADDRESSABLE.bits());
    assert!(VKHMM_PAGEMAP_HOST_WRITABLE == PagemapFlags::HOST_WRITABLE.bits());
    assert!(VKHMM_PAGEMAP_HOST_READABLE == PagemapFlags::HOST_READABLE.bits());
    assert!(VKHMM_PAGEMAP_DESCRIPTORS_IN_DEVICE == PagemapFlags::DESCRIPTORS_IN_DEVICE.bits());
};

/// A registered description of device memory.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_pagemap {
    /// Its name within the runtime; never reused.
    pub id: u64,
    /// Its first device address.
    pub address: u64,
    /// Bytes of device memory.
    pub bytes: u64,
    /// Which kind of memory.
    pub kind: vkhmm_memory_kind,
    /// What else is true of it.
    pub flags: vkhmm_pagemap_flags,
    /// Frames of 64 KiB in use.
    pub references: u32,
    /// 1 while it hands out frames, 0 once killed.
    pub live: u32,
}

fn given(of: &Pagemap) -> vkhmm_pagemap {
    vkhmm_pagemap {
        id: of.id().0,
        address: of.device_addresses().start,
        bytes: of.device_addresses().len(),
        kind: of.kind().code(),
        flags: of.flags().bits(),
        references: of.references(),
        live: of.is_live().into(),
    }
}

/// The registered pagemaps, live and dying. Writes at most `capacity` and sets `*needed` to how many there are.
///
/// # Errors
/// INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_pagemaps(
    runtime: vkhmm_runtime,
    pagemaps: *mut vkhmm_pagemap,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutList::new(pagemaps, capacity, needed, "pagemaps")? };
        let found = handles::get::<Runtime>(runtime.id)?.0.0.pagemaps();
        out.set(&found.iter().map(given).collect::<Vec<_>>())
    })
}

/// The pagemap that owns a device address; NONE if none does.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_find_pagemap(
    runtime: vkhmm_runtime,
    device_address: u64,
    pagemap: *mut vkhmm_pagemap,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(pagemap, "pagemap")? };
        let found = handles::get::<Runtime>(runtime.id)?.0.0.find_pagemap(device_address);
        let Some(found) = found else { return Ok(VKHMM_NONE) };
        out.set(given(&found));
        Ok(VKHMM_OK)
    })
}

/// No frame of this pagemap is handed out any more; when none is left, launches fail with PAGEMAP.
///
/// # Errors
/// PAGEMAP if it is unknown; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_kill_pagemap(runtime: vkhmm_runtime, pagemap: u64) -> vkhmm_result {
    call(|| {
        handles::get::<Runtime>(runtime.id)?.0.0.kill_pagemap(PagemapId(pagemap))?;
        Ok(VKHMM_OK)
    })
}

/// Takes a killed pagemap down: its pages come home; waits up to `timeout_ns` nanoseconds for the last use of its frames.
///
/// # Errors
/// PAGEMAP if it is live, unknown or still referenced; DEVICE_LOST; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_unregister_pagemap(
    runtime: vkhmm_runtime,
    pagemap: u64,
    timeout_ns: u64,
) -> vkhmm_result {
    call(|| {
        let (rt, _) = handles::get::<Runtime>(runtime.id)?;
        rt.0.unregister_pagemap(PagemapId(pagemap), Duration::from_nanos(timeout_ns))?;
        Ok(VKHMM_OK)
    })
}

/// The descriptor of the page that holds a managed address, and where its bytes are; NONE for any other address. Either may be NULL.
/// Faults nothing in.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// `address` is any address at all. Other pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_page_flags(
    runtime: vkhmm_runtime,
    address: *const c_void,
    flags: *mut vkhmm_page_flags,
    place: *mut vkhmm_location,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (flags, place) = unsafe { (Out::optional(flags, "flags")?, Out::optional(place, "place")?) };
        let found = handles::get::<Runtime>(runtime.id)?.0.0.page_flags(address);
        let Some(found) = found else { return Ok(VKHMM_NONE) };
        if let Some(flags) = flags {
            flags.set(found.bits().into());
        }
        if let Some(place) = place {
            place.set(location(found.location()));
        }
        Ok(VKHMM_OK)
    })
}

/// Whether the CPU can load and store the page at `address` where it is, 1 or 0: 1 for every address that is not managed, and for managed
/// pages whose bytes are on the host.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// `address` is any address at all. Other pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_is_addressable(
    runtime: vkhmm_runtime,
    address: *const c_void,
    addressable: *mut u32,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(addressable, "addressable")? };
        out.set(handles::get::<Runtime>(runtime.id)?.0.0.is_addressable(address).into());
        Ok(VKHMM_OK)
    })
}
