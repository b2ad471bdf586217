//! First touch of fresh memory: sequential in doubling runs, random in sub-blocks; as ratios to plain memory in the same run.

use std::time::{Duration, Instant};
use vkhmm::{Runtime, Stats};

const MIB: usize = 1 << 20;

fn touch(bytes: &mut [u8]) -> Duration {
    let start = Instant::now();
    for page in bytes.chunks_mut(4096) {
        page[0] = std::hint::black_box(1);
    }
    start.elapsed()
}

/// Anonymous memory as `Vec` gets it: zeroed lazily by the kernel.
fn anonymous(len: usize) -> Duration {
    touch(std::hint::black_box(&mut vec![0_u8; len]))
}

#[test]
fn sequential_first_touch_takes_at_most_twice_as_long_as_anonymous_memory() {
    let rt = Runtime::builder().build().expect("a runtime");
    let len = 128 * MIB;
    let mut ratios: Vec<f64> = (0..7)
        .map(|_| {
            let mut memory = rt.alloc::<u8>(len).expect("128 MiB of addresses");
            let ours = touch(&mut memory);
            drop(memory);
            ours.as_secs_f64() / anonymous(len).as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("managed / anonymous, sorted: {ratios:.2?}");
    assert!(ratios[3] <= 2.0, "median ratio {:.2} of {ratios:.2?}", ratios[3]);
}

#[test]
fn a_random_touch_commits_one_sub_block() {
    let rt = Runtime::builder().build().expect("a runtime");
    let mut memory = rt.alloc::<u8>(256 * MIB).expect("256 MiB of addresses");
    if rt.doctor().to_string().contains("declared: in use") {
        println!("not applicable: under `declared` a slice is brought into being whole");
        return;
    }
    let before: Stats = rt.stats();
    // Far apart and in no order, so that nothing looks like a stream.
    let places: Vec<usize> = (0..64).map(|i| (i * 37 % 64) * 4 * MIB + 123).collect();
    for place in &places {
        memory[*place] = 7;
    }
    let born = rt.stats().since(&before).born_bytes;
    // `segv-mprotect` changes what R shows by whole blocks.
    let unit = if rt.doctor().to_string().contains("segv-mprotect: in use") { 2 << 20 } else { 65536 };
    assert!(born <= places.len() as u64 * unit, "{born} bytes for {} touches", places.len());
    assert!(places.iter().all(|p| memory[*p] == 7));
}
