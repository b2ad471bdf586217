//! Plain bytes at a fixed place, as both ports hand them around: the alias A, staging slots, host-visible frames.

use core::ptr::NonNull;

/// A span of memory that no Rust reference ever points to: it is read and written by copies only, while the device or another
/// thread may do the same. Who may touch it when is decided by holds (DESIGN: the page state machine), not by the borrow checker.
#[derive(Clone, Copy, Debug)]
pub struct RawBytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: RawBytes is an address and a length; `new` demands that the memory may be accessed from any thread.
unsafe impl Send for RawBytes {}
// SAFETY: as above; it has no interior state.
unsafe impl Sync for RawBytes {}

impl RawBytes {
    /// Names `len` bytes at `start`.
    ///
    /// # Safety
    /// The memory stays mapped, readable and writable from any thread for as long as any copy of the value is used, and no
    /// Rust reference to it exists.
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len }
    }

    /// First byte.
    pub const fn as_ptr(self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// `len` of the bytes, from `offset`.
    ///
    /// # Panics
    /// If they are not all inside.
    #[must_use]
    pub fn slice(self, offset: usize, len: usize) -> Self {
        assert!(offset <= self.len && len <= self.len - offset, "slice {offset}+{len} of {} bytes", self.len);
        // SAFETY: `offset <= self.len` (asserted), so the sum stays inside the memory that `new`'s caller vouched for.
        let start = unsafe { self.start.add(offset) };
        Self { start, len }
    }

    /// Copies all bytes of `from` here. The two may be the same memory, mapped twice.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn copy_from(self, from: Self) {
        assert_eq!(self.len, from.len, "copy between spans of different length");
        // SAFETY: both spans are mapped (`new`) and equally long; `copy` allows overlap.
        unsafe { core::ptr::copy(from.as_ptr(), self.as_ptr(), self.len) }
    }

    /// Sets every byte to `value`.
    pub fn fill(self, value: u8) {
        // SAFETY: the span is mapped and writable (`new`).
        unsafe { core::ptr::write_bytes(self.as_ptr(), value, self.len) }
    }

    /// Copies the bytes out into a fresh vector (tests and small read-backs).
    pub fn to_vec(self) -> Vec<u8> {
        let mut out = vec![0_u8; self.len];
        // SAFETY: the span is mapped (`new`) and `out` is a distinct allocation of the same length.
        unsafe { core::ptr::copy_nonoverlapping(self.as_ptr(), out.as_mut_ptr(), self.len) }
        out
    }

    /// Copies `bytes` here.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn write(self, bytes: &[u8]) {
        assert_eq!(self.len, bytes.len(), "write of a different length");
        // SAFETY: the span is mapped and writable (`new`), and no reference to it exists, so `bytes` is distinct.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.as_ptr(), self.len) }
    }
}
