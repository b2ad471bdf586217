//! Kernels: SPIR-V modules made into something that can be launched.

use crate::Result;
use crate::error::{Error, KernelError};
use crate::runtime::{Inner, Runtime};
use std::sync::{Arc, Weak};
use vkhmm_port::DeviceError;
use vkhmm_vulkan::{KernelOptions, SpecValue, VulkanKernel};

/// A compiled kernel of one runtime. Cheap to clone; what the device still runs stays until it is done.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) kernel: Arc<VulkanKernel>,
    /// Whose it is; weak, since the runtime keeps kernels of its own.
    pub(crate) owner: Weak<Inner>,
}

impl Kernel {
    /// What messages call it.
    pub fn name(&self) -> &str {
        self.kernel.name()
    }

    /// Invocations of one work group.
    pub fn local_size(&self) -> [u32; 3] {
        self.kernel.local_size()
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Options of a kernel. Made by [`Runtime::kernel_builder`].
pub struct KernelBuilder {
    runtime: Runtime,
    spirv: Vec<u8>,
    options: KernelOptions,
}

impl KernelBuilder {
    pub(crate) fn new(runtime: Runtime, spirv: &[u8]) -> Self {
        // A private copy: the caller's bytes may be managed memory themselves.
        Self { runtime, spirv: spirv.to_vec(), options: KernelOptions::default() }
    }

    /// The entry point; needed only where the module has several.
    #[must_use]
    pub fn entry(mut self, name: &str) -> Self {
        self.options.entry = Some(name.into());
        self
    }

    /// A specialisation constant, by its id.
    #[must_use]
    pub fn spec(mut self, id: u32, value: impl Into<SpecValue>) -> Self {
        self.options.spec.push((id, value.into()));
        self
    }

    /// The subgroup size to run with.
    #[must_use]
    pub fn subgroup_size(mut self, lanes: u32) -> Self {
        self.options.subgroup_size = Some(lanes);
        self
    }

    /// What messages call it. Default: the entry point.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.options.name = name.into();
        self
    }

    /// Its launches are timed on the device, for [`Launch::elapsed`](crate::Launch::elapsed). Not free: the device reads its clock
    /// before and behind the kernel, which keeps it apart from its neighbours.
    #[must_use]
    pub fn timed(mut self) -> Self {
        self.options.timed = true;
        self
    }

    /// Compiles it.
    ///
    /// # Errors
    /// As [`Runtime::kernel`].
    ///
    /// # Safety
    /// As [`Runtime::kernel`].
    pub unsafe fn build(self) -> Result<Kernel> {
        let inner = &self.runtime.inner;
        if !vkhmm_port::HostMemory::owned(&**inner.engine.host()) {
            return Err(crate::MemoryError::ForkedChild.into());
        }
        let words: Vec<u32> = self.spirv.chunks(4).map(word).collect();
        let padded = self.spirv.len() % 4 != 0;
        let made = inner.engine.device().kernel(if padded { &[] } else { &words }, self.options);
        let kernel = made.map_err(|error| match error {
            // Loss has one name, whoever notices it.
            KernelError::Device(lost @ DeviceError::Lost { .. }) => Error::Memory(lost.into()),
            other => Error::Kernel(other),
        })?;
        Ok(Kernel { kernel, owner: Arc::downgrade(inner) })
    }
}

fn word(bytes: &[u8]) -> u32 {
    let mut whole = [0; 4];
    whole[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(whole)
}
