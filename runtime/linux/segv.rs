//! The engine `segv-mprotect`: R's access is changed by mprotect, and a touch of what is closed is a SIGSEGV that the touching thread
//! answers. Works wherever there are signals.
//!
//! Each change of access between neighbouring pages costs the process a mapping, of which the system allows a number
//! (`vm.max_map_count`). They are counted, and calls that take something away are refused while there is still room for those that
//! give it back.

use crate::futex::Lock;
use crate::host::{Failed, Outcome, Verbs};
use crate::ioctl::errno;
use crate::reservation::{Reservation, Span};
use crate::touch::{Pages, Shown, Touches};
use core::sync::atomic::{AtomicUsize, Ordering};
use rustix::mm::{MprotectFlags, mprotect};
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Access, Mutex, Rank};

/// What the system allows where it does not say.
const DEFAULT_MAX: usize = 65_530;
/// Of what is allowed, so much is kept for calls that give access.
const KEPT_FRACTION: usize = 4;

/// Mappings that the engines of this process use, all of them together.
static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// R behind mprotect.
pub(crate) struct Segv {
    pub(crate) touches: Arc<Touches>,
    /// How many mappings R is. Lock: owns the count, and every change of what is shown · blocks on nothing · held for no system call.
    mappings: Lock<usize>,
    /// With how many, in the whole process, calls that take access away are refused.
    allowed: usize,
}

impl Segv {
    /// Closes R. `allowed` lowers what the system says, for tests.
    pub(crate) fn new(
        touches: Arc<Touches>,
        reservation: &Reservation,
        max_mappings: Option<usize>,
    ) -> Result<Self, Failed> {
        let max = max_mappings.or_else(max_map_count).unwrap_or(DEFAULT_MAX);
        let others =
            std::fs::read("/proc/self/maps").map_or(0, |maps| maps.iter().filter(|b| **b == b'\n').count());
        let allowed =
            max.saturating_sub(max / KEPT_FRACTION).saturating_sub(others) + MAPPINGS.load(Ordering::SeqCst);
        MAPPINGS.fetch_add(1, Ordering::SeqCst);
        let engine = Self { touches, mappings: Lock::new(Rank::Leaf, 1), allowed };
        let whole = reservation.span(ByteRange { start: 0, end: reservation.bytes() });
        let whole = whole.ok_or(Failed::system("mprotect", libc::EINVAL))?;
        set_access(whole, Shown::Absent)?;
        Ok(engine)
    }

    /// With how many mappings calls that take access away are refused.
    pub(crate) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Makes `span` show `shown`.
    fn change(
        &self,
        operation: &'static str,
        span: Span,
        shown: Shown,
        takes_away: bool,
    ) -> Result<(), Failed> {
        self.announce(operation, span, shown, takes_away)?;
        set_access(span, shown)
    }

    /// Counts the mappings that `span` will be once it shows `shown`, and says so. A refusal changes nothing.
    fn announce(
        &self,
        operation: &'static str,
        span: Span,
        shown: Shown,
        takes_away: bool,
    ) -> Result<(), Failed> {
        let (pages, (first, count)) = (self.touches.pages(), self.touches.of(span));
        let mut mappings = self.mappings.lock();
        let before = borders(pages, first, count, None);
        let after = borders(pages, first, count, Some(shown));
        let more = after.saturating_sub(before);
        let have = MAPPINGS.load(Ordering::SeqCst) + more;
        if takes_away && more > 0 && have > self.allowed {
            return Err(Failed::Mappings { operation, have, allowed: self.allowed });
        }
        *mappings = *mappings + after - before;
        MAPPINGS.fetch_add(after, Ordering::SeqCst);
        MAPPINGS.fetch_sub(before, Ordering::SeqCst);
        pages.set(first, count, shown);
        Ok(())
    }
}

impl Verbs for Segv {
    fn revoke(&self, _: &Reservation, span: Span) -> Result<(), Failed> {
        self.change("revoke", span, Shown::Absent, true)
    }

    fn protect(&self, _: &Reservation, span: Span) -> Result<(), Failed> {
        // What is absent stays absent, and poison stays poison.
        let (first, count) = self.touches.of(span);
        let mut done = Ok(());
        self.touches.pages().runs(first, count, &mut |at, pages, shown| {
            if shown == Shown::ReadWrite && done.is_ok() {
                let page = span.len / count;
                let part = span.rest((at - first) * page).head(pages * page);
                done = self.change("protect", part, Shown::ReadOnly, true);
            }
        });
        done
    }

    fn publish(&self, _: &Reservation, span: Span, access: Access) -> Result<(), Failed> {
        self.change("publish", span, access.into(), false)?;
        self.touches.wake(span);
        Ok(())
    }

    fn poison(&self, _: &Reservation, span: Span) -> Result<(), Failed> {
        self.change("poison", span, Shown::Poisoned, false)?;
        self.touches.wake(span);
        Ok(())
    }

    fn punch(&self, reservation: &Reservation, span: Span, bytes: ByteRange) -> Result<(), Failed> {
        self.change("punch", span, Shown::Absent, false)?;
        reservation.punch(bytes).map_err(errno).op("punching a hole")?;
        self.touches.wake(span);
        Ok(())
    }
}

impl Drop for Segv {
    fn drop(&mut self) {
        MAPPINGS.fetch_sub(*self.mappings.lock(), Ordering::SeqCst);
    }
}

/// What the system allows a process.
fn max_map_count() -> Option<usize> {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
}

/// Between how many neighbours, of `count` pages from `first` and the two beside them, access changes; `to`: as if all of them
/// showed that.
fn borders(pages: &Pages, first: usize, count: usize, to: Option<Shown>) -> usize {
    let (mut found, mut last) = (0, None);
    let mut next = |shown: Shown| {
        let access = access(shown);
        found += usize::from(last.is_some_and(|last| last != access));
        last = Some(access);
    };
    if first > 0 {
        next(pages.get(first - 1));
    }
    match to {
        Some(shown) => next(shown),
        None => pages.runs(first, count, &mut |_, _, shown| next(shown)),
    }
    if first + count < pages.count() {
        next(pages.get(first + count));
    }
    found
}

fn access(shown: Shown) -> MprotectFlags {
    match shown {
        Shown::Absent | Shown::Poisoned => MprotectFlags::empty(),
        Shown::ReadOnly => MprotectFlags::READ,
        Shown::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
    }
}

fn set_access(span: Span, shown: Shown) -> Result<(), Failed> {
    // SAFETY: the span is inside R (`Span`). Access is taken away only as the order law says, and no Rust reference to such a page
    // is used meanwhile; giving it takes nothing from anyone.
    unsafe { mprotect(span.as_ptr(), span.len, access(shown)) }.map_err(errno).op("mprotect")
}
