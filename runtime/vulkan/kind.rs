//! Which memory type the arena and the staging rings are made of.

use crate::config::Config;
use crate::error::OpenError;
use crate::physical::Physical;
use ash::vk;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_port::{Direction, MemoryKindProfile};

const LOCAL: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::DEVICE_LOCAL;
const VISIBLE: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::HOST_VISIBLE;
const COHERENT: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::HOST_COHERENT;
const CACHED: vk::MemoryPropertyFlags = vk::MemoryPropertyFlags::HOST_CACHED;

/// The memory type of the arena, and what it counts as.
#[derive(Clone, Debug)]
pub(crate) struct ArenaType {
    pub(crate) index: u32,
    pub(crate) kind: MemoryKind,
    pub(crate) heap_bytes: u64,
    pub(crate) words: String,
}

impl ArenaType {
    /// What the CPU may do with it.
    pub(crate) fn profile(&self) -> MemoryKindProfile {
        let device = PagemapFlags::DEVICE_MEMORY;
        let (flags, cpu_reads, cpu_writes) = match self.kind {
            MemoryKind::DevicePrivate => (device | PagemapFlags::UNADDRESSABLE, false, false),
            MemoryKind::DeviceBar => (device | PagemapFlags::HOST_WRITABLE, false, true),
            MemoryKind::DeviceCoherent | MemoryKind::UnifiedMemory => {
                (device | PagemapFlags::HOST_WRITABLE | PagemapFlags::HOST_READABLE, true, true)
            }
        };
        MemoryKindProfile { kind: self.kind, flags, cpu_reads, cpu_writes }
    }
}

/// The best type among `bits` (those that buffers may be bound to) with all of `need`, the most of `prefer` and the least of
/// `avoid`; the first of equals, since drivers list the fastest first.
fn best(
    physical: &Physical,
    bits: u32,
    need: vk::MemoryPropertyFlags,
    prefer: vk::MemoryPropertyFlags,
    avoid: vk::MemoryPropertyFlags,
) -> Option<(u32, vk::MemoryPropertyFlags, u64)> {
    // Protected and lazily allocated memory, and AMD's uncached types, are for other uses.
    let never = vk::MemoryPropertyFlags::PROTECTED
        | vk::MemoryPropertyFlags::LAZILY_ALLOCATED
        | vk::MemoryPropertyFlags::DEVICE_COHERENT_AMD;
    let points = |flags: vk::MemoryPropertyFlags| {
        (flags & prefer).as_raw().count_ones() as i32 - (flags & avoid).as_raw().count_ones() as i32
    };
    physical
        .memory_types()
        .filter(|(i, flags, _)| bits & (1 << i) != 0 && flags.contains(need) && !flags.intersects(never))
        .max_by_key(|(i, flags, heap)| (points(*flags), *heap, std::cmp::Reverse(*i)))
}

/// The kind that suits a device, and why.
fn natural(physical: &Physical, bits: u32) -> (MemoryKind, &'static str) {
    let none = vk::MemoryPropertyFlags::empty();
    if physical.kind == vk::PhysicalDeviceType::CPU {
        return (MemoryKind::DevicePrivate, "a software device stands in for a discrete card");
    }
    let shared_heaps = physical.kind == vk::PhysicalDeviceType::INTEGRATED_GPU
        && physical.memory_types().all(|(_, f, _)| !f.contains(LOCAL) || f.contains(VISIBLE));
    if shared_heaps && best(physical, bits, LOCAL | VISIBLE | COHERENT | CACHED, none, none).is_some() {
        return (MemoryKind::UnifiedMemory, "an integrated device whose heap is the host's");
    }
    if physical
        .memory_types()
        .any(|(i, f, _)| bits & (1 << i) != 0 && f.contains(LOCAL) && !f.contains(VISIBLE))
    {
        return (
            MemoryKind::DevicePrivate,
            "device-local memory without host visibility is the fastest for kernels",
        );
    }
    if best(physical, bits, LOCAL | VISIBLE | CACHED, none, none).is_some() {
        return (MemoryKind::DeviceCoherent, "all device-local memory is host-visible and cached");
    }
    (MemoryKind::DeviceBar, "all device-local memory is host-visible and not cached")
}

/// Chooses the arena's type.
pub(crate) fn arena(physical: &Physical, bits: u32, config: &Config) -> Result<ArenaType, OpenError> {
    let none = vk::MemoryPropertyFlags::empty();
    let (kind, why) = match config.memory_kind {
        _ if !config.switches.cpu_access => (MemoryKind::DevicePrivate, "CPU access is switched off"),
        Some(kind) => (kind, "asked for"),
        None => natural(physical, bits),
    };
    let (found, need) = match kind {
        MemoryKind::DevicePrivate => (best(physical, bits, LOCAL, none, VISIBLE), "DEVICE_LOCAL"),
        MemoryKind::DeviceBar => {
            (best(physical, bits, LOCAL | VISIBLE, COHERENT, CACHED), "DEVICE_LOCAL and HOST_VISIBLE")
        }
        MemoryKind::DeviceCoherent | MemoryKind::UnifiedMemory => (
            best(physical, bits, LOCAL | VISIBLE | CACHED, COHERENT, none),
            "DEVICE_LOCAL, HOST_VISIBLE and HOST_CACHED",
        ),
    };
    let (index, flags, heap_bytes) = found.ok_or(OpenError::NoMemoryOfKind { kind, need })?;
    let words =
        format!("{kind:?}, memory type {index} ({flags:?}) of a {} MiB heap: {why}", heap_bytes >> 20);
    Ok(ArenaType { index, kind, heap_bytes, words })
}

/// The type of the inward ring: written by the CPU, read by the device. Every device has a HOST_VISIBLE and HOST_COHERENT type
/// that takes buffers (Vulkan specification, "Device Memory").
pub(crate) fn staging_in(physical: &Physical, bits: u32) -> Option<u32> {
    best(physical, bits, VISIBLE | COHERENT, vk::MemoryPropertyFlags::empty(), LOCAL | CACHED).map(|t| t.0)
}

/// The type of the outward ring: written by the device, read by the CPU, so cached wherever that exists.
pub(crate) fn staging_out(physical: &Physical, bits: u32) -> Option<u32> {
    best(physical, bits, VISIBLE | CACHED, COHERENT, LOCAL)
        .or_else(|| best(physical, bits, VISIBLE | COHERENT, vk::MemoryPropertyFlags::empty(), LOCAL))
        .map(|t| t.0)
}

/// The type of control memory: coherent always. The host's tables lie near the device where the host reaches that, what the host reads
/// is cached wherever that exists.
pub(crate) fn control(physical: &Physical, bits: u32, direction: Direction) -> Option<u32> {
    let (wanted, unwanted) = match direction {
        Direction::In => (LOCAL, CACHED),
        Direction::Out => (CACHED, LOCAL),
    };
    best(physical, bits, VISIBLE | COHERENT, wanted, unwanted).map(|t| t.0)
}

/// A type for imported host memory: coherent, because memory that is mapped by the host alone cannot be flushed.
pub(crate) fn imported(physical: &Physical, bits: u32) -> Option<u32> {
    best(physical, bits, COHERENT, CACHED, vk::MemoryPropertyFlags::empty()).map(|t| t.0)
}
