//! Every verb of host memory under every engine that can be had, and what the kernel promises about protection marks and
//! poison: the answers do not depend on which marks an earlier call left behind.

mod common;

use common::{Memory, PAGE, SMALL, alone, bytes, declared, fault_engines, is_child, run, try_open};
use std::os::unix::process::ExitStatusExt;
use vkhmm_linux::{Config, EngineChoice, Verdict, open};
use vkhmm_port::host::Errno;
use vkhmm_port::{Access, Fault, FaultMode, FaultSource, HostError, HostMemory};

fn name(memory: &Memory) -> String {
    format!("{:?}", memory.host.profile())
}

/// A page home and writable, holding `value`.
fn home(memory: &Memory, page: u64, value: u8) {
    memory.host.populate(run(page, 1)).expect("populate");
    memory.fill_alias(page, value);
    memory.host.publish(run(page, 1), Access::ReadWrite).expect("publish");
}

#[test]
fn a_fault_on_a_hole_is_answered_by_populate_and_publish() {
    for memory in fault_engines() {
        let reader = memory.load_apart(5);
        let fault = memory.fault();
        assert_eq!((fault.page.0, fault.write), (5, false), "{}", name(&memory));
        memory.host.populate(run(5, 1)).expect("populate");
        memory.fill_alias(5, 42);
        memory.host.publish(run(5, 1), Access::ReadWrite).expect("publish");
        assert_eq!(reader.join().expect("reader"), 42);
        memory.store(5, 43);
        assert_eq!(memory.alias(5), 43);
        memory.no_fault();
    }
}

#[test]
fn a_revoked_page_faults_and_keeps_its_bytes() {
    for memory in fault_engines() {
        home(&memory, 9, 1);
        memory.host.revoke(run(9, 1)).expect("revoke");
        assert_eq!(memory.alias(9), 1);
        let writer = memory.store_apart(9, 7);
        let fault = memory.fault();
        assert!(fault.page.0 == 9 && memory.is_store(fault));
        assert_eq!(memory.alias(9), 1, "the store waits");
        memory.host.publish(run(9, 1), Access::ReadWrite).expect("publish");
        writer.join().expect("writer");
        assert_eq!(memory.alias(9), 7);
    }
}

#[test]
fn publish_makes_mixed_runs_what_was_asked() {
    for memory in fault_engines() {
        let all = run(512, 512);
        memory.host.populate(all).expect("populate");
        // Absent, writable, protected, protected-then-zapped, in turn.
        for page in 512..1024 {
            if page % 4 != 0 {
                memory.host.publish(run(page, 1), Access::ReadWrite).expect("publish");
            }
            if page % 4 >= 2 {
                memory.host.protect(run(page, 1)).expect("protect");
            }
            if page % 4 == 3 {
                memory.host.revoke(run(page, 1)).expect("revoke");
            }
        }
        if memory.host.profile().publish_read_only {
            memory.host.publish(all, Access::ReadOnly).expect("publish read-only");
            for page in 512..1024 {
                assert_eq!(memory.load(page), 0);
            }
            for page in [512, 513, 514, 515, 1023] {
                let writer = memory.store_apart(page, 1);
                let fault = memory.fault();
                assert_eq!((fault.page.0, fault.write), (page, true), "{}", name(&memory));
                memory.host.publish(run(page, 1), Access::ReadWrite).expect("publish");
                writer.join().expect("writer");
            }
        }
        memory.host.publish(all, Access::ReadWrite).expect("publish");
        for page in 512..1024 {
            memory.store(page, 2);
        }
        memory.no_fault();
        // Again, where all is mapped already.
        memory.host.publish(all, Access::ReadWrite).expect("publish");
        memory.no_fault();
    }
}

#[test]
fn read_only_publishing_is_refused_where_the_kernel_cannot() {
    for memory in fault_engines() {
        memory.host.populate(run(0, 1)).expect("populate");
        let published = memory.host.publish(run(0, 1), Access::ReadOnly);
        assert_eq!(published.is_ok(), memory.host.profile().publish_read_only, "{published:?}");
    }
}

#[test]
fn protect_lets_loads_through_and_stops_stores() {
    for memory in fault_engines() {
        home(&memory, 3, 8);
        memory.host.protect(run(3, 1)).expect("protect");
        assert_eq!(memory.load(3), 8);
        let writer = memory.store_apart(3, 9);
        assert!(matches!(memory.fault(), Fault { page, write: true } if page.0 == 3));
        assert_eq!(memory.alias(3), 8);
        memory.host.publish(run(3, 1), Access::ReadWrite).expect("publish");
        writer.join().expect("writer");
        assert_eq!(memory.alias(3), 9);
    }
}

#[test]
fn marks_protected_then_revoked_is_one_fault_with_the_right_kind() {
    for memory in fault_engines() {
        home(&memory, 4, 1);
        for write in [false, true] {
            memory.host.protect(run(4, 1)).expect("protect");
            memory.host.revoke(run(4, 1)).expect("revoke");
            let toucher = memory.touch_apart(4, write.then_some(2));
            let fault = memory.fault();
            let is_right = if write { memory.is_store(fault) } else { !fault.write };
            assert!(fault.page.0 == 4 && is_right, "{fault:?} {}", name(&memory));
            memory.host.publish(run(4, 1), Access::ReadWrite).expect("publish");
            toucher.join().expect("toucher");
            memory.no_fault();
        }
    }
}

#[test]
fn marks_do_not_survive_a_writable_publish() {
    for memory in fault_engines() {
        home(&memory, 4, 1);
        memory.host.protect(run(4, 1)).expect("protect");
        memory.host.revoke(run(4, 1)).expect("revoke");
        memory.host.publish(run(4, 1), Access::ReadWrite).expect("publish");
        memory.store(4, 3);
        memory.no_fault();
    }
}

#[test]
fn marks_on_absent_cached_pages_behave_the_same() {
    for memory in fault_engines() {
        memory.host.populate(run(6, 1)).expect("populate");
        memory.host.protect(run(6, 1)).expect("protect");
        let writer = memory.store_apart(6, 5);
        let fault = memory.fault();
        assert!(memory.is_store(fault));
        memory.host.publish(run(6, 1), Access::ReadWrite).expect("publish");
        writer.join().expect("writer");
        memory.store(6, 6);
        memory.no_fault();
    }
}

#[test]
fn marks_and_bytes_are_gone_after_a_punch() {
    for memory in fault_engines() {
        home(&memory, 7, 77);
        memory.host.protect(run(7, 1)).expect("protect");
        memory.host.revoke(run(7, 1)).expect("revoke");
        memory.host.punch(run(7, 1)).expect("punch");
        assert_eq!(memory.alias(7), 0, "a punched page reads zeros");
        memory.host.punch(run(7, 1)).expect("punch");
        let reader = memory.load_apart(7);
        assert!(!memory.fault().write);
        memory.host.populate(run(7, 1)).expect("populate");
        memory.host.publish(run(7, 1), Access::ReadWrite).expect("publish");
        assert_eq!(reader.join().expect("reader"), 0);
        memory.store(7, 1);
        memory.no_fault();
    }
}

#[test]
fn poison_takes_over_whatever_was_there_and_punch_ends_it() {
    for memory in fault_engines() {
        // Present, protected, protected and revoked, a hole, poisoned already.
        for before in 0..5 {
            home(&memory, 8, 1);
            if before == 1 || before == 2 {
                memory.host.protect(run(8, 1)).expect("protect");
            }
            if before == 2 {
                memory.host.revoke(run(8, 1)).expect("revoke");
            }
            if before == 3 {
                memory.host.punch(run(8, 1)).expect("punch");
            }
            if before == 4 {
                memory.host.poison(run(8, 1)).expect("poison");
            }
            memory.host.poison(run(8, 1)).expect("poison");
            assert_eq!(write_from(&memory, 8), Err(libc::EFAULT), "{before} {}", name(&memory));
            memory.host.punch(run(8, 1)).expect("punch");
            let reader = memory.load_apart(8);
            memory.fault();
            memory.host.populate(run(8, 1)).expect("populate");
            memory.host.publish(run(8, 1), Access::ReadWrite).expect("publish");
            assert_eq!(reader.join().expect("reader"), 0);
            // Publishing ends poison, too: a lost page that is written anew comes home like any other.
            memory.host.poison(run(8, 1)).expect("poison");
            memory.host.publish(run(8, 1), Access::ReadWrite).expect("publish");
            assert_eq!(memory.load(8), 0);
            memory.host.punch(run(8, 1)).expect("punch");
        }
    }
}

#[test]
fn poison_lets_parked_threads_find_out() {
    // A system call, so that the thread gets EFAULT and not a signal.
    let Some(memory) = try_open(Config { engine: Some(EngineChoice::UffdThread), ..SMALL }) else { return };
    std::thread::scope(|scope| {
        let parked = scope.spawn(|| write_from(&memory, 11));
        assert_eq!(memory.fault().page.0, 11);
        memory.host.poison(run(11, 1)).expect("poison");
        assert_eq!(parked.join().expect("parked"), Err(libc::EFAULT));
    });
}

/// write(2) of one page of R to /dev/null-like memory; the system error if it fails.
fn write_from(memory: &Memory, page: u64) -> Result<usize, i32> {
    let file = rustix::fs::memfd_create(c"sink", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    let from = core::ptr::with_exposed_provenance::<core::ffi::c_void>(memory.address(page, 0));
    // SAFETY: the kernel checks the address; R is not referenced.
    let wrote = unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&file), from, PAGE) };
    usize::try_from(wrote).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

#[test]
fn a_poisoned_touch_kills() {
    let cases = [
        ("uffd-thread", false, libc::SIGBUS),
        ("uffd-thread-user", false, libc::SIGBUS),
        ("uffd-thread", true, libc::SIGSEGV),
        ("uffd-sigbus", false, libc::SIGBUS),
        ("uffd-sigbus", true, libc::SIGSEGV),
        ("segv-mprotect", false, libc::SIGSEGV),
        ("declared", false, libc::SIGSEGV),
    ];
    if is_child("a_poisoned_touch_kills") {
        let engine = std::env::var("ENGINE").ok().and_then(|e| EngineChoice::from_name(&e));
        let no_poison = std::env::var("NO_POISON").is_ok_and(|v| v == "true");
        let Some(memory) = try_open(Config { engine, no_poison, ..SMALL }) else { return };
        memory.host.populate(run(1, 1)).expect("populate");
        memory.host.poison(run(1, 1)).expect("poison");
        memory.load(1);
        panic!("a poisoned page was read");
    }
    for (engine, no_poison, signal) in cases {
        let output = alone("a_poisoned_touch_kills", &format!("ENGINE={engine} NO_POISON={no_poison}"));
        if String::from_utf8_lossy(&output.stdout).contains("skipped:") {
            continue;
        }
        assert_eq!(output.status.signal(), Some(signal), "{engine} {output:?}");
    }
}

#[test]
fn declared_is_always_mapped() {
    let memory = declared();
    assert!(memory.source.is_none());
    assert_eq!(memory.host.profile().faults, FaultMode::Declared);
    memory.store(1, 11);
    assert_eq!(memory.alias(1), 11);
    memory.host.protect(run(1, 1)).expect("protect");
    memory.host.revoke(run(1, 1)).expect("revoke");
    memory.store(1, 12);
    memory.host.publish(run(1, 1), Access::ReadOnly).expect("publish");
    memory.host.poison(run(1, 1)).expect("poison");
    assert_eq!(write_from(&memory, 1), Err(libc::EFAULT));
    assert_eq!(memory.alias(1), 12);
    memory.host.punch(run(1, 1)).expect("punch");
    assert_eq!(memory.load(1), 0);
    memory.host.populate(run(0, 1024)).expect("populate");
}

#[test]
fn runs_outside_are_refused_and_empty_runs_are_nothing() {
    for memory in fault_engines().into_iter().chain([declared()]) {
        let pages = memory.host.profile().reservation_bytes / PAGE as u64;
        for bad in [run(pages, 1), run(pages - 1, 2), run(u64::MAX, 1), run(u64::MAX / 4096, u32::MAX)] {
            for refused in [
                memory.host.populate(bad),
                memory.host.revoke(bad),
                memory.host.protect(bad),
                memory.host.publish(bad, Access::ReadWrite),
                memory.host.poison(bad),
                memory.host.punch(bad),
            ] {
                assert!(
                    matches!(refused, Err(HostError::Refused { source: Errno(libc::EINVAL), .. })),
                    "{refused:?}"
                );
            }
        }
        memory.host.publish(run(0, 0), Access::ReadWrite).expect("nothing to do");
        memory.host.punch(run(pages, 0)).expect("nothing to do");
        assert_eq!(memory.host.alias(bytes(0, pages as u32)).len() as u64, pages * PAGE as u64);
        assert_eq!(memory.host.base() % (2 << 20), 0, "R lies on a block boundary");
    }
}

#[test]
fn publishing_a_hole_is_an_error_that_says_where() {
    for memory in fault_engines() {
        if memory.host.profile().engine == EngineChoice::SegvMprotect.name() {
            // The kernel fills holes by itself where access is all that it asks for.
            continue;
        }
        let refused = memory.host.publish(run(20, 1), Access::ReadWrite);
        assert!(
            matches!(refused, Err(HostError::Refused { operation: "UFFDIO_CONTINUE", offset: 81920, .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn next_returns_after_timeout_and_interrupt() {
    for memory in fault_engines() {
        let source = memory.source.clone().expect("an engine with faults");
        let started = std::time::Instant::now();
        source.next(&mut Vec::new(), Some(std::time::Duration::from_millis(30))).expect("next");
        assert!(started.elapsed() >= std::time::Duration::from_millis(29));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| source.next(&mut Vec::new(), None).expect("next"));
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            source.interrupt();
        });
        source.next(&mut Vec::new(), None).expect("later calls return, too");
    }
}

#[test]
fn the_report_says_what_was_found() {
    let opened = open(&SMALL).expect("something works");
    let text = opened.report.to_string();
    assert_eq!(opened.report.chosen.name(), opened.host.profile().engine);
    assert!(text.contains("declared: not tried") && text.contains("reservation: 64 MiB"), "{text}");
    assert!(opened.report.engines.iter().any(|e| e.verdict == Verdict::Chosen));
    println!("{text}");
}
