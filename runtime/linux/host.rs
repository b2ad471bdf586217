//! LinuxHost: the port's host memory over whichever engine was opened. Here every call asks whose memory it is and checks its
//! run; the engines get addresses inside R only.

use crate::declared;
use crate::fork::Owner;
use crate::ioctl::errno;
use crate::reservation::{Reservation, Span};
use crate::uffd::Uffd;
use core::mem::ManuallyDrop;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry, PageRun};
use vkhmm_port::host::Errno;
use vkhmm_port::{Access, HostError, HostMemory, HostProfile, RawBytes};

/// How R is served.
pub(crate) enum Engine {
    Uffd(Uffd),
    Declared,
}

/// What [`LinuxHost`] and [`crate::LinuxFaults`] share: the memory and its descriptors, alive until both are gone.
pub(crate) struct Shared {
    owner: Owner,
    reservation: ManuallyDrop<Reservation>,
    engine: ManuallyDrop<Engine>,
    profile: HostProfile,
}

impl Shared {
    pub(crate) fn new(owner: Owner, reservation: Reservation, engine: Engine, profile: HostProfile) -> Self {
        Self {
            owner,
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

    pub(crate) fn uffd(&self) -> Option<&Uffd> {
        match &*self.engine {
            Engine::Uffd(uffd) => Some(uffd),
            Engine::Declared => None,
        }
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
        // SAFETY: each is dropped once, here, and not used afterwards. R is unmapped before the userfaultfd is closed: closing
        // first would let waiting threads read pages that are not home.
        unsafe {
            ManuallyDrop::drop(&mut self.reservation);
            ManuallyDrop::drop(&mut self.engine);
        }
    }
}

/// A step that the system refused; the host adds where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) operation: &'static str,
    pub(crate) source: Errno,
}

/// Names the step that a result came from.
pub(crate) trait Outcome<T> {
    fn op(self, operation: &'static str) -> Result<T, Failed>;
}

impl<T> Outcome<T> for Result<T, Errno> {
    fn op(self, operation: &'static str) -> Result<T, Failed> {
        self.map_err(|source| Failed { operation, source })
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
        let refused = |failed: Failed| HostError::Refused {
            operation: failed.operation,
            offset: start,
            bytes,
            source: failed.source,
        };
        let span = self.shared.reservation.span(range).ok_or_else(|| {
            refused(Failed {
                operation: "finding the run inside the reservation",
                source: Errno(libc::EINVAL),
            })
        })?;
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
        self.on(run, |shared, span, _| match &*shared.engine {
            Engine::Uffd(_) => shared.reservation.zap(span).map_err(errno).op("revoke"),
            Engine::Declared => Ok(()),
        })
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, _| match &*shared.engine {
            Engine::Uffd(uffd) => uffd.protect(span),
            Engine::Declared => Ok(()),
        })
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.on(run, |shared, span, _| match &*shared.engine {
            Engine::Uffd(uffd) => uffd.publish(&shared.reservation, span, access),
            Engine::Declared => declared::publish(&shared.reservation, span),
        })
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, _| match &*shared.engine {
            Engine::Uffd(uffd) => uffd.poison(&shared.reservation, span),
            Engine::Declared => declared::poison(&shared.reservation, span),
        })
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.on(run, |shared, span, range| match &*shared.engine {
            Engine::Uffd(uffd) => uffd.punch(&shared.reservation, span, range),
            Engine::Declared => declared::punch(&shared.reservation, span, range),
        })
    }
}
