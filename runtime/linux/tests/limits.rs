//! The limits of the process: each decides the size of the reservation or is named in the error; none kills.

mod common;

use common::{Memory, PAGE, SMALL, alone_passes, bytes, is_child, run, segv, try_open};
use rustix::mm::{MlockAllFlags, mlockall};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_linux::{Config, EngineChoice, OpenError, ReservationError, open};
use vkhmm_port::{Access, FaultSource, HostError, HostMemory};

const WITH_FAULTS: [EngineChoice; 4] = [
    EngineChoice::UffdThread,
    EngineChoice::UffdThreadUserOnly,
    EngineChoice::UffdSigbus,
    EngineChoice::SegvMprotect,
];

#[test]
fn the_default_is_large_and_costs_nothing() {
    let opened = open(&Config::default()).expect("something works");
    println!("{}", opened.report);
    let bytes = opened.host.profile().reservation_bytes;
    assert!(bytes >= 2 << 20 && bytes % (2 << 20) == 0);
    assert_eq!(opened.report.reservation_bytes, bytes);
}

#[test]
fn sizes_are_rounded_up_to_blocks() {
    for (asked, got) in [(0, 2 << 20), (1, 2 << 20), (2 << 20, 2 << 20), ((2 << 20) + 1, 4 << 20)] {
        let opened = open(&Config { reservation_bytes: Some(asked), ..SMALL }).expect("something works");
        assert_eq!(opened.host.profile().reservation_bytes, got);
    }
    for impossible in [1 << 60, u64::MAX] {
        let refused = open(&Config { reservation_bytes: Some(impossible), ..SMALL });
        let error = refused.err().expect("no machine has so many addresses");
        assert!(matches!(error, OpenError::Reservation(_)), "{error}");
    }
}

#[test]
fn a_small_file_size_limit_is_an_error_not_a_signal() {
    const TEST: &str = "a_small_file_size_limit_is_an_error_not_a_signal";
    if !is_child(TEST) {
        return alone_passes(TEST, "ulimit -f 1000;");
    }
    for reservation_bytes in [None, Some(64 << 20)] {
        let error = open(&Config { reservation_bytes, ..SMALL }).err().expect("less than one block");
        assert!(matches!(error, OpenError::Reservation(ReservationError::Limited { .. })), "{error}");
        assert!(error.to_string().contains("ulimit -f"), "{error}");
    }
}

#[test]
fn a_file_size_limit_bounds_the_reservation() {
    const TEST: &str = "a_file_size_limit_bounds_the_reservation";
    if !is_child(TEST) {
        // In units of 512 or 1024 bytes, as the shell has it.
        return alone_passes(TEST, "ulimit -f 100000;");
    }
    let opened = open(&Config::default()).expect("something works");
    let bytes = opened.host.profile().reservation_bytes;
    assert!((40 << 20..=100 << 20).contains(&bytes), "{bytes}");
    assert!(opened.report.to_string().contains("ulimit -f"));
    opened.host.populate(run(bytes / PAGE as u64 - 1, 1)).expect("the last page");
}

#[test]
fn an_address_space_limit_bounds_the_reservation() {
    const TEST: &str = "an_address_space_limit_bounds_the_reservation";
    if !is_child(TEST) {
        return alone_passes(TEST, "ulimit -v 8000000;");
    }
    let opened = open(&Config::default()).expect("something works");
    let bytes = opened.host.profile().reservation_bytes;
    assert!((512 << 20..=2000 << 20).contains(&bytes), "{bytes}");
    assert!(opened.report.to_string().contains("ulimit -v"), "{}", opened.report);
}

/// Touches, revokes and touches again, while a thread answers faults.
fn works_while_served(memory: &Memory, body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let source = memory.source.as_ref().expect("an engine with faults");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut faults = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                source.next(&mut faults, Some(Duration::from_millis(20))).expect("next");
                for fault in faults.drain(..) {
                    memory.host.populate(run(fault.page.0, 1)).expect("populate");
                    memory.host.publish(run(fault.page.0, 1), Access::ReadWrite).expect("publish");
                }
            }
        });
        body();
        memory.store(3, 1);
        memory.host.revoke(run(0, 512)).expect("revoke, also of locked pages");
        assert_eq!(memory.alias(3), 1);
        memory.fill_alias(3, 2);
        assert_eq!(memory.load(3), 2, "the revoked page came home");
        memory.host.punch(run(0, 512)).expect("punch");
        assert_eq!(memory.load(3), 0);
        stop.store(true, Ordering::SeqCst);
    });
}

fn lock_everything() -> bool {
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        Ok(()) => true,
        Err(e) => {
            println!("skipped: mlockall: {e}");
            false
        }
    }
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") * PAGE as u64
}

#[test]
fn opening_after_mlockall_populates_nothing() {
    const TEST: &str = "opening_after_mlockall_populates_nothing";
    if !is_child(TEST) {
        return alone_passes(TEST, "ulimit -l unlimited 2>/dev/null;");
    }
    if !lock_everything() {
        return;
    }
    // The whole default size: had the kernel populated it, this would not end.
    for engine in [None, Some(EngineChoice::SegvMprotect)] {
        let before = resident_bytes();
        let opened = open(&Config { engine, ..Config::default() }).expect("something works");
        assert!(resident_bytes() < before + (32 << 20), "{} then {}", before, resident_bytes());
        drop(opened);
    }
    for engine in WITH_FAULTS {
        let Some(memory) = try_open(Config { engine: Some(engine), ..SMALL }) else { continue };
        works_while_served(&memory, || {});
    }
}

#[test]
fn mlockall_after_opening_leaves_everything_working() {
    const TEST: &str = "mlockall_after_opening_leaves_everything_working";
    if !is_child(TEST) {
        return alone_passes(TEST, "ulimit -l unlimited 2>/dev/null;");
    }
    for engine in WITH_FAULTS {
        let Some(memory) = try_open(Config { engine: Some(engine), ..SMALL }) else { continue };
        works_while_served(&memory, || {
            lock_everything();
        });
    }
}

#[test]
fn mlockall_after_opening_the_default_size_ends() {
    const TEST: &str = "mlockall_after_opening_the_default_size_ends";
    if !is_child(TEST) {
        return alone_passes(TEST, "ulimit -l unlimited 2>/dev/null;");
    }
    // As the engine does it: a touch (here the kernel's, to lock the page) of what nobody owns is answered by poison.
    let opened = open(&Config::default()).expect("something works");
    let before = resident_bytes();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut faults = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let Some(source) = &opened.source else { return };
                source.next(&mut faults, Some(Duration::from_millis(20))).expect("next");
                faults.drain(..).for_each(|f| opened.host.poison(run(f.page.0, 1)).expect("poison"));
            }
        });
        if opened.source.is_some() {
            lock_everything();
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(resident_bytes() < before + (256 << 20), "{before} then {}", resident_bytes());
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("proc").lines().count()
}

#[test]
fn mappings_are_counted_and_what_would_use_up_the_last_is_refused() {
    const TEST: &str = "mappings_are_counted_and_what_would_use_up_the_last_is_refused";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    const MAX: usize = 1000;
    let memory = try_open(Config { max_map_count: Some(MAX), ..segv(false) }).expect("works everywhere");
    let pages = 16 * 512;
    let (host, all) = (&memory.host, run(0, pages));
    host.populate(all).expect("populate");
    host.publish(all, Access::ReadWrite).expect("publish");
    memory.store(9, 1);
    let before = mappings();
    // Every second page: two mappings more each time.
    let mut refused = None;
    for page in (0..u64::from(pages)).step_by(2) {
        let weaken = if page % 4 == 0 { host.revoke(run(page, 1)) } else { host.protect(run(page, 1)) };
        if let Err(error) = weaken {
            refused = Some((page, error));
            break;
        }
    }
    let (at, error) = refused.expect("the limit is reached");
    println!("at page {at}: {error}; {before} then {} mappings", mappings());
    assert!(matches!(error, HostError::TooManyMappings { allowed, .. } if allowed < MAX), "{error}");
    assert!(error.to_string().contains("vm.max_map_count"), "{error}");
    // What the process maps besides was counted when it was opened, and may have grown by some since.
    assert!(mappings().abs_diff(MAX - MAX / 4) < 60, "{} mappings", mappings());
    // Refused: nothing changed. What takes no mapping, and what gives access, goes through.
    memory.store(at, 2);
    host.revoke(run(0, 1)).expect("revoke again");
    host.revoke(run(0, 512)).expect("of a whole block, which joins mappings");
    let left = (512..u64::from(pages)).step_by(2).take_while(|page| *page < at);
    left.for_each(|page| host.publish(run(page, 1), Access::ReadWrite).expect("publish"));
    host.publish(all, Access::ReadWrite).expect("publish");
    assert!(mappings() <= before + 2, "{before} then {}", mappings());
    // The count followed: as much room as at first.
    (0..100).step_by(2).for_each(|page| host.revoke(run(page, 1)).expect("room again"));
    drop(memory);
    let memory = try_open(Config { max_map_count: Some(MAX), ..segv(false) }).expect("room again");
    memory.host.publish(run(0, 512), Access::ReadWrite).expect("publish");
    (0..100).step_by(2).for_each(|page| memory.host.revoke(run(page, 1)).expect("room again"));
}

#[test]
fn the_real_limit_is_never_reached() {
    const TEST: &str = "the_real_limit_is_never_reached";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    let memory =
        try_open(Config { reservation_bytes: Some(1 << 30), ..segv(false) }).expect("works everywhere");
    let host = &memory.host;
    let pages = (1 << 30) / PAGE as u64;
    host.publish(run(0, pages as u32), Access::ReadWrite).expect("publish");
    let refused = (0..pages).step_by(2).find_map(|page| host.revoke(run(page, 1)).err());
    match refused {
        Some(HostError::TooManyMappings { allowed, .. }) => assert!(mappings() <= allowed + 200),
        Some(other) => panic!("{other}"),
        None => println!("this system allows more mappings than pages were taken"),
    }
    // The quarter that is kept is there.
    for page in (0..4000).step_by(4) {
        host.publish(run(page, 1), Access::ReadOnly).expect("publish");
    }
}

#[test]
fn freed_pages_are_given_back() {
    const TEST: &str = "freed_pages_are_given_back";
    if !is_child(TEST) {
        return alone_passes(TEST, "");
    }
    freed_by(&try_open(SMALL).expect("something works"));
    freed_by(&try_open(segv(false)).expect("works everywhere"));
}

fn freed_by(memory: &Memory) {
    let mut most = 0;
    for round in 0..600 {
        let block = run(round % 8 * 512, 512);
        memory.host.populate(block).expect("populate");
        memory.host.alias(bytes(block.first.0, 512)).fill(1);
        memory.host.publish(block, Access::ReadWrite).expect("publish");
        memory.host.punch(block).expect("punch");
        if round == 100 {
            most = resident_bytes() + (4 << 20);
        }
        assert!(round <= 100 || resident_bytes() < most, "round {round}: {} bytes", resident_bytes());
    }
}

/// The flags of the mapping that starts at or holds `address`, as /proc/self/smaps abbreviates them.
fn mapping_flags(address: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("proc");
    let mut inside = false;
    for line in smaps.lines() {
        let bounds = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bounds = bounds.and_then(|(from, to)| {
            Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
        });
        if let Some(bounds) = bounds {
            inside = bounds.contains(&address);
        } else if inside && line.starts_with("VmFlags:") {
            return line.to_owned() + " ";
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

#[test]
fn both_views_stay_out_of_children_and_dumps() {
    if !std::fs::read_to_string("/proc/self/smaps").is_ok_and(|smaps| smaps.contains("VmFlags:")) {
        println!("skipped: this system does not show the flags of mappings");
        return;
    }
    for dump in [false, true] {
        let memory = try_open(Config { dump, ..SMALL }).expect("something works");
        let last = memory.host.profile().reservation_bytes - 1;
        for at in [0, last] {
            let alias = memory.host.alias((at..at + 1).into()).as_ptr() as usize;
            for address in [memory.host.base() + at as usize, alias] {
                let flags = mapping_flags(address);
                assert!(flags.contains(" dc "), "not copied into a child: {flags}");
                assert!(
                    flags.contains(" nh ")
                        || !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists()
                );
                assert_eq!(flags.contains(" dd "), !dump, "not dumped: {flags}");
                assert!(flags.contains(" rd wr "), "accessible: {flags}");
            }
        }
    }
}
