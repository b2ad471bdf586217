//! Whose memory it is: a page that the kernel wipes in a forked child holds a token.
//!
//! A child inherits the memfd and the userfaultfd, and both still act on the parent (a punch through the inherited memfd
//! destroys the parent's bytes, a write-protect through the inherited userfaultfd protects the parent's pages). So the mark is
//! asked before every such system call; it costs one load. Sandboxes that know no such pages are asked for the process's number.

use core::ffi::c_void;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::process::{Pid, getpid};

const TOKEN: u32 = 0x766b_686d;
const BYTES: usize = 4096;

/// The token page. In the process that made it [`Owner::owned`] is true, in every child forked from that one it is false.
#[derive(Debug)]
pub struct Owner {
    page: NonNull<AtomicU32>,
    /// The process, where the page is not wiped.
    process: Option<Pid>,
}

// SAFETY: the page is only accessed as an atomic, and stays mapped until drop.
unsafe impl Send for Owner {}
// SAFETY: every access through a shared reference is an atomic load or store.
unsafe impl Sync for Owner {}

impl Owner {
    /// Marks the calling process as owner.
    ///
    /// # Errors
    /// Of `mmap` or `madvise`.
    pub fn new() -> io::Result<Self> {
        Self::make(false)
    }

    /// As [`Self::new`]; `no_wipe`: as on a system that wipes no page.
    pub(crate) fn make(no_wipe: bool) -> io::Result<Self> {
        // SAFETY: a new private mapping at a place the kernel chooses touches no existing memory.
        let page = unsafe {
            mmap_anonymous(
                core::ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )?
        };
        let Some(page) = NonNull::new(page.cast::<AtomicU32>()) else { return Err(io::Errno::NOMEM) };
        let mut owner = Self { page, process: None };
        // SAFETY: the page is ours alone; the advice changes what a child sees, not what we see.
        let wipe = || unsafe { madvise(page.as_ptr().cast::<c_void>(), BYTES, Advice::LinuxWipeOnFork) };
        match if no_wipe { Err(io::Errno::INVAL) } else { wipe() } {
            Err(io::Errno::INVAL) => owner.process = Some(getpid()),
            other => other?,
        }
        owner.word().store(TOKEN, Ordering::Relaxed);
        Ok(owner)
    }

    /// Whether this process made the mark.
    pub fn owned(&self) -> bool {
        self.word().load(Ordering::Relaxed) == TOKEN && self.process.is_none_or(|process| process == getpid())
    }

    /// Whether the kernel wipes the page; otherwise every question is a system call.
    pub(crate) fn is_wiped(&self) -> bool {
        self.process.is_none()
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped, aligned and zeroed by the kernel, lives until drop, and is only used as an atomic.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `new` and nothing refers to it after drop. In a child this unmaps the child's own
        // wiped copy. Failing leaks one page.
        let _ = unsafe { munmap(self.page.as_ptr().cast::<c_void>(), BYTES) };
    }
}
