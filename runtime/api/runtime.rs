//! The runtime: one handle over host memory, device and engine. Cheap to clone; no globals.

use crate::doctor::Doctor;
use crate::error::Error;
use crate::kernels::Module;
use crate::launch::TIMEOUT_MAX;
use crate::managed::Managed;
use crate::ports::{Engine, Range};
use crate::record::Recorder;
use crate::{Builder, Kernel, KernelBuilder, MemoryError, Result, Stats, TraceEvent, Waits, Windows};
use bytemuck::Pod;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use vkhmm_core::pagemap::{PageFlags, Pagemap, PagemapId};
use vkhmm_port::{FaultMode, HostMemory};

/// What all handles share. Dropping the last one stops the engine's threads once they are out of work; nothing is joined.
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) declared: bool,
    pub(crate) doctor: Doctor,
    pub(crate) record: Option<Recorder>,
    /// The kernels behind `vkhmm::kernels`, as far as they were used.
    pub(crate) shipped: [OnceLock<Kernel>; Module::COUNT],
}

impl Inner {
    pub(crate) fn new(engine: Arc<Engine>, doctor: Doctor, record: Option<Recorder>) -> Self {
        let declared = engine.host().profile().faults == FaultMode::Declared;
        Self { engine, declared, doctor, record, shipped: [const { OnceLock::new() }; Module::COUNT] }
    }
}

impl Inner {
    /// Whether this is the process that made the runtime. In a forked child calls that cannot fail answer as if nothing was
    /// there: another thread may have held any lock when the child was made.
    pub(crate) fn owned(&self) -> bool {
        self.engine.host().owned()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// A heterogeneous memory runtime: memory that host and device share, and kernels that work on it.
///
/// Several runtimes may live in one process; their memory does not mix. In a child made by `fork` every call returns
/// [`MemoryError::ForkedChild`], and dropping handles does nothing.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

/// How the engine makes a range of so many bytes with a label.
type Make = fn(&Engine, u64, &str) -> Result<Arc<Range>, MemoryError>;

impl Runtime {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Settings, all with sensible defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Allocates `count` elements, all zero. No host or device memory is taken until they are touched. An empty or zero-sized
    /// allocation is an empty slice. Each allocation takes whole 2 MiB blocks of address space.
    ///
    /// # Errors
    /// `Layout` if the size overflows or the alignment is above 2 MiB; `OutOfAddressSpace`; `ForkedChild`.
    #[track_caller]
    pub fn alloc<T: Pod>(&self, count: usize) -> Result<Managed<T>> {
        let place = Location::caller();
        self.alloc_named(count, &format!("{}:{}", place.file(), place.line()))
    }

    /// Like [`Runtime::alloc`], with a label for reports and errors.
    ///
    /// # Errors
    /// As [`Runtime::alloc`].
    pub fn alloc_named<T: Pod>(&self, count: usize, label: &str) -> Result<Managed<T>> {
        self.allocate(count, label, Engine::alloc)
    }

    /// Like [`Runtime::alloc`], for memory whose device address never changes while it lives: whatever is evicted and comes
    /// back, a kernel finds it at the address that it had in its first launch, and descriptors can be written once. So it is
    /// [`crate::PlacementKind::Sparse`] or [`crate::PlacementKind::InPlace`].
    ///
    /// # Errors
    /// As [`Runtime::alloc`]; `NotStable`, with what stands against it: the device has no sparse buffers that can be used, spans
    /// were asked for, or the device's sparse address space is used up.
    #[track_caller]
    pub fn alloc_stable<T: Pod>(&self, count: usize) -> Result<Managed<T>> {
        let place = Location::caller();
        self.alloc_stable_named(count, &format!("{}:{}", place.file(), place.line()))
    }

    /// Like [`Runtime::alloc_stable`], with a label for reports and errors.
    ///
    /// # Errors
    /// As [`Runtime::alloc_stable`].
    pub fn alloc_stable_named<T: Pod>(&self, count: usize, label: &str) -> Result<Managed<T>> {
        self.allocate(count, label, Engine::alloc_stable)
    }

    fn allocate<T: Pod>(&self, count: usize, label: &str, make: Make) -> Result<Managed<T>> {
        let limit = self.inner.engine.host().profile().reservation_bytes;
        let (size, align) = (size_of::<T>(), align_of::<T>());
        let layout = || Error::Layout { count, size, align, limit };
        let bytes = count.checked_mul(size).filter(|b| isize::try_from(*b).is_ok()).ok_or_else(layout)?;
        if align > 2 << 20 || bytes as u64 > limit {
            return Err(layout());
        }
        let range = if bytes == 0 { None } else { Some(make(&self.inner.engine, bytes as u64, label)?) };
        Ok(Managed::new(Arc::clone(&self.inner), range, count))
    }

    /// Makes a kernel from the only entry point of a SPIR-V module.
    ///
    /// # Errors
    /// The module cannot be read, needs what the device lacks, or has descriptors other than storage buffers; each is named.
    ///
    /// # Safety
    /// The module is valid SPIR-V; and for every launch whose arguments pass the checks of [`Runtime::launch`] the kernel
    /// terminates, has no data race, reads only what it is given, and writes only what it is given as `write` or `overwrite`.
    /// (Accesses through bindings are kept inside their bytes by `robustBufferAccess2` where the device has it; device
    /// addresses are never checked.)
    pub unsafe fn kernel(&self, spirv: impl AsRef<[u8]>) -> Result<Kernel> {
        // SAFETY: the caller's contract is the builder's.
        unsafe { self.kernel_builder(spirv).build() }
    }

    /// Like [`Runtime::kernel`], with entry point, specialisation constants, subgroup size and name to choose.
    pub fn kernel_builder(&self, spirv: impl AsRef<[u8]>) -> KernelBuilder {
        KernelBuilder::new(self.clone(), spirv.as_ref())
    }

    /// Ranges that cut `len` items so that `depth` windows of them fit the device memory limit at once, when the arrays of one
    /// window take `bytes_per_item` bytes per item together. Launches in such a loop overlap copies in, kernels and copies out.
    /// Every window but the last starts and ends on whole frames of each array.
    pub fn windows(&self, len: usize, bytes_per_item: usize, depth: usize) -> Windows {
        Windows::new(len, bytes_per_item, depth, self.device_memory().0)
    }

    /// Submits what is recorded and not yet submitted. Never needed for correctness.
    pub fn flush(&self) {
        if self.inner.owned() {
            self.inner.engine.flush();
        }
    }

    /// Waits for everything launched before.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn sync(&self) -> Result<()> {
        Ok(self.inner.engine.sync()?)
    }

    /// What has happened since the runtime was built.
    pub fn stats(&self) -> Stats {
        self.inner.engine.stats()
    }

    /// Who waited for what, longest first: allocations (touches, guards, slices) and kernels (admission, `Launch::wait`).
    pub fn waits(&self) -> Vec<Waits> {
        self.inner.engine.waits()
    }

    /// The last events with their causes, oldest first.
    pub fn trace_events(&self) -> Vec<TraceEvent> {
        if self.inner.owned() { self.inner.engine.trace_events() } else { Vec::new() }
    }

    /// What is going on right now, in words: every open operation with its age, the queues, who is in which call, and every block
    /// that something uses. For whoever wonders why something waits: a wait of over 10 s (`VKHMM_WATCHDOG`) prints the same by
    /// itself. Takes no lock that anybody holds, so it answers also when everything hangs.
    pub fn report(&self) -> String {
        if self.inner.owned() { self.inner.engine.report() } else { "a forked child runs nothing".into() }
    }

    /// [`Runtime::report`] for a thread that watches over others: it does not keep the runtime alive, and says nothing once its
    /// last thread is gone.
    pub fn reporter(&self) -> impl Fn() -> Option<String> + Send + Sync + 'static {
        let engine = Arc::downgrade(&self.inner.engine);
        move || engine.upgrade().filter(|engine| engine.host().owned()).map(|engine| engine.report())
    }

    /// What was chosen and why, in words.
    pub fn doctor(&self) -> &Doctor {
        &self.inner.doctor
    }

    /// Device memory: (limit, bytes that spans own now).
    pub fn device_memory(&self) -> (u64, u64) {
        if self.inner.owned() { self.inner.engine.device_memory() } else { (self.inner.doctor.limit, 0) }
    }

    /// Sets how many bytes of device memory frames may take; evicts what is above. Returns the bytes evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn set_device_memory_limit(&self, bytes: u64) -> Result<u64> {
        Ok(self.inner.engine.set_device_memory_limit(bytes)?)
    }

    /// Evicts at least `bytes` of device memory if that much can be, the cheapest first. Returns the bytes evicted.
    ///
    /// # Errors
    /// `DeviceLost`, `ForkedChild`.
    pub fn trim(&self, bytes: u64) -> Result<u64> {
        Ok(self.inner.engine.trim(bytes)?)
    }

    /// The registered pagemaps, live and dying.
    pub fn pagemaps(&self) -> Vec<Pagemap> {
        if self.inner.owned() { self.inner.engine.pagemaps() } else { Vec::new() }
    }

    /// The pagemap that owns a device address.
    pub fn find_pagemap(&self, device_address: u64) -> Option<Pagemap> {
        if self.inner.owned() { self.inner.engine.find_pagemap(device_address) } else { None }
    }

    /// No frame of this pagemap is handed out any more; launches fail with `NoPagemap` from now on.
    ///
    /// # Errors
    /// The pagemap is unknown; `ForkedChild`.
    pub fn kill_pagemap(&self, id: PagemapId) -> Result<()> {
        Ok(self.inner.engine.kill_pagemap(id)?)
    }

    /// Takes a killed pagemap down: its pages come home; waits up to `patience` for the last use of its frames.
    ///
    /// # Errors
    /// The pagemap is live or unknown, or still referenced after `patience`; `DeviceLost`, `ForkedChild`.
    pub fn unregister_pagemap(&self, id: PagemapId, patience: Duration) -> Result<()> {
        Ok(self.inner.engine.unregister_pagemap(id, patience.min(TIMEOUT_MAX))?)
    }

    /// The descriptor of the page that holds a managed address, or `None` for any other address. Faults nothing in.
    pub fn page_flags<T>(&self, address: *const T) -> Option<PageFlags> {
        if !self.inner.owned() {
            return None;
        }
        let (range, offset) = self.inner.engine.find(address.addr())?;
        Some(self.inner.engine.page_flags(&range, offset))
    }

    /// Whether the CPU can load and store the page at `address` where it is: true for every address that is not managed, and for
    /// managed pages whose bytes are on the host; in a forked child for no managed page. Total: every address has an answer.
    pub fn is_addressable<T>(&self, address: *const T) -> bool {
        self.page_flags(address).is_none_or(|flags| {
            flags.contains(PageFlags::HOST_VALID) || flags.location() == crate::Location::Absent
        })
    }

    /// Messages of the validation layers, if the runtime was built with them. Any message is a bug of vkhmm, or of a kernel.
    pub fn validation_messages(&self) -> Vec<String> {
        if self.inner.owned() { self.inner.engine.device().validation_messages() } else { Vec::new() }
    }

    /// Number of calls of host memory so far, by kind or of all kinds; [`crate::HostSwitches`] fail the n-th. Zero without any.
    pub fn host_calls(&self, call: Option<crate::HostCall>) -> u64 {
        self.inner.engine.host().trouble().map_or(0, |trouble| trouble.calls(call))
    }

    /// Number of device calls so far; [`crate::Switches`] fail the n-th.
    pub fn device_calls(&self) -> u64 {
        self.inner.engine.device().calls()
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("device_memory", &self.device_memory()).finish_non_exhaustive()
    }
}

/// Frees a range when its owner goes. Never blocks; does nothing in a forked child.
pub(crate) struct Owned {
    pub(crate) inner: Arc<Inner>,
    pub(crate) range: Arc<Range>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.inner.engine.free(&self.range);
    }
}

/// Panics with what a slice cannot return: lost bytes, or no host memory for them. In a forked child the touch itself is SIGSEGV.
pub(crate) fn slice_failed(error: &MemoryError) {
    if !matches!(error, MemoryError::ForkedChild) {
        panic!("a managed slice cannot be read: {error}; try_slice returns this as an error");
    }
}
