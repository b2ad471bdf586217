//! The end of the process. Runtimes are never joined, so our threads may still be at work, or just taking a device down, when `main`
//! returns; drivers and layers then destroy their own globals. An exit handler, registered after they were loaded and so run before
//! they are taken down, waits for the driver calls under way and lets no new one begin: whoever comes later sleeps until the process
//! is gone.
//!
//! On an application's own device that holds for our work alone: its driver calls pass no section, so they are neither awaited nor
//! parked; nobody is parked who holds its lock (a section begins before `door.rs`, and ends after); nothing of its device is
//! destroyed. A wait for our last use of the device ends at once then (`latch.rs`), since the threads that would end it sleep.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads inside driver calls.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The process is ending: software devices get no more submissions.
static CLOSING: AtomicBool = AtomicBool::new(false);
/// The process is ending, and software devices are done: no driver call begins any more.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Submissions that software devices have not finished: their own threads compile and run kernels with the libraries that the
/// end of the process takes down. (A card needs no such care.)
static PENDING: AtomicUsize = AtomicUsize::new(0);
/// The process that the counts are of. A forked child inherits them, but not the threads that would count down.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// How long the end of the process waits for calls under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits for software devices to finish what they run.
const PATIENCE_SOFTWARE: Duration = Duration::from_secs(5);
/// And how much longer, if it had to: a driver's and a validation layer's own threads tidy up after a submission that has signalled its
/// end, and nothing says when they have (once in a thousand ends, one of them met globals that were gone).
const AFTERMATH: Duration = Duration::from_millis(20);

thread_local! {
    /// Sections this thread is in; and whether it is the one that ends the process, which may always pass.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// A stretch of driver calls. Nests.
pub(crate) struct Section(());

/// Begins a stretch of driver calls; never returns once the process is ending.
pub(crate) fn section() -> Section {
    let outermost = DEPTH.with(|d| d.replace(d.get() + 1) == 0);
    if outermost {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        if ENDING.load(Ordering::SeqCst) && !ENDS.with(Cell::get) {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            sleep_for_good();
        }
    }
    Section(())
}

impl Drop for Section {
    fn drop(&mut self) {
        if DEPTH.with(|d| d.replace(d.get() - 1) == 1) {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether this thread is in a stretch of driver calls, and so is not parked before it ends.
pub(crate) fn inside() -> bool {
    DEPTH.with(Cell::get) > 0
}

/// Whether the process is ending, and no thread of ours begins a driver call any more.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

fn sleep_for_good() -> ! {
    loop {
        std::thread::park();
    }
}

/// A software device is about to get a submission, within a section. Never returns once the process is ending: the thread has
/// counted itself before it looks, and the exit handler closes before it counts, so one of the two sees the other.
pub(crate) fn began() {
    PENDING.fetch_add(1, Ordering::SeqCst);
    if CLOSING.load(Ordering::SeqCst) && !ENDS.with(Cell::get) {
        PENDING.fetch_sub(1, Ordering::SeqCst);
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        sleep_for_good();
    }
}

/// So many of them are over, or given up.
pub(crate) fn ended(count: usize) {
    PENDING.fetch_sub(count, Ordering::SeqCst);
}

extern "C" fn on_exit() {
    if OWNER.load(Ordering::SeqCst) != std::process::id() {
        return;
    }
    ENDS.with(|e| e.set(true));
    CLOSING.store(true, Ordering::SeqCst);
    // Our completion threads still run, and count down.
    let end = Instant::now() + PATIENCE_SOFTWARE;
    let busy = PENDING.load(Ordering::SeqCst) > 0;
    while PENDING.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    if busy {
        std::thread::sleep(AFTERMATH);
    }
    ENDING.store(true, Ordering::SeqCst);
    let mine = usize::from(DEPTH.with(Cell::get) > 0);
    let end = Instant::now() + PATIENCE;
    while INSIDE.load(Ordering::SeqCst) > mine && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Called once a device is open, when the driver's libraries are loaded: handlers run in the reverse order of registration.
pub(crate) fn register() {
    OWNER.store(std::process::id(), Ordering::SeqCst);
    // SAFETY: atexit(3): `on_exit` is a function of this program, takes nothing and does not unwind.
    let registered = unsafe { libc::atexit(on_exit) };
    debug_assert_eq!(registered, 0, "no room for an exit handler");
}
