//! The test's side of a FakeHost: what it has seen, which calls fail, which messages come and how.

use super::super::locked;
use super::{FakeHost, HostCalls, Mapping};
use crate::host::Errno;
use crate::{Exec, Fault, Signal};
use vkhmm_core::units::PageIndex;

impl<X: Exec> FakeHost<X> {
    /// How often each call was made so far.
    pub fn calls(&self) -> HostCalls {
        locked(&self.shared.state).calls
    }

    /// Lets the `n`-th call of populate, revoke, protect, publish, poison or punch from now fail (1: the next one). Zero: none.
    pub fn fail_call(&self, n: u64) {
        let mut state = locked(&self.shared.state);
        (state.fail_in, state.fail_errno) = (n, None);
    }

    /// As [`Self::fail_call`]; the call says `errno`, which is `OutOfMemory` if it is ENOMEM and `Refused` otherwise.
    pub fn fail_call_with(&self, n: u64, errno: Errno) {
        let mut state = locked(&self.shared.state);
        (state.fail_in, state.fail_errno) = (n, Some(errno));
    }

    /// The calls that failed because they were told to, in order.
    pub fn told_to_fail(&self) -> Vec<&'static str> {
        locked(&self.shared.state).failed.clone()
    }

    /// What R allows on `page` right now.
    pub fn mapping(&self, page: PageIndex) -> Mapping {
        locked(&self.shared.state).pages[page.0 as usize].mapping
    }

    /// Whether `page` has a host page right now.
    pub fn populated(&self, page: PageIndex) -> bool {
        locked(&self.shared.state).pages[page.0 as usize].populated
    }

    /// How many pages have a host page right now.
    pub fn populated_pages(&self) -> u64 {
        locked(&self.shared.state).populated
    }

    /// Makes `page` absent in R, if it is mapped, and wakes nobody, as the kernel may at any time (reclaim, splitting of huge pages).
    pub fn zap(&self, page: PageIndex) {
        let mapping = &mut locked(&self.shared.state).pages[page.0 as usize].mapping;
        if *mapping != Mapping::Poisoned {
            *mapping = Mapping::Absent;
        }
    }

    /// Queues a message that no thread stands behind: a spurious or doubled fault.
    pub fn inject(&self, fault: Fault) {
        locked(&self.shared.state).queue(fault);
        self.shared.queued.notify();
    }

    /// Keeps messages back from now on; those kept back so far come when it ends, the latest first.
    pub fn hold_faults(&self, on: bool) {
        {
            let mut state = locked(&self.shared.state);
            match (on, state.held.take()) {
                (true, held) => state.held = Some(held.unwrap_or_default()),
                (false, held) => state.faults.extend(held.into_iter().flatten().rev()),
            }
        }
        self.shared.queued.notify();
    }

    /// Whether every message comes twice from now on.
    pub fn double_faults(&self, on: bool) {
        locked(&self.shared.state).doubled = on;
    }
}
