//! Trouble for the host's ports, on demand: a wrapper around any HostMemory or FaultSource that lets the n-th call fail, calls take
//! their time, and messages come late, twice, out of order or from nobody. A system does each of these now and then; tests say when.
//!
//! Production runs through the same wrapper without switches: one test of an `Option` beside a system call. The device's switches
//! are its own (`vkhmm_vulkan`), since what fails there is below the port.

mod faults;

pub use faults::FaultTrouble;

use crate::host::Errno;
use crate::{Access, Fault, FaultSource, HostError, HostMemory, HostProfile, RawBytes, Resolver};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use faults::Stirred;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry, PageRun};

/// The calls of host memory that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostCall {
    /// [`HostMemory::populate`]
    Populate,
    /// [`HostMemory::revoke`]
    Revoke,
    /// [`HostMemory::protect`]
    Protect,
    /// [`HostMemory::publish`]
    Publish,
    /// [`HostMemory::poison`]
    Poison,
    /// [`HostMemory::punch`]
    Punch,
}

impl HostCall {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Populate, Self::Revoke, Self::Protect, Self::Publish, Self::Poison, Self::Punch];

    const fn name(self) -> &'static str {
        match self {
            Self::Populate => "populate",
            Self::Revoke => "revoke",
            Self::Protect => "protect",
            Self::Publish => "publish",
            Self::Poison => "poison",
            Self::Punch => "punch",
        }
    }
}

/// Which calls fail, and how. A call that fails does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFailure {
    /// Calls of this kind alone are counted; `None`: of any kind.
    pub call: Option<HostCall>,
    /// The first that fails, counted from one.
    pub n: u64,
    /// How many fail, one after the other.
    pub times: u64,
    /// What the system says. From `populate`, ENOMEM and ENOSPC are `OutOfMemory`; all else is `Refused`.
    pub errno: Errno,
}

/// Trouble with host memory and CPU touches. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSwitches {
    /// Calls that fail.
    pub fail: Option<HostFailure>,
    /// Every n-th call takes so much longer.
    pub slow: Option<(u64, Duration)>,
    /// What happens to the messages of the fault engine.
    pub faults: Option<FaultTrouble>,
}

/// Counts the calls of one host memory and its fault source, and carries out what its switches say.
pub struct Trouble {
    switches: HostSwitches,
    geometry: Geometry,
    calls: [AtomicU64; HostCall::ALL.len()],
    all: AtomicU64,
    stirred: Option<Stirred>,
}

impl Trouble {
    /// The trouble that `switches` ask for on a memory of this profile; `None` if they ask for none.
    pub fn new(switches: &HostSwitches, geometry: Geometry, profile: &HostProfile) -> Option<Arc<Self>> {
        let pages = profile.reservation_bytes / u64::from(geometry.page_bytes);
        (*switches != HostSwitches::default()).then(|| {
            Arc::new(Self {
                geometry,
                calls: Default::default(),
                all: AtomicU64::new(0),
                stirred: switches.faults.map(|faults| Stirred::new(faults, pages)),
                switches: switches.clone(),
            })
        })
    }

    /// How many calls of `call` were made so far; `None`: of all kinds.
    pub fn calls(&self, call: Option<HostCall>) -> u64 {
        call.map_or(&self.all, |call| &self.calls[call as usize]).load(Ordering::Acquire)
    }

    /// Counts one call on `run`, and says how it fails before it does anything.
    fn enter(&self, call: HostCall, run: PageRun) -> Result<(), HostError> {
        let all = self.all.fetch_add(1, Ordering::AcqRel) + 1;
        let own = self.calls[call as usize].fetch_add(1, Ordering::AcqRel) + 1;
        if let Some((every, time)) = self.switches.slow {
            if all % every.max(1) == 0 {
                std::thread::sleep(time);
            }
        }
        let Some(failure) = self.switches.fail else { return Ok(()) };
        let number = match failure.call {
            None => all,
            Some(kind) if kind == call => own,
            Some(_) => return Ok(()),
        };
        if number < failure.n || number - failure.n >= failure.times {
            return Ok(());
        }
        let (range, source) = (self.geometry.bytes_of(run), failure.errno);
        let (operation, offset, bytes) = (call.name(), range.start, range.len());
        Err(if call == HostCall::Populate && matches!(source, Errno(ENOMEM | ENOSPC)) {
            HostError::OutOfMemory { operation, bytes, source }
        } else {
            HostError::Refused { operation, offset, bytes, source }
        })
    }
}

const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;

/// A host memory or a fault source, with the trouble that it is given.
pub struct Injected<T> {
    inner: Arc<T>,
    trouble: Option<Arc<Trouble>>,
}

impl<T> Injected<T> {
    /// Wraps `inner`.
    pub fn new(inner: Arc<T>, trouble: Option<Arc<Trouble>>) -> Self {
        Self { inner, trouble }
    }

    /// Its trouble, if any.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_deref()
    }

    fn enter(&self, call: HostCall, run: PageRun) -> Result<(), HostError> {
        self.trouble.as_ref().map_or(Ok(()), |trouble| trouble.enter(call, run))
    }
}

impl<H: HostMemory> HostMemory for Injected<H> {
    fn profile(&self) -> &HostProfile {
        self.inner.profile()
    }

    fn base(&self) -> usize {
        self.inner.base()
    }

    fn owned(&self) -> bool {
        self.inner.owned()
    }

    fn alias(&self, range: ByteRange) -> RawBytes {
        self.inner.alias(range)
    }

    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.enter(HostCall::Populate, run)?;
        self.inner.populate(run)
    }

    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.enter(HostCall::Revoke, run)?;
        self.inner.revoke(run)
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.enter(HostCall::Protect, run)?;
        self.inner.protect(run)
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.enter(HostCall::Publish, run)?;
        self.inner.publish(run, access)
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.enter(HostCall::Poison, run)?;
        self.inner.poison(run)
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.enter(HostCall::Punch, run)?;
        self.inner.punch(run)
    }
}

impl<F: FaultSource> FaultSource for Injected<F> {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        match self.trouble.as_ref().and_then(|trouble| trouble.stirred.as_ref()) {
            None => self.inner.next(faults, timeout),
            Some(stirred) => stirred.next(&*self.inner, faults, timeout),
        }
    }

    fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        self.inner.resolve_with(resolver);
    }

    fn interrupt(&self) {
        if let Some(stirred) = self.trouble.as_ref().and_then(|trouble| trouble.stirred.as_ref()) {
            stirred.interrupt();
        }
        self.inner.interrupt();
    }
}

#[cfg(test)]
mod tests;
