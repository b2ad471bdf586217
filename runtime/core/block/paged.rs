//! What a paged operation holds for its whole life: every page of its ranges, wherever that lies, from its call until its last round
//! is over.
//!
//! These holds are kept apart from all others. To the CPU they are holds like any: who only reads bears loads, who writes bears nobody.
//! On the device no ticket says when they end, and the *rounds*, which are launches, move the pages meanwhile: so nobody waits for them
//! there. A launch that they stand in the way of is refused ([`Conflict::Paged`](super::Conflict::Paged)) until the operation is over;
//! whoever takes frames away, and the rounds themselves, do not see them.

use super::{Block, Conflict, Hold, HoldKind, LaunchMasks};
use crate::mask::PageMask;
use crate::units::OpId;

impl Block {
    /// Most holds of paged operations at a time: up to two of each.
    pub const PAGED_HOLDS_MAX: usize = 8;

    /// A paged operation that must be over before another one can be noted.
    pub fn paged_crowd(&self) -> Option<OpId> {
        self.paged.first().filter(|_| self.paged.len() + 2 > Self::PAGED_HOLDS_MAX).map(|hold| hold.op)
    }

    /// From now on `op` reads or writes these pages until [`Block::finish`]; its rounds say when. [`Block::launch_check`] has let
    /// it pass, and there is no [`Block::paged_crowd`]; R is to be weakened before anybody else sees the block.
    pub fn hold_paged(&mut self, op: OpId, masks: &LaunchMasks) {
        for (kind, mask) in [(HoldKind::Exclusive, masks.exclusive()), (HoldKind::InPlace, masks.read)] {
            if !mask.is_empty() {
                assert!(self.paged.len() < Self::PAGED_HOLDS_MAX, "no room for another paged operation");
                self.paged.push(Hold { op, kind, mask });
            }
        }
        self.refresh_holds();
    }

    /// What paged operations hold.
    pub fn paged_holds(&self) -> &[Hold] {
        &self.paged
    }

    /// Pages that paged operations hold.
    pub fn paged_pages(&self) -> PageMask {
        self.paged.iter().fold(PageMask::EMPTY, |all, hold| all | hold.mask)
    }

    /// Pages that paged operations are to write.
    pub fn paged_written(&self) -> PageMask {
        let written = self.paged.iter().filter(|hold| hold.kind == HoldKind::Exclusive);
        written.fold(PageMask::EMPTY, |all, hold| all | hold.mask)
    }

    /// A paged operation that holds some of these pages.
    pub fn paged_by(&self, pages: PageMask) -> Option<OpId> {
        self.paged.iter().find(|hold| hold.mask.intersects(&pages)).map(|hold| hold.op)
    }

    /// The paged operation that must be over before a launch may have these pages: readers run beside readers, but not where a store
    /// waits already (I9).
    pub(super) fn paged_in_way(&self, masks: &LaunchMasks) -> Option<OpId> {
        let parked = self.parked_read | self.parked_write;
        let conflicts = |hold: &&Hold| {
            let with = match hold.kind {
                HoldKind::Exclusive => masks.all(),
                HoldKind::Reading | HoldKind::InPlace => masks.exclusive() | (masks.all() & parked),
            };
            hold.mask.intersects(&with)
        };
        self.paged.iter().find(conflicts).map(|hold| hold.op)
    }

    /// [`Block::launch_check`] for a round of a paged operation that holds all these pages: touches that are parked there wait for that
    /// operation, and whoever else holds them so agrees with it.
    ///
    /// # Errors
    /// What stands in its way.
    pub fn round_check(&self, masks: &LaunchMasks) -> Result<(), Conflict> {
        debug_assert!(self.paged_pages().covers(&masks.all()), "a round works on what its operation holds");
        self.check_there(masks)?;
        if self.moving().intersects(&masks.all()) || !self.has_room(Self::HOLDS_PER_REQUEST) {
            return Err(Conflict::Wait);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Cause, FaultAnswer};
    use crate::check::check;
    use crate::pagemap::Location;
    use crate::units::{FrameIndex, Geometry};

    const GEOMETRY: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

    fn all() -> PageMask {
        PageMask::range(0..8)
    }

    fn masks(read: core::ops::Range<u32>, write: core::ops::Range<u32>) -> LaunchMasks {
        let (read, write) = (PageMask::range(read), PageMask::range(write));
        LaunchMasks { read, write, overwrite: PageMask::EMPTY }
    }

    /// Operation 9 reads the first sub-block and writes the second for its life.
    fn block() -> Block {
        let mut block = Block::new(GEOMETRY, all());
        (0..2).for_each(|sub| block.set_frame(sub, FrameIndex(sub)));
        block.born(all());
        block.published_read_write(all());
        assert_eq!(block.launch_check(&masks(0..4, 4..8)), Ok(()));
        block.hold_paged(OpId(9), &masks(0..4, 4..8));
        block.revoked(PageMask::range(4..8));
        block.protected(PageMask::range(0..4));
        assert_eq!(check(&block), Ok(()));
        block
    }

    #[test]
    fn what_a_paged_operation_reads_bears_loads_and_what_it_writes_bears_nobody() {
        let mut block = block();
        assert_eq!(block.fault(1, false, all(), true), FaultAnswer::ReadOnly(PageMask::range(0..4)));
        for (page, write) in [(1, true), (5, false), (5, true)] {
            assert_eq!(block.fault(page, write, all(), true), FaultAnswer::Park(OpId(9)));
        }
        assert!(!block.is_idle() && !block.forget() && !block.summary(|_| true).device_valid);
        assert!(block.finish(OpId(9)) && block.is_idle());
        assert_eq!(block.fault(1, true, all(), true), FaultAnswer::ReadWrite(all()));
    }

    #[test]
    fn rounds_and_evictions_do_not_see_it_and_other_launches_are_refused() {
        let mut block = block();
        // Touches wait for it: a round goes on all the same, and so does who takes its frames.
        assert_eq!(block.fault(5, true, all(), true), FaultAnswer::Park(OpId(9)));
        assert_eq!(block.round_check(&masks(0..4, 4..8)), Ok(()));
        block.launch_hold(OpId(1), OpId(2), &masks(0..4, 4..8));
        block.launch_deps(&masks(0..0, 4..8), |op, _| assert_eq!(op, OpId(1), "the round, not the whole"));
        assert_eq!(block.launch_commit(OpId(2), &masks(0..4, 4..8)).copy_in, all());
        assert!(block.finish(OpId(1)) && block.finish(OpId(2)));
        assert_eq!(check(&block), Ok(()));
        assert!(block.can_evict(all()));
        block.add_hold(Hold { op: OpId(3), kind: HoldKind::Exclusive, mask: all() });
        assert_eq!(block.begin_evict(OpId(3), all(), Cause::Evict), PageMask::range(4..8));
        assert_eq!(check(&block), Ok(()));
        assert_eq!(
            block.round_check(&masks(0..4, 4..8)),
            Err(Conflict::Wait),
            "its bytes are on their way home"
        );
        assert!(block.finish(OpId(3)));
        // Others.
        assert_eq!(block.launch_check(&masks(0..1, 0..0)), Ok(()), "readers beside readers");
        for others in [masks(0..0, 0..1), masks(4..5, 0..0), masks(0..0, 4..5)] {
            assert_eq!(block.launch_check(&others), Err(Conflict::Paged(OpId(9))));
        }
        assert_eq!(block.fault(1, true, all(), true), FaultAnswer::Park(OpId(9)));
        assert_eq!(block.launch_check(&masks(1..2, 0..0)), Err(Conflict::Paged(OpId(9))), "behind the store");
        assert_eq!(block.launch_check(&masks(2..3, 0..0)), Ok(()));
    }

    #[test]
    fn a_loss_takes_all_that_it_was_to_write_and_nothing_that_it_reads() {
        let mut block = block();
        assert_eq!(block.at_stake(), PageMask::range(4..8), "wherever they are");
        assert_eq!(block.lose(), (PageMask::range(4..8), false));
        assert_eq!(check(&block), Ok(()));
        assert!((0..4).all(|page| block.location(page) == Location::Host) && block.is_idle());
    }
}
