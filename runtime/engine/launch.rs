//! Launches: what a caller asks, and the fast path for data that is resident. Everything else goes through admission.

use crate::admit::Aim;
use crate::op::BlockRef;
use crate::range::{PlacementKind, RangeCell};
use crate::stats::Counters;
use crate::submit::Dispatch;
use crate::{Engine, EngineError, Op, OpStatus, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use vkhmm_core::block::LaunchMasks;
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::Placed;
use vkhmm_core::policy::Use;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{BoundRange, Device, Mutex, Signal};

/// What a kernel may do with an argument's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Reads them.
    Read,
    /// Reads and writes them.
    Write,
    /// Writes them; what they were is dead.
    Overwrite,
}

impl AccessKind {
    /// Whether it may store.
    pub const fn writes(self) -> bool {
        self.as_use().writes()
    }

    /// As a policy knows it.
    pub(crate) const fn as_use(self) -> Use {
        match self {
            Self::Read => Use::Read,
            Self::Write => Use::Write,
            Self::Overwrite => Use::Overwrite,
        }
    }
}

/// How a kernel reaches an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindTo {
    /// The next storage buffer, in (set, binding) order.
    Binding,
    /// A 64-bit device address at this offset of the push constants.
    Address(u32),
    /// By neither: the kernel finds it through data.
    Nothing,
}

/// One access of a launch.
pub struct Argument<P: Ports> {
    /// Whose bytes; `None` is the empty argument.
    pub range: Option<Arc<RangeCell<P>>>,
    /// Which bytes, from the range's start.
    pub bytes: ByteRange,
    /// What the kernel does with them.
    pub access: AccessKind,
    /// How it reaches them.
    pub bind: BindTo,
}

/// A kernel launch, checked against kernel and device by the caller.
pub struct LaunchSpec<P: Ports> {
    /// What runs; `None` only brings the arguments to the device.
    pub kernel: Option<Arc<<P::Device as Device>::Kernel>>,
    /// How many groups.
    pub groups: [u32; 3],
    /// What it touches.
    pub arguments: Vec<Argument<P>>,
    /// Push constants; addresses are filled in.
    pub push: Vec<u8>,
    /// For reports.
    pub label: Arc<str>,
}

impl<P: Ports> Argument<P> {
    pub(crate) fn subs(&self, frame_bytes: u64) -> Range<u32> {
        (self.bytes.start / frame_bytes) as u32..self.bytes.end.div_ceil(frame_bytes) as u32
    }

    /// The range, unless there is nothing to touch.
    pub(crate) fn target(&self) -> Option<&Arc<RangeCell<P>>> {
        self.range.as_ref().filter(|_| !self.bytes.is_empty())
    }

    /// The range, unless it needs no frames: it is used in place, or there is nothing to touch. Asked once its way is settled.
    pub(crate) fn framed(&self) -> Option<&Arc<RangeCell<P>>> {
        self.target().filter(|range| !range.is_in_place())
    }

    /// What it does to the pages of one block, given those touched and those wholly covered.
    pub(crate) fn masks(&self, touched: PageMask, covered: PageMask) -> LaunchMasks {
        match self.access {
            AccessKind::Read => LaunchMasks { read: touched, ..LaunchMasks::default() },
            AccessKind::Write => LaunchMasks { write: touched, ..LaunchMasks::default() },
            AccessKind::Overwrite => {
                LaunchMasks { overwrite: covered, write: touched.minus(&covered), ..LaunchMasks::default() }
            }
        }
    }
}

/// Where an argument lies on the device.
pub(crate) struct Bound<P: Ports> {
    pub(crate) buffer: Arc<<P::Device as Device>::Buffer>,
    /// The byte of the range that is the buffer's first.
    pub(crate) from: u64,
    /// What the buffer's first byte is called where accesses are compared: its place in device memory, or
    /// [`Bound::VIRTUAL`] and its place in the reservation where frames come and go under a buffer that stays.
    pub(crate) key: u64,
}

impl<P: Ports> Bound<P> {
    /// Above every place in device memory.
    pub(crate) const VIRTUAL: u64 = 1 << 62;

    /// In a span's buffer.
    pub(crate) fn in_span(
        placed: &Placed,
        buffer: Arc<<P::Device as Device>::Buffer>,
        frame_bytes: u64,
    ) -> Self {
        let from = u64::from(placed.subs.start) * frame_bytes;
        Self { buffer, from, key: u64::from(placed.frame_of(placed.subs.start).0) * frame_bytes }
    }

    /// In the buffer that the range has for life.
    ///
    /// # Panics
    /// If it has none: a broken invariant, since its way is settled before anything of it is held.
    pub(crate) fn in_range(range: &RangeCell<P>) -> Self {
        let buffer = range.way.lock().buffer.clone().expect("a range that is held has its buffer for life");
        Self { buffer, from: 0, key: Self::VIRTUAL | range.offset() }
    }
}

impl<P: Ports> Engine<P> {
    /// Launches. Returns once the host views of everything it names are revoked or protected, its frames are claimed and its
    /// place in the order is fixed; blocks only for capacity that earlier launches use.
    ///
    /// # Errors
    /// Nothing has changed then: `DeviceLost`, `NoPagemap`, `WorkingSetTooLarge`, `OutOfHostMemory`, `Guarded`, `Lost`,
    /// `UnknownRange`, `OutOfRange`, `ForkedChild`, or what a port said.
    pub fn launch(&self, spec: LaunchSpec<P>) -> Result<Arc<Op<P>>, EngineError> {
        self.check_alive()?;
        self.check_arguments(&spec)?;
        let kernel = spec.kernel.is_some();
        let op = self.new_op(&spec.label);
        let outcome = match self.try_resident(&op, spec) {
            Ok(()) => Ok(()),
            Err(spec) => self.launch_admitted(&op, &spec, Aim::Launch, None).map(drop),
        };
        if let Err(error) = outcome {
            if let EngineError::DeviceLost { cause } = &error {
                self.note_loss(cause); // a port may have said so first to this launch
            }
            self.forget_ops(&[op.id]);
            return Err(error);
        }
        Counters::add(&self.counters.launches, u64::from(kernel));
        self.see_submitted();
        if self.lost.load(Ordering::Acquire) {
            op.set_status(OpStatus::Lost);
        }
        Ok(op)
    }

    /// Every argument names bytes of a live range. It may be freed at any moment after: gate and blocks are asked again, each
    /// under its lock, before it is used.
    pub(crate) fn check_arguments(&self, spec: &LaunchSpec<P>) -> Result<(), EngineError> {
        for (i, argument) in spec.arguments.iter().enumerate() {
            let Some(range) = argument.target() else { continue };
            if range.is_dead() {
                return Err(EngineError::UnknownRange { argument: i });
            }
            self.check_interval(range, argument.bytes)?;
        }
        Ok(())
    }

    /// The fast path: every block named is resident, so only the gates are taken, or is used in place and needs to wait for nothing
    /// (`in_place`). Gives the launch back if it is not so.
    fn try_resident(&self, op: &Arc<Op<P>>, spec: LaunchSpec<P>) -> Result<(), LaunchSpec<P>> {
        if spec.kernel.is_none() || !self.arena.lock().is_live() {
            return Err(spec);
        }
        let Some(mut plans) = self.in_place_plans(&spec) else { return Err(spec) };
        // Outer to the gates, and held until the ticket is known: whoever comes next finds holds that end by it.
        let Some(mut blocks) = self.lock_in_place(&plans) else {
            drop(plans);
            return Err(spec);
        };
        let Some(entered) = self.enter_gates(&spec) else {
            drop(blocks);
            drop(plans);
            return Err(spec);
        };
        let weakened = plans.iter().zip(&mut blocks).all(|(plan, block)| self.prepare_in_place(plan, block));
        let bound = if weakened { self.find_spans(&spec) } else { None };
        let recorded = bound.and_then(|bound| {
            let kernel = spec.kernel.clone().expect("checked above");
            Self::keep_addressed(op, &spec, &bound);
            self.try_record(op, self.dispatch(kernel, &spec, &bound)).ok()
        });
        if recorded.is_some() {
            plans.iter().zip(&mut blocks).for_each(|(plan, block)| self.hold_in_place(op, plan, block));
        }
        drop(blocks);
        self.leave_gates(&entered, recorded);
        if recorded.is_none() {
            drop(plans);
            return Err(spec);
        }
        let counted = if plans.is_empty() {
            &self.counters.launches_resident
        } else {
            op.remember(
                plans.drain(..).map(|plan| BlockRef { range: plan.range, block: plan.index }).collect(),
            );
            &self.counters.launches_in_place
        };
        Counters::add(counted, 1);
        if op.land_piece() {
            self.finish(op);
        }
        Ok(())
    }

    /// Counts the launch in at the gate of every range that lies in frames, if all of them let it pass.
    fn enter_gates(&self, spec: &LaunchSpec<P>) -> Option<Vec<Arc<RangeCell<P>>>> {
        let block_bytes = self.config.geometry.block_bytes();
        let mut entered: Vec<Arc<RangeCell<P>>> = Vec::with_capacity(spec.arguments.len());
        for argument in &spec.arguments {
            let Some(range) = argument.framed() else { continue };
            let from = (argument.bytes.start / block_bytes) as u32;
            let to = argument.bytes.end.div_ceil(block_bytes) as u32;
            let alone = argument.access.writes() || self.config.strict_io;
            let mut gate = range.gate.lock();
            let (passes, words) = gate.lets_pass(from, to, alone, range.block_count());
            if words > 0 {
                Counters::add(&self.counters.gate_words, u64::from(words));
            }
            if range.is_dead() || !passes {
                drop(gate);
                self.leave_gates(&entered, None);
                return None;
            }
            gate.deciding += 1;
            drop(gate);
            entered.push(Arc::clone(range));
        }
        Some(entered)
    }

    fn find_spans(&self, spec: &LaunchSpec<P>) -> Option<Vec<Option<Bound<P>>>> {
        let (frame_bytes, now) = (self.config.geometry.frame_bytes(), self.tick());
        spec.arguments
            .iter()
            .map(|argument| match argument.target() {
                None => Some(None),
                Some(range) => {
                    let (subs, what) = (argument.subs(frame_bytes), argument.access.as_use());
                    match range.kind() {
                        PlacementKind::InPlace => Some(Some(Bound::in_range(range))),
                        PlacementKind::Sparse => {
                            let there = self.use_bound(range.id, subs, now, what);
                            there.then(|| Some(Bound::in_range(range)))
                        }
                        PlacementKind::Span => {
                            let (placed, buffer) = self.find_span(range.id, subs, now, what)?;
                            Some(Some(Bound::in_span(&placed, buffer, frame_bytes)))
                        }
                    }
                }
            })
            .collect()
    }

    /// The launch is through (its ticket is known) or goes another way: the gates count it out, and whoever met it is asked
    /// again. Not only when the count falls to zero: with launches without end on other blocks of the range it never might.
    fn leave_gates(&self, entered: &[Arc<RangeCell<P>>], ticket: Option<vkhmm_core::units::Ticket>) {
        for range in entered {
            let (waiting, awaited) = {
                let mut gate = range.gate.lock();
                gate.deciding = gate.deciding.saturating_sub(1);
                if let Some(ticket) = ticket {
                    gate.uses.add(ticket);
                }
                (core::mem::take(&mut gate.waiting), core::mem::take(&mut gate.awaited))
            };
            for index in waiting {
                let mut block = range.blocks[index as usize].lock();
                self.resume(range, index, &mut block, PageMask::EMPTY);
            }
            if awaited {
                self.progress.notify();
            }
        }
    }

    /// What the kernel reaches by address no command names: it stays until `op` is over, whoever gets its frames next.
    pub(crate) fn keep_addressed(op: &Op<P>, spec: &LaunchSpec<P>, bound: &[Option<Bound<P>>]) {
        let addressed = |(argument, bound): (&Argument<P>, &Option<Bound<P>>)| {
            let buffer = bound.as_ref().map(|bound| &bound.buffer);
            buffer.filter(|_| matches!(argument.bind, BindTo::Address(_))).map(Arc::clone)
        };
        let kept: Vec<_> = spec.arguments.iter().zip(bound).filter_map(addressed).collect();
        if !kept.is_empty() {
            op.keep_buffers(kept);
        }
    }

    /// The kernel with its buffers, addresses and the device bytes it touches.
    pub(crate) fn dispatch(
        &self,
        kernel: Arc<<P::Device as Device>::Kernel>,
        spec: &LaunchSpec<P>,
        bound: &[Option<Bound<P>>],
    ) -> Dispatch<P::Device> {
        let mut push = spec.push.clone();
        let mut bindings = Vec::new();
        let mut touches = Vec::new();
        for (argument, bound) in spec.arguments.iter().zip(bound) {
            let (mut buffer, mut offset, mut address) = (None, 0, 0);
            if let Some(bound) = bound {
                offset = argument.bytes.start - bound.from;
                address = self.device.address(&bound.buffer) + offset;
                buffer = Some(Arc::clone(&bound.buffer));
                let start = bound.key + offset;
                touches
                    .push((ByteRange { start, end: start + argument.bytes.len() }, argument.access.writes()));
            }
            match argument.bind {
                BindTo::Binding => bindings.push(BoundRange { buffer, offset, bytes: argument.bytes.len() }),
                BindTo::Address(at) => {
                    push[at as usize..at as usize + 8].copy_from_slice(&address.to_ne_bytes())
                }
                BindTo::Nothing => {}
            }
        }
        Dispatch { kernel, bindings, push, groups: spec.groups, touches }
    }
}
