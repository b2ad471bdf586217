//! The kernel's `migrate_anon_huge_*` cases and what belongs to them. Our huge page is the block: 2 MiB, aligned, one lock, one
//! neighbourhood of frames.

use crate::common::{BLOCK, PAGE, WORDS, memory, setting, watchdog};
use crate::rig::{
    Places, Rig, VARIANTS, alloc_again, expect, expect_zeros, fill, home_bytes, pattern, places, until,
};
use std::time::Instant;
use vkhmm::MemoryError;

/// 32-bit words of a block.
const HUGE: usize = BLOCK / 4;
/// Pages of a block.
const HUGE_PAGES: u64 = (BLOCK / PAGE) as u64;

/// A block that nobody touched: nothing is copied, the device and then the host read zeros.
#[test]
fn migrate_anon_huge_empty() {
    Rig::each(|rig| {
        rig.stain();
        let mut x = rig.fresh(HUGE);
        let before = rig.rt.stats();
        let report = rig.migrate(x.write());
        assert_eq!(
            (report.pages, report.faults, report.moved.in_bytes()),
            (HUGE_PAGES, 1, 0),
            "{}",
            report.moved
        );
        let (seen, _) = rig.read(x.read(), HUGE).expect("read");
        expect_zeros(&seen);
        assert_eq!(rig.rt.stats().since(&before).born_bytes, 0, "no touch of the host's was needed");
        expect_zeros(&x);
    });
}

/// A block that the host has looked at (the kernel's huge zero page): its zeros are data like any other, and come back.
#[test]
fn migrate_anon_huge_zero() {
    Rig::each(|rig| {
        let mut x = rig.fresh(HUGE);
        expect_zeros(&x);
        let report = rig.migrate(x.write());
        assert_eq!(report.moved.in_bytes(), BLOCK as u64, "{}", report.moved);
        let (seen, _) = rig.read(x.read(), HUGE).expect("read");
        expect_zeros(&seen);
        expect_zeros(&x);
        x.slice_mut(HUGE - 1..)[0] = 1;
        let (seen, _) = rig.read(x.read(), HUGE).expect("read");
        expect_zeros(&seen[..HUGE - 1]);
        assert_eq!(seen[HUGE - 1], 1);
    });
}

/// A migrated block is given up (the kernel's MADV_FREE): overwritten, nothing of it is copied anywhere; freed, its frames come
/// back without a byte moving, and the next owner of the address reads zeros on both sides.
#[test]
fn migrate_anon_huge_free() {
    Rig::each_with(
        // The mirror's two blocks and one more.
        |builder| builder.reservation(3 * BLOCK as u64),
        |rig| {
            let idle = rig.rt.device_memory().1;
            let mut x = alloc_again(&rig.rt, HUGE);
            let address = x.as_ptr();
            fill(&mut x, 0, 60);
            rig.migrate(x.write());
            let report = rig.report(|rt| rt.fill(x.overwrite(), 0)).expect("fill");
            assert_eq!((report.pages, report.moved.out_bytes()), (0, 0), "{}", report.moved);
            expect_zeros(&x);
            fill(&mut x, 0, 61);
            rig.migrate(x.write());
            let before = rig.rt.stats();
            drop(x);
            until("its frames", || (rig.rt.device_memory().1 == idle).then_some(()));
            assert_eq!(rig.rt.stats().since(&before).out_bytes(), 0, "the dead are not copied");
            let mut x = alloc_again(&rig.rt, HUGE);
            assert_eq!(x.as_ptr(), address);
            assert_eq!(places(x.residency()), Places { absent: HUGE_PAGES, ..Places::NONE });
            let (seen, _) = rig.read(x.read(), HUGE).expect("read");
            expect_zeros(&seen);
            rig.migrate(x.write());
            expect_zeros(&x);
        },
    );
}

/// A migrated block is touched from end to end: the data, each page home once, and for 512 pages a handful of faults.
#[test]
fn migrate_anon_huge_fault() {
    Rig::each(|rig| {
        let mut x = rig.filled(HUGE, 62);
        rig.add_one(x.write(), HUGE).expect("write");
        let before = rig.rt.stats();
        expect(&x, 0, 62, 1);
        let moved = rig.rt.stats().since(&before);
        assert_eq!(home_bytes(&moved), BLOCK as u64, "{moved}");
        // 16, 32, 64, 128 and 256 pages, and the rest; more where a touch is ahead of what was asked for beyond the last one, but by
        // far not one for each of the 32 sub-blocks.
        let want = if rig.declared() { 0..=0 } else { 1..=16 };
        assert!(want.contains(&moved.faults_read), "{moved}");
        assert_eq!(places(x.residency()), Places { shared: HUGE_PAGES, ..Places::NONE });
    });
}

/// Half of a migrated block is taken away (a host guard, where the kernel's test unmaps it), at three offsets: the device keeps
/// the rest, and both sides read it. And a whole block is freed between two others.
#[test]
fn migrate_partial_unmap_fault() {
    Rig::each(|rig| {
        let half = HUGE / 2;
        for one_by_one in [true, false] {
            for offset in [0, HUGE / 4, HUGE / 2] {
                let mut x = rig.filled(HUGE, 63);
                let step = if one_by_one { 32 * WORDS } else { HUGE };
                for start in (0..HUGE).step_by(step) {
                    rig.migrate(x.slice_mut(start..start + step).write());
                }
                let taken = offset..offset + half;
                {
                    let mut part = x.slice_mut(taken.clone());
                    part.host_mut().expect("guard").fill(0);
                }
                let kept = Places { host: HUGE_PAGES / 2, device: HUGE_PAGES / 2, ..Places::NONE };
                assert_eq!(places(x.residency()), kept);
                let part = x.slice(taken.clone());
                let guard = part.host().expect("guard");
                let rests = [0..taken.start, taken.end..HUGE];
                for rest in rests.iter().filter(|rest| !rest.is_empty()) {
                    let (seen, report) =
                        rig.read(x.slice(rest.clone()).read(), rest.len()).expect("the rest");
                    expect(&seen, rest.start, 63, 0);
                    assert_eq!(report.pages, 0, "{}", report.moved);
                }
                let refused = memory(rig.read(x.read(), HUGE));
                assert!(matches!(refused, MemoryError::Guarded { .. }), "{refused:?}");
                drop(guard);
                expect_zeros(&part);
                for rest in rests {
                    expect(&x.slice(rest.clone()), rest.start, 63, 0);
                }
            }
        }
        let [mut left, mut middle, mut right] = [64, 65, 66].map(|seed| rig.filled(HUGE, seed));
        for x in [&mut left, &mut middle, &mut right] {
            rig.migrate(x.write());
        }
        let hole = middle.as_ptr();
        drop(middle);
        assert_eq!(rig.rt.page_flags(hole), None);
        expect(&left, 0, 64, 0);
        expect(&right, 0, 66, 0);
    });
}

/// Data that moves to another address, in host memory or migrated, a few pages or a block, the old place kept or not: it is
/// there in full, never zeros. Moving the handle moves nothing.
#[test]
fn migrate_remap_fault() {
    Rig::each(|rig| {
        for (migrated, keep) in [(false, false), (false, true), (true, false), (true, true)] {
            for (words, offset) in
                [4 * WORDS, HUGE].into_iter().flat_map(|w| [0, 128 * WORDS, 256 * WORDS].map(|o| (w, o)))
            {
                let mut x = rig.filled(words, 67);
                if migrated {
                    rig.migrate(x.write());
                }
                let mut y = rig.fresh(2 * HUGE);
                let report = rig
                    .report(|rt| rt.copy(x.read(), y.slice_mut(offset..offset + words).overwrite()))
                    .expect("copy");
                assert_eq!(report.moved.out_bytes(), 0, "it goes past the host: {}", report.moved);
                let kept = if keep { Some(x) } else { None };
                let (seen, _) = rig.read(y.slice(offset..offset + words).read(), words).expect("read");
                expect(&seen, 0, 67, 0);
                expect(&y.slice(offset..offset + words), 0, 67, 0);
                if let Some(x) = kept {
                    expect(&x, 0, 67, 0);
                }
                let (address, before) = (y.as_ptr().addr(), places(y.residency()));
                let y = std::thread::spawn(move || Box::new(y)).join().expect("joined");
                assert_eq!((y.as_ptr().addr(), places(y.residency())), (address, before));
                expect(&y.slice(offset..offset + words), 0, 67, 0);
            }
        }
    });
}

/// Bandwidth there and back, by size and variant. As in the kernel's, only that all of it arrives is asserted; times are the
/// reader's to judge. VKHMM_HMM_BENCH_MIB (default 8) is the largest size.
#[test]
fn benchmark_thp_migration() {
    let _dog = watchdog("benchmark_thp_migration", 120);
    const ROUNDS: usize = 5;
    let most = setting("VKHMM_HMM_BENCH_MIB", 8) as usize * (1 << 20);
    for setup in VARIANTS {
        let sizes = (0..).map(|i| (512 << 10) << i).take_while(|bytes| *bytes <= most);
        for bytes in sizes {
            let rig = Rig::open(setup, setup.builder());
            let words = bytes / 4;
            let mut x = rig.filled(words, 68);
            let mut times = [0.0; 2];
            for round in 0..ROUNDS {
                let start = Instant::now();
                let report = rig.migrate(x.write());
                times[0] += start.elapsed().as_secs_f64();
                assert_eq!(report.moved.in_bytes(), bytes as u64, "{}", report.moved);
                let before = rig.rt.stats();
                let start = Instant::now();
                drop(x.host_mut().expect("home"));
                times[1] += start.elapsed().as_secs_f64();
                assert_eq!(rig.rt.stats().since(&before).out_bytes(), bytes as u64);
                assert_eq!(x[round], pattern(round, 68));
            }
            expect(&x, 0, 68, 0);
            let [there, back] = times.map(|t| t / ROUNDS as f64);
            println!(
                "{:?} {:6} KiB: there {:7.3} ms {:6.2} GB/s, back {:7.3} ms {:6.2} GB/s",
                setup.kind,
                bytes >> 10,
                there * 1e3,
                bytes as f64 / there / 1e9,
                back * 1e3,
                bytes as f64 / back / 1e9
            );
            crate::common::clean(&rig.rt);
        }
    }
}
