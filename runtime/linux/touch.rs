//! Touches of R that are answered in the thread that made them: what the two engines without messages, `uffd-sigbus` and
//! `segv-mprotect`, have in common.
//!
//! ```text
//!   SIGBUS / SIGSEGV ──► action: whose address?  ── nobody's, or poison ──► the application's handler, as the kernel would call it
//!                           │ a page of ours
//!                           ▼
//!                        resolver, on a stack of ours ── answered ──► back to the instruction
//!                           │ not now, or no stack free
//!                           ▼
//!                        waiters: posted for FaultSource::next, the thread sleeps until its page is served
//! ```
//!
//! Nothing on this way allocates, takes a lock of std, logs, or (in release builds) uses a thread-local.

mod action;
mod arch;
mod guarded;
mod pages;
mod stacks;
mod waiters;

pub(crate) use action::install;
pub(crate) use pages::{Pages, Shown};

use crate::exec::LinuxExec;
use crate::fork::Owner;
use crate::reservation::{Reservation, Span};
use action::replaced_by;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use guarded::Guarded;
use rustix::io;
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_core::units::{Geometry, PageIndex, PageRun};
use vkhmm_port::{Exec, Fault, Resolver};
use waiters::Waiters;

/// What people are told when somebody took our handler's place.
pub(crate) const REPLACED: &str = "the application installed a handler for SIGSEGV or SIGBUS after vkhmm's: touches of managed memory \
    reach vkhmm only if that handler passes on what is not its own; install it before the first runtime is built";
static REPORTED: AtomicBool = AtomicBool::new(false);

const PAGE: usize = Geometry::PRODUCTION.page_bytes as usize;
/// Reservations that can be open at once with such engines.
const RESERVATIONS: usize = 64;

/// What a signal handler needs to know of one reservation.
pub(crate) struct Touches {
    owner: Arc<Owner>,
    base: usize,
    /// The signal that a touch raises; another one at an address of R is nothing that we could answer.
    signal: c_int,
    /// The signal's context says whether it was a store.
    stores_known: bool,
    pages: Pages,
    waiters: Waiters,
    resolver: Guarded<Arc<dyn Resolver>>,
    /// Lock: owns nothing, excludes those who set the resolver · waits for handlers to leave it · never taken in a handler.
    setting: Mutex<()>,
}

impl Touches {
    pub(crate) fn new(
        owner: Arc<Owner>,
        reservation: &Reservation,
        signal: c_int,
        stores_known: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            owner,
            base: reservation.base(),
            signal,
            stores_known,
            pages: Pages::new(reservation.bytes() as usize / PAGE)?,
            waiters: Waiters::new(),
            resolver: Guarded::empty(),
            setting: Mutex::new(()),
        })
    }

    /// What R shows.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The pages of `span`: the first, and how many.
    pub(crate) fn of(&self, span: Span) -> (usize, usize) {
        ((span.start - self.base) / PAGE, span.len / PAGE)
    }

    /// Says what is about to be shown of `span`.
    pub(crate) fn shows(&self, span: Span, shown: Shown) {
        let (first, count) = self.of(span);
        self.pages.set(first, count, shown);
    }

    /// Lets who waits for a page of `span` try again.
    pub(crate) fn wake(&self, span: Span) {
        let (first, count) = self.of(span);
        self.waiters.wake(PageRun { first: PageIndex(first as u64), count: count as u32 });
    }

    /// See [`vkhmm_port::FaultSource::resolve_with`].
    pub(crate) fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        let _one = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.resolver.replace(resolver.map(Box::new)));
    }

    /// Takes at most `most` touches that wait for a reader.
    pub(crate) fn take(&self, most: usize, each: &mut dyn FnMut(Fault)) -> usize {
        self.waiters.take(most, each)
    }

    /// Sleeps until a touch waits for a reader or [`Self::ring`] is called; whether there may be one. Not if `stop` says so.
    pub(crate) fn sleep(&self, stop: &dyn Fn() -> bool, timeout: Option<Duration>) -> bool {
        self.waiters.sleep(stop, timeout)
    }

    /// Wakes the readers.
    pub(crate) fn ring(&self) {
        self.waiters.ring();
    }

    /// Whether the signal's context says whether a touch was a store.
    pub(crate) fn stores_known(&self) -> bool {
        self.stores_known
    }

    /// Whether an application's handler took the place of ours.
    pub(crate) fn is_replaced(&self) -> bool {
        replaced_by(self.signal).is_some()
    }

    /// Says once in the life of the process that somebody did. Costs a system call until then. Not where the default is back: so
    /// does who ends the process at the fault that it was handed.
    pub(crate) fn report_replaced(&self) {
        if REPORTED.load(Ordering::Relaxed) {
            return;
        }
        let by = replaced_by(self.signal).filter(|action| *action != libc::SIG_DFL);
        if by.is_some() && !REPORTED.swap(true, Ordering::Relaxed) {
            LinuxExec::new().report(format_args!("{REPLACED}"));
        }
    }

    /// In the handler: whether the touch is ours. If so the page may have been served, and the thread is to try again.
    fn answer(&self, signal: c_int, address: usize, store: bool) -> bool {
        // First of all: in a forked child this memory is the child's copy, and the mapping is not there.
        if !self.owner.owned() || signal != self.signal {
            return false;
        }
        let Some(page) = address.checked_sub(self.base).map(|offset| offset / PAGE) else { return false };
        if page >= self.pages.count() {
            return false;
        }
        let shown = self.pages.get(page);
        if shown == Shown::Poisoned {
            return false;
        }
        // Where nobody tells, a store is at first taken for a load; on a page that shows its bytes it can only be a store.
        let write = if self.stores_known { store } else { shown == Shown::ReadOnly };
        let fault = Fault { page: PageIndex(page as u64), write };
        if !self.resolved(fault) {
            self.waiters.park(fault);
        }
        true
    }

    fn resolved(&self, fault: Fault) -> bool {
        self.resolver.with(|resolver| {
            let Some(resolver) = resolver else { return false };
            let mut asked = Asked { resolver: &**resolver, fault, answer: false };
            stacks::call(ask, (&raw mut asked).cast()) && asked.answer
        })
    }
}

/// A question, and its answer.
struct Asked<'a> {
    resolver: &'a dyn Resolver,
    fault: Fault,
    answer: bool,
}

extern "C" fn ask(asked: *mut c_void) {
    // SAFETY: `resolved` passes its own, which lives until the call ends, and looks at it afterwards only.
    let asked = unsafe { &mut *asked.cast::<Asked<'_>>() };
    asked.answer = asked.resolver.resolve(asked.fault);
}

/// One line of the handlers' table: the addresses, to pass over others quickly, and what is there.
struct Entry {
    start: AtomicUsize,
    end: AtomicUsize,
    touches: Guarded<Arc<Touches>>,
}

static TABLE: [Entry; RESERVATIONS] =
    [const { Entry { start: AtomicUsize::new(0), end: AtomicUsize::new(0), touches: Guarded::empty() } };
        RESERVATIONS];

/// Lock: owns which lines of the table are free · waits for handlers to leave a line · never taken in a handler.
static REGISTERING: Mutex<()> = Mutex::new(());

/// A line of the table. Handlers know the reservation until it is dropped; must not be dropped in a forked child, where handlers
/// that did not come along would be waited for.
pub(crate) struct Registration {
    entry: &'static Entry,
}

impl Registration {
    /// Tells the handlers. `None` if the table is full.
    pub(crate) fn new(touches: &Arc<Touches>) -> Option<Self> {
        let _one = REGISTERING.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = TABLE.iter().find(|entry| entry.end.load(Ordering::SeqCst) == 0)?;
        drop(entry.touches.replace(Some(Box::new(Arc::clone(touches)))));
        entry.start.store(touches.base, Ordering::SeqCst);
        entry.end.store(touches.base + touches.pages.count() * PAGE, Ordering::SeqCst);
        Some(Self { entry })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _one = REGISTERING.lock().unwrap_or_else(PoisonError::into_inner);
        let touches = self.entry.touches.replace(None);
        self.entry.start.store(0, Ordering::SeqCst);
        self.entry.end.store(0, Ordering::SeqCst);
        drop(touches);
    }
}

/// In the handler: whether some reservation of ours has the address and its page is one that can be served.
fn answer(signal: c_int, address: usize, store: bool) -> bool {
    TABLE.iter().any(|entry| {
        let start = entry.start.load(Ordering::Relaxed);
        address >= start
            && address < entry.end.load(Ordering::Relaxed)
            && entry.touches.with(|touches| touches.is_some_and(|t| t.answer(signal, address, store)))
    })
}
