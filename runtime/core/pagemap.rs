//! The pagemap gateway: the one way to describe device memory to the machine, and the only source of frames.
//!
//! The founding document of this project is a review of how Linux registers device memory (`dev_pagemap`). What it asked for is
//! law here: the registration function is the gateway, so it checks everything and trusts nothing; kind and flags are separate;
//! missing *and* unknown flags are refused and nothing is filled in for the caller; errors are values; teardown reuses what
//! registration stored. [`PagemapRegistry::register`] has the list of checks, [`PageFlags`] is the descriptor of one page.

mod error;
mod flags;
mod registry;
#[cfg(test)]
mod tests;

pub use error::{PagemapError, RegisterError, TeardownError};
pub use flags::{Location, MemoryKind, PageFlags, PagemapFlags};
pub use registry::{FrameSource, OwnerId, Pagemap, PagemapId, PagemapRegistry, PagemapRequest};
