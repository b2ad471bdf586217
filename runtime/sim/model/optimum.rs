//! The least that any program could move for a trace: Belady's optimum, by sub-blocks of 64 KiB, with the whole trace known.
//!
//! What counts as moving: a *fetch* brings a sub-block's bytes to the device because a launch reads them there; a *write-back*
//! brings the device's only copy home, because the CPU wants it or the frame is needed. Overwritten and fresh memory needs no
//! fetch, bytes that are overwritten before anybody reads them need no write-back, and what is left on the device at the end
//! may stay. A launch needs all its sub-blocks on the device at once; contiguity and hints are ignored.
//!
//! * [`Optimum::fetched`] is exact and achieved: who is used again last is dropped first, which is optimal for fetches also when
//!   launches need sets (dropping the interval that ends last never loses).
//! * [`Optimum::written`] is what that schedule writes back when it prefers clean victims among equals: achieved.
//! * [`Optimum::written_min`] is a lower bound of every schedule's write-backs, each schedule for itself: what the CPU asks for,
//!   and of the rest the least that cannot stay. Each stretch from a store on the device to the next counts with its longest gap
//!   between uses alone; the most such gaps that fit are kept. [`Optimum::written_blind`] counts the gap before an overwrite, too:
//!   what a program will overwrite unread, only the whole trace tells. Fewest fetches and fewest write-backs together are NP-hard, so
//!   no schedule need reach both bounds.

use super::link::LinkModel;
use super::trace::{Access, Part, Step, Trace};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use vkhmm_core::units::Geometry;

/// See the module's head. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Optimum {
    /// Least bytes fetched; achieved.
    pub fetched: u64,
    /// Bytes written back by the schedule that fetches least.
    pub written: u64,
    /// Lower bound of bytes written back by any schedule.
    pub written_min: u64,
    /// The same of schedules that do not know what will be overwritten unread: they bring home all that they drop.
    pub written_blind: u64,
}

impl Optimum {
    /// The optimum of `trace` under `limit` bytes.
    ///
    /// # Panics
    /// If a launch does not fit: [`Trace::check`] says so before.
    pub fn of(trace: &Trace, limit: u64) -> Self {
        let frame = Geometry::PRODUCTION.frame_bytes();
        let program = Program::of(trace);
        let frames = limit / frame;
        let (fetched, written) = program.least_fetches(frames);
        let [min, blind] = [false, true].map(|blind| program.least_write_backs(frames, blind) * frame);
        Self { fetched: fetched * frame, written: written * frame, written_min: min, written_blind: blind }
    }

    /// No schedule takes fewer nanoseconds: kernels one after the other, and the least bytes over the link.
    pub fn least_ns(&self, trace: &Trace, model: &LinkModel) -> u64 {
        let kernels: u64 = trace.steps.iter().map(|step| model.step_ns(step)).sum();
        let link = model.link_ns(self.fetched, self.written_min);
        // One queue runs kernels and copies one after the other.
        if model.queues { kernels.max(link) } else { kernels + link }
    }
}

/// Never.
const NEVER: usize = usize::MAX;

/// A trace over units: runs of sub-blocks that every step uses as one, so that all of a unit's sub-blocks are alike.
struct Program {
    events: Vec<Event>,
    /// Sub-blocks of each unit.
    sizes: Vec<u64>,
    /// Units that the host filled before the start.
    filled: Vec<bool>,
}

enum Event {
    Launch(Vec<(usize, Access)>),
    Host { units: Vec<usize>, write: bool },
}

/// What comes after one use of a unit by a launch.
#[derive(Clone, Copy)]
struct Next {
    /// The event of the next launch that needs these very bytes; `NEVER` if none does.
    reader: usize,
    /// No later launch or touch uses the unit at all.
    last: bool,
}

impl Program {
    fn of(trace: &Trace) -> Self {
        let frame = Geometry::PRODUCTION.frame_bytes();
        let mut cuts: Vec<BTreeSet<u64>> =
            trace.allocations.iter().map(|a| BTreeSet::from([0, a.bytes.div_ceil(frame)])).collect();
        let parts = trace.steps.iter().flat_map(|step| match step {
            Step::Launch { uses, .. } => uses.iter().map(|(part, _)| *part).collect(),
            Step::Touch { part, .. } => vec![*part],
            Step::ToDevice(_) | Step::ToHost(_) => Vec::new(),
        });
        for part in parts {
            cuts[part.allocation].extend([part.bytes.start / frame, part.bytes.end / frame]);
        }
        let (mut starts, mut sizes, mut filled) = (Vec::new(), Vec::new(), Vec::new());
        for (cuts, allocation) in cuts.iter().zip(&trace.allocations) {
            let mut of_start = BTreeMap::new();
            for (from, to) in cuts.iter().zip(cuts.iter().skip(1)) {
                of_start.insert(*from, sizes.len());
                sizes.push(to - from);
                filled.push(allocation.filled);
            }
            starts.push(of_start);
        }
        let units = |part: &Part| -> Vec<usize> {
            let run = part.bytes.start / frame..part.bytes.end / frame;
            starts[part.allocation].range(run).map(|(_, unit)| *unit).collect()
        };
        let event = |step: &Step| match step {
            Step::Launch { uses, .. } => {
                let mut merged: BTreeMap<usize, Access> = BTreeMap::new();
                for (unit, access) in uses.iter().flat_map(|(p, a)| units(p).into_iter().map(|u| (u, *a))) {
                    merged.entry(unit).and_modify(|have| *have = both(*have, access)).or_insert(access);
                }
                Some(Event::Launch(merged.into_iter().collect()))
            }
            Step::Touch { part, write } => Some(Event::Host { units: units(part), write: *write }),
            Step::ToDevice(_) | Step::ToHost(_) => None,
        };
        Self { events: trace.steps.iter().filter_map(event).collect(), sizes, filled }
    }

    /// For each launch's uses what comes after them, in their order; empty for touches.
    fn look_ahead(&self) -> Vec<Vec<Next>> {
        let mut seen = vec![Next { reader: NEVER, last: true }; self.sizes.len()];
        let mut all: Vec<Vec<Next>> = Vec::with_capacity(self.events.len());
        for (at, event) in self.events.iter().enumerate().rev() {
            match event {
                Event::Launch(uses) => {
                    all.push(uses.iter().map(|(unit, _)| seen[*unit]).collect());
                    for (unit, access) in uses {
                        let reader = if *access == Access::Overwrite { NEVER } else { at };
                        seen[*unit] = Next { reader, last: false };
                    }
                }
                Event::Host { units, write } => {
                    all.push(Vec::new());
                    for unit in units {
                        let reader = if *write { NEVER } else { seen[*unit].reader };
                        seen[*unit] = Next { reader, last: false };
                    }
                }
            }
        }
        all.reverse();
        all
    }

    /// Fewest sub-blocks fetched, and what that schedule writes back.
    fn least_fetches(&self, frames: u64) -> (u64, u64) {
        let ahead = self.look_ahead();
        let units = self.sizes.len();
        let (mut fetched, mut written) = (0, 0);
        // Of each unit: sub-blocks kept on the device, and since which launch; sub-blocks of which only the device's copy is
        // current; whether it has any contents yet.
        let (mut kept, mut dirty, mut exists) = (vec![0; units], vec![0; units], self.filled.clone());
        let mut pool = Pool::default();
        for (at, event) in self.events.iter().enumerate() {
            match event {
                Event::Launch(uses) => {
                    let need: u64 = uses.iter().map(|(unit, _)| self.sizes[*unit]).sum();
                    for (unit, access) in uses {
                        pool.total -= kept[*unit];
                        if *access != Access::Overwrite && exists[*unit] {
                            fetched += self.sizes[*unit] - kept[*unit];
                        }
                        kept[*unit] = 0;
                        if access.writes() {
                            dirty[*unit] = self.sizes[*unit];
                            exists[*unit] = true;
                        }
                    }
                    let room = frames.checked_sub(need).expect("every launch fits");
                    pool.shrink(room, &mut kept, |unit, count, left| {
                        // Clean ones of a unit first.
                        let lost = count.saturating_sub(left + count - dirty[unit].min(left + count));
                        dirty[unit] -= lost;
                        written += lost;
                    });
                    for ((unit, _), next) in uses.iter().zip(&ahead[at]) {
                        let stays = next.last && dirty[*unit] > 0;
                        // Fresh memory that nobody stored to yet is zeros wherever it is.
                        if exists[*unit] && (next.reader != NEVER || stays) {
                            kept[*unit] = self.sizes[*unit];
                            pool.add(next.reader, dirty[*unit] == 0, *unit, kept[*unit]);
                        }
                    }
                }
                Event::Host { units, write } => {
                    for unit in units {
                        written += core::mem::take(&mut dirty[*unit]);
                        exists[*unit] |= write;
                    }
                }
            }
        }
        (fetched, written)
    }

    /// A lower bound of the sub-blocks that any schedule writes back; if `blind`, one that may not drop what is overwritten next.
    fn least_write_backs(&self, frames: u64, blind: bool) -> u64 {
        let mut asked = 0;
        let mut rooms = Vec::new();
        // Of each unit the open stretch: its longest gap so far and where its last use was.
        let mut open: Vec<Option<(Gap, usize)>> = vec![None; self.sizes.len()];
        let mut gaps: Vec<(Gap, usize)> = Vec::new();
        for event in &self.events {
            match event {
                Event::Launch(uses) => {
                    let now = rooms.len();
                    rooms.push(frames - uses.iter().map(|(unit, _)| self.sizes[*unit]).sum::<u64>());
                    for (unit, access) in uses {
                        if let Some((longest, last)) = &mut open[*unit] {
                            if blind || *access != Access::Overwrite {
                                *longest = longest.longer(Gap { from: *last, to: now });
                            }
                            *last = now;
                        }
                        if access.writes() {
                            let stretch = open[*unit].replace((Gap { from: now, to: now }, now));
                            gaps.extend(stretch.map(|(gap, _)| (gap, *unit)));
                        }
                    }
                }
                Event::Host { units, .. } => {
                    let homes = units.iter().filter(|unit| open[**unit].take().is_some());
                    asked += homes.map(|unit| self.sizes[*unit]).sum::<u64>();
                }
            }
        }
        for (unit, stretch) in open.into_iter().enumerate() {
            gaps.extend(stretch.map(|(gap, last)| (gap.longer(Gap { from: last, to: NEVER }), unit)));
        }
        asked + self.drops(gaps, &rooms)
    }

    /// The fewest sub-blocks of `gaps` that must be dropped so that the others fit beside each launch's own.
    fn drops(&self, mut gaps: Vec<(Gap, usize)>, rooms: &[u64]) -> u64 {
        gaps.sort_by_key(|(gap, _)| gap.from);
        let mut next = gaps.iter().enumerate().peekable();
        let mut kept: Vec<u64> = gaps.iter().map(|(_, unit)| self.sizes[*unit]).collect();
        let mut ending: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        gaps.iter().enumerate().for_each(|(i, (gap, _))| ending.entry(gap.to).or_default().push(i));
        let mut pool = Pool::default();
        let mut dropped = 0;
        for (now, room) in rooms.iter().enumerate() {
            for i in ending.remove(&now).unwrap_or_default() {
                // What never entered has no gap to speak of.
                if gaps[i].0.from < now {
                    pool.total -= core::mem::take(&mut kept[i]);
                }
            }
            pool.shrink(*room, &mut kept, |_, count, _| dropped += count);
            while let Some((i, (gap, _))) = next.next_if(|(_, (gap, _))| gap.from == now) {
                if gap.to > now {
                    pool.add(gap.to, true, i, kept[i]);
                }
            }
        }
        dropped
    }
}

/// From one use to the next, by number of launch.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gap {
    from: usize,
    to: usize,
}

impl Gap {
    fn longer(self, other: Self) -> Self {
        if other.to - other.from > self.to - self.from { other } else { self }
    }
}

/// What is kept between launches: who ends last is dropped first, a clean one before a dirty one.
#[derive(Default)]
struct Pool {
    heap: BinaryHeap<(usize, bool, usize)>,
    /// End of what is kept of each, to know stale entries.
    ends: BTreeMap<usize, usize>,
    total: u64,
}

impl Pool {
    fn add(&mut self, end: usize, clean: bool, who: usize, count: u64) {
        self.heap.push((end, clean, who));
        self.ends.insert(who, end);
        self.total += count;
    }

    /// Drops until `room` is enough; tells whose, how many, and how many of it are left.
    fn shrink(&mut self, room: u64, kept: &mut [u64], mut dropped: impl FnMut(usize, u64, u64)) {
        while self.total > room {
            let (end, clean, who) = self.heap.pop().expect("what is kept is in the heap");
            if kept[who] == 0 || self.ends.get(&who) != Some(&end) {
                continue;
            }
            let count = kept[who].min(self.total - room);
            kept[who] -= count;
            self.total -= count;
            dropped(who, count, kept[who]);
            if kept[who] > 0 {
                self.heap.push((end, clean, who));
            }
        }
    }
}

/// Two accesses of one launch to the same bytes.
fn both(a: Access, b: Access) -> Access {
    if a == b { a } else { Access::Write }
}
