//! Touches that nobody could answer in their own thread: a fixed table in which a signal handler posts them, readers of the fault
//! source take them, and publish, poison and punch end them. Nothing is allocated after it is made.
//!
//! ```text
//!   slot:  free ──post (handler)──► posted ──take (reader)──► taken ──wake (verb on its page)──► free, next generation
//!                                      └──────────────────────wake─────────────────────────────────▲
//! ```
//!
//! A slot belongs to a page and a kind of access, not to a thread: whoever touches the same waits on the same slot. So a thread
//! may leave and come back (it does, every [`SLICE`]) without a second message, and one that never comes back leaves nothing behind.

use crate::exec::monotonic_ns;
use crate::futex::{EventCount, timespec};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use rustix::thread::futex::{self, Flags};
use vkhmm_core::units::{PageIndex, PageRun};
use vkhmm_port::{Fault, Signal};

/// How many different touches can be open at once; further ones wait outside.
const SLOTS: usize = 1024;
const WORD_SLOTS: usize = u64::BITS as usize;
/// How long a handler sleeps before it returns, so that the signals that it holds back are delivered and the touch is tried again.
const SLICE: Duration = Duration::from_millis(10);
/// How long it sleeps if the table is full.
const OUTSIDE: Duration = Duration::from_micros(200);

/// What a slot's word says in its low bits; above them it counts generations.
const FREE: u32 = 0;
const POSTED: u32 = 1;
const TAKEN: u32 = 2;
const STATE_BITS: u32 = 2;
const STATE: u32 = (1 << STATE_BITS) - 1;

struct Slot {
    /// State and generation: threads sleep on it.
    word: AtomicU32,
    /// The touch: twice its page, and one for a store. Written by whoever made the slot, while its word still says free.
    what: AtomicU64,
}

/// The table.
pub(super) struct Waiters {
    /// One bit per slot that is not free, or about to be.
    used: [AtomicU64; SLOTS / WORD_SLOTS],
    slots: Box<[Slot]>,
    /// Counts posts: readers sleep on it.
    posts: EventCount,
}

fn encode(fault: Fault) -> u64 {
    fault.page.0 << 1 | u64::from(fault.write)
}

fn decode(what: u64) -> Fault {
    Fault { page: PageIndex(what >> 1), write: what & 1 != 0 }
}

impl Waiters {
    pub(super) fn new() -> Self {
        let slot = |_| Slot { word: AtomicU32::new(FREE), what: AtomicU64::new(0) };
        Self {
            used: [const { AtomicU64::new(0) }; SLOTS / WORD_SLOTS],
            slots: (0..SLOTS).map(slot).collect(),
            posts: EventCount::default(),
        }
    }

    /// Posts `fault` unless it is posted, and sleeps until its page is served, or a while. Whoever returns tries the touch again.
    pub(super) fn park(&self, fault: Fault) {
        let what = encode(fault);
        let Some((slot, generation)) = self.find(what).or_else(|| self.post(what)) else {
            return sleep(OUTSIDE);
        };
        let until = monotonic_ns() + SLICE.as_nanos() as u64;
        loop {
            let word = slot.word.load(Ordering::SeqCst);
            let left = until.saturating_sub(monotonic_ns());
            if word >> STATE_BITS != generation || left == 0 {
                return;
            }
            let _ =
                futex::wait(&slot.word, Flags::PRIVATE, word, Some(&timespec(Duration::from_nanos(left))));
        }
    }

    /// Each slot in use.
    fn each(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.used.iter().enumerate().flat_map(move |(group, used)| {
            let mut bits = used.load(Ordering::SeqCst);
            core::iter::from_fn(move || {
                (bits != 0).then(|| {
                    let n = group * WORD_SLOTS + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    (n, &self.slots[n])
                })
            })
        })
    }

    /// The slot of a touch that is posted already, and its generation.
    fn find(&self, what: u64) -> Option<(&Slot, u32)> {
        self.each().find_map(|(_, slot)| {
            let word = slot.word.load(Ordering::SeqCst);
            let same = word & STATE != FREE
                && slot.what.load(Ordering::SeqCst) == what
                && slot.word.load(Ordering::SeqCst) >> STATE_BITS == word >> STATE_BITS;
            same.then_some((slot, word >> STATE_BITS))
        })
    }

    /// Makes a slot and tells a reader. `None` if all are taken.
    fn post(&self, what: u64) -> Option<(&Slot, u32)> {
        let n = self.used.iter().enumerate().find_map(|(group, used)| {
            let mut bits = used.load(Ordering::SeqCst);
            loop {
                let bit = !bits & bits.wrapping_add(1);
                if bit == 0 {
                    return None;
                }
                match used.compare_exchange_weak(bits, bits | bit, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => return Some(group * WORD_SLOTS + bit.trailing_zeros() as usize),
                    Err(now) => bits = now,
                }
            }
        })?;
        let slot = &self.slots[n];
        let free = slot.word.load(Ordering::SeqCst);
        slot.what.store(what, Ordering::SeqCst);
        slot.word.store(free | POSTED, Ordering::SeqCst);
        self.posts.notify();
        Some((slot, free >> STATE_BITS))
    }

    /// Takes at most `most` posted touches.
    pub(super) fn take(&self, most: usize, each: &mut dyn FnMut(Fault)) -> usize {
        let mut taken = 0;
        for (_, slot) in self.each() {
            if taken == most {
                break;
            }
            let word = slot.word.load(Ordering::SeqCst);
            if word & STATE != POSTED {
                continue;
            }
            let what = slot.what.load(Ordering::SeqCst);
            let to = word & !STATE | TAKEN;
            if slot.word.compare_exchange(word, to, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                each(decode(what));
                taken += 1;
            }
        }
        taken
    }

    /// Whether a touch waits to be taken.
    fn any_posted(&self) -> bool {
        self.each().any(|(_, slot)| slot.word.load(Ordering::SeqCst) & STATE == POSTED)
    }

    /// Sleeps until a touch is posted or [`Self::ring`] is called; whether one may be there. `stop` is looked at after who rings
    /// can be heard.
    pub(super) fn sleep(&self, stop: &dyn Fn() -> bool, timeout: Option<Duration>) -> bool {
        let seen = self.posts.epoch();
        if !stop() && !self.any_posted() {
            self.posts.wait(seen, timeout);
        }
        self.any_posted()
    }

    /// Wakes the readers.
    pub(super) fn ring(&self) {
        self.posts.notify();
    }

    /// Ends every touch of `run`: the threads try again. Called after the page table says what it is to say.
    ///
    /// None is forgotten: a touch that is posted after this looked has a message of its own.
    pub(super) fn wake(&self, run: PageRun) {
        for (n, slot) in self.each() {
            loop {
                let word = slot.word.load(Ordering::SeqCst);
                let page = decode(slot.what.load(Ordering::SeqCst)).page;
                if word & STATE == FREE || !run.contains(page) {
                    break;
                }
                let next = (word | STATE).wrapping_add(1);
                if slot.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    let _ = futex::wake(&slot.word, Flags::PRIVATE, i32::MAX as u32);
                    self.used[n / WORD_SLOTS].fetch_and(!(1 << (n % WORD_SLOTS)), Ordering::SeqCst);
                    break;
                }
            }
        }
    }
}

/// Sleeps in a signal handler.
fn sleep(duration: Duration) {
    let _ = rustix::thread::nanosleep(&timespec(duration));
}
