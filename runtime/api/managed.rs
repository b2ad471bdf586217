//! Managed memory: what `Vec<T>` becomes when a GPU works on it, too.

use crate::access::Access;
use crate::error::Error;
use crate::guard::{HostGuard, HostGuardMut};
use crate::hints::{Pin, Prefetch};
use crate::ports::Range;
use crate::runtime::{Inner, Owned};
use crate::view::{PAGE_BYTES, Part, Placement, Slice, SliceMut, exclusive_methods, gcd, shared_methods};
use crate::{AccessKind, Advice, Attributes, Residency, Result, Side};
use bytemuck::Pod;
use std::fs::File;
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, RangeBounds};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;
use vkhmm_engine::GuardKind;
use vkhmm_port::HostMemory;

/// A fixed number of elements that host and device share. Derefs to a slice: plain loads and stores, from any thread. While a
/// kernel owns a page the host's view of it is absent; the first touch waits for the kernel and brings that part home.
///
/// `T: Pod` (no padding, no invalid bytes, no interior mutability) is what makes a safe slice next to running kernels sound: a
/// kernel can leave any bytes there, and none that a shared borrow covers can change.
///
/// Dropping never blocks: what the device still uses is reclaimed after its last operation, and the address is not reused before.
pub struct Managed<T> {
    part: Part<T>,
    _owned: Option<Owned>,
}

impl<T: Pod> Managed<T> {
    pub(crate) fn new(inner: Arc<Inner>, range: Option<Arc<Range>>, len: usize) -> Self {
        let ptr = match &range {
            Some(range) => {
                let address = inner.engine.host().base() + range.offset() as usize;
                NonNull::new(std::ptr::with_exposed_provenance_mut(address))
                    .expect("R is not at address zero")
            }
            None => NonNull::dangling(),
        };
        let owned = range.as_ref().map(|range| Owned { inner: Arc::clone(&inner), range: Arc::clone(range) });
        Self { part: Part { inner, range, ptr, start: 0, len }, _owned: owned }
    }

    /// The allocation's label: as given, or the file and line that made it.
    pub fn label(&self) -> &str {
        self.part.range.as_ref().map_or("(empty)", |r| r.label())
    }

    /// The number of elements; touches nothing (unlike `len()` of the slice in `declared`, which brings it home).
    pub fn count(&self) -> usize {
        self.part.len
    }

    /// Address of the first element. Never hand it to a Vulkan entry point. In `declared`, bytes behind it are stale while a
    /// launch has them.
    pub fn as_ptr(&self) -> *const T {
        self.part.ptr.as_ptr()
    }

    /// Address of the first element, for writing. Never hand it to a Vulkan entry point.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.part.ptr.as_ptr()
    }

    /// A host guard without a borrow, for the C ABI. Bounds are elements.
    ///
    /// # Errors
    /// As [`Managed::host`].
    ///
    /// # Panics
    /// As slices of std, if the bounds are out of range.
    ///
    /// # Safety
    /// While the guard is used, this `Managed` lives, and nothing writes the elements.
    pub unsafe fn raw_host(&self, bounds: impl RangeBounds<usize>) -> Result<HostGuard<'static, T>> {
        HostGuard::new(self.part.part(bounds))
    }

    /// A host guard for writing without a borrow, for the C ABI. Bounds are elements.
    ///
    /// # Errors
    /// As [`Managed::host_mut`].
    ///
    /// # Panics
    /// As slices of std, if the bounds are out of range.
    ///
    /// # Safety
    /// While the guard is used, this `Managed` lives, and nothing else uses the elements.
    pub unsafe fn raw_host_mut(&self, bounds: impl RangeBounds<usize>) -> Result<HostGuardMut<'static, T>> {
        HostGuardMut::new(self.part.part(bounds))
    }

    /// [`Managed::discard`] without a borrow, for the C ABI. Bounds are elements.
    ///
    /// # Errors
    /// As [`Managed::discard`].
    ///
    /// # Panics
    /// As slices of std, if the bounds are out of range.
    ///
    /// # Safety
    /// Nothing else uses the elements during the call.
    pub unsafe fn raw_discard(&self, bounds: impl RangeBounds<usize>) -> Result<u64> {
        self.part.part(bounds).discard()
    }

    shared_methods!();
    exclusive_methods!();
}

impl<T: Pod> Deref for Managed<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the slice borrows `self`, which owns the part.
        unsafe { self.part.slice() }
    }
}

impl<T: Pod> DerefMut for Managed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the slice borrows `self` exclusively, which owns the part.
        unsafe { self.part.slice_mut() }
    }
}

impl<T> std::fmt::Debug for Managed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Managed")
            .field("len", &self.part.len)
            .field("ptr", &self.part.ptr)
            .finish_non_exhaustive()
    }
}

// SAFETY: Managed owns its elements as a Vec does; its handles are Send and Sync.
unsafe impl<T: Send> Send for Managed<T> {}
// SAFETY: a borrowed Managed gives out `&[T]` only.
unsafe impl<T: Sync> Sync for Managed<T> {}
