//! What comes home beyond a touch: when, how much of it, and what it must not take from anybody. Everything by counts.

use crate::common::*;
use std::time::Duration;
use vkhmm_core::pagemap::{Location, MemoryKind};
use vkhmm_engine::AccessKind::{Overwrite, Write};

/// A world of blocks with eight sub-blocks, and an array of `blocks` blocks of sevens that the device alone has.
fn away(setup: Setup, blocks: u64) -> (World, Range) {
    let w = World::new(Setup { geometry: LARGE, limit_frames: 1024, ..setup });
    let x = w.alloc(blocks * w.block());
    w.launch(&set(7), &[(&x, 0..x.bytes(), Overwrite)]);
    w.rest();
    (w, x)
}

#[test]
fn the_touched_sub_block_comes_first_and_the_rest_behind_it() {
    within(20, || {
        let (w, x) = away(Setup::default(), 1);
        assert_eq!(w.load(&x, 0..1), [7]);
        settle(&w);
        let first = w.engine.stats();
        assert_eq!(
            (first.out_fault_bytes, first.out_ahead_bytes),
            (w.frame(), 0),
            "nothing follows a single touch"
        );
        assert_eq!(w.load(&x, w.frame()..w.frame() + 1), [7]);
        settle(&w);
        let second = w.engine.stats().since(&first);
        assert_eq!(second.out_fault_bytes, w.frame(), "who waits waits for his sub-block alone");
        assert_eq!(second.out_ahead_bytes, 2 * w.frame(), "three of four are there: the fourth comes, too");
        assert_eq!(w.location(&x, 3 * w.frame()), Location::Shared);
        let faults = w.engine.stats().faults_read;
        assert_eq!(w.load(&x, 0..4 * w.frame()), [7; 4 * 512]);
        assert_eq!(w.engine.stats().faults_read, faults, "what a stream is about to reach is shown");
    });
}

/// Until a handler that has answered has also asked for what follows, and it is there.
fn settle(w: &World) {
    std::thread::sleep(Duration::from_millis(5));
    w.rest();
}

/// The toucher is slow: all that is asked for is there before he goes on.
fn scan(w: &World, x: &Range, pages: impl Iterator<Item = u64>, write: bool) -> u64 {
    let stats = w.engine.stats();
    for page in pages {
        let at = page * w.page();
        let faults = w.engine.stats().faults_read + w.engine.stats().faults_write;
        if write {
            w.store(x, at, &[9]);
        } else {
            assert_eq!(w.load(x, at..at + w.page()), [7; 64]);
        }
        if w.engine.stats().faults_read + w.engine.stats().faults_write > faults {
            settle(w);
        }
    }
    let now = w.engine.stats().since(&stats);
    assert_eq!(now.out_fault_bytes + now.out_ahead_bytes, x.bytes(), "each byte once: {now}");
    now.faults_read + now.faults_write
}

#[test]
fn a_stream_costs_a_fault_per_window_in_both_directions() {
    // Where touches are asked about in their threads first, those that queues serve better are left to their messages.
    for (import, in_thread) in [(true, false), (false, false), (true, true)] {
        for (write, backward) in [(false, false), (true, false), (false, true)] {
            within(20, move || {
                let (w, x) = away(Setup { import, in_thread, slots: 16, ..Setup::default() }, 40);
                let calls = w.host.calls();
                let pages = x.bytes() / w.page();
                let order: Vec<u64> =
                    if backward { (0..pages).rev().collect() } else { (0..pages).collect() };
                let faults = scan(&w, &x, order.into_iter(), write);
                // Four for the first block, two for the second, three until windows are whole, then one for four blocks; some more
                // where the handler was late. By blocks alone it would be 43.
                assert!(faults <= 4 + 2 + 3 + 9 + 8, "{faults} faults, write {write}, backward {backward}");
                let shown = w.host.calls().publish - calls.publish;
                assert!(shown <= 40 + 20, "one publish per block, but for the first: {shown}");
                let stats = w.engine.stats();
                assert!(stats.out_ahead_bytes > stats.out_fault_bytes * 10, "{stats}");
                // As loads leave duplicates and stores do not.
                let letter = if write { 'H' } else { 'S' };
                assert!(w.map(&x).chars().all(|c| c == letter), "{}", w.map(&x));
                w.launch(&set(1), &[(&x, 0..x.bytes(), Overwrite)]);
                assert_eq!(w.load_all(&x), vec![1; x.bytes() as usize]);
            });
        }
    }
}

#[test]
fn touches_without_a_pattern_bring_nothing_else() {
    within(20, || {
        let (w, x) = away(Setup::default(), 40);
        let mut random = Random::new(3);
        let mut touched = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let sub = random.below(40) * 8 + 4 * random.below(2);
            touched.insert(sub);
            assert_eq!(w.load(&x, sub * w.frame()..sub * w.frame() + 1), [7]);
        }
        settle(&w);
        let stats = w.engine.stats();
        assert_eq!(stats.out_fault_bytes, touched.len() as u64 * w.frame());
        assert!(stats.out_ahead_bytes <= stats.out_fault_bytes / 4, "{stats}");
    });
}

/// A world of `blocks` blocks on the device, of which the first five were read; the touch of the sixth asks for the four from the tenth
/// on. A guess is left out where its block is just being looked at, and not made again: then from the start.
fn read_five(setup: &Setup, blocks: u64) -> (World, Range) {
    for _ in 0..20 {
        let (w, x) = away(setup.clone(), blocks);
        for page in 0..5 * w.block() / w.page() {
            w.load(&x, page * w.page()..page * w.page() + 1);
            settle(&w);
        }
        assert_eq!(w.location(&x, 9 * w.block()), Location::Device);
        if w.location(&x, 8 * w.block()) == Location::Shared {
            return (w, x);
        }
    }
    panic!("the ninth block never came with the touches of the fifth");
}

/// Blocks of which something is on its way.
fn moving(w: &World, x: &Range) -> Vec<u64> {
    let held = |block: &u64| {
        w.engine.page_flags(x, block * w.block()).contains(vkhmm_core::pagemap::PageFlags::HELD_EXCLUSIVE)
    };
    (0..x.bytes() / w.block()).filter(held).collect()
}

#[test]
fn guesses_take_no_slot_that_is_kept_for_touches() {
    for (import, asked) in [(true, vec![9, 10, 11, 12]), (false, vec![9, 10, 11])] {
        within(30, move || {
            let (w, x) = read_five(&Setup { import, slots: 4, ..Setup::default() }, 24);
            w.device.stall(Duration::from_millis(400));
            assert_eq!(w.load(&x, 5 * w.block()..5 * w.block() + 1), [7], "it is there already");
            until("guesses are on their way", || moving(&w, &x) == asked);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(moving(&w, &x), asked);
            w.rest();
            assert_eq!(w.load_all(&x), vec![7; x.bytes() as usize]);
        });
    }
}

/// A copy behind a running kernel would be in the way of touches that have nothing to do with it.
#[test]
fn nothing_is_guessed_behind_a_kernel_that_runs() {
    within(20, || {
        let (w, x) = read_five(&Setup::default(), 24);
        w.device.stall(Duration::from_millis(100));
        let op = w.launch(&add(1), &[(&x, 23 * w.block()..x.bytes(), Write)]);
        assert_eq!(w.load(&x, 5 * w.block()..5 * w.block() + 1), [7]);
        assert!(!op.status().eq(&vkhmm_engine::OpStatus::Done), "it is there while the kernel runs");
        w.rest();
        assert_eq!(w.location(&x, 9 * w.block()), Location::Device);
    });
}

/// Where the CPU reads device memory itself, the rest comes by it, and no block ahead.
#[test]
fn what_the_cpu_reads_itself_is_not_brought_ahead() {
    within(20, || {
        let (w, x) = away(Setup { kind: MemoryKind::DeviceCoherent, ..Setup::default() }, 8);
        let submits = w.engine.stats().submits;
        assert_eq!(w.load_all(&x), vec![7; x.bytes() as usize]);
        let stats = w.engine.stats();
        assert_eq!(stats.submits, submits);
        assert_eq!(stats.path_cpu_bytes, x.bytes());
    });
}
