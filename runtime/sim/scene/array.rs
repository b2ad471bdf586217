//! An array of the application and its twin: what its bytes must be, whose they are, and what may have become of its pages.

use super::paged::Pending;
use super::{SMALL, Stage};
use crate::SimPorts;
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{EngineError, RangeCell};
use vkhmm_port::{Exec, Signal};

/// An allocation as one thread sees it.
pub(super) struct Array {
    pub(super) name: String,
    pub(super) range: Arc<RangeCell<SimPorts>>,
    /// What a plain array would hold. Only the owned bytes count.
    pub(super) twin: Vec<u8>,
    /// Of how many threads it is, and which one this is: it owns every so-many-th byte.
    owner: (u64, u64),
    /// Pages known to be lost.
    pub(super) lost: Vec<bool>,
    /// Pages that the device alone may have, as far as this thread's calls decide it.
    pub(super) on_device: Vec<bool>,
    /// Paged launches that its bytes come from, and that may end early.
    pub(super) pending: Vec<Arc<Pending>>,
}

impl Array {
    /// A new allocation. `None`: there is no room, even after a while.
    pub(super) fn reserve(stage: &Stage, name: &str, bytes: u64) -> Option<Self> {
        for _ in 0..400 {
            match stage.engine.alloc(bytes, name) {
                Ok(range) => {
                    let array = Self::over(name, range, (1, 0));
                    stage.ledger.set_live(array.place(array.all()), true);
                    return Some(array);
                }
                Err(EngineError::OutOfAddressSpace { .. }) => {
                    // What was freed comes back once it is no longer used.
                    let pause = stage.exec.signal();
                    pause.wait(pause.epoch(), Some(Duration::from_micros(100)));
                }
                Err(EngineError::Host(_) | EngineError::OutOfHostMemory { .. })
                    if stage.host_failed() > 0 => {}
                Err(error) => panic!("twin: alloc: {error}"),
            }
        }
        None
    }

    fn over(name: &str, range: Arc<RangeCell<SimPorts>>, owner: (u64, u64)) -> Self {
        let bytes = range.bytes();
        let pages = bytes.div_ceil(u64::from(SMALL.page_bytes)) as usize;
        let (lost, on_device) = (vec![false; pages], vec![false; pages]);
        Self {
            name: name.to_owned(),
            range,
            twin: vec![0; bytes as usize],
            owner,
            lost,
            on_device,
            pending: Vec::new(),
        }
    }

    /// The same fresh allocation as another thread sees it.
    pub(super) fn share(&self, threads: u64, me: u64) -> Self {
        Self::over(&self.name, Arc::clone(&self.range), (threads, me))
    }

    /// Gives it up.
    pub(super) fn free(self, stage: &Stage) {
        stage.ledger.set_live(self.place(self.all()), false);
        stage.engine.free(&self.range);
    }

    pub(super) fn len(&self) -> u64 {
        self.range.bytes()
    }

    pub(super) fn all(&self) -> ByteRange {
        ByteRange { start: 0, end: self.len() }
    }

    /// Whether its bytes come from a paged launch that ended early: they may be anything.
    pub(super) fn is_wild(&self) -> bool {
        self.pending.iter().any(|pending| pending.failed())
    }

    /// Whether other threads use it at the same time.
    pub(super) fn is_mixed(&self) -> bool {
        self.owner.0 > 1
    }

    pub(super) fn owns(&self, at: u64) -> bool {
        at % self.owner.0 == self.owner.1
    }

    /// Where the bytes lie in the reservation.
    pub(super) fn place(&self, bytes: ByteRange) -> ByteRange {
        ByteRange { start: self.range.offset() + bytes.start, end: self.range.offset() + bytes.end }
    }

    /// The bytes page by page, with the page's number.
    pub(super) fn by_page(bytes: ByteRange) -> impl Iterator<Item = (usize, ByteRange)> {
        let page_bytes = u64::from(SMALL.page_bytes);
        let pages =
            if bytes.is_empty() { 0..0 } else { bytes.start / page_bytes..bytes.end.div_ceil(page_bytes) };
        pages.map(move |page| {
            let start = bytes.start.max(page * page_bytes);
            (page as usize, ByteRange { start, end: bytes.end.min((page + 1) * page_bytes) })
        })
    }

    /// The twin of some bytes.
    pub(super) fn expected(&self, bytes: ByteRange) -> &[u8] {
        &self.twin[bytes.start as usize..bytes.end as usize]
    }

    /// # Panics
    /// If an owned byte is not what it must be.
    pub(super) fn compare(&self, bytes: ByteRange, got: &[u8], how: &str) {
        for (at, (got, wanted)) in (bytes.start..bytes.end).zip(got.iter().zip(self.expected(bytes))) {
            assert!(
                got == wanted || !self.owns(at) || self.is_wild(),
                "twin: byte {at} of `{}` {how} is {got}, not {wanted}",
                self.name
            );
        }
    }
}
