//! An allocator in C's shape for programs that take one, such as NumPy (NEP 49): what is large is managed, the rest is not.
//!
//! A pointer says itself whose it is, so that freeing asks no table, also in a forked child: managed memory starts on 2 MiB, and
//! ordinary memory 16 bytes past a multiple of 32, behind a header.

use crate::buffer::Buffer;
use crate::error::quietly;
use crate::handles;
use crate::runtime::Runtime;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr::null_mut;

/// Allocations of the allocator's from this many bytes on are managed.
pub const VKHMM_MEMORY_MANAGED_MIN: usize = 1 << 20;

/// In front of ordinary memory.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    /// Bytes that the program asked for.
    bytes: usize,
    /// Bytes from the start of the system's block to the program's.
    skip: usize,
}

const HEADER: usize = size_of::<Header>();
/// The system's blocks are multiples of this.
const ALIGN: usize = 16;
/// Most bytes in front of the program's.
const SKIP_MAX: usize = 2 * ALIGN;

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(SKIP_MAX)?, ALIGN).ok()
}

/// Whether it is ordinary memory of the allocator's.
fn is_ordinary(pointer: *mut u8) -> bool {
    pointer.addr() % SKIP_MAX == HEADER
}

fn ordinary(bytes: usize, zero: bool) -> Option<*mut u8> {
    let layout = layout(bytes)?;
    // SAFETY: the layout has at least `SKIP_MAX` bytes.
    let block = unsafe { if zero { System.alloc_zeroed(layout) } else { System.alloc(layout) } };
    if block.is_null() {
        return None;
    }
    let skip = if block.addr() % SKIP_MAX == 0 { ALIGN } else { SKIP_MAX };
    // SAFETY: `skip` is at most `SKIP_MAX`, by which the block is longer; the header fits in front and is aligned, as the block is.
    unsafe {
        let pointer = block.add(skip);
        pointer.sub(HEADER).cast::<Header>().write(Header { bytes, skip });
        Some(pointer)
    }
}

/// # Safety
/// `pointer` came from [`ordinary`], and is freed once.
unsafe fn free_ordinary(pointer: *mut u8) {
    // SAFETY: `ordinary` wrote the header, and made the block with the same layout.
    unsafe {
        let header = pointer.sub(HEADER).cast::<Header>().read();
        System.dealloc(pointer.sub(header.skip), layout(header.bytes).expect("it was made"));
    }
}

/// Managed memory if it is to be that and this is not a forked child, else ordinary memory.
fn allocate(context: *mut c_void, bytes: usize, zero: bool) -> Option<*mut u8> {
    if bytes < VKHMM_MEMORY_MANAGED_MIN {
        return ordinary(bytes, zero);
    }
    let made = handles::get::<Runtime>(context.addr() as u64).and_then(|(rt, owner)| {
        let memory = rt.0.alloc_named::<u8>(bytes, "vkhmm_memory")?;
        let pointer = memory.as_ptr().cast_mut();
        handles::insert(owner, Buffer(memory)).map(|_| pointer)
    });
    match made {
        Ok(pointer) => Some(pointer),
        // What the child makes is nobody's else.
        Err(failure) if failure.is_forked() => ordinary(bytes, zero),
        Err(_) => None,
    }
}

/// Bytes of an allocation; `None` if it is the parent's of a forked child, or none of the allocator's.
///
/// # Safety
/// `pointer` came from the allocator, and was not freed.
unsafe fn size(pointer: *mut u8) -> Option<usize> {
    if is_ordinary(pointer) {
        // SAFETY: `ordinary` wrote the header.
        return Some(unsafe { pointer.sub(HEADER).cast::<Header>().read() }.bytes);
    }
    let (id, _) = handles::at(pointer.addr()).ok()??;
    Some(handles::get::<Buffer>(id).ok()?.0.0.count())
}

/// # Safety
/// `pointer` came from the allocator, and is freed once.
unsafe fn free(pointer: *mut u8) {
    if is_ordinary(pointer) {
        // SAFETY: the contract is the caller's.
        unsafe { free_ordinary(pointer) };
    } else if let Ok(Some((id, _))) = handles::at(pointer.addr()) {
        drop(handles::remove::<Buffer>(id));
    }
}

fn given(pointer: Option<Option<*mut u8>>) -> *mut c_void {
    pointer.flatten().map_or(null_mut(), <*mut u8>::cast)
}

/// Memory of `bytes` bytes, managed from VKHMM_MEMORY_MANAGED_MIN on, else of the C library's; NULL if there is none. `context` is a
/// runtime's id as a pointer. The four functions have the shape of NumPy's PyDataMemAllocator; they leave vkhmm_last_error as it is. What they
/// give is for them alone to free. Not for VKHMM_FAULT_ENGINE_DECLARED: nobody says when such memory is touched. In a forked child what is
/// new is of the C library's, and freeing what the parent managed does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_memory_malloc(context: *mut c_void, bytes: usize) -> *mut c_void {
    given(quietly(|| allocate(context, bytes, false)))
}

/// As vkhmm_memory_malloc, `count` elements of `bytes` bytes each, all zero; large ones take no memory until they are touched.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_memory_calloc(context: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    given(quietly(|| allocate(context, count.checked_mul(bytes)?, true)))
}

/// Memory of another size with the same bytes at its start; `memory`, which may be NULL, is freed then. NULL if there is none: `memory`
/// is as it was.
///
/// # Safety
/// `memory` came from these functions and was not freed; nothing else uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_memory_realloc(
    context: *mut c_void,
    memory: *mut c_void,
    bytes: usize,
) -> *mut c_void {
    let old = memory.cast::<u8>();
    given(quietly(|| {
        if old.is_null() {
            return allocate(context, bytes, false);
        }
        // SAFETY: the contract is the caller's.
        let kept = unsafe { size(old) }?.min(bytes);
        let new = allocate(context, bytes, false)?;
        // SAFETY: both have that many bytes and are apart; no lock is held while a touch may have to wait.
        unsafe {
            std::ptr::copy_nonoverlapping(old, new, kept);
            free(old);
        }
        Some(new)
    }))
}

/// Frees memory of these functions; NULL is nothing. Never waits. The context and the number of bytes are not looked at.
///
/// # Safety
/// `memory` is NULL, or came from these functions and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_memory_free(context: *mut c_void, memory: *mut c_void, bytes: usize) {
    let _ = (context, bytes);
    if !memory.is_null() {
        quietly(|| {
            // SAFETY: the contract is the caller's.
            unsafe { free(memory.cast()) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> *mut c_void {
        null_mut()
    }

    #[test]
    fn small_memory_is_ordinary_and_says_so() {
        for bytes in [0, 1, 16, 31, 32, 4096, VKHMM_MEMORY_MANAGED_MIN - 1] {
            let pointer = vkhmm_memory_malloc(none(), bytes);
            assert!(is_ordinary(pointer.cast()), "{pointer:p}");
            // SAFETY: it came from the allocator.
            assert_eq!(unsafe { size(pointer.cast()) }, Some(bytes));
            // SAFETY: it came from the allocator, and is freed once.
            unsafe { vkhmm_memory_free(none(), pointer, bytes) };
        }
        // SAFETY: NULL is nothing that could be freed.
        unsafe { vkhmm_memory_free(none(), none(), 1) };
    }

    #[test]
    fn realloc_keeps_what_fits_and_calloc_is_zero() {
        let first = vkhmm_memory_calloc(none(), 10, 10).cast::<u8>();
        // SAFETY: 100 bytes are readable and writable, then 300, then 50; each pointer is used until it is freed.
        unsafe {
            assert!((0..100).all(|i| *first.add(i) == 0));
            first.add(99).write(7);
            let second = vkhmm_memory_realloc(none(), first.cast(), 300).cast::<u8>();
            assert_eq!(*second.add(99), 7);
            let third = vkhmm_memory_realloc(none(), second.cast(), 50);
            assert_eq!(size(third.cast()), Some(50));
            vkhmm_memory_free(none(), third, 50);
        }
    }

    #[test]
    fn what_cannot_be_is_null() {
        assert!(vkhmm_memory_calloc(none(), usize::MAX, 2).is_null());
        assert!(vkhmm_memory_malloc(none(), VKHMM_MEMORY_MANAGED_MIN).is_null(), "no runtime");
        // SAFETY: NULL is nothing that could be kept.
        let grown = unsafe { vkhmm_memory_realloc(none(), none(), usize::MAX) };
        assert!(grown.is_null());
    }
}
