//! Touches answered in the threads that made them, where the fault engine can ask there: whatever needs no wait, no memory, no
//! submission and no driver is done at once; all else is left to the handler threads (`fault.rs`), which decide anew.
//!
//! The caller is a signal handler of the application on a small stack. It takes locks only by trying, frees nothing, and reads device
//! memory by plain loads (`Device::frames_at`). Whatever it leaves half done at an error is a state like any other: bytes that came
//! home and are not shown yet.

use crate::home::stretches;
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::trace::TraceCause;
use crate::{Engine, MutexOf, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::{Block, Cause, FaultAnswer};
use vkhmm_core::mask::PageMask;
use vkhmm_core::policy::Touch;
use vkhmm_core::units::{ByteRange, FrameIndex};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Access, Device, Fault, FaultSource, HostMemory, Mutex, RawBytes, Resolver};

/// How often a lock is tried: long enough for a table look-up or a small copy by its holder, not for a driver's call.
const TRIES: u32 = 6;

/// What a fault source asks. It keeps the engine until the completion thread takes it back.
struct InThread<P: Ports> {
    engine: Arc<Engine<P>>,
}

impl<P: Ports> Resolver for InThread<P> {
    fn resolve(&self, fault: Fault) -> bool {
        self.engine.resolve(fault)
    }
}

/// The lock, unless its holder keeps it for long.
fn soon<T: Send + 'static, M: Mutex<T>>(mutex: &M) -> Option<M::Guard<'_>> {
    for n in 0..TRIES {
        if let Some(guard) = mutex.try_lock() {
            return Some(guard);
        }
        (0..16 << n).for_each(|_| core::hint::spin_loop());
    }
    None
}

/// The mapped pieces of device memory, by their first frame.
pub(crate) type Views = Vec<(FrameIndex, RawBytes)>;

impl<P: Ports> Engine<P> {
    /// Touches are answered in their threads from now on, where `source` can ask there.
    pub(crate) fn answer_in_threads<F: FaultSource>(self: &Arc<Self>, source: &F) {
        self.trace.lock().reserve();
        source.resolve_with(Some(Arc::new(InThread { engine: Arc::clone(self) })));
    }

    /// Answers a touch now, if that can be. Whether R allows it.
    fn resolve(&self, fault: Fault) -> bool {
        if !self.host.owned() || self.lost.load(Ordering::Acquire) {
            return false;
        }
        // Counted before it can find a range, and until it has let go of it: see `let_go`.
        self.visitors.fetch_add(1, Ordering::AcqRel);
        let answered = self.answer_now(fault).is_some();
        self.visitors.fetch_sub(1, Ordering::AcqRel);
        if answered {
            let counter = if fault.write { &self.counters.faults_write } else { &self.counters.faults_read };
            Counters::add(counter, 1);
            Counters::add(&self.counters.faults_in_thread, 1);
        }
        answered
    }

    fn answer_now(&self, fault: Fault) -> Option<()> {
        let g = self.config.geometry;
        let at = g.block_of(fault.page);
        let range = soon(&self.space)?.find(at)?;
        let index = at.0 - range.first.0;
        let mut block = soon(&range.blocks[index as usize])?;
        if range.is_dead() {
            return None;
        }
        let (page, write) = (g.page_in_block(fault.page), fault.write);
        // What cannot be done now is not told to the policy, which will be asked by whoever can do it.
        let alone = block.look(page, write, PageMask::single(page), self.duplicates);
        let uses = self.may_answer(&range, index, &mut block, page, alone)?;
        let (mapped, away) = (block.mapped(), block.dirty());
        let touch = Touch { page: fault.page, write, mapped, away };
        let extent = self.in_granules(self.fetched_now(&range, &block, &touch)?);
        let answer = match block.look(page, write, extent, self.duplicates) {
            FaultAnswer::Home(mask) => {
                let keep = !write && self.duplicates;
                self.home_now(&range, index, &mut block, (mask, keep), Self::try_note)?;
                block.look(page, write, mask, self.duplicates)
            }
            answer => answer,
        };
        block.add_uses(&uses);
        self.show_now(&range, index, &mut block, (page, write), &uses, answer)
    }

    /// Whether the touch of `page`, alone, can be answered now; the uses of the device's copies, which may lose their pages.
    fn may_answer(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        page: u32,
        answer: FaultAnswer,
    ) -> Option<Uses> {
        let home = match answer {
            FaultAnswer::Born(_) | FaultAnswer::ReadOnly(_) => return Some(Uses::NONE),
            FaultAnswer::ReadWrite(_) if !block.device_valid().contains(page) => return Some(Uses::NONE),
            FaultAnswer::ReadWrite(_) => false,
            FaultAnswer::Home(_) => true,
            FaultAnswer::Poison | FaultAnswer::Park(_) | FaultAnswer::ParkFull => return None,
        };
        let uses = soon(&range.gate)?.close(index)?;
        // The bytes that go home are there once their last writers are done.
        if home && !self.are_written(block, &uses) {
            return None;
        }
        self.note_taken_now(block)?;
        Some(uses)
    }

    /// What is brought with a touch. `None`, and it is as if nobody had asked, where blocks or pages beyond it are to be copied by a
    /// queue: its message brings them.
    fn fetched_now(&self, range: &RangeCell<P>, block: &Block, touch: &Touch) -> Option<PageMask> {
        let said = if self.is_advised(range, block) {
            Some(soon(&range.advised)?.get(touch.page.0 - range.first_page(0).0))
        } else {
            None
        };
        let mut stream = soon(&range.stream)?;
        let before = *stream;
        let fetch = self.config.policy.fetch(&mut stream, touch, self.config.geometry);
        let fetch = match said {
            Some(said) => self.as_advised(said, block, touch, fetch),
            None => fetch,
        };
        let first = self.first_of(self.config.geometry.page_in_block(touch.page));
        let rest = (fetch.pages & touch.away).minus(&first);
        let by_queue = range.is_used.load(Ordering::Acquire) && !self.device.profile().memory.cpu_reads;
        if by_queue && (fetch.ahead != 0 || !rest.is_empty()) {
            *stream = before;
            return None;
        }
        Some(fetch.pages)
    }

    /// Copies pages home by plain loads, whoever wrote them being done, and writes it down with `note`. `None`, with nothing changed,
    /// where the CPU has no such view of them.
    pub(crate) fn home_now(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        (mask, keep): (PageMask, bool),
        note: fn(&Self, TraceCause, ByteRange),
    ) -> Option<()> {
        if !stretches(range, index, block, mask).all(|(_, device, bytes)| self.view(device, bytes).is_some())
        {
            return None;
        }
        self.note_runs(range, index, mask, TraceCause::ToHost(Cause::Fault), note);
        let mut copied = 0;
        for (host, device, bytes) in stretches(range, index, block, mask) {
            let from = self.view(device, bytes)?;
            self.host.alias((host..host + bytes).into()).copy_from(from);
            copied += bytes;
        }
        block.home_now(mask, keep);
        Counters::add(&self.counters.out_fault_bytes, copied);
        Counters::add(&self.counters.path_cpu_bytes, copied);
        Some(())
    }

    /// Whether the bytes of a block whose gate said `uses` are there: its last writers are done.
    pub(crate) fn are_written(&self, block: &Block, uses: &Uses) -> bool {
        let mut writers = *uses;
        writers.merge(&block.uses());
        soon(&self.completed).is_some_and(|completed| writers.done(&completed))
    }

    /// Shows R what a touch is to see. `None` where the system refuses: the touch is asked about again.
    fn show_now(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        (page, write): (u32, bool),
        uses: &Uses,
        answer: FaultAnswer,
    ) -> Option<()> {
        let (mask, access, cause) = match answer {
            FaultAnswer::Born(mask) => {
                self.populate(range, index, mask).ok()?;
                let bytes = u64::from(mask.count()) * u64::from(self.config.geometry.page_bytes);
                Counters::add(&self.counters.born_bytes, bytes);
                block.born(mask);
                (mask, Access::ReadWrite, TraceCause::FirstTouch)
            }
            FaultAnswer::ReadWrite(mut mask) => {
                if block.device_valid().intersects(&mask) {
                    if write {
                        block.note_upload(page);
                    }
                    if block.was_read_again(uses) {
                        mask = mask & self.first_of(page);
                    }
                    mask |= block.storable(self.in_granules(mask));
                    block.make_host(mask);
                }
                (mask, Access::ReadWrite, TraceCause::Touch)
            }
            FaultAnswer::ReadOnly(mask) => (mask, Access::ReadOnly, TraceCause::Touch),
            FaultAnswer::Poison | FaultAnswer::Home(_) | FaultAnswer::Park(_) | FaultAnswer::ParkFull => {
                return None;
            }
        };
        self.note_runs(range, index, mask, cause, Self::try_note);
        self.publish(range, index, block, mask, access).ok()
    }

    fn note_runs(
        &self,
        range: &RangeCell<P>,
        index: u32,
        mask: PageMask,
        cause: TraceCause,
        note: fn(&Self, TraceCause, ByteRange),
    ) {
        for run in mask.runs() {
            note(self, cause, self.config.geometry.bytes_of(range.run(index, &run)));
        }
    }

    /// Device bytes as the CPU may load them.
    fn view(&self, device: u64, bytes: u64) -> Option<RawBytes> {
        let views = soon(&self.views)?;
        views.iter().find_map(|(first, piece)| {
            let at = device.checked_sub(u64::from(first.0) * self.config.geometry.frame_bytes())?;
            (at + bytes <= piece.len() as u64).then(|| piece.slice(at as usize, bytes as usize))
        })
    }

    /// A piece of device memory is there.
    pub(crate) fn note_view(&self, first: FrameIndex) {
        let mut views = self.views.lock();
        if views.iter().all(|(known, _)| *known != first) {
            views.extend(self.device.frames_at(first).map(|bytes| (first, bytes)));
        }
    }

    /// A piece of device memory is about to go; no block has frames in it.
    pub(crate) fn forget_view(&self, first: FrameIndex) {
        self.views.lock().retain(|(piece, _)| *piece != first);
    }

    /// Lets the table's reference to a range go, but not while a touch that is answered in its thread may have the last one but
    /// this: nothing is freed in a signal handler. The completion thread comes back to it.
    pub(crate) fn let_go(&self, range: Option<Arc<RangeCell<P>>>) {
        if self.visitors.load(Ordering::Acquire) == 0 {
            drop(range);
        } else {
            self.bygone.lock().extend(range);
        }
    }

    /// Frees what no visitor can have any more: who comes now does not find it.
    pub(crate) fn free_bygone(&self) {
        let mut bygone = self.bygone.lock();
        if !bygone.is_empty() && self.visitors.load(Ordering::Acquire) == 0 {
            let gone = core::mem::take(&mut *bygone);
            drop(bygone);
            drop(gone);
        }
    }
}

/// Ranges that left the table while somebody may have found them.
pub(crate) type Bygone<P> = MutexOf<P, Vec<Arc<RangeCell<P>>>>;
