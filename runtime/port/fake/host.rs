//! FakeHost: the reservation as one allocation and a page table.

mod control;
mod options;

pub use options::{FakeHostOptions, Mapping, Weakened, Weakening};

use super::memory::Bytes;
use super::{FakeExec, FakeFaults, locked};
use crate::host::Errno;
use crate::{Access, Exec, Fault, HostError, HostMemory, HostProfile, RawBytes, Resolver, Signal};
use core::sync::atomic::AtomicU32;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EFAULT: i32 = 14;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;

/// How often each call was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCalls {
    /// `populate`
    pub populate: u64,
    /// `revoke`
    pub revoke: u64,
    /// `protect`
    pub protect: u64,
    /// `publish`
    pub publish: u64,
    /// `poison`
    pub poison: u64,
    /// `punch`
    pub punch: u64,
    /// Messages queued.
    pub faults: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) mapping: Mapping,
    pub(super) populated: bool,
    /// How often its parked threads were woken.
    pub(super) wakes: u32,
}

pub(super) struct State {
    pub(super) pages: Vec<Page>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) interrupted: bool,
    pub(super) populated: u64,
    pub(super) calls: HostCalls,
    /// The n-th fallible call from now fails; zero: none.
    fail_in: u64,
    /// What it says; `None`: what such a call usually fails with.
    fail_errno: Option<Errno>,
    /// Calls that failed because they were told to.
    failed: Vec<&'static str>,
    /// Messages that are kept back.
    pub(super) held: Option<Vec<Fault>>,
    /// Every message comes twice.
    pub(super) doubled: bool,
}

pub(super) struct Shared<X: Exec> {
    pub(super) geometry: Geometry,
    pub(super) profile: HostProfile,
    pub(super) options: FakeHostOptions,
    pub(super) bytes: Bytes,
    /// Owns the page table and the messages · blocks on nothing · never held across a call of `exec`.
    pub(super) state: Mutex<State>,
    /// Whoever answers touches in their threads, and how many of them ask him just now.
    pub(super) resolver: Mutex<Option<Arc<dyn Resolver>>>,
    pub(super) asking: AtomicU32,
    /// Passed when somebody asked him to the end.
    pub(super) asked: X::Signal,
    /// Passed when parked threads are to look again.
    pub(super) woken: X::Signal,
    /// Passed when a message was queued.
    pub(super) queued: X::Signal,
}

/// Host memory that is a plain allocation. Clones are handles of the same memory, so that a test keeps one for its application
/// threads while the engine owns another.
pub struct FakeHost<X: Exec = FakeExec> {
    pub(super) shared: Arc<Shared<X>>,
}

impl<X: Exec> Clone for FakeHost<X> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl FakeHost {
    /// A reservation of `blocks` blocks, all absent holes, on real threads.
    pub fn new(geometry: Geometry, blocks: u32, options: FakeHostOptions) -> Self {
        Self::with_exec(FakeExec::new(), geometry, blocks, options)
    }
}

impl<X: Exec> FakeHost<X> {
    /// As `new`; threads park through `exec`.
    pub fn with_exec(exec: X, geometry: Geometry, blocks: u32, options: FakeHostOptions) -> Self {
        let pages = u64::from(blocks) * u64::from(geometry.pages_per_block);
        let profile = HostProfile {
            engine: "fake",
            faults: options.faults,
            reservation_bytes: pages * u64::from(geometry.page_bytes),
            map_granule_bytes: options.granule_pages * geometry.page_bytes,
            publish_read_only: options.publish_read_only,
            protect: options.protect,
        };
        let hole = Page { mapping: Mapping::Absent, populated: false, wakes: 0 };
        let state = State {
            pages: vec![hole; pages as usize],
            faults: VecDeque::new(),
            interrupted: false,
            populated: 0,
            calls: HostCalls::default(),
            fail_in: 0,
            fail_errno: None,
            failed: Vec::new(),
            held: None,
            doubled: false,
        };
        let bytes = Bytes::new(profile.reservation_bytes);
        let shared = Shared {
            geometry,
            profile,
            options,
            bytes,
            state: Mutex::new(state),
            resolver: Mutex::new(None),
            asking: AtomicU32::new(0),
            asked: exec.signal(),
            woken: exec.signal(),
            queued: exec.signal(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The messages of this memory.
    pub fn faults(&self) -> FakeFaults<X> {
        FakeFaults::of(&self.shared)
    }

    /// How it is cut.
    pub fn geometry(&self) -> Geometry {
        self.shared.geometry
    }
}

impl<X: Exec> Shared<X> {
    pub(super) fn tell(&self, line: core::fmt::Arguments<'_>) {
        if let Some(watch) = &self.options.watch {
            watch(line);
        }
    }

    /// Performs one call on the pages of `run`: tells, counts, fails when it is its turn, then `f`.
    fn call(
        &self,
        operation: &'static str,
        run: PageRun,
        count: impl FnOnce(&mut HostCalls) -> &mut u64,
        f: impl FnOnce(&mut State) -> Result<(), i32>,
    ) -> Result<(), HostError> {
        self.tell(format_args!("{operation} {}+{}", run.first.0, run.count));
        let bytes = self.geometry.bytes_of(run);
        assert!(
            bytes.end <= self.profile.reservation_bytes,
            "{operation} of {run:?} ends past the reservation"
        );
        let mut guard = locked(&self.state);
        let state = &mut *guard;
        *count(&mut state.calls) += 1;
        let failure = |errno| match errno {
            ENOMEM => HostError::OutOfMemory { operation, bytes: bytes.len(), source: Errno(errno) },
            _ => HostError::Refused {
                operation,
                offset: bytes.start,
                bytes: bytes.len(),
                source: Errno(errno),
            },
        };
        if state.fail_in > 0 {
            state.fail_in -= 1;
            if state.fail_in == 0 {
                state.failed.push(operation);
                let usual = if operation == "populate" { ENOMEM } else { EIO };
                return Err(failure(state.fail_errno.map_or(usual, |errno| errno.0)));
            }
        }
        let before: Option<Vec<Mapping>> =
            self.options.weakened.as_ref().map(|_| state.run(run).iter().map(|p| p.mapping).collect());
        f(state).map_err(failure)?;
        if let (Some(weakened), Some(before)) = (&self.options.weakened, before) {
            let after: Vec<Mapping> = state.run(run).iter().map(|p| p.mapping).collect();
            drop(guard);
            for (i, (from, to)) in before.into_iter().zip(after).enumerate() {
                if to.rights() < from.rights() {
                    weakened(Weakening { operation, page: PageIndex(run.first.0 + i as u64), from, to });
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// A message, on its way or kept back.
    pub(super) fn queue(&mut self, fault: Fault) {
        let copies = if self.doubled { 2 } else { 1 };
        for _ in 0..copies {
            match &mut self.held {
                Some(held) => held.push(fault),
                None => self.faults.push_back(fault),
            }
        }
    }

    fn run(&mut self, run: PageRun) -> &mut [Page] {
        &mut self.pages[run.first.0 as usize..run.end().0 as usize]
    }
}

impl<X: Exec> HostMemory for FakeHost<X> {
    fn profile(&self) -> &HostProfile {
        &self.shared.profile
    }

    /// The address of the allocation. Only [`FakeHost::load`] and [`FakeHost::store`] heed the page table.
    fn base(&self) -> usize {
        self.shared.bytes.raw().as_ptr() as usize
    }

    fn owned(&self) -> bool {
        true
    }

    fn alias(&self, range: ByteRange) -> RawBytes {
        self.shared.bytes.raw().slice(range.start as usize, range.len() as usize)
    }

    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.call(
            "populate",
            run,
            |c| &mut c.populate,
            |state| {
                let limit = self.shared.options.populated_pages_max;
                let holes = state.run(run).iter().filter(|p| !p.populated).count() as u64;
                if state.populated + holes > limit {
                    return Err(ENOMEM);
                }
                state.run(run).iter_mut().for_each(|p| p.populated = true);
                state.populated += holes;
                Ok(())
            },
        )
    }

    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.call(
            "revoke",
            run,
            |c| &mut c.revoke,
            |state| {
                state.run(run).iter_mut().for_each(|p| p.mapping = Mapping::Absent);
                Ok(())
            },
        )
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.call(
            "protect",
            run,
            |c| &mut c.protect,
            |state| {
                if !self.shared.options.protect {
                    return Err(EOPNOTSUPP);
                }
                for page in state.run(run).iter_mut().filter(|p| p.mapping == Mapping::ReadWrite) {
                    page.mapping = Mapping::ReadOnly;
                }
                Ok(())
            },
        )
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        let (operation, mapping) = match access {
            Access::ReadOnly => ("publish read-only", Mapping::ReadOnly),
            Access::ReadWrite => ("publish read-write", Mapping::ReadWrite),
        };
        self.shared.call(
            operation,
            run,
            |c| &mut c.publish,
            |state| {
                if access == Access::ReadOnly && !self.shared.options.publish_read_only {
                    return Err(EOPNOTSUPP);
                }
                for page in state.run(run).iter() {
                    match page {
                        Page { mapping: Mapping::Poisoned, .. } => return Err(EEXIST),
                        Page { populated: false, .. } => return Err(EFAULT),
                        _ => {}
                    }
                }
                for page in state.run(run) {
                    page.mapping = mapping;
                    page.wakes = page.wakes.wrapping_add(1);
                }
                Ok(())
            },
        )?;
        self.shared.woken.notify();
        Ok(())
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.call(
            "poison",
            run,
            |c| &mut c.poison,
            |state| {
                if state.run(run).iter().any(|p| matches!(p.mapping, Mapping::ReadOnly | Mapping::ReadWrite))
                {
                    return Err(EEXIST);
                }
                for page in state.run(run) {
                    page.mapping = Mapping::Poisoned;
                    page.wakes = page.wakes.wrapping_add(1);
                }
                Ok(())
            },
        )?;
        self.shared.woken.notify();
        Ok(())
    }

    /// # Panics
    /// If a device import covers the run.
    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        let bytes = self.alias(self.shared.geometry.bytes_of(run));
        assert!(!self.shared.options.imports.covers(bytes), "punch of {run:?} under a device import");
        self.shared.call(
            "punch",
            run,
            |c| &mut c.punch,
            |state| {
                let given_back = state.run(run).iter().filter(|p| p.populated).count() as u64;
                for page in state.run(run) {
                    page.mapping = Mapping::Absent;
                    page.populated = false;
                }
                state.populated -= given_back;
                bytes.fill(0);
                Ok(())
            },
        )
    }
}
