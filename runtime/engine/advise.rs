//! Advice on bytes of a range, and what a caller may ask about it. What each piece of advice changes is `core::advice`'s table; here
//! is who asks it: touches ([`Engine::advised_fetch`]), placement (told when advice comes), and the way of a range.

use crate::range::{PlacementKind, RangeCell, Way};
use crate::{Engine, EngineError, Ports};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use vkhmm_core::advice::{Advice, Advised, Side};
use vkhmm_core::block::Block;
use vkhmm_core::pagemap::Location;
use vkhmm_core::policy::{Fetch, Touch};
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Exec, Mutex};

/// How many bytes of a run are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Never touched by either side.
    pub absent: u64,
    /// On the host alone.
    pub host: u64,
    /// On both sides.
    pub shared: u64,
    /// On the device alone.
    pub device: u64,
    /// Lost with the device.
    pub lost: u64,
}

impl Places {
    fn add(&mut self, location: Location, bytes: u64) {
        *match location {
            Location::Absent => &mut self.absent,
            Location::Host => &mut self.host,
            Location::Shared => &mut self.shared,
            Location::Device => &mut self.device,
            Location::Lost => &mut self.lost,
        } += bytes;
    }
}

/// A run of pages about which the same was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Which bytes of the allocation.
    pub bytes: ByteRange,
    /// What was advised, and where the last prefetch was to bring them.
    pub advised: Advised,
    /// Kernels work on the host's bytes, because it was advised or for another reason ([`RangeCell::placement`]).
    pub in_place: bool,
    /// A guard or pin keeps them on the host.
    pub pinned_host: bool,
    /// A pin keeps their place on the device.
    pub pinned_device: bool,
    /// The thrash guard keeps them where they are.
    pub thrash_guarded: bool,
    /// Where they are.
    pub places: Places,
}

impl<P: Ports> Engine<P> {
    /// Says how bytes are going to be used: a hint about all pages that they touch. Never waits, and moves nothing by itself.
    ///
    /// [`Advice::AccessedBy`] is about allocations: it has effect once it is said of all pages, and before the first use on the
    /// device; later, or where the device cannot reach the host's bytes, it is only noted ([`Attributes::in_place`]).
    ///
    /// # Errors
    /// `UnknownRange`, `OutOfRange`, `ForkedChild`.
    pub fn advise(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
        advice: Advice,
    ) -> Result<(), EngineError> {
        self.check_named(range, bytes)?;
        let pages = self.pages_of(bytes);
        let told = {
            let mut advised = range.advised.lock();
            advised.change(pages.clone(), |said| said.take(advice));
            advised.over(pages)
        };
        range.is_advised.store(true, Ordering::Release);
        if let Advice::AccessedBy(_) = advice {
            self.choose_again(range);
            return Ok(());
        }
        let per_sub = u64::from(self.config.geometry.pages_per_sub);
        let mut arena = self.arena.lock();
        for (run, said) in told {
            let subs = (run.start / per_sub) as u32..run.end.div_ceil(per_sub) as u32;
            arena.placement.set_keep(range.id, subs, said.keep());
        }
        Ok(())
    }

    pub(crate) fn check_named(&self, range: &RangeCell<P>, bytes: ByteRange) -> Result<(), EngineError> {
        self.check_owned()?;
        if range.is_dead() {
            return Err(EngineError::UnknownRange { argument: 0 });
        }
        self.check_interval(range, bytes)
    }

    fn pages_of(&self, bytes: ByteRange) -> Range<u64> {
        let touched = self.config.geometry.pages_touched(&bytes);
        touched.first.0..touched.end().0
    }

    pub(crate) fn note_prefetch(&self, range: &RangeCell<P>, bytes: ByteRange, to: Side) {
        range.advised.lock().change(self.pages_of(bytes), |said| said.last_prefetch = Some(to));
    }

    /// What is brought home with a touch, given what the policy would bring. Under the block's lock.
    pub(crate) fn advised_fetch(
        &self,
        range: &RangeCell<P>,
        block: &Block,
        touch: &Touch,
        fetch: Fetch,
    ) -> Fetch {
        if !self.is_advised(range, block) {
            return fetch;
        }
        let said = range.advised.lock().get(touch.page.0 - range.first_page(0).0);
        self.as_advised(said, block, touch, fetch)
    }

    /// Whether advice or the thrash guard has a say in what comes with touches of a block.
    pub(crate) fn is_advised(&self, range: &RangeCell<P>, block: &Block) -> bool {
        block.thrash.is_guarded(self.exec.now()) || range.is_advised.load(Ordering::Acquire)
    }

    /// `fetch`, given what was `said` about the touched page.
    pub(crate) fn as_advised(&self, said: Advised, block: &Block, touch: &Touch, fetch: Fetch) -> Fetch {
        said.fetch(fetch, touch, block.thrash.is_guarded(self.exec.now()), self.config.geometry)
    }

    // ── accessed-by ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Chooses again how kernels are to reach a range that none has used yet, now that advice about that has changed.
    fn choose_again(&self, range: &Arc<RangeCell<P>>) {
        let pages = self.pages_of(ByteRange { start: 0, end: range.bytes });
        let wanted = range.advised.lock().over(pages).iter().all(|(_, said)| said.accessed_by);
        let before = range.way.lock().advised;
        if range.is_used.load(Ordering::Acquire) || wanted == before {
            return;
        }
        let usual = self.choose_way(range.bytes);
        let chosen = match wanted.then(|| self.can_be_in_place(range.bytes)) {
            None => usual,
            Some(Ok(())) if usual.kind == PlacementKind::InPlace => Way { advised: true, ..usual },
            Some(Ok(())) => {
                self.drop_unused(range, usual);
                let why = "it was advised that kernels work on it where it is".into();
                Way { kind: PlacementKind::InPlace, buffer: None, why, advised: true }
            }
            Some(Err(why_not)) => {
                let why = format!("not in place, although advised: {why_not}; {}", usual.why).into();
                Way { why, advised: true, ..usual }
            }
        };
        let mut arena = self.arena.lock();
        let mut way = range.way.lock();
        // A use settles the way under its lock.
        let open = !range.is_used.load(Ordering::Acquire) && !range.is_dead() && way.advised == before;
        if open {
            if way.kind == PlacementKind::Sparse {
                let removed = arena.bindings.remove_range(range.id);
                removed.unwrap_or_else(|broken| panic!("a range that nobody has used has binds: {broken}"));
            }
            self.enter_bindings(&mut arena, range, &chosen);
        }
        let unused = if open { core::mem::replace(&mut *way, chosen) } else { chosen };
        drop((way, arena));
        self.drop_unused(range, unused);
    }

    /// Lets go of a way that no kernel goes.
    fn drop_unused(&self, range: &RangeCell<P>, unused: Way<P::Device>) {
        if unused.kind == PlacementKind::Sparse {
            drop(unused.buffer);
            self.counters.sparse_bytes.fetch_sub(self.buffer_bytes(range.bytes), Ordering::Relaxed);
        }
    }

    /// Whether kernels can work on a range of `bytes` bytes where it is.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn can_be_in_place(&self, bytes: u64) -> Result<(), String> {
        use vkhmm_port::Device;
        let profile = self.device.profile();
        let Some(max) = profile.in_place_bytes_max else { return Err(profile.reasons[1].clone()) };
        let whole = self.in_place_bytes(bytes);
        if whole > max {
            return Err(format!("{whole} bytes are more than one import may have ({max})"));
        }
        Ok(())
    }

    // ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// What was said about the bytes, what keeps them, and where they are, as runs of pages about which the same was said; faults
    /// nothing in. A snapshot, block by block.
    ///
    /// # Errors
    /// `UnknownRange`, `OutOfRange`, `ForkedChild`.
    pub fn attributes(&self, range: &RangeCell<P>, bytes: ByteRange) -> Result<Vec<Attributes>, EngineError> {
        self.check_named(range, bytes)?;
        let g = self.config.geometry;
        let advised = range.advised.lock().clone();
        let pins = range.device_pins.lock().clone();
        let (in_place, now) = (range.is_in_place(), self.exec.now());
        let mut out: Vec<Attributes> = Vec::new();
        for (index, touched, _) in range.cut(bytes) {
            let block = range.blocks[index as usize].lock();
            for page in touched.runs().flatten() {
                let of_range = u64::from(index) * u64::from(g.pages_per_block) + u64::from(page);
                let start = of_range * u64::from(g.page_bytes);
                let end = (start + u64::from(g.page_bytes)).min(bytes.end);
                let sub = (of_range / u64::from(g.pages_per_sub)) as u32;
                let here = Attributes {
                    bytes: ByteRange { start: start.max(bytes.start), end },
                    advised: advised.get(of_range),
                    in_place,
                    pinned_host: block.pinned().contains(page),
                    pinned_device: pins.iter().any(|(_, subs)| subs.contains(&sub)),
                    thrash_guarded: block.thrash.is_guarded(now),
                    places: Places::default(),
                };
                let same = |last: &Attributes| {
                    *last == Attributes { bytes: last.bytes, places: last.places, ..here }
                };
                if !out.last().is_some_and(same) {
                    out.push(Attributes { bytes: ByteRange { end: here.bytes.start, ..here.bytes }, ..here });
                }
                let Some(run) = out.last_mut() else { continue };
                run.bytes.end = end;
                run.places.add(block.location(page), here.bytes.len());
            }
        }
        Ok(out)
    }
}
