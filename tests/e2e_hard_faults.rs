//! Hard faults: a device that reads and writes the application's own view R, by an import of it. lavapipe reaches imported memory through
//! the importer's page tables, so what is absent there faults in the driver's threads, like any touch. A test of touches that nobody
//! expects, from threads that are not ours, and no way to use a card: those pin what they import.

mod common;

use ash::vk;
use common::app::{App, Choices};
use common::{by_blocks, clean, declared, kernel, moving, open, skipped, spv, watchdog};
use std::ptr::NonNull;
use vkhmm::{Grid, Managed};

/// Words of the array: 4 MiB.
const N: usize = 1 << 20;
const BYTES: u64 = 4 * N as u64;

/// The other device: commands on R, each waited for.
struct Hard<'a> {
    app: &'a App,
    /// Over R; over memory of the device's own.
    buffers: [vk::Buffer; 2],
    memories: [vk::DeviceMemory; 2],
    mapped: NonNull<u32>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    fence: vk::Fence,
}

impl<'a> Hard<'a> {
    fn new(app: &'a App, view: *const u32) -> Self {
        let device = &app.device;
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default()
            .handle_types(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
        let plain = vk::BufferCreateInfo::default().size(BYTES).usage(usage);
        let imported = plain.push_next(&mut external);
        let host = ash::ext::external_memory_host::Device::new(&app.instance, device);
        let kind = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut types = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: plain Vulkan by the book: every handle is made here and destroyed in `drop`; the imported pages are whole ones of a live
        // allocation, which outlives the import.
        unsafe {
            let ask = host.fp().get_memory_host_pointer_properties_ext;
            ask(device.handle(), kind, view.cast(), &mut types).result().expect("an import");
            let over = device.create_buffer(&imported, None).expect("a buffer");
            let own = device.create_buffer(&plain, None).expect("a buffer");
            let first = |bits: u32, flags: vk::MemoryPropertyFlags| {
                let memory = app.instance.get_physical_device_memory_properties(app.physical);
                let fits = |i: &u32| {
                    let have = memory.memory_types[*i as usize].property_flags;
                    bits & (1 << i) != 0 && have.contains(flags)
                };
                (0..memory.memory_type_count).find(fits).expect("a memory type")
            };
            let needs = device.get_buffer_memory_requirements(over);
            let index =
                first(needs.memory_type_bits & types.memory_type_bits, vk::MemoryPropertyFlags::empty());
            let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
                .handle_type(kind)
                .host_pointer(view.cast_mut().cast());
            let info = vk::MemoryAllocateInfo::default().allocation_size(BYTES).memory_type_index(index);
            let theirs = device.allocate_memory(&info.push_next(&mut import), None).expect("imported memory");
            device.bind_buffer_memory(over, theirs, 0).expect("bind");
            let needs = device.get_buffer_memory_requirements(own);
            let visible = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let index = first(needs.memory_type_bits, visible);
            let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
            let ours = device.allocate_memory(&info, None).expect("memory");
            device.bind_buffer_memory(own, ours, 0).expect("bind");
            let mapped = device.map_memory(ours, 0, BYTES, vk::MemoryMapFlags::empty()).expect("map");
            let pool = vk::CommandPoolCreateInfo::default()
                .queue_family_index(app.queue.0)
                .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER);
            let pool = device.create_command_pool(&pool, None).expect("a pool");
            let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            Self {
                app,
                buffers: [over, own],
                memories: [theirs, ours],
                mapped: NonNull::new(mapped.cast()).expect("mapped"),
                pool,
                commands: device.allocate_command_buffers(&info).expect("a command buffer")[0],
                fence: device.create_fence(&vk::FenceCreateInfo::default(), None).expect("a fence"),
            }
        }
    }

    fn run(&mut self, record: impl FnOnce(&ash::Device, vk::CommandBuffer)) {
        let device = &self.app.device;
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ);
        let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
        // SAFETY: as in `new`; the last submission was waited for, and the queue is used under its lock.
        unsafe {
            device
                .begin_command_buffer(self.commands, &vk::CommandBufferBeginInfo::default())
                .expect("begin");
            record(device, self.commands);
            let none = vk::DependencyFlags::empty();
            device.cmd_pipeline_barrier(self.commands, from, to, none, &[barrier], &[], &[]);
            device.end_command_buffer(self.commands).expect("end");
            let commands = [self.commands];
            let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
            let queue = self.app.queue.1;
            self.app.lock.hold(|| device.queue_submit(queue, &submit, self.fence)).expect("submit");
            device.wait_for_fences(&[self.fence], true, u64::MAX).expect("wait");
            device.reset_fences(&[self.fence]).expect("reset");
        }
    }

    /// What the driver's threads read through R.
    fn read(&mut self) -> Vec<u32> {
        let [over, own] = self.buffers;
        let whole = [vk::BufferCopy { src_offset: 0, dst_offset: 0, size: BYTES }];
        // SAFETY: vkCmdCopyBuffer: both buffers have so many bytes, and do not overlap.
        self.run(|device, commands| unsafe { device.cmd_copy_buffer(commands, over, own, &whole) });
        // SAFETY: mapped, coherent, made visible by the barrier, and nobody writes it now.
        unsafe { std::slice::from_raw_parts(self.mapped.as_ptr(), N) }.to_vec()
    }

    /// The driver's threads store `word` through R, from byte `from` on.
    fn fill(&mut self, from: u64, bytes: u64, word: u32) {
        let over = self.buffers[0];
        // SAFETY: vkCmdFillBuffer: the bytes are whole words inside the buffer.
        self.run(|device, commands| unsafe { device.cmd_fill_buffer(commands, over, from, bytes, word) });
    }
}

impl Drop for Hard<'_> {
    fn drop(&mut self) {
        let device = &self.app.device;
        // SAFETY: everything was waited for, and is destroyed once.
        unsafe {
            device.destroy_fence(self.fence, None);
            device.destroy_command_pool(self.pool, None);
            self.buffers.iter().for_each(|buffer| device.destroy_buffer(*buffer, None));
            self.memories.iter().for_each(|memory| device.free_memory(*memory, None));
        }
    }
}

#[test]
fn touches_of_a_drivers_threads_are_served_like_any_other() {
    let _dog = watchdog("hard faults", 240);
    let rt = open(moving().device_memory_limit(2 * BYTES));
    if declared(&rt) {
        skipped("under `declared` nobody notices a touch");
        return;
    }
    let app = App::new(&Choices::default());
    let add = kernel(&rt, spv::ADD_ONE);
    let mut x: Managed<u32> = rt.alloc(N).expect("alloc");
    x.iter_mut().zip(0..).for_each(|(v, i)| *v = i);
    let mut hard = Hard::new(&app, x.as_ptr());
    let before = rt.stats();
    for round in 1..=8_u32 {
        rt.launch(&add, Grid::linear(N), (x.write(),)).expect("launch");
        // The driver's threads and two of the application's, all at once, from both ends.
        let (seen, sums) = std::thread::scope(|scope| {
            let x = &x;
            let forward = scope.spawn(move || x.iter().map(|v| u64::from(*v)).sum::<u64>());
            let backward = scope.spawn(move || x.iter().rev().map(|v| u64::from(*v)).sum::<u64>());
            let seen = hard.read();
            (seen, [forward, backward].map(|thread| thread.join().expect("a reader")))
        });
        assert!(seen.iter().zip(0..).all(|(v, i)| *v == i + round), "round {round}");
        let sum = (0..N as u64).sum::<u64>() + N as u64 * u64::from(round);
        assert_eq!(sums, [sum; 2], "round {round}");
    }
    let faults = rt.stats().since(&before);
    let least = if by_blocks(&rt) { 8 } else { 16 };
    assert!(faults.faults_read >= least, "{} faults in eight rounds", faults.faults_read);
    // Stores that a driver makes are stores: the device's copies are old from then on.
    for round in 0..4_u32 {
        rt.launch(&add, Grid::linear(N), (x.write(),)).expect("launch");
        let half = BYTES / 2;
        hard.fill(half, half, 1000 + round);
        rt.launch(&add, Grid::linear(N), (x.write(),)).expect("launch");
        let seen = hard.read();
        assert!(seen[N / 2..].iter().all(|v| *v == 1001 + round), "round {round}");
        assert!(seen[..N / 2].iter().zip(0..).all(|(v, i)| *v == i + 8 + 2 * (round + 1)), "round {round}");
    }
    drop(hard);
    drop(app);
    clean(&rt);
}
