//! Views: borrowed parts of managed memory. All that can be done with managed memory is done through a view; `Managed` is the
//! view of a whole allocation that also owns it.

use crate::access::Access;
use crate::error::Error;
use crate::guard::{HostGuard, HostGuardMut};
use crate::hints::{Pin, Prefetch};
use crate::ports::Range;
use crate::runtime::{Inner, slice_failed};
use crate::{AccessKind, Advice, Attributes, PlacementKind, Residency, Result, Side};
use bytemuck::Pod;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::GuardKind;

/// How kernels reach an allocation: [`crate::Managed::placement`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// By what means; [`PlacementKind::Sparse`] and [`PlacementKind::InPlace`] keep one device address for life.
    pub kind: PlacementKind,
    /// Why so, for people.
    pub why: Arc<str>,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PlacementKind::Span => "in spans of frames",
            PlacementKind::Sparse => "in a sparse buffer for life",
            PlacementKind::InPlace => "in place",
        };
        write!(f, "{kind}: {}", self.why)
    }
}

/// Elements `start..start + len` of an allocation, without a borrow: every use is behind a type that has one.
pub(crate) struct Part<T> {
    pub(crate) inner: Arc<Inner>,
    pub(crate) range: Option<Arc<Range>>,
    pub(crate) ptr: NonNull<T>,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            range: self.range.clone(),
            ptr: self.ptr,
            start: self.start,
            len: self.len,
        }
    }
}

impl<T: Pod> Part<T> {
    pub(crate) fn bytes(&self) -> ByteRange {
        let size = size_of::<T>() as u64;
        ByteRange { start: self.start as u64 * size, end: (self.start + self.len) as u64 * size }
    }

    /// # Panics
    /// As slices of std: bounds out of order or past the end.
    pub(crate) fn part(&self, bounds: impl RangeBounds<usize>) -> Self {
        let from = match bounds.start_bound() {
            Bound::Included(s) => *s,
            Bound::Excluded(s) => s.checked_add(1).expect("slice start index past usize::MAX"),
            Bound::Unbounded => 0,
        };
        let to = match bounds.end_bound() {
            Bound::Included(e) => e.checked_add(1).expect("slice end index past usize::MAX"),
            Bound::Excluded(e) => *e,
            Bound::Unbounded => self.len,
        };
        assert!(from <= to, "slice index starts at {from} but ends at {to}");
        assert!(to <= self.len, "range end index {to} out of range for slice of length {}", self.len);
        // SAFETY: `from <= self.len`, so the pointer stays inside (or one past) the part that `self` names.
        let ptr = unsafe { self.ptr.add(from) };
        Self {
            inner: Arc::clone(&self.inner),
            range: self.range.clone(),
            ptr,
            start: self.start + from,
            len: to - from,
        }
    }

    pub(crate) fn bring_home(&self, kind: GuardKind) -> Result<(), vkhmm_engine::EngineError> {
        match &self.range {
            Some(range) => self.inner.engine.bring_home(range, self.bytes(), kind),
            None => Ok(()),
        }
    }

    /// The slice. Where faults bring pages home it is made at once; in `declared` its bytes come home first.
    ///
    /// # Safety
    /// The part is borrowed (shared) for `'a`, so no launch can be given it for writing meanwhile.
    pub(crate) unsafe fn slice<'a>(&self) -> &'a [T] {
        if self.inner.declared {
            if let Err(error) = self.bring_home(GuardKind::Read) {
                slice_failed(&error);
            }
        }
        // SAFETY: R is mapped for the life of the engine, which `inner` keeps; `T: Pod` has no invalid bytes; the caller's
        // borrow keeps writers away. An absent page is a fault that ends when the bytes are there (I6).
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    /// The slice, for writing.
    ///
    /// # Safety
    /// The part is borrowed exclusively for `'a`.
    pub(crate) unsafe fn slice_mut<'a>(&self) -> &'a mut [T] {
        if self.inner.declared {
            if let Err(error) = self.bring_home(GuardKind::Write) {
                slice_failed(&error);
            }
        }
        // SAFETY: as `slice`; the caller's borrow is exclusive, and no page is in two exclusive views (`split_at_mut`).
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    pub(crate) fn placement(&self) -> Placement {
        let (kind, why) = match &self.range {
            Some(range) if self.inner.owned() => range.placement(),
            Some(_) => (PlacementKind::Span, "a forked child runs nothing".into()),
            None => (PlacementKind::InPlace, "it has no bytes".into()),
        };
        Placement { kind, why }
    }

    /// See [`crate::Managed::discard`]. Only for who has the elements to himself.
    pub(crate) fn discard(&self) -> Result<u64> {
        match &self.range {
            Some(range) => Ok(self.inner.engine.discard(range, self.bytes())?),
            None => Ok(0),
        }
    }

    pub(crate) fn access<'a>(&self, kind: AccessKind) -> Access<'a> {
        Access {
            inner: Arc::clone(&self.inner),
            range: self.range.clone(),
            bytes: self.bytes(),
            kind,
            borrow: PhantomData,
        }
    }
}

macro_rules! shared_methods {
    () => {
        /// For a kernel to read. Several launches and host threads may read at a time.
        pub fn read(&self) -> Access<'_> {
            self.part.access(AccessKind::Read)
        }

        /// Elements `bounds`, borrowed.
        ///
        /// # Panics
        /// As slices of std, if the bounds are out of range.
        pub fn slice(&self, bounds: impl RangeBounds<usize>) -> Slice<'_, T> {
            Slice { part: self.part.part(bounds), borrow: PhantomData }
        }

        /// The elements, or the reason why they cannot be had: bytes that were lost with the device.
        ///
        /// # Errors
        /// `Lost`, `DeviceLost`, `OutOfHostMemory`, `ForkedChild`.
        pub fn try_slice(&self) -> Result<&[T]> {
            self.check()?;
            self.part.bring_home(GuardKind::Read)?;
            // SAFETY: the borrow of `self` is the slice's.
            Ok(unsafe { self.part.slice() })
        }

        /// Whether any of the bytes were lost.
        ///
        /// # Errors
        /// `Lost` names the first; `ForkedChild`.
        pub fn check(&self) -> Result<()> {
            match &self.part.range {
                Some(range) => Ok(self.part.inner.engine.check(range, self.part.bytes())?),
                None => Ok(()),
            }
        }

        /// Holds the elements on the host for reading while the guard lives; system calls on it work under every fault engine.
        ///
        /// # Errors
        /// `Lost`, `DeviceLost`, `OutOfHostMemory`, `ForkedChild`.
        pub fn host(&self) -> Result<HostGuard<'_, T>> {
            HostGuard::new(self.part.clone())
        }

        /// Writes all elements, as bytes.
        ///
        /// # Errors
        /// Of the writer, or of [`Self::host`].
        pub fn write_to(&self, writer: &mut impl Write) -> std::io::Result<()> {
            writer.write_all(bytemuck::cast_slice(&self.host()?))
        }

        /// Writes all elements, as bytes, at `offset` of a file.
        ///
        /// # Errors
        /// Of the file, or of [`Self::host`].
        pub fn write_all_at(&self, file: &File, offset: u64) -> std::io::Result<()> {
            file.write_all_at(bytemuck::cast_slice(&self.host()?), offset)
        }

        /// Starts to copy the elements to the device, where they become duplicates: the host keeps reading them. A hint: it returns at
        /// once, takes only device memory that is free or that nobody has used lately, and does what it can; the ticket says
        /// what it left out.
        ///
        /// # Errors
        /// `Lost`, `DeviceLost`, `ForkedChild`.
        pub fn prefetch_to_device(&self) -> Result<Prefetch> {
            self.prefetch(Side::Device)
        }

        /// Starts to bring the elements home; the device's copies stay valid. A hint: it returns at once. What an unfinished launch
        /// writes comes home when that is done.
        ///
        /// # Errors
        /// `Lost`, `ForkedChild`.
        pub fn prefetch_to_host(&self) -> Result<Prefetch> {
            self.prefetch(Side::Host)
        }

        fn prefetch(&self, to: Side) -> Result<Prefetch> {
            let inner = &self.part.inner;
            match &self.part.range {
                Some(range) => {
                    let part = (Arc::clone(range), self.part.bytes());
                    Ok(Prefetch::new(inner, &inner.engine.prefetch(&[part], to)?))
                }
                None => Ok(Prefetch::none(inner)),
            }
        }

        /// Says how the elements are going to be used; a hint about all pages that they touch, until something else is said. Moves
        /// nothing by itself, and changes no result:
        ///
        /// * `PreferredLocation(Host)`: touches bring the whole block home, and its frames are given up first. `(Device)`: touches
        ///   bring home only their 64 KiB, and its frames are given up last.
        /// * `ReadMostly`: a store takes only its 64 KiB from the device, the rest stays duplicated; clean duplicates go before
        ///   other frames.
        /// * `AccessedBy`: kernels work on the host's bytes in place, and nothing moves. Of the whole allocation only, said before its
        ///   first use on the device; otherwise it is noted, and has no effect ([`crate::Attributes::in_place`],
        ///   [`Self::placement`]).
        ///
        /// # Errors
        /// `ForkedChild`.
        pub fn advise(&self, advice: Advice) -> Result<()> {
            match &self.part.range {
                Some(range) => Ok(self.part.inner.engine.advise(range, self.part.bytes(), advice)?),
                None => Ok(()),
            }
        }

        /// Brings the elements home and keeps them there while the pin lives; launches that name them are refused.
        ///
        /// # Errors
        /// As [`Self::host`].
        pub fn pin_to_host(&self) -> Result<Pin> {
            Pin::new(&self.part.inner, self.part.range.as_ref(), self.part.bytes(), Side::Host)
        }

        /// Brings the elements to the device (duplicates, as a prefetch does) and keeps their frames there while the pin lives.
        /// Waits as a launch does, for device memory that earlier launches use.
        ///
        /// # Errors
        /// `WorkingSetTooLarge`, `PinnedApart`, `Guarded`, `Acquired`, `Lost`, `DeviceLost`, `ForkedChild`; nothing is pinned then.
        pub fn pin_to_device(&self) -> Result<Pin> {
            Pin::new(&self.part.inner, self.part.range.as_ref(), self.part.bytes(), Side::Device)
        }

        /// What was said about the elements, what keeps them where, and how many bytes are where: runs of pages about which the same
        /// was said, with byte offsets in the allocation. Faults nothing in.
        ///
        /// # Errors
        /// `ForkedChild`.
        pub fn attributes(&self) -> Result<Vec<Attributes>> {
            match &self.part.range {
                Some(range) => Ok(self.part.inner.engine.attributes(range, self.part.bytes())?),
                None => Ok(Vec::new()),
            }
        }

        /// Where the bytes are: runs of pages in the same state, with byte offsets in the allocation. Faults nothing in.
        ///
        /// # Errors
        /// `ForkedChild`.
        pub fn residency(&self) -> Result<Vec<Residency>> {
            match &self.part.range {
                Some(range) => Ok(self.part.inner.engine.residency(range, self.part.bytes())?),
                None => Ok(Vec::new()),
            }
        }

        /// How kernels reach the allocation, and why so. Fixed when it is made, but for one that was to be used in place and whose
        /// import the driver or the import limit refuses at first use: it moves from then on. Asks nothing of the device.
        pub fn placement(&self) -> Placement {
            self.part.placement()
        }

        /// An access without a borrow, for the C ABI and tests. Bounds are elements.
        ///
        /// # Panics
        /// As slices of std, if the bounds are out of range.
        ///
        /// # Safety
        /// The borrow law is the caller's to keep: until a launch with this access has returned, and for a `write` or
        /// `overwrite` until it is over, no reference to the elements may be used except one whose touch is meant to wait.
        pub unsafe fn raw(&self, kind: AccessKind, bounds: impl RangeBounds<usize>) -> Access<'static> {
            self.part.part(bounds).access(kind)
        }
    };
}

macro_rules! exclusive_methods {
    () => {
        /// For a kernel to read and write.
        pub fn write(&mut self) -> Access<'_> {
            self.part.access(AccessKind::Write)
        }

        /// For a kernel to write; what the elements were is dead, and nothing is copied in. Elements that the kernel leaves out
        /// are unspecified afterwards.
        pub fn overwrite(&mut self) -> Access<'_> {
            self.part.access(AccessKind::Overwrite)
        }

        /// Says that nobody needs what the elements are: nothing of them is copied home, and their device memory is given back as
        /// far as it can be. Pages that are partly others' keep their contents. Until they are written again the elements are
        /// some earlier values of theirs, or zeros. Waits for nothing on the device. Returns the bytes whose copy home is saved.
        ///
        /// # Errors
        /// `Lost`, `ForkedChild`; nothing has changed then.
        pub fn discard(&mut self) -> Result<u64> {
            self.part.discard()
        }

        /// Elements `bounds`, borrowed exclusively.
        ///
        /// # Panics
        /// As slices of std, if the bounds are out of range.
        pub fn slice_mut(&mut self, bounds: impl RangeBounds<usize>) -> SliceMut<'_, T> {
            SliceMut { part: self.part.part(bounds), borrow: PhantomData }
        }

        /// Two exclusive views that different threads, launches or the host may use at once. `mid` must be the first element of a
        /// page, so that no page is ever in both.
        ///
        /// # Errors
        /// `Unaligned`, with the nearest element that is.
        ///
        /// # Panics
        /// As slices of std, if `mid` is past the end.
        pub fn split_at_mut(&mut self, mid: usize) -> Result<(SliceMut<'_, T>, SliceMut<'_, T>)> {
            let (left, right) = (self.part.part(..mid), self.part.part(mid..));
            let size = size_of::<T>().max(1);
            let at = (self.part.start + mid) * size;
            if at % PAGE_BYTES != 0 && mid != self.part.len {
                let step = (PAGE_BYTES / gcd(PAGE_BYTES, size)).max(1);
                let nearest = (self.part.start + mid + step / 2) / step * step;
                return Err(Error::Unaligned { mid, nearest: nearest.saturating_sub(self.part.start) });
            }
            Ok((SliceMut { part: left, borrow: PhantomData }, SliceMut { part: right, borrow: PhantomData }))
        }

        /// Holds the elements on the host for writing while the guard lives; system calls on it work under every fault engine.
        ///
        /// # Errors
        /// `Lost`, `DeviceLost`, `OutOfHostMemory`, `ForkedChild`.
        pub fn host_mut(&mut self) -> Result<HostGuardMut<'_, T>> {
            HostGuardMut::new(self.part.clone())
        }

        /// Reads all elements, as bytes.
        ///
        /// # Errors
        /// Of the reader, or of [`Self::host_mut`].
        pub fn read_from(&mut self, reader: &mut impl Read) -> std::io::Result<()> {
            reader.read_exact(bytemuck::cast_slice_mut(&mut self.host_mut()?))
        }

        /// Reads all elements, as bytes, from `offset` of a file.
        ///
        /// # Errors
        /// Of the file, or of [`Self::host_mut`].
        pub fn read_exact_at(&mut self, file: &File, offset: u64) -> std::io::Result<()> {
            file.read_exact_at(bytemuck::cast_slice_mut(&mut self.host_mut()?), offset)
        }
    };
}
pub(crate) use {exclusive_methods, shared_methods};

pub(crate) const PAGE_BYTES: usize = 4096;

pub(crate) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Part of a [`crate::Managed`], borrowed shared. Derefs to a slice.
pub struct Slice<'a, T> {
    pub(crate) part: Part<T>,
    pub(crate) borrow: PhantomData<&'a [T]>,
}

/// Part of a [`crate::Managed`], borrowed exclusively. Derefs to a slice.
pub struct SliceMut<'a, T> {
    pub(crate) part: Part<T>,
    pub(crate) borrow: PhantomData<&'a mut [T]>,
}

impl<T: Pod> Slice<'_, T> {
    shared_methods!();
}

impl<T: Pod> SliceMut<'_, T> {
    shared_methods!();
    exclusive_methods!();
}

impl<T: Pod> Deref for Slice<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: this view borrows its part shared, and the slice borrows the view.
        unsafe { self.part.slice() }
    }
}

impl<T: Pod> Deref for SliceMut<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: this view borrows its part, and the slice borrows the view.
        unsafe { self.part.slice() }
    }
}

impl<T: Pod> DerefMut for SliceMut<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: this view borrows its part exclusively, and the slice borrows the view exclusively.
        unsafe { self.part.slice_mut() }
    }
}

// SAFETY: a shared view is a `&[T]` with handles that are Send and Sync.
unsafe impl<T: Sync> Send for Slice<'_, T> {}
// SAFETY: a shared view gives out `&[T]` only.
unsafe impl<T: Sync> Sync for Slice<'_, T> {}
// SAFETY: an exclusive view is a `&mut [T]` with handles that are Send and Sync.
unsafe impl<T: Send> Send for SliceMut<'_, T> {}
// SAFETY: a borrowed exclusive view gives out `&[T]` only.
unsafe impl<T: Sync> Sync for SliceMut<'_, T> {}
