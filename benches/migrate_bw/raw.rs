//! What programs do without managed memory: a Vulkan device of its own, device memory, and staging that stays mapped. Three ways:
//! `vkCmdCopyBuffer` alone (bytes lie in staging already), naive (everything through one large staging buffer, step by step), and
//! good (chunks through two halves of a staging buffer, the CPU's part of one beside the device's part of the other).

use anyhow::{Context, Result};
use ash::vk;
use std::ptr;
use std::time::Instant;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Host to device.
    In,
    /// Device to host.
    Out,
}

/// Bytes of the program that belong at a place on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Where in the program's memory, and where on the device.
    pub(crate) at: usize,
    /// How many.
    pub(crate) bytes: usize,
}

/// What the good way copies at a time.
const CHUNK: usize = 4 << 20;

/// A device with a buffer in device memory and one in mapped host memory. Used by one thread.
pub(crate) struct Raw {
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    queue: vk::Queue,
    pool: vk::CommandPool,
    commands: Vec<vk::CommandBuffer>,
    fences: [vk::Fence; 2],
    host: (vk::Buffer, vk::DeviceMemory),
    local: (vk::Buffer, vk::DeviceMemory),
    mapped: *mut u8,
}

impl Raw {
    /// Opens the device of that name, with buffers of `bytes`, on a queue that only transfers where there is one.
    ///
    /// # Errors
    /// Whatever Vulkan refuses; no device of that name.
    pub(crate) fn open(name: &str, bytes: usize) -> Result<Self> {
        // SAFETY: the loader is a Vulkan loader, and `_entry` keeps it as long as anything made from it.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points to live across the call.
        let instance = unsafe { entry.create_instance(&create, None)? };
        let physical = find(&instance, name)?;
        // SAFETY: `physical` is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let others = vk::QueueFlags::COMPUTE | vk::QueueFlags::GRAPHICS;
        let only = |f: &vk::QueueFamilyProperties| {
            f.queue_flags.contains(vk::QueueFlags::TRANSFER) && !f.queue_flags.intersects(others)
        };
        let any = |f: &vk::QueueFamilyProperties| f.queue_flags.intersects(others);
        let family = families.iter().position(only).or_else(|| families.iter().position(any));
        let family = family.context("no queue copies")? as u32;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let create = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
        // SAFETY: `physical` has the family; `create` and what it points to live across the call.
        let device = unsafe { instance.create_device(physical, &create, None)? };
        // SAFETY: the device was made with one queue of this family.
        let queue = unsafe { device.get_device_queue(family, 0) };
        let create = vk::CommandPoolCreateInfo::default()
            .queue_family_index(family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
        // SAFETY: the device has the family.
        let pool = unsafe { device.create_command_pool(&create, None)? };
        let allocate = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(2);
        // SAFETY: the pool is this device's.
        let commands = unsafe { device.allocate_command_buffers(&allocate)? };
        let signalled = vk::FenceCreateInfo::default().flags(vk::FenceCreateFlags::SIGNALED);
        // SAFETY: the device is alive; the structure has no pointers.
        let fences =
            unsafe { [device.create_fence(&signalled, None)?, device.create_fence(&signalled, None)?] };
        // SAFETY: `physical` is of this instance.
        let memory = unsafe { instance.get_physical_device_memory_properties(physical) };
        let coherent = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let cached = coherent | vk::MemoryPropertyFlags::HOST_CACHED;
        let host = buffer(&device, &memory, bytes.max(2 * CHUNK) as u64, &[cached, coherent])?;
        let local = buffer(&device, &memory, bytes as u64, &[vk::MemoryPropertyFlags::DEVICE_LOCAL])?;
        // SAFETY: the memory is host-visible, mapped once, and stays mapped as long as it lives.
        let mapped = unsafe { device.map_memory(host.1, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())? };
        let mapped = mapped.cast::<u8>();
        Ok(Self { _entry: entry, instance, device, queue, pool, commands, fences, host, local, mapped })
    }

    /// Seconds of `vkCmdCopyBuffer` alone, from submission until the host has seen the end.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn copy(&self, way: Way, pieces: &[Piece]) -> Result<f64> {
        let regions: Vec<_> =
            pieces.iter().map(|piece| region(way, piece.at, piece.at, piece.bytes)).collect();
        self.record(0, way, &regions)?;
        let start = Instant::now();
        self.submit(0)?;
        self.wait(0)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of the naive way: all bytes through one staging buffer, step by step.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn naive(&self, way: Way, program: &mut [u8], pieces: &[Piece]) -> Result<f64> {
        let start = Instant::now();
        let regions: Vec<_> =
            pieces.iter().map(|piece| region(way, piece.at, piece.at, piece.bytes)).collect();
        if way == Way::In {
            pieces.iter().for_each(|piece| self.stage(way, program, *piece, piece.at));
        }
        self.record(0, way, &regions)?;
        self.submit(0)?;
        self.wait(0)?;
        if way == Way::Out {
            pieces.iter().for_each(|piece| self.stage(way, program, *piece, piece.at));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of the good way: chunks through two halves of the staging buffer.
    ///
    /// # Errors
    /// A lost device.
    pub(crate) fn good(&self, way: Way, program: &mut [u8], pieces: &[Piece]) -> Result<f64> {
        let start = Instant::now();
        let chunks = chunks(pieces);
        for (number, chunk) in chunks.iter().enumerate() {
            let half = number % 2;
            self.wait(half)?;
            let (mut at, mut regions) = (half * CHUNK, Vec::with_capacity(chunk.len()));
            for piece in chunk {
                if way == Way::In {
                    self.stage(way, program, *piece, at);
                }
                regions.push(region(way, at, piece.at, piece.bytes));
                at += piece.bytes;
            }
            self.record(half, way, &regions)?;
            self.submit(half)?;
            if way == Way::Out && number > 0 {
                self.drain(program, &chunks[number - 1], 1 - half)?;
            }
        }
        if way == Way::Out {
            let last = chunks.len() - 1;
            self.drain(program, &chunks[last], last % 2)?;
        }
        self.wait(0)?;
        self.wait(1)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn drain(&self, program: &mut [u8], chunk: &[Piece], half: usize) -> Result<()> {
        self.wait(half)?;
        let mut at = half * CHUNK;
        for piece in chunk {
            self.stage(Way::Out, program, *piece, at);
            at += piece.bytes;
        }
        Ok(())
    }

    /// The CPU's part: between the program's bytes and staging at `at`.
    fn stage(&self, way: Way, program: &mut [u8], piece: Piece, at: usize) {
        let bytes = &mut program[piece.at..piece.at + piece.bytes];
        // SAFETY: staging has `at + piece.bytes` bytes, mapped and coherent; the device's last use of them was waited for, and the
        // program's bytes are borrowed.
        unsafe {
            let staging = self.mapped.add(at);
            match way {
                Way::In => ptr::copy_nonoverlapping(bytes.as_ptr(), staging, bytes.len()),
                Way::Out => ptr::copy_nonoverlapping(staging, bytes.as_mut_ptr(), bytes.len()),
            }
        }
    }

    fn record(&self, which: usize, way: Way, regions: &[vk::BufferCopy]) -> Result<()> {
        let (from, to) = match way {
            Way::In => (self.host.0, self.local.0),
            Way::Out => (self.local.0, self.host.0),
        };
        let commands = self.commands[which];
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let after = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        let stages = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        // SAFETY: all handles are this device's and alive; the last use of the command buffer was waited for; the regions are inside
        // both buffers and do not overlap.
        unsafe {
            self.device.begin_command_buffer(commands, &begin)?;
            self.device.cmd_copy_buffer(commands, from, to, regions);
            let none = vk::DependencyFlags::empty();
            self.device.cmd_pipeline_barrier(commands, stages.0, stages.1, none, &after, &[], &[]);
            self.device.end_command_buffer(commands)?;
        }
        Ok(())
    }

    fn submit(&self, which: usize) -> Result<()> {
        let commands = [self.commands[which]];
        let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
        // SAFETY: the queue is used by this thread only; the fence was waited for, so no work has it; what is submitted lives until
        // it is waited for.
        unsafe {
            self.device.reset_fences(&[self.fences[which]])?;
            self.device.queue_submit(self.queue, &submit, self.fences[which])?;
        }
        Ok(())
    }

    /// Waits for the last work of that number; returns at once where there was none.
    fn wait(&self, which: usize) -> Result<()> {
        // SAFETY: a fence of this device, signalled from the start.
        unsafe { self.device.wait_for_fences(&[self.fences[which]], true, u64::MAX)? };
        Ok(())
    }
}

fn region(way: Way, staging: usize, device: usize, bytes: usize) -> vk::BufferCopy {
    let (from, to) = if way == Way::In { (staging, device) } else { (device, staging) };
    vk::BufferCopy { src_offset: from as u64, dst_offset: to as u64, size: bytes as u64 }
}

/// The same bytes in lists of at most a chunk.
fn chunks(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let (mut lists, mut left) = (vec![Vec::new()], CHUNK);
    for piece in pieces {
        let mut rest = *piece;
        while rest.bytes > 0 {
            if left == 0 {
                lists.push(Vec::new());
                left = CHUNK;
            }
            let bytes = rest.bytes.min(left);
            lists.last_mut().expect("there is a list from the start").push(Piece { at: rest.at, bytes });
            (rest.at, rest.bytes, left) = (rest.at + bytes, rest.bytes - bytes, left - bytes);
        }
    }
    lists
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
            self.fences.iter().for_each(|fence| self.device.destroy_fence(*fence, None));
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
