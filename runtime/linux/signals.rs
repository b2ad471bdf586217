//! Threads that never run a signal handler of the application: a handler that touches managed memory on a thread of ours would
//! wait for itself.

use core::mem::MaybeUninit;
use std::io;

/// Blocks every signal in the calling thread until dropped; threads started meanwhile inherit that.
struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    fn all() -> io::Result<Self> {
        let mut every = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both pointers are to whole sigset_t; sigfillset initialises the first, pthread_sigmask reads it and writes
        // the second.
        let failed = unsafe {
            libc::sigfillset(every.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, every.as_ptr(), before.as_mut_ptr())
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: pthread_sigmask succeeded, so it wrote the old mask.
        Ok(Self { before: unsafe { before.assume_init() } })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask this thread had; restoring it cannot fail with a valid `how`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, core::ptr::null_mut()) };
    }
}

/// Starts a detached thread called `name` with every signal blocked from its first instruction.
///
/// The mask is set in the caller around the start, since a mask set by the new thread itself would come too late.
///
/// # Errors
/// What the system said.
pub(crate) fn spawn_blocked(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let _blocked = Blocked::all()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}
