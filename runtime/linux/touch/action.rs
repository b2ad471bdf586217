//! The process-wide actions for SIGSEGV and SIGBUS: installed once, never taken away, and everything that is not ours goes on to
//! whoever was there before.
//!
//! All signals but those that faults raise are held back while the handler runs: it may be on another stack than the kernel knows
//! of, and a handler with SA_ONSTACK would then overwrite the alternate stack from its top. A thread that must wait therefore
//! returns every few milliseconds, takes its signals, and touches again.

use super::{answer, arch, stacks};
use core::ffi::{CStr, c_int, c_void};
use core::mem::{MaybeUninit, zeroed};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::io;
use std::sync::{Mutex, PoisonError};

/// Raised by an instruction, so never held back: inside the handler they mean that it is broken.
const BY_INSTRUCTIONS: [c_int; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGABRT];
const FLAGS: c_int = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
/// A memory error found by the machine itself, elsewhere: no instruction waits for its end.
const BUS_MCEERR_AO: c_int = 5;
/// Bytes of a signal mask as the kernel has it.
const MASK_BYTES: usize = 8;
const PAGE: usize = 4096;

type Handler = extern "C" fn(c_int);
type InfoHandler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// What was there before: written before ours is installed, read in handlers.
struct Previous {
    installed: AtomicBool,
    action: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
}

static PREVIOUS: [Previous; 2] = [const {
    Previous {
        installed: AtomicBool::new(false),
        action: AtomicUsize::new(libc::SIG_DFL),
        flags: AtomicI32::new(0),
        mask: AtomicU64::new(0),
    }
}; 2];

/// Lock: owns the installing · never taken in a handler.
static INSTALLING: Mutex<()> = Mutex::new(());

fn previous(signal: c_int) -> &'static Previous {
    &PREVIOUS[usize::from(signal == libc::SIGBUS)]
}

impl Previous {
    fn remember(&self, action: &libc::sigaction) {
        // SAFETY: a sigset_t of libc begins with the kernel's mask, and is at least as long and as aligned.
        let mask = unsafe { (&raw const action.sa_mask).cast::<u64>().read() };
        self.flags.store(action.sa_flags, Ordering::SeqCst);
        self.mask.store(mask, Ordering::SeqCst);
        self.action.store(action.sa_sigaction, Ordering::SeqCst);
    }
}

/// The context of a fault says whether it was a store.
static STORES_KNOWN: AtomicBool = AtomicBool::new(cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));

/// Installs the handler for `signal`, if it is not yet. Returns whether the context of a fault says whether it was a store.
///
/// # Errors
/// Of `sigaction` or of making the stacks.
pub(crate) fn install(signal: c_int) -> io::Result<bool> {
    let _one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = previous(signal);
    if before.installed.load(Ordering::SeqCst) {
        return Ok(STORES_KNOWN.load(Ordering::SeqCst));
    }
    stacks::make()?;
    stay_loaded();
    // Known before ours can be called, and again as it was when ours took its place.
    before.remember(&change(signal, None)?);
    before.remember(&change(signal, Some(&ours()))?);
    before.installed.store(true, Ordering::SeqCst);
    if signal == libc::SIGSEGV {
        probe_stores();
    }
    Ok(STORES_KNOWN.load(Ordering::SeqCst))
}

/// The action that took the place of ours for `signal`, if one did.
pub(crate) fn replaced_by(signal: c_int) -> Option<usize> {
    let handler: InfoHandler = on_fault;
    let now = change(signal, None).ok().filter(|_| previous(signal).installed.load(Ordering::SeqCst))?;
    (now.sa_sigaction != handler as usize).then_some(now.sa_sigaction)
}

fn ours() -> libc::sigaction {
    let handler: InfoHandler = on_fault;
    // SAFETY: all zeros is a valid sigaction; the set is filled by calls that write nothing else.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = FLAGS;
        libc::sigfillset(&mut action.sa_mask);
        for signal in BY_INSTRUCTIONS {
            libc::sigdelset(&mut action.sa_mask, signal);
        }
        action
    }
}

/// Sets the action, if there is a new one, and returns the old one.
fn change(signal: c_int, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: both pointers are to whole actions, or null; on success the old one is written.
    unsafe {
        match libc::sigaction(signal, new.map_or(null(), |new| new), old.as_mut_ptr()) {
            0 => Ok(old.assume_init()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The library that this code is in stays loaded from now on, whoever closes it: the handler stays installed.
fn stay_loaded() {
    let handler: InfoHandler = on_fault;
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: dladdr writes the structure if it knows the address, and then the name is a string that lives as long as the
    // library; opening what is loaded already runs no code. A program itself has no such name, and is never unloaded.
    unsafe {
        if libc::dladdr(handler as *const c_void, info.as_mut_ptr()) != 0 {
            let name = info.assume_init().dli_fname;
            if !name.is_null() && CStr::from_ptr(name).to_bytes().contains(&b'/') {
                libc::dlopen(name, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE);
            }
        }
    }
}

/// Async-signal-safe. Contract: takes no lock · sleeps only for a page of ours, a slice at a time · touches nothing of R.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands over a whole siginfo_t and the context of the fault; errno belongs to this thread.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        // Only the kernel says more than zero: anything else was sent by somebody and is about no address.
        let ours = (*info).si_code > 0 && {
            let (address, store) = ((*info).si_addr() as usize, arch::is_store(context));
            answer(signal, address, store) || probed(address, store)
        };
        if !ours {
            pass_on(signal, info, context);
        }
        *errno = before;
    }
}

/// Does with a signal what the kernel would have done had we not been here.
///
/// # Safety
/// The arguments are those of the handler that is running.
#[inline(never)]
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = previous(signal);
    let flags = previous.flags.load(Ordering::SeqCst);
    let action = match flags & libc::SA_RESETHAND {
        0 => previous.action.load(Ordering::SeqCst),
        _ => previous.action.swap(libc::SIG_DFL, Ordering::SeqCst),
    };
    // SAFETY: the kernel handed `info` over.
    let code = unsafe { (*info).si_code };
    let by_instruction = code > 0 && !(signal == libc::SIGBUS && code == BUS_MCEERR_AO);
    match action {
        libc::SIG_IGN if !by_instruction => {}
        // Nobody can ignore a fault: the kernel ends the process in both cases.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: all zeros is the default action with an empty mask; the signal is sent to this very thread, with what the
            // kernel said about it. The process ends there, or at the instruction, which is tried again: then the core dump shows it.
            unsafe {
                let default: libc::sigaction = zeroed();
                libc::sigaction(signal, &default, null_mut());
                if !by_instruction {
                    let (process, thread) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
                    libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info);
                }
            }
        }
        _ => {
            let own = if flags & libc::SA_NODEFER == 0 { 1_u64 << (signal - 1) } else { 0 };
            // SAFETY: the context is the kernel's, its mask is what the thread had; the mask that is set lives here. The action
            // is a function of the application with the arguments that its flags ask for.
            unsafe {
                let interrupted =
                    (&raw const (*context.cast::<libc::ucontext_t>()).uc_sigmask).cast::<u64>().read();
                let mask = interrupted | previous.mask.load(Ordering::SeqCst) | own;
                libc::syscall(
                    libc::SYS_rt_sigprocmask,
                    libc::SIG_SETMASK,
                    &raw const mask,
                    null_mut::<u64>(),
                    MASK_BYTES,
                );
                if flags & libc::SA_SIGINFO == 0 {
                    core::mem::transmute::<usize, Handler>(action)(signal);
                } else {
                    core::mem::transmute::<usize, InfoHandler>(action)(signal, info, context);
                }
            }
        }
    }
}

/// Address of the page that [`probe_stores`] touches, and what was said of the touch.
static PROBE: AtomicUsize = AtomicUsize::new(0);
static SAID: AtomicU8 = AtomicU8::new(UNSEEN);
const UNSEEN: u8 = u8::MAX;

/// In the handler: whether it is the probe's touch.
fn probed(address: usize, store: bool) -> bool {
    let page = PROBE.load(Ordering::SeqCst);
    if page == 0 || address & !(PAGE - 1) != page {
        return false;
    }
    SAID.store(u8::from(store), Ordering::SeqCst);
    let page = core::ptr::with_exposed_provenance_mut(page);
    // SAFETY: the probe's own page.
    unsafe { mprotect(page, PAGE, MprotectFlags::READ | MprotectFlags::WRITE) }.is_ok()
}

/// Finds out whether a fault's context tells loads from stores: sandboxes that stand for a kernel may leave that out.
fn probe_stores() {
    // SAFETY: a new mapping where the kernel likes, touched by this thread alone, as the handler installed a moment ago allows it;
    // the signal is let through meanwhile, since a fault that is held back kills.
    unsafe {
        let flags = MapFlags::PRIVATE;
        let Ok(page) = mmap_anonymous(null_mut(), PAGE, ProtFlags::empty(), flags) else { return };
        let (mut let_through, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        libc::sigemptyset(let_through.as_mut_ptr());
        libc::sigaddset(let_through.as_mut_ptr(), libc::SIGSEGV);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, let_through.as_ptr(), before.as_mut_ptr());
        PROBE.store(page.expose_provenance(), Ordering::SeqCst);
        let load = {
            page.cast::<u8>().read_volatile();
            SAID.swap(UNSEEN, Ordering::SeqCst)
        };
        let closed = mprotect(page, PAGE, MprotectFlags::empty()).is_ok();
        page.cast::<u8>().write_volatile(1);
        let store = SAID.swap(UNSEEN, Ordering::SeqCst);
        STORES_KNOWN.store(closed && load == 0 && store == 1, Ordering::SeqCst);
        PROBE.store(0, Ordering::SeqCst);
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut());
        let _ = munmap(page, PAGE);
    }
}
