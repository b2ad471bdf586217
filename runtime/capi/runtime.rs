//! Runtimes: their options, their making and their end, and the calls that are about all of one.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, quietly, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{self, Options, Out};
use std::ffi::c_char;
use std::time::Duration;
use vkhmm::{Builder, Failure as Injected, FaultEngine, MemoryKind, PlacementChoice, Switches};
use vkhmm_linux::EngineChoice;

pub(crate) struct Runtime(pub(crate) vkhmm::Runtime);

impl Kind for Runtime {
    const TAG: u64 = 1;
}

/// A runtime: memory that host and device share, and kernels that work on it. Several may live in one process; their memory does
/// not mix. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_runtime {
    /// Opaque.
    pub id: u64,
}

/// A yes or no that may be left open: VKHMM_DEFAULT, VKHMM_OFF or VKHMM_ON.
pub type vkhmm_switch = u32;
/// Left open: the environment decides, then the machine.
pub const VKHMM_DEFAULT: u32 = 0;
/// No.
pub const VKHMM_OFF: u32 = 1;
/// Yes.
pub const VKHMM_ON: u32 = 2;

/// Which fault engine answers CPU touches; zero leaves it open.
pub type vkhmm_fault_engine = u32;
/// Userfaultfd with handler threads; system calls on absent pages work.
pub const VKHMM_FAULT_ENGINE_UFFD_THREAD: u32 = 1;
/// The same for ordinary users: system calls on absent pages fail with EFAULT outside host guards.
pub const VKHMM_FAULT_ENGINE_UFFD_THREAD_USER: u32 = 2;
/// No faults: memory may be touched between vkhmm_host_begin and vkhmm_host_end only.
pub const VKHMM_FAULT_ENGINE_DECLARED: u32 = 3;
/// Userfaultfd whose touches are answered by a handler of SIGBUS in the threads that make them; system calls as with
/// VKHMM_FAULT_ENGINE_UFFD_THREAD_USER. Install handlers of SIGBUS before the first runtime, or pass on what is not yours.
pub const VKHMM_FAULT_ENGINE_UFFD_SIGBUS: u32 = 4;
/// Without userfaultfd: touches are answered by a handler of SIGSEGV in the threads that make them, 2 MiB at a time; system calls
/// and handlers as above. Allocations and separate pieces in use are limited by vm.max_map_count.
pub const VKHMM_FAULT_ENGINE_SEGV_MPROTECT: u32 = 5;

/// Which kind of device memory; zero leaves it open.
pub type vkhmm_memory_kind = u32;
/// No host access; copy queues only.
pub const VKHMM_MEMORY_KIND_DEVICE_PRIVATE: u32 = 1;
/// Host-visible, not host-cached: the CPU may write it, never read it.
pub const VKHMM_MEMORY_KIND_DEVICE_BAR: u32 = 2;
/// Host-cached: the CPU may read and write it.
pub const VKHMM_MEMORY_KIND_DEVICE_COHERENT: u32 = 3;
/// The device's heap is the host's.
pub const VKHMM_MEMORY_KIND_UNIFIED: u32 = 4;

/// Which buffers kernels reach memory through; zero leaves it open.
pub type vkhmm_placement_choice = u32;
/// A buffer over whatever neighbouring frames are free; addresses change when data comes and goes.
pub const VKHMM_PLACEMENT_CHOICE_SPAN: u32 = 1;
/// One sparse buffer for life; addresses never change.
pub const VKHMM_PLACEMENT_CHOICE_SPARSE: u32 = 2;

/// Which failure a test injects; zero is none.
pub type vkhmm_failure = u32;
/// No device memory.
pub const VKHMM_FAILURE_OUT_OF_DEVICE_MEMORY: u32 = 1;
/// No host memory for the driver.
pub const VKHMM_FAILURE_OUT_OF_HOST_MEMORY: u32 = 2;
/// Any other refusal of the driver's.
pub const VKHMM_FAILURE_REFUSED: u32 = 3;

/// Settings of a runtime. Zero everything, set size to sizeof, then what is wanted: what stays zero (or NULL) is taken from the
/// environment, then from the machine; vkhmm_runtime_doctor says what came of it, and lists the variables. Later versions add fields
/// at the end; programs built against an earlier header go on working.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_runtime_options {
    /// sizeof(vkhmm_runtime_options).
    pub size: usize,
    /// Most bytes of device memory that frames may take. Default: what the device offers, times 0.9.
    pub device_memory_limit: u64,
    /// Most bytes of host memory that the device may have imported (and pinned) at a time. Default: a quarter of what is available.
    pub import_limit: u64,
    /// Bytes of address space to reserve, exactly. Default: as much as the process's limits allow, at most 1 TiB.
    pub reservation: u64,
    /// Part of a device's name, or its number. Default: the best.
    pub device: *const c_char,
    /// File for the launch trace: one JSON line per launch. Default: none.
    pub record_launches: *const c_char,
    /// The one to use; fails, saying why, if it cannot be had.
    pub fault_engine: vkhmm_fault_engine,
    /// The one to use instead of the best; software devices can play each.
    pub memory_kind: vkhmm_memory_kind,
    /// How buffers are placed. Default: sparse where the device has sparse buffers, else spans. Sparse fails where it cannot be.
    pub placement: vkhmm_placement_choice,
    /// Whether small buffers are used in place: VKHMM_ON for those of at most in_place_bytes, VKHMM_OFF for none. Default: up to 64 KiB.
    pub in_place: vkhmm_switch,
    /// See in_place.
    pub in_place_bytes: u64,
    /// Whether launches revoke also what would have stayed shared, so that a system call without a host guard fails on the first run
    /// and not on the rare one. Default: off, unless the library is a debug build.
    pub strict_io: vkhmm_switch,
    /// Whether to run under Khronos validation; see vkhmm_runtime_validation_messages.
    pub validation: vkhmm_switch,
    /// Whether core dumps contain managed memory. Default: no, the bytes are the user's.
    pub dump_memory: vkhmm_switch,
    /// For tests: VKHMM_OFF moves everything through staging, never through imports.
    pub test_import: vkhmm_switch,
    /// For tests: VKHMM_ON makes all roles share one queue.
    pub test_shared_queue: vkhmm_switch,
    /// For tests: VKHMM_ON gives copies and kernels timelines of their own, even on one queue.
    pub test_split_queue: vkhmm_switch,
    /// For tests: VKHMM_OFF keeps the CPU away from device memory.
    pub test_cpu_access: vkhmm_switch,
    /// For tests: VKHMM_OFF acts as if no host-visible memory were coherent.
    pub test_coherent: vkhmm_switch,
    /// For tests: VKHMM_ON guards frames against stray accesses (software devices).
    pub test_frame_guard: vkhmm_switch,
    /// For tests: VKHMM_ON acts as a kernel without UFFDIO_POISON and read-only UFFDIO_CONTINUE.
    pub test_older_kernel: vkhmm_switch,
    /// For tests: most regions of one copy command.
    pub test_regions_max: u32,
    /// For tests: how the call test_fail_at_call fails.
    pub test_failure: vkhmm_failure,
    /// For tests: this device call, counted from one, fails once; see vkhmm_runtime_device_calls.
    pub test_fail_at_call: u64,
    /// For tests: from this device call on, the device is lost.
    pub test_lose_at_call: u64,
}

// SAFETY: repr(C), a usize first, then numbers and pointers, for which zero is a value.
unsafe impl Options for vkhmm_runtime_options {
    const FIRST_BYTES: usize = size_of::<Self>();
}

fn switch(value: vkhmm_switch, name: &str) -> Result<Option<bool>, Failure> {
    match value {
        VKHMM_DEFAULT => Ok(None),
        VKHMM_OFF => Ok(Some(false)),
        VKHMM_ON => Ok(Some(true)),
        other => {
            Err(Failure::argument(format!("{name} is {other}: pass VKHMM_DEFAULT, VKHMM_OFF or VKHMM_ON")))
        }
    }
}

fn some(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}

/// The switches for tests, if any is set: naming them takes precedence over the environment's.
fn switches(o: &vkhmm_runtime_options) -> Result<Option<Switches>, Failure> {
    let mut s = Switches::default();
    let mut any = false;
    let mut put = |value, name, to: &mut bool| {
        if let Some(on) = switch(value, name)? {
            (*to, any) = (on, true);
        }
        Ok::<(), Failure>(())
    };
    put(o.test_import, "test_import", &mut s.import)?;
    put(o.test_shared_queue, "test_shared_queue", &mut s.shared_queue)?;
    put(o.test_split_queue, "test_split_queue", &mut s.split_queue)?;
    put(o.test_cpu_access, "test_cpu_access", &mut s.cpu_access)?;
    put(o.test_coherent, "test_coherent", &mut s.coherent)?;
    put(o.test_frame_guard, "test_frame_guard", &mut s.frame_guard)?;
    s.regions_max = (o.test_regions_max > 0).then_some(o.test_regions_max);
    s.lose_at_call = some(o.test_lose_at_call);
    let failure = match o.test_failure {
        0 => None,
        VKHMM_FAILURE_OUT_OF_DEVICE_MEMORY => Some(Injected::OutOfDeviceMemory),
        VKHMM_FAILURE_OUT_OF_HOST_MEMORY => Some(Injected::OutOfHostMemory),
        VKHMM_FAILURE_REFUSED => Some(Injected::Refused),
        other => {
            return Err(Failure::argument(format!("test_failure is {other}: pass a VKHMM_FAILURE_ value")));
        }
    };
    s.fail_at_call = some(o.test_fail_at_call).zip(failure);
    any |= s.regions_max.is_some() || s.lose_at_call.is_some() || s.fail_at_call.is_some();
    Ok(any.then_some(s))
}

/// The builder for options.
///
/// # Safety
/// The texts are NULL or end with a NUL.
pub(crate) unsafe fn builder(o: &vkhmm_runtime_options) -> Result<Builder, Failure> {
    let mut b = vkhmm::Runtime::builder();
    if let Some(bytes) = some(o.device_memory_limit) {
        b = b.device_memory_limit(bytes);
    }
    if let Some(bytes) = some(o.import_limit) {
        b = b.import_limit(bytes);
    }
    if let Some(bytes) = some(o.reservation) {
        b = b.reservation(bytes);
    }
    // SAFETY: the caller vouches for the texts.
    let (device, record) =
        unsafe { (input::text(o.device, "device")?, input::text(o.record_launches, "record_launches")?) };
    if let Some(device) = device {
        b = b.device(device);
    }
    if let Some(path) = record {
        b = b.record_launches(path);
    }
    b = match o.fault_engine {
        0 => b,
        VKHMM_FAULT_ENGINE_UFFD_THREAD => b.fault_engine(FaultEngine::UffdThread),
        VKHMM_FAULT_ENGINE_UFFD_THREAD_USER => b.fault_engine(FaultEngine::UffdThreadUser),
        VKHMM_FAULT_ENGINE_DECLARED => b.fault_engine(FaultEngine::Declared),
        VKHMM_FAULT_ENGINE_UFFD_SIGBUS => b.fault_engine(FaultEngine::UffdSigbus),
        VKHMM_FAULT_ENGINE_SEGV_MPROTECT => b.fault_engine(FaultEngine::SegvMprotect),
        other => {
            return Err(Failure::argument(format!(
                "fault_engine is {other}: pass a VKHMM_FAULT_ENGINE_ value"
            )));
        }
    };
    if o.memory_kind != 0 {
        let wrong = || {
            Failure::argument(format!("memory_kind is {}: pass a VKHMM_MEMORY_KIND_ value", o.memory_kind))
        };
        b = b.memory_kind(MemoryKind::from_code(o.memory_kind).ok_or_else(wrong)?);
    }
    b = match o.placement {
        0 => b,
        VKHMM_PLACEMENT_CHOICE_SPAN => b.placement(PlacementChoice::Span),
        VKHMM_PLACEMENT_CHOICE_SPARSE => b.placement(PlacementChoice::Sparse),
        other => {
            return Err(Failure::argument(format!(
                "placement is {other}: pass a VKHMM_PLACEMENT_CHOICE_ value"
            )));
        }
    };
    if let Some(on) = switch(o.in_place, "in_place")? {
        b = b.in_place_bytes(if on { o.in_place_bytes } else { 0 });
    }
    if let Some(on) = switch(o.strict_io, "strict_io")? {
        b = b.strict_io(on);
    }
    if let Some(on) = switch(o.validation, "validation")? {
        b = b.validation(on);
    }
    if let Some(on) = switch(o.dump_memory, "dump_memory")? {
        b = b.dump_memory(on);
    }
    if let Some(on) = switch(o.test_older_kernel, "test_older_kernel")? {
        b = b.older_kernel(on, on);
    }
    if let Some(switches) = switches(o)? {
        b = b.switches(switches);
    }
    Ok(b)
}

/// Makes a runtime on a Vulkan device of its own: opens host memory and device, and starts threads. `options` may be NULL. Ends with
/// vkhmm_runtime_destroy.
///
/// # Errors
/// NO_DEVICE, NO_HOST, SETTING, SYSTEM, OUT_OF_HOST_MEMORY, INVALID_ARGUMENT; each says what would help.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_create(
    options: *const vkhmm_runtime_options,
    runtime: *mut vkhmm_runtime,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (out, builder) = unsafe {
            let out = Out::new(runtime, "runtime")?;
            (out, builder(&input::options(options, "options")?)?)
        };
        handles::begin()?;
        let made = builder.build()?;
        out.set(vkhmm_runtime { id: handles::insert(0, Runtime(made))? });
        Ok(VKHMM_OK)
    })
}

/// Ends a runtime and frees everything that goes with it: its buffers, kernels, launches, guards and acquired bytes are stale from now on,
/// and their pointers must not be used any more. Does not wait for the device: what it still uses is reclaimed after its last
/// operation; before an application destroys its own device, vkhmm_runtime_close says when. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if it was destroyed before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_destroy(runtime: vkhmm_runtime) -> vkhmm_result {
    call(|| {
        drop(handles::remove_runtime(runtime.id)?);
        Ok(VKHMM_OK)
    })
}

/// Gives up whatever a handle names, a runtime with everything that goes with it; nothing for a number that names nothing, and nothing in
/// a forked child. For finalisers, which may run between any two calls: vkhmm_last_error stays as it is.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_release_handle(id: u64) {
    quietly(|| drop(handles::remove_any(id)));
}

/// The fault engine that answers CPU touches.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_fault_engine(
    runtime: vkhmm_runtime,
    engine: *mut vkhmm_fault_engine,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(engine, "engine")? };
        out.set(match handles::get::<Runtime>(runtime.id)?.0.0.doctor().host.chosen {
            EngineChoice::UffdThread => VKHMM_FAULT_ENGINE_UFFD_THREAD,
            EngineChoice::UffdThreadUserOnly => VKHMM_FAULT_ENGINE_UFFD_THREAD_USER,
            EngineChoice::UffdSigbus => VKHMM_FAULT_ENGINE_UFFD_SIGBUS,
            EngineChoice::SegvMprotect => VKHMM_FAULT_ENGINE_SEGV_MPROTECT,
            EngineChoice::Declared => VKHMM_FAULT_ENGINE_DECLARED,
        });
        Ok(VKHMM_OK)
    })
}

/// Submits what is recorded and not yet submitted. Never needed for correctness.
///
/// # Errors
/// Of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_flush(runtime: vkhmm_runtime) -> vkhmm_result {
    call(|| {
        handles::get::<Runtime>(runtime.id)?.0.0.flush();
        Ok(VKHMM_OK)
    })
}

/// Waits for everything launched before.
///
/// # Errors
/// DEVICE_LOST; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_sync(runtime: vkhmm_runtime) -> vkhmm_result {
    call(|| {
        handles::get::<Runtime>(runtime.id)?.0.0.sync()?;
        Ok(VKHMM_OK)
    })
}

/// vkhmm_runtime_sync for at most `timeout_ns` nanoseconds; TIMEOUT if there is work left.
///
/// # Errors
/// DEVICE_LOST; of handles, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_wait(runtime: vkhmm_runtime, timeout_ns: u64) -> vkhmm_result {
    call(|| {
        let (rt, _) = handles::get::<Runtime>(runtime.id)?;
        let done = rt.0.sync_timeout(Duration::from_nanos(timeout_ns))?;
        Ok(if done { VKHMM_OK } else { VKHMM_TIMEOUT })
    })
}

/// Device memory: the limit, and the bytes that are in use now. Either may be NULL.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_device_memory(
    runtime: vkhmm_runtime,
    limit: *mut u64,
    used: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let (limit, used) = unsafe { (Out::optional(limit, "limit")?, Out::optional(used, "used")?) };
        let now = handles::get::<Runtime>(runtime.id)?.0.0.device_memory();
        if let Some(limit) = limit {
            limit.set(now.0);
        }
        if let Some(used) = used {
            used.set(now.1);
        }
        Ok(VKHMM_OK)
    })
}

/// Sets how many bytes of device memory frames may take, and evicts what is above. `evicted`, the bytes evicted, may be NULL.
///
/// # Errors
/// DEVICE_LOST; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_set_device_memory_limit(
    runtime: vkhmm_runtime,
    bytes: u64,
    evicted: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::optional(evicted, "evicted")? };
        let bytes = handles::get::<Runtime>(runtime.id)?.0.0.set_device_memory_limit(bytes)?;
        if let Some(out) = out {
            out.set(bytes);
        }
        Ok(VKHMM_OK)
    })
}

/// Evicts at least `bytes` of device memory if that much can be, the cheapest first. `evicted`, the bytes evicted, may be NULL.
///
/// # Errors
/// DEVICE_LOST; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_trim(
    runtime: vkhmm_runtime,
    bytes: u64,
    evicted: *mut u64,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::optional(evicted, "evicted")? };
        let bytes = handles::get::<Runtime>(runtime.id)?.0.0.trim(bytes)?;
        if let Some(out) = out {
            out.set(bytes);
        }
        Ok(VKHMM_OK)
    })
}

/// For loops over arrays that are larger than the device: how many items one window has, so that `depth` windows fit the device memory
/// limit at once, when the arrays of one window take `bytes_per_item` bytes per item together. Launch items 0..step, step..2*step
/// and so on up to `len`; such launches overlap copies in, kernels and copies out.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_window(
    runtime: vkhmm_runtime,
    len: usize,
    bytes_per_item: usize,
    depth: usize,
    step: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(step, "step")? };
        out.set(handles::get::<Runtime>(runtime.id)?.0.0.windows(len, bytes_per_item, depth).step());
        Ok(VKHMM_OK)
    })
}
