//! What an application acquires: a value of the grant timeline, promised at once and kept in order; and what it says at the end.
//!
//! A value is promised under the submit lock where its item enters the queue, and kept where that item is processed. Items are
//! processed in the order in which they entered, so values are submitted in the order in which they were promised. What ends an
//! acquire before its item was processed waits for it here, and not in a queue of the device: on a device whose roles share one
//! queue, a wait for the application's work in front of the grant that this work waits for would never end.

use super::Submit;
use crate::op::{Flight, Op};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::units::{OpId, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, Mutex, Role, Submission};

use super::without;

/// What an application has, from admission to its end.
pub(super) struct Opening<P: Ports> {
    grant: Ticket,
    /// Everything before the grant is submitted, and so is the grant.
    kept: bool,
    /// Said before that.
    end: Option<End<P>>,
}

/// How an acquire ends.
pub(crate) enum End<P: Ports> {
    /// The application submitted work that makes its semaphore reach the value.
    Released(<P::Device as Device>::Semaphore, u64),
    /// It submitted nothing. These bytes of device memory, offset and length, were never its to read: they become zero.
    Cancelled(Vec<(u64, u64)>),
}

impl<P: Ports> Engine<P> {
    /// The ticket that `main`'s application is to wait for.
    pub(super) fn promise_grant(&self, submit: &mut Submit<P>, main: &Arc<Op<P>>) -> Ticket {
        let grant = self.take_ticket(submit, Role::Grant);
        submit.openings.insert(main.id, Opening { grant, kept: false, end: None });
        grant
    }

    /// What [`Engine::promise_grant`] promised for an admitted acquire.
    pub(crate) fn promised(&self, main: OpId) -> Ticket {
        self.submit.lock().openings.get(&main).expect("an admitted acquire has its promise").grant
    }

    /// All that the acquire waits for is submitted: now its grant is, and its end, if that was said already.
    pub(super) fn keep_promise(&self, submit: &mut Submit<P>, main: &Arc<Op<P>>, grant: Option<Ticket>) {
        let Some(grant) = grant else { return };
        let mut waits = main.uses();
        waits.merge(&main.waited());
        self.flush_behind(submit, grant.timeline, &waits);
        let waits = without(waits, grant.timeline);
        self.hand_over(
            Role::Grant,
            Submission { waits, foreign: Vec::new(), commands: Vec::new(), signals: grant },
        );
        let Some(opening) = submit.openings.get_mut(&main.id) else { return };
        opening.kept = true;
        if let Some(end) = opening.end.take() {
            submit.openings.remove(&main.id);
            self.submit_end(submit, main, grant, end);
        }
    }

    /// The application says how it ends: later operations may wait for `main` from here on.
    pub(crate) fn end_opening(&self, main: &Arc<Op<P>>, end: End<P>) {
        let mut submit = self.submit.lock();
        if let Some(mut opening) = submit.openings.remove(&main.id) {
            if opening.kept {
                self.submit_end(&mut submit, main, opening.grant, end);
            } else if !self.lost.load(Ordering::Acquire) {
                opening.end = Some(end);
                submit.openings.insert(main.id, opening);
            }
        }
        // Under the lock: whoever finds it closed enters the queue after its ticket is known, or after its item.
        main.close();
    }

    fn submit_end(&self, submit: &mut Submit<P>, main: &Arc<Op<P>>, grant: Ticket, end: End<P>) {
        match end {
            End::Released(semaphore, value) => {
                let signals = self.take_ticket(submit, Role::Release);
                let mut waits = Uses::NONE;
                // Also of an application that never looked at the grant.
                waits.add(grant);
                self.fly(Flight::of(signals, main));
                let foreign = Vec::from([(semaphore, value)]);
                self.hand_over(Role::Release, Submission { waits, foreign, commands: Vec::new(), signals });
            }
            End::Cancelled(zeros) => {
                let mut waits = main.uses();
                waits.merge(&main.waited());
                let fill =
                    |(device_offset, bytes): (u64, u64)| Command::Fill { device_offset, bytes, word: 0 };
                let commands = zeros.into_iter().map(fill).collect();
                Counters::add(&self.counters.acquires_cancelled, 1);
                self.submit_locked(submit, Role::CopyIn, waits, commands, |t| Flight::of(t, main));
            }
        }
    }
}
