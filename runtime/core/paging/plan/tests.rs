//! The planner against pure kernels: what they ask for is a function of group and item, and nothing is computed.

mod kernels;
mod lines;

use super::*;
use crate::paging::layout::{READ, WRITE};
use alloc::collections::{BTreeMap, BTreeSet};

/// Asks for a sub-block of a range; whether it is there.
pub(super) type Ask<'a> = &'a mut dyn FnMut(u32, u32, u32) -> bool;

/// What a group (or an item of it) asks for, in order; whether it got all of it.
pub(super) type Kernel<'a> = &'a mut dyn FnMut(u32, u32, Ask<'_>) -> bool;

/// What came of a launch.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: Result<(), Stuck>,
    pub(super) report: Report,
    /// Sub-blocks copied in, by range.
    pub(super) moved: Vec<u32>,
}

impl Ran {
    /// Groups run over groups.
    pub(super) fn runs(&self) -> f64 {
        self.report.group_runs as f64 / f64::from(self.report.groups)
    }
}

pub(super) fn range(subs: u32, subs_per_block: u32, access: Use) -> PagedRange {
    PagedRange { subs, subs_per_block, access, resident: false, same_as: None }
}

/// A device with so many frames, and a list of so many misses.
pub(super) struct Machine {
    pub(super) capacity: u32,
    /// A launch's own part of them.
    pub(super) mine: u32,
    pub(super) list: usize,
    /// After so many rounds another block that is only read becomes remote, or is it no longer; zero: never.
    pub(super) remote: u32,
    /// A round has time for so many groups at most, and each time for another number of them; zero: for any.
    pub(super) most: u32,
}

impl Machine {
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, mine: capacity, list: usize::MAX, remote: 0, most: 0 }
    }

    /// Runs a launch to its end, with every promise of a planner checked at every round.
    pub(super) fn run(&self, groups: u32, items: u32, ranges: &[PagedRange], kernel: Kernel<'_>) -> Ran {
        let mut planner = Planner::new(groups, items, ranges.to_vec());
        let mut done = vec![0_u32; groups.div_ceil(32) as usize];
        let mut items_done: BTreeSet<(u32, u32)> = BTreeSet::new();
        // What is on the device: the round that held it last.
        let mut there: BTreeMap<Sub, u64> = BTreeMap::new();
        let mut overwritten: BTreeSet<Sub> = BTreeSet::new();
        let mut moved = vec![0; ranges.len()];
        let mut remote: BTreeSet<(u32, u32)> = BTreeSet::new();
        let bound = planner.rounds_max(self.capacity);
        let end = loop {
            let rounds = planner.report().rounds as u32;
            let only_read =
                |at: &u32| ranges[*at as usize].access == Use::Read && !ranges[*at as usize].resident;
            let at = mix(rounds, 0, 7) % ranges.len() as u32;
            if self.remote > 0 && rounds % self.remote == 0 && planner.is_between() && only_read(&at) {
                let of = &ranges[at as usize];
                let block = mix(rounds, 1, 7) % of.subs.div_ceil(of.subs_per_block);
                let becomes = !remote.remove(&(at, block));
                if becomes {
                    remote.insert((at, block));
                }
                let first = block * of.subs_per_block;
                planner.set_remote(at, first..of.subs.min(first + of.subs_per_block), becomes);
            }
            let is_remote =
                |at: u32, sub: u32| remote.contains(&(at, sub / ranges[at as usize].subs_per_block));
            if self.most > 0 {
                planner.set_most(mix(rounds, 2, 7) % (self.most + 1));
            }
            let round = match planner.next(self.mine, self.capacity) {
                Ok(Some(round)) => round,
                Ok(None) => break Ok(()),
                Err(stuck) => break Err(stuck),
            };
            let now = planner.report().rounds + 1;
            assert!(now <= bound, "round {now} of at most {bound}");
            let mut held: BTreeMap<Sub, u32> = BTreeMap::new();
            let mut blocks = BTreeSet::new();
            for hold in &round.hold {
                let of = &ranges[hold.range as usize];
                assert!(
                    !of.resident && hold.subs.end <= of.subs && !hold.subs.is_empty(),
                    "{hold:?} of {of:?}"
                );
                assert!(of.access != Use::Read || hold.access == Use::Read, "a store to what is read only");
                let access = if hold.access.writes() { READ | WRITE } else { READ };
                for sub in hold.subs.clone() {
                    let at = (hold.range, sub);
                    assert!(!is_remote(hold.range, sub), "{at:?} is remote");
                    assert!(held.insert(at, access).is_none(), "{at:?} is held twice");
                    blocks.insert((of.same_as.unwrap_or(hold.range), sub / of.subs_per_block));
                    if hold.access == Use::Overwrite {
                        assert!(overwritten.insert(at), "{at:?} is overwritten twice");
                    } else if !there.contains_key(&at) {
                        moved[hold.range as usize] += 1;
                    }
                    there.insert(at, now);
                }
            }
            let frames: u32 = blocks
                .iter()
                .map(|(at, block)| {
                    let of = &ranges[*at as usize];
                    of.subs_per_block.min(of.subs - block * of.subs_per_block)
                })
                .sum();
            assert!(frames <= self.capacity, "{frames} frames held of {}", self.capacity);
            while there.len() > self.capacity as usize {
                let oldest = *there.iter().min_by_key(|(_, at)| **at).expect("it is not empty").0;
                there.remove(&oldest);
            }
            let unique: BTreeSet<u32> = round.ids.iter().copied().collect();
            assert_eq!(unique.len(), round.ids.len(), "a group twice in a round");
            assert!(unique.iter().all(|id| *id < groups && !is_set(&done, *id)), "a group that is done");
            let oldest = (0..groups).find(|id| !is_set(&done, *id));
            assert!(unique.iter().next().copied() == oldest, "the oldest group waits");
            let mut bits = [BTreeMap::new(), BTreeMap::new()];
            let mut list = Vec::new();
            for id in &round.ids {
                let first = |item: &u32| !items_done.contains(&(*id, *item));
                let lanes: Vec<u32> = match items {
                    0 => vec![0],
                    _ => (0..items).filter(first).take(round.lanes as usize).collect(),
                };
                for item in lanes {
                    let mut ask = |range: u32, sub: u32, access: u32| {
                        assert!(sub < ranges[range as usize].subs, "a kernel of the tests stays inside");
                        let has = ranges[range as usize].resident
                            || is_remote(range, sub)
                            || held.get(&(range, sub)).is_some_and(|held| held & access == access);
                        let plane = &mut bits[usize::from(!has)];
                        for access in [READ, WRITE].into_iter().filter(|bit| access & bit != 0) {
                            let subs = ranges[range as usize].subs;
                            let words: &mut Vec<u32> = plane
                                .entry((range, access))
                                .or_insert_with(|| vec![0; subs.div_ceil(32) as usize]);
                            let fresh = !is_set(words, sub);
                            words[sub as usize / 32] |= 1 << (sub % 32);
                            if !has && fresh {
                                list.push([range, sub, *id, access]);
                            }
                        }
                        has
                    };
                    if kernel(*id, item, &mut ask) {
                        match items {
                            0 => done[*id as usize / 32] |= 1 << (id % 32),
                            _ => drop(items_done.insert((*id, item))),
                        }
                    }
                }
                if items > 0 && (0..items).all(|item| items_done.contains(&(*id, item))) {
                    done[*id as usize / 32] |= 1 << (id % 32);
                }
            }
            let [touched, missing] = &bits;
            let of = |plane: &BTreeMap<(u32, u32), Vec<u32>>, range, access| {
                plane.get(&(range, access)).cloned().unwrap_or_default().leak() as &[u32]
            };
            planner.outcome(&Outcome {
                done: &done,
                items_done: items_done.len() as u64,
                misses: &list[..list.len().min(self.list)],
                overflow: list.len() > self.list,
                missing: &|range, access| of(missing, range, access),
                touched: &|range, access| of(touched, range, access),
            });
        };
        if end.is_ok() {
            assert!((0..groups).all(|id| is_set(&done, id)), "over before everything is done");
        }
        Ran { end, report: planner.report(), moved }
    }
}

/// Numbers that look random, from a seed.
pub(super) fn random(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 32) as u32) % below
    }
}

/// The same number for the same three.
pub(super) fn mix(a: u32, b: u32, c: u32) -> u32 {
    let mut h = u64::from(a) << 32 | u64::from(b);
    h = (h ^ u64::from(c).wrapping_mul(0x9E37_79B9)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ h >> 29).wrapping_mul(0x94D0_49BB_1331_11EB);
    (h >> 33) as u32
}
