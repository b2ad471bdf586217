//! One physical device as its driver describes it, read once.

use crate::extensions::Extensions;
use crate::features::Features;
use crate::loader::version_words;
use ash::vk;

/// What the driver says about one device.
pub(crate) struct Physical {
    pub(crate) handle: vk::PhysicalDevice,
    pub(crate) name: String,
    /// Driver name and version, in words.
    pub(crate) driver: String,
    /// Reading finished queries waits until the whole device is idle (lavapipe).
    pub(crate) queries_wait: bool,
    pub(crate) kind: vk::PhysicalDeviceType,
    /// The version it may be used as of: the driver's, or the instance's if that is less.
    pub(crate) api: u32,
    pub(crate) limits: vk::PhysicalDeviceLimits,
    pub(crate) memory: vk::PhysicalDeviceMemoryProperties,
    pub(crate) families: Vec<vk::QueueFamilyProperties>,
    pub(crate) extensions: Extensions,
    pub(crate) features: Features,
    /// Longest single allocation.
    pub(crate) allocation_bytes_max: u64,
    /// Longest single buffer.
    pub(crate) buffer_bytes_max: u64,
    /// minImportedHostPointerAlignment; zero where nothing can be imported.
    pub(crate) import_alignment: u64,
    /// The driver says that buffers for copies may be bound to imported host memory.
    pub(crate) imports_buffers: bool,
    /// And that kernels may use such buffers.
    pub(crate) imports_storage: bool,
    /// Smallest and largest subgroup that can be asked for; both zero where none can.
    pub(crate) subgroup_sizes: (u32, u32),
}

impl Physical {
    /// Whether its kernels run on the CPU, in this process.
    pub(crate) fn is_software(&self) -> bool {
        self.kind == vk::PhysicalDeviceType::CPU
    }

    /// Asks the driver everything, for an instance that was created with `api_version`, and managed buffers that are used as `usage`
    /// beside what we do.
    pub(crate) fn query(
        instance: &ash::Instance,
        handle: vk::PhysicalDevice,
        api_version: u32,
        usage: vk::BufferUsageFlags,
    ) -> Self {
        // SAFETY: vkGetPhysicalDeviceProperties: `handle` was enumerated from `instance`, which is alive.
        let base = unsafe { instance.get_physical_device_properties(handle) };
        let api = base.api_version.min(api_version);
        // SAFETY: as above: the handle is of this instance.
        let listed = unsafe { instance.enumerate_device_extension_properties(handle) }.unwrap_or_default();
        let extensions =
            Extensions::find(listed.iter().filter_map(|e| e.extension_name_as_c_str().ok()), api);
        // SAFETY: as above: the handle is of this instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(handle) };
        // SAFETY: as above: the handle is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(handle) };
        let mut out = Self {
            handle,
            name: base.device_name_as_c_str().unwrap_or(c"(unnamed)").to_string_lossy().into_owned(),
            driver: String::new(),
            queries_wait: false,
            kind: base.device_type,
            api,
            limits: base.limits,
            memory,
            families,
            extensions,
            features: Features::default(),
            allocation_bytes_max: u64::MAX,
            buffer_bytes_max: u64::MAX,
            import_alignment: 0,
            imports_buffers: false,
            imports_storage: false,
            subgroup_sizes: (0, 0),
        };
        if api >= vk::API_VERSION_1_2 {
            out.features = Features::query(instance, handle, api, extensions);
            out.query_properties(instance, base.api_version);
        }
        if out.extensions.external_memory_host {
            out.imports_buffers = out.query_imports(instance, crate::import::usage(false, usage));
            out.imports_storage = out.query_imports(instance, crate::import::usage(true, usage));
        }
        out
    }

    /// VUID-VkBufferCreateInfo-pNext-00920 and VUID-vkBindBufferMemory-memory-02985: the driver must say both.
    fn query_imports(&self, instance: &ash::Instance, usage: vk::BufferUsageFlags) -> bool {
        let info = vk::PhysicalDeviceExternalBufferInfo::default()
            .usage(usage)
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
        let mut properties = vk::ExternalBufferProperties::default();
        // SAFETY: vkGetPhysicalDeviceExternalBufferProperties: the handle is of this instance, usage and handle type are valid.
        unsafe {
            instance.get_physical_device_external_buffer_properties(self.handle, &info, &mut properties);
        }
        let said = properties.external_memory_properties;
        said.compatible_handle_types.contains(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
            && said.external_memory_features.contains(vk::ExternalMemoryFeatureFlags::IMPORTABLE)
            && !said.external_memory_features.contains(vk::ExternalMemoryFeatureFlags::DEDICATED_ONLY)
    }

    /// As if the driver had reported what every device must have; see [`crate::Switches::mock`].
    pub(crate) fn assume_features(&mut self) {
        self.features.v12.timeline_semaphore = vk::TRUE;
        self.features.v12.buffer_device_address = vk::TRUE;
        self.features.v13.synchronization2 = vk::TRUE;
    }

    fn query_properties(&mut self, instance: &ash::Instance, api_driver: u32) {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut maintenance3 = vk::PhysicalDeviceMaintenance3Properties::default();
        let mut maintenance4 = vk::PhysicalDeviceMaintenance4Properties::default();
        let mut subgroup = vk::PhysicalDeviceSubgroupSizeControlProperties::default();
        let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let mut query =
            vk::PhysicalDeviceProperties2::default().push_next(&mut driver).push_next(&mut maintenance3);
        if self.api >= vk::API_VERSION_1_3 {
            query = query.push_next(&mut maintenance4).push_next(&mut subgroup);
        }
        if self.extensions.external_memory_host {
            query = query.push_next(&mut host);
        }
        // SAFETY: vkGetPhysicalDeviceProperties2: the handle is of this instance; each structure is chained once and only where
        // the version or extension defines it.
        unsafe { instance.get_physical_device_properties2(self.handle, &mut query) };
        self.queries_wait = driver.driver_id == vk::DriverId::MESA_LLVMPIPE;
        self.driver = format!(
            "{} {} (Vulkan {})",
            driver.driver_name_as_c_str().unwrap_or(c"").to_string_lossy(),
            driver.driver_info_as_c_str().unwrap_or(c"").to_string_lossy(),
            version_words(api_driver)
        );
        self.allocation_bytes_max = or_unlimited(maintenance3.max_memory_allocation_size);
        if self.api >= vk::API_VERSION_1_3 {
            self.buffer_bytes_max = or_unlimited(maintenance4.max_buffer_size);
            if subgroup.required_subgroup_size_stages.contains(vk::ShaderStageFlags::COMPUTE) {
                self.subgroup_sizes = (subgroup.min_subgroup_size, subgroup.max_subgroup_size);
            }
        }
        // The specification demands a power of two; the mock driver says zero, which means that nothing can be imported.
        if host.min_imported_host_pointer_alignment.is_power_of_two() {
            self.import_alignment = host.min_imported_host_pointer_alignment;
        }
    }

    /// The memory types, with their heap's size.
    pub(crate) fn memory_types(&self) -> impl Iterator<Item = (u32, vk::MemoryPropertyFlags, u64)> + '_ {
        self.memory
            .memory_types_as_slice()
            .iter()
            .enumerate()
            .map(|(i, t)| (i as u32, t.property_flags, self.memory.memory_heaps[t.heap_index as usize].size))
    }

    /// What kind of device it is, in a word.
    pub(crate) fn kind_words(&self) -> &'static str {
        match self.kind {
            vk::PhysicalDeviceType::DISCRETE_GPU => "discrete",
            vk::PhysicalDeviceType::INTEGRATED_GPU => "integrated",
            vk::PhysicalDeviceType::VIRTUAL_GPU => "virtual",
            vk::PhysicalDeviceType::CPU => "software",
            _ => "other",
        }
    }
}

/// The "Required Limits" of the Vulkan specification put these at 1 GiB at least; zero is a driver that does not say.
fn or_unlimited(bytes: u64) -> u64 {
    if bytes == 0 { u64::MAX } else { bytes }
}
