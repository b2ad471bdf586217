//! LinuxFaults: reads the userfaultfd, or what signal handlers posted. Several threads may read; all are woken for each message and
//! all but one find nothing.

use crate::exec::monotonic_ns;
use crate::futex::timespec;
use crate::host::{Engine, Shared};
use crate::ioctl::errno;
use crate::uffd::MESSAGES_MAX;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io;
use std::sync::Arc;
use vkhmm_core::units::{Geometry, PageIndex};
use vkhmm_port::host::Errno;
use vkhmm_port::{Fault, FaultSource, HostError, Resolver};

/// The messages of the userfaultfd, or of signal handlers.
pub struct LinuxFaults {
    shared: Arc<Shared>,
    /// Readable for ever once interrupted; nobody reads it.
    interrupt: OwnedFd,
    interrupted: AtomicBool,
    /// How long a reader that served a fault looks for the next one before it sleeps: sequential touches come one after another,
    /// and waking a sleeper costs as much.
    spin_ns: u64,
    /// A message was handed out since somebody last spun.
    served: AtomicBool,
}

impl LinuxFaults {
    pub(crate) fn new(shared: Arc<Shared>, spin_ns: u64) -> io::Result<Self> {
        let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            shared,
            interrupt,
            interrupted: AtomicBool::new(false),
            spin_ns,
            served: AtomicBool::new(false),
        })
    }

    /// Takes what is there, without waiting.
    fn take(&self, faults: &mut Vec<Fault>) -> Result<bool, HostError> {
        let base = self.shared.base();
        let page_bytes = Geometry::PRODUCTION.page_bytes as usize;
        let taken = match self.shared.engine() {
            Engine::Uffd(uffd) => uffd.read(&mut |address, write| {
                let page = PageIndex((address.wrapping_sub(base) / page_bytes) as u64);
                faults.push(Fault { page, write });
            }),
            other => Ok(other.touches().map_or(0, |t| t.take(MESSAGES_MAX, &mut |fault| faults.push(fault)))),
        };
        let some = taken.map_err(|source| broken("reading the userfaultfd", source))? > 0;
        if some {
            self.served.store(true, Ordering::Relaxed);
        }
        Ok(some)
    }

    /// Sleeps until a message or an interrupt comes; whether a message may be there.
    fn sleep(&self, timeout: Option<Duration>) -> Result<bool, HostError> {
        let uffd = match self.shared.engine() {
            Engine::Uffd(uffd) => uffd,
            other => {
                let Some(touches) = other.touches() else { return Ok(false) };
                let some = touches.sleep(&|| self.interrupted.load(Ordering::Acquire), timeout);
                if !some {
                    touches.report_replaced();
                }
                return Ok(some);
            }
        };
        let source = uffd.fd();
        let mut watched = [PollFd::new(&source, PollFlags::IN), PollFd::new(&self.interrupt, PollFlags::IN)];
        match poll(&mut watched, timeout.map(timespec).as_ref()) {
            Ok(_) => {}
            Err(io::Errno::INTR) => return Ok(false),
            Err(e) => return Err(broken("polling the userfaultfd", errno(e))),
        }
        if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            return Err(broken("polling the userfaultfd", Errno(libc::EBADF)));
        }
        Ok(watched[0].revents().contains(PollFlags::IN))
    }
}

impl FaultSource for LinuxFaults {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        self.shared.check_owner()?;
        if self.interrupted.load(Ordering::Acquire) || self.take(faults)? {
            return Ok(());
        }
        let started = monotonic_ns();
        let limit = timeout.map_or(self.spin_ns, |t| self.spin_ns.min(t.as_nanos() as u64));
        // One reader spins per message served; the others sleep at once.
        if limit > 0 && self.served.swap(false, Ordering::Relaxed) {
            while monotonic_ns() - started < limit {
                if self.interrupted.load(Ordering::Acquire) || self.take(faults)? {
                    return Ok(());
                }
                core::hint::spin_loop();
            }
        }
        let spent = Duration::from_nanos(monotonic_ns() - started);
        if self.sleep(timeout.map(|t| t.saturating_sub(spent)))? {
            self.take(faults)?;
        }
        Ok(())
    }

    fn interrupt(&self) {
        // The event count is the parent's too: a child would stop its readers.
        if !self.shared.owned() {
            return;
        }
        self.interrupted.store(true, Ordering::Release);
        // Fails only if the count is at its maximum, and then the descriptor is readable anyway.
        let _ = io::write(&self.interrupt, &1_u64.to_ne_bytes());
        if let Some(touches) = self.shared.engine().touches() {
            touches.ring();
        }
    }

    fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        // In a child, handlers that did not come along would be waited for.
        if let Some(touches) = self.shared.engine().touches().filter(|_| self.shared.owned()) {
            touches.resolve_with(resolver);
        }
    }
}

fn broken(operation: &'static str, source: Errno) -> HostError {
    HostError::Refused { operation, offset: 0, bytes: 0, source }
}
