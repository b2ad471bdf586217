//! The pager: one round after the other, until every group is done.

use super::pace::Pace;
use super::remote::Remote;
use super::tight::Tight;
use super::{PagedSpec, PagingReport, Tables};
use crate::admit::Aim;
use crate::launch::{AccessKind, Argument, BindTo, LaunchSpec};
use crate::range::{PlacementKind, RangeCell};
use crate::stats::Counters;
use crate::{Engine, EngineError, Op, Ports, Watch};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use vkhmm_core::paging::plan::{PagedRange, Planner, Round, Stuck};
use vkhmm_core::placement::Placement;
use vkhmm_core::policy::Use;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Device, Mutex};

/// A paged launch on its way.
pub(super) struct Pager<P: Ports> {
    op: Arc<Op<P>>,
    spec: PagedSpec<P>,
    tables: Arc<Tables<P>>,
    planner: Planner,
    /// How kernels reach each range: settled for life.
    ways: Vec<Option<PlacementKind>>,
    remote: Remote<P>,
    in_bytes: u64,
}

impl<P: Ports> Pager<P> {
    pub(super) fn new(
        engine: &Engine<P>,
        op: &Arc<Op<P>>,
        spec: PagedSpec<P>,
        tables: Arc<Tables<P>>,
        groups: u32,
    ) -> Self {
        let g = engine.config.geometry;
        let way = |range: &Option<Arc<RangeCell<P>>>| range.as_ref().map(|range| range.kind());
        let ways: Vec<_> = spec.arguments.iter().map(|argument| way(&argument.range)).collect();
        let same = |a: &Arc<RangeCell<P>>, b: &Option<Arc<RangeCell<P>>>| {
            b.as_ref().is_some_and(|b| Arc::ptr_eq(a, b))
        };
        let first = |range: &Option<Arc<RangeCell<P>>>| {
            let range = range.as_ref()?;
            spec.arguments.iter().position(|other| same(range, &other.range))
        };
        let each = spec.arguments.iter().zip(&ways).enumerate();
        let ranges = each.map(|(at, (argument, way))| PagedRange {
            same_as: first(&argument.range).filter(|first| *first < at).map(|first| first as u32),
            subs: argument.range.as_ref().map_or(0, |range| range.bytes.div_ceil(g.frame_bytes()) as u32),
            subs_per_block: if *way == Some(PlacementKind::Span) { g.subs_per_block() } else { 1 },
            // What somebody reads under another number is not dead.
            access: match (argument.access.as_use(), &argument.range) {
                (Use::Overwrite, Some(range))
                    if spec.arguments.iter().filter(|a| same(range, &a.range)).count() > 1 =>
                {
                    Use::Write
                }
                (access, _) => access,
            },
            resident: matches!(way, None | Some(PlacementKind::InPlace)),
        });
        let planner = Planner::new(groups, spec.items, ranges.collect());
        let remote = Remote::new(engine, &spec.arguments, &ways);
        Self { op: Arc::clone(op), spec, tables, planner, ways, remote, in_bytes: 0 }
    }

    /// The launch of a round, and which range each of its arguments is of: what it holds, and all that is used in place.
    fn launch_of(&self, engine: &Engine<P>, round: &Round) -> (LaunchSpec<P>, Vec<u32>) {
        let g = engine.config.geometry;
        let (frame_bytes, per_block) = (g.frame_bytes(), g.subs_per_block());
        let (mut arguments, mut ranges) = (Vec::new(), Vec::new());
        let mut name = |at: u32, subs: Range<u32>, access: AccessKind| {
            let Some(range) = &self.spec.arguments[at as usize].range else { return };
            let (start, end) = (u64::from(subs.start) * frame_bytes, u64::from(subs.end) * frame_bytes);
            let bytes = ByteRange { start, end: end.min(range.bytes) };
            arguments.push(Argument { range: Some(Arc::clone(range)), bytes, access, bind: BindTo::Nothing });
            ranges.push(at);
        };
        for held in &round.hold {
            let access = match held.access {
                Use::Read => AccessKind::Read,
                Use::Write => AccessKind::Write,
                Use::Overwrite => AccessKind::Overwrite,
            };
            let mut at = held.subs.start;
            while at < held.subs.end {
                // In spans a want is a block.
                let in_spans = self.ways[held.range as usize] == Some(PlacementKind::Span);
                let end = if in_spans {
                    held.subs.end.min((at / per_block + 1) * per_block)
                } else {
                    held.subs.end
                };
                name(held.range, at..end, access);
                at = end;
            }
        }
        for (at, (argument, way)) in self.spec.arguments.iter().zip(&self.ways).enumerate() {
            if let (Some(range), Some(PlacementKind::InPlace)) = (&argument.range, way) {
                name(at as u32, 0..range.bytes.div_ceil(frame_bytes) as u32, argument.access);
            }
        }
        let most = engine.device.profile().groups_max[0];
        let count = round.ids.len() as u32;
        let mut push = self.spec.push.clone();
        push[..8].copy_from_slice(&self.tables.address(&engine.device).to_ne_bytes());
        let spec = LaunchSpec {
            kernel: Some(Arc::clone(&self.spec.kernel)),
            groups: [count.min(most), count.div_ceil(most), 1],
            arguments,
            push,
            label: Arc::clone(&self.spec.label),
        };
        (spec, ranges)
    }

    fn report(&self) -> PagingReport {
        let plan = self.planner.report();
        PagingReport {
            rounds: plan.rounds,
            groups: plan.groups,
            group_runs: plan.group_runs,
            misses: plan.misses,
            in_bytes: self.in_bytes,
            window_min: plan.window_min,
            window_max: plan.window_max,
            remote_blocks: self.remote.count,
        }
    }
}

impl<P: Ports> Engine<P> {
    /// Runs a paged launch to its end: its holds end then, unless the device was lost.
    pub(super) fn page(&self, mut pager: Pager<P>) {
        let outcome = self.run_rounds(&mut pager);
        let Pager { op, tables, remote, .. } = pager;
        self.paged.fetch_sub(1, Ordering::AcqRel);
        match outcome {
            Err(EngineError::DeviceLost { cause }) => {
                self.note_loss(&cause); // a port may have said so first to this round
                // The round may run on: nobody waits for a lost device but who ends it.
                self.kept_tables.lock().push(tables);
                return;
            }
            Err(error) => op.fail(error),
            Ok(()) => {}
        }
        // Buffers over imports go before the ranges may.
        drop((tables, remote));
        if op.land_piece() {
            self.finish(&op);
        }
    }

    fn run_rounds(&self, pager: &mut Pager<P>) -> Result<(), EngineError> {
        let frame_bytes = self.config.geometry.frame_bytes();
        let mut tight = Tight::NOT;
        let round_ns = u64::try_from(self.config.round_time.as_nanos()).unwrap_or(u64::MAX);
        let mut pace = Pace::new(round_ns);
        let mut number = 0;
        loop {
            self.check_alive()?;
            let (mine, all) = self.frames_to_page();
            pager.planner.set_most(pace.most);
            let planned = match pager.planner.next(mine.min(tight.frames), all.min(tight.frames)) {
                // What did not fit a while ago may do so now.
                Err(Stuck::TooLarge { .. }) if tight.is_old() => {
                    tight = Tight::NOT;
                    continue;
                }
                planned => planned,
            };
            let round = match planned {
                Ok(Some(round)) => round,
                Ok(None) => return Ok(()),
                Err(Stuck::TooLarge { need, have }) => return Err(self.too_large(need, have)),
                Err(Stuck::Silent { group }) => {
                    return Err(EngineError::Unfinished { label: Arc::clone(&pager.op.label), group });
                }
            };
            number += 1;
            let (spec, ranges) = pager.launch_of(self, &round);
            let coming = pager.remote.expect(self, &round);
            pager.tables.begin(&self.device, number, &round, ranges);
            let main = self.new_op(&pager.op.label);
            let admitted = self.launch_admitted(&main, &spec, Aim::Launch, Some(Arc::clone(&pager.tables)));
            let admitted = match admitted {
                Ok(admitted) => admitted,
                Err(error) => {
                    self.forget_ops(&[main.id]);
                    match error {
                        EngineError::WorkingSetTooLarge { have, .. } if !round.hold.is_empty() => {
                            let have = u32::try_from(have / frame_bytes).unwrap_or(u32::MAX);
                            tight.refused((round.frames - 1).min(have));
                            continue;
                        }
                        error => return Err(error),
                    }
                }
            };
            tight.admitted();
            pager.remote.brought(self, coming);
            self.see_submitted();
            self.wait_watched(&main, None, &mut Watch::new(self))?;
            // Its kernel knew these buffers by their addresses alone.
            drop(admitted.bound);
            pager.in_bytes += admitted.in_bytes;
            pager.op.elapsed_ns.fetch_add(main.elapsed_ns(), Ordering::Relaxed);
            let told = pager.tables.end(&self.device);
            let before = pager.planner.finished();
            told.with(|outcome| pager.planner.outcome(outcome));
            let finished = pager.planner.finished() - before;
            pace.ran(round.ids.len() as u32, finished, main.elapsed_ns());
            pager.remote.decide(self, &told, &mut pager.planner, &pager.tables);
            Counters::add(&self.counters.paged_rounds, 1);
            Counters::add(&self.counters.paged_group_runs, round.ids.len() as u64);
            Counters::add(&self.counters.paged_misses, u64::from(told.missed));
            pager.op.set_paging(pager.report());
            if told.outside > 0 {
                return Err(EngineError::Outside { label: Arc::clone(&pager.op.label), count: told.outside });
            }
        }
    }

    /// Frames that one paged launch plans with, its part of what nobody has pinned; and all of these.
    fn frames_to_page(&self) -> (u32, u32) {
        let all = self.arena.lock().unpinned_frames();
        (all / self.paged.load(Ordering::Acquire).max(1), all)
    }

    fn too_large(&self, need: u32, have: u32) -> EngineError {
        let arena = self.arena.lock();
        let (limit, held) = (arena.limit_frames(), arena.placement.stats().pinned);
        let [need, have, limit, held] =
            [need, have, limit, held].map(|frames| u64::from(frames) * self.config.geometry.frame_bytes());
        EngineError::WorkingSetTooLarge { need, have, limit, held, largest_run: have }
    }
}
