//! Which optional features a device has, which of them are turned on, and what SPIR-V capabilities they allow.

use ash::vk;
use std::ffi::CStr;

/// Features as the driver reports them, or as we enable them: the same structures serve both.
#[derive(Clone, Copy, Default)]
pub(crate) struct Features {
    pub(crate) core: vk::PhysicalDeviceFeatures,
    pub(crate) v11: vk::PhysicalDeviceVulkan11Features<'static>,
    pub(crate) v12: vk::PhysicalDeviceVulkan12Features<'static>,
    /// All false below Vulkan 1.3, but for `synchronization2`, which an extension can bring.
    pub(crate) v13: vk::PhysicalDeviceVulkan13Features<'static>,
    pub(crate) robust: vk::PhysicalDeviceRobustness2FeaturesEXT<'static>,
    pub(crate) atomic_float: vk::PhysicalDeviceShaderAtomicFloatFeaturesEXT<'static>,
    pub(crate) subgroup_operations: vk::SubgroupFeatureFlags,
}

/// Device extensions that are used where they are present.
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
    /// Finds ours among those that the device lists.
    pub(crate) fn find(listed: &[vk::ExtensionProperties], api: u32) -> Self {
        let has = |name: &CStr| listed.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
        Self {
            external_memory_host: has(ash::ext::external_memory_host::NAME),
            memory_budget: has(ash::ext::memory_budget::NAME),
            robustness2: has(ash::ext::robustness2::NAME),
            atomic_float: has(ash::ext::shader_atomic_float::NAME),
            synchronization2: api < vk::API_VERSION_1_3 && has(ash::khr::synchronization2::NAME),
        }
    }

    /// Their names, for vkCreateDevice.
    pub(crate) fn names(self) -> Vec<&'static CStr> {
        [
            (self.external_memory_host, ash::ext::external_memory_host::NAME),
            (self.memory_budget, ash::ext::memory_budget::NAME),
            (self.robustness2, ash::ext::robustness2::NAME),
            (self.atomic_float, ash::ext::shader_atomic_float::NAME),
            (self.synchronization2, ash::khr::synchronization2::NAME),
        ]
        .into_iter()
        .filter_map(|(there, name)| there.then_some(name))
        .collect()
    }
}

impl Features {
    /// Asks the driver.
    pub(crate) fn query(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        api: u32,
        extensions: Extensions,
    ) -> Self {
        let mut out = Self::default();
        let mut sync2 = vk::PhysicalDeviceSynchronization2Features::default();
        let mut query =
            vk::PhysicalDeviceFeatures2::default().push_next(&mut out.v11).push_next(&mut out.v12);
        if api >= vk::API_VERSION_1_3 {
            query = query.push_next(&mut out.v13);
        } else if extensions.synchronization2 {
            query = query.push_next(&mut sync2);
        }
        if extensions.robustness2 {
            query = query.push_next(&mut out.robust);
        }
        if extensions.atomic_float {
            query = query.push_next(&mut out.atomic_float);
        }
        // SAFETY: vkGetPhysicalDeviceFeatures2: the chain holds each structure once, and only those that the device's version
        // or extensions define.
        unsafe { instance.get_physical_device_features2(physical, &mut query) };
        out.core = query.features;
        out.unlink();
        if sync2.synchronization2 == vk::TRUE {
            out.v13.synchronization2 = vk::TRUE;
        }
        let mut subgroups = vk::PhysicalDeviceSubgroupProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut subgroups);
        // SAFETY: as above; the subgroup properties are core 1.1.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        if subgroups.supported_stages.contains(vk::ShaderStageFlags::COMPUTE) {
            out.subgroup_operations = subgroups.supported_operations;
        }
        out
    }

    /// Cuts the chain that a query left behind: the structures are copied and chained anew.
    fn unlink(&mut self) {
        self.v11.p_next = std::ptr::null_mut();
        self.v12.p_next = std::ptr::null_mut();
        self.v13.p_next = std::ptr::null_mut();
        self.robust.p_next = std::ptr::null_mut();
        self.atomic_float.p_next = std::ptr::null_mut();
    }

    /// What is turned on: everything a compute kernel over buffers can use, and nothing for images or graphics.
    pub(crate) fn wanted(&self) -> Self {
        let mut on = Self { subgroup_operations: self.subgroup_operations, ..Self::default() };
        on.core.robust_buffer_access = self.core.robust_buffer_access;
        on.core.sparse_binding = self.core.sparse_binding;
        on.core.sparse_residency_buffer = self.core.sparse_residency_buffer;
        on.core.shader_int64 = self.core.shader_int64;
        on.core.shader_int16 = self.core.shader_int16;
        on.core.shader_float64 = self.core.shader_float64;
        on.core.shader_storage_buffer_array_dynamic_indexing =
            self.core.shader_storage_buffer_array_dynamic_indexing;
        on.v11.storage_buffer16_bit_access = self.v11.storage_buffer16_bit_access;
        on.v11.uniform_and_storage_buffer16_bit_access = self.v11.uniform_and_storage_buffer16_bit_access;
        on.v11.storage_push_constant16 = self.v11.storage_push_constant16;
        on.v11.variable_pointers_storage_buffer = self.v11.variable_pointers_storage_buffer;
        on.v11.variable_pointers = self.v11.variable_pointers;
        on.v12.storage_buffer8_bit_access = self.v12.storage_buffer8_bit_access;
        on.v12.uniform_and_storage_buffer8_bit_access = self.v12.uniform_and_storage_buffer8_bit_access;
        on.v12.storage_push_constant8 = self.v12.storage_push_constant8;
        on.v12.shader_buffer_int64_atomics = self.v12.shader_buffer_int64_atomics;
        on.v12.shader_shared_int64_atomics = self.v12.shader_shared_int64_atomics;
        on.v12.shader_float16 = self.v12.shader_float16;
        on.v12.shader_int8 = self.v12.shader_int8;
        on.v12.scalar_block_layout = self.v12.scalar_block_layout;
        on.v12.uniform_buffer_standard_layout = self.v12.uniform_buffer_standard_layout;
        on.v12.shader_subgroup_extended_types = self.v12.shader_subgroup_extended_types;
        on.v12.timeline_semaphore = self.v12.timeline_semaphore;
        on.v12.buffer_device_address = self.v12.buffer_device_address;
        on.v12.vulkan_memory_model = self.v12.vulkan_memory_model;
        on.v12.vulkan_memory_model_device_scope = self.v12.vulkan_memory_model_device_scope;
        on.v12.subgroup_broadcast_dynamic_id = self.v12.subgroup_broadcast_dynamic_id;
        on.v13.synchronization2 = self.v13.synchronization2;
        on.v13.subgroup_size_control = self.v13.subgroup_size_control;
        on.v13.maintenance4 = self.v13.maintenance4;
        on.v13.shader_zero_initialize_workgroup_memory = self.v13.shader_zero_initialize_workgroup_memory;
        on.v13.shader_integer_dot_product = self.v13.shader_integer_dot_product;
        // VUID-VkDeviceCreateInfo-robustBufferAccess2-04001 ties the second to the first.
        if on.core.robust_buffer_access == vk::TRUE {
            on.robust.robust_buffer_access2 = self.robust.robust_buffer_access2;
        }
        on.robust.null_descriptor = self.robust.null_descriptor;
        on.atomic_float.shader_buffer_float32_atomics = self.atomic_float.shader_buffer_float32_atomics;
        on.atomic_float.shader_buffer_float32_atomic_add = self.atomic_float.shader_buffer_float32_atomic_add;
        on.atomic_float.shader_buffer_float64_atomics = self.atomic_float.shader_buffer_float64_atomics;
        on.atomic_float.shader_buffer_float64_atomic_add = self.atomic_float.shader_buffer_float64_atomic_add;
        on.atomic_float.shader_shared_float32_atomics = self.atomic_float.shader_shared_float32_atomics;
        on.atomic_float.shader_shared_float32_atomic_add = self.atomic_float.shader_shared_float32_atomic_add;
        on.atomic_float.shader_shared_float64_atomics = self.atomic_float.shader_shared_float64_atomics;
        on.atomic_float.shader_shared_float64_atomic_add = self.atomic_float.shader_shared_float64_atomic_add;
        on
    }

    /// Whether buffers can be sparse, and partly bound.
    pub(crate) fn sparse_buffers(&self) -> bool {
        self.core.sparse_binding == vk::TRUE && self.core.sparse_residency_buffer == vk::TRUE
    }

    /// The features that decide what kernels may use, with whether they are on.
    pub(crate) fn named(&self) -> Vec<(&'static str, bool)> {
        let b = |v: vk::Bool32| v == vk::TRUE;
        vec![
            ("robustBufferAccess2", b(self.robust.robust_buffer_access2)),
            ("nullDescriptor", b(self.robust.null_descriptor)),
            ("shaderInt64", b(self.core.shader_int64)),
            ("shaderInt16", b(self.core.shader_int16)),
            ("shaderInt8", b(self.v12.shader_int8)),
            ("shaderFloat64", b(self.core.shader_float64)),
            ("shaderFloat16", b(self.v12.shader_float16)),
            ("storageBuffer16BitAccess", b(self.v11.storage_buffer16_bit_access)),
            ("storageBuffer8BitAccess", b(self.v12.storage_buffer8_bit_access)),
            ("shaderBufferInt64Atomics", b(self.v12.shader_buffer_int64_atomics)),
            ("shaderBufferFloat32AtomicAdd", b(self.atomic_float.shader_buffer_float32_atomic_add)),
            ("scalarBlockLayout", b(self.v12.scalar_block_layout)),
            ("vulkanMemoryModel", b(self.v12.vulkan_memory_model)),
            ("subgroupSizeControl", b(self.v13.subgroup_size_control)),
        ]
    }

    /// Whether a module that declares `capability` may run: `Err` names the feature that is missing.
    ///
    /// The table is the "Capabilities" table of the Vulkan specification's SPIR-V appendix, as far as compute over buffers goes;
    /// a capability outside it is refused by its own name.
    pub(crate) fn allows(&self, capability: &str) -> Result<(), String> {
        let subgroup = |flag: vk::SubgroupFeatureFlags| self.subgroup_operations.contains(flag);
        let b = |v: vk::Bool32| v == vk::TRUE;
        let float = &self.atomic_float;
        let (on, feature) = match capability {
            "Matrix" | "Shader" => (true, ""),
            "Int64" => (b(self.core.shader_int64), "shaderInt64"),
            "Int16" => (b(self.core.shader_int16), "shaderInt16"),
            "Int8" => (b(self.v12.shader_int8), "shaderInt8"),
            "Float64" => (b(self.core.shader_float64), "shaderFloat64"),
            "Float16" => (b(self.v12.shader_float16), "shaderFloat16"),
            "StorageBuffer16BitAccess" | "StorageUniformBufferBlock16" => {
                (b(self.v11.storage_buffer16_bit_access), "storageBuffer16BitAccess")
            }
            "UniformAndStorageBuffer16BitAccess" | "StorageUniform16" => {
                (b(self.v11.uniform_and_storage_buffer16_bit_access), "uniformAndStorageBuffer16BitAccess")
            }
            "StoragePushConstant16" => (b(self.v11.storage_push_constant16), "storagePushConstant16"),
            "StorageBuffer8BitAccess" => (b(self.v12.storage_buffer8_bit_access), "storageBuffer8BitAccess"),
            "UniformAndStorageBuffer8BitAccess" => {
                (b(self.v12.uniform_and_storage_buffer8_bit_access), "uniformAndStorageBuffer8BitAccess")
            }
            "StoragePushConstant8" => (b(self.v12.storage_push_constant8), "storagePushConstant8"),
            "Int64Atomics" => (
                b(self.v12.shader_buffer_int64_atomics) || b(self.v12.shader_shared_int64_atomics),
                "shaderBufferInt64Atomics",
            ),
            "AtomicFloat32AddEXT" => (
                b(float.shader_buffer_float32_atomic_add) || b(float.shader_shared_float32_atomic_add),
                "shaderBufferFloat32AtomicAdd",
            ),
            "AtomicFloat64AddEXT" => (
                b(float.shader_buffer_float64_atomic_add) || b(float.shader_shared_float64_atomic_add),
                "shaderBufferFloat64AtomicAdd",
            ),
            "VariablePointersStorageBuffer" => {
                (b(self.v11.variable_pointers_storage_buffer), "variablePointersStorageBuffer")
            }
            "VariablePointers" => (b(self.v11.variable_pointers), "variablePointers"),
            "StorageBufferArrayDynamicIndexing" => (
                b(self.core.shader_storage_buffer_array_dynamic_indexing),
                "shaderStorageBufferArrayDynamicIndexing",
            ),
            "PhysicalStorageBufferAddresses" => (b(self.v12.buffer_device_address), "bufferDeviceAddress"),
            "VulkanMemoryModel" => (b(self.v12.vulkan_memory_model), "vulkanMemoryModel"),
            "VulkanMemoryModelDeviceScope" => {
                (b(self.v12.vulkan_memory_model_device_scope), "vulkanMemoryModelDeviceScope")
            }
            "DotProduct" | "DotProductInputAll" | "DotProductInput4x8Bit" | "DotProductInput4x8BitPacked" => {
                (b(self.v13.shader_integer_dot_product), "shaderIntegerDotProduct")
            }
            "GroupNonUniform" => (subgroup(vk::SubgroupFeatureFlags::BASIC), "subgroup basic operations"),
            "GroupNonUniformVote" => (subgroup(vk::SubgroupFeatureFlags::VOTE), "subgroup vote"),
            "GroupNonUniformArithmetic" => {
                (subgroup(vk::SubgroupFeatureFlags::ARITHMETIC), "subgroup arithmetic")
            }
            "GroupNonUniformBallot" => (subgroup(vk::SubgroupFeatureFlags::BALLOT), "subgroup ballot"),
            "GroupNonUniformShuffle" => (subgroup(vk::SubgroupFeatureFlags::SHUFFLE), "subgroup shuffle"),
            "GroupNonUniformShuffleRelative" => {
                (subgroup(vk::SubgroupFeatureFlags::SHUFFLE_RELATIVE), "subgroup relative shuffle")
            }
            "GroupNonUniformClustered" => {
                (subgroup(vk::SubgroupFeatureFlags::CLUSTERED), "subgroup clustering")
            }
            "GroupNonUniformQuad" => (subgroup(vk::SubgroupFeatureFlags::QUAD), "subgroup quads"),
            _ => return Err(String::from("no use for it (vkhmm does not enable it)")),
        };
        if on { Ok(()) } else { Err(format!("no {feature}")) }
    }
}
