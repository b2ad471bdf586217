//! A device under validation for one test: any message of the layer fails it, also those of its teardown.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod paging;

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use vkhmm_core::units::Ticket;
use vkhmm_core::uses::Uses;
use vkhmm_port::{Command, Device, RawBytes, Region, Role, Submission};
use vkhmm_vulkan::{Config, KernelOptions, ValidationLog, VulkanDevice, VulkanKernel};

/// Bytes of one frame.
pub(crate) const FRAME: u64 = 64 << 10;
/// How long a test waits for the device: lavapipe compiles kernels at their first run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Host memory as the runtime has it: a memfd, mapped twice. `alias` is what the device may import.
pub(crate) struct Host {
    alias: memmap2::MmapRaw,
    view: memmap2::MmapRaw,
}

impl Host {
    pub(crate) fn new(bytes: usize) -> Self {
        let file =
            rustix::fs::memfd_create("vkhmm-test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd_create");
        let file = std::fs::File::from(file);
        file.set_len(bytes as u64).expect("ftruncate");
        let map = || memmap2::MmapOptions::new().len(bytes).map_raw(&file).expect("mmap");
        Self { alias: map(), view: map() }
    }

    /// The alias A. `self` must outlive its use.
    pub(crate) fn alias(&self) -> RawBytes {
        Self::raw(&self.alias)
    }

    /// The other mapping of the same memory.
    pub(crate) fn view(&self) -> RawBytes {
        Self::raw(&self.view)
    }

    fn raw(map: &memmap2::MmapRaw) -> RawBytes {
        // SAFETY: RawBytes::new: the mapping is readable, writable and lives as long as `self`, which the tests keep; no
        // reference to it is made.
        unsafe { RawBytes::new(NonNull::new(map.as_mut_ptr()).expect("a mapping is not at zero"), map.len()) }
    }
}

/// A device, the next value of each of its timelines, and its messages.
pub(crate) struct Rig {
    device: Option<Arc<VulkanDevice>>,
    next: [u64; Uses::TIMELINES_MAX],
    log: ValidationLog,
    /// What the probe imported; dropped after the device.
    pub(crate) host: Host,
}

impl Rig {
    /// Opens with validation on, after `edit`; imports are probed with a memfd alias.
    pub(crate) fn open(edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { validation: true, ..Config::default() };
        edit(&mut config);
        let host = Host::new(16 << 20);
        let device = match VulkanDevice::open(config, Some(host.alias().slice(0, 2 << 20))) {
            Ok(device) => device,
            Err(e) => panic!("these tests need a Vulkan driver and the validation layer: {e}"),
        };
        let log = device.validation_log();
        Self { device: Some(Arc::new(device)), next: [0; Uses::TIMELINES_MAX], log, host }
    }

    pub(crate) fn device(&self) -> &Arc<VulkanDevice> {
        self.device.as_ref().expect("open until dropped")
    }

    /// Submits after `waits`; the ticket.
    pub(crate) fn submit(&mut self, role: Role, waits: Uses, commands: Vec<Command<VulkanDevice>>) -> Ticket {
        let timeline = self.device().profile().timeline(role);
        let next = &mut self.next[usize::from(timeline.0)];
        *next += 1;
        let signals = Ticket { timeline, value: *next };
        self.device()
            .submit(role, Submission { waits, foreign: Vec::new(), commands, signals })
            .expect("submit");
        signals
    }

    /// Waits until `ticket` is reached.
    pub(crate) fn wait(&self, ticket: Ticket) {
        let mut need = Uses::NONE;
        need.add(ticket);
        let start = std::time::Instant::now();
        loop {
            let have = self.device().completed().expect("completed");
            if need.done(&have) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{ticket:?} is not reached, only {have:?}");
            self.device().wait(&have, Duration::from_secs(1)).expect("wait");
        }
    }

    /// Submits and waits.
    pub(crate) fn run(&mut self, role: Role, commands: Vec<Command<VulkanDevice>>) {
        let ticket = self.submit(role, Uses::NONE, commands);
        self.wait(ticket);
    }

    /// Brings `bytes` to the device through staging slot 0.
    pub(crate) fn upload(&mut self, device_offset: u64, bytes: &[u8]) {
        self.device().slot(vkhmm_port::Direction::In, 0).slice(0, bytes.len()).write(bytes);
        let regions = vec![Region { host_offset: 0, device_offset, bytes: bytes.len() as u64 }];
        self.run(Role::CopyIn, vec![Command::CopyIn { source: vkhmm_port::Source::Slot(0), regions }]);
    }

    /// Reads `len` bytes back through staging slot 0.
    pub(crate) fn download(&mut self, device_offset: u64, len: usize) -> Vec<u8> {
        let regions = vec![Region { host_offset: 0, device_offset, bytes: len as u64 }];
        self.run(Role::CopyOut, vec![Command::CopyOut { target: vkhmm_port::Target::Slot(0), regions }]);
        self.device().slot(vkhmm_port::Direction::Out, 0).slice(0, len).to_vec()
    }

    /// A kernel of `tests/kernels`.
    pub(crate) fn kernel(&self, name: &str, options: KernelOptions) -> Arc<VulkanKernel> {
        self.device().kernel(&words(name), options).expect("a kernel of these tests")
    }

    /// Whether imports cannot be tested here. Only drivers named here may be without; the reason is printed.
    pub(crate) fn without_imports(&self) -> bool {
        let (profile, report) = (self.device().profile(), self.device().report());
        if profile.import.is_some() {
            return false;
        }
        assert!(profile.name.contains("SwiftShader"), "{}: imports are {}", profile.name, report.import);
        exempt("SwiftShader", &format!("imports are {}", report.import));
        true
    }

    /// The layer's messages so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.log.messages()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.device = None;
        if !std::thread::panicking() {
            assert!(self.log.count() as usize <= ValidationLog::KEPT, "more messages than are kept");
            let messages = unexpected(self.log.messages());
            assert!(messages.is_empty(), "validation: {messages:#?}");
        }
    }
}

/// Whether the frame guard cannot be tested here: a card's own accesses do not pass the CPU's page tables.
pub(crate) fn without_guard() -> bool {
    let rig = Rig::open(|_| {});
    let report = rig.device().report();
    let device = &report.candidates[report.chosen];
    let software = device.kind == "software";
    if !software {
        exempt(&device.name, "the frame guard is for software devices");
    }
    !software
}

/// Says what a driver is excused from, and why; `./x test` repeats it.
pub(crate) fn exempt(driver: &str, why: &str) {
    println!("exempt: {driver}: {why}");
}

/// The layer's messages but for those that a driver's own defect earns.
pub(crate) fn unexpected(messages: Vec<String>) -> Vec<String> {
    // The texts name zeros, which no other driver reports.
    let zeros = ["maxMemoryAllocationSize (0)", "maxTimelineSemaphoreValueDifference (0)"];
    let (known, unexpected): (Vec<String>, Vec<String>) =
        messages.into_iter().partition(|m| zeros.iter().any(|zero| m.contains(zero)));
    if !known.is_empty() {
        exempt("mock", "it reports zero for two limits, which the layer takes at its word");
    }
    unexpected
}

/// The committed SPIR-V of `tests/kernels/NAME.comp`.
pub(crate) fn words(name: &str) -> Vec<u32> {
    let path = format!("{}/tests/kernels/{name}.spv", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

/// A place for a dispatch's time.
pub(crate) fn clock() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(0))
}

/// Bytes that differ at every place and for every seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed) >> 48) as u8).collect()
}
