//! The modelled device's clockwork: queues in order, waits between them, one link. Pure: it is told the time.

use core::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;

/// One submission.
pub(super) struct Job {
    pub(super) waits: Uses,
    pub(super) signals: Ticket,
    /// Nanoseconds from its start to its end.
    pub(super) ns: u64,
    /// Whether it needs the link.
    pub(super) copies: bool,
    /// Device times of its kernels, and where they go.
    pub(super) kernels: Vec<(Arc<AtomicU64>, u64)>,
    /// What it names, let go at its end.
    pub(super) keeps: Box<dyn Any + Send>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// When the first job ends, once it has begun.
    until: Option<u64>,
    /// Since when the first job could begin but for the link.
    ready_since: Option<u64>,
}

/// The device's state at one moment.
pub(super) struct Machine {
    queues: Vec<Queue>,
    completed: Uses,
    submitted: Uses,
    /// One copy at a time, on whatever queue; `None`: they do not disturb each other.
    link: Option<bool>,
    edge_ns: u64,
}

impl Machine {
    /// An idle device with so many queues, one for each timeline.
    pub(super) fn new(queues: usize, duplex: bool, edge_ns: u64) -> Self {
        Self {
            queues: (0..queues).map(|_| Queue::default()).collect(),
            completed: Uses::NONE,
            submitted: Uses::NONE,
            link: (!duplex).then_some(false),
            edge_ns,
        }
    }

    /// The counters at `now`, which never goes back.
    pub(super) fn completed(&mut self, now: u64) -> Uses {
        self.advance(now);
        self.completed
    }

    /// When something ends next.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.queues.iter().filter_map(|q| q.until).min()
    }

    /// Takes a job at `now`.
    ///
    /// # Panics
    /// If it waits for what nobody submitted, or does not signal its queue's next value.
    pub(super) fn push(&mut self, now: u64, job: Job) {
        self.advance(now);
        let Ticket { timeline, value } = job.signals;
        assert_eq!(value, self.submitted.on(timeline) + 1, "a submission signals the next value");
        assert!(job.waits.done(&self.submitted), "a wait for work that nobody submitted");
        assert_eq!(job.waits.on(timeline), 0, "a queue never waits for its own timeline");
        self.submitted.add(job.signals);
        self.queues[usize::from(timeline.0)].jobs.push_back(job);
        self.begin(now);
    }

    fn advance(&mut self, now: u64) {
        while let Some(at) = self.next_end().filter(|at| *at <= now) {
            for queue in self.queues.iter_mut().filter(|q| q.until == Some(at)) {
                queue.until = None;
                let job = queue.jobs.pop_front().expect("what has begun is first in its queue");
                if job.copies {
                    self.link = self.link.map(|_| false);
                }
                for (to, ns) in &job.kernels {
                    to.store((*ns).max(1), Ordering::Relaxed);
                }
                self.completed.add(job.signals);
                drop(job.keeps);
            }
            self.begin(at);
        }
    }

    /// Begins at `now` whatever can: of those that need the link, who waited longest.
    fn begin(&mut self, now: u64) {
        for queue in &mut self.queues {
            let Some(job) = queue.jobs.front().filter(|_| queue.until.is_none()) else { continue };
            if !job.waits.done(&self.completed) {
                continue;
            }
            if job.copies && self.link.is_some() {
                queue.ready_since.get_or_insert(now);
            } else {
                queue.until = Some(now + span(job, self.edge_ns));
            }
        }
        if self.link != Some(false) {
            return;
        }
        let ready = self.queues.iter_mut().filter(|q| q.ready_since.is_some());
        if let Some(queue) = ready.min_by_key(|q| q.ready_since) {
            let job = queue.jobs.front().expect("a job is ready");
            queue.until = Some(now + span(job, self.edge_ns));
            queue.ready_since = None;
            self.link = Some(true);
        }
    }
}

/// From begin to end, with the edge it came over.
fn span(job: &Job, edge_ns: u64) -> u64 {
    job.ns + if job.waits.is_none() { 0 } else { edge_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkhmm_core::units::Timeline;

    fn job(queue: u8, value: u64, ns: u64, copies: bool, waits: &[(u8, u64)]) -> Job {
        let mut uses = Uses::NONE;
        waits.iter().for_each(|(t, v)| uses.add(Ticket { timeline: Timeline(*t), value: *v }));
        let signals = Ticket { timeline: Timeline(queue), value };
        Job { waits: uses, signals, ns, copies, kernels: Vec::new(), keeps: Box::new(()) }
    }

    fn ends(machine: &mut Machine) -> Vec<u64> {
        let mut ends = Vec::new();
        while let Some(at) = machine.next_end() {
            ends.push(at);
            machine.completed(at);
        }
        ends
    }

    #[test]
    fn queues_overlap_and_wait_for_each_other() {
        let mut machine = Machine::new(3, true, 5);
        machine.push(0, job(0, 1, 100, true, &[]));
        machine.push(0, job(2, 1, 70, false, &[(0, 1)]));
        machine.push(10, job(0, 2, 100, true, &[]));
        machine.push(10, job(1, 1, 30, true, &[]));
        // The copy out beside the copy in, the kernel after its copy and the edge, the second copy behind the first.
        assert_eq!(ends(&mut machine), [40, 100, 175, 200]);
    }

    #[test]
    fn half_a_link_carries_one_copy_at_a_time_in_order_of_readiness() {
        let mut machine = Machine::new(3, false, 0);
        machine.push(0, job(2, 1, 50, false, &[]));
        machine.push(0, job(1, 1, 100, true, &[(2, 1)]));
        machine.push(0, job(0, 1, 40, true, &[]));
        machine.push(0, job(0, 2, 40, true, &[]));
        // The copy out is ready at 50, when the second copy in has had the link since 40.
        assert_eq!(ends(&mut machine), [40, 50, 80, 180]);
    }

    #[test]
    #[should_panic(expected = "nobody submitted")]
    fn a_wait_for_the_future_is_refused() {
        Machine::new(3, true, 0).push(0, job(0, 1, 1, true, &[(1, 1)]));
    }
}
