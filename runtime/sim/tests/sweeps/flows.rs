//! The scripted flows of the sweeps, each from the same start: x on the device, y on the host, z never touched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex};
use vkhmm_engine::AccessKind::{Overwrite, Write};
use vkhmm_engine::{
    AccessKind, Argument, BindTo, Config, Engine, EngineError, GuardKind, LaunchSpec, Leftovers, Op,
    RangeCell,
};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeImports, FakeKernel, TouchError};
use vkhmm_port::{Exec, Fault, HostMemory, Signal};
use vkhmm_sim::{SimDevice, SimExec, SimHost, SimPorts, device, host};

pub const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    Touch,
    Launch,
    Resident,
    Evict,
    Prefetch,
    Guard,
    Renew,
    Limit,
    Loss,
    Stray,
}

pub const FLOWS: [Flow; 10] = [
    Flow::Touch,
    Flow::Launch,
    Flow::Resident,
    Flow::Evict,
    Flow::Prefetch,
    Flow::Guard,
    Flow::Renew,
    Flow::Limit,
    Flow::Loss,
    Flow::Stray,
];

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub kind: MemoryKind,
    pub import: bool,
    pub timelines: u8,
    pub slots: u32,
    pub protect: bool,
}

pub const SETUPS: [Setup; 5] = [
    Setup { kind: MemoryKind::DevicePrivate, import: true, timelines: 3, slots: 2, protect: true },
    Setup { kind: MemoryKind::DevicePrivate, import: false, timelines: 3, slots: 2, protect: true },
    Setup { kind: MemoryKind::DevicePrivate, import: true, timelines: 1, slots: 2, protect: false },
    Setup { kind: MemoryKind::DeviceBar, import: false, timelines: 1, slots: 1, protect: true },
    Setup { kind: MemoryKind::DeviceCoherent, import: false, timelines: 3, slots: 2, protect: true },
];

type Range = Arc<RangeCell<SimPorts>>;

/// A range, and the values that each of its bytes may have now.
struct Known {
    range: Range,
    may_be: Vec<u8>,
}

pub struct World {
    exec: SimExec,
    pub engine: Arc<Engine<SimPorts>>,
    pub host: SimHost,
    pub device: SimDevice,
    known: Vec<Known>,
    /// Something was told to fail, so that a touch may end in SIGBUS.
    pub troubled: bool,
}

/// Frames that the limit allows: x and y fit together, not all three.
const FRAMES: u64 = 6;

fn add(n: u8) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| {
        for binding in bindings {
            let new: Vec<u8> = binding.to_vec().iter().map(|v| v.wrapping_add(n)).collect();
            binding.write(&new);
        }
    })
}

fn set(value: u8) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| bindings.iter().for_each(|b| b.fill(value)))
}

impl World {
    pub fn new(exec: &SimExec, setup: Setup) -> Self {
        let imports = FakeImports::default();
        let host_options = FakeHostOptions {
            protect: setup.protect,
            publish_read_only: setup.protect,
            imports: imports.clone(),
            ..FakeHostOptions::default()
        };
        let host = host(exec, SMALL, 10, host_options);
        let device_options = FakeDeviceOptions {
            kind: setup.kind,
            timelines: setup.timelines,
            import: setup.import.then_some(imports),
            staging_slots: setup.slots,
            frames_max: 16,
            piece_frames_max: 3,
            ..FakeDeviceOptions::default()
        };
        let device = device(exec, SMALL, device_options);
        let config = Config {
            geometry: SMALL,
            device_memory_limit: Some(FRAMES * SMALL.frame_bytes()),
            import_bytes_min: 0,
            strict_io: false,
            ..Config::default()
        };
        let engine = Engine::new(exec.clone(), Arc::new(host.clone()), Arc::new(device.clone()), config);
        engine.start(Some(Arc::new(host.faults()))).expect("threads for the engine");
        let mut world = Self { exec: exec.clone(), engine, host, device, known: Vec::new(), troubled: false };
        for (label, frames) in [("x", 3), ("y", 3), ("z", 3)] {
            let range = world.engine.alloc(frames * SMALL.frame_bytes(), label).expect("ten blocks");
            world.known.push(Known { range, may_be: vec![0] });
        }
        for (i, value) in [(0, 1), (1, 10)] {
            let range = &world.known[i].range;
            world.host.store(range.offset(), &vec![value; range.bytes() as usize]).expect("nothing is lost");
            world.known[i].may_be = vec![value];
        }
        assert!(world.launch(&add(1), &[(0, Write)]).is_ok());
        world.known[0].may_be = vec![2];
        world.engine.sync().expect("nothing is lost");
        world
    }

    /// A launch on the whole of some ranges; waits for it.
    fn launch(&self, kernel: &FakeKernel, accesses: &[(usize, AccessKind)]) -> Result<(), EngineError> {
        let argument = |(i, access): &(usize, AccessKind)| Argument {
            range: Some(Arc::clone(&self.known[*i].range)),
            bytes: self.all(*i),
            access: *access,
            bind: BindTo::Binding,
        };
        let spec = LaunchSpec {
            kernel: Some(Arc::new(kernel.clone())),
            groups: [1; 3],
            arguments: accesses.iter().map(argument).collect(),
            push: Vec::new(),
            label: "kernel".into(),
        };
        let op: Arc<Op<SimPorts>> = self.engine.launch(spec)?;
        // Launched: from here on only loss can spoil it.
        let _ = self.engine.wait(&op, None);
        Ok(())
    }

    fn all(&self, i: usize) -> ByteRange {
        ByteRange { start: 0, end: self.known[i].range.bytes() }
    }

    /// Where every page is, when nothing is under way.
    fn map(&self) -> Vec<(usize, ByteRange, Location)> {
        let of = |i: usize| {
            let runs = self.engine.residency(&self.known[i].range, self.all(i)).expect("all of a live range");
            runs.into_iter().map(move |run| (i, run.bytes, run.location))
        };
        (0..self.known.len()).flat_map(of).collect()
    }

    /// An error must be one that a port's refusal leads to; and then nothing has changed (I7), but for what is lost.
    fn judge(&self, what: &str, done: &Result<(), EngineError>, before: &[(usize, ByteRange, Location)]) {
        let Err(error) = done else { return };
        assert!(self.troubled, "{what}: {error}");
        match error {
            EngineError::DeviceLost { .. } | EngineError::Lost { .. } => return,
            EngineError::OutOfHostMemory { .. } | EngineError::Host(_) | EngineError::Device(_) => {}
            // The device had no more memory, and what it gave before does not hold the arguments at once.
            EngineError::WorkingSetTooLarge { .. } => {}
            other => panic!("error: {what} says {other}, which no port said"),
        }
        if self.engine.sync().is_ok() && !before.is_empty() {
            assert_eq!(self.map(), before, "I7: {what} failed with `{error}` and left something else");
        }
    }

    /// Runs the flow. What the calls say decides what the bytes may be.
    pub fn run(&mut self, flow: Flow) {
        let before = self.map();
        match flow {
            Flow::Touch => {
                self.load(2, 0);
                self.load(0, 0);
                self.store(0, 40, 2);
                self.store(2, 60, 0);
                self.load(0, 150);
            }
            Flow::Launch => {
                let kernel = FakeKernel::new(|bindings, _, _| {
                    let new: Vec<u8> = bindings[0].to_vec().iter().map(|v| v + 1).collect();
                    bindings[0].write(&new);
                    bindings[1].fill(2);
                });
                let done = self.launch(&kernel, &[(1, Write), (0, Overwrite)]);
                self.judge("launch", &done, &before);
                if done.is_ok() {
                    self.known[1].may_be = vec![11];
                }
                let before = self.map();
                let done = self.launch(&add(0), &[(1, AccessKind::Read)]);
                self.judge("launch to read", &done, &before);
            }
            Flow::Resident => {
                let done = self.launch(&add(1), &[(0, Write)]);
                self.judge("resident launch", &done, &before);
                if done.is_ok() {
                    self.known[0].may_be = vec![3];
                }
            }
            Flow::Evict => {
                let done = self.launch(&set(44), &[(2, Overwrite)]);
                self.judge("launch that evicts", &done, &before);
                if done.is_ok() {
                    self.known[2].may_be = vec![44];
                }
                let done = self.engine.trim(FRAMES * SMALL.frame_bytes()).map(drop);
                self.judge("trim", &done, &[]);
            }
            Flow::Prefetch => {
                let ranges: Vec<Range> = self.known.iter().map(|k| Arc::clone(&k.range)).collect();
                let done = self.engine.prefetch_to_host(&ranges[0], self.all(0)).map(drop);
                self.judge("prefetch to the host", &done, &[]);
                let _ = self.engine.sync();
                for i in [1, 2] {
                    let before = self.map();
                    let done = self.engine.prefetch_to_device(&ranges[i], self.all(i)).map(drop);
                    self.judge("prefetch to the device", &done, &before);
                    let _ = self.engine.sync();
                }
                // Shared by now, so a store makes it Host again, and a launch protects it first.
                self.store(1, 5, 10);
                let done = self.engine.prefetch_to_device(&ranges[1], self.all(1)).map(drop);
                self.judge("prefetch again", &done, &[]);
            }
            Flow::Guard => {
                for kind in [GuardKind::Read, GuardKind::Write] {
                    let range = Arc::clone(&self.known[0].range);
                    let guard = self.engine.guard(&range, self.all(0), kind);
                    if let Ok(op) = &guard {
                        let start = range.offset();
                        let home = self.host.alias((start..start + range.bytes()).into()).to_vec();
                        assert_eq!(home, vec![2; home.len()], "twin: guarded bytes");
                        self.engine.drop_guard(&range, self.all(0), *op);
                    }
                    self.judge("guard", &guard.map(drop), &[]);
                }
            }
            Flow::Renew => {
                for i in [0, 2] {
                    let label = Arc::clone(self.known[i].range.label());
                    let bytes = self.known[i].range.bytes();
                    self.engine.free(&self.known[i].range);
                    // A stray touch of what is being given back poisons a free page: the next allocation must clear it.
                    let page = PageIndex(self.known[i].range.offset() / u64::from(SMALL.page_bytes));
                    self.host.inject(Fault { page, write: false });
                    self.sleep(Duration::from_millis(150));
                    let range = (0..20).find_map(|_| match self.engine.alloc(bytes, &label) {
                        Ok(range) => Some(range),
                        Err(error) => {
                            self.judge("alloc", &Err(error), &[]);
                            None
                        }
                    });
                    self.known[i] = Known { range: range.expect("a call fails once"), may_be: vec![0] };
                    self.load(i, 0);
                }
            }
            Flow::Limit => {
                let done = self.engine.set_device_memory_limit(SMALL.frame_bytes()).map(drop);
                self.judge("a smaller limit", &done, &[]);
                let done = self.engine.set_device_memory_limit(FRAMES * SMALL.frame_bytes()).map(drop);
                self.judge("a larger limit", &done, &[]);
                self.load(0, 0);
            }
            Flow::Loss => {
                self.troubled = true;
                self.device.lose();
                self.sleep(Duration::from_millis(300));
                self.load(0, 0);
                self.store(1, 0, 10);
                self.load(2, 0);
            }
            Flow::Stray => {
                let page = PageIndex(self.host.profile().reservation_bytes / u64::from(SMALL.page_bytes) - 1);
                assert_eq!(self.host.touch(page, true), Err(TouchError::Poisoned(page)), "nobody's page");
            }
        }
        let _ = self.engine.sync();
    }

    fn sleep(&self, time: Duration) {
        let idle = self.exec.signal();
        let end = self.exec.now() + time.as_nanos() as u64;
        while self.exec.now() < end {
            idle.wait(idle.epoch(), Some(Duration::from_millis(10)));
        }
    }

    /// A touch, which may end in SIGBUS where a call failed.
    fn load(&self, i: usize, at: u64) {
        let start = self.known[i].range.offset() + at;
        match self.host.load((start..start + 1).into()) {
            Ok(got) => assert!(self.known[i].may_be.contains(&got[0]), "twin: load of {i}:{at}: {got:?}"),
            Err(TouchError::Poisoned(_)) if self.troubled => {}
            Err(error) => panic!("a touch: {error}"),
        }
    }

    /// Stores what is there, so that the twin stays simple.
    fn store(&self, i: usize, at: u64, value: u8) {
        assert!(self.known[i].may_be.contains(&value), "a store changes nothing");
        match self.host.store(self.known[i].range.offset() + at, &[value]) {
            Ok(()) => {}
            Err(TouchError::Poisoned(_)) if self.troubled => {}
            Err(error) => panic!("a touch: {error}"),
        }
    }

    pub fn is_lost(&self) -> bool {
        // A refused submission is loss that the completion thread hears of within its patience.
        self.sleep(Duration::from_millis(250));
        let limit = self.engine.device_memory().0;
        self.engine.set_device_memory_limit(limit).is_err()
    }

    /// Every byte is what it may be, or Lost by name; without a loss none is.
    pub fn verify(&self, lost: bool) {
        self.engine.audit(|_| None).unwrap_or_else(|broken| panic!("audit: {broken}"));
        let page_bytes = u64::from(SMALL.page_bytes);
        for (i, Known { range, may_be }) in self.known.iter().enumerate() {
            for start in (0..range.bytes()).step_by(page_bytes as usize) {
                let page = ByteRange { start, end: (start + page_bytes).min(range.bytes()) };
                match self.engine.check(range, page) {
                    Ok(()) => {}
                    Err(EngineError::Lost { .. }) if lost => {
                        let touched =
                            self.host.touch(PageIndex((range.offset() + start) / page_bytes), false);
                        assert!(
                            matches!(touched, Err(TouchError::Poisoned(_))),
                            "a lost page is SIGBUS: {touched:?}"
                        );
                        continue;
                    }
                    Err(error) => panic!("check: {error}"),
                }
                self.engine.bring_home(range, page, GuardKind::Read).unwrap_or_else(|e| panic!("home: {e}"));
                let place = ByteRange { start: range.offset() + page.start, end: range.offset() + page.end };
                let got = self.host.alias(place).to_vec();
                let right = may_be.iter().any(|v| got.iter().all(|g| g == v));
                assert!(right, "twin: page at {start} of range {i} is {got:?}, not {may_be:?}");
            }
        }
    }

    /// What is left works, unless the device is gone; then all is freed, and nothing is left over.
    pub fn close(self, lost: bool) {
        if !lost {
            for i in 0..3 {
                let want = self.known[i].may_be[0].wrapping_add(1);
                self.launch(&add(1), &[(i, Write)]).unwrap_or_else(|e| panic!("a launch afterwards: {e}"));
                let start = self.known[i].range.offset();
                let all = ByteRange { start, end: start + self.known[i].range.bytes() };
                let got = self.host.load(all).expect("nothing is lost");
                assert_eq!(got, vec![want; got.len()], "twin: a launch afterwards");
            }
        }
        let Self { exec, engine, host, known, .. } = self;
        let _ = engine.sync();
        known.iter().for_each(|k| engine.free(&k.range));
        drop(known);
        let idle = exec.signal();
        let rest = |what: &str, done: &dyn Fn() -> bool| {
            let end = exec.now() + 30_000_000_000;
            while !done() {
                assert!(
                    exec.now() < end,
                    "liveness: {what}: {:?}; {}",
                    engine.leftovers(),
                    engine.who_is_busy()
                );
                idle.wait(idle.epoch(), Some(Duration::from_millis(50)));
            }
        };
        // What a lost device may still write stays as long as it exists; an operation of its own is over, but never arrives.
        rest("nothing is left over", &|| {
            let left = engine.leftovers();
            if lost { left.ranges == left.quarantined } else { left == Leftovers::default() }
        });
        assert!(engine.leftovers().quarantined > 0 || host.populated_pages() == 0, "leak: host pages");
        engine.stop();
        rest("the engine's threads let go", &|| Arc::strong_count(&engine) == 1);
    }

    /// How often each call was made so far.
    pub fn made(&self) -> BTreeMap<&'static str, u64> {
        let (h, d) = (self.host.calls(), self.device.calls());
        BTreeMap::from([
            ("populate", h.populate),
            ("revoke", h.revoke),
            ("protect", h.protect),
            ("publish", h.publish),
            ("poison", h.poison),
            ("punch", h.punch),
            ("grow", d.grow),
            ("buffer", d.buffer),
            ("import", d.import),
            ("submit", d.submit),
            ("read_frames", d.frames),
        ])
    }
}
