//! Kernels work on the host's own bytes: all of them on UnifiedMemory, those of small arrays everywhere.

use crate::common::{
    ALL, BLOCK, PAGE, SUB, WORDS, checked, clean, declared, kernel, open, setups, since, spv, watchdog,
};
use crate::{Finder, LARGE, unified};
use std::time::{Duration, Instant};
use vkhmm::{Error, Grid, Location, Managed, MemoryError, MemoryKind, PlacementKind, Runtime};

/// Where every byte of these arrays is: on the host, and no launch is at it.
#[track_caller]
fn at_home(arrays: &[Managed<u32>]) {
    for x in arrays {
        let runs = x.residency().expect("residency");
        assert!(runs.iter().all(|r| r.location == Location::Host && !r.dirty), "`{}`: {runs:?}", x.label());
    }
}

#[track_caller]
fn kinds(arrays: &[Managed<u32>]) -> Vec<PlacementKind> {
    arrays.iter().map(|x| x.placement().kind).collect()
}

/// Twelve times what the device may have, in one launch: no byte moves, no frame is taken, and touches wait for what they must.
#[test]
fn megabytes_in_place_move_nothing() {
    let _dog = watchdog("megabytes in place", 60);
    const N: usize = 3 << 20;
    let Some(builder) = unified() else { return };
    let rt = open(builder.device_memory_limit(1 << 20));
    let (add_one, spin) = (kernel(&rt, spv::ADD_ONE), kernel(&rt, spv::SPIN));
    let mut arrays = [rt.alloc_named::<u32>(N, "x").expect("alloc")];
    let [x] = &mut arrays;
    x.slice_mut(..N / 2).iter_mut().enumerate().for_each(|(i, v)| *v = i as u32);
    let before = rt.stats();
    for _ in 0..3 {
        rt.launch(&add_one, Grid::linear(N), (x.write(),)).expect("launch");
    }
    assert_eq!(x[N / 2 - 1], N as u32 / 2 + 2, "a touch comes after all launches before it");
    let want = |i: usize| if i < N / 2 { i as u32 + 3 } else { 3 };
    assert!(x.iter().enumerate().all(|(i, v)| *v == want(i)));
    rt.copy(x.slice(..N / 2).read(), x_second_half(x)).expect("copy");
    assert!(x.iter().enumerate().all(|(i, v)| *v == want(i % (N / 2))));
    // A touch of what a kernel writes waits for it; one of anything else does not.
    let mut part = x.slice_mut(..4096);
    let value = spun(want(9), 20_000);
    let long = rt.launch(&spin, Grid::linear(4096), (part.write(), 20_000u32, 4096u32)).expect("launch");
    rt.flush();
    assert_eq!(x.slice(N - WORDS..)[7], want(N / 2 - WORDS + 7));
    assert!(!long.is_done(), "a touch of another page waited");
    assert_eq!(x.slice(..WORDS)[9], value, "a touch did not wait for the kernel that writes its page");
    // What kernels only read can be read by both at the same time.
    let sum = kernel(&rt, spv::CHECKSUM);
    let mut to = rt.alloc::<u32>(1).expect("alloc");
    rt.launch(&sum, Grid::linear(N), (x.read(), to.write())).expect("launch");
    assert_eq!(x.slice(N - WORDS..)[7], want(N / 2 - WORDS + 7));
    assert_ne!(to[0], 0);
    let moved = since(&rt, &before);
    assert_eq!((moved.in_bytes(), moved.out_bytes(), moved.zeroed_bytes), (0, 0, 0), "{moved}");
    let by_path = moved.path_import_bytes + moved.path_staging_bytes + moved.path_cpu_bytes;
    assert_eq!((by_path, moved.moved_bytes), (0, 0), "{moved}");
    assert_eq!((moved.imports_refused, rt.device_memory().1, rt.pagemaps().len()), (0, 0, 0), "{moved}");
    assert!(moved.imported_bytes >= (N * 4) as u64, "{moved}");
    assert_eq!(rt.trim(ALL).expect("trim"), 0);
    assert_eq!(kinds(&arrays), [PlacementKind::InPlace]);
    at_home(&arrays);
    clean(&rt);
}

/// What `spin` makes of a word.
fn spun(word: u32, rounds: u32) -> u32 {
    let step = |value: u32| (value ^ (value >> 15)).wrapping_mul(0x2c1b_3c6d).wrapping_add(0x9e37_79b9);
    (0..rounds * 16).fold(word, |value, _| step(value))
}

/// The second half, whose pages are not in the first.
fn x_second_half(x: &Managed<u32>) -> vkhmm::Access<'static> {
    // SAFETY: nobody touches the second half until the launch has returned, and later touches wait for it.
    unsafe { x.raw(vkhmm::AccessKind::Overwrite, x.count() / 2..) }
}

/// Arrays of at most 64 KiB never migrate, whatever the device's memory is, and share nothing with each other.
#[test]
fn small_arrays_stay_where_they_are() {
    if unified().is_none() {
        return;
    }
    for setup in setups().into_iter().filter(|setup| setup.import) {
        let _dog = watchdog(&format!("small arrays, {setup:?}"), 60);
        let rt = open(setup.builder().device_memory_limit(1 << 20));
        let (add_one, spin) = (kernel(&rt, spv::ADD_ONE), kernel(&rt, spv::SPIN));
        let sizes = [1, 63, WORDS, WORDS + 1, 5 * WORDS, SUB / 4 - 1, SUB / 4];
        let small = |i: usize| rt.alloc_named::<u32>(sizes[i % sizes.len()], &format!("small {i}"));
        let mut arrays: Vec<Managed<u32>> = (0..35).map(|i| small(i).expect("alloc")).collect();
        arrays.iter_mut().enumerate().for_each(|(i, x)| x.fill(i as u32));
        let mut finder = Finder::new(&rt);
        let mut places = Vec::new();
        let before = rt.stats();
        for round in 0..6 {
            for x in &mut arrays {
                let n = x.count();
                rt.launch(&add_one, Grid::linear(n), (x.write(),)).expect("launch");
            }
            let now: Vec<u64> = arrays.iter().map(|x| finder.find(x.read(), 1, 1).0).collect();
            assert!(round == 0 || places == now, "an address changed");
            places = now;
            arrays[round].prefetch_to_device().expect("prefetch").wait().expect("wait");
            arrays[round].prefetch_to_host().expect("prefetch").wait().expect("wait");
            assert_eq!(rt.trim(ALL).expect("trim"), 0);
        }
        for (i, x) in arrays.iter().enumerate() {
            assert!(x.iter().all(|v| *v == i as u32 + 6), "{}", x.label());
        }
        let moved = since(&rt, &before);
        assert_eq!((moved.in_bytes(), moved.out_bytes(), rt.device_memory().1), (0, 0, 0), "{moved}");
        assert!(kinds(&arrays).iter().all(|kind| *kind == PlacementKind::InPlace));
        at_home(&arrays);
        // Neither on the host nor on the device do two of them meet.
        let blocks: std::collections::BTreeSet<_> =
            arrays.iter().map(|x| x.as_ptr().addr() / BLOCK).collect();
        assert_eq!(blocks.len(), arrays.len(), "two arrays in one block");
        let mut ends: Vec<_> =
            places.iter().zip(&arrays).map(|(at, x)| (*at, at + x.count() as u64 * 4)).collect();
        ends.sort_unstable();
        assert!(ends.windows(2).all(|two| two[0].1 <= two[1].0), "two arrays overlap: {ends:x?}");
        // A kernel has one of them; all others are free.
        let last = arrays.len() - 1;
        let (others, busy) = arrays.split_at_mut(last);
        let n = busy[0].count();
        let long = rt.launch(&spin, Grid::linear(n), (busy[0].write(), 100_000_000 / n as u32, n as u32));
        let long = long.expect("launch");
        rt.flush();
        others.iter_mut().for_each(|x| x[0] += 1);
        assert!(!long.is_done(), "somebody waited for another array's kernel");
        long.wait().expect("wait");
        // One word more, and it moves, except where everything is used in place.
        let mut more = rt.alloc::<u32>(SUB / 4 + 1).expect("alloc");
        rt.launch(&add_one, Grid::linear(SUB / 4 + 1), (more.write(),))
            .expect("launch")
            .wait()
            .expect("wait");
        let in_place = more.placement().kind == PlacementKind::InPlace;
        assert_eq!(in_place, setup.kind == MemoryKind::UnifiedMemory, "{}", more.placement());
        assert_eq!(rt.device_memory().1 > 0, !in_place);
        assert_eq!(more[SUB / 4], 1);
        clean(&rt);
    }
}

/// The setting: a byte more or less, and none at all.
#[test]
fn how_small_is_said_by_the_setting() {
    let _dog = watchdog("in_place_bytes", 60);
    if unified().is_none() {
        return;
    }
    for (bytes, in_place) in [(0, false), (PAGE as u64 - 1, false), (PAGE as u64, true), (u64::MAX, true)] {
        let rt = open(checked().memory_kind(MemoryKind::DevicePrivate).in_place_bytes(bytes));
        let mut page = rt.alloc::<u32>(WORDS).expect("alloc");
        rt.fill(page.overwrite(), 3).expect("fill");
        assert!(page.iter().all(|v| *v == 3));
        assert_eq!(
            page.placement().kind == PlacementKind::InPlace,
            in_place,
            "{bytes}: {}",
            page.placement()
        );
        assert_eq!(rt.stats().out_bytes(), if in_place { 0 } else { PAGE as u64 }, "{}", rt.stats());
        let large = rt.alloc::<u32>(LARGE).expect("alloc").placement();
        assert_eq!(large.kind == PlacementKind::InPlace, bytes == u64::MAX, "{large}");
        clean(&rt);
    }
}

/// Where the import is refused at first use, the array moves from then on, says why, and is right.
#[test]
fn what_cannot_be_imported_moves() {
    let _dog = watchdog("import refused", 60);
    let Some(builder) = unified() else { return };
    let rt = open(builder.import_limit(LARGE as u64 * 4 + PAGE as u64));
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut arrays = [0, 1].map(|i| rt.alloc_named::<u32>(LARGE, &format!("array {i}")).expect("alloc"));
    for round in 1..4 {
        for x in &mut arrays {
            rt.launch(&add_one, Grid::linear(LARGE), (x.write(),)).expect("launch");
            assert!(x.iter().all(|v| *v == round), "round {round}");
        }
    }
    let [first, second] = arrays.each_ref().map(|x| x.placement());
    assert_eq!(first.kind, PlacementKind::InPlace, "{first}");
    assert_ne!(second.kind, PlacementKind::InPlace, "{second}");
    assert!(second.why.contains("import"), "{second}");
    let stats = rt.stats();
    let bytes = LARGE as u64 * 4;
    assert_eq!(stats.zeroed_bytes + stats.in_bytes(), bytes, "what the host only loads stays there: {stats}");
    assert_eq!(stats.out_bytes(), 3 * bytes, "{stats}");
    assert!(stats.imports_refused > 0, "{stats}");
    clean(&rt);
}

/// Freed while a kernel works on it in place: nothing blocks, nothing of it comes back, and the kernel hurts nobody.
#[test]
fn freed_while_a_kernel_works_in_place() {
    let _dog = watchdog("freed in place", 60);
    let Some(builder) = unified() else { return };
    let rt: Runtime = open(builder.reservation(16 << 20));
    let spin = kernel(&rt, spv::SPIN);
    for _ in 0..8 {
        let mut x = rt.alloc::<u32>(LARGE).expect("alloc");
        x.fill(7);
        let launch = rt.launch(&spin, Grid::linear(4096), (x.write(), 2000u32, 4096u32)).expect("launch");
        let (old, started) = (x.as_ptr().addr(), Instant::now());
        drop(x);
        assert!(started.elapsed() < Duration::from_millis(50), "drop blocked for {:?}", started.elapsed());
        let mut y = rt.alloc::<u32>(LARGE).expect("alloc");
        assert!(y.as_ptr().addr() != old || launch.is_done());
        assert!(y.iter().all(|v| *v == 0));
        y.fill(5);
        launch.wait().expect("a launch outlives what it writes");
        assert!(y.iter().all(|v| *v == 5));
    }
    clean(&rt);
}

/// Guards, refusals and loads by the kernel mean in place what they mean elsewhere.
#[test]
fn guards_keep_kernels_away_in_place() {
    let _dog = watchdog("guards in place", 60);
    let Some(builder) = unified() else { return };
    let rt = open(builder);
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut x = rt.alloc::<u32>(LARGE).expect("alloc");
    rt.launch(&add_one, Grid::linear(LARGE), (x.write(),)).expect("launch");
    {
        let (mut left, right) = x.split_at_mut(LARGE / 2).expect("on a page");
        let guard = right.host().expect("guard");
        assert!(guard.iter().all(|v| *v == 1), "the guard comes after the launch");
        rt.launch(&add_one, Grid::linear(LARGE / 2), (left.write(),)).expect("the other half is free");
        let sum = kernel(&rt, spv::CHECKSUM);
        let mut to = rt.alloc::<u32>(1).expect("alloc");
        let refused = rt.launch(&sum, Grid::linear(LARGE / 2), (right.read(), to.write()));
        assert!(matches!(refused, Err(Error::Memory(MemoryError::Guarded { .. }))), "{refused:?}");
        drop(guard);
        rt.launch(&sum, Grid::linear(LARGE / 2), (right.read(), to.write())).expect("launch");
    }
    if !declared(&rt) {
        // A raw store beside a launch that only reads waits for it, or not, but is never lost.
        let sum = kernel(&rt, spv::CHECKSUM);
        let mut to = rt.alloc::<u32>(1).expect("alloc");
        rt.launch(&sum, Grid::linear(LARGE), (x.read(), to.write())).expect("launch");
        x[3] = 99;
        rt.launch(&add_one, Grid::linear(LARGE), (x.write(),)).expect("launch");
        assert_eq!((x[0], x[3], x[LARGE - 1]), (3, 100, 2));
    }
    clean(&rt);
}
