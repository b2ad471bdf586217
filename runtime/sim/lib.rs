//! The deterministic world: threads, time, host memory and a device under a scheduler that one seed decides.
//!
//! ```text
//!   seed ─► Random ─► World: who runs next, how far time jumps
//!                       │ one baton: exactly one thread runs, the others wait for it
//!      application ── engine threads ── device queues          each a coroutine that gives the baton up
//!                       │                                      at every lock, wait, notify, spawn and port call
//!            SimHost, SimDevice: the fakes of `port`, over SimExec
//! ```
//!
//! The same seed gives the same schedule and, byte for byte, the same trace. A thread that panics, a deadlock and a run without
//! end are failures with a report; replay one with `cargo run -p vkhmm-sim -- <seed>`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod chooser;
mod crew;
mod exec;
pub mod explore;
pub mod model;
mod ports;
mod random;
pub mod scene;
mod script;
mod state;
mod world;

pub use exec::{SimExec, SimGuard, SimMutex, SimSignal};
pub use ports::{SimDevice, SimFaults, SimHost, SimPorts, device, host};
pub use random::Random;
pub use script::{Deviation, Deviations, Grain};
pub use world::{Limits, Run, run, run_steady, run_within};
