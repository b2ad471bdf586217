//! An engine over host memory, real faults and the throttled device: what tests and benches work with.

use crate::device::{Options, Throttled};
use crate::kernel::ThrottledKernel;
use crate::link::Link;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Argument, BindTo, Config, Engine, EngineError, LaunchSpec, Op, RangeCell};
use vkhmm_linux::{LinuxExec, LinuxHost};
use vkhmm_port::HostMemory;
use vkhmm_vulkan::ValidationLog;

/// The real system, and the throttled device.
pub enum Ports {}

impl vkhmm_engine::Ports for Ports {
    type Exec = LinuxExec;
    type Host = LinuxHost;
    type Device = Throttled;
}

/// An allocation.
pub type Array = Arc<RangeCell<Ports>>;
/// A launch on its way.
pub type Operation = Arc<Op<Ports>>;

/// How long nothing may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Address space of one rig.
const RESERVATION_BYTES: u64 = 4 << 30;

/// A running engine. Dropping it ends the engine, then the device, and waits for both.
pub struct Rig {
    engine: Option<Arc<Engine<Ports>>>,
    device: Arc<Throttled>,
}

impl Rig {
    /// Opens all of it: the device as `device` says behind `link`, with at most `limit_bytes` for frames.
    ///
    /// # Errors
    /// No usable device or fault engine; no threads.
    pub fn open(
        device: vkhmm_vulkan::Config,
        link: Link,
        options: Options,
        limit_bytes: u64,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let host = vkhmm_linux::Config { reservation_bytes: Some(RESERVATION_BYTES), ..Default::default() };
        let opened = vkhmm_linux::open(&host)?;
        let device = Arc::new(Throttled::open(device, link, options)?);
        let config = Config { device_memory_limit: Some(limit_bytes), strict_io: false, ..Config::default() };
        let engine = Engine::new(LinuxExec::new(), opened.host, Arc::clone(&device), config);
        engine.start(opened.source)?;
        Ok(Self { engine: Some(engine), device })
    }

    /// The engine.
    ///
    /// # Panics
    /// Never: it is there until the rig is dropped.
    pub fn engine(&self) -> &Arc<Engine<Ports>> {
        self.engine.as_ref().expect("there until dropped")
    }

    /// The device.
    pub fn device(&self) -> &Arc<Throttled> {
        &self.device
    }

    /// The validation layer's messages, for longer than the rig lives.
    pub fn validation_log(&self) -> ValidationLog {
        self.device.validation_log()
    }

    /// `bytes` bytes, all zero.
    ///
    /// # Errors
    /// No address space.
    pub fn alloc(&self, bytes: u64, label: &str) -> Result<Array, EngineError> {
        self.engine().alloc(bytes, label)
    }

    /// Launches `kernel` on parts of arrays.
    ///
    /// # Errors
    /// As of [`Engine::launch`].
    pub fn launch(
        &self,
        kernel: &Arc<ThrottledKernel>,
        push: &[u8],
        arguments: &[(&Array, core::ops::Range<u64>, AccessKind)],
    ) -> Result<Operation, EngineError> {
        let argument = |(array, bytes, access): &(&Array, core::ops::Range<u64>, AccessKind)| Argument {
            range: Some(Arc::clone(array)),
            bytes: ByteRange::from(bytes.clone()),
            access: *access,
            bind: BindTo::Binding,
        };
        self.engine().launch(LaunchSpec {
            kernel: Some(Arc::clone(kernel)),
            groups: [1; 3],
            arguments: arguments.iter().map(argument).collect(),
            push: push.to_vec(),
            label: "kernel".into(),
        })
    }

    /// Waits until `operation` is over.
    ///
    /// # Errors
    /// `DeviceLost`.
    ///
    /// # Panics
    /// If that takes a minute.
    pub fn wait(&self, operation: &Operation) -> Result<(), EngineError> {
        assert!(self.engine().wait(operation, Some(PATIENCE))?, "not over within {PATIENCE:?}");
        Ok(())
    }

    fn word(&self, array: &Array, offset: u64) -> *mut u32 {
        assert!(offset % 4 == 0 && offset < array.bytes(), "word at {offset} of {} bytes", array.bytes());
        (self.engine().host().base() + (array.offset() + offset) as usize) as *mut u32
    }

    /// Loads the word at `offset` bytes, as an application does: the page comes if it is away.
    ///
    /// # Panics
    /// If it is not inside, or not aligned.
    pub fn load(&self, array: &Array, offset: u64) -> u32 {
        // SAFETY: read_volatile: inside the live allocation (asserted; `array` keeps it) and aligned; any bits are a u32.
        unsafe { self.word(array, offset).read_volatile() }
    }

    /// Stores the word at `offset` bytes, as an application does.
    ///
    /// # Panics
    /// If it is not inside, or not aligned.
    pub fn store(&self, array: &Array, offset: u64, value: u32) {
        // SAFETY: write_volatile: as for `load`; launches that use the word end before or begin after (order law).
        unsafe { self.word(array, offset).write_volatile(value) }
    }

    /// Stores one word into each page, so that each is there and told apart.
    pub fn touch_all(&self, array: &Array, seed: u32) {
        (0..array.bytes()).step_by(4096).for_each(|at| self.store(array, at, seed.wrapping_add(at as u32)));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
        // The engine goes with its last thread; then the device is this rig's alone, and goes at the end of this drop.
        let start = Instant::now();
        while Arc::strong_count(&self.device) > 1 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
