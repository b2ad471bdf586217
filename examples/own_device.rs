//! An application with its own Vulkan: instance, device, command buffers and descriptors are plain ash. Managed arrays, twice as large
//! as the device memory they may have, go through them in chunks: acquire, submit, release, and no wait in between but for the
//! application's own descriptor sets.

use anyhow::{Context, Result, ensure};
use ash::vk;
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use vkhmm::vulkan::{Level, Need, OwnQueue, Parts, QueueLock, Requirements};
use vkhmm::{Acquired, Error, MemoryError, MemoryKind, Runtime, Slice, SliceMut};

const ITEMS: usize = 4 << 20;
const CHUNK: usize = 512 << 10;
const LIMIT: u64 = 16 << 20;
/// Chunks whose command buffers and descriptors exist at a time.
const RING: usize = 4;

/// Excludes vkhmm and this program from the one queue that some devices have.
#[derive(Default)]
struct Turnstile {
    taken: Mutex<bool>,
    free: Condvar,
}

impl QueueLock for Turnstile {
    fn lock(&self) {
        let taken = self.taken.lock().expect("no holder panics");
        *self.free.wait_while(taken, |taken| *taken).expect("no holder panics") = true;
    }

    fn unlock(&self) {
        *self.taken.lock().expect("no holder panics") = false;
        self.free.notify_one();
    }
}

/// What every Vulkan program makes first.
struct Gpu {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    extensions: Vec<CString>,
    requirements: Requirements,
    family: u32,
    queue: vk::Queue,
    lock: Arc<Turnstile>,
    /// For vkhmm.
    queues: Vec<OwnQueue>,
}

impl Gpu {
    /// # Safety
    /// None beyond what Vulkan asks: every handle is used as the specification says.
    unsafe fn new() -> Result<Self> {
        // SAFETY: plain Vulkan by the book; what `Requirements` names is turned on for a device that has it.
        unsafe {
            let entry = ash::Entry::load().context("no Vulkan loader")?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&app);
            let instance = entry.create_instance(&info, None)?;
            let found = instance.enumerate_physical_devices()?.into_iter().find_map(|physical| {
                Some((physical, Requirements::query(&instance, physical, Level::Everything).ok()?))
            });
            let (physical, mut requirements) = found.context("no device that vkhmm can use")?;
            let required = requirements.queues.iter().find(|q| q.need == Need::Required);
            let family = required.context("vkhmm names the family it runs kernels on")?.family;
            let families = instance.get_physical_device_queue_family_properties(physical);
            // One queue for this program; one more for vkhmm, or the same one under a lock.
            let count = families[family as usize].queue_count.min(2);
            let priorities = [1.0; 2];
            let wanted = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(family)
                .queue_priorities(&priorities[..count as usize])];
            let extensions: Vec<CString> =
                requirements.extensions.iter().map(|e| e.what.to_owned()).collect();
            let names: Vec<_> = extensions.iter().map(|e| e.as_ptr()).collect();
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&wanted)
                .enabled_extension_names(&names)
                .push_next(requirements.features.head());
            let device = instance.create_device(physical, &info, None)?;
            let lock = Arc::new(Turnstile::default());
            let theirs = if count == 1 { Some(Arc::clone(&lock) as Arc<dyn QueueLock>) } else { None };
            let handle = device.get_device_queue(family, count - 1);
            let queues = vec![OwnQueue { family, handle, lock: theirs }];
            let queue = device.get_device_queue(family, 0);
            Ok(Self {
                _entry: entry,
                instance,
                physical,
                device,
                extensions,
                requirements,
                family,
                queue,
                lock,
                queues,
            })
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            instance: self.instance.clone(),
            physical: self.physical,
            device: self.device.clone(),
            api_version: vk::API_VERSION_1_3,
            extensions: self.extensions.clone(),
            features: self.requirements.features.as_ptr(),
            enabled_features: None,
            queues: self.queues.clone(),
            families: vec![self.family],
            usage: vk::BufferUsageFlags::empty(),
            limit_bytes: Some(LIMIT),
        }
    }
}

/// The program's own pipeline, and a ring of what one submission needs.
struct Saxpy {
    layouts: (vk::DescriptorSetLayout, vk::PipelineLayout),
    module: vk::ShaderModule,
    pipeline: vk::Pipeline,
    pools: (vk::DescriptorPool, vk::CommandPool),
    sets: Vec<vk::DescriptorSet>,
    commands: Vec<vk::CommandBuffer>,
    /// Reaches n when the n-th submission is done.
    done: vk::Semaphore,
    submitted: u64,
}

impl Saxpy {
    /// # Safety
    /// `gpu` outlives it.
    unsafe fn new(gpu: &Gpu) -> Result<Self> {
        let device = &gpu.device;
        // SAFETY: plain Vulkan by the book; the shader is compiled from shaders/saxpy.comp, whose interface this is.
        unsafe {
            let binding = |binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            };
            let bindings = [binding(0), binding(1)];
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let set_layout = device.create_descriptor_set_layout(&info, None)?;
            let push = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(8)];
            let sets = [set_layout];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets).push_constant_ranges(&push);
            let layout = device.create_pipeline_layout(&info, None)?;
            let mut spirv = std::io::Cursor::new(include_bytes!("../shaders/spv/saxpy.spv"));
            let words = ash::util::read_spv(&mut spirv)?;
            let module =
                device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
            let made = device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            let pipeline = made.map_err(|(_, error)| error)?[0];
            let sizes = [vk::DescriptorPoolSize::default()
                .ty(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(2 * RING as u32)];
            let info = vk::DescriptorPoolCreateInfo::default().max_sets(RING as u32).pool_sizes(&sizes);
            let descriptors = device.create_descriptor_pool(&info, None)?;
            let each = [set_layout; RING];
            let info =
                vk::DescriptorSetAllocateInfo::default().descriptor_pool(descriptors).set_layouts(&each);
            let sets = device.allocate_descriptor_sets(&info)?;
            let info = vk::CommandPoolCreateInfo::default()
                .queue_family_index(gpu.family)
                .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
            let pool = device.create_command_pool(&info, None)?;
            let info =
                vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(RING as u32);
            let commands = device.allocate_command_buffers(&info)?;
            let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
            let done =
                device.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None)?;
            let (layouts, pools) = ((set_layout, layout), (descriptors, pool));
            Ok(Self { layouts, module, pipeline, pools, sets, commands, done, submitted: 0 })
        }
    }

    fn wait(&self, gpu: &Gpu, value: u64) -> Result<()> {
        let (semaphores, values) = ([self.done], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: a timeline semaphore of this device.
        Ok(unsafe { gpu.device.wait_semaphores(&info, u64::MAX) }?)
    }

    /// Submits y = 2x + y on what was acquired, and releases it.
    ///
    /// # Safety
    /// `acquired` has x for reading and y for writing, `items` elements each.
    unsafe fn run(&mut self, gpu: &Gpu, acquired: Acquired<'_>, items: u32) -> Result<()> {
        let slot = self.submitted as usize % RING;
        // The one wait: descriptors and commands of four chunks ago are this chunk's now.
        self.wait(gpu, (self.submitted + 1).saturating_sub(RING as u64))?;
        let (device, set, commands) = (&gpu.device, self.sets[slot], self.commands[slot]);
        let infos: Vec<[vk::DescriptorBufferInfo; 1]> = acquired
            .places()
            .iter()
            .map(|p| [vk::DescriptorBufferInfo { buffer: p.buffer, offset: p.offset, range: p.size }])
            .collect();
        let writes: Vec<_> = (0..)
            .zip(&infos)
            .map(|(binding, info)| {
                vk::WriteDescriptorSet::default()
                    .dst_set(set)
                    .dst_binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .buffer_info(info)
            })
            .collect();
        let (granted, at) = acquired.wait();
        self.submitted += 1;
        // SAFETY: plain Vulkan by the book: the slot's last use is over; the work waits for the grant, stays inside what was acquired,
        // and its end is what `done` signals; the queue is used under its lock.
        unsafe {
            device.update_descriptor_sets(&writes, &[]);
            device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
            let compute = vk::PipelineBindPoint::COMPUTE;
            device.cmd_bind_pipeline(commands, compute, self.pipeline);
            device.cmd_bind_descriptor_sets(commands, compute, self.layouts.1, 0, &[set], &[]);
            let push = [2.0_f32.to_ne_bytes(), items.to_ne_bytes()].concat();
            let stage = vk::ShaderStageFlags::COMPUTE;
            device.cmd_push_constants(commands, self.layouts.1, stage, 0, &push);
            device.cmd_dispatch(commands, items.div_ceil(64), 1, 1);
            device.end_command_buffer(commands)?;
            let (waits, signals, buffers) = ([granted], [self.done], [commands]);
            let (wait_values, signal_values) = ([at], [self.submitted]);
            let mut values = vk::TimelineSemaphoreSubmitInfo::default()
                .wait_semaphore_values(&wait_values)
                .signal_semaphore_values(&signal_values);
            let submit = [vk::SubmitInfo::default()
                .wait_semaphores(&waits)
                .wait_dst_stage_mask(&[vk::PipelineStageFlags::COMPUTE_SHADER])
                .command_buffers(&buffers)
                .signal_semaphores(&signals)
                .push_next(&mut values)];
            gpu.lock.lock();
            let submitted = device.queue_submit(gpu.queue, &submit, vk::Fence::null());
            gpu.lock.unlock();
            submitted?;
            acquired.release(self.done, self.submitted);
        }
        Ok(())
    }

    /// # Safety
    /// Nothing of it is in use.
    unsafe fn destroy(self, device: &ash::Device) {
        // SAFETY: the caller's promise; each handle was made by `new`.
        unsafe {
            device.destroy_semaphore(self.done, None);
            device.destroy_command_pool(self.pools.1, None);
            device.destroy_descriptor_pool(self.pools.0, None);
            device.destroy_pipeline(self.pipeline, None);
            device.destroy_shader_module(self.module, None);
            device.destroy_pipeline_layout(self.layouts.1, None);
            device.destroy_descriptor_set_layout(self.layouts.0, None);
        }
    }
}

/// y = 2x + y on one chunk, if nothing is in the way just now. Whether it was submitted.
///
/// # Safety
/// `saxpy` and `rt` are on `gpu`.
unsafe fn chunk(
    gpu: &Gpu,
    saxpy: &mut Saxpy,
    rt: &Runtime,
    x: &Slice<f32>,
    y: &mut SliceMut<f32>,
) -> Result<bool> {
    let items = y.len() as u32;
    match rt.acquire_named((x.read(), y.write()), "chunk") {
        Err(Error::Memory(MemoryError::Busy { .. })) => Ok(false),
        Err(error) => Err(error).with_context(|| rt.report()),
        // SAFETY: the caller's promise, and what was just acquired.
        Ok(acquired) => unsafe { saxpy.run(gpu, acquired, items) }.map(|()| true),
    }
}

fn main() -> Result<()> {
    // SAFETY: this program uses each handle as Vulkan asks; `Parts` are of its own device, which it destroys after `close`.
    unsafe {
        let gpu = Gpu::new()?;
        let mut saxpy = Saxpy::new(&gpu)?;
        // Memory that touches reach without a queue: the device may have only one.
        let rt = Runtime::builder().memory_kind(MemoryKind::DeviceCoherent).from_vulkan(gpu.parts())?;
        println!("{}", rt.doctor().device);
        let (mut x, mut y) = (rt.alloc::<f32>(ITEMS)?, rt.alloc::<f32>(ITEMS)?);
        x.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        y.fill(1.0);
        ensure!(2 * ITEMS as u64 * 4 == 2 * LIMIT && rt.can_acquire(8 * CHUNK as u64), "sizes");
        ensure!(!rt.can_acquire(8 * ITEMS as u64), "both arrays do not fit");
        for round in 0..3 {
            for start in (0..ITEMS).step_by(CHUNK) {
                let (from, mut to) = (x.slice(start..start + CHUNK), y.slice_mut(start..start + CHUNK));
                while !chunk(&gpu, &mut saxpy, &rt, &from, &mut to)? {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
            println!("round {round}: {} submissions", saxpy.submitted);
        }
        // Touches wait for what is still under way.
        ensure!(y.iter().enumerate().all(|(i, v)| *v == 6.0 * i as f32 + 1.0), "a wrong sum");
        println!("{ITEMS} elements right\n{}", rt.stats());
        drop((x, y));
        rt.close(Duration::from_secs(20))?;
        saxpy.destroy(&gpu.device);
        gpu.device.destroy_device(None);
        gpu.instance.destroy_instance(None);
    }
    Ok(())
}
