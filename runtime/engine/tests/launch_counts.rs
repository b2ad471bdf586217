//! What a launch takes: locks by rank, words of the gates, submissions, barriers, allocations. Exact numbers, the same for one block
//! and for thousands: times are measured elsewhere (`benches/launch_overhead`), counts are the law.

mod common;

use common::{SMALL, within};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vkhmm_engine::{
    AccessKind, Argument, BindTo, Config, Engine, LaunchSpec, Op, OpStatus, Ports, RangeCell,
};
use vkhmm_port::fake::{
    FakeDevice, FakeDeviceOptions, FakeExec, FakeFaults, FakeHost, FakeHostOptions, FakeImports, FakeKernel,
    FakeMutex, FakeSignal,
};
use vkhmm_port::{CopyJob, Exec, Mutex, Rank, Signal};

/// Locks taken, by rank: admission, space, block, gate, arena, submit, leaf.
type Locks = [u32; 7];

thread_local! {
    static LOCKS: Cell<Locks> = const { Cell::new([0; 7]) };
    static ALLOCATIONS: Cell<u32> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: GlobalAlloc: every call is passed on to the system's allocator; the count is a thread's own and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// How often somebody woke the completion thread, and the submission thread.
type Woken = Arc<[AtomicU64; 2]>;

/// The fakes' locks and threads; locks are counted, and who is woken.
#[derive(Clone)]
struct CountingExec(FakeExec, Woken);

struct CountingMutex<T> {
    rank: Rank,
    inner: FakeMutex<T>,
}

impl<T: Send + 'static> Mutex<T> for CountingMutex<T> {
    type Guard<'a>
        = <FakeMutex<T> as Mutex<T>>::Guard<'a>
    where
        T: 'a;

    fn lock(&self) -> Self::Guard<'_> {
        let mut locks = LOCKS.get();
        locks[self.rank as usize] += 1;
        LOCKS.set(locks);
        self.inner.lock()
    }
    fn try_lock(&self) -> Option<Self::Guard<'_>> {
        self.inner.try_lock()
    }
}

struct CountingSignal {
    inner: FakeSignal,
    woken: Woken,
}

impl Signal for CountingSignal {
    fn epoch(&self) -> u32 {
        self.inner.epoch()
    }
    fn wait(&self, seen: u32, timeout: Option<Duration>) {
        self.inner.wait(seen, timeout);
        let thread = std::thread::current();
        let ours = ["vkhmm-complete", "vkhmm-submit"].iter().position(|name| thread.name() == Some(name));
        if let Some(which) = ours.filter(|_| self.epoch() != seen) {
            self.woken[which].fetch_add(1, Ordering::Relaxed);
        }
    }
    fn notify(&self) {
        self.inner.notify();
    }
}

impl Exec for CountingExec {
    type Mutex<T: Send + 'static> = CountingMutex<T>;
    type Signal = CountingSignal;

    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> CountingMutex<T> {
        CountingMutex { rank, inner: self.0.mutex(rank, value) }
    }
    fn signal(&self) -> CountingSignal {
        CountingSignal { inner: self.0.signal(), woken: Arc::clone(&self.1) }
    }
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        self.0.spawn(name, body)
    }
    fn now(&self) -> u64 {
        self.0.now()
    }
    fn copy(&self, jobs: &[CopyJob]) {
        self.0.copy(jobs);
    }
}

struct CountingPorts;

impl Ports for CountingPorts {
    type Exec = CountingExec;
    type Host = FakeHost;
    type Device = FakeDevice;
}

type Range = Arc<RangeCell<CountingPorts>>;

/// An engine whose device is busy until it is let go, so that launches are recorded and nothing else.
struct World {
    engine: Arc<Engine<CountingPorts>>,
    device: FakeDevice,
    woken: Woken,
    open: Arc<AtomicBool>,
    idle: Range,
}

/// What one launch took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    locks: Locks,
    allocations: u32,
    gate_words: u64,
    submits: u64,
    barriers: u64,
}

impl World {
    fn new(blocks: u32, in_place_bytes: u64) -> Self {
        let imports = FakeImports::default();
        let host = FakeHost::new(
            SMALL,
            blocks + 8,
            FakeHostOptions { imports: imports.clone(), ..FakeHostOptions::default() },
        );
        let device = FakeDevice::new(
            SMALL,
            FakeDeviceOptions {
                import: Some(imports),
                in_place_bytes_max: Some(1 << 40),
                ..FakeDeviceOptions::default()
            },
        );
        let config = Config {
            geometry: SMALL,
            device_memory_limit: Some(u64::from(blocks + 8) * SMALL.block_bytes()),
            import_bytes_min: u64::MAX,
            in_place_bytes,
            strict_io: false,
            batch_age: Duration::from_secs(100),
            ..Config::default()
        };
        let woken = Woken::default();
        let exec = CountingExec(FakeExec::new(), Arc::clone(&woken));
        let engine = Engine::new(exec, Arc::new(host.clone()), Arc::new(device.clone()), config);
        let faults: FakeFaults = host.faults();
        engine.start(Some(Arc::new(faults))).expect("threads");
        let idle = engine.alloc(SMALL.block_bytes(), "idle").expect("alloc");
        let world = Self { engine, device, woken, open: Arc::default(), idle };
        world.done(&world.launch(&nothing(), &world.idle, 0, AccessKind::Overwrite));
        world
    }

    fn spec(kernel: &FakeKernel, range: &Range, from: u64, access: AccessKind) -> LaunchSpec<CountingPorts> {
        let bytes = (from..range.bytes()).into();
        let argument = Argument { range: Some(Arc::clone(range)), bytes, access, bind: BindTo::Binding };
        LaunchSpec {
            kernel: Some(Arc::new(kernel.clone())),
            groups: [1; 3],
            arguments: vec![argument],
            push: Vec::new(),
            label: "counted".into(),
        }
    }

    fn launch(
        &self,
        kernel: &FakeKernel,
        range: &Range,
        from: u64,
        access: AccessKind,
    ) -> Arc<Op<CountingPorts>> {
        self.engine.launch(Self::spec(kernel, range, from, access)).expect("launch")
    }

    fn done(&self, op: &Arc<Op<CountingPorts>>) {
        assert!(self.engine.wait(op, Some(Duration::from_secs(20))).expect("wait"));
    }

    /// Brings the range to where kernels use it, and keeps the device at work from then on.
    fn settle(&self, range: &Range, from: u64) {
        self.done(&self.launch(&nothing(), range, from, AccessKind::Overwrite));
        let open = Arc::clone(&self.open);
        let busy = FakeKernel::new(move |_, _, _| {
            while !open.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        self.launch(&busy, &self.idle, 0, AccessKind::Read);
        self.engine.flush();
        // Opens the batch.
        self.launch(&nothing(), range, from, AccessKind::Read);
    }

    /// Forty launches, one after the other.
    fn count(&self, range: &Range, from: u64, access: AccessKind) -> Vec<Taken> {
        let kernel = nothing();
        let one = |_| {
            let spec = Self::spec(&kernel, range, from, access);
            let before = self.engine.stats();
            LOCKS.set([0; 7]);
            ALLOCATIONS.set(0);
            let op = self.engine.launch(spec).expect("launch");
            let (locks, allocations) = (LOCKS.get(), ALLOCATIONS.get());
            drop(op);
            let since = self.engine.stats().since(&before);
            let (gate_words, submits, barriers) = (since.gate_words, since.submits, since.barriers);
            Taken { locks, allocations, gate_words, submits, barriers }
        };
        (0..40).map(one).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.open.store(true, Ordering::Release);
        self.engine.stop();
    }
}

fn nothing() -> FakeKernel {
    FakeKernel::new(|_, _, _| {})
}

/// What a launch takes when no table grows just then: all else must be the same every time.
fn least(taken: &[Taken]) -> Taken {
    let least = *taken.iter().min_by_key(|t| t.allocations).expect("forty");
    for one in taken {
        assert_eq!(Taken { allocations: least.allocations, ..*one }, least);
        assert!(one.allocations <= least.allocations + 5, "{one:?} beside {least:?}");
    }
    let sum: u32 = taken.iter().map(|t| t.allocations - least.allocations).sum();
    assert!(sum <= taken.len() as u32, "tables grow by doubling, not at every launch: {sum} times");
    least
}

const BLOCKS: [u32; 3] = [1, 128, 32_768];

#[test]
fn resident_launches_take_the_same_whatever_their_size() {
    within(120, || {
        for blocks in BLOCKS {
            let w = World::new(blocks, 0);
            let x = w.engine.alloc(u64::from(blocks) * SMALL.block_bytes(), "x").expect("alloc");
            w.settle(&x, 0);
            let expected = Taken {
                locks: [0, 0, 0, 2, 2, 1, 8],
                allocations: RESIDENT_ALLOCATIONS,
                gate_words: 0,
                submits: 0,
                barriers: 0,
            };
            assert_eq!(least(&w.count(&x, 0, AccessKind::Read)), expected, "{blocks} blocks");
        }
    });
}

const RESIDENT_ALLOCATIONS: u32 = 8;

#[test]
fn part_of_a_range_costs_a_word_for_64_blocks() {
    within(120, || {
        for (blocks, words) in BLOCKS.into_iter().zip([1, 3, 513]) {
            let w = World::new(blocks + 1, 0);
            let x = w.engine.alloc(u64::from(blocks + 1) * SMALL.block_bytes(), "x").expect("alloc");
            w.settle(&x, SMALL.block_bytes());
            let taken = least(&w.count(&x, SMALL.block_bytes(), AccessKind::Read));
            assert_eq!((taken.gate_words, taken.locks), (words, [0, 0, 0, 2, 2, 1, 8]), "{blocks} blocks");
            assert_eq!(taken.allocations, RESIDENT_ALLOCATIONS);
        }
    });
}

#[test]
fn a_launch_in_place_takes_the_lock_of_its_block_and_no_turn() {
    within(60, || {
        let w = World::new(8, SMALL.block_bytes());
        let x = w.engine.alloc(SMALL.block_bytes(), "x").expect("alloc");
        w.settle(&x, 0);
        // More than a block bears holds: later launches take those of earlier ones over.
        let taken = least(&w.count(&x, 0, AccessKind::Write));
        assert_eq!(taken.locks, [0, 0, 1, 0, 1, 1, 12], "{taken:?}");
        assert_eq!((taken.submits, taken.barriers), (0, 1), "stores to the same bytes, one after the other");
    });
}

#[test]
fn a_hundred_launches_are_few_submissions_and_no_barrier() {
    within(60, || {
        let w = World::new(8, 0);
        let x = w.engine.alloc(8 * SMALL.block_bytes(), "x").expect("alloc");
        w.settle(&x, 0);
        let before = (w.engine.stats(), w.device.calls().submit);
        let mut last = None;
        for _ in 0..100 {
            last = Some(w.launch(&nothing(), &x, 0, AccessKind::Read));
        }
        let since = w.engine.stats().since(&before.0);
        // 64 launches are a batch, and one was in it before.
        assert_eq!((since.submits, since.barriers, since.launches_resident), (1, 0, 100));
        w.open.store(true, Ordering::Release);
        w.done(&last.expect("a hundred"));
        assert_eq!(w.device.calls().submit - before.1, 2, "the wait submits the rest");
    });
}

/// Whoever waits for a launch is the only thread that is woken for it, by the device. Our own look after themselves, a few hundred
/// times in a second at most: no launch wakes them.
#[test]
fn a_launch_that_is_waited_for_wakes_none_of_our_threads() {
    const PAIRS: u64 = 2000;
    within(60, || {
        for in_place_bytes in [0, SMALL.block_bytes()] {
            let w = World::new(8, in_place_bytes);
            let x = w.engine.alloc(SMALL.block_bytes(), "x").expect("alloc");
            let pair = || w.done(&w.launch(&nothing(), &x, 0, AccessKind::Write));
            (0..10).for_each(|_| pair());
            let woken = || w.woken.each_ref().map(|count| count.load(Ordering::Relaxed));
            let before = (w.device.calls().wait, woken(), w.engine.stats(), Instant::now());
            (0..PAIRS).for_each(|_| pair());
            let looks = before.3.elapsed().as_millis() as u64 / 5 + 2;
            let since = w.engine.stats().since(&before.2);
            assert_eq!((since.launches_resident + since.launches_in_place, since.submits), (PAIRS, PAIRS));
            let waits = w.device.calls().wait - before.0;
            assert!(waits <= 3 * looks, "{waits} waits for the device beside those of {PAIRS} launches");
            let [complete, submit] = [0, 1].map(|which| woken()[which] - before.1[which]);
            assert!(complete <= 3 * looks && submit <= looks, "woken {complete} and {submit} times");
        }
    });
}

/// What is left to a waiter ends in time though none comes.
#[test]
fn a_launch_that_nobody_waits_for_ends_all_the_same() {
    within(60, || {
        let w = World::new(8, 0);
        let x = w.engine.alloc(SMALL.block_bytes(), "x").expect("alloc");
        for _ in 0..20 {
            // Waited for, so the completion thread dozes.
            w.done(&w.launch(&nothing(), &x, 0, AccessKind::Write));
            let op = w.launch(&nothing(), &x, 0, AccessKind::Write);
            while op.status() != OpStatus::Done {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
}
