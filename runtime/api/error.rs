//! Everything that can be refused, with what was wrong, what was allowed and what to do. On every error nothing has changed.

pub use vkhmm_engine::EngineError as MemoryError;
pub use vkhmm_vulkan::KernelError;

/// A refused or failed call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Residency, placement, loss: see [`MemoryError`].
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No usable Vulkan device.
    #[error(transparent)]
    Device(#[from] vkhmm_vulkan::OpenError),
    /// The application shares its only queue, and CPU touches of this kind of memory would have to use it: a thread that holds the
    /// queue's lock and touches managed memory would wait for itself.
    #[error(
        "the application's device has no queue of vkhmm's own, and touches of {kind:?} memory need one: give a queue without a lock that          runs kernels, or choose MemoryKind::DeviceCoherent or UnifiedMemory, or FaultEngine::Declared"
    )]
    SharedQueue {
        /// The kind of memory.
        kind: vkhmm_core::pagemap::MemoryKind,
    },
    /// No usable host memory or fault engine.
    #[error(transparent)]
    Host(#[from] vkhmm_linux::OpenError),
    /// The module cannot become a kernel on this device.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A setting has a value that it cannot have.
    #[error("{setting} is {have:?}: {allowed}")]
    Setting {
        /// Builder method or environment variable.
        setting: &'static str,
        /// What it was.
        have: String,
        /// What it may be.
        allowed: String,
    },
    /// Sparse buffers were asked for, and the device has none that can be used.
    #[error(
        "sparse buffers were asked for (placement, VKHMM_PLACEMENT) and cannot be had: {why}; ask for span, or leave it open"
    )]
    NoSparse {
        /// What stands against them.
        why: String,
    },
    /// The system has no thread, or no file for the launch trace.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// An allocation whose bytes cannot be counted, or whose alignment no block has.
    #[error(
        "{count} elements of {size} bytes (alignment {align}) cannot be allocated: at most {limit} bytes, alignment at most 2 MiB"
    )]
    Layout {
        /// Elements asked for.
        count: usize,
        /// Bytes of one.
        size: usize,
        /// Alignment of one.
        align: usize,
        /// Bytes of the whole reservation.
        limit: u64,
    },
    /// The kernel can store to a binding that is given to it for reading: the host's copy would silently differ.
    #[error(
        "kernel `{kernel}` can write binding {binding} (`{name}`), but argument {argument} is given for reading: pass write(), or mark the buffer readonly in the shader"
    )]
    WritesReadOnlyArgument {
        /// The kernel.
        kernel: String,
        /// Which access, counted from zero.
        argument: usize,
        /// The binding number.
        binding: u32,
        /// Its name in the module, if it has one.
        name: String,
    },
    /// Number or sizes of arguments do not fit the kernel.
    #[error("kernel `{kernel}` takes {need}; given: {have}")]
    Arguments {
        /// The kernel.
        kernel: String,
        /// What it takes.
        need: String,
        /// What it was given.
        have: String,
    },
    /// More groups than the device runs.
    #[error(
        "the grid has {need} groups in dimension {dimension}, the device runs {limit}: use Grid::linear, or a kernel with a grid-stride loop"
    )]
    GridTooLarge {
        /// 0 is x.
        dimension: usize,
        /// Asked for.
        need: u32,
        /// Allowed.
        limit: u32,
    },
    /// A binding longer than the device can bind.
    #[error(
        "argument {argument} of kernel `{kernel}` binds {need} bytes, the device binds {limit}: launch on windows, or take a device address in the push constants"
    )]
    BindingTooLarge {
        /// The kernel.
        kernel: String,
        /// Which access.
        argument: usize,
        /// Its length in bytes.
        need: u64,
        /// The device's limit in bytes.
        limit: u64,
    },
    /// A slice starts where the device cannot bind.
    #[error(
        "argument {argument} of kernel `{kernel}` starts at byte {offset} of its allocation, bindings start at multiples of {need}: the nearest below is {nearest}; or take a device address"
    )]
    Misaligned {
        /// The kernel.
        kernel: String,
        /// Which access.
        argument: usize,
        /// Where it starts, in bytes.
        offset: u64,
        /// What it must be a multiple of.
        need: u64,
        /// The nearest start below, in bytes.
        nearest: u64,
    },
    /// Memory or a kernel of another runtime.
    #[error("argument {argument} belongs to another runtime: copy it, or use one runtime for both")]
    ForeignRuntime {
        /// Which access; the kernel itself comes after the last one.
        argument: usize,
    },
    /// A paged kernel, launched as if it were none.
    #[error("kernel `{kernel}` is paged: it finds what it touches by tables; launch it with launch_paged")]
    Paged {
        /// The kernel.
        kernel: String,
    },
    /// A kernel that is not paged where one that is, is wanted.
    #[error("kernel `{kernel}` is not paged: include vkhmm.glsl in its shader, or launch it with launch")]
    NotPaged {
        /// The kernel.
        kernel: String,
    },
    /// A part of an allocation where paged launches take all of it.
    #[error(
        "argument {argument} of a paged launch is bytes {start}..{end} of an allocation of {bytes}: pass all of it, only what is touched moves"
    )]
    NotWhole {
        /// Which access.
        argument: usize,
        /// First byte given.
        start: u64,
        /// One past the last.
        end: u64,
        /// Bytes of the allocation.
        bytes: u64,
    },
    /// `split_at_mut` inside a page: no page may be in two exclusive views.
    #[error("element {mid} is not at the start of a page: the nearest that is, is {nearest}")]
    Unaligned {
        /// Asked for.
        mid: usize,
        /// The nearest element at the start of a page.
        nearest: usize,
    },
    /// `fill` or `copy` of something that is not whole 32-bit words, or of two lengths.
    #[error("{operation}: {reason}")]
    Words {
        /// Which call.
        operation: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// [`crate::kernels`]: an operand has a size, a stride or a kind of access that the kernel cannot work with.
    #[error("{kernel}: {operand} is {have}: {need}")]
    Shape {
        /// Which kernel.
        kernel: &'static str,
        /// Which of its operands.
        operand: &'static str,
        /// What it is.
        have: String,
        /// What it has to be, and what to do.
        need: String,
    },
}

impl Error {
    /// Whether the device is gone, or bytes went with it.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Memory(MemoryError::DeviceLost { .. } | MemoryError::Lost { .. }))
    }

    /// Whether this process is a forked child of the runtime's.
    pub fn is_forked_child(&self) -> bool {
        matches!(self, Self::Memory(MemoryError::ForkedChild))
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
