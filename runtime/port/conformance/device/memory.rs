//! Pieces, buffers, slots, and the ways bytes go.

use super::{Bench, NO_IMPORT, pattern, words};
use crate::conformance::Outcome;
use crate::{Command, Device, Direction, Exec, RawBytes, Region, Role, Source, Target};
use std::collections::BTreeSet;
use std::sync::Arc;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_core::uses::Uses;

pub(super) fn profile<X: Exec, D: Device>(b: Bench<X, D>) -> Outcome {
    let p = b.device.profile();
    let distinct: BTreeSet<u8> = p.timelines.iter().map(|t| t.0).collect();
    assert_eq!(distinct.len(), usize::from(p.timeline_count), "as many timelines as it says");
    assert!(distinct.iter().all(|t| usize::from(*t) < Uses::TIMELINES_MAX));
    assert!(p.staging.slots >= 1 && p.staging.slot_bytes >= b.geometry.block_bytes(), "a slot holds a block");
    assert!(p.regions_max >= 1 && p.piece_bytes_max >= b.geometry.frame_bytes() && p.limit_bytes_default > 0);
    assert!(p.binding_alignment_bytes.is_power_of_two());
    let m = p.memory;
    assert!(m.flags.contains(PagemapFlags::DEVICE_MEMORY));
    assert_eq!(m.flags.contains(PagemapFlags::UNADDRESSABLE), m.kind == MemoryKind::DevicePrivate);
    assert_eq!(m.flags.contains(PagemapFlags::HOST_READABLE), m.cpu_reads);
    assert_eq!(m.flags.contains(PagemapFlags::HOST_WRITABLE), m.cpu_writes);
    Outcome::Ran
}

pub(super) fn pieces<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
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
    Outcome::Ran
}

pub(super) fn buffers<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    let make = |first, count| b.device.buffer(FrameRun { first: FrameIndex(first), count }).expect("buffer");
    let (low, high, both) = (make(0, 1), make(1, 3), make(0, 4));
    let (low_at, high_at) = (b.device.address(&low), b.device.address(&high));
    let apart = low_at + b.frame(1) <= high_at || high_at + b.frame(3) <= low_at;
    assert!(apart, "buffers over different frames overlap: {low_at:#x}, {high_at:#x}");
    assert_ne!(b.device.address(&both), high_at);
    drop((low, high, both));
    b.device.shrink(FrameIndex(0));
    Outcome::Ran
}

pub(super) fn slots<X: Exec, D: Device>(b: Bench<X, D>) -> Outcome {
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
    Outcome::Ran
}

pub(super) fn staging<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    let bytes = b.frame(1);
    for n in 0..8 {
        b.put(b.frame(n), &pattern(n as u8, bytes));
    }
    for n in 0..8 {
        assert_eq!(b.get(b.frame(n), bytes), pattern(n as u8, bytes), "frame {n}");
    }
    Outcome::Ran
}

pub(super) fn regions<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    // Four bytes each, into every second word, in reverse.
    let slot_words = b.device.profile().staging.slot_bytes / 4;
    let count = u64::from(b.device.profile().regions_max).min(b.frame(8) / 8).min(slot_words).min(4096);
    let regions: Vec<_> = (0..count)
        .map(|i| Region { host_offset: 4 * i, device_offset: 8 * (count - 1 - i), bytes: 4 })
        .collect();
    let bytes = pattern(3, 4 * count);
    b.device.slot(Direction::In, 0).slice(0, bytes.len()).write(&bytes);
    b.run(Role::CopyIn, &[], vec![Command::CopyIn { source: Source::Slot(0), regions: regions.clone() }]);
    for i in 0..count.min(3) {
        let at = 8 * (count - 1 - i);
        let expected = [&bytes[4 * i as usize..4 * i as usize + 4], &[0; 4]].concat();
        assert_eq!(b.get(at, 8), expected, "region {i}");
    }
    b.device.slot(Direction::Out, 0).fill(0);
    b.run(Role::CopyOut, &[], vec![Command::CopyOut { target: Target::Slot(0), regions }]);
    assert_eq!(b.device.slot(Direction::Out, 0).slice(0, bytes.len()).to_vec(), bytes);
    Outcome::Ran
}

pub(super) fn imported<X: Exec, D: Device>(
    b: &Bench<X, D>,
    bytes: u64,
) -> Option<(RawBytes, Arc<D::Import>)> {
    let alignment = b.device.profile().import?.alignment_bytes;
    let span = (b.importable.as_ref()?)(bytes.next_multiple_of(alignment));
    Some((span, Arc::new(b.device.import(span).expect("import"))))
}

pub(super) fn import<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    let Some((span, import)) = imported(&b, b.frame(8)) else {
        return NO_IMPORT;
    };
    b.grow();
    let bytes = b.frame(1);
    span.slice(0, bytes as usize * 2).write(&pattern(9, bytes * 2));
    // The two frames cross over on the way in, and again on the way out: as many regions as are allowed at a time.
    let cross = [
        Region { host_offset: 0, device_offset: b.frame(5), bytes },
        Region { host_offset: bytes, device_offset: b.frame(4), bytes },
    ];
    for regions in cross.chunks(b.device.profile().regions_max.min(2) as usize) {
        let source = Source::Import(Arc::clone(&import));
        b.run(Role::CopyIn, &[], vec![Command::CopyIn { source, regions: regions.to_vec() }]);
    }
    assert_eq!(b.get(b.frame(5), bytes), pattern(9, bytes * 2)[..bytes as usize]);
    let regions = vec![Region { host_offset: 3 * bytes, device_offset: b.frame(4), bytes: bytes * 2 }];
    let target = Target::Import(Arc::clone(&import));
    b.run(Role::CopyOut, &[], vec![Command::CopyOut { target, regions }]);
    let mut crossed = pattern(9, bytes * 2);
    crossed.rotate_left(bytes as usize);
    assert_eq!(span.slice(3 * bytes as usize, 2 * bytes as usize).to_vec(), crossed);
    Outcome::Ran
}

pub(super) fn import_is_live<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    let Some((span, import)) = imported(&b, b.frame(1)) else {
        return NO_IMPORT;
    };
    b.grow();
    let bytes = b.frame(1);
    for seed in 0..4 {
        span.slice(0, bytes as usize).write(&pattern(seed, bytes));
        let regions = vec![Region { host_offset: 0, device_offset: 0, bytes }];
        let source = Source::Import(Arc::clone(&import));
        b.run(Role::CopyIn, &[], vec![Command::CopyIn { source, regions }]);
        assert_eq!(b.get(0, bytes), pattern(seed, bytes), "what the CPU wrote after the import");
    }
    Outcome::Ran
}

pub(super) fn fill<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    let bytes = b.frame(1);
    let whole = Command::Fill { device_offset: b.frame(1), bytes: b.frame(2), word: 0x0403_0201 };
    b.run(Role::Compute, &[], vec![whole]);
    let part = Command::Fill { device_offset: b.frame(1) + 8, bytes: 4, word: u32::MAX };
    b.run(Role::Compute, &[], vec![part]);
    let mut expected = words(0x0403_0201, bytes);
    expected[8..12].fill(0xFF);
    assert_eq!(b.get(b.frame(1), bytes), expected);
    assert_eq!(b.get(b.frame(2), bytes), words(0x0403_0201, bytes));
    assert_eq!(b.get(0, bytes), words(0, bytes), "before the fill");
    assert_eq!(b.get(b.frame(3), bytes), words(0, bytes), "behind the fill");
    Outcome::Ran
}

pub(super) fn moves<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    let bytes = b.frame(1);
    (0..4).for_each(|n| b.put(b.frame(n), &pattern(n as u8, bytes)));
    let reversed: Vec<_> =
        (0..4).map(|n| Region { host_offset: b.frame(n), device_offset: b.frame(7 - n), bytes }).collect();
    for regions in reversed.chunks(b.device.profile().regions_max.min(4) as usize) {
        b.run(Role::Compute, &[], vec![Command::Move { regions: regions.to_vec() }]);
    }
    for n in 0..4 {
        assert_eq!(b.get(b.frame(7 - n), bytes), pattern(n as u8, bytes), "frame {n} arrived");
        assert_eq!(b.get(b.frame(n), bytes), pattern(n as u8, bytes), "frame {n} stayed");
    }
    Outcome::Ran
}

pub(super) fn cpu_reads<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if !b.device.profile().memory.cpu_reads {
        return Outcome::Skipped("the CPU cannot read this memory");
    }
    b.grow();
    let bytes = b.frame(1);
    b.put(b.frame(2), &pattern(5, bytes));
    let out = b.device.slot(Direction::Out, 0).slice(0, bytes as usize - 4);
    b.device.read_frames(b.frame(2) + 4, out).expect("read_frames");
    assert_eq!(out.to_vec(), pattern(5, bytes)[4..]);
    Outcome::Ran
}

pub(super) fn cpu_writes<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if !b.device.profile().memory.cpu_writes {
        return Outcome::Skipped("the CPU cannot write this memory");
    }
    b.grow();
    let bytes = b.frame(1);
    let from = b.device.slot(Direction::In, 0).slice(0, bytes as usize);
    from.write(&pattern(6, bytes));
    b.device.write_frames(b.frame(3), from).expect("write_frames");
    assert_eq!(b.get(b.frame(3), bytes), pattern(6, bytes));
    assert_eq!(b.get(b.frame(4), bytes), words(0, bytes), "behind what was written");
    Outcome::Ran
}
