//! What an application acquires: a value of the grant timeline, promised at once and kept in order; and what it says at the end.
//!
//! A value is promised under the submit lock where its item enters the queue, and kept where that item is processed. Items are
//! processed in the order in which they entered, so values are submitted in the order in which they were promised. What ends an
//! acquire waits here, and not in a queue of the device, until every grant is submitted that was promised before: the application's
//! work may wait for any of these, and on a device whose roles share one queue, a wait for that work in front of them would never end.

use super::Submit;
use crate::op::{Flight, Op};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::units::{OpId, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, Mutex, Role, Signal, Submission};

use super::without;

/// What an application has, from admission to its end.
pub(super) struct Opening<P: Ports> {
    grant: Ticket,
    /// Everything before the grant is submitted, and so is the grant.
    kept: bool,
    /// Said before the grant of that value was, the last one promised by then.
    end: Option<(Arc<Op<P>>, End<P>, u64)>,
}

impl<P: Ports> Opening<P> {
    /// What was said of its end and cannot be done any more.
    pub(super) fn take_end(&mut self) -> Option<impl Sized + use<P>> {
        self.end.take()
    }
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
        if let Some(opening) = submit.openings.get_mut(&main.id) {
            opening.kept = true;
        }
        self.submit_ends(submit);
    }

    /// Submits every end before which no grant is owed any more.
    fn submit_ends(&self, submit: &mut Submit<P>) {
        let owed = submit.openings.values().filter(|o| !o.kept).map(|o| o.grant.value).min();
        let due =
            |o: &Opening<P>| o.end.as_ref().is_some_and(|(.., last)| owed.is_none_or(|owed| *last < owed));
        let ids: Vec<OpId> = submit.openings.iter().filter(|(_, o)| due(o)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(Opening { grant, end: Some((main, end, _)), .. }) = submit.openings.remove(&id) {
                self.submit_end(submit, &main, grant, end);
            }
        }
    }

    /// The application says how it ends: later operations may wait for `main` from here on.
    pub(crate) fn end_opening(&self, main: &Arc<Op<P>>, end: End<P>) {
        let mut submit = self.submit.lock();
        let last = submit.next[usize::from(self.device.profile().timeline(Role::Grant).0)] - 1;
        if self.lost.load(Ordering::Acquire) {
            submit.openings.remove(&main.id);
        } else if let Some(opening) = submit.openings.get_mut(&main.id) {
            opening.end = Some((Arc::clone(main), end, last));
        }
        self.submit_ends(&mut submit);
        // Under the lock: whoever finds it closed enters the queue after its ticket is known, or behind the item that the ticket
        // waits for.
        main.close();
    }

    fn submit_end(&self, submit: &mut Submit<P>, main: &Arc<Op<P>>, grant: Ticket, end: End<P>) {
        let mut waits = Uses::NONE;
        let (role, foreign, commands) = match end {
            End::Released(semaphore, value) => {
                // Also of an application that never looked at the grant.
                waits.add(grant);
                (Role::Release, Vec::from([(semaphore, value)]), Vec::new())
            }
            End::Cancelled(zeros) => {
                waits.merge(&main.uses());
                waits.merge(&main.waited());
                let fill =
                    |(device_offset, bytes): (u64, u64)| Command::Fill { device_offset, bytes, word: 0 };
                Counters::add(&self.counters.acquires_cancelled, 1);
                (Role::CopyIn, Vec::new(), zeros.into_iter().map(fill).collect())
            }
        };
        let timeline = self.device.profile().timeline(role);
        self.flush_behind(submit, timeline, &waits);
        let signals = self.take_ticket(submit, role);
        main.end_with(signals);
        self.flights.lock().push(Flight::of(signals, main), true);
        self.called.notify();
        self.hand_over(role, Submission { waits: without(waits, timeline), foreign, commands, signals });
    }
}
