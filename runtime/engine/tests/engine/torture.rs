//! Counters that nobody may lose: on every page one word belongs to the CPU and one to the device, and both count at once, with no
//! borrow rules, against prefetches, evictions and trims. The same engine over a host that revokes too late must lose some.

use crate::common::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use vkhmm_core::units::{ByteRange, PageRun};
use vkhmm_engine::AccessKind::Write;
use vkhmm_engine::Stats;
use vkhmm_port::fake::{FakeHost, FakeKernel};
use vkhmm_port::{Access, FaultMode, HostError, HostMemory, HostProfile, RawBytes};

const WORD: u64 = 8;

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a word"))
}

/// Adds one to the device's word of every page: the last word.
fn bump(page: usize) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| {
        for binding in bindings {
            for at in (0..binding.len()).step_by(page) {
                let mine = binding.slice(at + page - WORD as usize, WORD as usize);
                mine.write(&(word(&mine.to_vec()) + 1).to_le_bytes());
            }
        }
    })
}

/// Lets everybody count for `time`. Returns how many updates were lost.
fn torture<H: HostMemory>(w: &World<H>, time: Duration) -> u64 {
    let (page, pages, threads) = (w.page(), 6 * w.block() / w.page(), 3);
    let x = w.alloc(pages * page);
    let launched: Vec<AtomicU64> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let stored: Vec<AtomicU64> = (0..pages).map(|_| AtomicU64::new(0)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (w, x, over, launched, stored) = (w, &x, &over, &launched, &stored);
        for t in 0..threads {
            scope.spawn(move || {
                let mut random = Random::new(t + 1);
                while !over.load(Ordering::Relaxed) {
                    let p = random.below(pages / threads) * threads + t;
                    let at = x.offset() + p * page;
                    for _ in 0..8 {
                        let old = w.host.load(ByteRange { start: at, end: at + WORD }).expect("live");
                        w.host.store(at, &(word(&old) + 1).to_le_bytes()).expect("live");
                        stored[p as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for t in 0..2 {
            scope.spawn(move || {
                let mut random = Random::new(t + 100);
                let kernel = bump(page as usize);
                while !over.load(Ordering::Relaxed) {
                    let a = random.below(pages);
                    let b = a + 1 + random.below((pages - a).min(2 * w.block() / page));
                    w.launch(&kernel, &[(x, a * page..b * page, Write)]);
                    launched[a as usize..b as usize].iter().for_each(|n| {
                        n.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
        scope.spawn(move || {
            let mut random = Random::new(7);
            while !over.load(Ordering::Relaxed) {
                let a = random.below(pages) * page;
                let b = (a + (1 + random.below(16)) * page).min(pages * page);
                match random.below(3) {
                    0 => drop(w.engine.prefetch_to_host(x, (a..b).into()).expect("alive")),
                    1 => drop(w.engine.prefetch_to_device(x, (a..b).into()).expect("alive")),
                    _ => drop(w.engine.trim(w.frame() * 2).expect("alive")),
                }
            }
        });
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::sleep(Duration::from_millis(5));
        }
        over.store(true, Ordering::Relaxed);
    });
    let all = w.host.load(ByteRange { start: x.offset(), end: x.offset() + pages * page }).expect("live");
    let mut lost = 0;
    for p in 0..pages as usize {
        let bytes = &all[p * page as usize..(p + 1) * page as usize];
        let (cpu, device) = (word(&bytes[..8]), word(&bytes[page as usize - 8..]));
        lost += stored[p].load(Ordering::Relaxed).abs_diff(cpu);
        lost += launched[p].load(Ordering::Relaxed).abs_diff(device);
    }
    lost
}

/// What such a torture has to meet, and what of it was not.
fn missed(s: &Stats) -> Vec<&'static str> {
    let in_place = s.launches_in_place > 0;
    [
        ("parked", s.faults_parked > 0),
        ("read", s.faults_read > 0),
        ("write", s.faults_write > 0),
        ("moved by fault", (s.out_fault_bytes > 0) != in_place),
        ("moved by evict", (s.out_evict_bytes > 0) != in_place),
        ("moved by prefetch home", (s.out_prefetch_bytes > 0) != in_place),
        ("moved by launch", (s.in_launch_bytes > 0) != in_place),
    ]
    .into_iter()
    .filter_map(|(name, met)| (!met).then_some(name))
    .collect()
}

#[test]
fn nothing_is_lost() {
    for setup in combinations().into_iter().filter(|s| s.faults == FaultMode::Full) {
        within(60, move || {
            let shown = format!("{setup:?}");
            let w = World::new(Setup { limit_frames: 7 * setup.geometry.subs_per_block(), ..setup });
            // On a busy machine one round may not meet everything.
            for _ in 0..20 {
                let lost = torture(&w, Duration::from_millis(300));
                w.rest();
                assert_eq!(lost, 0, "{shown}\n{}", w.engine.stats());
                if missed(&w.engine.stats()).is_empty() {
                    return;
                }
            }
            let s = w.engine.stats();
            panic!("not met: {:?}, {shown}\n{s}", missed(&s));
        });
    }
}

/// A host that says "revoked" and does it later: copy before revoke, the order that the order law forbids.
struct Late {
    host: FakeHost,
    later: Mutex<Sender<(Instant, PageRun)>>,
}

impl Late {
    fn new(host: FakeHost) -> Self {
        let (later, jobs) = channel::<(Instant, PageRun)>();
        let hand = host.clone();
        std::thread::spawn(move || {
            for (when, run) in jobs {
                std::thread::sleep(when.saturating_duration_since(Instant::now()));
                hand.revoke(run).expect("a fake revokes");
            }
        });
        Self { host, later: Mutex::new(later) }
    }
}

impl HostMemory for Late {
    fn profile(&self) -> &HostProfile {
        self.host.profile()
    }
    fn base(&self) -> usize {
        self.host.base()
    }
    fn owned(&self) -> bool {
        true
    }
    fn alias(&self, range: ByteRange) -> RawBytes {
        self.host.alias(range)
    }
    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.host.populate(run)
    }
    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        let when = Instant::now() + Duration::from_millis(1);
        self.later.lock().expect("no panic under it").send((when, run)).expect("the late thread runs");
        Ok(())
    }
    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.host.protect(run)
    }
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.host.publish(run, access)
    }
    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.host.poison(run)
    }
    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.host.punch(run)
    }
}

#[test]
fn copy_before_revoke_loses_updates_every_time() {
    for run in 0..10 {
        let lost = within(30, || {
            let w = World::with_host(Setup { limit_frames: 14, ..Setup::default() }, Late::new);
            torture(&w, Duration::from_millis(200))
        });
        assert!(lost > 0, "run {run} lost nothing: the torture would not notice");
    }
}
