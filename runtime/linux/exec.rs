//! Locks, signals, threads, time and bulk copies of the engine, by futexes and std threads.

use crate::futex::{EventCount, Lock};
use crate::signals::spawn_blocked;
use rayon::iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, OnceLock};
use vkhmm_port::{CopyJob, Exec, Rank};

/// From how many bytes in all a copy is spread over threads; below it waking them costs more than it saves.
const PARALLEL_BYTES: usize = 4 << 20;
/// What one thread copies at a time.
const PIECE_BYTES: usize = 1 << 20;
/// More threads than this do not make memory faster.
const COPY_THREADS_MAX: usize = 8;

/// The engine's way to locks, threads and time. Cloning shares the copy pool.
#[derive(Clone, Default)]
pub struct LinuxExec {
    /// Made at the first bulk copy; `None` inside if the system refused the threads, and copies are then sequential.
    ///
    /// Contract of its threads: own nothing · block on their own queue · never touch R, take a lock of the engine or run
    /// anything but copies.
    pool: Arc<OnceLock<Option<ThreadPool>>>,
}

impl LinuxExec {
    /// Ready at once; the copy pool is made when first needed.
    pub fn new() -> Self {
        Self::default()
    }

    fn pool(&self) -> Option<&ThreadPool> {
        self.pool.get_or_init(copy_pool).as_ref()
    }
}

fn copy_pool() -> Option<ThreadPool> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(COPY_THREADS_MAX);
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("vkhmm-copy-{n}"))
        .spawn_handler(|thread| {
            let name = thread.name().unwrap_or("vkhmm-copy").to_owned();
            spawn_blocked(&name, || thread.run())
        })
        .build()
        .ok()
}

impl Exec for LinuxExec {
    type Mutex<T: Send + 'static> = Lock<T>;
    type Signal = EventCount;

    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> Lock<T> {
        Lock::new(rank, value)
    }

    fn signal(&self) -> EventCount {
        EventCount::default()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        spawn_blocked(name, body)
    }

    fn now(&self) -> u64 {
        monotonic_ns()
    }

    fn copy(&self, jobs: &[CopyJob]) {
        let bytes: usize = jobs.iter().map(|job| job.to.len()).sum();
        match (bytes >= PARALLEL_BYTES).then(|| self.pool()).flatten() {
            Some(pool) => pool.install(|| jobs.par_iter().for_each(copy_in_pieces)),
            None => jobs.iter().for_each(|job| job.to.copy_from(job.from)),
        }
    }
}

fn copy_in_pieces(job: &CopyJob) {
    assert_eq!(job.to.len(), job.from.len(), "copy between spans of different length");
    (0..job.to.len().div_ceil(PIECE_BYTES)).into_par_iter().for_each(|piece| {
        let at = piece * PIECE_BYTES;
        let len = PIECE_BYTES.min(job.to.len() - at);
        job.to.slice(at, len).copy_from(job.from.slice(at, len));
    });
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Which ranks the calling thread holds: the lock order, checked in debug builds. (All threads of a loom model are one to std.)
#[cfg(all(debug_assertions, not(loom)))]
pub(crate) mod held {
    use core::cell::Cell;
    use vkhmm_port::Rank;

    const RANKS: usize = Rank::Leaf as usize + 1;

    thread_local! {
        static COUNTS: Cell<[u16; RANKS]> = const { Cell::new([0; RANKS]) };
    }

    fn change(rank: Rank, by: i16) {
        COUNTS.with(|counts| {
            let mut now = counts.get();
            now[rank as usize] = now[rank as usize].wrapping_add_signed(by);
            counts.set(now);
        });
    }

    /// Panics if waiting for a lock of `rank` breaks the order.
    pub(crate) fn check(rank: Rank) {
        let counts = COUNTS.with(Cell::get);
        let from = rank as usize + usize::from(rank == Rank::Block);
        assert!(
            counts[from..].iter().all(|n| *n == 0),
            "lock order broken: waiting for {rank:?} while holding, by rank, {counts:?}"
        );
    }

    pub(crate) fn took(rank: Rank) {
        change(rank, 1);
    }

    pub(crate) fn released(rank: Rank) {
        change(rank, -1);
    }
}

/// Release builds check nothing and keep nothing.
#[cfg(any(not(debug_assertions), loom))]
pub(crate) mod held {
    use vkhmm_port::Rank;

    pub(crate) const fn check(_: Rank) {}
    pub(crate) const fn took(_: Rank) {}
    pub(crate) const fn released(_: Rank) {}
}
