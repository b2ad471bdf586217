//! The invariants of DESIGN §5 as far as one block shows them, by number. The engine asks after every transition in debug
//! builds; the tests ask always. Between transitions, under the block's lock, they all hold.

use crate::block::{Block, HoldKind, pages_of_sub, subs_of};
use crate::mask::PageMask;
use crate::units::FrameIndex;
use alloc::collections::BTreeSet;

/// Which invariant a block breaks, and on which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// I1: a lost page has a value, or a page of nobody has one.
    #[error("I1: pages {0:?} have a value that nobody can have")]
    Value(PageMask),
    /// I2: R is writable while the device has a valid copy, or shows bytes that are not current.
    #[error(
        "I2: R shows pages {0:?} although they are not current, or writable although the device has them, too"
    )]
    Mapping(PageMask),
    /// I3: bytes move without the exclusive hold that says so, or a transfer overlaps another one.
    #[error("I3: pages {0:?} are on their way home without an exclusive hold of their own")]
    Transfer(PageMask),
    /// I4: a device-valid page has no frame, or shares its frame with another sub-block.
    #[error("I4: pages {0:?} are valid on the device but own no frame")]
    Frame(PageMask),
    /// I4: a page of a block that is used in place has a device copy.
    #[error("I4: pages {0:?} have a device copy, and their block is used in place")]
    InPlace(PageMask),
    /// I5: a guarded page is not on the host, or moves.
    #[error("I5: guarded pages {0:?} are not at home")]
    Pinned(PageMask),
    /// I8: R is writable under a hold that keeps stores away, or the planes say otherwise than the holds.
    #[error(
        "I8: pages {0:?} are writable under a hold that forbids it, or their planes do not say what holds say"
    )]
    Hold(PageMask),
    /// A touch is parked on a page that can be answered by nobody: lost, or not of the allocation.
    #[error("I6: touches are parked on pages {0:?}, which nobody will answer")]
    Parked(PageMask),
}

/// Checks one block.
///
/// # Errors
/// The first invariant broken.
pub fn check(block: &Block) -> Result<(), Violation> {
    let none = |mask: PageMask, violation: fn(PageMask) -> Violation| {
        if mask.is_empty() { Ok(()) } else { Err(violation(mask)) }
    };
    let (host, device, lost, used) = (block.host_valid(), block.device_valid(), block.lost(), block.used());
    let (mapped, writable) = (block.mapped(), block.writable());
    none(((host | device) & lost) | (host | device | lost | mapped).minus(&used), Violation::Value)?;
    none((writable & device) | writable.minus(&mapped) | mapped.minus(&host), Violation::Mapping)?;
    let mut moving = PageMask::EMPTY;
    for transfer in block.transfers() {
        let own = block.holds().iter().filter(|h| h.op == transfer.op && h.kind == HoldKind::Exclusive);
        let held = own.fold(PageMask::EMPTY, |all, h| all | h.mask);
        none(transfer.mask.minus(&held) | (transfer.mask & moving), Violation::Transfer)?;
        moving |= transfer.mask;
    }
    none(if block.is_in_place() { device | moving } else { PageMask::EMPTY }, Violation::InPlace)?;
    let mut frames = BTreeSet::new();
    for sub in subs_of(device, block.geometry()) {
        let frame = block.frame(sub);
        let owned = frame != FrameIndex::NONE && frames.insert(frame);
        none(
            if owned { PageMask::EMPTY } else { pages_of_sub(sub, block.geometry()) & device },
            Violation::Frame,
        )?;
    }
    none(block.pinned().minus(&host) | (block.pinned() & moving), Violation::Pinned)?;
    let exclusive = block.holds_of(HoldKind::Exclusive);
    let in_place = block.holds_of(HoldKind::InPlace);
    none(writable & (exclusive | in_place), Violation::Hold)?;
    let (reads, writes) = block.parked();
    none((reads | writes) & (lost | !used), Violation::Parked)
}
