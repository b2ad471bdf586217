//! Opening: the report, the choice, every kind of memory, refusals in words.

mod common;

use common::{FRAME, Host, Rig, pattern};
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_port::{Device, DeviceError, Role};
use vkhmm_vulkan::{Config, OpenError, VulkanDevice};

#[test]
fn report_says_what_was_chosen_and_why() {
    let rig = Rig::open(|_| {});
    let report = rig.device().report();
    assert!(report.candidates[report.chosen].refused.is_none());
    let text = report.to_string();
    println!("{text}");
    for word in ["queues", "memory", "import", "placement", "work groups", "robustBufferAccess2"] {
        assert!(text.contains(word), "no {word} in:\n{text}");
    }
    let profile = rig.device().profile();
    assert!(rig.without_imports() || report.import.starts_with("on"), "{}", report.import);
    assert_eq!(profile.regions_max, 256);
    assert!(profile.limit_bytes_default >= 64 << 20 && profile.piece_bytes_max >= 64 << 20);
    assert!(usize::from(profile.timeline_count) <= Role::ALL.len());
    assert!(profile.binding_alignment_bytes.is_power_of_two());
    // The probe leaves zeros.
    assert!(rig.host.view().slice(0, 2 << 20).to_vec().iter().all(|b| *b == 0));
}

#[test]
fn a_device_is_found_by_name_or_number_and_refused_in_words() {
    let rig = Rig::open(|_| {});
    let name = rig.device().profile().name.clone();
    let by = |device: &str| {
        let config = Config { device: Some(device.into()), ..Config::default() };
        VulkanDevice::open(config, None)
    };
    let part: String = name.chars().take(5).collect::<String>().to_uppercase();
    assert_eq!(by(&part).expect("by name").profile().name, name);
    assert!(by(&rig.device().report().chosen.to_string()).is_ok());
    match by("no such card") {
        Err(OpenError::NoSuchDevice { asked, have, .. }) => {
            assert_eq!(asked, "no such card");
            assert!(have.iter().any(|h| h.contains(&name)));
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("found a card that does not exist"),
    }
}

#[test]
fn every_kind_of_memory_copies_and_keeps_its_promise_to_the_cpu() {
    let each = |kind| [(kind, true), (kind, false)];
    for (kind, coherent) in MemoryKind::ALL.into_iter().flat_map(each) {
        let mut rig = Rig::open(|c| {
            c.memory_kind = Some(kind);
            c.switches.coherent = coherent;
        });
        let memory = rig.device().profile().memory;
        assert_eq!(memory.kind, kind);
        assert_eq!(memory.flags.contains(PagemapFlags::UNADDRESSABLE), kind == MemoryKind::DevicePrivate);
        assert_eq!(memory.flags.contains(PagemapFlags::HOST_READABLE), memory.cpu_reads);
        assert_eq!(memory.flags.contains(PagemapFlags::HOST_WRITABLE), memory.cpu_writes);
        rig.device().grow(FrameIndex(0), 32).expect("grow");
        let host = Host::new(8192);
        let bytes = pattern(1, 4096);
        host.alias().slice(0, 4096).write(&bytes);
        let written = rig.device().write_frames(FRAME + 4096, host.alias().slice(0, 4096));
        assert_eq!(written.is_ok(), memory.cpu_writes, "{kind:?}");
        if !memory.cpu_writes {
            rig.upload(FRAME + 4096, &bytes);
        }
        assert_eq!(rig.download(FRAME + 4096, 4096), bytes, "{kind:?}");
        let read = rig.device().read_frames(FRAME + 4096, host.alias().slice(4096, 4096));
        assert_eq!(read.is_ok(), memory.cpu_reads, "{kind:?}");
        if memory.cpu_reads {
            assert_eq!(host.view().slice(4096, 4096).to_vec(), bytes);
        }
        rig.device().shrink(FrameIndex(0));
    }
}

#[test]
fn without_cpu_access_the_memory_is_private_whatever_was_asked_for() {
    let rig = Rig::open(|c| {
        c.memory_kind = Some(MemoryKind::DeviceCoherent);
        c.switches.cpu_access = false;
    });
    assert_eq!(rig.device().profile().memory.kind, MemoryKind::DevicePrivate);
}

#[test]
fn the_arena_grows_and_shrinks_and_refuses_what_overlaps() {
    let rig = Rig::open(|_| {});
    let device = rig.device();
    let a = device.grow(FrameIndex(0), 64).expect("grow");
    let b = device.grow(FrameIndex(64), 1).expect("grow");
    assert_ne!(a, b);
    assert!(matches!(device.grow(FrameIndex(63), 2), Err(DeviceError::Refused { .. })));
    assert!(matches!(device.grow(FrameIndex(64), 1), Err(DeviceError::Refused { .. })));
    assert!(matches!(
        device.grow(FrameIndex(100), u32::MAX - 200),
        Err(DeviceError::OutOfDeviceMemory { .. })
    ));
    let buffer = device.buffer(FrameRun { first: FrameIndex(3), count: 61 }).expect("buffer");
    assert_eq!(buffer.bytes(), 61 * FRAME);
    assert_ne!(device.address(&buffer), 0);
    let across = device.buffer(FrameRun { first: FrameIndex(63), count: 2 });
    assert!(matches!(across, Err(DeviceError::Refused { .. })), "a run across two pieces");
    drop(buffer);
    device.shrink(FrameIndex(0));
    assert!(device.buffer(FrameRun { first: FrameIndex(0), count: 1 }).is_err());
    device.grow(FrameIndex(0), 16).expect("grow again");
}

#[test]
fn without_memory_to_try_with_or_by_switch_nothing_is_imported() {
    let config = Config { validation: true, ..Config::default() };
    let device = VulkanDevice::open(config, None).expect("open");
    assert!(device.profile().import.is_none());
    assert!(device.report().import.contains("staging"));
    let host = Host::new(1 << 20);
    assert!(matches!(device.import(host.alias()), Err(DeviceError::Refused { .. })));
    let rig = Rig::open(|c| c.switches.import = false);
    assert!(rig.device().profile().import.is_none());
    assert!(rig.device().report().import.contains("switched off"));
}

#[test]
fn pieces_start_on_a_frame_and_the_longest_one_can_be_had() {
    for kind in [MemoryKind::DevicePrivate, MemoryKind::DeviceCoherent] {
        let mut rig = Rig::open(|c| c.memory_kind = Some(kind));
        for (first, count) in [(0, 1), (1, 7), (8, 100)] {
            let address = rig.device().grow(FrameIndex(first), count).expect("grow");
            assert_eq!(address % FRAME, 0, "{count} frames at {address:#x}");
            let span = rig.device().buffer(FrameRun { first: FrameIndex(first), count }).expect("buffer");
            assert_eq!(rig.device().address(&span), address);
            let last = u64::from(first + count - 1) * FRAME;
            let bytes = pattern(count.into(), FRAME as usize);
            rig.upload(last, &bytes);
            assert!(rig.download(last, bytes.len()) == bytes);
        }
    }
    // Lavapipe hands it out without touching it; anything beyond would make the layer speak.
    let rig = Rig::open(|_| {});
    let longest = rig.device().profile().piece_bytes_max;
    rig.device().grow(FrameIndex(0), (longest / FRAME) as u32).expect("the longest piece");
    assert!(rig.device().grow(FrameIndex(1 << 20), (longest / FRAME) as u32 + 1).is_err());
}
