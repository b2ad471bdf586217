//! The submission thread: items that need staging slots, in order, and every item behind them.

use super::{Item, Piece, Submit, Work};
use crate::op::{Flight, Op};
use crate::report::Place;
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::units::{ByteRange, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{
    Command, CopyJob, Device, Direction, Exec, HostMemory, Mutex, Region, Role, Signal, Source, Target,
};

impl<P: Ports> Engine<P> {
    pub(crate) fn submit_loop(&self) {
        loop {
            let seen = self.work.epoch();
            let mut submit = self.submit.lock();
            if self.flush_asked.swap(false, Ordering::AcqRel) {
                self.flush_locked(&mut submit);
            }
            if let Some(work) = submit.queue.pop_front() {
                submit.busy = true;
                drop(submit);
                match work {
                    Work::Part(part) => self.process_part(part),
                    Work::Item(item) => self.process_staged(*item),
                }
                self.submit.lock().busy = false;
                self.progress.notify();
                continue;
            }
            let age = submit.batch.as_ref().map(|b| self.exec.now() - b.opened_ns);
            let limit = self.config.batch_age.as_nanos() as u64;
            let wait = match age {
                Some(age) if age >= limit => {
                    self.flush_locked(&mut submit);
                    None
                }
                Some(age) => Some(core::time::Duration::from_nanos(limit - age)),
                None => None,
            };
            submit.watched = wait.is_some();
            drop(submit);
            if self.stopping.load(Ordering::Acquire) && self.ops_are_over() {
                return;
            }
            let idle = core::time::Duration::from_millis(if self.stopping.load(Ordering::Acquire) {
                5
            } else {
                10_000
            });
            self.work.wait(seen, Some(wait.unwrap_or(idle)));
        }
    }

    /// An item in order, with whatever staging it needs. May wait for slots, which the completion thread frees.
    fn process_staged(&self, mut item: Item<P>) {
        let staged = item.is_staged();
        if !staged {
            let mut submit = self.submit.lock();
            let ops = self.process_direct(&mut submit, item);
            drop(submit);
            self.after_submit(&ops);
            return;
        }
        let mut waits = self.waits_of(&item);
        let bound = self.submit_binds(&mut self.submit.lock(), &mut item, waits);
        let mut waited = waits;
        bound.into_iter().for_each(|ticket| waited.add(ticket));
        for piece in core::mem::take(&mut item.outs) {
            waits.add(self.stage_out(&item.evict, piece, waits));
        }
        let ins = core::mem::take(&mut item.ins);
        let inward = self.inward(&item);
        if !inward.is_empty() {
            let copy = Arc::clone(&item.copy);
            let mut submit = self.submit.lock();
            waits.add(self.submit_locked(&mut submit, Role::CopyIn, waits, inward, |t| Flight::of(t, &copy)));
        }
        self.stage_ins(&item.copy, ins, waits);
        waits.merge(&waited);
        let waits = Self::kernel_waits(&item, waits);
        let Item { op, copy, evict, dispatch, grant, .. } = item;
        let ops = [op, copy, evict];
        let launched = dispatch.is_some();
        let mut submit = self.submit.lock();
        if let Some(dispatch) = dispatch {
            self.record_dispatch(&mut submit, &ops[0], waits, dispatch);
        }
        self.note_queued(&ops, launched, grant.is_some(), waited);
        self.keep_promise(&mut submit, &ops[0], grant);
        drop(submit);
        self.after_submit(&ops);
    }

    /// Takes bytes to slots and on, as slots come free, after `waits`.
    pub(super) fn stage_ins(&self, copy: &Arc<Op<P>>, ins: Vec<Piece<P::Device>>, waits: Uses) {
        let mut rest = ins.into_iter().peekable();
        while rest.peek().is_some() {
            let slots = self.wait_slots_in();
            if slots.is_empty() {
                return;
            }
            let mut chunk: Vec<(u32, Piece<P::Device>)> = Vec::with_capacity(slots.len());
            let mut spare = slots.into_iter();
            while let Some(piece) = rest.next_if(|_| spare.len() > 0) {
                chunk.extend(spare.next().map(|slot| (slot, piece)));
            }
            self.slots.lock().free_in.extend(spare);
            self.stage_in(copy, chunk, waits);
        }
    }

    fn stage_out(&self, op: &Arc<Op<P>>, piece: Piece<P::Device>, waits: Uses) -> Ticket {
        let slot = self.wait_slot_out();
        let mut submit = self.submit.lock();
        self.stage_out_locked(&mut submit, op, core::slice::from_ref(&piece), waits, slot)
    }

    /// Copies `pieces` (together at most a slot long) to `slot`; the completion thread takes them to A.
    pub(crate) fn stage_out_locked(
        &self,
        submit: &mut Submit<P>,
        op: &Arc<Op<P>>,
        pieces: &[Piece<P::Device>],
        waits: Uses,
        slot: u32,
    ) -> Ticket {
        let view = self.device.slot(Direction::Out, slot);
        let mut at = 0;
        let mut regions = Vec::with_capacity(pieces.len());
        let mut drain = Vec::with_capacity(pieces.len());
        for piece in pieces {
            regions.push(Region { host_offset: at, device_offset: piece.device, bytes: piece.bytes });
            let to = self.host.alias(ByteRange { start: piece.host, end: piece.host + piece.bytes });
            drain.push(CopyJob { from: view.slice(at as usize, piece.bytes as usize), to });
            at += piece.bytes;
        }
        Counters::add(&self.counters.path_staging_bytes, at);
        let regions_max = self.device.profile().regions_max as usize;
        let commands = regions
            .chunks(regions_max)
            .map(|r| Command::CopyOut { target: Target::Slot(slot), regions: r.to_vec() })
            .collect();
        self.submit_locked(submit, Role::CopyOut, waits, commands, |ticket| Flight {
            ticket,
            op: Some(Arc::clone(op)),
            drain,
            slots_in: Vec::new(),
            slots_out: alloc::vec![slot],
        })
    }

    fn stage_in(&self, op: &Arc<Op<P>>, chunk: Vec<(u32, Piece<P::Device>)>, waits: Uses) {
        let mut jobs = Vec::with_capacity(chunk.len());
        let mut commands = Vec::with_capacity(chunk.len());
        let mut slots_in = Vec::with_capacity(chunk.len());
        for (slot, piece) in &chunk {
            let from = self.host.alias(ByteRange { start: piece.host, end: piece.host + piece.bytes });
            jobs.push(CopyJob {
                from,
                to: self.device.slot(Direction::In, *slot).slice(0, piece.bytes as usize),
            });
            let region = Region { host_offset: 0, device_offset: piece.device, bytes: piece.bytes };
            commands.push(Command::CopyIn { source: Source::Slot(*slot), regions: alloc::vec![region] });
            slots_in.push(*slot);
            Counters::add(&self.counters.path_staging_bytes, piece.bytes);
        }
        self.exec.copy(&jobs);
        let mut submit = self.submit.lock();
        self.submit_locked(&mut submit, Role::CopyIn, waits, commands, |ticket| Flight {
            ticket,
            op: Some(Arc::clone(op)),
            drain: Vec::new(),
            slots_in,
            slots_out: Vec::new(),
        });
    }

    /// All inward slots that are free, at least one; none once the device is lost.
    fn wait_slots_in(&self) -> Vec<u32> {
        let _at = self.places.enter(Place::SlotIn);
        loop {
            let seen = self.progress.epoch();
            let slots = core::mem::take(&mut self.slots.lock().free_in);
            if !slots.is_empty() || self.lost.load(Ordering::Acquire) {
                return slots;
            }
            self.await_progress(seen, None);
        }
    }

    /// An outward slot; slot 0 once the device is lost, when nothing is written to it any more.
    fn wait_slot_out(&self) -> u32 {
        let _at = self.places.enter(Place::SlotOut);
        loop {
            let seen = self.progress.epoch();
            if let Some(slot) = self.slots.lock().take_for_eviction() {
                return slot;
            }
            if self.lost.load(Ordering::Acquire) {
                return 0;
            }
            self.await_progress(seen, None);
        }
    }

    pub(crate) fn ops_are_over(&self) -> bool {
        // What a lost device has not done it never will.
        self.lost.load(Ordering::Acquire)
            // A paged launch has rounds to come.
            || self.paged.load(Ordering::Acquire) == 0
                && self.submit.lock().is_empty()
                && self.flights.lock().lanes.iter().all(VecDeque::is_empty)
    }
}
