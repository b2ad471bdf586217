//! The contract of Device: [`memory`], pieces and what the CPU may do; [`copies`]; [`order`], timelines; [`kernels`]; [`sparse`]
//! buffers; [`in_place`].

mod copies;
mod foreign;
mod in_place;
mod kernels;
mod memory;
mod order;
mod sparse;

use super::{Case, PATIENCE, QUIET, is_stopped, run_all};
use crate::{
    BoundRange, Command, Device, Direction, Exec, RawBytes, Region, Role, Source, Submission, Target,
};
use core::sync::atomic::AtomicU64;
use std::sync::Arc;
use vkhmm_core::units::{FrameIndex, FrameRun, Geometry, Ticket};
use vkhmm_core::uses::Uses;

/// What one case works on: a device with no arena piece and no work, room for eight frames, and what tests need beside it.
pub struct DeviceUnderTest<D: Device> {
    /// How frames are cut.
    pub geometry: Geometry,
    /// The device.
    pub device: D,
    /// `for i in 0..count { words[i] ^= word }` over binding 0 as 32-bit words, with push constants `{ count: u32, word: u32 }`,
    /// right for any number of groups of one dimension (a grid-stride loop).
    pub xor: Arc<D::Kernel>,
    /// Makes that many bytes of host memory that the device can import, if it imports, zeroed and aligned; they may be leaked.
    pub importable: Box<dyn Fn(u64) -> RawBytes>,
    /// Makes a timeline of an application's, at zero. It lives as long as the device.
    pub semaphore: Box<dyn Fn() -> Foreign<D>>,
}

/// A timeline of an application's, and what makes it reach a value without any queue.
pub struct Foreign<D: Device> {
    /// What submissions name.
    pub semaphore: D::Semaphore,
    /// Makes it reach a value, above all before.
    pub signal: Box<dyn Fn(u64)>,
}

/// How many cases [`run_device`] runs, whatever the profile.
pub const DEVICE_CASES: usize = 44;

/// Runs the suite; how many cases ran, which is [`DEVICE_CASES`].
///
/// # Panics
/// At the first broken promise.
pub fn run_device<X: Exec, D: Device>(exec: &X, factory: &dyn Fn() -> DeviceUnderTest<D>) -> usize {
    let cases: [Case<Bench<X, D>>; DEVICE_CASES] = [
        ("the profile is sound and does not change", memory::profile),
        ("pieces come and go", memory::pieces),
        ("a piece too long is refused, and nothing taken", memory::too_long),
        ("buffers lie apart", memory::buffers),
        ("staging slots are memory of their own", memory::slots),
        ("there is no slot past the last", memory::no_such_slot),
        ("control memory is apart, zeroed and stays", memory::control),
        ("bytes go in and out by staging", copies::staging),
        ("copies use the slot they name", copies::named_slots),
        ("regions scatter and gather, up to the limit", copies::regions),
        ("bytes go in and out by import", copies::import),
        ("what is copied in is live memory", copies::is_live),
        ("a fill sets its words and nothing else", copies::fill),
        ("a move carries many regions", copies::moves),
        ("the CPU reads frames, or is refused", memory::cpu_reads),
        ("the CPU writes frames, or is refused", memory::cpu_writes),
        ("what the CPU wrote, kernels see", memory::cpu_writes_before_kernel),
        ("an empty submission reaches its ticket", order::empty),
        ("work on one timeline is in order", order::one_timeline),
        ("a wait orders timelines", order::across_timelines),
        ("every submission ends with a barrier", order::between_submissions),
        ("completed reaches every ticket and never falls", order::completed),
        ("wait ends at its timeout", order::wait_times_out),
        ("wait ends when somebody submits", order::wait_sees_progress),
        ("a release waits for an application's value", foreign::waits_for_a_value),
        ("a release waits for every value it names", foreign::waits_for_all),
        ("a release and its device's own work are in order", foreign::among_our_own),
        ("submissions keep what they name", kernels::keeps),
        ("a kernel changes its binding", kernels::kernel),
        ("a kernel sees copies before a barrier", kernels::kernel_after_copy),
        ("a kernel stays inside its binding", kernels::kernel_bounds),
        ("a kernel runs in as many groups as named", kernels::groups),
        ("a kernel's time is told once it is over", kernels::elapsed),
        ("an empty argument is bound", kernels::null_binding),
        ("kernels use what is bound", sparse::bound),
        ("frames lie in a sparse buffer in any order", sparse::permuted),
        ("what is bound changes, and the bytes stay where they were", sparse::rebound),
        ("a frame goes from one sparse buffer to another", sparse::handed_on),
        ("the address of a sparse buffer stays", sparse::address),
        ("binds are ordered by timelines alone", sparse::ordered),
        ("a bind leaves its neighbours alone", sparse::beside),
        ("a kernel works on host bytes in place", in_place::works),
        ("in place, a kernel stays inside its binding", in_place::bounds),
        ("a buffer in place keeps its import", in_place::keeps),
    ];
    run_all("device", &cases, || Bench::new(exec.clone(), factory()))
}

struct Bench<X: Exec, D: Device> {
    exec: X,
    geometry: Geometry,
    device: Arc<D>,
    xor: Arc<D::Kernel>,
    importable: Box<dyn Fn(u64) -> RawBytes>,
    semaphore: Box<dyn Fn() -> Foreign<D>>,
    last: Uses,
}

impl<X: Exec, D: Device> Bench<X, D> {
    fn new(exec: X, it: DeviceUnderTest<D>) -> Self {
        let DeviceUnderTest { geometry, device, xor, importable, semaphore } = it;
        let last = device.completed().expect("completed");
        Self { exec, geometry, device: Arc::new(device), xor, importable, semaphore, last }
    }

    /// Eight frames as one piece, from frame 0; every byte set.
    fn grow(&mut self) {
        self.device.grow(FrameIndex(0), 8).expect("grow");
        let clear = Command::Fill { device_offset: 0, bytes: self.frame(8), word: 0 };
        self.run(Role::Compute, &[], vec![clear]);
    }

    /// Device offset of frame `n`.
    fn frame(&self, n: u64) -> u64 {
        n * self.geometry.frame_bytes()
    }

    fn submit(&mut self, role: Role, after: &[Ticket], commands: Vec<Command<D>>) -> Ticket {
        self.submit_after(role, after, Vec::new(), commands)
    }

    fn submit_after(
        &mut self,
        role: Role,
        after: &[Ticket],
        foreign: Vec<(D::Semaphore, u64)>,
        commands: Vec<Command<D>>,
    ) -> Ticket {
        let timeline = self.device.profile().timeline(role);
        let signals = Ticket { timeline, value: self.last.on(timeline) + 1 };
        let mut waits = Uses::NONE;
        // Order on the own timeline needs no wait.
        after.iter().filter(|t| t.timeline != timeline).for_each(|t| waits.add(*t));
        self.device.submit(role, Submission { waits, foreign, commands, signals }).expect("submit");
        self.last.add(signals);
        signals
    }

    /// Submits and waits until it is done.
    fn run(&mut self, role: Role, after: &[Ticket], commands: Vec<Command<D>>) {
        let ticket = self.submit(role, after, commands);
        self.finish(ticket);
    }

    /// Whether it is reached; after a while in which it might have been.
    fn is_reached(&self, ticket: Ticket) -> bool {
        let seen = self.device.completed().expect("completed");
        if seen.on(ticket.timeline) < ticket.value {
            self.device.wait(&seen, QUIET).expect("a timeline may stand still");
        }
        self.device.completed().expect("completed").on(ticket.timeline) >= ticket.value
    }

    fn finish(&self, ticket: Ticket) {
        let end = self.exec.now() + PATIENCE.as_nanos() as u64;
        loop {
            let seen = self.device.completed().expect("completed");
            if seen.on(ticket.timeline) >= ticket.value {
                return;
            }
            assert!(self.exec.now() < end, "{ticket:?} was not reached within {PATIENCE:?}");
            self.device.wait(&seen, PATIENCE).expect("wait");
        }
    }

    /// Puts `bytes` at device offset `at` by staging slot 0.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.device.slot(Direction::In, 0).slice(0, bytes.len()).write(bytes);
        let regions = vec![Region { host_offset: 0, device_offset: at, bytes: bytes.len() as u64 }];
        self.run(Role::CopyIn, &[], vec![Command::CopyIn { source: Source::Slot(0), regions }]);
    }

    /// `bytes` bytes from device offset `at` by staging slot 0.
    fn get(&mut self, at: u64, bytes: u64) -> Vec<u8> {
        let regions = vec![Region { host_offset: 0, device_offset: at, bytes }];
        self.run(Role::CopyOut, &[], vec![Command::CopyOut { target: Target::Slot(0), regions }]);
        self.device.slot(Direction::Out, 0).slice(0, bytes as usize).to_vec()
    }

    fn xor(&self, buffer: &Arc<D::Buffer>, offset: u64, words: u32, word: u32) -> Command<D> {
        let range = BoundRange { buffer: Some(Arc::clone(buffer)), offset, bytes: u64::from(words) * 4 };
        self.dispatch(range, words, word)
    }

    fn dispatch(&self, range: BoundRange<D>, words: u32, word: u32) -> Command<D> {
        Command::Dispatch {
            kernel: Arc::clone(&self.xor),
            bindings: vec![range],
            push: [words.to_le_bytes(), word.to_le_bytes()].concat(),
            groups: [1, 1, 1],
            elapsed_ns: Arc::new(AtomicU64::new(0)),
        }
    }

    /// A buffer over all eight frames.
    fn buffer(&self) -> Arc<D::Buffer> {
        Arc::new(self.device.buffer(FrameRun { first: FrameIndex(0), count: 8 }).expect("buffer"))
    }
}

fn pattern(seed: u8, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}

fn words(word: u32, bytes: u64) -> Vec<u8> {
    word.to_le_bytes().repeat(bytes as usize / 4)
}
