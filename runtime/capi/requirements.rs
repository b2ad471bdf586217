//! What vkhmm asks of a device that the application is about to create.

use crate::error::vkhmm_result::*;
use crate::error::{Failure, call, vkhmm_result};
use crate::handles::{self, Kind};
use crate::input::{Out, OutList, OutText};
use crate::vk::{PFN_vkGetInstanceProcAddr, VkInstance, VkPhysicalDevice};
use std::ffi::{CString, c_char, c_void};
use vkhmm::vulkan::vk::{self, Handle};
use vkhmm::vulkan::{Level, Need, Role, Wanted, load_instance};

/// A word and what is lost without it, as C reads them.
struct Item {
    name: CString,
    lost: Option<CString>,
}

pub(crate) struct Requirements {
    of: vkhmm::vulkan::Requirements,
    extensions: Vec<Item>,
    features: Vec<Item>,
}

impl Kind for Requirements {
    const TAG: u64 = 7;
}

/// What vkhmm asks of a device. Zero names none.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_requirements {
    /// Opaque.
    pub id: u64,
}

/// How much an application is ready to turn on for vkhmm.
pub type vkhmm_level = u32;
/// What vkhmm does not run without, and nothing else.
pub const VKHMM_LEVEL_REQUIRED: u32 = 1;
/// Everything that it can use.
pub const VKHMM_LEVEL_EVERYTHING: u32 = 2;

/// An extension or a feature to turn on. The texts are valid until the requirements are destroyed.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_wanted {
    /// Its name, as the specification has it.
    pub name: *const c_char,
    /// NULL if vkhmm does not run without it; else what is lost without it, in words.
    pub lost: *const c_char,
}

/// Bits of what a queue is for.
pub type vkhmm_roles = u32;
/// Copies to the device.
pub const VKHMM_ROLE_COPY_IN: u32 = 1;
/// Copies to the host.
pub const VKHMM_ROLE_COPY_OUT: u32 = 2;
/// Kernels.
pub const VKHMM_ROLE_COMPUTE: u32 = 4;
/// Binding of sparse memory.
pub const VKHMM_ROLE_BIND: u32 = 8;
/// Saying when acquired memory may be used.
pub const VKHMM_ROLE_GRANT: u32 = 16;
/// Waiting until released memory may be used again.
pub const VKHMM_ROLE_RELEASE: u32 = 32;

/// Queues of one family, to be created for vkhmm.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vkhmm_wanted_queue {
    /// Which family.
    pub family: u32,
    /// How many of it, beside those that the application keeps for itself.
    pub count: u32,
    /// What they are for.
    pub roles: vkhmm_roles,
    /// 1 if vkhmm does not run without them. An application that cannot spare the required one may share it under a lock.
    pub required: u32,
}

fn role_bit(role: Role) -> u32 {
    match role {
        Role::CopyIn => VKHMM_ROLE_COPY_IN,
        Role::CopyOut => VKHMM_ROLE_COPY_OUT,
        Role::Compute => VKHMM_ROLE_COMPUTE,
        Role::Bind => VKHMM_ROLE_BIND,
        Role::Grant => VKHMM_ROLE_GRANT,
        Role::Release => VKHMM_ROLE_RELEASE,
    }
}

fn item(name: CString, need: Need) -> Item {
    let lost = match need {
        Need::Required => None,
        Need::Lost(words) => Some(CString::new(words).unwrap_or_default()),
    };
    Item { name, lost }
}

/// The loader's entry, checked.
pub(crate) fn entry(get: PFN_vkGetInstanceProcAddr) -> Result<vk::PFN_vkGetInstanceProcAddr, Failure> {
    let get =
        get.ok_or_else(|| Failure::argument("get_instance_proc_addr is NULL: pass vkGetInstanceProcAddr"))?;
    // SAFETY: both are the same function of C's: a dispatchable handle is a pointer, however a binding spells it.
    Ok(unsafe {
        std::mem::transmute::<unsafe extern "system" fn(_, _) -> _, vk::PFN_vkGetInstanceProcAddr>(get)
    })
}

/// A dispatchable handle, checked.
pub(crate) fn handle<T: Handle>(given: *mut c_void, name: &str) -> Result<T, Failure> {
    if given.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    Ok(T::from_raw(given as u64))
}

/// Asks what a device is to be created with, before it is: extensions, features and queues, each required or with what is lost without
/// it. `api_version` is the apiVersion that the instance was created with (1.2 or above). Ends with vkhmm_requirements_destroy.
///
/// # Errors
/// NO_DEVICE if the device lacks what is required, which the text names; INVALID_ARGUMENT; OUT_OF_HOST_MEMORY.
///
/// # Safety
/// `instance` and `physical_device` are alive, and `get_instance_proc_addr` is vkGetInstanceProcAddr of their loader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_query(
    get_instance_proc_addr: PFN_vkGetInstanceProcAddr,
    instance: VkInstance,
    physical_device: VkPhysicalDevice,
    api_version: u32,
    level: vkhmm_level,
    requirements: *mut vkhmm_requirements,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(requirements, "requirements")? };
        let level = match level {
            VKHMM_LEVEL_REQUIRED => Level::Required,
            VKHMM_LEVEL_EVERYTHING => Level::Everything,
            other => return Err(Failure::argument(format!("level is {other}: pass a VKHMM_LEVEL_ value"))),
        };
        let entry = entry(get_instance_proc_addr)?;
        let (instance, physical) =
            (handle(instance, "instance")?, handle(physical_device, "physical_device")?);
        // SAFETY: the caller vouches for the handles and for the loader's function.
        let of = unsafe {
            let instance = load_instance(entry, instance);
            vkhmm::vulkan::Requirements::query_for(&instance, physical, api_version, level)
        };
        let of = of.map_err(vkhmm::Error::from)?;
        let extensions = of.extensions.iter().map(|w| item(w.what.to_owned(), w.need)).collect();
        let feature = |w: &Wanted<&str>| item(CString::new(w.what).unwrap_or_default(), w.need);
        let features = of.feature_names.iter().map(feature).collect();
        handles::begin()?;
        out.set(vkhmm_requirements { id: handles::insert(0, Requirements { of, extensions, features })? });
        Ok(VKHMM_OK)
    })
}

/// Gives them up, with their texts and their chain of features. In a forked child it does nothing.
///
/// # Errors
/// STALE_HANDLE if they were destroyed before, INVALID_HANDLE, FORKED.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_requirements_destroy(requirements: vkhmm_requirements) -> vkhmm_result {
    call(|| {
        drop(handles::remove::<Requirements>(requirements.id)?);
        Ok(VKHMM_OK)
    })
}

/// # Safety
/// As [`OutList::new`].
unsafe fn items(
    requirements: vkhmm_requirements,
    list: *mut vkhmm_wanted,
    capacity: usize,
    needed: *mut usize,
    which: fn(&Requirements) -> &[Item],
) -> vkhmm_result {
    call(|| {
        // SAFETY: the contract is the caller's.
        let out = unsafe { OutList::new(list, capacity, needed, "list")? };
        let (of, _) = handles::get::<Requirements>(requirements.id)?;
        let wanted = |item: &Item| vkhmm_wanted {
            name: item.name.as_ptr(),
            lost: item.lost.as_ref().map_or(std::ptr::null(), |lost| lost.as_ptr()),
        };
        out.set(&which(&of).iter().map(wanted).collect::<Vec<_>>())
    })
}

/// Device extensions to turn on; those that the device does not have are not listed.
///
/// # Errors
/// INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_extensions(
    requirements: vkhmm_requirements,
    list: *mut vkhmm_wanted,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { items(requirements, list, capacity, needed, |of| &of.extensions) }
}

/// Features to turn on, by name; vkhmm_requirements_feature_chain has the same as structures.
///
/// # Errors
/// INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_features(
    requirements: vkhmm_requirements,
    list: *mut vkhmm_wanted,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    // SAFETY: the contract is the caller's.
    unsafe { items(requirements, list, capacity, needed, |of| &of.features) }
}

/// The features as a chain for VkDeviceCreateInfo's pNext: VkPhysicalDeviceFeatures2 first, each structure once. To be merged with an
/// application's own where both have a structure. Valid until the requirements are destroyed.
///
/// # Errors
/// Of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_feature_chain(
    requirements: vkhmm_requirements,
    chain: *mut *const c_void,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointer.
        let out = unsafe { Out::new(chain, "chain")? };
        out.set(handles::get::<Requirements>(requirements.id)?.0.of.features.as_ptr());
        Ok(VKHMM_OK)
    })
}

/// Queues to create for vkhmm, the required one first.
///
/// # Errors
/// INCOMPLETE if there are more; of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_queues(
    requirements: vkhmm_requirements,
    list: *mut vkhmm_wanted_queue,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutList::new(list, capacity, needed, "list")? };
        let (of, _) = handles::get::<Requirements>(requirements.id)?;
        let queues = of.of.queues.iter().map(|q| vkhmm_wanted_queue {
            family: q.family,
            count: q.count,
            roles: q.roles.iter().fold(0, |bits, role| bits | role_bit(*role)),
            required: (q.need == Need::Required).into(),
        });
        out.set(&queues.collect::<Vec<_>>())
    })
}

/// All of it in words, a line each.
///
/// # Errors
/// Of texts, of handles, FORKED.
///
/// # Safety
/// Pointers as the head of vkhmm.h says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vkhmm_requirements_text(
    requirements: vkhmm_requirements,
    text: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> vkhmm_result {
    call(|| {
        // SAFETY: the caller vouches for the pointers.
        let out = unsafe { OutText::new(text, capacity, needed)? };
        out.set(&handles::get::<Requirements>(requirements.id)?.0.of.to_string())
    })
}
