//! The watchdog: a test that takes too long is ended, after every thread, operation and block has said where it is.

use std::fs::{read_dir, read_to_string};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vkhmm::Runtime;

type Reporter = Box<dyn Fn() -> Option<String> + Send>;

/// Lock: owns the reporters of all runtimes of this process · blocks on nothing.
static RUNTIMES: Mutex<Vec<Reporter>> = Mutex::new(Vec::new());

/// The watchdog shows this runtime, too, as long as it lives.
pub(crate) fn shown(rt: &Runtime) {
    let mut runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
    runtimes.push(Box::new(rt.reporter()));
}

/// Ends the process when a test hangs, and says which.
pub(crate) struct Watchdog {
    done: Arc<AtomicBool>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
    }
}

/// Aborts the process unless the guard is dropped within `seconds`.
pub(crate) fn watchdog(what: &str, seconds: u64) -> Watchdog {
    let done = Arc::new(AtomicBool::new(false));
    let (watched, what) = (Arc::clone(&done), what.to_owned());
    std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            if watched.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Not `eprintln!`: what a test's thread prints is captured, and lost when the process aborts.
        let mut out = std::io::stderr();
        let _ = writeln!(out, "watchdog: `{what}` hangs after {seconds} s\n{}", threads());
        let runtimes = RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, report) in runtimes.iter().enumerate() {
            if let Some(report) = report() {
                let _ = writeln!(out, "runtime {number}:\n{report}");
            }
        }
        std::process::abort();
    });
    Watchdog { done }
}

/// One line per thread of this process: number, name, state, the kernel function it waits in, the system call.
pub(crate) fn threads() -> String {
    let tasks = read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let file = |name: &str| read_to_string(task.path().join(name)).unwrap_or_default().trim().to_owned();
        let status = file("status");
        let state = status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("?").trim();
        let (name, wchan, call) = (file("comm"), file("wchan"), system_call(&file("syscall")));
        let number = task.file_name();
        format!("  thread {} {name}: {state}, in {wchan}, {call}", number.to_string_lossy())
    };
    tasks.map(of).collect::<Vec<_>>().join("\n")
}

/// `/proc/*/syscall` in words: number and arguments, or why there are none.
fn system_call(line: &str) -> String {
    let mut words = line.split_whitespace();
    let number = words.next().unwrap_or("unknown");
    let known = [("0", "read"), ("7", "poll"), ("16", "ioctl"), ("35", "nanosleep"), ("202", "futex")];
    let more = [("230", "clock_nanosleep"), ("271", "ppoll"), ("-1", "no system call: a page fault")];
    let name = known.iter().chain(&more).find(|(n, _)| *n == number && cfg!(target_arch = "x86_64"));
    match name {
        Some((_, name)) => format!("{name} {}", words.take(3).collect::<Vec<_>>().join(" ")),
        None => format!("system call {line}"),
    }
}
