//! What the host side asks: bring bytes home, hold them there, say where they are.

use crate::home::{Homeward, Park, Taken};
use crate::range::RangeCell;
use crate::report::Place;
use crate::{Engine, EngineError, Ports, Watch};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::{Block, Cause, HoldKind};
use vkhmm_core::mask::PageMask;
use vkhmm_core::pagemap::{Location, PageFlags};
use vkhmm_core::units::{ByteRange, OpId};
use vkhmm_port::{Access, HostError, HostMemory, Mutex, Signal};

/// What a guard lets the CPU do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardKind {
    /// Load.
    Read,
    /// Load and store.
    Write,
}

/// A run of pages in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residency {
    /// Which bytes of the allocation.
    pub bytes: ByteRange,
    /// Where the current bytes are.
    pub location: Location,
    /// An operation uses them.
    pub held: bool,
    /// The device has the only copy.
    pub dirty: bool,
    /// A guard keeps them on the host.
    pub pinned: bool,
}

/// What one look at a block's pages found.
enum Ready {
    Yes,
    /// Ask again when anything has happened.
    Wait,
}

impl<P: Ports> Engine<P> {
    /// Brings bytes home and waits until they are there: as Shared or Host for [`GuardKind::Read`], as Host for
    /// [`GuardKind::Write`]. Where R is a permission gate, the pages are published, too, so that system calls on them work. On an
    /// error some of them may be home already.
    ///
    /// # Errors
    /// `Lost`, `DeviceLost`, `OutOfHostMemory`, `Host`, `OutOfRange`, `ForkedChild`.
    pub fn bring_home(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
        kind: GuardKind,
    ) -> Result<(), EngineError> {
        self.home_loop(range, bytes, kind, None)
    }

    fn home_loop(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
        kind: GuardKind,
        guard: Option<OpId>,
    ) -> Result<(), EngineError> {
        let _at = self.places.enter(Place::Home);
        let mut watch = Watch::new(self);
        loop {
            let seen = self.progress.epoch();
            // After the epoch: a loss that is settled in between notifies nobody again.
            self.check(range, bytes)?;
            let mut waiting = false;
            for (index, touched, _) in range.cut(bytes) {
                let mut block = range.blocks[index as usize].lock();
                let pages = touched & block.used();
                // Rounds take pages anywhere; a guard would stand in their way.
                if guard.is_some() && block.paged_by(pages).is_some() {
                    waiting = true;
                    continue;
                }
                match self.home_block(range, index, &mut block, pages, kind)? {
                    Ready::Wait => waiting = true,
                    Ready::Yes => {
                        // The guard comes with the look, under one lock, so nothing leaves in between.
                        if let Some(op) = guard.filter(|op| !block.is_guarded_by(*op)) {
                            block.add_guard(op, pages);
                            self.refresh_gate(range, index, &block);
                        }
                    }
                }
            }
            if !waiting {
                watch.over(self, &range.label);
                return Ok(());
            }
            self.flush();
            self.await_progress(seen, Some(self.config.watchdog));
            watch.check(self, || alloc::format!("the host waits for `{}`", range.label));
        }
    }

    fn home_block(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        pages: PageMask,
        kind: GuardKind,
    ) -> Result<Ready, EngineError> {
        let fresh = block.absent() & pages;
        // Where nothing can be shown read-only, a page that R does not show yet is needed as Host.
        let must_show = self.faults_parked && !self.duplicates;
        let host = match kind {
            GuardKind::Write => pages,
            GuardKind::Read if must_show => pages.minus(&block.mapped()),
            GuardKind::Read => PageMask::EMPTY,
        };
        let in_place = block.holds_of(HoldKind::InPlace);
        let busy =
            block.holds_of(HoldKind::Exclusive) & pages | in_place & (host | fresh) | block.lost() & pages;
        if !busy.is_empty() {
            return Ok(Ready::Wait);
        }
        for run in fresh.runs() {
            self.host.populate(range.run(index, &run))?;
            block.born(PageMask::range(run));
        }
        let away = block.dirty() & pages;
        let shared = block.device_valid() & block.host_valid() & host;
        if !away.is_empty() || !shared.is_empty() {
            let waits = match self.take_from_gate(range, index, Park::No) {
                Taken::After(uses) => uses,
                Taken::Deciding => return Ok(Ready::Wait),
            };
            block.add_uses(&waits);
            if !away.is_empty() {
                if !block.has_room(1) {
                    return Ok(Ready::Wait);
                }
                let op = self.start_home(
                    range,
                    index,
                    block,
                    Homeward { mask: away, keep: kind == GuardKind::Read, cause: Cause::Prefetch, waits },
                );
                if !op.is_over() {
                    return Ok(Ready::Wait);
                }
            }
            block.make_host(block.device_valid() & block.host_valid() & host);
            self.refresh_gate(range, index, block);
        }
        self.publish_home(range, index, block, pages, kind == GuardKind::Write)?;
        Ok(Ready::Yes)
    }

    /// Shows R what location allows, where R is a gate.
    fn publish_home(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        pages: PageMask,
        write: bool,
    ) -> Result<(), HostError> {
        if !self.faults_parked {
            return Ok(());
        }
        let host_only = pages.minus(&block.device_valid()).minus(&block.writable());
        let in_place = block.holds_of(HoldKind::InPlace);
        self.publish(range, index, block, host_only.minus(&in_place), Access::ReadWrite)?;
        if !write {
            let rest = pages.minus(&block.mapped());
            self.publish(range, index, block, rest, Access::ReadOnly)?;
        }
        Ok(())
    }

    /// Brings bytes home and keeps them there until [`Engine::drop_guard`]: launches that name them are refused.
    ///
    /// # Errors
    /// As of [`Engine::bring_home`].
    pub fn guard(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
        kind: GuardKind,
    ) -> Result<OpId, EngineError> {
        let op = self.new_op_id();
        match self.home_loop(range, bytes, kind, Some(op)) {
            Ok(()) => Ok(op),
            Err(error) => {
                self.drop_guard(range, bytes, op);
                Err(error)
            }
        }
    }

    /// Lets guarded bytes go.
    pub fn drop_guard(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange, op: OpId) {
        if !self.host.owned() {
            return;
        }
        for (index, _, _) in range.cut(bytes) {
            let mut block = range.blocks[index as usize].lock();
            if block.finish(op) {
                self.resume(range, index, &mut block, PageMask::EMPTY);
                self.refresh_gate(range, index, &block);
            }
        }
        self.progress.notify();
    }

    /// The descriptor of the page at `offset` of a range.
    ///
    /// # Panics
    /// If `offset` is not inside.
    pub fn page_flags(&self, range: &RangeCell<P>, offset: u64) -> PageFlags {
        let page = offset / u64::from(self.config.geometry.page_bytes);
        let per = u64::from(self.config.geometry.pages_per_block);
        range.blocks[(page / per) as usize].lock().flags((page % per) as u32)
    }

    /// Where the bytes are, as runs of pages in the same state; faults nothing in. A snapshot, block by block.
    ///
    /// # Errors
    /// `OutOfRange`, `ForkedChild`.
    pub fn residency(&self, range: &RangeCell<P>, bytes: ByteRange) -> Result<Vec<Residency>, EngineError> {
        self.check_owned()?;
        self.check_interval(range, bytes)?;
        let page_bytes = u64::from(self.config.geometry.page_bytes);
        let mut out: Vec<Residency> = Vec::new();
        for (index, touched, _) in range.cut(bytes) {
            let block = range.blocks[index as usize].lock();
            for page in touched.runs().flatten() {
                let flags = block.flags(page);
                let start =
                    u64::from(index) * self.config.geometry.block_bytes() + u64::from(page) * page_bytes;
                let here = Residency {
                    bytes: ByteRange {
                        start: start.max(bytes.start),
                        end: (start + page_bytes).min(bytes.end),
                    },
                    location: flags.location(),
                    held: flags.intersects(PageFlags::HELD_SHARED | PageFlags::HELD_EXCLUSIVE),
                    dirty: flags.is_dirty(),
                    pinned: flags.contains(PageFlags::PINNED),
                };
                match out.last_mut() {
                    Some(last)
                        if last.bytes.end == here.bytes.start
                            && Residency { bytes: last.bytes, ..here } == *last =>
                    {
                        last.bytes.end = here.bytes.end;
                    }
                    _ => out.push(here),
                }
            }
        }
        Ok(out)
    }

    /// Whether the whole interval can be read by the CPU right now without waiting; for `declared` slices that are home already.
    pub fn is_home(&self, range: &RangeCell<P>, bytes: ByteRange, kind: GuardKind) -> bool {
        !self.lost.load(Ordering::Acquire)
            && range.cut(bytes).all(|(index, touched, _)| {
                let block = range.blocks[index as usize].lock();
                let pages = touched & block.used();
                let write = kind == GuardKind::Write;
                let stores = block.device_valid() | block.holds_of(HoldKind::InPlace);
                let busy = block.holds_of(HoldKind::Exclusive) | if write { stores } else { PageMask::EMPTY };
                block.host_valid().minus(&busy).covers(&pages)
            })
    }
}
