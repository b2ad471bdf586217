//! Work in place: kernels on imported host memory, from one page to more than one piece of the arena; what the host reads afterwards.

mod common;

use common::{Host, Rig, clock, pattern};
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_core::uses::Uses;
use vkhmm_port::{BoundRange, Command, Device, DeviceError, Region, Role, Source, Target};
use vkhmm_vulkan::{Config, Failure, KernelOptions, VulkanBuffer, VulkanDevice, VulkanKernel};

const PAGE: usize = 4096;

/// Whether kernels cannot work on imports here. Only drivers named here may be without; the reason is printed.
fn without_in_place(rig: &Rig) -> bool {
    let profile = rig.device().profile();
    assert_eq!(rig.device().report().in_place, profile.reasons[1]);
    if profile.in_place_bytes_max.is_some() {
        return false;
    }
    assert!(profile.name.contains("SwiftShader"), "{}: {}", profile.name, profile.reasons[1]);
    common::exempt("SwiftShader", &profile.reasons[1]);
    true
}

fn in_place(rig: &Rig, host: &Host, start: usize, len: usize) -> Arc<VulkanBuffer> {
    let import = Arc::new(rig.device().import(host.alias().slice(start, len)).expect("import"));
    let buffer = rig.device().in_place(&import).expect("in place");
    assert_eq!(buffer.bytes(), len as u64);
    Arc::new(buffer)
}

fn xor(
    kernel: &Arc<VulkanKernel>,
    buffer: &Arc<VulkanBuffer>,
    offset: u64,
    bytes: u64,
    word: u32,
) -> Command<VulkanDevice> {
    Command::Dispatch {
        kernel: Arc::clone(kernel),
        bindings: vec![BoundRange { buffer: Some(Arc::clone(buffer)), offset, bytes }],
        push: [(bytes as u32 / 4).to_le_bytes(), word.to_le_bytes()].concat(),
        groups: [16, 1, 1],
        elapsed_ns: clock(),
    }
}

/// On every way to see memory: A itself is of the host, so nothing needs to be flushed.
fn rigs() -> Vec<Rig> {
    let edits: [fn(&mut Config); 3] =
        [|_| {}, |c| c.switches.coherent = false, |c| c.switches.split_queue = true];
    edits.into_iter().map(Rig::open).collect()
}

#[test]
fn kernels_work_on_host_memory_from_one_page_on() {
    for mut rig in rigs() {
        if without_in_place(&rig) {
            return;
        }
        let kernel = rig.kernel("xor", KernelOptions::default());
        let host = Host::new(4 << 20);
        for (round, (first, pages)) in [(0, 1), (1, 1), (5, 3), (100, 256), (0, 1024)].into_iter().enumerate()
        {
            let bytes = pattern(round as u64, 4 << 20);
            host.view().write(&bytes);
            let (start, len) = (first * PAGE, pages * PAGE);
            let buffer = in_place(&rig, &host, start, len);
            rig.run(Role::Compute, vec![xor(&kernel, &buffer, 0, len as u64, 0xffff_ffff)]);
            let seen = host.view().to_vec();
            let inside = |at: &usize| (start..start + len).contains(at);
            assert!((0..seen.len()).all(|at| seen[at] == if inside(&at) { !bytes[at] } else { bytes[at] }));
            // The host writes while the import lives; the next submission sees it.
            host.view().fill(0x11);
            rig.run(Role::Compute, vec![xor(&kernel, &buffer, 0, len as u64, 0x2222_2222)]);
            assert!(host.view().slice(start, len).to_vec().iter().all(|b| *b == 0x33));
        }
    }
}

#[test]
fn addresses_in_place_and_copies_of_the_same_import_agree() {
    let mut rig = Rig::open(|_| {});
    if without_in_place(&rig) {
        return;
    }
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let host = Host::new(2 << 20);
    host.view().fill(1);
    let import = Arc::new(rig.device().import(host.alias()).expect("import"));
    let buffer = rig.device().in_place(&import).expect("in place");
    let kernel = rig.kernel("add_address", KernelOptions::default());
    let mut push = (rig.device().address(&buffer) + PAGE as u64).to_le_bytes().to_vec();
    push.extend([1024_u32.to_le_bytes(), 0x0101_0101_u32.to_le_bytes()].concat());
    let add =
        Command::Dispatch { kernel, bindings: Vec::new(), push, groups: [16, 1, 1], elapsed_ns: clock() };
    let regions = |from: u64| vec![Region { host_offset: from, device_offset: 0, bytes: PAGE as u64 }];
    rig.run(
        Role::Compute,
        vec![
            add,
            Command::Barrier,
            Command::CopyIn { source: Source::Import(Arc::clone(&import)), regions: regions(PAGE as u64) },
            Command::Barrier,
            Command::CopyOut { target: Target::Import(import), regions: regions(1 << 20) },
        ],
    );
    let seen = host.view().to_vec();
    let twos = |at: usize| (PAGE..2 * PAGE).contains(&at) || ((1 << 20)..(1 << 20) + PAGE).contains(&at);
    assert!((0..seen.len()).all(|at| seen[at] == if twos(at) { 2 } else { 1 }));
}

#[test]
fn a_buffer_keeps_its_import_and_a_submission_its_buffer() {
    let mut rig = Rig::open(|_| {});
    if without_in_place(&rig) {
        return;
    }
    let host = Host::new(1 << 20);
    let kernel = rig.kernel("xor", KernelOptions::default());
    let import = Arc::new(rig.device().import(host.alias()).expect("import"));
    let weak = Arc::downgrade(&import);
    let buffer = Arc::new(rig.device().in_place(&import).expect("in place"));
    let second = rig.device().in_place(&import).expect("twice");
    assert_eq!(rig.device().address(&second), rig.device().address(&buffer));
    drop((import, second));
    assert!(weak.upgrade().is_some(), "the buffer is left");
    let mut last = None;
    for word in 0..40 {
        last = Some(rig.submit(
            Role::Compute,
            Uses::NONE,
            vec![xor(&kernel, &buffer, 0, 1 << 20, 1 << (word % 32))],
        ));
    }
    drop(buffer);
    rig.wait(last.expect("forty"));
    rig.run(Role::Compute, Vec::new());
    assert!(weak.upgrade().is_none(), "nobody is left");
    assert!(host.view().to_vec().chunks_exact(4).all(|w| w == 0xffff_ff00_u32.to_le_bytes()));
}

#[test]
fn one_import_may_be_longer_than_one_for_copies() {
    let mut rig = Rig::open(|_| {});
    if without_in_place(&rig) {
        return;
    }
    let profile = rig.device().profile();
    let most = profile.in_place_bytes_max.expect("in place");
    let piece = profile.import.expect("imports").piece_bytes_max;
    assert!(most >= piece && most % PAGE as u64 == 0, "{most} and {piece}");
    let len = (piece + (64 << 20)).min(most);
    let host = Host::new(len as usize);
    let buffer = in_place(&rig, &host, 0, len as usize);
    let kernel = rig.kernel("xor", KernelOptions::default());
    // Its last pages: nothing else is touched, so nothing else is populated.
    let at = len - (1 << 20);
    rig.run(Role::Compute, vec![xor(&kernel, &buffer, at, 1 << 20, 0x0102_0304)]);
    let seen = host.view().slice(at as usize, 1 << 20).to_vec();
    assert!(seen.chunks_exact(4).all(|w| w == 0x0102_0304_u32.to_le_bytes()));
    let error = rig.device().import(Host::new(PAGE).alias().slice(0, 100)).err();
    assert!(matches!(error, Some(DeviceError::Refused { .. })), "{error:?}");
}

#[test]
fn frames_and_host_memory_meet_in_one_kernel() {
    let mut rig = Rig::open(|_| {});
    if without_in_place(&rig) {
        return;
    }
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let host = Host::new(PAGE);
    let input: Vec<u8> = (0..1024_u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    host.view().write(&input);
    let kernel = rig.kernel("scale", KernelOptions::default());
    let frames = Arc::new(rig.device().buffer(FrameRun { first: FrameIndex(3), count: 1 }).expect("buffer"));
    let buffer = in_place(&rig, &host, 0, PAGE);
    let bound = |buffer: &Arc<VulkanBuffer>| BoundRange {
        buffer: Some(Arc::clone(buffer)),
        offset: 0,
        bytes: PAGE as u64,
    };
    let scale = |from: &Arc<VulkanBuffer>, to: &Arc<VulkanBuffer>| Command::Dispatch {
        kernel: Arc::clone(&kernel),
        bindings: vec![bound(from), bound(to)],
        push: [3.0_f32.to_le_bytes(), 1024_u32.to_le_bytes()].concat(),
        groups: [16, 1, 1],
        elapsed_ns: clock(),
    };
    rig.run(Role::Compute, vec![scale(&buffer, &frames), Command::Barrier, scale(&frames, &buffer)]);
    let seen = host.view().to_vec();
    let right = |i: usize| seen[i * 4..i * 4 + 4] == (i as f32 * 9.0).to_le_bytes();
    assert!((0..1024).all(right));
}

#[test]
fn where_it_cannot_be_done_the_reason_is_given() {
    let rig = Rig::open(|c| c.switches.import = false);
    let profile = rig.device().profile();
    assert!(profile.import.is_none() && profile.in_place_bytes_max.is_none());
    assert!(profile.reasons[1].contains("switched off"), "{}", profile.reasons[1]);
}

#[test]
fn in_place_counts_as_a_call_that_can_fail() {
    let rig = Rig::open(|c| c.switches.fail_at_call = Some((2, Failure::Refused)));
    if without_in_place(&rig) {
        return;
    }
    let host = Host::new(PAGE);
    let import = Arc::new(rig.device().import(host.alias()).expect("the first call"));
    assert!(matches!(rig.device().in_place(&import).err(), Some(DeviceError::Refused { .. })));
    rig.device().in_place(&import).expect("only once");
    assert_eq!(rig.device().calls(), 3);
}
