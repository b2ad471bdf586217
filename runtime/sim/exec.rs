//! SimExec: the Exec port whose every call is a scheduling point of the world.

use crate::world::World;
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vkhmm_port::fake::HeldRank;
use vkhmm_port::{CopyJob, Exec, Rank, Signal};

/// Locks, threads and virtual time of one world. Used by that world's threads only.
#[derive(Clone)]
pub struct SimExec {
    world: Arc<World>,
}

impl SimExec {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Writes one line to the trace; a scheduling point.
    pub fn note(&self, line: core::fmt::Arguments<'_>) {
        self.world.note(line);
    }
}

impl Exec for SimExec {
    type Mutex<T: Send + 'static> = SimMutex<T>;
    type Signal = SimSignal;

    fn mutex<T: Send + 'static>(&self, rank: Rank, value: T) -> SimMutex<T> {
        let id = self.world.new_lock(format!("{rank:?}"));
        SimMutex { world: Arc::clone(&self.world), id, rank, value: Mutex::new(value) }
    }

    fn signal(&self) -> SimSignal {
        SimSignal { world: Arc::clone(&self.world), id: self.world.new_signal() }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        self.world.spawn(name, body)
    }

    fn now(&self) -> u64 {
        self.world.now()
    }

    /// Copies in up to four steps a job, so that others see the middle of it.
    fn copy(&self, jobs: &[CopyJob]) {
        assert!(!HeldRank::any(), "Exec::copy under a lock");
        for job in jobs {
            let piece = job.to.len().div_ceil(4).max(1);
            for at in (0..job.to.len()).step_by(piece) {
                self.world.point();
                let len = piece.min(job.to.len() - at);
                job.to.slice(at, len).copy_from(job.from.slice(at, len));
            }
        }
    }
}

/// Lock of [`SimExec`].
pub struct SimMutex<T> {
    world: Arc<World>,
    id: usize,
    rank: Rank,
    /// Lock: owns the value · never contended, as the world decides first who may take it.
    value: Mutex<T>,
}

/// Access to the value of a [`SimMutex`].
pub struct SimGuard<'a, T> {
    world: &'a World,
    id: usize,
    value: Option<MutexGuard<'a, T>>,
    held: Option<HeldRank>,
}

impl<T> SimMutex<T> {
    fn guard(&self, held: HeldRank) -> SimGuard<'_, T> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        SimGuard { world: &self.world, id: self.id, value: Some(value), held: Some(held) }
    }
}

impl<T: Send> vkhmm_port::Mutex<T> for SimMutex<T> {
    type Guard<'a>
        = SimGuard<'a, T>
    where
        T: 'a;

    fn lock(&self) -> SimGuard<'_, T> {
        let held = HeldRank::wait(self.rank);
        self.world.lock(self.id, true);
        self.guard(held)
    }

    fn try_lock(&self) -> Option<SimGuard<'_, T>> {
        self.world.lock(self.id, false).then(|| self.guard(HeldRank::taken(self.rank)))
    }
}

impl<T> Deref for SimGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until the drop")
    }
}

impl<T> DerefMut for SimGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until the drop")
    }
}

impl<T> Drop for SimGuard<'_, T> {
    fn drop(&mut self) {
        // First the value, then the permission: the next holder finds it free.
        self.value = None;
        self.held = None;
        self.world.unlock(self.id);
    }
}

/// Event count of [`SimExec`].
pub struct SimSignal {
    world: Arc<World>,
    id: usize,
}

impl Signal for SimSignal {
    fn epoch(&self) -> u32 {
        self.world.epoch(self.id)
    }

    /// # Panics
    /// If the thread holds a lock: no flow waits with one held.
    fn wait(&self, seen: u32, timeout: Option<Duration>) {
        assert!(!HeldRank::any() || std::thread::panicking(), "a thread waits with a lock held");
        self.world.wait(self.id, seen, timeout.map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)));
    }

    fn notify(&self) {
        self.world.notify(self.id);
    }
}
