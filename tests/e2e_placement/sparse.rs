//! One buffer per array for its life: frames come and go under an address that stays.

use crate::common::{
    ALL, Random, SUB, WORDS, checked, clean, kernel, memory, open, setting, since, spv, until, up, watchdog,
};
use crate::{Finder, LARGE, sparse};
use std::collections::BTreeSet;
use vkhmm::{Grid, Location, Managed, MemoryError, MemoryKind, PlacementChoice, PlacementKind, Pod, Runtime};

/// Three arrays of which one and a half fit, launched on in turn, trimmed, touched: every one stays where it was found first, also in part, and
/// has its bytes. VKHMM_PLACEMENT_ROUNDS says for how long.
#[test]
fn an_address_stays_over_thousands_of_evictions() {
    // Two sub-blocks.
    const EACH: usize = 20 * WORDS;
    let _dog = watchdog("addresses", 240);
    let Some(builder) = sparse() else { return };
    let rounds = setting("VKHMM_PLACEMENT_ROUNDS", 2000) as usize;
    let rt = open(builder.device_memory_limit(3 * SUB as u64));
    let (add_one, bump) = (kernel(&rt, spv::ADD_ONE), kernel(&rt, spv::BUMP));
    let stable = |i: usize| rt.alloc_stable_named::<u32>(EACH, &format!("stable {i}"));
    let mut arrays: Vec<Managed<u32>> = (0..3).map(|i| stable(i).expect("alloc")).collect();
    arrays.iter_mut().enumerate().for_each(|(i, x)| x.fill(i as u32 * 1000));
    let mut twins: Vec<u32> = (0..3).map(|i| i * 1000).collect();
    let mut finder = Finder::new(&rt);
    let homes: Vec<u64> = arrays.iter().map(|x| finder.find(x.read(), 1, 1).0).collect();
    let mut random = Random::new(5);
    let before = rt.stats();
    for round in 0..rounds {
        let which = round % 3;
        let x = &mut arrays[which];
        assert_eq!(x.placement().kind, PlacementKind::Sparse);
        match round % 4 {
            0 => {
                rt.launch(&add_one, Grid::linear(EACH), (x.write(),)).expect("launch");
                twins[which] += 1;
            }
            // A launch that has all of it for writing and changes nothing.
            1 => drop(rt.launch(&bump, Grid::linear(1), (x.write(), u32::MAX, 1u32)).expect("launch")),
            2 => assert_eq!(x[random.below(EACH)], twins[which]),
            _ => {}
        }
        let sampled = EACH.div_ceil(WORDS) as u32;
        assert_eq!(
            finder.find(x.read(), EACH, WORDS),
            (homes[which], twins[which].wrapping_mul(sampled)),
            "round {round}, `{}`",
            x.label()
        );
        let from = random.below(EACH - 1);
        let part = x.slice(from..);
        assert_eq!(finder.find(part.read(), 1, 1), (homes[which] + from as u64 * 4, twins[which]));
        if round % 8 == 7 {
            rt.trim(ALL).expect("trim");
        }
    }
    for (x, twin) in arrays.iter().zip(&twins) {
        assert!(x.iter().all(|v| v == twin), "`{}`", x.label());
    }
    let moved = since(&rt, &before);
    println!("{rounds} rounds\n{moved}");
    assert!(moved.evictions_clean > 0 && moved.evictions_dirty > 0, "{moved}");
    assert!(moved.evictions_clean + moved.evictions_dirty >= rounds as u64 / 4 * 3, "{moved}");
    assert_eq!(moved.moved_bytes, 0, "frames of any place will do: {moved}");
    clean(&rt);
}

/// A kernel that knows nothing of it, on one array of four times the limit, each launch on what fits.
#[test]
fn an_unmodified_kernel_over_four_times_the_limit() {
    let _dog = watchdog("four times the limit", 120);
    let Some(builder) = sparse() else { return };
    let limit = 4 << 20;
    let rt = open(builder.device_memory_limit(limit).strict_io(false));
    let n = 2 * limit as usize / 4 + 13;
    let (mut x, mut y) = (rt.alloc::<f32>(n).expect("alloc"), rt.alloc::<f32>(n).expect("alloc"));
    x.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 1000) as f32);
    y.fill(1.0);
    let saxpy = kernel(&rt, spv::SAXPY);
    let mut finder = Finder::new(&rt);
    let base = finder.find(x.slice(..1).read(), 1, 1).0;
    let before = rt.stats();
    for window in rt.windows(n, 8, 2) {
        let (count, start) = (window.len(), window.start);
        let (from, mut to) = (x.slice(window.clone()), y.slice_mut(window));
        rt.launch(&saxpy, Grid::linear(count), (from.read(), to.write(), 2.0f32, count as u32))
            .expect("launch");
        assert!(rt.device_memory().1 <= limit, "{:?}", rt.device_memory());
        assert_eq!(finder.find(from.slice(..1).read(), 1, 1).0, base + start as u64 * 4);
    }
    let wrong = y.iter().enumerate().find(|(i, v)| **v != 2.0 * (i % 1000) as f32 + 1.0);
    assert_eq!(wrong, None);
    let moved = since(&rt, &before);
    // The first sub-block of x was there before.
    let all = up(n * 4, 4096);
    assert!((2 * all - SUB as u64..=2 * all).contains(&moved.in_bytes()), "each byte in once: {moved}");
    assert_eq!((moved.out_bytes(), moved.moved_bytes), (all, 0), "each written byte home once: {moved}");
    // Backwards, in windows that begin anywhere: nothing of what is there is in the way.
    let add_one = kernel(&rt, spv::ADD_ONE);
    let mut z = rt.alloc::<u32>(n).expect("alloc");
    let step = limit as usize / 4 - SUB / 4 + 64;
    for from in (0..n).step_by(step).collect::<Vec<_>>().into_iter().rev() {
        let to = (from + step).min(n);
        rt.launch(&add_one, Grid::linear(to - from), (z.slice_mut(from..to).write(),)).expect("launch");
    }
    assert!(z.iter().all(|v| *v == 1));
    // All of it at a time is more than the limit, and says so.
    let refused = memory(rt.launch(&add_one, Grid::linear(n), (z.write(),)));
    assert!(matches!(refused, MemoryError::WorkingSetTooLarge { .. }), "{refused:?}");
    clean(&rt);
}

/// Stable or refused, with the reason; in spans where spans were asked for.
#[test]
fn stable_is_promised_or_refused() {
    let _dog = watchdog("stable", 60);
    let moving = checked().memory_kind(MemoryKind::DevicePrivate).in_place_bytes(0);
    let rt = open(moving.placement(PlacementChoice::Span));
    let before = rt.stats();
    for count in [1, SUB, LARGE] {
        let refused = memory(rt.alloc_stable_named::<u32>(count, "fixed"));
        let said = refused.to_string();
        assert!(
            matches!(&refused, MemoryError::NotStable { label, bytes, why }
                if &**label == "fixed" && *bytes == count as u64 * 4 && !why.is_empty() && said.contains(&**why)),
            "{refused:?}"
        );
    }
    assert_eq!(rt.stats(), before, "a refusal changes nothing");
    let nothing = rt.alloc_stable::<u32>(0).expect("nothing never moves");
    assert!(nothing.is_empty());
    let mut x = rt.alloc::<u32>(LARGE).expect("alloc");
    assert_eq!(x.placement().kind, PlacementKind::Span, "{}", x.placement());
    rt.fill(x.overwrite(), 4).expect("fill");
    assert!(x.iter().all(|v| *v == 4));
    clean(&rt);
    let Some(builder) = sparse() else { return };
    let rt = open(builder);
    let mut x = rt.alloc_stable::<u32>(LARGE).expect("alloc");
    assert!(x.label().contains("sparse.rs:"), "{}", x.label());
    assert_eq!((x.placement().kind, x.slice(5..9).placement()), (PlacementKind::Sparse, x.placement()));
    rt.fill(x.overwrite(), 4).expect("fill");
    assert!(x.iter().all(|v| *v == 4));
    let small = rt.alloc_stable::<u32>(WORDS).expect("alloc");
    assert_ne!(small.placement().kind, PlacementKind::Span, "{}", small.placement());
    clean(&rt);
}

/// Arrays until the device's sparse address space is full, and one more. `None` if 64 GiB do not fill it.
pub(crate) fn fill_the_space<T: Pod>(rt: &Runtime, bytes: usize) -> Option<(Vec<Managed<T>>, Managed<T>)> {
    let mut all = Vec::new();
    while all.len() * bytes < 64 << 30 {
        let x = rt.alloc_named::<T>(bytes / size_of::<T>(), &format!("array {}", all.len())).expect("alloc");
        if x.placement().kind == PlacementKind::Span {
            return Some((all, x));
        }
        all.push(x);
    }
    println!("exempt: 64 GiB do not fill the sparse address space of this device");
    None
}

/// What is above the device's sparse address space is in spans, says so, and works beside the others, also in one launch; space that
/// was given back is used again.
#[test]
fn above_the_sparse_address_space() {
    let _dog = watchdog("sparse address space", 120);
    let Some(builder) = sparse() else { return };
    let rt = open(builder.device_memory_limit(8 << 20));
    let Some((mut all, mut above)) = fill_the_space::<u32>(&rt, 384 << 20) else { return };
    assert!(!all.is_empty());
    let why = above.placement().why;
    assert!(why.contains("MiB of sparse buffers are taken"), "{why}");
    let refused = memory(rt.alloc_stable::<u32>((384 << 20) / 4));
    assert!(
        matches!(&refused, MemoryError::NotStable { why, .. } if why.contains("sparse buffers are taken")),
        "{refused}"
    );
    let (saxpy, add_one) = (kernel(&rt, spv::SAXPY_ADDRESS), kernel(&rt, spv::ADD_ONE));
    let parts = [0, 40 << 20, (384 << 20) / 4 - LARGE];
    for round in 1..4u32 {
        for x in all.iter_mut().chain([&mut above]) {
            for at in parts {
                let mut part = x.slice_mut(at..at + LARGE);
                rt.launch(&add_one, Grid::linear(LARGE), (part.write(),)).expect("launch");
            }
        }
        for x in all.iter().chain([&above]) {
            for at in parts {
                assert!(x.slice(at..at + LARGE).iter().all(|v| *v == round), "{}", x.label());
            }
        }
    }
    all[0].slice_mut(..LARGE).fill(1.0f32.to_bits());
    above.slice_mut(..LARGE).fill(2.0f32.to_bits());
    let (from, mut to) = (all[0].slice(..LARGE), above.slice_mut(..LARGE));
    rt.launch(&saxpy, Grid::linear(LARGE), (from.read(), to.write(), 3.0f32, LARGE as u32)).expect("launch");
    drop((from, to));
    let (mut from, to) = (all[0].slice_mut(..LARGE), above.slice(..LARGE));
    rt.launch(&saxpy, Grid::linear(LARGE), (to.read(), from.write(), 3.0f32, LARGE as u32)).expect("launch");
    assert!(above.slice(..LARGE).iter().all(|v| *v == 5.0f32.to_bits()));
    assert!(all[0].slice(..LARGE).iter().all(|v| *v == 16.0f32.to_bits()));
    // One goes, one comes.
    drop(all.pop());
    until("the space", || {
        let x = rt.alloc::<u32>((384 << 20) / 4).expect("alloc");
        (x.placement().kind == PlacementKind::Sparse).then_some(())
    });
    clean(&rt);
}

/// Dropped while kernels, copies and binds are under way: nothing blocks, nothing of it comes back in what has its frames or its
/// addresses next.
#[test]
fn freed_while_in_use() {
    let _dog = watchdog("freed while in use", 60);
    let Some(builder) = sparse() else { return };
    let rt = open(builder.device_memory_limit(2 * LARGE as u64 * 4).reservation(16 << 20));
    let (spin, add_one) = (kernel(&rt, spv::SPIN), kernel(&rt, spv::ADD_ONE));
    let mut homes = BTreeSet::new();
    let mut finder = Finder::new(&rt);
    for round in 0..30u32 {
        let mut x = rt.alloc::<u32>(LARGE).expect("alloc");
        x.fill(round);
        let launch = rt.launch(&spin, Grid::linear(4096), (x.write(), 500u32, 4096u32)).expect("launch");
        if round % 3 == 0 {
            rt.trim(1).expect("trim");
        }
        drop(x);
        let mut y = rt.alloc::<u32>(LARGE).expect("alloc");
        rt.launch(&add_one, Grid::linear(LARGE), (y.write(),)).expect("launch");
        homes.insert(finder.find(y.read(), LARGE, WORDS).0);
        assert!(y.iter().all(|v| *v == 1), "round {round}");
        launch.wait().expect("a launch outlives what it writes");
        y.prefetch_to_device().expect("prefetch");
    }
    println!("{} addresses", homes.len());
    clean(&rt);
}

/// Prefetches, guards, limits and trims: frames are counted and come back, whatever is bound where.
#[test]
fn limits_and_trims() {
    let _dog = watchdog("limits", 60);
    let Some(builder) = sparse() else { return };
    let rt = open(builder.device_memory_limit(16 << 20));
    let mut finder = Finder::new(&rt);
    let bytes = LARGE as u64 * 4;
    let mut arrays: Vec<_> = (0..4).map(|_| rt.alloc::<u32>(2 * LARGE).expect("alloc")).collect();
    let homes: Vec<_> = arrays.iter().map(|x| finder.find(x.slice(..1).read(), 1, 1).0).collect();
    for (i, x) in arrays.iter_mut().enumerate() {
        rt.fill(x.overwrite(), i as u32 + 1).expect("fill");
    }
    assert_eq!(rt.device_memory(), (16 << 20, 8 * bytes));
    // Half of them must go, and what is left is wherever it was.
    rt.set_device_memory_limit(4 * bytes).expect("limit");
    assert!(rt.device_memory().1 <= 4 * bytes);
    let sum = kernel(&rt, spv::CHECKSUM);
    let mut to = rt.alloc::<u32>(1).expect("alloc");
    for (x, home) in arrays.iter().zip(&homes) {
        rt.launch(&sum, Grid::linear(2 * LARGE), (x.read(), to.write())).expect("launch");
        assert_eq!(finder.find(x.slice(LARGE..).read(), 1, 1).0, home + bytes);
    }
    // A guard keeps its pages; the rest of the array may be elsewhere.
    {
        let guarded = arrays[0].slice(..WORDS);
        let guard = guarded.host().expect("guard");
        assert!(guard.iter().all(|v| *v == 1));
        arrays[0].slice(LARGE..).prefetch_to_device().expect("prefetch").wait().expect("wait");
    }
    // An odd limit, one sub-block above what two halves need.
    rt.set_device_memory_limit(2 * bytes + SUB as u64).expect("limit");
    for x in &mut arrays {
        let mut middle = x.slice_mut(LARGE / 2..LARGE + LARGE / 2);
        rt.fill(middle.overwrite(), 9).expect("fill");
        assert!(rt.device_memory().1 <= 2 * bytes + SUB as u64);
    }
    for (i, x) in arrays.iter().enumerate() {
        let want = |at: usize| if (LARGE / 2..LARGE + LARGE / 2).contains(&at) { 9 } else { i as u32 + 1 };
        assert!(x.iter().enumerate().all(|(at, v)| *v == want(at)), "array {i}");
    }
    rt.trim(ALL).expect("trim");
    rt.sync().expect("sync");
    assert!(
        arrays.iter().all(|x| x.residency().expect("residency").iter().all(|r| r.location == Location::Host))
    );
    drop(arrays);
    until("the frames", || (rt.device_memory().1 == 0).then_some(()));
    clean(&rt);
}
