//! Completions: the one thread that ends holds, drains outward slots, comes back to parked touches and reclaims what is free.

use crate::op::{Flight, Op, OpStatus};
use crate::range::RangeCell;
use crate::report::Place;
use crate::{Engine, MutexOf, Ports};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use core::time::Duration;
use vkhmm_core::block::{Block, Cause};
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::Placement;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Exec, FaultSource, HostMemory, Mutex, Signal};

/// How long the completion thread leaves alone what nobody asked it for: a launch whose end nobody waits for is noted no later.
const DOZE: Duration = Duration::from_millis(5);

/// Which flights a thread may land.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Land {
    /// Any: the completion thread.
    All,
    /// In each lane those in front of the first that has bytes to copy or slots to give back: any thread that holds nothing.
    Plain,
}

impl<P: Ports> Engine<P> {
    /// The completion thread: waits for timelines, lands what they reached; on loss, settles everything once.
    ///
    /// *Dozing.* Who waits for a launch waits in the driver itself and lands it ([`Engine::wait_on_device`]); to be woken beside it, twice,
    /// would take this thread more time than a small launch does. So while launches are waited for it leaves those alone that took no
    /// holds which anybody waits for: it sleeps until it is called (`called`: by who submits anything else, waits for progress, parks a
    /// touch, drops a range, gives up), but for at most [`DOZE`] at a time. What is under way then, waited for or not, it waits for.
    pub(crate) fn complete_loop<F: FaultSource>(&self, faults: Option<&F>) {
        let mut settled = false;
        let (mut waits, mut waited_at) = (0, None);
        loop {
            let called = self.called.epoch();
            if self.lost.load(Ordering::Acquire) {
                if !settled {
                    let _at = self.places.enter(Place::Loss);
                    self.settle_loss();
                    settled = true;
                }
                if self.stopping.load(Ordering::Acquire) {
                    break;
                }
                let epoch = self.progress.epoch();
                self.reap();
                self.progress.wait(epoch, Some(Duration::from_millis(100)));
                continue;
            }
            let seen = match self.device.completed() {
                Ok(now) => {
                    self.completed.lock().merge(&now);
                    self.land(&now, Land::All);
                    self.land_fences(&now);
                    self.reap();
                    self.release_frames();
                    now
                }
                Err(error) => {
                    self.note_loss(&alloc::format!("{error}"));
                    continue;
                }
            };
            let stopping = self.stopping.load(Ordering::Acquire);
            if stopping && self.is_drained() {
                break;
            }
            let waits_before = core::mem::replace(&mut waits, self.waits_begun.load(Ordering::Relaxed));
            let now = self.exec.now();
            if waits != waits_before {
                waited_at = Some(now);
            }
            let waited = waited_at.is_some_and(|at| now - at < DOZE.as_nanos() as u64);
            if waited && !stopping && self.may_doze(&seen) {
                self.called.wait(called, Some(DOZE));
                if self.called.epoch() == called {
                    self.flights.lock().ask();
                }
                continue;
            }
            let patience = if stopping { 5 } else { 100 };
            let at = self.places.enter(Place::Device);
            let waited = self.device.wait(&seen, Duration::from_millis(patience));
            drop(at);
            if let Err(error) = waited {
                self.note_loss(&alloc::format!("{error}"));
            }
        }
        if let Some(source) = faults {
            source.resolve_with(None);
            source.interrupt();
        }
        self.work.notify();
    }

    /// Whether the completion thread has nothing to do, or to wait for, that it was asked for.
    fn may_doze(&self, now: &Uses) -> bool {
        self.flights.lock().is_asked_done(now)
            && self.fences.lock().waiting.is_empty()
            && self.zombies.lock().is_empty()
            && self.bygone.lock().is_empty()
    }

    /// Asks the completion thread to land all that is under way as soon as it is over.
    pub(crate) fn attend(&self) {
        self.flights.lock().ask();
        self.called.notify();
    }

    /// Waits for progress, also that which the completion thread has to bring about.
    pub(crate) fn await_progress(&self, seen: u32, patience: Option<Duration>) {
        // Before it asks: what is put under way later is asked for by who does that.
        self.sleepers.fetch_add(1, Ordering::AcqRel);
        self.attend();
        self.progress.wait(seen, patience);
        self.sleepers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Takes note of what the device has done by now, if anything is under way. `None` if nothing is, or the device is lost.
    pub(crate) fn look_at_device(&self) -> Option<Uses> {
        if self.lost.load(Ordering::Acquire) || self.flights.lock().lanes.iter().all(VecDeque::is_empty) {
            return None;
        }
        match self.device.completed() {
            Ok(now) => {
                self.completed.lock().merge(&now);
                Some(now)
            }
            Err(error) => {
                self.note_loss(&alloc::format!("{error}"));
                None
            }
        }
    }

    /// Ends launches that are over and that nobody has waited for: for who decides by what is over. On threads that hold nothing.
    pub(crate) fn catch_up(&self) {
        if let Some(now) = self.look_at_device() {
            self.land(&now, Land::Plain);
        }
    }

    /// Waits for the device as long as it must for `op`, whose work is all in queues, but for at most `patience`; then does what is
    /// left to do, as the completion thread would have: whoever waits is woken once, by the device, and not once more by us. If not
    /// even that (`false`), another thread is at it.
    pub(crate) fn wait_on_device(&self, op: &Op<P>, patience: Duration) -> bool {
        let uses = op.uses();
        if uses.is_none() {
            return false;
        }
        self.waits_begun.fetch_add(1, Ordering::Relaxed);
        // What was given up, and not by the device, is seen no later.
        let patience = patience.min(Duration::from_millis(100));
        match self.device.reach(&uses, patience).and_then(|()| self.device.completed()) {
            Ok(now) => {
                self.completed.lock().merge(&now);
                let landed = self.land(&now, Land::Plain);
                landed || !uses.done(&now)
            }
            Err(error) => {
                self.note_loss(&alloc::format!("{error}"));
                false
            }
        }
    }

    /// Lands every flight that `now` has reached. Whether there was one.
    pub(crate) fn land(&self, now: &Uses, which: Land) -> bool {
        let _at = self.places.enter(Place::Landing);
        let mut landed: Vec<Flight<P>> = Vec::new();
        {
            let mut flights = self.flights.lock();
            for lane in &mut flights.lanes {
                let due = |f: &Flight<P>| {
                    f.ticket.value <= now.on(f.ticket.timeline) && (which == Land::All || f.is_plain())
                };
                while lane.front().is_some_and(due) {
                    landed.extend(lane.pop_front());
                }
            }
        }
        let any = !landed.is_empty();
        for flight in landed {
            if !flight.drain.is_empty() {
                self.exec.copy(&flight.drain);
            }
            let homes = {
                let mut slots = self.slots.lock();
                slots.free_in.extend(&flight.slots_in);
                slots.free_out.extend(&flight.slots_out);
                let ready = slots.free_out.len().min(slots.homes.len());
                slots.homes.drain(..ready).collect::<Vec<_>>()
            };
            homes.into_iter().for_each(|job| self.send_home(job, None));
            if let Some(op) = &flight.op {
                if op.land_piece() {
                    self.finish(op);
                }
            }
            self.progress.notify();
        }
        any
    }

    /// The operation is over: its holds end, parked touches of its blocks are asked about again.
    pub(crate) fn finish(&self, op: &Arc<Op<P>>) {
        if self.lost.load(Ordering::Acquire) && op.status() != OpStatus::Done {
            return; // settle_loss decides
        }
        for at in op.take_blocks() {
            let mut block = at.range.blocks[at.block as usize].lock();
            if self.lost.load(Ordering::Acquire) {
                return; // under the lock: who looked after the loss was told that these bytes are as good as lost
            }
            let arrived = block.moving_by(op.id);
            let guessed = block.transfers().iter().any(|t| t.op == op.id && t.cause == Cause::Ahead);
            block.finish(op.id);
            self.resume(&at.range, at.block, &mut block, arrived);
            if guessed {
                self.ahead.fetch_sub(1, Ordering::AcqRel);
                self.show_near(&at.range, at.block, &mut block, arrived);
            }
            self.refresh_gate(&at.range, at.block, &block);
            let dirty = block.dirty();
            drop(block);
            self.note_home(&at.range, at.block, arrived.minus(&dirty));
        }
        drop(op.take_buffers());
        op.set_status(OpStatus::Done);
        self.ops.lock().remove(&op.id);
        self.progress.notify();
    }

    /// Tells placement of pages that came home: for the next choice of victims.
    fn note_home(&self, range: &RangeCell<P>, block: u32, pages: PageMask) {
        let g = self.config.geometry;
        let (first, pages_per_sub) = (block * g.subs_per_block(), g.pages_per_sub);
        let whole = |run: &Range<u32>| run.start.div_ceil(pages_per_sub)..run.end / pages_per_sub;
        for subs in pages.runs().map(|run| whole(&run)).filter(|subs| subs.start < subs.end) {
            let mut arena = self.arena.lock();
            arena.placement.note_clean(range.id, first + subs.start..first + subs.end);
        }
    }

    /// Reclaims dropped ranges that nothing uses any more.
    pub(crate) fn reap(&self) {
        self.free_bygone();
        let candidates: Vec<Arc<RangeCell<P>>> = {
            let zombies = self.zombies.lock();
            if zombies.is_empty() {
                return;
            }
            zombies.iter().cloned().collect()
        };
        for range in candidates {
            if self.retire(&range) {
                let was_there = {
                    let mut zombies = self.zombies.lock();
                    let at = zombies.iter().position(|z| Arc::ptr_eq(z, &range));
                    at.map(|i| zombies.swap_remove(i))
                };
                if was_there.is_some() {
                    self.reclaim(&range);
                }
            }
        }
    }

    /// Takes the pages of a dropped range away for good, if no operation, launch or device write can still reach them; from
    /// then on nothing can start to. Whether that is so.
    pub(crate) fn retire(&self, range: &RangeCell<P>) -> bool {
        if !self.host.owned() {
            return false;
        }
        let completed = *self.completed.lock();
        {
            let gate = range.gate.lock();
            let over = gate.uses.done(&completed) || self.lost.load(Ordering::Acquire);
            if gate.deciding > 0 || !over {
                return false;
            }
        }
        // An import that a submission still names, by itself or by a buffer over it, pins the host pages.
        let named = range.imports.lock().pieces.iter().any(|(_, import)| Arc::strong_count(import) > 1)
            || range.is_in_place() && range.buffer().is_some_and(|buffer| Arc::strong_count(&buffer) > 2);
        // A dead block forgets its pages at once: what it forgot before a later one turned out busy, nobody wants. Loss empties a
        // block and quarantines its range under the block's lock, so the look is under it, too.
        let forgets = |block: &MutexOf<P, Block>| {
            let mut block = block.lock();
            !range.quarantined.load(Ordering::Acquire) && block.forget()
        };
        !named && range.blocks.iter().all(forgets)
    }
}
