//! The userfaultfd ioctls, typed: those that no crate has, those that go before a crate can take over, and (without the crate)
//! all the others. Numbers and layouts are those of linux/userfaultfd.h.

use crate::reservation::Span;
use core::ffi::c_void;
use linux_raw_sys::general::{UFFD_API, uffdio_api, uffdio_continue, uffdio_poison, uffdio_range};
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use vkhmm_port::host::Errno;

const GROUP: u8 = 0xAA;
/// Bits of the numbers of the range ioctls in what registering returns.
pub(crate) const CAN_WRITEPROTECT: u64 = 1 << 6;
pub(crate) const CAN_CONTINUE: u64 = 1 << 7;
pub(crate) const CAN_POISON: u64 = 1 << 8;
/// `mode` bits of CONTINUE and POISON.
pub(crate) const DONTWAKE: u64 = 1;
pub(crate) const CONTINUE_WP: u64 = 2;

/// What the kernel said, as the port has it.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}

pub(crate) fn range(span: Span) -> uffdio_range {
    uffdio_range { start: span.start as u64, len: span.len as u64 }
}

/// Asks for `features` and returns those that the kernel knows. Once per descriptor; asking for none tells without enabling.
pub(crate) fn negotiate(fd: BorrowedFd<'_>, features: u64) -> Result<u64, Errno> {
    let mut arg = uffdio_api { api: UFFD_API.into(), features, ioctls: 0 };
    // SAFETY: UFFDIO_API reads and writes one uffdio_api.
    let call = unsafe { Updater::<{ opcode::read_write::<uffdio_api>(GROUP, 0x3F) }, _>::new(&mut arg) };
    // SAFETY: the descriptor is a userfaultfd; negotiating changes no memory.
    unsafe { ioctl(fd, call) }.map_err(errno)?;
    Ok(arg.features)
}

/// Maps cached pages of `span` that are absent, read-only if `mode` has [`CONTINUE_WP`]. Returns how many bytes were mapped
/// before it ended or met a mapped page; an error means that the very first page was not mapped.
pub(crate) fn resume(fd: BorrowedFd<'_>, span: Span, mode: u64) -> Result<usize, Errno> {
    let mut arg = uffdio_continue { range: range(span), mode, mapped: 0 };
    // SAFETY: UFFDIO_CONTINUE reads and writes one uffdio_continue.
    let call = unsafe { Updater::<{ opcode::read_write::<uffdio_continue>(GROUP, 7) }, _>::new(&mut arg) };
    // SAFETY: the span is inside R (`Span`), registered with this descriptor; mapping R's own cached pages is the order law's
    // "publish", which the caller does after the last byte is in A.
    let done = unsafe { ioctl(fd, call) };
    partial(done, arg.mapped)
}

/// Makes every touch of the absent pages of `span` a SIGBUS, without waking anyone. Returns as [`resume`] does.
pub(crate) fn poison(fd: BorrowedFd<'_>, span: Span) -> Result<usize, Errno> {
    let mut arg = uffdio_poison { range: range(span), mode: DONTWAKE, updated: 0 };
    // SAFETY: UFFDIO_POISON reads and writes one uffdio_poison.
    let call = unsafe { Updater::<{ opcode::read_write::<uffdio_poison>(GROUP, 8) }, _>::new(&mut arg) };
    // SAFETY: the span is inside R (`Span`), registered with this descriptor; no Rust reference to a poisoned page is used.
    let done = unsafe { ioctl(fd, call) };
    partial(done, arg.updated)
}

fn partial(done: rustix::io::Result<()>, bytes: i64) -> Result<usize, Errno> {
    match (done, usize::try_from(bytes)) {
        (Ok(()), Ok(bytes)) => Ok(bytes),
        (Err(rustix::io::Errno::AGAIN), Ok(bytes)) if bytes > 0 => Ok(bytes),
        (Ok(()), Err(_)) => Err(Errno(-bytes as i32)),
        (Err(e), _) => Err(errno(e)),
    }
}

/// USERFAULTFD_IOC_NEW: a userfaultfd from the device node; takes the flags of the system call, returns the descriptor.
struct NewFromNode {
    flags: u32,
}

// SAFETY: the number is `_IO(0xAA, 0)` of linux/userfaultfd.h, whose argument is an integer and whose result is a new
// descriptor; it writes no memory of ours.
unsafe impl Ioctl for NewFromNode {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::none(GROUP, 0)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::without_provenance_mut(self.flags as usize)
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the call succeeded, so `out` is a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

/// A userfaultfd made through /dev/userfaultfd, already open as `node`.
pub(crate) fn new_from_node(node: impl AsFd, flags: u32) -> rustix::io::Result<OwnedFd> {
    // SAFETY: `node` is the userfaultfd device (its only caller opened it by name); making a descriptor touches no memory.
    unsafe { ioctl(node, NewFromNode { flags }) }
}
