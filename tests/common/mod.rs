//! What the end-to-end tests share: runtimes under validation, the pairwise setups, a watchdog, processes of their own.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod app;
pub(crate) mod model;
pub(crate) mod script;
mod watch;

pub(crate) use watch::watchdog;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};
use vkhmm::{
    Builder, Error, Kernel, Managed, MemoryError, MemoryKind, PlacementKind, Pod, Runtime, Stats, Switches,
};

/// The shipped modules. Included, since tests run as copies, elsewhere, and as other users.
pub(crate) mod spv {
    pub(crate) static SCALE: &[u8] = include_bytes!("../../shaders/spv/scale.spv");
    pub(crate) static SAXPY: &[u8] = include_bytes!("../../shaders/spv/saxpy.spv");
    pub(crate) static SAXPY_ADDRESS: &[u8] = include_bytes!("../../shaders/spv/saxpy_address.spv");
    pub(crate) static FILL: &[u8] = include_bytes!("../../shaders/spv/fill.spv");
    pub(crate) static COPY: &[u8] = include_bytes!("../../shaders/spv/copy.spv");
    pub(crate) static ADD_ONE: &[u8] = include_bytes!("../../shaders/spv/add_one.spv");
    pub(crate) static BUMP: &[u8] = include_bytes!("../../shaders/spv/bump.spv");
    pub(crate) static ADDRESS_OF: &[u8] = include_bytes!("../../shaders/spv/address_of.spv");
    pub(crate) static SPIN: &[u8] = include_bytes!("../../shaders/spv/spin.spv");
    pub(crate) static PAGED_TRIAD: &[u8] = include_bytes!("../../shaders/spv/paged_triad.spv");
    pub(crate) static PAGED_GATHER: &[u8] = include_bytes!("../../shaders/spv/paged_gather.spv");
    pub(crate) static CHECKSUM: &[u8] = include_bytes!("../../shaders/spv/checksum.spv");
}

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a sub-block, the usual unit of transfer.
pub(crate) const SUB: usize = 65536;
/// Bytes of a block.
pub(crate) const BLOCK: usize = 2 << 20;
/// More bytes than any device has.
pub(crate) const ALL: u64 = u64::MAX;
/// 32-bit words of a page.
pub(crate) const WORDS: usize = PAGE / 4;

/// One combination of memory kind, transfer way and strict I/O.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: MemoryKind,
    pub(crate) import: bool,
    pub(crate) strict: bool,
}

impl Setup {
    pub(crate) fn builder(self) -> Builder {
        self.with(Switches::default())
    }

    pub(crate) fn with(self, switches: Switches) -> Builder {
        let builder = Runtime::builder().validation(true).memory_kind(self.kind).strict_io(self.strict);
        builder.switches(Switches { import: self.import, ..switches })
    }
}

/// Whether the bytes move to kernels; otherwise kernels work on them in place, and no byte of them is ever copied. What was to be
/// used in place moves, too, once its import was refused at first use.
pub(crate) fn moves<T: Pod>(array: &Managed<T>) -> bool {
    array.placement().kind != PlacementKind::InPlace
}

/// Every pair of (kind, transfer way), (kind, strict I/O) and (transfer way, strict I/O); of the kind alone that VKHMM_MEMORY_KIND
/// names, if it does.
pub(crate) fn setups() -> Vec<Setup> {
    let row = |(i, kind): (usize, MemoryKind)| {
        [true, false].map(|import| Setup { kind, import, strict: import == (i % 2 == 0) })
    };
    let asked = kind_of_run();
    let kinds = MemoryKind::ALL.into_iter().enumerate();
    kinds.filter(|(_, kind)| asked.is_none_or(|asked| asked == *kind)).flat_map(row).collect()
}

/// The kind that VKHMM_MEMORY_KIND names.
fn kind_of_run() -> Option<MemoryKind> {
    let name = std::env::var("VKHMM_MEMORY_KIND").ok().filter(|name| !name.is_empty())?;
    let spoken = |kind: &MemoryKind| format!("{kind:?}").to_lowercase() == name.replace('-', "");
    MemoryKind::ALL.into_iter().find(spoken)
}

/// The usual runtime of a test: validation on, the rest as production has it.
pub(crate) fn checked() -> Builder {
    Runtime::builder().validation(true)
}

/// The same for tests that are about migration: arrays of any size move, on UnifiedMemory, too, where that takes a device that may
/// import nothing.
pub(crate) fn moving() -> Builder {
    let builder = checked().in_place_bytes(0);
    if kind_of_run() == Some(MemoryKind::UnifiedMemory) { builder.import_limit(0) } else { builder }
}

/// Builds, and says once what the tests run on. A missing driver or layer fails the test.
pub(crate) fn open(builder: Builder) -> Runtime {
    static SAID: Once = Once::new();
    let rt = builder.build().unwrap_or_else(|error| panic!("no runtime to test: {error}"));
    watch::shown(&rt);
    SAID.call_once(|| {
        let doctor = rt.doctor();
        let chosen = &doctor.device.candidates[doctor.device.chosen];
        println!("on {} ({}); fault engine {}", chosen.name, chosen.driver, doctor.host.chosen.name());
    });
    rt
}

/// Whether slices come home as they are made, and raw touches mean nothing.
pub(crate) fn declared(rt: &Runtime) -> bool {
    rt.doctor().host.chosen.name() == "declared"
}

/// Whether system calls on absent pages are answered like loads and stores.
pub(crate) fn system_calls_fault(rt: &Runtime) -> bool {
    rt.doctor().host.chosen.name() == "uffd-thread"
}

/// Whether R is changed by whole blocks: a touch brings its block into being, and takes as much of it from the device as it may.
pub(crate) fn by_blocks(rt: &Runtime) -> bool {
    rt.doctor().host.chosen.name() == "segv-mprotect"
}

/// The signal that a touch of forbidden or lost memory ends with: what the engine would have answered it by.
pub(crate) fn forbidden(rt: &Runtime) -> i32 {
    match rt.doctor().host.chosen.name() {
        "segv-mprotect" | "declared" => SIGSEGV,
        _ => SIGBUS,
    }
}

/// Counts and prints what a run cannot do.
pub(crate) fn skipped(what: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    println!("not run ({}): {what}", COUNT.fetch_add(1, Ordering::Relaxed) + 1);
}

/// How each test ends: all is over, and the validation layers had nothing to say.
#[track_caller]
pub(crate) fn clean(rt: &Runtime) {
    match rt.sync() {
        Ok(()) => {}
        Err(error) if error.is_lost() => {}
        Err(error) => panic!("sync: {error}"),
    }
    quiet(rt);
}

/// The validation layers had nothing to say so far.
#[track_caller]
pub(crate) fn quiet(rt: &Runtime) {
    let messages = rt.validation_messages();
    assert!(messages.is_empty(), "{} validation messages, the first: {}", messages.len(), messages[0]);
}

/// A kernel of the shipped ones.
pub(crate) fn kernel(rt: &Runtime, spirv: &[u8]) -> Kernel {
    // SAFETY: the shipped modules are valid, end, have no data race and stay inside their arguments.
    unsafe { rt.kernel(spirv) }.expect("a shipped kernel")
}

/// As [`kernel`]; its launches are timed.
pub(crate) fn timed_kernel(rt: &Runtime, spirv: &[u8]) -> Kernel {
    // SAFETY: a shipped kernel, as in `kernel`.
    unsafe { rt.kernel_builder(spirv).timed().build() }.expect("a shipped kernel")
}

/// What happened since `before`.
pub(crate) fn since(rt: &Runtime, before: &Stats) -> Stats {
    rt.stats().since(before)
}

/// The memory error inside an API error.
#[track_caller]
pub(crate) fn memory<T>(result: Result<T, Error>) -> MemoryError {
    match result {
        Err(Error::Memory(error)) => error,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("no error"),
    }
}

/// Asks until the answer is there; ten seconds are too long.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// `n` rounded up to a multiple of `unit`, as bytes of Stats.
pub(crate) fn up(n: usize, unit: usize) -> u64 {
    n.next_multiple_of(unit) as u64
}

/// A number from the environment, or the default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Numbers that look random and repeat with the seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    /// A seed that no other run had.
    pub(crate) fn fresh_seed() -> u64 {
        RandomState::new().build_hasher().finish() % 1_000_000
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 11) % n.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A file of this process that goes with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("vkhmm-{}-{number}-{name}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

// ── processes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

const ROLE: &str = "VKHMM_E2E_ROLE";

/// The part that this process plays in a test that runs itself again; `None` in the process that was started by hand.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
    pub(crate) took: Duration,
}

impl Ended {
    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Runs `test` of this binary again, alone, in a process of its own that plays `role`. Killed after `limit`.
pub(crate) fn again(test: &str, role: &str, env: &[(&str, &str)], limit: Duration) -> Ended {
    let started = Instant::now();
    let me = std::env::current_exe().expect("this program has a path");
    let mut child = Command::new(me)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program can be run again");
    let collect = |mut from: Box<dyn Read + Send>| {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = from.read_to_end(&mut text);
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
        receive
    };
    let out = collect(Box::new(child.stdout.take().expect("piped")));
    let err = collect(Box::new(child.stderr.take().expect("piped")));
    let status = loop {
        match child.try_wait().expect("the child can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                let _ = child.kill();
                break child.wait().expect("the child can be waited for");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let took = started.elapsed();
    let read = |from: mpsc::Receiver<String>| from.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
    Ended { status, text: read(out) + &read(err), took }
}

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn _exit(code: i32) -> !;
}

const SIGKILL: i32 = 9;

/// The signals that touches of forbidden memory end with.
pub(crate) const SIGBUS: i32 = 7;
pub(crate) const SIGSEGV: i32 = 11;

/// Runs `work` in a forked child, which ends with its result and without destructors of this frame. How it ended.
pub(crate) fn in_fork(work: impl FnOnce() -> i32) -> ExitStatus {
    // SAFETY: the child runs `work` on the only thread it has and then ends; the C library makes malloc usable after fork.
    match unsafe { fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(101);
            // SAFETY: ends this process at once; it takes no pointer.
            unsafe { _exit(code) }
        }
        pid => wait_for(pid),
    }
}

/// Forks; in the child the result is `None`, in the parent the child's number.
pub(crate) fn fork_here() -> Option<i32> {
    // SAFETY: the caller's child goes on with the only thread it has; the C library makes malloc usable after fork.
    match unsafe { fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => None,
        pid => Some(pid),
    }
}

/// Waits for a child made by [`fork_here`]; one that takes longer than 20 s fails the test.
pub(crate) fn wait_for(pid: i32) -> ExitStatus {
    const WNOHANG: i32 = 1;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the result, and `pid` is a child of ours.
        let done = unsafe { waitpid(pid, &raw mut status, WNOHANG) };
        if done == pid {
            return ExitStatus::from_raw(status);
        }
        if Instant::now() >= until {
            // SAFETY: `pid` is a child of ours that was not waited for, so the number is still its own.
            unsafe { kill(pid, SIGKILL) };
            panic!("the forked child {pid} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
