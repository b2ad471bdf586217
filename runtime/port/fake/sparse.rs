//! Sparse buffers of a FakeDevice: which frame lies where and who uses it, and kernels' views, in which scattered frames look like
//! one run of bytes.

use super::locked;
use super::memory::Bytes;
use crate::RawBytes;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What lies in the sparse buffers of one device.
#[derive(Clone, Default)]
pub(super) struct Tables {
    /// Lock: owns the binds · blocks on nothing · never held across a call.
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// Bytes of all buffers.
    taken: u64,
    /// By buffer and frame of it.
    places: BTreeMap<(u64, u32), Place>,
    /// The frames that lie somewhere.
    frames: BTreeMap<u32, (u64, u32)>,
}

/// Where a frame of a buffer is.
#[derive(Clone)]
pub(super) struct Place {
    /// Its number.
    pub(super) frame: u32,
    /// The arena piece, and the frame's first byte in it.
    pub(super) piece: Arc<Bytes>,
    pub(super) within: usize,
    /// Kernels that run on it.
    pub(super) users: u32,
}

/// A sparse buffer. Dropping it ends its binds.
pub(super) struct SparseBuffer {
    id: u64,
    pub(super) bytes: u64,
    tables: Tables,
}

impl Drop for SparseBuffer {
    fn drop(&mut self) {
        let mut inner = locked(&self.tables.inner);
        inner.taken -= self.bytes;
        let here: Vec<_> =
            inner.places.range((self.id, 0)..=(self.id, u32::MAX)).map(|(at, _)| *at).collect();
        for at in here {
            if let Some(place) = inner.places.remove(&at) {
                inner.frames.remove(&place.frame);
            }
        }
    }
}

impl SparseBuffer {
    /// The bytes at `offset` now, with the piece that they are in.
    ///
    /// # Panics
    /// If they are not all in one frame, or nothing lies there.
    pub(super) fn at(&self, offset: u64, bytes: u64, frame_bytes: u64) -> (RawBytes, Arc<Bytes>) {
        let parts = self.tables.find(self, &(offset..offset + bytes), frame_bytes);
        let [part] = &parts[..] else {
            panic!("{bytes} bytes at {offset:#x} of a sparse buffer are not in one place")
        };
        (part.raw(), Arc::clone(&part.piece))
    }
}

/// A stretch of a buffer that changes: its frames, or none from now on.
pub(super) struct Change {
    pub(super) buffer: Arc<SparseBuffer>,
    pub(super) at: Range<u32>,
    pub(super) places: Option<Vec<Place>>,
}

impl Tables {
    /// A buffer of `bytes` bytes in which nothing lies; `None` if all of them would have more than `space` bytes.
    pub(super) fn reserve(&self, bytes: u64, space: u64) -> Option<Arc<SparseBuffer>> {
        let mut inner = locked(&self.inner);
        if inner.taken + bytes > space {
            return None;
        }
        inner.taken += bytes;
        inner.next += 1;
        Some(Arc::new(SparseBuffer { id: inner.next, bytes, tables: self.clone() }))
    }

    /// Frames that lie in some buffer.
    pub(super) fn bound(&self) -> usize {
        locked(&self.inner).frames.len()
    }

    /// Performs one bind submission: first what goes, then what comes.
    ///
    /// # Panics
    /// If a stretch is in use, has nothing to lose or has something already, or a frame lies somewhere else.
    pub(super) fn apply(&self, changes: &[Change]) {
        let mut inner = locked(&self.inner);
        for change in changes.iter().filter(|change| change.places.is_none()) {
            for at in change.at.clone() {
                let place = inner.places.remove(&(change.buffer.id, at));
                let place = place.unwrap_or_else(|| {
                    panic!("frame {at} of a sparse buffer is unbound, but nothing lies there")
                });
                assert_eq!(
                    place.users, 0,
                    "a bind of a stretch in use: a kernel runs on frame {at} of the buffer"
                );
                inner.frames.remove(&place.frame);
            }
        }
        for change in changes {
            for (at, place) in change.at.clone().zip(change.places.iter().flatten()) {
                if let Some(old) = inner.places.get(&(change.buffer.id, at)) {
                    panic!(
                        "frame {at} of a sparse buffer is bound, but frame {} of memory lies there",
                        old.frame
                    );
                }
                if let Some((_, other)) = inner.frames.insert(place.frame, (change.buffer.id, at)) {
                    panic!(
                        "frame {} of memory is bound, but lies at frame {other} of a sparse buffer",
                        place.frame
                    );
                }
                inner.places.insert((change.buffer.id, at), place.clone());
            }
        }
    }

    /// Counts a kernel in or out of a stretch.
    fn count(&self, buffer: &SparseBuffer, at: Range<u32>, come: bool) {
        let mut inner = locked(&self.inner);
        for (_, place) in inner.places.range_mut((buffer.id, at.start)..(buffer.id, at.end)) {
            place.users = if come { place.users + 1 } else { place.users.saturating_sub(1) };
        }
    }

    /// Where the bytes of a stretch are, in order: piece, first byte in it, length.
    ///
    /// # Panics
    /// If some of them are nowhere.
    fn find(&self, buffer: &SparseBuffer, bytes: &Range<u64>, frame_bytes: u64) -> Vec<Part> {
        let inner = locked(&self.inner);
        let mut parts: Vec<Part> = Vec::new();
        let mut at = bytes.start;
        while at < bytes.end {
            let index = (at / frame_bytes) as u32;
            let Some(place) = inner.places.get(&(buffer.id, index)) else {
                panic!("a kernel reads what is not resident: frame {index} of a sparse buffer")
            };
            let end = (u64::from(index) + 1) * frame_bytes;
            let len = (end.min(bytes.end) - at) as usize;
            let start = place.within + (at % frame_bytes) as usize;
            match parts.last_mut() {
                Some(last) if Arc::ptr_eq(&last.piece, &place.piece) && last.start + last.len == start => {
                    last.len += len;
                }
                _ => parts.push(Part { piece: Arc::clone(&place.piece), start, len }),
            }
            at = end;
        }
        parts
    }
}

/// A run of bytes of one arena piece.
struct Part {
    piece: Arc<Bytes>,
    start: usize,
    len: usize,
}

impl Part {
    fn raw(&self) -> RawBytes {
        self.piece.raw().slice(self.start, self.len)
    }
}

/// What a kernel was given for one binding.
pub(super) enum Binding {
    Bytes(RawBytes),
    Sparse { buffer: Arc<SparseBuffer>, bytes: Range<u64> },
}

/// What a kernel sees while it runs: every binding as one run of bytes. Bindings that overlap stay one memory.
pub(super) struct View {
    pub(super) bindings: Vec<RawBytes>,
    stretches: Vec<Stretch>,
    frame_bytes: u64,
}

/// Bytes of a sparse buffer that bindings name.
struct Stretch {
    buffer: Arc<SparseBuffer>,
    bytes: Range<u64>,
    parts: Vec<Part>,
    /// A copy where the parts are apart, and what it was before the kernel ran.
    copy: Option<(Bytes, Vec<u8>)>,
}

impl Stretch {
    fn frames(&self, frame_bytes: u64) -> Range<u32> {
        (self.bytes.start / frame_bytes) as u32..self.bytes.end.div_ceil(frame_bytes) as u32
    }

    fn raw(&self) -> RawBytes {
        self.copy.as_ref().map_or_else(|| self.parts[0].raw(), |(copy, _)| copy.raw())
    }
}

impl View {
    /// Looks up what lies there now. `unordered`: what earlier commands write with no barrier since.
    ///
    /// # Panics
    /// If something is not resident, or among `unordered`.
    pub(super) fn open(bindings: &[Binding], frame_bytes: u64, unordered: &[RawBytes]) -> Self {
        let mut wanted: Vec<(&Arc<SparseBuffer>, Range<u64>)> = Vec::new();
        for binding in bindings {
            if let Binding::Sparse { buffer, bytes } = binding {
                wanted.push((buffer, bytes.clone()));
            }
        }
        wanted.sort_by_key(|(buffer, bytes)| (buffer.id, bytes.start));
        wanted.dedup_by(|(buffer, bytes), (before, known)| {
            let joined = before.id == buffer.id && bytes.start < known.end;
            if joined {
                known.end = known.end.max(bytes.end);
            }
            joined
        });
        let mut view = Self { bindings: Vec::new(), stretches: Vec::new(), frame_bytes };
        for (buffer, bytes) in wanted {
            let parts = buffer.tables.find(buffer, &bytes, frame_bytes);
            for part in &parts {
                let clash = super::steps::hits(unordered, part.raw());
                assert!(
                    !clash,
                    "Dispatch reads what an earlier command writes, with no barrier between them"
                );
            }
            let mut stretch = Stretch { buffer: Arc::clone(buffer), bytes, parts, copy: None };
            if stretch.parts.len() > 1 {
                let before: Vec<u8> = stretch.parts.iter().flat_map(|part| part.raw().to_vec()).collect();
                let copy = Bytes::new(before.len() as u64);
                copy.raw().slice(0, before.len()).write(&before);
                stretch.copy = Some((copy, before));
            }
            buffer.tables.count(buffer, stretch.frames(frame_bytes), true);
            view.stretches.push(stretch);
        }
        view.bindings = bindings.iter().map(|binding| view.bytes_of(binding)).collect();
        view
    }

    fn bytes_of(&self, binding: &Binding) -> RawBytes {
        match binding {
            Binding::Bytes(bytes) => *bytes,
            Binding::Sparse { buffer, bytes } => {
                let holds = |s: &&Stretch| s.buffer.id == buffer.id && s.bytes.contains(&bytes.start);
                let stretch = self.stretches.iter().find(holds).expect("every binding is in a stretch");
                let at = (bytes.start - stretch.bytes.start) as usize;
                stretch.raw().slice(at, (bytes.end - bytes.start) as usize)
            }
        }
    }

    /// The kernel is through: what it changed in copies goes to where the bytes are.
    ///
    /// # Panics
    /// If somebody else changed them meanwhile.
    pub(super) fn close(self) {
        for stretch in &self.stretches {
            let Some((copy, before)) = &stretch.copy else { continue };
            let mut at = 0;
            for part in &stretch.parts {
                let (old, new) = (&before[at..at + part.len], copy.raw().slice(at, part.len));
                assert!(part.raw().to_vec() == old, "somebody writes what a kernel uses");
                if new.to_vec() != old {
                    part.raw().copy_from(new);
                }
                at += part.len;
            }
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        for stretch in &self.stretches {
            stretch.buffer.tables.count(&stretch.buffer, stretch.frames(self.frame_bytes), false);
        }
    }
}
