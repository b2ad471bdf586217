//! Exec: locks, signals, threads and time. The engine has no other way to any of them, so a simulator that implements this
//! port decides every interleaving.

use crate::RawBytes;
use core::ops::DerefMut;
use core::time::Duration;

/// The place of a lock in the one lock order, outer first. A thread may lock only ranks below (greater than) those it holds;
/// several blocks are taken in ascending order of their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The FIFO gate of launches that move anything.
    Admission,
    /// The table of ranges and the reservation's free blocks.
    Space,
    /// One block's state.
    Block,
    /// One range's gate.
    Gate,
    /// Frames, spans, eviction order.
    Arena,
    /// The open batch and the submission queue.
    Submit,
    /// Leaf tables: operations, stats, traces.
    Leaf,
}

/// A lock of the engine.
pub trait Mutex<T>: Send + Sync {
    /// Access to the value; unlocks when dropped.
    type Guard<'a>: DerefMut<Target = T>
    where
        Self: 'a,
        T: 'a;

    /// Waits until the lock is free and takes it. Never poisoned.
    fn lock(&self) -> Self::Guard<'_>;

    /// Takes the lock if it is free.
    fn try_lock(&self) -> Option<Self::Guard<'_>>;
}

/// An event count: waiters read the epoch, test their condition, then wait for the epoch to pass. No wake-up between the read
/// and the wait is lost.
pub trait Signal: Send + Sync {
    /// The present epoch.
    fn epoch(&self) -> u32;

    /// Waits until the epoch differs from `seen`, or `timeout` has passed. May return early.
    fn wait(&self, seen: u32, timeout: Option<Duration>);

    /// Starts a new epoch and wakes every waiter.
    fn notify(&self);
}

/// One copy between two spans of equal length.
#[derive(Clone, Copy, Debug)]
pub struct CopyJob {
    /// Where the bytes are.
    pub from: RawBytes,
    /// Where they go.
    pub to: RawBytes,
}

/// Locks, signals, threads, time and bulk host copies.
pub trait Exec: Clone + Send + Sync + 'static {
    /// Its lock.
    type Mutex<T: Send + 'static>: Mutex<T> + 'static;
    /// Its event count.
    type Signal: Signal + 'static;

    /// A new lock around `value`. `rank` is its place in the lock order; debug builds check it.
    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> Self::Mutex<T>;

    /// A new event count.
    fn signal(&self) -> Self::Signal;

    /// Starts a thread that blocks all signals and is never joined.
    ///
    /// # Errors
    /// What the system said.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()>;

    /// Nanoseconds since some fixed moment.
    fn now(&self) -> u64;

    /// Performs all copies, in parallel where that pays. Called from the engine's own threads only and with no lock held.
    fn copy(&self, jobs: &[CopyJob]);

    /// Tells people what no caller can be told: on stderr, unless the implementation has a better place.
    fn report(&self, line: core::fmt::Arguments<'_>) {
        eprintln!("vkhmm: {line}");
    }
}
