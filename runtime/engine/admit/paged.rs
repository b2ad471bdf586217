//! Paged operations at admission: the holds for their life, and who meets them.
//!
//! A paged operation takes its holds in one turn, and its rounds take turns of their own, until it is over: nobody may wait for that in a
//! turn, or they would never come. So whoever meets it gives the turn back ([`Refusal::Paged`]): a launch or pin waits outside and asks for
//! another one, a hint leaves the pages out, an acquire is busy. Evictions pass: between rounds the pages may lie anywhere.

use super::blocks::BlockPlan;
use super::{Aim, Found, Ops, Refusal};
use crate::op::BlockRef;
use crate::range::{PlacementKind, RangeCell};
use crate::report::Place;
use crate::{Argument, Engine, EngineError, LaunchSpec, Op, Ports, Watch};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use vkhmm_core::block::Block;
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::Placement;
use vkhmm_core::units::OpId;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Mutex, Signal};

impl<P: Ports> Engine<P> {
    /// Holds all that `spec` names for `op` until that is over, as a launch would for its kernel: from when this returns, the
    /// operation looks as if it had run. Every page has its host page then, and no frame is taken.
    ///
    /// # Errors
    /// As of [`Engine::launch`], but for `WorkingSetTooLarge`; `Acquired` also where an application only reads; `PinnedApart`.
    pub(crate) fn hold_for_life(&self, op: &Arc<Op<P>>, spec: &LaunchSpec<P>) -> Result<(), EngineError> {
        let [main, copy, evict] = [(); 3].map(|()| Arc::clone(op));
        let ops = Ops { aim: Aim::Paged, main, copy, evict, round: None };
        self.in_turn(spec, true, || self.try_hold(&ops, spec))
    }

    fn try_hold(&self, ops: &Ops<P>, spec: &LaunchSpec<P>) -> Result<(), Refusal> {
        let blocks = self.argument_blocks(spec);
        for plan in blocks.values() {
            self.check_block(ops, plan, &plan.range.blocks[plan.index as usize].lock())?;
        }
        // Rounds place whole blocks; where one is pinned in part, the rest cannot come beside it.
        let in_spans = |range: &&Arc<RangeCell<P>>| range.kind() == PlacementKind::Span;
        let mut in_spans = spec.arguments.iter().filter_map(Argument::target).filter(in_spans);
        // In placement, and not in the list of pins: one that waits, perhaps for such a launch, has nothing yet.
        if let Some(range) = in_spans.find(|range| self.arena.lock().placement.is_pinned(range.id)) {
            return Err(Refusal::Error(EngineError::PinnedApart { label: Arc::clone(&range.label) }));
        }
        self.take_holds(ops, &blocks, &mut Found::new(Uses::NONE, alloc::vec::Vec::new()), None)?;
        for plan in blocks.values() {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            // They have their host pages, and loads of them need not wait.
            let born = block.absent() & if plan.in_place { plan.masks.all() } else { plan.masks.read };
            if !born.is_empty() {
                block.born(born);
                // A load may have come since the hold.
                self.resume(&plan.range, plan.index, &mut block, PageMask::EMPTY);
            }
            self.refresh_gate(&plan.range, plan.index, &block);
        }
        let held = |plan: &BlockPlan<P>| BlockRef { range: Arc::clone(&plan.range), block: plan.index };
        ops.main.remember(blocks.values().map(held).collect());
        Ok(())
    }

    /// Of a block that is to be held for life: gives every absent page its host page, then the hold.
    pub(super) fn hold_block_for_life(
        &self,
        op: &Op<P>,
        plan: &BlockPlan<P>,
        block: &mut Block,
    ) -> Result<(), Refusal> {
        let populated = self.populate(&plan.range, plan.index, plan.masks.all() & block.absent());
        populated.map_err(|error| Refusal::Error(error.into()))?;
        block.hold_paged(op.id, &plan.masks);
        Ok(())
    }

    /// Refuses what a paged operation and a request with another aim than to launch cannot have at once, though both only read: what an
    /// application has, and what is pinned, has its place on the device, and rounds may want it in another one.
    pub(super) fn check_apart(&self, aim: Aim, plan: &BlockPlan<P>, block: &Block) -> Result<(), Refusal> {
        match aim {
            Aim::Acquire | Aim::Pin => {
                block.paged_by(plan.masks.all()).map_or(Ok(()), |op| Err(Refusal::Paged(op)))
            }
            Aim::Paged => {
                self.check_not_acquired(plan, block).map_err(Refusal::Error)?;
                block.paged_crowd().map_or(Ok(()), |op| Err(Refusal::Paged(op)))
            }
            Aim::Launch | Aim::Hint | Aim::Evict => Ok(()),
        }
    }

    /// Waits until a paged operation is over, in nobody's turn; or for a loss.
    pub(super) fn wait_for_paged(&self, paged: OpId, watch: &mut Watch, label: &Arc<str>) {
        let _at = self.places.enter(Place::Paged);
        loop {
            let seen = self.progress.epoch();
            let Some(op) = self.op(paged).filter(|_| !self.lost.load(Ordering::Acquire)) else { return };
            watch.see_rounds(self, op.rounds());
            self.await_progress(seen, Some(self.config.watchdog));
            watch.check(self, || {
                alloc::format!(
                    "`{label}` waits for paged launch `{}`, which had {} rounds and no more",
                    op.label,
                    op.rounds()
                )
            });
        }
    }
}
