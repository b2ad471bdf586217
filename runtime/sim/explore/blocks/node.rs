//! A state of the pure search: the block, and what is open on it; and what a touch, a look of the host and an end do to it, as the
//! engine does them around core's transitions.

use vkhmm_core::block::{Block, Cause, FaultAnswer, HoldKind};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::{FrameIndex, OpId};

/// A request that has taken holds and is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Request {
    /// A launch between its holds and its new locations.
    Held { main: u64, copy: u64, read: u8, write: u8, over: u8 },
    /// A launch on the device: which of its two operations are not over.
    Sent { main: u64, copy: u64 },
    /// An eviction between its hold and its beginning.
    Evicting { op: u64, pages: u8 },
    /// A copy home or an eviction's: over when its bytes are.
    Moving { op: u64 },
    /// A host guard.
    Guard { op: u64 },
}

impl Request {
    pub(super) fn ops(self) -> [u64; 2] {
        match self {
            Self::Held { main, copy, .. } | Self::Sent { main, copy } => [main, copy],
            Self::Evicting { op, .. } | Self::Moving { op } | Self::Guard { op } => [op, 0],
        }
    }
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) block: Block,
    pub(super) requests: Vec<Request>,
    pub(super) lost: bool,
    /// Its number, and so the place of its story.
    pub(super) number: usize,
}

pub(super) fn mask(bits: u8) -> PageMask {
    (0..2).filter(|p| bits >> p & 1 == 1).fold(PageMask::EMPTY, |all, p| all | PageMask::single(p))
}

pub(super) fn bits(mask: PageMask) -> u8 {
    u8::from(mask.contains(0)) | u8::from(mask.contains(1)) << 1
}

/// What tells two nodes apart. Numbers of operations do not, nor which of two pages is which.
pub(super) fn key(node: &Node, pages: u32) -> Box<[u8]> {
    let one = key_of(node, &[0, 1][..pages as usize]);
    if pages == 1 { one } else { one.min(key_of(node, &[1, 0])) }
}

fn key_of(node: &Node, order: &[u32]) -> Box<[u8]> {
    let block = &node.block;
    let mut out = vec![u8::from(node.lost)];
    let (reads, writes) = block.parked();
    for page in order {
        out.extend(block.flags(*page).bits().to_le_bytes());
        let framed = block.frame(page / block.geometry().pages_per_sub) != FrameIndex::NONE;
        let flags = [reads.contains(*page), writes.contains(*page), framed];
        out.push(flags.iter().fold(0, |all, flag| all << 1 | u8::from(*flag)));
    }
    let of = |mask: PageMask| order.iter().fold(0, |all, page| all << 1 | u8::from(mask.contains(*page)));
    let mut requests: Vec<[u8; 9]> = Vec::with_capacity(node.requests.len());
    for request in &node.requests {
        let (kind, stage) = match *request {
            Request::Held { read, write, over, .. } => (1, [of(mask(read)), of(mask(write)), of(mask(over))]),
            Request::Sent { copy, .. } => (2, [u8::from(copy != 0), 0, 0]),
            Request::Evicting { pages, .. } => (3, [of(mask(pages)), 0, 0]),
            Request::Moving { .. } => (4, [0; 3]),
            Request::Guard { .. } => (5, [0; 3]),
        };
        let mut part = [kind, stage[0], stage[1], stage[2], 0, 0, 0, 0, 0];
        for (i, op) in request.ops().into_iter().enumerate() {
            let held = |kind| {
                let held = block.holds().iter().filter(|h| h.op.0 == op && h.kind == kind);
                held.fold(PageMask::EMPTY, |all, h| all | h.mask)
            };
            part[4 + 2 * i] = of(held(HoldKind::Reading)) | of(held(HoldKind::InPlace)) << 2;
            part[5 + 2 * i] = of(held(HoldKind::Exclusive)) | of(block.moving_by(OpId(op))) << 2;
        }
        let guard = block.is_guarded_by(OpId(request.ops()[0]));
        part[8] = if guard { 4 | of(block.pinned()) } else { 0 };
        requests.push(part);
    }
    requests.sort_unstable();
    out.extend(requests.iter().flatten());
    out.into()
}

impl Node {
    /// Two numbers that no open operation has.
    pub(super) fn two_ops(&self) -> [u64; 2] {
        let used: Vec<u64> = self.requests.iter().flat_map(|r| r.ops()).collect();
        let mut free = (1..).filter(|op| !used.contains(op));
        [free.next().expect("endless"), free.next().expect("endless")]
    }

    pub(super) fn begin_home(&mut self, pages: PageMask, keep: bool, cause: Cause) {
        let [op, _] = self.two_ops();
        self.block.begin_home(OpId(op), pages, keep, cause);
        self.requests.push(Request::Moving { op });
    }

    pub(super) fn touch(&mut self, page: u32, write: bool, extent: PageMask, duplicates: bool) {
        match self.block.fault(page, write, extent, duplicates) {
            FaultAnswer::Poison => self.block.poisoned(PageMask::single(page)),
            FaultAnswer::Born(pages) => {
                self.block.born(pages);
                self.block.published_read_write(pages);
            }
            FaultAnswer::ReadWrite(pages) => {
                if self.block.device_valid().intersects(&pages) {
                    self.block.make_host(pages);
                }
                self.block.published_read_write(pages);
            }
            FaultAnswer::ReadOnly(pages) => self.block.published_read_only(pages),
            FaultAnswer::Home(pages) => {
                self.begin_home(pages, !write && duplicates, Cause::Fault);
                self.block.park(page, write);
            }
            FaultAnswer::Park(_) | FaultAnswer::ParkFull => {}
        }
    }

    pub(super) fn finish(&mut self, op: u64, duplicates: bool) {
        let arrived = self.block.moving_by(OpId(op));
        self.block.finish(OpId(op));
        self.resume(arrived, duplicates);
    }

    pub(super) fn resume(&mut self, around: PageMask, duplicates: bool) {
        let (reads, writes) = self.block.parked();
        for (pages, write) in [(writes, true), (reads, false)] {
            for page in pages.runs().flatten() {
                let (reads, writes) = self.block.parked();
                if (if write { writes } else { reads }).contains(page) {
                    self.block.take_parked(page, write);
                    let sub = PageMask::single(page).rounded_to(self.block.geometry().pages_per_sub);
                    self.touch(page, write, sub | pages | around, duplicates);
                }
            }
        }
    }

    /// One look of a guard or slice; whether the pages are there.
    pub(super) fn home(&mut self, pages: PageMask, write: bool, duplicates: bool) -> bool {
        let block = &mut self.block;
        let fresh = block.absent() & pages;
        let host = match write {
            true => pages,
            false if !duplicates => pages.minus(&block.mapped()),
            false => PageMask::EMPTY,
        };
        let busy = block.holds_of(HoldKind::Exclusive) & pages
            | block.holds_of(HoldKind::InPlace) & (host | fresh)
            | block.lost() & pages;
        if !busy.is_empty() {
            return false;
        }
        block.born(fresh);
        let away = block.dirty() & pages;
        if !away.is_empty() {
            if block.has_room(1) {
                self.begin_home(away, !write && duplicates, Cause::Prefetch);
            }
            return false;
        }
        block.make_host(block.device_valid() & block.host_valid() & host);
        let alone = pages.minus(&block.device_valid()).minus(&block.writable());
        block.published_read_write(alone.minus(&block.holds_of(HoldKind::InPlace)));
        if !write {
            block.published_read_only(pages.minus(&block.mapped()));
        }
        true
    }
}
