//! Pieces, buffers, slots, and what the CPU may do with frames.

use super::{Bench, is_stopped, pattern, words};
use crate::{Device, Direction, Exec, Role};
use std::collections::BTreeSet;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_core::uses::Uses;

pub(super) fn profile<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let p = b.device.profile();
    let distinct: BTreeSet<u8> = p.timelines.iter().map(|t| t.0).collect();
    assert_eq!(distinct.len(), usize::from(p.timeline_count), "as many timelines as it says");
    assert!(distinct.iter().all(|t| usize::from(*t) < Uses::TIMELINES_MAX));
    assert!(p.staging.slots >= 1 && p.staging.slot_bytes >= b.geometry.block_bytes(), "a slot holds a block");
    assert!(p.regions_max >= 1 && p.piece_bytes_max >= b.geometry.frame_bytes() && p.limit_bytes_default > 0);
    assert!(p.binding_alignment_bytes.is_power_of_two());
    if let Some(max) = p.in_place_bytes_max {
        let unit = p.import.expect("in place is by import").alignment_bytes;
        assert!(max >= unit, "at most {max} bytes in place, imports are multiples of {unit}");
    }
    assert!(p.reasons.iter().all(|why| !why.is_empty()), "people are told why: {:?}", p.reasons);
    let m = p.memory;
    assert!(m.flags.contains(PagemapFlags::DEVICE_MEMORY));
    assert_eq!(m.flags.contains(PagemapFlags::UNADDRESSABLE), m.kind == MemoryKind::DevicePrivate);
    assert_eq!(m.flags.contains(PagemapFlags::HOST_READABLE), m.cpu_reads);
    assert_eq!(m.flags.contains(PagemapFlags::HOST_WRITABLE), m.cpu_writes);
    assert!(p.groups_max.iter().all(|n| *n >= 1) && p.binding_bytes_max > 0 && !p.name.is_empty());
    assert!(Role::ALL.into_iter().all(|role| p.timeline(role) == p.timelines[role as usize]));
    assert!(b.device.budget_bytes().is_none_or(|bytes| bytes > 0));
    let before = format!("{p:?}");
    b.grow();
    b.put(0, &pattern(1, b.frame(1)));
    assert_eq!(format!("{:?}", b.device.profile()), before, "it is constant");
}

pub(super) fn pieces<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let bytes = b.frame(2);
    for _ in 0..3 {
        let low = b.device.grow(FrameIndex(0), 2).expect("grow");
        let high = b.device.grow(FrameIndex(2), 2).expect("grow");
        assert!(low + bytes <= high || high + bytes <= low, "pieces at {low:#x} and {high:#x} overlap");
        b.put(b.frame(3), &pattern(1, b.frame(1)));
        b.device.shrink(FrameIndex(0));
        // The other piece is whole.
        assert_eq!(b.get(b.frame(3), b.frame(1)), pattern(1, b.frame(1)));
        b.device.shrink(FrameIndex(2));
    }
}

pub(super) fn buffers<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let make = |first, count| b.device.buffer(FrameRun { first: FrameIndex(first), count }).expect("buffer");
    let (low, high, both) = (make(0, 1), make(1, 3), make(0, 4));
    let (low_at, high_at) = (b.device.address(&low), b.device.address(&high));
    let apart = low_at + b.frame(1) <= high_at || high_at + b.frame(3) <= low_at;
    assert!(apart, "buffers over different frames overlap: {low_at:#x}, {high_at:#x}");
    assert_ne!(b.device.address(&both), high_at);
    drop((low, high, both));
    b.device.shrink(FrameIndex(0));
}

pub(super) fn slots<X: Exec, D: Device>(b: Bench<X, D>) {
    let staging = b.device.profile().staging;
    let all =
        [Direction::In, Direction::Out].into_iter().flat_map(|d| (0..staging.slots).map(move |n| (d, n)));
    let spans: Vec<_> = all.map(|(d, n)| b.device.slot(d, n)).collect();
    for (n, span) in spans.iter().enumerate() {
        assert!(span.len() as u64 >= staging.slot_bytes, "slot {n} is short");
        span.fill(n as u8 + 1);
    }
    for (n, span) in spans.iter().enumerate() {
        assert!(span.to_vec().iter().all(|v| *v == n as u8 + 1), "slot {n} shares memory");
    }
}

pub(super) fn too_long<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let frames = b.device.profile().piece_bytes_max / b.frame(1) + 1;
    let count = u32::try_from(frames).expect("a piece has fewer than 2^32 frames");
    assert!(b.device.grow(FrameIndex(0), count).is_err(), "a piece longer than the profile says");
    // Nothing is taken: the same frames are to be had.
    b.grow();
    b.put(0, &pattern(2, b.frame(1)));
    assert_eq!(b.get(0, b.frame(1)), pattern(2, b.frame(1)));
}

pub(super) fn no_such_slot<X: Exec, D: Device>(b: Bench<X, D>) {
    let slots = b.device.profile().staging.slots;
    for direction in [Direction::In, Direction::Out] {
        assert!(b.device.slot(direction, slots - 1).len() as u64 >= b.device.profile().staging.slot_bytes);
        assert!(is_stopped(|| Ok::<_, ()>(b.device.slot(direction, slots))), "slot {slots} of {slots}");
    }
}

pub(super) fn cpu_reads<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    b.put(b.frame(2), &pattern(5, bytes));
    let out = b.device.slot(Direction::Out, 0).slice(0, bytes as usize - 4);
    if !b.device.profile().memory.cpu_reads {
        out.fill(0xEE);
        assert!(is_stopped(|| b.device.read_frames(b.frame(2) + 4, out)), "the profile says that it cannot");
        assert!(out.to_vec().iter().all(|v| *v == 0xEE), "refused, and yet something was read");
        return assert_eq!(b.get(b.frame(2) + 4, bytes - 4), pattern(5, bytes)[4..], "copies can");
    }
    b.device.read_frames(b.frame(2) + 4, out).expect("read_frames");
    assert_eq!(out.to_vec(), pattern(5, bytes)[4..]);
}

pub(super) fn cpu_writes<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let from = b.device.slot(Direction::In, 0).slice(0, bytes as usize);
    from.write(&pattern(6, bytes));
    let expected = if b.device.profile().memory.cpu_writes {
        b.device.write_frames(b.frame(3), from).expect("write_frames");
        pattern(6, bytes)
    } else {
        assert!(is_stopped(|| b.device.write_frames(b.frame(3), from)), "the profile says that it cannot");
        words(0, bytes)
    };
    assert_eq!(b.get(b.frame(3), bytes), expected);
    assert_eq!(b.get(b.frame(2), bytes), words(0, bytes), "before what was written");
    assert_eq!(b.get(b.frame(4), bytes), words(0, bytes), "behind what was written");
}

pub(super) fn cpu_writes_before_kernel<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let (buffer, bytes) = (b.buffer(), b.frame(1));
    for round in 1..4 {
        // By the CPU where it can, else by a copy: later submissions see it either way.
        let word = 0x0101_0101 * round;
        let from = b.device.slot(Direction::In, 0).slice(0, bytes as usize);
        from.write(&words(word, bytes));
        if b.device.profile().memory.cpu_writes {
            b.device.write_frames(b.frame(1), from).expect("write_frames");
        } else {
            b.put(b.frame(1), &words(word, bytes));
        }
        b.run(Role::Compute, &[], vec![b.xor(&buffer, b.frame(1), (bytes / 4) as u32, 0x00FF_00FF)]);
        assert_eq!(b.get(b.frame(1), bytes), words(word ^ 0x00FF_00FF, bytes), "round {round}");
    }
}

pub(super) fn control<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let sizes = [4, 256, 300, 70_000];
    let directions = [Direction::In, Direction::Out];
    let make = |(bytes, direction)| (bytes, b.device.control(bytes, direction).expect("control"));
    let all: Vec<_> =
        sizes.into_iter().flat_map(|bytes| directions.map(|to| (bytes, to))).map(make).collect();
    let mut spans = Vec::new();
    for (at, (bytes, control)) in all.iter().enumerate() {
        let (view, address) = b.device.control_at(control);
        assert_eq!(address % 256, 0, "{bytes} bytes at {address:#x}");
        assert_eq!(view.to_vec(), vec![0; *bytes as usize], "fresh control memory");
        view.write(&pattern(at as u8, *bytes));
        spans.push(address..address + bytes);
    }
    spans.sort_by_key(|span| span.start);
    assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start), "control memory overlaps: {spans:x?}");
    // It is no arena memory, and whatever is submitted leaves it alone.
    b.grow();
    for (at, (bytes, control)) in all.iter().enumerate() {
        let (view, address) = b.device.control_at(control);
        assert!(spans.iter().any(|span| span.start == address), "its address stays");
        assert_eq!(view.to_vec(), pattern(at as u8, *bytes), "{bytes} bytes of control memory");
    }
}
