//! What differs between processors: calling a function on another stack, and what a signal's context says about the access.
//!
//! On processors other than x86-64 and aarch64 the function runs on the stack it is called on (more of the application's alternate
//! stack is used), and no touch is known to be a store.

use core::ffi::c_void;

/// Calls `body(argument)` with the stack that ends at `top`.
///
/// # Safety
/// `top` is aligned to 16 bytes and the end of memory that is writable, large enough for `body`, and used by nobody else until this
/// returns. `body` returns, and does not unwind.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn call_on(top: *mut u8, body: extern "C" fn(*mut c_void), argument: *mut c_void) {
    // SAFETY: the register that keeps the old stack pointer is one that `body` preserves; the stack pointer is back when this ends;
    // `call` pushes to memory that the caller vouches for, and never below the old stack pointer.
    unsafe {
        core::arch::asm!(
            "xchg rsp, r12",
            "call {body}",
            "mov rsp, r12",
            body = in(reg) body,
            inout("r12") top => _,
            in("rdi") argument,
            clobber_abi("C"),
        );
    }
}

/// As for x86-64.
///
/// # Safety
/// As for x86-64.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn call_on(top: *mut u8, body: extern "C" fn(*mut c_void), argument: *mut c_void) {
    // SAFETY: as for x86-64; x21 is preserved by `body`.
    unsafe {
        core::arch::asm!(
            "mov x21, sp",
            "mov sp, {top}",
            "blr {body}",
            "mov sp, x21",
            top = in(reg) top,
            body = in(reg) body,
            out("x21") _,
            in("x0") argument,
            clobber_abi("C"),
        );
    }
}

/// Calls `body(argument)`.
///
/// # Safety
/// As for x86-64.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn call_on(_: *mut u8, body: extern "C" fn(*mut c_void), argument: *mut c_void) {
    body(argument);
}

/// Whether the access that raised a signal was a store, as far as its context says.
///
/// # Safety
/// `context` is what the kernel handed to a handler of a fault, during that handler.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn is_store(context: *mut c_void) -> bool {
    /// Index of the page fault's error code among the saved registers, and its bit for stores.
    const ERROR_CODE: usize = 19;
    const STORE: i64 = 2;
    // SAFETY: the kernel's context is a ucontext_t.
    unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[ERROR_CODE] & STORE != 0 }
}

/// As for x86-64: the syndrome register, where the kernel saved it.
///
/// # Safety
/// As for x86-64.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn is_store(context: *mut c_void) -> bool {
    /// Where the records of an aarch64 sigcontext begin, and how many bytes they may fill.
    const RECORDS: usize = 288;
    const RECORDS_BYTES: usize = 4096;
    const ESR_MAGIC: u32 = 0x4553_5201;
    /// "Write not read", and "cache maintenance", which counts as a load.
    const WRITE: u64 = 1 << 6;
    const MAINTENANCE: u64 = 1 << 8;
    // SAFETY: the kernel's context is a ucontext_t; its records lie at that place, each with a magic number and its size, and
    // end with a zero.
    unsafe {
        let machine = (&raw const (*context.cast::<libc::ucontext_t>()).uc_mcontext).cast::<u8>();
        let mut at = 0;
        while at + 16 <= RECORDS_BYTES {
            let record = machine.add(RECORDS + at);
            let (magic, size) = (record.cast::<u32>().read(), record.add(4).cast::<u32>().read());
            if magic == ESR_MAGIC {
                let syndrome = record.add(8).cast::<u64>().read();
                return syndrome & WRITE != 0 && syndrome & MAINTENANCE == 0;
            }
            if magic == 0 || size < 8 {
                return false;
            }
            at += size as usize;
        }
        false
    }
}

/// Nothing is known.
///
/// # Safety
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn is_store(_: *mut c_void) -> bool {
    false
}
