//! The futex word as loom sees it, in place of `word.rs`: an atomic of loom, and the kernel's promise about sleeping on it.
//!
//! The promise: comparing the word and going to sleep are one step for whoever wakes. The kernel keeps it with the lock of a hash
//! bucket, so does the model with a mutex. Two things are the model's own:
//!
//! * loom takes a SeqCst access for an AcqRel one. Here each also takes its place in one order of all of them: a write by a tick
//!   after it that releases, a load by a tick before it that acquires. A load so sees every SeqCst write that came before it
//!   in that order, and a write that was weakened is not in the order.
//! * Time does not pass. [`expire`] says that every timeout is over, at whatever moment loom chooses for it.

use core::time::Duration;
use loom::lazy_static;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Condvar, Mutex};

pub(super) use loom::hint::spin_loop as spin;

/// One look is as good as a hundred: what the lock does next is the same.
pub(super) const SPINS: u32 = 1;

lazy_static! {
    static ref ORDER: AtomicU32 = AtomicU32::new(0);
}

/// The word, with the kernel's queue of those who sleep on it.
#[derive(Debug, Default)]
pub(super) struct Word {
    value: AtomicU32,
    /// Lock: the kernel's hash bucket. Owns whether time is up · never held while asleep.
    bucket: Mutex<bool>,
    sleepers: Condvar,
}

impl Word {
    pub(super) fn new(value: u32) -> Self {
        Self { value: AtomicU32::new(value), ..Self::default() }
    }

    pub(super) fn load(&self, ordering: Ordering) -> u32 {
        if ordering == Ordering::SeqCst {
            ORDER.fetch_add(1, Ordering::Acquire);
            return self.value.load(Ordering::Acquire);
        }
        self.value.load(ordering)
    }

    pub(super) fn swap(&self, value: u32, ordering: Ordering) -> u32 {
        self.write(ordering, |o| self.value.swap(value, o))
    }

    pub(super) fn fetch_add(&self, n: u32, ordering: Ordering) -> u32 {
        self.write(ordering, |o| self.value.fetch_add(n, o))
    }

    pub(super) fn fetch_sub(&self, n: u32, ordering: Ordering) -> u32 {
        self.write(ordering, |o| self.value.fetch_sub(n, o))
    }

    /// The lock alone uses it, and never with SeqCst.
    pub(super) fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        ok: Ordering,
        not: Ordering,
    ) -> Result<u32, u32> {
        self.value.compare_exchange(old, new, ok, not)
    }

    fn write(&self, ordering: Ordering, access: impl FnOnce(Ordering) -> u32) -> u32 {
        if ordering != Ordering::SeqCst {
            return access(ordering);
        }
        let before = access(Ordering::AcqRel);
        ORDER.fetch_add(1, Ordering::Release);
        before
    }
}

/// FUTEX_WAIT.
pub(super) fn wait(word: &Word, expected: u32, timeout: Option<Duration>) {
    let expired = word.bucket.lock().expect("no thread of a model panics and goes on");
    if word.value.load(Ordering::Relaxed) != expected || (timeout.is_some() && *expired) {
        return;
    }
    drop(word.sleepers.wait(expired));
}

/// FUTEX_WAKE.
pub(super) fn wake(word: &Word, count: u32) {
    let _bucket = word.bucket.lock().expect("no thread of a model panics and goes on");
    if count == 1 { word.sleepers.notify_one() } else { word.sleepers.notify_all() }
}

/// Every timeout on this word is over, now and from now on. Others who sleep here wake early, as a signal would make them.
pub(super) fn expire(word: &Word) {
    *word.bucket.lock().expect("no thread of a model panics and goes on") = true;
    word.sleepers.notify_all();
}
