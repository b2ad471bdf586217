//! The one place that names linux and vulkan together: the ports the production engine runs on.

use vkhmm_engine::Ports;
use vkhmm_linux::{LinuxExec, LinuxHost};
use vkhmm_port::inject::Injected;
use vkhmm_vulkan::VulkanDevice;

/// The real world.
pub(crate) enum Real {}

impl Ports for Real {
    type Exec = LinuxExec;
    /// Without switches nothing but the memory itself.
    type Host = Injected<LinuxHost>;
    type Device = VulkanDevice;
}

pub(crate) type Engine = vkhmm_engine::Engine<Real>;
pub(crate) type Range = vkhmm_engine::RangeCell<Real>;
pub(crate) type Op = vkhmm_engine::Op<Real>;
