//! Sparse buffers: frames bound in any order, taken and given again, what kernels find there, and every refusal. On a driver without
//! them: the reason, in words.

mod common;

use common::{FRAME, Rig, clock, pattern};
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Bind, BoundRange, Command, Device, DeviceError, Region, Role, Submission};
use vkhmm_vulkan::{Config, Failure, KernelOptions, VulkanBuffer, VulkanDevice, VulkanKernel};

type Binds = Vec<Bind<VulkanDevice>>;

/// Whether sparse buffers cannot be tested here: only where the driver says that it has none. The reason is printed.
fn without_sparse(rig: &Rig) -> bool {
    let profile = rig.device().profile();
    if profile.sparse.is_none() {
        let reason = &profile.reasons[0];
        assert!(reason.contains("the driver has no sparse buffers"), "{}: {reason}", profile.name);
        common::exempt(&profile.name, reason);
    }
    profile.sparse.is_none()
}

fn reserve(rig: &Rig, frames: u64) -> Arc<VulkanBuffer> {
    Arc::new(rig.device().reserve(frames * FRAME).expect("reserve"))
}

fn bind(buffer: &Arc<VulkanBuffer>, at: u64, frames: u64, first: Option<u32>) -> Bind<VulkanDevice> {
    let buffer = Arc::clone(buffer);
    Bind { buffer, offset: at * FRAME, bytes: frames * FRAME, frames: first.map(FrameIndex) }
}

fn uses(tickets: &[Ticket]) -> Uses {
    let mut out = Uses::NONE;
    tickets.iter().for_each(|t| out.add(*t));
    out
}

/// `words[i] ^= word` over `frames` frames of the buffer from `at` on.
fn xor(
    kernel: &Arc<VulkanKernel>,
    buffer: &Arc<VulkanBuffer>,
    at: u64,
    frames: u64,
    word: u32,
) -> Command<VulkanDevice> {
    let bytes = frames * FRAME;
    Command::Dispatch {
        kernel: Arc::clone(kernel),
        bindings: vec![BoundRange { buffer: Some(Arc::clone(buffer)), offset: at * FRAME, bytes }],
        push: [(bytes as u32 / 4).to_le_bytes(), word.to_le_bytes()].concat(),
        groups: [16, 1, 1],
        elapsed_ns: clock(),
    }
}

fn fill(frame: u32, word: u32) -> Command<VulkanDevice> {
    Command::Fill { device_offset: u64::from(frame) * FRAME, bytes: FRAME, word }
}

/// The word that all of a frame consists of.
fn word_of(rig: &mut Rig, frame: u32) -> u32 {
    let bytes = rig.download(u64::from(frame) * FRAME, FRAME as usize);
    assert!(bytes.chunks_exact(4).all(|w| w == &bytes[..4]), "frame {frame} is not of one word");
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn refused(rig: &Rig, role: Role, value: u64, commands: Vec<Command<VulkanDevice>>) -> String {
    let signals = Ticket { timeline: rig.device().profile().timeline(role), value };
    let submission = Submission { waits: Uses::NONE, foreign: Vec::new(), commands, signals };
    match rig.device().submit(role, submission) {
        Err(DeviceError::Refused { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_sparse_buffers_the_reason_is_given_and_reserve_repeats_it() {
    let off = Rig::open(|c| c.switches.sparse = false);
    assert!(off.device().profile().reasons[0].contains("switched off"));
    // The guard's memory is imported.
    let can_guard = off.device().profile().import.is_some() && !common::without_guard();
    let guarded = can_guard.then(|| Rig::open(|c| c.switches.frame_guard = true));
    assert!(guarded.as_ref().is_none_or(|r| r.device().profile().sparse.is_none()));
    for rig in [Some(off), guarded, Some(Rig::open(|_| {}))].into_iter().flatten() {
        let profile = rig.device().profile();
        assert_eq!(rig.device().report().placement, profile.reasons[0]);
        if profile.sparse.is_some() {
            assert!(profile.reasons[0].starts_with("sparse"), "{}", profile.reasons[0]);
            continue;
        }
        println!("{}", profile.reasons[0]);
        assert!(profile.reasons[0].starts_with("span"), "{}", profile.reasons[0]);
        let error = rig.device().reserve(FRAME).err().expect("no sparse buffers").to_string();
        assert!(error.contains(&profile.reasons[0]), "{error}");
        let bound = refused(&rig, Role::Bind, 1, vec![Command::Bind { binds: Vec::new() }]);
        assert_eq!(bound, profile.reasons[0]);
    }
}

#[test]
fn kernels_see_frames_where_they_are_bound_and_copies_see_what_kernels_wrote() {
    let edits: [fn(&mut Config); 3] =
        [|_| {}, |c| c.switches.split_queue = true, |c| c.switches.coherent = false];
    for edit in edits {
        let mut rig = Rig::open(edit);
        if without_sparse(&rig) {
            return;
        }
        rig.device().grow(FrameIndex(0), 32).expect("grow");
        let kernel = rig.kernel("xor", KernelOptions::default());
        let address = rig.kernel("add_address", KernelOptions::default());
        let buffer = reserve(&rig, 8);
        let bytes = pattern(3, 4 * FRAME as usize);
        rig.upload(20 * FRAME, &bytes);
        // Sub-blocks 2..6 hold the frames 23, 21, 22, 20.
        let order = [23, 21, 22, 20];
        let binds = (0..4).map(|i| bind(&buffer, 2 + i, 1, Some(order[i as usize]))).collect();
        let bound = rig.submit(Role::Bind, Uses::NONE, vec![Command::Bind { binds }]);
        let mut push = (rig.device().address(&buffer) + 2 * FRAME).to_le_bytes().to_vec();
        push.extend([(4 * FRAME as u32 / 4).to_le_bytes(), 0x0101_0101_u32.to_le_bytes()].concat());
        let add = Command::Dispatch {
            kernel: address,
            bindings: Vec::new(),
            push,
            groups: [1024, 1, 1],
            elapsed_ns: clock(),
        };
        let commands = vec![xor(&kernel, &buffer, 2, 4, 0xffff_ffff), Command::Barrier, add];
        let ran = rig.submit(Role::Compute, uses(&[bound]), commands);
        rig.wait(ran);
        let out = rig.download(20 * FRAME, bytes.len());
        let word = |b: &[u8], i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let right = |i: usize| word(&out, i) == (!word(&bytes, i)).wrapping_add(0x0101_0101);
        assert!((0..bytes.len()).step_by(4).all(right));
    }
}

#[test]
fn binds_follow_copies_and_kernels_follow_binds_without_anybody_waiting() {
    let mut rig = Rig::open(|c| c.switches.split_queue = true);
    if without_sparse(&rig) {
        return;
    }
    // Many binds, and some across two pieces.
    rig.device().grow(FrameIndex(0), 100).expect("grow");
    rig.device().grow(FrameIndex(100), 100).expect("grow");
    let kernel = rig.kernel("xor", KernelOptions::default());
    let buffer = reserve(&rig, 400);
    let fills = (0..200).map(|i| fill(i, 0x1000 + i)).collect();
    let filled = rig.submit(Role::CopyIn, Uses::NONE, fills);
    let mut binds: Binds = (0..150).map(|i| bind(&buffer, 2 * i, 1, Some(149 - i as u32))).collect();
    binds.push(bind(&buffer, 300, 50, Some(150)));
    let bound = rig.submit(Role::Bind, uses(&[filled]), vec![Command::Bind { binds }]);
    let ran = rig.submit(
        Role::Compute,
        uses(&[bound]),
        (0..150).map(|i| xor(&kernel, &buffer, 2 * i, 1, i as u32)).collect(),
    );
    // A second life of the same stretch: the frames of 300..350 lose it to those that were at 0..100 before.
    let mut binds: Binds = vec![bind(&buffer, 300, 50, None)];
    binds.extend((0..50).map(|i| bind(&buffer, 2 * i, 1, None)));
    binds.push(bind(&buffer, 300, 50, Some(100)));
    let moved = rig.submit(Role::Bind, uses(&[ran]), vec![Command::Bind { binds }]);
    let again = rig.submit(Role::Compute, uses(&[moved]), vec![xor(&kernel, &buffer, 300, 50, 0x5000_0000)]);
    // One bind over the border of two pieces.
    let free = vec![bind(&buffer, 100, 1, None), bind(&buffer, 102, 1, None)];
    let freed = rig.submit(Role::Bind, uses(&[again]), vec![Command::Bind { binds: free }]);
    let binds = vec![bind(&buffer, 380, 2, Some(99))];
    let across = rig.submit(Role::Bind, uses(&[freed]), vec![Command::Bind { binds }]);
    let last = rig.submit(Role::Compute, uses(&[across]), vec![xor(&kernel, &buffer, 380, 2, 0x0a00_0000)]);
    rig.wait(last);
    for frame in 0..200_u32 {
        let first = if frame < 150 { 149 - frame } else { 0 };
        let second = if (100..150).contains(&frame) { 0x5000_0000 } else { 0 };
        let third = if frame == 99 || frame == 100 { 0x0a00_0000 } else { 0 };
        assert_eq!(word_of(&mut rig, frame), (0x1000 + frame) ^ first ^ second ^ third, "frame {frame}");
    }
}

#[test]
fn the_address_stays_through_thousands_of_changes() {
    const FRAMES: u32 = 24;
    const PLACES: u64 = 40;
    let mut rig = Rig::open(|_| {});
    if without_sparse(&rig) {
        return;
    }
    rig.device().grow(FrameIndex(0), FRAMES).expect("grow");
    let kernel = rig.kernel("xor", KernelOptions::default());
    let buffers = [reserve(&rig, PLACES), reserve(&rig, PLACES)];
    let addresses = buffers.clone().map(|b| rig.device().address(&b));

    let mut words: Vec<u32> = (0..FRAMES).map(|i| 0xabc0_0000 + i).collect();
    rig.run(Role::Compute, words.iter().zip(0..).map(|(word, frame)| fill(frame, *word)).collect());
    // Which frame lies where, and where each frame lies.
    let mut places = [[None::<u32>; PLACES as usize]; 2];
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut last: Vec<Ticket> = Vec::new();
    for round in 0..3000_u32 {
        let mut binds = Binds::new();
        for (buffer, places) in buffers.iter().zip(&mut places) {
            for (at, place) in places.iter_mut().enumerate() {
                if place.is_some() && random(3) == 0 {
                    binds.push(bind(buffer, at as u64, 1, None));
                    *place = None;
                }
            }
        }
        let used: Vec<u32> = places.iter().flatten().flatten().copied().collect();
        for frame in (0..FRAMES).filter(|frame| !used.contains(frame)) {
            let (which, at) = (random(2), random(PLACES as usize));
            if places[which][at].is_none() {
                places[which][at] = Some(frame);
                binds.push(bind(&buffers[which], at as u64, 1, Some(frame)));
            }
        }
        let bound = rig.submit(Role::Bind, uses(&last), vec![Command::Bind { binds }]);
        let mut commands = Vec::new();
        for (buffer, places) in buffers.iter().zip(&places) {
            for (at, frame) in places.iter().enumerate() {
                if let Some(frame) = frame.filter(|_| random(8) == 0) {
                    commands.push(xor(&kernel, buffer, at as u64, 1, round));
                    words[frame as usize] ^= round;
                }
            }
        }
        last = vec![rig.submit(Role::Compute, uses(&[bound]), commands)];
        if round % 64 == 0 {
            rig.wait(last[0]);
        }
    }
    rig.wait(last[0]);
    for (frame, word) in (0..FRAMES).zip(&words) {
        assert_eq!(word_of(&mut rig, frame), *word, "frame {frame}");
    }
    assert_eq!(addresses, buffers.clone().map(|b| rig.device().address(&b)));
}

#[test]
fn wrong_binds_are_refused_by_us_and_change_nothing() {
    let mut rig = Rig::open(|_| {});
    if without_sparse(&rig) {
        return;
    }
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let buffer = reserve(&rig, 8);
    let dense = Arc::new(rig.device().buffer(FrameRun { first: FrameIndex(8), count: 4 }).expect("buffer"));
    rig.run(Role::Bind, vec![Command::Bind { binds: vec![bind(&buffer, 0, 2, Some(0))] }]);
    let misplaced = |offset, bytes| {
        let buffer = Arc::clone(&buffer);
        vec![Bind { buffer, offset, bytes, frames: Some(FrameIndex(4)) }]
    };
    for (what, word, binds) in [
        ("an offset inside a frame", "whole", misplaced(4 * FRAME + 4096, FRAME)),
        ("part of a frame", "whole", misplaced(4 * FRAME, 4096)),
        ("nothing", "whole", misplaced(4 * FRAME, 0)),
        ("past the end", "inside", misplaced(7 * FRAME, 2 * FRAME)),
        ("no end at all", "frames", misplaced(4 * FRAME, u64::MAX / FRAME * FRAME)),
        ("frames that do not exist", "no piece", vec![bind(&buffer, 4, 2, Some(31))]),
        ("a place that is taken", "already", vec![bind(&buffer, 1, 2, Some(4))]),
        ("a place that is free", "lies no", vec![bind(&buffer, 1, 2, None)]),
        ("a place twice", "already", vec![bind(&buffer, 4, 1, Some(4)), bind(&buffer, 4, 1, Some(5))]),
        ("a buffer over frames", "not sparse", vec![bind(&dense, 0, 1, Some(4))]),
        ("right, then wrong", "lies no", vec![bind(&buffer, 0, 1, None), bind(&buffer, 5, 1, None)]),
    ] {
        let message = refused(&rig, Role::Bind, 2, vec![Command::Bind { binds }]);
        assert!(message.contains(word), "{what}: {message}");
    }
    let right = || Command::Bind { binds: vec![bind(&buffer, 4, 1, Some(4))] };
    refused(&rig, Role::Compute, 1, vec![right()]);
    refused(&rig, Role::Bind, 2, vec![right(), Command::Barrier]);
    refused(&rig, Role::Bind, 2, vec![fill(4, 1)]);
    // All of what was right in them can still be done.
    let binds = vec![bind(&buffer, 0, 2, None), bind(&buffer, 4, 2, Some(4)), bind(&buffer, 1, 1, Some(1))];
    rig.run(Role::Bind, vec![Command::Bind { binds }]);
}

#[test]
fn a_kernel_is_given_no_holes() {
    let mut rig = Rig::open(|_| {});
    if without_sparse(&rig) {
        return;
    }
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let kernel = rig.kernel("xor", KernelOptions { name: "xor".into(), ..KernelOptions::default() });
    let buffer = reserve(&rig, 8);
    let binds = vec![bind(&buffer, 0, 3, Some(4)), bind(&buffer, 4, 4, Some(8))];
    let bound = rig.submit(Role::Bind, Uses::NONE, vec![Command::Bind { binds }]);
    for (at, frames) in [(0, 8), (2, 2), (3, 1), (3, 5)] {
        let message = refused(&rig, Role::Compute, 1, vec![xor(&kernel, &buffer, at, frames, 1)]);
        assert!(message.contains("kernel xor") && message.contains("no frame lies at 0x30000"), "{message}");
    }
    let ran = rig.submit(
        Role::Compute,
        uses(&[bound]),
        vec![xor(&kernel, &buffer, 0, 3, 1), xor(&kernel, &buffer, 4, 4, 1)],
    );
    rig.wait(ran);
}

#[test]
fn address_space_is_counted_and_given_back() {
    let rig = Rig::open(|_| {});
    if without_sparse(&rig) {
        return;
    }
    let sparse = rig.device().profile().sparse.expect("sparse");
    assert!(FRAME % sparse.page_bytes == 0 && sparse.buffer_bytes_max <= sparse.space_bytes);
    for bytes in [0, 1, FRAME + 4096, sparse.buffer_bytes_max + FRAME] {
        let error = rig.device().reserve(bytes).err();
        assert!(matches!(error, Some(DeviceError::Refused { .. })), "{bytes}: {error:?}");
    }
    let mut all = Vec::new();
    let mut left = sparse.space_bytes;
    while left > 0 && all.len() < 64 {
        let bytes = left.min(sparse.buffer_bytes_max);
        all.push(rig.device().reserve(bytes).expect("there is room"));
        left -= bytes;
    }
    if left == 0 {
        let error = rig.device().reserve(FRAME).err();
        assert!(matches!(error, Some(DeviceError::OutOfDeviceMemory { bytes: FRAME, .. })), "{error:?}");
        all.pop();
        rig.device().reserve(FRAME).expect("room again");
    }
}

#[test]
fn reserve_counts_as_a_call_that_can_fail() {
    let fail = |call| Rig::open(move |c| c.switches.fail_at_call = Some((call, Failure::OutOfDeviceMemory)));
    let rig = fail(1);
    let error = rig.device().reserve(FRAME).err();
    assert!(matches!(error, Some(DeviceError::OutOfDeviceMemory { bytes: FRAME, .. })), "{error:?}");
    assert_eq!(rig.device().calls(), 1);
    let rig = Rig::open(|c| c.switches.lose_at_call = Some(1));
    assert!(matches!(rig.device().reserve(FRAME).err(), Some(DeviceError::Lost { .. })));
}

#[test]
fn buffers_and_frames_may_go_in_any_order_once_their_work_is_done() {
    let mut rig = Rig::open(|_| {});
    if without_sparse(&rig) {
        return;
    }
    let kernel = rig.kernel("xor", KernelOptions::default());
    for round in 0..20_u32 {
        rig.device().grow(FrameIndex(0), 32).expect("grow");
        let buffer = reserve(&rig, 16);
        let binds = (0..16).map(|i| bind(&buffer, i, 1, Some(31 - i as u32))).collect();
        let bound = rig.submit(Role::Bind, Uses::NONE, vec![Command::Bind { binds }]);
        let ran = rig.submit(Role::Compute, uses(&[bound]), vec![xor(&kernel, &buffer, 0, 16, round)]);
        if round % 2 == 0 {
            // The submissions keep the buffer.
            drop(buffer);
            rig.wait(ran);
        } else {
            let binds = vec![bind(&buffer, 0, 16, None)];
            let unbound = rig.submit(Role::Bind, uses(&[ran]), vec![Command::Bind { binds }]);
            rig.wait(unbound);
        }
        let word = Region { host_offset: 0, device_offset: FRAME, bytes: FRAME };
        rig.run(Role::Compute, vec![Command::Move { regions: vec![word] }]);
        rig.device().shrink(FrameIndex(0));
    }
}
