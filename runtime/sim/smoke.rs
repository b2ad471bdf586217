//! The smoke scenario: two application threads that share every page, launches, loads and stores over the production engine, and
//! a flat twin of each thread's bytes as the oracle.
//!
//! Each thread owns every second byte of one shared range, and a range of its own. Kernels change their owner's bytes only, so
//! that whatever the other thread does meanwhile, a thread must always find what a plain array would hold.

use crate::{Random, Run, SimDevice, SimExec, SimHost, device, host, run};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_engine::{
    AccessKind, Argument, BindTo, Config, Engine, GuardKind, LaunchSpec, Op, Ports, RangeCell,
};
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeImports, FakeKernel};
use vkhmm_port::{Exec, Mutex, Rank, RawBytes, Signal};

/// A world so small that every limit is met: 16-byte pages, 64-byte frames, 128-byte blocks.
pub const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

const THREADS: u64 = 2;
const STEPS: u64 = 10;

/// The ports of a world.
pub struct SimPorts;

impl Ports for SimPorts {
    type Exec = SimExec;
    type Host = SimHost;
    type Device = SimDevice;
}

/// Plays the scenario under `seed`.
pub fn play(seed: u64) -> Run {
    run(seed, move |exec| scene(exec, &mut Random::new(seed.wrapping_mul(0x2545_F491_4F6C_DD1D))))
}

/// What the seed makes of the world.
fn scene(exec: &SimExec, random: &mut Random) {
    let imports = FakeImports::default();
    let kinds = [
        MemoryKind::DevicePrivate,
        MemoryKind::DevicePrivate,
        MemoryKind::DeviceBar,
        MemoryKind::DeviceCoherent,
    ];
    let host_options = FakeHostOptions {
        publish_read_only: !random.one_in(8),
        imports: imports.clone(),
        ..FakeHostOptions::default()
    };
    let device_options = FakeDeviceOptions {
        kind: kinds[random.below(4) as usize],
        timelines: if random.one_in(3) { 1 } else { 3 },
        import: random.one_in(2).then_some(imports),
        staging_slots: 2 + random.below(3) as u32,
        frames_max: 16,
        regions_max: 1 + random.below(4) as u32,
        inline_copy_bytes: random.below(2) * 128,
        delay: Duration::from_micros(random.below(3) * 20),
        ..FakeDeviceOptions::default()
    };
    let config = Config {
        geometry: SMALL,
        device_memory_limit: Some((3 + random.below(6)) * SMALL.frame_bytes()),
        import_bytes_min: 0,
        strict_io: random.one_in(3),
        batch_launches_max: 1 + random.below(3) as usize,
        ..Config::default()
    };
    exec.note(format_args!(
        "world: {:?}, {} timelines, import {}, {} slots, {} regions, limit {} frames, strict {}",
        device_options.kind,
        device_options.timelines,
        device_options.import.is_some(),
        device_options.staging_slots,
        device_options.regions_max,
        config.device_memory_limit.unwrap_or(0) / SMALL.frame_bytes(),
        config.strict_io,
    ));
    let host = host(exec, SMALL, 8, host_options);
    let device = device(exec, SMALL, device_options);
    let engine: Arc<Engine<SimPorts>> =
        Engine::new(exec.clone(), Arc::new(host.clone()), Arc::new(device.clone()), config);
    engine.start(Some(Arc::new(host.faults()))).expect("threads for the engine");

    let shared = engine.alloc(SMALL.block_bytes(), "shared").expect("one block");
    let ended = Arc::new((exec.mutex(Rank::Leaf, 0), exec.signal()));
    for me in 0..THREADS {
        let own = engine.alloc(SMALL.frame_bytes(), "own").expect("one block");
        let mut app = App {
            me,
            exec: exec.clone(),
            engine: Arc::clone(&engine),
            host: host.clone(),
            random: Random::new(random.number()),
            twins: [vec![0; shared.bytes() as usize], vec![0; own.bytes() as usize]],
            ranges: [Arc::clone(&shared), own],
            last: None,
        };
        let ended = Arc::clone(&ended);
        let body = move || {
            (0..STEPS).for_each(|_| app.step());
            app.finish();
            drop(app);
            *ended.0.lock() += 1;
            ended.1.notify();
        };
        exec.spawn(&format!("app{me}"), Box::new(body)).expect("a thread for the application");
    }
    let app = || format!("the application ends; {}", engine.who_is_busy());
    wait_until(exec, &ended.1, app, || *ended.0.lock() == THREADS);
    engine.free(&shared);
    drop(shared);
    engine.stop();
    let idle = exec.signal();
    let threads = || format!("the engine's threads let go; {}", engine.who_is_busy());
    wait_until(exec, &idle, threads, || Arc::strong_count(&engine) == 1);
    assert_eq!(host.populated_pages(), 0, "host pages that nobody owns are left");
}

/// Waits for `done`, which `signal` announces or time brings.
fn wait_until(exec: &SimExec, signal: &impl Signal, what: impl Fn() -> String, done: impl Fn() -> bool) {
    let end = exec.now() + 60_000_000_000;
    loop {
        let seen = signal.epoch();
        if done() {
            return;
        }
        assert!(exec.now() < end, "not within a minute: {}", what());
        signal.wait(seen, Some(Duration::from_millis(100)));
    }
}

/// One application thread.
struct App {
    me: u64,
    exec: SimExec,
    engine: Arc<Engine<SimPorts>>,
    host: SimHost,
    random: Random,
    /// The shared range, and its own.
    ranges: [Arc<RangeCell<SimPorts>>; 2],
    /// What the bytes it owns must be, for each.
    twins: [Vec<u8>; 2],
    last: Option<Arc<Op<SimPorts>>>,
}

impl App {
    /// Whether byte `at` of a range is this thread's.
    fn owns(&self, range: usize, at: u64) -> bool {
        range == 1 || at % THREADS == self.me
    }

    fn owned(&self, range: usize, bytes: ByteRange) -> Vec<u64> {
        (bytes.start..bytes.end).filter(|at| self.owns(range, *at)).collect()
    }

    fn some_byte(&mut self, range: usize) -> u64 {
        let at = self.random.below(self.ranges[range].bytes());
        if self.owns(range, at) { at } else { (at + 1) % self.ranges[range].bytes() }
    }

    fn some_bytes(&mut self, range: usize) -> ByteRange {
        let bytes = self.ranges[range].bytes();
        if self.random.one_in(3) {
            return ByteRange { start: 0, end: bytes };
        }
        let start = self.random.below(bytes);
        ByteRange { start, end: start + 1 + self.random.below(bytes - start) }
    }

    fn step(&mut self) {
        let range = self.random.below(2) as usize;
        match self.random.below(12) {
            0..3 => self.store(range),
            3..5 => self.load(range),
            5..8 => self.add(range),
            8 => self.copy_to_own(),
            9 => self.overwrite_own(),
            10 => self.move_by_hand(range),
            _ => self.wait(),
        }
    }

    fn store(&mut self, range: usize) {
        let (at, value) = (self.some_byte(range), self.random.number() as u8);
        self.exec.note(format_args!("store {range}:{at} = {value}"));
        self.host.store(self.ranges[range].offset() + at, &[value]).expect("nothing is lost");
        self.twins[range][at as usize] = value;
    }

    fn load(&mut self, range: usize) {
        let at = self.some_byte(range);
        self.exec.note(format_args!("load {range}:{at}"));
        self.expect(range, at);
    }

    fn expect(&self, range: usize, at: u64) {
        let start = self.ranges[range].offset() + at;
        let got = self.host.load(ByteRange { start, end: start + 1 }).expect("nothing is lost")[0];
        let wanted = self.twins[range][at as usize];
        assert_eq!(got, wanted, "app{} read byte {at} of range {range}", self.me);
    }

    /// A kernel that adds to its owner's bytes.
    fn add(&mut self, range: usize) {
        let (bytes, add) = (self.some_bytes(range), self.random.number() as u8);
        self.exec.note(format_args!("launch add {add} to {range}:{}..{}", bytes.start, bytes.end));
        let (me, start, all) = (self.me, bytes.start, range == 1);
        let kernel = FakeKernel::new(move |bindings, _, _| {
            for i in 0..bindings[0].len() {
                if all || (start + i as u64) % THREADS == me {
                    let byte = bindings[0].slice(i, 1);
                    byte.write(&[byte.to_vec()[0].wrapping_add(add)]);
                }
            }
        });
        self.launch(kernel, &[(range, bytes, AccessKind::Write)]);
        for at in self.owned(range, bytes) {
            let byte = &mut self.twins[range][at as usize];
            *byte = byte.wrapping_add(add);
        }
    }

    /// A kernel that reads the shared range and writes its owner's bytes of it to the start of the own one.
    fn copy_to_own(&mut self) {
        let mut from = self.some_bytes(0);
        from.end = from.end.min(from.start + self.ranges[1].bytes());
        let to = ByteRange { start: 0, end: from.len() };
        self.exec.note(format_args!("launch copy of 0:{}..{}", from.start, from.end));
        let (me, start) = (self.me, from.start);
        let kernel = FakeKernel::new(move |bindings: &[RawBytes], _, _| {
            for i in (0..bindings[0].len()).filter(|i| (start + *i as u64) % THREADS == me) {
                bindings[1].slice(i, 1).copy_from(bindings[0].slice(i, 1));
            }
        });
        self.launch(kernel, &[(0, from, AccessKind::Read), (1, to, AccessKind::Write)]);
        for at in self.owned(0, from) {
            self.twins[1][(at - start) as usize] = self.twins[0][at as usize];
        }
    }

    /// A kernel that sets its own range, whatever was in it.
    fn overwrite_own(&mut self) {
        let (bytes, value) = (self.some_bytes(1), self.random.number() as u8);
        self.exec.note(format_args!("launch overwrite of 1:{}..{} with {value}", bytes.start, bytes.end));
        let kernel = FakeKernel::new(move |bindings, _, _| bindings[0].fill(value));
        self.launch(kernel, &[(1, bytes, AccessKind::Overwrite)]);
        self.twins[1][bytes.start as usize..bytes.end as usize].fill(value);
    }

    fn launch(&mut self, kernel: FakeKernel, arguments: &[(usize, ByteRange, AccessKind)]) {
        let argument = |(range, bytes, access): &(usize, ByteRange, AccessKind)| Argument {
            range: Some(Arc::clone(&self.ranges[*range])),
            bytes: *bytes,
            access: *access,
            bind: BindTo::Binding,
        };
        let spec = LaunchSpec {
            kernel: Some(Arc::new(kernel)),
            groups: [1; 3],
            arguments: arguments.iter().map(argument).collect(),
            push: Vec::new(),
            label: "kernel".into(),
        };
        let launched = self.engine.launch(spec);
        self.last = Some(launched.unwrap_or_else(|error| panic!("launch: {error}")));
    }

    /// Prefetches, either way, and the host's own request.
    fn move_by_hand(&mut self, range: usize) {
        let bytes = self.some_bytes(range);
        let cell = Arc::clone(&self.ranges[range]);
        match self.random.below(3) {
            0 => {
                self.exec.note(format_args!("prefetch {range}:{}..{} to the device", bytes.start, bytes.end));
                drop(
                    self.engine.prefetch_to_device(&cell, bytes).unwrap_or_else(|e| panic!("prefetch: {e}")),
                );
            }
            1 => {
                self.exec.note(format_args!("prefetch {range}:{}..{} to the host", bytes.start, bytes.end));
                drop(self.engine.prefetch_to_host(&cell, bytes).unwrap_or_else(|e| panic!("prefetch: {e}")));
            }
            _ => {
                self.exec.note(format_args!("bring {range}:{}..{} home", bytes.start, bytes.end));
                let kind = if self.random.one_in(2) { GuardKind::Read } else { GuardKind::Write };
                self.engine.bring_home(&cell, bytes, kind).unwrap_or_else(|e| panic!("bring home: {e}"));
            }
        }
    }

    fn wait(&mut self) {
        if let Some(op) = self.last.take() {
            self.exec.note(format_args!("wait"));
            let over = self.engine.wait(&op, None).unwrap_or_else(|error| panic!("wait: {error}"));
            assert!(over, "a wait without limit ends when the launch is over");
        }
    }

    /// Every byte is as in the twin.
    fn finish(&mut self) {
        self.exec.note(format_args!("compare all"));
        for range in 0..2 {
            let all = ByteRange { start: 0, end: self.ranges[range].bytes() };
            self.owned(range, all).into_iter().for_each(|at| self.expect(range, at));
        }
        self.engine.free(&self.ranges[1]);
    }
}
