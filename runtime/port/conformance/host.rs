//! The contract of HostMemory and FaultSource.
//!
//! [`mapping`] is about what R allows, [`poison`] about poison and holes, [`faults`] about who is parked and woken, [`messages`] about
//! what is said of it, [`resolver`] about touches that are answered in their own threads. Cases speak in *units*, one map granule each, so that they run at 4 KiB and at 2 MiB alike. A host that parks
//! nobody has R mapped always: its cases say so.

mod faults;
mod mapping;
mod messages;
mod poison;
mod resolver;

use super::{Case, PATIENCE, QUIET, Task, is_stopped, run_all};
use crate::fake::FakeHost;
use crate::{Access, Exec, Fault, FaultMode, FaultSource, HostMemory};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};

/// R as an application thread sees it. On real memory: a volatile load or store at `base + offset`.
pub trait AppView: Send + Sync + 'static {
    /// Loads the byte at `offset` of the reservation; parked while R forbids it.
    fn load(&self, offset: u64) -> u8;

    /// Stores `value` at `offset` of the reservation; parked while R forbids it.
    fn store(&self, offset: u64, value: u8);

    /// Whether a load at `offset` ends in SIGBUS, found out without dying of it. (On Linux a system call that reads the byte says
    /// EFAULT; it is parked where system calls are.) Called for poisoned and for published pages, and for absent ones where the
    /// host parks everybody.
    fn poisoned(&self, offset: u64) -> bool;
}

impl<X: Exec> AppView for FakeHost<X> {
    fn load(&self, offset: u64) -> u8 {
        let range = ByteRange { start: offset, end: offset + 1 };
        FakeHost::load(self, range).expect("a case touches pages that can be served")[0]
    }

    fn store(&self, offset: u64, value: u8) {
        FakeHost::store(self, offset, &[value]).expect("a case touches pages that can be served");
    }

    fn poisoned(&self, offset: u64) -> bool {
        let page = PageIndex(offset / u64::from(self.geometry().page_bytes));
        self.touch(page, false).is_err()
    }
}

/// What one case works on: fresh memory of at least eight map granules, all holes, and its fault source, which nobody else reads.
pub struct HostUnderTest<H, F> {
    geometry: Geometry,
    host: Arc<H>,
    faults: Arc<F>,
    view: Arc<dyn AppView>,
    asks_in_threads: bool,
}

impl<H: HostMemory, F: FaultSource> HostUnderTest<H, F> {
    /// Binds the parts of one reservation. `geometry.page_bytes` is the page of `host`'s runs.
    pub fn new(geometry: Geometry, host: H, faults: F, view: impl AppView) -> Self {
        let (host, faults, view) = (Arc::new(host), Arc::new(faults), Arc::new(view));
        Self { geometry, host, faults, view, asks_in_threads: false }
    }

    /// Its fault source puts touches to the resolver in the threads that made them; any other one must not.
    #[must_use]
    pub fn asking_in_threads(self) -> Self {
        Self { asks_in_threads: true, ..self }
    }
}

/// How many cases [`run_host`] runs, whatever the profile.
pub const HOST_CASES: usize = 33;

/// Runs the suite; how many cases ran, which is [`HOST_CASES`]. `exec` starts the application threads: for an engine that resolves
/// faults in the faulting thread it must be one that blocks no signals (`FakeExec`).
///
/// # Panics
/// At the first broken promise.
pub fn run_host<X: Exec, H: HostMemory, F: FaultSource>(
    exec: &X,
    factory: &dyn Fn() -> HostUnderTest<H, F>,
) -> usize {
    let cases: [Case<Stage<X, H, F>>; HOST_CASES] = [
        ("the profile is sound and does not change", mapping::profile),
        ("A is zeros, then what was written", mapping::alias),
        ("A ends with the reservation", mapping::alias_end),
        ("populate keeps bytes and gives zeros", mapping::populate),
        ("a read-only page loads, a store faults", mapping::read_only),
        ("a read-write page loads and stores", mapping::read_write),
        ("stores through R are in A after revoke", mapping::revoke),
        ("revoke takes its run and nothing beside it", mapping::revoke_run),
        ("protect stops stores, not loads", mapping::protect),
        ("protect leaves absent pages absent", mapping::protect_absent),
        ("publish over published wakes and keeps bytes", mapping::publish_again),
        ("one publish serves a partly present run", mapping::partly_present),
        ("punch gives zeros and forgets protection", poison::punch),
        ("poison ends touches, punch ends poison", poison::poison),
        ("poison upon poison is no error", poison::poison_again),
        ("poison ends with revoke and publish", poison::revoke_ends_poison),
        ("publish over poison shows the page or fails", poison::publish_over_poison),
        ("poison ends a touch that is parked", poison::poison_parked),
        ("read-only to read-write wakes the writer", faults::upgrade),
        ("a page dropped behind us is published again", faults::dropped),
        ("one publish wakes every thread on the page", faults::many_parked),
        ("a parked load sees what was copied in", faults::copied_before_publish),
        ("answers to faults that are over do no harm", faults::spurious),
        ("no store is lost to a revoke", faults::no_lost_store),
        ("no store passes a protected page", faults::no_store_while_protected),
        ("next ends at its timeout", messages::next_times_out),
        ("next appends, sixteen at most", messages::sixteen),
        ("a message names the page and the access", messages::names),
        ("interrupt ends every next", messages::interrupt),
        ("several readers share the messages", messages::readers),
        ("a resolver is asked, with page and access", resolver::asked),
        ("what a resolver leaves comes as a message", resolver::left),
        ("nobody is inside a resolver that was taken back", resolver::taken_back),
    ];
    run_all("host", &cases, || Stage { exec: exec.clone(), it: factory() })
}

struct Stage<X, H, F> {
    exec: X,
    it: HostUnderTest<H, F>,
}

impl<X: Exec, H: HostMemory, F: FaultSource> Stage<X, H, F> {
    fn host(&self) -> &H {
        &self.it.host
    }

    /// Map granule `n`, from the reservation's start.
    fn unit(&self, n: u64) -> PageRun {
        let pages = u64::from(self.host().profile().map_granule_bytes / self.it.geometry.page_bytes);
        PageRun { first: PageIndex(n * pages), count: pages as u32 }
    }

    fn units(&self, n: u64, count: u32) -> PageRun {
        let one = self.unit(n);
        PageRun { first: one.first, count: one.count * count }
    }

    /// A byte in the last page of granule `n`.
    fn at(&self, n: u64) -> u64 {
        self.it.geometry.bytes_of(self.unit(n)).end - 3
    }

    fn get(&self, offset: u64) -> u8 {
        self.host().alias(ByteRange { start: offset, end: offset + 1 }).to_vec()[0]
    }

    fn set(&self, offset: u64, value: u8) {
        self.host().alias(ByteRange { start: offset, end: offset + 1 }).write(&[value]);
    }

    fn publish(&self, run: PageRun, access: Access) {
        self.host().populate(run).expect("populate");
        self.host().publish(run, access).expect("publish");
    }

    fn load(&self, offset: u64) -> Task<X, u8> {
        let view = Arc::clone(&self.it.view);
        Task::start(&self.exec, "load", move || view.load(offset))
    }

    fn store(&self, offset: u64, value: u8) -> Task<X, ()> {
        let view = Arc::clone(&self.it.view);
        Task::start(&self.exec, "store", move || view.store(offset, value))
    }

    fn poisoned(&self, offset: u64) -> bool {
        self.it.view.poisoned(offset)
    }

    /// The next message about `run`. Others are repetitions of what a case has answered, and dropped.
    fn fault(&self, run: PageRun) -> Fault {
        let end = self.exec.now() + PATIENCE.as_nanos() as u64;
        let mut faults = Vec::new();
        while self.exec.now() < end {
            self.it.faults.next(&mut faults, Some(QUIET)).expect("next");
            if let Some(fault) = faults.iter().find(|f| run.contains(f.page)) {
                return *fault;
            }
            faults.clear();
        }
        panic!("no message for a touch of {run:?} within {PATIENCE:?}");
    }

    /// Nobody is or was parked without an answer.
    fn no_message(&self) {
        let mut faults = Vec::new();
        self.it.faults.next(&mut faults, Some(QUIET)).expect("next");
        self.it.faults.next(&mut faults, Some(Duration::ZERO)).expect("next");
        assert_eq!(faults, [], "messages about touches that nobody made, or that needed no answer");
    }

    fn parks(&self) -> bool {
        self.host().profile().faults != FaultMode::Declared
    }

    /// Publishing `run` read-only is refused, and changes nothing.
    fn read_only_is_refused(&self, run: PageRun) {
        let refused = is_stopped(|| self.host().publish(run, Access::ReadOnly));
        assert!(refused, "published read-only, though the profile says that it cannot be");
    }

    /// Protecting `run` is refused, and changes nothing.
    fn protect_is_refused(&self, run: PageRun) {
        let refused = is_stopped(|| self.host().protect(run));
        assert!(refused, "protected, though the profile says that it cannot be");
    }
}
