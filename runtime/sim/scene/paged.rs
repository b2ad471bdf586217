//! The paged kernel of the scene: groups, or items of groups, that touch their parts of every array, and pages far away that follow from
//! a number or from what they read. It checks all it loads against the twins of the launch; the same work changes the twins.
//!
//! A paged launch may end early after all, when too few frames are left: what finished groups wrote stays. Nobody else can know which
//! they were, so the written arrays are *wild* then, and with them what later launches made of them, until their owner has read them anew.

use super::array::Array;
use super::kernel::{Access, Found, look};
use super::{SMALL, Stage};
use crate::SimPorts;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, EngineError, Op};
use vkhmm_port::fake::paged::PagedGroup;
use vkhmm_port::fake::{FakeDevice, FakeKernel};

/// What there was before a paged launch, for the case that it ends early.
pub(super) struct Late {
    /// Frames that a unit needs.
    need: u64,
    /// Calls of the device that failed because they were told to.
    failed: usize,
    /// Paged launches until then, this one among them, and those of them that were over.
    asked: u64,
    gone: u64,
}

impl Late {
    /// To be called before the launch.
    pub(super) fn new(stage: &Stage, need: u64) -> Self {
        let gone = stage.paged_gone.load(Ordering::Acquire);
        let asked = stage.paged_asked.fetch_add(1, Ordering::AcqRel) + 1;
        Self { need, failed: stage.device.told_to_fail().len(), asked, gone }
    }
}

/// A paged launch whose end is not known yet.
pub(super) struct Pending {
    op: Arc<Op<SimPorts>>,
    late: Late,
    seen: AtomicBool,
}

impl Pending {
    pub(super) fn new(op: &Arc<Op<SimPorts>>, late: Late) -> Arc<Self> {
        Arc::new(Self { op: Arc::clone(op), late, seen: AtomicBool::new(false) })
    }

    /// Whether it ended early.
    pub(super) fn failed(&self) -> bool {
        self.op.failure().is_some()
    }
}

/// What a paged launch does.
#[derive(Clone)]
pub(super) struct Work {
    found: Vec<Found>,
    /// Of each array so many bytes to a unit: a group, or an item.
    part: u64,
    pub(super) groups: u32,
    /// Items of a group; zero where the kernel goes on by groups.
    pub(super) items: u32,
    /// Bytes far away that a unit reads.
    far: u32,
    salt: u8,
}

/// What a unit touches, in order: it ends where a touch says so.
type Touch<'a> = &'a mut dyn FnMut(usize, ByteRange, u32) -> Option<Vec<u8>>;

impl Work {
    /// Over all bytes of `arrays`, in `accesses`.
    pub(super) fn over(
        arrays: &[Array],
        accesses: &[Access],
        part: u64,
        items: u32,
        far: u32,
        salt: u8,
    ) -> Self {
        let longest = accesses.iter().map(|access| access.bytes.len()).max().unwrap_or(0);
        let groups = longest.div_ceil(part * u64::from(items.max(1))) as u32;
        Self { found: look(arrays, accesses), part, groups, items, far, salt }
    }

    /// Whether a unit loads what it is to change, and asks only then to store there.
    fn looks_first(&self) -> bool {
        self.salt % 2 == 0
    }

    fn part_of(&self, at: usize, unit: u64) -> ByteRange {
        let len = self.found[at].expected.len() as u64;
        ByteRange { start: (unit * self.part).min(len), end: ((unit + 1) * self.part).min(len) }
    }

    /// What a unit asks for of its own, and how.
    fn asks(&self, unit: u64) -> impl Iterator<Item = (usize, ByteRange, u32)> + '_ {
        let access = |kind| match kind {
            AccessKind::Read => READ,
            AccessKind::Write => READ | WRITE,
            AccessKind::Overwrite => WRITE,
        };
        let each = move |(at, found): (usize, &Found)| (at, self.part_of(at, unit), access(found.kind));
        self.found.iter().enumerate().map(each).filter(|(_, bytes, _)| !bytes.is_empty())
    }

    /// The next byte far away, after one that held `last`.
    fn far_from(&self, unit: u64, step: u32, last: u8) -> Option<(usize, ByteRange)> {
        let at = self.found.iter().position(|found| found.kind == AccessKind::Read)?;
        let len = self.found[at].expected.len() as u64;
        let start = (unit * 131 + u64::from(step) * 71 + u64::from(last) * 37 + u64::from(self.salt)) % len;
        let start = (start..len).find(|at_byte| self.found[at].owned[*at_byte as usize])?;
        Some((at, ByteRange { start, end: start + 1 }))
    }

    /// Touches all that a unit does, with what it reads far away deciding where it goes on, if it goes on by items. What its own parts
    /// become, by array; `None` if a touch said so.
    fn touch(&self, unit: u64, touch: Touch<'_>) -> Option<Vec<(usize, u64, Vec<u8>)>> {
        let (mut sum, mut last) = (0_u8, 0);
        for step in 0..self.far {
            let Some((at, bytes)) = self.far_from(unit, step, last) else { break };
            let got = touch(at, bytes, READ)?;
            sum = sum.wrapping_mul(5).wrapping_add(got[0]);
            last = if self.items > 0 { got[0] } else { 0 };
        }
        let mut written = Vec::new();
        for (at, bytes, access) in self.asks(unit) {
            let first = if self.looks_first() && access & READ != 0 { READ } else { access };
            let got = touch(at, bytes, first)?;
            if first != access {
                touch(at, bytes, WRITE)?;
            }
            let found = self.found[at].part(bytes);
            if access == READ {
                sum = sum.wrapping_add(found.sum(&got));
            } else {
                written.push((at, bytes.start, got, found));
            }
        }
        let changed = |(at, start, mut bytes, found): (usize, u64, Vec<u8>, Found)| {
            found.change(&mut bytes, sum, self.salt);
            (at, start, bytes)
        };
        Some(written.into_iter().map(changed).collect())
    }

    /// Does to the twins what the kernel does to the bytes.
    pub(super) fn apply(&self, arrays: &mut [Array], accesses: &[Access]) {
        for unit in 0..u64::from(self.groups) * u64::from(self.items.max(1)) {
            let mut old = |at: usize, bytes: ByteRange, _: u32| Some(self.found[at].part(bytes).expected);
            for (at, start, bytes) in self.touch(unit, &mut old).expect("a twin has all its bytes") {
                let twin = &mut arrays[accesses[at].array].twin;
                twin[start as usize..start as usize + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    /// Device frames that one unit needs at most, in blocks.
    pub(super) fn frames_of_unit(&self) -> u64 {
        let block = SMALL.block_bytes();
        let of = |unit| {
            let mut blocks = BTreeSet::new();
            let mut old = |at: usize, bytes: ByteRange, _: u32| {
                blocks.extend((bytes.start / block..=(bytes.end - 1) / block).map(|block| (at, block)));
                Some(self.found[at].part(bytes).expected)
            };
            self.touch(unit, &mut old);
            blocks.len() as u64 * u64::from(SMALL.subs_per_block())
        };
        (0..u64::from(self.groups) * u64::from(self.items.max(1))).map(of).max().unwrap_or(0)
    }

    /// The kernel, for a launch that is made now.
    pub(super) fn kernel(self, what: &str, stage: &Arc<Stage>, arrays: &[Array]) -> FakeKernel {
        let (what, stage_of): (_, Weak<Stage>) = (what.to_owned(), Arc::downgrade(stage));
        let pending: Vec<Arc<Pending>> = arrays.iter().flat_map(|array| array.pending.clone()).collect();
        let device: &FakeDevice<_> = &stage.device;
        FakeKernel::paged(device, move |group| {
            let means_nothing = || {
                stage_of.upgrade().is_none_or(|stage| stage.is_lost())
                    || pending.iter().any(|pending| pending.failed())
            };
            if self.items == 0 {
                self.by_group(&what, group, &means_nothing);
            } else {
                self.by_items(&what, group, &means_nothing);
            }
        })
    }

    fn by_group(&self, what: &str, group: &mut PagedGroup<'_>, means_nothing: &dyn Fn() -> bool) {
        let unit = u64::from(group.id());
        for step in 0..self.far {
            if let Some((at, bytes)) = self.far_from(unit, step, 0) {
                group.want(at as u32, bytes.start..bytes.end, READ);
            }
        }
        for (at, bytes, access) in self.asks(unit) {
            group.want(at as u32, bytes.start..bytes.end, access);
        }
        if !group.vote() {
            return;
        }
        let mut load = |at: usize, bytes: ByteRange, access: u32| {
            Some(self.checked(what, group, at, bytes, access, means_nothing))
        };
        for (at, start, bytes) in self.touch(unit, &mut load).expect("everything is there after the vote") {
            group.store(at as u32, start, &bytes);
        }
    }

    fn by_items(&self, what: &str, group: &mut PagedGroup<'_>, means_nothing: &dyn Fn() -> bool) {
        for item in group.items() {
            let unit = u64::from(group.id()) * u64::from(self.items) + u64::from(item);
            let mut load = |at: usize, bytes: ByteRange, access: u32| {
                let there = group.try_at(at as u32, bytes.start..bytes.end, access);
                there.then(|| self.checked(what, group, at, bytes, access, means_nothing))
            };
            if let Some(written) = self.touch(unit, &mut load) {
                for (at, start, bytes) in written {
                    group.store(at as u32, start, &bytes);
                }
                group.item_done(item);
            }
        }
    }

    /// Loads bytes, and compares them with the twin of the launch.
    ///
    /// # Panics
    /// If they differ.
    fn checked(
        &self,
        what: &str,
        group: &PagedGroup<'_>,
        at: usize,
        bytes: ByteRange,
        access: u32,
        means_nothing: &dyn Fn() -> bool,
    ) -> Vec<u8> {
        let found = self.found[at].part(bytes);
        if access & READ == 0 {
            return found.expected;
        }
        let got = group.load(at as u32, bytes.start..bytes.end);
        if let Some(byte) = found.differs(&got).filter(|_| !means_nothing()) {
            panic!(
                "twin: kernel of {what}: byte {} of argument {at} is {}, not {}, in group {}",
                bytes.start + byte as u64,
                got[byte],
                found.expected[byte],
                group.id()
            );
        }
        got
    }
}

impl Stage {
    /// If a paged launch ended early that an array comes from: it is what it is, from now on.
    pub(super) fn tame(&self, array: &mut Array) {
        array.pending.retain(|pending| {
            let over = self.is_over(&pending.op);
            if over && !pending.seen.swap(true, Ordering::AcqRel) {
                self.paged_gone.fetch_add(1, Ordering::AcqRel);
                self.explain_late(pending);
            }
            !over || pending.failed()
        });
        if array.is_wild() {
            self.exec.note(format_args!("{} is wild", array.name));
            let pending = std::mem::take(&mut array.pending);
            self.adopt(array, array.all());
            if self.is_scarce() {
                // Pages without memory are not read.
                array.pending = pending;
            }
        }
    }

    fn is_over(&self, op: &Arc<Op<SimPorts>>) -> bool {
        !matches!(self.engine.wait(op, Some(Duration::ZERO)), Ok(false))
    }

    /// # Panics
    /// If nothing explains that a paged launch ended early.
    fn explain_late(&self, pending: &Pending) {
        let (Some(error), late) = (pending.op.failure(), &pending.late) else { return };
        let acquired = self.acquires_asked.load(Ordering::Acquire) > 0;
        let company = late.asked - late.gone > 1 || self.paged_asked.load(Ordering::Acquire) > late.asked;
        let torn_down = self.teardowns.load(Ordering::Acquire) > 0;
        let failed = self.device.told_to_fail().len() > late.failed;
        let (what, explained) = match &error {
            EngineError::WorkingSetTooLarge { .. } => {
                let room = self.setting.has_room() && late.need <= self.setting.limit;
                ("too large", acquired || company || torn_down || !room)
            }
            EngineError::PinnedApart { .. } => ("pinned apart", acquired),
            EngineError::NoPagemap | EngineError::Pagemap(_) => ("no pagemap", torn_down),
            EngineError::Device(_) => (
                "device refused",
                failed || u64::from(self.setting.device.frames_max) < self.setting.limit + 3,
            ),
            _ => ("unknown", false),
        };
        self.met().note(format!("ended early: {what}"));
        assert!(explained, "twin: nothing explains this end of a paged launch: {error}");
    }
}
