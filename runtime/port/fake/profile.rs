//! What a FakeDevice may be told to be, and the profile that follows.

use super::{FakeImports, Watch};
use crate::{DeviceProfile, ImportProfile, MemoryKindProfile, SparseProfile, StagingProfile};
use core::time::Duration;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{Geometry, Timeline};

#[cfg(doc)]
use super::FakeDevice;

/// What a [`FakeDevice`] is like.
#[derive(Clone)]
pub struct FakeDeviceOptions {
    /// What the memory is; decides whether the CPU may read or write frames.
    pub kind: MemoryKind,
    /// Timelines of copies and kernels: 1 (they share a queue) or 3. Bind, grant and release have one each beside them.
    pub timelines: u8,
    /// Whether host memory can be imported; if so, the record that it shares with its host.
    pub import: Option<FakeImports>,
    /// What sparse buffers can be, if there are any.
    pub sparse: Option<SparseProfile>,
    /// Longest import in bytes that kernels can work on. Counts only where host memory can be imported.
    pub in_place_bytes_max: Option<u64>,
    /// Slots per direction of the staging ring.
    pub staging_slots: u32,
    /// As if its queues were the application's too.
    pub queue_is_shared: bool,
    /// Its timelines share one queue: nothing begins before everything that was submitted earlier has.
    pub one_queue: bool,
    /// Frames that `grow` gives in all; more is `OutOfDeviceMemory`.
    pub frames_max: u32,
    /// Longest single arena piece in frames.
    pub piece_frames_max: u32,
    /// Most regions of one copy command.
    pub regions_max: u32,
    /// Copies up to this many bytes ride in front of their kernel.
    pub inline_copy_bytes: u64,
    /// How long every submission takes, so that completion lags behind.
    pub delay: Duration,
    /// Between two barriers the last command comes first: a device may take them in any order.
    pub reversed: bool,
    /// Is told of every call, except `completed`, `wait` and plain getters.
    pub watch: Option<Watch>,
}

impl Default for FakeDeviceOptions {
    /// A discrete card: memory out of the CPU's reach, three queues, imports, no sparse buffers, four staging slots a way.
    fn default() -> Self {
        Self {
            kind: MemoryKind::DevicePrivate,
            timelines: 3,
            import: Some(FakeImports::default()),
            sparse: None,
            in_place_bytes_max: None,
            staging_slots: 4,
            queue_is_shared: false,
            one_queue: false,
            frames_max: u32::MAX,
            piece_frames_max: u32::MAX,
            regions_max: 256,
            inline_copy_bytes: 0,
            delay: Duration::ZERO,
            reversed: false,
            watch: None,
        }
    }
}

/// The profile of a device with `options`.
///
/// # Panics
/// If there are neither 1 nor 3 timelines.
pub(super) fn profile(geometry: Geometry, options: &FakeDeviceOptions) -> DeviceProfile {
    let timelines = match options.timelines {
        1 => [0, 0, 0, 1, 2, 3],
        3 => [0, 1, 2, 3, 4, 5],
        n => panic!("a fake device has 1 or 3 timelines, not {n}"),
    };
    DeviceProfile {
        name: "fake".to_owned(),
        memory: memory_profile(options.kind),
        timelines: timelines.map(Timeline),
        timeline_count: options.timelines + 3,
        limit_bytes_default: u64::from(options.frames_max) * geometry.frame_bytes(),
        piece_bytes_max: u64::from(options.piece_frames_max) * geometry.frame_bytes(),
        staging: StagingProfile { slots: options.staging_slots, slot_bytes: geometry.block_bytes() },
        import: options.import.as_ref().map(|_| ImportProfile {
            alignment_bytes: u64::from(geometry.page_bytes),
            piece_bytes_max: u64::from(u32::MAX),
        }),
        sparse: options.sparse,
        in_place_bytes_max: options.in_place_bytes_max.filter(|_| options.import.is_some()),
        reasons: [
            if options.sparse.is_some() { "a probe bound and compared" } else { "no sparse buffers" }
                .to_owned(),
            "in place as the test says".to_owned(),
        ],
        queue_is_shared: options.queue_is_shared,
        regions_max: options.regions_max,
        inline_copy_bytes: options.inline_copy_bytes,
        groups_max: [65_535; 3],
        binding_bytes_max: 128 << 20,
        binding_alignment_bytes: 4,
    }
}

fn memory_profile(kind: MemoryKind) -> MemoryKindProfile {
    let (cpu_reads, cpu_writes, flags) = match kind {
        MemoryKind::DevicePrivate => (false, false, PagemapFlags::UNADDRESSABLE),
        MemoryKind::DeviceBar => (false, true, PagemapFlags::HOST_WRITABLE),
        MemoryKind::DeviceCoherent | MemoryKind::UnifiedMemory => {
            (true, true, PagemapFlags::HOST_WRITABLE | PagemapFlags::HOST_READABLE)
        }
    };
    MemoryKindProfile { kind, flags: flags | PagemapFlags::DEVICE_MEMORY, cpu_reads, cpu_writes }
}
