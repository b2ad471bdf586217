//! The lock and the event count, each a futex word: no allocation, no poisoning and, in release builds, no thread-local, so
//! that they work wherever a fault can happen.
//!
//! Debug builds check the lock order (see [`Rank`]). Built with `--cfg loom`, both run on a model of the kernel's futex, and
//! `futex/proofs.rs` tries every order of their steps.

use crate::exec::held;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering;
use core::time::Duration;
use rustix::time::Timespec;
use vkhmm_port::{Mutex, Rank, Signal};
use word::{SPINS, Word, spin, wait, wake};

#[cfg_attr(loom, path = "futex/model.rs")]
mod word;

#[cfg(all(test, loom))]
mod proofs;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const CONTENDED: u32 = 2;

/// A lock of the engine. Owns its value · may block on the holder only · must never be held while R is touched, memory is
/// allocated or user code runs.
pub struct Lock<T> {
    word: Word,
    rank: Rank,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through a guard, of which the word admits one at a time; sending the lock sends the value.
unsafe impl<T: Send> Send for Lock<T> {}
// SAFETY: as above: sharing the lock hands the value from thread to thread, never to two at once.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    pub(crate) fn new(rank: Rank, value: T) -> Self {
        Self { word: Word::new(FREE), rank, value: UnsafeCell::new(value) }
    }

    #[cold]
    fn lock_contended(&self) {
        for _ in 0..SPINS {
            if self.word.load(Ordering::Relaxed) == FREE
                && self.word.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return;
            }
            spin();
        }
        while self.word.swap(CONTENDED, Ordering::Acquire) != FREE {
            // Woken, interrupted or the word changed: in each case the swap decides.
            wait(&self.word, CONTENDED, None);
        }
    }
}

impl<T: Send> Mutex<T> for Lock<T> {
    type Guard<'a>
        = LockGuard<'a, T>
    where
        T: 'a;

    /// # Panics
    /// In debug builds, if the calling thread holds a lock of this rank or an inner one (several blocks excepted).
    fn lock(&self) -> LockGuard<'_, T> {
        held::check(self.rank);
        if self.word.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
        held::took(self.rank);
        LockGuard { lock: self, _thread: PhantomData }
    }

    fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        self.word.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).ok()?;
        held::took(self.rank);
        Some(LockGuard { lock: self, _thread: PhantomData })
    }
}

/// Access to a [`Lock`]'s value; stays on the thread that locked.
pub struct LockGuard<'a, T> {
    lock: &'a Lock<T>,
    _thread: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: Sync> Sync for LockGuard<'_, T> {}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this thread holds the lock and no other reference to the value exists.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` excludes other references through this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for LockGuard<'_, T> {
    fn drop(&mut self) {
        held::released(self.lock.rank);
        if self.lock.word.swap(FREE, Ordering::Release) == CONTENDED {
            wake(&self.lock.word, 1);
        }
    }
}

/// An event count: a futex word that counts epochs, and how many threads sleep on it.
#[derive(Debug, Default)]
pub struct EventCount {
    epoch: Word,
    sleepers: Word,
}

impl Signal for EventCount {
    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn wait(&self, seen: u32, timeout: Option<Duration>) {
        // Announced before the kernel compares the epoch, and `notify` changes the epoch before it looks for sleepers: one of
        // the two sees the other (both SeqCst).
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.epoch() == seen {
            // Woken, timed out, interrupted or changed meanwhile: the caller tests its condition in each case.
            wait(&self.epoch, seen, timeout);
        }
        // Orders nothing: a count that is seen too high costs `notify` a system call.
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    fn notify(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            wake(&self.epoch, i32::MAX as u32);
        }
    }
}

/// `duration` as the kernel wants it; what does not fit is as good as for ever.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
