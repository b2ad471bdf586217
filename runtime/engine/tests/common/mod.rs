//! An engine over the fakes, and what its tests do with it.

#![allow(dead_code, unreachable_pub)]

pub mod app;
pub mod paged;

use core::fmt::Arguments;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_core::policy::{Adaptive, Plain};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex};
use vkhmm_engine::{
    AccessKind, Argument, BindTo, Config, Engine, EngineError, LaunchSpec, Op, PlacementKind, Ports,
    Prefetch, RangeCell,
};
use vkhmm_port::fake::{
    FakeDevice, FakeDeviceOptions, FakeExec, FakeFaults, FakeHost, FakeHostOptions, FakeImports, FakeKernel,
    Watch,
};
use vkhmm_port::{FaultMode, HostMemory, RawBytes, SparseProfile};

/// Every limit is met at once.
pub const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };
/// Several sub-blocks of several pages.
pub const LARGE: Geometry = Geometry { page_bytes: 64, pages_per_sub: 8, pages_per_block: 64 };

/// The ports of a test: fakes, with `H` for the host.
pub struct TestPorts<H = FakeHost>(std::marker::PhantomData<H>);

impl<H: HostMemory> Ports for TestPorts<H> {
    type Exec = FakeExec;
    type Host = H;
    type Device = FakeDevice;
}

pub type Range<H = FakeHost> = Arc<RangeCell<TestPorts<H>>>;
pub type Operation<H = FakeHost> = Arc<Op<TestPorts<H>>>;
pub type Access<'a, H = FakeHost> = (&'a Range<H>, core::ops::Range<u64>, AccessKind);

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Setup {
    pub geometry: Geometry,
    pub blocks: u32,
    pub kind: MemoryKind,
    pub timelines: u8,
    pub import: bool,
    pub import_limit: u64,
    /// Kernels can work in place: on unified memory, and on ranges of at most so many bytes.
    pub in_place: Option<u64>,
    pub queue_is_shared: bool,
    /// All timelines share one queue.
    pub one_queue: bool,
    /// There are sparse buffers, of so many bytes in all.
    pub sparse: Option<u64>,
    pub slots: u32,
    pub limit_frames: u32,
    pub piece_frames: u32,
    pub regions: u32,
    pub inline_bytes: u64,
    pub delay: Duration,
    pub faults: FaultMode,
    /// Touches are answered in their own threads where that can be.
    pub in_thread: bool,
    /// R is best changed by blocks.
    pub by_block: bool,
    pub publish_read_only: bool,
    pub protect: bool,
    pub strict: bool,
    /// A touch brings its sub-block, and nothing else comes along.
    pub plain: bool,
    pub batch_age: Duration,
    /// Copies go ahead in parts of so many bytes.
    pub part_bytes: u64,
    pub populated_max: u64,
    /// When a block of a paged launch is read where it is, and for how long.
    pub remote: (u32, Duration),
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            geometry: SMALL,
            blocks: 64,
            kind: MemoryKind::DevicePrivate,
            timelines: 3,
            import: true,
            import_limit: u64::MAX,
            in_place: None,
            queue_is_shared: false,
            one_queue: false,
            sparse: None,
            slots: 4,
            limit_frames: 64,
            piece_frames: u32::MAX,
            regions: 256,
            inline_bytes: 0,
            delay: Duration::ZERO,
            faults: FaultMode::Full,
            in_thread: false,
            by_block: false,
            publish_read_only: true,
            protect: true,
            strict: false,
            plain: false,
            batch_age: Duration::from_micros(200),
            part_bytes: u64::MAX,
            populated_max: u64::MAX,
            remote: (Config::default().remote_after, Config::default().remote_time),
        }
    }
}

/// Option combinations that every flow is run with: each option in each of its values, in every pair that matters.
pub fn combinations() -> Vec<Setup> {
    [framed(), in_place()].concat()
}

/// Those of [`combinations`] in which kernels work on frames alone: in spans, in sparse buffers, and in both at once, where the
/// space for sparse buffers is short.
pub fn framed() -> Vec<Setup> {
    let spans = spans();
    let sparse = |space| move |setup: &Setup| Setup { sparse: Some(space), ..setup.clone() };
    let short = [0, 3, 5, 12, 14].map(|i| sparse(4 * spans[i].geometry.block_bytes())(&spans[i]));
    let whole: Vec<_> = spans.iter().map(sparse(1 << 30)).collect();
    [spans, whole, short.into()].concat()
}

/// Those without sparse buffers.
pub fn spans() -> Vec<Setup> {
    let base = Setup::default();
    vec![
        base.clone(),
        Setup { import: false, ..base.clone() },
        Setup { timelines: 1, ..base.clone() },
        Setup { timelines: 1, import: false, slots: 2, ..base.clone() },
        Setup { inline_bytes: 64, ..base.clone() },
        Setup { kind: MemoryKind::DeviceCoherent, import: false, ..base.clone() },
        Setup { kind: MemoryKind::DeviceCoherent, timelines: 1, regions: 1, ..base.clone() },
        Setup { kind: MemoryKind::DeviceCoherent, queue_is_shared: true, timelines: 1, ..base.clone() },
        Setup { kind: MemoryKind::DeviceBar, strict: true, ..base.clone() },
        Setup { kind: MemoryKind::UnifiedMemory, import: false, slots: 1, ..base.clone() },
        Setup { publish_read_only: false, ..base.clone() },
        Setup { publish_read_only: false, import: false, timelines: 1, strict: true, ..base.clone() },
        Setup { protect: false, ..base.clone() },
        Setup { geometry: LARGE, regions: 3, ..base.clone() },
        Setup { geometry: LARGE, import: false, regions: 2, timelines: 1, ..base.clone() },
        Setup { part_bytes: 1, inline_bytes: 64, ..base.clone() },
        Setup { part_bytes: 1, geometry: LARGE, import: false, slots: 2, ..base.clone() },
        Setup { part_bytes: 1, timelines: 1, import_limit: 512, ..base.clone() },
        Setup { import_limit: 512, ..base.clone() },
        Setup { faults: FaultMode::Declared, ..base.clone() },
        Setup { faults: FaultMode::Declared, import: false, timelines: 1, ..base.clone() },
        Setup { in_thread: true, ..base.clone() },
        Setup { in_thread: true, kind: MemoryKind::DeviceCoherent, geometry: LARGE, ..base.clone() },
        Setup { in_thread: true, kind: MemoryKind::DeviceCoherent, publish_read_only: false, ..base.clone() },
        Setup { in_thread: true, by_block: true, faults: FaultMode::UserOnly, ..base.clone() },
        Setup { in_thread: true, by_block: true, kind: MemoryKind::DeviceCoherent, ..base.clone() },
        Setup { by_block: true, geometry: LARGE, import: false, ..base },
    ]
}

/// Those in which kernels work in place: on everything, on small ranges, and until imports are refused.
pub fn in_place() -> Vec<Setup> {
    let base = Setup { in_place: Some(u64::MAX), ..Setup::default() };
    let unified = Setup { kind: MemoryKind::UnifiedMemory, in_place: Some(0), ..Setup::default() };
    vec![
        unified.clone(),
        Setup { import_limit: 512, queue_is_shared: true, ..unified.clone() },
        Setup { import_limit: 512, sparse: Some(1 << 30), ..unified.clone() },
        Setup { geometry: LARGE, strict: true, ..unified },
        Setup { in_place: Some(3 * SMALL.block_bytes()), ..base.clone() },
        Setup { publish_read_only: false, timelines: 1, ..base.clone() },
        Setup { protect: false, ..base.clone() },
        Setup { in_thread: true, by_block: true, ..base.clone() },
        Setup { faults: FaultMode::Declared, ..base },
    ]
}

/// An engine that runs, and the fakes under it.
pub struct World<H: HostMemory = FakeHost> {
    pub engine: Arc<Engine<TestPorts<H>>>,
    pub host: FakeHost,
    pub device: FakeDevice,
    pub imports: FakeImports,
    pub setup: Setup,
    /// Threads that must not have submitted, and did.
    pub misplaced: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        Self::with_host(setup, |host| host)
    }

    /// `watch` is told of every call of the device.
    pub fn with_device(setup: Setup, watch: impl Fn(Arguments<'_>) + Send + Sync + 'static) -> Self {
        Self::with(setup, |host| host, None, watch)
    }

    /// `watch` is told of every call of both ports, in order.
    pub fn with_log(setup: Setup, watch: impl Fn(Arguments<'_>) + Send + Sync + 'static) -> Self {
        let watch: Watch = Arc::new(watch);
        let host = Arc::clone(&watch);
        Self::with(setup, |host| host, Some(host), move |line| watch(line))
    }

    pub fn small() -> Self {
        Self::new(Setup::default())
    }

    pub fn limited(frames: u32) -> Self {
        Self::new(Setup { limit_frames: frames, ..Setup::default() })
    }
}

impl<H: HostMemory> World<H> {
    /// The engine works on what `wrap` makes of the host.
    pub fn with_host(setup: Setup, wrap: impl FnOnce(FakeHost) -> H) -> Self {
        Self::with(setup, wrap, None, |_| ())
    }

    fn with(
        setup: Setup,
        wrap: impl FnOnce(FakeHost) -> H,
        watch_host: Option<Watch>,
        watch: impl Fn(Arguments<'_>) + Send + Sync + 'static,
    ) -> Self {
        let imports = FakeImports::default();
        let watched = setup.queue_is_shared || watch_host.is_some();
        let misplaced = Arc::new(Mutex::new(Vec::new()));
        let host = FakeHost::new(
            setup.geometry,
            setup.blocks,
            FakeHostOptions {
                faults: setup.faults,
                in_thread: setup.in_thread,
                granule_pages: if setup.by_block { setup.geometry.pages_per_block } else { 1 },
                publish_read_only: setup.publish_read_only,
                protect: setup.protect,
                populated_pages_max: setup.populated_max,
                imports: imports.clone(),
                watch: watch_host,
                ..FakeHostOptions::default()
            },
        );
        let device = FakeDevice::new(
            setup.geometry,
            FakeDeviceOptions {
                kind: setup.kind,
                timelines: setup.timelines,
                import: setup.import.then(|| imports.clone()),
                in_place_bytes_max: setup.in_place.map(|_| 1 << 40),
                queue_is_shared: setup.queue_is_shared,
                one_queue: setup.one_queue,
                watch: watched.then(|| submitters(setup.queue_is_shared, &misplaced, watch)),
                sparse: setup.sparse.map(|space_bytes| SparseProfile {
                    page_bytes: setup.geometry.frame_bytes(),
                    buffer_bytes_max: 1 << 30,
                    space_bytes,
                }),
                staging_slots: setup.slots,
                frames_max: 1 << 16,
                piece_frames_max: setup.piece_frames,
                regions_max: setup.regions,
                inline_copy_bytes: setup.inline_bytes,
                delay: setup.delay,
                ..FakeDeviceOptions::default()
            },
        );
        let config = Config {
            geometry: setup.geometry,
            device_memory_limit: Some(u64::from(setup.limit_frames) * setup.geometry.frame_bytes()),
            import_limit: setup.import_limit,
            import_bytes_min: 1,
            in_place_bytes: setup.in_place.unwrap_or(0),
            strict_io: setup.strict,
            policy: if setup.plain { Arc::new(Plain) } else { Arc::new(Adaptive) },
            batch_age: setup.batch_age,
            part_bytes: setup.part_bytes,
            remote_after: setup.remote.0,
            remote_time: setup.remote.1,
            watchdog: Duration::from_secs(3),
            ..Config::default()
        };
        let engine =
            Engine::new(FakeExec::new(), Arc::new(wrap(host.clone())), Arc::new(device.clone()), config);
        let declared = setup.faults == FaultMode::Declared;
        let faults: Option<Arc<FakeFaults>> = (!declared).then(|| Arc::new(host.faults()));
        engine.start(faults).expect("threads");
        Self { engine, host, device, imports, setup, misplaced }
    }

    pub fn page(&self) -> u64 {
        u64::from(self.setup.geometry.page_bytes)
    }

    pub fn frame(&self) -> u64 {
        self.setup.geometry.frame_bytes()
    }

    pub fn block(&self) -> u64 {
        self.setup.geometry.block_bytes()
    }

    pub fn declared(&self) -> bool {
        self.setup.faults == FaultMode::Declared
    }

    pub fn alloc(&self, bytes: u64) -> Range<H> {
        self.engine.alloc(bytes, "test").expect("address space")
    }

    /// Loads as an application does: through R, or in `declared` through a slice that was brought home.
    pub fn load(&self, range: &Range<H>, bytes: core::ops::Range<u64>) -> Vec<u8> {
        let at = absolute(range, &bytes);
        if self.declared() {
            let read = vkhmm_engine::GuardKind::Read;
            self.engine.bring_home(range, bytes.into(), read).expect("home");
            return self.host.alias(at).to_vec();
        }
        self.host.load(at).expect("a load of live memory")
    }

    pub fn load_all(&self, range: &Range<H>) -> Vec<u8> {
        self.load(range, 0..range.bytes())
    }

    /// Stores as an application does.
    pub fn store(&self, range: &Range<H>, offset: u64, bytes: &[u8]) {
        if self.declared() {
            let interval = offset..offset + bytes.len() as u64;
            let write = vkhmm_engine::GuardKind::Write;
            self.engine.bring_home(range, interval.clone().into(), write).expect("home");
            self.host.alias(absolute(range, &interval)).write(bytes);
            return;
        }
        self.host.store(range.offset() + offset, bytes).expect("a store to live memory");
    }

    pub fn spec(&self, kernel: &FakeKernel, accesses: &[Access<'_, H>]) -> LaunchSpec<TestPorts<H>> {
        LaunchSpec {
            kernel: Some(Arc::new(kernel.clone())),
            groups: [1; 3],
            arguments: accesses
                .iter()
                .map(|(range, bytes, access)| Argument {
                    range: Some(Arc::clone(range)),
                    bytes: bytes.clone().into(),
                    access: *access,
                    bind: BindTo::Binding,
                })
                .collect(),
            push: Vec::new(),
            label: "kernel".into(),
        }
    }

    pub fn try_launch(
        &self,
        kernel: &FakeKernel,
        accesses: &[Access<'_, H>],
    ) -> Result<Operation<H>, EngineError> {
        self.engine.launch(self.spec(kernel, accesses))
    }

    pub fn launch(&self, kernel: &FakeKernel, accesses: &[Access<'_, H>]) -> Operation<H> {
        self.try_launch(kernel, accesses).expect("a launch that fits")
    }

    pub fn wait(&self, op: &Operation<H>) {
        assert!(self.engine.wait(op, Some(Duration::from_secs(20))).expect("no loss"), "not over in 20 s");
    }

    /// Waits until a hint is over, which left nothing out.
    pub fn arrived(&self, hint: &Prefetch<TestPorts<H>>) {
        assert_eq!(hint.skipped(), []);
        hint.ops().iter().for_each(|op| self.wait(op));
    }

    /// Waits until nothing is open; then nothing may be left over.
    pub fn rest(&self) {
        self.engine.sync().expect("no loss");
        until("no operation is open", || self.engine.who_is_busy() == "no operation is open");
        assert_eq!(*self.misplaced.lock().unwrap(), [""; 0], "threads that answer touches have submitted");
    }

    pub fn location(&self, range: &Range<H>, offset: u64) -> Location {
        self.engine.page_flags(range, offset).location()
    }

    /// The locations of all pages, one letter each.
    pub fn map(&self, range: &Range<H>) -> String {
        let pages = range.bytes().div_ceil(self.page());
        (0..pages).map(|p| letter(self.location(range, p * self.page()))).collect()
    }

    /// Whether kernels work on the range's own bytes. Once it was launched on, that is for life.
    pub fn in_place(&self, range: &Range<H>) -> bool {
        range.placement().0 == PlacementKind::InPlace
    }

    pub fn page_at(&self, range: &Range<H>, offset: u64) -> PageIndex {
        PageIndex((range.offset() + offset) / self.page())
    }
}

impl<H: HostMemory> Drop for World<H> {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// Notes submissions by threads that answer touches, where they must not submit.
fn submitters(
    queue_is_shared: bool,
    misplaced: &Arc<Mutex<Vec<String>>>,
    watch: impl Fn(Arguments<'_>) + Send + Sync + 'static,
) -> Watch {
    let misplaced = Arc::clone(misplaced);
    Arc::new(move |line| {
        let thread = std::thread::current();
        let answers = matches!(thread.name(), Some("vkhmm-fault" | "vkhmm-complete"));
        if queue_is_shared && answers && line.to_string().starts_with("submit") {
            misplaced.lock().unwrap().push(format!("{thread:?}: {line}"));
        }
        watch(line);
    })
}

pub fn letter(location: Location) -> char {
    match location {
        Location::Absent => '.',
        Location::Host => 'H',
        Location::Shared => 'S',
        Location::Device => 'D',
        Location::Lost => 'X',
    }
}

fn absolute<H: HostMemory>(range: &Range<H>, bytes: &core::ops::Range<u64>) -> ByteRange {
    ByteRange { start: range.offset() + bytes.start, end: range.offset() + bytes.end }
}

/// Polls until `done`, at most 20 seconds.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs `body` on a thread of its own and fails if it is not over in `seconds`: a hang is a failure, not a stuck test.
pub fn within<T: Send + 'static>(seconds: u64, body: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, over) = channel();
    let thread = std::thread::spawn(move || done.send(body()));
    match over.recv_timeout(Duration::from_secs(seconds)) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("not over after {seconds} s"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("the sender is gone only after a panic"),
        },
    }
}

/// Adds `n` to every byte of every binding.
pub fn add(n: u8) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| bindings.iter().for_each(|b| map(*b, |v| v.wrapping_add(n))))
}

/// Sets every byte of every binding.
pub fn set(value: u8) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| bindings.iter().for_each(|b| b.fill(value)))
}

/// Reads everything, changes nothing.
pub fn look() -> FakeKernel {
    FakeKernel::new(|bindings, _, _| {
        for binding in bindings {
            std::hint::black_box(binding.to_vec());
        }
    })
}

/// Second binding := first binding + 1, as far as both go.
pub fn copy_plus_one() -> FakeKernel {
    FakeKernel::new(|bindings, _, _| {
        let len = bindings[0].len().min(bindings[1].len());
        let from: Vec<u8> = bindings[0].slice(0, len).to_vec().iter().map(|v| v.wrapping_add(1)).collect();
        bindings[1].slice(0, len).write(&from);
    })
}

pub fn map(bytes: RawBytes, f: impl Fn(u8) -> u8) {
    let new: Vec<u8> = bytes.to_vec().into_iter().map(f).collect();
    bytes.write(&new);
}

/// A small deterministic generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Runs `body` in a fresh world of each combination; then everything comes to rest.
pub fn each(body: impl Fn(&World) + Send + Copy + 'static) {
    each_of(combinations(), body);
}

/// As [`each`], in worlds where every argument lies in a span.
pub fn each_in_spans(body: impl Fn(&World) + Send + Copy + 'static) {
    each_of(spans(), body);
}

/// As [`each`], in worlds where bytes must move.
pub fn each_framed(body: impl Fn(&World) + Send + Copy + 'static) {
    each_of(framed(), body);
}

pub fn each_of(setups: Vec<Setup>, body: impl Fn(&World) + Send + Copy + 'static) {
    for setup in setups {
        let shown = format!("{setup:?}");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            within(20, move || {
                let world = World::new(setup);
                body(&world);
                world.rest();
            });
        }));
        if let Err(panic) = outcome {
            eprintln!("with {shown}");
            std::panic::resume_unwind(panic);
        }
    }
}
