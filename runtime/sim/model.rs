//! The link model: the production engine in virtual time against a stated machine, so that placement, eviction and prefetch are
//! judged in modelled seconds and counted bytes without a device.
//!
//! ```text
//!   Trace (launches, touches, prefetches) ─► play ─► engine over ModelHost, ModelDevice, ModelExec ─► Stats, seconds
//!      │                                                 every call costs what the LinkModel says        │
//!      └─► Optimum (Belady, 64 KiB, write-backs) ──────────────────────────────────────────────────► table
//! ```
//!
//! No byte is ever copied: memory is counts, so ranges may be far larger than this machine. Nothing is left to chance: the same
//! trace on the same model gives the same counts and the same nanoseconds. What costs time: page-table work, imports, host pages,
//! submits, copies on the link, device copies and fills, kernels by their roofline, waking up. What does not: the engine's own
//! instructions, barriers, the application's own loads and stores. Kernels and copies do not slow each other down.

mod device;
mod exec;
pub mod gemm;
mod host;
mod kernels;
mod link;
mod machine;
mod optimum;
pub mod paged;
mod play;
pub mod presets;
mod programs;
pub mod table;
mod trace;
pub mod traces;

pub use device::{Moved, Work};
pub use link::LinkModel;
pub use optimum::Optimum;
pub use play::{Outcome, Placement, PlayError, Transfer, Way, play};
pub use programs::{PROGRAMS, Program};
pub use trace::{Access, Allocation, Part, Step, Trace, TraceError};
