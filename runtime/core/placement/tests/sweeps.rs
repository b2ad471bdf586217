//! The simulations that chose the rules: a program that fits, a halo sweep, and "what fits is always placed".

use super::*;

/// Counts what an engine would copy: sub-blocks fetched and moved, given which are on the device.
struct Traffic {
    placement: SpanPlacement,
    /// Which ranges have sparse buffers.
    sparse: fn(u32) -> bool,
    resident: Vec<Vec<bool>>,
    op: u64,
    fetched: u32,
    moved: u32,
    evictions: usize,
}

impl Traffic {
    fn new(placement: SpanPlacement, ranges: &[u32], sparse: fn(u32) -> bool) -> Self {
        let resident = ranges.iter().map(|subs| std::vec![false; *subs as usize]).collect();
        Self { placement, sparse, resident, op: 0, fetched: 0, moved: 0, evictions: 0 }
    }

    /// Launches on parts of ranges, and submits.
    fn launch(&mut self, parts: &[(u32, Range<u32>)]) -> Result<(), AdmitError> {
        self.op += 1;
        let wants: Vec<Want> = parts
            .iter()
            .map(|(slot, subs)| Want {
                scattered: (self.sparse)(*slot),
                ..want(*slot, self.resident[*slot as usize].len() as u32, subs.clone())
            })
            .collect();
        let plan = self.placement.admit(OpId(self.op), &wants, self.op)?;
        for e in &plan.evictions {
            self.resident[e.range.slot as usize][e.subs.start as usize..e.subs.end as usize].fill(false);
        }
        let on = |resident: &[Vec<bool>], m: &Move| {
            m.subs.clone().filter(|s| resident[m.range.slot as usize][*s as usize]).count() as u32
        };
        self.moved += plan.moves.iter().map(|m| on(&self.resident, m)).sum::<u32>();
        self.evictions += plan.evictions.len();
        for (slot, subs) in parts {
            for sub in subs.clone() {
                let there = &mut self.resident[*slot as usize][sub as usize];
                self.fetched += u32::from(!*there);
                *there = true;
            }
        }
        self.placement.commit(OpId(self.op), &Uses::NONE);
        self.placement.submitted(OpId(self.op), &uses(self.op));
        self.placement.reap(&uses(self.op.saturating_sub(2)));
        Ok(())
    }
}

/// Every range in spans, every other one, every range in a sparse buffer.
const PLACEMENTS: [fn(u32) -> bool; 3] = [|_| false, |slot| slot % 2 == 1, |_| true];

#[test]
fn a_program_that_fits_fetches_once_and_moves_nothing() {
    for (seed, sparse) in (0..5).flat_map(|seed| PLACEMENTS.map(|sparse| (seed, sparse))) {
        let mut rng = Rng(seed);
        // Ranges of 2 to 24 frames, in all 95 % of 128.
        let mut ranges = Vec::new();
        while ranges.iter().sum::<u32>() < 121 {
            ranges.push((2 + rng.below(23)).min(121 - ranges.iter().sum::<u32>()));
        }
        let mut traffic = Traffic::new(placement(&[128]), &ranges, sparse);
        for _ in 0..3000 {
            let parts: Vec<_> = (0..3)
                .map(|_| {
                    let slot = rng.below(ranges.len() as u32);
                    (slot, rng.run(ranges[slot as usize]))
                })
                .collect();
            traffic.launch(&parts).unwrap();
        }
        let touched = traffic.resident.iter().flatten().filter(|there| **there).count() as u32;
        assert_eq!((traffic.fetched, traffic.moved, traffic.evictions), (touched, 0, 0), "seed {seed}");
    }
}

#[test]
fn a_halo_sweep_over_four_times_the_device_fetches_each_part_once_a_pass() {
    let (window, halo) = (26, 4);
    let subs = 128 * 4 / window * window;
    for sparse in [PLACEMENTS[0], PLACEMENTS[2]] {
        let mut traffic = Traffic::new(placement(&[128]), &[subs], sparse);
        for pass in 1..=4 {
            for start in (0..subs).step_by(window as usize) {
                traffic
                    .launch(&[(0, start.saturating_sub(halo)..(start + window + halo).min(subs))])
                    .unwrap();
            }
            assert!(traffic.fetched <= pass * subs, "pass {pass}: {} of {subs} fetched", traffic.fetched);
            // Each window is touched once; beyond it, the halo it shares with its neighbours moves, or is where it was.
            let touched = pass * subs / window * (window + 2 * halo);
            assert!(traffic.fetched + traffic.moved <= touched, "pass {pass}: {} moved", traffic.moved);
            assert!(traffic.moved == 0 || !sparse(0), "scattered ranges never move");
        }
    }
}

#[test]
fn an_oversubscribed_program_of_whole_ranges_stays_near_one_fetch_a_miss() {
    // Three times oversubscribed, small ranges far more popular than the rest: most launches must hit.
    for seed in 0..5 {
        let [spans, mixed, any] = PLACEMENTS.map(|sparse| {
            let mut rng = Rng(100 + seed);
            let ranges: Vec<u32> = (0..32).map(|_| 4 + rng.below(16)).collect();
            let mut traffic = Traffic::new(placement(&[128]), &ranges, sparse);
            let mut asked = 0;
            for _ in 0..3000 {
                let pick = |rng: &mut Rng| (rng.below(32) * rng.below(32) * rng.below(32)) >> 10;
                let parts: Vec<_> =
                    (0..3).map(|_| pick(&mut rng)).map(|s| (s, 0..ranges[s as usize])).collect();
                asked += parts.iter().map(|(_, subs)| subs.end).sum::<u32>();
                traffic.launch(&parts).unwrap();
            }
            assert!(traffic.fetched * 2 < asked, "seed {seed}: {} of {asked} fetched", traffic.fetched);
            assert_eq!(traffic.moved, 0);
            traffic.fetched
        });
        // Frames of any place are never worse than windows.
        assert!(
            any <= spans && mixed <= spans + spans / 20,
            "seed {seed}: {any} any, {mixed} mixed, {spans} in spans"
        );
    }
}

#[test]
fn with_nothing_held_what_fits_by_count_is_always_placed() {
    for (seed, sparse) in (0..60).flat_map(|seed| PLACEMENTS.map(|sparse| (seed, sparse))) {
        let mut rng = Rng(1000 + seed);
        let frames = 8 + rng.below(57);
        let ranges: Vec<u32> = (0..6).map(|_| 1 + rng.below(frames * 2)).collect();
        let mut traffic = Traffic::new(placement(&[frames]), &ranges, sparse);
        for step in 0..400 {
            // Disjoint parts of random ranges until the limit is reached, often exactly.
            let mut left = frames;
            let mut parts: Vec<(u32, Range<u32>)> = Vec::new();
            while left > 0 && parts.len() < 6 {
                let slot = rng.below(6);
                let mut subs = rng.run(ranges[slot as usize]);
                subs.end = subs.end.min(subs.start + left);
                if parts.iter().any(|(s, p)| *s == slot && p.start < subs.end && subs.start < p.end) {
                    left -= 1;
                    continue;
                }
                left -= subs.end - subs.start;
                parts.push((slot, subs));
            }
            if let Err(error) = traffic.launch(&parts) {
                panic!("seed {seed} step {step}: {parts:?} in {frames} frames: {error}");
            }
        }
    }
}
