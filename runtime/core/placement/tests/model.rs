//! Random calls against a naive model: one cell per frame, checked after every step.

mod plans;

use super::*;
use crate::binding::Bindings;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;

/// A frame as the model knows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Cell {
    owner: Option<(RangeId, u32)>,
    /// Of its span while owned; to be waited for once retired.
    deps: Deps,
    /// The open plan that took it from its owner.
    held: bool,
}

impl Cell {
    fn retire(&mut self, by: &[OpId], held: bool) {
        (self.owner, self.held) = (None, held);
        by.iter().for_each(|op| self.deps.add_op(*op));
    }
}

/// A plan that is neither committed nor aborted, and how the frames it touched were before.
struct Open {
    op: OpId,
    before: BTreeMap<usize, Cell>,
    plan: Plan,
}

/// A range, its length, and whether it is scattered.
type Known = (RangeId, u32, bool);

struct World {
    rng: Rng,
    placement: SpanPlacement,
    pieces: Vec<Range<usize>>,
    cells: Vec<Cell>,
    ranges: Vec<Known>,
    /// Every bind of every plan goes through here.
    bindings: Bindings,
    /// Operations without a ticket, and the frames they are to use.
    queued: BTreeMap<OpId, BTreeSet<usize>>,
    pins: Vec<(RangeId, Range<u32>, BTreeSet<usize>)>,
    open: Option<Open>,
    limit: u32,
    last_op: u64,
    completed: u64,
    /// How often each kind of answer came: the test must reach them all.
    seen: BTreeMap<&'static str, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let lengths: Vec<u32> = (0..1 + rng.below(3)).map(|_| 8 + rng.below(20)).collect();
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for length in &lengths {
            let start = pieces.last().map_or(0, |p| p.end);
            pieces.push(start..start + *length as usize);
        }
        let limit: u32 = lengths.iter().sum();
        // Worlds of spans alone, of scattered ranges alone, and mixed ones.
        let spread = |slot| match seed / 4 % 4 {
            0 => false,
            1 => true,
            _ => slot % 2 == 0,
        };
        let ranges: Vec<Known> =
            (0..5).map(|slot| (range(slot), 1 + rng.below(limit + limit / 2), spread(slot))).collect();
        let mut bindings = Bindings::default();
        ranges.iter().filter(|r| r.2).for_each(|r| bindings.add_range(r.0, r.1).unwrap());
        Self {
            bindings,
            placement: placement(&lengths),
            cells: vec![Cell::default(); limit as usize],
            queued: BTreeMap::new(),
            pins: Vec::new(),
            open: None,
            seen: BTreeMap::new(),
            last_op: 0,
            completed: 0,
            rng,
            pieces,
            ranges,
            limit,
        }
    }

    fn any_range(&mut self) -> Known {
        self.ranges[self.rng.below(5) as usize]
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn frames(run: FrameRun) -> Range<usize> {
        run.first.0 as usize..run.end() as usize
    }

    fn in_plan(&self, frame: usize) -> bool {
        let owner = self.cells[frame].owner;
        owner.is_some_and(|(range, sub)| self.placement.find(range, sub..sub + 1).is_none())
    }

    fn admit(&mut self) {
        let wants: Vec<Want> = (0..1 + self.rng.below(4))
            .map(|_| {
                let (range, range_subs, scattered) = self.any_range();
                let mut subs = self.rng.run(range_subs);
                subs.end = subs.end.min(subs.start + 1 + self.rng.below(self.limit / 2));
                Want { range, range_subs, subs, scattered }
            })
            .collect();
        self.last_op += 1;
        let op = OpId(self.last_op);
        let before = self.placement.clone();
        match self.placement.admit(op, &wants, self.last_op) {
            Ok(plan) => {
                assert_eq!(plan.placed.len(), wants.len());
                for (want, placed) in wants.iter().zip(&plan.placed) {
                    let frames: u32 = placed.frames.iter().map(|run| run.count).sum();
                    assert_eq!(frames, placed.subs.end - placed.subs.start);
                    assert!(placed.subs.start <= want.subs.start && want.subs.end <= placed.subs.end);
                    assert_eq!(placed.span.is_none(), want.scattered);
                    assert!(placed.subs == want.subs || !want.scattered);
                    assert!(placed.frames.len() == 1 || want.scattered);
                }
                self.apply(op, &plan, wants.iter().map(|w| w.range));
            }
            Err(error) => {
                assert_eq!(
                    self.placement.without_counters(),
                    before.without_counters(),
                    "{error}: changed something"
                );
                self.refused(error, &wants);
            }
        }
    }

    fn evict(&mut self) {
        self.last_op += 1;
        let op = OpId(self.last_op);
        let piece = &self.pieces[self.rng.below(self.pieces.len() as u32) as usize];
        let goal = match self.rng.below(4) {
            0 => EvictGoal::Frames(1 + self.rng.below(self.limit)),
            1 => EvictGoal::Within(self.any_range().0, self.rng.below(2), 1 + self.rng.below(self.limit)),
            2 => EvictGoal::Piece(FrameIndex(piece.start as u32)),
            _ => EvictGoal::All,
        };
        let evictions = self.placement.evict(op, goal);
        self.apply(op, &Plan { evictions, ..Plan::default() }, [].into_iter());
    }

    fn submit(&mut self) {
        let Some(op) =
            self.queued.keys().nth(self.rng.below(self.queued.len().max(1) as u32) as usize).copied()
        else {
            return;
        };
        if self.open.as_ref().is_some_and(|open| open.op == op) {
            self.decide(false);
        }
        let ticket = uses(op.0);
        self.placement.submitted(op, &ticket);
        for f in self.queued.remove(&op).unwrap() {
            self.cells[f].deps.uses.merge(&ticket);
        }
        let before = self.open.iter_mut().flat_map(|open| open.before.values_mut());
        self.cells.iter_mut().chain(before).for_each(|c| _ = c.deps.resolve(op, &ticket));
    }

    fn release(&mut self) {
        let slot = self.rng.below(5) as usize;
        let (range, _, scattered) = self.ranges[slot];
        let mut deps = Deps::of(uses(self.completed + u64::from(self.rng.below(20))));
        if let Some(op) = self.queued.keys().next().filter(|_| self.rng.below(2) == 0) {
            deps.add_op(*op);
        }
        let planned: Vec<bool> = (0..self.cells.len()).map(|f| self.in_plan(f)).collect();
        self.placement.release(range, deps.clone());
        for (f, planned) in planned.into_iter().enumerate() {
            if self.cells[f].owner.is_some_and(|(r, _)| r == range) {
                let mut by: Vec<OpId> = deps.ops.clone();
                by.extend(self.queued.iter().filter(|(_, frames)| frames.contains(&f)).map(|(op, _)| *op));
                by.extend(self.open.iter().filter(|_| planned).map(|open| open.op));
                self.cells[f].deps.merge(&deps);
                self.cells[f].retire(&by, planned);
                self.queued.values_mut().for_each(|frames| _ = frames.remove(&f));
                self.pins.retain(|(.., frames)| !frames.contains(&f));
            }
        }
        for cell in self.open.iter_mut().flat_map(|open| open.before.values_mut()) {
            if cell.owner.is_some_and(|(r, _)| r == range) {
                cell.deps.merge(&deps);
                cell.retire(&[], false);
            }
        }
        let next = RangeId { generation: range.generation + 1, ..range };
        self.ranges[slot] = (next, 1 + self.rng.below(self.limit + self.limit / 2), scattered);
        if scattered {
            self.bindings.remove_range(range).unwrap();
            self.bindings.add_range(next, self.ranges[slot].1).unwrap();
        }
    }

    fn pin(&mut self) {
        let (range, range_subs, _) = self.any_range();
        let mut subs = self.rng.run(range_subs);
        subs.end = subs.end.min(subs.start + 1 + self.rng.below(6));
        let spans: Option<Vec<_>> = subs.clone().map(|sub| self.placement.span_at(range, sub)).collect();
        if spans.is_some() && subs.clone().any(|sub| !self.placement.covers(range, sub..sub + 1)) {
            return; // the plan that made some of them may be aborted, and the pin with it
        }
        assert_eq!(self.placement.pin(range, subs.clone()), spans.is_some());
        if let Some(spans) = spans {
            self.note("pinned");
            self.pins.push((range, subs, spans.into_iter().flat_map(|(_, run)| Self::frames(run)).collect()));
        }
    }

    fn unpin(&mut self) {
        if let Some((range, subs, _)) = self.pins.pop() {
            self.placement.unpin(range, subs);
        }
    }

    fn reap(&mut self) {
        self.completed = (self.completed + u64::from(self.rng.below(10))).min(self.last_op);
        let done = uses(self.completed);
        self.placement.reap(&done);
        for cell in self.cells.iter_mut().filter(|cell| cell.owner.is_none() && cell.deps.uses.done(&done)) {
            cell.deps.uses = Uses::NONE;
        }
    }

    fn hint(&mut self) {
        let (range, range_subs, _) = self.any_range();
        let subs = self.rng.run(range_subs);
        match self.rng.below(4) {
            0 => self.placement.note_clean(range, subs),
            kind => self.placement.touch(range, subs, self.last_op, used(kind == 1)),
        }
    }

    /// Whether this range exists and is scattered.
    fn spread(&self, range: RangeId) -> bool {
        self.ranges.iter().any(|known| known.0 == range && known.2)
    }

    fn check(&self) {
        let owners: BTreeSet<_> = self.cells.iter().filter_map(|cell| cell.owner).collect();
        for (f, cell) in self.cells.iter().enumerate() {
            if let Some((range, sub)) = cell.owner {
                let frame = Some(FrameIndex(f as u32));
                assert_eq!(self.placement.frame_of(range, sub), frame);
                let found = self.placement.find(range, sub..sub + 1);
                assert_eq!(self.placement.covers(range, sub..sub + 1), found.is_some());
                assert!(found.is_none_or(|found| found.frame_of(sub).0 as usize == f));
                assert!(self.bindings.frame_of(range, sub) == frame || !self.spread(range));
            }
        }
        for (range, range_subs, scattered) in &self.ranges {
            let owned = |sub: &u32| owners.contains(&(*range, *sub));
            let bound = |sub: &u32| self.bindings.frame_of(*range, *sub).is_some();
            assert!(!scattered || (0..*range_subs).all(|sub| owned(&sub) == bound(&sub)));
        }
        let owned = self.cells.iter().filter(|c| c.owner.is_some()).count();
        assert_eq!(owned, owners.len(), "a sub-block in two frames");
        let free = self.cells.iter().filter(|c| c.owner.is_none() && !c.held && c.deps.is_none()).count();
        let mut longest = 0;
        for piece in &self.pieces {
            let runs = self.cells[piece.clone()].split(|c| c.owner.is_some());
            longest = longest.max(runs.map(<[Cell]>::len).max().unwrap_or(0));
        }
        let pinned: BTreeSet<_> = self.pins.iter().flat_map(|(.., frames)| frames).collect();
        let want = PlacementStats {
            total: self.cells.len() as u32,
            free: free as u32,
            retired: (self.cells.len() - owned - free) as u32,
            owned: owned as u32,
            pinned: pinned.len() as u32,
            largest_run: longest as u32,
        };
        assert_eq!(self.placement.stats(), want);
    }
}

#[test]
fn every_frame_has_exactly_one_fate() {
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 0..32 {
        let mut world = World::new(seed);
        // Some worlds hold much, some nothing but the launches themselves.
        let (busy, pinning) = (seed % 3, seed % 4 < 2);
        for _ in 0..3000 {
            match world.rng.below(20) {
                0..=7 => world.admit(),
                8..=11 => world.submit(),
                12 => world.release(),
                13 => world.evict(),
                14 if pinning => world.pin(),
                15 => world.unpin(),
                16..=17 => world.reap(),
                18 => world.hint(),
                19 if busy == 2 => {
                    world.limit = 4 + world.rng.below(world.cells.len() as u32 - 3);
                    world.placement.set_limit(world.limit);
                }
                _ => world.decide(true),
            }
            if world.rng.below(3) != 0 {
                let abort = world.rng.below(3) == 0;
                world.decide(abort);
            }
            while world.queued.len() > if busy == 0 { 0 } else { 4 } {
                world.submit();
            }
            world.check();
        }
        world.seen.iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    let plans = [
        "just placed",
        "moved",
        "evicted",
        "moved and evicted",
        "aborted",
        "pinned",
        "scattered",
        "evicted and bound again",
    ];
    let refusals = ["must wait", "pinned apart", "too large"];
    for what in plans.into_iter().chain(refusals) {
        assert!(seen.get(what).is_some_and(|count| *count > 50), "{what} was hardly reached: {seen:?}");
    }
}
