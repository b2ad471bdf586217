//! Arrays that are reached in different ways, in one launch and one after the other; and what a lost device takes of each.

use crate::common::{
    ALL, SUB, WORDS, checked, clean, kernel, memory, moves, open, quiet, setting, setups, spv, until,
    watchdog,
};
use crate::{Finder, LARGE, sparse};
use std::collections::BTreeSet;
use vkhmm::{
    Error, Grid, Kernel, Launch, Managed, MemoryError, MemoryKind, PlacementKind, Runtime, Switches,
};

/// Rows and columns of the matrices: one of them is as large as an array in place may be.
const SIDE: usize = 128;

/// C = A B on parts of three arrays, in one launch; `at` is where B and C start in theirs.
fn product(rt: &Runtime, a: &mut Managed<f32>, b: &mut Managed<f32>, c: &mut Managed<f32>, at: usize) {
    // SAFETY: gemm.comp ends, has no data race and stays inside A, B and C.
    let gemm = unsafe { rt.kernel(include_bytes!("../../shaders/spv/gemm.spv")) }.expect("a shipped kernel");
    let of = |i: usize, j: usize| ((i * 3 + j * 7) % 11) as f32;
    let place = |i: usize| (i / SIDE, i % SIDE);
    a.iter_mut().enumerate().for_each(|(i, v)| *v = of(place(i).0, place(i).1));
    let part = at..at + SIDE * SIDE;
    b.slice_mut(part.clone()).iter_mut().enumerate().for_each(|(i, v)| *v = of(place(i).1, place(i).0));
    let grid = Grid::linear(SIDE / 8 * (SIDE / 4));
    let side = SIDE as u32;
    let (b, mut c) = (b.slice(part.clone()), c.slice_mut(part));
    let sizes = [side, side, side, side, side, side, 0];
    rt.launch(&gemm, grid, (a.read(), b.read(), c.overwrite(), sizes)).expect("launch");
    for (i, v) in c.iter().enumerate() {
        let want: f32 = (0..SIDE).map(|p| of(place(i).0, p) * of(place(i).1, p)).sum();
        assert_eq!(*v, want, "element {:?}", place(i));
    }
}

/// One kernel, one argument in place, one in its own buffer for life, one in a span; and fewer ways where the device has fewer.
#[test]
fn three_arguments_in_three_ways() {
    let _dog = watchdog("three ways", 120);
    for setup in setups().into_iter().filter(|setup| setup.import) {
        let rt = open(setup.builder().device_memory_limit(2 << 20));
        let mut a = rt.alloc::<f32>(SIDE * SIDE).expect("alloc");
        let (mut b, mut c) = (rt.alloc::<f32>(LARGE).expect("alloc"), rt.alloc::<f32>(LARGE).expect("alloc"));
        for at in [0, 64, LARGE - SIDE * SIDE, 5 * WORDS + 64] {
            product(&rt, &mut a, &mut b, &mut c, at);
        }
        println!("{:?}: {}; {}; {}", setup.kind, a.placement(), b.placement(), c.placement());
        clean(&rt);
    }
    let Some(builder) = sparse() else { return };
    let rt = open(builder.device_memory_limit(2 << 20));
    let Some((all, mut c)) = crate::sparse::fill_the_space::<f32>(&rt, 384 << 20) else { return };
    let mut a = rt.alloc::<f32>(SIDE * SIDE).expect("alloc");
    let mut b = all.into_iter().next().expect("one fits");
    for at in [0, 64, LARGE, (50 << 20) + 192] {
        product(&rt, &mut a, &mut b, &mut c, at);
    }
    let kinds = [&a, &b, &c].map(|x| x.placement().kind);
    assert_eq!(kinds, [PlacementKind::InPlace, PlacementKind::Sparse, PlacementKind::Span]);
    clean(&rt);
}

/// Launches that hand numbers from an array in place to one that moves and back, none of them waited for: each sees the one before.
#[test]
fn launches_in_a_row_from_one_to_the_other() {
    let _dog = watchdog("in a row", 60);
    for setup in setups() {
        let rt = open(setup.builder().device_memory_limit(1 << 20));
        let saxpy = kernel(&rt, spv::SAXPY_ADDRESS);
        let mut small = rt.alloc::<f32>(WORDS).expect("alloc");
        let mut large = rt.alloc::<f32>(LARGE).expect("alloc");
        for at in [0, 3, LARGE - WORDS] {
            small.fill(1.0);
            large.slice_mut(at..at + WORDS).fill(1.0);
            let (mut x, mut y) = (1.0f32, 1.0f32);
            for step in 0..14 {
                let mut part = large.slice_mut(at..at + WORDS);
                let count = WORDS as u32;
                rt.launch(&saxpy, Grid::linear(WORDS), (part.read(), small.write(), 1.0f32, count))
                    .expect("launch");
                rt.launch(&saxpy, Grid::linear(WORDS), (small.read(), part.write(), 1.0f32, count))
                    .expect("launch");
                (x, y) = (x + y, x + y + y);
                if step % 5 == 4 {
                    rt.trim(ALL).expect("trim");
                }
            }
            assert!(small.iter().all(|v| *v == x), "{} is not {x}", small[0]);
            assert!(large.slice(at..at + WORDS).iter().all(|v| *v == y), "{} is not {y}", large[at]);
        }
        clean(&rt);
    }
}

/// What is in place takes none of the device's memory: the limit is for the others alone, and an error names them alone.
#[test]
fn what_is_in_place_counts_against_no_limit() {
    let _dog = watchdog("limits of mixed launches", 60);
    let rt = open(checked().memory_kind(MemoryKind::DevicePrivate).device_memory_limit(LARGE as u64 * 4));
    let saxpy = kernel(&rt, spv::SAXPY_ADDRESS);
    let mut small = rt.alloc::<f32>(WORDS).expect("alloc");
    let mut large = rt.alloc::<f32>(LARGE).expect("alloc");
    rt.launch(&saxpy, Grid::linear(WORDS), (small.read(), large.write(), 1.0f32, WORDS as u32))
        .expect("fits");
    assert_eq!(rt.device_memory(), (LARGE as u64 * 4, LARGE as u64 * 4));
    let more = rt.alloc::<f32>(2 * LARGE).expect("alloc");
    let refused = memory(rt.launch(&saxpy, Grid::linear(1), (more.read(), small.write(), 1.0f32, 1u32)));
    assert!(
        matches!(refused, MemoryError::WorkingSetTooLarge { need, .. } if need == 2 * LARGE as u64 * 4),
        "{refused}"
    );
    large[0] = 1.0;
    small[0] = 2.0;
    clean(&rt);
}

/// What an application acquires lies where the kernels found it, and is called stable exactly where it stays there.
#[test]
fn what_is_acquired_lies_where_kernels_found_it() {
    let _dog = watchdog("acquired places", 60);
    for kind in [MemoryKind::DevicePrivate, MemoryKind::UnifiedMemory] {
        let rt = open(checked().memory_kind(kind).device_memory_limit(LARGE as u64 * 4));
        let mut finder = Finder::new(&rt);
        let arrays = [WORDS, LARGE, 20 * WORDS].map(|words| rt.alloc::<u32>(words).expect("alloc"));
        for x in &arrays {
            let stays = x.placement().kind != PlacementKind::Span;
            let mut places = BTreeSet::new();
            for _ in 0..10 {
                let found = finder.find(x.read(), 1, 1).0;
                let acquired = until("what was asked for", || match rt.acquire([x.read()]) {
                    Ok(acquired) => Some(acquired),
                    Err(Error::Memory(MemoryError::Busy { .. })) => None,
                    Err(other) => panic!("{other}"),
                });
                let place = acquired.places()[0];
                assert_eq!((place.address, place.size), (found, x.count() as u64 * 4));
                assert_eq!(place.stable, stays, "{}", x.placement());
                places.insert((place.buffer, place.offset, place.address));
                acquired.cancel();
                rt.trim(ALL).expect("trim");
            }
            assert!(!stays || places.len() == 1, "{}: {places:x?}", x.placement());
        }
        clean(&rt);
    }
}

struct Pair {
    real: Managed<u32>,
    twin: Vec<u32>,
    last: Option<Launch>,
}

/// Launches on small and large arrays in turn until the device is lost. Then every page is what the launches made of it, or it is
/// lost and named. How many bytes are lost, of arrays in place and of others.
fn play(rt: &Runtime, add_one: &Kernel) -> (u64, u64) {
    let pair = |words: usize| {
        let mut real = rt.alloc::<u32>(words).expect("alloc");
        real.fill(7);
        Pair { real, twin: vec![7; words], last: None }
    };
    let mut pairs = [WORDS + 1, 20 * WORDS + 5, 3 * WORDS, 24 * WORDS].map(pair);
    for step in 0..20 {
        let p = &mut pairs[step % 4];
        let n = p.twin.len();
        match rt.launch(add_one, Grid::linear(n), (p.real.write(),)) {
            Ok(launch) => {
                p.twin.iter_mut().for_each(|v| *v += 1);
                p.last = Some(launch);
            }
            Err(error) => {
                assert!(error.is_lost(), "step {step}: {error}");
                break;
            }
        }
        if step % 3 == 2 {
            match p.real.try_slice() {
                Ok(seen) => assert_eq!(*seen, p.twin, "step {step}"),
                Err(error) => assert!(error.is_lost(), "step {step}: {error}"),
            }
        }
        if step == 11 {
            let _ = rt.trim(ALL);
        }
    }
    let (mut in_place, mut moved) = (0, 0);
    for Pair { real, twin, last } in &pairs {
        let over = last.as_ref().is_none_or(|launch| launch.wait().is_ok());
        for (page, want) in twin.chunks(WORDS).enumerate() {
            let part = real.slice(page * WORDS..page * WORDS + want.len());
            match part.try_slice() {
                Ok(seen) => assert!(*seen == *want && part.check().is_ok(), "page {page} is stale"),
                Err(error) => {
                    assert!(error.is_lost() && part.check().is_err_and(|e| e.is_lost()), "{error}");
                    assert!(moves(real) || !over, "in place only what runs at the loss is lost");
                    *if moves(real) { &mut moved } else { &mut in_place } += want.len() as u64 * 4;
                }
            }
        }
    }
    (in_place, moved)
}

/// The device is lost at the n-th call: what it was writing in place is lost, and nothing else that is in place.
#[test]
fn lost_with_arrays_of_every_kind() {
    let kinds = [MemoryKind::DevicePrivate, MemoryKind::UnifiedMemory];
    for kind in kinds {
        let (mut runs, mut untouched, mut most, mut seen) = (0, 0, (0, 0), BTreeSet::new());
        for n in (1..2000).step_by(setting("VKHMM_LOSS_STEP", 3) as usize) {
            let _dog = watchdog(&format!("lost at call {n}, {kind:?}"), 60);
            let switches = Switches { lose_at_call: Some(n), ..Switches::default() };
            let builder = checked().memory_kind(kind).device_memory_limit(3 * SUB as u64).strict_io(false);
            let Ok(rt) = builder.switches(switches).build() else { continue };
            // SAFETY: the shipped module is valid, ends, has no data race and stays inside its arguments.
            let Ok(add_one) = (unsafe { rt.kernel(spv::ADD_ONE) }) else { continue };
            let lost = play(&rt, &add_one);
            most = (lost.0.max(most.0), lost.1.max(most.1));
            seen.insert(lost);
            runs += 1;
            quiet(&rt);
            if rt.device_calls() < n {
                assert_eq!(lost, (0, 0));
                untouched += 1;
                if untouched == 2 {
                    break;
                }
            }
        }
        println!(
            "{kind:?}: {runs} runs, at most {most:?} bytes lost (in place, moved), {} cases",
            seen.len()
        );
        assert!(untouched == 2 && runs > 10, "the sweep missed something");
    }
}
