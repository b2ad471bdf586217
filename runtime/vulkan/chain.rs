//! Chains of feature structures: the one that goes into vkCreateDevice, and the one that an application put there.

use crate::extensions::Extensions;
use crate::features::Features;
use ash::vk;
use core::ffi::c_void;
use core::ptr::NonNull;

/// The structures of one chain. They point at each other, so they stay where they are.
struct Links {
    core: vk::PhysicalDeviceFeatures2<'static>,
    v11: vk::PhysicalDeviceVulkan11Features<'static>,
    v12: vk::PhysicalDeviceVulkan12Features<'static>,
    v13: vk::PhysicalDeviceVulkan13Features<'static>,
    sync2: vk::PhysicalDeviceSynchronization2Features<'static>,
    robust: vk::PhysicalDeviceRobustness2FeaturesEXT<'static>,
    atomic_float: vk::PhysicalDeviceShaderAtomicFloatFeaturesEXT<'static>,
}

/// Features to turn on, as a chain of Vulkan's structures: VkPhysicalDeviceFeatures2, then those of Vulkan 1.1, 1.2 and 1.3
/// (below 1.3: VkPhysicalDeviceSynchronization2Features), then those of extensions; each once, each owned by this value and at one
/// place for its life.
pub struct FeatureChain {
    links: NonNull<Links>,
}

// SAFETY: Send and Sync: the links are owned by this value alone and hold numbers and pointers to each other; whoever changes them
// through `head` has the chain by `&mut`.
unsafe impl Send for FeatureChain {}
// SAFETY: as above: `&self` only reads.
unsafe impl Sync for FeatureChain {}

impl FeatureChain {
    /// The chain of what is on in `on`, for a device used as of Vulkan `api` with these extensions.
    pub(crate) fn new(on: &Features, api: u32, extensions: Extensions) -> Self {
        let sync2 = vk::PhysicalDeviceSynchronization2Features {
            synchronization2: on.v13.synchronization2,
            ..Default::default()
        };
        let links = Box::into_raw(Box::new(Links {
            core: vk::PhysicalDeviceFeatures2 { features: on.core, ..Default::default() },
            v11: on.v11,
            v12: on.v12,
            v13: on.v13,
            sync2,
            robust: on.robust,
            atomic_float: on.atomic_float,
        }));
        let core13 = api >= vk::API_VERSION_1_3;
        // SAFETY: `links` is the box just made; only addresses of its members are taken. Each member starts as VkBaseOutStructure does.
        unsafe {
            let rest: [(bool, *mut vk::BaseOutStructure<'static>); 6] = [
                (true, (&raw mut (*links).v11).cast()),
                (true, (&raw mut (*links).v12).cast()),
                (core13, (&raw mut (*links).v13).cast()),
                (!core13, (&raw mut (*links).sync2).cast()),
                (extensions.robustness2, (&raw mut (*links).robust).cast()),
                (extensions.atomic_float, (&raw mut (*links).atomic_float).cast()),
            ];
            let mut last: *mut vk::BaseOutStructure<'static> = (&raw mut (*links).core).cast();
            for (_, link) in rest.into_iter().filter(|(there, _)| *there) {
                (*last).p_next = link;
                last = link;
            }
            Self { links: NonNull::new_unchecked(links) }
        }
    }

    /// The chain's head, for `VkDeviceCreateInfo::pNext`, or to be walked by sType. Valid as long as this value.
    pub fn as_ptr(&self) -> *const c_void {
        // SAFETY: only the address of a member is taken, of links that are alive.
        unsafe { (&raw const (*self.links.as_ptr()).core).cast() }
    }

    /// The head, to chain it in front of an application's own structures (`push_next` of `ash` does): none of which may be of a type
    /// that is in this chain, or stand for a part of one.
    pub fn head(&mut self) -> &mut vk::PhysicalDeviceFeatures2<'static> {
        // SAFETY: the links are ours, alive until drop; `&mut self` makes this the only reference.
        unsafe { &mut (*self.links.as_ptr()).core }
    }
}

impl Drop for FeatureChain {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, and nobody else frees it.
        drop(unsafe { Box::from_raw(self.links.as_ptr()) });
    }
}

impl Features {
    /// What a chain that was given to vkCreateDevice, and `pEnabledFeatures` beside it, turned on. Structures of other types are
    /// passed over.
    ///
    /// # Safety
    /// `chain` is null, or a chain of valid Vulkan structures.
    pub(crate) unsafe fn enabled(chain: *const c_void, core: Option<&vk::PhysicalDeviceFeatures>) -> Self {
        let mut out = Self { core: core.copied().unwrap_or_default(), ..Self::default() };
        let mut next = chain.cast::<vk::BaseInStructure<'_>>();
        // SAFETY: the caller's promise: each link starts as VkBaseInStructure does, and is of the type that its sType says.
        while let Some(link) = unsafe { next.as_ref() } {
            macro_rules! whole {
                ($member:ident, $type:ident) => {
                    // SAFETY: as above: this sType is this structure's.
                    out.$member = unsafe { *next.cast::<vk::$type<'static>>() }
                };
            }
            macro_rules! part {
                ($type:ident: $($group:ident . $field:ident),+) => {{
                    // SAFETY: as above: this sType is this structure's.
                    let part = unsafe { &*next.cast::<vk::$type<'static>>() };
                    $(out.$group.$field = part.$field;)+
                }};
            }
            match link.s_type {
                vk::StructureType::PHYSICAL_DEVICE_FEATURES_2 => {
                    // SAFETY: as above: this sType is this structure's.
                    out.core = unsafe { (*next.cast::<vk::PhysicalDeviceFeatures2<'static>>()).features };
                }
                vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_1_FEATURES => {
                    whole!(v11, PhysicalDeviceVulkan11Features);
                }
                vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES => {
                    whole!(v12, PhysicalDeviceVulkan12Features);
                }
                vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES => {
                    whole!(v13, PhysicalDeviceVulkan13Features);
                }
                vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT => {
                    whole!(robust, PhysicalDeviceRobustness2FeaturesEXT);
                }
                vk::StructureType::PHYSICAL_DEVICE_SHADER_ATOMIC_FLOAT_FEATURES_EXT => {
                    whole!(atomic_float, PhysicalDeviceShaderAtomicFloatFeaturesEXT);
                }
                vk::StructureType::PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES => part!(
                    PhysicalDevice16BitStorageFeatures: v11.storage_buffer16_bit_access,
                    v11.uniform_and_storage_buffer16_bit_access, v11.storage_push_constant16
                ),
                vk::StructureType::PHYSICAL_DEVICE_VARIABLE_POINTERS_FEATURES => part!(
                    PhysicalDeviceVariablePointersFeatures: v11.variable_pointers_storage_buffer,
                    v11.variable_pointers
                ),
                vk::StructureType::PHYSICAL_DEVICE_8BIT_STORAGE_FEATURES => part!(
                    PhysicalDevice8BitStorageFeatures: v12.storage_buffer8_bit_access,
                    v12.uniform_and_storage_buffer8_bit_access, v12.storage_push_constant8
                ),
                vk::StructureType::PHYSICAL_DEVICE_SHADER_ATOMIC_INT64_FEATURES => part!(
                    PhysicalDeviceShaderAtomicInt64Features: v12.shader_buffer_int64_atomics,
                    v12.shader_shared_int64_atomics
                ),
                vk::StructureType::PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES => part!(
                    PhysicalDeviceShaderFloat16Int8Features: v12.shader_float16, v12.shader_int8
                ),
                vk::StructureType::PHYSICAL_DEVICE_SCALAR_BLOCK_LAYOUT_FEATURES => {
                    part!(PhysicalDeviceScalarBlockLayoutFeatures: v12.scalar_block_layout);
                }
                vk::StructureType::PHYSICAL_DEVICE_UNIFORM_BUFFER_STANDARD_LAYOUT_FEATURES => part!(
                    PhysicalDeviceUniformBufferStandardLayoutFeatures: v12.uniform_buffer_standard_layout
                ),
                vk::StructureType::PHYSICAL_DEVICE_SHADER_SUBGROUP_EXTENDED_TYPES_FEATURES => part!(
                    PhysicalDeviceShaderSubgroupExtendedTypesFeatures: v12.shader_subgroup_extended_types
                ),
                vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES => {
                    part!(PhysicalDeviceTimelineSemaphoreFeatures: v12.timeline_semaphore);
                }
                vk::StructureType::PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES => {
                    part!(PhysicalDeviceBufferDeviceAddressFeatures: v12.buffer_device_address);
                }
                vk::StructureType::PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES => part!(
                    PhysicalDeviceVulkanMemoryModelFeatures: v12.vulkan_memory_model,
                    v12.vulkan_memory_model_device_scope
                ),
                vk::StructureType::PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES => {
                    part!(PhysicalDeviceSynchronization2Features: v13.synchronization2);
                }
                vk::StructureType::PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES => {
                    part!(PhysicalDeviceSubgroupSizeControlFeatures: v13.subgroup_size_control);
                }
                vk::StructureType::PHYSICAL_DEVICE_MAINTENANCE_4_FEATURES => {
                    part!(PhysicalDeviceMaintenance4Features: v13.maintenance4);
                }
                vk::StructureType::PHYSICAL_DEVICE_ZERO_INITIALIZE_WORKGROUP_MEMORY_FEATURES => part!(
                    PhysicalDeviceZeroInitializeWorkgroupMemoryFeatures:
                    v13.shader_zero_initialize_workgroup_memory
                ),
                vk::StructureType::PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES => {
                    part!(PhysicalDeviceShaderIntegerDotProductFeatures: v13.shader_integer_dot_product);
                }
                _ => {}
            }
            next = link.p_next;
        }
        out.unlink();
        out
    }
}

#[cfg(test)]
mod tests;
