//! Signals of others: what is not ours goes where it went before, whatever the application does with handlers, stacks and timers.
//! Everything that changes the process runs in a process of its own.

mod common;
mod plain;

use common::{Memory, PAGE, SMALL, alone, is_child, load, run, segv, store, try_open};
use core::ffi::{c_int, c_void};
use plain::{Serve, alternate_stack, on_plain_thread};
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vkhmm_linux::{Config, EngineChoice};
use vkhmm_port::{Access, FaultSource, HostMemory};

const SIGBUS: Config = Config { engine: Some(EngineChoice::UffdSigbus), ..SMALL };

/// The engines under test that can be had here, with the signal that their touches raise.
fn engines() -> Vec<(Config, c_int)> {
    let both = [(SIGBUS, libc::SIGBUS), (segv(false), libc::SIGSEGV)];
    both.into_iter().filter(|(config, _)| try_open(*config).is_some()).collect()
}

/// As [`engines`], by name for a process of its own, where nothing may be opened before the test says so.
fn names() -> Vec<(&'static str, c_int)> {
    engines().into_iter().map(|(config, signal)| (config.engine.expect("forced").name(), signal)).collect()
}

/// In a process of its own: the engine that it is to open, and the case that it is to play.
fn told() -> (Config, String) {
    let engine = std::env::var("ENGINE").ok().and_then(|name| EngineChoice::from_name(&name));
    (Config { engine, ..SMALL }, std::env::var("CASE").unwrap_or_default())
}

fn child(test: &str, engine: &str, case: &str) -> (Output, String) {
    let output = alone(test, &format!("ENGINE={engine} CASE={case}"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

fn set_action(signal: c_int, action: usize, flags: c_int, also_held: Option<c_int>) -> libc::sigaction {
    // SAFETY: the structures are whole; `action` is a handler of this file with the arguments that `flags` ask for, or a constant.
    unsafe {
        let (mut new, mut old): (libc::sigaction, libc::sigaction) = core::mem::zeroed();
        new.sa_sigaction = action;
        new.sa_flags = flags;
        if let Some(held) = also_held {
            libc::sigaddset(&mut new.sa_mask, held);
        }
        assert_eq!(libc::sigaction(signal, &new, &mut old), 0);
        old
    }
}

/// A page that raises `signal` when it is touched and has nothing to do with managed memory.
fn foreign(signal: c_int) -> usize {
    // SAFETY: a new mapping where the kernel likes; for SIGBUS of a file that has no bytes.
    let page = unsafe {
        if signal == libc::SIGSEGV {
            libc::mmap(
                core::ptr::null_mut(),
                PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        } else {
            let empty = libc::memfd_create(c"empty".as_ptr(), 0);
            libc::mmap(
                core::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                empty,
                0,
            )
        }
    };
    assert_ne!(page, libc::MAP_FAILED);
    page as usize
}

/// Puts memory where a foreign page was; allowed in handlers.
fn mend(address: usize) {
    let (place, protection) =
        (core::ptr::with_exposed_provenance_mut(address & !(PAGE - 1)), libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: only called with the address of a page that `foreign` made, which holds nothing.
    let mended = unsafe { libc::mmap(place, PAGE, protection, flags, -1, 0) };
    assert_eq!(mended, place);
}

static CALLS: AtomicU32 = AtomicU32::new(0);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicU64 = AtomicU64::new(0);
/// What a handler without information mends.
static FOREIGN: AtomicUsize = AtomicUsize::new(0);

fn note(signal: c_int) {
    CALLS.fetch_add(1, Ordering::SeqCst);
    SIGNAL.store(signal, Ordering::SeqCst);
    let mut held = 0_u64;
    // SAFETY: asks for this thread's mask, eight bytes of it.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, core::ptr::null::<u64>(), &raw mut held, 8)
    };
    HELD.store(held, Ordering::SeqCst);
}

extern "C" fn mends_by_information(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    note(signal);
    assert!(!context.is_null());
    // SAFETY: the kernel's information, handed on.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    CODE.store(code, Ordering::SeqCst);
    ADDRESS.store(address, Ordering::SeqCst);
    if code > 0 {
        mend(address);
    }
}

extern "C" fn mends_without(signal: c_int) {
    note(signal);
    mend(FOREIGN.load(Ordering::SeqCst));
}

fn by_information() -> usize {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = mends_by_information;
    handler as usize
}

fn without() -> usize {
    let handler: extern "C" fn(c_int) = mends_without;
    handler as usize
}

const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

#[test]
fn a_handler_that_was_there_before_is_called_as_the_kernel_would() {
    const TEST: &str = "a_handler_that_was_there_before_is_called_as_the_kernel_would";
    if !is_child(TEST) {
        for (engine, _) in names() {
            for case in ["information", "plain"] {
                let (output, text) = child(TEST, engine, case);
                assert!(output.status.success() && text.contains("1 passed"), "{engine} {case}: {text}");
            }
        }
        return;
    }
    let (config, case) = told();
    let signal = if config.engine == Some(EngineChoice::UffdSigbus) { libc::SIGBUS } else { libc::SIGSEGV };
    if case == "plain" {
        set_action(signal, without(), libc::SA_NODEFER, Some(libc::SIGUSR2));
    } else {
        set_action(signal, by_information(), libc::SA_SIGINFO, Some(libc::SIGUSR1));
    }
    let memory = try_open(config).expect("opened by the parent");
    let _served = Serve::start(&memory);
    memory.store(3, 1);
    assert_eq!(CALLS.load(Ordering::SeqCst), 0, "a touch of ours reached the application");
    let page = foreign(signal);
    FOREIGN.store(page, Ordering::SeqCst);
    // SAFETY: errno belongs to this thread.
    unsafe { *libc::__errno_location() = 77 };
    store(page + 5, 9);
    // SAFETY: errno belongs to this thread.
    assert_eq!(unsafe { *libc::__errno_location() }, 77, "errno is the thread's");
    assert_eq!((load(page + 5), CALLS.load(Ordering::SeqCst), SIGNAL.load(Ordering::SeqCst)), (9, 1, signal));
    let held = HELD.load(Ordering::SeqCst);
    if case == "plain" {
        assert_eq!(held & (bit(signal) | bit(libc::SIGUSR1) | bit(libc::SIGUSR2)), bit(libc::SIGUSR2));
    } else {
        assert_eq!(ADDRESS.load(Ordering::SeqCst), page + 5);
        assert!(CODE.load(Ordering::SeqCst) > 0);
        assert_eq!(
            held & (bit(signal) | bit(libc::SIGUSR1) | bit(libc::SIGUSR2) | bit(libc::SIGALRM)),
            bit(signal) | bit(libc::SIGUSR1),
        );
        // Sent by somebody, with an address of ours in no way: the application's.
        // SAFETY: sends a signal to this process, which has a handler for it.
        unsafe { libc::raise(signal) };
        assert_eq!((CALLS.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst) <= 0), (2, true));
    }
    // And ours still works.
    assert_eq!(memory.load(3), 1);
    memory.store(4, 2);
}

#[test]
fn a_handler_for_one_time_is_called_one_time() {
    const TEST: &str = "a_handler_for_one_time_is_called_one_time";
    if !is_child(TEST) {
        for (engine, signal) in names() {
            let (output, text) = child(TEST, engine, "");
            assert!(text.contains("called once"), "{text}");
            assert_eq!(output.status.signal(), Some(signal), "{engine}: {text}");
        }
        return;
    }
    let (config, _) = told();
    let signal = if config.engine == Some(EngineChoice::UffdSigbus) { libc::SIGBUS } else { libc::SIGSEGV };
    set_action(signal, by_information(), libc::SA_SIGINFO | libc::SA_RESETHAND, None);
    let memory = try_open(config).expect("opened by the parent");
    let _served = Serve::start(&memory);
    memory.store(3, 1);
    let pages = [foreign(signal), foreign(signal)];
    store(pages[0], 1);
    memory.store(4, 1);
    println!("called once");
    store(pages[1], 1);
    panic!("the second time is the default: the process ends");
}

/// Handlers of the application that came after ours; ours is what it passes on to.
static OURS: AtomicUsize = AtomicUsize::new(0);
static PASSED_ON: AtomicU32 = AtomicU32::new(0);

extern "C" fn passes_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    PASSED_ON.fetch_add(1, Ordering::SeqCst);
    let ours = OURS.load(Ordering::SeqCst);
    // SAFETY: the action that `sigaction` said was there; it has SA_SIGINFO.
    let ours: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { core::mem::transmute(ours) };
    ours(signal, info, context);
}

#[test]
fn a_handler_that_comes_later_is_noticed_and_may_pass_on() {
    const TEST: &str = "a_handler_that_comes_later_is_noticed_and_may_pass_on";
    if !is_child(TEST) {
        for (engine, _) in names() {
            let (output, text) = child(TEST, engine, "");
            assert!(output.status.success() && text.contains("1 passed"), "{engine}: {text}");
            let said = text.matches("vkhmm: the application installed a handler").count();
            assert_eq!(said, 1, "{engine}: once in words\n{text}");
        }
        return;
    }
    let (config, _) = told();
    let memory = try_open(config).expect("opened by the parent");
    let signal = if config.engine == Some(EngineChoice::UffdSigbus) { libc::SIGBUS } else { libc::SIGSEGV };
    let text = vkhmm_linux::open(&config).expect("a second one").report.to_string();
    assert!(!text.contains("installed a handler"), "{text}");
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = passes_on;
    let old = set_action(signal, handler as usize, libc::SA_SIGINFO | libc::SA_ONSTACK, None);
    assert_ne!(old.sa_flags & libc::SA_SIGINFO, 0);
    OURS.store(old.sa_sigaction, Ordering::SeqCst);
    memory.no_fault();
    memory.no_fault();
    let text = vkhmm_linux::open(&config).expect("a third one").report.to_string();
    assert!(text.contains("installed a handler"), "{text}");
    let _served = Serve::start(&memory);
    for page in 0..20 {
        memory.store(page, 1);
    }
    assert_eq!(PASSED_ON.load(Ordering::SeqCst), 20);
}

#[test]
fn without_any_handler_a_foreign_fault_ends_the_process() {
    const TEST: &str = "without_any_handler_a_foreign_fault_ends_the_process";
    if !is_child(TEST) {
        for (engine, signal) in names() {
            for case in ["default-fault", "default-sent", "ignored-fault", "ignored-sent"] {
                let (output, text) = child(TEST, engine, case);
                let survives = case == "ignored-sent";
                let expected = (!survives).then_some(signal);
                assert_eq!(output.status.signal(), expected, "{engine} {case}: {text}");
                assert_eq!(text.contains("survived"), survives, "{engine} {case}: {text}");
            }
        }
        return;
    }
    let (config, case) = told();
    let signal = if config.engine == Some(EngineChoice::UffdSigbus) { libc::SIGBUS } else { libc::SIGSEGV };
    let action = if case.starts_with("default") { libc::SIG_DFL } else { libc::SIG_IGN };
    set_action(signal, action, 0, None);
    let memory = try_open(config).expect("opened by the parent");
    let _served = Serve::start(&memory);
    memory.store(3, 1);
    if case.ends_with("sent") {
        // SAFETY: sends a signal to this process.
        unsafe { libc::kill(libc::getpid(), signal) };
    } else {
        store(foreign(signal), 1);
    }
    memory.store(4, 1);
    println!("survived");
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
    if !is_child(TEST) {
        for engine in [EngineChoice::UffdSigbus.name(), EngineChoice::SegvMprotect.name(), "none"] {
            let (output, text) = child(TEST, engine, "");
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{engine}: {text}");
            assert!(
                text.contains("thread 'deep'") && text.contains("has overflowed its stack"),
                "{engine}: {text}"
            );
        }
        return;
    }
    let (config, _) = told();
    let memory = if config.engine.is_some() { try_open(config) } else { None };
    let _served = memory.as_ref().map(Serve::start);
    let deep = std::thread::Builder::new().name("deep".to_owned()).stack_size(256 << 10);
    let deep = deep.spawn(|| overflow(1)).expect("a thread");
    let _ = deep.join();
}

static TICKS: AtomicU32 = AtomicU32::new(0);

extern "C" fn tick(_: c_int) {
    // Uses stack, as handlers do: on the alternate one, from wherever the kernel puts it.
    let mut some = [0_u8; 600];
    std::hint::black_box(&mut some);
    TICKS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn timers_and_profilers_run_during_touches() {
    const TEST: &str = "timers_and_profilers_run_during_touches";
    if !is_child(TEST) {
        for (engine, _) in names() {
            for case in ["in-thread", "posted"] {
                let (output, text) = child(TEST, engine, case);
                assert!(output.status.success() && text.contains("1 passed"), "{engine} {case}: {text}");
                println!("{}", text.lines().find(|line| line.contains("ticks")).unwrap_or_default());
            }
        }
        return;
    }
    let (config, case) = told();
    let memory = try_open(config).expect("opened by the parent");
    let handler: extern "C" fn(c_int) = tick;
    for signal in [libc::SIGALRM, libc::SIGPROF] {
        set_action(signal, handler as usize, libc::SA_ONSTACK | libc::SA_RESTART, None);
    }
    let period = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    for which in [libc::ITIMER_REAL, libc::ITIMER_PROF] {
        // SAFETY: reads a whole itimerval; both signals have handlers.
        assert_eq!(unsafe { libc::setitimer(which, &timer, core::ptr::null_mut()) }, 0);
    }
    let faults: u64 = if case == "posted" { 5_000 } else { 100_000 };
    let served = if case == "posted" { Serve::readers(&memory) } else { Serve::start(&memory) };
    std::thread::scope(|scope| {
        for part in 0..2_u64 {
            let memory = &memory;
            // Rust gives these an alternate stack of a few KiB, which the ticks use, too.
            scope.spawn(move || {
                for n in 0..faults / 2 {
                    let page = part * 4096 + n % 4096;
                    memory.store(page, n as u8);
                    memory.host.revoke(run(page, 1)).expect("revoke");
                }
            });
        }
    });
    println!("{} touches answered, {} ticks", served.answered(), TICKS.load(Ordering::SeqCst));
    assert!(served.answered() >= faults && TICKS.load(Ordering::SeqCst) > 50);
}

#[test]
fn signals_reach_a_thread_that_waits_for_its_page() {
    const TEST: &str = "signals_reach_a_thread_that_waits_for_its_page";
    if !is_child(TEST) {
        for (engine, _) in names() {
            let (output, text) = child(TEST, engine, "");
            assert!(output.status.success() && text.contains("1 passed"), "{engine}: {text}");
        }
        return;
    }
    let (config, _) = told();
    let memory = try_open(config).expect("opened by the parent");
    let handler: extern "C" fn(c_int) = tick;
    set_action(libc::SIGUSR1, handler as usize, libc::SA_ONSTACK, None);
    let (waiting, thread) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let toucher = scope.spawn(|| {
            // SAFETY: names the calling thread, no more.
            thread.store(unsafe { libc::pthread_self() } as u64, Ordering::SeqCst);
            waiting.store(true, Ordering::SeqCst);
            memory.load(7)
        });
        assert_eq!(memory.fault().page.0, 7);
        for round in 1..=3 {
            // SAFETY: the thread is waiting, so it lives.
            unsafe { libc::pthread_kill(thread.load(Ordering::SeqCst) as libc::pthread_t, libc::SIGUSR1) };
            let until = Instant::now() + Duration::from_secs(5);
            while TICKS.load(Ordering::SeqCst) < round {
                assert!(Instant::now() < until, "the handler ran {} times", TICKS.load(Ordering::SeqCst));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        // Coming back to the touch made no second message.
        memory.no_fault();
        memory.host.populate(run(7, 1)).expect("populate");
        memory.host.publish(run(7, 1), Access::ReadWrite).expect("publish");
        assert_eq!(toucher.join().expect("toucher"), 0);
    });
}

#[test]
fn more_threads_than_there_are_stacks_wait_each_with_one_message() {
    for (config, _) in engines() {
        let memory = try_open(config).expect("opened a moment ago");
        // Nobody answers at first: all of them are posted, and then wait.
        std::thread::scope(|scope| {
            let touchers: Vec<_> = (0..120_u64)
                .map(|n| {
                    let memory = &memory;
                    let body = move || memory.store(n * 3, 1);
                    std::thread::Builder::new()
                        .stack_size(64 << 10)
                        .spawn_scoped(scope, body)
                        .expect("a thread")
                })
                .collect();
            let mut faults = Vec::new();
            let until = Instant::now() + Duration::from_secs(10);
            while faults.len() < 120 && Instant::now() < until {
                memory
                    .source
                    .as_ref()
                    .expect("faults")
                    .next(&mut faults, Some(Duration::from_millis(20)))
                    .expect("next");
            }
            let pages: std::collections::BTreeSet<_> = faults.iter().map(|f| f.page.0).collect();
            let said = (pages.len(), faults.len());
            memory.host.populate(run(0, 512)).expect("populate");
            memory.host.publish(run(0, 512), Access::ReadWrite).expect("publish");
            assert_eq!(said, (120, 120), "each said once");
            touchers.into_iter().for_each(|toucher| toucher.join().expect("toucher"));
        });
        memory.no_fault();
    }
}

#[test]
fn several_runtimes_live_beside_each_other() {
    let all: Vec<Memory> =
        engines().into_iter().chain(engines()).filter_map(|(config, _)| try_open(config)).collect();
    let served: Vec<_> = all.iter().map(Serve::start).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for memory in &all {
            scope.spawn(|| {
                for n in 0..20_000_u64 {
                    memory.store(n % 64, n as u8);
                    memory.host.revoke(run(n % 64, 1)).expect("revoke");
                }
                stop.store(true, Ordering::SeqCst);
            });
        }
        // Others come and go meanwhile.
        scope.spawn(|| {
            let mut opened = 0;
            while !stop.load(Ordering::SeqCst) || opened < 4 {
                for (config, _) in engines() {
                    let memory = try_open(config).expect("room for another");
                    let served = Serve::start(&memory);
                    memory.store(1, 1);
                    assert_eq!(served.answered(), 1);
                    opened += 1;
                }
            }
        });
    });
    served.iter().for_each(|served| assert!(served.answered() >= 20_000));
}

#[test]
fn a_forked_child_has_no_part_in_it() {
    const TEST: &str = "a_forked_child_has_no_part_in_it";
    if !is_child(TEST) {
        for (engine, _) in names() {
            let (output, text) = child(TEST, engine, "");
            assert!(output.status.success() && text.contains("1 passed"), "{engine}: {text}");
        }
        return;
    }
    let (config, _) = told();
    let memory = try_open(Config { no_wipe_on_fork: true, ..config }).expect("opened by the parent");
    let served = Serve::start(&memory);
    memory.store(1, 1);
    assert_eq!(
        common::in_fork(|| i32::from(memory.load(1))),
        -libc::SIGSEGV,
        "the child's touch is nobody's"
    );
    assert_eq!(served.answered(), 1);
    memory.store(2, 1);
    assert_eq!(served.answered(), 2);
}

/// How much of the stack that a touch's signal comes on is used, beyond what the kernel itself puts there.
#[test]
fn a_touch_uses_little_of_the_stack_that_it_finds() {
    const TEST: &str = "a_touch_uses_little_of_the_stack_that_it_finds";
    const MOST: usize = 2048;
    if !is_child(TEST) {
        for (engine, _) in names() {
            let (output, text) = child(TEST, engine, "");
            assert!(output.status.success() && text.contains("1 passed"), "{engine}: {text}");
            text.lines()
                .filter(|line| line.contains("bytes of stack"))
                .for_each(|line| println!("{engine}: {line}"));
        }
        return;
    }
    let (config, _) = told();
    let memory = Arc::new(try_open(config).expect("opened by the parent"));
    let handler: extern "C" fn(c_int) = plain::nothing;
    set_action(libc::SIGUSR1, handler as usize, libc::SA_ONSTACK, None);
    for alternate in [true, false] {
        let kernel = on_plain_thread(alternate, || {
            // SAFETY: the signal has a handler that does nothing.
            unsafe { libc::raise(libc::SIGUSR1) };
        });
        let served = Serve::start(&memory);
        let touched = Arc::clone(&memory);
        let in_thread = on_plain_thread(alternate, move || touched.store(u64::from(alternate), 1));
        assert_eq!(served.answered(), 1, "on this plain thread");
        drop(served);
        let served = Serve::readers(&memory);
        let touched = Arc::clone(&memory);
        let posted = on_plain_thread(alternate, move || touched.store(8 + u64::from(alternate), 1));
        assert_eq!(served.answered(), 1);
        drop(served);
        let what = if alternate { "alternate" } else { "own" };
        println!(
            "{what}: {kernel} bytes of stack for nothing, {in_thread} answered in thread, {posted} posted"
        );
        for used in [in_thread, posted] {
            assert!(used > 0 && used.saturating_sub(kernel) <= MOST, "{used} bytes, {kernel} of the kernel");
        }
    }
    let (mut stack, size) = alternate_stack();
    assert_eq!((size, stack.as_mut_ptr() as usize % 16), (8192, 0));
}
