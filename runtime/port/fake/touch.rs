//! The application's side of a FakeHost: touches that R allows or that park, and the messages of those that parked.

use super::host::{Mapping, Page, Shared};
use super::{FakeExec, FakeHost, HeldRank, locked};
use crate::{Exec, Fault, FaultMode, FaultSource, HostError, Rank, RawBytes, Resolver, Signal};
use core::sync::atomic::Ordering;
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, PageIndex};

/// A touch that can never succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TouchError {
    /// On real memory: SIGBUS.
    #[error("page {} is poisoned", .0.0)]
    Poisoned(PageIndex),
}

impl<X: Exec> FakeHost<X> {
    /// Touches `page` as an application thread: returns when R allows the access, and is parked until then.
    ///
    /// # Errors
    /// The page is poisoned.
    pub fn touch(&self, page: PageIndex, write: bool) -> Result<(), TouchError> {
        self.shared.access(page, write, || ())
    }

    /// Loads `range` as an application thread would from R, page by page. A page is read at one moment.
    ///
    /// # Errors
    /// As [`Self::touch`].
    pub fn load(&self, range: ByteRange) -> Result<Vec<u8>, TouchError> {
        let mut out = Vec::with_capacity(range.len() as usize);
        self.by_page(range, false, |piece, _| out.extend(piece.to_vec()))?;
        Ok(out)
    }

    /// Stores `bytes` at `offset` as an application thread would to R, page by page. A page is written at one moment.
    ///
    /// # Errors
    /// As [`Self::touch`]; pages before the refused one are written.
    pub fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), TouchError> {
        let range = ByteRange { start: offset, end: offset + bytes.len() as u64 };
        self.by_page(range, true, |piece, at| piece.write(&bytes[at..at + piece.len()]))
    }

    fn by_page(
        &self,
        range: ByteRange,
        write: bool,
        mut f: impl FnMut(RawBytes, usize),
    ) -> Result<(), TouchError> {
        let page_bytes = u64::from(self.shared.geometry.page_bytes);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / page_bytes + 1) * page_bytes);
            let piece = self.shared.bytes.raw().slice(at as usize, (end - at) as usize);
            self.shared
                .access(PageIndex(at / page_bytes), write, || f(piece, (at - range.start) as usize))?;
            at = end;
        }
        Ok(())
    }
}

impl<X: Exec> Shared<X> {
    /// Performs `f` once R allows it. `f` runs under the state's lock, as a store that was allowed ends before a revoke returns.
    fn access<T>(&self, page: PageIndex, write: bool, f: impl FnOnce() -> T) -> Result<T, TouchError> {
        let mut parked_since = None;
        let mut refused = false;
        loop {
            let epoch = self.woken.epoch();
            let mut state = locked(&self.state);
            let Page { mapping, wakes, .. } = state.pages[page.0 as usize];
            match mapping {
                Mapping::ReadWrite => return Ok(f()),
                Mapping::ReadOnly if !write => return Ok(f()),
                Mapping::Poisoned => return Err(TouchError::Poisoned(page)),
                Mapping::ReadOnly | Mapping::Absent => {}
            }
            // Where nobody can be parked, R is mapped always.
            if self.profile.faults == FaultMode::Declared {
                return Ok(f());
            }
            // One message for each time the thread parks; it parks anew only after it was woken for nothing.
            let parks = parked_since != Some(wakes);
            if parks && self.options.in_thread && !refused {
                drop(state);
                refused = !self.resolve(Fault { page, write });
                continue;
            }
            if parks {
                refused = false;
                parked_since = Some(wakes);
                state.queue(Fault { page, write });
                state.calls.faults += 1;
            }
            drop(state);
            if parks {
                self.tell(format_args!("touch page {} write {write}: parked", page.0));
                self.queued.notify();
            }
            self.woken.wait(epoch, None);
        }
    }
}

impl<X: Exec> Shared<X> {
    /// Puts a touch to the resolver, in this thread; whether R may allow it now. While he thinks, nothing may wait.
    fn resolve(&self, fault: Fault) -> bool {
        self.asking.fetch_add(1, Ordering::SeqCst);
        let resolver = locked(&self.resolver).clone();
        let answered = resolver.is_some_and(|resolver| {
            let _nothing_may_wait = HeldRank::taken(Rank::Leaf);
            resolver.resolve(fault)
        });
        self.asking.fetch_sub(1, Ordering::SeqCst);
        self.tell(format_args!(
            "touch page {} write {}: in its thread {answered}",
            fault.page.0, fault.write
        ));
        self.asked.notify();
        answered
    }
}

/// The messages of a [`FakeHost`]. Clones read the same queue.
pub struct FakeFaults<X: Exec = FakeExec> {
    shared: Arc<Shared<X>>,
}

impl<X: Exec> Clone for FakeFaults<X> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<X: Exec> FaultSource for FakeFaults<X> {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        let epoch = self.shared.queued.epoch();
        if !self.take(faults) {
            self.shared.queued.wait(epoch, timeout);
            self.take(faults);
        }
        Ok(())
    }

    fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        if !self.shared.options.in_thread {
            return;
        }
        let last = core::mem::replace(&mut *locked(&self.shared.resolver), resolver);
        loop {
            let epoch = self.shared.asked.epoch();
            if self.shared.asking.load(Ordering::SeqCst) == 0 {
                return drop(last);
            }
            self.shared.asked.wait(epoch, None);
        }
    }

    fn interrupt(&self) {
        locked(&self.shared.state).interrupted = true;
        self.shared.queued.notify();
    }
}

impl<X: Exec> FakeFaults<X> {
    pub(super) fn of(shared: &Arc<Shared<X>>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// Moves up to 16 messages over. Whether the caller has reason to return.
    fn take(&self, faults: &mut Vec<Fault>) -> bool {
        let mut state = locked(&self.shared.state);
        let count = state.faults.len().min(16);
        faults.extend(state.faults.drain(..count));
        count > 0 || state.interrupted
    }
}
