//! Kernels that work on imported host bytes where they are.

use super::copies::imported;
use super::{Bench, is_stopped, pattern, words};
use crate::{Device, Exec, RawBytes, Role};
use std::sync::Arc;

/// Host bytes, imported, and a buffer over them; `None` where the profile says that there is no such thing, and that it is so.
fn host<X: Exec, D: Device>(b: &Bench<X, D>, bytes: u64) -> Option<(RawBytes, Arc<D::Buffer>)> {
    let (span, import) = imported(b, bytes)?;
    if b.device.profile().in_place_bytes_max.is_none_or(|max| (span.len() as u64) > max) {
        assert!(is_stopped(|| b.device.in_place(&import)), "the profile says that it cannot");
        return None;
    }
    let buffer = Arc::new(b.device.in_place(&import).expect("in_place"));
    Some((span, buffer))
}

pub(super) fn works<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let bytes = b.frame(1);
    let Some((span, buffer)) = host(&b, bytes) else { return };
    let span = span.slice(0, bytes as usize);
    for round in 0..3 {
        // Written by the CPU before the submission, read by it once the ticket is reached.
        let old = pattern(round, bytes);
        span.write(&old);
        let count = (bytes / 4) as u32;
        b.run(Role::Compute, &[], vec![b.xor(&buffer, 0, count, 0x0101_0101)]);
        let new: Vec<u8> = old.iter().map(|v| v ^ 1).collect();
        assert_eq!(span.to_vec(), new, "round {round}");
    }
    // What one submission wrote, the next one reads.
    let all = (bytes / 4) as u32;
    b.submit(Role::Compute, &[], vec![b.xor(&buffer, 0, all, 0x0606_0606)]);
    b.run(Role::Compute, &[], vec![b.xor(&buffer, 0, all, 0x0303_0303)]);
    let left: Vec<u8> = pattern(2, bytes).iter().map(|v| v ^ 1 ^ 6 ^ 3).collect();
    assert_eq!(span.to_vec(), left);
}

pub(super) fn bounds<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let step = b.device.profile().binding_alignment_bytes.max(4);
    let Some((span, buffer)) = host(&b, step + 12) else { return };
    let length = (step + 12) as usize;
    span.slice(0, length).fill(0);
    b.run(Role::Compute, &[], vec![b.xor(&buffer, step, 2, 9)]);
    let mut expected = words(0, step + 12);
    expected[step as usize..step as usize + 8].copy_from_slice(&words(9, 8));
    assert_eq!(span.slice(0, length).to_vec(), expected);
}

pub(super) fn keeps<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let bytes = b.frame(1);
    let mut all = Vec::new();
    let mut last = None;
    for n in 0..4 {
        // The buffer has the only reference to its import, and the submission the only one to the buffer.
        let Some((span, buffer)) = host(&b, bytes) else { return };
        span.slice(0, bytes as usize).write(&pattern(n, bytes));
        let dispatch = b.xor(&buffer, 0, (bytes / 4) as u32, 0x0404_0404);
        drop(buffer);
        last = Some(b.submit(Role::Compute, &[], vec![dispatch]));
        all.push(span);
    }
    b.finish(last.expect("four rounds"));
    for (n, span) in all.into_iter().enumerate() {
        let expected: Vec<u8> = pattern(n as u8, bytes).iter().map(|v| v ^ 4).collect();
        assert_eq!(span.slice(0, bytes as usize).to_vec(), expected, "span {n}");
    }
}
