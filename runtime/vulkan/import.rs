//! Host memory that the device reaches by itself (VK_EXT_external_memory_host). Drivers may refuse file-backed memory (AMD's
//! does), or accept it and copy something else, so imports are only offered after [`crate::probe`] copied both ways and compared.
//! Where the driver lets kernels at imported memory as well, and a kernel proved it, every import can be worked on in place.

use crate::context::Context;
use crate::error::refused;
use crate::kind;
use crate::memory;
use crate::physical::Physical;
use ash::vk;
use core::ffi::c_void;
use std::sync::Arc;
use vkhmm_port::{DeviceError, RawBytes};

/// Longest single import for copies: half of what the smallest known driver takes as one buffer.
pub(crate) const PIECE_BYTES_MAX: u64 = 512 << 20;

/// What imported memory is used as; with `storage` also by kernels, and as `more` by an application.
pub(crate) fn usage(storage: bool, more: vk::BufferUsageFlags) -> vk::BufferUsageFlags {
    if storage {
        memory::usage(more)
    } else {
        vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST
    }
}

/// Longest single import that the driver could take, by its limits.
pub(crate) fn bytes_max(physical: &Physical) -> u64 {
    let unit = physical.import_alignment.max(1);
    let heaps = physical
        .memory_types()
        .filter(|(_, flags, _)| flags.contains(vk::MemoryPropertyFlags::HOST_COHERENT));
    let heap = heaps.map(|(_, _, bytes)| bytes).max().unwrap_or(0);
    physical.allocation_bytes_max.min(physical.buffer_bytes_max).min(heap) / unit * unit
}

/// Host memory made reachable by the device. Dropping it gives the pages back; submissions that name it keep it.
pub struct VulkanImport {
    ctx: Arc<Context>,
    pub(crate) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    pub(crate) bytes: u64,
    /// Device address of its first byte, where kernels may use it.
    pub(crate) address: Option<u64>,
}

impl VulkanImport {
    /// Imports `host`; with `storage` kernels may use it.
    pub(crate) fn new(ctx: &Arc<Context>, host: RawBytes, storage: bool) -> Result<Self, DeviceError> {
        const OPERATION: &str = "import host memory";
        let Some(external) = &ctx.external_host else {
            return Err(refused(OPERATION, "the driver lacks VK_EXT_external_memory_host"));
        };
        let alignment = ctx.physical.import_alignment;
        let (start, bytes) = (host.as_ptr() as u64, host.len() as u64);
        if alignment == 0 || bytes == 0 || start % alignment != 0 || bytes % alignment != 0 {
            let message = format!("{start:#x}+{bytes:#x} is not in units of {alignment} bytes");
            return Err(refused(OPERATION, message));
        }
        let most = if storage { bytes_max(&ctx.physical).max(PIECE_BYTES_MAX) } else { PIECE_BYTES_MAX };
        if bytes > most {
            return Err(refused(OPERATION, format!("{bytes} bytes, at most {most} go into one import")));
        }
        let handle_type = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let pointer = host.as_ptr().cast::<c_void>();
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: vkGetMemoryHostPointerPropertiesEXT: the pointer is aligned (checked above) and mapped (RawBytes).
        unsafe {
            (external.fp().get_memory_host_pointer_properties_ext)(
                ctx.device.handle(),
                handle_type,
                pointer,
                &mut properties,
            )
        }
        .result()
        .map_err(|e| ctx.failed(OPERATION, bytes, e))?;
        let buffer = ctx.new_buffer(OPERATION, bytes, usage(storage, ctx.usage), true)?;
        let mut import =
            Self { ctx: Arc::clone(ctx), buffer, memory: vk::DeviceMemory::null(), bytes, address: None };
        // SAFETY: vkGetBufferMemoryRequirements of a buffer just made.
        let needs = unsafe { ctx.device.get_buffer_memory_requirements(buffer) };
        if needs.size > bytes {
            let message = format!("a buffer over {bytes} bytes needs {} bytes of memory", needs.size);
            return Err(refused(OPERATION, message));
        }
        let bits = needs.memory_type_bits & properties.memory_type_bits;
        let index = kind::imported(&ctx.physical, bits)
            .ok_or_else(|| refused(OPERATION, "no coherent memory type takes it"))?;
        let mut host_pointer =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(handle_type).host_pointer(pointer);
        let mut addresses =
            vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(index)
            .push_next(&mut host_pointer);
        if storage {
            info = info.push_next(&mut addresses);
        }
        // SAFETY: vkAllocateMemory with VkImportMemoryHostPointerInfoEXT: pointer and size are aligned (checked above), the type
        // is one of those the driver names for this pointer, and the memory stays mapped while the import lives (RawBytes).
        import.memory = unsafe { ctx.device.allocate_memory(&info, None) }
            .map_err(|e| ctx.failed(OPERATION, bytes, e))?;
        // SAFETY: vkBindBufferMemory: type and size satisfy the buffer's requirements (checked above), offset zero is aligned,
        // and the buffer was made for this handle type.
        unsafe { ctx.device.bind_buffer_memory(buffer, import.memory, 0) }
            .map_err(|e| ctx.failed(OPERATION, bytes, e))?;
        import.address = storage.then(|| ctx.buffer_address(buffer));
        Ok(import)
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for VulkanImport {
    fn drop(&mut self) {
        let _section = crate::exit::section();
        // SAFETY: vkDestroyBuffer and vkFreeMemory: submissions keep their imports by Arc until their ticket is reached
        // (`recycle.rs`); a null memory (failed `new`) is allowed.
        unsafe {
            self.ctx.device.destroy_buffer(self.buffer, None);
            self.ctx.device.free_memory(self.memory, None);
        }
    }
}
