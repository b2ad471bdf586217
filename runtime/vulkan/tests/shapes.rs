//! The shapes of submissions, for the layer to judge: every role, every command, timelines that wait for each other, memory that is
//! flushed and invalidated. Nothing here looks at a result or waits for one, so a driver that executes nothing serves, too: the mock
//! device of Vulkan-Tools, which has several queue families and memory that is not coherent. With VKHMM_TEST_DRIVER=mock that is what
//! they insist on.

mod common;

use common::{FRAME, Host, Rig, clock};
use std::sync::Arc;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{BoundRange, Command, Device, Direction, Region, Role, Source, Target};
use vkhmm_vulkan::{Config, KernelOptions, VulkanDevice};

fn mock() -> bool {
    std::env::var("VKHMM_TEST_DRIVER").is_ok_and(|v| v == "mock")
}

fn open(edit: impl FnOnce(&mut Config)) -> Rig {
    Rig::open(|c| {
        c.switches.mock = mock();
        edit(c);
    })
}

fn slot(direction: Direction, first: u64) -> Command<VulkanDevice> {
    let regions = (0..8)
        .map(|i| Region { host_offset: i * 8192 + 100, device_offset: first + i * 8192, bytes: 4000 })
        .collect();
    match direction {
        Direction::In => Command::CopyIn { source: Source::Slot(1), regions },
        Direction::Out => Command::CopyOut { target: Target::Slot(1), regions },
    }
}

fn uses(tickets: &[Ticket]) -> Uses {
    let mut out = Uses::NONE;
    tickets.iter().for_each(|t| out.add(*t));
    out
}

/// Copies in, a kernel over bindings, a move, a fill, copies out: each role's work after the others', forty times, nobody waits.
fn pipeline(rig: &mut Rig) {
    let device = Arc::clone(rig.device());
    device.grow(FrameIndex(0), 64).expect("grow");
    device.grow(FrameIndex(70), 16).expect("grow");
    let kernel = rig.kernel("scale", KernelOptions::default());
    let address = rig.kernel("add_address", KernelOptions::default());
    let span = Arc::new(device.buffer(FrameRun { first: FrameIndex(2), count: 4 }).expect("buffer"));
    let mut last = Uses::NONE;
    for step in 0..40_u64 {
        device.slot(Direction::In, 1).slice(0, 65536 + 4096).fill(step as u8);
        let into = rig.submit(Role::CopyIn, last, vec![slot(Direction::In, 2 * FRAME)]);
        let bound = |offset: u64| BoundRange { buffer: Some(Arc::clone(&span)), offset, bytes: FRAME };
        let mut push = 2.0_f32.to_le_bytes().to_vec();
        push.extend(1000_u32.to_le_bytes());
        let mut push_address = device.address(&span).to_le_bytes().to_vec();
        push_address.extend([64_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        let moved = vec![Region { host_offset: 3 * FRAME, device_offset: 70 * FRAME, bytes: FRAME }];
        let run = rig.submit(
            Role::Compute,
            uses(&[into]),
            vec![
                Command::Dispatch {
                    kernel: Arc::clone(&kernel),
                    bindings: vec![bound(0), bound(FRAME)],
                    push,
                    groups: [16, 1, 1],
                    elapsed_ns: clock(),
                },
                Command::Barrier,
                Command::Move { regions: moved },
                Command::Barrier,
                Command::Fill { device_offset: 3 * FRAME, bytes: 4096, word: 7 },
                Command::Barrier,
                Command::Dispatch {
                    kernel: Arc::clone(&address),
                    bindings: Vec::new(),
                    push: push_address,
                    groups: [1; 3],
                    elapsed_ns: clock(),
                },
            ],
        );
        let out = rig.submit(Role::CopyOut, uses(&[run]), vec![slot(Direction::Out, 2 * FRAME)]);
        last = uses(&[out, run]);
        if step == 20 {
            // On the mock device this takes everything as done, and recordings are used again.
            rig.device().completed().expect("completed");
        }
    }
}

#[test]
fn every_role_in_turn_on_every_kind_of_memory() {
    for kind in MemoryKind::ALL {
        let mut rig = open(|c| c.memory_kind = Some(kind));
        pipeline(&mut rig);
        let host = Host::new(8192);
        let memory = rig.device().profile().memory;
        let frames = 40 * FRAME + 4096;
        if memory.cpu_writes {
            rig.device().write_frames(frames, host.alias().slice(0, 4096)).expect("write");
        }
        if memory.cpu_reads {
            rig.device().read_frames(frames, host.alias().slice(4096, 4096)).expect("read");
        }
    }
}

#[test]
fn one_queue_timelines_of_their_own_and_few_regions() {
    pipeline(&mut open(|c| c.switches.shared_queue = true));
    pipeline(&mut open(|c| c.switches.split_queue = true));
    pipeline(&mut open(|c| c.switches.regions_max = Some(3)));
    pipeline(&mut open(|c| c.switches.coherent = false));
}

#[test]
fn the_mock_device_is_what_it_is_taken_for() {
    let rig = open(|_| {});
    let report = rig.device().report();
    println!("{report}");
    if !mock() {
        return;
    }
    let profile = rig.device().profile();
    assert!(profile.name.contains("Mock"), "{}", profile.name);
    assert!(profile.timeline_count > 1 && report.roles.contains("family 1"), "{}", report.roles);
    assert!(profile.import.is_none(), "{}", report.import);
    // Read-back memory is the cached type, which is not coherent on this device.
    let out = report.staging.split("out: ").nth(1).expect("both rings are listed");
    assert!(out.contains("HOST_CACHED") && !out.contains("HOST_COHERENT"), "{out}");
}
