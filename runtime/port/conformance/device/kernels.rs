//! Launches, and what submissions keep alive.

use super::copies::imported;
use super::{Bench, pattern, words};
use crate::{BoundRange, Command, Device, Direction, Exec, Region, Role, Source, Target};
use core::sync::atomic::Ordering;
use std::sync::Arc;
use vkhmm_core::units::FrameIndex;

pub(super) fn keeps<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let mut last = None;
    let imports = b.device.profile().import.is_some();
    for n in 0..8 {
        // The submission has the only reference to the import, and to the buffer.
        if let Some((span, import)) = imported(&b, bytes) {
            span.slice(0, bytes as usize).write(&pattern(n as u8, bytes));
            let regions = vec![Region { host_offset: 0, device_offset: b.frame(n), bytes }];
            let copy = Command::CopyIn { source: Source::Import(import), regions };
            b.submit(Role::Compute, &[], vec![copy]);
        }
        let buffer = b.buffer();
        let twice = vec![b.xor(&buffer, 0, 4, 77), Command::Barrier, b.xor(&buffer, 0, 4, 77)];
        drop(buffer);
        last = Some(b.submit(Role::Compute, &[], twice));
    }
    b.finish(last.expect("eight rounds"));
    for n in 0..8 {
        // What was imported, or the zeros of the start: twice the same xor changes nothing.
        let expected = if imports { pattern(n as u8, bytes) } else { words(0, bytes) };
        assert_eq!(b.get(b.frame(n), bytes), expected, "frame {n}");
    }
}

pub(super) fn kernel<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let buffer = b.buffer();
    let all = (b.frame(8) / 4) as u32;
    // Two launches with a barrier, then a third in a submission of its own.
    b.run(Role::Compute, &[], vec![b.xor(&buffer, 0, all, 1), Command::Barrier, b.xor(&buffer, 0, all, 2)]);
    b.run(Role::Compute, &[], vec![b.xor(&buffer, 0, all, 4)]);
    for n in 0..8 {
        assert_eq!(b.get(b.frame(n), b.frame(1)), words(7, b.frame(1)), "frame {n}");
    }
    drop(buffer);
    b.device.shrink(FrameIndex(0));
}

pub(super) fn kernel_after_copy<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let (buffer, bytes) = (b.buffer(), b.frame(1));
    b.device.slot(Direction::In, 0).slice(0, bytes as usize).write(&words(0xF0, bytes));
    let region = vec![Region { host_offset: 0, device_offset: 0, bytes }];
    let commands = vec![
        Command::CopyIn { source: Source::Slot(0), regions: region.clone() },
        Command::Barrier,
        b.xor(&buffer, 0, (bytes / 4) as u32, 0x0F),
        Command::Barrier,
        Command::CopyOut { target: Target::Slot(0), regions: region },
    ];
    b.run(Role::Compute, &[], commands);
    assert_eq!(b.device.slot(Direction::Out, 0).slice(0, bytes as usize).to_vec(), words(0xFF, bytes));
}

pub(super) fn kernel_bounds<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let (buffer, step) = (b.buffer(), b.device.profile().binding_alignment_bytes.max(4));
    b.run(Role::Compute, &[], vec![b.xor(&buffer, step, 2, 9)]);
    let got = b.get(0, step + 12);
    let mut expected = words(0, step + 12);
    expected[step as usize..step as usize + 8].copy_from_slice(&words(9, 8));
    assert_eq!(got, expected);
}

pub(super) fn null_binding<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let nothing = BoundRange { buffer: None, offset: 0, bytes: 0 };
    b.run(Role::Compute, &[], vec![b.dispatch(nothing, 0, 1)]);
    assert_eq!(b.get(0, b.frame(1)), words(0, b.frame(1)));
}

pub(super) fn groups<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let (buffer, bytes) = (b.buffer(), b.frame(1));
    let mut expected = words(0, bytes);
    for (count, word) in [(1, 3), (2, 5), (7, 9)] {
        let mut dispatch = b.xor(&buffer, 0, (bytes / 4) as u32, word);
        if let Command::Dispatch { groups, .. } = &mut dispatch {
            *groups = [count, 1, 1];
        }
        b.run(Role::Compute, &[], vec![dispatch]);
        expected.chunks_exact_mut(4).for_each(|w| w[0] ^= word as u8);
        assert_eq!(b.get(0, bytes), expected, "with {count} groups");
    }
}

pub(super) fn elapsed<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let buffer = b.buffer();
    let start = b.exec.now();
    for _ in 0..3 {
        let dispatch = b.xor(&buffer, 0, 4, 1);
        let Command::Dispatch { elapsed_ns, .. } = &dispatch else { unreachable!("xor is a dispatch") };
        let elapsed_ns = Arc::clone(elapsed_ns);
        assert_eq!(elapsed_ns.load(Ordering::Acquire), 0);
        b.run(Role::Compute, &[], vec![dispatch]);
        // Zero where there is no clock.
        let (took, whole) = (elapsed_ns.load(Ordering::Acquire), b.exec.now() - start);
        assert!(took <= whole.max(1), "a kernel took {took} ns of {whole}");
    }
}
