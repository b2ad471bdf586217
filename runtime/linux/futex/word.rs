//! The futex word: an atomic, and the two system calls that sleep on it and wake. `model.rs` takes this file's place under loom.

use crate::futex::timespec;
use core::time::Duration;
use rustix::thread::futex::{self, Flags};

pub(super) use core::hint::spin_loop as spin;
pub(super) use core::sync::atomic::AtomicU32 as Word;

/// Looks at a taken lock before sleeping; critical sections are shorter than a sleep and a wake.
pub(super) const SPINS: u32 = 100;

/// Sleeps while the word is `expected`, for at most `timeout`. Comes back early on any signal: whoever calls tests again.
#[inline]
pub(super) fn wait(word: &Word, expected: u32, timeout: Option<Duration>) {
    let _ = futex::wait(word, Flags::PRIVATE, expected, timeout.map(timespec).as_ref());
}

/// Wakes up to `count` sleepers. Cannot fail on a mapped word; if nobody sleeps it wakes nobody.
#[inline]
pub(super) fn wake(word: &Word, count: u32) {
    let _ = futex::wake(word, Flags::PRIVATE, count);
}
