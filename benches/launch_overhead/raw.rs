//! The plain mechanism to compare with: a Vulkan device of its own, one buffer in device memory, one pipeline, one descriptor set, a
//! ring of command buffers, one timeline. What a careful program without vkhmm does for each launch: record, submit, wait.

use anyhow::{Context, Result};
use ash::vk;

/// Command buffers that may be under way.
const RING: usize = 128;

/// A device that runs one kernel on one buffer. Used by one thread.
pub(crate) struct Raw {
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    queue: vk::Queue,
    ring: Vec<(vk::CommandPool, vk::CommandBuffer)>,
    next: usize,
    timeline: vk::Semaphore,
    value: u64,
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    descriptors: vk::DescriptorPool,
    set_layout: vk::DescriptorSetLayout,
    set: vk::DescriptorSet,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

impl Raw {
    /// Opens the device of that name, with a buffer of `bytes` bytes and a kernel that has one binding and one `f32` to push.
    ///
    /// # Errors
    /// Whatever Vulkan refuses; no device of that name.
    pub(crate) fn open(name: &str, bytes: u64, spirv: &[u8]) -> Result<Self> {
        // SAFETY: the loader is a Vulkan loader, and `_entry` keeps it as long as anything made from it.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points to live across the call.
        let instance = unsafe { entry.create_instance(&create, None)? };
        let physical = find(&instance, name)?;
        // SAFETY: `physical` is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let family = families
            .iter()
            .position(|f| f.queue_flags.contains(vk::QueueFlags::COMPUTE))
            .context("no queue computes")? as u32;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default().synchronization2(true);
        let create = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .push_next(&mut v12)
            .push_next(&mut v13);
        // SAFETY: `physical` has the family; vkhmm runs on it, so it has the features; all pointers live across the call.
        let device = unsafe { instance.create_device(physical, &create, None)? };
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(family, 0) };
        let ring = (0..RING).map(|_| commands(&device, family)).collect::<Result<_>>()?;
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let create = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: timeline semaphores are on.
        let timeline = unsafe { device.create_semaphore(&create, None)? };
        // SAFETY: `physical` is of this instance.
        let types = unsafe { instance.get_physical_device_memory_properties(physical) };
        let (buffer, memory) = buffer(&device, &types, bytes)?;
        let (set_layout, descriptors, set) = descriptors(&device, buffer, bytes)?;
        let (layout, pipeline) = pipeline(&device, set_layout, spirv)?;
        Ok(Self {
            _entry: entry,
            instance,
            device,
            queue,
            ring,
            next: 0,
            timeline,
            value: 0,
            buffer,
            memory,
            descriptors,
            set_layout,
            set,
            layout,
            pipeline,
        })
    }

    /// Records and submits one command buffer of `count` dispatches with a barrier between any two that follow each other.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn launch(&mut self, groups: u32, count: usize, by: f32) -> Result<()> {
        let (pool, cmd) = self.ring[self.next % RING];
        self.next += 1;
        let device = &self.device;
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let everything = [vk::MemoryBarrier2::default()
            .src_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
            .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
            .dst_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
            .dst_access_mask(vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE)];
        let barrier = vk::DependencyInfo::default().memory_barriers(&everything);
        let point = vk::PipelineBindPoint::COMPUTE;
        self.value += 1;
        let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(cmd)];
        let signals = [vk::SemaphoreSubmitInfo::default()
            .semaphore(self.timeline)
            .value(self.value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
        let submit =
            [vk::SubmitInfo2::default().command_buffer_infos(&commands).signal_semaphore_infos(&signals)];
        // SAFETY: all handles are this device's and alive; at most RING submissions are under way (`wait` in between, see `main`), so
        // this command buffer is not; pipeline, layout and set belong together.
        unsafe {
            device.reset_command_pool(pool, vk::CommandPoolResetFlags::empty())?;
            device.begin_command_buffer(cmd, &begin)?;
            for i in 0..count {
                if i > 0 {
                    device.cmd_pipeline_barrier2(cmd, &barrier);
                }
                device.cmd_bind_pipeline(cmd, point, self.pipeline);
                device.cmd_bind_descriptor_sets(cmd, point, self.layout, 0, &[self.set], &[]);
                let stage = vk::ShaderStageFlags::COMPUTE;
                device.cmd_push_constants(cmd, self.layout, stage, 0, &by.to_ne_bytes());
                device.cmd_dispatch(cmd, groups, 1, 1);
            }
            device.cmd_pipeline_barrier2(cmd, &barrier);
            device.end_command_buffer(cmd)?;
            device.queue_submit2(self.queue, &submit, vk::Fence::null())?;
        }
        Ok(())
    }

    /// Waits for all that was launched.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn wait(&self) -> Result<()> {
        let (semaphores, values) = ([self.timeline], [self.value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is a timeline of this device.
        unsafe { self.device.wait_semaphores(&info, u64::MAX)? };
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: vkDeviceWaitIdle, then every object once, children before parents; this thread alone uses them.
        unsafe {
            let _ = self.device.device_wait_idle();
            self.device.destroy_pipeline(self.pipeline, None);
            self.device.destroy_pipeline_layout(self.layout, None);
            self.device.destroy_descriptor_pool(self.descriptors, None);
            self.device.destroy_descriptor_set_layout(self.set_layout, None);
            self.device.destroy_buffer(self.buffer, None);
            self.device.free_memory(self.memory, None);
            self.device.destroy_semaphore(self.timeline, None);
            self.ring.iter().for_each(|(pool, _)| self.device.destroy_command_pool(*pool, None));
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// The device of that name.
fn find(instance: &ash::Instance, name: &str) -> Result<vk::PhysicalDevice> {
    // SAFETY: the instance is alive.
    let devices = unsafe { instance.enumerate_physical_devices()? };
    let named = |device: &vk::PhysicalDevice| {
        // SAFETY: the handle was just enumerated from this instance.
        let properties = unsafe { instance.get_physical_device_properties(*device) };
        properties.device_name_as_c_str().is_ok_and(|have| have.to_string_lossy() == name)
    };
    devices.into_iter().find(named).with_context(|| format!("no Vulkan device is called {name:?}"))
}

fn commands(device: &ash::Device, family: u32) -> Result<(vk::CommandPool, vk::CommandBuffer)> {
    let create = vk::CommandPoolCreateInfo::default()
        .queue_family_index(family)
        .flags(vk::CommandPoolCreateFlags::TRANSIENT);
    // SAFETY: the device has the family.
    let pool = unsafe { device.create_command_pool(&create, None)? };
    let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
    // SAFETY: the pool is this device's.
    Ok((pool, unsafe { device.allocate_command_buffers(&allocate)? }[0]))
}

fn buffer(
    device: &ash::Device,
    memory: &vk::PhysicalDeviceMemoryProperties,
    bytes: u64,
) -> Result<(vk::Buffer, vk::DeviceMemory)> {
    let create = vk::BufferCreateInfo::default().size(bytes).usage(vk::BufferUsageFlags::STORAGE_BUFFER);
    // SAFETY: the device is alive; the structure has no dangling pointers.
    let buffer = unsafe { device.create_buffer(&create, None)? };
    // SAFETY: the buffer is this device's.
    let need = unsafe { device.get_buffer_memory_requirements(buffer) };
    let types = memory.memory_types_as_slice();
    let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
    let index = (0..types.len())
        .find(|i| need.memory_type_bits >> i & 1 == 1 && types[*i].property_flags.contains(local))
        .context("no device-local memory for a storage buffer")?;
    let allocate =
        vk::MemoryAllocateInfo::default().allocation_size(need.size).memory_type_index(index as u32);
    // SAFETY: the type exists and the size is what the buffer needs; the memory is bound once, to this buffer.
    let memory = unsafe {
        let memory = device.allocate_memory(&allocate, None)?;
        device.bind_buffer_memory(buffer, memory, 0)?;
        memory
    };
    Ok((buffer, memory))
}

fn descriptors(
    device: &ash::Device,
    buffer: vk::Buffer,
    bytes: u64,
) -> Result<(vk::DescriptorSetLayout, vk::DescriptorPool, vk::DescriptorSet)> {
    let kind = vk::DescriptorType::STORAGE_BUFFER;
    let bindings = [vk::DescriptorSetLayoutBinding::default()
        .binding(0)
        .descriptor_type(kind)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)];
    let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: one binding, of a kind that every device has.
    let layout = unsafe { device.create_descriptor_set_layout(&create, None)? };
    let sizes = [vk::DescriptorPoolSize::default().ty(kind).descriptor_count(1)];
    let create = vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes);
    // SAFETY: counts are above zero.
    let pool = unsafe { device.create_descriptor_pool(&create, None)? };
    let layouts = [layout];
    let allocate = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
    // SAFETY: the pool has room for one set of this layout.
    let set = unsafe { device.allocate_descriptor_sets(&allocate)? }[0];
    let info = [vk::DescriptorBufferInfo::default().buffer(buffer).range(bytes)];
    let write = [vk::WriteDescriptorSet::default().dst_set(set).descriptor_type(kind).buffer_info(&info)];
    // SAFETY: the set is fresh, the range is the whole buffer.
    unsafe { device.update_descriptor_sets(&write, &[]) };
    Ok((layout, pool, set))
}

fn pipeline(
    device: &ash::Device,
    set_layout: vk::DescriptorSetLayout,
    spirv: &[u8],
) -> Result<(vk::PipelineLayout, vk::Pipeline)> {
    let layouts = [set_layout];
    let push = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(4)];
    let create = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts).push_constant_ranges(&push);
    // SAFETY: one set and four bytes are within every device's limits.
    let layout = unsafe { device.create_pipeline_layout(&create, None)? };
    let words: Vec<u32> =
        spirv.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let create = vk::ShaderModuleCreateInfo::default().code(&words);
    // SAFETY: a module that is shipped with vkhmm, valid SPIR-V.
    let module = unsafe { device.create_shader_module(&create, None)? };
    let stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(module)
        .name(c"main");
    let create = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
    // SAFETY: the layout has the module's one binding and its push constant; the module may go once the pipeline is made.
    let made = unsafe {
        let made = device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None);
        device.destroy_shader_module(module, None);
        made
    };
    let pipelines = made.map_err(|(_, error)| error)?;
    Ok((layout, pipelines[0]))
}
