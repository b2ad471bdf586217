//! The scene: random programs of a few application threads over the production engine, with oracles that watch every step.
//!
//! ```text
//!   seed ─► Setting: device, host, limits, trouble           oracles
//!      └──► programs of 2–4 threads                            twin      every load, every kernel, and all bytes at the end
//!             first phase: with trouble                        L0        every mapping that is weakened (ledger)
//!             second phase: calm, everything must settle       check     every block after every step (Engine::audit)
//!                                                              liveness  calm: no call lasts long, all comes to rest
//!                                                              leak      nothing is left at the end
//! ```
//!
//! In a third of the worlds there are paged launches, too (`paged`).
//!
//! Three kinds of arrays: a thread's *own*; *mixed*, of which every thread owns every n-th byte and uses it at any time; and
//! *locked*, behind a lock of the application, where the order of calls is the order of launches and one flat twin checks all
//! threads. A failure's message begins with the name of the oracle that found it.

mod actor;
mod array;
mod kernel;
mod ledger;
mod many;
mod met;
mod paged;
mod setting;
mod touch;
mod trouble;
mod turnstile;

pub use many::{Played, play_many};
pub use met::Met;
pub use setting::SMALL;

use crate::{Limits, Random, Run, SimDevice, SimExec, SimHost, SimPorts, device, host, run_within};
use actor::Actor;
use array::Array;
use core::time::Duration;
use ledger::Ledger;
use setting::Setting;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use turnstile::Locked;
use vkhmm_engine::{Engine, Leftovers};
use vkhmm_port::fake::{FakeHostOptions, Mapping};
use vkhmm_port::{Access, Device, DeviceError, Exec, Signal};

/// No call of the calm phase may last longer, in virtual time: far more than any takes, and less than the timers that would
/// cover up a wake-up that was lost.
const PATIENCE_NS: u64 = 90_000_000;
/// Whoever comes after a paged launch waits for its rounds, which take turns with those of others. How many there are is the planner's
/// concern, and its tests'.
const ROUND_NS: u64 = 5_000_000;
/// Everything has come to rest by then.
const REST_NS: u64 = 1_000_000_000;

/// Lines that are kept of a long world's trace.
const LONG_TRACE: usize = 10_000;

/// Plays the scene under `seed`.
pub fn play(seed: u64) -> Run {
    watch(seed).0
}

/// Plays the scene under `seed`; also says what it met.
pub fn watch(seed: u64) -> (Run, Met) {
    stage_and_run(seed, Limits::default(), None)
}

/// Plays one world of at least `decisions` scheduling decisions, in which the device is not lost.
pub fn play_long(seed: u64, decisions: u64) -> (Run, Met) {
    let limits = Limits { steps: 2 * decisions + 1_000_000, time_ns: u64::MAX, trace_lines: LONG_TRACE };
    stage_and_run(seed, limits, Some(decisions))
}

fn stage_and_run(seed: u64, limits: Limits, decisions: Option<u64>) -> (Run, Met) {
    let met = Arc::new(Mutex::new(Met::default()));
    let seen = Arc::clone(&met);
    let run = run_within(seed, limits, move |exec| {
        let mut random = Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let setting = Setting::draw(&mut random, None, decisions.is_some());
        perform(exec, random, setting, decisions, &met);
    });
    let met = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (run, met)
}

/// What all threads of a scene share.
pub(crate) struct Stage {
    exec: SimExec,
    engine: Arc<Engine<SimPorts>>,
    host: SimHost,
    device: SimDevice,
    setting: Setting,
    ledger: Arc<Ledger>,
    /// Scheduling decisions that the programs are to reach, if not a number of steps.
    decisions: Option<u64>,
    /// Trouble is to end.
    enough: AtomicBool,
    /// Whether nobody makes trouble any more.
    at_peace: AtomicBool,
    /// The second phase has begun: nothing goes wrong any more.
    calm: AtomicBool,
    /// A new epoch when a thread has finished a phase, or a phase begins.
    phase: crate::SimSignal,
    /// Threads that have finished the present phase.
    arrived: AtomicU64,
    /// Guards that were ever asked for, and those of them that are gone.
    guards_asked: AtomicU64,
    guards_gone: AtomicU64,
    /// Acquires that were ever asked for, and those of them that are over.
    acquires_asked: AtomicU64,
    acquires_gone: AtomicU64,
    /// Paged launches that were ever asked for, and those of them that are known to be over.
    paged_asked: AtomicU64,
    paged_gone: AtomicU64,
    /// How often the device's memory was taken down.
    teardowns: AtomicU64,
    met: Arc<Mutex<Met>>,
}

impl Stage {
    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Acquire)
    }

    /// Whether the device is gone, or a call failed that the engine takes for that.
    fn is_lost(&self) -> bool {
        let gone = matches!(self.device.completed(), Err(DeviceError::Lost { .. }));
        gone || self
            .device
            .told_to_fail()
            .iter()
            .any(|c| matches!(*c, "submit" | "read_frames" | "write_frames"))
    }

    fn who_is_busy(&self) -> String {
        let (left, open) = (self.engine.leftovers(), self.engine.who_is_busy());
        format!("{open}; {left:?}; {}", self.exec.who_waits())
    }

    /// The `check` oracle.
    ///
    /// # Panics
    /// If an invariant is broken right now.
    fn audit(&self) {
        let shown = |page| match self.host.mapping(page) {
            Mapping::Absent | Mapping::Poisoned => None,
            Mapping::ReadOnly => Some(Access::ReadOnly),
            Mapping::ReadWrite => Some(Access::ReadWrite),
        };
        if let Err(broken) = self.exec.quietly(|| self.engine.audit(shown)) {
            panic!("check: {broken}");
        }
    }

    /// Runs `call`; in the calm phase it must not last.
    ///
    /// # Panics
    /// If it does.
    fn timed<T>(&self, what: &str, call: impl FnOnce() -> T) -> T {
        let (start, calm) = (self.exec.now(), self.is_calm());
        let rounds = || self.engine.stats().paged_rounds;
        let before = rounds();
        let result = call();
        let took = self.exec.now() - start;
        if calm && self.decisions.is_none() {
            self.met().longest(took);
            // That a submission failed the completion thread learns when it looks again.
            let patience = if self.is_lost() { 3 * PATIENCE_NS } else { PATIENCE_NS };
            let patience = patience + (rounds() - before) * ROUND_NS;
            assert!(took < patience, "liveness: {what} took {took} ns");
        }
        result
    }

    /// Waits for `done`, which `signal` announces or time brings.
    ///
    /// # Panics
    /// If it does not come.
    fn await_rest(&self, signal: &impl Signal, what: &str, done: impl Fn() -> bool) {
        let end = self.exec.now() + REST_NS;
        loop {
            let seen = signal.epoch();
            if done() {
                return;
            }
            assert!(self.exec.now() < end, "liveness: not within a second: {what}; {}", self.who_is_busy());
            signal.wait(seen, Some(Duration::from_millis(10)));
        }
    }
}

fn perform(
    exec: &SimExec,
    mut random: Random,
    setting: Setting,
    decisions: Option<u64>,
    met: &Arc<Mutex<Met>>,
) {
    exec.note(format_args!("world: {setting}"));
    let lenient = setting.config.strict_io || !setting.host.protect;
    let ledger = Ledger::new(exec, SMALL, setting.blocks, lenient);
    let options = FakeHostOptions { weakened: Some(ledger.hook()), ..setting.host.clone() };
    let host = host(exec, SMALL, setting.blocks, options);
    let device = device(exec, SMALL, setting.device.clone());
    let (ports, config) = ((Arc::new(host.clone()), Arc::new(device.clone())), setting.config.clone());
    let engine: Arc<Engine<SimPorts>> = Engine::new(exec.clone(), ports.0, ports.1, config);
    let faults = (!setting.declared()).then(|| Arc::new(host.faults()));
    engine.start(faults).expect("threads for the engine");
    let stage = Arc::new(Stage {
        exec: exec.clone(),
        engine,
        host,
        device,
        setting,
        ledger,
        decisions,
        enough: AtomicBool::new(false),
        at_peace: AtomicBool::new(true),
        calm: AtomicBool::new(false),
        phase: exec.signal(),
        arrived: AtomicU64::new(0),
        guards_asked: AtomicU64::new(0),
        guards_gone: AtomicU64::new(0),
        acquires_asked: AtomicU64::new(0),
        acquires_gone: AtomicU64::new(0),
        paged_asked: AtomicU64::new(0),
        paged_gone: AtomicU64::new(0),
        teardowns: AtomicU64::new(0),
        met: Arc::clone(met),
    });
    let shared = raise(&stage, &mut random);
    let arrived = |stage: &Stage| stage.arrived.load(Ordering::Acquire) == stage.setting.threads;
    await_phase(&stage, "the first phase", || arrived(&stage));
    stage.enough.store(true, Ordering::Release);
    stage.phase.notify();
    await_phase(&stage, "the end of trouble", || stage.at_peace.load(Ordering::Acquire));
    trouble::end(&stage);
    stage.arrived.store(0, Ordering::Release);
    stage.calm.store(true, Ordering::Release);
    stage.exec.note(format_args!("calm"));
    stage.phase.notify();
    await_phase(&stage, "the second phase", || arrived(&stage));
    strike(stage, shared);
}

/// The arrays that threads share, and the threads.
fn raise(stage: &Arc<Stage>, random: &mut Random) -> Vec<Arc<Locked>> {
    let block = SMALL.block_bytes();
    let threads = stage.setting.threads;
    let sizes = [2 * block, block + random.below(block)];
    let mixed: Option<Array> =
        (!stage.setting.declared()).then(|| Array::reserve(stage, "mixed", 2 * block).expect("room for it"));
    let locked: Vec<Arc<Locked>> = ["locked", "locked too"]
        .iter()
        .zip(sizes)
        .map(|(name, bytes)| Locked::new(stage, Array::reserve(stage, name, bytes).expect("room for it")))
        .collect();
    let mut shared = locked.clone();
    if let Some(mixed) = &mixed {
        shared.push(Locked::new(stage, mixed.share(1, 0)));
    }
    for me in 0..threads {
        let mut arrays: Vec<Arc<Locked>> = Vec::new();
        for i in 0..1 + random.below(2) {
            let bytes = 1 + random.below(3 * block);
            if let Some(own) = Array::reserve(stage, &format!("own {me}.{i}"), bytes) {
                arrays.push(Locked::new(stage, own));
            }
        }
        let own = arrays.len();
        arrays.extend(mixed.iter().map(|mixed| Locked::new(stage, mixed.share(threads, me))));
        arrays.extend(locked.iter().cloned());
        let actor = Actor::new(me, stage, random.number(), arrays, own);
        let body = move || actor.play();
        stage.exec.spawn(&format!("app{me}"), Box::new(body)).expect("a thread for the application");
    }
    if !stage.setting.trouble.is_empty() {
        let (maker, random) = (Arc::clone(stage), Random::new(random.number()));
        stage.at_peace.store(false, Ordering::Release);
        let body = move || trouble::make(&maker, random);
        stage.exec.spawn("trouble", Box::new(body)).expect("a thread for trouble");
    }
    shared
}

/// Waits until `over`; how long that takes is the threads' own affair.
fn await_phase(stage: &Stage, what: &str, over: impl Fn() -> bool) {
    let end = stage.exec.now() + if stage.decisions.is_some() { u64::MAX / 2 } else { 60 * REST_NS };
    loop {
        let seen = stage.phase.epoch();
        if over() {
            return;
        }
        assert!(stage.exec.now() < end, "liveness: not within a minute: {what}; {}", stage.who_is_busy());
        stage.phase.wait(seen, Some(Duration::from_millis(100)));
    }
}

/// Everything comes to rest, is freed, and nothing is left.
fn strike(stage: Arc<Stage>, shared: Vec<Arc<Locked>>) {
    let rest = stage.exec.signal();
    let quiet = |left: &Leftovers, lost: bool| Leftovers {
        // A lost device has no more use for them.
        slots: if lost { 0 } else { left.slots },
        flights: if lost { 0 } else { left.flights },
        quarantined: 0,
        ranges: 0,
        zombies: 0,
        frames_owned: 0,
        frames_retired: 0,
        imported_bytes: 0,
        ..*left
    };
    let lost = stage.is_lost();
    let idle = || quiet(&stage.engine.leftovers(), lost) == Leftovers::default();
    stage.await_rest(&rest, "all work comes to rest", idle);
    stage.audit();
    let guarded = || stage.exec.quietly(|| stage.engine.thrash_guarded_blocks());
    stage.await_rest(&rest, "the thrash guard lets go", || guarded() == 0);
    for array in &shared {
        let mut taken = array.take();
        stage.tame(&mut taken);
        // The first may find that other pages of the array have to make room, and send them home.
        let granted = (0..2).any(|_| {
            let granted = stage.acquire_at_rest(&taken);
            stage.await_rest(&rest, "an acquire comes to rest", idle);
            granted
        });
        assert!(granted, "liveness: an acquire of `{}` is busy at rest", taken.name);
        array.put(taken);
    }
    for array in shared {
        array.take().free(&stage);
    }
    let over = || {
        let left = stage.engine.leftovers();
        left.ranges <= left.quarantined && left.zombies <= left.quarantined
    };
    stage.await_rest(&rest, "everything freed is given back", over);
    let left = stage.engine.leftovers();
    let (frames, imports) = ((left.frames_owned, left.frames_retired), stage.setting.imports.count());
    if left.quarantined == 0 {
        assert!(lost || frames == (0, 0), "leak: frames owned and retired: {frames:?}");
        assert_eq!((imports, left.imported_bytes), (0, 0), "leak: imports and their bytes are left");
        assert_eq!(stage.host.populated_pages(), 0, "leak: host pages that nobody owns are left");
        let sparse = (stage.engine.stats().sparse_bytes, stage.device.frames_bound());
        assert!(lost || sparse == (0, 0), "leak: sparse buffers, and frames in them, are left: {sparse:?}");
    }
    note_what_happened(&stage, lost);
    stage.engine.stop();
    let let_go = || Arc::strong_count(&stage.engine) == 1 && Arc::strong_count(&stage) == 1;
    stage.await_rest(&rest, "all threads let go", let_go);
    let exec = stage.exec.clone();
    drop(Arc::into_inner(stage).expect("leak: somebody still has the stage"));
    let end = exec.now() + REST_NS;
    while exec.threads_alive() > 1 {
        assert!(exec.now() < end, "leak: {} threads are left", exec.threads_alive() - 1);
        rest.wait(rest.epoch(), Some(Duration::from_millis(1)));
    }
}

fn note_what_happened(stage: &Stage, lost: bool) {
    let (stats, setting, mut met) = (stage.engine.stats(), &stage.setting, stage.met());
    let in_thread_bytes = if setting.host.in_thread { stats.path_cpu_bytes } else { 0 };
    let events = [
        ("eviction", stats.evictions_clean + stats.evictions_dirty),
        ("eviction of dirty pages", stats.evictions_dirty),
        ("thrash", stats.refault_bytes),
        ("copy home saved by a discard", stats.discarded_bytes),
        ("hint that left something out", stats.prefetch_skipped_bytes),
        ("thrash guard", stats.thrash_guards),
        ("launch that waited", stats.launches_waited),
        ("resident launch", stats.launches_resident),
        ("launch in place", stats.launches_in_place),
        ("parked touch", stats.faults_parked),
        ("stray touch", stats.faults_stray),
        ("touch answered in its thread", stats.faults_in_thread),
        ("device bytes read in the touching thread", in_thread_bytes),
        ("zeros made on the device", stats.zeroed_bytes),
        ("move inside the device", stats.moved_bytes),
        ("bind", stats.bound_bytes),
        ("unbind", stats.unbound_bytes),
        ("import refused", stats.imports_refused),
        ("bytes through imports", stats.path_import_bytes),
        ("bytes through staging", stats.path_staging_bytes),
        ("bytes read by the CPU", stats.path_cpu_bytes),
        ("paged launch", stats.launches_paged),
        ("round of a paged launch", stats.paged_rounds),
        ("miss of a paged launch", stats.paged_misses),
        ("acquire", stats.acquires),
        ("acquire cancelled", stats.acquires_cancelled),
        ("loss", u64::from(lost)),
    ];
    events.into_iter().for_each(|(what, n)| met.add(format!("event: {what}"), n));
    met.note(format!("memory: {:?}", setting.device.kind));
    met.note(format!("shown by: {}", if setting.host.granule_pages > 1 { "block" } else { "page" }));
    met.note(format!("faults: {:?}", setting.host.faults));
    met.note(format!("way: {}", if setting.device.import.is_some() { "import" } else { "staging" }));
    met.note(format!("queues: {}", setting.device.timelines));
    if setting.device.queue_is_shared {
        met.note("queues: the application's too");
    }
    stage.host.told_to_fail().iter().for_each(|call| met.note(format!("failed: {call}")));
    stage.device.told_to_fail().iter().for_each(|call| met.note(format!("failed: {call}")));
}
