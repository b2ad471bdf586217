//! An application's own device: what it hands over, and what is checked before anything is made from it.

use crate::VulkanDevice;
use crate::choice::{self, Choice};
use crate::config::Config;
use crate::door::QueueLock;
use crate::error::OpenError;
use crate::extensions::Extensions;
use crate::features::Features;
use crate::instance::Instance;
use crate::open::Opened;
use crate::physical::Physical;
use crate::report::Candidate;
use crate::requirements::{Level, Need, Requirements};
use ash::vk;
use core::ffi::c_void;
use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::Arc;
use vkhmm_port::RawBytes;

/// A queue for vkhmm.
#[derive(Clone)]
pub struct OwnQueue {
    /// Its family.
    pub family: u32,
    /// Its handle, from vkGetDeviceQueue; made without flags.
    pub handle: vk::Queue,
    /// `None`: vkhmm alone uses it. `Some`: the application uses it, too, and both under this lock. A queue with a lock is used only
    /// where no other one can run kernels, and only on devices whose CPU touches are served without queues.
    pub lock: Option<Arc<dyn QueueLock>>,
}

impl fmt::Debug for OwnQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.lock.is_some();
        f.debug_struct("OwnQueue")
            .field("family", &self.family)
            .field("shared", &shared)
            .finish_non_exhaustive()
    }
}

/// An application's instance and device, and what vkhmm may do with them. vkhmm destroys neither.
///
/// # Contract
/// Whoever gives parts to [`VulkanDevice::from_parts`] promises all of this, until the device's latch is open
/// ([`VulkanDevice::latch`]; for a runtime: until `Runtime::close` returned `Ok`):
///
/// 1. `instance`, `physical` and `device` are alive, belong together and were loaded from their own handles; `device` is made of
///    `physical` alone (no device group), with no allocation callbacks that managed memory depends on.
/// 2. `api_version` is the `apiVersion` of the instance's VkApplicationInfo; `extensions` are among those that the device was
///    created with; `features` and `enabled_features` are what vkCreateDevice was given (read only during the call).
/// 3. Each of `queues` was created with `device`, without flags, in the family named.
/// 4. Nobody else uses a queue without a lock, in any way, vkQueueWaitIdle and vkDeviceWaitIdle included: call these only when no
///    runtime is open on the device, or wait for semaphores instead. A queue with a lock is used under that lock only.
/// 5. The lock's `lock` excludes every other use of the queue until `unlock`; a thread that holds it calls nothing of vkhmm. It may
///    touch managed memory, but for pages that a call of another thread's is moving and that has not returned: that call may be waiting
///    for the lock.
/// 6. `families` names every family whose queues will touch managed buffers; the device was created with queues of each.
/// 7. `usage` is allowed on this device for storage buffers with device addresses.
/// 8. Managed buffers that the application is given are used as their hand-over says, and are neither destroyed nor bound anew.
/// 9. Managed pointers are never given to Vulkan (imports, vkCmdUpdateBuffer, push constants, host copies, pCode): the driver may
///    hold locks that the answer to a touch needs.
pub struct Parts {
    /// The instance.
    pub instance: ash::Instance,
    /// The physical device.
    pub physical: vk::PhysicalDevice,
    /// The device.
    pub device: ash::Device,
    /// The version that the instance was created with (VkApplicationInfo's `apiVersion`).
    pub api_version: u32,
    /// The device extensions that are on.
    pub extensions: Vec<CString>,
    /// The `pNext` chain that vkCreateDevice was given; null if there was none.
    pub features: *const c_void,
    /// What `pEnabledFeatures` pointed at.
    pub enabled_features: Option<vk::PhysicalDeviceFeatures>,
    /// Queues for vkhmm; one that can run kernels at least.
    pub queues: Vec<OwnQueue>,
    /// The families of all queues of the application's that will touch managed buffers, in any order. Managed buffers are CONCURRENT
    /// over these and vkhmm's own where they are several.
    pub families: Vec<u32>,
    /// What managed buffers are used as, beside storage, copies and device addresses.
    pub usage: vk::BufferUsageFlags,
    /// Most bytes of device memory for frames, where nobody names another limit.
    pub limit_bytes: Option<u64>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("queues", &self.queues)
            .field("families", &self.families)
            .finish_non_exhaustive()
    }
}

/// An instance that was not made through `ash`, with its functions loaded.
///
/// # Safety
/// `instance` is alive, and `get` is the vkGetInstanceProcAddr of the loader that it came from.
pub unsafe fn load_instance(get: vk::PFN_vkGetInstanceProcAddr, instance: vk::Instance) -> ash::Instance {
    let start = ash::StaticFn { get_instance_proc_addr: get };
    // SAFETY: the caller's promise is that of `ash::Instance::load`.
    unsafe { ash::Instance::load(&start, instance) }
}

/// A device that was not made through `ash`, with its functions loaded.
///
/// # Safety
/// `device` is alive and was created from a physical device of `instance`.
pub unsafe fn load_device(instance: &ash::Instance, device: vk::Device) -> ash::Device {
    // SAFETY: the caller's promise is that of `ash::Device::load`.
    unsafe { ash::Device::load(instance.fp_v1_0(), device) }
}

impl VulkanDevice {
    /// A device over one that the application made and keeps.
    ///
    /// `config.device` and `config.validation` are the application's business here and not looked at; `probe` is as for
    /// [`VulkanDevice::open`]. Runs a few small submissions, and waits for them.
    ///
    /// # Errors
    /// `NotEnabled` names everything required that was not turned on; `Parts` says what else is wrong. What is optional and not on is
    /// off, and [`crate::DeviceReport::not_enabled`] says what that costs.
    ///
    /// # Safety
    /// The contract of [`Parts`].
    pub unsafe fn from_parts(
        parts: Parts,
        config: Config,
        probe: Option<RawBytes>,
    ) -> Result<Self, OpenError> {
        let mut physical = Physical::query(&parts.instance, parts.physical, parts.api_version, parts.usage);
        if config.switches.mock {
            physical.assume_features();
        }
        choice::usable(&physical)?;
        let asked = Requirements::of(&physical, Level::Everything, &config);
        let names: Vec<&CStr> = parts.extensions.iter().map(CString::as_c_str).collect();
        // SAFETY: `Parts`, 2: the chain is what vkCreateDevice was given.
        let enabled = unsafe { Features::enabled(parts.features, parts.enabled_features.as_ref()) };
        let mut features = enabled.shared_with(&physical.features.wanted());
        let listed = Extensions::find(names.iter().copied(), physical.api);
        if !listed.robustness2 {
            features.robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        }
        if !listed.atomic_float {
            features.atomic_float = vk::PhysicalDeviceShaderAtomicFloatFeaturesEXT::default();
        }
        let not_enabled = not_enabled(&asked, &names, &features)?;
        let queues = usable_queues(&physical, parts.queues)?;
        let families = families(&physical, &queues, &parts.families)?;
        physical.extensions = listed;
        let choice = Choice {
            index: 0,
            candidates: vec![Candidate {
                name: physical.name.clone(),
                driver: physical.driver.clone(),
                kind: physical.kind_words().into(),
                refused: None,
            }],
            why: String::from("the application's own device"),
        };
        Self::assemble(
            Opened {
                instance: Instance::borrowed(parts.instance),
                device: parts.device,
                owned: false,
                physical,
                features,
                queues,
                families,
                usage: parts.usage,
                not_enabled,
            },
            choice,
            &config,
            probe,
        )
    }
}

/// What was asked for and is not on: an error for what is required, words for the rest.
fn not_enabled(asked: &Requirements, names: &[&CStr], on: &Features) -> Result<Vec<String>, OpenError> {
    let extensions = asked.extensions.iter().filter(|e| !names.contains(&e.what));
    let extensions = extensions.map(|e| (e.what.to_string_lossy().into_owned(), e.need));
    let is_on = |name: &str| on.rows().any(|row| row.name == name);
    let features = asked.feature_names.iter().filter(|f| !is_on(f.what)).map(|f| (f.what.to_owned(), f.need));
    let missing: Vec<(String, Need)> = extensions.chain(features).collect();
    let required: Vec<String> =
        missing.iter().filter(|(_, need)| *need == Need::Required).map(|(name, _)| name.clone()).collect();
    if !required.is_empty() {
        return Err(OpenError::NotEnabled { required });
    }
    Ok(missing.into_iter().map(|(name, need)| format!("{name}: {need}")).collect())
}

fn wrong(reason: String) -> OpenError {
    OpenError::Parts { reason }
}

/// The families over which managed buffers are shared, each once.
fn families(physical: &Physical, queues: &[OwnQueue], named: &[u32]) -> Result<Vec<u32>, OpenError> {
    named.iter().try_for_each(|family| known(physical, *family))?;
    let mut all: Vec<u32> = named.iter().copied().chain(queues.iter().map(|q| q.family)).collect();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn known(physical: &Physical, family: u32) -> Result<(), OpenError> {
    let have = physical.families.len();
    if (family as usize) < have {
        return Ok(());
    }
    Err(wrong(format!("queue family {family} is named, the device has {have}: they count from zero")))
}

/// The queues that are used: those without a lock, if one of them runs kernels; else all.
fn usable_queues(physical: &Physical, queues: Vec<OwnQueue>) -> Result<Vec<OwnQueue>, OpenError> {
    for (i, queue) in queues.iter().enumerate() {
        known(physical, queue.family)?;
        if queue.handle == vk::Queue::null() {
            return Err(wrong(format!("queue {i} (family {}) is null", queue.family)));
        }
        if queues[..i].iter().any(|other| other.handle == queue.handle) {
            return Err(wrong(format!("queue {i} (family {}) is given twice", queue.family)));
        }
    }
    let computes = |queue: &OwnQueue| {
        physical.families[queue.family as usize].queue_flags.contains(vk::QueueFlags::COMPUTE)
    };
    if queues.iter().any(|queue| queue.lock.is_none() && computes(queue)) {
        return Ok(queues.into_iter().filter(|queue| queue.lock.is_none()).collect());
    }
    if queues.iter().any(computes) {
        return Ok(queues);
    }
    let can: Vec<String> = (0..)
        .zip(&physical.families)
        .filter(|(_, family)| family.queue_flags.contains(vk::QueueFlags::COMPUTE))
        .map(|(i, _): (u32, _)| i.to_string())
        .collect();
    Err(wrong(format!(
        "none of the {} queues runs kernels: give one of family {}",
        queues.len(),
        can.join(" or ")
    )))
}

#[cfg(test)]
mod tests;
