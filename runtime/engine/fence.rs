//! Answers to touches without a queue: copies home that wait behind a fence, and batches left to the submission thread.
//!
//! Where a queue is the application's too ([`DeviceProfile::queue_is_shared`](vkhmm_port::DeviceProfile::queue_is_shared)), a thread
//! may hold that queue's lock while it waits for a CPU touch. So nothing that answers touches may submit, or wait for a lock whose
//! holder does: fault threads, the completion thread and whoever holds a block. A *fence* is an operation that is over once given
//! uses are reached: the completion thread then copies its bytes home by the CPU.

use crate::op::OpStatus;
use crate::stats::Counters;
use crate::submit::{HomeJob, pieces_bytes};
use crate::{Engine, Ports};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Mutex, Signal};

/// Copies home that wait for their last writers.
pub(crate) struct Fences<P: Ports> {
    /// What the completion thread has seen when it last looked here.
    reached: Uses,
    pub(crate) waiting: Vec<HomeJob<P>>,
}

impl<P: Ports> Fences<P> {
    pub(crate) fn new() -> Self {
        Self { reached: Uses::NONE, waiting: Vec::new() }
    }
}

impl<P: Ports> Engine<P> {
    /// Lets `job` wait until its uses are reached; gives it back if they are, for the caller to do now. Called under the block's
    /// lock, with everything noted that its end needs.
    pub(crate) fn put_fence(&self, job: HomeJob<P>) -> Option<HomeJob<P>> {
        // Under the lock that the completion thread looks under, so that no fence is put just behind its look.
        let mut fences = self.fences.lock();
        if job.waits.done(&fences.reached) {
            return Some(job);
        }
        job.op.set_status(OpStatus::Submitted);
        fences.waiting.push(job);
        drop(fences);
        self.called.notify();
        None
    }

    /// Does what `now` has reached. On the completion thread alone.
    pub(crate) fn land_fences(&self, now: &Uses) {
        let mut fences = self.fences.lock();
        fences.reached.merge(now);
        let reached = fences.reached;
        let all = core::mem::take(&mut fences.waiting);
        let (ready, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|job| job.waits.done(&reached));
        fences.waiting = waiting;
        drop(fences);
        for job in ready {
            // A failure is loss, and settled as one.
            if self.read_by_cpu(&job.pieces) {
                Counters::add(&self.counters.path_cpu_bytes, pieces_bytes(&job.pieces));
                self.finish(&job.op);
            }
        }
    }

    /// Waits until all that was admitted so far has reached a queue: on a queue that is the application's too, whoever asked for work
    /// returns no earlier. A touch by the holder of that queue's lock, which waits for the work, would wait for itself otherwise.
    pub(crate) fn see_submitted(&self) {
        // Also where touches need no queue (`declared`): the application's own work, which waits for a grant, must not get in before it.
        while self.device.profile().queue_is_shared && !self.lost.load(Ordering::Acquire) {
            let seen = self.progress.epoch();
            let mut submit = self.submit.lock();
            if submit.has_no_queue() {
                self.flush_locked(&mut submit);
                return;
            }
            drop(submit);
            self.await_progress(seen, Some(self.config.watchdog));
        }
    }

    /// Sees to it that what a parked touch waits for reaches a queue, and is landed as soon as it is over.
    pub(crate) fn flush_for_touch(&self) {
        self.attend();
        if self.queue_is_shared {
            self.flush_asked.store(true, Ordering::Release);
            self.work.notify();
        } else {
            self.flush();
        }
    }
}
