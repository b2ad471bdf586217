//! LinuxHost: the port's host memory over whichever engine was opened. Here every call asks whose memory it is and checks its
//! run; the engines get addresses inside R only.

use crate::declared::Declared;
use crate::fork::Owner;
use crate::ioctl::errno;
use crate::reservation::{Reservation, Span};
use crate::segv::Segv;
use crate::sigbus::Sigbus;
use crate::touch::{Registration, Touches};
use crate::uffd::Uffd;
use core::mem::ManuallyDrop;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry, PageRun};
use vkhmm_port::host::Errno;
use vkhmm_port::{Access, HostError, HostMemory, HostProfile, RawBytes};

/// How R is served.
pub(crate) enum Engine {
    Uffd(Uffd),
    Sigbus(Sigbus),
    Segv(Segv),
    Declared,
}

impl Engine {
    /// What it knows of touches that are answered in their own threads, if they are.
    pub(crate) fn touches(&self) -> Option<&Arc<Touches>> {
        match self {
            Self::Sigbus(engine) => Some(&engine.touches),
            Self::Segv(engine) => Some(&engine.touches),
            Self::Uffd(_) | Self::Declared => None,
        }
    }

    fn verbs(&self) -> &dyn Verbs {
        match self {
            Self::Uffd(engine) => engine,
            Self::Sigbus(engine) => engine,
            Self::Segv(engine) => engine,
            Self::Declared => &Declared,
        }
    }
}

/// What an engine does with a span of R, which is `bytes` of the file where that matters.
pub(crate) trait Verbs {
    /// Makes `span` absent.
    fn revoke(&self, reservation: &Reservation, span: Span) -> Result<(), Failed>;
    /// Makes what is present of `span` read-only.
    fn protect(&self, reservation: &Reservation, span: Span) -> Result<(), Failed>;
    /// Makes `span` present with `access`, whatever it was, and wakes who waits on it.
    fn publish(&self, reservation: &Reservation, span: Span, access: Access) -> Result<(), Failed>;
    /// Makes every touch of `span` fail, and lets who waits find out.
    fn poison(&self, reservation: &Reservation, span: Span) -> Result<(), Failed>;
    /// Gives the pages of `span` back: absent, without marks and poison, a hole.
    fn punch(&self, reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed>;
}

/// What [`LinuxHost`] and [`crate::LinuxFaults`] share: the memory and its descriptors, alive until both are gone.
pub(crate) struct Shared {
    owner: Arc<Owner>,
    /// The signal handlers know R by this.
    registration: ManuallyDrop<Option<Registration>>,
    reservation: ManuallyDrop<Reservation>,
    engine: ManuallyDrop<Engine>,
    profile: HostProfile,
}

impl Shared {
    pub(crate) fn new(
        owner: Arc<Owner>,
        reservation: Reservation,
        (engine, registration): (Engine, Option<Registration>),
        profile: HostProfile,
    ) -> Self {
        Self {
            owner,
            registration: ManuallyDrop::new(registration),
            reservation: ManuallyDrop::new(reservation),
            engine: ManuallyDrop::new(engine),
            profile,
        }
    }

    /// # Errors
    /// `ForkedChild`.
    pub(crate) fn check_owner(&self) -> Result<(), HostError> {
        if self.owner.owned() { Ok(()) } else { Err(HostError::ForkedChild) }
    }

    pub(crate) fn owned(&self) -> bool {
        self.owner.owned()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn base(&self) -> usize {
        self.reservation.base()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // In a forked child nothing here is ours: R and A are not mapped, their addresses may have been reused, and the
        // descriptors are the parent's.
        if !self.owner.owned() {
            return;
        }
        // SAFETY: each is dropped once, here, and not used afterwards. Handlers forget R before its addresses can be another's. R
        // is unmapped before the userfaultfd is closed: closing first would let waiting threads read pages that are not home.
        unsafe {
            ManuallyDrop::drop(&mut self.registration);
            ManuallyDrop::drop(&mut self.reservation);
            ManuallyDrop::drop(&mut self.engine);
        }
    }
}

/// A step that failed; the host adds where.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    /// The system refused.
    System { operation: &'static str, source: Errno },
    /// It would have taken too many mappings.
    Mappings { operation: &'static str, have: usize, allowed: usize },
}

impl Failed {
    pub(crate) const fn system(operation: &'static str, errno: i32) -> Self {
        Self::System { operation, source: Errno(errno) }
    }

    fn at(self, offset: u64, bytes: u64) -> HostError {
        match self {
            Self::System { operation, source } => HostError::Refused { operation, offset, bytes, source },
            Self::Mappings { operation, have, allowed } => {
                HostError::TooManyMappings { operation, offset, bytes, have, allowed }
            }
        }
    }
}

/// Names the step that a result came from.
pub(crate) trait Outcome<T> {
    fn op(self, operation: &'static str) -> Result<T, Failed>;
}

impl<T> Outcome<T> for Result<T, Errno> {
    fn op(self, operation: &'static str) -> Result<T, Failed> {
        self.map_err(|source| Failed::System { operation, source })
    }
}

/// Host memory on Linux. Made by [`crate::open`]; dropping the last handle unmaps everything, except in a forked child, where
/// it does nothing.
pub struct LinuxHost {
    shared: Arc<Shared>,
}

impl LinuxHost {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Checks owner and bounds, then performs `step` on the run. An empty run is nothing to do.
    fn on(
        &self,
        run: PageRun,
        step: impl FnOnce(&Shared, Span, ByteRange) -> Result<(), Failed>,
    ) -> Result<(), HostError> {
        self.shared.check_owner()?;
        if run.count == 0 {
            return Ok(());
        }
        let page_bytes = u64::from(Geometry::PRODUCTION.page_bytes);
        let start = run.first.0.saturating_mul(page_bytes);
        let bytes = u64::from(run.count) * page_bytes;
        let range = ByteRange { start, end: start.saturating_add(bytes) };
        let refused = |failed: Failed| failed.at(start, bytes);
        let span = self.shared.reservation.span(range);
        let span = span
            .ok_or_else(|| refused(Failed::system("finding the run inside the reservation", libc::EINVAL)))?;
        step(&self.shared, span, range).map_err(refused)
    }
}

impl HostMemory for LinuxHost {
    fn profile(&self) -> &HostProfile {
        &self.shared.profile
    }

    fn base(&self) -> usize {
        self.shared.base()
    }

    fn owned(&self) -> bool {
        self.shared.owned()
    }

    fn alias(&self, range: ByteRange) -> RawBytes {
        let bytes = self.shared.reservation.alias(range);
        // A forked child has no A: the address is all it gets.
        if self.shared.owned() {
            let opened = self.shared.reservation.open_alias(range.end);
            opened.expect("giving access to memory that is mapped needs no resources");
        }
        bytes
    }

    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        let filled =
            self.on(run, |shared, _, range| shared.reservation.fill(range).map_err(errno).op("fallocate"));
        match filled {
            Err(HostError::Refused {
                operation,
                bytes,
                source: source @ Errno(libc::ENOMEM | libc::ENOSPC),
                ..
            }) => Err(HostError::OutOfMemory { operation, bytes, source }),
            other => other,
        }
    }

    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, _| shared.engine.verbs().revoke(&shared.reservation, span))
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, _| shared.engine.verbs().protect(&shared.reservation, span))
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.on(run, |shared, span, _| shared.engine.verbs().publish(&shared.reservation, span, access))
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, _| shared.engine.verbs().poison(&shared.reservation, span))
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, bytes| shared.engine.verbs().punch(&shared.reservation, span, bytes))
    }
}
