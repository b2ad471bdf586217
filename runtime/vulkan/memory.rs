//! The arena: frames in pieces of device memory. Each piece has one VkBuffer over all of it, for copies; spans get buffers of
//! their own, bound into the same memory, so that descriptors end where the span ends.

mod backing;
mod sparse;

use crate::allocator::DeviceMemory;
use crate::context::Context;
use crate::error::{OpenError, refused};
use crate::import::VulkanImport;
use crate::kind::ArenaType;
use crate::visibility::{HostView, VIEW_ALIGNMENT};
use ash::vk;
use backing::Backing;
use gpu_allocator::vulkan::Allocation;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry};
use vkhmm_port::{DeviceError, RawBytes};

pub(crate) use sparse::{Reserved, SparseSpace};

/// Bytes of one frame.
pub(crate) const FRAME_BYTES: u64 = Geometry::PRODUCTION.frame_bytes();

/// What managed memory is used as, by us and as `more` by an application.
pub(crate) fn usage(more: vk::BufferUsageFlags) -> vk::BufferUsageFlags {
    more | vk::BufferUsageFlags::STORAGE_BUFFER
        | vk::BufferUsageFlags::TRANSFER_SRC
        | vk::BufferUsageFlags::TRANSFER_DST
        | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS
}

/// What a kernel can be given: a buffer over a run of frames, a sparse buffer, or imported host memory. Dropping it destroys it.
pub struct VulkanBuffer {
    ctx: Arc<Context>,
    pub(crate) handle: vk::Buffer,
    pub(crate) over: Over,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
}

/// What lies under a buffer.
pub(crate) enum Over {
    /// The frames from this one on.
    Frames(FrameIndex),
    /// Whatever is bound.
    Sparse(Reserved),
    /// Host memory, by the import's own buffer.
    Host { _keeps: Arc<VulkanImport> },
}

impl VulkanBuffer {
    /// Over the whole of `import`, which it keeps; `None` if kernels may not use it.
    pub(crate) fn in_place(ctx: &Arc<Context>, import: &Arc<VulkanImport>) -> Option<Self> {
        Some(Self {
            ctx: Arc::clone(ctx),
            handle: import.buffer,
            over: Over::Host { _keeps: Arc::clone(import) },
            address: import.address?,
            bytes: import.bytes,
        })
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The Vulkan handle, which lives as long as `self`.
    pub fn handle(&self) -> vk::Buffer {
        self.handle
    }
}

impl Drop for VulkanBuffer {
    fn drop(&mut self) {
        if let Over::Host { .. } = self.over {
            return;
        }
        let _section = crate::exit::section();
        // SAFETY: vkDestroyBuffer: submissions keep their buffers by Arc until their ticket is reached (`recycle.rs`).
        unsafe { self.ctx.device.destroy_buffer(self.handle, None) };
    }
}

/// One piece of the arena.
struct Piece {
    count: u32,
    buffer: vk::Buffer,
    backing: Backing,
    /// Only where the kind of memory lets the CPU touch it.
    view: Option<HostView>,
}

/// Where frames that lie together are in the driver's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backed {
    pub(crate) memory: vk::DeviceMemory,
    pub(crate) offset: u64,
    pub(crate) frames: u32,
}

/// Where a stretch of device memory lies.
#[derive(Clone)]
pub(crate) struct Place {
    /// The piece's whole buffer.
    pub(crate) buffer: vk::Buffer,
    /// Offset in it.
    pub(crate) offset: u64,
    /// The piece's memory, where the CPU may touch it.
    pub(crate) view: Option<HostView>,
}

/// Lock contract: `pieces` owns the table; written by grow and shrink, which hold it across no driver call that waits for the
/// device; read while a submission is recorded; takes no other lock inside.
pub(crate) struct Arena {
    pieces: RwLock<BTreeMap<u32, Piece>>,
    taken: AtomicU64,
    memory: Arc<DeviceMemory>,
    pub(crate) kind: ArenaType,
    /// Pieces are guarded memory ([`crate::Switches::frame_guard`]).
    guarded: bool,
    /// What a span's buffer may need beyond its last byte.
    slack: u64,
    /// What places of buffers and host views in their memory must be multiples of.
    grain: u64,
}

/// What the driver demands of buffers over managed memory.
pub(crate) struct Demands {
    /// The memory types that they may be bound to.
    pub(crate) types: u32,
    slack: u64,
    grain: u64,
}

impl Demands {
    /// Asks with a buffer of one frame.
    pub(crate) fn query(ctx: &Context, guarded: bool) -> Result<Self, OpenError> {
        let buffer = ctx.new_buffer("ask what buffers need", FRAME_BYTES, usage(ctx.usage), guarded)?;
        // SAFETY: vkGetBufferMemoryRequirements and vkDestroyBuffer of a buffer just made and never used.
        let requirements = unsafe {
            let requirements = ctx.device.get_buffer_memory_requirements(buffer);
            ctx.device.destroy_buffer(buffer, None);
            requirements
        };
        if FRAME_BYTES % requirements.alignment != 0 {
            return Err(OpenError::FrameAlignment { alignment: requirements.alignment, frame: FRAME_BYTES });
        }
        let grain = requirements.alignment.max(ctx.physical.limits.non_coherent_atom_size);
        Ok(Self { types: requirements.memory_type_bits, slack: requirements.size - FRAME_BYTES, grain })
    }
}

impl Arena {
    /// Where its pieces come from.
    pub(crate) fn memory(&self) -> &Arc<DeviceMemory> {
        &self.memory
    }

    pub(crate) fn new(memory: &Arc<DeviceMemory>, kind: ArenaType, demands: &Demands, guarded: bool) -> Self {
        Self {
            pieces: RwLock::default(),
            taken: AtomicU64::new(0),
            memory: Arc::clone(memory),
            kind,
            guarded,
            slack: demands.slack,
            grain: demands.grain,
        }
    }

    /// What a piece takes of device memory beyond its frames: room for spans' buffers at its end, and a frame, because the
    /// pagemap gateway wants pieces on a frame's boundary and drivers align memory to less.
    pub(crate) fn overhead(&self) -> u64 {
        (self.slack + FRAME_BYTES).next_multiple_of(VIEW_ALIGNMENT)
    }

    /// Bytes in all pieces.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// A new piece; see [`vkhmm_port::Device::grow`].
    pub(crate) fn grow(&self, first: FrameIndex, count: u32, bytes_max: u64) -> Result<u64, DeviceError> {
        const OPERATION: &str = "grow the arena";
        let ctx = &self.memory.ctx;
        let bytes = u64::from(count) * FRAME_BYTES;
        if count == 0 || first.0.checked_add(count).is_none() {
            return Err(refused(OPERATION, format!("{count} frames from frame {}", first.0)));
        }
        if bytes > bytes_max {
            return Err(DeviceError::OutOfDeviceMemory { operation: OPERATION, bytes });
        }
        let overlaps = {
            let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
            pieces.range(..first.0 + count).next_back().is_some_and(|(at, p)| at + p.count > first.0)
        };
        if overlaps {
            return Err(refused(OPERATION, format!("frames {}+{count} are there already", first.0)));
        }
        let (buffer, backing) =
            if self.guarded { self.piece_of_guard(bytes)? } else { self.piece_of_driver(bytes)? };
        let address = ctx.buffer_address(buffer);
        let view = match &backing {
            _ if self.kind.kind == MemoryKind::DevicePrivate => None,
            Backing::Driver { allocation, skew } => self.memory.view(allocation, *skew, bytes),
            Backing::Guarded(memory) => Some(HostView::new(
                ctx,
                vk::DeviceMemory::null(),
                0,
                memory.bytes().slice(0, bytes as usize),
                ctx.physical.memory.memory_types[self.kind.index as usize].property_flags,
            )),
        };
        let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
        pieces.insert(first.0, Piece { count, buffer, backing, view });
        self.taken.fetch_add(bytes, Ordering::AcqRel);
        Ok(address)
    }

    /// Under the frame guard: lets everybody at the frames of `run`, or nobody.
    pub(crate) fn guard(&self, run: FrameRun, open: bool) {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let Some((at, piece)) = pieces.range(..=run.first.0).next_back() else { return };
        let Backing::Guarded(memory) = &piece.backing else { return };
        let first = u64::from(run.first.0 - at);
        if open { memory.open(first, run.count.into()) } else { memory.close(first, run.count.into()) }
    }

    /// Gives the piece at `first` back; its frames.
    pub(crate) fn shrink(&self, first: FrameIndex) -> FrameRun {
        let piece = self.pieces.write().unwrap_or_else(PoisonError::into_inner).remove(&first.0);
        let count = piece.as_ref().map_or(0, |piece| piece.count);
        if let Some(piece) = piece {
            self.taken.fetch_sub(u64::from(count) * FRAME_BYTES, Ordering::AcqRel);
            self.release(piece);
        }
        FrameRun { first, count }
    }

    fn release(&self, piece: Piece) {
        // SAFETY: vkDestroyBuffer: no submission uses the piece (contract of `Device::shrink`), or the queues are idle (drop).
        unsafe { self.memory.ctx.device.destroy_buffer(piece.buffer, None) };
        match piece.backing {
            Backing::Driver { allocation, .. } => self.memory.free(allocation),
            Backing::Guarded(memory) => drop(memory),
        }
    }

    /// A buffer over exactly `run`.
    pub(crate) fn buffer(&self, run: FrameRun) -> Result<VulkanBuffer, DeviceError> {
        const OPERATION: &str = "make a span's buffer";
        let ctx = &self.memory.ctx;
        let bytes = u64::from(run.count) * FRAME_BYTES;
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let inside = pieces.range(..=run.first.0).next_back().filter(|(at, p)| {
            run.count > 0
                && u64::from(run.first.0) + u64::from(run.count) <= u64::from(**at) + u64::from(p.count)
        });
        let Some((at, piece)) = inside else {
            return Err(refused(OPERATION, format!("frames {}+{} lie in no piece", run.first.0, run.count)));
        };
        let handle = ctx.new_buffer(OPERATION, bytes, usage(ctx.usage), self.guarded)?;
        let (memory, start) = piece.backing.place();
        let offset = start + u64::from(run.first.0 - at) * FRAME_BYTES;
        // SAFETY: vkBindBufferMemory: the memory exists (read lock), is not dedicated to another buffer (`bind_new`), is of a
        // type that such buffers take, aligned (`Demands::query`) and long enough (`slack`).
        let bound = unsafe { ctx.device.bind_buffer_memory(handle, memory, offset) };
        if let Err(e) = bound {
            // SAFETY: vkDestroyBuffer of a buffer never used.
            unsafe { ctx.device.destroy_buffer(handle, None) };
            return Err(ctx.failed(OPERATION, bytes, e));
        }
        drop(pieces);
        let address = ctx.buffer_address(handle);
        Ok(VulkanBuffer { ctx: Arc::clone(ctx), handle, over: Over::Frames(run.first), address, bytes })
    }

    /// Where `device_offset..device_offset + bytes` lies. All of it is in one piece, or this is an error.
    pub(crate) fn place(
        &self,
        operation: &'static str,
        device_offset: u64,
        bytes: u64,
    ) -> Result<Place, DeviceError> {
        let frame = u32::try_from(device_offset / FRAME_BYTES).unwrap_or(u32::MAX);
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let found = pieces.range(..=frame).next_back().and_then(|(at, piece)| {
            let offset = device_offset - u64::from(*at) * FRAME_BYTES;
            let end = offset.checked_add(bytes)?;
            (end <= u64::from(piece.count) * FRAME_BYTES).then_some(Place {
                buffer: piece.buffer,
                offset,
                view: piece.view.clone(),
            })
        });
        found.ok_or_else(|| {
            refused(operation, format!("device bytes {device_offset:#x}+{bytes:#x} lie in no single piece"))
        })
    }

    /// Where the frames of `run` lie, as far as the piece of the first one goes.
    pub(crate) fn backed(&self, operation: &'static str, run: FrameRun) -> Result<Backed, DeviceError> {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.range(..=run.first.0).next_back().filter(|(at, p)| run.first.0 - *at < p.count);
        let Some((at, piece)) = piece else {
            return Err(refused(operation, format!("frame {} lies in no piece", run.first.0)));
        };
        let skip = run.first.0 - at;
        let (memory, start) = piece.backing.place();
        let frames = run.count.min(piece.count - skip);
        Ok(Backed { memory, offset: start + u64::from(skip) * FRAME_BYTES, frames })
    }

    /// `len` bytes of a piece at `device_offset` as the CPU sees them: the view of the piece, and where they are in it.
    pub(crate) fn view(
        &self,
        operation: &'static str,
        device_offset: u64,
        len: usize,
        allowed: bool,
    ) -> Result<(HostView, u64), DeviceError> {
        let place = self.place(operation, device_offset, len as u64)?;
        match place.view {
            Some(view) if allowed => Ok((view, place.offset)),
            _ => Err(refused(operation, format!("the CPU may not do that to {:?} memory", self.kind.kind))),
        }
    }

    /// The bytes of the piece at `first`, if the CPU may load them without a word to the driver.
    pub(crate) fn bytes_at(&self, first: FrameIndex) -> Option<RawBytes> {
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.get(&first.0).filter(|_| !self.guarded)?;
        piece.view.as_ref().filter(|view| view.is_coherent()).map(HostView::bytes)
    }

    /// What the arena may have in all: the process's budget less what it uses elsewhere.
    pub(crate) fn budget(&self) -> Option<u64> {
        let ctx = &self.memory.ctx;
        if !ctx.physical.extensions.memory_budget {
            return None;
        }
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut query = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budget);
        // SAFETY: vkGetPhysicalDeviceMemoryProperties2: VK_EXT_memory_budget is on (checked above).
        unsafe { ctx.instance.raw.get_physical_device_memory_properties2(ctx.physical.handle, &mut query) };
        let heap = ctx.physical.memory.memory_types[self.kind.index as usize].heap_index as usize;
        // Zero is not a budget (VkPhysicalDeviceMemoryBudgetPropertiesEXT: it must be above zero): nobody knows.
        if budget.heap_budget[heap] == 0 {
            return None;
        }
        let elsewhere = budget.heap_usage[heap].saturating_sub(self.taken());
        Some(budget.heap_budget[heap].saturating_sub(elsewhere))
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let pieces = std::mem::take(self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner));
        for piece in pieces.into_values() {
            self.release(piece);
        }
    }
}

/// A small buffer that stands where an argument is empty, for devices without null descriptors.
pub(crate) struct Scratch {
    pub(crate) buffer: vk::Buffer,
    allocation: Option<Allocation>,
    memory: Arc<DeviceMemory>,
}

impl Scratch {
    pub(crate) fn new(memory: &Arc<DeviceMemory>, type_index: u32) -> Result<Self, DeviceError> {
        const OPERATION: &str = "make the buffer for empty arguments";
        let buffer = memory.ctx.new_buffer(OPERATION, FRAME_BYTES, usage(memory.ctx.usage), false)?;
        let mut scratch = Self { buffer, allocation: None, memory: Arc::clone(memory) };
        scratch.allocation = Some(memory.bind_new(OPERATION, buffer, type_index, 0)?);
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: vkDestroyBuffer: dropped with the device, whose queues are idle.
        unsafe { self.memory.ctx.device.destroy_buffer(self.buffer, None) };
        if let Some(allocation) = self.allocation.take() {
            self.memory.free(allocation);
        }
    }
}
