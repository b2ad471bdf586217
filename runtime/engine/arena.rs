//! Device memory as the engine sees it: registered pagemaps, the placement over their frames, a buffer for each span.

use crate::admit::Aim;
use crate::binds::{Binds, Named};
use crate::{Engine, EngineError, Op, Ports};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;
use vkhmm_core::binding::Bindings;
use vkhmm_core::pagemap::{OwnerId, Pagemap, PagemapId, PagemapRegistry, PagemapRequest, TeardownError};
use vkhmm_core::placement::{
    AdmitError, EvictGoal, Eviction, Placed, Placement, Plan, SpanId, SpanPlacement, Want,
};
use vkhmm_core::policy::{Policy, Use};
use vkhmm_core::units::{DeviceIndex, FrameIndex, FrameRun, Geometry, OpId, RangeId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Device, Exec, Mutex, Signal};

/// The state behind the arena lock.
pub(crate) struct Arena<P: Ports> {
    geometry: Geometry,
    pub(crate) limit_bytes: u64,
    pub(crate) registry: PagemapRegistry,
    pub(crate) placement: SpanPlacement,
    /// What lies where in sparse buffers, once every bind is done that was admitted.
    pub(crate) bindings: Bindings,
    /// First frame → pagemap, of every piece.
    pieces: BTreeMap<FrameIndex, PagemapId>,
    frames_taken: u32,
    next_frame: u32,
    buffers: BTreeMap<SpanId, Buffer<P>>,
    /// Every buffer that may still exist, also those that nobody finds here any more: a launch on its way out may have one.
    made: Vec<(FrameRun, Weak<<P::Device as Device>::Buffer>)>,
    /// The frames that a device that watches them knows to be idle (`frames.rs`).
    pub(crate) idle_told: Vec<FrameRun>,
}

/// A span's buffer.
pub(crate) type Buffer<P> = Arc<<<P as Ports>::Device as Device>::Buffer>;

/// A launch's place on the device.
pub(crate) struct Placing<P: Ports> {
    pub(crate) plan: Plan,
    /// One per want; `None` where its range has one for life.
    pub(crate) buffers: Vec<Option<Buffer<P>>>,
    /// The operations of `plan.deps`, looked up while none of them can be over.
    pub(crate) after: Vec<Arc<Op<P>>>,
}

/// Why frames were not given now.
pub(crate) enum NoFrames {
    Wait,
    NoRoom,
    Error(EngineError),
}

impl<P: Ports> Arena<P> {
    pub(crate) fn new(geometry: Geometry, limit_bytes: u64, policy: Arc<dyn Policy>) -> Self {
        let frames = u32::try_from(limit_bytes / geometry.frame_bytes()).unwrap_or(u32::MAX);
        let placement = SpanPlacement::new(frames, geometry.subs_per_block(), policy);
        Self {
            geometry,
            limit_bytes,
            registry: PagemapRegistry::new(DeviceIndex(0), geometry),
            placement,
            bindings: Bindings::default(),
            pieces: BTreeMap::new(),
            frames_taken: 0,
            next_frame: 0,
            buffers: BTreeMap::new(),
            made: Vec::new(),
            idle_told: Vec::new(),
        }
    }

    pub(crate) fn limit_frames(&self) -> u32 {
        u32::try_from(self.limit_bytes / self.geometry.frame_bytes()).unwrap_or(u32::MAX)
    }

    /// Frames that everything beside the pinned spans may own.
    pub(crate) fn unpinned_frames(&self) -> u32 {
        self.limit_frames().saturating_sub(self.placement.stats().pinned)
    }

    /// Frames that a want needs beside those that it has.
    pub(crate) fn missing(&self, want: &Want) -> u32 {
        if self.placement.covers(want.range, want.subs.clone()) {
            return 0;
        }
        let missing = |sub: &u32| !want.scattered || self.placement.frame_of(want.range, *sub).is_none();
        want.subs.clone().filter(missing).count() as u32
    }

    pub(crate) fn owned_frames(&self) -> u32 {
        self.placement.stats().owned
    }

    pub(crate) fn set_limit(&mut self, bytes: u64) {
        self.limit_bytes = bytes;
        self.placement.set_limit(self.limit_frames());
    }

    pub(crate) fn commit(&mut self, op: OpId, found: &Uses) {
        self.placement.commit(op, found);
    }

    pub(crate) fn abort(&mut self, op: OpId) {
        self.placement.abort(op);
    }

    pub(crate) fn submitted(&mut self, op: OpId, uses: Uses) {
        self.placement.submitted(op, &uses);
    }

    /// Takes the buffers of spans that are gone out, for the caller to drop without the lock.
    pub(crate) fn drop_spans(&mut self, spans: &[SpanId]) -> Vec<Buffer<P>> {
        spans.iter().filter_map(|s| self.buffers.remove(s)).collect()
    }

    pub(crate) fn buffer(&mut self, device: &P::Device, placed: &Placed) -> Result<Buffer<P>, EngineError> {
        let (Some(span), [frames]) = (placed.span, &placed.frames[..]) else {
            unreachable!("a span is one run of frames")
        };
        if let Some(buffer) = self.buffers.get(&span) {
            return Ok(Arc::clone(buffer));
        }
        let buffer = Arc::new(device.buffer(*frames)?);
        if self.made.len() > 2 * self.buffers.len() + 16 {
            self.made.retain(|(_, made)| made.strong_count() > 0);
        }
        self.made.push((*frames, Arc::downgrade(&buffer)));
        self.buffers.insert(span, Arc::clone(&buffer));
        Ok(buffer)
    }

    /// Takes one more piece of device memory, registers it and gives its frames to the placement.
    fn grow(&mut self, device: &P::Device, need: u32, explicit: bool) -> Result<(), EngineError> {
        let profile = device.profile();
        let frame_bytes = self.geometry.frame_bytes();
        let left = self.limit_frames().saturating_sub(self.frames_taken);
        let most = (profile.piece_bytes_max / frame_bytes) as u32;
        // An explicit limit is one piece of exactly that size where the device allows; the default grows as needed.
        let usual = ((256 << 20) / frame_bytes) as u32;
        let mut count = if explicit { left } else { usual.max(need).min(left) }.min(most);
        while count > 0 {
            let first = FrameIndex(self.next_frame);
            match device.grow(first, count) {
                Ok(address) => return self.register(device, first, count, address),
                // Halve the request, then evict (the caller), then a typed error.
                Err(vkhmm_port::DeviceError::OutOfDeviceMemory { .. }) if count > need.max(1) => {
                    count = (count / 2).max(need)
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn register(
        &mut self,
        device: &P::Device,
        first: FrameIndex,
        count: u32,
        address: u64,
    ) -> Result<(), EngineError> {
        let memory = device.profile().memory;
        let request = PagemapRequest {
            kind: memory.kind as u32,
            flags: memory.flags.bits(),
            device: DeviceIndex(0),
            device_addresses: address..address + u64::from(count) * self.geometry.frame_bytes(),
            frames: first,
            owner: Some(OwnerId(1)),
        };
        let registered = self.registry.register(request).map_err(|e| EngineError::Pagemap(format!("{e}")));
        let id = match registered {
            Ok(id) => id,
            Err(error) => {
                device.shrink(first);
                return Err(error);
            }
        };
        let refused = |e: vkhmm_core::pagemap::PagemapError| EngineError::Pagemap(format!("{e}"));
        self.registry.acquire(id, count).map_err(refused)?;
        self.placement.add_frames(self.registry.frames(id).map_err(refused)?);
        self.pieces.insert(first, id);
        self.frames_taken += count;
        // A number that is no frame lies between pieces: bytes that are neighbours by number are neighbours in memory.
        self.next_frame += count + 1;
        Ok(())
    }

    /// Whether a buffer over frames of `run` exists.
    fn has_buffer(&self, run: FrameRun) -> bool {
        let inside = |made: &FrameRun| run.first <= made.first && made.first.0 < run.end();
        self.made.iter().any(|(frames, made)| inside(frames) && made.strong_count() > 0)
    }

    /// Whether frames may be handed out: no pagemap was killed.
    pub(crate) fn is_live(&self) -> bool {
        self.registry.iter().all(Pagemap::is_live)
    }
}

impl<P: Ports> Engine<P> {
    /// Places a launch's wants; takes more device memory first, while the limit and the device allow.
    pub(crate) fn place(&self, op: OpId, wants: &[Want], aim: Aim) -> Result<Placing<P>, NoFrames> {
        let completed = *self.completed.lock();
        let now = self.clock.load(Ordering::Relaxed);
        let mut arena = self.arena.lock();
        if !wants.is_empty() && !arena.is_live() {
            return Err(NoFrames::Error(EngineError::NoPagemap));
        }
        arena.placement.reap(&completed);
        let need: u32 = wants
            .iter()
            .filter(|w| !arena.placement.covers(w.range, w.subs.clone()))
            .map(|w| if arena.placement.offers_home(w) { w.range_subs } else { arena.missing(w) })
            .sum();
        let stats = arena.placement.stats();
        if need > stats.free + stats.retired && arena.frames_taken < arena.limit_frames() {
            let explicit = self.config.device_memory_limit.is_some();
            let missing = need - stats.free - stats.retired;
            match arena.grow(&self.device, missing, explicit) {
                Ok(()) => {
                    arena.pieces.last_key_value().into_iter().for_each(|(first, _)| self.note_view(*first))
                }
                Err(error) if arena.frames_taken == 0 || matches!(error, EngineError::DeviceLost { .. }) => {
                    return Err(NoFrames::Error(error));
                }
                Err(_) => {}
            }
        }
        let frame_bytes = self.config.geometry.frame_bytes();
        let planned = match aim {
            Aim::Hint => match arena.placement.admit_hint(op, wants, now, &completed) {
                Some(plan) => Ok(plan),
                None => return Err(NoFrames::NoRoom),
            },
            _ => arena.placement.admit(op, wants, now),
        };
        let plan = match planned {
            Err(AdmitError::PinnedApart { range, .. }) => {
                drop(arena);
                return Err(self.acquired_apart(range));
            }
            planned => planned,
        };
        let plan = plan.map_err(|error| match error {
            AdmitError::MustWait { .. } | AdmitError::PinnedApart { .. } => NoFrames::Wait,
            AdmitError::TooLarge { need, have, limit, held, largest_run } => {
                NoFrames::Error(EngineError::WorkingSetTooLarge {
                    need: u64::from(need) * frame_bytes,
                    have: u64::from(have) * frame_bytes,
                    limit: u64::from(limit) * frame_bytes,
                    held: u64::from(held) * frame_bytes,
                    largest_run: u64::from(largest_run) * frame_bytes,
                })
            }
        })?;
        arena.tell_frames(&self.device);
        let mut buffers = Vec::with_capacity(plan.placed.len());
        for placed in &plan.placed {
            if placed.span.is_none() {
                buffers.push(None);
                continue;
            }
            match arena.buffer(&self.device, placed) {
                Ok(buffer) => buffers.push(Some(buffer)),
                Err(error) => {
                    arena.placement.abort(op);
                    let spans: Vec<_> = plan.placed.iter().filter_map(|p| p.span).collect();
                    let unused = arena.drop_spans(&spans);
                    drop(arena);
                    drop(unused);
                    return Err(NoFrames::Error(error));
                }
            }
        }
        // Placement has not been told that they are submitted, which comes before their end: the table has them all.
        let after = plan.deps.ops.iter().filter_map(|id| self.op(*id)).collect();
        Ok(Placing { plan, buffers, after })
    }

    /// Undoes [`Engine::place`]. Buffers of the plan's new spans go; those of older ones are made again when needed.
    pub(crate) fn unplace(&self, op: OpId, plan: &Plan) {
        let spans: Vec<_> = plan.placed.iter().filter_map(|p| p.span).collect();
        let mut arena = self.arena.lock();
        arena.placement.abort(op);
        let unused = arena.drop_spans(&spans);
        drop(arena);
        drop(unused);
    }

    /// The plan is carried out: buffers of spans that are gone are let go, uses found on the way are noted. Answers what changes in
    /// sparse buffers; `named` are their ranges.
    pub(crate) fn keep_plan(
        &self,
        op: OpId,
        plan: &Plan,
        named: &Named<P>,
        wants: &[Want],
        found: &Uses,
        touched: &[(usize, core::ops::Range<u32>, Use)],
    ) -> Binds<P::Device> {
        let now = self.tick();
        let mut arena = self.arena.lock();
        arena.placement.commit(op, found);
        for (want, subs, what) in touched {
            arena.placement.touch(wants[*want].range, subs.clone(), now, *what);
        }
        let binds = self.rebind(&mut arena, named, &plan.evictions, &plan.binds);
        let gone = arena.drop_spans(&plan.retired);
        drop(arena);
        drop(gone);
        binds
    }

    pub(crate) fn plan_eviction(&self, op: OpId, goal: EvictGoal) -> Vec<Eviction> {
        let completed = *self.completed.lock();
        let mut arena = self.arena.lock();
        arena.placement.reap(&completed);
        let evictions = arena.placement.evict(op, goal);
        let spans: Vec<_> = evictions.iter().map(|e| e.span).collect();
        let gone = arena.drop_spans(&spans);
        drop(arena);
        drop(gone);
        evictions
    }

    /// One more launch: its time on the launch clock.
    pub(crate) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The span that covers sub-blocks of a range, with its buffer: for resident launches.
    pub(crate) fn find_span(
        &self,
        range: RangeId,
        subs: core::ops::Range<u32>,
        now: u64,
        what: Use,
    ) -> Option<(Placed, Buffer<P>)> {
        let mut arena = self.arena.lock();
        let placed = arena.placement.find(range, subs.clone())?;
        arena.placement.touch(range, subs, now, what);
        let buffer = arena.buffer(&self.device, &placed).ok()?;
        Some((placed, buffer))
    }

    /// All pagemaps, live and dying.
    pub fn pagemaps(&self) -> Vec<Pagemap> {
        self.arena.lock().registry.iter().cloned().collect()
    }

    /// The pagemap that owns a device address.
    pub fn find_pagemap(&self, device_address: u64) -> Option<Pagemap> {
        self.arena.lock().registry.find_pagemap(device_address).cloned()
    }

    /// No frame of this pagemap is handed out any more: launches fail with `NoPagemap` from now on.
    ///
    /// # Errors
    /// The pagemap is unknown.
    pub fn kill_pagemap(&self, id: PagemapId) -> Result<(), EngineError> {
        self.check_owned()?;
        self.arena.lock().registry.kill(id).map_err(|e| EngineError::Pagemap(format!("{e}")))
    }

    /// Takes a killed pagemap down: brings home what lies in it, waits up to `patience` for the last use of its frames, then
    /// forgets it and gives its memory back.
    ///
    /// # Errors
    /// The pagemap is unknown or was not killed; frames are still referenced after `patience` (the message says how many).
    pub fn unregister_pagemap(&self, id: PagemapId, patience: Duration) -> Result<(), EngineError> {
        self.check_owned()?;
        let say = |e: &dyn core::fmt::Display| EngineError::Pagemap(format!("{e}"));
        let (first, count) = {
            let arena = self.arena.lock();
            let pagemap = arena.registry.get(id).map_err(|e| say(&e))?;
            if pagemap.is_live() {
                return Err(say(&"it is live: kill it first, so that no launch takes its frames"));
            }
            (pagemap.frames().first, pagemap.frames().count)
        };
        let until = self.exec.now() + patience.as_nanos() as u64;
        loop {
            self.evict_now(EvictGoal::Piece(first))?;
            self.flush();
            let seen = self.progress.epoch();
            let completed = *self.completed.lock();
            let mut arena = self.arena.lock();
            arena.placement.reap(&completed);
            let in_use = arena.has_buffer(FrameRun { first, count });
            if !in_use && arena.placement.remove_piece(first).is_ok() {
                arena.registry.release(id, count).map_err(|e| say(&e))?;
                arena.registry.unregister(id).map_err(|e| say(&e))?;
                arena.pieces.remove(&first);
                arena.frames_taken -= count;
                arena.forget_frames(FrameRun { first, count });
                drop(arena);
                self.forget_view(first);
                self.device.shrink(first);
                return Ok(());
            }
            let stats = arena.placement.stats();
            drop(arena);
            if self.exec.now() >= until {
                return Err(say(&TeardownError::StillReferenced { id, frames: stats.owned + stats.retired }));
            }
            self.await_progress(seen, Some(Duration::from_millis(20)));
        }
    }
}
