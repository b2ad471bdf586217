//! Ranges come and go: reserve, import for the device, drop, reclaim.

use crate::range::{PlacementKind, RangeCell, blocks_for};
use crate::submit::Piece;
use crate::{Engine, EngineError, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::placement::{Deps, Placement};
use vkhmm_core::units::{ByteRange, PageRun};
use vkhmm_port::{Device, Exec, HostMemory, Mutex, Signal};

impl<P: Ports> Engine<P> {
    /// Reserves whole blocks for `bytes` bytes of zeros. No host memory is taken yet.
    ///
    /// # Errors
    /// `OutOfAddressSpace`, `ForkedChild`.
    ///
    /// # Panics
    /// If `bytes` is zero: an empty allocation needs no range.
    pub fn alloc(&self, bytes: u64, label: &str) -> Result<Arc<RangeCell<P>>, EngineError> {
        assert!(bytes > 0, "an empty allocation needs no range");
        self.check_owned()?;
        let g = self.config.geometry;
        let reservation = self.host.profile().reservation_bytes;
        let full =
            || EngineError::OutOfAddressSpace { need: bytes.next_multiple_of(g.block_bytes()), reservation };
        if bytes > reservation {
            return Err(full());
        }
        let count = blocks_for(bytes, g);
        let (first, id) = self.space.lock().reserve(count).ok_or_else(full)?;
        let range = RangeCell::new(&self.exec, g, id, first, bytes, label.into(), self.choose_way(bytes));
        self.enter_bindings(&mut self.arena.lock(), &range, &range.way.lock());
        let mut space = self.space.lock();
        // A stray touch may have poisoned a page while it was free; nobody owns it yet, so nobody's bytes are punched.
        let cleared = if space.take_strays(&range) { self.host.punch(range.whole()) } else { Ok(()) };
        space.install(&range);
        drop(space);
        if let Err(error) = cleared {
            self.free(&range);
            return Err(error.into());
        }
        Ok(range)
    }

    /// As [`Engine::alloc`], for whoever keeps buffer and device address: they never change for the range's life.
    ///
    /// # Errors
    /// As of [`Engine::alloc`]; `NotStable` where it cannot be promised.
    ///
    /// # Panics
    /// As [`Engine::alloc`].
    pub fn alloc_stable(&self, bytes: u64, label: &str) -> Result<Arc<RangeCell<P>>, EngineError> {
        let range = self.alloc(bytes, label)?;
        self.settle_way(&range);
        match range.placement() {
            (PlacementKind::Sparse | PlacementKind::InPlace, _) => Ok(range),
            (PlacementKind::Span, why) => {
                self.free(&range);
                Err(EngineError::NotStable { label: label.into(), bytes, why })
            }
        }
    }

    /// Drops a range. Never blocks on the device: what is in use is reclaimed after its last operation, and its address is not
    /// reused before. In a forked child nothing happens.
    pub fn free(&self, range: &Arc<RangeCell<P>>) {
        if !self.host.owned() || range.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        self.catch_up();
        if self.retire(range) {
            self.reclaim(range);
        } else {
            self.zombies.lock().push(Arc::clone(range));
            self.flush();
            self.called.notify();
            self.progress.notify();
        }
    }

    /// Gives everything of an unused range back: its buffer, frames, imports, host pages, addresses, in this order.
    pub(crate) fn reclaim(&self, range: &Arc<RangeCell<P>>) {
        let completed = *self.completed.lock();
        let buffers = {
            let mut arena = self.arena.lock();
            if !self.drop_sparse(&mut arena, range) {
                drop(arena);
                // An unbind is on its way; the completion thread comes back.
                self.zombies.lock().push(Arc::clone(range));
                return;
            }
            let spans = arena.placement.release(range.id, Deps::default());
            arena.placement.reap(&completed);
            arena.drop_spans(&spans)
        };
        drop(buffers);
        let imports = core::mem::take(&mut range.imports.lock().pieces);
        let imported: u64 = imports.iter().map(|(bytes, _)| bytes.len()).sum();
        // Before the punch: a real device keeps the old pages of a live import.
        drop(imports);
        self.uncount_import(imported);
        self.drop_way(range);
        if let Err(error) = self.host.punch(range.whole()) {
            if !range.unpunched.swap(true, Ordering::Relaxed) {
                self.exec.report(format_args!(
                    "cannot give back the host pages of `{}`, its addresses stay reserved until it works: {error}",
                    range.label
                ));
            }
            // The completion thread comes back to it, until the end.
            if !self.stopping.load(Ordering::Acquire) {
                self.zombies.lock().push(Arc::clone(range));
            }
            return;
        }
        let old = self.space.lock().remove(range);
        self.let_go(old);
        self.progress.notify();
    }

    /// The range that `id` names, if it is alive.
    pub fn range(&self, id: vkhmm_core::units::RangeId) -> Option<Arc<RangeCell<P>>> {
        self.space.lock().get(id).filter(|r| !r.is_dead())
    }

    /// The range that owns an address of R, with the offset in it.
    pub fn find(&self, address: usize) -> Option<(Arc<RangeCell<P>>, u64)> {
        let offset = address.checked_sub(self.host.base())? as u64;
        if offset >= self.host.profile().reservation_bytes {
            return None;
        }
        let block = vkhmm_core::units::BlockIndex((offset / self.config.geometry.block_bytes()) as u32);
        let range = self.space.lock().find(block).filter(|r| !r.is_dead())?;
        let within = offset - range.offset();
        (within < range.bytes).then_some((range, within))
    }

    /// The labels of all ranges that are not dropped, in no order.
    pub fn labels(&self) -> Vec<Arc<str>> {
        self.space.lock().labels()
    }

    pub(crate) fn check_interval(&self, range: &RangeCell<P>, bytes: ByteRange) -> Result<(), EngineError> {
        if bytes.start > bytes.end || bytes.end > range.bytes {
            return Err(EngineError::OutOfRange {
                label: Arc::clone(&range.label),
                start: bytes.start,
                end: bytes.end,
                len: range.bytes,
            });
        }
        Ok(())
    }

    // ── imports ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Makes the device reach the blocks of `blocks` in A, where imports exist, are allowed and pay. Called before the first
    /// lock of a launch; a refusal means staging, never an error. Every page of the blocks has a host page afterwards.
    pub(crate) fn ensure_import(&self, range: &RangeCell<P>, blocks: core::ops::Range<u32>) {
        let Some(profile) = self.device.profile().import else { return };
        if range.bytes < self.config.import_bytes_min || blocks.is_empty() || range.is_in_place() {
            return;
        }
        let g = self.config.geometry;
        let page = |block: u32| range.first_page(block).0;
        let wanted = g.bytes_of(PageRun {
            first: range.first_page(blocks.start),
            count: (page(blocks.end) - page(blocks.start)) as u32,
        });
        let missing = holes(&range.imports.lock().pieces, wanted);
        for hole in missing {
            let mut at = hole.start;
            while at < hole.end {
                let end = hole.end.min(at + profile.piece_bytes_max / g.block_bytes() * g.block_bytes());
                let bytes = ByteRange { start: at, end };
                if !self.import_piece(range, bytes) {
                    range.imports.lock().refused = true;
                    return;
                }
                at = end;
            }
        }
    }

    fn import_piece(&self, range: &RangeCell<P>, bytes: ByteRange) -> bool {
        if range.imports.lock().refused {
            return false;
        }
        let Ok(import) = self.import(bytes) else { return false };
        let mut imports = range.imports.lock();
        if range.is_dead() || imports.pieces.iter().any(|(b, _)| b.overlaps(bytes)) {
            // Freed meanwhile, or another launch was faster; ours goes away unused.
            drop(imports);
            drop(import);
            self.uncount_import(bytes.len());
            return true;
        }
        imports.pieces.push((bytes, Arc::new(import)));
        true
    }

    /// Notes for each piece how the device reaches its host side.
    pub(crate) fn add_imports(&self, range: &RangeCell<P>, pieces: &mut [Piece<P::Device>]) {
        let imports = range.imports.lock();
        for piece in pieces {
            let found = imports
                .pieces
                .iter()
                .find(|(b, _)| b.start <= piece.host && piece.host + piece.bytes <= b.end);
            piece.import = found.map(|(b, import)| (Arc::clone(import), piece.host - b.start));
        }
    }
}

/// The parts of `wanted` that no piece covers.
fn holes<T>(pieces: &[(ByteRange, T)], wanted: ByteRange) -> Vec<ByteRange> {
    let mut out = alloc::vec![wanted];
    for (have, _) in pieces {
        out = out
            .into_iter()
            .flat_map(|w| {
                if !w.overlaps(*have) {
                    return [Some(w), None];
                }
                let left = ByteRange { start: w.start, end: have.start.max(w.start) };
                let right = ByteRange { start: have.end.min(w.end), end: w.end };
                [Some(left), Some(right)]
            })
            .flatten()
            .filter(|r| !r.is_empty())
            .collect();
    }
    out
}
