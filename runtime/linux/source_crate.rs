//! The userfaultfd calls by the `userfaultfd` crate, over a descriptor that rustix made and negotiated: the crate hides which
//! features were granted and does not fall back when the device node is closed to us.
//!
//! Its `into_raw_fd` is never called: it returns a descriptor that is already closed.

use crate::reservation::Span;
use crate::uffd::{Calls, MESSAGES_MAX};
use core::cell::RefCell;
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use userfaultfd::{Error, Event, EventBuffer, FaultKind, ReadWrite, RegisterMode, Uffd};
use vkhmm_port::host::Errno;

thread_local! {
    /// One buffer per reading thread, made at its first read: reading allocates nothing later.
    static BUFFER: RefCell<EventBuffer> = RefCell::new(EventBuffer::new(MESSAGES_MAX));
}

/// A negotiated userfaultfd. Closes it when dropped.
pub(crate) struct Source {
    uffd: Uffd,
}

fn errno(error: Error) -> Errno {
    match error {
        Error::SystemError(e) | Error::CopyFailed(e) | Error::ZeropageFailed(e) => Errno(e as i32),
        // End of file or half a message: the descriptor is not what it was.
        _ => Errno(libc::EBADMSG),
    }
}

impl Calls for Source {
    fn adopt(fd: OwnedFd) -> Self {
        // SAFETY: the descriptor is an open userfaultfd, and the crate owns it from here on.
        Self { uffd: unsafe { Uffd::from_raw_fd(fd.into_raw_fd()) } }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    fn register(&self, span: Span) -> Result<u64, Errno> {
        let mode = RegisterMode::MISSING | RegisterMode::MINOR | RegisterMode::WRITE_PROTECT;
        self.uffd.register_with_mode(span.as_ptr(), span.len, mode).map(|ioctls| ioctls.bits()).map_err(errno)
    }

    fn read(&self, each: &mut dyn FnMut(usize, bool)) -> Result<usize, Errno> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut faults = 0;
            let events = match self.uffd.read_events(buffer) {
                Ok(events) => events,
                Err(Error::SystemError(e)) if e as i32 == libc::EINTR => return Ok(0),
                Err(e) => return Err(errno(e)),
            };
            for event in events {
                if let Event::Pagefault { kind, rw, addr, .. } = event.map_err(errno)? {
                    each(addr.addr(), rw == ReadWrite::Write || kind == FaultKind::WriteProtected);
                    faults += 1;
                }
            }
            Ok(faults)
        })
    }

    fn resume_writable(&self, span: Span) -> Result<usize, Errno> {
        self.uffd.r#continue(span.as_ptr(), span.len, false).map(|bytes| bytes as usize).map_err(errno)
    }

    fn protect(&self, span: Span) -> Result<(), Errno> {
        self.uffd.write_protect(span.as_ptr(), span.len).map_err(errno)
    }

    fn unprotect(&self, span: Span) -> Result<(), Errno> {
        self.uffd.remove_write_protection(span.as_ptr(), span.len, false).map_err(errno)
    }

    fn wake(&self, span: Span) -> Result<(), Errno> {
        self.uffd.wake(span.as_ptr(), span.len).map_err(errno)
    }
}
