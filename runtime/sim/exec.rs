//! SimExec: the Exec port whose every call is a scheduling point of the world.

use crate::chooser::Point;
use crate::crew;
use crate::world::World;
use core::any::{Any, type_name};
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use vkhmm_core::block::Block;
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

    /// A scheduling point, and nothing else.
    pub fn pass(&self) {
        self.world.point(Point::Clock);
    }

    /// Runs `look` with no scheduling point in it: for oracles, which must not change what they watch. It may only try locks.
    pub fn quietly<T>(&self, look: impl FnOnce() -> T) -> T {
        self.world.quietly(look)
    }

    /// The number of this thread in the world.
    pub fn thread(&self) -> usize {
        World::me()
    }

    /// What this thread was called when it was spawned.
    pub fn thread_name(&self) -> String {
        self.world.thread_name()
    }

    /// Lets the script of a search deviate from now on, or no more.
    pub(crate) fn open_script(&self, open: bool) {
        self.world.open_script(open);
    }

    /// Every thread that is not over: what it waits for, and its last note.
    pub fn who_waits(&self) -> String {
        self.world.who_waits()
    }

    /// Scheduling decisions so far.
    pub fn decisions(&self) -> u64 {
        self.world.decisions()
    }

    /// Threads of the world that are not over.
    pub fn threads_alive(&self) -> usize {
        self.world.threads_alive()
    }

    /// The thread is at work for `ns` of virtual time; locks it holds stay held. Others run meanwhile.
    pub fn elapse(&self, ns: u64) {
        self.world.elapse(ns);
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
        let id = self.world.new_lock(rank, is_record(type_name::<T>()));
        SimMutex { world: Arc::clone(&self.world), id, rank, value: Mutex::new(value) }
    }

    fn signal(&self) -> SimSignal {
        SimSignal { world: Arc::clone(&self.world), id: self.world.new_signal() }
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        self.world.spawn(name, body);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.world.now()
    }

    /// A line of the trace.
    fn report(&self, line: core::fmt::Arguments<'_>) {
        self.note(format_args!("report: {line}"));
    }

    /// Copies in up to four steps a job, so that others see the middle of it.
    fn copy(&self, jobs: &[CopyJob]) {
        assert!(!HeldRank::any(), "Exec::copy under a lock");
        for job in jobs {
            let piece = job.to.len().div_ceil(4).max(1);
            for at in (0..job.to.len()).step_by(piece) {
                self.world.point(Point::Port);
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
    /// Lock: owns the value · free when it is taken, as the world decides first who may take it.
    value: Mutex<T>,
}

/// Access to the value of a [`SimMutex`].
pub struct SimGuard<'a, T: 'static> {
    world: &'a World,
    id: usize,
    value: Option<MutexGuard<'a, T>>,
    held: Option<HeldRank>,
}

/// Whether values of this type are records: the engine writes them for people and tests, and decides nothing by them. A name that
/// is not known here is a lock that matters.
fn is_record(name: &str) -> bool {
    name == "vkhmm_engine::trace::Ring" || name == type_name::<BTreeMap<Arc<str>, (u64, u64)>>()
}

impl<T: 'static> SimMutex<T> {
    fn guard(&self, held: HeldRank) -> SimGuard<'_, T> {
        let value = loop {
            match self.value.try_lock() {
                Ok(value) => break value,
                Err(TryLockError::Poisoned(value)) => break value.into_inner(),
                // Only after the end of the run, when the world decides nothing any more: the holder unwinds first.
                Err(TryLockError::WouldBlock) => crew::switch(),
            }
        };
        if let (Some(observer), Some(block)) = (self.world.observer(), block_in(&*value)) {
            observer.taken(World::me(), self.id, block);
        }
        SimGuard { world: &self.world, id: self.id, value: Some(value), held: Some(held) }
    }
}

fn block_in<T: 'static>(value: &T) -> Option<&Block> {
    (value as &dyn Any).downcast_ref()
}

impl<T: Send + 'static> vkhmm_port::Mutex<T> for SimMutex<T> {
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

impl<T: 'static> Deref for SimGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until the drop")
    }
}

impl<T: 'static> DerefMut for SimGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until the drop")
    }
}

impl<T: 'static> Drop for SimGuard<'_, T> {
    fn drop(&mut self) {
        if let (Some(observer), Some(block)) =
            (self.world.observer(), self.value.as_deref().and_then(block_in))
        {
            observer.let_go(World::me(), self.id, block);
        }
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
