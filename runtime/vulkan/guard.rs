//! Device memory that bites: anonymous host memory, imported, whose frames nobody may touch unless they hold pages
//! ([`crate::Switches::frame_guard`]). On software devices a kernel or copy that strays into a free frame, or that comes late for an
//! evicted one, ends the process by SIGSEGV at once, where production would read or spoil somebody's bytes.

use crate::context::Context;
use crate::error::refused;
use crate::memory::FRAME_BYTES;
use ash::vk;
use core::ffi::c_void;
use core::ptr::NonNull;
use std::sync::Arc;
use vkhmm_port::{DeviceError, RawBytes};

/// What frames hold when they begin to hold pages: bytes that nobody copied in are easy to tell.
const POISON: u8 = 0xdb;

/// One piece of guarded memory. Its frames start out open to everybody.
pub(crate) struct GuardedMemory {
    ctx: Arc<Context>,
    pub(crate) memory: vk::DeviceMemory,
    /// The mapping: longer than the memory at both ends, so that this starts on a frame's boundary and lies between walls.
    map: NonNull<u8>,
    map_bytes: usize,
    bytes: RawBytes,
}

// SAFETY: Send and Sync: `map` is only used by drop, which has the value alone; the rest may be shared as it is.
unsafe impl Send for GuardedMemory {}
// SAFETY: as above: only drop uses `map`, and it has the value alone.
unsafe impl Sync for GuardedMemory {}

impl GuardedMemory {
    /// `bytes` of memory, a multiple of the frame size, as memory of type `index` for `buffer`; binds it.
    pub(crate) fn new(
        ctx: &Arc<Context>,
        operation: &'static str,
        buffer: vk::Buffer,
        index: u32,
        bytes: u64,
    ) -> Result<Self, DeviceError> {
        let Some(external) = &ctx.external_host else {
            return Err(refused(operation, "the frame guard needs VK_EXT_external_memory_host"));
        };
        let out_of_memory = || DeviceError::OutOfHostMemory { operation };
        let map_bytes = bytes as usize + 2 * FRAME_BYTES as usize;
        let (protection, flags) =
            (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: mmap(2): a fresh anonymous mapping, nothing of which is replaced.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), map_bytes, protection, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(out_of_memory());
        }
        let map = NonNull::new(map.cast::<u8>()).expect("mmap(2): without MAP_FIXED never at zero");
        let skip = FRAME_BYTES as usize - map.as_ptr() as usize % FRAME_BYTES as usize;
        // SAFETY: RawBytes::new: the whole mapping, which `Self` keeps to its end.
        let raw = unsafe { RawBytes::new(map, map_bytes) }.slice(skip, bytes as usize);
        let mut out =
            Self { ctx: Arc::clone(ctx), memory: vk::DeviceMemory::null(), map, map_bytes, bytes: raw };
        out.protect(0, bytes / FRAME_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        let handle_type = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let pointer = raw.as_ptr().cast::<c_void>();
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: vkGetMemoryHostPointerPropertiesEXT: the pointer is on a frame's boundary and mapped.
        let asked = unsafe {
            (external.fp().get_memory_host_pointer_properties_ext)(
                ctx.device.handle(),
                handle_type,
                pointer,
                &mut properties,
            )
        };
        asked.result().map_err(|e| ctx.failed(operation, bytes, e))?;
        // SAFETY: vkGetBufferMemoryRequirements: the caller just made the buffer.
        let needs = unsafe { ctx.device.get_buffer_memory_requirements(buffer) };
        if properties.memory_type_bits & needs.memory_type_bits & (1 << index) == 0 || needs.size > bytes {
            let message = format!("the frame guard cannot have {bytes} bytes of memory type {index}");
            return Err(refused(operation, message));
        }
        let mut addresses =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut import =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(handle_type).host_pointer(pointer);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(index)
            .push_next(&mut addresses)
            .push_next(&mut import);
        // SAFETY: vkAllocateMemory with VkImportMemoryHostPointerInfoEXT: pointer and size are whole frames, the type is one of those
        // the driver names for this pointer, and the mapping outlives the memory (drop).
        out.memory = unsafe { ctx.device.allocate_memory(&info, None) }
            .map_err(|e| ctx.failed(operation, bytes, e))?;
        // SAFETY: vkBindBufferMemory: type and size fit (checked above), and the buffer was made for this handle type.
        unsafe { ctx.device.bind_buffer_memory(buffer, out.memory, 0) }
            .map_err(|e| ctx.failed(operation, bytes, e))?;
        Ok(out)
    }

    /// The bytes, as far as their frames are open.
    pub(crate) fn bytes(&self) -> RawBytes {
        self.bytes
    }

    /// Lets everybody at `count` frames from `first` on, numbered from the piece's start; they hold poison.
    pub(crate) fn open(&self, first: u64, count: u64) {
        self.protect(first, count, libc::PROT_READ | libc::PROT_WRITE).fill(POISON);
    }

    /// Lets nobody at them, and forgets what they held.
    pub(crate) fn close(&self, first: u64, count: u64) {
        let frames = self.protect(first, count, libc::PROT_NONE);
        // SAFETY: madvise(2): whole pages of our own anonymous mapping, which nobody may read now.
        let result = unsafe { libc::madvise(frames.as_ptr().cast(), frames.len(), libc::MADV_DONTNEED) };
        debug_assert_eq!(result, 0, "madvise: {}", std::io::Error::last_os_error());
    }

    fn protect(&self, first: u64, count: u64, protection: i32) -> RawBytes {
        let frames = self.bytes.slice((first * FRAME_BYTES) as usize, (count * FRAME_BYTES) as usize);
        // SAFETY: mprotect(2): whole pages of our own mapping (`slice` checks); whoever touches closed ones breaks a rule, and is to
        // end here.
        let result = unsafe { libc::mprotect(frames.as_ptr().cast(), frames.len(), protection) };
        assert_eq!(result, 0, "mprotect: {}", std::io::Error::last_os_error());
        frames
    }
}

impl Drop for GuardedMemory {
    fn drop(&mut self) {
        // SAFETY: vkFreeMemory: as for every piece, no submission uses it (`Device::shrink`), or the queues are idle; null (a failed
        // `new`) is allowed. munmap(2): our own mapping, which nothing can reach any more.
        unsafe {
            self.ctx.device.free_memory(self.memory, None);
            libc::munmap(self.map.as_ptr().cast(), self.map_bytes);
        }
    }
}
