//! Opens host memory: reserves, then tries the fault engines best first and says in words why a better one was refused.

use crate::config::{Config, EngineChoice};
use crate::faults::LinuxFaults;
use crate::fork::Owner;
use crate::host::{Engine, Failed, LinuxHost, Shared};
use crate::ioctl::{errno, negotiate, new_from_node};
use crate::report::{EngineReport, EngineStatus, Verdict};
use crate::reservation::{Reservation, ReservationError};
use crate::segv::Segv;
use crate::sigbus::Sigbus;
use crate::touch::{REPLACED, Registration, Touches, install};
use crate::uffd::Uffd;
use crate::wakes::Wakes;
use core::ffi::c_int;
use linux_raw_sys::general::{
    UFFD_FEATURE_EXACT_ADDRESS, UFFD_FEATURE_MINOR_SHMEM, UFFD_FEATURE_MISSING_SHMEM,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_POISON, UFFD_FEATURE_SIGBUS,
    UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_USER_MODE_ONLY,
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
    let owner = Owner::make(config.no_wipe_on_fork);
    let owner = Arc::new(owner.map_err(small("marking the owner of host memory (MADV_WIPEONFORK)"))?);
    let reservation = Reservation::new(config)?;
    let (engine, engines, chosen) = choose(config, &owner, &reservation)?;
    let profile = profile(&engine.0, chosen, &reservation);
    let wakes = (!matches!(engine.0, Engine::Declared)).then(Wakes::of_this_machine);
    let report = EngineReport {
        chosen,
        engines,
        fallbacks: fallbacks(&engine.0, &owner, &reservation),
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

/// An engine, and what the signal handlers know R by, if it has them.
type Started = (Engine, Option<Registration>);

fn choose(
    config: &Config,
    owner: &Arc<Owner>,
    reservation: &Reservation,
) -> Result<(Started, Vec<EngineStatus>, EngineChoice), OpenError> {
    let mut statuses = Vec::new();
    let mut found = None;
    for engine in EngineChoice::ALL {
        let wanted = config.engine.is_none_or(|forced| forced == engine);
        let verdict = if found.is_some() || !wanted {
            Verdict::NotTried
        } else {
            match start(engine, config, owner, reservation) {
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
        _ => ("it was not tried".to_owned(), "choose another engine".to_owned()),
    };
    Err(OpenError::Engine { engine: forced.name(), reason, remedy })
}

fn start(
    choice: EngineChoice,
    config: &Config,
    owner: &Arc<Owner>,
    reservation: &Reservation,
) -> Result<Started, Refusal> {
    match choice {
        EngineChoice::UffdThread => {
            uffd(make_full, true, config, reservation).map(|u| (Engine::Uffd(u), None))
        }
        EngineChoice::UffdThreadUserOnly => {
            uffd(make_user_only, true, config, reservation).map(|u| (Engine::Uffd(u), None))
        }
        EngineChoice::UffdSigbus => {
            let uffd = uffd(make_user_only, false, config, reservation)?;
            let touches = touches(libc::SIGBUS, owner, reservation)?;
            let registration = register(&touches)?;
            Ok((Engine::Sigbus(Sigbus { uffd, touches }), Some(registration)))
        }
        EngineChoice::SegvMprotect => {
            let touches = touches(libc::SIGSEGV, owner, reservation)?;
            let segv = Segv::new(Arc::clone(&touches), reservation, config.max_map_count);
            let segv = segv.map_err(refused_step)?;
            let registration = register(&touches)?;
            Ok((Engine::Segv(segv), Some(registration)))
        }
        EngineChoice::Declared => Ok((Engine::Declared, None)),
    }
}

/// A userfaultfd with R registered, whose faults are messages, or signals.
fn uffd(
    make: fn() -> Result<OwnedFd, Refusal>,
    messages: bool,
    config: &Config,
    reservation: &Reservation,
) -> Result<Uffd, Refusal> {
    let signals = if messages { None } else { Some((UFFD_FEATURE_SIGBUS, "faults as signals (4.14)")) };
    let required = || REQUIRED.iter().copied().chain(signals);
    // Negotiating fixes a descriptor's features, so a first one is asked and thrown away.
    let known = negotiate(make()?.as_fd(), 0).map_err(|e| refused_call("UFFDIO_API", e))?;
    let missing: Vec<&str> =
        required().filter(|(bit, _)| known & u64::from(*bit) == 0).map(|(_, name)| name).collect();
    if !missing.is_empty() {
        return Err(Refusal::new(
            format!("the kernel lacks {}", missing.join(", ")),
            "Linux 5.19 or newer, built with userfaultfd write-protection and minor faults",
        ));
    }
    let asked = required().fold(known & u64::from(WANTED), |all, (bit, _)| all | u64::from(bit));
    let fd = make()?;
    negotiate(fd.as_fd(), asked).map_err(|e| refused_call("UFFDIO_API", e))?;
    let no_poison = config.no_poison || known & u64::from(UFFD_FEATURE_POISON) == 0;
    Uffd::register(fd, reservation, messages, (no_poison, config.no_continue_wp)).map_err(refused_step)
}

/// What the handlers of `signal` need to know of the reservation; and the handlers.
fn touches(signal: c_int, owner: &Arc<Owner>, reservation: &Reservation) -> Result<Arc<Touches>, Refusal> {
    let few = "fewer limits on signals and memory, as the message says";
    let stores_known =
        install(signal).map_err(|e| Refusal::new(format!("installing a signal handler: {e}"), few))?;
    let touches = Touches::new(Arc::clone(owner), reservation, signal, stores_known);
    let touches =
        touches.map_err(|e| Refusal::new(format!("memory for what is shown of each page: {e}"), few))?;
    Ok(Arc::new(touches))
}

fn register(touches: &Arc<Touches>) -> Result<Registration, Refusal> {
    Registration::new(touches).ok_or_else(|| {
        Refusal::new("too many runtimes with this engine are open in this process", "dropping some of them")
    })
}

fn refused_step(failed: Failed) -> Refusal {
    match failed {
        Failed::System { operation, source } => refused_call(operation, source),
        Failed::Mappings { operation, have, allowed } => Refusal::new(
            format!("{operation} needs {have} mappings, {allowed} are allowed"),
            "sysctl vm.max_map_count",
        ),
    }
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
        map_granule_bytes: match engine {
            // Smaller runs cost a mapping each, and all mappings of a process are changed one at a time.
            Engine::Segv(_) => Geometry::PRODUCTION.block_bytes() as u32,
            _ => Geometry::PRODUCTION.page_bytes,
        },
        publish_read_only: match engine {
            Engine::Uffd(uffd) | Engine::Sigbus(Sigbus { uffd, .. }) => uffd.has_continue_wp(),
            Engine::Segv(_) | Engine::Declared => true,
        },
        protect: true,
    }
}

fn fallbacks(engine: &Engine, owner: &Owner, reservation: &Reservation) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: &str| lines.push(line.to_owned());
    if let Engine::Uffd(uffd) | Engine::Sigbus(Sigbus { uffd, .. }) = engine {
        if !uffd.has_poison() {
            say("no UFFDIO_POISON (6.6): a stray touch is SIGSEGV by mprotect, not SIGBUS");
        }
        if !uffd.has_continue_wp() {
            say("no read-only UFFDIO_CONTINUE (6.4): pages come home exclusive, never shared");
        }
    }
    if let Engine::Segv(segv) = engine {
        lines.push(format!(
            "mprotect: calls that take access away are refused from {} memory mappings on (vm.max_map_count)",
            segv.allowed()
        ));
    }
    let mut say = |line: &str| lines.push(line.to_owned());
    if let Some(touches) = engine.touches() {
        if !touches.stores_known() {
            say("signals do not say whether a touch was a store: a first store costs two touches");
        }
        if touches.is_replaced() {
            say(REPLACED);
        }
    }
    if !owner.is_wiped() {
        say(
            "no MADV_WIPEONFORK: a forked child is known by its process number, one system call per question",
        );
    }
    if !reservation.punches() {
        say("no hole punching: freed memory is zeroed and kept, not given back");
    }
    lines
}
