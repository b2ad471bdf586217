//! Does validation see anything at all? Mistakes that this crate never makes are made here on purpose, and must be reported:
//! without these tests a layer that is off, or a setting that is misspelt, would look like perfect code.

use crate::recycle::Recording;
use crate::{Config, VulkanDevice};
use ash::vk;
use vkhmm_core::units::FrameIndex;
use vkhmm_port::Device;

fn device() -> VulkanDevice {
    let config = Config { validation: true, ..Config::default() };
    let device = VulkanDevice::open(config, None).expect("a Vulkan driver and the validation layer");
    device.grow(FrameIndex(0), 32).expect("grow");
    assert_eq!(device.validation_messages(), Vec::<String>::new());
    device
}

/// Records one copy from the inward ring to the start of the arena.
fn copy(device: &VulkanDevice, recording: &Recording, bytes: u64) {
    let from = device.staging.ring(vkhmm_port::Direction::In).buffer;
    let to = device.arena.place("canary", 0, 4096).expect("grown").buffer;
    let region = vk::BufferCopy::default().size(bytes);
    // SAFETY: a deliberate mistake of the caller is recorded, which the layer sees; what is wrong is never executed.
    unsafe { device.ctx.device.cmd_copy_buffer(recording.cmd, from, to, &[region]) };
}

fn reports(device: &VulkanDevice, word: &str) {
    let messages = device.validation_messages();
    // Newer layers write the same words with underscores.
    let says = |m: &String| m.replace('_', "-").contains(word);
    assert!(messages.iter().any(says), "no {word} in {messages:#?}");
}

#[test]
fn a_copy_out_of_bounds_is_reported() {
    let device = device();
    let recording = device.queues[0].recycler.take().expect("a command buffer");
    copy(&device, &recording, 64 << 20);
    reports(&device, "vkCmdCopyBuffer");
    device.queues[0].recycler.give(recording);
}

#[test]
fn two_copies_to_one_place_without_a_barrier_are_reported() {
    let device = device();
    let recording = device.queues[0].recycler.take().expect("a command buffer");
    copy(&device, &recording, 4096);
    copy(&device, &recording, 4096);
    reports(&device, "WRITE-AFTER-WRITE");
    device.queues[0].recycler.give(recording);
}

#[test]
fn two_submissions_to_one_place_without_a_barrier_are_reported() {
    let device = device();
    let queue = &device.queues[0];
    let recordings = [0, 1].map(|_| queue.recycler.take().expect("a command buffer"));
    for recording in &recordings {
        copy(&device, recording, 4096);
        // SAFETY: vkEndCommandBuffer, vkQueueSubmit2: recorded above, by this thread, which alone uses the queue. The two copies
        // race, but copy the same bytes.
        unsafe {
            device.ctx.device.end_command_buffer(recording.cmd).expect("end");
            let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(recording.cmd)];
            let info = [vk::SubmitInfo2::default().command_buffer_infos(&commands)];
            let result = (device.ctx.sync2.submit)(queue.handle, 1, info.as_ptr(), vk::Fence::null());
            result.result().expect("submit");
        }
    }
    reports(&device, "WRITE-AFTER-WRITE");
    // SAFETY: vkQueueWaitIdle: this thread alone uses the queue.
    unsafe { device.ctx.device.queue_wait_idle(queue.handle) }.expect("wait");
    recordings.into_iter().for_each(|recording| queue.recycler.give(recording));
}

/// The copy that only the frame guard's memory can catch: recorded by hand, past everything that knows of frames.
#[test]
fn a_stray_copy_into_a_free_frame_ends_the_process() {
    const ROLE: &str = "VKHMM_CANARY_ROLE";
    if std::env::var_os(ROLE).is_some() {
        let switches = crate::Switches { frame_guard: true, ..crate::Switches::default() };
        let config = Config { switches, ..Config::default() };
        let device = VulkanDevice::open(config, None).expect("a driver that imports host memory");
        device.grow(FrameIndex(0), 32).expect("grow");
        let there = |device: &VulkanDevice| {
            let queue = &device.queues[0];
            let recording = queue.recycler.take().expect("a command buffer");
            copy(device, &recording, 4096);
            let commands = [vk::CommandBufferSubmitInfo::default().command_buffer(recording.cmd)];
            let info = [vk::SubmitInfo2::default().command_buffer_infos(&commands)];
            // SAFETY: vkEndCommandBuffer, vkQueueSubmit2, vkQueueWaitIdle: recorded above, by this thread, which alone uses the queue.
            unsafe {
                device.ctx.device.end_command_buffer(recording.cmd).expect("end");
                let result = (device.ctx.sync2.submit)(queue.handle, 1, info.as_ptr(), vk::Fence::null());
                result.result().expect("submit");
                device.ctx.device.queue_wait_idle(queue.handle).expect("wait");
            }
            queue.recycler.give(recording);
        };
        there(&device);
        println!("held: lived");
        device.frames_released(vkhmm_core::units::FrameRun { first: FrameIndex(0), count: 32 });
        there(&device);
        println!("free: lived");
        return;
    }
    if !device().ctx.physical.is_software() {
        println!(
            "exempt: a card's accesses do not pass the CPU's page tables: the frame guard is for software devices"
        );
        return;
    }
    let name = std::thread::current().name().expect("the harness names tests").to_owned();
    let out = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([name.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "1")
        .output()
        .expect("this program runs again");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("held: lived") && !text.contains("free: lived"), "{text}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&out.status), Some(11), "{}", out.status);
}
