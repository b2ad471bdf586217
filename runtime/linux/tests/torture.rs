//! Torture: writers increment counters in R while a migrator takes blocks to a "device" (a second buffer) and fault handlers
//! bring them home. In the order law no increment is ever lost; copying before revoking must lose some, or the test sees
//! nothing. `VKHMM_TORTURE_SECONDS` sets the length of each run.

mod common;

use common::{Memory, PAGE, SMALL, bytes, run, segv, try_open};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vkhmm_core::units::PageRun;
use vkhmm_linux::{Config, EngineChoice};
use vkhmm_port::{Access, Fault, FaultSource, HostMemory, RawBytes, Resolver};

/// Migrated blocks, 64 KiB each.
const BLOCKS: usize = 24;
const BLOCK_PAGES: u32 = 16;
const BLOCK_BYTES: usize = BLOCK_PAGES as usize * PAGE;
const WRITERS: usize = 3;
/// One more slot per block, which all writers increment by atomics.
const SLOTS: usize = WRITERS + 1;
const GARBAGE: u8 = 0xA5;

/// Where a block's current bytes are; the test's own small state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Host,
    Shared,
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    RevokeFirst,
    CopyFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Stores,
    SystemCallsToo,
}

/// Who answers touches: readers of the source, or the threads themselves where they can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Readers,
    InThread,
}

struct Torture {
    memory: Memory,
    order: Order,
    /// The device's memory; block n's bytes are used under `places[n]` only.
    device: RawBytes,
    places: Vec<Mutex<Place>>,
    stop_migrating: AtomicBool,
    stop_writing: AtomicBool,
    migrations: AtomicU64,
    /// Touches that were answered in their own threads.
    in_thread: AtomicU64,
}

fn random(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 20) as usize
}

impl Torture {
    fn pages(block: usize) -> PageRun {
        run(block as u64 * u64::from(BLOCK_PAGES), BLOCK_PAGES)
    }

    fn alias(&self, block: usize) -> RawBytes {
        self.memory.host.alias(bytes(block as u64 * u64::from(BLOCK_PAGES), BLOCK_PAGES))
    }

    fn on_device(&self, block: usize) -> RawBytes {
        self.device.slice(block * BLOCK_BYTES, BLOCK_BYTES)
    }

    /// Where counter `slot` of `block` is in R: spread over the block's pages.
    fn counter(&self, block: usize, slot: usize) -> usize {
        let page = (block + slot * 5) % BLOCK_PAGES as usize;
        self.memory.host.base() + block * BLOCK_BYTES + page * PAGE + slot * 64
    }

    /// The migrator: owns nothing · blocks on a block's place · never touches R.
    fn migrate(&self, mut seed: u64) {
        let host = &self.memory.host;
        while !self.stop_migrating.load(Ordering::Relaxed) {
            let block = random(&mut seed) % BLOCKS;
            let mut place = self.places[block].lock().expect("no panic under it");
            let share = random(&mut seed) % 2 == 0 && self.order == Order::RevokeFirst;
            match *place {
                Place::Host if share => {
                    host.protect(Self::pages(block)).expect("protect");
                    self.on_device(block).copy_from(self.alias(block));
                    *place = Place::Shared;
                }
                Place::Host => {
                    match self.order {
                        Order::RevokeFirst => {
                            host.revoke(Self::pages(block)).expect("revoke");
                            self.on_device(block).copy_from(self.alias(block));
                        }
                        Order::CopyFirst => {
                            self.on_device(block).copy_from(self.alias(block));
                            host.revoke(Self::pages(block)).expect("revoke");
                        }
                    }
                    self.alias(block).fill(GARBAGE);
                    *place = Place::Device;
                }
                Place::Shared => {
                    host.revoke(Self::pages(block)).expect("revoke");
                    self.alias(block).fill(GARBAGE);
                    *place = Place::Device;
                }
                Place::Device => continue,
            }
            drop(place);
            self.migrations.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes the block what a touch needs. Never waits for anything but the block's place.
    fn bring_home(&self, block: usize, write: bool) {
        let mut place = self.places[block].lock().expect("no panic under it");
        self.bring_home_locked(block, &mut place, write);
    }

    fn bring_home_locked(&self, block: usize, place: &mut Place, write: bool) {
        let host = &self.memory.host;
        if *place == Place::Device {
            self.alias(block).copy_from(self.on_device(block));
        }
        *place = match *place {
            Place::Host => Place::Host,
            _ if write || !host.profile().publish_read_only => Place::Host,
            _ => Place::Shared,
        };
        let access = if *place == Place::Shared {
            Access::ReadOnly
        } else {
            self.on_device(block).fill(!GARBAGE);
            Access::ReadWrite
        };
        host.publish(Self::pages(block), access).expect("publish");
    }

    /// A handler: owns nothing · blocks in `next` and on a block's place · never touches R.
    fn handle(&self) {
        let source = self.memory.source.as_ref().expect("an engine with faults");
        let mut faults = Vec::with_capacity(16);
        let stopped =
            || self.stop_migrating.load(Ordering::Relaxed) && self.stop_writing.load(Ordering::Relaxed);
        while !stopped() {
            source.next(&mut faults, Some(Duration::from_millis(20))).expect("next");
            for fault in faults.drain(..) {
                self.bring_home((fault.page.0 / u64::from(BLOCK_PAGES)) as usize, fault.write);
            }
        }
    }

    /// A writer: increments its own counters (and the shared ones) until told to stop; returns how often, per block and slot.
    fn write(&self, me: usize, writes: Writes) -> Vec<u64> {
        let mut counts = vec![0; BLOCKS * SLOTS];
        let mut seed = 0x9E37_79B9_7F4A_7C15 ^ (me as u64 + 1);
        let file = memfd_create(c"counter", MemfdFlags::CLOEXEC).expect("memfd");
        while !self.stop_writing.load(Ordering::Relaxed) {
            let block = random(&mut seed) % BLOCKS;
            for _ in 0..random(&mut seed) % 50 {
                match random(&mut seed) % 3 {
                    0 if writes == Writes::SystemCallsToo => {
                        increment_by_system_calls(&file, self.counter(block, me));
                        counts[block * SLOTS + me] += 1;
                    }
                    1 => {
                        let shared =
                            core::ptr::with_exposed_provenance::<AtomicU64>(self.counter(block, WRITERS));
                        // SAFETY: the counter is 8 aligned bytes of R, only ever used as an atomic in R.
                        unsafe { &*shared }.fetch_add(1, Ordering::Relaxed);
                        counts[block * SLOTS + WRITERS] += 1;
                    }
                    _ => {
                        let own = core::ptr::with_exposed_provenance_mut::<u64>(self.counter(block, me));
                        // SAFETY: the counter is 8 aligned bytes of R that only this thread uses through R.
                        unsafe { own.write_volatile(own.read_volatile() + 1) };
                        counts[block * SLOTS + me] += 1;
                    }
                }
            }
        }
        counts
    }
}

/// pwrite(2) out of R, one more, pread(2) back into R.
fn increment_by_system_calls(file: &OwnedFd, counter: usize) {
    let place = core::ptr::with_exposed_provenance_mut::<core::ffi::c_void>(counter);
    // SAFETY: the kernel checks the address; the counter is 8 bytes of R that only this thread uses through R.
    let out = unsafe { libc::pwrite(file.as_raw_fd(), place, 8, 0) };
    assert_eq!(out, 8, "{}", std::io::Error::last_os_error());
    let mut value = [0; 8];
    assert_eq!(rustix::io::pread(file, &mut value[..], 0), Ok(8));
    let more = u64::from_ne_bytes(value) + 1;
    assert_eq!(rustix::io::pwrite(file, &more.to_ne_bytes(), 0), Ok(8));
    // SAFETY: pread(2) writes eight bytes of the reservation, which stays mapped and to which no reference exists.
    let back = unsafe { libc::pread(file.as_raw_fd(), place, 8, 0) };
    assert_eq!(back, 8, "{}", std::io::Error::last_os_error());
}

impl Resolver for Torture {
    fn resolve(&self, fault: Fault) -> bool {
        let block = (fault.page.0 / u64::from(BLOCK_PAGES)) as usize;
        let Ok(mut place) = self.places[block].try_lock() else { return false };
        self.bring_home_locked(block, &mut place, fault.write);
        self.in_thread.fetch_add(1, Ordering::Relaxed);
        true
    }
}

fn seconds() -> f64 {
    std::env::var("VKHMM_TORTURE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5.0)
}

/// Runs it and returns how many increments are missing; `None` where the engine cannot be had.
fn lost(config: Config, order: Order, writes: Writes, answers: Answers, seconds: f64) -> Option<u64> {
    let memory = try_open(config)?;
    let all = run(0, BLOCKS as u32 * BLOCK_PAGES);
    memory.host.populate(all).expect("populate");
    memory.host.publish(all, Access::ReadWrite).expect("publish");
    let mut device = vec![0_u8; BLOCKS * BLOCK_BYTES];
    let start = NonNull::new(device.as_mut_ptr()).expect("not null");
    let torture = Arc::new(Torture {
        memory,
        order,
        // SAFETY: the vector lives until the end of this function and is used through this only.
        device: unsafe { RawBytes::new(start, BLOCKS * BLOCK_BYTES) },
        places: (0..BLOCKS).map(|_| Mutex::new(Place::Host)).collect(),
        stop_migrating: AtomicBool::new(false),
        stop_writing: AtomicBool::new(false),
        migrations: AtomicU64::new(0),
        in_thread: AtomicU64::new(0),
    });
    let source = torture.memory.source.as_ref().expect("an engine with faults");
    if answers == Answers::InThread {
        source.resolve_with(Some(Arc::clone(&torture) as Arc<dyn Resolver>));
    }
    let started = Instant::now();
    let totals = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| torture.handle());
        }
        scope.spawn(|| torture.migrate(0x1234_5678_9ABC));
        let writers: Vec<_> = (0..WRITERS)
            .map(|me| {
                let torture = &torture;
                scope.spawn(move || torture.write(me, writes))
            })
            .collect();
        std::thread::sleep(Duration::from_secs_f64(seconds));
        torture.stop_writing.store(true, Ordering::Relaxed);
        let mut totals = vec![0; BLOCKS * SLOTS];
        for writer in writers {
            let counts = writer.join().expect("writer");
            totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
        torture.stop_migrating.store(true, Ordering::Relaxed);
        totals
    });
    source.resolve_with(None);
    assert_eq!(Arc::strong_count(&torture), 1, "nobody is inside the resolver any more");
    let in_thread = torture.in_thread.load(Ordering::Relaxed);
    assert_eq!(
        in_thread > 0,
        answers == Answers::InThread,
        "{in_thread} touches answered in their own threads"
    );
    let mut missing = 0;
    for block in 0..BLOCKS {
        torture.bring_home(block, true);
        for slot in 0..SLOTS {
            let found = core::ptr::with_exposed_provenance::<u64>(torture.counter(block, slot));
            // SAFETY: the block was just published, and all other threads have ended.
            let found = unsafe { found.read_volatile() };
            missing += totals[block * SLOTS + slot].abs_diff(found);
        }
    }
    println!(
        "{} {order:?} {writes:?} {answers:?}: {} migrations, {} increments, {missing} lost in {:.1} s, {in_thread} in thread",
        torture.memory.host.profile().engine,
        torture.migrations.load(Ordering::Relaxed),
        totals.iter().sum::<u64>(),
        started.elapsed().as_secs_f64(),
    );
    Some(missing)
}

const FULL: Config = Config { engine: Some(EngineChoice::UffdThread), ..SMALL };
const USER_ONLY: Config = Config { engine: Some(EngineChoice::UffdThreadUserOnly), ..SMALL };
const SIGBUS: Config = Config { engine: Some(EngineChoice::UffdSigbus), ..SMALL };

#[test]
fn nothing_is_lost_in_the_order_law() {
    let configs = [
        (FULL, Writes::SystemCallsToo),
        (FULL, Writes::Stores),
        (USER_ONLY, Writes::Stores),
        (Config { no_continue_wp: true, ..FULL }, Writes::SystemCallsToo),
    ];
    for (config, writes) in configs {
        if let Some(lost) = lost(config, Order::RevokeFirst, writes, Answers::Readers, seconds()) {
            assert_eq!(lost, 0, "{config:?} {writes:?}");
        }
    }
}

#[test]
fn nothing_is_lost_where_threads_answer_for_themselves() {
    for config in
        [SIGBUS, segv(false), Config { no_poison: true, no_continue_wp: true, ..SIGBUS }, segv(true)]
    {
        for answers in [Answers::InThread, Answers::Readers] {
            if let Some(lost) = lost(config, Order::RevokeFirst, Writes::Stores, answers, seconds()) {
                assert_eq!(lost, 0, "{config:?} {answers:?}");
            }
        }
    }
}

#[test]
fn the_wrong_order_is_seen_to_lose_updates() {
    // Shows that the torture above could fail at all. Seldom needs more than a second.
    for config in [USER_ONLY, SIGBUS, segv(false)] {
        for answers in [Answers::Readers, Answers::InThread] {
            if answers == Answers::InThread && config.engine == USER_ONLY.engine {
                continue;
            }
            let mut tries = 0;
            while let Some(0) = lost(config, Order::CopyFirst, Writes::Stores, answers, 1.0) {
                tries += 1;
                assert!(tries < 20, "copying before revoking lost nothing");
            }
        }
    }
}
