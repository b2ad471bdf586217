//! The engine over the throttled device: real threads and real faults, modelled speed. Modelled times are hundreds of milliseconds,
//! so that a busy machine cannot hide what is asserted; a lower bound holds on any.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vkhmm_core::pagemap::Location;
use vkhmm_engine::{AccessKind, EngineError, OpStatus};
use vkhmm_port::{Device, Role};
use vkhmm_throttled::{Cost, Link, Options, Rig, ThrottledKernel};
use vkhmm_vulkan::{Config, KernelOptions};

const MIB: u64 = 1 << 20;
/// An array takes 300 ms in one direction.
const ARRAY: u64 = 12 * MIB;
const LINK: Link =
    Link { name: "test", inward: 40.0 * MIB as f64, outward: 40.0 * MIB as f64, ..Link::GENEROUS };
const TRANSFER: Duration = Duration::from_millis(300);

/// Lock: these tests measure time, so one runs at a time · owns nothing.
static ALONE: Mutex<()> = Mutex::new(());

/// A rig that nobody else runs beside, and that must leave the validation layer without a word.
struct Quiet {
    rig: Option<Rig>,
    _alone: MutexGuard<'static, ()>,
}

impl Quiet {
    fn open(link: Link, options: Options, limit: u64) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let config = Config { validation: true, ..Config::default() };
        let rig =
            Rig::open(config, link, options, limit).expect("a driver, the validation layer, a fault engine");
        Self { rig: Some(rig), _alone: alone }
    }
}

impl std::ops::Deref for Quiet {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        self.rig.as_ref().expect("open until dropped")
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let log = self.validation_log();
        self.rig = None;
        if !std::thread::panicking() {
            assert_eq!(log.messages(), Vec::<String>::new());
        }
    }
}

/// A kernel that takes so long, and does nothing.
fn takes(rig: &Rig, time: Duration) -> std::sync::Arc<ThrottledKernel> {
    let flop = time.as_secs_f64() * rig.device().link().flops;
    ThrottledKernel::timed(Cost { flop, bytes: 0.0 }).into()
}

/// A kernel that flips bits of its binding, on the inner device.
fn xor(rig: &Rig) -> std::sync::Arc<ThrottledKernel> {
    let spirv = include_bytes!("../../../runtime/vulkan/tests/kernels/xor.spv");
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    rig.device().kernel(&words, KernelOptions::default()).expect("xor")
}

fn flips(words: u64, word: u32) -> Vec<u8> {
    [(words as u32).to_le_bytes(), word.to_le_bytes()].concat()
}

#[test]
fn a_copy_in_overlaps_the_kernel_before() {
    let rig = Quiet::open(LINK, Options::default(), 64 * MIB);
    let kernel = takes(&rig, TRANSFER);
    let arrays = [rig.alloc(ARRAY, "first").expect("room"), rig.alloc(ARRAY, "second").expect("room")];
    arrays.iter().for_each(|array| rig.touch_all(array, 1));
    let start = Instant::now();
    let ops = arrays
        .each_ref()
        .map(|array| rig.launch(&kernel, &[], &[(array, 0..ARRAY, AccessKind::Read)]).expect("it fits"));
    ops.iter().for_each(|op| rig.wait(op).expect("no loss"));
    let took = start.elapsed();
    assert!(took >= 3 * TRANSFER, "two copies and the last kernel in {took:?}: before the modelled time");
    assert!(took < 4 * TRANSFER - TRANSFER / 3, "two copies and two kernels one after the other: {took:?}");
}

/// How far copies in are.
fn copies_in(rig: &Rig) -> u64 {
    let timeline = rig.device().profile().timeline(Role::CopyIn);
    rig.device().completed().expect("no loss").on(timeline)
}

#[test]
fn a_copy_in_to_frames_of_others_is_over_before_the_kernel_before() {
    let rig = Quiet::open(LINK, Options::default(), 2 * ARRAY);
    let arrays = ["idle", "busy", "next"].map(|label| rig.alloc(ARRAY, label).expect("room"));
    arrays.iter().for_each(|array| rig.touch_all(array, 1));
    let all = |n: usize| [(&arrays[n], 0..ARRAY, AccessKind::Read)];
    let none = takes(&rig, Duration::ZERO);
    for n in [0, 1] {
        let op = rig.launch(&none, &[], &all(n)).expect("it fits");
        rig.wait(&op).expect("no loss");
    }
    let before = copies_in(&rig);
    let running = rig.launch(&takes(&rig, 5 * TRANSFER), &[], &all(1)).expect("it fits");
    let next = rig.launch(&none, &[], &all(2)).expect("it fits");
    while copies_in(&rig) == before {
        assert!(running.status() != OpStatus::Done, "the copy waited for a kernel on other frames");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(rig.engine().stats().evictions_clean > 0, "it took nobody's frames");
    assert!(next.status() != OpStatus::Done, "kernels run in order");
    [running, next].iter().for_each(|op| rig.wait(op).expect("no loss"));
}

#[test]
fn a_refused_piece_is_asked_for_again_and_smaller() {
    let options = Options { refuse_grow: Some(1), ..Options::default() };
    let rig = Quiet::open(Link::GENEROUS, options, 16 * MIB);
    let kernel = xor(&rig);
    let arrays: Vec<_> = (0..4).map(|n| rig.alloc(4 * MIB, &format!("array {n}")).expect("room")).collect();
    for (n, array) in arrays.iter().enumerate() {
        rig.touch_all(array, n as u32);
        let all = (array, 0..array.bytes(), AccessKind::Write);
        rig.launch(&kernel, &flips(array.bytes() / 4, 1 << 20), &[all]).expect("it fits");
    }
    let pieces: Vec<_> = rig.engine().pagemaps().iter().map(|pagemap| pagemap.frames().count).collect();
    assert_eq!(pieces, [128, 128], "half of what was refused, and then the other half");
    assert_eq!(rig.engine().stats().out_evict_bytes, 0);
    for (n, array) in arrays.iter().enumerate() {
        for at in (0..array.bytes()).step_by(4096) {
            let expected = (n as u32).wrapping_add(at as u32) ^ 1 << 20;
            assert_eq!(rig.load(array, at), expected, "array {n} at {at:#x}");
        }
    }
}

#[test]
fn directions_share_a_link_that_is_not_duplex() {
    let both = |duplex| {
        let rig = Quiet::open(Link { duplex, ..LINK }, Options::default(), 64 * MIB);
        let away = rig.alloc(ARRAY, "away").expect("room");
        let here = rig.alloc(ARRAY, "here").expect("room");
        [&away, &here].into_iter().for_each(|array| rig.touch_all(array, 1));
        let kernel = takes(&rig, Duration::ZERO);
        let op = rig.launch(&kernel, &[], &[(&away, 0..ARRAY, AccessKind::Write)]).expect("it fits");
        rig.wait(&op).expect("no loss");
        let start = Instant::now();
        rig.engine().prefetch_to_host(&away, (0..ARRAY).into()).expect("live");
        rig.engine().prefetch_to_device(&here, (0..ARRAY).into()).expect("it fits");
        rig.engine().sync().expect("no loss");
        start.elapsed()
    };
    let (duplex, one_way) = (both(true), both(false));
    assert!(duplex >= TRANSFER && duplex < TRANSFER * 5 / 3, "both directions at once: {duplex:?}");
    assert!(one_way >= 2 * TRANSFER, "one direction after the other: {one_way:?}");
}

#[test]
fn memory_that_others_have_is_done_without() {
    let options = Options { memory_bytes: Some(16 * MIB), ..Options::default() };
    let rig = Quiet::open(Link::GENEROUS, options, 256 * MIB);
    let kernel = xor(&rig);
    let arrays: Vec<_> = (0..6).map(|n| rig.alloc(4 * MIB, &format!("array {n}")).expect("room")).collect();
    for round in 0..2 {
        for (n, array) in arrays.iter().enumerate() {
            if round == 0 {
                rig.touch_all(array, n as u32);
            }
            let all = (array, 0..array.bytes(), AccessKind::Write);
            rig.launch(&kernel, &flips(array.bytes() / 4, 1 << (20 + round)), &[all]).expect("it fits alone");
        }
    }
    let stats = rig.engine().stats();
    assert!(stats.out_evict_bytes > 0, "24 MiB in 16 without an eviction: {stats}");
    // More than there is, is refused before anything happens.
    let large = rig.alloc(32 * MIB, "large").expect("address space");
    rig.store(&large, 0, 77);
    let refused = rig.launch(&kernel, &flips(1, 1), &[(&large, 0..large.bytes(), AccessKind::Write)]);
    assert!(
        matches!(refused, Err(EngineError::WorkingSetTooLarge { .. } | EngineError::Device(_))),
        "{:?}",
        refused.err()
    );
    assert_eq!(rig.load(&large, 0), 77);
    for (n, array) in arrays.iter().enumerate() {
        for at in (0..array.bytes()).step_by(4096) {
            let expected = (n as u32).wrapping_add(at as u32) ^ 3 << 20;
            assert_eq!(rig.load(array, at), expected, "array {n} at {at:#x}");
        }
    }
}

#[test]
fn a_loss_takes_what_only_the_device_had() {
    let rig = Quiet::open(Link::GENEROUS, Options::default(), 64 * MIB);
    let kernel = takes(&rig, Duration::from_millis(1));
    let [written, read, away] =
        ["written", "read", "untouched"].map(|label| rig.alloc(4 * MIB, label).expect("room"));
    [&written, &read, &away].into_iter().for_each(|array| rig.touch_all(array, 5));
    let both = [(&written, 0..4 * MIB, AccessKind::Write), (&read, 0..4 * MIB, AccessKind::Read)];
    let op = rig.launch(&kernel, &[], &both).expect("it fits");
    rig.wait(&op).expect("not yet lost");
    rig.device().lose_in(1);
    let lost =
        rig.launch(&kernel, &[], &[(&away, 0..4 * MIB, AccessKind::Read)]).and_then(|op| rig.wait(&op));
    assert!(matches!(lost, Err(EngineError::DeviceLost { .. })), "{lost:?}");
    let until = Instant::now() + Duration::from_secs(20);
    while rig.engine().page_flags(&written, 0).location() != Location::Lost && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    for at in (0..4 * MIB).step_by(4096) {
        assert_eq!(rig.engine().page_flags(&written, at).location(), Location::Lost, "written at {at:#x}");
        assert_eq!(rig.load(&read, at), 5_u32.wrapping_add(at as u32), "read at {at:#x}");
        assert_eq!(rig.load(&away, at), 5_u32.wrapping_add(at as u32), "untouched at {at:#x}");
    }
    assert!(rig.device().completed().is_err());
}

#[test]
fn a_touch_is_answered_while_a_kernel_runs_on_other_data() {
    let rig = Quiet::open(
        Link { latency: Duration::from_micros(20), ..Link::GENEROUS },
        Options::default(),
        64 * MIB,
    );
    let (short, long) = (takes(&rig, Duration::ZERO), takes(&rig, Duration::from_secs(1)));
    let [busy, data] = ["busy", "data"].map(|label| rig.alloc(4 * MIB, label).expect("room"));
    rig.touch_all(&data, 9);
    let op = rig.launch(&short, &[], &[(&data, 0..4 * MIB, AccessKind::Write)]).expect("it fits");
    rig.wait(&op).expect("no loss");
    let op = rig.launch(&long, &[], &[(&busy, 0..4 * MIB, AccessKind::Write)]).expect("it fits");
    rig.engine().wait(&op, Some(Duration::from_millis(50))).expect("no loss");
    let start = Instant::now();
    for at in [0, MIB, 3 * MIB] {
        assert_eq!(rig.load(&data, at), 9 + at as u32);
    }
    let took = start.elapsed();
    assert!(op.status() != OpStatus::Done, "three touches outlasted a kernel of a second: {took:?}");
    rig.wait(&op).expect("no loss");
}

#[test]
fn a_held_kernel_is_right_and_not_early() {
    let rig = Quiet::open(LINK, Options::default(), 64 * MIB);
    let spirv = include_bytes!("../../../runtime/vulkan/tests/kernels/xor.spv");
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let inner = rig.device().inner().kernel(&words, KernelOptions::default()).expect("xor");
    let flop = TRANSFER.as_secs_f64() * LINK.flops;
    let kernel = std::sync::Arc::new(ThrottledKernel::held(inner, Cost { flop, bytes: 0.0 }));
    let array = rig.alloc(2 * MIB, "array").expect("room");
    rig.touch_all(&array, 3);
    let start = Instant::now();
    let all = (&array, 0..2 * MIB, AccessKind::Write);
    rig.launch(&kernel, &flips(MIB / 2, 0x5500_0000), &[all]).expect("it fits");
    assert_eq!(rig.load(&array, 4096), (3 + 4096) ^ 0x5500_0000);
    assert!(start.elapsed() >= TRANSFER, "the touch saw a kernel's result before it was over");
}
