//! Copies and fills, recorded: regions go into commands by piece of the arena, at most `regions_max` of them in one command
//! (validation layers check the regions of a command pairwise).

use crate::context::Context;
use crate::device::VulkanDevice;
use crate::error::refused;
use crate::memory::Arena;
use crate::staging::{SLOT_BYTES, Staging};
use crate::visibility::HostView;
use ash::vk;
use vkhmm_port::{DeviceError, Direction, Region, Source, Target};

/// Records the copies of one submission.
pub(crate) struct Copier<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) arena: &'a Arena,
    pub(crate) staging: &'a Staging,
    pub(crate) cmd: vk::CommandBuffer,
    pub(crate) regions_max: usize,
}

/// The host side of a copy: a buffer, where it starts and how long it is.
struct HostSide<'a> {
    buffer: vk::Buffer,
    base: u64,
    bytes: u64,
    /// Staging memory, which may have to be flushed or invalidated.
    view: Option<&'a HostView>,
}

impl HostSide<'_> {
    /// Offset of a region in the buffer, if all of it is inside.
    fn offset(&self, operation: &'static str, region: &Region) -> Result<u64, DeviceError> {
        let inside = region.host_offset.checked_add(region.bytes).is_some_and(|end| end <= self.bytes);
        if !inside || region.bytes == 0 {
            let message =
                format!("host bytes {:#x}+{:#x} of {:#x}", region.host_offset, region.bytes, self.bytes);
            return Err(refused(operation, message));
        }
        Ok(self.base + region.host_offset)
    }
}

impl Copier<'_> {
    fn slot(
        &self,
        operation: &'static str,
        direction: Direction,
        slot: u32,
    ) -> Result<HostSide<'_>, DeviceError> {
        let base =
            self.staging.offset(slot).ok_or_else(|| refused(operation, format!("no staging slot {slot}")))?;
        let ring = self.staging.ring(direction);
        Ok(HostSide { buffer: ring.buffer, base, bytes: SLOT_BYTES, view: Some(ring.view()) })
    }

    /// Host to device.
    pub(crate) fn copy_in(
        &self,
        source: &Source<VulkanDevice>,
        regions: &[Region],
    ) -> Result<(), DeviceError> {
        const OPERATION: &str = "copy in";
        let host = match source {
            Source::Slot(slot) => self.slot(OPERATION, Direction::In, *slot)?,
            Source::Import(import) => {
                HostSide { buffer: import.buffer, base: 0, bytes: import.bytes, view: None }
            }
        };
        let mut run = Run::new(self);
        for region in regions {
            let from = host.offset(OPERATION, region)?;
            if let Some(view) = host.view {
                view.flush(self.ctx, from, region.bytes)?;
            }
            let to = self.arena.place(OPERATION, region.device_offset, region.bytes)?;
            run.add(host.buffer, to.buffer, from, to.offset, region.bytes);
        }
        run.emit();
        Ok(())
    }

    /// Device to host. What the host may read afterwards is added to `invalidate`.
    pub(crate) fn copy_out(
        &self,
        target: &Target<VulkanDevice>,
        regions: &[Region],
        invalidate: &mut Vec<(HostView, u64, u64)>,
    ) -> Result<(), DeviceError> {
        const OPERATION: &str = "copy out";
        let host = match target {
            Target::Slot(slot) => self.slot(OPERATION, Direction::Out, *slot)?,
            Target::Import(import) => {
                HostSide { buffer: import.buffer, base: 0, bytes: import.bytes, view: None }
            }
        };
        let mut run = Run::new(self);
        for region in regions {
            let to = host.offset(OPERATION, region)?;
            let from = self.arena.place(OPERATION, region.device_offset, region.bytes)?;
            run.add(from.buffer, host.buffer, from.offset, to, region.bytes);
            if let Some(view) = host.view {
                invalidate.push((view.clone(), to, region.bytes));
            }
        }
        run.emit();
        Ok(())
    }

    /// Device to device; `host_offset` is the source's device offset.
    pub(crate) fn copy_within(&self, regions: &[Region]) -> Result<(), DeviceError> {
        const OPERATION: &str = "move frames";
        let mut run = Run::new(self);
        for region in regions {
            if region.bytes == 0 {
                return Err(refused(OPERATION, "a region of no bytes"));
            }
            let from = self.arena.place(OPERATION, region.host_offset, region.bytes)?;
            let to = self.arena.place(OPERATION, region.device_offset, region.bytes)?;
            run.add(from.buffer, to.buffer, from.offset, to.offset, region.bytes);
        }
        run.emit();
        Ok(())
    }

    /// A repeated word.
    pub(crate) fn fill(&self, device_offset: u64, bytes: u64, word: u32) -> Result<(), DeviceError> {
        const OPERATION: &str = "fill";
        if bytes == 0 || device_offset % 4 != 0 || bytes % 4 != 0 {
            return Err(refused(
                OPERATION,
                format!("{device_offset:#x}+{bytes:#x} is not in words of four bytes"),
            ));
        }
        let to = self.arena.place(OPERATION, device_offset, bytes)?;
        // SAFETY: vkCmdFillBuffer: offset and size are multiples of four and inside the piece's buffer (`place`; pieces start
        // at multiples of a frame).
        unsafe { self.ctx.device.cmd_fill_buffer(self.cmd, to.buffer, to.offset, bytes, word) };
        Ok(())
    }
}

/// Regions that can share a command: the same two buffers.
struct Run<'a> {
    copier: &'a Copier<'a>,
    buffers: (vk::Buffer, vk::Buffer),
    regions: Vec<vk::BufferCopy>,
}

impl<'a> Run<'a> {
    fn new(copier: &'a Copier<'a>) -> Self {
        Self { copier, buffers: (vk::Buffer::null(), vk::Buffer::null()), regions: Vec::new() }
    }

    fn add(&mut self, from: vk::Buffer, to: vk::Buffer, from_offset: u64, to_offset: u64, bytes: u64) {
        if self.buffers != (from, to) || self.regions.len() == self.copier.regions_max {
            self.emit();
            self.buffers = (from, to);
        }
        self.regions
            .push(vk::BufferCopy::default().src_offset(from_offset).dst_offset(to_offset).size(bytes));
    }

    fn emit(&mut self) {
        if self.regions.is_empty() {
            return;
        }
        let (from, to) = self.buffers;
        // SAFETY: vkCmdCopyBuffer: every region is inside both buffers (`HostSide::offset`, `Arena::place`) and not empty;
        // that regions of one command do not overlap is the engine's promise (frames and pages have one owner, I4).
        unsafe { self.copier.ctx.device.cmd_copy_buffer(self.copier.cmd, from, to, &self.regions) };
        self.regions.clear();
    }
}
