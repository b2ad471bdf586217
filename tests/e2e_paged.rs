//! Paged launches end to end: what kernels really touch moves, at one, two and four times the device's memory, beside CPU touches,
//! declared launches and each other.

mod common;

use common::{Random, clean, declared, kernel, memory, moves, moving, open, since, spv, watchdog};
use std::sync::atomic::{AtomicBool, Ordering};
use vkhmm::{Error, Grid, Kernel, Managed, MemoryError, PlacementKind, Runtime};

/// Device memory of the runtimes here.
const LIMIT: usize = 16 << 20;
/// Elements of one group.
const TRIAD_TILE: usize = 16384;
const GATHER_TILE: usize = 8192;

fn paged(rt: &Runtime, spirv: &[u8]) -> Kernel {
    // SAFETY: shipped with vkhmm: stays inside its ranges and stores nothing before its vote, or its item's last try.
    unsafe { rt.kernel_paged(spirv) }.expect("a paged kernel")
}

fn limited() -> Runtime {
    open(moving().device_memory_limit(LIMIT as u64))
}

/// Three arrays that are `quarters` / 4 times the device's memory together, and what is in two of them.
fn triad_arrays(rt: &Runtime, quarters: usize) -> [Managed<f32>; 3] {
    let n = LIMIT * quarters / 4 / 12 / 4 * 4 - 13;
    let [z, mut x, mut y] = [(); 3].map(|()| rt.alloc::<f32>(n).expect("alloc"));
    x.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = i as f32);
    y.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = (i % 97) as f32);
    [z, x, y]
}

#[test]
fn a_triad_moves_every_page_once_at_any_size() {
    let _dog = watchdog("triad", 300);
    for quarters in [2, 4, 8, 16] {
        let rt = limited();
        let triad = paged(&rt, spv::PAGED_TRIAD);
        let [mut z, x, y] = triad_arrays(&rt, quarters);
        let n = z.len();
        let before = rt.stats();
        let grid = Grid::groups(n.div_ceil(TRIAD_TILE) as u32, 1, 1);
        let launch = rt.launch_paged(&triad, grid, (z.overwrite(), x.read(), y.read(), 3.0_f32, n as u32));
        let launch = launch.expect("launch");
        launch.wait().expect("wait");
        let report = launch.paging().expect("it was paged");
        let moved = since(&rt, &before);
        assert!(z.iter().zip(x.iter().zip(&*y)).all(|(z, (x, y))| *z == x + 3.0 * y), "{quarters}: wrong");
        assert!(report.rounds >= 1 && report.groups as usize == n.div_ceil(TRIAD_TILE), "{report:?}");
        if moves(&x) {
            let bytes = 2 * 4 * n as u64;
            // What a sample of groups touched may go once more.
            assert!(
                moved.in_bytes() <= bytes + bytes / 64 + 3 * 65536,
                "{quarters}: {} of {bytes}",
                moved.in_bytes()
            );
            assert!(report.group_runs <= 3 * u64::from(report.groups), "{quarters}: {report:?}");
        }
        clean(&rt);
    }
}

#[test]
fn a_gather_learns_from_what_it_loads() {
    let _dog = watchdog("gather", 300);
    for quarters in [4, 8, 16] {
        let rt = limited();
        let gather = paged(&rt, spv::PAGED_GATHER);
        let bytes = LIMIT * quarters / 4;
        let (words, n) = (bytes * 3 / 4 / 4, bytes / 8 / 4);
        let mut source = rt.alloc::<u32>(words).expect("alloc");
        let (mut to, mut index) = (rt.alloc::<u32>(n).expect("alloc"), rt.alloc::<u32>(n).expect("alloc"));
        let mut rng = Random::new(7);
        source.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = i.wrapping_mul(0x9e37_79b9));
        index.iter_mut().for_each(|v| *v = rng.below(words) as u32);
        let grid = Grid::groups(n.div_ceil(GATHER_TILE) as u32, 1, 1);
        let launch = rt.launch_paged(&gather, grid, (to.overwrite(), index.read(), source.read(), n as u32));
        launch.expect("launch").wait().expect("wait");
        for (i, (to, from)) in to.iter().zip(&*index).enumerate() {
            assert_eq!(*to, from.wrapping_mul(0x9e37_79b9), "{quarters}: element {i} of {n}");
        }
        clean(&rt);
    }
}

#[test]
fn what_comes_again_and_again_is_read_where_it_is() {
    let _dog = watchdog("remote", 100);
    // Three blocks for arrays of twelve, and every group of words wants nearly all of the source.
    let rt = open(moving().device_memory_limit(6 << 20));
    let gather = paged(&rt, spv::PAGED_GATHER);
    let (words, n) = ((18 << 20) / 4, (3 << 20) / 4);
    let mut source = rt.alloc::<u32>(words).expect("alloc");
    let [mut to, mut index] = [(); 2].map(|()| rt.alloc::<u32>(n).expect("alloc"));
    let mut rng = Random::new(7);
    source.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = i.wrapping_mul(0x9e37_79b9));
    index.iter_mut().for_each(|v| *v = rng.below(words) as u32);
    let grid = Grid::groups(n.div_ceil(GATHER_TILE) as u32, 1, 1);
    let launch = rt.launch_paged(&gather, grid, (to.overwrite(), index.read(), source.read(), n as u32));
    let launch = launch.expect("launch");
    launch.wait().expect("wait");
    assert!(to.iter().zip(&*index).all(|(to, at)| *to == at.wrapping_mul(0x9e37_79b9)), "wrong");
    let report = launch.paging().expect("it was paged");
    let device = &rt.doctor().device;
    // On unified memory nothing moves but where nothing is imported (`moving`).
    let can = device.in_place.starts_with("on") && !device.memory.starts_with("UnifiedMemory");
    // Without remote blocks spans move 82 times the arrays, and what is sparse twice.
    let needs = source.placement().kind == PlacementKind::Span;
    assert!(report.remote_blocks == 0 || can, "{report:?}");
    if can {
        assert!(report.remote_blocks > 0 || !needs, "{report:?}");
        assert!(report.in_bytes < 8 * (24 << 20), "{report:?}");
    }
    clean(&rt);
}

#[test]
fn touches_declared_and_paged_launches_mix() {
    let _dog = watchdog("mixed", 300);
    let rt = limited();
    let (triad, add) = (paged(&rt, spv::PAGED_TRIAD), kernel(&rt, spv::ADD_ONE));
    let [mut z, mut x, y] = triad_arrays(&rt, 8);
    let n = z.len();
    let grid = Grid::groups(n.div_ceil(TRIAD_TILE) as u32, 1, 1);
    let mut words = rt.alloc::<u32>(1 << 18).expect("alloc");
    for round in 0..4_u32 {
        x[n - 1] = round as f32;
        x[0] = 10.0 + round as f32;
        let arguments = (z.overwrite(), x.read(), y.read(), 2.0_f32, n as u32);
        let launch = rt.launch_paged(&triad, grid, arguments).expect("launch");
        // Beside it, on other memory.
        rt.launch(&add, Grid::linear(words.len()), (words.write(),)).expect("launch");
        // What it reads can be read meanwhile, and what it writes is there when it is touched.
        assert_eq!(x[0], 10.0 + round as f32);
        assert_eq!(z[n - 1], x[n - 1] + 2.0 * y[n - 1]);
        assert_eq!(z[0], x[0] + 2.0 * y[0]);
        launch.wait().expect("wait");
        // In place of its own: reads and writes one range.
        let arguments = (x.write(), z.read(), y.read(), -2.0_f32, n as u32);
        let back = rt.launch_paged(&triad, grid, arguments).expect("launch");
        assert!(words.iter().all(|w| *w == round + 1));
        back.wait().expect("wait");
        assert_eq!((x[0], x[n / 2]), (10.0 + round as f32, (n / 2) as f32));
    }
    clean(&rt);
}

#[test]
fn two_paged_launches_share_the_frames_and_stores_wait_for_both() {
    let _dog = watchdog("two at once", 300);
    let rt = limited();
    let triad = paged(&rt, spv::PAGED_TRIAD);
    let [z, mut x, y] = triad_arrays(&rt, 8);
    let mut w = rt.alloc::<f32>(z.len()).expect("alloc");
    let mut z = z;
    let n = z.len();
    let grid = Grid::groups(n.div_ceil(TRIAD_TILE) as u32, 1, 1);
    let (stored, by_slices) = (AtomicBool::new(false), declared(&rt));
    for round in 0..3_u32 {
        let (first, at) = (x[n - 1], x[..].as_mut_ptr());
        let one = rt.launch_paged(&triad, grid, (z.overwrite(), x.read(), y.read(), 1.0_f32, n as u32));
        let two = rt.launch_paged(&triad, grid, (w.overwrite(), x.read(), y.read(), 2.0_f32, n as u32));
        let (one, two) = (one.expect("launch"), two.expect("launch"));
        std::thread::scope(|scope| {
            let at = at as usize;
            let stored = &stored;
            // Under `declared` nobody notices a store by a pointer: what is borrowed comes home first.
            scope.spawn(move || {
                if by_slices {
                    return;
                }
                let last = (at as *mut f32).wrapping_add(n - 1);
                // SAFETY: inside `x`, which nobody else touches meanwhile; the device only reads it, and the store waits for that.
                unsafe { last.write_volatile(-1.0) };
                stored.store(true, Ordering::Release);
            });
        });
        one.wait().expect("wait");
        two.wait().expect("wait");
        // Both saw what was there at their launch, in all rounds.
        assert_eq!((z[n - 1], w[n - 1]), (first + y[n - 1], first + 2.0 * y[n - 1]), "round {round}");
        if by_slices {
            x[n - 1] = -1.0;
        }
        assert!(by_slices || stored.load(Ordering::Acquire));
        assert_eq!(x[n - 1], -1.0);
        assert!(z.iter().zip(&*w).zip(&*y).all(|((z, w), y)| w - z == *y));
        x[n - 1] = round as f32;
    }
    clean(&rt);
}

#[test]
fn what_cannot_be_launched_is_refused_and_nothing_has_changed() {
    let _dog = watchdog("refused", 60);
    let rt = limited();
    let (triad, add) = (paged(&rt, spv::PAGED_TRIAD), kernel(&rt, spv::ADD_ONE));
    // SAFETY: it is refused, and so never runs.
    let plain = unsafe { rt.kernel_paged(spv::ADD_ONE) };
    assert!(matches!(plain, Err(Error::NotPaged { .. })));
    let mut x = rt.alloc::<f32>(1 << 16).expect("alloc");
    x.fill(5.0);
    let grid = Grid::groups(1, 1, 1);
    assert!(matches!(rt.launch(&triad, grid, (x.read(),)), Err(Error::Paged { .. })));
    assert!(matches!(rt.launch_paged(&add, grid, (x.write(),)), Err(Error::NotPaged { .. })));
    let part = x.slice(..100);
    let refused = rt.launch_paged(&triad, grid, (part.read(), 1.0_f32, 1_u32));
    assert!(matches!(refused, Err(Error::NotWhole { argument: 0, end: 400, .. })), "{refused:?}");
    let refused = rt.launch_paged(&triad, Grid::groups(1 << 20, 1 << 20, 1), (x.read(), 1.0_f32, 1_u32));
    assert!(matches!(refused, Err(Error::GridTooLarge { .. })));
    let refused = rt.launch_paged(&triad, grid, (x.read(), 1.0_f32));
    assert!(matches!(refused, Err(Error::Arguments { .. })), "{refused:?}");
    assert!(x.iter().all(|v| *v == 5.0));
    clean(&rt);
}

#[test]
fn a_kernel_that_asks_for_what_it_was_not_given_fails_by_name() {
    let _dog = watchdog("outside", 60);
    let rt = limited();
    let triad = paged(&rt, spv::PAGED_TRIAD);
    let [mut x, mut y] = [(); 2].map(|()| rt.alloc::<f32>(1 << 16).expect("alloc"));
    x.fill(1.0);
    y.fill(2.0);
    // It stores to range 0, which is given for reading.
    let arguments = (x.read(), x.read(), y.read(), 1.0_f32, 1_u32 << 16);
    let launch = rt.launch_paged(&triad, Grid::groups(4, 1, 1), arguments).expect("launch");
    let failed = memory(launch.wait());
    assert!(matches!(failed, MemoryError::Outside { .. }), "{failed}");
    assert!(x.iter().all(|v| *v == 1.0));
    clean(&rt);
}

#[test]
fn items_that_have_nothing_to_do_keep_nobody_waiting() {
    let _dog = watchdog("a short group", 100);
    // Two blocks: what the only group wants never fits at once, so its items go on a few at a time.
    let rt = open(moving().device_memory_limit(4 << 20));
    let gather = paged(&rt, spv::PAGED_GATHER);
    let (words, n) = (8 << 20, 100);
    let mut source = rt.alloc::<u32>(words).expect("alloc");
    let [mut to, mut index] = [(); 2].map(|()| rt.alloc::<u32>(n).expect("alloc"));
    source.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = i ^ 5);
    index.iter_mut().zip(0_u32..).for_each(|(v, i)| *v = i * 81920);
    let arguments = (to.overwrite(), index.read(), source.read(), n as u32);
    let launch = rt.launch_paged(&gather, Grid::groups(1, 1, 1), arguments).expect("launch");
    launch.wait().expect("wait");
    assert!(to.iter().zip(&*index).all(|(to, at)| *to == at ^ 5), "{:?}", launch.paging());
    clean(&rt);
}
