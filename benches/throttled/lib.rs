//! The throttled device: `vkhmm_port::Device` over a Vulkan device whose memory the CPU can reach, behind a modelled [`Link`].
//!
//! ```text
//!   engine ─ submit ─► queue of the role ─► thread of the role: waits for the tickets named, then
//!                                             copies      memcpy, and the link's time
//!                                             kernels     the inner device, and the roofline's time; or the time alone
//!                                             binds       the inner device, as waits for an application
//!                                           ─► holds until the modelled time ─► the ticket, on a timeline of the host's
//! ```
//!
//! Copies in, copies out and kernels are three independent queues whatever the driver has, so overlap, admission and fault tails
//! can be seen on a software device: real threads, real faults, modelled speed. A ticket is never reached before its modelled time;
//! how late it is depends on the machine, so figures from here are of class L and name the link.

#![deny(missing_docs)]

mod copy;
mod device;
mod kernel;
mod link;
mod queues;
mod rig;
mod worker;

pub use device::{Options, Throttled, ThrottledImport};
pub use kernel::{Cost, ThrottledKernel};
pub use link::Link;
pub use rig::{Array, Operation, Ports, Rig};
