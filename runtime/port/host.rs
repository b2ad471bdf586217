//! HostMemory: one reservation, mapped twice. R is the application's view and a permission gate; A is the alias that all data
//! moves through. FaultSource: which page of R was touched while it was absent.

use crate::RawBytes;
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, PageIndex, PageRun};

/// What R allows on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Who can be parked on an absent page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// User code and system calls.
    Full,
    /// User code; a system call on an absent page gets EFAULT.
    UserOnly,
    /// Nobody: R is always mapped, and callers bring ranges home before they hand out slices.
    Declared,
}

/// What this host memory is like; constant for its life.
#[derive(Clone, Debug)]
pub struct HostProfile {
    /// Name of the fault engine, as in doctor.
    pub engine: &'static str,
    /// Who can be parked.
    pub faults: FaultMode,
    /// Size of the reservation in bytes, whole blocks.
    pub reservation_bytes: u64,
    /// The unit in which R is best changed, in bytes: 4 KiB or 2 MiB. Every call takes any run of pages; where this is a block, the
    /// engine brings whole blocks home as far as the laws let it, since every smaller run costs the system a mapping of its own.
    pub map_granule_bytes: u32,
    /// Whether `publish(ReadOnly)` exists. Without it a page published home is Host, never Shared.
    pub publish_read_only: bool,
    /// Whether `protect` exists. Without it a duplicated page is made absent instead.
    pub protect: bool,
}

/// A failed operation on the host's memory.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    /// No host memory for the pages.
    #[error("no host memory for {bytes} bytes ({operation}): {source}")]
    OutOfMemory {
        /// What was tried.
        operation: &'static str,
        /// For how much.
        bytes: u64,
        /// What the system said.
        source: Errno,
    },
    /// The system refused.
    #[error("{operation} of {bytes} bytes at reservation offset {offset:#x} failed: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// Where, in bytes from the reservation's start.
        offset: u64,
        /// On how much.
        bytes: u64,
        /// What the system said.
        source: Errno,
    },
    /// Taking access away there would leave too few mappings to give it back elsewhere. Nothing has changed.
    #[error(
        "{operation} of {bytes} bytes at reservation offset {offset:#x} needs {have} memory mappings in all, and {allowed} are \
         allowed: raise vm.max_map_count, or move larger ranges at once"
    )]
    TooManyMappings {
        /// What was tried.
        operation: &'static str,
        /// Where, in bytes from the reservation's start.
        offset: u64,
        /// On how much.
        bytes: u64,
        /// Mappings that it would take, with those that there are.
        have: usize,
        /// Mappings that such calls may take.
        allowed: usize,
    },
    /// This process was forked from the one that owns the memory.
    #[error(
        "this process is a forked child: managed memory belongs to its parent; use spawn or exec instead of fork"
    )]
    ForkedChild,
}

/// A system error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", std::io::Error::from_raw_os_error(*.0))]
pub struct Errno(pub i32);

/// One message of the fault engine: a hint that somebody waits for `page`. The page's state is the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The page touched.
    pub page: PageIndex,
    /// Whether the touch was a store.
    pub write: bool,
}

/// The reservation. Runs are in pages of the engine's geometry. All calls may come from any thread; calls on the same page are
/// ordered by the caller (block lock or exclusive hold).
pub trait HostMemory: Send + Sync + 'static {
    /// What it is like.
    fn profile(&self) -> &HostProfile;

    /// Address of the application's view R.
    fn base(&self) -> usize;

    /// Whether this process owns the memory: false in a forked child.
    fn owned(&self) -> bool;

    /// The bytes of `range` through the private alias A. Always mapped.
    ///
    /// # Panics
    /// If `range` ends past the reservation.
    fn alias(&self, range: ByteRange) -> RawBytes;

    /// Gives every hole in `run` a host page of zeros (`fallocate`); existing pages keep their bytes. Afterwards publishing and
    /// copying into the run cannot fail for want of memory.
    ///
    /// # Errors
    /// `OutOfMemory`; pages populated so far may stay.
    fn populate(&self, run: PageRun) -> Result<(), HostError>;

    /// Makes `run` absent in R: when it returns no store by anyone can reach the pages. Bytes in A stay.
    ///
    /// # Errors
    /// The system refused; the pages may still be mapped.
    fn revoke(&self, run: PageRun) -> Result<(), HostError>;

    /// Makes mapped pages of `run` read-only in R: when it returns no store can reach them.
    ///
    /// # Errors
    /// The system refused; the pages may still be writable.
    fn protect(&self, run: PageRun) -> Result<(), HostError>;

    /// Makes `run` present in R with `access`, also where it already is, and wakes every thread parked on it. Every page must
    /// have a host page.
    ///
    /// # Errors
    /// The system refused.
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError>;

    /// Makes every touch of `run` in R end in SIGBUS, until `clear`. The pages must be absent.
    ///
    /// # Errors
    /// The system refused.
    fn poison(&self, run: PageRun) -> Result<(), HostError>;

    /// Forgets mapping, protection and poison of `run` in R and gives its host pages back: the next touch is a fault on a hole,
    /// and the bytes in A are zeros. Never called while a device import covers the run.
    ///
    /// # Errors
    /// The system refused.
    fn punch(&self, run: PageRun) -> Result<(), HostError>;
}

/// Who answers touches in the threads that made them, where the fault engine can ask there.
///
/// Contract: called on a small stack, in a signal handler of a thread that holds no lock of ours · may take locks only by trying ·
/// must never wait, allocate, log, use a thread-local, submit to a device or touch R.
pub trait Resolver: Send + Sync {
    /// Answers a touch now; whether R allows it, so that the thread may try again. If not, the touch goes to the readers of the
    /// source, and the thread sleeps until a publish or a poison of its page.
    fn resolve(&self, fault: Fault) -> bool;
}

/// The messages of the fault engine. Several threads may read at once.
pub trait FaultSource: Send + Sync + 'static {
    /// Appends up to 16 messages to `faults`, waiting up to `timeout` for the first. Returns with none after `timeout`, after
    /// [`FaultSource::interrupt`], or when another reader was faster.
    ///
    /// # Errors
    /// The source is broken; faults can no longer be served.
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError>;

    /// Touches are given to `resolver` first, in their own threads, from now on; `None`: no longer, and when this returns no
    /// thread is inside the last one. Sources that cannot ask there ignore it.
    fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        let _ = resolver;
    }

    /// Makes every present and later [`FaultSource::next`] return at once.
    fn interrupt(&self);
}
