//! When bytes written on one side are seen on the other, all in one place.
//!
//! Device to host: every submission ends with [`end_of_submission`], which makes its writes available to host reads; where the
//! memory is not HOST_COHERENT the host's caches are invalidated as well, before the ticket is reported as reached. Host to
//! device: vkQueueSubmit2 makes prior host writes visible (Vulkan specification, "Host Write Ordering Guarantees"); where the
//! memory is not HOST_COHERENT they are flushed first.

use crate::context::Context;
use ash::vk;
use core::ptr::NonNull;
use std::alloc::Layout;
use std::sync::Arc;
use vkhmm_port::{DeviceError, RawBytes};

/// What allocations' places and lengths are multiples of, so that rounding to nonCoherentAtomSize (at most 256, by the "Required
/// Limits" of the Vulkan specification) stays inside.
pub(crate) const VIEW_ALIGNMENT: u64 = 64 << 10;

/// Device memory as the CPU sees it.
#[derive(Clone)]
pub(crate) struct HostView {
    /// Null for memory that is the host's own (the frame guard's), which no driver maps and nobody needs to flush.
    memory: vk::DeviceMemory,
    offset: u64,
    mapped: RawBytes,
    /// What the CPU sees in place of `mapped` where coherence is switched off.
    mirror: Option<Arc<Mirror>>,
    coherent: bool,
    atom: u64,
}

/// Host memory that stands for the caches between the CPU and non-coherent device memory.
struct Mirror {
    bytes: RawBytes,
    layout: Layout,
}

impl Mirror {
    /// A copy of what `mapped` holds now.
    fn of(mapped: RawBytes) -> Self {
        let layout = Layout::from_size_align(mapped.len(), 4096).expect("shorter than the address space");
        // SAFETY: alloc_zeroed: host views are never empty (`HostView::new`).
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        let start = start.unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        // SAFETY: RawBytes::new: just allocated with this length, freed by drop, which is after the last view.
        let bytes = unsafe { RawBytes::new(start, mapped.len()) };
        bytes.copy_from(mapped);
        Self { bytes, layout }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // SAFETY: dealloc: allocated by `of` with this layout.
        unsafe { std::alloc::dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

impl HostView {
    /// A view of `mapped`, which maps `memory` from `offset`.
    pub(crate) fn new(
        ctx: &Context,
        memory: vk::DeviceMemory,
        offset: u64,
        mapped: RawBytes,
        properties: vk::MemoryPropertyFlags,
    ) -> Self {
        let atom = ctx.physical.limits.non_coherent_atom_size.max(1);
        assert!(
            offset % atom == 0 && mapped.len() as u64 % atom == 0 && !mapped.is_empty(),
            "a host view at {offset}+{} of its memory, atom {atom}",
            mapped.len()
        );
        let coherent = properties.contains(vk::MemoryPropertyFlags::HOST_COHERENT) && ctx.coherent;
        let mirror = (!ctx.coherent).then(|| Arc::new(Mirror::of(mapped)));
        Self { memory, offset, mapped, mirror, coherent, atom }
    }

    /// Whether what completed work wrote is seen without invalidating anything.
    pub(crate) fn is_coherent(&self) -> bool {
        self.coherent
    }

    /// The bytes themselves.
    pub(crate) fn bytes(&self) -> RawBytes {
        self.mirror.as_ref().map_or(self.mapped, |mirror| mirror.bytes)
    }

    /// Makes host writes to `offset..offset + len` visible to the submissions that follow.
    pub(crate) fn flush(&self, ctx: &Context, offset: u64, len: u64) -> Result<(), DeviceError> {
        if self.coherent || len == 0 {
            return Ok(());
        }
        if let Some(mirror) = &self.mirror {
            let (at, size) = whole_atoms(offset, len, self.atom);
            let part = |bytes: RawBytes| bytes.slice(at as usize, size as usize);
            part(self.mapped).copy_from(part(mirror.bytes));
        }
        if self.memory == vk::DeviceMemory::null() {
            return Ok(());
        }
        // SAFETY: vkFlushMappedMemoryRanges: `range` lies inside the mapped memory and is rounded to atoms (`new`).
        unsafe { ctx.device.flush_mapped_memory_ranges(&[self.range(offset, len)]) }
            .map_err(|e| ctx.failed("flush mapped memory", len, e))
    }

    /// Makes device writes to `offset..offset + len` visible to the host, after the submission that wrote them is done.
    pub(crate) fn invalidate(&self, ctx: &Context, offset: u64, len: u64) -> Result<(), DeviceError> {
        if self.coherent || len == 0 {
            return Ok(());
        }
        if self.memory != vk::DeviceMemory::null() {
            // SAFETY: vkInvalidateMappedMemoryRanges: as for the flush.
            unsafe { ctx.device.invalidate_mapped_memory_ranges(&[self.range(offset, len)]) }
                .map_err(|e| ctx.failed("invalidate mapped memory", len, e))?;
        }
        if let Some(mirror) = &self.mirror {
            let (at, size) = whole_atoms(offset, len, self.atom);
            let part = |bytes: RawBytes| bytes.slice(at as usize, size as usize);
            part(mirror.bytes).copy_from(part(self.mapped));
        }
        Ok(())
    }

    fn range(&self, offset: u64, len: u64) -> vk::MappedMemoryRange<'static> {
        let (offset, size) = whole_atoms(self.offset + offset, len, self.atom);
        vk::MappedMemoryRange::default().memory(self.memory).offset(offset).size(size)
    }
}

/// `offset..offset + len`, grown to whole atoms.
fn whole_atoms(offset: u64, len: u64, atom: u64) -> (u64, u64) {
    let start = offset / atom * atom;
    (start, (offset + len).next_multiple_of(atom) - start)
}

/// Everything before happens before, and is visible to, everything after, on the device.
pub(crate) fn barrier(ctx: &Context, cmd: vk::CommandBuffer) {
    let all = vk::PipelineStageFlags2::ALL_COMMANDS;
    let access = vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE;
    record(ctx, cmd, all, access);
}

/// The barrier that ends every submission: as [`barrier`], and visible to host reads.
pub(crate) fn end_of_submission(ctx: &Context, cmd: vk::CommandBuffer) {
    let stages = vk::PipelineStageFlags2::ALL_COMMANDS | vk::PipelineStageFlags2::HOST;
    let access = vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE | vk::AccessFlags2::HOST_READ;
    record(ctx, cmd, stages, access);
}

fn record(ctx: &Context, cmd: vk::CommandBuffer, stages: vk::PipelineStageFlags2, access: vk::AccessFlags2) {
    let barriers = [vk::MemoryBarrier2::default()
        .src_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
        .dst_stage_mask(stages)
        .dst_access_mask(access)];
    let info = vk::DependencyInfo::default().memory_barriers(&barriers);
    // SAFETY: vkCmdPipelineBarrier2: synchronization2 is required of every device (`choice.rs`), `cmd` is being recorded by this
    // thread alone (`Submitting`'s lock), and `info` outlives the call.
    unsafe { (ctx.sync2.barrier)(cmd, &info) };
}

#[cfg(test)]
mod tests {
    use super::whole_atoms;

    #[test]
    fn ranges_grow_to_whole_atoms() {
        assert_eq!(whole_atoms(0, 64, 64), (0, 64));
        assert_eq!(whole_atoms(65, 1, 64), (64, 64));
        assert_eq!(whole_atoms(63, 2, 64), (0, 128));
        assert_eq!(whole_atoms(100, 1000, 256), (0, 1280));
    }
}
