//! What a careful program does without vkhmm: staging that stays mapped, a buffer in device memory, and one command buffer, recorded
//! once, that copies the one to the other and runs the kernel on it.

use crate::PIECE;
use anyhow::{Context, Result};
use ash::vk;

/// A device with a kernel over words that come through staging. Used by one thread.
pub(crate) struct Raw {
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    queue: vk::Queue,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    fence: vk::Fence,
    staging: Memory,
    words: Memory,
    sum: Memory,
    descriptors: vk::DescriptorPool,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    pipeline: vk::Pipeline,
}

/// A buffer and its memory.
struct Memory {
    buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    bytes: usize,
    /// Where the host sees it, if it does.
    mapped: *mut u32,
}

impl Raw {
    /// Opens the device of that name, with `bytes` of staging and as much device memory, and a kernel that has two bindings: what
    /// it reads, and one word that it adds to.
    ///
    /// # Errors
    /// Whatever Vulkan refuses; no device of that name.
    pub(crate) fn open(name: &str, bytes: usize, spirv: &[u8], groups: u32) -> Result<Self> {
        // SAFETY: the loader is a Vulkan loader, and `_entry` keeps it as long as anything made from it.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points to live across the call.
        let instance = unsafe { entry.create_instance(&create, None)? };
        let physical = find(&instance, name)?;
        // SAFETY: `physical` is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let computes = |f: &vk::QueueFamilyProperties| f.queue_flags.contains(vk::QueueFlags::COMPUTE);
        let family = families.iter().position(computes).context("no queue computes")? as u32;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let create = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
        // SAFETY: `physical` has the family; `create` and what it points to live across the call.
        let device = unsafe { instance.create_device(physical, &create, None)? };
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(family, 0) };
        // SAFETY: `physical` is of this instance.
        let types = unsafe { instance.get_physical_device_memory_properties(physical) };
        let coherent = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let staging = memory(&device, &types, bytes, coherent, vk::BufferUsageFlags::TRANSFER_SRC)?;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
        let words = memory(&device, &types, bytes, vk::MemoryPropertyFlags::DEVICE_LOCAL, usage)?;
        let sum = memory(&device, &types, 4, coherent, vk::BufferUsageFlags::STORAGE_BUFFER)?;
        let (set_layout, descriptors, sets) = descriptors(&device, [&words, &sum])?;
        let (layout, pipeline) = pipeline(&device, set_layout, spirv)?;
        let create = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device has the family; the fence's structure has no pointers.
        let (pool, fence) = unsafe {
            let fence = device.create_fence(&vk::FenceCreateInfo::default(), None)?;
            (device.create_command_pool(&create, None)?, fence)
        };
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is this device's.
        let commands = unsafe { device.allocate_command_buffers(&allocate)? }[0];
        let raw = Self {
            _entry: entry,
            instance,
            device,
            queue,
            pool,
            commands,
            fence,
            staging,
            words,
            sum,
            descriptors,
            set_layout,
            layout,
            pipeline,
        };
        raw.record(&sets, groups)?;
        // SAFETY: mapped, and the device has nothing to do yet.
        unsafe { raw.sum.mapped.write_volatile(0) };
        Ok(raw)
    }

    /// The words that [`Self::run`] copies.
    pub(crate) fn staging(&mut self) -> &mut [u32] {
        // SAFETY: as many words are mapped as long as `self` lives, written by the driver or the host; `run` waits for the device, and
        // the borrow keeps others from running it.
        unsafe { std::slice::from_raw_parts_mut(self.staging.mapped, self.staging.bytes / 4) }
    }

    /// Copies staging to the device and runs the kernel; what it has added up in all.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn run(&mut self) -> Result<u32> {
        let commands = [self.commands];
        let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
        // SAFETY: the queue is used by this thread only; the last use of fence and commands was waited for; the word is mapped,
        // coherent, and made visible by the last barrier.
        unsafe {
            self.device.queue_submit(self.queue, &submit, self.fence)?;
            self.device.wait_for_fences(&[self.fence], true, u64::MAX)?;
            self.device.reset_fences(&[self.fence])?;
            Ok(self.sum.mapped.read_volatile())
        }
    }

    fn record(&self, sets: &[vk::DescriptorSet], groups: u32) -> Result<()> {
        let (device, commands) = (&self.device, self.commands);
        let whole = [vk::BufferCopy { src_offset: 0, dst_offset: 0, size: self.words.bytes as u64 }];
        let copied = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::SHADER_READ)];
        let done = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::SHADER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        let (copy, shader, host) = (
            vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::COMPUTE_SHADER,
            vk::PipelineStageFlags::HOST,
        );
        let (none, point) = (vk::DependencyFlags::empty(), vk::PipelineBindPoint::COMPUTE);
        // SAFETY: all handles are this device's and alive, and the command buffer is fresh; both buffers have `bytes` bytes;
        // pipeline, layout and sets belong together, and all that two dispatches both write is written by atomics. Each submission is waited for, so the kernel's reads are over before the next copy.
        unsafe {
            device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
            device.cmd_copy_buffer(commands, self.staging.buffer, self.words.buffer, &whole);
            device.cmd_pipeline_barrier(commands, copy, shader, none, &copied, &[], &[]);
            device.cmd_bind_pipeline(commands, point, self.pipeline);
            for set in sets {
                device.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[*set], &[]);
                device.cmd_dispatch(commands, groups, 1, 1);
            }
            device.cmd_pipeline_barrier(commands, shader, host, none, &done, &[], &[]);
            device.end_command_buffer(commands)?;
        }
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
            for memory in [&self.staging, &self.words, &self.sum] {
                self.device.destroy_buffer(memory.buffer, None);
                self.device.free_memory(memory.memory, None);
            }
            self.device.destroy_fence(self.fence, None);
            self.device.destroy_command_pool(self.pool, None);
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

/// A buffer in the first memory type with these flags, cached by the host if there is such a one; mapped if the host sees it.
fn memory(
    device: &ash::Device,
    memory: &vk::PhysicalDeviceMemoryProperties,
    bytes: usize,
    flags: vk::MemoryPropertyFlags,
    usage: vk::BufferUsageFlags,
) -> Result<Memory> {
    let create = vk::BufferCreateInfo::default().size(bytes as u64).usage(usage);
    // SAFETY: the device is alive; the structure has no dangling pointers.
    let buffer = unsafe { device.create_buffer(&create, None)? };
    // SAFETY: the buffer is this device's.
    let need = unsafe { device.get_buffer_memory_requirements(buffer) };
    let types = memory.memory_types_as_slice();
    let of = |flags: vk::MemoryPropertyFlags| {
        let fits =
            |i: &usize| need.memory_type_bits >> i & 1 == 1 && types[*i].property_flags.contains(flags);
        (0..types.len()).find(fits)
    };
    let index = of(flags | vk::MemoryPropertyFlags::HOST_CACHED).or_else(|| of(flags));
    let index = index.context("no memory type for a plain buffer")?;
    let allocate =
        vk::MemoryAllocateInfo::default().allocation_size(need.size).memory_type_index(index as u32);
    // SAFETY: the type exists and the size is what the buffer needs; the memory is bound once, to this buffer, and mapped once if the
    // host can see it.
    unsafe {
        let memory = device.allocate_memory(&allocate, None)?;
        device.bind_buffer_memory(buffer, memory, 0)?;
        let mapped = match flags.contains(vk::MemoryPropertyFlags::HOST_VISIBLE) {
            true => device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?.cast(),
            false => std::ptr::null_mut(),
        };
        Ok(Memory { buffer, memory, bytes, mapped })
    }
}

/// A set for each piece of the words, and the sum.
fn descriptors(
    device: &ash::Device,
    [words, sum]: [&Memory; 2],
) -> Result<(vk::DescriptorSetLayout, vk::DescriptorPool, Vec<vk::DescriptorSet>)> {
    let kind = vk::DescriptorType::STORAGE_BUFFER;
    let binding = |n| {
        vk::DescriptorSetLayoutBinding::default()
            .binding(n)
            .descriptor_type(kind)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
    };
    let bindings = [binding(0), binding(1)];
    let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
    // SAFETY: two bindings, of a kind that every device has.
    let layout = unsafe { device.create_descriptor_set_layout(&create, None)? };
    let count = words.bytes.div_ceil(PIECE) as u32;
    let sizes = [vk::DescriptorPoolSize::default().ty(kind).descriptor_count(2 * count)];
    let create = vk::DescriptorPoolCreateInfo::default().max_sets(count).pool_sizes(&sizes);
    // SAFETY: counts are above zero.
    let pool = unsafe { device.create_descriptor_pool(&create, None)? };
    let layouts = vec![layout; count as usize];
    let allocate = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
    // SAFETY: the pool has room for so many sets of this layout.
    let sets = unsafe { device.allocate_descriptor_sets(&allocate)? };
    for (set, from) in sets.iter().zip((0..words.bytes).step_by(PIECE)) {
        let range = PIECE.min(words.bytes - from) as u64;
        for (n, (buffer, offset, range)) in
            (0..).zip([(words.buffer, from as u64, range), (sum.buffer, 0, vk::WHOLE_SIZE)])
        {
            let info = [vk::DescriptorBufferInfo::default().buffer(buffer).offset(offset).range(range)];
            let write = vk::WriteDescriptorSet::default().dst_set(*set).dst_binding(n).descriptor_type(kind);
            // SAFETY: the set is fresh, the range lies in the buffer.
            unsafe { device.update_descriptor_sets(&[write.buffer_info(&info)], &[]) };
        }
    }
    Ok((layout, pool, sets))
}

fn pipeline(
    device: &ash::Device,
    set_layout: vk::DescriptorSetLayout,
    spirv: &[u8],
) -> Result<(vk::PipelineLayout, vk::Pipeline)> {
    let layouts = [set_layout];
    let create = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
    // SAFETY: one set is within every device's limits.
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
    // SAFETY: the layout has the module's two bindings; the module may go once the pipeline is made.
    let made = unsafe {
        let made = device.create_compute_pipelines(vk::PipelineCache::null(), &[create], None);
        device.destroy_shader_module(module, None);
        made
    };
    let pipelines = made.map_err(|(_, error)| error)?;
    Ok((layout, pipelines[0]))
}
