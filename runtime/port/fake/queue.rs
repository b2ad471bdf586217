//! The thread behind each timeline of a FakeDevice: it performs submissions in order, one memcpy after the other.

use super::device::{Shared, State};
use super::locked;
use super::semaphore::FakeSemaphore;
use super::sparse::View;
use super::steps::Step;
use crate::{Exec, Signal};
use core::any::Any;
use core::sync::atomic::Ordering;
use core::time::Duration;
use vkhmm_core::units::{Ticket, Timeline};
use vkhmm_core::uses::Uses;

/// A submission on its way.
pub(super) struct Job {
    pub(super) waits: Uses,
    pub(super) foreign: Vec<(FakeSemaphore, u64)>,
    pub(super) signals: Ticket,
    pub(super) steps: Vec<Step>,
    /// What the steps point to: imports, buffers, kernels.
    pub(super) keeps: Box<dyn Any + Send>,
}

impl Job {
    fn may_begin(&self, completed: &Uses) -> bool {
        self.waits.done(completed)
            && self.foreign.iter().all(|(semaphore, value)| semaphore.value() >= *value)
    }
}

/// The thread's body. Owns the execution of one timeline · may block on `changed` and on waits · never holds the state's lock
/// while it copies, runs a kernel or blocks.
pub(super) fn run<X: Exec>(shared: &Shared<X>, timeline: Timeline) {
    let stop = LoseOnPanic(shared);
    while let Some(job) = next(shared, timeline) {
        if !perform(shared, &job) {
            break;
        }
        shared.tell(format_args!("done {}:{}", job.signals.timeline.0, job.signals.value));
        // Gone before the ticket is reached: whoever sees the ticket may give the memory back.
        let Job { signals, keeps, steps, .. } = job;
        drop((steps, keeps));
        locked(&shared.state).completed.add(signals);
        shared.changed.notify();
    }
    // What a lost device will never do is let go, outside the lock.
    let left = core::mem::take(&mut locked(&shared.state).queues[usize::from(timeline.0)]);
    drop(left);
    core::mem::forget(stop);
}

/// A kernel that panics loses the device, so that nobody waits for it for ever.
struct LoseOnPanic<'a, X: Exec>(&'a Shared<X>);

impl<X: Exec> Drop for LoseOnPanic<'_, X> {
    fn drop(&mut self) {
        locked(&self.0.state).lost = true;
        self.0.changed.notify();
    }
}

/// The next submission, once everything it waits for is done; `None` when there will be no other.
fn next<X: Exec>(shared: &Shared<X>, timeline: Timeline) -> Option<Job> {
    loop {
        let epoch = shared.changed.epoch();
        {
            let mut state = locked(&shared.state);
            let State { queues, line, completed, lost, closed, .. } = &mut *state;
            let queue = &mut queues[usize::from(timeline.0)];
            let is_next = line.front().is_none_or(|next| *next == timeline);
            match queue.front() {
                _ if *lost => return None,
                Some(job) if is_next && job.may_begin(completed) => {
                    line.pop_front();
                    return queue.pop_front();
                }
                None if *closed => return None,
                Some(_) | None => {}
            }
        }
        shared.changed.wait(epoch, None);
    }
}

/// Whether the device lived to the end of it.
fn perform<X: Exec>(shared: &Shared<X>, job: &Job) -> bool {
    let lost = || locked(&shared.state).lost;
    let earliest = shared.exec.now() + shared.options.delay.as_nanos() as u64;
    loop {
        let epoch = shared.changed.epoch();
        let now = shared.exec.now();
        let end = earliest.max(locked(&shared.state).stalled_until);
        if now >= end || lost() {
            break;
        }
        shared.changed.wait(epoch, Some(Duration::from_nanos(end - now)));
    }
    for step in &job.steps {
        if lost() {
            return false;
        }
        match step {
            Step::Copy(jobs) => shared.exec.copy(jobs),
            Step::Fill { to, word } => {
                for at in (0..to.len()).step_by(4) {
                    to.slice(at, 4).write(&word.to_le_bytes());
                }
            }
            Step::Bind(changes) => shared.sparse.apply(changes),
            Step::Run { kernel, bindings, unordered, push, groups, elapsed_ns } => {
                let start = shared.exec.now();
                let view = View::open(bindings, shared.geometry.frame_bytes(), unordered);
                kernel.0(&view.bindings, push, *groups);
                view.close();
                elapsed_ns.store((shared.exec.now() - start).max(1), Ordering::Release);
            }
        }
    }
    !lost()
}
