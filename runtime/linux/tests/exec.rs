//! Locks, signals, threads and copies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use vkhmm_linux::LinuxExec;
use vkhmm_port::{CopyJob, Exec, Mutex, Rank, RawBytes, Signal};

#[test]
fn a_lock_admits_one_at_a_time() {
    let exec = LinuxExec::new();
    let lock = exec.mutex(Rank::Leaf, 0_u64);
    let tried = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (lock, tried) = (&lock, &tried);
            scope.spawn(move || {
                for round in 0..20_000 {
                    if (round + thread) % 5 == 0 {
                        if let Some(mut value) = lock.try_lock() {
                            *value += 1;
                            tried.fetch_add(1, Ordering::Relaxed);
                        }
                    } else {
                        let mut value = lock.lock();
                        let before = *value;
                        if round % 1000 == 0 {
                            std::thread::yield_now();
                        }
                        *value = before + 1;
                    }
                }
            });
        }
    });
    assert_eq!(*lock.lock(), 8 * 16_000 + tried.load(Ordering::Relaxed));
}

#[test]
fn a_lock_is_not_poisoned() {
    let lock = LinuxExec::new().mutex(Rank::Leaf, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _held = lock.lock();
        panic!("with the lock held");
    }));
    assert!(panicked.is_err());
    assert_eq!(*lock.lock(), 1);
}

#[test]
fn no_wake_up_is_lost() {
    let exec = LinuxExec::new();
    let (signal, turn) = (exec.signal(), AtomicU32::new(0));
    const ROUNDS: u32 = 20_000;
    // Two threads that pass a turn back and forth with no timeout: one lost wake-up hangs both.
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (signal, turn) = (&signal, &turn);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    loop {
                        let seen = signal.epoch();
                        if turn.load(Ordering::SeqCst) == round * 2 + me {
                            break;
                        }
                        signal.wait(seen, None);
                    }
                    turn.fetch_add(1, Ordering::SeqCst);
                    signal.notify();
                }
            });
        }
    });
    assert_eq!(turn.load(Ordering::SeqCst), ROUNDS * 2);
}

#[test]
fn many_waiters_are_all_woken() {
    let signal = LinuxExec::new().signal();
    let open = AtomicBool::new(false);
    for _ in 0..200 {
        open.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    loop {
                        let seen = signal.epoch();
                        if open.load(Ordering::SeqCst) {
                            break;
                        }
                        signal.wait(seen, None);
                    }
                });
            }
            open.store(true, Ordering::SeqCst);
            signal.notify();
        });
    }
}

#[test]
fn a_wait_ends_after_its_timeout_or_when_the_epoch_has_passed() {
    let signal = LinuxExec::new().signal();
    let started = Instant::now();
    signal.wait(signal.epoch(), Some(Duration::from_millis(30)));
    assert!(started.elapsed() >= Duration::from_millis(29));
    let seen = signal.epoch();
    signal.notify();
    signal.wait(seen, None);
}

#[test]
#[cfg(debug_assertions)]
fn the_lock_order_is_checked() {
    let exec = LinuxExec::new();
    let ranks =
        [Rank::Admission, Rank::Space, Rank::Block, Rank::Gate, Rank::Arena, Rank::Submit, Rank::Leaf];
    for outer in ranks {
        for inner in ranks {
            let (first, second) = (exec.mutex(outer, ()), exec.mutex(inner, ()));
            let held = first.lock();
            let allowed = outer < inner || (outer == Rank::Block && inner == Rank::Block);
            let locked = catch_unwind(AssertUnwindSafe(|| drop(second.lock())));
            assert_eq!(locked.is_ok(), allowed, "{outer:?} then {inner:?}");
            assert!(second.try_lock().is_some(), "try_lock is exempt");
            drop(held);
            drop(second.lock());
        }
    }
    // What try_lock took counts as held.
    let (block, gate) = (exec.mutex(Rank::Block, ()), exec.mutex(Rank::Gate, ()));
    let held = gate.try_lock();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(block.lock()))).is_err());
    drop(held);
    drop(block.lock());
}

#[test]
fn threads_block_every_signal_and_have_names() {
    fn own_mask() -> Option<String> {
        let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
        status.lines().find(|l| l.starts_with("SigBlk:")).map(str::to_owned)
    }
    let (exec, before) = (LinuxExec::new(), own_mask());
    let (send, receive) = channel();
    let body = move || {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let line =
            |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("").trim().to_owned();
        send.send((line("Name:"), u64::from_str_radix(&line("SigBlk:"), 16).unwrap_or(0)))
            .expect("a receiver");
    };
    exec.spawn("vkhmm-test", Box::new(body)).expect("a thread");
    let (name, blocked) = receive.recv().expect("the thread runs");
    assert_eq!(name, "vkhmm-test");
    for signal in [libc::SIGALRM, libc::SIGPROF, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGRTMAX()]
    {
        assert!(blocked >> (signal - 1) & 1 == 1, "signal {signal} in {blocked:#x}");
    }
    assert_eq!(own_mask(), before, "the caller's mask is as before");
}

#[test]
fn copies_arrive_whole_at_every_size() {
    let exec = LinuxExec::new();
    let sizes = [0, 1, 4096, (1 << 20) + 3, (4 << 20) - 1, 4 << 20, (9 << 20) + 5];
    for many in [1, 3] {
        for size in sizes {
            let from: Vec<Vec<u8>> =
                (0..many).map(|n| (0..size).map(|i| (i * 7 + i / 4096 + n) as u8).collect()).collect();
            let mut to: Vec<Vec<u8>> = (0..many).map(|_| vec![0; size]).collect();
            let jobs: Vec<CopyJob> = from
                .iter()
                .zip(&mut to)
                .map(|(from, to)| CopyJob {
                    from: raw(from.as_ptr().cast_mut(), size),
                    to: raw(to.as_mut_ptr(), size),
                })
                .collect();
            exec.copy(&jobs);
            assert!(from == to, "{many} of {size} bytes");
        }
    }
}

fn raw(start: *mut u8, len: usize) -> RawBytes {
    // SAFETY: the vectors outlive the copies, and nobody uses them meanwhile.
    unsafe { RawBytes::new(NonNull::new(start).expect("not null"), len) }
}

#[test]
fn time_goes_forward() {
    let exec = LinuxExec::new();
    let before = exec.now();
    std::thread::sleep(Duration::from_millis(2));
    assert!(exec.clone().now() >= before + 2_000_000);
}
