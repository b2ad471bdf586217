//! The engine over the fakes: one program, so that the engine is compiled for the fakes once.

#[path = "../common/mod.rs"]
mod common;

mod acquire;
mod advice;
mod ahead;
mod basic;
mod concurrency;
mod in_place;
mod in_thread;
mod loss;
mod model;
mod overlap;
mod paged;
mod paged_beside;
mod paged_remote;
mod parts;
mod prefetch;
mod refusals;
mod regressions;
mod runs;
mod settling;
mod shared_queue;
mod sparse;
mod torture;
mod uploads;
