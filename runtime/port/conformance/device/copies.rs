//! The ways that bytes go: slots, imports, fills, moves.

use super::{Bench, is_stopped, pattern, words};
use crate::{Command, Device, Direction, Exec, RawBytes, Region, Role, Source, Target};
use std::sync::Arc;

pub(super) fn imported<X: Exec, D: Device>(
    b: &Bench<X, D>,
    bytes: u64,
) -> Option<(RawBytes, Arc<D::Import>)> {
    let alignment = b.device.profile().import?.alignment_bytes;
    let span = (b.importable)(bytes.next_multiple_of(alignment));
    Some((span, Arc::new(b.device.import(span).expect("import"))))
}

pub(super) fn staging<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    for n in 0..8 {
        b.put(b.frame(n), &pattern(n as u8, bytes));
    }
    for n in 0..8 {
        assert_eq!(b.get(b.frame(n), bytes), pattern(n as u8, bytes), "frame {n}");
    }
}

pub(super) fn named_slots<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let (bytes, slots) = (b.frame(1), b.device.profile().staging.slots);
    let of = |slot: u32| pattern(40 + slot as u8, bytes);
    for slot in 0..slots {
        b.device.slot(Direction::In, slot).slice(0, bytes as usize).write(&of(slot));
        b.device.slot(Direction::Out, slot).fill(0);
    }
    let region =
        |slot: u32| vec![Region { host_offset: 0, device_offset: u64::from(slot % 8) * bytes, bytes }];
    for slot in 0..slots {
        let copy = Command::CopyIn { source: Source::Slot(slot), regions: region(slot) };
        b.run(Role::CopyIn, &[], vec![copy]);
        let copy = Command::CopyOut { target: Target::Slot(slot), regions: region(slot) };
        b.run(Role::CopyOut, &[], vec![copy]);
    }
    for slot in 0..slots {
        let got = b.device.slot(Direction::Out, slot).slice(0, bytes as usize).to_vec();
        assert_eq!(got, of(slot), "slot {slot}");
    }
}

pub(super) fn regions<X: Exec, D: Device>(mut b: Bench<X, D>) {
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
}

pub(super) fn import<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    // The two frames cross over on the way in, and again on the way out: as many regions as are allowed at a time.
    let cross = [
        Region { host_offset: 0, device_offset: b.frame(5), bytes },
        Region { host_offset: bytes, device_offset: b.frame(4), bytes },
    ];
    let regions_max = b.device.profile().regions_max.min(2) as usize;
    let back = vec![Region { host_offset: 3 * bytes, device_offset: b.frame(4), bytes: bytes * 2 }];
    let mut crossed = pattern(9, bytes * 2);
    crossed.rotate_left(bytes as usize);
    let Some((span, import)) = imported(&b, b.frame(8)) else {
        // Refused, and frames are not touched; what imports would do slots do, in pieces of what fits one.
        let span = (b.importable)(bytes);
        assert!(is_stopped(|| b.device.import(span)), "imported, though the profile says that it cannot");
        b.put(b.frame(5), &pattern(9, bytes * 2)[..bytes as usize]);
        b.put(b.frame(4), &pattern(9, bytes * 2)[bytes as usize..]);
        let got = [b.get(b.frame(4), bytes), b.get(b.frame(5), bytes)].concat();
        return assert_eq!(got, crossed);
    };
    span.slice(0, bytes as usize * 2).write(&pattern(9, bytes * 2));
    for regions in cross.chunks(regions_max) {
        let source = Source::Import(Arc::clone(&import));
        b.run(Role::CopyIn, &[], vec![Command::CopyIn { source, regions: regions.to_vec() }]);
    }
    assert_eq!(b.get(b.frame(5), bytes), pattern(9, bytes * 2)[..bytes as usize]);
    let target = Target::Import(Arc::clone(&import));
    b.run(Role::CopyOut, &[], vec![Command::CopyOut { target, regions: back }]);
    assert_eq!(span.slice(3 * bytes as usize, 2 * bytes as usize).to_vec(), crossed);
}

pub(super) fn is_live<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let imported = imported(&b, bytes);
    for seed in 0..4 {
        let slot = b.device.slot(Direction::In, 0);
        let (span, source) = match &imported {
            Some((span, import)) => (*span, Source::Import(Arc::clone(import))),
            None => (slot, Source::Slot(0)),
        };
        span.slice(0, bytes as usize).write(&pattern(seed, bytes));
        let regions = vec![Region { host_offset: 0, device_offset: 0, bytes }];
        b.run(Role::CopyIn, &[], vec![Command::CopyIn { source, regions }]);
        assert_eq!(b.get(0, bytes), pattern(seed, bytes), "what the CPU wrote since the last copy");
    }
}

pub(super) fn fill<X: Exec, D: Device>(mut b: Bench<X, D>) {
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
}

pub(super) fn moves<X: Exec, D: Device>(mut b: Bench<X, D>) {
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
}
