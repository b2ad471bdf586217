//! Everything that can be refused, refused: each error names what was wrong and what is allowed, and nothing has changed.

mod common;

use common::{PAGE, WORDS, again, checked, clean, kernel, memory, moving, open, role, spv, watchdog};
use std::time::Duration;
use vkhmm::{
    AccessKind, Builder, Error, Grid, Kernel, Managed, MemoryError, Pod, Result, Runtime, Side, SkipReason,
    Stats,
};

/// Device memory of the table's runtime.
const LIMIT: u64 = 4 << 20;

/// What the rows of the table work with: arrays with pages in every state, kernels, another runtime.
struct Table {
    rt: Runtime,
    x: Managed<f32>,
    y: Managed<f32>,
    big: Managed<u32>,
    bytes: Managed<u8>,
    scale: Kernel,
    saxpy: Kernel,
    address: Kernel,
    spin: Kernel,
    other: Runtime,
    others: Managed<f32>,
    others_scale: Kernel,
}

/// Where every array is, what was counted, and the device memory: what a refusal must leave alone.
type State = (Vec<String>, Vec<(&'static str, u64)>, (u64, u64));

/// Elements of `x` and `y`.
const N: usize = 8 * WORDS;

impl Table {
    fn new() -> Self {
        let rt = open(moving().device_memory_limit(LIMIT));
        let other = open(checked());
        let mut x = rt.alloc_named::<f32>(N, "x").expect("alloc");
        let mut y = rt.alloc_named::<f32>(N, "y").expect("alloc");
        let mut bytes = rt.alloc_named::<u8>(3 * PAGE, "bytes").expect("alloc");
        x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        y.fill(1.0);
        bytes.fill(3);
        // x: Host, Shared and Device pages; y: all on the device.
        let scale = kernel(&rt, spv::SCALE);
        x.slice(2 * WORDS..4 * WORDS).prefetch_to_device().expect("prefetch").wait().expect("wait");
        rt.launch(&scale, Grid::linear(WORDS), (x.slice_mut(5 * WORDS..6 * WORDS).write(), 2.0f32))
            .expect("launch");
        rt.launch(&scale, Grid::linear(N), (y.write(), 2.0f32)).expect("launch");
        rt.sync().expect("sync");
        let others = other.alloc::<f32>(N).expect("alloc");
        let big = rt.alloc_named::<u32>(40 << 20, "big").expect("alloc");
        let (saxpy, address) = (kernel(&rt, spv::SAXPY), kernel(&rt, spv::SAXPY_ADDRESS));
        let (spin, others_scale) = (kernel(&rt, spv::SPIN), kernel(&other, spv::SCALE));
        Self { rt, x, y, big, bytes, scale, saxpy, address, spin, other, others, others_scale }
    }

    fn state(&self) -> State {
        let of = |runs: Result<Vec<vkhmm::Residency>>| format!("{:?}", runs.expect("residency"));
        let places = vec![
            of(self.x.residency()),
            of(self.y.residency()),
            of(self.big.residency()),
            of(self.bytes.residency()),
        ];
        // Time is no state, and neither is whether the driver or a gate was asked.
        let asked = ["submits", "imports_refused", "gate_words"];
        let timeless = |(name, _): &(&str, u64)| !name.ends_with("_ns") && !asked.contains(name);
        let stats: Stats = self.rt.stats();
        (places, stats.fields().filter(timeless).collect(), self.rt.device_memory())
    }

    fn unchanged_bytes(&self) {
        for (i, v) in self.x.iter().enumerate() {
            let want = if (5 * WORDS..6 * WORDS).contains(&i) { 2.0 * i as f32 } else { i as f32 };
            assert_eq!(*v, want, "x[{i}]");
        }
        assert!(self.y.iter().all(|v| *v == 2.0) && self.bytes.iter().all(|b| *b == 3));
    }
}

/// A call that must fail, the start of its error's Debug form, and what its message must contain.
type Row = (&'static str, fn(&mut Table) -> Option<Error>, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("a size that overflows", |t| t.rt.alloc::<u64>(usize::MAX / 4).err(),
        "Layout", &["elements of 8 bytes", "at most", "alignment at most 2 MiB"]),
    ("more than isize::MAX", |t| t.rt.alloc::<u8>(isize::MAX as usize + 1).err(), "Layout", &["9223372036854775808 elements"]),
    ("more than the reservation", |t| t.rt.alloc::<u8>(1 << 46).err(), "Layout", &["70368744177664 elements of 1 bytes"]),
    ("an alignment no block has", |t| t.rt.alloc::<Aligned>(1).err(), "Layout", &["alignment 4194304"]),
    ("a store to what is only read", |t| t.rt.launch(&t.scale, Grid::linear(N), (t.x.read(), 2.0f32)).err(),
        "WritesReadOnlyArgument", &["kernel `main`", "binding 0", "argument 0 is given for reading", "pass write()"]),
    ("the second argument only read", |t| t.rt.launch(&t.saxpy, Grid::linear(N), (t.x.read(), t.y.read(), 2.0f32, 1u32)).err(),
        "WritesReadOnlyArgument", &["binding 1", "argument 1"]),
    ("no access", |t| t.rt.launch(&t.scale, Grid::linear(N), (2.0f32,)).err(), "Arguments", &["1 storage buffers", "0 accesses"]),
    ("one access too many", |t| t.rt.launch(&t.scale, Grid::linear(N), (t.y.write(), t.x.read(), 2.0f32)).err(),
        "Arguments", &["1 storage buffers and up to 0 device addresses", "2 accesses"]),
    ("one address too many", |t| t.rt.launch(&t.address, Grid::linear(1), (t.x.read(), t.x.read(), t.y.write(), 1.0f32, 1u32)).err(),
        "Arguments", &["up to 2 device addresses", "3 accesses"]),
    ("no value", |t| t.rt.launch(&t.scale, Grid::linear(N), (t.x.write(),)).err(), "Arguments", &["4 bytes", "0 values"]),
    ("a value too many", |t| t.rt.launch(&t.scale, Grid::linear(N), (t.x.write(), 1.0f32, 1u32)).err(), "Arguments", &["2 values"]),
    ("a value too long", |t| t.rt.launch(&t.scale, Grid::linear(N), (t.x.write(), 1.0f64)).err(), "Arguments", &["a value of 8 bytes"]),
    ("a value too short", |t| t.rt.launch(&t.spin, Grid::linear(N), (t.bytes.write(), 1u16, 1u32)).err(), "Arguments", &["a value of 2 bytes"]),
    ("too many groups, x", |t| t.rt.launch(&t.scale, Grid::groups(65_536, 1, 1), (t.x.write(), 1.0f32)).err(),
        "GridTooLarge", &["65536 groups in dimension 0", "runs 65535", "Grid::linear"]),
    ("too many groups, y", |t| t.rt.launch(&t.scale, Grid::groups(1, 70_000, 1), (t.x.write(), 1.0f32)).err(), "GridTooLarge", &["dimension 1"]),
    ("too many groups, z", |t| t.rt.launch(&t.scale, Grid::groups(1, 1, u32::MAX), (t.x.write(), 1.0f32)).err(), "GridTooLarge", &["dimension 2"]),
    ("too many items", |t| t.rt.launch(&t.scale, Grid::linear(usize::MAX), (t.x.write(), 1.0f32)).err(), "GridTooLarge", &["dimension 1"]),
    ("a binding too long", |t| t.rt.launch(&t.spin, Grid::linear(1), (t.big.write(), 1u32, 1u32)).err(),
        "BindingTooLarge", &["argument 0", "167772160 bytes", "binds 134217728", "device address"]),
    ("a slice that no binding can start at", |t| t.rt.launch(&t.scale, Grid::linear(1), (t.x.slice_mut(WORDS + 1..).write(), 1.0f32)).err(),
        "Misaligned", &["argument 0", "starts at byte 4100", "nearest below is 4096", "device address"]),
    ("another runtime's memory", |t| t.rt.launch(&t.saxpy, Grid::linear(1), (t.x.read(), t.others.write(), 1.0f32, 1u32)).err(),
        "ForeignRuntime", &["argument 1 belongs to another runtime"]),
    ("another runtime's kernel", |t| t.rt.launch(&t.others_scale, Grid::linear(1), (t.x.write(), 1.0f32)).err(),
        "ForeignRuntime", &["argument 1"]),
    ("another runtime's fill", |t| t.other.fill(t.x.overwrite(), 0).err(), "ForeignRuntime", &["argument 0"]),
    ("a split inside a page", |t| t.x.split_at_mut(WORDS + 1000).err(), "Unaligned { mid: 2024, nearest: 2048 }", &["element 2024", "nearest that is, is 2048"]),
    ("a split of a view inside a page", |t| t.x.slice_mut(24..).split_at_mut(1010).err(), "Unaligned { mid: 1010, nearest: 1000 }", &["nearest that is, is 1000"]),
    ("a fill of odd bytes", |t| t.rt.fill(t.bytes.slice_mut(0..5).overwrite(), 0).err(), "Words", &["fill: 5 bytes are not whole 32-bit words"]),
    ("a fill of what is only read", |t| t.rt.fill(t.x.read(), 0).err(), "Words", &["fill: the target is given for reading"]),
    ("a copy of two lengths", |t| t.rt.copy(t.x.read(), t.y.slice_mut(..8).write()).err(), "Words", &["copy: 32768 bytes to 32 bytes"]),
    ("a copy to what is only read", |t| t.rt.copy(t.x.read(), t.y.read()).err(), "Words", &["copy: the target is given for reading"]),
    ("a copy of odd bytes", |t| t.rt.copy(t.bytes.slice(..7).read(), t.y.slice_mut(..2).write()).err(), "Words", &["copy: 7 bytes"]),
    ("more than the device may have", |t| t.rt.fill(t.big.slice_mut(..(LIMIT as usize + PAGE) / 4).overwrite(), 0).err(),
        "Memory(WorkingSetTooLarge { need: 4259840, have: 4194304, limit: 4194304, held: 0, largest_run: 4194304 })",
        &["needs 4259840 bytes", "can have 4194304", "limit 4194304", "windows"]),
    ("a pin of more than the device may have", |t| t.big.pin_to_device().err(), "Memory(WorkingSetTooLarge", &["needs 167772160 bytes"]),
    ("a batch with another runtime's array", |t| t.rt.prefetch(&[t.x.read(), t.others.read()], Side::Device).err(), "ForeignRuntime", &["argument 1"]),
    ("no module", |t| bad_kernel(t, &[]), "Kernel(Module", &["kernel"]),
    ("half a word", |t| bad_kernel(t, &spv::SCALE[..spv::SCALE.len() - 1]), "Kernel(Module", &["kernel"]),
    ("no SPIR-V", |t| bad_kernel(t, &[7; 64]), "Kernel(Module", &["kernel"]),
    ("half a module", |t| bad_kernel(t, &spv::SCALE[..spv::SCALE.len() / 8 * 4]), "Kernel(Module", &["kernel"]),
    // SAFETY: the shipped module is valid; it is refused before it could run.
    ("no such entry point", |t| unsafe { t.rt.kernel_builder(spv::SCALE).entry("other").build() }.err(), "Kernel(Module", &["other"]),
    // SAFETY: the shipped module is valid; it is refused before it could run.
    ("no such constant", |t| unsafe { t.rt.kernel_builder(spv::SCALE).spec(9, 1u32).build() }.err(), "Kernel(Specialisation", &["specialisation constant 9"]),
    // SAFETY: the shipped module is valid; it is refused before it could run.
    ("a subgroup size that is none", |t| unsafe { t.rt.kernel_builder(spv::SCALE).subgroup_size(3).build() }.err(), "Kernel(Unsupported", &["subgroup", "3"]),
    ("a pagemap that is live", |t| { let id = t.rt.pagemaps()[0].id(); t.rt.unregister_pagemap(id, Duration::ZERO).err() },
        "Memory(Pagemap", &["live", "kill it first"]),
    ("a pagemap that is none", |t| t.rt.kill_pagemap(vkhmm::pagemap::PagemapId(99)).err(), "Memory(Pagemap", &["there is no pagemap 99"]),
    ("a handle that was freed", |t| {
        let gone = t.rt.alloc::<f32>(64).ok()?;
        // SAFETY: the access is refused; nothing is read or written through it.
        let access = unsafe { gone.raw(AccessKind::Write, ..) };
        drop(gone);
        t.rt.launch(&t.scale, Grid::linear(1), (access, 1.0f32)).err()
    }, "Memory(UnknownRange { argument: 0 })", &["argument 0", "was freed"]),
];

/// A type that asks for more than any block gives.
#[derive(Clone, Copy)]
#[repr(C, align(4194304))]
struct Aligned([u8; 4 << 20]);

// SAFETY: bytes without padding; all zeros are valid.
unsafe impl bytemuck::Zeroable for Aligned {}
// SAFETY: bytes without padding (size and alignment are equal), any of which are valid.
unsafe impl Pod for Aligned {}

fn bad_kernel(t: &Table, spirv: &[u8]) -> Option<Error> {
    // SAFETY: no kernel comes of it: the module is refused by what reads it, before the driver sees it.
    unsafe { t.rt.kernel(spirv) }.err()
}

#[test]
fn every_refusal_says_what_and_changes_nothing() {
    let _dog = watchdog("errors", 60);
    let mut table = Table::new();
    let mut wrong = Vec::new();
    for (what, call, variant, contains) in ROWS {
        let before = table.state();
        match call(&mut table) {
            None => wrong.push(format!("{what}: not refused")),
            Some(error) => {
                let (debug, text) = (format!("{error:?}"), error.to_string());
                if !debug.starts_with(variant) {
                    wrong.push(format!("{what}: {debug}"));
                }
                let missing: Vec<_> = contains.iter().filter(|part| !text.contains(**part)).collect();
                if !missing.is_empty() {
                    wrong.push(format!("{what}: {missing:?} is not in {text:?}"));
                }
            }
        }
        let after = table.state();
        if after != before {
            wrong.push(format!("{what}: changed {:?}\nto {:?}", before, after));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    table.unchanged_bytes();
    clean(&table.rt);
    clean(&table.other);
}

#[test]
fn guards_refuse_launches() {
    let _dog = watchdog("guards", 60);
    let mut t = Table::new();
    let checksum = kernel(&t.rt, spv::CHECKSUM);
    let mut sum = t.rt.alloc::<u32>(1).expect("alloc");
    let (mut left, right) = t.x.split_at_mut(4 * WORDS).expect("on a page");
    let guard = right.host().expect("guard");
    let before = right.residency().expect("residency");
    // The other half is free.
    t.rt.launch(&t.scale, Grid::linear(1), (left.write(), 1.0f32)).expect("launch").wait().expect("wait");
    let refused = t.rt.launch(&checksum, Grid::linear(1), (right.read(), sum.write()));
    let error = memory(refused);
    assert!(matches!(&error, MemoryError::Guarded { label } if &**label == "x"), "{error:?}");
    assert!(
        error.to_string().contains("host guard on `x`") && error.to_string().contains("drop the guard"),
        "{error}"
    );
    let hint = right.prefetch_to_device().expect("a hint never fails for a guard");
    assert!(hint.skipped().iter().all(|s| s.why == SkipReason::Guarded) && hint.moved_bytes() == 0);
    assert_eq!(right.residency().expect("residency"), before);
    assert!(before.iter().all(|r| r.pinned));
    drop(guard);
    t.rt.launch(&checksum, Grid::linear(1), (right.read(), sum.write())).expect("launch");
    drop((left, right));
    t.unchanged_bytes();
    clean(&t.rt);
}

#[test]
fn a_full_reservation() {
    let _dog = watchdog("reservation", 60);
    let rt = open(checked().reservation(8 << 20));
    let all: Vec<_> = (0..4).map(|_| rt.alloc::<u8>(1).expect("a block")).collect();
    let error = memory(rt.alloc::<u8>(PAGE));
    assert!(
        matches!(error, MemoryError::OutOfAddressSpace { need, reservation } if (need, reservation) == (2 << 20, 8 << 20))
    );
    assert!(error.to_string().contains("set a larger reservation"), "{error}");
    assert!(matches!(rt.alloc::<u8>((8 << 20) + 1), Err(Error::Layout { limit, .. }) if limit == 8 << 20));
    drop(all);
    let mut whole = rt.alloc::<u8>(8 << 20).expect("blocks came back and joined");
    whole.fill(1);
    clean(&rt);
}

#[test]
fn a_killed_pagemap() {
    let _dog = watchdog("pagemap", 60);
    let rt = open(moving().device_memory_limit(LIMIT));
    let mut x = rt.alloc::<u32>(N).expect("alloc");
    x.fill(4);
    assert!(rt.pagemaps().is_empty(), "no device memory is taken before it is needed");
    rt.fill(x.slice_mut(..N / 2).overwrite(), 5).expect("fill").wait().expect("wait");
    let id = rt.pagemaps()[0].id();
    rt.kill_pagemap(id).expect("kill");
    assert!(!rt.pagemaps()[0].is_live());
    let before = x.residency().expect("residency");
    let error = memory(rt.fill(x.overwrite(), 6));
    assert!(
        matches!(error, MemoryError::NoPagemap) && error.to_string().contains("it was killed"),
        "{error}"
    );
    let hint = x.prefetch_to_device().expect("a hint");
    assert!(hint.skipped().iter().all(|s| s.why == SkipReason::NoPagemap) && hint.moved_bytes() == 0);
    assert_eq!(x.residency().expect("residency"), before);
    rt.unregister_pagemap(id, Duration::from_secs(10)).expect("its pages come home");
    assert!(x.residency().expect("residency").iter().all(|r| r.location == vkhmm::Location::Host));
    assert!(x.iter().enumerate().all(|(i, v)| *v == if i < N / 2 { 5 } else { 4 }));
    assert!(
        rt.unregister_pagemap(id, Duration::ZERO)
            .is_err_and(|e| e.to_string().contains("there is no pagemap"))
    );
    // Device memory is taken anew.
    rt.fill(x.overwrite(), 7).expect("fill");
    assert!(x.iter().all(|v| *v == 7));
    assert_ne!(rt.pagemaps()[0].id(), id);
    clean(&rt);
}

/// Bounds panic as those of slices do.
#[test]
fn bounds_are_those_of_slices() {
    let rt = open(checked());
    let mut x = rt.alloc::<u32>(10).expect("alloc");
    let panics =
        |work: &mut dyn FnMut()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
    assert!(panics(&mut || drop(x.slice(..11))));
    assert!(panics(&mut || drop(x.slice(std::hint::black_box(5)..4))));
    assert!(panics(&mut || drop(x.slice(..=usize::MAX))));
    assert!(panics(&mut || drop(
        x.slice((std::ops::Bound::Excluded(usize::MAX), std::ops::Bound::Unbounded))
    )));
    assert!(panics(&mut || drop(x.slice_mut(11..))));
    assert!(panics(&mut || drop(x.split_at_mut(11))));
    assert_eq!((x.slice(3..=4).len(), x.slice(10..).len(), x.slice(..).len()), (2, 0, 10));
    assert!(x.slice_mut(..0).write_to(&mut Vec::new()).is_ok());
    let _ = x.prefetch_to_host().expect("prefetch").wait_timeout(Duration::MAX).expect("any timeout");
    clean(&rt);
}

/// Builders that ask for what cannot be.
#[test]
fn builders() {
    let _dog = watchdog("builders", 60);
    let refused = |builder: Builder| builder.build().expect_err("must be refused");
    let error = refused(checked().device_memory_limit(65_535));
    assert!(matches!(&error, Error::Setting { have, .. } if have == "65535"), "{error}");
    assert!(error.to_string().contains("at least one frame, 65536 bytes"), "{error}");
    let error = refused(checked().device("no such device"));
    assert!(
        matches!(error, Error::Device(_)) && error.to_string().contains("there are: 0: llvmpipe"),
        "{error}"
    );
    let error = refused(checked().record_launches("/no/such/folder/trace"));
    assert!(matches!(error, Error::System { .. }) && error.to_string().contains("launch trace"), "{error}");
    // Whoever may not have all of userfaultfd is told.
    match checked().fault_engine(vkhmm::FaultEngine::UffdThread).build() {
        Ok(rt) => assert!(common::system_calls_fault(&rt)),
        Err(error) => {
            assert!(matches!(error, Error::Host(_)), "{error}");
            assert!(error.to_string().contains("userfaultfd"), "what would enable it: {error}");
        }
    }
}

#[test]
fn settings() {
    const TEST: &str = "settings";
    if role().is_some() {
        match Runtime::builder().build() {
            Ok(_) => println!("built"),
            Err(error) => println!("refused: {error:?}: {error}"),
        }
        return;
    }
    let rows: &[(&str, &str, &[&str])] = &[
        (
            "VKHMM_FAULT_ENGINE",
            "magic",
            &[
                "Setting",
                "VKHMM_FAULT_ENGINE is \"magic\"",
                "uffd-thread, uffd-thread-user, uffd-sigbus, segv-mprotect or declared",
            ],
        ),
        ("VKHMM_MEMORY_KIND", "vram", &["Setting", "VKHMM_MEMORY_KIND is \"vram\"", "device-private"]),
        ("VKHMM_MEMORY_LIMIT", "12GB", &["Setting", "VKHMM_MEMORY_LIMIT is \"12GB\"", "MiB"]),
        ("VKHMM_MEMORY_LIMIT", "4096", &["Setting", "at least one frame"]),
        ("VKHMM_PLACEMENT", "both", &["Setting", "VKHMM_PLACEMENT is \"both\"", "span or sparse"]),
        ("VKHMM_IN_PLACE_BYTES", "few", &["Setting", "VKHMM_IN_PLACE_BYTES", "KiB"]),
        ("VKHMM_PLACEMENT", "span", &["built"]),
        ("VKHMM_IN_PLACE_BYTES", "0", &["built"]),
        ("VKHMM_TRANSFER", "pigeon", &["Setting", "import or staging"]),
        ("VKHMM_STRICT_IO", "maybe", &["Setting", "0 or 1"]),
        ("VKHMM_VALIDATION", "yes", &["Setting", "0 or 1"]),
        ("VKHMM_RESERVE", "lots", &["Setting", "VKHMM_RESERVE"]),
        ("VKHMM_IMPORT_LIMIT", "-1", &["Setting", "VKHMM_IMPORT_LIMIT"]),
        ("VKHMM_UFFD_FEATURES", "no-poison,fast", &["Setting", "no-continue-wp"]),
        ("VKHMM_WATCHDOG", "0", &["Setting", "seconds"]),
        ("VKHMM_DEVICE", "no such device", &["Device", "no such device", "llvmpipe"]),
        ("VKHMM_RECORD", "/no/such/folder/trace", &["System", "creating the launch trace"]),
        ("VKHMM_MEMORY_KIND", "unified-memory", &["built"]),
        ("VKHMM_FAULT_ENGINE", "", &["built"]),
    ];
    for (name, value, contains) in rows {
        let ended = again(TEST, "build", &[(name, value)], Duration::from_secs(20));
        for part in *contains {
            assert!(ended.text.contains(part), "{name}={value}: {part:?} is not in {}", ended.text);
        }
    }
}
