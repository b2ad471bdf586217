//! The modules behind `vkhmm::kernels`: which SPIR-V, specialised how. Each becomes a kernel of a runtime when it is first used.

use crate::kernel::Kernel;
use crate::{Result, Runtime};

static FILL: &[u8] = include_bytes!("../../../shaders/spv/fill.spv");
static COPY: &[u8] = include_bytes!("../../../shaders/spv/copy.spv");
static ELEMENTWISE: &[u8] = include_bytes!("../../../shaders/spv/k_elementwise.spv");

/// A module with its specialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    /// Of [`Runtime::fill`](crate::Runtime::fill).
    FillWords,
    /// Of [`Runtime::copy`](crate::Runtime::copy).
    CopyWords,
    Fill,
    Copy,
    Axpy,
    Scale,
}

impl Module {
    /// How many there are.
    pub(crate) const COUNT: usize = 6;

    /// Place among a runtime's kernels, SPIR-V, specialisation constants from id 0 on, and name.
    fn parts(self) -> (usize, &'static [u8], &'static [u32], &'static str) {
        match self {
            Self::FillWords => (4, FILL, &[], "vkhmm fill"),
            Self::CopyWords => (5, COPY, &[], "vkhmm copy"),
            Self::Fill => (0, ELEMENTWISE, &[0], "vkhmm fill"),
            Self::Copy => (1, ELEMENTWISE, &[1], "vkhmm copy"),
            Self::Axpy => (2, ELEMENTWISE, &[2], "vkhmm axpy"),
            Self::Scale => (3, ELEMENTWISE, &[3], "vkhmm scale"),
        }
    }

    /// The kernel of this runtime.
    ///
    /// # Errors
    /// As [`Runtime::kernel`], for the driver's sake.
    pub(crate) fn kernel(self, rt: &Runtime) -> Result<&Kernel> {
        let (slot, spirv, constants, name) = self.parts();
        if let Some(kernel) = rt.inner.shipped[slot].get() {
            return Ok(kernel);
        }
        let mut builder = rt.kernel_builder(spirv).name(name);
        for (id, value) in (0..).zip(constants) {
            builder = builder.spec(id, *value);
        }
        // SAFETY: our modules end, write each element from one invocation or behind a barrier, and touch only elements whose number
        // the callers in this folder have checked against the accesses they pass.
        let kernel = unsafe { builder.build()? };
        Ok(rt.inner.shipped[slot].get_or_init(|| kernel))
    }
}
