//! The frame guard bites: whatever touches a frame that holds nothing, or touches a frame out of order, ends the process. Each mistake
//! is made by this program run again; that the same steps without the mistake end well is part of the same program.

mod common;

use common::{FRAME, Rig, clock, pattern};
use std::os::unix::process::ExitStatusExt;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, Direction, Region, Role, Source};
use vkhmm_vulkan::KernelOptions;

const ROLE: &str = "VKHMM_GUARD_ROLE";
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

fn run(first: u32, count: u32) -> FrameRun {
    FrameRun { first: FrameIndex(first), count }
}

/// A guarded device with 32 frames, of which the first four hold pages.
fn guarded() -> Rig {
    let rig = Rig::open(|c| {
        c.switches.frame_guard = true;
        c.switches.split_queue = true;
        c.memory_kind = Some(MemoryKind::DeviceCoherent);
    });
    assert!(rig.device().watches_frames());
    rig.device().grow(FrameIndex(0), 32).expect("grow");
    rig.device().frames_released(run(0, 32));
    rig.device().frames_claimed(run(0, 4));
    rig
}

fn copy_in(frame: u32) -> Command<vkhmm_vulkan::VulkanDevice> {
    let regions = vec![Region { host_offset: 0, device_offset: u64::from(frame) * FRAME, bytes: 4096 }];
    Command::CopyIn { source: Source::Slot(0), regions }
}

/// Adds one to sixteen words at an address.
fn kernel_at(rig: &Rig, address: u64) -> Command<vkhmm_vulkan::VulkanDevice> {
    let mut push = address.to_le_bytes().to_vec();
    push.extend([16_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
    let kernel = rig.kernel("add_address", KernelOptions::default());
    Command::Dispatch { kernel, bindings: Vec::new(), push, groups: [1; 3], elapsed_ns: clock() }
}

/// What the child does; without `mistake`, the nearest thing that is right.
fn play(role: &str, mistake: bool) {
    let mut rig = guarded();
    let span = rig.device().buffer(run(0, 8)).expect("buffer");
    let address = rig.device().address(&span);
    match role {
        "a copy into a free frame" => rig.run(Role::CopyIn, vec![copy_in(if mistake { 5 } else { 3 })]),
        "a kernel that writes a free frame" => {
            let at = address + if mistake { 4 * FRAME } else { 3 * FRAME };
            let command = kernel_at(&rig, at);
            rig.run(Role::Compute, vec![command]);
        }
        "a kernel that comes for an evicted frame" => {
            let command = kernel_at(&rig, address + FRAME);
            rig.run(Role::Compute, vec![command]);
            rig.device().frames_released(run(1, 1));
            if !mistake {
                rig.device().frames_claimed(run(1, 1));
            }
            let command = kernel_at(&rig, address + FRAME);
            rig.run(Role::Compute, vec![command]);
        }
        "a kernel past the arena's end" => {
            rig.device().frames_claimed(run(4, 28));
            let command = kernel_at(&rig, address + if mistake { 32 * FRAME } else { 31 * FRAME });
            rig.run(Role::Compute, vec![command]);
        }
        "a copy that does not wait for the last use" => {
            let before = rig.submit(Role::CopyIn, Uses::NONE, vec![copy_in(2)]);
            let mut waits = Uses::NONE;
            if !mistake {
                waits.add(before);
            }
            let fill = Command::Fill { device_offset: 2 * FRAME, bytes: 4096, word: 1 };
            let after = rig.submit(Role::Compute, waits, vec![fill]);
            rig.wait(after);
        }
        "two commands without a barrier" => {
            let mut commands = vec![copy_in(2)];
            if !mistake {
                commands.push(Command::Barrier);
            }
            commands.push(Command::Fill { device_offset: 2 * FRAME, bytes: 4096, word: 1 });
            rig.run(Role::Compute, commands);
        }
        "a frame released while in use" => {
            // Four gigabytes in all: still under way, even if this thread has to wait for a core.
            rig.device().frames_claimed(run(4, 28));
            let fills = (0..2048).map(|word| Command::Fill { device_offset: 0, bytes: 32 * FRAME, word });
            let commands = fills.flat_map(|fill| [fill, Command::Barrier]).collect();
            let last = rig.submit(Role::Compute, Uses::NONE, commands);
            if !mistake {
                rig.wait(last);
            }
            rig.device().frames_released(run(0, 4));
        }
        "a frame claimed twice" => rig.device().frames_claimed(run(if mistake { 3 } else { 4 }, 1)),
        "the CPU in a free frame" => {
            let to = rig.device().slot(Direction::In, 0).slice(0, 64);
            rig.device().read_frames(if mistake { 6 } else { 1 } * FRAME, to).expect("readable memory");
        }
        other => panic!("no role {other}"),
    }
    println!("lived");
}

/// Runs `test` of this program again, once without and once with the mistake, which must end it by `signal` and say `word`.
fn bites(test: &str, role: &str, signal: i32, word: &str) {
    if let Some(mistake) = std::env::var_os(ROLE) {
        return play(role, mistake == "mistake");
    }
    if common::without_guard() {
        return;
    }
    for part in ["right", "mistake"] {
        let out = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, part)
            .output()
            .expect("this program runs again");
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        if part == "right" {
            assert!(
                out.status.success() && text.contains("lived"),
                "{role}, done right: {}\n{text}",
                out.status
            );
        } else {
            assert_eq!(out.status.signal(), Some(signal), "{role}: {}\n{text}", out.status);
            assert!(text.contains(word) && !text.contains("lived"), "{role}: no {word:?} in\n{text}");
        }
    }
}

macro_rules! bites {
    ($($name:ident: $role:literal, $signal:expr, $word:literal;)*) => {
        $(#[test] fn $name() { bites(stringify!($name), $role, $signal, $word); })*
    };
}

bites! {
    a_copy_into_a_free_frame: "a copy into a free frame", SIGABRT, "frame 5, which holds nothing";
    a_kernel_that_writes_a_free_frame: "a kernel that writes a free frame", SIGSEGV, "";
    a_kernel_that_comes_for_an_evicted_frame: "a kernel that comes for an evicted frame", SIGSEGV, "";
    a_kernel_past_the_end_of_the_arena: "a kernel past the arena's end", SIGSEGV, "";
    a_copy_that_does_not_wait: "a copy that does not wait for the last use", SIGABRT, "without waiting";
    two_commands_without_a_barrier: "two commands without a barrier", SIGABRT, "without a barrier";
    a_frame_released_while_in_use: "a frame released while in use", SIGABRT, "is in use";
    a_frame_claimed_twice: "a frame claimed twice", SIGABRT, "is claimed, and held";
    the_cpu_in_a_free_frame: "the CPU in a free frame", SIGABRT, "the CPU touches frame 6";
}

#[test]
fn frames_keep_bytes_while_they_hold_pages_and_begin_with_poison() {
    if common::without_guard() {
        return;
    }
    let mut rig = guarded();
    let bytes = pattern(7, 2 * FRAME as usize);
    rig.upload(FRAME, &bytes);
    rig.device().frames_claimed(run(8, 2));
    assert!(rig.download(FRAME, bytes.len()) == bytes);
    rig.device().frames_released(run(1, 2));
    rig.device().frames_claimed(run(2, 1));
    let poison = rig.download(2 * FRAME, FRAME as usize);
    assert!(poison.iter().all(|b| *b == 0xdb), "{:?}", &poison[..8]);
    rig.device().shrink(FrameIndex(0));
    rig.device().grow(FrameIndex(0), 4).expect("grow again");
    rig.upload(0, &bytes[..4096]);
    assert!(rig.download(0, 4096) == bytes[..4096]);
}
