//! What a caller may choose about host memory. Reading it from the environment or a builder happens above this crate.

/// A fault engine, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// Userfaultfd that also parks system calls; handler threads answer.
    UffdThread,
    /// Userfaultfd for user code only, as ordinary users get it; handler threads answer.
    UffdThreadUserOnly,
    /// Userfaultfd answered by the faulting thread in SIGBUS.
    UffdSigbus,
    /// mprotect answered by the faulting thread in SIGSEGV.
    SegvMprotect,
    /// No faults: callers bring ranges home before they hand out slices.
    Declared,
}

impl EngineChoice {
    /// Every engine, best first.
    pub const ALL: [Self; 5] =
        [Self::UffdThread, Self::UffdThreadUserOnly, Self::UffdSigbus, Self::SegvMprotect, Self::Declared];

    /// The name that reports print and that [`Self::from_name`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UffdThread => "uffd-thread",
            Self::UffdThreadUserOnly => "uffd-thread (user faults only)",
            Self::UffdSigbus => "uffd-sigbus",
            Self::SegvMprotect => "segv-mprotect",
            Self::Declared => "declared",
        }
    }

    /// The engine called `name`; `uffd-thread-user` is accepted for the second one, so that shells need no quotes.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uffd-thread-user" => Some(Self::UffdThreadUserOnly),
            _ => Self::ALL.into_iter().find(|e| e.name() == name),
        }
    }
}

/// How to open host memory. The default is what production uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Only this engine, or an error that says why not. `None`: the best one that can be had.
    pub engine: Option<EngineChoice>,
    /// Bytes to reserve, rounded up to whole blocks; exactly that or an error. `None`: as much as the limits allow, at most
    /// 1 TiB.
    pub reservation_bytes: Option<u64>,
    /// Whether core dumps contain managed memory. Off by default: the reservation is huge, and its bytes are the user's.
    pub dump: bool,
    /// Act as on a kernel without UFFDIO_POISON (before 6.6).
    pub no_poison: bool,
    /// Act as on a kernel whose UFFDIO_CONTINUE cannot write-protect (before 6.4).
    pub no_continue_wp: bool,
    /// Act as on a system without MADV_WIPEONFORK (gVisor).
    pub no_wipe_on_fork: bool,
    /// Act as on a system that punches no holes (gVisor).
    pub no_punch_hole: bool,
    /// Act as if `vm.max_map_count` were this. `None`: what the system says.
    pub max_map_count: Option<usize>,
}
