//! Admission: every launch that moves anything, one after the other. It claims frames and victims for all arguments or none,
//! takes its holds block by block ascending, and only then changes anything. What must wait gives back all it took and waits
//! for work that needs no admission, so no cycle exists.

use crate::arena::NoFrames;
use crate::home::Taken;
use crate::launch::Bound;
use crate::op::BlockRef;
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::submit::{Item, pieces_bytes};
use crate::trace::TraceCause;
use crate::{Engine, EngineError, LaunchSpec, Op, Ports, Watch};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use vkhmm_core::block::{Block, Cause, Conflict, Hold, HoldKind, LaunchMasks};
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::{EvictGoal, Eviction, Plan, Want};
use vkhmm_core::units::{ByteRange, FrameIndex, OpId, RangeId};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Exec, HostMemory, Mutex, Region, Signal};

/// Turn numbers: whoever comes first goes first.
#[derive(Default)]
pub(crate) struct Turns {
    next: u64,
    serving: u64,
}

/// Held while it is one's turn. A lock by another name: owns admission · may wait for progress · never with a lock held.
pub(crate) struct Turn<'a, P: Ports> {
    engine: &'a Engine<P>,
}

impl<P: Ports> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.engine.turns.lock().serving += 1;
        self.engine.progress.notify();
    }
}

/// What is to happen to one block.
struct BlockPlan<P: Ports> {
    range: Arc<RangeCell<P>>,
    index: u32,
    /// The launch's own pages.
    masks: LaunchMasks,
    /// Pages whose device copies go.
    evict: PageMask,
    /// Sub-blocks that change frames: number and new frame.
    moves: Vec<(u32, FrameIndex)>,
    /// Frames of the launch's pages: sub-block and frame.
    frames: Vec<(u32, FrameIndex)>,
}

/// The three operations of one request: itself, its copies in (and moves), its evictions.
pub(crate) struct Ops<P: Ports> {
    pub(crate) main: Arc<Op<P>>,
    pub(crate) copy: Arc<Op<P>>,
    pub(crate) evict: Arc<Op<P>>,
}

impl<P: Ports> Ops<P> {
    fn ids(&self) -> [OpId; 3] {
        [self.main.id, self.copy.id, self.evict.id]
    }
}

enum Refusal {
    /// Something is on its way: ask again when anything has happened.
    Wait,
    Error(EngineError),
}

impl From<NoFrames> for Refusal {
    fn from(no: NoFrames) -> Self {
        match no {
            NoFrames::Wait => Self::Wait,
            NoFrames::Error(error) => Self::Error(error),
        }
    }
}

/// What pass one found that the device must wait for.
#[derive(Default)]
struct Found {
    uses: Uses,
    after: Vec<OpId>,
}

type Blocks<P> = BTreeMap<u32, BlockPlan<P>>;

impl<P: Ports> Engine<P> {
    /// Waits for one's turn.
    pub(crate) fn take_turn(&self) -> Turn<'_, P> {
        let mine = {
            let mut turns = self.turns.lock();
            turns.next += 1;
            turns.next - 1
        };
        loop {
            let seen = self.progress.epoch();
            if self.turns.lock().serving == mine {
                return Turn { engine: self };
            }
            self.progress.wait(seen, None);
        }
    }

    /// The slow path of a launch, and all of a prefetch to the device.
    pub(crate) fn launch_admitted(&self, op: &Arc<Op<P>>, spec: LaunchSpec<P>) -> Result<(), EngineError> {
        self.import_arguments(&spec);
        let (wants, of_argument) = self.wants(&spec);
        let ops =
            Ops { main: Arc::clone(op), copy: self.new_op(&spec.label), evict: self.new_op(&spec.label) };
        let turn = self.take_turn();
        let mut waited = false;
        let mut watch = Watch::new(self);
        let outcome = loop {
            let seen = self.progress.epoch();
            if let Err(error) = self.check_alive() {
                break Err(error);
            }
            match self.try_admit(&ops, &spec, &wants, &of_argument) {
                Ok(()) => break Ok(()),
                Err(Refusal::Error(error)) => break Err(error),
                Err(Refusal::Wait) => {
                    waited = true;
                    self.flush();
                    self.progress.wait(seen, Some(self.config.watchdog));
                    watch.check(self, || alloc::format!("launch `{}` waits for admission", spec.label));
                }
            }
        };
        drop(turn);
        if waited {
            Counters::add(&self.counters.launches_waited, 1);
        }
        if outcome.is_err() {
            let mut table = self.ops.lock();
            table.remove(&ops.copy.id);
            table.remove(&ops.evict.id);
        }
        outcome
    }

    fn import_arguments(&self, spec: &LaunchSpec<P>) {
        for argument in &spec.arguments {
            if let Some(range) = argument.target() {
                let block_bytes = self.config.geometry.block_bytes();
                let to = argument.bytes.end.div_ceil(block_bytes) as u32;
                self.ensure_import(range, (argument.bytes.start / block_bytes) as u32..to);
            }
        }
    }

    /// One want per range and neighbourhood: arguments that overlap, touch or share a block need one span. Also says which want
    /// each argument is part of.
    fn wants(&self, spec: &LaunchSpec<P>) -> (Vec<Want>, Vec<Option<usize>>) {
        let g = self.config.geometry;
        let per_block = g.subs_per_block();
        let mut wants: Vec<Want> = Vec::new();
        for argument in &spec.arguments {
            let Some(range) = argument.target() else { continue };
            let mut subs = argument.subs(g.frame_bytes());
            let block = |s: &Range<u32>| s.start / per_block..s.end.div_ceil(per_block);
            let near = |w: &Want, s: &Range<u32>| {
                let (a, b) = (block(&w.subs), block(s));
                w.range == range.id && a.start < b.end && b.start < a.end
            };
            while let Some(at) = wants.iter().position(|w| near(w, &subs)) {
                let other = wants.swap_remove(at).subs;
                subs = subs.start.min(other.start)..subs.end.max(other.end);
            }
            let range_subs = range.bytes.div_ceil(g.frame_bytes()) as u32;
            wants.push(Want { range: range.id, range_subs, subs });
        }
        let of_argument = spec
            .arguments
            .iter()
            .map(|argument| {
                let range = argument.target()?;
                let subs = argument.subs(g.frame_bytes());
                wants
                    .iter()
                    .position(|w| w.range == range.id && w.subs.start <= subs.start && subs.end <= w.subs.end)
            })
            .collect();
        (wants, of_argument)
    }

    fn try_admit(
        &self,
        ops: &Ops<P>,
        spec: &LaunchSpec<P>,
        wants: &[Want],
        of_argument: &[Option<usize>],
    ) -> Result<(), Refusal> {
        let mut blocks = self.argument_blocks(spec);
        for plan in blocks.values() {
            let block = plan.range.blocks[plan.index as usize].lock();
            self.check_block(plan, &block)?;
        }
        let (plan, buffers) = self.place(ops.main.id, wants)?;
        let undo = |refusal: Refusal| {
            self.unplace(ops.main.id, &plan);
            Err(refusal)
        };
        if self.evicts_own(&blocks, &plan.evictions) {
            // Comes home first, in an item of its own, so that its bytes are there when they are copied in again.
            self.unplace(ops.main.id, &plan);
            let mut own: Vec<RangeId> = plan.evictions.iter().map(|e| e.range).collect();
            own.dedup();
            for range in own {
                self.evict_in_turn(EvictGoal::Range(range)).map_err(Refusal::Error)?;
            }
            return Err(Refusal::Wait);
        }
        if !self.add_evictions(&mut blocks, &plan.evictions) || !self.add_moves(&mut blocks, &plan) {
            return undo(Refusal::Wait);
        }
        for block in blocks.values_mut() {
            block.frames = self.frames_of(block, wants, &plan);
        }
        let mut found = Found { uses: plan.deps.uses, after: plan.deps.ops.clone() };
        if let Err(refusal) = self.take_holds(ops, &blocks, &mut found) {
            return undo(refusal);
        }
        let mut item = self.commit(ops, &blocks, &found);
        let touched: Vec<_> = spec
            .arguments
            .iter()
            .zip(of_argument)
            .filter_map(|(a, w)| Some(((*w)?, a.subs(self.config.geometry.frame_bytes()), a.access.writes())))
            .collect();
        self.keep_plan(ops.main.id, &plan, &found.uses, &touched);
        if let Some(kernel) = &spec.kernel {
            let bound: Vec<Option<Bound<P>>> = of_argument
                .iter()
                .map(|w| w.map(|w| Bound { placed: plan.placed[w].clone(), buffer: Arc::clone(&buffers[w]) }))
                .collect();
            item.dispatch = Some(self.dispatch(Arc::clone(kernel), spec, &bound));
        }
        let arrived = if spec.kernel.is_some() {
            &self.counters.in_launch_bytes
        } else {
            &self.counters.in_prefetch_bytes
        };
        Counters::add(arrived, pieces_bytes(&item.ins));
        self.put(item);
        Ok(())
    }

    // ── what happens to which block ──────────────────────────────────────────────────────────────────────────────────────

    fn plan_of<'a>(blocks: &'a mut Blocks<P>, range: &Arc<RangeCell<P>>, index: u32) -> &'a mut BlockPlan<P> {
        blocks.entry(range.first.0 + index).or_insert_with(|| BlockPlan {
            range: Arc::clone(range),
            index,
            masks: LaunchMasks::default(),
            evict: PageMask::EMPTY,
            moves: Vec::new(),
            frames: Vec::new(),
        })
    }

    fn argument_blocks(&self, spec: &LaunchSpec<P>) -> Blocks<P> {
        let mut blocks = Blocks::new();
        for argument in &spec.arguments {
            let Some(range) = argument.target() else { continue };
            for (index, touched, covered) in range.cut(argument.bytes) {
                Self::plan_of(&mut blocks, range, index).masks.add(&argument.masks(touched, covered));
            }
        }
        blocks
    }

    fn pages_of_sub(&self, sub: u32) -> PageMask {
        let first = sub * self.config.geometry.pages_per_sub;
        PageMask::range(first..first + self.config.geometry.pages_per_sub)
    }

    /// Calls `each` with block, sub-block in it, and sub-block in the range.
    fn for_subs(&self, subs: &Range<u32>, mut each: impl FnMut(u32, u32, u32)) {
        let per_block = self.config.geometry.subs_per_block();
        subs.clone().for_each(|sub| each(sub / per_block, sub % per_block, sub));
    }

    fn evicts_own(&self, blocks: &Blocks<P>, evictions: &[Eviction]) -> bool {
        let per_block = self.config.geometry.subs_per_block();
        evictions.iter().any(|e| {
            let touched = e.subs.start / per_block..e.subs.end.div_ceil(per_block);
            blocks.values().any(|b| b.range.id == e.range && touched.contains(&b.index))
        })
    }

    /// False if a range is gone meanwhile: its frames come back by themselves.
    fn add_evictions(&self, blocks: &mut Blocks<P>, evictions: &[Eviction]) -> bool {
        for eviction in evictions {
            let Some(range) = self.space.lock().get(eviction.range) else { return false };
            self.for_subs(&eviction.subs, |index, sub, _| {
                Self::plan_of(blocks, &range, index).evict |= self.pages_of_sub(sub);
            });
        }
        true
    }

    fn add_moves(&self, blocks: &mut Blocks<P>, plan: &Plan) -> bool {
        for moved in &plan.moves {
            let Some(range) = self.space.lock().get(moved.range) else { return false };
            self.for_subs(&moved.subs, |index, sub, of_range| {
                let to = FrameIndex(moved.to.0 + (of_range - moved.subs.start));
                Self::plan_of(blocks, &range, index).moves.push((sub, to));
            });
        }
        true
    }

    fn frames_of(&self, block: &BlockPlan<P>, wants: &[Want], plan: &Plan) -> Vec<(u32, FrameIndex)> {
        let per_block = self.config.geometry.subs_per_block();
        let all = block.masks.all();
        (0..per_block)
            .filter(|sub| self.pages_of_sub(*sub).intersects(&all))
            .filter_map(|sub| {
                let of_range = block.index * per_block + sub;
                let want =
                    wants.iter().position(|w| w.range == block.range.id && w.subs.contains(&of_range))?;
                Some((sub, plan.placed[want].frame_of(of_range)))
            })
            .collect()
    }

    // ── pass one: holds, host pages, mappings ────────────────────────────────────────────────────────────────────────────

    fn check_block(&self, plan: &BlockPlan<P>, block: &Block) -> Result<(), Refusal> {
        let label = || Arc::clone(&plan.range.label);
        block.launch_check(&plan.masks).map_err(|conflict| match conflict {
            Conflict::Wait => Refusal::Wait,
            Conflict::Guarded(_) => Refusal::Error(EngineError::Guarded { label: label() }),
            Conflict::Lost => {
                let bytes = ByteRange { start: 0, end: plan.range.bytes };
                let named = self.check(&plan.range, bytes).err();
                Refusal::Error(named.unwrap_or(EngineError::DeviceLost { cause: self.loss_cause() }))
            }
        })
    }

    /// Takes every hold, or none.
    fn take_holds(&self, ops: &Ops<P>, blocks: &Blocks<P>, found: &mut Found) -> Result<(), Refusal> {
        for (done, plan) in blocks.values().enumerate() {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            let outcome = self.hold_block(ops, plan, &mut block, found);
            if let Err(refusal) = outcome {
                block.abort(&ops.ids());
                self.resume(&plan.range, plan.index, &mut block);
                drop(block);
                for earlier in blocks.values().take(done) {
                    let mut block = earlier.range.blocks[earlier.index as usize].lock();
                    block.abort(&ops.ids());
                    self.resume(&earlier.range, earlier.index, &mut block);
                    self.refresh_gate(&earlier.range, earlier.index, &block);
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn hold_block(
        &self,
        ops: &Ops<P>,
        plan: &BlockPlan<P>,
        block: &mut Block,
        found: &mut Found,
    ) -> Result<(), Refusal> {
        self.check_block(plan, block)?;
        let moved = plan.moves.iter().fold(PageMask::EMPTY, |all, (sub, _)| all | self.pages_of_sub(*sub));
        let leaving = (plan.evict | moved) & block.device_valid();
        if !leaving.is_empty() {
            if !block.can_evict(leaving) {
                return Err(Refusal::Wait);
            }
            match self.take_from_gate(&plan.range, plan.index, false) {
                Taken::After(uses) => found.uses.merge(&uses),
                Taken::Deciding => return Err(Refusal::Wait),
            }
            let holders = block.holds().iter().filter(|h| h.mask.intersects(&leaving)).map(|h| h.op);
            found.after.extend(holders);
        }
        found.uses.merge(&block.uses());
        block.launch_deps(&plan.masks, |op| found.after.push(op));
        let evicted = plan.evict & block.device_valid();
        if !evicted.is_empty() {
            block.add_hold(Hold { op: ops.evict.id, kind: HoldKind::Exclusive, mask: evicted });
        }
        if !moved.is_empty() {
            block.add_hold(Hold {
                op: ops.copy.id,
                kind: HoldKind::Exclusive,
                mask: moved & block.device_valid(),
            });
        }
        let all = plan.masks.all();
        if all.is_empty() {
            return Ok(());
        }
        // The gate's launches may still read what is copied in again.
        found.uses.merge(&plan.range.gate.lock().uses);
        // The way home never allocates: every page has its host page before the device may have the only copy.
        for run in (all & block.absent()).runs() {
            self.host.populate(plan.range.run(plan.index, &run)).map_err(|e| Refusal::Error(e.into()))?;
        }
        block.launch_hold(ops.main.id, ops.copy.id, &plan.masks);
        self.weaken(plan, block).map_err(Refusal::Error)
    }

    /// Takes R away from what the launch writes, and stores from what it reads: program order, and L0's only place.
    fn weaken(&self, plan: &BlockPlan<P>, block: &mut Block) -> Result<(), EngineError> {
        let start = self.exec.now();
        let protects = self.host.profile().protect;
        let (revoke, protect) = if self.config.strict_io || !protects {
            let read =
                if self.config.strict_io { block.mapped() } else { block.writable() } & plan.masks.read;
            (block.mapped() & plan.masks.exclusive() | read, PageMask::EMPTY)
        } else {
            (block.mapped() & plan.masks.exclusive(), block.writable() & plan.masks.read)
        };
        for run in revoke.runs() {
            let pages = plan.range.run(plan.index, &run);
            self.host.revoke(pages)?;
            block.revoked(PageMask::range(run));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        for run in protect.runs() {
            let pages = plan.range.run(plan.index, &run);
            self.host.protect(pages)?;
            block.protected(PageMask::range(run));
            self.note(TraceCause::Revoke, self.config.geometry.bytes_of(pages));
        }
        Counters::add(&self.counters.revoke_ns, self.exec.now() - start);
        Ok(())
    }

    // ── pass two: new locations, and the work that makes them true ───────────────────────────────────────────────────────

    fn commit(&self, ops: &Ops<P>, blocks: &Blocks<P>, found: &Found) -> Item<P> {
        let g = self.config.geometry;
        let mut item = Item {
            op: Arc::clone(&ops.main),
            copy: Arc::clone(&ops.copy),
            evict: Arc::clone(&ops.evict),
            waits: found.uses,
            after: found.after.iter().filter_map(|id| self.op(*id)).collect(),
            outs: Vec::new(),
            moves: Vec::new(),
            fills: Vec::new(),
            ins: Vec::new(),
            dispatch: None,
        };
        let mut held = Vec::with_capacity(blocks.len());
        for plan in blocks.values() {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            held.push(BlockRef { range: Arc::clone(&plan.range), block: plan.index });
            if !plan.evict.is_empty() {
                let outs = self.pieces(&plan.range, plan.index, &block, block.dirty() & plan.evict);
                let bytes = pieces_bytes(&outs);
                let counter =
                    if bytes > 0 { &self.counters.evictions_dirty } else { &self.counters.evictions_clean };
                Counters::add(counter, 1);
                Counters::add(&self.counters.out_evict_bytes, bytes);
                for piece in &outs {
                    self.note(
                        TraceCause::ToHost(Cause::Evict),
                        (piece.host..piece.host + piece.bytes).into(),
                    );
                }
                item.outs.extend(outs);
                block.begin_evict(ops.evict.id, plan.evict, Cause::Evict);
            }
            for (sub, to) in &plan.moves {
                let valid = block.device_valid() & self.pages_of_sub(*sub);
                let old = block.frame(*sub);
                let base = sub * g.pages_per_sub;
                for run in valid.runs() {
                    let within = u64::from(run.start - base) * u64::from(g.page_bytes);
                    let bytes = u64::from(run.end - run.start) * u64::from(g.page_bytes);
                    Counters::add(&self.counters.moved_bytes, bytes);
                    item.moves.push(Region {
                        host_offset: u64::from(old.0) * g.frame_bytes() + within,
                        device_offset: u64::from(to.0) * g.frame_bytes() + within,
                        bytes,
                    });
                }
                block.set_frame(*sub, *to);
            }
            for (sub, frame) in &plan.frames {
                block.set_frame(*sub, *frame);
            }
            let work = block.launch_commit(ops.copy.id, &plan.masks);
            Counters::add(
                &self.counters.refault_bytes,
                u64::from(work.refault.count()) * u64::from(g.page_bytes),
            );
            let ins = self.pieces(&plan.range, plan.index, &block, work.copy_in);
            for piece in &ins {
                self.note(TraceCause::ToDevice(Cause::Launch), (piece.host..piece.host + piece.bytes).into());
            }
            item.ins.extend(ins);
            for piece in self.pieces(&plan.range, plan.index, &block, work.zero) {
                Counters::add(&self.counters.zeroed_bytes, piece.bytes);
                item.fills.push((piece.device, piece.bytes));
            }
            self.refresh_gate(&plan.range, plan.index, &block);
        }
        for op in [&ops.main, &ops.copy, &ops.evict] {
            op.remember(held.clone());
        }
        item
    }

    // ── eviction on its own ──────────────────────────────────────────────────────────────────────────────────────────────

    /// Evicts as `goal` says; the bytes are on their way home when it returns.
    ///
    /// # Errors
    /// As of [`Engine::launch`].
    pub(crate) fn evict_now(&self, goal: EvictGoal) -> Result<u64, EngineError> {
        let _turn = self.take_turn();
        self.check_alive()?;
        self.evict_in_turn(goal)
    }

    fn evict_in_turn(&self, goal: EvictGoal) -> Result<u64, EngineError> {
        let label: Arc<str> = "evict".into();
        let ops = Ops { main: self.new_op(&label), copy: self.new_op(&label), evict: self.new_op(&label) };
        let mut watch = Watch::new(self);
        loop {
            let seen = self.progress.epoch();
            let evictions = self.plan_eviction(ops.main.id, goal);
            let frames: u64 = evictions.iter().map(|e| u64::from(e.frames.count)).sum();
            let mut blocks = Blocks::new();
            let mut found = Found::default();
            let there = self.add_evictions(&mut blocks, &evictions);
            let outcome = if there { self.take_holds(&ops, &blocks, &mut found) } else { Err(Refusal::Wait) };
            match outcome {
                Ok(()) => {
                    let item = self.commit(&ops, &blocks, &found);
                    self.arena.lock().commit(ops.main.id, &found.uses);
                    self.put(item);
                    return Ok(frames * self.config.geometry.frame_bytes());
                }
                Err(refusal) => {
                    self.arena.lock().abort(ops.main.id);
                    let gone = match refusal {
                        Refusal::Error(error) => Some(error),
                        Refusal::Wait => self.check_alive().err(),
                    };
                    if let Some(error) = gone {
                        let mut table = self.ops.lock();
                        ops.ids().iter().for_each(|id| {
                            table.remove(id);
                        });
                        return Err(error);
                    }
                    self.flush();
                    self.progress.wait(seen, Some(self.config.watchdog));
                    watch.check(self, || "an eviction waits".into());
                }
            }
        }
    }

    /// Sets how many bytes of device memory frames may take, and evicts what is above. Returns the bytes that were evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn set_device_memory_limit(&self, bytes: u64) -> Result<u64, EngineError> {
        self.check_alive()?;
        let over = {
            let mut arena = self.arena.lock();
            arena.set_limit(bytes);
            arena.owned_frames().saturating_sub(arena.limit_frames())
        };
        if over == 0 { Ok(0) } else { self.evict_now(EvictGoal::Frames(over)) }
    }

    /// Evicts at least `bytes` of device memory, the cheapest first, if that much can be. Returns the bytes evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn trim(&self, bytes: u64) -> Result<u64, EngineError> {
        self.check_alive()?;
        let frames = bytes.div_ceil(self.config.geometry.frame_bytes()) as u32;
        if frames == 0 { Ok(0) } else { self.evict_now(EvictGoal::Frames(frames)) }
    }

    /// Bytes that frames may take, and bytes that spans own now.
    pub fn device_memory(&self) -> (u64, u64) {
        let arena = self.arena.lock();
        (arena.limit_bytes, u64::from(arena.owned_frames()) * self.config.geometry.frame_bytes())
    }
}
