//! ModelExec: the world's locks, signals and threads; bulk copies cost time and touch nothing.

use super::link::{LinkModel, ns, us};
use crate::{SimExec, SimMutex, SimSignal};
use vkhmm_port::{CopyJob, Exec, Rank};

/// Exec of a modelled machine.
#[derive(Clone)]
pub(super) struct ModelExec {
    sim: SimExec,
    model: LinkModel,
}

impl ModelExec {
    pub(super) fn new(sim: &SimExec, model: &LinkModel) -> Self {
        Self { sim: sim.clone(), model: *model }
    }

    /// The calling thread is at work for so long.
    pub(super) fn elapse(&self, ns: u64) {
        if ns > 0 {
            self.sim.elapse(ns);
        }
    }

    /// A sleeper was woken; it runs a little later.
    pub(super) fn wake_up(&self) {
        self.elapse(us(self.model.per_wait_us));
    }
}

impl Exec for ModelExec {
    type Mutex<T: Send + 'static> = SimMutex<T>;
    type Signal = SimSignal;

    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> SimMutex<T> {
        self.sim.mutex(rank, value)
    }

    fn signal(&self) -> SimSignal {
        self.sim.signal()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        self.sim.spawn(name, body)
    }

    fn now(&self) -> u64 {
        self.sim.now()
    }

    fn copy(&self, jobs: &[CopyJob]) {
        let bytes: usize = jobs.iter().map(|job| job.to.len()).sum();
        self.elapse(ns(bytes as f64, self.model.host_copy));
    }
}
