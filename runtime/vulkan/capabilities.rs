//! What the features that are on allow a module to declare.

use crate::features::Features;
use ash::vk;

impl Features {
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
