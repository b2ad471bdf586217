//! The device's side of the frame guard: what it tells [`crate::shadow`] of its commands, and what happens when a rule is broken.

use crate::device::VulkanDevice;
use crate::memory::{FRAME_BYTES, Over};
use crate::shadow::{Access, Shadow};
use std::io::Write;
use std::sync::PoisonError;
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;
use vkhmm_port::Command;

impl VulkanDevice {
    /// What the commands touch in device memory, as far as they say: kernels may be given addresses besides.
    pub(crate) fn accesses(&self, commands: &[Command<Self>]) -> Vec<Access> {
        let mut barriers = 0;
        let mut out = Vec::new();
        for (command, recorded) in commands.iter().enumerate() {
            let mut touch = |what, write, start, bytes| {
                out.push(Access { start, bytes, write, command, barriers, what });
            };
            match recorded {
                Command::CopyIn { regions, .. } => {
                    regions.iter().for_each(|r| touch("a copy in", true, r.device_offset, r.bytes));
                }
                Command::CopyOut { regions, .. } => {
                    regions.iter().for_each(|r| touch("a copy out", false, r.device_offset, r.bytes));
                }
                Command::Move { regions } => regions.iter().for_each(|r| {
                    touch("a move", false, r.host_offset, r.bytes);
                    touch("a move", true, r.device_offset, r.bytes);
                }),
                Command::Fill { device_offset, bytes, .. } => touch("a fill", true, *device_offset, *bytes),
                Command::Bind { .. } => {}
                Command::Barrier => barriers += 1,
                Command::Dispatch { kernel, bindings, .. } => {
                    for (bound, info) in bindings.iter().zip(&kernel.reflection().bindings) {
                        let Some(buffer) = bound.buffer.as_ref().filter(|_| bound.bytes > 0) else {
                            continue;
                        };
                        // Host memory is not ours to watch; there are no sparse buffers under the guard (`memory/sparse.rs`).
                        if let Over::Frames(first) = buffer.over {
                            let start = u64::from(first.0) * FRAME_BYTES + bound.offset;
                            touch("a kernel", info.may_write, start, bound.bytes);
                        }
                    }
                }
            }
        }
        out
    }

    /// Under the frame guard: compares with what is known of frames. A broken rule ends the process, as a stray access does.
    pub(crate) fn compare(&self, with: impl FnOnce(&mut Shadow) -> Result<(), String>) {
        let Some(shadow) = self.shadow.as_ref().filter(|_| !self.ctx.is_lost()) else { return };
        let result = with(&mut shadow.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(message) = result {
            // Not `eprintln`, which test harnesses keep to themselves until a test ends.
            let _ = writeln!(std::io::stderr(), "vkhmm: frame guard: {message}");
            std::process::abort();
        }
    }

    /// What the timelines have reached; what is not known counts as nothing.
    pub(crate) fn reached(&self) -> Uses {
        let mut reached = Uses::NONE;
        for queue in &self.queues {
            reached.add(Ticket { timeline: queue.timeline, value: queue.counter().unwrap_or(0) });
        }
        reached
    }
}
