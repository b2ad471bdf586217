//! The contract of Exec.

use super::{Case, Task, run_all};
use crate::fake::memory::Bytes;
use crate::{CopyJob, Exec, Mutex, Rank, Signal};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// How many cases [`run_exec`] runs.
pub const EXEC_CASES: usize = 11;

/// Runs the suite; how many cases ran, which is [`EXEC_CASES`].
///
/// # Panics
/// At the first broken promise.
pub fn run_exec<X: Exec>(exec: &X) -> usize {
    let cases: [Case<X>; EXEC_CASES] = [
        ("a lock excludes", excludes),
        ("try_lock of a held lock is refused", try_lock),
        ("locks nest in the order of ranks", nesting),
        ("debug builds refuse the other order", misordered),
        ("a lock outlives the panic of its holder", never_poisoned),
        ("no wake-up is lost", ping_pong),
        ("a notify between epoch and wait counts", notify_first),
        ("one notify wakes every waiter", wakes_all),
        ("a wait ends at its timeout", times_out),
        ("time never goes back", monotonic),
        ("copies are exact, small and large", copies),
    ];
    run_all("exec", &cases, || exec.clone())
}

fn excludes<X: Exec>(exec: X) {
    const ROUNDS: u32 = 300;
    let count = Arc::new(exec.mutex(Rank::Block, 0_u32));
    let add = |n: u32| {
        let count = Arc::clone(&count);
        Task::start(&exec, &format!("add{n}"), move || {
            for _ in 0..ROUNDS {
                let mut guard = count.lock();
                let seen = *guard;
                std::hint::black_box(seen);
                *guard = seen + 1;
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(add).collect();
    tasks.into_iter().for_each(Task::join);
    assert_eq!(*count.lock(), 4 * ROUNDS);
}

fn try_lock<X: Exec>(exec: X) {
    let lock = Arc::new(exec.mutex(Rank::Block, ()));
    let attempt = || {
        let lock = Arc::clone(&lock);
        Task::start(&exec, "attempt", move || lock.try_lock().is_some())
    };
    // Holding it, the holder may not wait: it looks at the clock until it is told.
    let told = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let (exec_of_holder, lock_of_holder, told_holder) = (exec.clone(), Arc::clone(&lock), Arc::clone(&told));
    let holder = Task::start(&exec, "holder", move || {
        let _held = lock_of_holder.lock();
        told_holder[0].store(true, Ordering::Release);
        while !told_holder[1].load(Ordering::Acquire) {
            exec_of_holder.now();
        }
    });
    while !told[0].load(Ordering::Acquire) {
        exec.now();
    }
    let refused = !attempt().join();
    told[1].store(true, Ordering::Release);
    holder.join();
    assert!(refused, "try_lock took a held lock");
    assert!(attempt().join(), "try_lock refused a free lock");
}

fn nesting<X: Exec>(exec: X) {
    let ranks = [
        Rank::Admission,
        Rank::Space,
        Rank::Block,
        Rank::Block,
        Rank::Gate,
        Rank::Arena,
        Rank::Submit,
        Rank::Leaf,
    ];
    let locks = ranks.map(|rank| exec.mutex(rank, ()));
    let _held: Vec<_> = locks.iter().map(Mutex::lock).collect();
}

fn misordered<X: Exec>(exec: X) {
    let (outer, inner) = (exec.mutex(Rank::Space, ()), exec.mutex(Rank::Arena, ()));
    let held = inner.lock();
    let stopped = catch_unwind(AssertUnwindSafe(|| drop(outer.lock()))).is_err();
    assert_eq!(stopped, cfg!(debug_assertions), "an outer lock under an inner one");
    assert!(outer.try_lock().is_some(), "nobody waits in try_lock, so no order can be wrong");
    drop(held);
    drop(outer.lock());
    drop(inner.lock());
}

fn never_poisoned<X: Exec>(exec: X) {
    let lock = Arc::new(exec.mutex(Rank::Block, 1));
    let theirs = Arc::clone(&lock);
    // Unwinding, as after a panic, without its message.
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        *theirs.lock() += 1;
        let _held = theirs.lock();
        resume_unwind(Box::new(()));
    }));
    assert!(unwound.is_err());
    assert_eq!(*lock.lock(), 2);
    let theirs = Arc::clone(&lock);
    assert_eq!(Task::start(&exec, "other", move || *theirs.lock()).join(), 2);
}

fn ping_pong<X: Exec>(exec: X) {
    const ROUNDS: u32 = 300;
    let table = Arc::new((exec.mutex(Rank::Leaf, 0_u32), exec.signal()));
    let player = |parity: u32| {
        let table = Arc::clone(&table);
        Task::start(&exec, &format!("player{parity}"), move || {
            for _ in 0..ROUNDS {
                loop {
                    let epoch = table.1.epoch();
                    let mut turn = table.0.lock();
                    if *turn % 2 == parity {
                        *turn += 1;
                        break;
                    }
                    drop(turn);
                    table.1.wait(epoch, None);
                }
                table.1.notify();
            }
        })
    };
    let players = [player(0), player(1)];
    players.into_iter().for_each(Task::join);
    assert_eq!(*table.0.lock(), 2 * ROUNDS);
}

fn notify_first<X: Exec>(exec: X) {
    let signal = Arc::new(exec.signal());
    let theirs = Arc::clone(&signal);
    let seen = signal.epoch();
    signal.notify();
    assert_ne!(signal.epoch(), seen, "a notify starts a new epoch");
    Task::start(&exec, "late", move || theirs.wait(seen, None)).join();
}

fn wakes_all<X: Exec>(exec: X) {
    let shared = Arc::new((exec.mutex(Rank::Leaf, false), exec.signal()));
    let waiter = |n: u32| {
        let shared = Arc::clone(&shared);
        Task::start(&exec, &format!("waiter{n}"), move || {
            loop {
                let epoch = shared.1.epoch();
                if *shared.0.lock() {
                    return;
                }
                shared.1.wait(epoch, None);
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(waiter).collect();
    assert!(!tasks[0].is_over_soon(), "a waiter came back before the condition held");
    *shared.0.lock() = true;
    shared.1.notify();
    tasks.into_iter().for_each(Task::join);
}

fn times_out<X: Exec>(exec: X) {
    let theirs = exec.clone();
    let waited = Task::start(&exec, "waits", move || {
        let signal = theirs.signal();
        let start = theirs.now();
        signal.wait(signal.epoch(), Some(Duration::from_millis(30)));
        theirs.now() - start
    });
    // It may come back early, never so late that a deadline is missed by seconds.
    assert!(waited.join() < 5_000_000_000, "a wait of 30 ms took seconds");
}

fn monotonic<X: Exec>(exec: X) {
    let last = Arc::new(exec.mutex(Rank::Leaf, 0_u64));
    let watch = |n: u32| {
        let (exec, last) = (exec.clone(), Arc::clone(&last));
        let name = format!("watch{n}");
        Task::start(&exec.clone(), &name, move || {
            for _ in 0..300 {
                let mut last = last.lock();
                let now = exec.now();
                assert!(*last <= now, "time went back from {last} to {now}", last = *last);
                *last = now;
            }
        })
    };
    let tasks: Vec<_> = (0..3).map(watch).collect();
    tasks.into_iter().for_each(Task::join);
}

fn copies<X: Exec>(exec: X) {
    const LARGE: usize = (4 << 20) + 4097;
    let pattern = |i: usize| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ (i >> 16) as u8;
    let (from, to) = (Bytes::new(LARGE as u64), Bytes::new(LARGE as u64));
    from.raw().write(&(0..LARGE).map(pattern).collect::<Vec<_>>());
    exec.copy(&[]);
    // Two small ones with a gap, which must stay as it is.
    let job = |at, len| CopyJob { from: from.raw().slice(at, len), to: to.raw().slice(at, len) };
    exec.copy(&[job(0, 100), job(101, 1)]);
    let head = to.raw().slice(0, 103).to_vec();
    let expected: Vec<u8> = (0..103).map(|i| if i == 100 || i == 102 { 0 } else { pattern(i) }).collect();
    assert_eq!(head, expected);
    // One large, and many that are large together.
    exec.copy(&[job(0, LARGE)]);
    assert!(to.raw().to_vec() == from.raw().to_vec(), "a large copy differs");
    to.raw().fill(0);
    let jobs: Vec<_> = (0..LARGE).step_by(65_536).map(|at| job(at, 65_536.min(LARGE - at))).collect();
    exec.copy(&jobs);
    assert!(to.raw().to_vec() == from.raw().to_vec(), "many copies differ");
}
