//! Which features a device has, and which of them are turned on: one table for what we turn on ourselves and what we ask of an
//! application that makes the device.

use crate::extensions::Extensions;
use crate::requirements::Need;
use ash::vk;

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

/// One feature that vkhmm uses.
pub(crate) struct Row {
    /// As the specification calls it.
    pub(crate) name: &'static str,
    pub(crate) need: Need,
    pub(crate) get: fn(&Features) -> vk::Bool32,
    pub(crate) field: fn(&mut Features) -> &mut vk::Bool32,
}

macro_rules! row {
    ($group:ident . $field:ident, $name:literal, $need:expr) => {
        Row { name: $name, need: $need, get: |f| f.$group.$field, field: |f| &mut f.$group.$field }
    };
}

const REQUIRED: Need = Need::Required;
const INTEGERS: Need = Need::Lost("kernels with integers of that size are refused");
const FLOATS: Need = Need::Lost("kernels with floats of that size are refused");
const STORAGE: Need = Need::Lost("kernels that load and store values of that size are refused");
const ATOMICS: Need = Need::Lost("kernels with such atomics are refused");
const POINTERS: Need = Need::Lost("kernels that choose between buffers by pointer or index are refused");
const LAYOUT: Need = Need::Lost("kernels whose blocks are laid out so may read the wrong bytes");
const MODEL: Need = Need::Lost("kernels that declare the Vulkan memory model are refused");
const SUBGROUPS: Need = Need::Lost("kernels that do so between the lanes of a subgroup are refused");
const BOUNDS: Need = Need::Lost("a kernel that leaves its bindings is not stopped there");
const SPARSE: Need = Need::Lost("arrays do not keep one buffer and address while their pages come and go");

/// Every feature that vkhmm uses; in groups, as the structures have them.
pub(crate) const ROWS: &[Row] = &[
    row!(v13.synchronization2, "synchronization2", REQUIRED),
    row!(v12.timeline_semaphore, "timelineSemaphore", REQUIRED),
    row!(v12.buffer_device_address, "bufferDeviceAddress", REQUIRED),
    row!(core.robust_buffer_access, "robustBufferAccess", BOUNDS),
    row!(robust.robust_buffer_access2, "robustBufferAccess2", BOUNDS),
    row!(robust.null_descriptor, "nullDescriptor", Need::Lost("empty arguments are bound to a small buffer")),
    row!(core.sparse_binding, "sparseBinding", SPARSE),
    row!(core.sparse_residency_buffer, "sparseResidencyBuffer", SPARSE),
    row!(core.shader_int64, "shaderInt64", INTEGERS),
    row!(core.shader_int16, "shaderInt16", INTEGERS),
    row!(v12.shader_int8, "shaderInt8", INTEGERS),
    row!(core.shader_float64, "shaderFloat64", FLOATS),
    row!(v12.shader_float16, "shaderFloat16", FLOATS),
    row!(v11.storage_buffer16_bit_access, "storageBuffer16BitAccess", STORAGE),
    row!(v11.uniform_and_storage_buffer16_bit_access, "uniformAndStorageBuffer16BitAccess", STORAGE),
    row!(v11.storage_push_constant16, "storagePushConstant16", STORAGE),
    row!(v12.storage_buffer8_bit_access, "storageBuffer8BitAccess", STORAGE),
    row!(v12.uniform_and_storage_buffer8_bit_access, "uniformAndStorageBuffer8BitAccess", STORAGE),
    row!(v12.storage_push_constant8, "storagePushConstant8", STORAGE),
    row!(v12.shader_buffer_int64_atomics, "shaderBufferInt64Atomics", ATOMICS),
    row!(v12.shader_shared_int64_atomics, "shaderSharedInt64Atomics", ATOMICS),
    row!(atomic_float.shader_buffer_float32_atomics, "shaderBufferFloat32Atomics", ATOMICS),
    row!(atomic_float.shader_buffer_float32_atomic_add, "shaderBufferFloat32AtomicAdd", ATOMICS),
    row!(atomic_float.shader_buffer_float64_atomics, "shaderBufferFloat64Atomics", ATOMICS),
    row!(atomic_float.shader_buffer_float64_atomic_add, "shaderBufferFloat64AtomicAdd", ATOMICS),
    row!(atomic_float.shader_shared_float32_atomics, "shaderSharedFloat32Atomics", ATOMICS),
    row!(atomic_float.shader_shared_float32_atomic_add, "shaderSharedFloat32AtomicAdd", ATOMICS),
    row!(atomic_float.shader_shared_float64_atomics, "shaderSharedFloat64Atomics", ATOMICS),
    row!(atomic_float.shader_shared_float64_atomic_add, "shaderSharedFloat64AtomicAdd", ATOMICS),
    row!(v11.variable_pointers_storage_buffer, "variablePointersStorageBuffer", POINTERS),
    row!(v11.variable_pointers, "variablePointers", POINTERS),
    row!(
        core.shader_storage_buffer_array_dynamic_indexing,
        "shaderStorageBufferArrayDynamicIndexing",
        POINTERS
    ),
    row!(v12.scalar_block_layout, "scalarBlockLayout", LAYOUT),
    row!(v12.uniform_buffer_standard_layout, "uniformBufferStandardLayout", LAYOUT),
    row!(v12.vulkan_memory_model, "vulkanMemoryModel", MODEL),
    row!(v12.vulkan_memory_model_device_scope, "vulkanMemoryModelDeviceScope", MODEL),
    row!(v12.shader_subgroup_extended_types, "shaderSubgroupExtendedTypes", SUBGROUPS),
    row!(v12.subgroup_broadcast_dynamic_id, "subgroupBroadcastDynamicId", SUBGROUPS),
    row!(
        v13.subgroup_size_control,
        "subgroupSizeControl",
        Need::Lost("kernels cannot ask for a subgroup size")
    ),
    row!(
        v13.maintenance4,
        "maintenance4",
        Need::Lost("kernels that give their local size by id (LocalSizeId) are refused")
    ),
    row!(
        v13.shader_zero_initialize_workgroup_memory,
        "shaderZeroInitializeWorkgroupMemory",
        Need::Lost("kernels whose shared memory starts as zeros are refused")
    ),
    row!(
        v13.shader_integer_dot_product,
        "shaderIntegerDotProduct",
        Need::Lost("kernels with integer dot products are refused")
    ),
];

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
    pub(crate) fn unlink(&mut self) {
        self.v11.p_next = std::ptr::null_mut();
        self.v12.p_next = std::ptr::null_mut();
        self.v13.p_next = std::ptr::null_mut();
        self.robust.p_next = std::ptr::null_mut();
        self.atomic_float.p_next = std::ptr::null_mut();
    }

    /// What is turned on of what there is: everything in [`ROWS`], and nothing for images or graphics.
    pub(crate) fn wanted(&self) -> Self {
        self.chosen(|_| true)
    }

    /// The rows that `choose` likes, of those that are on here.
    pub(crate) fn chosen(&self, choose: impl Fn(&Row) -> bool) -> Self {
        let mut on = Self { subgroup_operations: self.subgroup_operations, ..Self::default() };
        for row in ROWS.iter().filter(|row| choose(row)) {
            *(row.field)(&mut on) = (row.get)(self);
        }
        // VUID-VkDeviceCreateInfo-robustBufferAccess2-04001 ties the second to the first.
        on.robust.robust_buffer_access2 &= on.core.robust_buffer_access;
        on
    }

    /// Whether buffers can be sparse, and partly bound.
    pub(crate) fn sparse_buffers(&self) -> bool {
        self.core.sparse_binding == vk::TRUE && self.core.sparse_residency_buffer == vk::TRUE
    }

    /// What is on both here and in `other`, as far as [`ROWS`] goes.
    pub(crate) fn shared_with(&self, other: &Self) -> Self {
        other.chosen(|row| (row.get)(self) == vk::TRUE)
    }

    /// The rows that are on.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Row> + '_ {
        ROWS.iter().filter(|row| (row.get)(self) == vk::TRUE)
    }

    /// The first feature that every device must have and this one has not.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        let lacking = |row: &&Row| row.need == Need::Required && (row.get)(self) != vk::TRUE;
        ROWS.iter().find(lacking).map(|row| row.name)
    }

    /// The optional features, with whether they are on.
    pub(crate) fn named(&self) -> Vec<(&'static str, bool)> {
        let optional = ROWS.iter().filter(|row| row.need != Need::Required);
        optional.map(|row| (row.name, (row.get)(self) == vk::TRUE)).collect()
    }
}
