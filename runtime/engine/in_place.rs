//! Ranges that kernels use in place: they work on A itself, through an import of the whole range, and nothing moves.
//!
//! Holds alone keep CPU and device apart there (`core::block::in_place`); the range gate never opens for such a range. Holds, and not
//! a count at the gate, because a loss must tell exactly which bytes were being written (docs/decisions, "in place by admission").
//! A launch that names few blocks in place, and needs to wait for nothing, takes its holds on the fast path, under the locks of these
//! blocks, which it keeps until it is recorded: so a hold is never seen before the ticket that ends it, and no turn is needed for the
//! order of holds to be the order of submissions. Of earlier launches that end before it, it takes over the holds that its own cover,
//! so that a loop on the same bytes holds them once.
//!
//! **Who sees whose bytes.** *Host to device*: a store of the CPU ends before its page is revoked or protected (the mapping is gone
//! for every thread when the call returns), that is before the launch is submitted, and a submission makes all earlier host writes
//! visible to its commands. *Device to host*: a submission ends with a barrier to host reads; the completion thread sees its ticket,
//! ends the hold, and only then is the page shown again. *Launch to launch*: in one batch by its barriers
//! ([`Bound::in_range`](crate::launch::Bound::in_range) says which bytes are meant), on one queue by the barrier that ends each
//! submission, between queues by the uses of whoever holds the pages. *Device beside CPU*: both only read.

use crate::admit::blocks::BlockPlan;
use crate::launch::LaunchSpec;
use crate::range::{PlacementKind, RangeCell, Way};
use crate::stats::Counters;
use crate::{BlockGuard, Engine, Op, Ports};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::Block;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Device, HostMemory, Mutex};

impl<P: Ports> RangeCell<P> {
    /// Whether kernels use it in place. Settled once [`Engine::settle_way`] was asked.
    pub(crate) fn is_in_place(&self) -> bool {
        self.kind() == PlacementKind::InPlace
    }
}

/// Most blocks that a launch on the fast path locks at a time.
const BLOCKS_MAX: usize = 8;

impl<P: Ports> Engine<P> {
    /// What a launch does in place, by block ascending. `None`: more than is done on the fast path, or by a way that is not settled.
    pub(crate) fn in_place_plans(&self, spec: &LaunchSpec<P>) -> Option<Vec<BlockPlan<P>>> {
        let mut plans: Vec<BlockPlan<P>> = Vec::new();
        for argument in &spec.arguments {
            let Some(range) = argument.target() else { continue };
            {
                let way = range.way.lock();
                // Advice may still change it, between this look and the next one.
                if !range.is_used.load(Ordering::Acquire) {
                    return None;
                }
                if way.kind != PlacementKind::InPlace {
                    continue;
                }
                // Whoever holds a block must not submit where the application's lock is taken for it.
                if way.buffer.is_none() || self.queue_is_shared {
                    return None;
                }
            }
            for (index, touched, covered) in range.cut(argument.bytes) {
                let masks = argument.masks(touched, covered);
                match plans.iter().position(|p| p.index == index && Arc::ptr_eq(&p.range, range)) {
                    Some(at) => plans[at].masks.add(&masks),
                    None if plans.len() == BLOCKS_MAX => return None,
                    None => plans.push(BlockPlan { in_place: true, masks, ..BlockPlan::new(range, index) }),
                }
            }
        }
        plans.sort_unstable_by_key(|plan| plan.range.first.0 + plan.index);
        Some(plans)
    }

    /// The blocks, locked, if the launch may have their pages and waits for nothing but earlier work of its own queue.
    pub(crate) fn lock_in_place<'a>(&self, plans: &'a [BlockPlan<P>]) -> Option<Vec<BlockGuard<'a, P>>> {
        let mut blocks = Vec::with_capacity(plans.len());
        for plan in plans {
            let block = plan.range.blocks[plan.index as usize].lock();
            // Under the lock under which a loss is settled: who finds none now is settled with.
            let over = plan.range.is_dead() || self.lost.load(Ordering::Acquire);
            if over || block.launch_check(&plan.masks).is_err() {
                return None;
            }
            let mut ordered = true;
            block.in_place_deps(&plan.masks, |id| ordered &= self.is_ordered(id));
            if !ordered {
                return None;
            }
            blocks.push(block);
        }
        Some(blocks)
    }

    /// Gives every page its host page, and takes R away from what the launch writes. False: the slow path says why not.
    pub(crate) fn prepare_in_place(&self, plan: &BlockPlan<P>, block: &mut Block) -> bool {
        let absent = plan.masks.all() & block.absent();
        let there = absent.runs().all(|run| self.host.populate(plan.range.run(plan.index, &run)).is_ok());
        there && self.weaken(&mut [(plan, block)]).is_ok()
    }

    /// Takes the holds of a launch that is recorded.
    pub(crate) fn hold_in_place(&self, op: &Op<P>, plan: &BlockPlan<P>, block: &mut Block) {
        block.in_place_hold(op.id, &plan.masks);
        block.in_place_commit(&plan.masks);
        block.take_over(op.id, |id| self.is_ordered(id));
        debug_assert_eq!(
            vkhmm_core::check::check(block),
            Ok(()),
            "block {} of `{}`",
            plan.index,
            plan.range.label
        );
    }

    /// Why a new range of `bytes` bytes is to be used in place; `None`: it need not be.
    ///
    /// # Errors
    /// It would be, but cannot: why.
    pub(crate) fn wants_in_place(&self, bytes: u64) -> Result<Option<Arc<str>>, String> {
        let profile = self.device.profile();
        let small = self.config.in_place_bytes;
        let why = if profile.memory.kind == MemoryKind::UnifiedMemory {
            "device memory is the host's, so kernels work on it where it is".to_string()
        } else if bytes <= small {
            format!("at most {small} bytes are worked on where they are")
        } else {
            return Ok(None);
        };
        self.can_be_in_place(bytes).map(|()| Some(why.into()))
    }

    /// Bytes that are imported for a range of `bytes` bytes: whole units of an import, and no more of its block than that.
    pub(crate) fn in_place_bytes(&self, bytes: u64) -> u64 {
        let unit = self.device.profile().import.map_or(1, |import| import.alignment_bytes);
        bytes.next_multiple_of(unit.max(u64::from(self.config.geometry.page_bytes)))
    }

    /// Settles how kernels reach the range, for life, at the first device use: a range that is to be used in place is imported now,
    /// or else is used in frames from now on. Whether it is used in place. Takes no lock that it holds while the driver works.
    pub(crate) fn settle_way(&self, range: &RangeCell<P>) -> bool {
        {
            let way = range.way.lock();
            range.is_used.store(true, Ordering::Release);
            if way.kind != PlacementKind::InPlace || way.buffer.is_some() {
                return way.kind == PlacementKind::InPlace;
            }
        }
        let buffer = match self.import_in_place(range) {
            Ok(buffer) => buffer,
            Err(why_not) => return self.settle_in_frames(range, &why_not),
        };
        let mut way = range.way.lock();
        let settled = way.kind != PlacementKind::InPlace || way.buffer.is_some() || range.is_dead();
        // Another launch may have been faster, or nobody wants it any more: ours goes away unused.
        let unused = if settled { Some(buffer) } else { way.buffer.replace(buffer) };
        let in_place = way.kind == PlacementKind::InPlace;
        drop(way);
        if unused.is_some() {
            drop(unused);
            self.uncount_import(self.in_place_bytes(range.bytes));
        }
        in_place
    }

    /// The buffer for life over the range's own bytes.
    fn import_in_place(&self, range: &RangeCell<P>) -> Result<Arc<<P::Device as Device>::Buffer>, String> {
        let bytes = self.in_place_bytes(range.bytes);
        let start = range.offset();
        let import = self.import(ByteRange { start, end: start + bytes })?;
        self.device.in_place(&Arc::new(import)).map(Arc::new).map_err(|error| {
            self.uncount_import(bytes);
            Counters::add(&self.counters.imports_refused, 1);
            error.to_string()
        })
    }

    /// Imports bytes of A, counted against the limit. Imports pin, so every page of them has a host page afterwards: the driver would
    /// pin holes.
    ///
    /// # Errors
    /// Who refused, and why.
    pub(crate) fn import(&self, bytes: ByteRange) -> Result<<P::Device as Device>::Import, String> {
        let (counter, limit) = (&self.counters.imported_bytes, self.config.import_limit);
        let before = counter.fetch_add(bytes.len(), Ordering::Relaxed);
        let made = if before + bytes.len() > limit {
            Err(format!(
                "{} bytes more than the {before} imported are above the limit of {limit}",
                bytes.len()
            ))
        } else {
            let populated = self.host.populate(self.config.geometry.pages_touched(&bytes));
            populated
                .map_err(|error| error.to_string())
                .and_then(|()| self.device.import(self.host.alias(bytes)).map_err(|error| error.to_string()))
        };
        if made.is_err() {
            self.uncount_import(bytes.len());
            Counters::add(&self.counters.imports_refused, 1);
        }
        made
    }

    pub(crate) fn uncount_import(&self, bytes: u64) {
        self.counters.imported_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Lets the buffer for life go, and with it the import, if there was one. Nobody uses the range any more.
    pub(crate) fn drop_way(&self, range: &RangeCell<P>) {
        let (kind, buffer) = {
            let mut way = range.way.lock();
            (way.kind, way.buffer.take())
        };
        if buffer.is_some() {
            drop(buffer);
            if kind == PlacementKind::InPlace {
                self.uncount_import(self.in_place_bytes(range.bytes));
            }
        }
    }

    /// How kernels reach a new range of `bytes` bytes.
    pub(crate) fn choose_way(&self, bytes: u64) -> Way<P::Device> {
        match self.wants_in_place(bytes) {
            Ok(Some(why)) => Way { kind: PlacementKind::InPlace, buffer: None, why, advised: false },
            Ok(None) => self.way_in_frames(bytes, None),
            Err(why_not) => self.way_in_frames(bytes, Some(&why_not)),
        }
    }
}
