//! One block: bit planes over its pages, who holds them, what moves through them. Page state changes here and nowhere else.
//!
//! ```text
//!  location │ R at most  │ bytes in A     │ device copy             hold      │ CPU read             │ CPU write
//!  ─────────┼────────────┼────────────────┼──────────────────────   ──────────┼──────────────────────┼─────────────────────
//!  Absent   │ absent     │ hole or zeros  │ none                    free      │ by location          │ by location
//!  Host     │ read-write │ current        │ none                    reading   │ by location          │ Host at once, frame
//!  Shared   │ read-only  │ current        │ current                           │                      │ retired
//!  Device   │ absent     │ stale          │ current, the only one   in-place  │ proceeds             │ waits
//!  Lost     │ poisoned   │ –              │ –                       exclusive │ waits                │ waits
//! ```
//!
//! A block may be used *in place* instead (`in_place`): kernels work on the bytes in A, every page is Absent, Host or Lost, and the
//! lower table alone keeps CPU and device apart. It never has frames then.
//!
//! Location is the program-order truth: it is set when an operation takes its holds, and the holds keep everybody who would
//! see otherwise away until the operation has made it so. Every function here is a whole transition: it either refuses and
//! changes nothing, or changes planes, holds and transfers together. The engine calls them under the block's lock and performs
//! the system calls and copies around them in the order law: revoke before copy out, copied before publish, published before wake.

mod discard;
mod home;
mod in_place;
mod launch;
mod loss;
mod paged;
#[cfg(test)]
mod tests;
mod touch;
mod upload;

pub use launch::{Conflict, LaunchMasks, LaunchWork};
pub use touch::FaultAnswer;

use crate::mask::PageMask;
use crate::pagemap::{Location, PageFlags};
use crate::thrash::Thrash;
use crate::units::{DeviceIndex, FrameIndex, Geometry, OpId};
use crate::uses::Uses;
use alloc::vec::Vec;

/// What a hold keeps away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// The device reads the frame.
    Reading,
    /// Somebody reads the bytes in A (copy-in, or a kernel in place): CPU writes wait.
    InPlace,
    /// Contents or place are changing: every CPU access waits.
    Exclusive,
}

/// One operation's use of some pages of the block.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Whose.
    pub op: OpId,
    /// What it keeps away.
    pub kind: HoldKind,
    /// On which pages.
    pub mask: PageMask,
}

/// Why bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A CPU thread touched a page.
    Fault,
    /// A launch needs it.
    Launch,
    /// Room is needed.
    Evict,
    /// Asked for by prefetch or a host guard.
    Prefetch,
    /// A touch beside it makes it likely that it is needed.
    Ahead,
}

/// Bytes on their way from the device to A. Until it is done, the bytes in A are not what the location says.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Whose.
    pub op: OpId,
    /// Which pages.
    pub mask: PageMask,
    /// Why.
    pub cause: Cause,
}

/// The planes that exist once per device.
#[derive(Clone, Debug)]
struct DevicePlanes {
    valid: PageMask,
    frames: [FrameIndex; Block::SUBS_MAX],
    uses: Uses,
}

/// Summary for the range gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Every page of the allocation in this block is valid on the device and nothing but submitted launches uses it.
    pub device_valid: bool,
    /// Beside that, no page is readable by the host.
    pub device_only: bool,
}

/// State of one block. Vectors have their capacity from the start, so that no transition allocates; only guards may be more
/// than were provided for, and they are taken by API calls, never by a fault handler.
#[derive(Clone, Debug)]
pub struct Block {
    geometry: Geometry,
    /// Pages that belong to the allocation.
    used: PageMask,
    host_valid: PageMask,
    mapped: PageMask,
    writable: PageMask,
    lost: PageMask,
    /// Pages that eviction brought home and nobody wrote since: fetching them again is a refault.
    evicted: PageMask,
    parked_read: PageMask,
    parked_write: PageMask,
    /// Kernels work on the bytes in A: see [`Block::in_place_hold`].
    in_place: bool,
    uploads: upload::Uploads,
    held_shared: PageMask,
    held_exclusive: PageMask,
    pinned: PageMask,
    devices: [DevicePlanes; 1],
    holds: Vec<Hold>,
    /// What paged operations hold for their life; see [`Block::hold_paged`].
    paged: Vec<Hold>,
    /// Host guards: the pages stay on the host, CPU access proceeds.
    guards: Vec<(OpId, PageMask)>,
    transfers: Vec<Transfer>,
    /// Whether host and device take it from each other.
    pub thrash: Thrash,
}

impl Block {
    /// Most operations that may hold pages of one block at a time; more wait.
    pub const HOLDS_MAX: usize = 24;
    /// Most transfers of one block at a time.
    pub const TRANSFERS_MAX: usize = 16;
    /// Most holds that one request takes on a block: eviction, move, stores, loads, copy in.
    pub const HOLDS_PER_REQUEST: usize = 5;
    const GUARDS_USUAL: usize = 4;
    const SUBS_MAX: usize = 32;

    /// A block of which `used` belongs to an allocation; all of it Absent.
    pub fn new(geometry: Geometry, used: PageMask) -> Self {
        Self {
            geometry,
            used,
            host_valid: PageMask::EMPTY,
            mapped: PageMask::EMPTY,
            writable: PageMask::EMPTY,
            lost: PageMask::EMPTY,
            evicted: PageMask::EMPTY,
            parked_read: PageMask::EMPTY,
            parked_write: PageMask::EMPTY,
            in_place: false,
            uploads: upload::Uploads::default(),
            held_shared: PageMask::EMPTY,
            held_exclusive: PageMask::EMPTY,
            pinned: PageMask::EMPTY,
            devices: [DevicePlanes {
                valid: PageMask::EMPTY,
                frames: [FrameIndex::NONE; Self::SUBS_MAX],
                uses: Uses::NONE,
            }],
            holds: Vec::with_capacity(Self::HOLDS_MAX),
            paged: Vec::with_capacity(Self::PAGED_HOLDS_MAX),
            guards: Vec::with_capacity(Self::GUARDS_USUAL),
            transfers: Vec::with_capacity(Self::TRANSFERS_MAX),
            thrash: Thrash::default(),
        }
    }

    fn dev(&self) -> &DevicePlanes {
        &self.devices[usize::from(DeviceIndex(0).0)]
    }

    fn dev_mut(&mut self) -> &mut DevicePlanes {
        &mut self.devices[usize::from(DeviceIndex(0).0)]
    }

    // ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The descriptor of `page`: the column through the planes.
    pub fn flags(&self, page: u32) -> PageFlags {
        let mut flags = PageFlags::empty();
        let planes = [
            (&self.host_valid, PageFlags::HOST_VALID),
            (&self.dev().valid, PageFlags::DEVICE_VALID),
            (&self.mapped, PageFlags::MAY_BE_MAPPED),
            (&self.writable, PageFlags::MAY_BE_WRITABLE),
            (&self.held_shared, PageFlags::HELD_SHARED),
            (&self.held_exclusive, PageFlags::HELD_EXCLUSIVE),
            (&self.pinned, PageFlags::PINNED),
            (&self.lost, PageFlags::LOST),
        ];
        for (plane, flag) in planes {
            flags.set(flag, plane.contains(page));
        }
        flags
    }

    /// Where the current bytes of `page` are.
    pub fn location(&self, page: u32) -> Location {
        self.flags(page).location()
    }

    /// Pages of the allocation.
    pub fn used(&self) -> PageMask {
        self.used
    }

    /// Pages whose host bytes are current (in program order).
    pub fn host_valid(&self) -> PageMask {
        self.host_valid
    }

    /// Pages whose device bytes are current (in program order).
    pub fn device_valid(&self) -> PageMask {
        self.dev().valid
    }

    /// Pages that only the device has: what eviction must copy home.
    pub fn dirty(&self) -> PageMask {
        self.dev().valid.minus(&self.host_valid)
    }

    /// Pages that never existed on either side.
    pub fn absent(&self) -> PageMask {
        self.used.minus(&self.host_valid).minus(&self.dev().valid).minus(&self.lost)
    }

    /// Pages that may be present in R.
    pub fn mapped(&self) -> PageMask {
        self.mapped
    }

    /// Pages that may be writable in R.
    pub fn writable(&self) -> PageMask {
        self.writable
    }

    /// Lost pages.
    pub fn lost(&self) -> PageMask {
        self.lost
    }

    /// Who holds what, but for [`Block::paged_holds`].
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// What is on its way home.
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// Pages that guards keep on the host.
    pub fn pinned(&self) -> PageMask {
        self.pinned
    }

    /// Page, sub-block and block sizes.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Pages on their way home.
    pub fn moving(&self) -> PageMask {
        self.transfers.iter().fold(PageMask::EMPTY, |all, t| all | t.mask)
    }

    /// Pages that `op` brings home.
    pub fn moving_by(&self, op: OpId) -> PageMask {
        self.transfers.iter().filter(|t| t.op == op).fold(PageMask::EMPTY, |all, t| all | t.mask)
    }

    /// Parked touches: (reads, writes).
    pub fn parked(&self) -> (PageMask, PageMask) {
        (self.parked_read, self.parked_write)
    }

    /// Earlier uses of this block's frames by launches that took no hold (see the range gate).
    pub fn uses(&self) -> Uses {
        self.dev().uses
    }

    /// Whether no operation uses the block.
    pub fn is_idle(&self) -> bool {
        let is_held = !self.holds.is_empty() || !self.paged.is_empty();
        !is_held && self.transfers.is_empty() && self.guards.is_empty()
    }

    /// Whether another operation can be noted.
    pub fn has_room(&self, holds: usize) -> bool {
        self.holds.len() + holds <= Self::HOLDS_MAX && self.transfers.len() < Self::TRANSFERS_MAX
    }

    /// The frame of sub-block `sub`.
    pub fn frame(&self, sub: u32) -> FrameIndex {
        self.dev().frames[sub as usize]
    }

    /// Where `page` lies in device memory, in bytes from frame zero.
    ///
    /// # Panics
    /// If its sub-block has no frame: a broken invariant.
    pub fn device_offset(&self, page: u32) -> u64 {
        let frame = self.frame(page / self.geometry.pages_per_sub);
        assert!(frame != FrameIndex::NONE, "page {page} has no frame");
        u64::from(frame.0) * self.geometry.frame_bytes()
            + u64::from(page % self.geometry.pages_per_sub) * u64::from(self.geometry.page_bytes)
    }

    /// What the gate may tell launches about this block. `ordered` says whether all that an operation does with frames comes
    /// before whatever is submitted to the compute queue from now on.
    pub fn summary(&self, ordered: impl Fn(OpId) -> bool) -> Summary {
        let quiet = self.transfers.is_empty()
            && (self.parked_read | self.parked_write).is_empty()
            && self.lost.is_empty()
            && self.pinned.is_empty()
            && self.paged.is_empty()
            && self.holds.iter().all(|h| ordered(h.op));
        let device_valid = quiet && self.dev().valid.covers(&self.used);
        let host = (self.host_valid | self.mapped) & self.used;
        Summary { device_valid, device_only: device_valid && host.is_empty() }
    }

    // ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Notes a hold.
    ///
    /// # Panics
    /// Beyond [`Block::HOLDS_MAX`]: the caller checks [`Block::has_room`].
    pub fn add_hold(&mut self, hold: Hold) {
        assert!(self.holds.len() < Self::HOLDS_MAX, "no room for another hold");
        self.holds.push(hold);
        self.refresh_holds();
    }

    /// `op` is done or cancelled: its holds and transfers end (I3). Returns whether it had any.
    pub fn finish(&mut self, op: OpId) -> bool {
        let count = |b: &Self| b.holds.len() + b.paged.len() + b.transfers.len() + b.guards.len();
        let before = count(self);
        self.holds.retain(|h| h.op != op);
        self.paged.retain(|h| h.op != op);
        self.transfers.retain(|t| t.op != op);
        self.guards.retain(|(guard, _)| *guard != op);
        self.refresh_holds();
        before != count(self)
    }

    /// Keeps pages on the host until [`Block::finish`]: launches that name them are refused. The caller brought them home.
    pub fn add_guard(&mut self, op: OpId, mask: PageMask) {
        debug_assert!(self.host_valid.covers(&mask), "only pages at home are guarded");
        self.guards.push((op, mask));
        self.refresh_holds();
    }

    /// Whether `op` guards pages of the block.
    pub fn is_guarded_by(&self, op: OpId) -> bool {
        self.guards.iter().any(|(guard, _)| *guard == op)
    }

    /// Pages that operations hold with `kind`.
    pub fn holds_of(&self, kind: HoldKind) -> PageMask {
        let all = self.holds.iter().chain(&self.paged);
        all.filter(|h| h.kind == kind).fold(PageMask::EMPTY, |all, h| all | h.mask)
    }

    fn refresh_holds(&mut self) {
        self.held_exclusive = self.holds_of(HoldKind::Exclusive);
        self.held_shared = self.holds_of(HoldKind::Reading) | self.holds_of(HoldKind::InPlace);
        self.pinned = self.guards.iter().fold(PageMask::EMPTY, |all, (_, mask)| all | *mask);
    }

    /// The allocation is gone: no page belongs to it any more, so nothing moves for it. False, with nothing changed, if an
    /// operation or a guard still uses the block.
    pub fn forget(&mut self) -> bool {
        if !self.is_idle() {
            return false;
        }
        *self = Self {
            holds: core::mem::take(&mut self.holds),
            paged: core::mem::take(&mut self.paged),
            guards: core::mem::take(&mut self.guards),
            transfers: core::mem::take(&mut self.transfers),
            ..Self::new(self.geometry, PageMask::EMPTY)
        };
        true
    }
}

/// The sub-blocks that `pages` touch.
pub fn subs_of(pages: PageMask, geometry: Geometry) -> impl Iterator<Item = u32> {
    let size = geometry.pages_per_sub;
    (0..geometry.subs_per_block()).filter(move |sub| pages.meets(sub * size..(sub + 1) * size))
}

/// The pages of sub-block `sub`.
pub fn pages_of_sub(sub: u32, geometry: Geometry) -> PageMask {
    let first = sub * geometry.pages_per_sub;
    PageMask::range(first..first + geometry.pages_per_sub)
}
