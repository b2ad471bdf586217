//! The frame guard under the whole runtime: a kernel that runs over the end of its array finds its neighbour's frames while the neighbour
//! is on the device, and ends the process once it was evicted.

mod common;

use common::{SIGSEGV, again, checked, clean, kernel, moving, open, role, spv, watchdog};
use std::time::Duration;
use vkhmm::{Advice, Grid, Side, Switches};

/// Elements of an array: sixteen frames of them.
const N: usize = 16 * common::SUB / 4;

fn play(evict: bool) {
    let switches = Switches { frame_guard: true, ..Switches::default() };
    let rt = open(moving().switches(switches).device_memory_limit(16 << 20));
    let (fill, saxpy) = (kernel(&rt, spv::FILL), kernel(&rt, spv::SAXPY_ADDRESS));
    let mut array = rt.alloc::<f32>(N).expect("alloc");
    let mut neighbour = rt.alloc::<f32>(N).expect("alloc");
    let mut sum = rt.alloc::<f32>(2 * N).expect("alloc");
    neighbour.iter_mut().for_each(|v| *v = 3.0);
    rt.launch(&fill, Grid::linear(N), (array.overwrite(), 1.0f32.to_bits())).expect("launch");
    // Whoever has to go, the neighbour goes first.
    neighbour.advise(Advice::PreferredLocation(Some(Side::Host))).expect("advice");
    neighbour.prefetch_to_device().expect("prefetch").wait().expect("prefetch");
    rt.launch(&fill, Grid::linear(2 * N), (sum.overwrite(), 0u32)).expect("launch");
    rt.sync().expect("sync");
    if evict {
        let (_, before) = rt.device_memory();
        rt.trim(1).expect("trim");
        assert_eq!(before - rt.device_memory().1, (N * 4) as u64, "one array was evicted");
        // The completion thread looks at frames at least this often.
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("strays");
    let over = (array.read(), sum.write(), 1.0f32, N as u32 + 64);
    rt.launch(&saxpy, Grid::linear(N + 64), over).expect("launch");
    assert_eq!(sum[..N + 64].iter().sum::<f32>(), N as f32 + 64.0 * 3.0, "it saw another array");
    clean(&rt);
    println!("lived");
}

#[test]
fn a_kernel_that_strays_into_an_evicted_frame_ends_the_process() {
    const NAME: &str = "a_kernel_that_strays_into_an_evicted_frame_ends_the_process";
    let _dog = watchdog(NAME, 150);
    if let Some(role) = role() {
        return play(role == "evict");
    }
    let rt = open(checked());
    let device = &rt.doctor().device;
    if device.candidates[device.chosen].kind != "software" {
        println!(
            "exempt: {}: the frame guard is for software devices",
            device.candidates[device.chosen].name
        );
        return;
    }
    drop(rt);
    let stay = again(NAME, "stay", &[], Duration::from_secs(60));
    assert!(stay.status.success() && stay.text.contains("lived"), "{stay:?}");
    let evict = again(NAME, "evict", &[], Duration::from_secs(60));
    assert_eq!(evict.signal(), Some(SIGSEGV), "{evict:?}");
    assert!(evict.text.contains("strays") && !evict.text.contains("lived"), "{evict:?}");
}
