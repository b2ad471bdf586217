//! FakeExec: the Exec port over `std`, with the lock order checked at every lock.

use super::locked;
use crate::exec::{self, CopyJob, Exec, Rank};
use core::cell::RefCell;
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

thread_local! {
    static HELD: RefCell<Vec<Rank>> = const { RefCell::new(Vec::new()) };
}

/// The mark that this thread holds a lock of some rank, for implementations of [`Exec`] that check the order.
pub struct HeldRank(Rank);

impl HeldRank {
    /// Marks `rank` as held, for a lock that was waited for.
    ///
    /// # Panics
    /// If this thread holds a lock of the same or an inner rank already. Several blocks and several gates may be held at once;
    /// their own order is the caller's.
    pub fn wait(rank: Rank) -> Self {
        HELD.with_borrow(|held| {
            if let Some(inner) = held.iter().max() {
                let several = matches!(rank, Rank::Block | Rank::Gate);
                assert!(
                    *inner < rank || (several && *inner == rank),
                    "lock order: {rank:?} wanted, {held:?} held"
                );
            }
        });
        Self::taken(rank)
    }

    /// Marks `rank` as held, for a lock that was free: nobody waits, so no order can deadlock.
    pub fn taken(rank: Rank) -> Self {
        HELD.with_borrow_mut(|held| held.push(rank));
        Self(rank)
    }

    /// Whether this thread holds any lock.
    pub fn any() -> bool {
        HELD.with_borrow(|held| !held.is_empty())
    }

    /// Exchanges all marks of this thread with `marks`: for a scheduler that runs several threads of a world on one of the system.
    pub fn exchange(marks: &mut Vec<Rank>) {
        HELD.with_borrow_mut(|held| core::mem::swap(held, marks));
    }
}

impl Drop for HeldRank {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            let at =
                held.iter().rposition(|r| *r == self.0).expect("a held rank is marked until it is dropped");
            held.remove(at);
        });
    }
}

/// Locks, threads and time of the standard library. Its threads do not block signals.
#[derive(Clone)]
pub struct FakeExec {
    start: Instant,
}

impl FakeExec {
    /// A new one; its time starts at zero.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for FakeExec {
    fn default() -> Self {
        Self::new()
    }
}

impl Exec for FakeExec {
    type Mutex<T: Send + 'static> = FakeMutex<T>;
    type Signal = FakeSignal;

    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> FakeMutex<T> {
        FakeMutex { rank, value: Mutex::new(value) }
    }

    fn signal(&self) -> FakeSignal {
        FakeSignal { epoch: Mutex::new(0), passed: Condvar::new() }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn copy(&self, jobs: &[CopyJob]) {
        assert!(!HeldRank::any(), "Exec::copy under a lock");
        for job in jobs {
            job.to.copy_from(job.from);
        }
    }
}

/// Lock of [`FakeExec`]: owns the value · blocks on its holder · what may be taken under it is checked by rank.
pub struct FakeMutex<T> {
    rank: Rank,
    value: Mutex<T>,
}

/// Access to the value of a [`FakeMutex`].
pub struct FakeGuard<'a, T> {
    value: MutexGuard<'a, T>,
    _held: HeldRank,
}

impl<T: Send> exec::Mutex<T> for FakeMutex<T> {
    type Guard<'a>
        = FakeGuard<'a, T>
    where
        T: 'a;

    fn lock(&self) -> FakeGuard<'_, T> {
        let held = HeldRank::wait(self.rank);
        FakeGuard { value: locked(&self.value), _held: held }
    }

    fn try_lock(&self) -> Option<FakeGuard<'_, T>> {
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(FakeGuard { value, _held: HeldRank::taken(self.rank) })
    }
}

impl<T> Deref for FakeGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for FakeGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Event count of [`FakeExec`].
pub struct FakeSignal {
    /// Lock: owns the number · blocks on `passed` alone.
    epoch: Mutex<u32>,
    passed: Condvar,
}

impl exec::Signal for FakeSignal {
    fn epoch(&self) -> u32 {
        *locked(&self.epoch)
    }

    fn wait(&self, seen: u32, timeout: Option<Duration>) {
        let epoch = locked(&self.epoch);
        match timeout {
            Some(timeout) => {
                let waited = self.passed.wait_timeout_while(epoch, timeout, |now| *now == seen);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
            None => {
                let waited = self.passed.wait_while(epoch, |now| *now == seen);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn notify(&self) {
        let mut epoch = locked(&self.epoch);
        *epoch = epoch.wrapping_add(1);
        drop(epoch);
        self.passed.notify_all();
    }
}
