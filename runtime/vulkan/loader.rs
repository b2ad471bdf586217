//! The Vulkan loader, opened at run time: a machine without one gets an error in words, not a link failure.

use crate::error::OpenError;
use ash::vk;

/// Opens libvulkan and checks that it speaks 1.2 at least.
pub(crate) fn load() -> Result<ash::Entry, OpenError> {
    // SAFETY: `Entry::load`: dlopen of the system's Vulkan loader, whose initialisers are made for it. The entry is kept by
    // `Instance` for as long as any function loaded through it can be called.
    let entry = unsafe { ash::Entry::load() }.map_err(|e| OpenError::NoLoader { reason: e.to_string() })?;
    // SAFETY: vkEnumerateInstanceVersion has no valid-usage conditions.
    let version =
        unsafe { entry.try_enumerate_instance_version() }.ok().flatten().unwrap_or(vk::API_VERSION_1_0);
    if version < vk::API_VERSION_1_2 {
        return Err(OpenError::LoaderTooOld { have: version_words(version) });
    }
    Ok(entry)
}

/// A packed version as people write it.
pub(crate) fn version_words(version: u32) -> String {
    format!(
        "{}.{}.{}",
        vk::api_version_major(version),
        vk::api_version_minor(version),
        vk::api_version_patch(version)
    )
}
