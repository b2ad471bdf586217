//! Ports that do nothing: what an engine over them costs is the engine. The device says that work is done when it is told to.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use vkhmm_core::pagemap::{MemoryKind, PagemapFlags};
use vkhmm_core::units::{ByteRange, FrameIndex, FrameRun, Geometry, PageRun, Timeline};
use vkhmm_core::uses::Uses;
use vkhmm_engine::Ports;
use vkhmm_linux::LinuxExec;
use vkhmm_port::{
    Access, Device, DeviceError, DeviceProfile, Direction, FaultMode, HostError, HostMemory, HostProfile,
    ImportProfile, MemoryKindProfile, RawBytes, Role, StagingProfile, Submission,
};

const GEOMETRY: Geometry = Geometry::PRODUCTION;

/// Real locks and threads over no memory and no device.
pub(crate) struct NoPorts;

impl Ports for NoPorts {
    type Exec = LinuxExec;
    type Host = NoHost;
    type Device = NoDevice;
}

/// A reservation that nobody touches. A few bytes stand for all of A: nothing is copied.
pub(crate) struct NoHost {
    profile: HostProfile,
    bytes: RawBytes,
}

impl NoHost {
    pub(crate) fn new(reservation_bytes: u64) -> Self {
        let profile = HostProfile {
            engine: "none",
            faults: FaultMode::Full,
            reservation_bytes,
            map_granule_bytes: GEOMETRY.page_bytes,
            publish_read_only: true,
            protect: true,
        };
        let bytes = Box::leak(vec![0_u8; 2 << 20].into_boxed_slice());
        // SAFETY: RawBytes::new: leaked, so it is there for good, and no reference to it is kept.
        let bytes = unsafe { RawBytes::new(core::ptr::NonNull::from(&mut *bytes).cast(), bytes.len()) };
        Self { profile, bytes }
    }
}

impl HostMemory for NoHost {
    fn profile(&self) -> &HostProfile {
        &self.profile
    }
    fn base(&self) -> usize {
        1 << 40
    }
    fn owned(&self) -> bool {
        true
    }
    fn alias(&self, range: ByteRange) -> RawBytes {
        self.bytes.slice(0, range.len() as usize)
    }
    fn populate(&self, _: PageRun) -> Result<(), HostError> {
        Ok(())
    }
    fn revoke(&self, _: PageRun) -> Result<(), HostError> {
        Ok(())
    }
    fn protect(&self, _: PageRun) -> Result<(), HostError> {
        Ok(())
    }
    fn publish(&self, _: PageRun, _: Access) -> Result<(), HostError> {
        Ok(())
    }
    fn poison(&self, _: PageRun) -> Result<(), HostError> {
        Ok(())
    }
    fn punch(&self, _: PageRun) -> Result<(), HostError> {
        Ok(())
    }
}

/// Owns the counters · blocks on nothing but whoever waits for completions.
#[derive(Default)]
struct State {
    submitted: Uses,
    completed: Uses,
    held: bool,
}

/// A device without memory or queues.
pub(crate) struct NoDevice {
    profile: DeviceProfile,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl NoDevice {
    pub(crate) fn new() -> Self {
        let flags = PagemapFlags::UNADDRESSABLE | PagemapFlags::DEVICE_MEMORY;
        let memory =
            MemoryKindProfile { kind: MemoryKind::DevicePrivate, flags, cpu_reads: false, cpu_writes: false };
        let import = ImportProfile { alignment_bytes: 4096, piece_bytes_max: 512 << 20 };
        let profile = DeviceProfile {
            name: "none".into(),
            memory,
            timelines: [0, 1, 2, 3, 4, 5].map(Timeline),
            timeline_count: 6,
            limit_bytes_default: 1 << 40,
            piece_bytes_max: 1 << 40,
            staging: StagingProfile { slots: 1, slot_bytes: GEOMETRY.block_bytes() },
            import: Some(import),
            sparse: None,
            in_place_bytes_max: Some(1 << 20),
            reasons: ["none".into(), "none".into()],
            queue_is_shared: false,
            regions_max: 256,
            inline_copy_bytes: 1 << 20,
            groups_max: [65_535; 3],
            binding_bytes_max: 1 << 40,
            binding_alignment_bytes: 4,
        };
        Self { profile, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is done from now on; if not, everything is.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.state();
        state.held = held;
        if !held {
            state.completed = state.submitted;
            self.state.1.notify_all();
        }
    }
}

impl Device for NoDevice {
    type Kernel = ();
    type Buffer = ();
    type Import = ();
    type Semaphore = ();
    type Control = ();

    fn profile(&self) -> &DeviceProfile {
        &self.profile
    }
    fn grow(&self, first: FrameIndex, _: u32) -> Result<u64, DeviceError> {
        Ok((u64::from(first.0) + 1) << 32)
    }
    fn shrink(&self, _: FrameIndex) {}
    fn buffer(&self, _: FrameRun) -> Result<(), DeviceError> {
        Ok(())
    }
    fn reserve(&self, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
    fn in_place(&self, _: &Arc<()>) -> Result<(), DeviceError> {
        Ok(())
    }
    fn address(&self, _: &()) -> u64 {
        1 << 32
    }
    fn import(&self, _: RawBytes) -> Result<(), DeviceError> {
        Ok(())
    }
    fn submit(&self, _: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        let mut state = self.state();
        state.submitted.add(submission.signals);
        if !state.held {
            state.completed.add(submission.signals);
            self.state.1.notify_all();
        }
        Ok(())
    }
    fn completed(&self) -> Result<Uses, DeviceError> {
        Ok(self.state().completed)
    }
    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let state = self.state();
        let done = |state: &mut State| state.completed == *seen;
        drop(self.state.1.wait_timeout_while(state, timeout, done).unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
    fn control(&self, _: u64, _: Direction) -> Result<(), DeviceError> {
        unreachable!("no launch is paged")
    }
    fn control_at(&self, (): &()) -> (RawBytes, u64) {
        unreachable!("no launch is paged")
    }
    fn slot(&self, _: Direction, _: u32) -> RawBytes {
        unreachable!("nothing is staged")
    }
    fn read_frames(&self, _: u64, _: RawBytes) -> Result<(), DeviceError> {
        unreachable!("the CPU does not reach frames")
    }
    fn write_frames(&self, _: u64, _: RawBytes) -> Result<(), DeviceError> {
        unreachable!("the CPU does not reach frames")
    }
    fn budget_bytes(&self) -> Option<u64> {
        None
    }
}
