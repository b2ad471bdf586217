//! What a caller may ask of the device, and the switches by which tests make it fail in ways that software devices never do.

use vkhmm_core::pagemap::MemoryKind;
use vkhmm_port::inject::HostSwitches;

/// How to open a device. `Config::default()` is what production uses.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Which device: a part of its name (any case), or its number in the order of [`crate::DeviceReport::candidates`].
    /// `None` takes the best one.
    pub device: Option<String>,
    /// Run under VK_LAYER_KHRONOS_validation, with synchronization validation. Slow; a missing layer is an error.
    pub validation: bool,
    /// The kind of memory to build the arena from. `None` chooses by the device. A software device offers every kind.
    pub memory_kind: Option<MemoryKind>,
    /// Slots of the staging ring per direction; `None` is [`Config::STAGING_SLOTS`].
    pub staging_slots: Option<u32>,
    /// What to turn off or break.
    pub switches: Switches,
}

impl Config {
    /// Slots per direction if the caller names no number.
    pub const STAGING_SLOTS: u32 = 8;
}

/// What to turn off, and which call is to fail. The default turns nothing off and breaks nothing.
#[derive(Clone, Debug)]
pub struct Switches {
    /// Whether host memory may be imported.
    pub import: bool,
    /// Whether ranges may have sparse buffers where the device has them.
    pub sparse: bool,
    /// Whether all roles share one queue even where the device has more.
    pub shared_queue: bool,
    /// Whether copies in, copies out and kernels have timelines of their own even where they share a queue: then the order
    /// between them is by semaphores on software devices, too. `shared_queue` wins over it.
    pub split_queue: bool,
    /// Most regions of one copy command; never above 256.
    pub regions_max: Option<u32>,
    /// Whether the CPU may touch device memory. Off, the arena is DevicePrivate whatever its memory type allows.
    pub cpu_access: bool,
    /// Whether host-visible memory may be coherent. Off, the CPU sees a copy of it that only flushes and invalidations keep up.
    pub coherent: bool,
    /// The arena is made of anonymous host memory, imported; frames that hold no pages cannot be touched by anyone (a stray access
    /// is a SIGSEGV), and every access is compared with what is known of its frames. For software devices: needs
    /// VK_EXT_external_memory_host.
    pub frame_guard: bool,
    /// Takes the mock device of Vulkan-Tools, which reports none of the features it needs and whose timelines stand still: they are
    /// turned on, and whatever was submitted counts as done as soon as somebody asks. Nothing is executed there.
    pub mock: bool,
    /// The n-th call (counted from one, see [`crate::VulkanDevice::calls`]) and every later one returns `Lost`.
    pub lose_at_call: Option<u64>,
    /// The n-th call, or the first after it that can fail in this way, fails so, once.
    pub fail_at_call: Option<(u64, Failure)>,
    /// Trouble with host memory and CPU touches: for the host's ports, the device does not look at it. Here, so that a test has one
    /// set of switches.
    pub host: HostSwitches,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            import: true,
            sparse: true,
            shared_queue: false,
            split_queue: false,
            regions_max: None,
            cpu_access: true,
            coherent: true,
            frame_guard: false,
            mock: false,
            lose_at_call: None,
            fail_at_call: None,
            host: HostSwitches::default(),
        }
    }
}

/// A failure to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `OutOfDeviceMemory`, from `grow`, `buffer`, `reserve`, `in_place`, `import` or `submit`.
    OutOfDeviceMemory,
    /// `OutOfHostMemory`, from the same calls.
    OutOfHostMemory,
    /// `Refused`, from the same calls.
    Refused,
}
