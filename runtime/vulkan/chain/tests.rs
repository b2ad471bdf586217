//! What a chain holds is what is read out of it, whole or in the parts that may stand for it.

use super::*;
use crate::features::ROWS;
use std::collections::BTreeSet;

fn everything() -> Features {
    let mut all = Features::default();
    ROWS.iter().for_each(|row| *(row.field)(&mut all) = vk::TRUE);
    all
}

fn names(features: &Features) -> BTreeSet<&'static str> {
    features.rows().map(|row| row.name).collect()
}

/// The sTypes of a chain, in order.
fn types(chain: *const c_void) -> Vec<vk::StructureType> {
    let mut out = Vec::new();
    let mut next = chain.cast::<vk::BaseInStructure<'_>>();
    // SAFETY: the tests walk chains that they made and that are alive.
    while let Some(link) = unsafe { next.as_ref() } {
        out.push(link.s_type);
        next = link.p_next;
    }
    out
}

const ALL: Extensions = Extensions {
    external_memory_host: true,
    memory_budget: true,
    robustness2: true,
    atomic_float: true,
    synchronization2: false,
};

#[test]
fn what_goes_in_comes_out() {
    let chain = FeatureChain::new(&everything(), vk::API_VERSION_1_3, ALL);
    let moved = Box::new(chain);
    assert_eq!(types(moved.as_ptr()).len(), 6);
    // SAFETY: the chain is alive, and its structures are what their types say.
    let read = unsafe { Features::enabled(moved.as_ptr(), None) };
    assert_eq!(names(&read), ROWS.iter().map(|row| row.name).collect());
    // Each row alone: no two rows stand for one field.
    for row in ROWS {
        let one = everything().chosen(|other| other.name == row.name);
        let chain = FeatureChain::new(&one, vk::API_VERSION_1_3, ALL);
        // SAFETY: as above: alive and valid.
        let read = unsafe { Features::enabled(chain.as_ptr(), None) };
        // The one that VUID-VkDeviceCreateInfo-robustBufferAccess2-04001 ties to another.
        let alone = row.name != "robustBufferAccess2";
        assert_eq!(names(&read), if alone { BTreeSet::from([row.name]) } else { BTreeSet::new() });
    }
}

#[test]
fn a_chain_has_only_what_version_and_extensions_define() {
    let none = Extensions { synchronization2: true, ..Extensions::default() };
    let chain = FeatureChain::new(&everything(), vk::API_VERSION_1_2, none);
    assert_eq!(
        types(chain.as_ptr()),
        [
            vk::StructureType::PHYSICAL_DEVICE_FEATURES_2,
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
            vk::StructureType::PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES,
        ]
    );
    // SAFETY: the chain is alive, and its structures are what their types say.
    let read = unsafe { Features::enabled(chain.as_ptr(), None) };
    let read = names(&read);
    assert!(read.contains("synchronization2") && read.contains("timelineSemaphore"));
    assert!(!read.contains("maintenance4") && !read.contains("nullDescriptor"));
}

#[test]
fn single_structures_stand_for_parts_of_the_large_ones() {
    let mut unknown = vk::PhysicalDeviceMultiviewFeatures::default().multiview(true);
    let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
    let mut address = vk::PhysicalDeviceBufferDeviceAddressFeatures::default().buffer_device_address(true);
    let mut sync2 = vk::PhysicalDeviceSynchronization2Features::default().synchronization2(true);
    let mut half = vk::PhysicalDevice16BitStorageFeatures::default().storage_buffer16_bit_access(true);
    let mut bytes = vk::PhysicalDevice8BitStorageFeatures::default().storage_push_constant8(true);
    let mut atomics =
        vk::PhysicalDeviceShaderAtomicInt64Features::default().shader_shared_int64_atomics(true);
    let mut small = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_int8(true);
    let mut scalar = vk::PhysicalDeviceScalarBlockLayoutFeatures::default().scalar_block_layout(true);
    let mut model = vk::PhysicalDeviceVulkanMemoryModelFeatures::default().vulkan_memory_model(true);
    let mut pointers = vk::PhysicalDeviceVariablePointersFeatures::default().variable_pointers(true);
    let mut uniform =
        vk::PhysicalDeviceUniformBufferStandardLayoutFeatures::default().uniform_buffer_standard_layout(true);
    let mut lanes =
        vk::PhysicalDeviceShaderSubgroupExtendedTypesFeatures::default().shader_subgroup_extended_types(true);
    let mut size = vk::PhysicalDeviceSubgroupSizeControlFeatures::default().subgroup_size_control(true);
    let mut four = vk::PhysicalDeviceMaintenance4Features::default().maintenance4(true);
    let mut zero = vk::PhysicalDeviceZeroInitializeWorkgroupMemoryFeatures::default()
        .shader_zero_initialize_workgroup_memory(true);
    let mut dot =
        vk::PhysicalDeviceShaderIntegerDotProductFeatures::default().shader_integer_dot_product(true);
    let info = vk::DeviceCreateInfo::default()
        .push_next(&mut unknown)
        .push_next(&mut timeline)
        .push_next(&mut address)
        .push_next(&mut sync2)
        .push_next(&mut half)
        .push_next(&mut bytes)
        .push_next(&mut atomics)
        .push_next(&mut small)
        .push_next(&mut scalar)
        .push_next(&mut model)
        .push_next(&mut pointers)
        .push_next(&mut uniform)
        .push_next(&mut lanes)
        .push_next(&mut size)
        .push_next(&mut four)
        .push_next(&mut zero)
        .push_next(&mut dot);
    let core = vk::PhysicalDeviceFeatures { shader_int64: vk::TRUE, ..Default::default() };
    // SAFETY: the structures are alive until the end of this test, and chained by `ash`.
    let read = unsafe { Features::enabled(info.p_next, Some(&core)) };
    assert_eq!(
        names(&read),
        BTreeSet::from([
            "shaderInt64",
            "timelineSemaphore",
            "bufferDeviceAddress",
            "synchronization2",
            "storageBuffer16BitAccess",
            "storagePushConstant8",
            "shaderSharedInt64Atomics",
            "shaderInt8",
            "scalarBlockLayout",
            "vulkanMemoryModel",
            "variablePointers",
            "uniformBufferStandardLayout",
            "shaderSubgroupExtendedTypes",
            "subgroupSizeControl",
            "maintenance4",
            "shaderZeroInitializeWorkgroupMemory",
            "shaderIntegerDotProduct",
        ])
    );
    assert_eq!(read.lacks(), None);
}

#[test]
fn no_chain_is_no_features() {
    // SAFETY: no chain is an empty chain: null is allowed.
    let none = unsafe { Features::enabled(core::ptr::null(), None) };
    assert_eq!((names(&none).len(), none.lacks()), (0, Some("synchronization2")));
}
