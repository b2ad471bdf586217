//! Memory of the fakes: plain zeroed allocations, and the record of which parts of A the device imports.

use super::locked;
use crate::RawBytes;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::sync::{Arc, Mutex};

/// An owned, zeroed, page-aligned allocation that is only ever reached through [`RawBytes`].
pub(crate) struct Bytes {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation has no thread of its own, and `Bytes` hands out no reference into it.
unsafe impl Send for Bytes {}
// SAFETY: as above; the struct itself is never changed.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// `len` zeros.
    pub(crate) fn new(len: u64) -> Self {
        let len = usize::try_from(len).expect("a fake memory fits the address space");
        let layout = Layout::from_size_align(len.max(1), 4096).expect("a fake memory fits the address space");
        // SAFETY: the layout's size is at least one.
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { start, layout }
    }

    /// All of it. Spans are used only while the `Bytes` is owned: by its fake, or by an `Arc` beside the span.
    pub(crate) fn raw(&self) -> RawBytes {
        // SAFETY: the allocation is mapped and writable until `drop`, no reference to it exists, and the rule above keeps every
        // span inside that time.
        unsafe { RawBytes::new(self.start, self.layout.size()) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is given back once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Which spans of A are imported right now. Give the same record to a host and a device, and the host panics when a page is
/// punched under an import: a real device would go on using the orphaned pages.
#[derive(Clone, Default)]
pub struct FakeImports {
    /// Lock: owns the list · blocks on nothing · never held across a call.
    live: Arc<Mutex<Vec<(usize, usize)>>>,
}

impl FakeImports {
    /// How many imports exist.
    pub fn count(&self) -> usize {
        locked(&self.live).len()
    }

    /// Whether an import covers a byte of `span`.
    pub(super) fn covers(&self, span: RawBytes) -> bool {
        let (start, end) = (span.as_ptr() as usize, span.as_ptr() as usize + span.len());
        locked(&self.live).iter().any(|(s, e)| *s < end && start < *e)
    }

    pub(super) fn add(&self, bytes: RawBytes) -> FakeImport {
        let span = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
        locked(&self.live).push(span);
        FakeImport { bytes, span, imports: self.clone() }
    }
}

/// An import of a [`FakeDevice`](super::FakeDevice): the host bytes themselves.
pub struct FakeImport {
    pub(super) bytes: RawBytes,
    span: (usize, usize),
    imports: FakeImports,
}

impl Drop for FakeImport {
    fn drop(&mut self) {
        let mut live = locked(&self.imports.live);
        let at =
            live.iter().position(|s| *s == self.span).expect("an import is recorded until it is dropped");
        live.swap_remove(at);
    }
}
