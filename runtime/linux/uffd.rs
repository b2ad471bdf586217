//! The userfaultfd engine: R's page table is a permission gate that only these calls change. Whatever R lacks raises a message.

use crate::host::{Failed, Outcome, Verbs};
use crate::ioctl::{
    CAN_CONTINUE, CAN_POISON, CAN_WRITEPROTECT, CONTINUE_WP, DONTWAKE, errno, poison, resume,
};
use crate::reservation::{Reservation, Span};
#[cfg(feature = "userfaultfd")]
pub(crate) use crate::source_crate::Source;
#[cfg(not(feature = "userfaultfd"))]
pub(crate) use crate::source_rustix::Source;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io;
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_port::Access;
use vkhmm_port::host::Errno;

/// At most so many messages are taken from the kernel at once: more would serve one thread's faults while others idle.
pub(crate) const MESSAGES_MAX: usize = 16;
const PAGE: usize = Geometry::PRODUCTION.page_bytes as usize;
const EEXIST: Errno = Errno(libc::EEXIST);
const EAGAIN: Errno = Errno(libc::EAGAIN);

/// The calls that the `userfaultfd` crate has, so that builds with and without it differ in one file. None of them wakes
/// anybody but `wake`.
pub(crate) trait Calls: Send + Sync + Sized {
    /// Takes over a negotiated, non-blocking userfaultfd.
    fn adopt(fd: OwnedFd) -> Self;
    /// The descriptor, for what the crate lacks.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Registers `span` for holes, cached pages and write-protection; returns the bits of the range ioctls it allows.
    fn register(&self, span: Span) -> Result<u64, Errno>;
    /// Hands at most [`MESSAGES_MAX`] waiting faults (address, whether a store) to `each` and returns how many; never waits.
    fn read(&self, each: &mut dyn FnMut(usize, bool)) -> Result<usize, Errno>;
    /// Maps cached, absent pages writable; result as of [`resume`].
    fn resume_writable(&self, span: Span) -> Result<usize, Errno>;
    /// Makes mapped pages read-only.
    fn protect(&self, span: Span) -> Result<(), Errno>;
    /// Makes mapped pages writable and clears the marks that protection left on absent ones.
    fn unprotect(&self, span: Span) -> Result<(), Errno>;
    /// Wakes who waits on a page of `span`.
    fn wake(&self, span: Span) -> Result<(), Errno>;
}

/// A userfaultfd with R registered.
pub(crate) struct Uffd {
    source: Source,
    /// Faults are messages, and their threads wait for a wake; otherwise they are signals.
    messages: bool,
    /// UFFDIO_POISON exists.
    poison: bool,
    /// UFFDIO_CONTINUE can map read-only.
    continue_wp: bool,
    /// Which pages are mapped, where /proc lets us see it.
    pagemap: Option<OwnedFd>,
}

impl Uffd {
    /// Registers the whole of `reservation` with `fd`, which was made for `messages` or for signals. Once and whole: registering
    /// parts splits mappings.
    pub(crate) fn register(
        fd: OwnedFd,
        reservation: &Reservation,
        messages: bool,
        (no_poison, no_continue_wp): (bool, bool),
    ) -> Result<Self, Failed> {
        let source = Source::adopt(fd);
        let whole = reservation.span(ByteRange { start: 0, end: reservation.bytes() });
        let whole = whole.ok_or(Failed::system("UFFDIO_REGISTER", libc::EINVAL))?;
        let can = source.register(whole).op("UFFDIO_REGISTER")?;
        if can & CAN_CONTINUE == 0 || can & CAN_WRITEPROTECT == 0 {
            return Err(Failed::system("UFFDIO_REGISTER", libc::EOPNOTSUPP));
        }
        let pagemap = open(c"/proc/self/pagemap", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let poison = can & CAN_POISON != 0 && !no_poison;
        let mut uffd = Self { source, messages, poison, continue_wp: false, pagemap };
        uffd.continue_wp = !no_continue_wp && uffd.probe_continue_wp(reservation, whole.head(PAGE))?;
        Ok(uffd)
    }

    /// No feature bit tells whether CONTINUE can write-protect: try it on R's first page, before anyone knows R.
    fn probe_continue_wp(&self, reservation: &Reservation, page: Span) -> Result<bool, Failed> {
        let bytes = ByteRange { start: 0, end: PAGE as u64 };
        reservation.fill(bytes).map_err(errno).op("fallocate")?;
        let works = resume(self.source.fd(), page, CONTINUE_WP | DONTWAKE).is_ok();
        self.punch(reservation, page, bytes)?;
        Ok(works)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.source.fd()
    }

    pub(crate) fn read(&self, each: &mut dyn FnMut(usize, bool)) -> Result<usize, Errno> {
        self.source.read(each)
    }

    pub(crate) fn has_poison(&self) -> bool {
        self.poison
    }

    pub(crate) fn has_continue_wp(&self) -> bool {
        self.continue_wp
    }

    /// Wakes who waits on a message, where there are messages.
    fn wake(&self, span: Span) -> Result<(), Failed> {
        if self.messages { self.source.wake(span).op("UFFDIO_WAKE") } else { Ok(()) }
    }

    fn set_protection(&self, span: Span, access: Access) -> Result<(), Failed> {
        loop {
            let done = match access {
                Access::ReadOnly => self.source.protect(span),
                Access::ReadWrite => self.source.unprotect(span),
            };
            match done {
                Err(EAGAIN) => std::thread::yield_now(),
                done => return done.op("UFFDIO_WRITEPROTECT"),
            }
        }
    }

    /// Takes mapping, poison and protection marks of `span` away: zapping leaves the marks, and POISON refuses where one is.
    fn forget(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        reservation.zap(span).map_err(errno).op("revoke")?;
        self.set_protection(span, Access::ReadWrite)
    }

    /// How much of the start of `span`, whose first page is mapped, is mapped. Only saves calls: a page that went away since
    /// raises its next fault, and one that came is met by CONTINUE.
    fn mapped_head(&self, span: Span) -> Span {
        const WORD: usize = size_of::<u64>();
        const PRESENT_IN_TOP_BYTE: u8 = 0x80;
        let mut entries = [0_u8; WORD * Geometry::PRODUCTION.pages_per_block as usize];
        let wanted = (span.len / PAGE * WORD).min(entries.len());
        let Some(pagemap) = self.pagemap.as_ref().filter(|_| wanted > WORD) else { return span.head(PAGE) };
        let read = io::pread(pagemap, &mut entries[..wanted], (span.start / PAGE * WORD) as u64).unwrap_or(0);
        let top = if cfg!(target_endian = "little") { WORD - 1 } else { 0 };
        let present = entries[..read]
            .chunks_exact(WORD)
            .take_while(|entry| entry[top] & PRESENT_IN_TOP_BYTE != 0)
            .count();
        span.head(present.max(1) * PAGE)
    }
}

impl Verbs for Uffd {
    fn revoke(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        reservation.zap(span).map_err(errno).op("revoke")
    }

    fn protect(&self, _: &Reservation, span: Span) -> Result<(), Failed> {
        self.set_protection(span, Access::ReadOnly)
    }

    fn publish(&self, reservation: &Reservation, span: Span, access: Access) -> Result<(), Failed> {
        if access == Access::ReadOnly && !self.continue_wp {
            // Never CONTINUE followed by WRITEPROTECT: stores slip in between.
            return Err(Failed::system("publish read-only", libc::EOPNOTSUPP));
        }
        // Only denied pages need it (kernels without POISON).
        reservation.allow(span).map_err(errno).op("mprotect")?;
        let mut at = 0;
        while at < span.len {
            let rest = span.rest(at);
            let mapped = match access {
                Access::ReadWrite => self.source.resume_writable(rest),
                Access::ReadOnly => resume(self.source.fd(), rest, CONTINUE_WP | DONTWAKE),
            };
            match mapped {
                Ok(bytes) => at += bytes,
                Err(EEXIST) => {
                    let there = self.mapped_head(rest);
                    self.set_protection(there, access)?;
                    at += there.len;
                }
                Err(EAGAIN) => std::thread::yield_now(),
                Err(source) => return Err(Failed::System { operation: "UFFDIO_CONTINUE", source }),
            }
        }
        self.wake(span)
    }

    /// Makes every touch of `span` fail: SIGBUS, or SIGSEGV where the kernel has no POISON; and lets waiters find out.
    fn poison(&self, reservation: &Reservation, span: Span) -> Result<(), Failed> {
        self.forget(reservation, span)?;
        if self.poison {
            let mut at = 0;
            while at < span.len {
                match poison(self.source.fd(), span.rest(at)) {
                    Ok(bytes) => at += bytes,
                    Err(EAGAIN) => std::thread::yield_now(),
                    Err(source) => return Err(Failed::System { operation: "UFFDIO_POISON", source }),
                }
            }
        } else {
            reservation.deny(span).map_err(errno).op("mprotect")?;
        }
        self.wake(span)
    }

    /// Gives the pages of `span`, which are `bytes` of the file, back; the next touch is a fault on a hole.
    fn punch(&self, reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed> {
        self.forget(reservation, span)?;
        reservation.allow(span).map_err(errno).op("mprotect")?;
        reservation.punch(bytes).map_err(errno).op("punching a hole")
    }
}
