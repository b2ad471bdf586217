//! A runtime on a device that the application made and keeps, and its end.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles;
use crate::input::{self, Options, Out};
use crate::requirements::{entry, handle};
use crate::runtime::{self, Runtime, vkhmm_runtime, vkhmm_runtime_options};
use crate::vk::{
    PFN_vkGetInstanceProcAddr, VkBufferUsageFlags, VkDevice, VkInstance, VkPhysicalDevice,
    VkPhysicalDeviceFeatures, VkQueue,
};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm::vulkan::{OwnQueue, Parts, QueueLock, load_device, load_instance, vk};
use vkhmm::{CloseError, Closing};

/// A queue for vkhmm. `lock` and `unlock` are NULL if vkhmm alone uses it. Otherwise the application uses it, too, and both call the
/// queue under this lock: vkhmm takes it around one call of the driver, and nothing inside; a thread that holds it calls nothing of
/// vkhmm. They must not throw, and must not be called again after vkhmm_runtime_close has answered OK.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_queue {
    /// From vkGetDeviceQueue; created without flags.
    pub queue: VkQueue,
    /// Its family.
    pub family: u32,
    /// Zero.
    pub reserved: u32,
    /// Returns once the calling thread alone may use the queue.
    pub lock: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Ends what `lock` of the same thread began.
    pub unlock: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Given to both.
    pub user: *mut c_void,
}

/// An application's instance and device, and what vkhmm may do with them. vkhmm destroys neither. Whoever passes parts promises all of
/// this until vkhmm_runtime_close has answered OK:
///
/// 1. instance, physical_device and device are alive and belong together; device is made of physical_device alone.
/// 2. api_version is the instance's apiVersion; extensions are on; features and enabled_features are what vkCreateDevice was given.
/// 3. Each queue was created with device, without flags, in the family named.
/// 4. Nobody else uses a queue without a lock, in any way: vkQueueWaitIdle and vkDeviceWaitIdle included.
/// 5. The locks do as vkhmm_queue says.
/// 6. families names every family whose queues will touch managed buffers.
/// 7. usage is allowed on this device for storage buffers with device addresses.
/// 8. Buffers that are acquired are used as vkhmm_acquire says, and neither destroyed nor bound anew.
/// 9. Managed pointers are never given to Vulkan: the driver may hold locks that the answer to a touch needs.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_parts {
    /// sizeof(vkhmm_parts).
    pub size: usize,
    /// vkGetInstanceProcAddr of the loader that the instance came from.
    pub get_instance_proc_addr: PFN_vkGetInstanceProcAddr,
    /// The instance.
    pub instance: VkInstance,
    /// The physical device.
    pub physical_device: VkPhysicalDevice,
    /// The device.
    pub device: VkDevice,
    /// Names of the device extensions that are on.
    pub extensions: *const *const c_char,
    /// How many.
    pub extension_count: usize,
    /// The pNext chain that vkCreateDevice was given; NULL if there was none. Read during the call only.
    pub features: *const c_void,
    /// What pEnabledFeatures pointed at; NULL if it was. Read during the call only.
    pub enabled_features: *const VkPhysicalDeviceFeatures,
    /// Queues for vkhmm; one that can run kernels at least.
    pub queues: *const vkhmm_queue,
    /// How many.
    pub queue_count: usize,
    /// The families of all queues of the application's that will touch managed buffers, in any order.
    pub families: *const u32,
    /// How many.
    pub family_count: usize,
    /// Most bytes of device memory for frames; zero leaves it open. device_memory_limit of the options comes first.
    pub limit: u64,
    /// The apiVersion that the instance was created with.
    pub api_version: u32,
    /// What managed buffers are used as, beside storage, copies and device addresses.
    pub usage: VkBufferUsageFlags,
}

// SAFETY: repr(C), a usize first, then numbers, pointers and optional functions, for which zero is a value.
unsafe impl Options for vkhmm_parts {
    const FIRST_BYTES: usize = size_of::<Self>();
}

/// The application's lock of a queue.
struct Lock {
    lock: unsafe extern "C" fn(*mut c_void),
    unlock: unsafe extern "C" fn(*mut c_void),
    user: *mut c_void,
}

// SAFETY: the application promises (`vkhmm_queue`) that both functions may be called with `user` on any thread.
unsafe impl Send for Lock {}
// SAFETY: as above; nothing here is ever changed.
unsafe impl Sync for Lock {}

impl QueueLock for Lock {
    fn lock(&self) {
        // SAFETY: the application promises that the function may be called until the runtime is closed.
        unsafe { (self.lock)(self.user) }
    }

    fn unlock(&self) {
        // SAFETY: as above, by the thread that locked.
        unsafe { (self.unlock)(self.user) }
    }
}

fn own_queue(i: usize, given: &vkhmm_queue) -> Result<OwnQueue, Failure> {
    input::unused(given.reserved, "reserved of a queue")?;
    let lock: Option<Arc<dyn QueueLock>> = match (given.lock, given.unlock) {
        (None, None) => None,
        (Some(lock), Some(unlock)) => Some(Arc::new(Lock { lock, unlock, user: given.user })),
        _ => {
            return Err(Failure::argument(format!(
                "queue {i} has one of lock and unlock: pass both, or none"
            )));
        }
    };
    Ok(OwnQueue { family: given.family, handle: handle(given.queue, "a queue")?, lock })
}

/// The parts as the API takes them.
///
/// # Safety
/// As `vkhmm_parts` says.
unsafe fn parts(given: &vkhmm_parts) -> Result<Parts, Failure> {
    let entry = entry(given.get_instance_proc_addr)?;
    let instance: vk::Instance = handle(given.instance, "instance")?;
    let physical: vk::PhysicalDevice = handle(given.physical_device, "physical_device")?;
    let device: vk::Device = handle(given.device, "device")?;
    // SAFETY: the caller vouches for lists and texts.
    let (names, queues, families, enabled_features) = unsafe {
        (
            input::list(given.extensions, given.extension_count, "extensions")?,
            input::list(given.queues, given.queue_count, "queues")?,
            input::list(given.families, given.family_count, "families")?,
            if given.enabled_features.is_null() {
                None
            } else {
                Some(input::one(given.enabled_features, "enabled_features")?)
            },
        )
    };
    let mut extensions = Vec::with_capacity(names.len());
    for name in names {
        // SAFETY: the caller vouches for the texts.
        let name = unsafe { input::text(name, "the name of an extension")? };
        let name = name.ok_or_else(|| Failure::argument("the name of an extension is NULL"))?;
        extensions.push(CString::new(name).unwrap_or_default());
    }
    let queues = queues.iter().enumerate().map(|(i, q)| own_queue(i, q)).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the caller vouches for instance, device and loader.
    let (instance, device) = unsafe {
        let instance = load_instance(entry, instance);
        let device = load_device(&instance, device);
        (instance, device)
    };
    Ok(Parts {
        instance,
        physical,
        device,
        api_version: given.api_version,
        extensions,
        features: given.features,
        enabled_features,
        queues,
        families,
        usage: vk::BufferUsageFlags::from_raw(given.usage),
        limit_bytes: (given.limit > 0).then_some(given.limit),
    })
}

/// Makes a runtime over a device that the application made and keeps. `options` may be NULL; device and validation in them are the
/// application's business here. Ends with vkhmm_runtime_close. Small submissions are run and waited for meanwhile.
///
/// # Errors
/// NO_DEVICE names what is required and not turned on, or what does not fit together; SHARED_QUEUE if CPU touches would need a queue that
/// the application shares; otherwise as vkhmm_runtime_create.
///
/// # Safety
/// The promises of vkhmm_parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_runtime_from_vulkan(
    parts: *const vkhmm_parts,
    options: *const vkhmm_runtime_options,
    runtime: *mut vkhmm_runtime,
) -> vkhmm_result {
    call(|| {
        if parts.is_null() {
            return Err(Failure::argument("parts is NULL"));
        }
        // SAFETY: the caller vouches for the pointers, and for the promises of the parts.
        let (out, builder, parts) = unsafe {
            let out = Out::new(runtime, "runtime")?;
            let builder = runtime::builder(&input::options(options, "options")?)?;
            (out, builder, self::parts(&input::options(parts, "parts")?)?)
        };
        handles::begin()?;
        // SAFETY: the promises of `vkhmm_parts` are the contract of `Parts`.
        let made = unsafe { builder.from_vulkan(parts)? };
        out.set(vkhmm_runtime { id: handles::insert(0, Runtime(made))? });
        Ok(VKHMM_OK)
    })
}

/// A runtime whose handle is gone, on its way down.
pub(crate) enum Ending {
    /// A call of another thread still uses it.
    Used(Arc<Runtime>),
    /// Let go; the device is still at work.
    Let(Closing),
}

/// How often a runtime that another thread's call uses is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// One step: `None` when nothing uses the device any more.
fn step(ending: Ending, left: Duration) -> Result<Option<Ending>, Failure> {
    let result = match ending {
        Ending::Let(closing) => closing.wait(left),
        Ending::Used(shared) => match Arc::try_unwrap(shared) {
            Ok(Runtime(runtime)) => runtime.close(left),
            Err(shared) => {
                std::thread::sleep(left.min(LOOK));
                return Ok(Some(Ending::Used(shared)));
            }
        },
    };
    match result {
        Ok(()) => Ok(None),
        Err(CloseError::Busy { closing, .. }) => Ok(Some(Ending::Let(closing))),
        Err(CloseError::InUse { runtime, .. }) => {
            std::thread::sleep(left.min(LOOK));
            Ok(Some(Ending::Used(Arc::new(Runtime(runtime)))))
        }
        Err(error @ CloseError::ForkedChild) => Err(Failure::new(VKHMM_ERROR_FORKED, error.to_string())),
        Err(error) => Err(Failure::new(VKHMM_ERROR_ENDING, error.to_string())),
    }
}

/// Ends a runtime as vkhmm_runtime_destroy does, and waits at most `timeout_ns` nanoseconds until no thread of the runtime's and nothing
/// made by it uses the Vulkan device: after OK an application may destroy its device. TIMEOUT if that is not so yet: call it again with
/// the same handle, which is stale for every other call. What was launched is finished first.
///
/// # Errors
/// ENDING if the process is ending: vkhmm does not touch the device any more, and what it made from it is still there; STALE_HANDLE,
/// INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_runtime_close(runtime: vkhmm_runtime, timeout_ns: u64) -> vkhmm_result {
    call(|| {
        let begun = Instant::now();
        // Clocks do not count further.
        let timeout = Duration::from_nanos(timeout_ns).min(Duration::from_secs(1 << 32));
        let mut ending = handles::end_runtime(runtime.id)?;
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            match step(ending, left)? {
                None => return Ok(VKHMM_OK),
                Some(still) if left.is_zero() => {
                    handles::still_ending(runtime.id, still)?;
                    return Ok(VKHMM_TIMEOUT);
                }
                Some(still) => ending = still,
            }
        }
    })
}
