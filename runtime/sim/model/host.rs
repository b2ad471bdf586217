//! ModelHost: host memory as three bits a page. Page-table work costs time; a touch of a page that R does not show parks.

use super::exec::ModelExec;
use super::link::{LinkModel, each};
use crate::SimSignal;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::{BlockIndex, ByteRange, Geometry, PageIndex, PageRun};
use vkhmm_port::fake::{FakeHost, FakeHostOptions};
use vkhmm_port::{
    Access, Exec, Fault, FaultMode, FaultSource, HostError, HostMemory, HostProfile, RawBytes, Signal,
};

/// Longest piece of A that is ever named at once: an import. Far below a real device's, as it is real address space; imports are
/// priced by the page, so that costs nothing.
pub(super) const PIECE_BYTES_MAX: u64 = 32 << 20;

#[derive(Clone, Copy)]
struct Pages {
    populated: PageMask,
    mapped: PageMask,
    writable: PageMask,
}

struct State {
    blocks: Vec<Pages>,
    faults: VecDeque<Fault>,
    interrupted: bool,
    /// Application threads that wait for an answer.
    parked: u32,
}

/// Host memory without bytes. Clones are handles of the same memory.
#[derive(Clone)]
pub(super) struct ModelHost {
    shared: Arc<Shared>,
}

struct Shared {
    exec: ModelExec,
    model: LinkModel,
    geometry: Geometry,
    profile: HostProfile,
    /// The address space that pieces of A are named in. All pieces are the same bytes: nobody reads or writes them.
    scratch: FakeHost,
    /// Lock: owns the page table and the messages · blocks on nothing · never held across a call of `exec` or of a signal.
    state: Mutex<State>,
    woken: SimSignal,
    queued: SimSignal,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with the state of every block of `run` and the pages in it.
    fn for_blocks(&self, run: PageRun, mut each: impl FnMut(&mut Pages, PageMask)) {
        let mut state = self.state();
        for (block, pages) in cut(run, self.geometry) {
            each(&mut state.blocks[block.0 as usize], pages);
        }
    }
}

/// The blocks of a run, with its pages in each.
fn cut(run: PageRun, geometry: Geometry) -> impl Iterator<Item = (BlockIndex, PageMask)> {
    let per = u64::from(geometry.pages_per_block);
    (run.first.0 / per..run.end().0.div_ceil(per)).map(move |block| {
        let from = run.first.0.max(block * per) - block * per;
        let to = run.end().0.min((block + 1) * per) - block * per;
        (BlockIndex(block as u32), PageMask::range(from as u32..to as u32))
    })
}

impl ModelHost {
    pub(super) fn new(exec: &ModelExec, model: &LinkModel, geometry: Geometry, blocks: u32) -> Self {
        let profile = HostProfile {
            engine: "model",
            faults: FaultMode::Full,
            reservation_bytes: u64::from(blocks) * geometry.block_bytes(),
            map_granule_bytes: geometry.page_bytes,
            publish_read_only: true,
            protect: true,
        };
        let hole = Pages { populated: PageMask::EMPTY, mapped: PageMask::EMPTY, writable: PageMask::EMPTY };
        let state = State {
            blocks: vec![hole; blocks as usize],
            faults: VecDeque::new(),
            interrupted: false,
            parked: 0,
        };
        let whole = Geometry { page_bytes: PIECE_BYTES_MAX as u32, pages_per_sub: 1, pages_per_block: 1 };
        let scratch = FakeHost::new(whole, 1, FakeHostOptions::default());
        let shared = Shared {
            exec: exec.clone(),
            model: *model,
            geometry,
            profile,
            scratch,
            state: Mutex::new(state),
            woken: exec.signal(),
            queued: exec.signal(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// `bytes` bytes that nobody may touch.
    pub(super) fn untouched(&self, bytes: u64) -> RawBytes {
        self.shared.scratch.alias(ByteRange { start: 0, end: bytes })
    }

    /// An application thread loads from, or stores to, every page of `run` in order: it parks where R does not allow it.
    pub(super) fn touch(&self, run: PageRun, write: bool) {
        let shared = &self.shared;
        for (block, pages) in cut(run, shared.geometry) {
            loop {
                let epoch = shared.woken.epoch();
                let page = {
                    let mut state = shared.state();
                    let here = &state.blocks[block.0 as usize];
                    let shown = if write { here.writable } else { here.mapped };
                    let Some(page) = pages.minus(&shown).first() else { break };
                    let page = PageIndex(shared.geometry.first_page(block).0 + u64::from(page));
                    state.faults.push_back(Fault { page, write });
                    state.parked += 1;
                    page
                };
                shared.queued.notify();
                self.park(page, write, epoch);
                shared.state().parked -= 1;
                shared.exec.wake_up();
            }
        }
    }

    /// Waits until R shows `page`.
    fn park(&self, page: PageIndex, write: bool, mut epoch: u32) {
        let shared = &self.shared;
        let (block, at) = (shared.geometry.block_of(page), shared.geometry.page_in_block(page));
        loop {
            shared.woken.wait(epoch, None);
            epoch = shared.woken.epoch();
            let here = shared.state().blocks[block.0 as usize];
            if (if write { here.writable } else { here.mapped }).contains(at) {
                return;
            }
        }
    }
}

impl HostMemory for ModelHost {
    fn profile(&self) -> &HostProfile {
        &self.shared.profile
    }

    fn base(&self) -> usize {
        self.shared.scratch.base()
    }

    fn owned(&self) -> bool {
        true
    }

    /// # Panics
    /// If the range is longer than [`PIECE_BYTES_MAX`].
    fn alias(&self, range: ByteRange) -> RawBytes {
        assert!(range.end <= self.shared.profile.reservation_bytes, "{range:?} ends past the reservation");
        self.untouched(range.len())
    }

    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        let mut fresh = 0;
        self.shared.for_blocks(run, |block, pages| {
            fresh += pages.minus(&block.populated).count();
            block.populated |= pages;
        });
        self.shared.exec.elapse(each(u64::from(fresh), self.shared.model.populate_ns));
        Ok(())
    }

    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.for_blocks(run, |block, pages| {
            block.mapped.remove(&pages);
            block.writable.remove(&pages);
        });
        self.shared.exec.elapse(each(u64::from(run.count), self.shared.model.revoke_ns));
        Ok(())
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.for_blocks(run, |block, pages| block.writable.remove(&pages));
        self.shared.exec.elapse(each(u64::from(run.count), self.shared.model.revoke_ns));
        Ok(())
    }

    /// # Panics
    /// If a page has no host page.
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.shared.exec.elapse(each(u64::from(run.count), self.shared.model.publish_ns));
        self.shared.for_blocks(run, |block, pages| {
            assert!(block.populated.covers(&pages), "publish of {run:?} without host pages");
            block.mapped |= pages;
            match access {
                Access::ReadOnly => block.writable.remove(&pages),
                Access::ReadWrite => block.writable |= pages,
            }
        });
        if self.shared.state().parked > 0 {
            self.shared.woken.notify();
        }
        Ok(())
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        unreachable!(
            "a modelled device is never lost and traces touch live pages only, yet {run:?} is poisoned"
        )
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.shared.for_blocks(run, |block, pages| {
            block.populated.remove(&pages);
            block.mapped.remove(&pages);
            block.writable.remove(&pages);
        });
        Ok(())
    }
}

impl FaultSource for ModelHost {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        let epoch = self.shared.queued.epoch();
        let take = |faults: &mut Vec<Fault>| {
            let mut state = self.shared.state();
            let count = state.faults.len().min(16);
            faults.extend(state.faults.drain(..count));
            count > 0 || state.interrupted
        };
        if !take(faults) {
            self.shared.queued.wait(epoch, timeout);
            if take(faults) {
                self.shared.exec.wake_up();
            }
        }
        Ok(())
    }

    fn interrupt(&self) {
        self.shared.state().interrupted = true;
        self.shared.queued.notify();
    }
}
