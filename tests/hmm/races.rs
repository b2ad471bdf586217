//! What the kernel's tests leave out, by threads: many of them on one page, touches against evictions, stores against copies.

use crate::common::{PAGE, Random, SUB, WORDS, kernel, spv};
use crate::rig::{NTIMES, Rig, WORDS_ALL, expect, home_bytes, pattern};
use std::sync::Barrier;
use vkhmm::Grid;

const THREADS: usize = 64;
const ROUNDS: usize = 2 * NTIMES;

// Sixty-four threads load from, or store to, one page that the device has, and some of the time is still writing: everybody
/// sees the device's words, every store is there, and the page comes home once.
#[test]
fn many_threads_on_one_page() {
    Rig::each(|rig| {
        let mut x = rig.filled(SUB / 4, 80);
        let page = 3 * WORDS..4 * WORDS;
        let each = WORDS / THREADS;
        let spin = kernel(&rig.rt, spv::SPIN);
        let mut busy = rig.fresh(4 * WORDS);
        let (mut plus, mut parked, mut times) = (0, 0, 0);
        // Bytes that come home for a touch: under `declared` what the slice names, elsewhere the sub-block.
        let granule = if rig.declared() { PAGE } else { SUB } as u64;
        for round in 0..ROUNDS {
            let before = rig.rt.stats();
            rig.migrate(x.write());
            if round % 2 == 0 {
                // Behind another kernel, so that the threads come first.
                let arguments = (busy.write(), 1000u32, 4 * WORDS as u32);
                rig.rt.launch(&spin, Grid::linear(4 * WORDS), arguments).expect("launch");
                rig.rt.launch(rig.storing(), Grid::linear(SUB / 4), (x.write(),)).expect("launch");
                plus += 1;
            }
            let (ready, stores) = (Barrier::new(THREADS), round % 4 < 2);
            if stores {
                let mut part = x.slice_mut(page.clone());
                std::thread::scope(|scope| {
                    for (i, words) in part.chunks_mut(each).enumerate() {
                        let ready = &ready;
                        scope.spawn(move || {
                            ready.wait();
                            if i % 2 == 0 {
                                words.iter_mut().for_each(|w| *w = w.wrapping_add(1 << 20));
                            } else {
                                expect(words, page_word(i), 80, plus);
                            }
                        });
                    }
                });
                part.chunks_mut(each).step_by(2).flatten().for_each(|w| *w = w.wrapping_sub(1 << 20));
            } else {
                std::thread::scope(|scope| {
                    for i in 0..THREADS {
                        let (x, ready) = (&x, &ready);
                        scope.spawn(move || {
                            ready.wait();
                            let at = page_word(i);
                            expect(&x.slice(3 * WORDS..4 * WORDS)[i * each..(i + 1) * each], at, 80, plus);
                        });
                    }
                });
            }
            let moved = rig.rt.stats().since(&before);
            parked += moved.faults_parked;
            times += home_bytes(&moved) / granule;
            assert!(home_bytes(&moved) >= granule, "round {round}: {moved}");
            expect(&x, 0, 80, plus);
        }
        println!("{:?}: {parked} touches had to wait, home {times} times", rig.setup.kind);
        // A touch that was read but not answered when a neighbour's answer woke its thread may fetch the page once more.
        assert!(times < 2 * ROUNDS as u64, "{times} times home in {ROUNDS} rounds");
        assert!(parked > 0 || rig.declared(), "nobody met a running kernel or a copy");
    });
}

/// First word of thread `i` on the page.
fn page_word(i: usize) -> usize {
    3 * WORDS + i * (WORDS / THREADS)
}

/// Four threads, each with a buffer of its own, and room on the device for one and a half: every launch evicts what the others
/// are loading from and storing to. Each buffer is like its twin at the end.
#[test]
fn eviction_while_faulting() {
    const ARRAYS: usize = 4;
    let words = 8 * SUB / 4;
    Rig::each_with(
        |builder| builder.device_memory_limit(12 * SUB as u64),
        |rig| {
            let seed = Random::fresh_seed();
            println!("seed {seed}");
            let mut arrays: Vec<_> = (0..ARRAYS).map(|a| rig.filled(words, a as u32)).collect();
            let before = rig.rt.stats();
            std::thread::scope(|scope| {
                for (a, x) in arrays.iter_mut().enumerate() {
                    let rig = &*rig;
                    scope.spawn(move || {
                        let mut random = Random::new(seed + a as u64);
                        let mut twin: Vec<u32> = (0..words).map(|i| pattern(i, a as u32)).collect();
                        for _ in 0..40 {
                            let from = random.below(words / WORDS) * WORDS;
                            let to = from + 1 + random.below(words - from);
                            let grid = Grid::linear(to - from);
                            let mut part = x.slice_mut(from..to);
                            rig.rt.launch(rig.storing(), grid, (part.write(),)).expect("launch");
                            twin[from..to].iter_mut().for_each(|w| *w = w.wrapping_add(1));
                            for _ in 0..4 {
                                let at = random.below(words);
                                assert_eq!(x.slice(at..at + 1)[0], twin[at], "word {at} of buffer {a}");
                                let at = random.below(words);
                                x.slice_mut(at..at + 1)[0] ^= 0x5555;
                                twin[at] ^= 0x5555;
                            }
                        }
                        assert!(**x == twin, "buffer {a} is not like its twin");
                    });
                }
            });
            let moved = rig.rt.stats().since(&before);
            println!("{moved}");
            assert!(moved.out_evict_bytes > 0 && moved.evictions_dirty > 0, "{moved}");
            assert!(rig.declared() || moved.faults_read > 0 && moved.faults_write > 0, "{moved}");
        },
    );
}

/// The host stores to what is just being copied to the device: the device sees every word as it was at the launch, the host
/// keeps every store.
#[test]
fn a_store_during_a_copy_to_the_device() {
    Rig::each(|rig| {
        let words = 4 * WORDS_ALL;
        let mut out = rig.fresh(words);
        let mut parked = 0;
        for round in 0..NTIMES as u32 {
            let mut x = rig.filled(words, 82 + round);
            let before = rig.rt.stats();
            if round % 2 == 0 {
                rig.rt.copy(x.read(), out.overwrite()).expect("copy");
            } else {
                x.prefetch_to_device().expect("prefetch");
                rig.rt.copy(x.read(), out.overwrite()).expect("copy");
            }
            // The last page is the last to be copied, the first the first.
            for page in [words / WORDS - 1, 0, words / WORDS / 2, 513, 512] {
                x.slice_mut(page * WORDS..(page + 1) * WORDS).iter_mut().for_each(|w| *w = !*w);
            }
            parked += rig.rt.stats().since(&before).faults_parked;
            expect(&out, 0, 82 + round, 0);
            for (page, seen) in x.chunks(WORDS).enumerate() {
                if [words / WORDS - 1, 0, words / WORDS / 2, 513, 512].contains(&page) {
                    assert!(
                        seen.iter().enumerate().all(|(i, w)| !*w == pattern(page * WORDS + i, 82 + round))
                    );
                } else {
                    expect(seen, page * WORDS, 82 + round, 0);
                }
            }
            // And the device reads again what the host stored.
            rig.rt.copy(x.read(), out.overwrite()).expect("copy");
            assert!(*out == *x);
        }
        println!("{:?}: {parked} stores had to wait", rig.setup.kind);
        assert!(parked > 0 || rig.declared(), "no store met a copy");
    });
}
