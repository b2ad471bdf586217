//! CPU touches: one message in, one answer out. A handler never waits: it resolves the touch now, or starts what is missing
//! and leaves the thread parked in the kernel until the completion thread comes back to it.

use crate::ahead::Ahead;
use crate::home::{Homeward, Park, Taken};
use crate::range::RangeCell;
use crate::report::Place;
use crate::stats::Counters;
use crate::trace::TraceCause;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;
use vkhmm_core::block::{Block, Cause, FaultAnswer};
use vkhmm_core::mask::PageMask;
use vkhmm_core::policy::Touch;
use vkhmm_core::units::PageRun;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Access, Device, Exec, Fault, FaultSource, HostError, HostMemory, Mutex};

/// How often poisoning is tried.
const POISON_TRIES: usize = 8;

impl<P: Ports> Engine<P> {
    /// A handler thread: reads messages until the engine stops and nothing is in flight.
    pub(crate) fn fault_loop<F: FaultSource>(&self, source: &F) {
        let mut faults = Vec::with_capacity(16);
        let mut ahead = Vec::with_capacity(16);
        loop {
            faults.clear();
            let at = self.places.enter(Place::Touches);
            let read = source.next(&mut faults, Some(Duration::from_millis(500)));
            drop(at);
            if let Err(error) = read {
                self.exec.report(format_args!(
                    "the fault source broke, touches of absent pages will hang: {error}"
                ));
                return;
            }
            if !faults.is_empty() {
                self.look_at_device();
            }
            // Whoever waits comes first, and guesses after all of them.
            ahead.extend(faults.iter().filter_map(|fault| self.answer_touch(*fault)));
            ahead.drain(..).for_each(|ahead| self.bring_ahead(&ahead));
            if faults.is_empty() {
                self.watch_parked();
            }
            if self.stopping.load(Ordering::Acquire) && self.is_drained() {
                return;
            }
        }
    }

    /// Answers one touch, or parks it. Returns what is worth bringing behind it.
    fn answer_touch(&self, fault: Fault) -> Option<Ahead<P>> {
        let counter = if fault.write { &self.counters.faults_write } else { &self.counters.faults_read };
        Counters::add(counter, 1);
        let g = self.config.geometry;
        let owner = self.space.lock().find(g.block_of(fault.page));
        match owner {
            Some(range) if !range.is_dead() => {
                let index = g.block_of(fault.page).0 - range.first.0;
                let mut block = range.blocks[index as usize].lock();
                if range.is_dead() {
                    // Freed between the two looks: it is reclaimed only after this lock was free once (I8).
                    drop(block);
                    return self.answer_stray(fault);
                }
                let touch = Touch {
                    page: fault.page,
                    write: fault.write,
                    mapped: block.mapped(),
                    away: block.dirty(),
                };
                let fetch = self.config.policy.fetch(&mut range.stream.lock(), &touch, g);
                let fetch = self.advised_fetch(&range, &block, &touch, fetch);
                let page = g.page_in_block(fault.page);
                let parked =
                    self.answer(&range, index, &mut block, page, fault.write, self.in_granules(fetch.pages));
                if parked {
                    // Under the block's lock, so that the answer comes later.
                    let since = &range.parked_since;
                    let first =
                        since.compare_exchange(0, self.exec.now(), Ordering::AcqRel, Ordering::Relaxed);
                    self.places.parked_ranges.fetch_add(u32::from(first.is_ok()), Ordering::AcqRel);
                }
                let rest = (fetch.pages & block.dirty()).minus(&self.first_of(page));
                drop(block);
                if parked {
                    Counters::add(&self.counters.faults_parked, 1);
                    self.flush_for_touch();
                }
                let some = !rest.is_empty() || fetch.ahead != 0;
                some.then(|| Ahead { range, block: index, rest, blocks: fetch.ahead, keep: !fault.write })
            }
            _ => self.answer_stray(fault),
        }
    }

    /// Poisons a touched page that no live range owns, under the space lock so that no allocation gets the page meanwhile.
    fn answer_stray(&self, fault: Fault) -> Option<Ahead<P>> {
        let page = fault.page;
        let mut space = self.space.lock();
        let owner = space.find(self.config.geometry.block_of(page));
        let live = owner.as_ref().is_some_and(|range| !range.is_dead());
        if !live {
            Counters::add(&self.counters.faults_stray, 1);
            // Also where a dead range still owns it: its pages may have been punched already.
            space.note_stray(self.config.geometry.block_of(page));
            self.poison(PageRun { first: page, count: 1 });
        }
        drop(space);
        // Allocated between the two looks: the touch is legal now.
        if live { self.answer_touch(Fault { page, write: false }) } else { None }
    }

    /// What comes home with a touch of `page` before anything else does: its sub-block, or what R is best changed in.
    pub(crate) fn first_of(&self, page: u32) -> PageMask {
        let g = self.config.geometry;
        let granule = self.host.profile().map_granule_bytes / g.page_bytes;
        PageMask::single(page).rounded_to(granule.max(g.pages_per_sub))
    }

    /// Ends every touch of `run` in SIGBUS. Tried again where the system refuses: nothing else would end the touches.
    pub(crate) fn poison(&self, run: PageRun) {
        self.note(TraceCause::Poison, self.config.geometry.bytes_of(run));
        let mut tries = 0;
        while let Err(error) = self.host.poison(run) {
            tries += 1;
            if tries == POISON_TRIES {
                let (count, first) = (run.count, run.first.0);
                self.exec.report(format_args!(
                    "cannot poison {count} pages at page {first}, who waits for them hangs: {error}"
                ));
                return;
            }
        }
    }

    /// Asks core what to do about a touch and does it, under the block's lock. Whether the toucher stays parked.
    pub(crate) fn answer(
        &self,
        range: &Arc<RangeCell<P>>,
        index: u32,
        block: &mut Block,
        page: u32,
        write: bool,
        extent: PageMask,
    ) -> bool {
        match block.fault(page, write, extent, self.duplicates) {
            FaultAnswer::Poison => {
                self.poison(range.run(index, &(page..page + 1)));
                block.poisoned(PageMask::single(page));
                false
            }
            FaultAnswer::Born(mask) => {
                self.give_birth(range, index, block, page, mask);
                false
            }
            FaultAnswer::ReadWrite(mut mask) => {
                if block.device_valid().intersects(&mask) {
                    match self.take_from_gate(range, index, Park::Yes) {
                        Taken::After(uses) => {
                            if block.was_read_again(&uses) {
                                mask = mask & self.first_of(page);
                            }
                            block.add_uses(&uses);
                        }
                        Taken::Deciding => {
                            block.park(page, write);
                            return true;
                        }
                    }
                    mask |= block.storable(self.in_granules(mask));
                    block.make_host(mask);
                    self.note_taken(range, index, block);
                }
                self.note_touch(range, index, mask);
                self.show(range, index, block, page, mask, Access::ReadWrite);
                false
            }
            FaultAnswer::ReadOnly(mask) => {
                self.note_touch(range, index, mask);
                self.show(range, index, block, page, mask, Access::ReadOnly);
                false
            }
            FaultAnswer::Home(mask) => {
                let waits = match self.take_from_gate(range, index, Park::Yes) {
                    Taken::After(uses) => uses,
                    Taken::Deciding => {
                        block.park(page, write);
                        return true;
                    }
                };
                self.note_taken(range, index, block);
                let mask = mask & self.first_of(page);
                if self.comes_now(range, index, block, (mask, !write && self.duplicates), &waits) {
                    return self.answer(range, index, block, page, write, mask);
                }
                let way = Homeward { mask, keep: !write, cause: Cause::Fault, waits };
                let op = self.start_home(range, index, block, way);
                if op.is_over() {
                    return self.answer(range, index, block, page, write, mask);
                }
                block.park(page, write);
                true
            }
            FaultAnswer::Park(_) | FaultAnswer::ParkFull => {
                let _ = self.take_from_gate(range, index, Park::No);
                true
            }
        }
    }

    /// Copies pages home at once, if the CPU can and need wait for nobody: no operation is made for that. Whether it did.
    fn comes_now(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        (mask, keep): (PageMask, bool),
        waits: &Uses,
    ) -> bool {
        let can = self.device.profile().memory.cpu_reads
            && !self.lost.load(Ordering::Acquire)
            && self.are_written(block, waits)
            && self.home_now(range, index, block, (mask, keep), Self::note).is_some();
        if can && !keep {
            block.add_uses(waits);
        }
        can
    }

    fn note_touch(&self, range: &RangeCell<P>, index: u32, mask: PageMask) {
        for run in mask.runs() {
            self.note(TraceCause::Touch, self.config.geometry.bytes_of(range.run(index, &run)));
        }
    }

    /// Gives all of `mask` host pages.
    pub(crate) fn populate(&self, range: &RangeCell<P>, index: u32, mask: PageMask) -> Result<(), HostError> {
        mask.runs().try_for_each(|run| self.host.populate(range.run(index, &run)))
    }

    /// The pages that are best shown together with `pages`: whole units of what R is best changed in.
    pub(crate) fn in_granules(&self, pages: PageMask) -> PageMask {
        pages.rounded_to(self.host.profile().map_granule_bytes / self.config.geometry.page_bytes)
    }

    /// First touch of `page`: host pages of zeros, writable, for all of `mask` if that can be, else for the page alone.
    fn give_birth(&self, range: &RangeCell<P>, index: u32, block: &mut Block, page: u32, mask: PageMask) {
        let touched = PageMask::single(page);
        let populate = |mask| self.populate(range, index, mask).map(|()| mask);
        let mask = match populate(mask).or_else(|_| populate(touched)) {
            Ok(mask) => mask,
            Err(error) => {
                self.exec.report(format_args!("no host memory for a touch of `{}`: {error}", range.label));
                return self.poison_unmapped(range, index, block, touched);
            }
        };
        for run in mask.runs() {
            let bytes = self.config.geometry.bytes_of(range.run(index, &run));
            Counters::add(&self.counters.born_bytes, bytes.len());
            self.note(TraceCause::FirstTouch, bytes);
        }
        block.born(mask);
        self.show(range, index, block, page, mask, Access::ReadWrite);
    }

    /// Answers a touch of `page`: R shows all of `mask` if that can be, else the page alone; if not even that can be, the touch ends
    /// in SIGBUS. Whoever waits for another page of `mask` is answered on his own.
    fn show(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        page: u32,
        mask: PageMask,
        access: Access,
    ) {
        let touched = PageMask::single(page);
        let shown = self.publish(range, index, block, mask, access);
        if let Err(error) = shown.or_else(|_| self.publish(range, index, block, touched, access)) {
            self.exec.report(format_args!("cannot map a page of `{}`: {error}", range.label));
            self.poison_unmapped(range, index, block, touched);
        }
    }

    /// Makes R show `mask` and wakes whoever waits there: copied before published, published before woken.
    ///
    /// # Errors
    /// The first that the system said, twice: those pages are as they were.
    pub(crate) fn publish(
        &self,
        range: &RangeCell<P>,
        index: u32,
        block: &mut Block,
        mask: PageMask,
        access: Access,
    ) -> Result<(), HostError> {
        let start = self.exec.now();
        let mut refused = Ok(());
        for run in mask.runs() {
            let pages = range.run(index, &run);
            let mask = PageMask::range(run);
            let shown = self.host.publish(pages, access).or_else(|_| {
                // A page may be poisoned from an earlier failure. Only what R does not show is cleared (L0).
                for run in mask.minus(&block.mapped()).runs() {
                    self.host.revoke(range.run(index, &run))?;
                }
                self.host.publish(pages, access)
            });
            match shown {
                Ok(()) if access == Access::ReadWrite => block.published_read_write(mask),
                Ok(()) => block.published_read_only(mask),
                Err(error) => refused = refused.and(Err(error)),
            }
        }
        Counters::add(&self.counters.publish_ns, self.exec.now() - start);
        refused
    }

    /// Ends every touch of `mask` in SIGBUS, but for pages that R shows: there the touch was not what failed.
    fn poison_unmapped(&self, range: &RangeCell<P>, index: u32, block: &mut Block, mask: PageMask) {
        let unseen = mask.minus(&block.mapped());
        unseen.runs().for_each(|run| self.poison(range.run(index, &run)));
        block.poisoned(unseen);
    }

    /// Asks again about every parked touch of a block, under its lock; whoever still has to wait is parked again. Pages of
    /// `around` are published with them where they have the same answer.
    pub(crate) fn resume(&self, range: &Arc<RangeCell<P>>, index: u32, block: &mut Block, around: PageMask) {
        let (reads, writes) = block.parked();
        for (pages, write) in [(writes, true), (reads, false)] {
            for page in pages.runs().flatten() {
                let (reads, writes) = block.parked();
                if !(if write { writes } else { reads }).contains(page) {
                    continue; // answered together with a neighbour
                }
                block.take_parked(page, write);
                let sub = PageMask::single(page).rounded_to(self.config.geometry.pages_per_sub);
                let extent = self.in_granules(sub | pages | around);
                if !self.answer(range, index, block, page, write, extent) {
                    match range.parked_since.swap(0, Ordering::AcqRel) {
                        0 => {}
                        since => {
                            self.places.parked_ranges.fetch_sub(1, Ordering::AcqRel);
                            self.note_wait(&range.label, since);
                        }
                    }
                }
            }
        }
        self.follow(range, index, block);
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.lost.load(Ordering::Acquire) || (self.ops.lock().is_empty() && self.zombies.lock().is_empty())
    }
}
