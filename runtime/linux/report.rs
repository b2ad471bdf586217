//! What opening found, for doctor: each fault engine in words, and why a better one was refused.

use crate::config::EngineChoice;
use crate::wakes::Wakes;
use core::fmt;

/// What became of one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In use.
    Chosen,
    /// Not tried: a better one was had, or another one was demanded.
    NotTried,
    /// Cannot be had here.
    Refused {
        /// What stood in the way.
        reason: String,
        /// What would enable it.
        remedy: String,
    },
}

/// One engine's line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// Which engine.
    pub engine: EngineChoice,
    /// What became of it.
    pub verdict: Verdict,
}

/// What opening host memory found. `Display` prints it in words, a line each.
#[derive(Clone, Debug)]
pub struct EngineReport {
    /// The engine in use.
    pub chosen: EngineChoice,
    /// Every engine, best first.
    pub engines: Vec<EngineStatus>,
    /// What the kernel lacks (or was told to lack), and what is done instead.
    pub fallbacks: Vec<String>,
    /// Kernel release.
    pub kernel: String,
    /// Who makes the userfaultfd calls: `userfaultfd crate` or `rustix`.
    pub calls: &'static str,
    /// Size of the reservation in bytes.
    pub reservation_bytes: u64,
    /// What decided that size.
    pub reservation_limited_by: &'static str,
    /// What waking a thread costs, and what was chosen from it; `None` where no thread of ours reads touches.
    pub wakes: Option<Wakes>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("in use"),
            Self::NotTried => f.write_str("not tried"),
            Self::Refused { reason, remedy } => write!(f, "refused: {reason}; to enable it: {remedy}"),
        }
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "fault engine: {} (kernel {}, calls by {})",
            self.chosen.name(),
            self.kernel,
            self.calls
        )?;
        for status in &self.engines {
            writeln!(f, "  {}: {}", status.engine.name(), status.verdict)?;
        }
        for fallback in &self.fallbacks {
            writeln!(f, "  {fallback}")?;
        }
        if let Some(wakes) = &self.wakes {
            writeln!(f, "  {wakes}")?;
        }
        write!(
            f,
            "reservation: {} MiB, decided by {}",
            self.reservation_bytes >> 20,
            self.reservation_limited_by
        )
    }
}
