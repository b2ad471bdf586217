//! Opens host memory: reserves, then tries the fault engines best first and says in words why a better one was refused.

use crate::config::{Config, EngineChoice};
use crate::faults::LinuxFaults;
use crate::fork::Owner;
use crate::host::{Engine, LinuxHost, Shared};
use crate::ioctl::{errno, negotiate, new_from_node};
use crate::report::{EngineReport, EngineStatus, Verdict};
use crate::reservation::{Reservation, ReservationError};
use crate::uffd::Uffd;
use crate::wakes::Wakes;
use linux_raw_sys::general::{
    UFFD_FEATURE_EXACT_ADDRESS, UFFD_FEATURE_MINOR_SHMEM, UFFD_FEATURE_MISSING_SHMEM,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_POISON, UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_USER_MODE_ONLY,
};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open as open_file};
use rustix::io;
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use std::sync::Arc;
use vkhmm_core::units::Geometry;
use vkhmm_port::host::Errno;
use vkhmm_port::{FaultMode, HostProfile};

/// Features without which the engine cannot work, by the name and kernel that the report gives.
const REQUIRED: [(u32, &str); 4] = [
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP, "write-protect faults (5.7)"),
    (UFFD_FEATURE_MISSING_SHMEM, "faults on holes of shared memory (4.11)"),
    (UFFD_FEATURE_MINOR_SHMEM, "faults on cached pages of shared memory (5.14)"),
    (UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "write-protection of shared memory (5.19)"),
];
/// Features that are used where the kernel has them.
const WANTED: u32 = UFFD_FEATURE_EXACT_ADDRESS | UFFD_FEATURE_POISON;
const NODE: &str = "/dev/userfaultfd";
const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";

/// Host memory, ready for the engine.
pub struct Opened {
    /// The reservation.
    pub host: Arc<LinuxHost>,
    /// Its faults; none if [`FaultMode::Declared`].
    pub source: Option<Arc<LinuxFaults>>,
    /// What was found on the way.
    pub report: EngineReport,
}

/// Why host memory could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The reservation could not be made.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// The engine that was asked for cannot be had.
    #[error("fault engine {engine} cannot be had: {reason}; to enable it: {remedy}")]
    Engine {
        /// Its name.
        engine: &'static str,
        /// What stood in the way.
        reason: String,
        /// What would enable it.
        remedy: String,
    },
    /// The system's pages are not of the size that the runtime is built for.
    #[error("the system's pages have {have} bytes; only pages of 4096 bytes are supported")]
    PageSize {
        /// Bytes of a system page.
        have: usize,
    },
    /// A small thing that every system grants was refused.
    #[error("{operation} failed: {source}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: Errno,
    },
}

/// Why an engine was refused, and what would help.
struct Refusal {
    reason: String,
    remedy: String,
}

impl Refusal {
    fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }
}

/// Reserves host memory and opens the best fault engine that `config` and the system allow.
///
/// # Errors
/// No room for one block, a forced engine that cannot be had (with the reason and the remedy), or a system that refuses what
/// every kernel grants.
pub fn open(config: &Config) -> Result<Opened, OpenError> {
    let page_bytes = rustix::param::page_size();
    if page_bytes != Geometry::PRODUCTION.page_bytes as usize {
        return Err(OpenError::PageSize { have: page_bytes });
    }
    let small = |operation| move |e: io::Errno| OpenError::Refused { operation, source: errno(e) };
    let owner = Owner::new().map_err(small("marking the owner of host memory (MADV_WIPEONFORK)"))?;
    let reservation = Reservation::new(config)?;
    let (engine, engines, chosen) = choose(config, &reservation)?;
    let profile = profile(&engine, chosen, &reservation);
    let wakes = matches!(engine, Engine::Uffd(_)).then(Wakes::of_this_machine);
    let report = EngineReport {
        chosen,
        engines,
        fallbacks: fallbacks(&engine),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        calls: if cfg!(feature = "userfaultfd") { "userfaultfd crate" } else { "rustix" },
        reservation_bytes: reservation.bytes(),
        reservation_limited_by: reservation.limited_by(),
        wakes,
    };
    let shared = Arc::new(Shared::new(owner, reservation, engine, profile));
    let source = wakes.map(|wakes| LinuxFaults::new(Arc::clone(&shared), wakes.spin_ns).map(Arc::new));
    let source = source.transpose().map_err(small("making an eventfd"))?;
    Ok(Opened { host: Arc::new(LinuxHost::new(shared)), source, report })
}

fn choose(
    config: &Config,
    reservation: &Reservation,
) -> Result<(Engine, Vec<EngineStatus>, EngineChoice), OpenError> {
    let mut statuses = Vec::new();
    let mut found = None;
    for engine in EngineChoice::ALL {
        let wanted = config.engine.is_none_or(|forced| forced == engine);
        let verdict = if matches!(engine, EngineChoice::UffdSigbus | EngineChoice::SegvMprotect) {
            Verdict::NotBuilt
        } else if found.is_some() || !wanted {
            Verdict::NotTried
        } else {
            match start(engine, config, reservation) {
                Ok(started) => {
                    found = Some((started, engine));
                    Verdict::Chosen
                }
                Err(Refusal { reason, remedy }) => Verdict::Refused { reason, remedy },
            }
        };
        statuses.push(EngineStatus { engine, verdict });
    }
    if let Some((engine, chosen)) = found {
        return Ok((engine, statuses, chosen));
    }
    let forced = config.engine.unwrap_or(EngineChoice::Declared);
    let refusal = statuses.into_iter().find(|s| s.engine == forced).map(|s| s.verdict);
    let (reason, remedy) = match refusal {
        Some(Verdict::Refused { reason, remedy }) => (reason, remedy),
        _ => ("it is not built yet".to_owned(), "choose another engine".to_owned()),
    };
    Err(OpenError::Engine { engine: forced.name(), reason, remedy })
}

fn start(engine: EngineChoice, config: &Config, reservation: &Reservation) -> Result<Engine, Refusal> {
    let make: fn() -> Result<OwnedFd, Refusal> = match engine {
        EngineChoice::UffdThread => make_full,
        EngineChoice::UffdThreadUserOnly => make_user_only,
        _ => return Ok(Engine::Declared),
    };
    // Negotiating fixes a descriptor's features, so a first one is asked and thrown away.
    let known = negotiate(make()?.as_fd(), 0).map_err(|e| refused_call("UFFDIO_API", e))?;
    let missing: Vec<&str> =
        REQUIRED.iter().filter(|(bit, _)| known & u64::from(*bit) == 0).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        return Err(Refusal::new(
            format!("the kernel lacks {}", missing.join(", ")),
            "Linux 5.19 or newer, built with userfaultfd write-protection and minor faults",
        ));
    }
    let asked = REQUIRED.iter().fold(known & u64::from(WANTED), |all, (bit, _)| all | u64::from(*bit));
    let fd = make()?;
    negotiate(fd.as_fd(), asked).map_err(|e| refused_call("UFFDIO_API", e))?;
    let no_poison = config.no_poison || known & u64::from(UFFD_FEATURE_POISON) == 0;
    Uffd::register(fd, reservation, no_poison, config.no_continue_wp)
        .map(Engine::Uffd)
        .map_err(|failed| refused_call(failed.operation, failed.source))
}

fn refused_call(operation: &str, source: Errno) -> Refusal {
    Refusal::new(format!("{operation} failed: {source}"), "Linux 5.19 or newer")
}

fn make(flags: u32) -> io::Result<OwnedFd> {
    let flags =
        UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK | UserfaultfdFlags::from_bits_retain(flags);
    // SAFETY: the descriptor acts on memory only once memory is registered with it, which only `Uffd::register` does, with R.
    unsafe { userfaultfd(flags) }
}

/// A userfaultfd that parks system calls too: by the system call, else by the device node.
fn make_full() -> Result<OwnedFd, Refusal> {
    let by_call = match make(0) {
        Ok(fd) => return Ok(fd),
        Err(io::Errno::NOSYS) => return Err(no_userfaultfd()),
        Err(e) => e,
    };
    let by_node = open_file(NODE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).and_then(|node| {
        new_from_node(node, (UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK).bits())
    });
    by_node.map_err(|e| {
        let sysctl = std::fs::read_to_string(SYSCTL).map_or_else(|_| "unreadable".to_owned(), |s| s.trim().to_owned());
        Refusal::new(
            format!("userfaultfd: {by_call}; {NODE}: {e}; vm.unprivileged_userfaultfd is {sysctl}"),
            format!(
                "sysctl vm.unprivileged_userfaultfd=1, or read and write access to {NODE}, or CAP_SYS_PTRACE; \
                 in a container the seccomp profile must allow userfaultfd as well, or the device must be passed in"
            ),
        )
    })
}

/// A userfaultfd for faults of user code, which every user may make.
fn make_user_only() -> Result<OwnedFd, Refusal> {
    make(UFFD_USER_MODE_ONLY).map_err(|e| match e {
        io::Errno::NOSYS => no_userfaultfd(),
        io::Errno::PERM | io::Errno::ACCESS => Refusal::new(
            format!("userfaultfd: {e}; a seccomp filter forbids the system call, as the default ones of containers do"),
            format!("a seccomp profile that allows userfaultfd, or {NODE} passed into the container"),
        ),
        io::Errno::INVAL => Refusal::new("the kernel does not know user-mode-only userfaultfd", "Linux 5.11 or newer"),
        e => Refusal::new(format!("userfaultfd: {e}"), "more file descriptors or memory, as the message says"),
    })
}

fn no_userfaultfd() -> Refusal {
    Refusal::new(
        "the kernel (or the sandbox that stands for it) has no userfaultfd",
        "a Linux kernel built with CONFIG_USERFAULTFD; sandboxes such as gVisor have none",
    )
}

fn profile(engine: &Engine, chosen: EngineChoice, reservation: &Reservation) -> HostProfile {
    HostProfile {
        engine: chosen.name(),
        faults: match chosen {
            EngineChoice::UffdThread => FaultMode::Full,
            EngineChoice::Declared => FaultMode::Declared,
            _ => FaultMode::UserOnly,
        },
        reservation_bytes: reservation.bytes(),
        // The storage is plain pages; see `reservation` for where others would be probed.
        map_granule_bytes: Geometry::PRODUCTION.page_bytes,
        publish_read_only: match engine {
            Engine::Uffd(uffd) => uffd.has_continue_wp(),
            Engine::Declared => true,
        },
        protect: true,
    }
}

fn fallbacks(engine: &Engine) -> Vec<String> {
    let mut lines = Vec::new();
    if let Engine::Uffd(uffd) = engine {
        if !uffd.has_poison() {
            lines.push("no UFFDIO_POISON (6.6): a stray touch is SIGSEGV by mprotect, not SIGBUS".to_owned());
        }
        if !uffd.has_continue_wp() {
            lines.push(
                "no read-only UFFDIO_CONTINUE (6.4): pages come home exclusive, never shared".to_owned(),
            );
        }
    }
    lines
}
