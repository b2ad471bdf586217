//! Kernels: real ones, real ones that take their modelled time, and modelled time alone.

use std::sync::Arc;
use vkhmm_vulkan::VulkanKernel;

/// What a kernel costs by the roofline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Operations.
    pub flop: f64,
    /// Bytes of device memory.
    pub bytes: f64,
}

/// A kernel of the throttled device.
pub struct ThrottledKernel {
    /// What the inner device runs; nothing where time alone passes.
    pub(crate) inner: Option<Arc<VulkanKernel>>,
    /// What it costs at least; nothing where the inner device decides.
    pub(crate) cost: Option<Cost>,
}

impl ThrottledKernel {
    /// Runs, in its own time.
    pub fn real(inner: Arc<VulkanKernel>) -> Self {
        Self { inner: Some(inner), cost: None }
    }

    /// Runs, and is not over before its modelled time.
    pub fn held(inner: Arc<VulkanKernel>, cost: Cost) -> Self {
        Self { inner: Some(inner), cost: Some(cost) }
    }

    /// Changes nothing; its modelled time passes.
    pub fn timed(cost: Cost) -> Self {
        Self { inner: None, cost: Some(cost) }
    }
}
