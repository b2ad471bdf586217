//! Items: what an admitted request does, put to the queues in admission order, straight between A and the device where it can be.

use super::{Item, Submit, Work, import_copies, pieces_bytes};
use crate::op::{Flight, Op, OpStatus};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, Mutex, Role, Signal};

impl<P: Ports> Engine<P> {
    /// Takes an admitted item: submits it here and now if it needs no staging and nothing is before it, else queues it.
    pub(crate) fn put(&self, mut item: Item<P>) {
        let mut submit = self.submit.lock();
        if item.op.is_open() {
            item.grant = Some(self.promise_grant(&mut submit, &item.op));
        }
        if !submit.has_no_queue() || item.is_staged() {
            submit.queue.push_back(Work::Item(Box::new(item)));
            drop(submit);
            self.work.notify();
            return;
        }
        let ops = self.process_direct(&mut submit, item);
        drop(submit);
        self.after_submit(&ops);
    }

    /// Everything of the item is in queues: its operations say so. `launched`: its kernel, which waits for all the rest, is too.
    /// What an application has (`granted`) goes on in its queues, in no order with ours. Under the submit lock, before any later
    /// item is looked at.
    pub(super) fn note_queued(
        &self,
        [main, copy, evict]: &[Arc<Op<P>>; 3],
        launched: bool,
        granted: bool,
        waits: Uses,
    ) {
        let mut waited = waits;
        waited.merge(&evict.uses());
        main.set_waited(waited);
        let compute = self.device.profile().timeline(Role::Compute);
        // Who comes after the request comes after all of it, also where it has no kernel that would wait for its copies.
        main.add_uses(&copy.uses());
        main.add_uses(&evict.uses());
        self.attend();
        let on_compute = |op: &Op<P>| op.uses().iter().all(|t| t.timeline == compute);
        for op in [main, copy, evict] {
            let goes_on = granted && op.id == main.id;
            if launched || on_compute(op) && !goes_on {
                op.set_ordered();
            }
            op.set_status(OpStatus::Submitted);
        }
    }

    /// The frames of a submitted item know their last uses; its blocks' gates may open for what is submitted from now on.
    pub(super) fn after_submit(&self, ops: &[Arc<Op<P>>; 3]) {
        // Frames of the plan that it left alone are free for others after the same waits.
        let mut uses = ops[0].uses();
        uses.merge(&ops[0].waited());
        self.arena.lock().submitted(ops[0].id, uses);
        for at in ops[0].blocks() {
            let block = at.range.blocks[at.block as usize].lock();
            self.refresh_gate(&at.range, at.block, &block);
        }
        for op in ops {
            if op.land_piece() {
                self.finish(op);
            }
        }
        self.progress.notify();
    }

    /// What must be over before anything of the item is copied.
    ///
    /// *No frame is written while a former user still uses it.* A fill, move or copy in writes the frame of a page
    /// 1. that this plan gave it: who had the frame before is in the plan's deps, which placement keeps for every frame, or leaves it
    ///    now, and then is in `after` and `waits` (`leaving` in `hold_block`): holders, launches without holds, earlier uses of the block;
    /// 2. that an earlier plan gave it and nobody has written since: that plan's request is in `claims`, under the sub-blocks of the
    ///    whole place that it was given, until what it waited for, which is 1. for that frame, too, is over;
    /// 3. that had its bytes before a store or discard made them old. Launches with holds are in `after` (`launch_deps`) until they are
    ///    over. The gate lets no other one pass since, and the uses of those before were noted in the block by whoever ended the copy.
    ///
    /// *No frame is read before it is written.* Write-backs and moves read pages that leave, and every holder of those, the copy that
    /// fills them among them, is in `after`. The kernel waits for the item's own copies and, in `before_kernel`, for those of others.
    ///
    /// Who uses other frames of the same ranges, or wrote what only the kernel goes on with, is not in here: copies run beside that.
    pub(super) fn waits_of(&self, item: &Item<P>) -> Uses {
        Self::all_of(item.waits, &item.after, &item.claims)
    }

    /// `waits`, what ends `after`, and what `claims` waited for.
    pub(super) fn all_of(mut waits: Uses, after: &[Arc<Op<P>>], claims: &[Arc<Op<P>>]) -> Uses {
        after.iter().for_each(|op| waits.merge(&op.uses()));
        claims.iter().for_each(|op| waits.merge(&op.waited()));
        waits
    }

    /// `waits`, and what the kernel alone waits for: copies that went ahead, too.
    pub(super) fn kernel_waits(item: &Item<P>, mut waits: Uses) -> Uses {
        waits.merge(&item.copy.uses());
        item.before_kernel.iter().for_each(|op| waits.merge(&op.uses()));
        item.kernel_claims.iter().for_each(|op| waits.merge(&op.waited()));
        waits
    }

    /// Items whose bytes go straight between A and the device (or that copy nothing).
    pub(super) fn process_direct(&self, submit: &mut Submit<P>, mut item: Item<P>) -> [Arc<Op<P>>; 3] {
        let mut waits = self.waits_of(&item);
        let (mut waited, bound) = (waits, self.submit_binds(submit, &mut item, waits));
        bound.into_iter().for_each(|ticket| waited.add(ticket));
        let profile = self.device.profile();
        let bytes = item.copies_bytes();
        Counters::add(&self.counters.path_import_bytes, pieces_bytes(&item.outs) + pieces_bytes(&item.ins));
        let one_queue = profile.timeline(Role::CopyIn) == profile.timeline(Role::Compute)
            && profile.timeline(Role::CopyOut) == profile.timeline(Role::Compute);
        let (outs, ins) = (import_copies(profile.regions_max, &item.outs, true), self.inward(&item));
        if bytes <= profile.inline_copy_bytes || one_queue {
            // Who comes after one of them waits for its ticket: what does not ride must not seem to.
            let riders = [(&item.copy, !ins.is_empty()), (&item.evict, !outs.is_empty())];
            if riders.iter().any(|(_, rides)| *rides) {
                let batch = self.batch_after(submit, &waits);
                for group in [outs, ins] {
                    batch.barrier(&self.counters);
                    batch.commands.extend(group);
                }
                batch.barrier(&self.counters);
                let ticket = batch.ticket;
                for (op, _) in riders.into_iter().filter(|(_, rides)| *rides) {
                    self.fly(Flight::of(ticket, op));
                }
            }
        } else {
            if !outs.is_empty() {
                let evict = Arc::clone(&item.evict);
                waits.add(self.submit_locked(submit, Role::CopyOut, waits, outs, |t| Flight::of(t, &evict)));
            }
            if !ins.is_empty() {
                let copy = Arc::clone(&item.copy);
                waits.add(self.submit_locked(submit, Role::CopyIn, waits, ins, |t| Flight::of(t, &copy)));
            }
        }
        let (launched, grant) = (item.dispatch.is_some(), item.grant);
        waits.merge(&waited);
        let waits = Self::kernel_waits(&item, waits);
        if let Some(dispatch) = item.dispatch {
            self.record_dispatch(submit, &item.op, waits, dispatch);
        }
        self.watch_batch(submit);
        let ops = [item.op, item.copy, item.evict];
        self.note_queued(&ops, launched, grant.is_some(), waited);
        self.keep_promise(submit, &ops[0], grant);
        ops
    }

    /// Moves, then fills and copies in: commands in order, with the barrier that separates reading old frames from writing.
    pub(super) fn inward(&self, item: &Item<P>) -> Vec<Command<P::Device>> {
        let regions_max = self.device.profile().regions_max as usize;
        let mut commands = Vec::new();
        for regions in item.moves.chunks(regions_max) {
            commands.push(Command::Move { regions: regions.to_vec() });
        }
        let writes = !item.fills.is_empty() || !item.ins.is_empty();
        if writes && !commands.is_empty() {
            commands.push(Command::Barrier);
            Counters::add(&self.counters.barriers, 1);
        }
        for &(device_offset, bytes) in &item.fills {
            commands.push(Command::Fill { device_offset, bytes, word: 0 });
        }
        commands.extend(import_copies(self.device.profile().regions_max, &item.ins, false));
        commands
    }
}
