//! Launches, and what submissions keep alive.

use super::memory::imported;
use super::{Bench, NO_KERNEL, pattern, words};
use crate::conformance::Outcome;
use crate::{BoundRange, Command, Device, Direction, Exec, Region, Role, Source, Target};
use vkhmm_core::units::FrameIndex;

pub(super) fn keeps<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    b.grow();
    let bytes = b.frame(1);
    let mut last = None;
    for n in 0..8 {
        // The submission has the only reference to the import, and to the buffer.
        if let Some((span, import)) = imported(&b, bytes) {
            span.slice(0, bytes as usize).write(&pattern(n as u8, bytes));
            let regions = vec![Region { host_offset: 0, device_offset: b.frame(n), bytes }];
            let copy = Command::CopyIn { source: Source::Import(import), regions };
            last = Some(b.submit(Role::Compute, &[], vec![copy]));
        }
        if b.xor.is_some() {
            let buffer = b.buffer();
            let twice = vec![b.xor(&buffer, 0, 4, 77), Command::Barrier, b.xor(&buffer, 0, 4, 77)];
            drop(buffer);
            last = Some(b.submit(Role::Compute, &[], twice));
        }
    }
    let Some(last) = last else {
        return Outcome::Skipped("this device imports nothing, and the factory gave no kernel");
    };
    b.finish(last);
    if b.device.profile().import.is_some() && b.importable.is_some() {
        (0..8).for_each(|n| assert_eq!(b.get(b.frame(n), bytes), pattern(n as u8, bytes), "frame {n}"));
    }
    Outcome::Ran
}

pub(super) fn kernel<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if b.xor.is_none() {
        return NO_KERNEL;
    }
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
    Outcome::Ran
}

pub(super) fn kernel_after_copy<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if b.xor.is_none() {
        return NO_KERNEL;
    }
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
    Outcome::Ran
}

pub(super) fn kernel_bounds<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if b.xor.is_none() {
        return NO_KERNEL;
    }
    b.grow();
    let (buffer, step) = (b.buffer(), b.device.profile().binding_alignment_bytes.max(4));
    b.run(Role::Compute, &[], vec![b.xor(&buffer, step, 2, 9)]);
    let got = b.get(0, step + 12);
    let mut expected = words(0, step + 12);
    expected[step as usize..step as usize + 8].copy_from_slice(&words(9, 8));
    assert_eq!(got, expected);
    Outcome::Ran
}

pub(super) fn null_binding<X: Exec, D: Device>(mut b: Bench<X, D>) -> Outcome {
    if b.xor.is_none() {
        return NO_KERNEL;
    }
    b.grow();
    let nothing = BoundRange { buffer: None, offset: 0, bytes: 0 };
    b.run(Role::Compute, &[], vec![b.dispatch(nothing, 0, 1)]);
    assert_eq!(b.get(0, b.frame(1)), words(0, b.frame(1)));
    Outcome::Ran
}
