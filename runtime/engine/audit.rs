//! What oracles ask of a running engine: whether the invariants hold right now, and what is left over once all is at rest.
//! Reads everything and changes nothing; an audit tries locks only, so that it may come at any moment.

use crate::range::{PlacementKind, RangeCell};
use crate::{Engine, Ports};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::{Block, subs_of};
use vkhmm_core::check::check;
use vkhmm_core::placement::Placement;
use vkhmm_core::units::{FrameIndex, PageIndex};
use vkhmm_port::{Access, Device, Mutex};

/// What is open or taken. All zero once everything is freed and has come to rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Operations that are not over.
    pub operations: usize,
    /// Tickets that the completion thread still waits for.
    pub flights: usize,
    /// Requests and batches that have not reached a queue.
    pub unsent: usize,
    /// Copies home that wait for a staging slot or a fence.
    pub homes: usize,
    /// Staging slots in use.
    pub slots: usize,
    /// Dropped ranges that are not reclaimed.
    pub zombies: usize,
    /// Ranges, dropped ones too.
    pub ranges: usize,
    /// Ranges whose bytes a lost device may still write: they stay as long as it exists.
    pub quarantined: usize,
    /// Holds, transfers and guards of all blocks.
    pub holds: usize,
    /// Pages with a parked touch.
    pub parked: u32,
    /// Frames that spans own.
    pub frames_owned: u32,
    /// Frames that wait for a last use.
    pub frames_retired: u32,
    /// Launches between decision and submit.
    pub deciding: u32,
    /// Bytes of host memory that the device has imported.
    pub imported_bytes: u64,
}

fn audit_shown<P: Ports>(
    range: &RangeCell<P>,
    index: u32,
    block: &Block,
    shown: impl Fn(PageIndex) -> Option<Access>,
) -> Result<(), String> {
    let (mapped, writable) = (block.mapped().minus(&block.moving()), block.writable());
    for page in block.used().runs().flatten() {
        let right = match shown(PageIndex(range.first_page(index).0 + u64::from(page))) {
            None => true,
            Some(Access::ReadOnly) => mapped.contains(page),
            Some(Access::ReadWrite) => mapped.contains(page) && writable.contains(page),
        };
        if !right {
            return Err(format!(
                "I2: R shows page {page} of block {index} of `{}` more than its state allows",
                range.label
            ));
        }
    }
    Ok(())
}

impl<P: Ports> Engine<P> {
    /// Checks the invariants on every block whose lock is free: those of one block ([`check`]); R, which `shown` tells page by
    /// page, allows no more than the block knows, and nothing on pages that are on their way home; a gate that says "resident" is
    /// right; and, unless a request is being admitted, every frame with a page in it is owned by that page's sub-block alone.
    ///
    /// # Errors
    /// What is broken, and where.
    pub fn audit(&self, shown: impl Fn(PageIndex) -> Option<Access>) -> Result<(), String> {
        let Some(space) = self.space.try_lock() else { return Ok(()) };
        let ranges = space.all();
        drop(space);
        let mut frames = Vec::new();
        for range in &ranges {
            for index in 0..range.block_count() {
                let Some(block) = range.blocks[index as usize].try_lock() else { continue };
                check(&block).map_err(|broken| format!("block {index} of `{}`: {broken}", range.label))?;
                audit_shown(range, index, &block, &shown)?;
                self.audit_gate(range, index, &block)?;
                for sub in subs_of(block.device_valid(), self.config.geometry) {
                    let of_range = index * self.config.geometry.subs_per_block() + sub;
                    frames.push((range, of_range, block.frame(sub)));
                }
            }
        }
        self.audit_frames(&frames)
    }

    /// A gate may know less than the block, never more.
    fn audit_gate(&self, range: &RangeCell<P>, index: u32, block: &Block) -> Result<(), String> {
        let Some(gate) = range.gate.try_lock() else { return Ok(()) };
        let says = |alone| gate.lets_pass(index, index + 1, alone, range.block_count()).0;
        let valid = block.device_valid().covers(&block.used()) && block.transfers().is_empty();
        let alone = !(block.host_valid() | block.mapped()).intersects(&block.used());
        if says(false) && !valid || says(true) && !(valid && alone) {
            return Err(format!(
                "the gate of `{}` calls block {index} resident, which it is not",
                range.label
            ));
        }
        Ok(())
    }

    fn audit_frames(
        &self,
        frames: &[(&alloc::sync::Arc<RangeCell<P>>, u32, FrameIndex)],
    ) -> Result<(), String> {
        let admitting = self.turns.try_lock().is_none_or(|turns| !turns.is_idle());
        if admitting || self.lost.load(Ordering::Acquire) {
            return Ok(()); // a plan is carried out block by block
        }
        let Some(arena) = self.arena.try_lock() else { return Ok(()) };
        let mut owners = BTreeMap::new();
        for (range, sub, frame) in frames {
            if let Some((other, of)) = owners.insert(*frame, (&range.label, sub)) {
                let label = &range.label;
                return Err(format!(
                    "I4: frame {} is of sub-block {of} of `{other}` and of {sub} of `{label}`",
                    frame.0
                ));
            }
            let bound = arena.bindings.frame_of(range.id, *sub);
            if range.way.try_lock().is_some_and(|way| way.kind == PlacementKind::Sparse)
                && bound != Some(*frame)
            {
                return Err(format!(
                    "sub-block {sub} of `{}` is in frame {}, but its buffer has {bound:?} there",
                    range.label, frame.0
                ));
            }
            let planned = arena.placement.frame_of(range.id, *sub);
            if planned != Some(*frame) {
                return Err(format!(
                    "I4: sub-block {sub} of `{}` is in frame {}, but its place is {planned:?}",
                    range.label, frame.0
                ));
            }
        }
        Ok(())
    }

    /// What is open or taken. Takes every lock in turn, so it is exact only when nothing is under way.
    pub fn leftovers(&self) -> Leftovers {
        // One lock at a time: a guard in the literal would live as long as its statement.
        let operations = self.ops.lock().len();
        let flights = self.flights.lock().lanes.iter().map(|lane| lane.len()).sum();
        let unsent = usize::from(!self.submit.lock().is_empty());
        let zombies = self.zombies.lock().len();
        let imported_bytes = self.counters.imported_bytes.load(Ordering::Relaxed);
        let mut left =
            Leftovers { operations, flights, unsent, zombies, imported_bytes, ..Leftovers::default() };
        {
            let slots = self.slots.lock();
            left.homes = slots.homes.len();
            let all = 2 * self.device.profile().staging.slots as usize;
            left.slots = all - slots.free_in.len() - slots.free_out.len();
        }
        left.homes += self.fences.lock().waiting.len();
        {
            let completed = *self.completed.lock();
            let mut arena = self.arena.lock();
            arena.placement.reap(&completed);
            let stats = arena.placement.stats();
            (left.frames_owned, left.frames_retired) = (stats.owned, stats.retired);
        }
        let ranges = self.space.lock().all();
        left.ranges = ranges.len();
        for range in ranges {
            left.quarantined += usize::from(range.quarantined.load(Ordering::Acquire));
            left.deciding += range.gate.lock().deciding;
            for block in &range.blocks {
                let block = block.lock();
                left.holds += block.holds().len() + block.paged_holds().len() + block.transfers().len();
                left.holds += usize::from(!block.pinned().is_empty());
                let (reads, writes) = block.parked();
                left.parked += (reads | writes).count();
            }
        }
        left
    }
}
