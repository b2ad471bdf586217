//! What the kernel's tests leave out, and a runtime must stand: arguments that are empty or wrap, reused addresses, two runtimes
//! at a time, a device lost in the middle of a copy.

use crate::common::{BLOCK, PAGE, Setup, WORDS, clean, quiet, watchdog};
use crate::rig::{
    NTIMES, PAGES_ALL, Rig, VARIANTS, WORDS_ALL, alloc_again, expect, expect_zeros, fill, pattern, places,
};
use vkhmm::{Error, Grid, Managed, MemoryError, Switches};

/// Lengths of zero do nothing and are no error; numbers that would wrap, and places that nothing can start at, are refused
/// before anything happens.
#[test]
fn empty_wrapping_and_unaligned_arguments() {
    Rig::each(|rig| {
        let rt = rig.rt.clone();
        let mut x = rig.filled(4 * WORDS, 81);
        let before = (places(x.residency()), rt.stats());
        // Empty.
        {
            let mut empty = rt.alloc::<u32>(0).expect("an empty allocation");
            assert_eq!((empty.len(), empty.count(), empty.iter().sum::<u32>()), (0, 0, 0));
            assert!(empty.residency().expect("residency").is_empty() && empty.check().is_ok());
            assert!(empty.host().expect("guard").is_empty() && empty.host_mut().expect("guard").is_empty());
            empty.prefetch_to_device().expect("prefetch").wait().expect("wait");
            empty.prefetch_to_host().expect("prefetch").wait().expect("wait");
            rt.fill(empty.overwrite(), 1).expect("fill").wait().expect("wait");
            rt.copy(x.slice(7..7).read(), empty.write()).expect("copy").wait().expect("wait");
            let (left, right) = empty.split_at_mut(0).expect("split");
            assert!(left.is_empty() && right.is_empty());
        }
        assert!(rt.alloc::<()>(usize::MAX).expect("elements without size").len() == usize::MAX);
        for at in [0, 1, WORDS, 4 * WORDS] {
            let mut none = x.slice_mut(at..at);
            assert!(
                none.try_slice().expect("nothing").is_empty()
                    && none.residency().expect("residency").is_empty()
            );
            drop(none.host_mut().expect("guard"));
            none.write_to(&mut Vec::new()).expect("nothing to write");
            none.read_from(&mut std::io::empty()).expect("nothing to read");
            rt.fill(none.write(), 1).expect("fill").wait().expect("wait");
        }
        rt.launch(rig.storing(), Grid::linear(0), (x.slice_mut(..0).write(),))
            .expect("launch")
            .wait()
            .expect("wait");
        rt.launch(rig.storing(), Grid::linear(1), (x.slice_mut(..0).write(),))
            .expect("launch")
            .wait()
            .expect("wait");
        assert_eq!(rt.windows(0, 4, 2).count(), 0);
        assert_eq!(rt.trim(0).expect("trim"), 0);
        // Wrapping.
        for count in [usize::MAX, usize::MAX / 8 + 1, isize::MAX as usize / 8 + 1] {
            let refused = rt.alloc::<u64>(count).err();
            assert!(matches!(refused, Some(Error::Layout { .. })), "{count}: {refused:?}");
        }
        let most = rt.doctor().host.reservation_bytes;
        assert!(matches!(rt.alloc::<u8>(most as usize + 1), Err(Error::Layout { .. })));
        let panics = |x: &Managed<u32>, from: usize, to: usize| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(x.slice(from..to)))).is_err()
        };
        assert!(panics(&x, 0, usize::MAX) && panics(&x, usize::MAX, usize::MAX) && panics(&x, 2, 1));
        assert!(panics(&x, usize::MAX / 4 + 1, usize::MAX / 4 + 2), "an index whose byte offset wraps");
        for address in [usize::MAX, usize::MAX - PAGE + 1, 0] {
            let pointer = std::ptr::without_provenance::<u8>(address);
            assert!(rt.page_flags(pointer).is_none() && rt.is_addressable(pointer));
        }
        assert!(rt.find_pagemap(u64::MAX).is_none());
        let refused = rt.launch(rig.storing(), Grid::linear(usize::MAX), (x.write(),));
        assert!(matches!(refused, Err(Error::GridTooLarge { .. })), "{refused:?}");
        assert_eq!(rt.windows(usize::MAX, usize::MAX, usize::MAX).step(), 1);
        // Unaligned.
        let refused = rt.launch(rig.storing(), Grid::linear(1), (x.slice_mut(1..).write(),));
        assert!(
            matches!(refused, Err(Error::Misaligned { argument: 0, offset: 4, nearest: 0, .. })),
            "{refused:?}"
        );
        assert!(
            matches!(x.split_at_mut(WORDS + 1), Err(Error::Unaligned { nearest, .. }) if nearest == WORDS)
        );
        let mut bytes = rt.alloc::<u8>(64).expect("alloc");
        assert!(matches!(rt.fill(bytes.slice_mut(..7).write(), 0), Err(Error::Words { .. })));

        let moved = rt.stats().since(&before.1);
        assert_eq!(
            (moved.in_bytes() + moved.out_bytes() + moved.zeroed_bytes, moved.faults_stray),
            (0, 0),
            "{moved}"
        );
        assert_eq!(places(x.residency()), before.0);
        expect(&x, 0, 81, 0);
    });
}

/// An allocator that hands the same addresses out again, without unmapping anything: whoever has them next inherits no page,
/// no device copy and no byte, whatever the device was doing with them; eight threads touch it first, all at once.
#[test]
fn addresses_reused_after_free() {
    Rig::each_with(
        |builder| builder.reservation(4 * BLOCK as u64),
        |rig| {
            let mut starts = std::collections::BTreeMap::new();
            for round in 0..2 * NTIMES {
                // Sizes change, so that blocks change their neighbours.
                let words = [WORDS_ALL, BLOCK / 4, 3 * WORDS][round % 3];
                let mut x = alloc_again(&rig.rt, words);
                *starts.entry(x.as_ptr().addr()).or_insert(0) += 1;
                assert_eq!(
                    places(x.residency()).absent,
                    (words * 4).div_ceil(PAGE) as u64,
                    "nothing is inherited"
                );
                let each = words.div_ceil(8);
                std::thread::scope(|scope| {
                    for (i, part) in x.chunks_mut(each).enumerate() {
                        scope.spawn(move || {
                            expect_zeros(part);
                            fill(part, i * each, round as u32);
                        });
                    }
                });
                let report = rig.add_one(x.write(), words).expect("write");
                assert_eq!(
                    report.moved.in_bytes(),
                    (words * 4) as u64,
                    "nothing was there: {}",
                    report.moved
                );
                assert_eq!(report.moved.refault_bytes, 0, "{}", report.moved);
                if round % 2 == 0 {
                    expect(&x, 0, round as u32, 1);
                }
                if round % 4 < 2 {
                    // Freed with the device at work on it.
                    rig.rt.launch(rig.storing(), Grid::linear(words), (x.write(),)).expect("launch");
                }
            }
            assert!(
                starts.values().any(|times| *times > NTIMES / 2),
                "the addresses were reused: {starts:?}"
            );
        },
    );
}

/// Two devices hand the same data to and fro, a step of each at every turn, while a second pair does so the other way round.
#[test]
fn two_runtimes_ping_pong() {
    let _dog = watchdog("two_runtimes_ping_pong", 90);
    for setup in VARIANTS {
        let rigs = [(); 2].map(|()| Rig::open(setup, setup.builder()));
        let turns = NTIMES as u32;
        std::thread::scope(|scope| {
            for (first, second) in [(0, 1), (1, 0)] {
                let (here, there) = (&rigs[first], &rigs[second]);
                scope.spawn(move || {
                    let words = WORDS_ALL / 2;
                    let mut x = here.filled(words, 90 + first as u32);
                    let mut y = there.fresh(words);
                    for turn in 0..turns {
                        here.add_one(x.write(), words).expect("write");
                        y.copy_from_slice(&x);
                        there.add_one(y.write(), words).expect("write");
                        assert!(matches!(
                            here.rt.copy(y.read(), x.write()),
                            Err(Error::ForeignRuntime { .. })
                        ));
                        x.copy_from_slice(&y);
                        assert_eq!(
                            x[turn as usize],
                            pattern(turn as usize, 90 + first as u32) + 2 * (turn + 1)
                        );
                    }
                    expect(&x, 0, 90 + first as u32, 2 * turns);
                    assert_eq!(places(x.residency()).host, PAGES_ALL / 2);
                });
            }
        });
        for rig in &rigs {
            let moved = rig.rt.stats();
            assert_eq!(moved.refault_bytes + moved.moved_bytes, 0, "{moved}");
            clean(&rig.rt);
        }
    }
}

/// The device is lost at every call between a launch and the end of its way home, with eight threads waiting for the bytes:
/// each gets what the launch wrote, or an error that names what is lost. Never old bytes, and nobody waits for ever.
#[test]
fn device_lost_in_the_middle_of_a_copy() {
    let _dog = watchdog("device_lost_in_the_middle_of_a_copy", 90);
    for setup in VARIANTS {
        // Staged both ways, so that one buffer is many copies.
        let setup = Setup { import: false, ..setup };
        let (mut lost, mut whole, mut refused, mut calls) = (0, 0, 0, 0);
        for n in 1.. {
            let switches = Switches { lose_at_call: Some(n), ..Switches::default() };
            let Ok(rig) = Rig::try_open(setup, setup.with(switches)) else { continue };
            let mut x = rig.filled(WORDS_ALL, 91);
            let launched = rig.rt.launch(rig.storing(), Grid::linear(WORDS_ALL), (x.write(),));
            let plus = u32::from(launched.is_ok());
            if let Err(error) = &launched {
                assert!(error.is_lost(), "call {n}: {error}");
                refused += 1;
            }
            let parts = WORDS_ALL / 8;
            let lost_parts: usize = std::thread::scope(|scope| {
                let readers: Vec<_> = (0..8)
                    .map(|part| {
                        let x = &x;
                        scope.spawn(move || {
                            let part = x.slice(part * parts..(part + 1) * parts);
                            match part.try_slice() {
                                Ok(words) => {
                                    expect(words, (words.as_ptr().addr() - x.as_ptr().addr()) / 4, 91, plus);
                                    0
                                }
                                Err(error) => {
                                    assert!(error.is_lost(), "call {n}: {error}");
                                    1
                                }
                            }
                        })
                    })
                    .collect();
                readers.into_iter().map(|r| r.join().expect("a reader")).sum()
            });
            if let Ok(launch) = &launched {
                let waited = launch.wait();
                assert!(waited.as_ref().is_ok() || waited.as_ref().is_err_and(Error::is_lost), "{waited:?}");
            } else {
                assert_eq!(lost_parts, 0, "call {n}: a refused launch took bytes with it");
            }
            match x.check() {
                Ok(()) => assert_eq!(lost_parts, 0, "call {n}"),
                Err(Error::Memory(MemoryError::Lost { label, start, end, .. })) => {
                    assert!(&*label == "x" && start < end && end <= (WORDS_ALL * 4) as u64);
                    assert!(lost_parts > 0, "call {n}");
                    lost += 1;
                }
                Err(other) => panic!("call {n}: {other}"),
            }
            quiet(&rig.rt);
            whole += u32::from(lost_parts == 0);
            calls = rig.rt.device_calls();
            if calls < n {
                break;
            }
        }
        println!(
            "{:?}: {calls} calls; {lost} runs lost bytes, {whole} kept all, {refused} launches refused",
            setup.kind
        );
        assert!(lost > 0 && whole > 1 && refused > 0);
    }
}
