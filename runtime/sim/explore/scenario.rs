//! The smallest worlds: two pages, one frame, one queue, and two application threads with a few steps each.
//!
//! A page has four bytes: byte 0 is thread 0's, byte 1 is thread 1's, so that both can use a page at any time and each knows what
//! its byte must be (the twin). A step that takes a whole page for itself (overwrite, renew) is only for pages whose data the
//! other thread leaves alone.

mod actor;

use super::watcher::{Place, WatchedFaults, Watcher};
use crate::{SimDevice, SimExec, SimHost, SimPorts, device, host};
use actor::Actor;
use core::fmt;
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex};
use vkhmm_engine::{Config, Engine, EngineError, GuardKind, Leftovers, RangeCell};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeImports};
use vkhmm_port::{Exec, HostMemory, Mutex as _, Rank, Signal};

const PAGE_BYTES: u64 = 4;
/// No program takes longer, in virtual time, which passes only while all threads wait: less than the timers of the engine's threads
/// (100 ms and more), which would cover up a wake-up that was lost.
const PATIENCE_NS: u64 = 50_000_000;

/// How two pages lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In one block, each with a frame of its own size: they compete for the one frame.
    Beside,
    /// In two ranges, hence two blocks: they compete for the one frame.
    Apart,
    /// In one frame: neither ever makes room for the other.
    Within,
}

/// What a thread does next, and to which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loads its byte.
    Load(usize),
    /// Stores its byte.
    Store(usize),
    /// Launches a kernel that reads.
    Read(usize),
    /// Launches a kernel that reads and writes its byte.
    Write(usize),
    /// Launches a kernel that writes the whole page.
    Overwrite(usize),
    /// Prefetches to the device.
    In(usize),
    /// Prefetches to the host.
    Out(usize),
    /// Has it brought home to load.
    Home(usize),
    /// Has it brought home to store.
    HomeToStore(usize),
    /// Guards it, and lets it go.
    Guard(usize),
    /// Evicts whatever can be.
    Trim,
    /// Waits for its last launch.
    Wait,
    /// Drops the range (of [`Shape::Apart`]) and allocates it anew.
    Renew(usize),
    /// Loses the device.
    Lose,
}

/// Two programs over two pages.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How the pages lie.
    pub shape: Shape,
    /// Whether copies go straight between host and device memory.
    pub import: bool,
    /// Whether kernels work in place (by import).
    pub in_place: bool,
    /// What happens before, by one thread, up to rest.
    pub before: Vec<Step>,
    /// What the two threads do.
    pub programs: [Vec<Step>; 2],
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, import, in_place, before, programs } = self;
        write!(
            f,
            "{shape:?}, import {import}, in place {in_place}, after {before:?}: {:?} beside {:?}",
            programs[0], programs[1]
        )
    }
}

impl Scenario {
    /// The thread that takes the whole of a page for itself.
    fn owner_of(&self, page: usize) -> Option<usize> {
        let takes = |step: &Step| matches!(step, Step::Overwrite(p) | Step::Renew(p) if *p == page);
        self.programs.iter().position(|program| program.iter().any(takes))
    }
}

type Range = Arc<RangeCell<SimPorts>>;

/// What both threads share.
struct Stage {
    exec: SimExec,
    engine: Arc<Engine<SimPorts>>,
    host: SimHost,
    device: SimDevice,
    watcher: Arc<Watcher>,
    shape: Shape,
    geometry: Geometry,
    /// Lock: the stage's own. Owns which range each page lies in · never held across a call of the world.
    ranges: Mutex<[Option<Range>; 2]>,
    guards: bool,
    loses: bool,
    /// Pages that one thread takes for itself.
    whole: [Option<usize>; 2],
}

/// Plays a scenario; panics where an oracle is broken. The script is open while the programs run, and until all is at rest.
pub(super) fn perform(exec: &SimExec, scenario: &Scenario, watcher: &Arc<Watcher>) {
    let geometry = match scenario.shape {
        Shape::Beside => Geometry { page_bytes: PAGE_BYTES as u32, pages_per_sub: 1, pages_per_block: 2 },
        Shape::Apart => Geometry { page_bytes: PAGE_BYTES as u32, pages_per_sub: 1, pages_per_block: 1 },
        Shape::Within => Geometry { page_bytes: PAGE_BYTES as u32, pages_per_sub: 2, pages_per_block: 2 },
    };
    let imports = FakeImports::default();
    let host =
        host(exec, geometry, 4, FakeHostOptions { imports: imports.clone(), ..FakeHostOptions::default() });
    let device_options = FakeDeviceOptions {
        timelines: 1,
        import: scenario.import.then_some(imports),
        in_place_bytes_max: scenario.in_place.then_some(u64::MAX),
        staging_slots: 1,
        frames_max: 1,
        ..FakeDeviceOptions::default()
    };
    let device = device(exec, geometry, device_options);
    let config = Config {
        geometry,
        device_memory_limit: Some(geometry.frame_bytes()),
        import_bytes_min: 0,
        in_place_bytes: u64::MAX,
        strict_io: false,
        fault_threads: 1,
        ..Config::default()
    };
    let engine = Engine::new(exec.clone(), Arc::new(host.clone()), Arc::new(device.clone()), config);
    let faults = WatchedFaults::new(host.faults(), exec.clone(), geometry, Arc::clone(watcher));
    engine.start(Some(Arc::new(faults))).expect("threads for the engine");
    let all = || scenario.programs.iter().flatten();
    let stage = Arc::new(Stage {
        exec: exec.clone(),
        engine: Arc::clone(&engine),
        host: host.clone(),
        device,
        watcher: Arc::clone(watcher),
        shape: scenario.shape,
        geometry,
        ranges: Mutex::default(),
        whole: [0, 1].map(|page| scenario.owner_of(page)),
        guards: all().any(|s| matches!(s, Step::Guard(_))),
        loses: all().any(|s| *s == Step::Lose),
    });
    match scenario.shape {
        Shape::Apart => (0..2).for_each(|page| stage.allocate(page)),
        Shape::Beside | Shape::Within => stage.allocate(0),
    }
    let mut both = Actor { stage: Arc::clone(&stage), me: 0, mine: [0; 2], last: None, values: 0 };
    scenario.before.iter().for_each(|step| both.step(*step));
    engine.sync().expect("nothing is lost yet");
    let mine = both.mine;
    drop(both);

    exec.open_script(true);
    let ended = Arc::new((exec.mutex(Rank::Leaf, Vec::new()), exec.signal()));
    for (me, program) in scenario.programs.iter().enumerate() {
        // What came before was thread 0's.
        let mine = if me == 0 { mine } else { [0; 2] };
        let mut actor = Actor { stage: Arc::clone(&stage), me, mine, last: None, values: 0 };
        let (ended, program) = (Arc::clone(&ended), program.clone());
        let body = move || {
            program.iter().for_each(|step| actor.step(*step));
            let Actor { me, mine, .. } = actor;
            ended.0.lock().push((me, mine));
            ended.1.notify();
        };
        exec.spawn(&format!("app{me}"), Box::new(body)).expect("a thread for the application");
    }
    loop {
        let seen = ended.1.epoch();
        if ended.0.lock().len() == 2 {
            break;
        }
        ended.1.wait(seen, None);
    }
    let synced = engine.sync();
    let waited = exec.now();
    assert!(
        waited < PATIENCE_NS,
        "liveness: only timers brought the programs to their end, after {waited} ns"
    );
    assert!(synced.is_ok() || stage.loses, "sync: {synced:?}");
    exec.open_script(false);
    let ends = ended.0.lock().clone();
    stage.close(&ends);
    drop(stage);
    // What a lost device may still write stays as long as it exists, and so do the frames that only it could let go.
    let lost = scenario.programs.iter().flatten().any(|step| *step == Step::Lose);
    let settled = || {
        let left = engine.leftovers();
        if lost { left.ranges == left.quarantined } else { left == Leftovers::default() }
    };
    rest(exec, settled, || format!("{:?}; {}", engine.leftovers(), engine.who_is_busy()));
    assert!(engine.leftovers().quarantined > 0 || host.populated_pages() == 0, "leak: host pages");
    engine.stop();
    rest(exec, || Arc::strong_count(&engine) == 1, || engine.who_is_busy());
}

/// Waits until `done`, in virtual time.
fn rest(exec: &SimExec, done: impl Fn() -> bool, who: impl Fn() -> String) {
    let idle = exec.signal();
    let end = exec.now() + 60_000_000_000;
    while !done() {
        assert!(exec.now() < end, "liveness: not at rest within a minute: {}", who());
        idle.wait(idle.epoch(), Some(Duration::from_millis(100)));
    }
}

impl Stage {
    /// The range that a page lies in, with its offset there.
    fn place(&self, page: usize) -> (Range, u64) {
        let at = if self.shape == Shape::Apart { page } else { 0 };
        let offset = if self.shape == Shape::Apart { 0 } else { page as u64 * PAGE_BYTES };
        let ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(ranges[at].as_ref().expect("allocated before the programs run")), offset)
    }

    fn watched(&self, page: usize) -> Place {
        if self.shape == Shape::Apart { (page, 0) } else { (0, page as u32) }
    }

    fn allocate(&self, at: usize) {
        let bytes = self.geometry.block_bytes();
        let range = self.engine.alloc(bytes, ["x", "y"][at]).expect("four blocks for two");
        self.watcher.expect(at, PageIndex(range.offset() / PAGE_BYTES));
        // The first look at its block, so that the watcher knows its lock.
        self.engine.residency(&range, (0..bytes).into()).expect("all of it");
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(range);
    }

    /// Every byte is what its owner knows it to be, unless it is lost by name.
    fn close(&self, ends: &[(usize, [u8; 2])]) {
        for page in 0..2 {
            let (range, offset) = self.place(page);
            let bytes = ByteRange { start: offset, end: offset + PAGE_BYTES };
            match self.engine.bring_home(&range, bytes, GuardKind::Read) {
                Ok(()) => {}
                Err(EngineError::Lost { .. }) if self.loses => continue,
                Err(error) => panic!("bring home: {error}"),
            }
            let start = range.offset() + offset;
            let got = self.host.alias((start..start + PAGE_BYTES).into()).to_vec();
            for (me, mine) in ends {
                if self.whole[page].is_none_or(|owner| owner == *me) {
                    assert_eq!(got[*me], mine[page], "twin: byte {me} of page {page} in the end");
                }
            }
        }
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = core::mem::take(&mut *ranges);
        drop(ranges);
        gone.iter().flatten().for_each(|range| self.engine.free(range));
    }
}
