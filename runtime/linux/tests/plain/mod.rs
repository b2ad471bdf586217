//! Threads as C programs make them, with stacks that are looked at afterwards; and who serves touches.

#![allow(dead_code, reason = "each test binary uses a part")]

use crate::common::{Memory, run};
use core::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use vkhmm_linux::{LinuxFaults, LinuxHost};
use vkhmm_port::{Access, Fault, FaultSource, HostMemory, Resolver};

/// What Rust gives its threads, and many programs do.
const ALTERNATE_BYTES: usize = 8192;
/// The smallest stack that the C library makes.
const STACK_BYTES: usize = 16 << 10;
const PAINT: u8 = 0xC5;

/// Answers every touch by a page of its own; used by [`Serve`].
struct Answer {
    host: Arc<LinuxHost>,
    answered: AtomicU64,
}

impl Answer {
    fn page(&self, page: u64) {
        self.host.populate(run(page, 1)).expect("populate");
        // Before the thread goes on.
        self.answered.fetch_add(1, Ordering::SeqCst);
        self.host.publish(run(page, 1), Access::ReadWrite).expect("publish");
    }
}

impl Resolver for Answer {
    fn resolve(&self, fault: Fault) -> bool {
        // Much stack: more than any alternate one has.
        let mut much = [fault.page.0 as u8; 20 << 10];
        std::hint::black_box(&mut much);
        self.page(fault.page.0);
        true
    }
}

/// Serves the touches of a memory until dropped: each page is populated and published when it is touched.
pub(crate) struct Serve {
    answer: Arc<Answer>,
    source: Arc<LinuxFaults>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Serve {
    /// In the touching threads.
    pub(crate) fn start(memory: &Memory) -> Self {
        let this = Self::new(memory);
        this.source.resolve_with(Some(Arc::clone(&this.answer) as Arc<dyn Resolver>));
        this
    }

    /// By a reader of the source.
    pub(crate) fn readers(memory: &Memory) -> Self {
        let mut this = Self::new(memory);
        let (answer, source, stop) =
            (Arc::clone(&this.answer), Arc::clone(&this.source), Arc::clone(&this.stop));
        this.reader = Some(std::thread::spawn(move || {
            let mut faults = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                source.next(&mut faults, Some(Duration::from_millis(20))).expect("next");
                faults.drain(..).for_each(|fault| answer.page(fault.page.0));
            }
        }));
        this
    }

    fn new(memory: &Memory) -> Self {
        let answer = Arc::new(Answer { host: Arc::clone(&memory.host), answered: AtomicU64::new(0) });
        let source = Arc::clone(memory.source.as_ref().expect("an engine with faults"));
        Self { answer, source, stop: Arc::default(), reader: None }
    }

    /// How many touches were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answer.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.source.resolve_with(None);
        self.stop.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader");
        }
    }
}

/// A handler that does nothing.
pub(crate) extern "C" fn nothing(_: c_int) {}

/// Memory for a stack, whole pages, painted; its length is [`ALTERNATE_BYTES`].
pub(crate) fn alternate_stack() -> (Stack, usize) {
    (Stack::new(ALTERNATE_BYTES), ALTERNATE_BYTES)
}

/// Painted memory.
pub(crate) struct Stack {
    start: *mut u8,
    len: usize,
}

impl Stack {
    fn new(len: usize) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, filled before anybody knows it.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(core::ptr::null_mut(), len, access, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            start.cast::<u8>().write_bytes(PAINT, len);
            Self { start: start.cast(), len }
        }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start
    }

    /// How many bytes below `top` were written to, or lie above such.
    fn used_below(&self, top: usize) -> usize {
        // SAFETY: whoever used it has ended, or (a thread that looks at its own stack) runs above `top`.
        let lowest = (0..top).find(|at| unsafe { self.start.add(*at).read_volatile() } != PAINT);
        top - lowest.unwrap_or(top)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; nobody uses it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

struct Job {
    alternate: Option<Stack>,
    own: Stack,
    body: Box<dyn FnOnce() + Send>,
    used: usize,
}

extern "C" fn thread(job: *mut c_void) -> *mut c_void {
    // SAFETY: `on_plain_thread` passes its own job and waits for the thread.
    let job = unsafe { &mut *job.cast::<Job>() };
    let body = core::mem::replace(&mut job.body, Box::new(|| ()));
    if let Some(stack) = &mut job.alternate {
        let alternate = libc::stack_t { ss_sp: stack.start.cast(), ss_flags: 0, ss_size: stack.len };
        // SAFETY: the stack lives longer than the thread.
        assert_eq!(unsafe { libc::sigaltstack(&alternate, core::ptr::null_mut()) }, 0);
        body();
        job.used = stack.used_below(stack.len);
    } else {
        job.used = below_here(&mut job.own, body);
    }
    core::ptr::null_mut()
}

/// Runs `body` and says how much of the stack below here was used; `own` is the stack that this runs on.
#[inline(never)]
fn below_here(own: &mut Stack, body: Box<dyn FnOnce() + Send>) -> usize {
    /// What this function and the ones it calls itself use, at most.
    const MARGIN: usize = 1024;
    let here = 0_u8;
    let top = (&raw const here) as usize - own.start as usize - MARGIN;
    for at in 0..top {
        // SAFETY: below everything that is in use on this stack.
        unsafe { own.start.add(at).write_volatile(PAINT) };
    }
    body();
    own.used_below(top)
}

/// Runs `body` on a thread that the C library makes, with a stack of 16 KiB, and an alternate one of 8 KiB if `alternate`; says how
/// many bytes of the alternate stack (else of its own, below the point where `body` was called) were used.
pub(crate) fn on_plain_thread(alternate: bool, body: impl FnOnce() + Send + 'static) -> usize {
    // SAFETY: asks for a number.
    let least = usize::try_from(unsafe { libc::sysconf(libc::_SC_THREAD_STACK_MIN) }).unwrap_or(0);
    let own = Stack::new(STACK_BYTES.max(least.next_multiple_of(4096)));
    let alternate = alternate.then(|| alternate_stack().0);
    let mut job = Job { alternate, own, body: Box::new(body), used: 0 };
    // SAFETY: the attributes are initialised before use; the stack and the job outlive the thread, which is joined here.
    unsafe {
        let mut attributes: libc::pthread_attr_t = core::mem::zeroed();
        let mut id: libc::pthread_t = core::mem::zeroed();
        assert_eq!(libc::pthread_attr_init(&mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstack(&mut attributes, job.own.start.cast(), job.own.len), 0);
        let place = (&raw mut job).cast();
        assert_eq!(libc::pthread_create(&mut id, &attributes, thread, place), 0);
        assert_eq!(libc::pthread_join(id, core::ptr::null_mut()), 0);
        libc::pthread_attr_destroy(&mut attributes);
    }
    job.used
}
