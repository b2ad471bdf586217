//! Stacks for resolvers: a handler may find itself on an alternate stack of 8 KiB of which the kernel's frame has taken half, and
//! must leave the rest to the handlers after it. Made once per process, never freed; taken and given back by one bit each.

use super::arch;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use rustix::io;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// How many resolvers can run at once; a touch that finds no stack is posted instead.
const STACKS: usize = 64;
const STACK_BYTES: usize = 64 << 10;
/// Without access, below each stack.
const GUARD_BYTES: usize = 4096;

static BASE: AtomicPtr<u8> = AtomicPtr::new(null_mut());
/// One bit per free stack. In a forked child the stacks of threads that did not come along stay taken.
static FREE: AtomicU64 = AtomicU64::new(0);

/// Makes the stacks, once. Callers exclude each other.
pub(super) fn make() -> io::Result<()> {
    if !BASE.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let (each, all) = (GUARD_BYTES + STACK_BYTES, (GUARD_BYTES + STACK_BYTES) * STACKS);
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping where the kernel likes touches no existing memory.
    let base = unsafe { mmap_anonymous(null_mut(), all, ProtFlags::READ | ProtFlags::WRITE, flags)? };
    for n in 0..STACKS {
        // SAFETY: the guard is inside the mapping just made, which nobody uses yet; on failure nobody knows it.
        unsafe {
            if let Err(e) = mprotect(base.byte_add(n * each), GUARD_BYTES, MprotectFlags::empty()) {
                let _ = munmap(base, all);
                return Err(e);
            }
        }
    }
    BASE.store(base.cast(), Ordering::Release);
    FREE.store(u64::MAX, Ordering::Release);
    Ok(())
}

/// Calls `body(argument)` on a stack of ours; false, and nothing is called, if none is free.
pub(super) fn call(body: extern "C" fn(*mut c_void), argument: *mut c_void) -> bool {
    let mut free = FREE.load(Ordering::Relaxed);
    let bit = loop {
        let bit = free & free.wrapping_neg();
        if bit == 0 {
            return false;
        }
        match FREE.compare_exchange_weak(free, free & !bit, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => break bit,
            Err(now) => free = now,
        }
    };
    let end = (bit.trailing_zeros() as usize + 1) * (GUARD_BYTES + STACK_BYTES);
    // SAFETY: stack `n` ends there, on a page boundary; the bit makes it ours until it is set again. Bodies of this crate return,
    // and a panic in an `extern "C"` function aborts.
    unsafe { arch::call_on(BASE.load(Ordering::Relaxed).add(end), body, argument) };
    FREE.fetch_or(bit, Ordering::Release);
    true
}
