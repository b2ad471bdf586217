//! The one place that names linux and vulkan together: the ports the production engine runs on.

use crate::error::Error;
use crate::{MemoryKind, Result};
use vkhmm_engine::Ports;
use vkhmm_linux::{LinuxExec, LinuxHost};
use vkhmm_port::inject::Injected;
use vkhmm_port::{Device, FaultMode, HostProfile};
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

/// Whether touches can be answered without a queue, where the only queue is the application's too.
pub(crate) fn check_queues(device: &VulkanDevice, host: &HostProfile) -> Result<()> {
    let profile = device.profile();
    let by_cpu = matches!(profile.memory.kind, MemoryKind::DeviceCoherent | MemoryKind::UnifiedMemory);
    if !profile.queue_is_shared || by_cpu || host.faults == FaultMode::Declared {
        return Ok(());
    }
    Err(Error::SharedQueue { kind: profile.memory.kind })
}
