//! Runtimes on an application's own device: what is asked for is enough, what is missing is named, the application keeps its queue and
//! its device, and destroys it once the runtime is closed.

mod common;

use common::app::{App, Choices};
use common::{again, kernel, role, spv, watchdog};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use vkhmm::vulkan::{Level, Need};
use vkhmm::{Builder, CloseError, Error, FaultEngine, Grid, KernelError, MemoryKind, Runtime};

/// More than any of this takes.
const PATIENCE: Duration = Duration::from_secs(30);
const N: usize = 300_000;

/// A runtime on the application's device.
fn on(app: &App, builder: Builder) -> Result<Runtime, Error> {
    // SAFETY: `App` keeps the contract: handles of its own, its queue under its lock, and a device that outlives `close`.
    unsafe { builder.from_vulkan(app.parts()) }
}

/// Settings for a device that may have one queue only: memory that touches reach without one.
fn suited() -> Builder {
    Runtime::builder().memory_kind(MemoryKind::DeviceCoherent)
}

/// Doubles an array a few times while the application works on its queue; all bytes are right.
fn exercise(app: &App, rt: &Runtime) {
    let mut x = rt.alloc::<f32>(N).expect("alloc");
    x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
    let scale = kernel(rt, spv::SCALE);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for word in 0.. {
                app.work(word);
                if done.load(Ordering::Acquire) {
                    break;
                }
            }
        });
        for step in 0..5 {
            rt.launch(&scale, Grid::linear(N), (x.write(), 2.0_f32)).expect("launch");
            assert_eq!(x[N - 1 - step], (N - 1 - step) as f32 * 2.0_f32.powi(step as i32 + 1));
        }
        done.store(true, Ordering::Release);
    });
    assert!(x.iter().enumerate().all(|(i, v)| *v == i as f32 * 32.0));
    assert_eq!(app.messages(), Vec::<String>::new());
}

#[test]
fn an_application_lends_its_device_and_destroys_it() {
    let _dog = watchdog("own device", 120);
    let app = App::new(&Choices::default());
    for kind in [MemoryKind::DeviceCoherent, MemoryKind::UnifiedMemory] {
        let rt = on(&app, suited().memory_kind(kind)).expect("a runtime");
        println!("{}", rt.doctor().device);
        assert_eq!(rt.doctor().device.roles.contains("under its lock"), app.shares());
        assert_eq!(rt.doctor().device.not_enabled, Vec::<String>::new());
        assert_eq!(rt.device_memory().0, 64 << 20, "the limit of the parts");
        exercise(&app, &rt);
        rt.close(PATIENCE).expect("close");
        app.work(7);
    }
}

#[test]
fn without_faults_any_memory_will_do() {
    let _dog = watchdog("declared", 120);
    let app = App::new(&Choices { share: true, ..Choices::default() });
    let builder = Runtime::builder().memory_kind(MemoryKind::DevicePrivate).device_memory_limit(32 << 20);
    let rt = on(&app, builder.fault_engine(FaultEngine::Declared)).expect("a runtime");
    assert_eq!(rt.device_memory().0, 32 << 20, "the builder's limit");
    exercise(&app, &rt);
    rt.close(PATIENCE).expect("close");
}

#[test]
fn a_shared_queue_is_refused_where_touches_need_it() {
    let app = App::new(&Choices { share: true, ..Choices::default() });
    for kind in [MemoryKind::DevicePrivate, MemoryKind::DeviceBar] {
        let refused =
            on(&app, Runtime::builder().memory_kind(kind).fault_engine(FaultEngine::UffdThreadUser));
        match refused {
            Err(Error::SharedQueue { kind: said }) => assert_eq!(said, kind),
            Err(Error::Host(error)) => common::skipped(&format!("no faults here: {error}")),
            other => panic!("{other:?}"),
        }
    }
    let words = Error::SharedQueue { kind: MemoryKind::DevicePrivate }.to_string();
    assert!(words.contains("a queue without a lock") && words.contains("Declared"), "{words}");
}

/// Who holds the queue's lock and touches what is on the device is answered: by the CPU, without the queue.
#[test]
fn the_holder_of_the_lock_may_touch() {
    let _dog = watchdog("touch under the lock", 60);
    let app = App::new(&Choices { share: true, ..Choices::default() });
    let rt = on(&app, suited()).expect("a runtime");
    if common::declared(&rt) {
        return rt.close(PATIENCE).expect("close");
    }
    let mut x = rt.alloc::<f32>(N).expect("alloc");
    x.fill(1.5);
    let scale = kernel(&rt, spv::SCALE);
    let mut expected = 1.5;
    for _ in 0..20 {
        rt.launch(&scale, Grid::linear(N), (x.write(), 2.0_f32)).expect("launch");
        expected *= 2.0;
        app.lock.hold(|| assert!(x.iter().all(|v| *v == expected)));
    }
    drop((x, scale));
    rt.close(PATIENCE).expect("close");
}

#[test]
fn what_is_required_and_missing_is_named() {
    let app = App::new(&Choices { without: &["timelineSemaphore"], ..Choices::default() });
    match on(&app, suited()) {
        Err(Error::Device(error)) => {
            assert!(error.to_string().contains("without timelineSemaphore:"), "{error}")
        }
        other => panic!("{other:?}"),
    }
    let asked = &app.requirements.feature_names;
    let required: Vec<&str> = asked.iter().filter(|w| w.need == Need::Required).map(|w| w.what).collect();
    assert_eq!(required, ["synchronization2", "timelineSemaphore", "bufferDeviceAddress"]);
}

#[test]
fn parts_that_do_not_fit_are_refused_in_words() {
    let app = App::new(&Choices::default());
    let refused = |edit: &dyn Fn(&mut vkhmm::vulkan::Parts), words: &str| {
        let mut parts = app.parts();
        edit(&mut parts);
        // SAFETY: as in `on`; what is wrong with these parts is refused before it is used.
        match unsafe { suited().from_vulkan(parts) } {
            Err(error) => assert!(error.to_string().contains(words), "{error}"),
            Ok(_) => panic!("accepted, though: {words}"),
        }
    };
    refused(&|parts| parts.queues.clear(), "none of the 0 queues runs kernels");
    refused(&|parts| parts.queues.push(parts.queues[0].clone()), "given twice");
    refused(&|parts| parts.families.push(99), "queue family 99");
    refused(&|parts| parts.api_version = ash::vk::API_VERSION_1_1, "1.2 is needed");
    refused(
        &|parts| parts.features = std::ptr::null(),
        "synchronization2, timelineSemaphore, bufferDeviceAddress",
    );
    refused(&|parts| parts.limit_bytes = Some(1), "at least one frame");
    let refused = |builder: Builder| match on(&app, builder) {
        Err(Error::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(suited().device("0")), "device");
    assert_eq!(refused(suited().validation(true)), "validation");
    // The driver of these tests speaks 1.3: as of 1.2, it is asked for an extension, which this device was created without.
    let mut parts = app.parts();
    parts.api_version = ash::vk::API_VERSION_1_2;
    // SAFETY: as in `on`; the version is refused before it is used.
    match unsafe { suited().from_vulkan(parts) } {
        Err(Error::Device(error)) => {
            assert!(error.to_string().contains("without VK_KHR_synchronization2:"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// A module that says it needs 64-bit integers.
fn with_int64(spirv: &[u8]) -> Vec<u8> {
    let (head, rest) = spirv.split_at(20);
    // OpCapability Int64
    [head, &0x0002_0011_u32.to_le_bytes(), &11_u32.to_le_bytes(), rest].concat()
}

/// The module of `scale`, with its local size of 64 given by constants: `OpExecutionMode %main LocalSize 64 1 1` becomes
/// `OpExecutionModeId %main LocalSizeId %64 %1 %1`.
fn with_local_size_by_id(spirv: &[u8]) -> Vec<u8> {
    let mut words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let constant = |words: &[u32], value: u32| {
        words.windows(4).find(|w| w[0] == 0x0004_002b && w[3] == value).map(|w| w[2]).expect("a constant")
    };
    let (x, one) = (constant(&words, 64), constant(&words, 1));
    let at = words.windows(3).position(|w| w[0] == 0x0006_0010 && w[2] == 17).expect("a local size");
    words[at] = 0x0006_014b;
    words[at + 2..at + 6].copy_from_slice(&[38, x, one, one]);
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn kernels_get_what_the_application_turned_on() {
    let app = App::new(&Choices::default());
    let rt = on(&app, suited()).expect("a runtime");
    let has = app.requirements.feature_names.iter().any(|w| w.what == "shaderInt64");
    let module = with_int64(spv::SCALE);
    // SAFETY: the shipped module with one capability more.
    assert_eq!(unsafe { rt.kernel(&module) }.is_ok(), has);
    // SAFETY: the shipped module, which says its local size otherwise.
    let by_id = unsafe { rt.kernel(with_local_size_by_id(spv::SCALE)) }.expect("maintenance4 is on");
    assert_eq!(by_id.local_size(), [64, 1, 1]);
    drop(by_id);
    rt.close(PATIENCE).expect("close");
    drop(app);

    let without = &["shaderInt64", "maintenance4", "VK_EXT_robustness2"];
    let app = App::new(&Choices { without, ..Choices::default() });
    let rt = on(&app, suited()).expect("a runtime");
    // SAFETY: as above: a shipped module.
    match unsafe { rt.kernel(&module) } {
        Err(Error::Kernel(KernelError::Unsupported { need, have, .. })) => {
            assert_eq!((need.as_str(), have.as_str()), ("Int64", "no shaderInt64"));
        }
        other => panic!("{other:?}"),
    }
    // SAFETY: as above: what the module says of its local size is refused before the driver sees it.
    match unsafe { rt.kernel(with_local_size_by_id(spv::SCALE)) } {
        Err(Error::Kernel(KernelError::Unsupported { need, have, .. })) => {
            assert_eq!((need.as_str(), have.as_str()), ("LocalSizeId", "no maintenance4"));
        }
        other => panic!("{other:?}"),
    }
    let missing = &rt.doctor().device.not_enabled;
    println!("{missing:#?}");
    for name in ["shaderInt64", "VK_EXT_robustness2", "robustBufferAccess2"] {
        assert!(!has || missing.iter().any(|m| m.starts_with(name)), "{name} is not in {missing:?}");
    }
    exercise(&app, &rt);
    rt.close(PATIENCE).expect("close");
}

#[test]
fn the_least_is_enough() {
    let app = App::new(&Choices { level: Level::Required, ..Choices::default() });
    let rt = on(&app, suited()).expect("a runtime");
    let device = &rt.doctor().device;
    assert!(device.import.starts_with("off") && device.not_enabled.len() > 3, "{device}");
    exercise(&app, &rt);
    rt.close(PATIENCE).expect("close");
}

#[test]
fn close_waits_for_the_device_and_names_what_is_in_the_way() {
    let _dog = watchdog("close", 60);
    let rt = Runtime::builder().validation(true).build().expect("a runtime");
    let mut x = rt.alloc_named::<u32>(1 << 16, "the array").expect("alloc");
    let other = rt.clone();
    let add_one = kernel(&rt, spv::ADD_ONE);
    let launch = rt.launch(&add_one, Grid::linear(1 << 16), (x.write(),)).expect("launch");
    rt.fill(x.write(), 7).expect("fill");
    // The runtime, (arrays, kernels, other references). What the runtime keeps for itself, as the kernel of `fill`, does not count.
    let in_use = |rt: Runtime| match rt.close(PATIENCE) {
        Err(error) => {
            let words = error.to_string();
            let CloseError::InUse { runtime, arrays, kernels, references } = error else { panic!("{words}") };
            assert!(
                arrays.iter().all(|label| **label == *"the array" && words.contains("the array")),
                "{words}"
            );
            (runtime, (arrays.len(), kernels, references - 2 * arrays.len()))
        }
        Ok(()) => panic!("closed"),
    };
    let (rt, found) = in_use(rt);
    assert_eq!(found, (1, 1, 2), "an array, a kernel, a clone and a launch");
    // Nothing has changed.
    assert!(x.iter().all(|w| *w == 7));
    drop((other, launch));
    let (rt, found) = in_use(rt);
    assert_eq!(found, (1, 1, 0));
    drop(x);
    let (rt, found) = in_use(rt);
    assert_eq!(found, (0, 1, 0));
    drop(add_one);
    rt.close(PATIENCE).expect("close");
}

#[test]
fn close_of_a_busy_runtime_can_be_waited_for_again() {
    let _dog = watchdog("busy close", 60);
    let app = App::new(&Choices::default());
    let rt = on(&app, suited()).expect("a runtime");
    let mut x = rt.alloc::<u32>(N).expect("alloc");
    let spin = kernel(&rt, spv::SPIN);
    rt.launch(&spin, Grid::linear(256), (x.write(), 50_000_u32, 256_u32)).expect("launch");
    drop((x, spin));
    let begun = Instant::now();
    match rt.close(Duration::ZERO) {
        Err(CloseError::Busy { closing, .. }) => closing.wait(PATIENCE).expect("the device is let go of"),
        Ok(()) => panic!("closed after {:?}, while a kernel runs", begun.elapsed()),
        Err(other) => panic!("{other}"),
    }
}

// ── at exit ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

unsafe extern "C" {
    fn atexit(handler: extern "C" fn()) -> i32;
}

static OPEN: Mutex<Option<(App, Runtime)>> = Mutex::new(None);

/// An application's own end, after vkhmm's: its lock is free, its queue works, and `close` says at once that it is too late.
extern "C" fn the_applications_end() {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((app, rt)) = open else { return };
    app.lock.hold(|| ());
    let begun = Instant::now();
    let closed = rt.close(PATIENCE);
    let quick = begun.elapsed() < Duration::from_secs(5);
    println!("the application's end: {closed:?}, quick: {quick}");
    // Not closed, so the device is left to the system.
    std::mem::forget(app);
}

#[test]
fn an_application_that_forgets_to_close_ends_all_the_same() {
    const TEST: &str = "an_application_that_forgets_to_close_ends_all_the_same";
    if role().is_some() {
        // SAFETY: atexit(3): a function of this program that takes nothing and does not unwind.
        assert_eq!(unsafe { atexit(the_applications_end) }, 0);
        let app = App::new(&Choices::default());
        let rt = on(&app, suited()).expect("a runtime");
        let mut x = rt.alloc::<u32>(N).expect("alloc");
        let spin = kernel(&rt, spv::SPIN);
        rt.launch(&spin, Grid::linear(256), (x.write(), 50_000_u32, 256_u32)).expect("launch");
        drop((x, spin));
        *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((app, rt));
        std::process::exit(0);
    }
    let ended = again(TEST, "exit", &[], Duration::from_secs(30));
    assert!(ended.status.success() && ended.took < Duration::from_secs(20), "{ended:?}");
    assert!(ended.text.contains("the process is ending") && ended.text.contains("quick: true"), "{ended:?}");
}
