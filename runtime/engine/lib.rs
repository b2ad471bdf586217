//! vkhmm-engine: takes events (touches, launches, completions), asks core, performs effects over the ports in the order law.
//!
//! ```text
//!   touch ──► fault ──► core::block ──► home ──► Device::submit ─ ─ ─ ┐
//!   launch ─► launch ─► admit ─► core::{placement, block} ─► submit ─ ┤     down: each flow takes its holds and leaves
//!                                                                     ▼
//!   parked touches, waiters, zombies ◄── complete ◄───────────── Device::wait     up: one completion thread ends holds
//! ```
//!
//! Lock order, outer to inner: admission ▸ space ▸ block (ascending) ▸ gate ▸ arena ▸ submit ▸ leaf. No standard lock, thread or
//! clock is named here: everything goes through [`vkhmm_port::Exec`], so a simulator that implements it decides every
//! interleaving. A flow never waits with a lock held, and a fault handler never waits at all.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod acquire;
mod admit;
mod advise;
mod ahead;
mod arena;
mod audit;
mod binds;
mod complete;
mod discard;
mod error;
mod fault;
mod fence;
mod frames;
mod home;
mod host;
mod in_place;
mod launch;
mod lose;
mod memory;
mod op;
mod paged;
mod pins;
mod prefetch;
mod range;
mod report;
mod resolve;
mod stats;
mod submit;
mod thrash;
mod trace;
mod waits;

pub use acquire::{Acquired, AcquiredPart};
pub use advise::{Attributes, Places};
pub use audit::Leftovers;
pub use error::EngineError;
pub use host::{GuardKind, Residency};
pub use launch::{AccessKind, Argument, BindTo, LaunchSpec};
pub use op::{Op, OpStatus};
pub use paged::{PagedArgument, PagedSpec, PagingReport};
pub use pins::PinId;
pub use prefetch::{Part, Prefetch, SkipReason, Skipped};
pub use range::{PlacementKind, RangeCell};
pub use stats::Stats;
pub use trace::{TraceCause, TraceEvent};
pub use waits::Waits;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use report::Place;
use stats::Counters;
use vkhmm_core::policy::{Adaptive, Policy};
use vkhmm_core::units::{Geometry, OpId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Exec, FaultMode, FaultSource, HostMemory, Mutex, Rank, Signal};

/// The ports an engine runs on.
pub trait Ports: Sized + 'static {
    /// Locks, threads, time.
    type Exec: Exec;
    /// Host memory.
    type Host: HostMemory;
    /// The device.
    type Device: Device;
}

/// What the engine's user decides; constant for its life except the limit.
#[derive(Clone, Debug)]
pub struct Config {
    /// Page, sub-block and block sizes.
    pub geometry: Geometry,
    /// Most bytes of device memory that frames may take; `None`: what the device offers.
    pub device_memory_limit: Option<u64>,
    /// Most bytes of host memory the device may have imported at a time.
    pub import_limit: u64,
    /// Ranges below this many bytes are staged, not imported.
    pub import_bytes_min: u64,
    /// Ranges get sparse buffers where the device has them.
    pub sparse: bool,
    /// Ranges of at most this many bytes are used in place on every kind of device, where it can.
    pub in_place_bytes: u64,
    /// What to fetch beyond what was asked, and whom to evict.
    pub policy: Arc<dyn Policy>,
    /// Launches revoke also what would have stayed shared, so that a missing guard fails on the first run.
    pub strict_io: bool,
    /// Launches per batch before it is submitted.
    pub batch_launches_max: usize,
    /// A launch from whose arguments R is to be taken away submits its copies in parts of at least so many bytes, each once its own
    /// pages are taken and before so much more is.
    pub part_bytes: u64,
    /// How long a recorded launch may wait for company.
    pub batch_age: Duration,
    /// A block that a paged launch only reads is read in host memory once its sub-blocks came so often again; zero: never.
    pub remote_after: u32,
    /// After so long it may be moved again.
    pub remote_time: Duration,
    /// Longer waits are reported once to stderr.
    pub watchdog: Duration,
    /// Threads that read the fault source.
    pub fault_threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            geometry: Geometry::PRODUCTION,
            device_memory_limit: None,
            import_limit: u64::MAX,
            import_bytes_min: 2 << 20,
            sparse: true,
            in_place_bytes: 64 << 10,
            policy: Arc::new(Adaptive),
            strict_io: cfg!(debug_assertions),
            batch_launches_max: 64,
            part_bytes: 8 << 20,
            batch_age: Duration::from_micros(200),
            remote_after: 2,
            remote_time: Duration::from_millis(100),
            watchdog: Duration::from_secs(10),
            fault_threads: 2,
        }
    }
}

type MutexOf<P, T> = <<P as Ports>::Exec as Exec>::Mutex<T>;
type BlockGuard<'a, P> = <MutexOf<P, vkhmm_core::block::Block> as Mutex<vkhmm_core::block::Block>>::Guard<'a>;
type SignalOf<P> = <<P as Ports>::Exec as Exec>::Signal;

/// The runtime's heart. One per runtime; everything is reached through it.
pub struct Engine<P: Ports> {
    pub(crate) exec: P::Exec,
    /// First to go: it waits until nothing runs. Then the imports and buffers below, and host memory last of all: a device may
    /// reach it as long as it exists.
    pub(crate) device: Arc<P::Device>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// Who is where, for reports.
    pub(crate) places: report::Places,
    /// Lock: space. Owns the table of ranges and the free blocks · may block on poisoning a stray page · never waits for work.
    pub(crate) space: MutexOf<P, range::Space<P>>,
    /// Lock: arena. Owns pagemaps, placement and span buffers · may block on the driver making a buffer · never waits for work.
    pub(crate) arena: MutexOf<P, arena::Arena<P>>,
    /// Lock: submit. Owns the open batch, the submission queue and ticket values · may block on the driver's submit · never
    /// waits for work.
    pub(crate) submit: MutexOf<P, submit::Submit<P>>,
    /// Lock: admission. Owns the turn numbers only; a turn is held without the lock.
    pub(crate) turns: MutexOf<P, admit::Turns>,
    /// Lock: leaf. Owns the table of operations that are not over.
    pub(crate) ops: MutexOf<P, alloc::collections::BTreeMap<OpId, Arc<Op<P>>>>,
    /// Lock: leaf. Owns what is in flight, per timeline in order of value.
    pub(crate) flights: MutexOf<P, submit::Flights<P>>,
    /// Lock: leaf. Owns the free staging slots and the copies home that wait for one.
    pub(crate) slots: MutexOf<P, submit::Slots<P>>,
    /// Lock: leaf. Owns the copies home that wait for their last writers without a submission.
    pub(crate) fences: MutexOf<P, fence::Fences<P>>,
    /// Lock: leaf. Owns dropped ranges that operations still use.
    pub(crate) zombies: MutexOf<P, Vec<Arc<RangeCell<P>>>>,
    /// Lock: leaf. Owns the views of device memory that need no driver.
    pub(crate) views: MutexOf<P, resolve::Views>,
    /// Lock: leaf. Owns ranges that are gone, for as long as a visitor may have found them.
    pub(crate) bygone: resolve::Bygone<P>,
    /// Touches that are being answered in their own threads.
    pub(crate) visitors: AtomicU32,
    /// Lock: leaf. Owns the last trace events.
    pub(crate) trace: MutexOf<P, trace::Ring>,
    /// Lock: leaf. Owns the waits by label.
    pub(crate) waited: MutexOf<P, waits::Table>,
    /// Lock: leaf. Owns the story of the loss.
    pub(crate) loss: MutexOf<P, Option<Arc<str>>>,
    /// A new epoch whenever something that somebody may wait for has happened.
    pub(crate) progress: SignalOf<P>,
    /// Wakes the submission thread.
    pub(crate) work: SignalOf<P>,
    /// Wakes the completion thread where it leaves launches to whoever waits for them.
    pub(crate) called: SignalOf<P>,
    /// Threads that wait for progress which the completion thread may have to bring about.
    pub(crate) sleepers: AtomicU32,
    /// How often somebody began to wait for the device, and to land what it has done.
    pub(crate) waits_begun: AtomicU32,
    pub(crate) completed: MutexOf<P, Uses>,
    next_op: AtomicU64,
    /// Acquires that are being asked for, or open.
    pub(crate) acquires_open: AtomicU32,
    /// Paged launches that are not over.
    pub(crate) paged: AtomicU32,
    /// Lock: leaf. Owns tables that kernels of a lost device may still reach.
    pub(crate) kept_tables: MutexOf<P, Vec<Arc<paged::Tables<P>>>>,
    /// Guesses on their way home.
    pub(crate) ahead: AtomicU32,
    pub(crate) clock: AtomicU64,
    pub(crate) lost: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// A touch waits for the open batch, which the submission thread is to submit.
    pub(crate) flush_asked: AtomicBool,
    pub(crate) faults_parked: bool,
    /// Nothing that answers touches may submit (`fence.rs`).
    pub(crate) queue_is_shared: bool,
    pub(crate) duplicates: bool,
    pub(crate) host: Arc<P::Host>,
}

impl<P: Ports> Engine<P> {
    /// An engine over the ports. Takes no device memory yet. Call [`Engine::start`] before anything is launched or touched.
    ///
    /// # Errors
    /// None today; the limit is checked by the caller against the device.
    ///
    /// # Panics
    /// If touches would need a queue that is the application's too: opening such a device is refused.
    pub fn new(exec: P::Exec, host: Arc<P::Host>, device: Arc<P::Device>, config: Config) -> Arc<Self> {
        let g = config.geometry;
        let blocks = (host.profile().reservation_bytes / g.block_bytes()) as u32;
        let limit = config.device_memory_limit.unwrap_or(device.profile().limit_bytes_default);
        let profile = host.profile();
        let faults_parked = profile.faults != FaultMode::Declared;
        let queue_is_shared = faults_parked && device.profile().queue_is_shared;
        let cpu_reads = device.profile().memory.cpu_reads;
        assert!(!queue_is_shared || cpu_reads, "touches need a queue that the application may hold");
        let duplicates = !faults_parked || (profile.publish_read_only && profile.protect);
        Arc::new(Self {
            space: exec.mutex(Rank::Space, range::Space::new(blocks)),
            arena: exec.mutex(Rank::Arena, arena::Arena::new(g, limit, Arc::clone(&config.policy))),
            submit: exec.mutex(Rank::Submit, submit::Submit::new()),
            turns: exec.mutex(Rank::Admission, admit::Turns::default()),
            ops: exec.mutex(Rank::Leaf, alloc::collections::BTreeMap::new()),
            flights: exec.mutex(Rank::Leaf, submit::Flights::default()),
            slots: exec.mutex(Rank::Leaf, submit::Slots::new(device.profile().staging.slots)),
            fences: exec.mutex(Rank::Leaf, fence::Fences::new()),
            zombies: exec.mutex(Rank::Leaf, Vec::new()),
            views: exec.mutex(Rank::Leaf, Vec::new()),
            bygone: exec.mutex(Rank::Leaf, Vec::new()),
            visitors: AtomicU32::new(0),
            trace: exec.mutex(Rank::Leaf, trace::Ring::default()),
            waited: exec.mutex(Rank::Leaf, waits::Table::new()),
            loss: exec.mutex(Rank::Leaf, None),
            completed: exec.mutex(Rank::Leaf, Uses::NONE),
            progress: exec.signal(),
            work: exec.signal(),
            called: exec.signal(),
            sleepers: AtomicU32::new(0),
            waits_begun: AtomicU32::new(0),
            counters: Counters::default(),
            places: report::Places::default(),
            next_op: AtomicU64::new(1),
            acquires_open: AtomicU32::new(0),
            paged: AtomicU32::new(0),
            kept_tables: exec.mutex(Rank::Leaf, Vec::new()),
            ahead: AtomicU32::new(0),
            clock: AtomicU64::new(1),
            lost: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            flush_asked: AtomicBool::new(false),
            faults_parked,
            queue_is_shared,
            duplicates,
            exec,
            host,
            device,
            config,
        })
    }

    /// Starts the threads: one that completes, one that submits, and the readers of `faults`. None is ever joined; they end
    /// after [`Engine::stop`], once no work is left.
    ///
    /// # Errors
    /// The system has no thread for us.
    pub fn start<F: FaultSource>(self: &Arc<Self>, faults: Option<Arc<F>>) -> std::io::Result<()> {
        // Thread `complete`: owns nothing · may block on the device · must never wait for a lock holder that waits for work.
        let me = Arc::clone(self);
        let source = faults.clone();
        self.exec.spawn("vkhmm-complete", Box::new(move || me.complete_loop(source.as_deref())))?;
        // Thread `submit`: owns nothing · may block on staging slots and device progress · must never take a fault.
        let me = Arc::clone(self);
        self.exec.spawn("vkhmm-submit", Box::new(move || me.submit_loop()))?;
        if let Some(source) = faults {
            self.answer_in_threads(&*source);
            for _ in 0..self.config.fault_threads {
                // Thread `fault`: owns nothing · may block on the fault source alone · must never wait for work.
                let (me, source) = (Arc::clone(self), Arc::clone(&source));
                self.exec.spawn("vkhmm-fault", Box::new(move || me.fault_loop(&*source)))?;
            }
        }
        Ok(())
    }

    /// No more work will come. Never blocks; what is in flight is finished by our threads, which then let go of the engine.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if self.host.owned() {
            self.flush();
            self.work.notify();
            self.called.notify();
            self.progress.notify();
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// The device port.
    pub fn device(&self) -> &Arc<P::Device> {
        &self.device
    }

    /// The host port.
    pub fn host(&self) -> &Arc<P::Host> {
        &self.host
    }

    /// Page, sub-block and block sizes.
    pub fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    pub(crate) fn check_owned(&self) -> Result<(), EngineError> {
        if self.host.owned() { Ok(()) } else { Err(EngineError::ForkedChild) }
    }

    pub(crate) fn check_alive(&self) -> Result<(), EngineError> {
        self.check_owned()?;
        if self.lost.load(Ordering::Acquire) {
            return Err(EngineError::DeviceLost { cause: self.loss_cause() });
        }
        Ok(())
    }

    pub(crate) fn loss_cause(&self) -> Arc<str> {
        self.loss.lock().clone().unwrap_or_else(|| "the device was lost".into())
    }

    pub(crate) fn new_op(&self, label: &Arc<str>) -> Arc<Op<P>> {
        let op = Op::new(&self.exec, self.new_op_id(), Arc::clone(label));
        self.ops.lock().insert(op.id, Arc::clone(&op));
        op
    }

    pub(crate) fn new_op_id(&self) -> OpId {
        OpId(self.next_op.fetch_add(1, Ordering::Relaxed))
    }

    /// The operation, unless it is over.
    pub(crate) fn op(&self, id: OpId) -> Option<Arc<Op<P>>> {
        self.ops.lock().get(&id).cloned()
    }

    /// Whether all that an operation does comes before whatever is submitted to the compute queue from now on.
    pub(crate) fn is_ordered(&self, id: OpId) -> bool {
        self.ops.lock().get(&id).is_none_or(|op| op.is_ordered())
    }

    /// Operations that never were: the request was refused. Whoever waits for one (see [`Engine::sync`]) goes on.
    pub(crate) fn forget_ops(&self, ids: &[OpId]) {
        let mut table = self.ops.lock();
        let gone: Vec<_> = ids.iter().filter_map(|id| table.remove(id)).collect();
        drop(table);
        gone.iter().for_each(|op| op.set_status(OpStatus::Done));
        drop(gone);
        self.progress.notify();
    }

    /// Waits until `op` is over, or `timeout` has passed; submits what it needs first. Whether it is over.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`; of a paged launch what ended it early: `WorkingSetTooLarge`, `Outside`, `Unfinished`, or what a
    /// port said.
    pub fn wait(&self, op: &Op<P>, timeout: Option<Duration>) -> Result<bool, EngineError> {
        let over = self.wait_over(op, timeout)?;
        match op.failure().filter(|_| over) {
            Some(error) => Err(error),
            None => Ok(over),
        }
    }

    /// [`Engine::wait`], however it ended.
    pub(crate) fn wait_over(&self, op: &Op<P>, timeout: Option<Duration>) -> Result<bool, EngineError> {
        self.check_owned()?;
        let until = timeout.map(|t| self.exec.now() + t.as_nanos() as u64);
        let _at = self.places.enter(Place::Operation);
        let mut watch = Watch::new(self);
        loop {
            let seen = self.progress.epoch();
            match op.status() {
                OpStatus::Done => {
                    watch.over(self, &op.label);
                    return Ok(true);
                }
                OpStatus::Lost => return Err(EngineError::DeviceLost { cause: self.loss_cause() }),
                OpStatus::Queued | OpStatus::Submitted => {}
            }
            self.flush();
            let now = self.exec.now();
            if until.is_some_and(|u| now >= u) {
                watch.over(self, &op.label);
                return Ok(false);
            }
            let left = until.map_or(self.config.watchdog, |u| Duration::from_nanos(u - now));
            let patience = left.min(self.config.watchdog);
            let in_queues = op.status() == OpStatus::Submitted && !op.is_open();
            if !(in_queues && self.wait_on_device(op, patience)) {
                self.await_progress(seen, Some(patience));
            }
            watch.check(self, || alloc::format!("waiting for `{}` ({:?})", op.label, op.status()));
        }
    }

    /// Whether `op` is over, by the device's own word: nobody need wait for that to become known.
    pub fn is_done(&self, op: &Op<P>) -> bool {
        if !op.is_over() && self.host.owned() {
            self.catch_up();
        }
        op.status() == OpStatus::Done
    }

    /// Waits until everything launched before is over, and everything acquired before that was released. Not for what is still
    /// acquired: that ends when the application says so.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn sync(&self) -> Result<(), EngineError> {
        let open: Vec<_> = self.ops.lock().values().cloned().collect();
        for op in open.into_iter().filter(|op| !op.is_open()) {
            self.wait_over(&op, None)?;
        }
        // Also where the loss was settled before anybody asked: which it is depends on who was faster.
        self.check_alive()
    }
}

/// Times a wait, and reports once if it lasts too long.
pub(crate) struct Watch {
    since: u64,
    waited: bool,
    told: bool,
}

impl Watch {
    pub(crate) fn new<P: Ports>(engine: &Engine<P>) -> Self {
        Self { since: engine.exec.now(), waited: false, told: false }
    }

    /// Says on stderr what is waited for, once it has lasted longer than the watchdog allows (I6).
    pub(crate) fn check<P: Ports>(
        &mut self,
        engine: &Engine<P>,
        what: impl FnOnce() -> alloc::string::String,
    ) {
        self.waited = true;
        let waited = engine.exec.now() - self.since;
        if !self.told && waited >= engine.config.watchdog.as_nanos() as u64 {
            self.told = true;
            engine.exec.report(format_args!(
                "{} for {:.1} s\n{}",
                what(),
                waited as f64 / 1e9,
                engine.report()
            ));
        }
    }

    /// The wait, if there was one, is over.
    pub(crate) fn over<P: Ports>(&self, engine: &Engine<P>, label: &Arc<str>) {
        if self.waited {
            engine.note_wait(label, self.since);
        }
    }
}

impl<P: Ports> Engine<P> {
    /// Every operation that is not over, for people.
    pub fn who_is_busy(&self) -> alloc::string::String {
        let ops = self.ops.lock();
        let list: Vec<_> =
            ops.values().map(|o| alloc::format!("#{} `{}` {:?}", o.id.0, o.label, o.status())).collect();
        if list.is_empty() {
            "no operation is open".into()
        } else {
            alloc::format!("open: {}", list.join(", "))
        }
    }
}
