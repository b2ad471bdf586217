//! Touches: loads and stores of the application, what may end one in SIGBUS, and how a page that could not be shown comes back.

use super::array::Array;
use super::trouble::Kind;
use super::{SMALL, Stage};
use core::time::Duration;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{EngineError, GuardKind};
use vkhmm_port::fake::TouchError;
use vkhmm_port::{Exec, HostMemory, Signal};

/// How often a page that cannot be shown is asked for again while calls fail.
const TRIES: u32 = 200;

impl Stage {
    /// Host calls that failed because they were told to.
    pub(super) fn host_failed(&self) -> usize {
        self.host.told_to_fail().len()
    }

    /// Whether host memory may run out.
    pub(super) fn is_scarce(&self) -> bool {
        self.setting.host.populated_pages_max != u64::MAX
    }

    /// Loads bytes and compares them with the twin; lost pages are left out.
    pub(super) fn load(&self, array: &mut Array, bytes: ByteRange) {
        for (page, piece) in Array::by_page(bytes) {
            if let Some(got) = self.touch(array, page, piece, None) {
                array.compare(piece, &got, "as loaded");
            }
        }
    }

    /// Loads bytes that may be anything now, and that the twin is to have from now on; lost pages are left out.
    pub(super) fn adopt(&self, array: &mut Array, bytes: ByteRange) {
        for (page, piece) in Array::by_page(bytes) {
            if let Some(got) = self.touch(array, page, piece, None) {
                array.twin[piece.start as usize..piece.end as usize].copy_from_slice(&got);
            }
        }
    }

    /// Stores `values` from `start` on; lost pages are left out.
    pub(super) fn store(&self, array: &mut Array, start: u64, values: &[u8]) {
        for (page, piece) in Array::by_page((start..start + values.len() as u64).into()) {
            let values = &values[(piece.start - start) as usize..(piece.end - start) as usize];
            if self.touch(array, page, piece, Some(values)).is_some() {
                array.twin[piece.start as usize..piece.end as usize].copy_from_slice(values);
            }
        }
    }

    /// One access to bytes of one page. `None`: the page is lost, or there is no memory for it.
    fn touch(
        &self,
        array: &mut Array,
        page: usize,
        piece: ByteRange,
        store: Option<&[u8]>,
    ) -> Option<Vec<u8>> {
        for _ in 0..TRIES {
            if array.lost[page] {
                return None;
            }
            let place = array.place(piece);
            let touched = match store {
                _ if self.setting.declared() => self.touch_declared(array, page, piece, store)?,
                Some(values) => {
                    self.timed("a store", || self.host.store(place.start, values)).map(|()| Vec::new())
                }
                None => self.timed("a load", || self.host.load(place)),
            };
            match touched {
                Ok(got) => {
                    array.on_device[page] = false;
                    return Some(got);
                }
                Err(TouchError::Poisoned(_)) => {
                    let failing = self.setting.trouble.contains(&Kind::HostCall) && !self.is_calm();
                    let explained = self.is_lost() || self.is_scarce() || failing;
                    assert!(explained, "lost: page {page} of `{}` is poisoned for no reason", array.name);
                    self.bring_back(array, page, piece, store.is_some())?;
                }
            }
        }
        panic!("liveness: page {page} of `{}` cannot be touched", array.name);
    }

    /// As a slice under `declared`: home first.
    fn touch_declared(
        &self,
        array: &mut Array,
        page: usize,
        piece: ByteRange,
        store: Option<&[u8]>,
    ) -> Option<Result<Vec<u8>, TouchError>> {
        self.bring_back(array, page, piece, store.is_some())?;
        let bytes = self.host.alias(array.place(piece));
        match store {
            Some(values) => bytes.write(values),
            None => return Some(Ok(bytes.to_vec())),
        }
        Some(Ok(Vec::new()))
    }

    /// Brings a page home that cannot be touched. `None`: it is lost, or there is no memory for it.
    fn bring_back(&self, array: &mut Array, page: usize, piece: ByteRange, write: bool) -> Option<()> {
        let kind = if write { GuardKind::Write } else { GuardKind::Read };
        for _ in 0..TRIES {
            match self.timed("bring home", || self.engine.bring_home(&array.range, piece, kind)) {
                Ok(()) => return Some(()),
                Err(EngineError::Lost { .. }) => {
                    self.lose(array, page);
                    return None;
                }
                // A copy home that a loss ended, whose page the settling has yet to name.
                Err(EngineError::DeviceLost { .. }) if self.is_lost() => self.pause(),
                Err(EngineError::OutOfHostMemory { .. }) if self.is_scarce() => return None,
                Err(EngineError::Host(_) | EngineError::OutOfHostMemory { .. }) if self.host_failed() > 0 => {
                    self.pause();
                }
                Err(error) => panic!("lost: page {page} of `{}` does not come home: {error}", array.name),
            }
        }
        panic!("liveness: page {page} of `{}` does not come home", array.name);
    }

    fn pause(&self) {
        let pause = self.exec.signal();
        pause.wait(pause.epoch(), Some(Duration::from_micros(20)));
    }

    /// A page was named lost.
    ///
    /// # Panics
    /// If the device lives, or the host must have had the page's bytes.
    pub(super) fn lose(&self, array: &mut Array, page: usize) {
        assert!(self.is_lost(), "lost: page {page} of `{}` is named lost, but the device lives", array.name);
        assert!(
            array.is_mixed() || array.on_device[page],
            "lost: page {page} of `{}` is named lost, but the host had it",
            array.name
        );
        array.lost[page] = true;
        self.met().note("event: lost page");
    }

    /// Looks which of these pages are lost by now.
    pub(super) fn find_lost(&self, array: &mut Array, bytes: ByteRange) {
        for (page, piece) in Array::by_page(bytes) {
            if !array.lost[page] {
                match self.engine.check(&array.range, piece) {
                    Ok(()) => {}
                    Err(EngineError::Lost { .. }) => self.lose(array, page),
                    Err(error) => panic!("lost: {error}"),
                }
            }
        }
    }

    /// After the trouble: whatever a failed call left unshown is shown again, or is lost.
    pub(super) fn repair(&self, array: &mut Array) {
        for (page, piece) in Array::by_page(array.all()) {
            if !array.lost[page] {
                let _ = self.bring_back(array, page, piece, false);
            }
        }
    }

    /// Device frames that some bytes of an array need at most, whatever they share blocks with.
    pub(super) fn frames_of(&self, array: &Array, bytes: ByteRange) -> u64 {
        let block = SMALL.block_bytes();
        let end = bytes.end.next_multiple_of(block).min(array.len());
        (end - bytes.start / block * block).div_ceil(SMALL.frame_bytes())
    }
}
