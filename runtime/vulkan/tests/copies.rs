//! Copies: through staging, through imports, within the device, fills, many regions, and the order of timelines.

mod common;

use common::{FRAME, Host, Rig, pattern};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, DeviceError, Direction, Region, Role, Source, Submission, Target};

#[test]
fn staging_carries_whole_slots_both_ways() {
    for coherent in [true, false] {
        let mut rig = Rig::open(|c| c.switches.coherent = coherent);
        rig.device().grow(FrameIndex(0), 128).expect("grow");
        let slot = rig.device().profile().staging.slot_bytes as usize;
        let bytes = pattern(2, slot);
        rig.upload(3 * FRAME, &bytes);
        assert!(rig.download(3 * FRAME, slot) == bytes);
        let last = rig.device().profile().staging.slots - 1;
        rig.device().slot(Direction::In, last).write(&bytes);
        let regions = vec![Region { host_offset: 4096, device_offset: 64 * FRAME, bytes: 4096 }];
        rig.run(Role::CopyIn, vec![Command::CopyIn { source: Source::Slot(last), regions }]);
        assert_eq!(rig.download(64 * FRAME, 4096), bytes[4096..8192]);
    }
}

#[test]
fn an_import_of_a_memfd_alias_is_seen_by_every_mapping() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 64).expect("grow");
    if rig.without_imports() {
        return;
    }
    let host = Host::new(4 << 20);
    let import = Arc::new(rig.device().import(host.alias()).expect("import"));
    assert_eq!(import.bytes(), 4 << 20);
    let bytes = pattern(3, 1 << 20);
    host.view().slice(0, 1 << 20).write(&bytes);
    let regions = vec![Region { host_offset: 0, device_offset: FRAME, bytes: 1 << 20 }];
    let source = Source::Import(Arc::clone(&import));
    let into = rig.submit(Role::CopyIn, Uses::NONE, vec![Command::CopyIn { source, regions }]);
    let mut waits = Uses::NONE;
    waits.add(into);
    let regions = vec![Region { host_offset: 2 << 20, device_offset: FRAME, bytes: 1 << 20 }];
    let target = Target::Import(Arc::clone(&import));
    let out = rig.submit(Role::CopyOut, waits, vec![Command::CopyOut { target, regions }]);
    // The submissions keep the import.
    let weak = Arc::downgrade(&import);
    drop(import);
    rig.wait(out);
    assert!(host.view().slice(2 << 20, 1 << 20).to_vec() == bytes);
    assert!(weak.upgrade().is_none(), "reached, and still kept");
}

#[test]
fn moves_and_fills_stay_on_the_device_and_may_cross_pieces() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    rig.device().grow(FrameIndex(32), 32).expect("grow");
    let bytes = pattern(4, FRAME as usize);
    rig.upload(0, &bytes);
    let regions = vec![
        Region { host_offset: 0, device_offset: 40 * FRAME, bytes: FRAME },
        Region { host_offset: 4096, device_offset: 5 * FRAME, bytes: 4096 },
    ];
    let fill = Command::Fill { device_offset: 41 * FRAME + 8, bytes: 4096, word: 0xdead_beef };
    rig.run(Role::Compute, vec![Command::Move { regions }, Command::Barrier, fill]);
    assert!(rig.download(40 * FRAME, FRAME as usize) == bytes);
    assert_eq!(rig.download(5 * FRAME, 4096), bytes[4096..8192]);
    let filled = rig.download(41 * FRAME + 8, 4096);
    assert!(filled.chunks_exact(4).all(|w| w == 0xdead_beef_u32.to_le_bytes()));
}

#[test]
fn more_regions_than_one_command_takes_are_split() {
    for regions_max in [None, Some(7)] {
        let mut rig = Rig::open(|c| c.switches.regions_max = regions_max);
        assert_eq!(rig.device().profile().regions_max, regions_max.unwrap_or(256));
        rig.device().grow(FrameIndex(0), 40).expect("grow");
        rig.device().grow(FrameIndex(40), 40).expect("grow");
        let bytes = pattern(5, 600 * 2048);
        rig.device().slot(Direction::In, 0).slice(0, bytes.len()).write(&bytes);
        // Every second 2 KiB of the device, over both pieces, in reverse.
        let regions: Vec<Region> = (0..600)
            .map(|i| Region { host_offset: i * 2048, device_offset: (1200 - 2 * i) * 2048, bytes: 2048 })
            .collect();
        rig.run(Role::CopyIn, vec![Command::CopyIn { source: Source::Slot(0), regions: regions.clone() }]);
        rig.run(Role::CopyOut, vec![Command::CopyOut { target: Target::Slot(1), regions }]);
        assert!(rig.device().slot(Direction::Out, 1).slice(0, bytes.len()).to_vec() == bytes);
    }
}

#[test]
fn tickets_are_reached_in_order_and_waits_end() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 64).expect("grow");
    let mut before = Uses::NONE;
    let mut last = None;
    for step in 0..20_u32 {
        let role = [Role::CopyIn, Role::Compute, Role::CopyOut][step as usize % 3];
        let fill = Command::Fill { device_offset: 0, bytes: 4 << 20, word: step };
        let ticket = rig.submit(role, before, vec![fill]);
        before = Uses::NONE;
        before.add(ticket);
        last = Some(ticket);
    }
    rig.wait(last.expect("twenty steps"));
    assert_eq!(rig.download(0, 4), 19_u32.to_le_bytes());
    let seen = rig.device().completed().expect("completed");
    let start = std::time::Instant::now();
    rig.device().wait(&seen, Duration::from_millis(50)).expect("a wait for nothing");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(45) && took < Duration::from_secs(5), "{took:?}");
    rig.device().wait(&Uses::NONE, Duration::from_secs(60)).expect("reached long ago");
}

#[test]
fn a_wait_ends_when_another_thread_submits() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let seen = rig.device().completed().expect("completed");
    let device = Arc::clone(rig.device());
    let waiter =
        std::thread::spawn(move || device.wait(&seen, Duration::from_secs(60)).map(|()| device.completed()));
    std::thread::sleep(Duration::from_millis(50));
    let ticket =
        rig.submit(Role::Compute, Uses::NONE, vec![Command::Fill { device_offset: 0, bytes: 4, word: 1 }]);
    let reached = waiter.join().expect("no panic").expect("wait").expect("completed");
    assert_eq!(reached.on(ticket.timeline), ticket.value);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_changes_nothing() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let timeline = rig.device().profile().timeline(Role::CopyIn);
    let try_one = |rig: &Rig, value: u64, command: Command<_>| {
        let signals = Ticket { timeline, value };
        rig.device().submit(
            Role::CopyIn,
            Submission { waits: Uses::NONE, foreign: Vec::new(), commands: vec![command], signals },
        )
    };
    let copy = |slot: u32, host_offset: u64, device_offset: u64, bytes: u64| Command::CopyIn {
        source: Source::Slot(slot),
        regions: vec![Region { host_offset, device_offset, bytes }],
    };
    for (what, command) in [
        ("past the piece", copy(0, 0, 31 * FRAME, 2 * FRAME)),
        ("no such frames", copy(0, 0, 1000 * FRAME, FRAME)),
        ("past the slot", copy(0, (2 << 20) - 4096, 0, 8192)),
        ("no such slot", copy(99, 0, 0, 4096)),
        ("nothing", copy(0, 0, 0, 0)),
        ("odd fill", Command::Fill { device_offset: 2, bytes: 4, word: 0 }),
    ] {
        let result = try_one(&rig, 1, command);
        assert!(matches!(result, Err(DeviceError::Refused { .. })), "{what}: {result:?}");
    }
    rig.upload(0, &[1, 2, 3, 4]);
    let stale = try_one(&rig, 1, Command::Barrier);
    assert!(matches!(stale, Err(DeviceError::Refused { .. })), "a ticket given twice: {stale:?}");
}

#[test]
fn many_threads_wait_and_poll_while_one_submits() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    if rig.without_imports() {
        return;
    }
    let host = Host::new(1 << 20);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watchers: Vec<_> = (0..3)
        .map(|_| {
            let (device, over) = (Arc::clone(rig.device()), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut seen = Uses::NONE;
                while !over.load(std::sync::atomic::Ordering::Acquire) {
                    device.wait(&seen, Duration::from_millis(5)).expect("wait");
                    let now = device.completed().expect("completed");
                    assert!(seen.done(&now), "a counter fell");
                    seen = now;
                }
            })
        })
        .collect();
    for round in 0..200_u64 {
        // The submission keeps the import; whichever thread sees its end drops it.
        let import = Arc::new(rig.device().import(host.alias()).expect("import"));
        let regions = vec![Region { host_offset: round * 4096, device_offset: round * 4096, bytes: 4096 }];
        let role = if round % 2 == 0 { Role::CopyIn } else { Role::Compute };
        rig.submit(role, Uses::NONE, vec![Command::CopyIn { source: Source::Import(import), regions }]);
    }
    let last = rig.submit(Role::Compute, Uses::NONE, Vec::new());
    rig.wait(last);
    over.store(true, std::sync::atomic::Ordering::Release);
    watchers.into_iter().for_each(|w| w.join().expect("no panic"));
}
