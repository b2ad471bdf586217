//! The userfaultfd calls by rustix alone, for builds without the `userfaultfd` crate (and without libclang).

use crate::ioctl::{DONTWAKE, errno, range, resume};
use crate::reservation::Span;
use crate::uffd::{Calls, MESSAGES_MAX};
use linux_raw_sys::general::{
    UFFD_EVENT_PAGEFAULT, UFFD_PAGEFAULT_FLAG_WP, UFFD_PAGEFAULT_FLAG_WRITE, UFFDIO_REGISTER_MODE_MINOR,
    UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, uffd_msg, uffdio_range, uffdio_register,
    uffdio_writeprotect,
};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io;
use rustix::ioctl::{Setter, Updater, ioctl, opcode};
use vkhmm_port::host::Errno;

const GROUP: u8 = 0xAA;
/// Holes, cached pages, write-protection.
const MODE_ALL: u32 = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
const WRITEPROTECT_ON: u64 = 1;
const WRITEPROTECT_DONTWAKE: u64 = 2;
const MESSAGE_BYTES: usize = size_of::<uffd_msg>();

/// A negotiated userfaultfd. Closes it when dropped.
pub(crate) struct Source {
    fd: OwnedFd,
}

impl Source {
    fn write_protect(&self, span: Span, mode: u64) -> Result<(), Errno> {
        let mut arg = uffdio_writeprotect { range: range(span), mode };
        // SAFETY: UFFDIO_WRITEPROTECT reads and writes one uffdio_writeprotect.
        let call =
            unsafe { Updater::<{ opcode::read_write::<uffdio_writeprotect>(GROUP, 6) }, _>::new(&mut arg) };
        // SAFETY: the span is inside R (`Span`), registered with this descriptor; protection changes no bytes.
        unsafe { ioctl(&self.fd, call) }.map_err(errno)
    }
}

impl Calls for Source {
    fn adopt(fd: OwnedFd) -> Self {
        Self { fd }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn register(&self, span: Span) -> Result<u64, Errno> {
        let mut arg = uffdio_register { range: range(span), mode: MODE_ALL.into(), ioctls: 0 };
        // SAFETY: UFFDIO_REGISTER reads and writes one uffdio_register.
        let call =
            unsafe { Updater::<{ opcode::read_write::<uffdio_register>(GROUP, 0) }, _>::new(&mut arg) };
        // SAFETY: the span is inside R (`Span`), which nobody touches before the runtime hands out its address.
        unsafe { ioctl(&self.fd, call) }.map_err(errno)?;
        Ok(arg.ioctls)
    }

    fn read(&self, each: &mut dyn FnMut(usize, bool)) -> Result<usize, Errno> {
        let mut buffer = [0_u8; MESSAGE_BYTES * MESSAGES_MAX];
        let bytes = match io::read(&self.fd, &mut buffer) {
            Ok(bytes) => bytes,
            Err(io::Errno::AGAIN | io::Errno::INTR) => 0,
            Err(e) => return Err(errno(e)),
        };
        let mut faults = 0;
        for message in buffer[..bytes].chunks_exact(MESSAGE_BYTES) {
            // struct uffd_msg: the kind is byte 0; of a page fault the flags are bytes 8.., the address bytes 16...
            let word = |at: usize| {
                let mut bytes = [0_u8; 8];
                bytes.copy_from_slice(&message[at..at + 8]);
                u64::from_ne_bytes(bytes)
            };
            if u32::from(message[0]) == UFFD_EVENT_PAGEFAULT {
                let write = word(8) & u64::from(UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP) != 0;
                each(word(16) as usize, write);
                faults += 1;
            }
        }
        Ok(faults)
    }

    fn resume_writable(&self, span: Span) -> Result<usize, Errno> {
        resume(self.fd(), span, DONTWAKE)
    }

    fn protect(&self, span: Span) -> Result<(), Errno> {
        self.write_protect(span, WRITEPROTECT_ON)
    }

    fn unprotect(&self, span: Span) -> Result<(), Errno> {
        self.write_protect(span, WRITEPROTECT_DONTWAKE)
    }

    fn wake(&self, span: Span) -> Result<(), Errno> {
        // SAFETY: UFFDIO_WAKE reads one uffdio_range.
        let call = unsafe { Setter::<{ opcode::read::<uffdio_range>(GROUP, 2) }, _>::new(range(span)) };
        // SAFETY: waking threads that wait inside R changes no memory.
        unsafe { ioctl(&self.fd, call) }.map_err(errno)
    }
}
