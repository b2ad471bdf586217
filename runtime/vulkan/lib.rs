//! vkhmm-vulkan: `vkhmm_port::Device` over Vulkan. The only crate that names `ash`; types of `ash` leave it only where an application
//! brings its own device.
//!
//! ```text
//!  open ── loader ─ instance ─ physical ─ choice ─ report        which device, and why
//!   │       └ validation                    │
//!   │       requirements ─ chain, features, extensions, queues    what it is created with, by us or by an application
//!   │                                       │
//!   │       parts ─ door, latch             │                     an application's device: its locks, and when it is let go of
//!   ▼                                       ▼
//!  device ─── queues   roles to queues, one timeline each      context   the logical device, shared by all below
//!     ├────── copy, dispatch ─► recycle    recorded, submitted, kept until the ticket is reached
//!     ├────── bind     what lies in sparse buffers
//!     ├────── memory (kind, allocator, sparse), staging, import (placement, probe)
//!     ├────── visibility   when bytes of one side are seen on the other
//!     ├────── kernel (capabilities, reflect)
//!     └────── inject, guard, shadow, watch   tests: failures on demand, frames that nobody may touch, what is known of each
//! ```
//!
//! Order between queues is by timeline values only. Every submission ends with a barrier to everything later and to host reads,
//! and waits for whatever is known to be done on the other queues, so "reached" always means "visible".

#![deny(missing_docs)]

mod allocator;
mod bind;
#[cfg(test)]
mod canary;
mod capabilities;
mod chain;
mod choice;
mod config;
mod context;
mod control;
mod copy;
mod device;
mod dispatch;
mod door;
mod error;
mod exit;
mod extensions;
mod features;
#[cfg(test)]
mod foreign;
mod guard;
mod import;
mod inject;
mod instance;
mod kernel;
mod kind;
mod latch;
mod loader;
mod memory;
mod open;
mod parts;
mod physical;
mod placement;
mod probe;
mod queues;
mod recycle;
pub mod reflect;
mod report;
mod requirements;
mod shadow;
mod staging;
mod validation;
mod visibility;
mod wait;
mod warm;
mod watch;

pub use ash::vk;
pub use chain::FeatureChain;
pub use config::{Config, Failure, Switches};
pub use control::Control;
pub use device::VulkanDevice;
pub use door::QueueLock;
pub use error::{KernelError, OpenError};
pub use import::VulkanImport;
pub use kernel::{KernelOptions, SpecValue, VulkanKernel};
pub use latch::{DeviceLatch, Released};
pub use memory::VulkanBuffer;
pub use parts::{OwnQueue, Parts, load_device, load_instance};
pub use report::{Candidate, DeviceReport};
pub use requirements::{Level, Need, Requirements, Wanted, WantedQueue};
pub use validation::ValidationLog;
