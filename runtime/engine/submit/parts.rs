//! Parts of a request on their way to the copy queue, ahead of its item and in order with everybody else's.

use super::{Item, Piece, Submit, import_copies, pieces_bytes};
use crate::op::{Flight, Op};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Mutex, Role, Signal};

/// Copies in of a request that is still being admitted. Its kernel waits for all that `copy` does.
pub(crate) struct Part<P: Ports> {
    pub(crate) copy: Arc<Op<P>>,
    /// As of an item, and for the same reasons (see `waits_of`).
    pub(crate) waits: Uses,
    pub(crate) after: Vec<Arc<Op<P>>>,
    pub(crate) claims: Vec<Arc<Op<P>>>,
    pub(crate) ins: Vec<Piece<P::Device>>,
}

/// What waits for the submission thread.
pub(super) enum Work<P: Ports> {
    Part(Part<P>),
    Item(Box<Item<P>>),
}

impl<P: Ports> Part<P> {
    fn is_staged(&self) -> bool {
        self.ins.iter().any(|piece| piece.import.is_none())
    }

    fn waits(&self) -> Uses {
        Engine::<P>::all_of(self.waits, &self.after, &self.claims)
    }
}

impl<P: Ports> Engine<P> {
    /// As [`Engine::put`].
    pub(crate) fn put_part(&self, part: Part<P>) {
        let mut submit = self.submit.lock();
        if !submit.has_no_queue() || part.is_staged() {
            submit.queue.push_back(Work::Part(part));
            drop(submit);
            self.work.notify();
            return;
        }
        self.copy_part(&mut submit, &part.copy, &part.ins, part.waits());
    }

    /// A part in order, with whatever staging it needs.
    pub(super) fn process_part(&self, part: Part<P>) {
        let waits = part.waits();
        let (staged, ins) = part.ins.into_iter().partition::<Vec<_>, _>(|piece| piece.import.is_none());
        self.copy_part(&mut self.submit.lock(), &part.copy, &ins, waits);
        self.stage_ins(&part.copy, staged, waits);
    }

    /// What goes straight between A and the device.
    fn copy_part(&self, submit: &mut Submit<P>, copy: &Arc<Op<P>>, ins: &[Piece<P::Device>], waits: Uses) {
        if ins.is_empty() {
            return;
        }
        Counters::add(&self.counters.path_import_bytes, pieces_bytes(ins));
        let commands = import_copies(self.device.profile().regions_max, ins, false);
        self.submit_locked(submit, Role::CopyIn, waits, commands, |ticket| Flight::of(ticket, copy));
    }
}
