//! Prefetch, advice, discard, pins and attributes end to end, on whatever device there is; once more under `declared`.

mod common;

use common::{SUB, WORDS, checked, clean, kernel, memory, moves, moving, open, since, spv, watchdog};
use std::time::Duration;
use vkhmm::{
    Advice, Builder, FaultEngine, Grid, Location, Managed, MemoryError, PlacementKind, Side, SkipReason,
};

/// Device memory of the runtimes here.
const LIMIT: u64 = 8 << 20;
/// Elements of an array of 2 MiB.
const N: usize = 32 * SUB / 4;

/// Runs `play` under the usual fault engine, and under `declared`.
fn under_each(name: &'static str, play: fn(Builder)) {
    let _dog = watchdog(name, 120);
    play(moving().device_memory_limit(LIMIT));
    play(moving().device_memory_limit(LIMIT).fault_engine(FaultEngine::Declared));
}

fn all_at(x: &Managed<u32>, locations: &[Location]) -> bool {
    x.residency().expect("residency").iter().all(|r| locations.contains(&r.location))
}

#[test]
fn a_prefetch_home_follows_its_launch_and_a_batch_is_one_ticket() {
    under_each("prefetch", |builder| {
        let rt = open(builder);
        let (mut x, mut y) = (rt.alloc::<u32>(N).expect("alloc"), rt.alloc::<u32>(N).expect("alloc"));
        rt.fill(x.overwrite(), 3).expect("fill");
        rt.fill(y.overwrite(), 4).expect("fill");
        let before = rt.stats();
        let home = rt.prefetch(&[x.read(), y.slice(..N / 2).read()], Side::Host).expect("prefetch");
        home.wait().expect("wait");
        assert!(home.is_done() && home.skipped().is_empty(), "{home:?}");
        let moved = since(&rt, &before);
        assert_eq!(moved.out_prefetch_bytes, if moves(&x) { 6 * N as u64 } else { 0 });
        assert!(all_at(&x, &[Location::Shared, Location::Host]));
        assert!(x.iter().all(|v| *v == 3) && y.iter().all(|v| *v == 4));
        (x[0], y[0]) = (7, 7);
        let away = rt.prefetch(&[x.read(), y.read()], Side::Device).expect("prefetch");
        assert!(away.wait_timeout(Duration::from_secs(30)).expect("wait"));
        assert!(away.skipped().is_empty() && (x[0], y[0]) == (7, 7));
        // Larger than the limit: what fits, and the rest by name.
        let mut big = rt.alloc_named::<u32>(8 * N, "big").expect("alloc");
        big.fill(1);
        let part = big.prefetch_to_device().expect("a hint never fails for want of room");
        if moves(&big) {
            assert!(part.skipped().iter().all(|s| s.why == SkipReason::NoRoom && &*s.label == "big"));
            assert!(!part.skipped().is_empty() && part.moved_bytes() <= LIMIT, "{part:?}");
        }
        part.wait().expect("wait");
        let other = open(checked());
        let refused = other.prefetch(&[x.read()], Side::Device);
        assert!(matches!(refused, Err(vkhmm::Error::ForeignRuntime { argument: 0 })));
        assert!(big.iter().all(|v| *v == 1));
        clean(&rt);
    });
}

#[test]
fn what_is_discarded_is_not_copied_home() {
    under_each("discard", |builder| {
        let rt = open(builder);
        let mut x = rt.alloc::<u32>(N).expect("alloc");
        rt.fill(x.overwrite(), 9).expect("fill");
        let before = rt.stats();
        let saved = x.slice_mut(10..N / 2 + 10).discard().expect("discard");
        let bytes = (2 * N - 4096) as u64;
        assert_eq!(saved, if moves(&x) { bytes } else { 0 });
        let got = x.to_vec();
        for (i, v) in got.iter().enumerate() {
            let dead = (WORDS..N / 2).contains(&i) && *v == 0;
            assert!(*v == 9 || dead, "element {i} is {v}");
        }
        assert_eq!(x.to_vec(), got, "the same every time");
        let moved = since(&rt, &before);
        assert_eq!(moved.discarded_bytes, saved);
        assert_eq!(moved.out_bytes(), if moves(&x) { 4 * N as u64 - saved } else { 0 });
        rt.fill(x.overwrite(), 5).expect("fill");
        x.discard().expect("discard");
        rt.fill(x.overwrite(), 6).expect("fill");
        assert!(x.iter().all(|v| *v == 6));
        assert_eq!(rt.alloc::<u32>(0).expect("alloc").discard().expect("nothing"), 0);
        clean(&rt);
    });
}

#[test]
fn pins_keep_their_side() {
    under_each("pins", |builder| {
        let rt = open(builder);
        let (mut x, mut y) = (rt.alloc::<u32>(N).expect("alloc"), rt.alloc::<u32>(4 * N).expect("alloc"));
        x.fill(2);
        let home = x.pin_to_host().expect("pin");
        assert!(matches!(memory(rt.fill(x.overwrite(), 1)), MemoryError::Guarded { .. }));
        assert!(x.attributes().expect("attributes").iter().all(|a| a.pinned_host));
        // `Send + 'static`: dropped by whoever has it last.
        std::thread::spawn(move || drop(home)).join().expect("dropped");
        rt.fill(x.overwrite(), 3).expect("fill");
        let pin = x.pin_to_device().expect("pin");
        assert_eq!(pin.side(), Side::Device);
        if moves(&x) {
            match memory(rt.fill(y.overwrite(), 1)) {
                MemoryError::WorkingSetTooLarge { held, .. } => assert_eq!(held, 4 * N as u64),
                other => panic!("{other}"),
            }
        }
        rt.fill(y.slice_mut(..3 * N).overwrite(), 1).expect("beside it");
        rt.trim(u64::MAX).expect("trim");
        rt.sync().expect("sync");
        if moves(&x) {
            assert!(all_at(&x, &[Location::Device, Location::Shared]));
        }
        assert!(x.iter().all(|v| *v == 3));
        x[5] = 4;
        let add_one = kernel(&rt, spv::ADD_ONE);
        rt.launch(&add_one, Grid::linear(N), (x.write(),)).expect("launch");
        assert_eq!((x[4], x[5]), (4, 5));
        drop(pin);
        rt.fill(y.overwrite(), 8).expect("all of it, now");
        assert!(y.iter().all(|v| *v == 8) && x[5] == 5);
        let orphan = y.slice(..N).pin_to_device().expect("pin");
        drop(y);
        drop(orphan);
        clean(&rt);
    });
}

#[test]
fn advice_is_kept_and_changes_no_byte() {
    under_each("advice", |builder| {
        let rt = open(builder);
        let add_one = kernel(&rt, spv::ADD_ONE);
        let advices = [
            Advice::PreferredLocation(Some(Side::Host)),
            Advice::PreferredLocation(Some(Side::Device)),
            Advice::ReadMostly(true),
            Advice::AccessedBy(true),
        ];
        for advice in advices {
            let mut x = rt.alloc::<u32>(N).expect("alloc");
            x.slice(..N / 2).advise(advice).expect("advise");
            x.advise(advice).expect("advise");
            let before = rt.stats();
            for round in 0..4 {
                x[round * 100] = 50;
                rt.launch(&add_one, Grid::linear(N), (x.write(),)).expect("launch");
                assert_eq!((x[round * 100], x[N - 1]), (51, round as u32 + 1));
            }
            let told = x.attributes().expect("attributes");
            assert_eq!(told.len(), 1, "{told:?}");
            let (said, places) = (told[0].advised, told[0].places);
            match advice {
                Advice::PreferredLocation(side) => assert_eq!(said.preferred, side),
                Advice::ReadMostly(yes) => assert_eq!(said.read_mostly, yes),
                Advice::AccessedBy(yes) => {
                    assert_eq!(said.accessed_by, yes);
                    if told[0].in_place {
                        assert_eq!(x.placement().kind, PlacementKind::InPlace);
                        let moved = since(&rt, &before);
                        assert_eq!(moved.in_bytes() + moved.out_bytes(), 0, "{moved}");
                    } else {
                        assert!(x.placement().why.contains("although advised"), "{}", x.placement());
                    }
                }
            }
            assert_eq!(places.host + places.shared + places.device, 4 * N as u64);
        }
        clean(&rt);
    });
}
