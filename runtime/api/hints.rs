//! What an application says ahead: prefetches and their tickets, pins.

use crate::access::Access;
use crate::error::Error;
use crate::launch::Launch;
use crate::ports::{Range, Real};
use crate::runtime::{Inner, Runtime};
use crate::{Result, Side, Skipped};
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::PinId;

/// A prefetch on its way. `Send + 'static`, borrows nothing; dropping it changes nothing.
pub struct Prefetch {
    launch: Launch,
    moved_bytes: u64,
    skipped: Vec<Skipped>,
}

impl Prefetch {
    pub(crate) fn new(inner: &Arc<Inner>, hint: &vkhmm_engine::Prefetch<Real>) -> Self {
        Self {
            launch: Launch::new(Arc::clone(inner), hint.ops().to_vec()),
            moved_bytes: hint.moved_bytes(),
            skipped: hint.skipped().to_vec(),
        }
    }

    pub(crate) fn none(inner: &Arc<Inner>) -> Self {
        Self { launch: Launch::new(Arc::clone(inner), Vec::new()), moved_bytes: 0, skipped: Vec::new() }
    }

    /// Waits until all that it moves has arrived.
    ///
    /// # Errors
    /// As [`Launch::wait`].
    pub fn wait(&self) -> Result<()> {
        self.launch.wait()
    }

    /// Waits at most `timeout`. Whether all has arrived.
    ///
    /// # Errors
    /// As [`Launch::wait`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool> {
        self.launch.wait_timeout(timeout)
    }

    /// Whether all has arrived.
    pub fn is_done(&self) -> bool {
        self.launch.is_done()
    }

    /// Bytes that moved or are on their way because of it, in whole pages: not those that were there, nor those that follow a
    /// launch which is still writing them.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// Bytes that it left where they were, and why; their offsets are from the start of their allocation.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

impl From<Prefetch> for Launch {
    fn from(prefetch: Prefetch) -> Self {
        prefetch.launch
    }
}

impl std::fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetch")
            .field("done", &self.is_done())
            .field("moved_bytes", &self.moved_bytes)
            .field("skipped", &self.skipped)
            .finish()
    }
}

/// Bytes kept on one side until this is dropped. `Send + 'static`, borrows nothing; forgetting it keeps them for good. One that
/// outlives its allocation keeps nothing on the device; on the host the address is not reused before it is dropped.
///
/// *Host:* launches that name the bytes are refused with [`crate::MemoryError::Guarded`]; loads and stores go on. *Device:* nothing takes
/// their frames, and they count as `held` in [`crate::MemoryError::WorkingSetTooLarge`]; a load brings home a duplicate, a store takes
/// its page home (the frame stays, and the next launch copies the page in again).
pub struct Pin {
    inner: Arc<Inner>,
    pinned: Option<(Arc<Range>, ByteRange, PinId)>,
    side: Side,
}

impl Pin {
    pub(crate) fn new(
        inner: &Arc<Inner>,
        range: Option<&Arc<Range>>,
        bytes: ByteRange,
        side: Side,
    ) -> Result<Self> {
        let pinned = match range {
            Some(range) if !bytes.is_empty() => {
                Some((Arc::clone(range), bytes, inner.engine.pin(range, bytes, side)?))
            }
            _ => None,
        };
        Ok(Self { inner: Arc::clone(inner), pinned, side })
    }

    /// Where it keeps them.
    pub fn side(&self) -> Side {
        self.side
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some((range, bytes, pin)) = self.pinned.take() {
            self.inner.engine.unpin(&range, bytes, pin);
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("side", &self.side).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts to bring several arrays to a side, all of them in one admission where there is room: `rt.prefetch(&[x.read(),
    /// y.slice(..n).read()], Side::Device)`. A hint, as `prefetch_to_device` of each would be; the kind of access means nothing.
    ///
    /// # Errors
    /// `ForeignRuntime`; `Lost`, `ForkedChild`; to the device also `DeviceLost`.
    pub fn prefetch(&self, parts: &[Access<'_>], to: Side) -> Result<Prefetch> {
        if let Some(argument) = parts.iter().position(|part| !Arc::ptr_eq(&part.inner, &self.inner)) {
            return Err(Error::ForeignRuntime { argument });
        }
        let named: Vec<_> =
            parts.iter().filter_map(|part| Some((Arc::clone(part.range.as_ref()?), part.bytes))).collect();
        Ok(Prefetch::new(&self.inner, &self.inner.engine.prefetch(&named, to)?))
    }

    /// How many blocks of 2 MiB the thrash guard keeps where they are just now: host and device took them from each other again and
    /// again. [`crate::Stats::thrash_guards`] counts how often it came to that.
    pub fn thrash_guarded_blocks(&self) -> u64 {
        if self.inner.owned() { self.inner.engine.thrash_guarded_blocks() } else { 0 }
    }
}
