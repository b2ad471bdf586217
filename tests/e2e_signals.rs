//! The application's own signals beside touches that are answered in signal handlers: what is not managed memory goes where it went
//! before, and handlers and timers run while kernels have what threads touch. Each scenario in a process of its own, under each
//! engine that answers so; `runtime/linux/tests/signals.rs` has the rules one by one.

mod common;

use common::{PAGE, WORDS, again, clean, kernel, moving, open, role, spv, watchdog};
use core::ffi::{c_int, c_void};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;
use vkhmm::{FaultEngine, Grid, Kernel, Managed, Runtime};

/// Words of an array: two blocks, and a bit.
const N: usize = 1030 * WORDS;
const REPLACED: &str = "installed a handler for SIGSEGV or SIGBUS after vkhmm's";

/// Plays `test` as a process for each engine that can be had here; how each ended and what it said.
fn under_each(test: &str, check: impl Fn(&common::Ended)) {
    let both = [("uffd-sigbus", FaultEngine::UffdSigbus), ("segv-mprotect", FaultEngine::SegvMprotect)];
    for (name, engine) in both {
        if let Err(error) = common::checked().fault_engine(engine).build() {
            println!("exempt: {name} cannot be had here: {error}");
            continue;
        }
        let ended = again(test, name, &[("VKHMM_FAULT_ENGINE", name)], Duration::from_secs(120));
        assert!(ended.text.contains(&format!("fault engine {name}")), "{}", ended.text);
        check(&ended);
    }
}

#[track_caller]
fn succeeded(ended: &common::Ended) {
    assert!(ended.status.success() && ended.text.contains("1 passed"), "{ended:?}");
}

fn set_action(signal: c_int, action: usize, flags: c_int) -> libc::sigaction {
    // SAFETY: the structures are whole; `action` is a handler of this file with the arguments that `flags` ask for.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = core::mem::zeroed();
        new.sa_sigaction = action;
        new.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &new, &mut old), 0);
        old
    }
}

/// A page that has nothing to do with managed memory: its touch is SIGBUS, for the file has no bytes, or SIGSEGV.
fn foreign(signal: c_int) -> *mut u8 {
    let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: new mappings where the kernel likes.
    let page = unsafe {
        let null = core::ptr::null_mut();
        match signal {
            libc::SIGBUS => {
                libc::mmap(null, PAGE, access, shared, libc::memfd_create(c"empty".as_ptr(), 0), 0)
            }
            _ => libc::mmap(null, PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        }
    };
    assert_ne!(page, libc::MAP_FAILED);
    page.cast()
}

static CALLS: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Notes the address and puts a page of ones there.
extern "C" fn mends(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the kernel's information, handed on.
    let address = unsafe { (*info).si_addr() };
    ADDRESS.store(address as usize, Ordering::SeqCst);
    let place = address.map_addr(|at| at & !(PAGE - 1));
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: only pages that `foreign` made are touched while this is a handler; they hold nothing.
    unsafe {
        assert_eq!(libc::mmap(place, PAGE, access, flags, -1, 0), place);
        place.cast::<u8>().write_bytes(1, PAGE);
    }
}

fn mending() -> usize {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = mends;
    handler as usize
}

/// Touches foreign pages; the handler mends both.
fn touch_foreign() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let (page, before) = (foreign(signal), CALLS.load(Ordering::SeqCst));
        let at = page.wrapping_add(77);
        // SAFETY: the page is this function's own, and readable once the handler has mended it.
        assert_eq!(unsafe { at.read_volatile() }, 1);
        assert_eq!((CALLS.load(Ordering::SeqCst) - before, ADDRESS.load(Ordering::SeqCst)), (1, at as usize));
    }
}

/// An array that kernels add to, and what every word of it is.
struct Counted {
    rt: Runtime,
    add_one: Kernel,
    x: Managed<u32>,
    value: u32,
}

impl Counted {
    fn new() -> Self {
        let rt = open(moving());
        let mut x: Managed<u32> = rt.alloc(N).expect("alloc");
        x.fill(0);
        Self { add_one: kernel(&rt, spv::ADD_ONE), rt, x, value: 0 }
    }

    /// The device has all of it; nobody has waited.
    fn launch(&mut self) {
        self.rt.launch(&self.add_one, Grid::linear(N), (self.x.write(),)).expect("launch");
        self.value += 1;
    }

    /// Two threads touch each half of it, by loads and then by stores.
    fn touch(&mut self) {
        let value = self.value;
        std::thread::scope(|scope| {
            for half in self.x.chunks_mut(N / 2) {
                scope.spawn(move || {
                    assert!(half.iter().step_by(WORDS / 2).all(|v| *v == value));
                    half.iter_mut().for_each(|v| *v += 1);
                });
            }
        });
        self.value += 1;
    }

    fn end(self) {
        assert!(self.x.iter().all(|v| *v == self.value));
        clean(&self.rt);
    }
}

#[test]
fn foreign_faults_go_to_the_handler_that_was_there_before() {
    const TEST: &str = "foreign_faults_go_to_the_handler_that_was_there_before";
    if role().is_none() {
        return under_each(TEST, succeeded);
    }
    let _dog = watchdog(TEST, 100);
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        set_action(signal, mending(), libc::SA_SIGINFO | libc::SA_ONSTACK);
    }
    let mut counted = Counted::new();
    for _ in 0..5 {
        counted.launch();
        // While a kernel runs and a thread waits for its page, too.
        let seen = &counted;
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(seen.x[N - 1], seen.value));
            touch_foreign();
        });
        counted.touch();
    }
    let stats = counted.rt.stats();
    assert!(stats.faults_in_thread > 0 && CALLS.load(Ordering::SeqCst) == 10, "{stats}");
    counted.end();
}

#[expect(unconditional_recursion, reason = "that is the test")]
fn overflow(depth: u64) -> u64 {
    let mut frame = [depth; 128];
    std::hint::black_box(&mut frame);
    overflow(depth ^ frame[5]) ^ frame[7]
}

#[test]
fn a_stack_overflow_still_has_its_message() {
    const TEST: &str = "a_stack_overflow_still_has_its_message";
    if role().is_none() {
        return under_each(TEST, |ended| {
            let said =
                ["thread 'deep'", "has overflowed its stack"].iter().all(|part| ended.text.contains(part));
            assert!(said && ended.signal() == Some(libc::SIGABRT), "{ended:?}");
        });
    }
    let mut counted = Counted::new();
    counted.launch();
    let deep = std::thread::Builder::new().name("deep".to_owned()).stack_size(256 << 10);
    std::thread::scope(|scope| {
        let deep = deep.spawn_scoped(scope, || {
            assert_eq!(counted.x[N / 2], 1);
            overflow(1)
        });
        let _ = deep.expect("a thread").join();
    });
}

#[test]
fn a_touch_of_freed_memory_ends_the_process_and_blames_nobody() {
    const TEST: &str = "a_touch_of_freed_memory_ends_the_process_and_blames_nobody";
    if let Some(engine) = role() {
        let rt = open(moving());
        let mut x: Managed<u32> = rt.alloc(N).expect("alloc");
        x.fill(3);
        let place = x.as_ptr().wrapping_add(N / 2);
        drop(x);
        println!("touching under {engine}");
        // SAFETY: nobody has this address any more; the touch ends this process.
        println!("loaded {}", unsafe { place.read_volatile() });
        return;
    }
    under_each(TEST, |ended| {
        let segv = ended.text.contains("touching under segv-mprotect");
        let signal = if segv { libc::SIGSEGV } else { libc::SIGBUS };
        assert_eq!(ended.status.signal(), Some(signal), "{ended:?}");
        assert!(!ended.text.contains("loaded") && !ended.text.contains(REPLACED), "{ended:?}");
    });
}

static TICKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn tick(_: c_int) {
    // Uses stack, as handlers do: on the alternate one, from wherever the kernel puts it.
    let mut some = [0_u8; 600];
    std::hint::black_box(&mut some);
    TICKS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn timers_and_profilers_run_beside_touches_and_kernels() {
    const TEST: &str = "timers_and_profilers_run_beside_touches_and_kernels";
    if role().is_none() {
        return under_each(TEST, succeeded);
    }
    let _dog = watchdog(TEST, 100);
    let mut counted = Counted::new();
    let handler: extern "C" fn(c_int) = tick;
    // One interrupts system calls, the other does not.
    set_action(libc::SIGALRM, handler as usize, libc::SA_ONSTACK);
    set_action(libc::SIGPROF, handler as usize, libc::SA_ONSTACK | libc::SA_RESTART);
    let period = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let every = |period| libc::itimerval { it_interval: period, it_value: period };
    let set = |timer: &libc::itimerval| {
        for which in [libc::ITIMER_REAL, libc::ITIMER_PROF] {
            // SAFETY: reads a whole itimerval; both signals have handlers.
            assert_eq!(unsafe { libc::setitimer(which, timer, core::ptr::null_mut()) }, 0);
        }
    };
    set(&every(period));
    let mut rounds = 0;
    while rounds < 20 || TICKS.load(Ordering::SeqCst) < 200 {
        counted.launch();
        counted.touch();
        rounds += 1;
    }
    set(&every(libc::timeval { tv_sec: 0, tv_usec: 0 }));
    println!("{rounds} rounds, {} ticks", TICKS.load(Ordering::SeqCst));
    counted.end();
}

static EARLIER: AtomicUsize = AtomicUsize::new(0);
static PASSED: AtomicI32 = AtomicI32::new(0);

/// Has nothing of its own, and says so to whoever was there before.
extern "C" fn passes_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    PASSED.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the action that this one replaced: a handler that takes these arguments, which are handed on as they came.
    unsafe {
        let earlier = EARLIER.load(Ordering::SeqCst);
        let earlier: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = core::mem::transmute(earlier);
        earlier(signal, info, context);
    }
}

#[test]
fn a_handler_that_comes_later_is_reported_and_may_pass_on() {
    const TEST: &str = "a_handler_that_comes_later_is_reported_and_may_pass_on";
    let Some(engine) = role() else {
        return under_each(TEST, |ended| {
            succeeded(ended);
            assert!(ended.text.contains(&format!("vkhmm: the application {REPLACED}")), "{ended:?}");
        });
    };
    let _dog = watchdog(TEST, 100);
    let mut counted = Counted::new();
    assert!(!counted.rt.doctor().to_string().contains(REPLACED));
    let signal = if engine == "uffd-sigbus" { libc::SIGBUS } else { libc::SIGSEGV };
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = passes_on;
    let before = set_action(signal, handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER);
    EARLIER.store(before.sa_sigaction, Ordering::SeqCst);
    for _ in 0..3 {
        counted.launch();
        counted.touch();
    }
    assert!(PASSED.load(Ordering::SeqCst) > 0);
    assert!(open(moving()).doctor().to_string().contains(REPLACED), "the next runtime says so, too");
    counted.end();
}
