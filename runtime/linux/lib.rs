//! Host memory, faults, locks and threads on Linux: what `port` asks for, by memfd, userfaultfd, futex and rustix.
//!
//! ```text
//!   open(config) ──► LinuxHost (HostMemory)         LinuxFaults (FaultSource)        LinuxExec (Exec)
//!                      │ publish revoke protect        │ which page was touched        │ futex lock, event count,
//!                      ▼ poison populate punch         ▼                               ▼ threads, bulk copies
//!                    engine: uffd │ sigbus │ segv    userfaultfd, or touch: signal handlers
//!                      ▼     │ declared
//!                    reservation: one memfd, mapped twice (R the application's view, A the alias)
//! ```
//!
//! Every call that would issue a system call on the memfd or the userfaultfd first asks [`HostMemory::owned`]: a forked child
//! holds both descriptors, and using either would change its parent's memory.
//!
//! [`HostMemory::owned`]: vkhmm_port::HostMemory::owned

#![cfg(target_os = "linux")]

mod config;
mod declared;
mod exec;
mod faults;
mod fork;
mod futex;
mod host;
mod ioctl;
mod probe;
mod report;
mod reservation;
mod segv;
mod sigbus;
mod signals;
#[cfg(feature = "userfaultfd")]
mod source_crate;
#[cfg(not(feature = "userfaultfd"))]
mod source_rustix;
mod touch;
mod uffd;
mod wakes;

pub use config::{Config, EngineChoice};
pub use exec::LinuxExec;
pub use faults::LinuxFaults;
pub use fork::Owner;
pub use futex::{EventCount, Lock, LockGuard};
pub use host::LinuxHost;
pub use probe::{OpenError, Opened, open};
pub use report::{EngineReport, EngineStatus, Verdict};
pub use reservation::ReservationError;
pub use wakes::Wakes;
