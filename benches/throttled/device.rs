//! `vkhmm_port::Device` over the inner device, its link and its threads.

use crate::kernel::ThrottledKernel;
use crate::link::Link;
use crate::queues;
use crate::worker::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry};
use vkhmm_core::uses::Uses;
use vkhmm_port::{
    Device, DeviceError, DeviceProfile, Direction, ImportProfile, MemoryKindProfile, RawBytes, Role,
    Submission,
};
use vkhmm_vulkan::{
    Config, Control, KernelError, KernelOptions, OpenError, ValidationLog, VulkanBuffer, VulkanDevice, vk,
};

/// Bytes of one frame.
const FRAME_BYTES: u64 = Geometry::PRODUCTION.frame_bytes();
/// What imports must be multiples of: pages.
const IMPORT_ALIGNMENT: u64 = Geometry::PRODUCTION.page_bytes as u64;
/// Longest single import; of the inner device's order.
const IMPORT_BYTES_MAX: u64 = 512 << 20;

/// What the device has, and what it lacks.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether it imports host memory; otherwise everything goes by staging.
    pub import: bool,
    /// Most bytes that [`Device::grow`] gives in all, whatever the profile says: somebody else has the rest. `None`: no limit but
    /// the inner device's.
    pub memory_bytes: Option<u64>,
    /// The n-th [`Device::grow`], counted from one, fails once, as a fragmented heap does.
    pub refuse_grow: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { import: true, memory_bytes: None, refuse_grow: None }
    }
}

/// Host memory that the copy threads may reach.
pub struct ThrottledImport {
    pub(crate) bytes: RawBytes,
}

/// What pieces were taken.
#[derive(Default)]
struct Pieces {
    bytes: BTreeMap<u32, u64>,
    asked: u64,
}

/// A Vulkan device behind a modelled link; see the crate. Dropping it discards what is queued, joins its threads, and then lets
/// go of the inner device.
///
/// Lock contract: `pieces` owns what was taken; held across one `grow` or `shrink` of the inner device, whose locks it takes inside.
pub struct Throttled {
    profile: DeviceProfile,
    options: Options,
    pieces: Mutex<Pieces>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Throttled {
    /// Opens the inner device as `config` says, but with memory that the CPU can reach, and starts the threads.
    ///
    /// # Errors
    /// As of [`VulkanDevice::open`]: `NoMemoryOfKind` where the CPU cannot reach device memory. No thread for us is a `Refused`.
    pub fn open(config: Config, link: Link, options: Options) -> Result<Self, OpenError> {
        let mut config = Config { memory_kind: Some(MemoryKind::DeviceCoherent), ..config };
        config.switches.import = false;
        let inner = VulkanDevice::open(config, None)?;
        let profile = profile(inner.profile(), &link, options);
        let shared = Arc::new(Shared::new(inner, link));
        let mut device = Self { profile, options, pieces: Mutex::default(), threads: Vec::new(), shared };
        for role in Role::ALL {
            let shared = Arc::clone(&device.shared);
            let thread = std::thread::Builder::new().name(format!("throttled-{role:?}"));
            let spawned = thread.spawn(move || shared.work(role));
            let refused = |e: std::io::Error| DeviceError::Refused {
                operation: "start a thread",
                message: e.to_string(),
            };
            device.threads.push(spawned.map_err(refused)?);
        }
        Ok(device)
    }

    /// What is modelled.
    pub fn link(&self) -> &Link {
        &self.shared.link
    }

    /// The device that does the work.
    pub fn inner(&self) -> &VulkanDevice {
        &self.shared.inner
    }

    /// The validation layer's messages, for longer than the device lives.
    pub fn validation_log(&self) -> ValidationLog {
        self.shared.inner.validation_log()
    }

    /// A kernel that runs on the inner device, in its own time.
    ///
    /// # Errors
    /// As of [`VulkanDevice::kernel`], which also says what the module must be.
    pub fn kernel(&self, words: &[u32], options: KernelOptions) -> Result<Arc<ThrottledKernel>, KernelError> {
        self.shared.inner.kernel(words, options).map(|kernel| Arc::new(ThrottledKernel::real(kernel)))
    }

    /// The `n`-th submission from now on, counted from one, finds the device lost.
    pub fn lose_in(&self, n: u64) {
        self.shared.queues.lose_in(n);
    }

    fn pieces(&self) -> std::sync::MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the inner device is like behind the link.
fn profile(inner: &DeviceProfile, link: &Link, options: Options) -> DeviceProfile {
    let import = ImportProfile { alignment_bytes: IMPORT_ALIGNMENT, piece_bytes_max: IMPORT_BYTES_MAX };
    let sparse = inner.reasons[0].clone();
    let in_place = String::from("the modelled link has no way for kernels to reach host memory");
    DeviceProfile {
        name: format!("{} behind the link `{}`", inner.name, link.name),
        memory: MemoryKindProfile {
            kind: MemoryKind::DevicePrivate,
            flags: PagemapFlags::DEVICE_MEMORY | PagemapFlags::UNADDRESSABLE,
            cpu_reads: false,
            cpu_writes: false,
        },
        timelines: Role::ALL.map(queues::timeline),
        timeline_count: Role::ALL.len() as u8,
        import: options.import.then_some(import),
        in_place_bytes_max: None,
        inline_copy_bytes: inner.inline_copy_bytes.min(link.inline_bytes()),
        reasons: [sparse, in_place],
        ..inner.clone()
    }
}

fn refused(operation: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Refused { operation, message: message.into() }
}

impl Device for Throttled {
    type Kernel = ThrottledKernel;
    type Buffer = VulkanBuffer;
    type Import = ThrottledImport;
    type Semaphore = vk::Semaphore;
    type Control = Control;

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError> {
        const OPERATION: &str = "grow the arena";
        let bytes = u64::from(count) * FRAME_BYTES;
        let mut pieces = self.pieces();
        pieces.asked += 1;
        let taken: u64 = pieces.bytes.values().sum();
        let full = self.options.memory_bytes.is_some_and(|most| taken + bytes > most);
        if full || self.options.refuse_grow == Some(pieces.asked) {
            return Err(DeviceError::OutOfDeviceMemory { operation: OPERATION, bytes });
        }
        let address = self.shared.inner.grow(first, count)?;
        pieces.bytes.insert(first.0, bytes);
        Ok(address)
    }

    fn shrink(&self, first: FrameIndex) {
        let mut pieces = self.pieces();
        self.shared.inner.shrink(first);
        pieces.bytes.remove(&first.0);
    }

    fn watches_frames(&self) -> bool {
        self.shared.inner.watches_frames()
    }

    fn frames_claimed(&self, run: FrameRun) {
        self.shared.inner.frames_claimed(run);
    }

    fn frames_released(&self, run: FrameRun) {
        self.shared.inner.frames_released(run);
    }

    fn buffer(&self, run: FrameRun) -> Result<VulkanBuffer, DeviceError> {
        self.shared.inner.buffer(run)
    }

    fn reserve(&self, bytes: u64) -> Result<VulkanBuffer, DeviceError> {
        self.shared.inner.reserve(bytes)
    }

    fn in_place(&self, _: &Arc<ThrottledImport>) -> Result<VulkanBuffer, DeviceError> {
        Err(refused("work in place", self.profile.reasons[1].clone()))
    }

    fn address(&self, buffer: &VulkanBuffer) -> u64 {
        self.shared.inner.address(buffer)
    }

    fn import(&self, bytes: RawBytes) -> Result<ThrottledImport, DeviceError> {
        const OPERATION: &str = "import host memory";
        let (start, len) = (bytes.as_ptr() as u64, bytes.len() as u64);
        let Some(profile) = self.profile.import else {
            return Err(refused(OPERATION, "imports are switched off"));
        };
        if start % profile.alignment_bytes != 0 || len % profile.alignment_bytes != 0 || len == 0 {
            return Err(refused(OPERATION, format!("{start:#x}+{len:#x} is not in whole pages")));
        }
        if len > profile.piece_bytes_max {
            return Err(refused(
                OPERATION,
                format!("{len} bytes, at most {} go into one", profile.piece_bytes_max),
            ));
        }
        Ok(ThrottledImport { bytes })
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        let queued = self.shared.queues.push(role, submission);
        if let Err(DeviceError::Lost { .. }) = queued {
            self.shared.lose();
        }
        queued
    }

    fn completed(&self) -> Result<Uses, DeviceError> {
        self.shared.queues.completed("read the timelines")
    }

    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        self.shared.queues.wait(seen, timeout)
    }

    fn control(&self, bytes: u64, direction: Direction) -> Result<Control, DeviceError> {
        self.shared.inner.control(bytes, direction)
    }

    fn control_at(&self, control: &Control) -> (RawBytes, u64) {
        self.shared.inner.control_at(control)
    }

    fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        self.shared.inner.slot(direction, slot)
    }

    fn read_frames(&self, _: u64, _: RawBytes) -> Result<(), DeviceError> {
        Err(refused("read device memory", "the CPU does not reach memory behind the link"))
    }

    fn write_frames(&self, _: u64, _: RawBytes) -> Result<(), DeviceError> {
        Err(refused("write device memory", "the CPU does not reach memory behind the link"))
    }

    fn budget_bytes(&self) -> Option<u64> {
        self.shared.inner.budget_bytes()
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        self.shared.queues.end(false);
        for thread in self.threads.drain(..) {
            // A panic there was said on stderr, and whoever waited for its tickets has noticed.
            let _ = thread.join();
        }
    }
}
