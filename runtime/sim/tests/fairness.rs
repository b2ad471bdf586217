//! Fairness (I9): a hold that a touch waits for is closed, so later launches queue behind the touch. In virtual time this can be
//! counted exactly: how many launches run between one answer and the next, while a reader touches a page and four threads launch
//! on it without end.
//!
//! An answer is a publish. That the reader has the page before the next launch takes it is not the engine's to promise: it is
//! woken, and races with the launchers like any thread. The steady schedule lets it lose each time, the seeds do not.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use std::sync::{Arc, Mutex};
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_engine::{AccessKind, Argument, BindTo, Config, Engine, LaunchSpec, RangeCell};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeKernel};
use vkhmm_port::{Exec, Signal};
use vkhmm_sim::{Limits, Run, SimExec, SimHost, SimPorts, device, host, run, run_steady};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };
const LAUNCHERS: u64 = 4;
const ANSWERS: u64 = 50;

/// What is counted.
#[derive(Default)]
struct Counts {
    /// Each kernel that ran: how many answers there were by then.
    ran: Mutex<Vec<u64>>,
    /// Loads that came back.
    loads: AtomicU64,
}

/// What all threads of the scene have.
struct Scene {
    engine: Arc<Engine<SimPorts>>,
    host: SimHost,
    range: Arc<RangeCell<SimPorts>>,
    counts: Arc<Counts>,
    over: AtomicBool,
    ended: AtomicU64,
}

impl Scene {
    /// Adds one to the page's first byte and waits, until told to stop: no launcher has two launches under way.
    fn launcher(&self) {
        while !self.over.load(Relaxed) {
            let (host, counts) = (self.host.clone(), Arc::clone(&self.counts));
            let kernel = FakeKernel::new(move |bindings, _, _| {
                let byte = bindings[0].slice(0, 1);
                byte.write(&[byte.to_vec()[0].wrapping_add(1)]);
                counts.ran.lock().expect("nobody panics with it").push(host.calls().publish);
            });
            let argument = Argument {
                range: Some(Arc::clone(&self.range)),
                bytes: ByteRange { start: 0, end: 16 },
                access: AccessKind::Write,
                bind: BindTo::Binding,
            };
            let spec = LaunchSpec {
                kernel: Some(Arc::new(kernel)),
                groups: [1; 3],
                arguments: vec![argument],
                push: Vec::new(),
                label: "bump".into(),
            };
            let op = self.engine.launch(spec).expect("a launch that fits");
            assert!(self.engine.wait(&op, None).expect("nothing is lost"), "a wait without limit");
        }
    }

    /// Loads that byte every microsecond until told to stop.
    fn reader(&self, exec: &SimExec) {
        let (at, never) = (self.range.offset(), exec.signal());
        while !self.over.load(Relaxed) {
            self.host.load(ByteRange { start: at, end: at + 1 }).expect("nothing is lost");
            self.counts.loads.fetch_add(1, Relaxed);
            never.wait(never.epoch(), Some(Duration::from_micros(1)));
        }
    }
}

/// Four launchers and a reader on one page, on so many queues, until the page was published [`ANSWERS`] times.
fn play(exec: &SimExec, timelines: u8, counts: &Arc<Counts>) {
    let host = host(exec, SMALL, 1, FakeHostOptions::default());
    let delay = Duration::from_micros(10);
    let device = device(exec, SMALL, FakeDeviceOptions { timelines, delay, ..FakeDeviceOptions::default() });
    let config =
        Config { geometry: SMALL, device_memory_limit: Some(2 * SMALL.frame_bytes()), ..Config::default() };
    let engine = Engine::new(exec.clone(), Arc::new(host.clone()), Arc::new(device), config);
    engine.start(Some(Arc::new(host.faults()))).expect("threads for the engine");
    let range = engine.alloc(SMALL.block_bytes(), "page").expect("one block");
    let (over, ended, counts) = (AtomicBool::new(false), AtomicU64::new(0), Arc::clone(counts));
    let scene = Arc::new(Scene { engine, host, range, counts, over, ended });
    for n in 0..=LAUNCHERS {
        let (scene, theirs) = (Arc::clone(&scene), exec.clone());
        let body = move || {
            if n == 0 {
                scene.reader(&theirs)
            } else {
                scene.launcher()
            }
            scene.ended.fetch_add(1, Relaxed);
        };
        exec.spawn(&format!("app{n}"), Box::new(body)).expect("a thread");
    }
    let never = exec.signal();
    let wait_until = |done: &dyn Fn() -> bool| {
        while !done() {
            never.wait(never.epoch(), Some(Duration::from_micros(50)));
        }
    };
    wait_until(&|| scene.host.calls().publish >= ANSWERS);
    scene.over.store(true, Relaxed);
    wait_until(&|| scene.ended.load(Relaxed) == LAUNCHERS + 1);
}

/// Plays, and counts the launches that ran between one answer and the next.
fn between(play: impl FnOnce(Arc<Counts>) -> Run) -> (Vec<usize>, u64) {
    let counts = Arc::new(Counts::default());
    play(Arc::clone(&counts)).expect_success();
    let ran = counts.ran.lock().expect("nobody panics with it").clone();
    // The first publish is the page's birth; what runs after the last one is the end of the scene.
    let each = (1..ANSWERS).map(|answers| ran.iter().filter(|at| **at == answers).count()).collect();
    (each, counts.loads.load(Relaxed))
}

#[test]
fn an_answer_waits_for_no_launch_that_comes_later() {
    for timelines in [1, 3] {
        let steady = || between(|c| run_steady(Limits::default(), move |exec| play(exec, timelines, &c)));
        let (each, loads) = steady();
        // What each launcher had under way when the touch came, and not one launch more.
        assert!(each.iter().all(|n| (1..=LAUNCHERS as usize).contains(n)), "{timelines} queues: {each:?}");
        assert!(loads >= ANSWERS / 3, "{timelines} queues: {loads} loads came back");
        assert_eq!(steady(), (each, loads), "the same again");
    }
}

#[test]
fn one_answer_for_three_launches_at_the_least() {
    for seed in 0..60 {
        let timelines = if seed % 2 == 0 { 1 } else { 3 };
        let (each, _) = between(|c| run(seed, move |exec| play(exec, timelines, &c)));
        // Chance may keep a message or a handler waiting while launches go on, so this holds for all answers together.
        let launches: usize = each.iter().sum();
        assert!(launches <= 3 * each.len(), "seed {seed}: {launches} launches for {} answers", each.len());
    }
}
