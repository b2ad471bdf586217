//! The plain mechanism to compare with: a Vulkan device of its own, one buffer in host memory, one in device memory, and
//! `vkCmdCopyBuffer` between them. No pages, no faults, nothing tracked.

use anyhow::{Context, Result};
use ash::vk;
use std::time::{Duration, Instant};

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Host to device.
    In,
    /// Device to host.
    Out,
}

/// A device with two buffers of one size. Used by one thread.
pub(crate) struct Raw {
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    queue: vk::Queue,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    fence: vk::Fence,
    host: (vk::Buffer, vk::DeviceMemory),
    local: (vk::Buffer, vk::DeviceMemory),
    bytes: u64,
}

impl Raw {
    /// Opens the device of that name, with buffers of `bytes`.
    ///
    /// # Errors
    /// Whatever Vulkan refuses; no device of that name.
    pub(crate) fn open(name: &str, bytes: u64) -> Result<Self> {
        // SAFETY: the loader is a Vulkan loader, and `_entry` keeps it as long as anything made from it.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points to live across the call.
        let instance = unsafe { entry.create_instance(&create, None)? };
        let physical = find(&instance, name)?;
        // SAFETY: `physical` is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let copies = vk::QueueFlags::TRANSFER | vk::QueueFlags::COMPUTE | vk::QueueFlags::GRAPHICS;
        let family =
            families.iter().position(|f| f.queue_flags.intersects(copies)).context("no queue copies")?;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family as u32).queue_priorities(&[1.0])];
        let create = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
        // SAFETY: `physical` has the family; `create` and what it points to live across the call.
        let device = unsafe { instance.create_device(physical, &create, None)? };
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(family as u32, 0) };
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family as u32)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device has the family.
        let pool = unsafe { device.create_command_pool(&create, None)? };
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is this device's.
        let commands = unsafe { device.allocate_command_buffers(&allocate)? }[0];
        // SAFETY: the device is alive; the structure has no pointers.
        let fence = unsafe { device.create_fence(&vk::FenceCreateInfo::default(), None)? };
        // SAFETY: `physical` is of this instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(physical) };
        let cached = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_CACHED;
        let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
        let host = buffer(&device, &memory, bytes, &[cached, visible])?;
        let local = buffer(&device, &memory, bytes, &[vk::MemoryPropertyFlags::DEVICE_LOCAL])?;
        Ok(Self { _entry: entry, instance, device, queue, pool, commands, fence, host, local, bytes })
    }

    /// Copies all bytes once. The time from submission until the fence is seen; recording is not counted.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn copy(&self, way: Way) -> Result<Duration> {
        let (from, to) = match way {
            Way::In => (self.host.0, self.local.0),
            Way::Out => (self.local.0, self.host.0),
        };
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let region = [vk::BufferCopy { src_offset: 0, dst_offset: 0, size: self.bytes }];
        // SAFETY: all handles are this device's and alive; the last copy is over, so the command buffer is not in use; the region
        // is inside both buffers.
        unsafe {
            self.device.begin_command_buffer(self.commands, &begin)?;
            self.device.cmd_copy_buffer(self.commands, from, to, &region);
            self.device.end_command_buffer(self.commands)?;
        }
        let commands = [self.commands];
        let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
        let start = Instant::now();
        // SAFETY: the queue is used by this thread only; the fence is not signalled; what is submitted lives until it is waited for.
        unsafe {
            self.device.queue_submit(self.queue, &submit, self.fence)?;
            self.device.wait_for_fences(&[self.fence], true, u64::MAX)?;
        }
        let time = start.elapsed();
        // SAFETY: the fence is signalled and no work has it.
        unsafe { self.device.reset_fences(&[self.fence])? };
        Ok(time)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: every copy was waited for, so nothing uses these handles; each was made by this device or instance and is
        // destroyed once, children before parents.
        unsafe {
            for (buffer, memory) in [self.host, self.local] {
                self.device.destroy_buffer(buffer, None);
                self.device.free_memory(memory, None);
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

/// A buffer to copy from and to, in the first memory type that has all flags of one of `wanted`, in that order.
fn buffer(
    device: &ash::Device,
    memory: &vk::PhysicalDeviceMemoryProperties,
    bytes: u64,
    wanted: &[vk::MemoryPropertyFlags],
) -> Result<(vk::Buffer, vk::DeviceMemory)> {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let create = vk::BufferCreateInfo::default().size(bytes).usage(usage);
    // SAFETY: the device is alive; the structure has no dangling pointers.
    let buffer = unsafe { device.create_buffer(&create, None)? };
    // SAFETY: the buffer is this device's.
    let need = unsafe { device.get_buffer_memory_requirements(buffer) };
    let types = memory.memory_types_as_slice();
    let of = |flags: &vk::MemoryPropertyFlags| {
        let fits = |i: usize| need.memory_type_bits >> i & 1 == 1 && types[i].property_flags.contains(*flags);
        (0..types.len()).find(|i| fits(*i))
    };
    let index = wanted.iter().find_map(of).context("no memory type for a plain buffer")?;
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
