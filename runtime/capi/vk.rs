//! The Vulkan types that the header mentions, as C has them. The header declares them as vulkan_core.h does.

use std::ffi::{c_char, c_void};

/// A dispatchable handle.
pub type VkInstance = *mut c_void;
/// A dispatchable handle.
pub type VkPhysicalDevice = *mut c_void;
/// A dispatchable handle.
pub type VkDevice = *mut c_void;
/// A dispatchable handle.
pub type VkQueue = *mut c_void;
/// A handle of 64 bits.
pub type VkBuffer = u64;
/// A handle of 64 bits.
pub type VkSemaphore = u64;
/// Flags.
pub type VkBufferUsageFlags = u32;
/// Vulkan's own structure of booleans.
pub type VkPhysicalDeviceFeatures = vkhmm::vulkan::vk::PhysicalDeviceFeatures;
/// The loader's function that finds all others.
pub type PFN_vkGetInstanceProcAddr =
    Option<unsafe extern "system" fn(VkInstance, *const c_char) -> Option<unsafe extern "system" fn()>>;
