//! What is queued, what is reached and until when the link is taken: the state that callers and the six threads share.

use crate::device::Throttled;
use crate::link::Link;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vkhmm_core::units::{Ticket, Timeline};
use vkhmm_core::uses::Uses;
use vkhmm_port::{DeviceError, Direction, Role, Submission};

/// A submission and when it came.
pub(crate) struct Job {
    pub(crate) submission: Submission<Throttled>,
    at: Instant,
}

/// Lock contract: `state` owns queues, counters and modelled times; held for one look or change; nothing is taken, copied or
/// dropped inside. `changed` tells of every change of it.
pub(crate) struct Queues {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: [VecDeque<Job>; Role::ALL.len()],
    submitted: Uses,
    completed: Uses,
    /// The modelled time of each timeline's last ticket: never after now.
    due: [Instant; Uses::TIMELINES_MAX],
    /// Until when the link is taken, inward and outward.
    taken_until: [Instant; 2],
    submits: u64,
    lose_at: Option<u64>,
    lost: bool,
    closing: bool,
}

/// The timeline of a role: its place in [`Role::ALL`].
pub(crate) fn timeline(role: Role) -> Timeline {
    Timeline(role as u8)
}

impl Queues {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            waiting: Default::default(),
            submitted: Uses::NONE,
            completed: Uses::NONE,
            due: [now; Uses::TIMELINES_MAX],
            taken_until: [now; 2],
            submits: 0,
            lose_at: None,
            lost: false,
            closing: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a submission, or says that this is the one at which the device is lost.
    pub(crate) fn push(&self, role: Role, submission: Submission<Throttled>) -> Result<(), DeviceError> {
        const OPERATION: &str = "submit";
        let mut state = self.state();
        state.submits += 1;
        if state.lost || state.lose_at.is_some_and(|n| state.submits >= n) {
            return Err(DeviceError::Lost { operation: OPERATION });
        }
        let (ticket, last) = (submission.signals, state.submitted.on(timeline(role)));
        if ticket.timeline != timeline(role) || ticket.value <= last {
            let message = format!("{ticket:?} after value {last} of {role:?}");
            return Err(DeviceError::Refused { operation: OPERATION, message });
        }
        state.submitted.add(ticket);
        state.waiting[role as usize].push_back(Job { submission, at: Instant::now() });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The next job of `role` once everything it waits for is reached, and when it could begin by the model. `None`: no more.
    pub(crate) fn next(&self, role: Role) -> Option<(Submission<Throttled>, Instant)> {
        let mut state = self.state();
        loop {
            if state.closing || state.lost {
                return None;
            }
            let queue = &state.waiting[role as usize];
            if queue.front().is_some_and(|job| job.submission.waits.done(&state.completed)) {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let job = state.waiting[role as usize].pop_front()?;
        let own = state.due[role as usize];
        let waits = job.submission.waits.iter().map(|ticket| state.due[usize::from(ticket.timeline.0)]);
        let ready = waits.fold(job.at.max(own), Instant::max);
        Some((job.submission, ready))
    }

    /// Takes the link for `bytes` from `ready` on, or from when it is free; when they are through.
    pub(crate) fn take_link(&self, link: &Link, direction: Direction, bytes: u64, ready: Instant) -> Instant {
        let mut state = self.state();
        let lane = usize::from(link.duplex && direction == Direction::Out);
        let end = ready.max(state.taken_until[lane]) + link.transfer(direction, bytes);
        state.taken_until[lane] = end;
        end
    }

    /// Waits until `due`; then `ticket` is reached, unless the device is lost or closed first.
    pub(crate) fn reach(&self, ticket: Ticket, due: Instant) {
        let mut state = self.state();
        while !(state.closing || state.lost) {
            let now = Instant::now();
            if now >= due {
                state.completed.add(ticket);
                state.due[usize::from(ticket.timeline.0)] = due;
                drop(state);
                return self.changed.notify_all();
            }
            let waited = self.changed.wait_timeout(state, due - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn completed(&self, operation: &'static str) -> Result<Uses, DeviceError> {
        let state = self.state();
        if state.lost { Err(DeviceError::Lost { operation }) } else { Ok(state.completed) }
    }

    /// As [`vkhmm_port::Device::wait`].
    pub(crate) fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let until = Instant::now().checked_add(timeout);
        let mut state = self.state();
        loop {
            let left = until.map_or(Duration::MAX, |u| u.saturating_duration_since(Instant::now()));
            match () {
                () if state.lost => return Err(DeviceError::Lost { operation: "wait for a timeline" }),
                () if !state.completed.done(seen) || left.is_zero() => return Ok(()),
                () => {}
            }
            let waited = self.changed.wait_timeout(state, left.min(Duration::from_secs(3600)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The `n`-th submission from now on, counted from one, finds the device lost.
    pub(crate) fn lose_in(&self, n: u64) {
        let mut state = self.state();
        state.lose_at = Some(state.submits + n);
    }

    /// Whether the device is lost or about to go.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.lost || state.closing
    }

    /// Nothing that is queued will run. Dropped here, outside of the lock.
    pub(crate) fn end(&self, lost: bool) {
        let mut state = self.state();
        state.lost |= lost;
        state.closing |= !lost;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(role: Role, value: u64, waits: Uses) -> Submission<Throttled> {
        let signals = Ticket { timeline: timeline(role), value };
        Submission { waits, foreign: Vec::new(), commands: Vec::new(), signals }
    }

    #[test]
    fn a_link_without_duplex_is_one_lane() {
        let link = Link { inward: 1e6, outward: 1e6, ..Link::GENEROUS };
        for (duplex, expected) in [(true, 1), (false, 2)] {
            let (queues, start) = (Queues::new(), Instant::now());
            let link = Link { duplex, ..link };
            queues.take_link(&link, Direction::In, 1_000_000, start);
            let end = queues.take_link(&link, Direction::Out, 1_000_000, start);
            assert_eq!(end - start, Duration::from_secs(expected), "duplex: {duplex}");
        }
    }

    #[test]
    fn a_job_is_ready_once_its_waits_are_reached_and_no_earlier() {
        let queues = Queues::new();
        let awaited = Ticket { timeline: timeline(Role::CopyIn), value: 1 };
        let mut waits = Uses::NONE;
        waits.add(awaited);
        queues.push(Role::Compute, job(Role::Compute, 1, waits)).expect("queued");
        let due = Instant::now() + Duration::from_millis(30);
        std::thread::scope(|scope| {
            scope.spawn(|| queues.reach(awaited, due));
            let (_, ready) = queues.next(Role::Compute).expect("not closed");
            assert!(Instant::now() >= due && ready == due);
        });
    }

    #[test]
    fn tickets_ascend() {
        let queues = Queues::new();
        queues.push(Role::CopyIn, job(Role::CopyIn, 2, Uses::NONE)).expect("queued");
        assert!(queues.push(Role::CopyIn, job(Role::CopyIn, 2, Uses::NONE)).is_err());
        assert!(queues.push(Role::CopyIn, job(Role::CopyOut, 3, Uses::NONE)).is_err());
    }

    #[test]
    fn the_nth_submission_finds_it_lost() {
        let queues = Queues::new();
        queues.lose_in(2);
        queues.push(Role::CopyIn, job(Role::CopyIn, 1, Uses::NONE)).expect("queued");
        let lost = queues.push(Role::CopyIn, job(Role::CopyIn, 2, Uses::NONE));
        assert!(matches!(lost, Err(DeviceError::Lost { .. })));
    }
}
