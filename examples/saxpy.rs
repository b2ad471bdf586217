//! y = 2x + y over 10 million elements, in a quarter of the device memory that they need: windows stream through.

use vkhmm::{Grid, PlacementKind, Runtime};

fn main() -> anyhow::Result<()> {
    let n = 10_000_000;
    let rt = Runtime::builder().device_memory_limit(20_000_000).build()?;
    let (mut x, mut y) = (rt.alloc::<f32>(n)?, rt.alloc::<f32>(n)?);
    x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
    y.fill(1.0);
    // SAFETY: saxpy.comp ends, has no data race and stays inside x and y.
    let saxpy = unsafe { rt.kernel(include_bytes!("../shaders/spv/saxpy.spv"))? };
    let before = rt.stats();
    for w in rt.windows(n, 2 * size_of::<f32>(), 2) {
        let count = w.len() as u32;
        let (x, mut y) = (x.slice(w.clone()), y.slice_mut(w));
        rt.launch(&saxpy, Grid::linear(y.len()), (x.read(), y.write(), 2.0f32, count))?;
    }
    // Reading y is all it takes: each touch waits for its window and brings that part home.
    assert!(y.iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32 + 1.0), "a wrong sum");
    let moved = rt.stats().since(&before);
    // Needed: x and y to the device, once each, and y home. Windows are whole granules of 64 KiB; the arrays end in whole pages.
    // Where the device works on the host's own bytes, nothing is.
    let in_place = y.placement().kind == PlacementKind::InPlace;
    let each = if in_place { 0 } else { (n as u64 * 4).next_multiple_of(4096) };
    println!("{n} elements right; {} bytes to the device, {} needed", moved.in_bytes(), 2 * each);
    println!("{moved}");
    assert_eq!((moved.in_bytes(), moved.out_bytes()), (2 * each, each), "bytes to the device, bytes home");
    Ok(())
}
