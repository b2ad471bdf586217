//! Launches that work on the bytes in A themselves: nothing moves, and the location stays Host.
//!
//! ```text
//!  a kernel │ hold      │ R at most │ bytes in A                   │ CPU read │ CPU write │ if the device is lost
//!  ─────────┼───────────┼───────────┼──────────────────────────────┼──────────┼───────────┼──────────────────────
//!  reads    │ in-place  │ read-only │ current                      │ proceeds │ waits     │ current
//!  writes   │ exclusive │ absent    │ current once the hold is over │ waits    │ waits     │ lost
//! ```
//!
//! The holds are the launch's own and end with it, or pass to a later launch of the same queue whose own cover them
//! ([`Block::take_over`]), so that a loss tells exactly what was being written. A block that is used so has
//! no frames, and never gets any: how kernels reach a range is settled before the first hold, for life.

use super::{Block, Hold, HoldKind, LaunchMasks};
use crate::mask::PageMask;
use crate::units::OpId;

impl Block {
    /// Whether kernels work on this block's bytes in A.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Calls `found` with every operation that must be over before a launch may work on these pages in place: readers run beside
    /// readers.
    pub fn in_place_deps(&self, masks: &LaunchMasks, mut found: impl FnMut(OpId)) {
        let (all, exclusive) = (masks.all(), masks.exclusive());
        for hold in &self.holds {
            let conflicts = match hold.kind {
                HoldKind::Exclusive => hold.mask.intersects(&all),
                HoldKind::Reading | HoldKind::InPlace => hold.mask.intersects(&exclusive),
            };
            if conflicts {
                found(hold.op);
            }
        }
    }

    /// First step of a launch in place: its holds. [`Block::launch_check`] has let it pass.
    pub fn in_place_hold(&mut self, op: OpId, masks: &LaunchMasks) {
        debug_assert!(
            self.dev().valid.is_empty() && self.transfers.is_empty(),
            "never in place and in frames at once"
        );
        self.in_place = true;
        if !masks.exclusive().is_empty() {
            self.add_hold(Hold { op, kind: HoldKind::Exclusive, mask: masks.exclusive() });
        }
        if !masks.read.is_empty() {
            self.add_hold(Hold { op, kind: HoldKind::InPlace, mask: masks.read });
        }
    }

    /// Second step, once R is revoked for what it writes and protected for what it reads, and every absent page has a host page
    /// of zeros: Absent → Host, and no other location changes.
    pub fn in_place_commit(&mut self, masks: &LaunchMasks) {
        debug_assert!(!self.mapped.intersects(&masks.exclusive()), "revoke before the device writes");
        debug_assert!(!self.writable.intersects(&masks.read), "protect before the device reads");
        self.host_valid |= masks.all();
    }

    /// Ends holds of earlier operations that `op` holds as strongly, as far as `before` says that they are over before `op` is: what
    /// they keep away, `op` keeps away as long and longer, and what a loss finds under them it finds under `op`.
    pub fn take_over(&mut self, op: OpId, before: impl Fn(OpId) -> bool) {
        let of = |wanted: &dyn Fn(HoldKind) -> bool| {
            let mine = self.holds.iter().filter(|h| h.op == op && wanted(h.kind));
            mine.fold(PageMask::EMPTY, |all, h| all | h.mask)
        };
        let (written, all) = (of(&|kind| kind == HoldKind::Exclusive), of(&|_| true));
        self.holds.retain(|hold| {
            let covered = match hold.kind {
                HoldKind::Exclusive => written.covers(&hold.mask),
                HoldKind::Reading | HoldKind::InPlace => all.covers(&hold.mask),
            };
            hold.op == op || !covered || !before(hold.op)
        });
        self.refresh_holds();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::FaultAnswer;
    use crate::check::check;
    use crate::pagemap::Location;
    use crate::units::Geometry;
    use alloc::vec;
    use alloc::vec::Vec;

    const GEOMETRY: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

    fn block() -> Block {
        let mut block = Block::new(GEOMETRY, PageMask::range(0..8));
        block.born(PageMask::range(0..6));
        block.published_read_write(PageMask::range(0..6));
        block
    }

    fn masks(read: core::ops::Range<u32>, write: core::ops::Range<u32>) -> LaunchMasks {
        let (read, write) = (PageMask::range(read), PageMask::range(write));
        LaunchMasks { read, write, overwrite: PageMask::EMPTY }
    }

    fn launch(block: &mut Block, op: u64, masks: &LaunchMasks) -> Vec<OpId> {
        assert_eq!(block.launch_check(masks), Ok(()));
        let mut deps = Vec::new();
        block.in_place_deps(masks, |op| deps.push(op));
        block.in_place_hold(OpId(op), masks);
        block.revoked(masks.exclusive());
        block.protected(masks.read);
        block.in_place_commit(masks);
        assert_eq!(check(block), Ok(()));
        deps
    }

    #[test]
    fn every_page_stays_on_the_host_and_absent_ones_are_born() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..2, 4..8));
        assert!((0..8).all(|page| block.location(page) == Location::Host));
        assert!(block.dirty().is_empty() && block.moving().is_empty() && block.device_valid().is_empty());
        let summary = block.summary(|_| true);
        assert!(!summary.device_valid && !summary.device_only, "the gate stays shut");
    }

    #[test]
    fn loads_go_on_beside_readers_and_stores_wait() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..2, 0..0));
        let all = PageMask::range(0..8);
        assert_eq!(block.fault(0, false, all, true), FaultAnswer::ReadOnly(PageMask::range(0..2)));
        assert_eq!(block.fault(1, true, all, true), FaultAnswer::Park(OpId(1)));
        // Where nothing can be shown read-only, a load is answered as a store is.
        assert_eq!(block.fault(0, false, all, false), FaultAnswer::Park(OpId(1)));
        assert_eq!(block.fault(5, true, all, true), FaultAnswer::ReadWrite(PageMask::range(2..6)));
        assert!(block.finish(OpId(1)));
        assert_eq!(block.fault(1, true, all, true), FaultAnswer::ReadWrite(PageMask::range(0..6)));
    }

    #[test]
    fn nobody_touches_what_is_written() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..0, 2..4));
        for write in [false, true] {
            assert_eq!(block.fault(3, write, PageMask::range(0..8), true), FaultAnswer::Park(OpId(1)));
        }
        // I9: later launches queue behind the touches.
        let conflict = block.launch_check(&masks(3..4, 0..0));
        assert_eq!(conflict, Err(crate::block::Conflict::Wait));
    }

    #[test]
    fn readers_run_beside_readers_and_wait_for_writers() {
        let mut block = block();
        assert_eq!(launch(&mut block, 1, &masks(0..4, 0..0)), vec![]);
        assert_eq!(launch(&mut block, 2, &masks(2..6, 0..0)), vec![]);
        assert_eq!(launch(&mut block, 3, &masks(0..0, 3..4)), vec![OpId(1), OpId(2)]);
        assert_eq!(launch(&mut block, 4, &masks(3..4, 4..5)), vec![OpId(2), OpId(3)]);
    }

    #[test]
    fn holds_pass_to_the_launch_that_covers_them_and_comes_after() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..0, 0..2));
        launch(&mut block, 2, &masks(2..4, 0..0));
        launch(&mut block, 3, &masks(0..0, 4..6));
        // Covers all, but reads what 1 writes; 3 is not known to be over before.
        launch(&mut block, 4, &masks(0..2, 2..6));
        block.take_over(OpId(4), |op| op != OpId(3));
        let left: Vec<_> = block.holds().iter().map(|hold| hold.op.0).collect();
        assert_eq!(left, [1, 3, 4, 4]);
        assert_eq!(check(&block), Ok(()));
        assert_eq!(block.at_stake(), PageMask::range(0..6));
        assert!(!block.finish(OpId(2)) && block.finish(OpId(1)) && block.finish(OpId(3)));
        assert_eq!(block.at_stake(), PageMask::range(2..6), "what 4 writes is at stake until 4 is over");
        assert!(block.finish(OpId(4)) && block.is_idle());
    }

    #[test]
    fn a_loss_takes_what_is_being_written_and_nothing_else() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..0, 0..1));
        launch(&mut block, 2, &masks(2..4, 5..7));
        assert!(block.finish(OpId(1)));
        assert_eq!(block.at_stake(), PageMask::range(5..7));
        assert_eq!(block.lose(), (PageMask::range(5..7), true));
        assert_eq!(check(&block), Ok(()));
        let shown: Vec<_> = (0..8).map(|page| block.location(page)).collect();
        use Location::{Absent, Host, Lost};
        assert_eq!(shown, [Host, Host, Host, Host, Host, Lost, Lost, Absent]);
        assert!(block.is_idle());
    }

    #[test]
    fn a_loss_takes_nothing_of_what_is_only_read() {
        let mut block = block();
        launch(&mut block, 1, &masks(0..8, 0..0));
        assert_eq!(block.lose(), (PageMask::EMPTY, false));
        assert_eq!(block.host_valid(), PageMask::range(0..8));
    }
}
