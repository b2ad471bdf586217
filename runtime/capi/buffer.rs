//! Buffers: managed memory by handle. Where its bytes are, and moving them ahead of time.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{self, Out, OutList, OutText};
use crate::launch::{Launch, vkhmm_launch};
use crate::runtime::{Runtime, vkhmm_runtime};
use std::ffi::{c_char, c_void};
use std::ops::Range;
use std::sync::Arc;
use vkhmm::{Location, Managed, PlacementKind};

pub(crate) struct Buffer(pub(crate) Managed<u8>);

impl Kind for Buffer {
    const TAG: u64 = 2;

    fn addresses(&self) -> Range<usize> {
        let start = self.0.as_ptr().addr();
        start..start + self.0.count()
    }
}

/// Managed memory: bytes that host and device share. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_buffer {
    /// Opaque.
    pub id: u64,
}

/// As a number of bytes: up to the end of the buffer.
pub const VKHMM_WHOLE_SIZE: u64 = u64::MAX;

/// Where the current bytes of a page are.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vkhmm_location {
    /// Nowhere: zeros that nobody has written.
    VKHMM_LOCATION_ABSENT = 0,
    /// On the host.
    VKHMM_LOCATION_HOST = 1,
    /// On both sides, the same.
    VKHMM_LOCATION_SHARED = 2,
    /// On the device, and only there.
    VKHMM_LOCATION_DEVICE = 3,
    /// Gone, with the device that held the only copy.
    VKHMM_LOCATION_LOST = 4,
}

pub(crate) fn location(of: Location) -> vkhmm_location {
    match of {
        Location::Absent => vkhmm_location::VKHMM_LOCATION_ABSENT,
        Location::Host => vkhmm_location::VKHMM_LOCATION_HOST,
        Location::Shared => vkhmm_location::VKHMM_LOCATION_SHARED,
        Location::Device => vkhmm_location::VKHMM_LOCATION_DEVICE,
        Location::Lost => vkhmm_location::VKHMM_LOCATION_LOST,
    }
}

/// A run of pages in the same state.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_residency {
    /// First byte, from the start of the buffer.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Where the current bytes are.
    pub location: vkhmm_location,
    /// 1 if an operation uses them.
    pub held: u32,
    /// 1 if the device has the only copy.
    pub dirty: u32,
    /// 1 if a guard keeps them on the host.
    pub pinned: u32,
}

/// Bytes of a buffer as elements of its `Managed<u8>`, checked.
pub(crate) fn part(of: &Buffer, offset: u64, bytes: u64) -> Result<Range<usize>, Failure> {
    let len = of.0.count() as u64;
    let end = if bytes == VKHMM_WHOLE_SIZE { Some(len) } else { offset.checked_add(bytes) };
    match end {
        Some(end) if offset <= end && end <= len => Ok(offset as usize..end as usize),
        _ => Err(Failure::new(
            VKHMM_ERROR_OUT_OF_RANGE,
            format!("{bytes} bytes from byte {offset} on are not inside `{}` of {len} bytes", of.0.label()),
        )),
    }
}

/// The buffer and its runtime.
pub(crate) fn find(buffer: vkhmm_buffer) -> Result<(Arc<Buffer>, u64), Failure> {
    handles::get::<Buffer>(buffer.id)
}

/// Allocates `bytes` bytes, all zero, 2 MiB aligned. No host or device memory is taken until they are touched; each allocation takes
/// whole 2 MiB blocks of address space. `label` is for reports and errors, NULL for none. Ends with vkhmm_free, or with its runtime.
///
/// # Errors
/// OUT_OF_ADDRESS_SPACE; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_alloc(
    runtime: vkhmm_runtime,
    bytes: u64,
    label: *const c_char,
    buffer: *mut vkhmm_buffer,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { allocate(runtime, bytes, label, buffer, vkhmm::Runtime::alloc_named::<u8>) }
}

/// # Safety
/// As [`Out::new`] and [`input::text`].
unsafe fn allocate(
    runtime: vkhmm_runtime,
    bytes: u64,
    label: *const c_char,
    buffer: *mut vkhmm_buffer,
    make: fn(&vkhmm::Runtime, usize, &str) -> vkhmm::Result<Managed<u8>>,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the contract is the caller's.
        let (out, label) = unsafe { (Out::new(buffer, "buffer")?, input::text(label, "label")?) };
        let (rt, owner) = handles::get::<Runtime>(runtime.id)?;
        let memory = make(&rt.0, bytes as usize, label.as_deref().unwrap_or("(no label)"))?;
        out.set(vkhmm_buffer { id: handles::insert(owner, Buffer(memory))? });
        Ok(VKHMM_OK)
    })
}

/// As vkhmm_alloc, for memory whose device address never changes while it lives: whatever is evicted and comes back, a kernel finds it
/// where it was, and descriptors can be written once.
///
/// # Errors
/// NOT_STABLE, with what stands against it; otherwise as vkhmm_alloc.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_alloc_stable(
    runtime: vkhmm_runtime,
    bytes: u64,
    label: *const c_char,
    buffer: *mut vkhmm_buffer,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { allocate(runtime, bytes, label, buffer, vkhmm::Runtime::alloc_stable_named::<u8>) }
}

/// Frees a buffer: its handle is stale and its pointer must not be used from now on. Never waits: what launches, the device or an open
/// guard still use is reclaimed after its last use, and the address is not given out before. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was freed before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_free(buffer: vkhmm_buffer) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Buffer>(buffer.id)?);
        Ok(VKHMM_OK)
    })
}

/// The address of the first byte; NULL for an empty buffer. It never changes. Plain loads and stores from any thread: while a kernel owns a
/// page the first touch waits for the kernel and brings that part home. Bytes that were lost with the device are SIGBUS, touching it in a
/// forked child is SIGSEGV. Never hand it to a Vulkan entry point. With VKHMM_FAULT_ENGINE_DECLARED it may be used between
/// vkhmm_host_begin and vkhmm_host_end only.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_pointer(
    buffer: vkhmm_buffer,
    pointer: *mut *mut c_void,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(pointer, "pointer")? };
        let memory = &find(buffer)?.0.0;
        out.set(if memory.count() == 0 { std::ptr::null_mut() } else { memory.as_ptr().cast_mut().cast() });
        Ok(VKHMM_OK)
    })
}

/// Whose memory an address is: the buffer, its runtime, and how many bytes behind the buffer's start; each may be NULL. NONE for an
/// address that is no live buffer's. Touches nothing.
///
/// # Errors
/// FORKED.
///
/// # Safety
/// `address` is any address at all. Other pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_find(
    address: *const c_void,
    runtime: *mut vkhmm_runtime,
    buffer: *mut vkhmm_buffer,
    offset: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (runtime, buffer, offset) = unsafe {
            (
                Out::optional(runtime, "runtime")?,
                Out::optional(buffer, "buffer")?,
                Out::optional(offset, "offset")?,
            )
        };
        let Some((id, start)) = handles::at(address.addr())? else { return Ok(VKHMM_NONE) };
        if let Some(runtime) = runtime {
            runtime.set(vkhmm_runtime { id: handles::get::<Buffer>(id)?.1 });
        }
        if let Some(buffer) = buffer {
            buffer.set(vkhmm_buffer { id });
        }
        if let Some(offset) = offset {
            offset.set((address.addr() - start) as u64);
        }
        Ok(VKHMM_OK)
    })
}

/// The number of bytes, as allocated.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_size(buffer: vkhmm_buffer, bytes: *mut u64) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(bytes, "bytes")? };
        out.set(find(buffer)?.0.0.count() as u64);
        Ok(VKHMM_OK)
    })
}

/// The label, as given.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_label(
    buffer: vkhmm_buffer,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutText::new(text, capacity, needed)? };
        out.set(find(buffer)?.0.0.label())
    })
}

/// How kernels reach a buffer.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vkhmm_placement_kind {
    /// In spans of neighbouring frames: its device address changes when data comes and goes.
    VKHMM_PLACEMENT_SPAN = 1,
    /// In a sparse buffer for life: its device address never changes.
    VKHMM_PLACEMENT_SPARSE = 2,
    /// In place, on the host's own bytes: nothing moves, its device address never changes.
    VKHMM_PLACEMENT_IN_PLACE = 3,
}

/// How kernels reach the buffer (`kind` may be NULL), and why so, as a text.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_placement(
    buffer: vkhmm_buffer,
    kind: *mut vkhmm_placement_kind,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (kind, out) = unsafe { (Out::optional(kind, "kind")?, OutText::new(text, capacity, needed)?) };
        let placement = find(buffer)?.0.0.placement();
        if let Some(kind) = kind {
            kind.set(match placement.kind {
                PlacementKind::Span => vkhmm_placement_kind::VKHMM_PLACEMENT_SPAN,
                PlacementKind::Sparse => vkhmm_placement_kind::VKHMM_PLACEMENT_SPARSE,
                PlacementKind::InPlace => vkhmm_placement_kind::VKHMM_PLACEMENT_IN_PLACE,
            });
        }
        out.set(&placement.why)
    })
}

/// Whether any of these bytes were lost with the device: VKHMM_OK if not.
///
/// # Errors
/// LOST, OUT_OF_RANGE; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_buffer_check(buffer: vkhmm_buffer, offset: u64, bytes: u64) -> vkhmm_result {
    call(|| {
        let (of, _) = find(buffer)?;
        of.0.slice(part(&of, offset, bytes)?).check()?;
        Ok(VKHMM_OK)
    })
}

/// Starts to copy bytes to the device, where they stay readable by the host. A hint: it does what it can without waiting for, or
/// taking from, anybody. `launch`, to wait for it, may be NULL.
///
/// # Errors
/// LOST, DEVICE_LOST, OUT_OF_RANGE; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_prefetch_to_device(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::optional(launch, "launch")? };
        let (of, owner) = find(buffer)?;
        Launch::give(of.0.slice(part(&of, offset, bytes)?).prefetch_to_device()?.into(), owner, out)
    })
}

/// Starts to bring bytes home, after unfinished launches that write them; the device's copies stay valid. `launch`, to wait for it, may be NULL.
///
/// # Errors
/// LOST, OUT_OF_RANGE; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_prefetch_to_host(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    launch: *mut vkhmm_launch,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::optional(launch, "launch")? };
        let (of, owner) = find(buffer)?;
        Launch::give(of.0.slice(part(&of, offset, bytes)?).prefetch_to_host()?.into(), owner, out)
    })
}

/// Where bytes are: runs of pages in the same state, in order. Writes at most `capacity` of them and sets `*needed` to how many there
/// are. Faults nothing in.
///
/// # Errors
/// OUT_OF_RANGE; INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_buffer_residency(
    buffer: vkhmm_buffer,
    offset: u64,
    bytes: u64,
    runs: *mut vkhmm_residency,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutList::new(runs, capacity, needed, "runs")? };
        let (of, _) = find(buffer)?;
        let found = of.0.slice(part(&of, offset, bytes)?).residency()?;
        let given = found.iter().map(|r| vkhmm_residency {
            offset: r.bytes.start,
            bytes: r.bytes.len(),
            location: location(r.location),
            held: r.held.into(),
            dirty: r.dirty.into(),
            pinned: r.pinned.into(),
        });
        out.set(&given.collect::<Vec<_>>())
    })
}
