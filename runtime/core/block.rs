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
//! Location is the program-order truth: it is set when an operation takes its holds, and the holds keep everybody who would
//! see otherwise away until the operation has made it so. Every function here is a whole transition: it either refuses and
//! changes nothing, or changes planes, holds and transfers together. The engine calls them under the block's lock and performs
//! the system calls and copies around them in the order law: revoke before copy out, copied before publish, published before wake.

use crate::mask::PageMask;
use crate::pagemap::{Location, PageFlags};
use crate::units::{DeviceIndex, FrameIndex, Geometry, OpId};
use crate::uses::Uses;
use alloc::vec::Vec;

/// What a hold keeps away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// The device reads the frame.
    Reading,
    /// Somebody reads the bytes in A (copy-in): CPU writes wait.
    InPlace,
    /// Contents or place are changing: every CPU access waits.
    Exclusive,
    /// A host guard: the pages stay on the host; CPU access proceeds.
    Guard,
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

/// What to do about a CPU touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAnswer {
    /// The page is lost, or no page of the allocation: poison it.
    Poison,
    /// Give these pages (first touch) host pages, then [`Block::born`], then publish read-write.
    Born(PageMask),
    /// Publish these pages read-write. [`Block::make_host`] first: any duplicate is dropped.
    ReadWrite(PageMask),
    /// Publish these pages read-only.
    ReadOnly(PageMask),
    /// Copy these pages home ([`Block::begin_home`]), publish when the bytes are there.
    Home(PageMask),
    /// Somebody holds the page: the touch is parked and is answered when that operation is done.
    Park(OpId),
    /// No room to note another operation: parked, answered when any operation on the block is done.
    ParkFull,
}

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

/// Summary for the range gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Every page of the allocation in this block is valid on the device and nothing but submitted launches uses it.
    pub device_valid: bool,
    /// Beside that, no page is readable by the host.
    pub device_only: bool,
}

/// State of one block. All vectors have their capacity from the start: no transition allocates.
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
    held_shared: PageMask,
    held_exclusive: PageMask,
    pinned: PageMask,
    devices: [DevicePlanes; 1],
    holds: Vec<Hold>,
    transfers: Vec<Transfer>,
}

impl Block {
    /// Most operations that may hold pages of one block at a time; more wait.
    pub const HOLDS_MAX: usize = 24;
    /// Most transfers of one block at a time.
    pub const TRANSFERS_MAX: usize = 16;
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
            held_shared: PageMask::EMPTY,
            held_exclusive: PageMask::EMPTY,
            pinned: PageMask::EMPTY,
            devices: [DevicePlanes {
                valid: PageMask::EMPTY,
                frames: [FrameIndex::NONE; Self::SUBS_MAX],
                uses: Uses::NONE,
            }],
            holds: Vec::with_capacity(Self::HOLDS_MAX),
            transfers: Vec::with_capacity(Self::TRANSFERS_MAX),
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

    /// Who holds what.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// What is on its way home.
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// Pages on their way home.
    pub fn moving(&self) -> PageMask {
        self.transfers.iter().fold(PageMask::EMPTY, |all, t| all | t.mask)
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
        self.holds.is_empty() && self.transfers.is_empty()
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

    /// What the gate may tell launches about this block. `submitted` says whether an operation has reached its queue.
    pub fn summary(&self, submitted: impl Fn(OpId) -> bool) -> Summary {
        let quiet = self.transfers.is_empty()
            && (self.parked_read | self.parked_write).is_empty()
            && self.lost.is_empty()
            && self.pinned.is_empty()
            && self.holds.iter().all(|h| submitted(h.op));
        let device_valid = quiet && self.dev().valid.covers(&self.used);
        let host = (self.host_valid | self.mapped) & self.used;
        Summary { device_valid, device_only: device_valid && host.is_empty() }
    }

    // ── CPU touches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// What to do about a touch of `page`. `extent` are the pages that policy would serve with it; of these only such pages are
    /// taken as have the same answer. Parking is noted here; everything else is done by the transition that the answer names.
    pub fn fault(&mut self, page: u32, write: bool, extent: PageMask, duplicates: bool) -> FaultAnswer {
        if !self.used.contains(page) || self.lost.contains(page) {
            return FaultAnswer::Poison;
        }
        let blocking = |h: &&Hold| {
            h.mask.contains(page) && (h.kind == HoldKind::Exclusive || (h.kind == HoldKind::InPlace && write))
        };
        if let Some(hold) = self.holds.iter().find(blocking) {
            let op = hold.op;
            self.park(page, write);
            return FaultAnswer::Park(op);
        }
        let in_place = self.holds_of(HoldKind::InPlace);
        let free = (extent & self.used).minus(&self.held_exclusive) | PageMask::single(page);
        match self.location(page) {
            Location::Lost => FaultAnswer::Poison,
            Location::Absent => FaultAnswer::Born(free & self.absent()),
            Location::Host => {
                FaultAnswer::ReadWrite(free & self.host_valid.minus(&self.dev().valid).minus(&in_place))
            }
            Location::Shared if write => {
                // Only the sub-block of the store: pages beside it keep their duplicates.
                let sub = PageMask::single(page).rounded_to(self.geometry.pages_per_sub);
                FaultAnswer::ReadWrite(free & sub & self.host_valid.minus(&in_place))
            }
            Location::Shared if duplicates => {
                FaultAnswer::ReadOnly(free & self.host_valid & self.dev().valid)
            }
            Location::Shared => FaultAnswer::ReadWrite((free & self.host_valid).minus(&in_place)),
            Location::Device if !self.has_room(1) => {
                self.park(page, write);
                FaultAnswer::ParkFull
            }
            Location::Device => FaultAnswer::Home(free & self.dirty()),
        }
    }

    /// Notes a touch that cannot be answered now.
    pub fn park(&mut self, page: u32, write: bool) {
        if write {
            self.parked_write.insert(&PageMask::single(page));
        } else {
            self.parked_read.insert(&PageMask::single(page));
        }
    }

    /// Takes a parked touch out, to be asked about again.
    pub fn take_parked(&mut self, page: u32, write: bool) {
        if write { &mut self.parked_write } else { &mut self.parked_read }.remove(&PageMask::single(page));
    }

    /// Absent → Host: the pages now have host pages of zeros.
    pub fn born(&mut self, mask: PageMask) {
        debug_assert!(self.absent().covers(&mask), "only absent pages are born");
        self.host_valid |= mask;
    }

    /// Shared → Host (and Host → Host): the CPU is about to write, so every device copy of the pages is stale.
    pub fn make_host(&mut self, mask: PageMask) {
        debug_assert!(self.host_valid.covers(&mask), "only pages with host bytes become Host without a copy");
        debug_assert!(!self.held_exclusive.intersects(&mask), "nobody else may hold what the CPU writes");
        self.dev_mut().valid.remove(&mask);
    }

    /// R now shows these pages read-write.
    pub fn published_read_write(&mut self, mask: PageMask) {
        debug_assert!(
            self.host_valid.covers(&mask) && !self.dev().valid.intersects(&mask),
            "I2: writable means no device copy"
        );
        self.mapped |= mask;
        self.writable |= mask;
        self.evicted.remove(&mask);
        self.answered(mask);
    }

    /// R now shows these pages read-only.
    pub fn published_read_only(&mut self, mask: PageMask) {
        debug_assert!(self.host_valid.covers(&mask), "published means current");
        self.mapped |= mask;
        self.parked_read.remove(&mask);
    }

    fn answered(&mut self, mask: PageMask) {
        self.parked_read.remove(&mask);
        self.parked_write.remove(&mask);
    }

    /// These pages are poisoned: nobody waits for them any more.
    pub fn poisoned(&mut self, mask: PageMask) {
        self.answered(mask);
        self.mapped.remove(&mask);
        self.writable.remove(&mask);
    }

    // ── R is weakened (only under a borrow: L0) ──────────────────────────────────────────────────────────────────────────

    /// R no longer shows these pages.
    pub fn revoked(&mut self, mask: PageMask) {
        self.mapped.remove(&mask);
        self.writable.remove(&mask);
    }

    /// R shows these pages read-only at most.
    pub fn protected(&mut self, mask: PageMask) {
        self.writable.remove(&mask);
    }

    // ── home ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Device → Shared (`keep`) or Host: from now on `op` copies the pages home, and the CPU waits for it.
    pub fn begin_home(&mut self, op: OpId, mask: PageMask, keep: bool, cause: Cause) {
        debug_assert!(self.dirty().covers(&mask), "only pages that the device alone has go home");
        debug_assert!(!self.held_exclusive.intersects(&mask), "two movers of one page");
        self.host_valid |= mask;
        if !keep {
            self.dev_mut().valid.remove(&mask);
        }
        self.transfers.push(Transfer { op, mask, cause });
        self.add_hold(Hold { op, kind: HoldKind::Exclusive, mask });
    }

    /// The device copies of `pages` go, and their frames. Returns the pages whose bytes `op`, which holds them exclusively, must
    /// copy home. The caller has checked [`Block::can_evict`].
    pub fn begin_evict(&mut self, op: OpId, pages: PageMask, cause: Cause) -> PageMask {
        let dirty = self.dirty() & pages;
        self.evicted |= self.dev().valid & pages;
        self.host_valid |= dirty;
        self.dev_mut().valid.remove(&pages);
        if !dirty.is_empty() {
            self.transfers.push(Transfer { op, mask: dirty, cause });
        }
        for sub in subs_of(pages, self.geometry) {
            self.dev_mut().frames[sub as usize] = FrameIndex::NONE;
        }
        dirty
    }

    /// Whether the device copies of `pages` can be taken away now: nothing there is on its way home, no touch is parked, and
    /// there is room to note it.
    pub fn can_evict(&self, pages: PageMask) -> bool {
        self.has_room(1)
            && !self.moving().intersects(&pages)
            && !(self.parked_read | self.parked_write).intersects(&pages)
    }

    // ── launches ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether a launch can have these pages now.
    ///
    /// # Errors
    /// What stands in its way.
    pub fn launch_check(&self, masks: &LaunchMasks) -> Result<(), Conflict> {
        let all = masks.all();
        if self.lost.intersects(&all) {
            return Err(Conflict::Lost);
        }
        let guards = |h: &&Hold| h.kind == HoldKind::Guard && h.mask.intersects(&all);
        if let Some(hold) = self.holds.iter().find(guards) {
            return Err(Conflict::Guarded(hold.op));
        }
        let closed = (self.parked_read | self.parked_write).intersects(&all);
        if closed || self.moving().intersects(&all) || !self.has_room(3) {
            return Err(Conflict::Wait);
        }
        Ok(())
    }

    /// Calls `found` with every operation that must be over, on the device, before a launch with these masks may run.
    pub fn launch_deps(&self, masks: &LaunchMasks, mut found: impl FnMut(OpId)) {
        let all = masks.all();
        // A page that is copied in again while an older kernel still reads its frame is written by the device, too.
        let exclusive = masks.exclusive() | all.minus(&self.dev().valid);
        for hold in &self.holds {
            let conflicts = match hold.kind {
                HoldKind::Exclusive => hold.mask.intersects(&all),
                HoldKind::Reading => hold.mask.intersects(&exclusive),
                // A copy-in of the same bytes: whoever uses the frame waits for it.
                HoldKind::InPlace => hold.mask.intersects(&all),
                HoldKind::Guard => false,
            };
            if conflicts {
                found(hold.op);
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
        let need = (masks.read | masks.write).minus(&self.dev().valid);
        let zero = need & self.absent();
        let copy_in = need & self.host_valid;
        let work = LaunchWork { copy_in, zero, refault: copy_in & self.evicted };
        self.evicted.remove(&masks.all());
        self.host_valid |= zero & masks.read;
        self.dev_mut().valid |= masks.all();
        self.host_valid.remove(&masks.exclusive());
        for hold in self.holds.iter_mut().filter(|h| h.op == copy && h.kind == HoldKind::InPlace) {
            hold.mask = hold.mask & copy_in;
        }
        self.refresh_holds();
        work
    }

    /// Takes back the holds of operations that could not be carried out.
    pub fn abort(&mut self, ops: &[OpId]) {
        self.holds.retain(|h| !ops.contains(&h.op));
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
        let before = self.holds.len() + self.transfers.len();
        self.holds.retain(|h| h.op != op);
        self.transfers.retain(|t| t.op != op);
        self.refresh_holds();
        before != self.holds.len() + self.transfers.len()
    }

    fn holds_of(&self, kind: HoldKind) -> PageMask {
        self.holds.iter().filter(|h| h.kind == kind).fold(PageMask::EMPTY, |all, h| all | h.mask)
    }

    fn refresh_holds(&mut self) {
        self.held_exclusive = self.holds_of(HoldKind::Exclusive);
        self.held_shared = self.holds_of(HoldKind::Reading) | self.holds_of(HoldKind::InPlace);
        self.pinned = self.holds_of(HoldKind::Guard);
    }

    // ── loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The device is gone: what it alone had, and what was on its way home, is lost; all else keeps its bytes. Every hold ends.
    /// Returns the pages lost now and whether bytes were on their way home (the block is then quarantined).
    pub fn lose(&mut self) -> (PageMask, bool) {
        let moving = self.moving();
        let lost = (self.dirty() | moving) & self.used;
        self.lost |= lost;
        self.host_valid.remove(&lost);
        let planes = self.dev_mut();
        planes.valid = PageMask::EMPTY;
        planes.frames = [FrameIndex::NONE; Self::SUBS_MAX];
        self.holds.clear();
        self.transfers.clear();
        self.refresh_holds();
        (lost, !moving.is_empty())
    }
}

/// The sub-blocks that `pages` touch.
pub fn subs_of(pages: PageMask, geometry: Geometry) -> impl Iterator<Item = u32> {
    (0..geometry.subs_per_block()).filter(move |sub| {
        let first = sub * geometry.pages_per_sub;
        PageMask::range(first..first + geometry.pages_per_sub).intersects(&pages)
    })
}
