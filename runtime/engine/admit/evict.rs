//! Eviction on its own: a limit that falls, a trim, a launch whose own pages are in its way.

use super::blocks::Blocks;
use super::{Aim, Found, Ops, Refusal};
use crate::report::Place;
use crate::{Engine, EngineError, Ports, Watch};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::block::Cause;
use vkhmm_core::placement::EvictGoal;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Mutex, Signal};

impl<P: Ports> Engine<P> {
    /// Evicts as `goal` says; the bytes are on their way home when it returns.
    ///
    /// # Errors
    /// As of [`Engine::launch`].
    pub(crate) fn evict_now(&self, goal: EvictGoal) -> Result<u64, EngineError> {
        let _turn = self.take_turn();
        self.await_empty_queue()?;
        self.evict_in_turn(goal)
    }

    /// Waits until every admitted request is submitted: what is queued cannot be evicted. In one's turn, so none comes after.
    fn await_empty_queue(&self) -> Result<(), EngineError> {
        let _at = self.places.enter(Place::EmptyQueue);
        loop {
            let seen = self.progress.epoch();
            self.check_alive()?;
            if self.submit.lock().has_no_queue() {
                return Ok(());
            }
            self.wait_in_turn(seen);
        }
    }

    pub(super) fn evict_in_turn(&self, goal: EvictGoal) -> Result<u64, EngineError> {
        self.catch_up();
        let ops = self.eviction_ops();
        let _at = self.places.enter(Place::Eviction);
        let mut watch = Watch::new(self);
        loop {
            let seen = self.progress.epoch();
            match self.try_evict(&ops, goal) {
                Ok(bytes) => return Ok(bytes),
                Err(refusal) => {
                    let gone = match refusal {
                        Refusal::Error(error) => Some(error),
                        _ => self.check_alive().err(),
                    };
                    if let Some(error) = gone {
                        self.forget_ops(&ops.ids());
                        return Err(error);
                    }
                    self.flush();
                    self.wait_in_turn(seen);
                    watch.check(self, || "an eviction waits".into());
                }
            }
        }
    }

    /// Evicts as `goal` says if nothing has to be waited for first.
    pub(crate) fn evict_at_once(&self, goal: EvictGoal) -> Result<(), EngineError> {
        self.catch_up();
        let ops = self.eviction_ops();
        let outcome = self.try_evict(&ops, goal);
        if outcome.is_err() {
            self.forget_ops(&ops.ids());
        }
        match outcome {
            Err(Refusal::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn eviction_ops(&self) -> Ops<P> {
        let label: Arc<str> = "evict".into();
        let [main, copy, evict] = [(); 3].map(|()| self.new_op(&label));
        Ops { aim: Aim::Evict, main, copy, evict, round: None }
    }

    /// Evicts as `goal` says, or changes nothing. Returns the bytes evicted.
    fn try_evict(&self, ops: &Ops<P>, goal: EvictGoal) -> Result<u64, Refusal> {
        let evictions = self.plan_eviction(ops.main.id, goal);
        let frames: u64 = evictions.iter().map(|e| e.subs.len() as u64).sum();
        let mut blocks = Blocks::new();
        let mut found = Found::new(Uses::NONE, Vec::new());
        let there = self.add_evictions(&mut blocks, &evictions);
        let held = if there { self.take_holds(ops, &blocks, &mut found, None) } else { Err(Refusal::Wait) };
        if let Err(refusal) = held {
            self.arena.lock().abort(ops.main.id);
            return Err(refusal);
        }
        let mut item = self.commit(ops, &blocks, found, Cause::Evict);
        item.binds = self.keep_evictions(ops.main.id, &evictions, &item.waits);
        self.put(item);
        self.see_submitted();
        Ok(frames * self.config.geometry.frame_bytes())
    }

    /// Sets how many bytes of device memory frames may take, and evicts what is above. Returns the bytes that were evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn set_device_memory_limit(&self, bytes: u64) -> Result<u64, EngineError> {
        self.check_alive()?;
        let over = {
            let mut arena = self.arena.lock();
            arena.set_limit(bytes);
            arena.owned_frames().saturating_sub(arena.limit_frames())
        };
        if over == 0 { Ok(0) } else { self.evict_now(EvictGoal::Frames(over)) }
    }

    /// Evicts at least `bytes` of device memory, the cheapest first, if that much can be. Returns the bytes evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn trim(&self, bytes: u64) -> Result<u64, EngineError> {
        self.check_alive()?;
        let frames = u32::try_from(bytes.div_ceil(self.config.geometry.frame_bytes())).unwrap_or(u32::MAX);
        if frames == 0 { Ok(0) } else { self.evict_now(EvictGoal::Frames(frames)) }
    }

    /// Bytes that frames may take, and bytes that spans own now.
    pub fn device_memory(&self) -> (u64, u64) {
        let arena = self.arena.lock();
        (arena.limit_bytes, u64::from(arena.owned_frames()) * self.config.geometry.frame_bytes())
    }
}
