//! The floors: what a fault and a migration cost with raw system calls and nothing of vkhmm. One memfd mapped twice (R for the
//! program, A for the copies), "device" memory that is plain memory, and one mechanism that notices touches of R. No states, no
//! locks, no accounting: who wants to be compared with this has to have them.
//!
//! Threads: handler threads own nothing, block on the userfaultfd, and end after the last message that `Floor::drop` sends each.
//! Measuring calls take `&mut`, so nobody else touches R meanwhile. There are no locks.

use libc::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::Instant;

/// Size of a page in bytes.
pub const PAGE: usize = 4096;
/// Bytes behind a region. A touch there is a handler's last message.
const LAST: usize = PAGE;

/// How long a handler looks for the next message before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps in `read` at once.
    Never,
    /// After a message it spins for so many microseconds, then polls.
    Micros(u32),
    /// It never sleeps.
    Always,
}

/// What notices a touch of R.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// userfaultfd (MINOR) and so many handler threads, pinned to `core` or left to the scheduler.
    Thread {
        /// How many handlers read one descriptor.
        handlers: usize,
        /// When they sleep.
        spin: Spin,
        /// Where they run.
        core: Option<usize>,
    },
    /// userfaultfd (MINOR) with SIGBUS, answered in the faulting thread.
    Sigbus,
    /// `mprotect` and SIGSEGV, answered in the faulting thread.
    Segv,
}

/// Which pages a scan touches, one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All, ascending.
    Forward,
    /// All, descending.
    Backward,
    /// Every n-th, ascending.
    Every(usize),
}

impl Order {
    /// The pages of `count`, in this order.
    pub fn pages(self, count: usize) -> Box<dyn Iterator<Item = usize>> {
        match self {
            Self::Forward => Box::new(0..count),
            Self::Backward => Box::new((0..count).rev()),
            Self::Every(step) => Box::new((0..count).step_by(step)),
        }
    }
}

/// What handlers and signal handlers need to answer a touch.
struct Gate {
    r: usize,
    a: usize,
    device: usize,
    /// Size of each, without the page behind it that [`LAST`] is about.
    bytes: usize,
    /// Bytes that one touch brings, a power of two.
    granule: AtomicUsize,
    /// The userfaultfd, or -1 where `mprotect` is the gate.
    uffd: AtomicI32,
    /// When the last answer began, and when it had its bytes; only where [`Floor::parts`] asks for it.
    stamps: [AtomicU64; 2],
    stamping: AtomicBool,
}

impl Gate {
    /// Copies the granule around `address` from the device to A and opens R there.
    fn answer(&self, address: usize) {
        self.stamp(0);
        let granule = self.granule.load(Ordering::Relaxed);
        let offset = (address - self.r) & !(granule - 1);
        // SAFETY: granules lie inside the three mappings, which are of one size and do not overlap; nobody maps or uses this
        // granule of R before the gate opens, and each is answered by one thread (idempotent if by two: same bytes).
        unsafe {
            ptr::copy_nonoverlapping(
                (self.device + offset) as *const u8,
                (self.a + offset) as *mut u8,
                granule,
            )
        };
        self.stamp(1);
        self.publish(offset, granule);
    }

    fn stamp(&self, which: usize) {
        if self.stamping.load(Ordering::Relaxed) {
            self.stamps[which].store(clock_ns(), Ordering::Release);
        }
    }

    fn publish(&self, offset: usize, bytes: usize) {
        let uffd = self.uffd.load(Ordering::Relaxed);
        if uffd < 0 {
            let all = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: whole pages of R, our own mapping.
            let result = unsafe { libc::mprotect((self.r + offset) as *mut c_void, bytes, all) };
            assert_eq!(result, 0, "mprotect to read-write");
            return;
        }
        let (mut at, end) = (self.r + offset, self.r + offset + bytes);
        while at < end {
            let mut op = Continue { start: at as u64, len: (end - at) as u64, mode: 0, mapped: 0 };
            // SAFETY: the request's structure is `Continue`, alive across the call; the range is registered.
            if unsafe { libc::ioctl(uffd, UFFDIO_CONTINUE, &raw mut op) } == 0 {
                return;
            }
            // Some page was mapped already: what came before it is done, skip it.
            at += usize::try_from(op.mapped).unwrap_or(0).next_multiple_of(PAGE) + PAGE;
            let mut range = [self.r as u64 + offset as u64, bytes as u64];
            // SAFETY: the request's structure is two words, alive across the call; the range is registered.
            unsafe { libc::ioctl(uffd, UFFDIO_WAKE, &raw mut range) };
        }
    }
}

// userfaultfd, as in <linux/userfaultfd.h>.
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_WAKE: libc::c_ulong = 0x8010_aa02;
const UFFDIO_CONTINUE: libc::c_ulong = 0xc020_aa07;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const REGISTER_MODE_MINOR: u64 = 1 << 2;
const USER_MODE_ONLY: c_int = 1;
const EVENT_PAGEFAULT: u8 = 0x12;

#[repr(C)]
struct Continue {
    start: u64,
    len: u64,
    mode: u64,
    mapped: i64,
}

#[repr(C)]
struct Message {
    event: u8,
    reserved: [u8; 7],
    flags: u64,
    address: u64,
    thread: u64,
}

/// A region behind one mechanism.
pub struct Floor {
    gate: Arc<Gate>,
    mechanism: Mechanism,
    handlers: Vec<JoinHandle<()>>,
}

impl Floor {
    /// A region of `bytes`, all of it on the device: word 0 of page n is [`word`]`(n)`. Memory, page cache and "device" are warm.
    ///
    /// # Errors
    /// The system refuses the mechanism or the memory.
    pub fn new(mechanism: Mechanism, bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(2 << 20);
        // SAFETY: a name that ends with zero; the descriptor is checked and closed below.
        let fd = check(unsafe { libc::memfd_create(c"floor".as_ptr(), libc::MFD_CLOEXEC) })?;
        // SAFETY: our own descriptor, just made; no pointers.
        check(unsafe { libc::ftruncate(fd, (bytes + LAST) as libc::off_t) })?;
        let gate = Gate {
            r: map(bytes + LAST, fd)?,
            a: map(bytes + LAST, fd)?,
            device: map(bytes + LAST, -1)?,
            bytes,
            granule: AtomicUsize::new(PAGE),
            uffd: AtomicI32::new(-1),
            stamps: [const { AtomicU64::new(0) }; 2],
            stamping: AtomicBool::new(false),
        };
        // SAFETY: our own descriptor, closed once; the mappings keep the file.
        unsafe { libc::close(fd) };
        for page in 0..(bytes + LAST) / PAGE {
            // SAFETY: inside the mappings, and nobody else has them yet.
            unsafe {
                ptr::write_bytes((gate.device + page * PAGE) as *mut u8, page as u8, PAGE);
                ptr::write((gate.device + page * PAGE) as *mut u64, word(page));
                ptr::write_bytes((gate.a + page * PAGE) as *mut u8, 0, PAGE);
            }
        }
        let mut floor = Self { gate: Arc::new(gate), mechanism, handlers: Vec::new() };
        floor.arm()?;
        floor.revoke(0, bytes);
        Ok(floor)
    }

    fn arm(&mut self) -> io::Result<()> {
        let (features, flags) = match self.mechanism {
            Mechanism::Segv => return Ok(()),
            Mechanism::Sigbus => (FEATURE_SIGBUS, libc::O_CLOEXEC),
            Mechanism::Thread { spin: Spin::Never, .. } => (0, libc::O_CLOEXEC),
            Mechanism::Thread { .. } => (0, libc::O_CLOEXEC | libc::O_NONBLOCK),
        };
        let uffd = userfaultfd(flags).or_else(|_| userfaultfd(flags | USER_MODE_ONLY))?;
        self.gate.uffd.store(uffd, Ordering::Relaxed);
        let mut api = [0xaa_u64, features | FEATURE_MINOR_SHMEM, 0];
        // SAFETY: the request's structure is three words, alive across the call.
        check(unsafe { libc::ioctl(uffd, UFFDIO_API, &raw mut api) })?;
        let mut register = [self.gate.r as u64, (self.gate.bytes + LAST) as u64, REGISTER_MODE_MINOR, 0];
        // SAFETY: the request's structure is four words, alive across the call; the range is our own mapping.
        check(unsafe { libc::ioctl(uffd, UFFDIO_REGISTER, &raw mut register) })?;
        if let Mechanism::Thread { handlers, spin, core } = self.mechanism {
            for _ in 0..handlers {
                let gate = Arc::clone(&self.gate);
                self.handlers.push(std::thread::spawn(move || handle(&gate, spin, core)));
            }
        }
        Ok(())
    }

    /// Its size in pages.
    pub fn pages(&self) -> usize {
        self.gate.bytes / PAGE
    }

    /// Makes bytes of R absent. When it returns no store can reach them.
    pub fn revoke(&mut self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.gate.bytes && offset % PAGE == 0 && bytes % PAGE == 0);
        let at = (self.gate.r + offset) as *mut c_void;
        // SAFETY: whole pages of R, our own mapping; its bytes stay in the memfd.
        let result = unsafe {
            if self.gate.uffd.load(Ordering::Relaxed) < 0 {
                libc::mprotect(at, bytes, libc::PROT_NONE)
            } else {
                libc::madvise(at, bytes, libc::MADV_DONTNEED)
            }
        };
        assert_eq!(result, 0, "revoke");
    }

    /// Opens R for bytes that A has, without a copy.
    pub fn publish(&mut self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.gate.bytes && offset % PAGE == 0 && bytes % PAGE == 0);
        self.gate.publish(offset, bytes);
    }

    /// Copies bytes of A to the device.
    pub fn copy_out(&mut self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.gate.bytes);
        // SAFETY: inside the mappings, which do not overlap; whoever writes R has it revoked or does not run.
        unsafe {
            ptr::copy_nonoverlapping(
                (self.gate.a + offset) as *const u8,
                (self.gate.device + offset) as *mut u8,
                bytes,
            )
        };
    }

    /// Copies bytes of the device to A: what a fault of that granule must do at least.
    pub fn copy_in(&mut self, offset: usize, bytes: usize) {
        assert!(offset + bytes <= self.gate.bytes);
        // SAFETY: inside the mappings, which do not overlap; nobody uses R meanwhile.
        unsafe {
            ptr::copy_nonoverlapping(
                (self.gate.device + offset) as *const u8,
                (self.gate.a + offset) as *mut u8,
                bytes,
            )
        };
    }

    /// The device writes these pages, in a thread of its own, so that their bytes are as warm as a device leaves them.
    pub fn device_writes(&mut self, pages: &[usize]) {
        let device = self.gate.device;
        assert!(pages.iter().all(|page| *page < self.pages()));
        let write = move |page: &usize| {
            // SAFETY: inside the device's mapping, which nobody else uses meanwhile.
            unsafe {
                ptr::write_bytes((device + page * PAGE) as *mut u8, *page as u8, PAGE);
                ptr::write((device + page * PAGE) as *mut u64, word(*page));
            }
        };
        std::thread::scope(|scope| drop(scope.spawn(move || pages.iter().for_each(write)).join()));
    }

    /// Seconds of each fault of one page, in this order, one after the other, each with a copy of that page.
    pub fn latencies(&mut self, pages: &[usize]) -> Vec<f64> {
        pages.iter().for_each(|page| self.revoke(page * PAGE, PAGE));
        let _signals = self.begin(PAGE);
        let mut wrong = 0;
        let times = pages.iter().map(|&page| {
            let start = Instant::now();
            let have = self.read(page);
            let time = start.elapsed().as_secs_f64();
            wrong += usize::from(have != word(page));
            time
        });
        let times = times.collect();
        assert_eq!(wrong, 0, "{wrong} of {} pages had wrong bytes", pages.len());
        times
    }

    /// Where the time of each such fault goes, in nanoseconds: until the answer begins, copy, until the toucher goes on. Opening R
    /// wakes, so what follows the copy is one.
    pub fn parts(&mut self, pages: &[usize]) -> Vec<[f64; 3]> {
        pages.iter().for_each(|page| self.revoke(page * PAGE, PAGE));
        let _signals = self.begin(PAGE);
        self.gate.stamping.store(true, Ordering::Relaxed);
        let each = |&page: &usize| {
            let start = clock_ns();
            assert_eq!(self.read(page), word(page), "wrong bytes");
            let end = clock_ns();
            let [begun, copied] = [0, 1].map(|which| self.gate.stamps[which].load(Ordering::Acquire));
            [begun - start, copied - begun, end - copied].map(|ns| ns as f64)
        };
        let parts = pages.iter().map(each).collect();
        self.gate.stamping.store(false, Ordering::Relaxed);
        parts
    }

    /// Seconds to read a word of each of the first `pages` pages in this order, everything on the device before, `granule` bytes
    /// a fault.
    pub fn scan(&mut self, granule: usize, order: Order, pages: usize) -> f64 {
        assert!(pages <= self.pages());
        self.revoke(0, self.gate.bytes);
        let _signals = self.begin(granule);
        let start = Instant::now();
        let sum = order.pages(pages).fold(0_u64, |sum, page| sum.wrapping_add(self.read(page)));
        let time = start.elapsed().as_secs_f64();
        let expected = order.pages(pages).fold(0_u64, |sum, page| sum.wrapping_add(word(page)));
        assert_eq!(sum, expected, "a scan read wrong bytes");
        time
    }

    /// Makes all of R present, with a store to each page, without a copy.
    pub fn populate(&mut self) {
        self.publish(0, self.gate.bytes);
        for page in 0..self.pages() {
            // SAFETY: inside R, which is open; nobody else uses it meanwhile.
            unsafe { ptr::write_volatile((self.gate.r + page * PAGE) as *mut u64, word(page)) };
        }
    }

    /// Faults per millisecond when so many threads share out these pages, each in a granule of its own.
    pub fn faults_per_ms(&mut self, threads: usize, granule: usize, pages: &[usize]) -> f64 {
        let offset = |page: &usize| (page * PAGE) & !(granule - 1);
        pages.iter().for_each(|page| self.revoke(offset(page), granule));
        let _signals = self.begin(granule);
        let each = pages.len().div_ceil(threads);
        let barrier = Barrier::new(threads + 1);
        let this = &*self;
        let seconds = std::thread::scope(|scope| {
            for thread in 0..threads {
                let (barrier, pages) = (&barrier, pages.chunks(each).nth(thread).unwrap_or_default());
                scope.spawn(move || {
                    barrier.wait();
                    let right = pages.iter().filter(|page| this.read(**page) == word(**page)).count();
                    barrier.wait();
                    assert_eq!(right, pages.len(), "a thread read wrong bytes");
                });
            }
            barrier.wait();
            let start = Instant::now();
            barrier.wait();
            start.elapsed().as_secs_f64()
        });
        pages.len() as f64 / (seconds * 1e3)
    }

    /// Sets the granule and, where signals are the mechanism, takes them over until the guard is dropped.
    fn begin(&self, granule: usize) -> Option<Signals> {
        assert!(granule.is_power_of_two() && granule <= self.gate.bytes);
        self.gate.granule.store(granule, Ordering::Relaxed);
        match self.mechanism {
            Mechanism::Thread { .. } => None,
            Mechanism::Sigbus => Some(Signals::take(&self.gate, libc::SIGBUS)),
            Mechanism::Segv => Some(Signals::take(&self.gate, libc::SIGSEGV)),
        }
    }

    /// The first word of a page of R.
    fn read(&self, page: usize) -> u64 {
        assert!(page < self.pages());
        // SAFETY: inside R, readable or behind a gate that answers.
        unsafe { ptr::read_volatile((self.gate.r + page * PAGE) as *const u64) }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for _ in 0..self.handlers.len() {
            let last = (self.gate.r + self.gate.bytes) as *mut c_void;
            // SAFETY: the page behind the region is ours, and only this function touches it; each touch ends one handler.
            unsafe {
                libc::madvise(last, LAST, libc::MADV_DONTNEED);
                ptr::read_volatile(last.cast::<u8>());
            }
        }
        self.handlers
            .drain(..)
            .for_each(|handler| handler.join().expect("a handler only copies and publishes"));
        let uffd = self.gate.uffd.load(Ordering::Relaxed);
        // SAFETY: our own descriptor and mappings; handlers have ended and signals were given back, so nobody uses them.
        unsafe {
            if uffd >= 0 {
                libc::close(uffd);
            }
            for at in [self.gate.r, self.gate.a, self.gate.device] {
                libc::munmap(at as *mut c_void, self.gate.bytes + LAST);
            }
        }
    }
}

/// The first word of page `page`.
pub fn word(page: usize) -> u64 {
    (page as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The handler thread.
fn handle(gate: &Gate, spin: Spin, core: Option<usize>) {
    if let Some(core) = core {
        pin(core);
    }
    let uffd = gate.uffd.load(Ordering::Relaxed);
    loop {
        let address = receive(uffd, spin);
        if address >= gate.r + gate.bytes {
            gate.publish(gate.bytes, LAST);
            return;
        }
        gate.answer(address);
    }
}

/// Waits for a message; the address that was touched.
fn receive(uffd: c_int, spin: Spin) -> usize {
    let mut message = Message { event: 0, reserved: [0; 7], flags: 0, address: 0, thread: 0 };
    let mut since = Instant::now();
    loop {
        // SAFETY: the buffer is one message, alive across the call.
        let got = unsafe { libc::read(uffd, (&raw mut message).cast(), size_of::<Message>()) };
        if got == size_of::<Message>() as isize && message.event == EVENT_PAGEFAULT {
            return message.address as usize;
        }
        if let Spin::Micros(limit) = spin
            && since.elapsed().as_micros() >= u128::from(limit)
        {
            let mut watched = libc::pollfd { fd: uffd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor to watch, alive across the call.
            unsafe { libc::poll(&raw mut watched, 1, -1) };
            since = Instant::now();
        }
        std::hint::spin_loop();
    }
}

/// The gate that signals are for. One at a time: taken by [`Signals::take`].
static SIGNALLED: AtomicPtr<Gate> = AtomicPtr::new(ptr::null_mut());

/// A signal taken over; given back when dropped, so that whoever had it is measured without us in front.
struct Signals {
    signal: c_int,
    previous: libc::sigaction,
    _gate: Arc<Gate>,
}

impl Signals {
    fn take(gate: &Arc<Gate>, signal: c_int) -> Self {
        let taken = SIGNALLED.swap(Arc::as_ptr(gate).cast_mut(), Ordering::AcqRel);
        assert!(taken.is_null(), "two floors want one signal at a time");
        // SAFETY: all zero is an action without flags and with an empty mask; both structures live across the call, and the
        // handler has the signature that SA_SIGINFO asks for.
        let previous = unsafe {
            let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
                (std::mem::zeroed(), std::mem::zeroed());
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(signal, &raw const action, &raw mut previous), 0, "sigaction");
            previous
        };
        Self { signal, previous, _gate: Arc::clone(gate) }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: an action that sigaction returned.
        unsafe { libc::sigaction(self.signal, &raw const self.previous, ptr::null_mut()) };
        SIGNALLED.store(ptr::null_mut(), Ordering::Release);
    }
}

/// Answers a touch in the thread that made it. Anything else is nobody's: the default action ends the process.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a valid siginfo of a fault; the gate outlives the guard that set it; errno is the thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let address = (*info).si_addr() as usize;
        match SIGNALLED.load(Ordering::Acquire).as_ref() {
            Some(gate) if address.wrapping_sub(gate.r) < gate.bytes => gate.answer(address),
            _ => drop(libc::signal(signal, libc::SIG_DFL)),
        }
        *libc::__errno_location() = errno;
    }
}

/// Seconds of each of `count` first touches of anonymous memory, by a store.
///
/// # Errors
/// No memory.
pub fn anon_touches(count: usize) -> io::Result<Vec<f64>> {
    let bytes = count * PAGE;
    let at = map(bytes, -1)?;
    Ok(touches(at, bytes))
}

/// Seconds of each of `count` stores to pages of a memfd whose bytes exist and which are not mapped.
///
/// # Errors
/// No memory.
pub fn memfd_touches(count: usize) -> io::Result<Vec<f64>> {
    let bytes = count * PAGE;
    // SAFETY: a name that ends with zero; the descriptor is checked and closed below.
    let fd = check(unsafe { libc::memfd_create(c"floor".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: our own descriptor, just made; no pointers.
    check(unsafe { libc::ftruncate(fd, bytes as libc::off_t) })?;
    let (first, second) = (map(bytes, fd)?, map(bytes, fd)?);
    // SAFETY: our own descriptor, closed once.
    unsafe { libc::close(fd) };
    touches(first, bytes);
    Ok(touches(second, bytes))
}

/// Times a store to each page, then unmaps them.
fn touches(at: usize, bytes: usize) -> Vec<f64> {
    let touch = |page: usize| {
        let start = Instant::now();
        // SAFETY: inside a mapping of ours.
        unsafe { ptr::write_volatile((at + page * PAGE) as *mut u64, 1) };
        start.elapsed().as_secs_f64()
    };
    let times = (0..bytes / PAGE).map(touch).collect();
    // SAFETY: our own mapping, unmapped once.
    unsafe { libc::munmap(at as *mut c_void, bytes) };
    times
}

/// Seconds of one round trip between two threads by futexes, both on core `cores.0` and `cores.1`, over `trips` trips.
pub fn ping_pong(cores: (usize, usize), trips: u32) -> f64 {
    let turn = AtomicU32::new(0);
    let pass = |me: u32| {
        for trip in 0..trips {
            let mine = trip * 2 + me;
            while turn.load(Ordering::Acquire) != mine {
                // SAFETY: the futex lives across the call; it returns at once if the value is another.
                unsafe {
                    libc::syscall(
                        libc::SYS_futex,
                        turn.as_ptr(),
                        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                        mine.wrapping_sub(1),
                        0,
                    )
                };
            }
            turn.store(mine + 1, Ordering::Release);
            // SAFETY: the futex lives across the call.
            unsafe {
                libc::syscall(libc::SYS_futex, turn.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1)
            };
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(cores.1);
            pass(1);
        });
        let first = scope.spawn(|| {
            pin(cores.0);
            let start = Instant::now();
            pass(0);
            start.elapsed().as_secs_f64()
        });
        first.join().expect("the first player only waits and wakes") / f64::from(trips)
    })
}

/// Lets the calling thread run on one core only.
pub fn pin(core: usize) {
    // SAFETY: all zero is an empty set; it lives across the call, and cores above its size are refused by CPU_SET's own check.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// CLOCK_MONOTONIC, in nanoseconds.
pub fn clock_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a structure that lives across the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn userfaultfd(flags: c_int) -> io::Result<c_int> {
    // SAFETY: makes a descriptor or fails; no pointers.
    check(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as c_int)
}

/// Maps `bytes` of a file, or anonymous memory of our own for -1.
fn map(bytes: usize, fd: c_int) -> io::Result<usize> {
    let kind = if fd < 0 { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } else { libc::MAP_SHARED };
    // SAFETY: a new mapping where the system likes; it replaces none.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, kind, fd, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as usize) }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests;
