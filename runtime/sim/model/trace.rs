//! Traces: what a program does with managed memory, as data. The engine plays them, the optimum is computed from them.

use vkhmm_core::units::{ByteRange, Geometry};

pub use vkhmm_engine::AccessKind as Access;

/// One allocation of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Length in bytes.
    pub bytes: u64,
    /// The host has written all of it before the trace begins.
    pub filled: bool,
}

/// Bytes of one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which allocation, by its place in the trace.
    pub allocation: usize,
    /// Which bytes of it: whole sub-blocks of 64 KiB.
    pub bytes: ByteRange,
}

/// One thing that the program does. Launches and prefetches return at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Launches a kernel.
    Launch {
        /// What it touches.
        uses: Vec<(Part, Access)>,
        /// Operations.
        flop: f64,
        /// Bytes of device memory read and written.
        bytes: f64,
    },
    /// The CPU loads from, or stores to, every page in order.
    Touch {
        /// Which bytes.
        part: Part,
        /// Stores.
        write: bool,
    },
    /// Asks for bytes on the device.
    ToDevice(Part),
    /// Asks for bytes on the host.
    ToHost(Part),
}

/// A program.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Name, as on the command line.
    pub name: &'static str,
    /// Its memory.
    pub allocations: Vec<Allocation>,
    /// What it does, in order.
    pub steps: Vec<Step>,
}

/// Why a trace cannot be played under a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Parts must be whole sub-blocks inside their allocation.
    #[error("step {step} of `{trace}` names {part:?}, which is not whole sub-blocks inside its allocation")]
    Part {
        /// Which trace.
        trace: &'static str,
        /// Which step.
        step: usize,
        /// What it names.
        part: Part,
    },
    /// A launch needs more at once than the limit allows.
    #[error("step {step} of `{trace}` needs {need} bytes at once, the limit is {limit}: raise the limit")]
    TooLarge {
        /// Which trace.
        trace: &'static str,
        /// Which step.
        step: usize,
        /// Bytes needed.
        need: u64,
        /// The limit.
        limit: u64,
    },
}

impl Trace {
    /// No allocation and no step yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, allocations: Vec::new(), steps: Vec::new() }
    }

    /// Bytes of all allocations.
    pub fn footprint(&self) -> u64 {
        self.allocations.iter().map(|a| a.bytes).sum()
    }

    /// Whether it hints at what comes.
    pub fn has_hints(&self) -> bool {
        self.steps.iter().any(|s| matches!(s, Step::ToDevice(_) | Step::ToHost(_)))
    }

    /// Adds an allocation; answers its number.
    pub fn alloc(&mut self, bytes: u64, filled: bool) -> usize {
        self.allocations.push(Allocation { bytes, filled });
        self.allocations.len() - 1
    }

    /// Adds a launch that does `flop` operations and streams its arguments once: what it overwrites is written, what it writes
    /// is read as well.
    pub fn launch(&mut self, flop: f64, uses: &[(Part, Access)]) {
        let passes = |access: &Access| if *access == Access::Write { 2.0 } else { 1.0 };
        let bytes = uses.iter().map(|(part, access)| part.bytes.len() as f64 * passes(access)).sum();
        self.steps.push(Step::Launch { uses: uses.to_vec(), flop, bytes });
    }

    /// Checks that it can be played under `limit` bytes.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn check(&self, limit: u64) -> Result<(), TraceError> {
        let frame = Geometry::PRODUCTION.frame_bytes();
        for (step, what) in self.steps.iter().enumerate() {
            let parts: Vec<Part> = match what {
                Step::Launch { uses, .. } => uses.iter().map(|(part, _)| *part).collect(),
                Step::Touch { part, .. } | Step::ToDevice(part) | Step::ToHost(part) => vec![*part],
            };
            for part in &parts {
                let ByteRange { start, end } = part.bytes;
                let inside = self.allocations.get(part.allocation).is_some_and(|a| end <= a.bytes);
                if !inside || start >= end || start % frame != 0 || end % frame != 0 {
                    return Err(TraceError::Part { trace: self.name, step, part: *part });
                }
            }
            let need = if matches!(what, Step::Touch { .. } | Step::ToHost(_)) { 0 } else { union(parts) };
            if need > limit {
                return Err(TraceError::TooLarge { trace: self.name, step, need, limit });
            }
        }
        Ok(())
    }
}

/// Bytes in all parts together, each counted once.
fn union(mut parts: Vec<Part>) -> u64 {
    parts.sort_by_key(|p| (p.allocation, p.bytes.start));
    let (mut sum, mut at) = (0, (usize::MAX, 0));
    for part in parts {
        let seen = if at.0 == part.allocation { at.1 } else { 0 };
        let start = part.bytes.start.max(seen);
        sum += part.bytes.end.saturating_sub(start);
        at = (part.allocation, part.bytes.end.max(seen));
    }
    sum
}
