//! How often the system is called for many pages: R is taken away in runs that are longer than a block.

use crate::common::*;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_port::fake::{HostCalls, Mapping};

fn calls_of(w: &World, body: impl FnOnce()) -> HostCalls {
    let before = w.host.calls();
    body();
    let now = w.host.calls();
    HostCalls { revoke: now.revoke - before.revoke, protect: now.protect - before.protect, ..now }
}

#[test]
fn a_launch_takes_four_neighbouring_blocks_at_a_time() {
    within(20, || {
        let w = World::new(Setup { geometry: LARGE, limit_frames: 1024, ..Setup::default() });
        let x = w.alloc(18 * w.block());
        let sevens = vec![7; x.bytes() as usize];
        w.store(&x, 0, &sevens);
        let read = calls_of(&w, || drop(w.launch(&look(), &[(&x, 0..x.bytes(), Read)])));
        assert_eq!((read.revoke, read.protect), (0, 5), "18 blocks in fours");
        let write = calls_of(&w, || drop(w.launch(&add(1), &[(&x, 0..x.bytes(), Write)])));
        assert_eq!((write.revoke, write.protect), (5, 0));
        assert_eq!(w.load_all(&x), vec![8; x.bytes() as usize]);
        w.store(&x, 0, &sevens);
        // A hole in what R shows ends a run; another array's pages do not.
        let y = w.alloc(w.block());
        w.store(&y, 0, &sevens[..w.block() as usize]);
        let edge = 2 * w.block() - w.page();
        let gap = [(&x, 0..edge, Overwrite), (&x, edge + w.page()..4 * w.block(), Overwrite)];
        let holes = calls_of(&w, || drop(w.launch(&set(1), &gap)));
        assert_eq!(holes.revoke, 2);
        assert_eq!(w.load(&x, edge..edge + w.page()), sevens[..w.page() as usize]);
        let last = 17 * w.block()..x.bytes();
        let both =
            calls_of(&w, || drop(w.launch(&set(2), &[(&x, last, Overwrite), (&y, 0..w.block(), Overwrite)])));
        assert_eq!(both.revoke, 1, "{}, {}", x.offset(), y.offset());
    });
}

/// The system refuses the second of three runs: the launch is refused, and nothing was changed.
#[test]
fn a_refused_run_leaves_every_block_as_it_was() {
    within(20, || {
        let w = World::new(Setup { geometry: LARGE, limit_frames: 1024, import: false, ..Setup::default() });
        let x = w.alloc(12 * w.block());
        let sevens = vec![7; x.bytes() as usize];
        w.store(&x, 0, &sevens);
        for n in 1..=3 {
            w.host.fail_call(n);
            let outcome = w.try_launch(&set(1), &[(&x, 0..x.bytes(), Overwrite)]);
            assert!(outcome.is_err(), "{n}: {:?}", w.host.told_to_fail());
            w.rest();
            assert_eq!(w.load_all(&x), sevens);
            assert!(w.map(&x).chars().all(|c| c == 'H'));
        }
        assert_eq!(w.host.told_to_fail(), ["revoke"; 3]);
        w.launch(&set(1), &[(&x, 0..x.bytes(), Overwrite)]);
        assert_eq!(w.host.mapping(w.page_at(&x, 0)), Mapping::Absent);
        assert_eq!(w.load_all(&x), vec![1; x.bytes() as usize]);
    });
}
