//! vkhmm as applications see it: [`Runtime`], [`Managed`], kernels and launches. The rest of this page is the README.
//!
#![doc = include_str!("../../README.md")]
#![deny(missing_docs)]

mod access;
mod acquire;
mod builder;
mod close;
mod doctor;
mod error;
mod guard;
mod hints;
mod kernel;
pub mod kernels;
mod launch;
mod managed;
mod paged;
mod ports;
mod record;
mod runtime;
mod shipped;
mod view;
pub mod vulkan;
mod windows;

pub use access::{Access, Argument, Arguments, Collected};
pub use acquire::{Accesses, Acquired, DevicePlace};
pub use builder::{Builder, FaultEngine, PlacementChoice};
pub use close::{CloseError, Closing};
pub use doctor::Doctor;
pub use error::{Error, KernelError, MemoryError};
pub use guard::{HostGuard, HostGuardMut};
pub use hints::{Pin, Prefetch};
pub use kernel::{Kernel, KernelBuilder};
pub use launch::{Grid, Launch};
pub use managed::Managed;
pub use runtime::Runtime;
pub use view::{Placement, Slice, SliceMut};
pub use windows::Windows;

pub use bytemuck::Pod;
pub use vkhmm_core::advice::{Advice, Advised, Side};
pub use vkhmm_core::pagemap::{self, Location, MemoryKind, PageFlags};
pub use vkhmm_engine::{
    AccessKind, Attributes, PagingReport as Paging, PlacementKind, Places, Residency, SkipReason, Skipped,
    Stats, TraceCause, TraceEvent, Waits,
};
pub use vkhmm_port::DeviceError;
pub use vkhmm_port::host::Errno;
pub use vkhmm_port::inject::{FaultTrouble, HostCall, HostFailure, HostSwitches};
pub use vkhmm_vulkan::{Failure, SpecValue, Switches};

/// The result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
