//! Device: memory in frames, queues in roles, order by timelines, and the commands that a submission may hold.

use crate::RawBytes;
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{FrameIndex, FrameRun, Ticket, Timeline};
use vkhmm_core::uses::Uses;

/// What a queue is used for. Roles that share a queue share its timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Host to device copies.
    CopyIn,
    /// Device to host copies.
    CopyOut,
    /// Kernels, and the small copies that ride in front of them.
    Compute,
    /// Sparse binds. A timeline of its own: the driver orders binds and submissions by semaphores alone.
    Bind,
    /// Tells an application's queue that what it acquired is there. A timeline of its own: its values are promised before they
    /// are submitted.
    Grant,
    /// Waits for an application's semaphores. A timeline of its own.
    Release,
}

impl Role {
    /// All roles, in the order of [`DeviceProfile::timelines`].
    pub const ALL: [Self; 6] =
        [Self::CopyIn, Self::CopyOut, Self::Compute, Self::Bind, Self::Grant, Self::Release];
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Host to device.
    In,
    /// Device to host.
    Out,
}

/// Which kind of device memory the arena is made of, and what the CPU can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryKindProfile {
    /// The kind that the pagemap is registered with.
    pub kind: MemoryKind,
    /// The flags that the pagemap is registered with.
    pub flags: PagemapFlags,
    /// [`Device::frame_bytes`] may be read by the CPU (HOST_CACHED).
    pub cpu_reads: bool,
    /// [`Device::frame_bytes`] may be written by the CPU.
    pub cpu_writes: bool,
}

/// The staging ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingProfile {
    /// Slots per direction.
    pub slots: u32,
    /// Bytes of one slot; at least one block.
    pub slot_bytes: u64,
}

/// What imports of host memory may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportProfile {
    /// Start and length must be multiples of it.
    pub alignment_bytes: u64,
    /// Longest single import.
    pub piece_bytes_max: u64,
}

/// What sparse buffers can be, after a probe that bound, copied, bound again and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseProfile {
    /// Offsets and lengths of binds must be multiples of it; it divides a frame.
    pub page_bytes: u64,
    /// Longest buffer in bytes.
    pub buffer_bytes_max: u64,
    /// Bytes that all sparse buffers may have together, bound or not.
    pub space_bytes: u64,
}

/// What this device is like; constant for its life.
#[derive(Clone, Debug)]
pub struct DeviceProfile {
    /// Name, as the driver says it.
    pub name: String,
    /// What its memory is.
    pub memory: MemoryKindProfile,
    /// The timeline of each role, in the order of [`Role::ALL`].
    pub timelines: [Timeline; 6],
    /// How many distinct timelines there are.
    pub timeline_count: u8,
    /// Most bytes the arena may take if the user names no limit.
    pub limit_bytes_default: u64,
    /// Longest single arena piece in bytes.
    pub piece_bytes_max: u64,
    /// The staging ring.
    pub staging: StagingProfile,
    /// Whether A can be imported, after a probe that copied both ways and compared; `None`: staging only.
    pub import: Option<ImportProfile>,
    /// Sparse buffers; `None`: every buffer lies in one run of frames.
    pub sparse: Option<SparseProfile>,
    /// Longest import in bytes that kernels can work on ([`Device::in_place`]); `None`: they work on frames alone.
    pub in_place_bytes_max: Option<u64>,
    /// Why `sparse` or `in_place_bytes_max` is what it is, for people: one sentence each.
    pub reasons: [String; 2],
    /// Some queue is the application's too: every submission takes the application's lock, which a thread may hold while it waits for
    /// a CPU touch. So nothing that serves a touch submits.
    pub queue_is_shared: bool,
    /// Most regions of one copy command.
    pub regions_max: u32,
    /// Copies up to this many bytes ride in front of their kernel.
    pub inline_copy_bytes: u64,
    /// Most work groups per dimension.
    pub groups_max: [u32; 3],
    /// Longest storage-buffer binding in bytes.
    pub binding_bytes_max: u64,
    /// What a binding's offset must be a multiple of.
    pub binding_alignment_bytes: u64,
}

impl DeviceProfile {
    /// The timeline of `role`.
    pub fn timeline(&self, role: Role) -> Timeline {
        self.timelines[role as usize]
    }
}

/// A failed device call.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device is gone, and everything that only it held.
    #[error("the device was lost ({operation})")]
    Lost {
        /// What was being done.
        operation: &'static str,
    },
    /// No device memory.
    #[error("no device memory for {bytes} bytes ({operation})")]
    OutOfDeviceMemory {
        /// What was tried.
        operation: &'static str,
        /// For how much.
        bytes: u64,
    },
    /// No host memory for the driver.
    #[error("the driver has no host memory ({operation})")]
    OutOfHostMemory {
        /// What was tried.
        operation: &'static str,
    },
    /// Anything else the driver said.
    #[error("{operation} failed: {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// What the driver said.
        message: String,
    },
}

/// One piece of a copy between host bytes and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Offset on the host side, from the start of the import or slot.
    pub host_offset: u64,
    /// Offset in device memory: `FrameIndex * frame_bytes + offset in frame`. The piece stays inside one arena piece.
    pub device_offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Where copied-in bytes come from. The host bytes are complete before the submission.
pub enum Source<D: Device + ?Sized> {
    /// An import of A.
    Import(Arc<D::Import>),
    /// A slot of the inward staging ring.
    Slot(u32),
}

/// Where copied-out bytes go. They may be read by the CPU once the submission's ticket is reached.
pub enum Target<D: Device + ?Sized> {
    /// An import of A.
    Import(Arc<D::Import>),
    /// A slot of the outward staging ring.
    Slot(u32),
}

/// A bound piece of a span.
pub struct BoundRange<D: Device + ?Sized> {
    /// The span's buffer; `None` is the null descriptor (an empty argument).
    pub buffer: Option<Arc<D::Buffer>>,
    /// First byte, from the buffer's start.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A stretch of a sparse buffer that gets frames, or loses them.
pub struct Bind<D: Device + ?Sized> {
    /// Which buffer, made by [`Device::reserve`].
    pub buffer: Arc<D::Buffer>,
    /// First byte, from the buffer's start: a multiple of a frame.
    pub offset: u64,
    /// Length in bytes: whole frames.
    pub bytes: u64,
    /// The first of the neighbouring frames that lie there from now on; `None`: nothing does.
    pub frames: Option<FrameIndex>,
}

/// One command of a submission.
pub enum Command<D: Device + ?Sized> {
    /// Host to device. At most [`DeviceProfile::regions_max`] regions.
    CopyIn {
        /// From.
        source: Source<D>,
        /// Which pieces.
        regions: Vec<Region>,
    },
    /// Device to host.
    CopyOut {
        /// To.
        target: Target<D>,
        /// Which pieces.
        regions: Vec<Region>,
    },
    /// Device to device; `host_offset` of a region is the source's device offset.
    Move {
        /// Which pieces.
        regions: Vec<Region>,
    },
    /// Sets device memory to a repeated 32-bit word. Offset and length are multiples of four.
    Fill {
        /// First byte in device memory.
        device_offset: u64,
        /// Length in bytes.
        bytes: u64,
        /// The word.
        word: u32,
    },
    /// Changes what lies in sparse buffers; those that lose frames first, then those that get some. The only command of a
    /// submission, and only of [`Role::Bind`]. Nobody uses the stretches meanwhile; others of the same buffers may be in use.
    Bind {
        /// Which stretches. None twice, but for one that loses its frames and gets others.
        binds: Vec<Bind<D>>,
    },
    /// Everything before happens before, and is visible to, everything after.
    Barrier,
    /// Runs a kernel.
    Dispatch {
        /// Which.
        kernel: Arc<D::Kernel>,
        /// Its storage buffers, in (set, binding) order.
        bindings: Vec<BoundRange<D>>,
        /// Its push constants.
        push: Vec<u8>,
        /// How many groups.
        groups: [u32; 3],
        /// Where to put the kernel's device time in nanoseconds once done; zero until then or where there is no clock.
        elapsed_ns: Arc<std::sync::atomic::AtomicU64>,
    },
}

/// What one `submit` does: wait, then the commands in order, then signal the ticket. It ends with a barrier to everything
/// later, and to host reads; the device keeps whatever it names until the ticket is reached.
pub struct Submission<D: Device + ?Sized> {
    /// Reached before the first command starts. Values of timelines of other queues only; all of them already submitted.
    pub waits: Uses,
    /// Values of an application's semaphores, likewise; it has submitted what signals them. Only of [`Role::Release`].
    pub foreign: Vec<(D::Semaphore, u64)>,
    /// The commands.
    pub commands: Vec<Command<D>>,
    /// The ticket it signals: the next value of the role's timeline.
    pub signals: Ticket,
}

/// Device memory, queues and kernels. All calls may come from any thread. `submit` on one timeline is called in ascending order
/// of tickets, by one caller at a time.
pub trait Device: Send + Sync + 'static {
    /// A compiled kernel.
    type Kernel: Send + Sync + 'static;
    /// A buffer over a run of frames; dropping it destroys it, which the engine does only after its last use.
    type Buffer: Send + Sync + 'static;
    /// Host memory that the device can reach; dropping it gives the pages back.
    type Import: Send + Sync + 'static;
    /// A timeline of the application's.
    type Semaphore: Clone + Send + Sync + 'static;
    /// Memory that host and kernels share: tables that the one writes and the other reads. Dropping it gives it back, which its owner
    /// does only after the last submission that reaches it.
    type Control: Send + Sync + 'static;

    /// What it is like.
    fn profile(&self) -> &DeviceProfile;

    /// Takes device memory for `count` frames as one arena piece; they are the frames `first..first + count` from now on.
    /// Returns the device address of the piece (any unique number where the device has no addresses).
    ///
    /// # Errors
    /// `OutOfDeviceMemory`, or as the driver says; nothing is taken then.
    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError>;

    /// Gives the piece that starts at `first` back. No buffer over it exists and no submission uses it.
    fn shrink(&self, first: FrameIndex);

    /// Whether the device wants to hear of [`Self::frames_claimed`] and [`Self::frames_released`]. Only devices that check
    /// accesses do; to tell costs a look at the whole arena whenever frames may have changed hands.
    fn watches_frames(&self) -> bool {
        false
    }

    /// The frames of `run` are about to hold pages. Never called for frames that do: those of a new piece count as holding until
    /// they are released. The engine calls it and [`Self::frames_released`] one at a time, in the order of the changes.
    fn frames_claimed(&self, run: FrameRun) {
        let _ = run;
    }

    /// The frames of `run` hold nothing any more, and all work that used them is done: nothing may touch them.
    fn frames_released(&self, run: FrameRun) {
        let _ = run;
    }

    /// A buffer over `run`, which lies inside one piece.
    ///
    /// # Errors
    /// As the driver says.
    fn buffer(&self, run: FrameRun) -> Result<Self::Buffer, DeviceError>;

    /// A sparse buffer of whole frames in which nothing lies yet; kernels may use what [`Command::Bind`] puts there. Only where
    /// [`DeviceProfile::sparse`] allows; dropping it ends its binds.
    ///
    /// # Errors
    /// As the driver says.
    fn reserve(&self, bytes: u64) -> Result<Self::Buffer, DeviceError>;

    /// A buffer for kernels over imported host bytes, which it keeps imported. Only where [`DeviceProfile::in_place_bytes_max`]
    /// allows.
    ///
    /// # Errors
    /// As the driver says.
    fn in_place(&self, import: &Arc<Self::Import>) -> Result<Self::Buffer, DeviceError>;

    /// Device address of a buffer's first byte.
    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Makes `bytes` of A reachable by the device. Only when [`DeviceProfile::import`] allows.
    ///
    /// # Errors
    /// As the driver says.
    fn import(&self, bytes: RawBytes) -> Result<Self::Import, DeviceError>;

    /// Queues the work of `role`'s queue and returns at once.
    ///
    /// # Errors
    /// `Lost`, or as the driver says; the engine treats every failure as loss.
    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError>;

    /// The counters' present values.
    ///
    /// # Errors
    /// `Lost`.
    fn completed(&self) -> Result<Uses, DeviceError>;

    /// Waits until some counter is above its value in `seen`, or `timeout` has passed.
    ///
    /// # Errors
    /// `Lost`.
    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError>;

    /// Waits until all of `uses`, which are submitted, is reached, or `timeout` has passed. May return early.
    ///
    /// # Errors
    /// `Lost`.
    fn reach(&self, uses: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let now = self.completed()?;
        if uses.done(&now) { Ok(()) } else { self.wait(&now, timeout) }
    }

    /// The host's view of a staging slot.
    ///
    /// # Panics
    /// If there is no such slot.
    fn slot(&self, direction: Direction, slot: u32) -> RawBytes;

    /// `bytes` zeros that kernels reach by address and the host at any moment: what the host stores before a submission is seen by its
    /// kernels, what these store is seen by the host once their ticket is reached. Fast for who writes it, the host (`In`), or for the
    /// host that reads what kernels write (`Out`).
    ///
    /// # Errors
    /// As the driver says.
    fn control(&self, bytes: u64, direction: Direction) -> Result<Self::Control, DeviceError>;

    /// The host's view of it, and its device address, a multiple of 256.
    fn control_at(&self, control: &Self::Control) -> (RawBytes, u64);

    /// Copies frames to host bytes by the CPU, after the device's writes. Only where [`MemoryKindProfile::cpu_reads`].
    ///
    /// # Errors
    /// `Lost`.
    fn read_frames(&self, device_offset: u64, to: RawBytes) -> Result<(), DeviceError>;

    /// The bytes of the piece that begins at `first`, where the CPU may load them at any moment without a word to the device, and
    /// sees what completed work wrote: for handlers in which nothing may be called. They are there until `shrink`. `None`:
    /// [`Device::read_frames`] is the only way.
    fn frames_at(&self, first: FrameIndex) -> Option<RawBytes> {
        let _ = first;
        None
    }

    /// Copies host bytes to frames by the CPU, visible to later submissions. Only where [`MemoryKindProfile::cpu_writes`].
    ///
    /// # Errors
    /// `Lost`.
    fn write_frames(&self, device_offset: u64, from: RawBytes) -> Result<(), DeviceError>;

    /// Bytes the arena may have in all right now, if the system can say (a memory budget).
    fn budget_bytes(&self) -> Option<u64>;
}
