//! Messages of the fault engine as a busy system may bring them: late, twice, in another order, and some that nobody caused.

use crate::{Fault, FaultSource, HostError};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use vkhmm_core::units::PageIndex;

/// At most so many messages at once, as the port says.
pub(super) const MESSAGES_MAX: usize = 16;
/// How far from a touched page the pages lie that are said to be touched and are not: three blocks of 4 KiB pages.
const STRAY_PAGES: u64 = 1536;

/// What happens to messages. One number decides all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultTrouble {
    /// Which messages meet what.
    pub seed: u64,
    /// Half of the messages are held back for up to this long, so that later ones pass them.
    pub late: Duration,
    /// Of every hundred messages so many come twice.
    pub twice_percent: u64,
    /// With every hundred messages come so many about pages near by that nobody touched: of the same allocation, of others, of
    /// none.
    pub spurious_percent: u64,
}

/// Messages on their way, and what is to happen to the next ones.
pub(super) struct Stirred {
    trouble: FaultTrouble,
    /// Of the whole reservation.
    pages: u64,
    interrupted: AtomicBool,
    /// Lock: owns the messages held back · blocks on nothing · never held across a call of the source.
    held: Mutex<Held>,
}

struct Held {
    random: u64,
    messages: Vec<(Instant, Fault)>,
}

impl Held {
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % n.max(1)
    }

    fn hold(&mut self, fault: Fault, trouble: &FaultTrouble) {
        let late = if self.below(2) == 0 { 0 } else { self.below(trouble.late.as_nanos() as u64) };
        self.messages.push((Instant::now() + Duration::from_nanos(late), fault));
    }
}

impl Stirred {
    pub(super) fn new(trouble: FaultTrouble, pages: u64) -> Self {
        let random = trouble.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let held = Mutex::new(Held { random, messages: Vec::new() });
        Self { trouble, pages, interrupted: AtomicBool::new(false), held }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    /// As [`FaultSource::next`] of `source`, stirred.
    pub(super) fn next<F: FaultSource>(
        &self,
        source: &F,
        faults: &mut Vec<Fault>,
        timeout: Option<Duration>,
    ) -> Result<(), HostError> {
        let until = timeout.map(|t| Instant::now() + t);
        loop {
            let interrupted = self.interrupted.load(Ordering::Acquire);
            let earliest = self.take_due(faults, interrupted);
            let now = Instant::now();
            if earliest.is_none() || interrupted || until.is_some_and(|u| now >= u) {
                return Ok(());
            }
            let left = [until, earliest.flatten()].into_iter().flatten().min().map(|at| at - now.min(at));
            let mut fresh = Vec::new();
            source.next(&mut fresh, left)?;
            self.stir(&fresh);
        }
    }

    /// Hands over messages that are due, in any order. `None` if there was one; else when the earliest is due, if any is held.
    fn take_due(&self, faults: &mut Vec<Fault>, all: bool) -> Option<Option<Instant>> {
        let mut held = self.held();
        let now = Instant::now();
        let before = faults.len();
        while faults.len() - before < MESSAGES_MAX {
            let due: Vec<usize> = held
                .messages
                .iter()
                .enumerate()
                .filter(|(_, (at, _))| all || *at <= now)
                .map(|(i, _)| i)
                .collect();
            if due.is_empty() {
                break;
            }
            let pick = due[held.below(due.len() as u64) as usize];
            let (_, fault) = held.messages.swap_remove(pick);
            faults.push(fault);
        }
        (faults.len() == before).then(|| held.messages.iter().map(|(at, _)| *at).min())
    }

    fn stir(&self, fresh: &[Fault]) {
        let mut held = self.held();
        for fault in fresh {
            held.hold(*fault, &self.trouble);
            if held.below(100) < self.trouble.twice_percent {
                held.hold(*fault, &self.trouble);
            }
            if held.below(100) < self.trouble.spurious_percent {
                let first = fault.page.0.saturating_sub(STRAY_PAGES);
                let page = PageIndex((first + held.below(2 * STRAY_PAGES)).min(self.pages - 1));
                let write = held.below(2) == 0;
                held.hold(Fault { page, write }, &self.trouble);
            }
        }
    }
}
