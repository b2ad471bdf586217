//! Prefetch: hints that bytes are wanted on a side soon. A hint never waits, never takes from anybody who needs it, and never fails
//! for want of room: it does what it can, and its ticket says what it left out and why.
//!
//! *To the device* it is an admission of reads (pages become Shared, so R is weakened no more than a `&` allows) that gets free
//! frames and cold ones only (`core::placement`'s hints), for all its parts at once or else for as much of each as there is room.
//! *To the host* it is the home half of a touch, where each page's last writer is done: what an unfinished launch writes follows it
//! ([`Homebound`]).

use crate::admit::{Aim, Ops, Refusal};
use crate::home::{Homeward, Park, Taken};
use crate::launch::{AccessKind, Argument, BindTo, LaunchSpec};
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::{Engine, EngineError, Op, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;
use vkhmm_core::advice::Side;
use vkhmm_core::block::{Block, Cause, HoldKind};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Exec, Mutex};

/// Why a hint left bytes where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The device has no frames that are free or cold.
    NoRoom,
    /// A request before it waits for the device, or the bytes are on their way or waited for.
    Busy,
    /// A guard or pin keeps them where they are.
    Guarded,
    /// An application has acquired them.
    Acquired,
    /// Host and device take them from each other: the thrash guard leaves them where they are.
    Thrashing,
    /// The device's pagemap was killed.
    NoPagemap,
    /// Host or device had no memory for it.
    NoMemory,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoom => "no frames are free or cold",
            Self::Busy => "something before it is under way",
            Self::Guarded => "a guard or pin keeps them",
            Self::Acquired => "an application has acquired them",
            Self::Thrashing => "the thrash guard keeps them",
            Self::NoPagemap => "the device's pagemap was killed",
            Self::NoMemory => "no memory for it",
        })
    }
}

/// Bytes that a hint left where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The allocation's label.
    pub label: Arc<str>,
    /// Which bytes of it.
    pub bytes: ByteRange,
    /// Why.
    pub why: SkipReason,
}

/// A hint under way. Dropping it changes nothing.
pub struct Prefetch<P: Ports> {
    ops: Vec<Arc<Op<P>>>,
    moved_bytes: u64,
    skipped: Vec<Skipped>,
}

impl<P: Ports> Prefetch<P> {
    /// What to wait for; empty if nothing had to move.
    pub fn ops(&self) -> &[Arc<Op<P>>] {
        &self.ops
    }

    /// Bytes that are on their way because of it, whole pages; without those that were there already, or are to follow a launch.
    pub fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }

    /// What it left where it was.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn skip(&mut self, range: &RangeCell<P>, bytes: ByteRange, why: SkipReason) {
        if bytes.is_empty() {
            return;
        }
        let label = Arc::clone(&range.label);
        match self.skipped.last_mut() {
            Some(last) if last.why == why && last.label == label && last.bytes.end == bytes.start => {
                last.bytes.end = bytes.end;
            }
            _ => self.skipped.push(Skipped { label, bytes, why }),
        }
    }
}

/// A part of a batch: an allocation, and which bytes of it.
pub type Part<P> = (Arc<RangeCell<P>>, ByteRange);

/// Pages of one block that go home once those who hold them are done.
pub(crate) struct Homebound<P: Ports> {
    block: u32,
    pages: PageMask,
    op: Arc<Op<P>>,
}

/// Why an attempt came to nothing.
enum Missed {
    Skip(SkipReason),
    Error(EngineError),
}

impl<P: Ports> Engine<P> {
    /// Starts to bring the parts to `to`, all of them in one admission where there is room, and returns at once. On the device they
    /// become Shared, on the host, too: no copy that is current goes. Of a range that is used in place nothing moves; it is
    /// imported, if it is not yet.
    ///
    /// # Errors
    /// `Lost`, `OutOfRange`, `UnknownRange`, `ForkedChild`; to the device also `DeviceLost`. What stands in its way otherwise, the
    /// ticket says.
    pub fn prefetch(&self, parts: &[Part<P>], to: Side) -> Result<Prefetch<P>, EngineError> {
        self.check_owned()?;
        for (argument, (range, bytes)) in parts.iter().enumerate() {
            if range.is_dead() {
                return Err(EngineError::UnknownRange { argument });
            }
            self.check(range, *bytes)?;
        }
        if to == Side::Device {
            self.check_alive()?;
        }
        self.catch_up();
        let mut ticket = Prefetch { ops: Vec::new(), moved_bytes: 0, skipped: Vec::new() };
        let parts: Vec<Part<P>> = parts.iter().filter(|(_, bytes)| !bytes.is_empty()).cloned().collect();
        parts.iter().for_each(|(range, bytes)| self.note_prefetch(range, *bytes, to));
        match to {
            Side::Host => parts.iter().for_each(|part| self.hint_home(part, &mut ticket)),
            Side::Device => self.hint_to_device(parts, &mut ticket)?,
        }
        let skipped = ticket.skipped.iter().map(|skipped| skipped.bytes.len()).sum();
        Counters::add(&self.counters.prefetch_skipped_bytes, skipped);
        Ok(ticket)
    }

    /// [`Engine::prefetch`] of one part to the device.
    ///
    /// # Errors
    /// As there.
    pub fn prefetch_to_device(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
    ) -> Result<Prefetch<P>, EngineError> {
        self.prefetch(&[(Arc::clone(range), bytes)], Side::Device)
    }

    /// [`Engine::prefetch`] of one part to the host.
    ///
    /// # Errors
    /// As there.
    pub fn prefetch_to_host(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
    ) -> Result<Prefetch<P>, EngineError> {
        self.prefetch(&[(Arc::clone(range), bytes)], Side::Host)
    }

    // ── to the device ────────────────────────────────────────────────────────────────────────────────────────────────────

    fn hint_to_device(&self, parts: Vec<Part<P>>, ticket: &mut Prefetch<P>) -> Result<(), EngineError> {
        let mut wanted = Vec::new();
        for (range, bytes) in parts {
            if !self.settle_way(&range) {
                wanted.extend(self.unguarded(&range, bytes, ticket));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        match self.hint(&wanted, ticket) {
            Ok(()) => Ok(()),
            Err(Missed::Error(error)) => Err(error),
            Err(Missed::Skip(_)) => wanted.iter().try_for_each(|part| self.hint_by_parts(part, ticket)),
        }
    }

    /// What of a part may be brought: not the blocks that the thrash guard keeps.
    fn unguarded(
        &self,
        range: &Arc<RangeCell<P>>,
        bytes: ByteRange,
        ticket: &mut Prefetch<P>,
    ) -> Vec<Part<P>> {
        let (block_bytes, now) = (self.config.geometry.block_bytes(), self.exec.now());
        let mut out: Vec<Part<P>> = Vec::new();
        for (index, _, _) in range.cut(bytes) {
            let start = u64::from(index) * block_bytes;
            let here = ByteRange { start: start.max(bytes.start), end: (start + block_bytes).min(bytes.end) };
            if range.blocks[index as usize].lock().thrash.is_guarded(now) {
                ticket.skip(range, here, SkipReason::Thrashing);
                continue;
            }
            match out.last_mut() {
                Some((_, last)) if last.end == here.start => last.end = here.end,
                _ => out.push((Arc::clone(range), here)),
            }
        }
        out
    }

    /// As much of one part as there is room for, from its start; what else stands in its way is left out block by block.
    fn hint_by_parts(&self, (range, bytes): &Part<P>, ticket: &mut Prefetch<P>) -> Result<(), EngineError> {
        let block_bytes = self.config.geometry.block_bytes();
        let mut at = bytes.start;
        let mut blocks = bytes.end.div_ceil(block_bytes) - at / block_bytes;
        while at < bytes.end {
            let to = bytes.end.min((at / block_bytes + blocks) * block_bytes);
            let here = ByteRange { start: at, end: to };
            match self.hint(&[(Arc::clone(range), here)], ticket) {
                Ok(()) => at = to,
                Err(Missed::Error(error)) => return Err(error),
                Err(Missed::Skip(_)) if blocks > 1 => blocks /= 2,
                Err(Missed::Skip(SkipReason::NoRoom)) => {
                    ticket.skip(range, ByteRange { start: at, end: bytes.end }, SkipReason::NoRoom);
                    return Ok(());
                }
                Err(Missed::Skip(why)) => {
                    ticket.skip(range, here, why);
                    (at, blocks) = (to, 16);
                }
            }
        }
        Ok(())
    }

    /// One admission of all `parts`, or nothing.
    fn hint(&self, parts: &[Part<P>], ticket: &mut Prefetch<P>) -> Result<(), Missed> {
        let argument = |(range, bytes): &Part<P>| Argument {
            range: Some(Arc::clone(range)),
            bytes: *bytes,
            access: AccessKind::Read,
            bind: BindTo::Nothing,
        };
        let arguments = parts.iter().map(argument).collect();
        let label = Arc::clone(&parts[0].0.label);
        let spec = LaunchSpec { kernel: None, groups: [0; 3], arguments, push: Vec::new(), label };
        let (wants, of_argument) = self.wants(&spec, false);
        let subs: u64 = wants.iter().map(|want| want.subs.len() as u64).sum();
        if subs > u64::from(self.arena.lock().limit_frames()) {
            return Err(Missed::Skip(SkipReason::NoRoom));
        }
        self.import_arguments(&spec);
        let ops = Ops {
            aim: Aim::Hint,
            main: self.new_op(&spec.label),
            copy: self.new_op(&spec.label),
            evict: self.new_op(&spec.label),
            round: None,
        };
        let admitted = match self.take_turn_at_once() {
            // In one's turn: a loss is settled in a turn, and ends nothing that comes after.
            Some(_turn) => match self.check_alive() {
                Ok(()) => self.try_admit(&ops, &spec, &wants, &of_argument),
                Err(error) => Err(Refusal::Error(error)),
            },
            None => Err(Refusal::Wait),
        };
        match admitted {
            Ok(admitted) => {
                self.see_submitted();
                ticket.moved_bytes += admitted.moved_bytes;
                ticket.ops.push(ops.copy);
                Ok(())
            }
            Err(refusal) => {
                self.forget_ops(&ops.ids());
                Err(self.missed(refusal, &spec))
            }
        }
    }

    fn missed(&self, refusal: Refusal, spec: &LaunchSpec<P>) -> Missed {
        Missed::Skip(match refusal {
            Refusal::Wait | Refusal::Paged(_) => SkipReason::Busy,
            Refusal::NoRoom => SkipReason::NoRoom,
            Refusal::Lost => return Missed::Error(self.name_the_lost(spec)),
            Refusal::Freed => return Missed::Error(EngineError::UnknownRange { argument: 0 }),
            Refusal::Error(error) => match error {
                EngineError::Guarded { .. } => SkipReason::Guarded,
                EngineError::Acquired { .. } => SkipReason::Acquired,
                EngineError::NoPagemap => SkipReason::NoPagemap,
                EngineError::WorkingSetTooLarge { .. } => SkipReason::NoRoom,
                EngineError::DeviceLost { cause } => {
                    self.note_loss(&cause); // a port may have said so first to this hint
                    return Missed::Error(EngineError::DeviceLost { cause });
                }
                _ => SkipReason::NoMemory,
            },
        })
    }

    // ── to the host ──────────────────────────────────────────────────────────────────────────────────────────────────────

    fn hint_home(&self, (range, bytes): &Part<P>, ticket: &mut Prefetch<P>) {
        let g = self.config.geometry;
        for (index, touched, _) in range.cut(*bytes) {
            let mut block = range.blocks[index as usize].lock();
            let start = u64::from(index) * g.block_bytes();
            let here =
                ByteRange { start: start.max(bytes.start), end: (start + g.block_bytes()).min(bytes.end) };
            let (away, kept) = (block.dirty() & touched, self.kept_on_device(range, index, true));
            if away.intersects(&kept) {
                ticket.skip(range, here, SkipReason::Guarded);
            }
            let away = away.minus(&kept);
            if away.is_empty() {
                continue;
            }
            if self.is_acquired(&block, away) {
                ticket.skip(range, here, SkipReason::Acquired);
                continue;
            }
            let op = self.new_op(&range.label);
            let homebound = Homebound { block: index, pages: away, op: Arc::clone(&op) };
            if self.may_go_home(&block, away) {
                ticket.moved_bytes += u64::from(away.count()) * u64::from(g.page_bytes);
            }
            if let Some(later) = self.send_homebound(range, &mut block, homebound) {
                range.homebound.lock().push(later);
                range.homebound_count.fetch_add(1, Ordering::AcqRel);
            }
            if !op.is_over() {
                ticket.ops.push(op);
            }
        }
    }

    /// Whether an application has acquired some of the pages.
    fn is_acquired(&self, block: &Block, pages: PageMask) -> bool {
        let holders = block.holds().iter().filter(|hold| hold.mask.intersects(&pages));
        holders.filter_map(|hold| self.op(hold.op)).any(|op| op.is_open())
    }

    /// What an unfinished launch writes, or an admitted one may copy in, stays until it is done.
    fn may_go_home(&self, block: &Block, away: PageMask) -> bool {
        let held = block.holds_of(HoldKind::Exclusive) | block.holds_of(HoldKind::InPlace);
        !held.intersects(&away) && block.has_room(1)
    }

    /// Starts the copy home, under the block's lock; gives it back if somebody is to be waited for, who comes back to the block
    /// ([`Engine::follow`]).
    fn send_homebound(
        &self,
        range: &Arc<RangeCell<P>>,
        block: &mut Block,
        homebound: Homebound<P>,
    ) -> Option<Homebound<P>> {
        let kept = self.kept_on_device(range, homebound.block, true);
        let away = (block.dirty() & homebound.pages).minus(&kept);
        // Acquired since it was asked for: the application may wait for the hint before it releases.
        let is_over = away.is_empty() || range.is_dead() || self.lost.load(Ordering::Acquire);
        if is_over || self.is_acquired(block, away) {
            self.forget_ops(&[homebound.op.id]);
            return None;
        }
        if !self.may_go_home(block, away) {
            return Some(homebound);
        }
        let Taken::After(waits) = self.take_from_gate(range, homebound.block, Park::Yes) else {
            return Some(homebound);
        };
        let way = Homeward { mask: away, keep: true, cause: Cause::Prefetch, waits };
        self.start_home_as(&homebound.op, range, homebound.block, block, way);
        None
    }

    /// Somebody is done with a block: what was to follow him goes home. Under the block's lock.
    pub(crate) fn follow(&self, range: &Arc<RangeCell<P>>, index: u32, block: &mut Block) {
        if range.homebound_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mine: Vec<Homebound<P>> = {
            let mut all = range.homebound.lock();
            let (mine, others) = core::mem::take(&mut *all).into_iter().partition(|h| h.block == index);
            *all = others;
            mine
        };
        for homebound in mine {
            match self.send_homebound(range, block, homebound) {
                Some(later) => range.homebound.lock().push(later),
                None => drop(range.homebound_count.fetch_sub(1, Ordering::AcqRel)),
            }
        }
    }
}
