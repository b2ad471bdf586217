//! Launches: what one may have, whom it waits for, its holds, and the locations it leaves behind.

use super::{Block, Hold, HoldKind};
use crate::mask::PageMask;
use crate::units::{FrameIndex, OpId};
use crate::uses::Uses;

/// What one launch does to the pages of one block. The masks are disjoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaunchMasks {
    /// Pages it reads only.
    pub read: PageMask,
    /// Pages it writes and whose old contents matter.
    pub write: PageMask,
    /// Pages whose old contents are dead.
    pub overwrite: PageMask,
}

impl LaunchMasks {
    /// Adds one argument's pages; the stronger access wins on a shared page, and any other access makes an overwrite a write.
    pub fn add(&mut self, other: &Self) {
        let twice =
            (self.overwrite & (other.read | other.write)) | (other.overwrite & (self.read | self.write));
        self.write |= other.write | twice;
        self.overwrite = (self.overwrite | other.overwrite).minus(&self.write);
        self.read = (self.read | other.read).minus(&self.write).minus(&self.overwrite);
    }

    /// All pages.
    pub fn all(&self) -> PageMask {
        self.read | self.write | self.overwrite
    }

    /// Pages it may store to.
    pub fn exclusive(&self) -> PageMask {
        self.write | self.overwrite
    }
}

/// Why a launch cannot have the block's pages now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Bytes are on their way home, or a touch is parked (I9): wait for progress.
    Wait,
    /// A host guard keeps pages on the host.
    Guarded(OpId),
    /// Pages are lost.
    Lost,
    /// A paged operation holds the pages: nothing here may wait for it, since its rounds are still to come.
    Paged(OpId),
}

/// What a launch must do before its kernel, in terms of this block's pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaunchWork {
    /// Host bytes to copy in.
    pub copy_in: PageMask,
    /// Fresh pages to fill with zeros on the device.
    pub zero: PageMask,
    /// Of `copy_in`: pages that eviction had taken from the device.
    pub refault: PageMask,
}

impl Block {
    /// Whether a launch can have these pages now.
    ///
    /// # Errors
    /// What stands in its way.
    pub fn launch_check(&self, masks: &LaunchMasks) -> Result<(), Conflict> {
        self.check_there(masks)?;
        if let Some(op) = self.paged_in_way(masks) {
            return Err(Conflict::Paged(op));
        }
        let all = masks.all();
        let closed = (self.parked_read | self.parked_write).intersects(&all);
        if closed || self.moving().intersects(&all) || !self.has_room(Self::HOLDS_PER_REQUEST) {
            return Err(Conflict::Wait);
        }
        Ok(())
    }

    /// Whether the pages are anywhere that a launch may take them from.
    pub(super) fn check_there(&self, masks: &LaunchMasks) -> Result<(), Conflict> {
        let all = masks.all();
        if self.lost.intersects(&all) {
            return Err(Conflict::Lost);
        }
        if let Some((guard, _)) = self.guards.iter().find(|(_, mask)| mask.intersects(&all)) {
            return Err(Conflict::Guarded(*guard));
        }
        Ok(())
    }

    /// Pages that a launch with these masks has copied or filled before its kernel runs.
    pub fn launch_fills(&self, masks: &LaunchMasks) -> PageMask {
        (masks.read | masks.write).minus(&self.dev().valid)
    }

    /// Those of [`Block::launch_fills`] that are copied; the others have never been written.
    pub fn launch_copies(&self, masks: &LaunchMasks) -> PageMask {
        self.launch_fills(masks) & self.host_valid
    }

    /// Calls `found` with every operation that must be over, on the device, before a launch with these masks may run, and the pages
    /// for whose sake.
    pub fn launch_deps(&self, masks: &LaunchMasks, mut found: impl FnMut(OpId, PageMask)) {
        let all = masks.all();
        // A page that is copied in again while an older kernel still reads its frame is written by the device, too.
        let exclusive = masks.exclusive() | all.minus(&self.dev().valid);
        for hold in &self.holds {
            let pages = match hold.kind {
                HoldKind::Exclusive => hold.mask & all,
                HoldKind::Reading => hold.mask & exclusive,
                // A copy-in of the same bytes: whoever uses the frame waits for it.
                HoldKind::InPlace => hold.mask & all,
            };
            if !pages.is_empty() {
                found(hold.op, pages);
            }
        }
    }

    /// First step of a launch: its holds. `copy` is the operation of its copy-in; until [`Block::launch_commit`] knows what that
    /// is, CPU writers of every page it reads wait for it.
    pub fn launch_hold(&mut self, op: OpId, copy: OpId, masks: &LaunchMasks) {
        if !masks.exclusive().is_empty() {
            self.add_hold(Hold { op, kind: HoldKind::Exclusive, mask: masks.exclusive() });
        }
        if !masks.read.is_empty() {
            self.add_hold(Hold { op, kind: HoldKind::Reading, mask: masks.read });
            self.add_hold(Hold { op: copy, kind: HoldKind::InPlace, mask: masks.read });
        }
    }

    /// Second step, once R is revoked for what it writes and protected for what it reads, and every absent page has a host
    /// page: the new locations. Returns what must be copied or filled before the kernel runs.
    pub fn launch_commit(&mut self, copy: OpId, masks: &LaunchMasks) -> LaunchWork {
        debug_assert!(!self.mapped.intersects(&masks.exclusive()), "revoke before the device writes");
        debug_assert!(!self.writable.intersects(&masks.read), "protect before the device reads");
        let need = self.launch_fills(masks);
        let zero = need & self.absent();
        let copy_in = self.launch_copies(masks);
        let work = LaunchWork { copy_in, zero, refault: copy_in & self.evicted };
        self.evicted.remove(&masks.all());
        let shared = self.dev().valid & self.host_valid;
        self.uploads.launched(masks.read, copy_in, masks.exclusive(), shared);
        self.host_valid |= zero & masks.read;
        self.dev_mut().valid |= masks.all();
        self.host_valid.remove(&masks.exclusive());
        for hold in self.holds.iter_mut().filter(|h| h.op == copy && h.kind == HoldKind::InPlace) {
            hold.mask = hold.mask & (copy_in | zero);
        }
        self.refresh_holds();
        work
    }

    /// Takes back the holds of operations that could not be carried out.
    pub fn abort(&mut self, ops: &[OpId]) {
        self.holds.retain(|h| !ops.contains(&h.op));
        self.paged.retain(|h| !ops.contains(&h.op));
        self.refresh_holds();
    }

    /// Sub-block `sub` lies in `frame` from now on.
    pub fn set_frame(&mut self, sub: u32, frame: FrameIndex) {
        self.dev_mut().frames[sub as usize] = frame;
    }

    /// Launches without holds (see the range gate) used the frames.
    pub fn add_uses(&mut self, uses: &Uses) {
        self.dev_mut().uses.merge(uses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_share_pages_take_the_stronger_access() {
        let (r, w, o) = (
            LaunchMasks { read: PageMask::single(0), ..LaunchMasks::default() },
            LaunchMasks { write: PageMask::single(0), ..LaunchMasks::default() },
            LaunchMasks { overwrite: PageMask::single(0), ..LaunchMasks::default() },
        );
        for (a, b, read, write, overwrite) in [
            (r, r, 1, 0, 0),
            (r, w, 0, 1, 0),
            (r, o, 0, 1, 0),
            (w, o, 0, 1, 0),
            (o, o, 0, 0, 1),
            (w, w, 0, 1, 0),
        ] {
            for (mut first, second) in [(a, b), (b, a)] {
                first.add(&second);
                assert_eq!(
                    (first.read.count(), first.write.count(), first.overwrite.count()),
                    (read, write, overwrite),
                    "{first:?}"
                );
            }
        }
    }
}
