//! The device extensions that vkhmm uses where they are there.

use crate::requirements::{Need, Wanted};
use ash::vk;
use std::ffi::CStr;

/// Which are there, or on: the same structure serves both.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extensions {
    pub(crate) external_memory_host: bool,
    pub(crate) memory_budget: bool,
    pub(crate) robustness2: bool,
    pub(crate) atomic_float: bool,
    /// Only looked for below Vulkan 1.3.
    pub(crate) synchronization2: bool,
}

impl Extensions {
    /// Finds ours among `listed`, for a device that may be used as of Vulkan `api`.
    pub(crate) fn find<'a>(listed: impl Iterator<Item = &'a CStr> + Clone, api: u32) -> Self {
        let has = |name: &CStr| listed.clone().any(|e| e == name);
        Self {
            external_memory_host: has(ash::ext::external_memory_host::NAME),
            memory_budget: has(ash::ext::memory_budget::NAME),
            robustness2: has(ash::ext::robustness2::NAME),
            atomic_float: has(ash::ext::shader_atomic_float::NAME),
            synchronization2: api < vk::API_VERSION_1_3 && has(ash::khr::synchronization2::NAME),
        }
    }

    /// Those that are there, with what is lost where they are not turned on.
    pub(crate) fn wanted(self) -> Vec<Wanted<&'static CStr>> {
        [
            (self.synchronization2, ash::khr::synchronization2::NAME, Need::Required),
            (
                self.external_memory_host,
                ash::ext::external_memory_host::NAME,
                Need::Lost("host memory is not imported: every byte goes through a staging ring, and no kernel works in place"),
            ),
            (
                self.memory_budget,
                ash::ext::memory_budget::NAME,
                Need::Lost("the default limit of device memory does not see what others use"),
            ),
            (
                self.robustness2,
                ash::ext::robustness2::NAME,
                Need::Lost("robustBufferAccess2 and nullDescriptor are off"),
            ),
            (self.atomic_float, ash::ext::shader_atomic_float::NAME, Need::Lost("kernels with float atomics are refused")),
        ]
        .into_iter()
        .filter_map(|(there, what, need)| there.then_some(Wanted { what, need }))
        .collect()
    }
}
