//! Copies in beside kernels: what a copy waits for, while a kernel runs until it is told to end. Nothing here looks at a clock.

use crate::common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::pagemap::Location;
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::BindTo;
use vkhmm_port::fake::FakeKernel;
use vkhmm_port::{Device, Role};

/// A kernel that sets its bindings to 9, once it may.
struct Gated {
    kernel: FakeKernel,
    go: Arc<AtomicBool>,
}

impl Gated {
    fn new() -> Self {
        let go = Arc::new(AtomicBool::new(false));
        let may = Arc::clone(&go);
        let kernel = FakeKernel::new(move |bindings, _, _| {
            while !may.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_micros(100));
            }
            if let [first] = bindings {
                first.fill(9);
            }
        });
        Self { kernel, go }
    }

    fn end(&self) {
        self.go.store(true, Ordering::Release);
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.end(); // also where the test failed: the engine waits for it
    }
}

/// Sets its second binding.
fn second_set(value: u8) -> FakeKernel {
    FakeKernel::new(move |bindings, _, _| bindings[1].fill(value))
}

/// How far copies in are.
fn copies_in(w: &World) -> u64 {
    w.device.completed().expect("no loss").on(w.device.profile().timeline(Role::CopyIn))
}

/// `launch` makes copies in, and they are over while the gated kernel still runs.
fn copies_beside(w: &World, launch: impl FnOnce()) {
    let before = copies_in(w);
    launch();
    until("the copy in is over", || copies_in(w) > before);
}

/// Arrays of four blocks each, with bytes of their own.
fn arrays<const N: usize>(w: &World) -> [Range; N] {
    std::array::from_fn(|n| {
        let x = w.alloc(4 * w.block());
        w.store(&x, 0, &vec![n as u8 + 1; x.bytes() as usize]);
        x
    })
}

/// A launch claimed frames that a kernel still used; copies to other frames of all its ranges waited with it.
#[test]
fn a_copy_does_not_wait_for_what_others_of_its_range_wait_for() {
    within(30, || {
        let w = World::limited(4);
        let [y, x, z] = [1, 4, 1].map(|blocks| w.alloc(blocks * w.block()));
        w.store(&x, 0, &[2; 512]);
        w.launch(&set(3), &[(&y, 0..128, Overwrite)]);
        w.launch(&look(), &[(&x, 0..64, Read)]);
        w.rest();
        let gated = Gated::new();
        w.launch(&gated.kernel, &[(&y, 0..128, Write)]);
        // Needs two neighbours, and the one free frame has none.
        w.launch(&second_set(4), &[(&x, 0..64, Read), (&z, 0..128, Overwrite)]);
        assert_eq!((w.location(&y, 0), w.engine.stats().evictions_dirty), (Location::Host, 1));
        copies_beside(&w, || drop(w.launch(&look(), &[(&x, 384..448, Read)])));
        gated.end();
        w.rest();
        assert_eq!((w.load_all(&y), w.load_all(&z)), (vec![9; 128], vec![4; 128]));
    });
}

/// Frames that a launch claimed and left alone waited for its kernel, where none of its copies rode with that.
#[test]
fn frames_that_a_launch_left_alone_do_not_wait_for_its_kernel() {
    within(30, || {
        let w = World::new(Setup { limit_frames: 32, inline_bytes: 64, ..Setup::default() });
        let (all, small) = (w.alloc(20 * w.block()), w.alloc(2 * w.block()));
        for x in [&all, &small] {
            w.store(x, 0, &vec![5; x.bytes() as usize]);
        }
        w.launch(&look(), &[(&all, 0..32 * w.frame(), Read)]);
        w.rest();
        let gated = Gated::new();
        // Has all of the array placed, where others were, and one sub-block copied.
        w.launch(&gated.kernel, &[(&small, 0..w.frame(), Write)]);
        assert_eq!(w.engine.stats().evictions_clean, 16);
        copies_beside(&w, || drop(w.launch(&look(), &[(&small, w.frame()..small.bytes(), Read)])));
        gated.end();
        w.rest();
        assert_eq!(w.load_all(&small), [[9; 64], [5; 64], [5; 64], [5; 64]].concat());
    });
}

/// What a launch changes was written by a kernel that runs: its copies of other pages waited for that, too.
#[test]
fn a_launch_that_goes_on_with_a_result_copies_the_rest_meanwhile() {
    for import in [true, false] {
        within(30, move || {
            let w = World::new(Setup { import, ..Setup::default() });
            let [x, y] = arrays(&w);
            let gated = Gated::new();
            w.launch(&gated.kernel, &[(&y, 0..y.bytes(), Overwrite)]);
            copies_beside(&w, || {
                drop(w.launch(&add(1), &[(&x, 0..x.bytes(), Write), (&y, 0..y.bytes(), Write)]));
            });
            gated.end();
            w.rest();
            assert_eq!((w.load_all(&x), w.load_all(&y)), (vec![2; 512], vec![10; 512]));
        });
    }
}

/// Keeps what its first binding has, once it may look.
fn late_look(gated: &Gated, seen: &Arc<std::sync::Mutex<Vec<u8>>>) -> FakeKernel {
    let (go, seen) = (Arc::clone(&gated.go), Arc::clone(seen));
    FakeKernel::new(move |bindings, _, _| {
        while !go.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_micros(100));
        }
        *seen.lock().expect("nobody panicked") = bindings[0].to_vec();
    })
}

/// A resident launch reads a frame and holds nothing; whoever ends the page's device copy meanwhile notes it, or the next copy in
/// comes under the reader's eyes.
#[test]
fn a_copy_in_waits_for_the_resident_reader_of_the_copy_that_a_store_or_discard_ended() {
    for (import, in_thread, discards) in
        [(true, false, false), (false, false, false), (true, true, false), (true, false, true)]
    {
        within(30, move || {
            let w = World::new(Setup { import, in_thread, ..Setup::default() });
            let x = w.alloc(w.block());
            w.launch(&set(3), &[(&x, 0..x.bytes(), Overwrite)]);
            if !discards {
                w.load_all(&x);
            }
            w.rest();
            let (gated, seen) = (Gated::new(), Arc::default());
            w.launch(&late_look(&gated, &seen), &[(&x, 0..x.bytes(), Read)]);
            assert_eq!(w.engine.stats().launches_resident, 1);
            if discards {
                w.engine.discard(&x, (0..x.bytes()).into()).expect("alive");
            }
            w.store(&x, 0, &vec![7; x.bytes() as usize]);
            assert_eq!(w.location(&x, 0), Location::Host);
            let before = copies_in(&w);
            w.launch(&look(), &[(&x, 0..x.bytes(), Read)]);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(copies_in(&w), before, "copied in under a reader");
            gated.end();
            w.rest();
            assert!(copies_in(&w) > before);
            assert_eq!(*seen.lock().expect("nobody panicked"), vec![3; x.bytes() as usize]);
        });
    }
}

/// A launch on resident data took no holds; copies to any other part of the range waited for it.
#[test]
fn a_copy_does_not_wait_for_resident_launches_on_other_blocks() {
    within(30, || {
        let w = World::small();
        let [x] = arrays(&w);
        let first = 0..w.block();
        w.launch(&set(3), &[(&x, first.clone(), Overwrite)]);
        w.rest();
        let gated = Gated::new();
        w.launch(&gated.kernel, &[(&x, first.clone(), Write)]);
        assert_eq!(w.engine.stats().launches_resident, 1);
        copies_beside(&w, || drop(w.launch(&add(1), &[(&x, w.block()..x.bytes(), Write)])));
        gated.end();
        w.rest();
        assert_eq!(w.load_all(&x), [vec![9; 128], vec![2; 384]].concat());
    });
}

/// A page that a resident launch reads is stored to, and copied in again to the same frame: that must wait.
#[test]
fn a_copy_waits_for_resident_launches_that_read_its_frames() {
    within(30, || {
        let w = World::small();
        let [x, y] = arrays(&w);
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (go, note) = (Arc::new(AtomicBool::new(false)), Arc::clone(&seen));
        let may = Arc::clone(&go);
        let reads = FakeKernel::new(move |bindings, _, _| {
            until("it may", || may.load(Ordering::Acquire));
            *note.lock().unwrap() = bindings[0].to_vec();
        });
        w.launch(&look(), &[(&x, 0..w.block(), Read)]);
        w.rest();
        w.launch(&reads, &[(&x, 0..w.block(), Read)]);
        assert_eq!(w.engine.stats().launches_resident, 1);
        w.store(&x, 0, &[7; 128]);
        w.launch(&add(1), &[(&x, 0..w.block(), Write)]);
        // Copies go in order: one behind it shows when it would have been made.
        let before = copies_in(&w);
        w.launch(&look(), &[(&y, 0..w.block(), Read)]);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(copies_in(&w), before, "a frame was written under a kernel that reads it");
        go.store(true, Ordering::Release);
        w.rest();
        assert_eq!(*seen.lock().unwrap(), [1; 128]);
        assert_eq!(w.load(&x, 0..128), [8; 128]);
    });
}

/// A launch whose victim is a neighbour in its own block had all of the array evicted.
#[test]
fn a_neighbour_that_makes_room_goes_alone() {
    within(30, || {
        let w = World::new(Setup { limit_frames: 4, plain: true, ..Setup::default() });
        let x = w.alloc(4 * w.block());
        let sub = |n: u64| n * w.frame()..(n + 1) * w.frame();
        for n in [0, 2, 4, 6] {
            w.launch(&set(n as u8), &[(&x, sub(n), Overwrite)]);
            w.rest();
        }
        w.launch(&set(1), &[(&x, sub(1), Overwrite)]);
        w.rest();
        assert_eq!(w.engine.stats().out_evict_bytes, w.frame());
        assert_eq!(w.map(&x), "HHHHDDDDDDDD....DDDD....DDDD....");
        let expected = [0, 1, 2, 0, 4, 0, 6, 0].map(|value| [value; 64]);
        assert_eq!(w.load_all(&x), expected.concat());
    });
}

#[test]
fn a_buffer_that_a_kernel_reaches_by_address_stays_until_it_is_over() {
    each_of(spans(), |w| {
        let x = w.alloc(w.block());
        w.store(&x, 0, &[1; 8]);
        let gated = Gated::new();
        let mut spec = w.spec(&gated.kernel, &[(&x, 0..x.bytes(), Write)]);
        spec.push = vec![0; 8];
        spec.arguments[0].bind = BindTo::Address(0);
        let op = w.engine.launch(spec).expect("launch");
        w.engine.flush();
        assert_eq!(w.device.buffers(), 1);
        // Its frames go to whoever comes next; what it reaches them by stays.
        w.engine.trim(u64::MAX).expect("trim");
        assert_eq!(w.device.buffers(), 1);
        gated.end();
        w.wait(&op);
        until("it is let go of", || w.device.buffers() == 0);
    });
}
