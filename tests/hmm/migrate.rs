//! The kernel's `migrate*` cases, `open_close` first: buffers go to the device and come home, whole, in part, mixed, again and
//! again, and when the device's memory is taken down under them.

use crate::common::{self, BLOCK, PAGE, WORDS, memory};
use crate::rig::{
    NTIMES, PAGES_ALL, Places, Rig, VARIANTS, WORDS_ALL, alloc_again, expect, fill, home_bytes, places, until,
};
use std::time::Duration;
use vkhmm::{AccessKind, Error, MemoryError};

/// Runtimes come and go and leave nothing: no file, no thread, no mapping. (In a process of its own: these are the process's.)
#[test]
fn open_close() {
    const TEST: &str = "migrate::open_close";
    if common::role().is_none() {
        let ended = common::again(TEST, "alone", &[], Duration::from_secs(60));
        return assert!(ended.status.success(), "{:?}: {}", ended.status, ended.text);
    }
    let round = || {
        for setup in VARIANTS {
            let rig = Rig::open(setup, setup.builder());
            common::clean(&rig.rt);
        }
    };
    // Drivers and layers keep what they made first.
    round();
    let left = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("tasks").filter_map(|task| {
            std::fs::read_to_string(task.ok()?.path().join("comm"))
                .ok()
                .filter(|name| name.starts_with("vkhmm"))
        });
        let files = std::fs::read_dir("/proc/self/fd").expect("files").count();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        (threads.count(), files, maps.lines().filter(|line| line.contains("vkhmm")).count())
    };
    let files = until("the first runtimes' end", || Some(left()).filter(|l| (l.0, l.2) == (0, 0))).1;
    for _ in 0..3 {
        round();
        until("the end of these runtimes", || {
            let now = left();
            println!("threads, files, mappings: {now:?}; files at first {files}");
            (now.0 == 0 && now.1 <= files && now.2 == 0).then_some(())
        });
    }
}

/// Everything moves, once, and the device sees what the host wrote.
#[test]
fn migrate() {
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 10);
        let report = rig.migrate(x.write());
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        assert_eq!(report.moved.in_launch_bytes, PAGES_ALL * PAGE as u64);
        assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 10, 0);
        assert_eq!((report.pages, report.faults), (0, 0), "{}", report.moved);
        expect(&x, 0, 10, 0);
    });
}

/// The host touches the first half, by loads and then by stores; the mix migrates again, and all of it is on the device. Only
/// what the host stored to is copied again.
#[test]
fn migrate_fault() {
    Rig::each_counted(|rig| {
        let half = WORDS_ALL / 2;
        let mut x = rig.filled(WORDS_ALL, 11);
        rig.migrate(x.write());
        let before = rig.rt.stats();
        expect(&x.slice(..half), 0, 11, 0);
        let moved = rig.rt.stats().since(&before);
        assert_eq!(home_bytes(&moved), (half * 4) as u64, "half comes home, once: {moved}");
        assert_eq!(moved.faults_read == 0, rig.declared(), "{moved}");
        let mixed = Places { shared: PAGES_ALL / 2, device: PAGES_ALL / 2, ..Places::NONE };
        assert_eq!(places(x.residency()), mixed);
        let report = rig.migrate(x.write());
        assert_eq!((report.pages, report.faults), (0, 1), "the device still had it: {}", report.moved);
        assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });

        let before = rig.rt.stats();
        x.slice_mut(..half).iter_mut().for_each(|w| *w = w.wrapping_add(1));
        let moved = rig.rt.stats().since(&before);
        assert_eq!(home_bytes(&moved), (half * 4) as u64, "half comes home, once: {moved}");
        let mixed = Places { host: PAGES_ALL / 2, device: PAGES_ALL / 2, ..Places::NONE };
        assert_eq!(places(x.residency()), mixed);
        let report = rig.migrate(x.write());
        assert_eq!((report.pages, report.faults), (PAGES_ALL / 2, 1), "{}", report.moved);
        assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });
        let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen[..half], 0, 11, 1);
        expect(&seen[half..], half, 11, 0);
    });
}

/// The device's memory is taken down while the buffer is in it: every page comes home, then the pagemap is gone; a launch in
/// between is refused, one after it takes memory anew.
#[test]
fn migrate_release() {
    Rig::each(|rig| {
        let half = WORDS_ALL / 2;
        let mut x = rig.filled(WORDS_ALL, 12);
        rig.add_one(x.write(), WORDS_ALL).expect("write");
        let maps: Vec<_> = rig.rt.pagemaps().iter().map(|m| m.id()).collect();
        assert!(!maps.is_empty());
        let before = rig.rt.stats();
        for id in &maps {
            rig.rt.kill_pagemap(*id).expect("kill");
        }
        assert!(matches!(memory(rig.rt.fill(x.write(), 0)), MemoryError::NoPagemap));
        for id in &maps {
            rig.rt.unregister_pagemap(*id, Duration::from_secs(10)).expect("its pages come home");
        }
        let moved = rig.rt.stats().since(&before);
        assert_eq!(moved.out_evict_bytes, PAGES_ALL * PAGE as u64, "{moved}");
        assert_eq!((rig.rt.pagemaps().len(), rig.rt.device_memory().1), (0, 0));
        assert_eq!(places(x.residency()), Places { host: PAGES_ALL, ..Places::NONE });
        expect(&x.slice(..half), 0, 12, 1);
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("device memory is taken anew");
        expect(&seen, 0, 12, 1);
        assert_eq!(report.pages, PAGES_ALL, "{}", report.moved);
        assert!(rig.rt.pagemaps().iter().all(|m| !maps.contains(&m.id())));
    });
}

/// The kernel refuses to migrate shared mappings. Ours are made of nothing else (one file, mapped twice), and migrate: this is
/// where the two differ on purpose.
#[test]
fn migrate_shared() {
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 13);
        let address = x.as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let line = maps
            .lines()
            .find(|line| {
                let range = line.split(' ').next().and_then(|r| r.split_once('-'));
                let number = |text: &str| usize::from_str_radix(text, 16).unwrap_or(0);
                range.is_some_and(|(from, to)| (number(from)..number(to)).contains(&address))
            })
            .expect("managed memory is mapped");
        assert_eq!(line.split(' ').nth(1).map(|bits| bits.ends_with('s')), Some(true), "{line}");
        let report = rig.add_one(x.write(), WORDS_ALL).expect("write");
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        expect(&x, 0, 13, 1);
    });
}

/// Mixed ranges: what may not be had (guarded, freed, another device's) is refused and nothing of the launch happens; pages
/// that are fresh, shared, written and on the device already migrate together.
#[test]
fn migrate_mixed() {
    Rig::each_counted(|rig| {
        let other = Rig::open(rig.setup, rig.setup.builder());
        let (page, words) = (WORDS, 64 * WORDS);
        let mut x = rig.fresh(words);
        fill(&mut x.slice_mut(16 * page..), 16 * page, 14);
        rig.read(x.slice(16 * page..32 * page).read(), 16 * page).expect("read");
        rig.migrate(x.slice_mut(32 * page..48 * page).write());
        let absent = rig.untouched_sub();
        let mixed = Places { absent, host: 32 - absent, shared: 16, device: 16, lost: 0 };
        assert_eq!(places(x.residency()), mixed);

        // Nobody may touch the last page: the range as a whole is refused.
        // SAFETY: refused before anything is read or written.
        let access = unsafe { x.raw(AccessKind::Write, ..) };
        let last = x.slice(words - 1..);
        let guard = last.host().expect("guard");
        let before = rig.rt.stats();
        assert!(matches!(memory(rig.rt.fill(access, 9)), MemoryError::Guarded { .. }));
        drop(guard);
        // A hole: memory that was freed.
        let gone = rig.fresh(words);
        // SAFETY: refused before anything is read.
        let access = unsafe { gone.raw(AccessKind::Read, ..) };
        drop(gone);
        let error = memory(rig.rt.copy(access, x.write()));
        assert!(matches!(error, MemoryError::UnknownRange { argument: 0 }), "{error:?}");
        // Past the end there is nothing that could be named: bounds are those of slices.
        let past = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(x.slice(..words + 1))));
        assert!(past.is_err());
        // A page of another device.
        let mut theirs = other.filled(words, 15);
        other.migrate(theirs.write());
        let refused = rig.rt.copy(theirs.read(), x.write());
        assert!(matches!(refused, Err(Error::ForeignRuntime { argument: 0 })), "{refused:?}");
        let moved = rig.rt.stats().since(&before);
        assert_eq!((moved.launches, moved.in_bytes() + moved.out_bytes()), (0, 0), "{moved}");
        assert_eq!(places(x.residency()), mixed, "a refused launch moved something");
        assert_eq!(places(theirs.residency()).device, 64);

        let report = rig.add_one(x.write(), words).expect("write");
        assert_eq!((report.pages, report.faults), (32, 1), "fresh and written pages: {}", report.moved);
        assert_eq!(report.moved.zeroed_bytes, absent * PAGE as u64, "{}", report.moved);
        assert_eq!(places(x.residency()), Places { device: 64, ..Places::NONE });
        assert!(x.slice(..16 * page).iter().all(|w| *w == 1));
        expect(&x.slice(16 * page..), 16 * page, 14, 1);
        common::clean(&other.rt);
    });
}

/// Ten buffers, one after the other, there and back: nothing piles up, on the host or on the device.
#[test]
fn migrate_multiple() {
    Rig::each_with(
        |builder| builder.reservation(4 * BLOCK as u64),
        |rig| {
            let idle = rig.rt.device_memory().1;
            for round in 0..NTIMES {
                let mut x = alloc_again(&rig.rt, WORDS_ALL);
                fill(&mut x, 0, 20 + round as u32);
                let report = rig.add_one(x.write(), WORDS_ALL).expect("write");
                assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
                assert_eq!(report.moved.refault_bytes + report.moved.moved_bytes, 0, "{}", report.moved);
                expect(&x, 0, 20 + round as u32, 1);
                assert_eq!(rig.rt.device_memory().1, idle + (WORDS_ALL * 4) as u64);
                drop(x);
                until("its frames", || (rig.rt.device_memory().1 == idle).then_some(()));
            }
        },
    );
}
