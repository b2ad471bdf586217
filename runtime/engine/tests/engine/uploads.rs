//! The upload pattern: the host rewrites an array, a launch reads it, again and again. By counts of faults and bytes.

use crate::common::*;
use vkhmm_engine::AccessKind::{Overwrite, Read};

#[test]
fn each_round_costs_a_fault_per_block() {
    within(30, || {
        let w = World::new(Setup { geometry: LARGE, limit_frames: 1024, ..Setup::default() });
        let (x, y) = (w.alloc(6 * w.block()), w.alloc(6 * w.block()));
        let mut faults = Vec::new();
        for round in 0..20_u8 {
            let before = w.engine.stats();
            w.store(&x, 0, &vec![round; x.bytes() as usize]);
            let stores = w.engine.stats().since(&before);
            faults.push(stores.faults_write);
            let all = |range: &Range| 0..range.bytes();
            w.wait(&w.launch(&copy_plus_one(), &[(&x, all(&x), Read), (&y, all(&y), Overwrite)]));
            let moved = w.engine.stats().since(&before);
            assert_eq!(moved.in_launch_bytes, x.bytes(), "each byte once a round: {moved}");
            assert_eq!(w.load(&y, 0..1), [round + 1]);
        }
        // The second round learns it. One sub-block of a block is asked about every eighth time.
        assert!(faults[1] >= 6 * 8, "{faults:?}");
        let late: u64 = faults[2..].iter().sum();
        assert!(faults[2..].iter().all(|n| *n <= 2 * 6) && late <= (18 + 3) * 6, "{faults:?}");
    });
}

/// What later launches read again, without a copy, keeps its duplicates: a store ends that of its sub-block alone.
#[test]
fn what_resident_launches_read_again_is_not_moved() {
    within(30, || {
        let w = World::new(Setup { geometry: LARGE, limit_frames: 1024, ..Setup::default() });
        let x = w.alloc(2 * w.block());
        w.store(&x, 0, &vec![1; x.bytes() as usize]);
        for round in 0..6_u8 {
            for _ in 0..3 {
                w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), Read)]));
                w.rest();
            }
            let before = w.engine.stats();
            assert!(round == 0 || before.launches_resident > 0);
            w.store(&x, 5, &[round]);
            w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), Read)]));
            assert_eq!(w.engine.stats().since(&before).in_launch_bytes, w.frame());
        }
    });
}
