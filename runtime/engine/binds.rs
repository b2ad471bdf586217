//! Sparse buffers: a range has one for life, in which frames come and go by binds. Every bind is checked here before a driver sees it:
//! drivers and their layers let wrong ones pass.

use crate::arena::{Arena, Buffer};
use crate::range::{PlacementKind, RangeCell, Way};
use crate::stats::Counters;
use crate::trace::TraceCause;
use crate::{Engine, Ports};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::placement::{Binding, Eviction, Placement};
use vkhmm_core::policy::Use;
use vkhmm_core::units::{ByteRange, FrameIndex, OpId, RangeId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Bind, Device, Mutex};

/// What one item changes in sparse buffers, by one submission.
pub(crate) struct Binds<D: Device> {
    /// What loses its frames.
    pub(crate) gone: Vec<Bind<D>>,
    /// What gets some.
    pub(crate) come: Vec<Bind<D>>,
}

impl<D: Device> Default for Binds<D> {
    fn default() -> Self {
        Self { gone: Vec::new(), come: Vec::new() }
    }
}

impl<D: Device> Binds<D> {
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}

/// Ranges that a plan names, looked up before the arena's lock is taken.
pub(crate) type Named<P> = Vec<Arc<RangeCell<P>>>;

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl<P: Ports> Engine<P> {
    /// How kernels are to reach a range of `bytes` bytes that lies in frames: through a sparse buffer where it can have one.
    /// `why_not` says what stood against its use in place.
    pub(crate) fn way_in_frames(&self, bytes: u64, why_not: Option<&str>) -> Way<P::Device> {
        let (kind, buffer, why) = match self.reserve_buffer(bytes) {
            Ok(buffer) => (PlacementKind::Sparse, Some(buffer), self.device.profile().reasons[0].clone()),
            Err(why) => (PlacementKind::Span, None, why),
        };
        let why = why_not.map_or(why.clone(), |why_not| format!("not in place: {why_not}; {why}"));
        Way { kind, buffer, why: why.into(), advised: false }
    }

    fn reserve_buffer(&self, bytes: u64) -> Result<Buffer<P>, String> {
        let profile = self.device.profile();
        let sparse = profile.sparse.ok_or_else(|| profile.reasons[0].clone())?;
        if !self.config.sparse {
            return Err("span: sparse buffers are turned off".into());
        }
        let need = self.buffer_bytes(bytes);
        if need > sparse.buffer_bytes_max {
            let (need, most) = (mib(need), mib(sparse.buffer_bytes_max));
            return Err(format!("span: a buffer of {need} is longer than the {most} that the device allows"));
        }
        let fits = |taken: u64| taken.checked_add(need).filter(|all| *all <= sparse.space_bytes);
        let counter = &self.counters.sparse_bytes;
        if let Err(taken) = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            let (taken, space, need) = (mib(taken), mib(sparse.space_bytes), mib(need));
            return Err(format!(
                "span: {taken} of sparse buffers are taken of {space}, which leaves no {need}"
            ));
        }
        self.device.reserve(need).map(Arc::new).map_err(|error| {
            counter.fetch_sub(need, Ordering::Relaxed);
            format!("span: no sparse buffer of {}: {error}", mib(need))
        })
    }

    pub(crate) fn buffer_bytes(&self, bytes: u64) -> u64 {
        bytes.next_multiple_of(self.config.geometry.frame_bytes())
    }

    /// The range has a sparse buffer now, if it has one: frames may come to lie there.
    pub(crate) fn enter_bindings(&self, arena: &mut Arena<P>, range: &RangeCell<P>, way: &Way<P::Device>) {
        if way.kind == PlacementKind::Sparse {
            let subs = range.bytes.div_ceil(self.config.geometry.frame_bytes()) as u32;
            let entered = arena.bindings.add_range(range.id, subs);
            entered.unwrap_or_else(|broken| panic!("a new range has binds: {broken}"));
        }
    }

    /// A range that was to be used in place, and cannot be, lies in frames from now on, unless another launch found it otherwise
    /// meanwhile. Whether it is used in place.
    pub(crate) fn settle_in_frames(&self, range: &RangeCell<P>, why_not: &str) -> bool {
        let chosen = self.way_in_frames(range.bytes, Some(why_not));
        let mut arena = self.arena.lock();
        let mut way = range.way.lock();
        let open = way.kind == PlacementKind::InPlace && way.buffer.is_none() && !range.is_dead();
        if open {
            self.enter_bindings(&mut arena, range, &chosen);
        }
        let unused = if open { core::mem::replace(&mut *way, chosen) } else { chosen };
        let in_place = way.kind == PlacementKind::InPlace;
        drop(way);
        drop(arena);
        if unused.kind == PlacementKind::Sparse {
            drop(unused.buffer);
            self.counters.sparse_bytes.fetch_sub(self.buffer_bytes(range.bytes), Ordering::Relaxed);
        }
        in_place
    }

    /// Destroys the buffer that a dropped range has for life, unless a submission still names it. Whether it is gone.
    ///
    /// The arena's lock is held from before until the range's frames are given up: in between a plan could bind them elsewhere,
    /// under a buffer that still has them.
    pub(crate) fn drop_sparse(&self, arena: &mut Arena<P>, range: &RangeCell<P>) -> bool {
        let mut way = range.way.lock();
        if way.kind != PlacementKind::Sparse {
            return true;
        }
        // Nobody gets another reference meanwhile: launches find the range dead, and evictions take theirs under the arena's lock.
        // A lost device may name it for ever; it gets no frames any more that could be bound elsewhere.
        let named = way.buffer.as_ref().is_some_and(|buffer| Arc::strong_count(buffer) > 1);
        if named && !self.lost.load(Ordering::Acquire) {
            return false;
        }
        let Some(buffer) = way.buffer.take() else { return true };
        drop(way);
        drop(buffer);
        let removed = arena.bindings.remove_range(range.id);
        removed.unwrap_or_else(|broken| panic!("a range with a sparse buffer has no binds: {broken}"));
        self.counters.sparse_bytes.fetch_sub(self.buffer_bytes(range.bytes), Ordering::Relaxed);
        true
    }

    /// The ranges that a plan binds or unbinds, as far as they still exist.
    pub(crate) fn named(&self, evictions: &[Eviction], binds: &[Binding]) -> Named<P> {
        let gone = evictions.iter().filter(|e| e.scattered).map(|e| e.range);
        let mut ids: Vec<RangeId> = gone.chain(binds.iter().map(|b| b.range)).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Vec::new();
        }
        let space = self.space.lock();
        ids.into_iter().filter_map(|id| space.get(id)).collect()
    }

    /// Carries a plan over to what lies where, and says what the device is to do for it. Only in one's turn, so that the
    /// submissions come in the same order.
    pub(crate) fn rebind(
        &self,
        arena: &mut Arena<P>,
        named: &Named<P>,
        evictions: &[Eviction],
        binds: &[Binding],
    ) -> Binds<P::Device> {
        let mut all = Binds::default();
        let mut gone: Vec<Binding> = Vec::new();
        for eviction in evictions.iter().filter(|e| e.scattered) {
            // A range that was reclaimed since the plan was made took its binds along.
            let found = named.iter().find(|range| range.id == eviction.range);
            let Some((range, buffer)) = found.and_then(|range| Some((range, range.buffer()?))) else {
                continue;
            };
            all.gone.push(self.stretch(range, buffer, &eviction.subs, None));
            let mut at = eviction.subs.start;
            for frames in &eviction.frames {
                let subs = at..at + frames.count;
                at = subs.end;
                gone.push(Binding { range: eviction.range, subs, frames: *frames });
            }
        }
        for bind in binds {
            let found = named.iter().find(|range| range.id == bind.range);
            let (range, buffer) = found
                .and_then(|range| Some((range, range.buffer()?)))
                .expect("a range that a launch has taken holds of is not reclaimed");
            all.come.push(self.stretch(range, buffer, &bind.subs, Some(bind.frames.first)));
        }
        let applied = arena.bindings.apply(&gone, binds);
        applied.unwrap_or_else(|broken| panic!("a plan binds what it cannot: {broken}"));
        let bytes = |list: &[Bind<P::Device>]| list.iter().map(|bind| bind.bytes).sum();
        Counters::add(&self.counters.unbound_bytes, bytes(&all.gone));
        Counters::add(&self.counters.bound_bytes, bytes(&all.come));
        all
    }

    fn stretch(
        &self,
        range: &RangeCell<P>,
        buffer: Buffer<P>,
        subs: &core::ops::Range<u32>,
        frames: Option<FrameIndex>,
    ) -> Bind<P::Device> {
        let frame_bytes = self.config.geometry.frame_bytes();
        let (offset, bytes) = (u64::from(subs.start) * frame_bytes, subs.len() as u64 * frame_bytes);
        let cause = if frames.is_some() { TraceCause::Bind } else { TraceCause::Unbind };
        let start = range.offset() + offset;
        self.note(cause, ByteRange { start, end: start + bytes });
        Bind { buffer, offset, bytes, frames }
    }

    /// Evictions without a launch are carried out: see [`Engine::keep_plan`].
    pub(crate) fn keep_evictions(&self, op: OpId, evictions: &[Eviction], found: &Uses) -> Binds<P::Device> {
        let named = self.named(evictions, &[]);
        let mut arena = self.arena.lock();
        arena.commit(op, found);
        self.rebind(&mut arena, &named, evictions, &[])
    }

    /// Whether all of `subs` lie in the range's sparse buffer; if so, notes the use. For resident launches.
    pub(crate) fn use_bound(&self, range: RangeId, subs: core::ops::Range<u32>, now: u64, what: Use) -> bool {
        let mut arena = self.arena.lock();
        let there = arena.placement.covers(range, subs.clone());
        if there {
            arena.placement.touch(range, subs, now, what);
        }
        there
    }
}
