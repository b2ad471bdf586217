//! Sparse buffers: what is bound is what kernels use, in the order of the timelines, at an address that stays.

use super::{Bench, is_stopped, pattern, words};
use crate::{Bind, Command, Device, Exec, Role};
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, Ticket};

impl<X: Exec, D: Device> Bench<X, D> {
    /// Eight frames and a sparse buffer of as many; `None` where the device has none, which it then says to whoever asks.
    fn sparse(&mut self) -> Option<Arc<D::Buffer>> {
        self.grow();
        let bytes = self.frame(8);
        let Some(profile) = self.device.profile().sparse else {
            assert!(
                is_stopped(|| self.device.reserve(bytes)),
                "the profile has no sparse buffers, and here is one"
            );
            return None;
        };
        assert!(
            profile.page_bytes > 0 && self.frame(1) % profile.page_bytes == 0,
            "binds are of whole frames"
        );
        assert!(
            bytes <= profile.buffer_bytes_max && 2 * bytes <= profile.space_bytes,
            "no room for two buffers"
        );
        Some(Arc::new(self.device.reserve(bytes).expect("reserve")))
    }

    /// `count` frames of `buffer` from `at` are the frames of memory from `frame` on; `None`: nothing is there.
    fn stretch(&self, buffer: &Arc<D::Buffer>, at: u64, count: u64, frame: Option<u32>) -> Bind<D> {
        let (offset, bytes) = (self.frame(at), self.frame(count));
        Bind { buffer: Arc::clone(buffer), offset, bytes, frames: frame.map(FrameIndex) }
    }

    fn bind(&mut self, after: &[Ticket], binds: Vec<Bind<D>>) -> Ticket {
        self.submit(Role::Bind, after, vec![Command::Bind { binds }])
    }

    /// Every word of `count` frames of `buffer` from `at`, xor `word`.
    fn flip(&mut self, after: &[Ticket], buffer: &Arc<D::Buffer>, at: u64, count: u64, word: u32) -> Ticket {
        let words = (self.frame(count) / 4) as u32;
        let flip = self.xor(buffer, self.frame(at), words, word);
        self.submit(Role::Compute, after, vec![flip])
    }

    fn expect(&mut self, frame: u64, word: u32, what: &str) {
        let bytes = self.frame(1);
        assert_eq!(self.get(self.frame(frame), bytes), words(word, bytes), "{what}: frame {frame}");
    }
}

pub(super) fn bound<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    let bytes = b.frame(1);
    for n in 0..8 {
        b.put(b.frame(n), &pattern(n as u8, bytes));
    }
    // Neighbours at once, and others, in no order.
    let binds = vec![
        b.stretch(&buffer, 2, 2, Some(4)),
        b.stretch(&buffer, 0, 1, Some(7)),
        b.stretch(&buffer, 1, 1, Some(1)),
    ];
    let bound = b.bind(&[], binds);
    let done = b.flip(&[bound], &buffer, 0, 4, 0x0101_0101);
    b.finish(done);
    for n in 0..8 {
        let mut expected = pattern(n as u8, bytes);
        if [1, 4, 5, 7].contains(&n) {
            expected.iter_mut().for_each(|v| *v ^= 1);
        }
        assert_eq!(b.get(b.frame(n), bytes), expected, "frame {n}");
    }
}

pub(super) fn permuted<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    let places = [6, 3, 0, 5, 2, 7, 4, 1];
    let binds = (0..8).map(|at| b.stretch(&buffer, at, 1, Some(places[at as usize]))).collect();
    let bound = b.bind(&[], binds);
    // One frame of the buffer each, so that each place is told apart.
    let mut last = bound;
    for at in 0..8 {
        last = b.flip(&[bound], &buffer, at, 1, 100 + at as u32);
    }
    // And a stretch that starts and ends inside frames.
    let (start, middle) = (b.frame(3) / 2, (b.frame(3) / 4) as u32);
    let across = b.xor(&buffer, start, middle, 1 << 16);
    b.finish(last);
    b.run(Role::Compute, &[], vec![across]);
    let half = b.frame(1) / 2;
    for at in 0..8_u64 {
        let word = |on: bool| (100 + at as u32) ^ if on { 1 << 16 } else { 0 };
        let (low, high) = (word((2..=4).contains(&at)), word((1..=3).contains(&at)));
        let frame = b.frame(u64::from(places[at as usize]));
        assert_eq!(b.get(frame, half), words(low, half), "the first half of frame {at} of the buffer");
        assert_eq!(
            b.get(frame + half, half),
            words(high, half),
            "the second half of frame {at} of the buffer"
        );
    }
}

pub(super) fn rebound<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    let mut last = vec![b.bind(&[], vec![b.stretch(&buffer, 0, 2, Some(0))])];
    for n in 0..6 {
        let flipped = b.flip(&last, &buffer, 0, 2, 1 << n);
        // What was there goes, and something else comes, at once.
        let binds = vec![b.stretch(&buffer, 0, 2, Some(n + 1)), b.stretch(&buffer, 0, 2, None)];
        last = vec![b.bind(&[flipped], binds)];
    }
    b.finish(last[0]);
    for n in 0..7 {
        let word = |n: u64| if n < 6 { 1 << n } else { 0 };
        let expected = word(n) | if n > 0 { word(n - 1) } else { 0 };
        b.expect(n, expected, "two frames at a time");
    }
}

pub(super) fn handed_on<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(one) = b.sparse() else { return };
    let two = Arc::new(b.device.reserve(b.frame(8)).expect("reserve"));
    let mut last = vec![b.bind(&[], vec![b.stretch(&one, 5, 1, Some(3))])];
    for n in 0..4 {
        let (from, to, at) = if n % 2 == 0 { (&one, &two, 5) } else { (&two, &one, 2) };
        let flipped = b.flip(&last, from, at, 1, 1 << n);
        let gone = b.bind(&[flipped], vec![b.stretch(from, at, 1, None)]);
        let at = 7 - at;
        last = vec![b.bind(&[gone], vec![b.stretch(to, at, 1, Some(3))])];
    }
    b.finish(last[0]);
    b.expect(3, 0b1111, "in one buffer and the other");
    // With its buffer go the binds.
    drop(one);
    let again = b.bind(&[], vec![b.stretch(&two, 0, 1, Some(3))]);
    let done = b.flip(&[again], &two, 0, 1, 1 << 4);
    b.finish(done);
    b.expect(3, 0b1_1111, "after the other buffer is gone");
}

pub(super) fn address<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    let other = Arc::new(b.device.reserve(b.frame(8)).expect("reserve"));
    let (address, bytes) = (b.device.address(&buffer), b.frame(8));
    let other = b.device.address(&other);
    assert!(
        address + bytes <= other || other + bytes <= address,
        "two buffers overlap: {address:#x}, {other:#x}"
    );
    for n in 0..8 {
        let bound = b.bind(&[], vec![b.stretch(&buffer, n, 1, Some(7 - n as u32))]);
        let used = b.flip(&[bound], &buffer, n, 1, 5);
        let gone = b.bind(&[used], vec![b.stretch(&buffer, n, 1, None)]);
        b.finish(gone);
        assert_eq!(b.device.address(&buffer), address, "after {n} binds");
    }
}

pub(super) fn ordered<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    // Nobody waits on the host: every frame in turn under the same place, and each kernel says in which turn it ran.
    let mut last = Vec::new();
    for round in 0..24_u32 {
        let mut binds = vec![b.stretch(&buffer, 4, 1, Some(round % 8))];
        if round > 0 {
            binds.push(b.stretch(&buffer, 4, 1, None));
        }
        let bound = b.bind(&last, binds);
        last = vec![b.flip(&[bound], &buffer, 4, 1, 1 << round)];
    }
    b.finish(last[0]);
    for n in 0..8 {
        b.expect(n, 1 << n | 1 << (n + 8) | 1 << (n + 16), "in three turns");
    }
}

pub(super) fn beside<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let Some(buffer) = b.sparse() else { return };
    let mut bound = vec![b.bind(&[], vec![b.stretch(&buffer, 0, 1, Some(0))])];
    // A stretch is in use all the time, while others come and go.
    let mut last = Vec::new();
    for n in 1..8 {
        b.flip(&bound, &buffer, 0, 1, 1 << n);
        let next = b.bind(&[], vec![b.stretch(&buffer, n, 1, Some(n as u32))]);
        last.push(b.flip(&[next], &buffer, n, 1, 1 << n));
        bound = vec![next];
    }
    last.into_iter().for_each(|ticket| b.finish(ticket));
    b.expect(0, 0b1111_1110, "in use all the time");
    for n in 1..8 {
        b.expect(n, 1 << n, "came later");
    }
}
