//! The reservation: one memfd, mapped twice. R, the application's view, is placed by rustix on a block boundary; A, the alias
//! that all data moves through, is memmap2's, as raw memory: no reference to it is ever formed.
//!
//! The storage is 4 KiB shared memory for now; hugetlb and shmem huge pages would be probed in [`Reservation::attempt`], best
//! first, and change the map granule.

use crate::config::Config;
use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use memmap2::{MmapOptions, MmapRaw};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io;
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munlock, munmap,
};
use rustix::process::{Resource, getrlimit};
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_port::RawBytes;
use vkhmm_port::host::Errno;

/// Bytes of one block: the least that can be reserved, and R's alignment.
const BLOCK: u64 = Geometry::PRODUCTION.block_bytes();
const PAGE: u64 = Geometry::PRODUCTION.page_bytes as u64;
/// What is reserved where no limit says less. Address space only; page tables grow with use.
const WISH: u64 = 1 << 40;
/// Why there is no reservation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReservationError {
    /// A limit of the process leaves no room.
    #[error("host memory needs {need} bytes, but {limit} allows {allowed}: raise it")]
    Limited {
        /// The limit and the command that shows it.
        limit: &'static str,
        /// What it allows, in bytes.
        allowed: u64,
        /// What was wanted at least, in bytes.
        need: u64,
    },
    /// The system refused.
    #[error("reserving {bytes} bytes of host memory failed at {operation}: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// For how much.
        bytes: u64,
        /// What the system said.
        source: Errno,
    },
}

/// Which bytes of R a call is about, as an address and a length; made by [`Reservation::span`] only, so always inside R.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn as_ptr(self) -> *mut c_void {
        core::ptr::with_exposed_provenance_mut(self.start)
    }

    /// The part from `offset` on.
    pub(crate) fn rest(self, offset: usize) -> Self {
        Self { start: self.start + offset, len: self.len - offset }
    }

    /// The first `len` bytes.
    pub(crate) fn head(self, len: usize) -> Self {
        Self { start: self.start, len }
    }
}

/// R: unmapped when dropped.
struct View {
    start: NonNull<c_void>,
    len: usize,
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map_view` and is dropped once; what it held is gone with its owner.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// Both mappings and the file. Dropping it unmaps; a forked child must leak it instead.
pub(crate) struct Reservation {
    /// First, so that R is gone before A and the file.
    view: View,
    alias: MmapRaw,
    memfd: OwnedFd,
    bytes: u64,
    limited_by: &'static str,
    /// A is accessible up to here: an application that locks all its memory later makes the kernel fill whatever it can access.
    alias_open: AtomicU64,
    /// Whether any page of R was ever denied: until then `allow` has nothing to do.
    denied: AtomicBool,
    /// The system gives pages back.
    punches: bool,
}

// SAFETY: the view is an address that is only handed to system calls and to callers as a number; the rest is Send and Sync.
unsafe impl Send for Reservation {}
// SAFETY: as above; all methods take `&self` and the kernel orders the calls.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves what `config` and the limits of the process allow.
    pub(crate) fn new(config: &Config) -> Result<Self, ReservationError> {
        // Before anything else: ftruncate beyond this limit kills the process with SIGXFSZ.
        let file_limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
        if let Some(wanted) = config.reservation_bytes {
            let bytes = wanted.max(1).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
            if bytes > file_limit {
                return Err(too_small("the file size limit (ulimit -f)", file_limit, bytes));
            }
            return Self::attempt(bytes, "the configured size", config);
        }
        let mut bytes = WISH;
        let mut limited_by = "the default";
        let address_limit = getrlimit(Resource::As).current.map_or(u64::MAX, |limit| limit / 4);
        for (limit, name) in [
            (file_limit, "the file size limit (ulimit -f)"),
            (address_limit, "a quarter of the address space limit (ulimit -v)"),
        ] {
            if limit < bytes {
                (bytes, limited_by) = (limit, name);
            }
        }
        bytes -= bytes % BLOCK;
        if bytes == 0 {
            return Err(too_small(limited_by, file_limit.min(address_limit), BLOCK));
        }
        loop {
            match Self::attempt(bytes, limited_by, config) {
                Err(_) if bytes >= 2 * BLOCK => {
                    bytes = bytes / 2 / BLOCK * BLOCK;
                    limited_by = "what the system grants";
                }
                done => return done,
            }
        }
    }

    fn attempt(bytes: u64, limited_by: &'static str, config: &Config) -> Result<Self, ReservationError> {
        let at = |operation| move |e: io::Errno| refused(operation, bytes, e.raw_os_error());
        let len = usize::try_from(bytes).map_err(|_| refused("mmap", bytes, libc::ENOMEM))?;
        let memfd = memfd().map_err(at("memfd_create"))?;
        let view = map_view(&memfd, len).map_err(at("mapping the application's view"))?;
        // A is writable from the start, as memmap2 has no other way, so it is mapped while the file is still empty: under
        // mlockall(MCL_FUTURE) the kernel would otherwise fill the whole file here.
        let alias = MmapOptions::new().len(len).map_raw(&memfd);
        let alias = alias
            .map_err(|e| refused("mapping the alias", bytes, e.raw_os_error().unwrap_or(libc::ENOMEM)))?;
        for start in [view.start.as_ptr(), alias.as_mut_ptr().cast()] {
            // SAFETY: both are whole mappings of ours that nobody uses yet; none of these calls changes what they hold.
            unsafe {
                munlock(start, len).map_err(at("munlock"))?;
                madvise(start, len, Advice::LinuxDontFork).map_err(at("MADV_DONTFORK"))?;
                wish(madvise(start, len, Advice::LinuxNoHugepage)).map_err(at("MADV_NOHUGEPAGE"))?;
                if !config.dump {
                    wish(madvise(start, len, Advice::LinuxDontDump)).map_err(at("MADV_DONTDUMP"))?;
                }
            }
        }
        // SAFETY: both mappings are ours and nobody knows their addresses yet.
        unsafe {
            mprotect(alias.as_mut_ptr().cast(), len, MprotectFlags::empty())
                .map_err(at("closing the alias"))?;
            ftruncate(&memfd, bytes).map_err(at("ftruncate"))?;
            mprotect(view.start.as_ptr(), len, MprotectFlags::READ | MprotectFlags::WRITE)
                .map_err(at("giving access to the application's view"))?;
        }
        let (alias_open, denied) = (AtomicU64::new(0), AtomicBool::new(false));
        let mut made = Self { view, alias, memfd, bytes, limited_by, alias_open, denied, punches: true };
        made.punches = !config.no_punch_hole && made.probe_punch();
        // Now, so that later growth only moves the border between two mappings that exist.
        made.open_alias(BLOCK).map_err(at("giving access to the alias"))?;
        Ok(made)
    }

    /// Size in bytes, whole blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What decided the size, in words.
    pub(crate) fn limited_by(&self) -> &'static str {
        self.limited_by
    }

    /// Address of R.
    pub(crate) fn base(&self) -> usize {
        self.view.start.as_ptr().expose_provenance()
    }

    /// `range` in R, or `None` if it is not inside.
    pub(crate) fn span(&self, range: ByteRange) -> Option<Span> {
        (range.start <= range.end && range.end <= self.bytes)
            .then(|| Span { start: self.base() + range.start as usize, len: range.len() as usize })
    }

    /// `range` in A. Accessible only after [`Self::open_alias`], which a forked child must not call.
    ///
    /// # Panics
    /// If it is not inside.
    pub(crate) fn alias(&self, range: ByteRange) -> RawBytes {
        assert!(
            range.start <= range.end && range.end <= self.bytes,
            "{range:?} of a reservation of {} bytes",
            self.bytes
        );
        let start = NonNull::new(self.alias.as_mut_ptr()).expect("a mapping is not at address zero");
        // SAFETY: A is mapped as long as the reservation lives, which the runtime keeps until its last thread is gone; the host
        // opens it up to the end of each range it hands out; no reference to it is ever formed.
        unsafe { RawBytes::new(start, self.bytes as usize) }.slice(range.start as usize, range.len() as usize)
    }

    /// Makes A accessible up to `end` (inside the reservation); doubles, so that it is seldom a system call.
    pub(crate) fn open_alias(&self, end: u64) -> io::Result<()> {
        if end <= self.alias_open.load(Ordering::Acquire) {
            return Ok(());
        }
        let target = end.next_power_of_two().min(self.bytes);
        let start = self.alias.as_mut_ptr().cast();
        // SAFETY: the bytes are A's (`target <= bytes`); giving access takes nothing from anyone. Two threads at once only
        // give the same access twice.
        unsafe { mprotect(start, target as usize, MprotectFlags::READ | MprotectFlags::WRITE)? };
        self.alias_open.fetch_max(target, Ordering::AcqRel);
        Ok(())
    }

    /// Takes `span` out of R's page table; bytes stay in the file.
    pub(crate) fn zap(&self, span: Span) -> io::Result<()> {
        // SAFETY: the span is inside R (`Span`), a shared mapping: dropping its entries loses no bytes, and that a later touch
        // faults is what the caller wants.
        unsafe {
            // The plain advice fails on memory that the application locked; the kernel before 5.18 knows only that one.
            match madvise(span.as_ptr(), span.len, Advice::LinuxDontneedLocked) {
                Err(io::Errno::INVAL) => madvise(span.as_ptr(), span.len, Advice::LinuxDontNeed),
                done => done,
            }
        }
    }

    /// Makes every touch of `span` a SIGSEGV (EFAULT in system calls) until [`Self::allow`].
    pub(crate) fn deny(&self, span: Span) -> io::Result<()> {
        self.denied.store(true, Ordering::Release);
        // SAFETY: the span is inside R (`Span`); taking access away breaks no Rust reference, as none to a denied page exists.
        unsafe { mprotect(span.as_ptr(), span.len, MprotectFlags::empty()) }
    }

    /// Ends [`Self::deny`] for `span`. Costs one load while nothing was ever denied.
    pub(crate) fn allow(&self, span: Span) -> io::Result<()> {
        if !self.denied.load(Ordering::Acquire) {
            return Ok(());
        }
        // SAFETY: the span is inside R (`Span`); giving access takes nothing from anyone.
        unsafe { mprotect(span.as_ptr(), span.len, MprotectFlags::READ | MprotectFlags::WRITE) }
    }

    /// Gives every hole of `range` a page of zeros.
    pub(crate) fn fill(&self, range: ByteRange) -> io::Result<()> {
        let mut at = range.start;
        let mut step = BLOCK;
        while at < range.end {
            let len = step.min(range.end - at);
            // Inside the file, so its size stays; sandboxes know no flag.
            match fallocate(&self.memfd, FallocateFlags::empty(), at, len) {
                Ok(()) => {
                    at += len;
                    step = (step * 2).min(BLOCK);
                }
                // A signal undoes the whole call, so a steady stream of them could undo a large one for ever.
                Err(io::Errno::INTR) => step = (step / 2).max(PAGE),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Gives the pages of `range` back to the system, where it takes them; it reads zeros afterwards.
    pub(crate) fn punch(&self, range: ByteRange) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if !self.punches {
            return self.zero(range);
        }
        io::retry_on_intr(|| fallocate(&self.memfd, flags, range.start, range.len()))
    }

    /// Whether the system gives pages back; otherwise they are zeroed and stay.
    pub(crate) fn punches(&self) -> bool {
        self.punches
    }

    fn probe_punch(&self) -> bool {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let tried = io::retry_on_intr(|| fallocate(&self.memfd, flags, 0, PAGE));
        !matches!(tried, Err(io::Errno::OPNOTSUPP | io::Errno::NOSYS))
    }

    /// Makes `range` zeros where it is not. Looks by reading the file, which fills no hole.
    fn zero(&self, range: ByteRange) -> io::Result<()> {
        const PIECE: usize = 4 * PAGE as usize;
        let mut piece = [0_u8; PIECE];
        let mut at = range.start;
        while at < range.end {
            let want = PIECE.min((range.end - at) as usize);
            let got = io::retry_on_intr(|| io::pread(&self.memfd, &mut piece[..want], at))?;
            if got == 0 {
                return Err(io::Errno::IO);
            }
            let end = at + got as u64;
            if piece[..got].iter().any(|byte| *byte != 0) {
                self.open_alias(end)?;
                self.alias(ByteRange { start: at, end }).fill(0);
            }
            at = end;
        }
        Ok(())
    }
}

fn too_small(limit: &'static str, allowed: u64, need: u64) -> ReservationError {
    ReservationError::Limited { limit, allowed, need }
}

fn refused(operation: &'static str, bytes: u64, errno: i32) -> ReservationError {
    ReservationError::Refused { operation, bytes, source: Errno(errno) }
}

/// Advice that a kernel may not know.
fn wish(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(io::Errno::INVAL) => Ok(()),
        other => other,
    }
}

fn memfd() -> io::Result<OwnedFd> {
    match memfd_create(c"vkhmm", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
        // Before 6.3; later kernels may be set to demand the seal.
        Err(io::Errno::INVAL) => memfd_create(c"vkhmm", MemfdFlags::CLOEXEC),
        made => made,
    }
}

/// Maps `len` bytes of `memfd`, without access, at an address that is a multiple of a block. File offset zero is congruent.
fn map_view(memfd: &OwnedFd, len: usize) -> io::Result<View> {
    let room = len.checked_add(BLOCK as usize).ok_or(io::Errno::NOMEM)?;
    // SAFETY: a new private mapping without access, where the kernel likes; it touches no existing memory.
    let start = unsafe {
        mmap_anonymous(null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)?
    };
    let skip = start.align_offset(BLOCK as usize);
    // SAFETY: `skip` is less than a block, so `start + skip .. + len` lies inside the `room` bytes just mapped, which nobody
    // else knows: replacing that part and unmapping the two ends touches only our own mapping.
    unsafe {
        let aligned = start.byte_add(skip);
        let made = mmap(
            aligned,
            len,
            ProtFlags::empty(),
            MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE,
            memfd,
            0,
        );
        if let Err(e) = made {
            let _ = munmap(start, room);
            return Err(e);
        }
        if skip > 0 {
            munmap(start, skip)?;
        }
        if room - skip > len {
            munmap(aligned.byte_add(len), room - skip - len)?;
        }
        NonNull::new(aligned).map(|start| View { start, len }).ok_or(io::Errno::NOMEM)
    }
}
