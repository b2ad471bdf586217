//! What the model makes of an answer: a plan is done to the cells step by step, each step checked; a refusal must have a reason.

use super::*;

/// What the evictions of a plan unbind.
fn unbinds(plan: &Plan) -> Vec<Binding> {
    let mut unbinds = Vec::new();
    for e in plan.evictions.iter().filter(|e| e.scattered) {
        let mut sub = e.subs.start;
        for frames in &e.frames {
            unbinds.push(Binding { range: e.range, subs: sub..sub + frames.count, frames: *frames });
            sub += frames.count;
        }
    }
    unbinds
}

impl World {
    pub(super) fn refused(&mut self, error: AdmitError, wants: &[Want]) {
        match error {
            AdmitError::MustWait { ops } => {
                self.note("must wait");
                assert!(!ops.is_empty() && ops.iter().all(|op| self.queued.contains_key(op)));
            }
            AdmitError::PinnedApart { range, .. } => {
                self.note("pinned apart");
                assert!(
                    self.pins
                        .iter()
                        .any(|(.., f)| f.iter().any(|f| self.cells[*f].owner.unwrap().0 == range))
                );
            }
            AdmitError::TooLarge { need, have, .. } => {
                self.note("too large");
                let all: u32 = wants.iter().map(|w| w.subs.end - w.subs.start).sum();
                assert!(need <= all);
                if self.pins.is_empty() && self.pieces.len() == 1 {
                    assert!(
                        need > have && have == self.limit.min(self.cells.len() as u32),
                        "{need} of {have}"
                    );
                }
            }
        }
    }

    /// Does to the cells what the plan says, checking that each step is allowed.
    pub(super) fn apply(&mut self, op: OpId, plan: &Plan, mut wanted: impl Iterator<Item = RangeId>) {
        let before = self.cells.clone();
        let still = |world: &Self, f: usize| {
            assert!(
                !world.queued.values().any(|frames| frames.contains(&f)),
                "frame {f} is in a queued operation's span"
            );
            assert!(!world.pins.iter().any(|(.., frames)| frames.contains(&f)), "frame {f} is pinned");
        };
        self.bindings.apply(&unbinds(plan), &plan.binds).unwrap();
        for e in &plan.evictions {
            assert_eq!(e.scattered, self.spread(e.range));
            assert!(!e.scattered || e.subs.start / UNIT == (e.subs.end - 1) / UNIT, "{e:?} crosses units");
            for (f, sub) in e.frames.iter().flat_map(|run| Self::frames(*run)).zip(e.subs.clone()) {
                assert_eq!(self.cells[f].owner, Some((e.range, sub)), "evicted from its owner");
                still(self, f);
                self.cells[f].retire(&[op], true);
            }
        }
        let mut sources = BTreeSet::new();
        for m in &plan.moves {
            assert!(!self.spread(m.range), "scattered ranges never move");
            for (i, sub) in m.subs.clone().enumerate() {
                let from = m.from.0 as usize + i;
                assert_eq!(self.cells[from].owner, Some((m.range, sub)), "moved from its frame");
                still(self, from);
                self.cells[from].retire(&[op], true);
                sources.insert(from);
            }
        }
        let (mut deps, mut mine, mut bound) = (Deps::default(), BTreeSet::new(), 0);
        for placed in &plan.placed {
            let range = wanted.next().unwrap();
            for run in &placed.frames {
                let frames = Self::frames(*run);
                assert!(self.pieces.iter().any(|p| p.start <= frames.start && frames.end <= p.end));
            }
            for (f, sub) in placed.frames.iter().flat_map(|run| Self::frames(*run)).zip(placed.subs.clone()) {
                mine.extend(Self::frames(self.placement.span_at(range, sub).unwrap().1));
                let cell = &mut self.cells[f];
                if cell.owner == Some((range, sub)) {
                    continue;
                }
                assert_eq!(cell.owner, None, "claimed an owned frame");
                assert!(!cell.held || cell.deps.ops.contains(&op), "claimed a frame of another open plan");
                assert!(!sources.contains(&f), "claimed a frame that a move reads");
                bound += u32::from(placed.span.is_none());
                cell.deps.resolve(op, &Uses::NONE);
                deps.merge(&cell.deps);
                *cell = Cell { owner: Some((range, sub)), ..Cell::default() };
            }
        }
        for m in &plan.moves {
            for (i, sub) in m.subs.clone().enumerate() {
                assert_eq!(self.cells[m.to.0 as usize + i].owner, Some((m.range, sub)), "moved to its frame");
            }
        }
        // The table has checked where they lie; here, that just the new ones are bound, in runs as long as can be.
        assert_eq!(plan.binds.iter().map(|bind| bind.frames.count).sum::<u32>(), bound);
        let longer = |w: &[Binding]| {
            let after = (w[0].range, w[0].subs.end, w[0].frames.end());
            let crosses = self.pieces.iter().any(|piece| piece.start == after.2 as usize);
            after == (w[1].range, w[1].subs.start, w[1].frames.first.0) && !crosses
        };
        assert!(!plan.binds.windows(2).any(longer), "{:?}", plan.binds);
        assert_eq!(plan.deps, deps, "waits for exactly what its new frames wait for");
        self.note(match (plan.moves.is_empty(), plan.evictions.is_empty()) {
            (true, true) => "just placed",
            (false, true) => "moved",
            (true, false) => "evicted",
            (false, false) => "moved and evicted",
        });
        if plan.placed.iter().any(|placed| placed.span.is_none() && placed.frames.len() > 1) {
            self.note("scattered");
        }
        let both = |e: &Eviction| {
            plan.binds
                .iter()
                .any(|b| b.range == e.range && b.subs.start < e.subs.end && e.subs.start < b.subs.end)
        };
        if plan.evictions.iter().any(both) {
            self.note("evicted and bound again");
        }
        self.queued.insert(op, mine);
        let touched = (0..self.cells.len()).filter(|f| self.cells[*f] != before[*f] || self.in_plan(*f));
        let open = Open { op, before: touched.map(|f| (f, before[f].clone())).collect(), plan: plan.clone() };
        // A second plan beside an open one is committed at once; the open one is decided later.
        if self.open.is_some() {
            self.placement.commit(op, &Uses::NONE);
            self.cells.iter_mut().filter(|c| c.held && c.deps.ops.contains(&op)).for_each(|c| c.held = false);
        } else {
            self.open = Some(open);
        }
    }

    pub(super) fn decide(&mut self, abort: bool) {
        let Some(open) = self.open.take() else { return };
        if abort {
            self.note("aborted");
            self.placement.abort(open.op);
            self.queued.remove(&open.op);
            // Without what was released meanwhile, whose binds are gone.
            let [bound, unbound] = [open.plan.binds.clone(), unbinds(&open.plan)]
                .map(|list| list.into_iter().filter(|b| self.spread(b.range)).collect::<Vec<_>>());
            self.bindings.apply(&bound, &unbound).unwrap();
            for (f, cell) in open.before {
                self.cells[f] = cell;
            }
            self.cells
                .iter_mut()
                .filter(|c| c.owner.is_none())
                .for_each(|c| _ = c.deps.resolve(open.op, &Uses::NONE));
        } else {
            self.placement.commit(open.op, &Uses::NONE);
            self.cells.iter_mut().filter(|c| c.deps.ops.contains(&open.op)).for_each(|c| c.held = false);
        }
    }
}
