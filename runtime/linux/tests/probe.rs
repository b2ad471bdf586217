//! Which engine is chosen where some of it is forbidden, and what the report says then. The prohibition is a seccomp filter as
//! containers have it: userfaultfd(2) says EPERM.

mod common;

use common::{PAGE, SMALL, alone_passes, is_child, run, segv, try_open};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_linux::{Config, EngineChoice, Verdict, open};
use vkhmm_port::{Access, FaultMode, HostMemory};

/// From here on userfaultfd(2) fails with EPERM in this process.
fn forbid_userfaultfd() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        line(LOAD_NUMBER, 0, 0, 0),
        line(IF_EQUAL, 0, 1, libc::SYS_userfaultfd as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        line(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls read their arguments only; the filter is whole and lives until the kernel has copied it.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
}

fn can_open_node() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok()
}

#[test]
fn the_device_node_serves_where_the_system_call_is_forbidden() {
    const TEST: &str = "the_device_node_serves_where_the_system_call_is_forbidden";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    forbid_userfaultfd();
    let Some(memory) = can_open_node()
        .then(|| try_open(Config { engine: Some(EngineChoice::UffdThread), ..SMALL }))
        .flatten()
    else {
        println!("skipped: no access to the device node");
        return;
    };
    assert_eq!(memory.host.profile().faults, FaultMode::Full);
    let sink = rustix::fs::memfd_create(c"sink", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    std::thread::scope(|scope| {
        let from = memory.address(2, 0);
        let sink = &sink;
        let call = scope.spawn(move || {
            // SAFETY: the kernel checks the address; no reference to R exists.
            unsafe { libc::write(sink.as_raw_fd(), core::ptr::with_exposed_provenance(from), PAGE) }
        });
        assert_eq!(memory.fault().page.0, 2, "the system call is parked");
        memory.host.populate(run(2, 1)).expect("populate");
        memory.host.publish(run(2, 1), Access::ReadWrite).expect("publish");
        assert_eq!(call.join().expect("writer"), PAGE as isize);
    });
}

#[test]
fn mprotect_is_chosen_where_userfaultfd_is_forbidden() {
    const TEST: &str = "mprotect_is_chosen_where_userfaultfd_is_forbidden";
    if !is_child(TEST) {
        let root = rustix::process::getuid().is_root();
        let nobody = "RUNNER='setpriv --reuid=65534 --regid=65534 --clear-groups';";
        return alone_passes(TEST, if root { nobody } else { "" });
    }
    forbid_userfaultfd();
    if can_open_node() {
        println!("skipped: this user may open the device node");
        return;
    }
    let opened = open(&SMALL).expect("mprotect works everywhere");
    let text = opened.report.to_string();
    println!("{text}");
    assert_eq!(opened.report.chosen, EngineChoice::SegvMprotect);
    assert_eq!(opened.host.profile().faults, FaultMode::UserOnly);
    assert!(opened.source.is_some() && text.contains("vm.max_map_count"), "{text}");
    for engine in [EngineChoice::UffdThread, EngineChoice::UffdThreadUserOnly, EngineChoice::UffdSigbus] {
        let status = opened.report.engines.iter().find(|s| s.engine == engine).expect("listed");
        let Verdict::Refused { reason, remedy } = &status.verdict else { panic!("{text}") };
        assert!(!reason.is_empty() && remedy.contains("seccomp"), "{text}");
        let Err(error) = open(&Config { engine: Some(engine), ..SMALL }) else {
            panic!("forced past a filter")
        };
        assert!(error.to_string().contains(reason.as_str()), "{error}");
    }
}

/// The example of that name, built beside this test, or now.
fn wrapper() -> PathBuf {
    let here = std::env::current_exe().expect("a path");
    let folder = here.parent().and_then(Path::parent).expect("deps lies in the profile's folder");
    let path = folder.join("examples/deny_userfaultfd");
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            "vkhmm-linux",
            "--example",
            "deny_userfaultfd",
        ]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().is_ok_and(|status| status.success()), "{build:?}");
    }
    path
}

#[test]
fn mprotect_is_chosen_where_the_device_node_is_forbidden_too() {
    const TEST: &str = "mprotect_is_chosen_where_the_device_node_is_forbidden_too";
    if !is_child(TEST) {
        return alone_passes(TEST, &format!("RUNNER='{}';", wrapper().display()));
    }
    let opened = open(&SMALL).expect("mprotect works everywhere");
    let text = opened.report.to_string();
    println!("{text}");
    assert_eq!(opened.report.chosen, EngineChoice::SegvMprotect);
    let refused: Vec<_> = text.lines().filter(|line| line.contains(": refused:")).collect();
    assert_eq!(refused.len(), 3, "{text}");
    assert!(
        refused[0].contains("/dev/userfaultfd") && refused.iter().all(|line| line.contains("seccomp")),
        "{text}"
    );
    let memory = try_open(SMALL).expect("as before");
    let load = memory.load_apart(3);
    assert_eq!(memory.fault().page.0, 3);
    memory.host.populate(run(3, 1)).expect("populate");
    memory.fill_alias(3, 7);
    memory.host.publish(run(3, 1), Access::ReadWrite).expect("publish");
    assert_eq!(load.join().expect("the thread"), 7);
}

#[test]
fn what_a_sandbox_lacks_is_said() {
    let text = open(&segv(true)).expect("mprotect works everywhere").report.to_string();
    assert!(text.contains("no MADV_WIPEONFORK") && text.contains("no hole punching"), "{text}");
    if open(&Config { engine: Some(EngineChoice::UffdThreadUserOnly), ..SMALL }).is_err() {
        println!("skipped: this may be a sandbox");
        return;
    }
    let text = open(&segv(false)).expect("mprotect works everywhere").report.to_string();
    assert!(!text.contains("no MADV_WIPEONFORK") && !text.contains("no hole punching"), "{text}");
}

#[test]
fn engine_names_are_read_back() {
    for engine in EngineChoice::ALL {
        assert_eq!(EngineChoice::from_name(engine.name()), Some(engine));
    }
    assert_eq!(EngineChoice::from_name("uffd-thread-user"), Some(EngineChoice::UffdThreadUserOnly));
    assert_eq!(EngineChoice::from_name("other"), None);
}

#[test]
fn a_storm_of_signals_breaks_no_call() {
    const TEST: &str = "a_storm_of_signals_breaks_no_call";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    extern "C" fn ignore(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = ignore;
    // SAFETY: the handler does nothing; the structure is whole. No SA_RESTART: calls are interrupted.
    let me = unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, core::ptr::null_mut()), 0);
        libc::pthread_self()
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                // SAFETY: the thread lives until the scope ends.
                unsafe { libc::pthread_kill(me, libc::SIGALRM) };
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        call_everything();
        stop.store(true, Ordering::SeqCst);
    });
}

fn call_everything() {
    let memory = try_open(SMALL).expect("something works");
    for _ in 0..10 {
        let all = run(0, 16 * 512);
        memory.host.populate(all).expect("populate");
        memory.host.publish(all, Access::ReadWrite).expect("publish");
        memory.host.protect(all).expect("protect");
        memory.host.revoke(all).expect("revoke");
        memory.host.punch(all).expect("punch");
    }
}
