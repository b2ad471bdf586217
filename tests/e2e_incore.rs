//! A program that fits: whatever parts of its arrays launches name, nothing is moved, evicted or fetched twice.

mod common;

use common::{Random, kernel, moving, open, spv};
use vkhmm::Grid;

#[test]
fn random_sub_ranges_of_arrays_that_fit_move_and_fetch_nothing_twice() {
    let rt = open(moving().device_memory_limit(8 << 20).strict_io(false));
    let saxpy = kernel(&rt, spv::SAXPY);
    let count = 640 << 10; // 2.5 MiB each, three of them on 8 MiB
    let mut arrays: Vec<_> = (0..3).map(|_| rt.alloc::<f32>(count).unwrap()).collect();
    let mut twin: Vec<Vec<f32>> = vec![vec![0.0; count]; 3];
    for (array, twin) in arrays.iter_mut().zip(&mut twin) {
        for (i, (a, t)) in array.iter_mut().zip(twin).enumerate() {
            *a = (i % 97) as f32;
            *t = *a;
        }
    }
    let mut rng = Random::new(7);
    let before = rt.stats();
    for _ in 0..600 {
        // Starts on 64 elements: every device binds there.
        let len = 64 * (1 + rng.below(900));
        let from = 64 * rng.below((count - len) / 64);
        let (x, y) = (rng.below(3), rng.below(3));
        if x == y {
            continue;
        }
        let (low, high) = arrays.split_at_mut(x.max(y));
        let (a, b) = if x < y { (&low[x], &mut high[0]) } else { (&high[0], &mut low[y]) };
        let grid = Grid::linear(len);
        let mut target = b.slice_mut(from..from + len);
        rt.launch(&saxpy, grid, (a.slice(from..from + len).read(), target.write(), 0.5f32, len as u32))
            .unwrap();
        let source: Vec<f32> = twin[x][from..from + len].to_vec();
        twin[y][from..from + len].iter_mut().zip(source).for_each(|(t, s)| *t += 0.5 * s);
    }
    rt.sync().unwrap();
    let delta = rt.stats().since(&before);
    println!("{delta}");
    assert_eq!((delta.moved_bytes, delta.refault_bytes, delta.out_evict_bytes), (0, 0, 0));
    assert_eq!((delta.evictions_clean, delta.evictions_dirty), (0, 0));
    assert!(delta.in_launch_bytes <= 3 * count as u64 * 4, "{} bytes in", delta.in_launch_bytes);
    for (array, twin) in arrays.iter().zip(&twin) {
        let wrong =
            array.iter().zip(twin).filter(|(a, t)| (**a - **t).abs() > 1e-3 * t.abs().max(1.0)).count();
        assert_eq!(wrong, 0);
    }
    assert_eq!(rt.validation_messages(), Vec::<String>::new());
}
