//! What the lock and the event count promise, in every order of their steps that the memory model allows (loom).
//!
//! Data is a cell of loom's, so an access that is not ordered after the last one fails; so does a thread that sleeps for ever.
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vkhmm-linux --no-default-features --lib futex`.

use super::{EventCount, Lock, word};
use core::time::Duration;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use vkhmm_port::{Mutex, Rank, Signal};

/// Tries every order with at most `switches` switches away from a thread that could go on.
fn every_order(switches: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(body);
}

fn number() -> Lock<UnsafeCell<u32>> {
    Lock::new(Rank::Leaf, UnsafeCell::new(0))
}

fn add_one(value: &UnsafeCell<u32>) {
    // SAFETY: the pointer is valid inside `with_mut`, and loom fails the model if anybody else is at the cell.
    value.with_mut(|value| unsafe { *value += 1 });
}

fn get(value: &UnsafeCell<u32>) -> u32 {
    // SAFETY: as in `add_one`: valid inside `with`, and loom watches who else is there.
    value.with(|value| unsafe { *value })
}

#[test]
fn the_lock_admits_one_and_shows_him_what_the_last_one_did() {
    every_order(4, || {
        let lock = Arc::new(number());
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || (0..2).for_each(|_| add_one(&other.lock())));
        (0..2).for_each(|_| add_one(&lock.lock()));
        thread.join().expect("it adds");
        assert_eq!(get(&lock.lock()), 4);
    });
}

#[test]
fn of_three_that_want_the_lock_all_get_it() {
    every_order(2, || {
        let lock = Arc::new(number());
        let threads = [(); 2].map(|()| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || add_one(&lock.lock()))
        });
        add_one(&lock.lock());
        threads.into_iter().for_each(|thread| thread.join().expect("it adds"));
        assert_eq!(get(&lock.lock()), 3);
    });
}

#[test]
fn try_lock_comes_back_at_once_and_keeps_others_out() {
    every_order(3, || {
        let lock = Arc::new(number());
        let other = Arc::clone(&lock);
        let thread = thread::spawn(move || {
            let taken = other.try_lock();
            taken.as_deref().map(add_one).is_some()
        });
        let guard = lock.try_lock();
        let mine = guard.is_some();
        assert!(!mine || lock.try_lock().is_none(), "taken twice");
        guard.as_deref().map(add_one);
        drop(guard);
        add_one(&lock.lock());
        let theirs = thread.join().expect("it tries");
        assert_eq!(get(&lock.lock()), 1 + u32::from(mine) + u32::from(theirs));
    });
}

/// As every flow of the engine waits: read the epoch, test, sleep.
fn wait_until(signal: &EventCount, timeout: Option<Duration>, done: impl Fn() -> bool) {
    loop {
        let seen = signal.epoch();
        if done() {
            return;
        }
        signal.wait(seen, timeout);
    }
}

#[test]
fn a_flag_set_before_notify_is_never_slept_through() {
    every_order(5, || {
        // As `lost` and `stopping` of the engine: released by one thread, acquired by those who wait; with what was done before.
        let shared = Arc::new((EventCount::default(), AtomicBool::new(false), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            wait_until(&other.0, None, || other.1.load(Ordering::Acquire));
            assert_eq!(get(&other.2), 1);
        });
        add_one(&shared.2);
        shared.1.store(true, Ordering::Release);
        shared.0.notify();
        thread.join().expect("it is told");
    });
}

#[test]
fn a_new_epoch_shows_what_was_done_before_it() {
    every_order(5, || {
        let shared = Arc::new((EventCount::default(), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            wait_until(&other.0, None, || other.0.epoch() != 0);
            assert_eq!(get(&other.1), 1);
        });
        add_one(&shared.1);
        shared.0.notify();
        thread.join().expect("it is told");
    });
}

#[test]
fn every_waiter_is_woken() {
    every_order(2, || {
        // As tables behind locks: the condition is the lock's, the news comes after it is let go.
        let shared = Arc::new((EventCount::default(), number()));
        let waiters = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || wait_until(&shared.0, None, || get(&shared.1.lock()) > 0))
        });
        add_one(&shared.1.lock());
        shared.0.notify();
        waiters.into_iter().for_each(|thread| thread.join().expect("it is told"));
    });
}

#[test]
fn two_that_notify_lose_no_news() {
    every_order(2, || {
        let shared = Arc::new((EventCount::default(), number()));
        let others = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                add_one(&shared.1.lock());
                shared.0.notify();
            })
        });
        wait_until(&shared.0, None, || get(&shared.1.lock()) == 2);
        others.into_iter().for_each(|thread| thread.join().expect("it tells"));
    });
}

#[test]
fn a_wait_ends_when_its_time_is_up() {
    every_order(4, || {
        let signal = Arc::new(EventCount::default());
        let other = Arc::clone(&signal);
        let thread = thread::spawn(move || other.wait(other.epoch(), Some(Duration::from_millis(1))));
        word::expire(&signal.epoch);
        thread.join().expect("time is up");
        assert_eq!(signal.sleepers.load(Ordering::SeqCst), 0, "it is not counted as asleep any more");
    });
}

#[test]
fn whoever_is_woken_for_nothing_sleeps_again_and_misses_nothing() {
    every_order(3, || {
        let shared = Arc::new((EventCount::default(), AtomicBool::new(false)));
        let other = Arc::clone(&shared);
        let thread = thread::spawn(move || wait_until(&other.0, None, || other.1.load(Ordering::Acquire)));
        word::expire(&shared.0.epoch);
        shared.1.store(true, Ordering::Release);
        shared.0.notify();
        thread.join().expect("it is told");
    });
}
