//! FakeDevice: device memory as plain allocations, timelines as counters, kernels as closures.

mod control;

pub use control::DeviceCalls;

use super::address::Other;
use super::memory::Bytes;
use super::profile::profile;
use super::queue::{self, Job};
use super::sparse::{SparseBuffer, Tables, View};
use super::{FakeDeviceOptions, FakeExec, FakeImport, FakeSemaphore, locked, steps};
use crate::{
    BoundRange, Command, Device, DeviceError, DeviceProfile, Direction, Exec, RawBytes, Role, Signal,
    Submission,
};
use core::any::Any;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry, Timeline};
use vkhmm_core::uses::Uses;

/// What a fake kernel does: its bindings in order (empty ones have no bytes), its push constants, its groups.
type Body = dyn Fn(&[RawBytes], &[u8], [u32; 3]) + Send + Sync;

/// A kernel of a [`FakeDevice`]: a closure.
#[derive(Clone)]
pub struct FakeKernel(pub(super) Arc<Body>);

impl FakeKernel {
    /// A kernel that does `body`, given its bindings in order (a null descriptor is empty), its push constants and its groups.
    pub fn new(body: impl Fn(&[RawBytes], &[u8], [u32; 3]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(body))
    }

    /// Does it here and now, as the work of an application's own queue.
    pub fn run(&self, bindings: &[RawBytes], push: &[u8], groups: [u32; 3]) {
        (self.0)(bindings, push, groups);
    }
}

/// A buffer of a [`FakeDevice`].
pub struct FakeBuffer {
    pub(super) memory: Memory,
    address: u64,
    /// One handle for each buffer of the device.
    _alive: Arc<()>,
}

/// Control memory of a [`FakeDevice`].
pub struct FakeControl {
    memory: Arc<Bytes>,
    address: u64,
}

/// What is behind a buffer.
pub(super) enum Memory {
    /// Bytes, and what they live as long as: an arena piece, or an import.
    Run { bytes: RawBytes, _keeps: Arc<dyn Any + Send + Sync> },
    /// Whatever binds put there.
    Sparse(Arc<SparseBuffer>),
}

pub(super) struct Piece {
    pub(super) count: u32,
    pub(super) address: u64,
    pub(super) memory: Arc<Bytes>,
}

pub(super) struct State {
    pub(super) pieces: BTreeMap<u32, Piece>,
    address_next: u64,
    /// What else has device addresses, by the first.
    pub(super) others: BTreeMap<u64, Other>,
    /// Work not yet begun, by timeline.
    pub(super) queues: Vec<VecDeque<Job>>,
    /// Where they share one queue: whose turn it is, one entry per submission not yet begun.
    pub(super) line: VecDeque<Timeline>,
    pub(super) submitted: Uses,
    pub(super) completed: Uses,
    pub(super) lost: bool,
    pub(super) closed: bool,
    calls: DeviceCalls,
    fail_in: u64,
    /// What it says; `None`: what such a call usually fails with.
    fail_error: Option<DeviceError>,
    /// Calls that failed because they were told to.
    failed: Vec<&'static str>,
    lose_in: u64,
    /// Looks at the counters until one fails, and what it says then.
    look_fails: Option<(u64, DeviceError)>,
    /// No submission ends before.
    pub(super) stalled_until: u64,
}

pub(super) struct Shared<X: Exec> {
    pub(super) geometry: Geometry,
    pub(super) profile: DeviceProfile,
    pub(super) options: FakeDeviceOptions,
    pub(super) exec: X,
    slots: [Vec<Bytes>; 2],
    pub(super) sparse: Tables,
    /// As many handles as buffers, and this one.
    pub(super) alive: Arc<()>,
    /// Owns pieces, queues and counters · blocks on nothing · never held across a call of `exec` or of a kernel.
    pub(super) state: Mutex<State>,
    /// Passed at every submission, completion and loss.
    pub(super) changed: X::Signal,
}

/// The last handle closes the queues; what was submitted is still performed.
struct Handle<X: Exec>(Arc<Shared<X>>);

impl<X: Exec> Drop for Handle<X> {
    fn drop(&mut self) {
        locked(&self.0.state).closed = true;
        self.0.changed.notify();
    }
}

/// A device that is this machine's memory and one thread per timeline. Clones are handles of the same device.
///
/// Fresh memory is full of garbage (`0xDE`), as a real device's may be.
pub struct FakeDevice<X: Exec = FakeExec> {
    handle: Arc<Handle<X>>,
}

impl<X: Exec> Clone for FakeDevice<X> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl FakeDevice {
    /// A device on real threads.
    ///
    /// # Panics
    /// If the options ask for a number of timelines other than 1 or 3, or a thread cannot be started.
    pub fn new(geometry: Geometry, options: FakeDeviceOptions) -> Self {
        Self::with_exec(FakeExec::new(), geometry, options)
    }
}

impl<X: Exec> FakeDevice<X> {
    /// As `new`; its threads are `exec`'s.
    ///
    /// # Panics
    /// As `new`.
    pub fn with_exec(exec: X, geometry: Geometry, options: FakeDeviceOptions) -> Self {
        let profile = profile(geometry, &options);
        let state = State {
            pieces: BTreeMap::new(),
            address_next: 0x10_0000_0000,
            others: BTreeMap::new(),
            queues: (0..profile.timeline_count).map(|_| VecDeque::new()).collect(),
            line: VecDeque::new(),
            submitted: Uses::NONE,
            completed: Uses::NONE,
            lost: false,
            closed: false,
            calls: DeviceCalls::default(),
            fail_in: 0,
            fail_error: None,
            failed: Vec::new(),
            lose_in: 0,
            look_fails: None,
            stalled_until: 0,
        };
        let ring = || (0..options.staging_slots).map(|_| Bytes::new(geometry.block_bytes())).collect();
        let slots = [ring(), ring()];
        let changed = exec.signal();
        let (sparse, state) = (Tables::default(), Mutex::new(state));
        let alive = Arc::default();
        let shared =
            Arc::new(Shared { geometry, profile, options, exec, slots, sparse, alive, state, changed });
        for timeline in 0..shared.profile.timeline_count {
            let worker = Arc::clone(&shared);
            let body = Box::new(move || queue::run(&worker, Timeline(timeline)));
            shared.exec.spawn(&format!("queue{timeline}"), body).expect("a thread for each timeline");
        }
        Self { handle: Arc::new(Handle(shared)) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared<X>> {
        &self.handle.0
    }

    /// An application's own work on buffers, done now and here: sees what a kernel would see.
    ///
    /// # Panics
    /// If some of the bytes are not in their buffer, or nothing lies there.
    pub fn work_on(&self, parts: &[BoundRange<Self>], work: impl FnOnce(&[RawBytes])) {
        let bindings: Vec<_> = parts.iter().map(steps::bound).collect();
        let view = View::open(&bindings, self.shared().geometry.frame_bytes(), &[]);
        work(&view.bindings);
        view.close();
    }
}

impl<X: Exec> Shared<X> {
    pub(super) fn tell(&self, line: core::fmt::Arguments<'_>) {
        if let Some(watch) = &self.options.watch {
            watch(line);
        }
    }

    /// Performs one fallible call: tells, counts, fails or loses when it is its turn, then `f`.
    fn call<T>(
        &self,
        operation: &'static str,
        bytes: u64,
        detail: core::fmt::Arguments<'_>,
        f: impl FnOnce(&mut State) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.tell(format_args!("{operation} {detail}"));
        let mut state = locked(&self.state);
        if state.lose_in > 0 {
            state.lose_in -= 1;
            state.lost |= state.lose_in == 0;
        }
        if state.lost {
            drop(state);
            self.changed.notify();
            return Err(DeviceError::Lost { operation });
        }
        if state.fail_in > 0 {
            state.fail_in -= 1;
            if state.fail_in == 0 {
                state.failed.push(operation);
                let usual = match operation {
                    "grow" => DeviceError::OutOfDeviceMemory { operation, bytes },
                    _ => DeviceError::Refused { operation, message: "told to fail".to_owned() },
                };
                return Err(state.fail_error.take().unwrap_or(usual));
            }
        }
        f(&mut state)
    }
}

impl State {
    /// Device addresses for `bytes` bytes. With a gap, so that no two things are neighbours by address.
    fn take_addresses(&mut self, bytes: u64) -> u64 {
        let address = self.address_next;
        self.address_next += bytes.next_multiple_of(1 << 20) + (1 << 20);
        address
    }

    /// As [`Self::take_addresses`], for something that is found by them.
    fn addresses_of(&mut self, bytes: u64, other: Other) -> u64 {
        let address = self.take_addresses(bytes);
        self.others.insert(address, other);
        address
    }

    /// A look at the counters.
    fn look(&mut self, operation: &'static str) -> Result<(), DeviceError> {
        if self.lost {
            return Err(DeviceError::Lost { operation });
        }
        if let Some((left, error)) = &mut self.look_fails {
            *left -= 1;
            if *left == 0 {
                let error = error.clone();
                self.look_fails = None;
                self.failed.push(operation);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The device bytes at `offset`, with what keeps them.
    ///
    /// # Panics
    /// If they are not inside one piece.
    pub(super) fn frames(&self, geometry: Geometry, offset: u64, bytes: u64) -> (RawBytes, Arc<Bytes>) {
        let frame = u32::try_from(offset / geometry.frame_bytes()).expect("a frame index has 32 bits");
        let found = self.pieces.range(..=frame).next_back();
        let (first, piece) =
            found.unwrap_or_else(|| panic!("no arena piece holds device offset {offset:#x}"));
        let inside = offset - u64::from(*first) * geometry.frame_bytes();
        let length = u64::from(piece.count) * geometry.frame_bytes();
        assert!(
            inside + bytes <= length,
            "{bytes} bytes at device offset {offset:#x} are not inside the piece of {} frames at frame {first}",
            piece.count
        );
        (piece.memory.raw().slice(inside as usize, bytes as usize), Arc::clone(&piece.memory))
    }
}

impl<X: Exec> Device for FakeDevice<X> {
    type Kernel = FakeKernel;
    type Buffer = FakeBuffer;
    type Import = FakeImport;
    type Semaphore = FakeSemaphore;
    type Control = FakeControl;

    fn profile(&self) -> &DeviceProfile {
        &self.shared().profile
    }

    fn grow(&self, first: FrameIndex, count: u32) -> Result<u64, DeviceError> {
        let shared = self.shared();
        let bytes = u64::from(count) * shared.geometry.frame_bytes();
        shared.call("grow", bytes, format_args!("{}+{count}", first.0), |state| {
            let taken: u32 = state.pieces.values().map(|p| p.count).sum();
            if count > shared.options.piece_frames_max || count > shared.options.frames_max - taken {
                return Err(DeviceError::OutOfDeviceMemory { operation: "grow", bytes });
            }
            let end = u64::from(first.0) + u64::from(count);
            let free = |at: &u32, p: &Piece| u64::from(*at) >= end || at + p.count <= first.0;
            assert!(state.pieces.iter().all(|(at, p)| free(at, p)), "grow over frames that exist");
            let memory = Arc::new(Bytes::new(bytes));
            memory.raw().fill(0xDE);
            let address = state.take_addresses(bytes);
            state.calls.grow += 1;
            state.pieces.insert(first.0, Piece { count, address, memory });
            Ok(address)
        })
    }

    /// # Panics
    /// If there is no such piece, or a buffer over it or a submission that uses it exists.
    fn shrink(&self, first: FrameIndex) {
        let shared = self.shared();
        shared.tell(format_args!("shrink {}", first.0));
        let piece = locked(&shared.state).pieces.remove(&first.0).expect("shrink names a piece");
        assert_eq!(Arc::strong_count(&piece.memory), 1, "shrink of a piece in use");
    }

    fn buffer(&self, run: FrameRun) -> Result<FakeBuffer, DeviceError> {
        let shared = self.shared();
        let frame_bytes = shared.geometry.frame_bytes();
        let (offset, bytes) = (u64::from(run.first.0) * frame_bytes, u64::from(run.count) * frame_bytes);
        shared.call("buffer", bytes, format_args!("{}+{}", run.first.0, run.count), |state| {
            state.calls.buffer += 1;
            let (span, piece) = state.frames(shared.geometry, offset, bytes);
            let start = state.pieces.range(..=run.first.0).next_back().expect("`frames` found the piece").1;
            let address = start.address + (span.as_ptr() as u64 - piece.raw().as_ptr() as u64);
            Ok(FakeBuffer {
                memory: Memory::Run { bytes: span, _keeps: piece },
                address,
                _alive: Arc::clone(&shared.alive),
            })
        })
    }

    fn reserve(&self, bytes: u64) -> Result<FakeBuffer, DeviceError> {
        let shared = self.shared();
        shared.call("reserve", bytes, format_args!("{bytes} bytes"), |state| {
            let sparse = shared.profile.sparse.expect("reserve only where the profile allows");
            let whole = bytes > 0 && bytes % shared.geometry.frame_bytes() == 0;
            assert!(whole, "a sparse buffer of {bytes} bytes, which are no whole frames");
            assert!(
                bytes <= sparse.buffer_bytes_max,
                "a sparse buffer of {bytes} bytes, longer than the profile says"
            );
            let Some(buffer) = shared.sparse.reserve(bytes, sparse.space_bytes) else {
                return Err(DeviceError::OutOfDeviceMemory { operation: "reserve", bytes });
            };
            state.calls.reserve += 1;
            let address = state.addresses_of(bytes, Other::Sparse(Arc::downgrade(&buffer)));
            Ok(FakeBuffer { memory: Memory::Sparse(buffer), address, _alive: Arc::clone(&shared.alive) })
        })
    }

    fn in_place(&self, import: &Arc<FakeImport>) -> Result<FakeBuffer, DeviceError> {
        let shared = self.shared();
        let (bytes, max) = (import.bytes.len() as u64, shared.profile.in_place_bytes_max);
        assert!(
            max.is_some_and(|max| bytes <= max),
            "{bytes} bytes in place where the profile allows {max:?}"
        );
        shared.call("in_place", bytes, format_args!("{bytes} bytes"), |state| {
            state.calls.in_place += 1;
            let address = state.addresses_of(bytes, Other::InPlace(Arc::downgrade(import)));
            let keeps = Arc::<FakeImport>::clone(import);
            Ok(FakeBuffer {
                memory: Memory::Run { bytes: import.bytes, _keeps: keeps },
                address,
                _alive: Arc::clone(&shared.alive),
            })
        })
    }

    fn address(&self, buffer: &FakeBuffer) -> u64 {
        buffer.address
    }

    fn import(&self, bytes: RawBytes) -> Result<FakeImport, DeviceError> {
        let shared = self.shared();
        shared.call("import", bytes.len() as u64, format_args!("{} bytes", bytes.len()), |state| {
            let imports = shared.options.import.as_ref().expect("import only where the profile allows");
            state.calls.import += 1;
            Ok(imports.add(bytes))
        })
    }

    fn submit(&self, role: Role, submission: Submission<Self>) -> Result<(), DeviceError> {
        let shared = self.shared();
        let (signals, waits) = (submission.signals, submission.waits);
        for (semaphore, _) in &submission.foreign {
            let shared = Arc::downgrade(shared);
            semaphore.wakes(move || {
                shared.upgrade().is_some_and(|shared| {
                    shared.changed.notify();
                    true
                })
            });
        }
        let line = format_args!("{role:?} {}:{} after {}", signals.timeline.0, signals.value, Show(&waits));
        let result = shared.call("submit", 0, line, |state| {
            let timeline = shared.profile.timeline(role);
            assert_eq!(signals.timeline, timeline, "a submission signals the timeline of its role");
            assert_eq!(
                signals.value,
                state.submitted.on(timeline) + 1,
                "a submission signals the next value"
            );
            assert!(waits.done(&state.submitted), "a wait for {}, which nobody submitted", Show(&waits));
            assert_eq!(waits.on(timeline), 0, "a queue never waits for its own timeline");
            let binds = submission.commands.iter().any(|c| matches!(c, Command::Bind { .. }));
            let alone = role == Role::Bind && submission.commands.len() == 1;
            assert!(alone || !binds, "a bind is alone in a submission of the bind role");
            assert!(
                binds || role != Role::Bind || submission.commands.is_empty(),
                "the bind role only binds"
            );
            assert!(
                submission.foreign.is_empty() || role == Role::Release,
                "{role:?} waits for an application's work"
            );
            let (steps, pieces, tally) = steps::resolve(shared, state, &submission);
            state.calls.submit += 1;
            state.calls.bytes_in += tally.bytes_in;
            state.calls.bytes_out += tally.bytes_out;
            state.calls.barriers += tally.barriers;
            state.calls.dispatches += tally.dispatches;
            state.calls.binds += u64::from(binds);
            state.submitted.add(signals);
            let keeps = Box::new((pieces, submission.commands));
            let foreign = submission.foreign;
            state.queues[usize::from(timeline.0)].push_back(Job { waits, foreign, signals, steps, keeps });
            state.line.extend(shared.options.one_queue.then_some(timeline));
            Ok(())
        });
        shared.changed.notify();
        result
    }

    fn completed(&self) -> Result<Uses, DeviceError> {
        let mut state = locked(&self.shared().state);
        state.look("completed")?;
        Ok(state.completed)
    }

    fn wait(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        locked(&self.shared().state).calls.wait += 1;
        self.shared().wait_for_more(seen, timeout)
    }

    fn reach(&self, uses: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        let now = self.completed()?;
        if uses.done(&now) { Ok(()) } else { self.shared().wait_for_more(&now, timeout) }
    }

    fn control(&self, bytes: u64, direction: Direction) -> Result<FakeControl, DeviceError> {
        self.shared().call("control", bytes, format_args!("{direction:?} {bytes} bytes"), |state| {
            state.calls.control += 1;
            let memory = Arc::new(Bytes::new(bytes));
            let address = state.addresses_of(bytes, Other::Control(Arc::downgrade(&memory)));
            Ok(FakeControl { memory, address })
        })
    }

    fn control_at(&self, control: &FakeControl) -> (RawBytes, u64) {
        (control.memory.raw(), control.address)
    }

    fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        self.shared().slot(direction, slot)
    }

    fn read_frames(&self, device_offset: u64, to: RawBytes) -> Result<(), DeviceError> {
        let from = self.shared().cpu("read_frames", device_offset, to.len())?;
        to.copy_from(from.raw());
        Ok(())
    }

    fn frames_at(&self, first: FrameIndex) -> Option<RawBytes> {
        let pieces = &locked(&self.shared().state).pieces;
        let piece = pieces.get(&first.0).filter(|_| self.shared().profile.memory.cpu_reads);
        piece.map(|piece| piece.memory.raw())
    }

    fn write_frames(&self, device_offset: u64, from: RawBytes) -> Result<(), DeviceError> {
        let to = self.shared().cpu("write_frames", device_offset, from.len())?;
        to.raw().copy_from(from);
        Ok(())
    }

    fn budget_bytes(&self) -> Option<u64> {
        Some(u64::from(self.shared().options.frames_max) * self.shared().geometry.frame_bytes())
    }
}

impl<X: Exec> Shared<X> {
    fn wait_for_more(&self, seen: &Uses, timeout: Duration) -> Result<(), DeviceError> {
        locked(&self.state).look("wait")?;
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let end = self.exec.now().saturating_add(timeout_ns);
        loop {
            let epoch = self.changed.epoch();
            {
                let state = locked(&self.state);
                if state.lost {
                    return Err(DeviceError::Lost { operation: "wait" });
                }
                if !state.completed.done(seen) {
                    return Ok(());
                }
            }
            let now = self.exec.now();
            if now >= end {
                return Ok(());
            }
            self.changed.wait(epoch, Some(Duration::from_nanos(end - now)));
        }
    }

    pub(super) fn slot(&self, direction: Direction, slot: u32) -> RawBytes {
        let ring = &self.slots[match direction {
            Direction::In => 0,
            Direction::Out => 1,
        }];
        ring.get(slot as usize).unwrap_or_else(|| panic!("no staging slot {slot} of {}", ring.len())).raw()
    }

    fn cpu(&self, operation: &'static str, offset: u64, bytes: usize) -> Result<Span, DeviceError> {
        let memory = self.profile.memory;
        let allowed = if operation == "read_frames" { memory.cpu_reads } else { memory.cpu_writes };
        assert!(allowed, "{operation} on memory that the CPU cannot reach");
        self.call(operation, bytes as u64, format_args!("{offset:#x}+{bytes}"), |state| {
            state.calls.frames += 1;
            let (span, memory) = state.frames(self.geometry, offset, bytes as u64);
            Ok(Span { span, _memory: memory })
        })
    }
}

/// Device bytes and what keeps them.
struct Span {
    span: RawBytes,
    _memory: Arc<Bytes>,
}

impl Span {
    fn raw(&self) -> RawBytes {
        self.span
    }
}

/// Uses as text: `0:3 2:1`.
pub(super) struct Show<'a>(pub(super) &'a Uses);

impl core::fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for ticket in self.0.iter() {
            write!(f, "{}:{} ", ticket.timeline.0, ticket.value)?;
        }
        if self.0.is_none() { f.write_str("nothing") } else { Ok(()) }
    }
}
