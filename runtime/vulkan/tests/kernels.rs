//! Kernels: bindings, push constants, device addresses, specialisation, time, and every refusal.

mod common;

use common::{FRAME, Rig, clock, words};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_core::uses::Uses;
use vkhmm_port::{BoundRange, Command, Device, Role};
use vkhmm_vulkan::reflect::PushKind;
use vkhmm_vulkan::{KernelError, KernelOptions, VulkanBuffer};

fn bound(buffer: &Arc<VulkanBuffer>, offset: u64, bytes: u64) -> BoundRange<vkhmm_vulkan::VulkanDevice> {
    BoundRange { buffer: Some(Arc::clone(buffer)), offset, bytes }
}

fn buffer(rig: &Rig, first: u32, count: u32) -> Arc<VulkanBuffer> {
    Arc::new(rig.device().buffer(FrameRun { first: FrameIndex(first), count }).expect("buffer"))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

fn uints(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

#[test]
fn bindings_and_push_constants_reach_the_kernel_and_time_is_told() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let kernel = rig.kernel(
        "scale",
        KernelOptions { name: "scale".into(), ..KernelOptions { timed: true, ..KernelOptions::default() } },
    );
    assert_eq!((kernel.name(), kernel.local_size()), ("scale", [64, 1, 1]));
    let writes: Vec<bool> = kernel.reflection().bindings.iter().map(|b| b.may_write).collect();
    assert_eq!(writes, [false, true]);
    let n = 16_000_u32;
    let input: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let bytes: Vec<u8> = input.iter().flat_map(|v| v.to_le_bytes()).collect();
    rig.upload(FRAME, &bytes);
    let (from, to) = (buffer(&rig, 1, 1), buffer(&rig, 4, 2));
    let elapsed = clock();
    let mut push = 2.5_f32.to_le_bytes().to_vec();
    push.extend(n.to_le_bytes());
    // The bytes behind the binding must survive: fill them, then dispatch.
    let fill = Command::Fill { device_offset: 4 * FRAME, bytes: 2 * FRAME, word: 0xffff_ffff };
    let half = u64::from(n) * 2;
    let dispatch = |push: Vec<u8>| Command::Dispatch {
        kernel: Arc::clone(&kernel),
        bindings: vec![bound(&from, 0, u64::from(n) * 4), bound(&to, 256, half)],
        push,
        groups: [7, 1, 1],
        elapsed_ns: Arc::clone(&elapsed),
    };
    rig.run(Role::Compute, vec![fill, Command::Barrier, dispatch(push)]);
    assert!(elapsed.load(Ordering::Acquire) > 0, "no time");
    let out = rig.download(4 * FRAME, 2 * FRAME as usize);
    let scaled = floats(&out[256..256 + half as usize]);
    assert!(scaled.iter().zip(&input).all(|(b, a)| *b == a * 2.5));
    let robust = rig.device().report().features.contains(&("robustBufferAccess2", true));
    assert!(!robust || out[256 + half as usize..].iter().all(|b| *b == 0xff), "stored past its binding");
    assert!(out[..256].iter().all(|b| *b == 0xff));
    let weak = Arc::downgrade(&kernel);
    drop(kernel);
    rig.run(Role::Compute, Vec::new());
    assert!(weak.upgrade().is_none(), "a finished submission keeps its kernel");
}

#[test]
fn device_addresses_reach_the_kernel() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let kernel = rig.kernel("add_address", KernelOptions::default());
    let kinds: Vec<PushKind> = kernel.reflection().push.members.iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [PushKind::Address, PushKind::Value, PushKind::Value]);
    let span = buffer(&rig, 2, 3);
    let mut push = (rig.device().address(&span) + 4096).to_le_bytes().to_vec();
    push.extend(1000_u32.to_le_bytes());
    push.extend(5_u32.to_le_bytes());
    let fill = Command::Fill { device_offset: 2 * FRAME, bytes: 3 * FRAME, word: 10 };
    let run = |push: &[u8]| Command::Dispatch {
        kernel: Arc::clone(&kernel),
        bindings: Vec::new(),
        push: push.to_vec(),
        groups: [16, 1, 1],
        elapsed_ns: clock(),
    };
    // Two submissions without a wait between them: the queue's own order and the closing barrier must do.
    let fill = rig.submit(Role::Compute, Uses::NONE, vec![fill]);
    rig.submit(Role::Compute, Uses::NONE, vec![run(&push)]);
    rig.run(Role::Compute, vec![run(&push)]);
    assert_eq!(fill.value, 1);
    let out = uints(&rig.download(2 * FRAME, 3 * FRAME as usize));
    assert!(out[1024..2024].iter().all(|v| *v == 20), "{:?}", &out[1024..1030]);
    assert!(out[..1024].iter().chain(&out[2024..]).all(|v| *v == 10));
}

#[test]
fn specialisation_sets_and_empty_arguments() {
    let mut rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let options =
        KernelOptions { spec: vec![(0, 32_u32.into()), (7, 99_u32.into())], ..KernelOptions::default() };
    let kernel = rig.kernel("special", options);
    assert_eq!(kernel.local_size(), [32, 1, 1]);
    let result = buffer(&rig, 0, 1);
    for (items, expected) in [(Some(buffer(&rig, 1, 1)), 100), (None, 0)] {
        let empty = items.is_none();
        let bytes = if empty { 0 } else { 400 };
        rig.run(
            Role::Compute,
            vec![Command::Dispatch {
                kernel: Arc::clone(&kernel),
                bindings: vec![bound(&result, 0, 12), BoundRange { buffer: items, offset: 0, bytes }],
                push: Vec::new(),
                groups: [1, 1, 1],
                elapsed_ns: clock(),
            }],
        );
        let out = uints(&rig.download(0, 12));
        assert_eq!(out[..2], [32, 99]);
        if !empty {
            assert_eq!(out[2], expected);
        }
    }
}

#[test]
fn what_the_device_lacks_is_refused_by_name() {
    let rig = Rig::open(|_| {});
    let refuse = |name: &str, options: KernelOptions| {
        rig.device()
            .kernel(&words(name), KernelOptions { name: name.into(), ..options })
            .err()
            .map(|e| e.to_string())
    };
    for (name, about) in [
        ("needs_atomic_min", "AtomicFloat32MinMaxEXT"),
        ("needs_group", "invocations"),
        ("needs_shared", "shared memory"),
        ("needs_push", "push constants"),
        ("needs_uniform", "binding 0"),
    ] {
        let text = refuse(name, KernelOptions::default()).unwrap_or_else(|| panic!("{name} was taken"));
        assert!(text.contains(about) && text.contains(name), "{name}: {text}");
    }
    let no_entry = KernelOptions { entry: Some("other".into()), ..KernelOptions::default() };
    assert!(refuse("scale", no_entry).expect("no such entry").contains("other"));
    let spec = |id: u32, value: u64, wide: bool| KernelOptions {
        spec: vec![(id, if wide { value.into() } else { (value as u32).into() })],
        ..KernelOptions::default()
    };
    assert!(refuse("special", spec(3, 1, false)).expect("no constant 3").contains("constant 3"));
    assert!(refuse("special", spec(7, 1, true)).expect("too wide").contains("4 bytes"));
    assert!(refuse("special", spec(0, 0, false)).expect("empty group").contains("local size"));
    let subgroup = KernelOptions { subgroup_size: Some(3), ..KernelOptions::default() };
    assert!(refuse("scale", subgroup).expect("three lanes").contains("subgroup"));
    let garbage = rig.device().kernel(&[1, 2, 3], KernelOptions::default());
    assert!(matches!(garbage, Err(KernelError::Module { .. })));
    let mut newer = words("scale");
    newer[1] = 0x0002_0000;
    let error = rig.device().kernel(&newer, KernelOptions::default()).err().map(|e| e.to_string());
    assert!(error.is_some(), "SPIR-V 2.0 was taken");
}

#[test]
fn a_subgroup_size_that_is_offered_is_taken() {
    let mut rig = Rig::open(|_| {});
    let sizes =
        rig.device().report().limits.iter().find(|(n, _)| *n == "subgroup sizes").expect("listed").1.clone();
    let Some(size) = sizes.split(' ').next().and_then(|s| s.parse().ok()) else {
        println!("no control over subgroup sizes here: {sizes}");
        return;
    };
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let options = KernelOptions { subgroup_size: Some(size), ..KernelOptions::default() };
    let kernel = rig.kernel("add_address", options);
    let span = buffer(&rig, 0, 1);
    let mut push = rig.device().address(&span).to_le_bytes().to_vec();
    push.extend([64_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
    let fill = Command::Fill { device_offset: 0, bytes: FRAME, word: 1 };
    let run = Command::Dispatch { kernel, bindings: Vec::new(), push, groups: [1; 3], elapsed_ns: clock() };
    rig.run(Role::Compute, vec![fill, Command::Barrier, run]);
    assert!(uints(&rig.download(0, 256)).iter().all(|v| *v == 2));
}

#[test]
fn launches_that_do_not_match_their_kernel_are_refused() {
    let rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    let kernel = rig.kernel("scale", KernelOptions::default());
    let span = buffer(&rig, 0, 2);
    let timeline = rig.device().profile().timeline(Role::Compute);
    let align = rig.device().profile().binding_alignment_bytes;
    let groups_max = rig.device().profile().groups_max;
    let good = || vec![bound(&span, 0, FRAME), bound(&span, FRAME, FRAME)];
    for (what, bindings, push, groups) in [
        ("too few bindings", vec![bound(&span, 0, FRAME)], 8, [1, 1, 1]),
        ("too short a push", good(), 4, [1, 1, 1]),
        ("too many groups", good(), 8, [1, groups_max[1].saturating_add(1), 1]),
        ("past the buffer", vec![bound(&span, 0, FRAME), bound(&span, FRAME, 2 * FRAME)], 8, [1; 3]),
        ("unaligned", vec![bound(&span, align / 2, 16), bound(&span, FRAME, FRAME)], 8, [1; 3]),
    ] {
        let commands = vec![Command::Dispatch {
            kernel: Arc::clone(&kernel),
            bindings,
            push: vec![0; push],
            groups,
            elapsed_ns: clock(),
        }];
        let signals = vkhmm_core::units::Ticket { timeline, value: 1 };
        let result = rig.device().submit(
            Role::Compute,
            vkhmm_port::Submission { waits: Uses::NONE, foreign: Vec::new(), commands, signals },
        );
        assert!(matches!(result, Err(vkhmm_port::DeviceError::Refused { .. })), "{what}: {result:?}");
    }
}
