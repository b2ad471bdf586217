//! What the tests of this crate share: opening a small reservation, touching R, processes of their own.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};
use vkhmm_linux::{Config, EngineChoice, LinuxFaults, LinuxHost, OpenError, Opened, open};
use vkhmm_port::{Fault, FaultSource, HostMemory};

/// Bytes of a page.
pub(crate) const PAGE: usize = Geometry::PRODUCTION.page_bytes as usize;
/// What a test reserves.
pub(crate) const SMALL: Config = Config {
    engine: None,
    reservation_bytes: Some(64 << 20),
    dump: false,
    no_poison: false,
    no_continue_wp: false,
    no_wipe_on_fork: false,
    no_punch_hole: false,
    max_map_count: None,
};
/// How long a fault that must come may take.
const SOON: Duration = Duration::from_secs(10);
/// How long to look for a fault that must not come.
const NEVER: Duration = Duration::from_millis(60);

/// `count` pages from `first`.
pub(crate) fn run(first: u64, count: u32) -> PageRun {
    PageRun { first: PageIndex(first), count }
}

/// Opens with `config`; `None`, and a line that says so, where this system has no such engine.
pub(crate) fn try_open(config: Config) -> Option<Memory> {
    match open(&config) {
        Ok(opened) => Some(Memory::new(opened)),
        Err(e @ OpenError::Engine { .. }) => {
            println!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Every engine with faults that can be had here, with and without the kernel's newer calls.
pub(crate) fn fault_engines() -> Vec<Memory> {
    let mut all = Vec::new();
    for engine in [EngineChoice::UffdThread, EngineChoice::UffdThreadUserOnly, EngineChoice::UffdSigbus] {
        for (no_poison, no_continue_wp) in [(false, false), (true, true)] {
            all.extend(try_open(Config { engine: Some(engine), no_poison, no_continue_wp, ..SMALL }));
        }
    }
    all.extend(try_open(segv(false)));
    all.extend(try_open(segv(true)));
    all
}

/// `segv-mprotect`; `bare`: as in a sandbox that knows little else.
pub(crate) fn segv(bare: bool) -> Config {
    let engine = Some(EngineChoice::SegvMprotect);
    Config { engine, no_wipe_on_fork: bare, no_punch_hole: bare, ..SMALL }
}

/// The engine without faults.
pub(crate) fn declared() -> Memory {
    try_open(Config { engine: Some(EngineChoice::Declared), ..SMALL }).expect("declared works everywhere")
}

/// Host memory and its faults.
pub(crate) struct Memory {
    pub(crate) host: Arc<LinuxHost>,
    pub(crate) source: Option<Arc<LinuxFaults>>,
    /// Messages say whether a touch was a store; in some sandboxes they cannot.
    stores_known: bool,
}

impl Memory {
    fn new(opened: Opened) -> Self {
        let stores_known =
            !opened.report.fallbacks.iter().any(|line| line.contains("whether a touch was a store"));
        Self { host: opened.host, source: opened.source, stores_known }
    }

    /// Whether `fault` is what is said of a store.
    pub(crate) fn is_store(&self, fault: Fault) -> bool {
        fault.write || !self.stores_known
    }

    /// Address of byte `at` of page `page` in R.
    pub(crate) fn address(&self, page: u64, at: usize) -> usize {
        self.host.base() + page as usize * PAGE + at
    }

    /// Loads a byte of R.
    pub(crate) fn load(&self, page: u64) -> u8 {
        load(self.address(page, 0))
    }

    /// Stores a byte to R.
    pub(crate) fn store(&self, page: u64, value: u8) {
        store(self.address(page, 0), value);
    }

    /// The first byte of `page` in A.
    pub(crate) fn alias(&self, page: u64) -> u8 {
        self.host.alias(bytes(page, 1)).to_vec()[0]
    }

    /// Fills `page` in A.
    pub(crate) fn fill_alias(&self, page: u64, value: u8) {
        self.host.alias(bytes(page, 1)).fill(value);
    }

    /// Loads on another thread, which may park.
    pub(crate) fn load_apart(&self, page: u64) -> JoinHandle<u8> {
        let address = self.address(page, 0);
        std::thread::spawn(move || load(address))
    }

    /// Stores on another thread, which may park.
    pub(crate) fn store_apart(&self, page: u64, value: u8) -> JoinHandle<()> {
        let address = self.address(page, 0);
        std::thread::spawn(move || store(address, value))
    }

    /// Stores `value`, or loads if there is none, on another thread, which may park.
    pub(crate) fn touch_apart(&self, page: u64, value: Option<u8>) -> JoinHandle<()> {
        let address = self.address(page, 0);
        std::thread::spawn(move || match value {
            Some(value) => store(address, value),
            None => {
                load(address);
            }
        })
    }

    /// The next fault; panics if none comes.
    pub(crate) fn fault(&self) -> Fault {
        let mut faults = Vec::new();
        let source = self.source.as_ref().expect("an engine with faults");
        let until = std::time::Instant::now() + SOON;
        while faults.is_empty() && std::time::Instant::now() < until {
            source.next(&mut faults, Some(SOON)).expect("a working source");
        }
        assert_eq!(faults.len(), 1, "exactly one fault was expected: {faults:?}");
        faults[0]
    }

    /// Panics if a fault is waiting.
    pub(crate) fn no_fault(&self) {
        let mut faults = Vec::new();
        self.source
            .as_ref()
            .expect("an engine with faults")
            .next(&mut faults, Some(NEVER))
            .expect("a working source");
        assert!(faults.is_empty(), "no fault was expected: {faults:?}");
    }
}

/// The bytes of `count` pages from `first`.
pub(crate) fn bytes(first: u64, count: u32) -> ByteRange {
    Geometry::PRODUCTION.bytes_of(run(first, count))
}

/// A load that the compiler keeps.
pub(crate) fn load(address: usize) -> u8 {
    // SAFETY: tests pass addresses inside R, which is mapped as long as they hold the host.
    unsafe { core::ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

/// A store that the compiler keeps.
pub(crate) fn store(address: usize, value: u8) {
    // SAFETY: as in `load`; tests let one thread store to a page at a time.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(value) }
}

const CHILD: &str = "VKHMM_TEST_CHILD";

/// Whether this process was started by [`alone`] to run the body of `test`.
pub(crate) fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|name| name == test)
}

/// Runs `test` of this binary in a process of its own, started by the shell line `before` (limits, other user), where
/// [`is_child`] is true.
pub(crate) fn alone(test: &str, before: &str) -> Output {
    let line = format!("{before} exec $RUNNER \"$0\" --exact {test} --nocapture --test-threads=1");
    let (program, child) = {
        // One at a time: a process started meanwhile would hold the copy open for writing until its own exec, and a file
        // that is open for writing cannot be executed.
        static STARTING: Mutex<()> = Mutex::new(());
        let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let program = readable_copy();
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(line)
            .arg(&program)
            .env(CHILD, test)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        (program, shell.spawn())
    };
    let output = child.and_then(Child::wait_with_output);
    let _ = std::fs::remove_file(&program);
    output.expect("the shell starts")
}

/// As [`alone`], and the process must succeed.
pub(crate) fn alone_passes(test: &str, before: &str) {
    let output = alone(test, before);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?} signal {:?}\n{text}", output.status, output.status.signal());
    assert!(text.contains("1 passed"), "{text}");
}

/// This binary, copied to where every user may execute it.
fn readable_copy() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let name = format!("vkhmm-test-{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::copy(std::env::current_exe().expect("a path"), &path).expect("room for a copy");
    path
}

/// Runs `body` in a forked child and returns how it ended: its exit code, or minus the signal that killed it.
pub(crate) fn in_fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `body` and leaves by _exit; bodies allocate little and take no lock that another thread holds,
    // as the tests that fork run in a process of their own with no other busy thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `pid` is our child and `status` a valid place.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
