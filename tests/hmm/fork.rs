//! The kernel's cases that fork. A runtime belongs to the process that made it: in a child every call says so, and a touch is a
//! segmentation fault, never zeros and never the parent's bytes. The parent does not notice.

use crate::common::{self, BLOCK, PAGE, SIGSEGV, Scratch, WORDS, again, fork_here, in_fork, role, wait_for};
use crate::rig::{Places, Rig, VARIANTS, WORDS_ALL, expect, fill, places};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use vkhmm::{Managed, Result};

unsafe extern "C" {
    fn kill(pid: i32, signal: i32) -> i32;
}

const SIGKILL: i32 = 9;

/// Runs a case that forks in a process of its own, where no other test's threads are. Whether this is that process.
fn alone(test: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let ended = again(&format!("fork::{test}"), "parent", &[], Duration::from_secs(60));
    assert!(ended.status.success() && ended.text.contains("1 passed"), "{:?}: {}", ended.status, ended.text);
    false
}

fn forked<T>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.is_forked_child())
}

/// What a child can try on a buffer; zero if all of it was refused, the number of the call otherwise.
fn refused_in_child(rig: &Rig, x: &mut Managed<u32>) -> i32 {
    let answers = [
        forked(x.try_slice().map(|_| ())),
        forked(x.host()),
        forked(x.host_mut()),
        forked(x.prefetch_to_host()),
        forked(x.prefetch_to_device()),
        forked(rig.rt.fill(x.write(), 9)),
        forked(rig.add_one(x.write(), 1)),
        forked(x.residency()),
    ];
    answers.iter().position(|right| !right).map_or(0, |wrong| wrong as i32 + 1)
}

/// Small and huge buffers, in host memory and migrated: the child is refused and cannot look; what the parent has stays, and
/// its device goes on.
#[test]
fn anon_write_child() {
    if !alone("anon_write_child") {
        return;
    }
    Rig::each(|rig| {
        for words in [4 * WORDS, BLOCK / 4] {
            for migrated in [false, true] {
                let mut x = rig.filled(words, 30);
                if migrated {
                    rig.migrate(x.write());
                }
                let before = places(x.residency());
                let ended = in_fork(|| refused_in_child(rig, &mut x));
                assert_eq!(ended.code(), Some(0), "the child's call of this number was not refused");
                let at = x.as_mut_ptr().wrapping_add(words - 1);
                // SAFETY: the pointer is inside the buffer; the load ends the child.
                let ended = in_fork(|| unsafe { at.read_volatile() } as i32 & 0x7f);
                assert_eq!(ended.signal(), Some(SIGSEGV), "load: {ended:?}");
                let ended = in_fork(|| {
                    // SAFETY: the pointer is inside the buffer; the store ends the child.
                    unsafe { at.write_volatile(1) };
                    0
                });
                assert_eq!(ended.signal(), Some(SIGSEGV), "store: {ended:?}");
                assert_eq!(places(x.residency()), before, "the child moved something");
                expect(&x, 0, 30, 0);
                rig.add_one(x.write(), words).expect("the parent's device");
                expect(&x, 0, 30, 1);
            }
        }
    });
}

/// Memory is never shared with a child. What parent and child share is a file, and what the child's device writes reaches the
/// parent through it.
#[test]
fn anon_write_child_shared() {
    const TEST: &str = "fork::anon_write_child_shared";
    const FILE: &str = "VKHMM_HMM_FILE";
    let Ok(path) = std::env::var(FILE) else {
        let file = Scratch::new("shared");
        Rig::each(|rig| {
            let mut x = rig.filled(WORDS_ALL, 31);
            rig.migrate(x.write());
            x.write_to(&mut std::fs::File::create(&file.0).expect("create")).expect("write_to");
            let path = file.0.to_string_lossy().into_owned();
            let ended = again(TEST, "child", &[(FILE, &path)], Duration::from_secs(60));
            assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
            // Not before it is read in again.
            expect(&x, 0, 31, 0);
            x.read_from(&mut std::fs::File::open(&file.0).expect("open")).expect("read_from");
            let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("read");
            expect(&seen, 0, 31, 1);
        });
        return;
    };
    let rig = Rig::open(VARIANTS[0], VARIANTS[0].builder());
    let mut x = rig.fresh(WORDS_ALL);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the parent's file");
    x.read_exact_at(&file, 0).expect("read");
    rig.add_one(x.write(), WORDS_ALL).expect("the child's device");
    x.write_all_at(&file, 0).expect("write");
    common::clean(&rig.rt);
}

/// The device has the buffer for itself, the process forks: the child cannot touch it, the parent's increments are all there.
#[test]
fn exclusive_cow() {
    if !alone("exclusive_cow") {
        return;
    }
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 32);
        rig.migrate(x.write());
        let pid = fork_here();
        let Some(pid) = pid else {
            // The child increments, too: its first store must end it.
            let at = x.as_mut_ptr();
            for i in 0..WORDS_ALL {
                // SAFETY: inside the buffer, and nobody else is in this process.
                unsafe { at.add(i).write_volatile(at.add(i).read_volatile() + 1) };
            }
            std::process::abort();
        };
        x.iter_mut().for_each(|w| *w = w.wrapping_add(1));
        let ended = wait_for(pid);
        assert_eq!(ended.signal(), Some(SIGSEGV), "{ended:?}");
        expect(&x, 0, 32, 1);
        assert_eq!(
            places(x.residency()).host,
            (WORDS_ALL * 4 / PAGE) as u64,
            "nothing is exclusive any more"
        );
        let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 32, 1);
    });
}

/// A child lives on while the parent writes what had been migrated, and is killed: every page is the host's and writable, and
/// the device sees what was written.
#[test]
fn hmm_cow_in_device() {
    if !alone("hmm_cow_in_device") {
        return;
    }
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 33);
        rig.migrate(x.write());
        let Some(pid) = fork_here() else {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        fill(&mut x, 0, 34);
        // SAFETY: the child is ours and was not waited for, so the number is its own.
        unsafe { kill(pid, SIGKILL) };
        assert_eq!(wait_for(pid).signal(), Some(SIGKILL));
        let pages = (WORDS_ALL * 4 / PAGE) as u64;
        assert_eq!(places(x.residency()), Places { host: pages, ..Places::NONE });
        if !rig.declared() {
            let writable = |page: usize| {
                let flags = rig.rt.page_flags(x.as_ptr().wrapping_add(page * WORDS)).expect("managed");
                flags.contains(vkhmm::PageFlags::MAY_BE_WRITABLE)
            };
            assert!((0..pages as usize).all(writable));
        }
        let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 34, 0);
    });
}
