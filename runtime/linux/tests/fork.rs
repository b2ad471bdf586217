//! A forked child must not be able to change its parent's memory, whatever it calls, drops or touches.

mod common;

use common::{Memory, SMALL, alone_passes, bytes, declared, fault_engines, in_fork, is_child, run, try_open};
use std::time::Duration;
use vkhmm_linux::{Config, EngineChoice};
use vkhmm_port::{Access, FaultSource, HostError, HostMemory};

/// Pages 0 to 4: writable, protected, revoked, a hole, poisoned (where faults exist).
fn set_up(memory: &Memory) {
    let host = &memory.host;
    host.populate(run(0, 3)).expect("populate");
    (0..3).for_each(|page| memory.fill_alias(page, 40 + page as u8));
    host.publish(run(0, 3), Access::ReadWrite).expect("publish");
    host.protect(run(1, 1)).expect("protect");
    host.revoke(run(2, 1)).expect("revoke");
    host.poison(run(4, 1)).expect("poison");
}

/// The parent's view is as [`set_up`] left it.
fn unchanged(memory: &Memory) {
    assert_eq!((memory.load(0), memory.load(1), memory.alias(2), memory.alias(3)), (40, 41, 42, 0));
    memory.store(0, 40);
    if memory.source.is_none() {
        return;
    }
    for (page, write) in [(1, true), (2, false), (3, false)] {
        let toucher = memory.touch_apart(page, write.then_some(41));
        let fault = memory.fault();
        assert_eq!((fault.page.0, fault.write), (page, write));
        memory.host.populate(run(page, 1)).expect("populate");
        memory.host.publish(run(page, 1), Access::ReadWrite).expect("publish");
        toucher.join().expect("toucher");
    }
}

fn forked<T>(result: Result<T, HostError>) -> bool {
    matches!(result, Err(HostError::ForkedChild))
}

fn every_call_refuses(memory: &Memory) -> bool {
    let host = &memory.host;
    let all = run(0, 512);
    let verbs = forked(host.populate(all))
        && forked(host.revoke(all))
        && forked(host.protect(all))
        && forked(host.publish(all, Access::ReadWrite))
        && forked(host.publish(all, Access::ReadOnly))
        && forked(host.poison(all))
        && forked(host.punch(all))
        && forked(host.punch(run(0, 0)));
    let source = memory.source.as_ref().is_none_or(|source| {
        source.interrupt();
        forked(source.next(&mut Vec::new(), None))
    });
    verbs && source && !host.owned()
}

fn engines() -> Vec<Memory> {
    fault_engines().into_iter().chain([declared()]).collect()
}

#[test]
fn every_call_in_a_child_says_so_and_changes_nothing() {
    const TEST: &str = "every_call_in_a_child_says_so_and_changes_nothing";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    for memory in engines() {
        set_up(&memory);
        assert_eq!(in_fork(|| i32::from(!every_call_refuses(&memory))), 0, "{:?}", memory.host.profile());
        assert!(memory.host.owned());
        if let Some(source) = &memory.source {
            // The child's interrupt did not reach us.
            let started = std::time::Instant::now();
            source.next(&mut Vec::new(), Some(Duration::from_millis(30))).expect("next");
            assert!(started.elapsed() >= Duration::from_millis(29));
        }
        unchanged(&memory);
    }
}

#[test]
fn dropping_in_a_child_changes_nothing() {
    const TEST: &str = "dropping_in_a_child_changes_nothing";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    for memory in engines() {
        set_up(&memory);
        let mut memory = Some(memory);
        // The child drops its copy of the handles; what it maps afterwards may lie where R was and must survive.
        let code = in_fork(|| {
            let memory = memory.take().expect("not yet taken");
            let base = memory.host.base();
            let len = memory.host.profile().reservation_bytes as usize;
            let place = core::ptr::with_exposed_provenance_mut(base);
            // SAFETY: the child has nothing mapped at R's place (DONTFORK); NOREPLACE fails otherwise.
            let mine = unsafe {
                libc::mmap(
                    place,
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE,
                    -1,
                    0,
                )
            };
            if mine != place {
                return 2;
            }
            common::store(base, 9);
            drop(memory);
            i32::from(common::load(base) != 9)
        });
        assert_eq!(code, 0);
        unchanged(memory.as_ref().expect("the parent's copy"));
    }
}

#[test]
fn touching_in_a_child_kills_the_child_only() {
    const TEST: &str = "touching_in_a_child_kills_the_child_only";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    for memory in engines() {
        set_up(&memory);
        for page in 0..5 {
            assert_eq!(in_fork(|| i32::from(memory.load(page))), -libc::SIGSEGV, "page {page}");
        }
        let alias = memory.host.alias(bytes(0, 1));
        assert_eq!(in_fork(|| i32::from(alias.to_vec()[0])), -libc::SIGSEGV, "the alias");
        unchanged(&memory);
    }
}

#[test]
fn a_child_may_open_its_own_and_exit_normally() {
    const TEST: &str = "a_child_may_open_its_own_and_exit_normally";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    let memory = declared();
    set_up(&memory);
    let code = in_fork(|| {
        let own = try_open(Config { engine: Some(EngineChoice::Declared), ..SMALL }).expect("declared");
        own.store(0, 5);
        i32::from(own.alias(0) != 5 || !own.host.owned())
    });
    assert_eq!(code, 0);
    unchanged(&memory);
}
