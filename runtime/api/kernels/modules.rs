//! The modules behind `vkhmm::kernels`: which SPIR-V, specialised how. Each becomes a kernel of a runtime when it is first used.

use crate::kernel::Kernel;
use crate::{Result, Runtime};

static FILL: &[u8] = include_bytes!("../../../shaders/spv/fill.spv");
static COPY: &[u8] = include_bytes!("../../../shaders/spv/copy.spv");
static ELEMENTWISE: &[u8] = include_bytes!("../../../shaders/spv/k_elementwise.spv");
static REDUCE: &[u8] = include_bytes!("../../../shaders/spv/k_reduce.spv");
static TRANSPOSE: &[u8] = include_bytes!("../../../shaders/spv/k_transpose.spv");
static CONV2D: &[u8] = include_bytes!("../../../shaders/spv/k_conv2d.spv");
static SPMV: &[u8] = include_bytes!("../../../shaders/spv/k_spmv.spv");
static SOFTMAX: &[u8] = include_bytes!("../../../shaders/spv/k_softmax.spv");
static GEMM: &[u8] = include_bytes!("../../../shaders/spv/k_gemm.spv");

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
    Exp,
    Divide,
    Sum,
    Max,
    ArgMin,
    ArgMinPairs,
    Dot,
    Transpose,
    Conv2d,
    Spmv,
    Softmax,
    /// Whether A and B lie transposed, and all rows begin on 16 bytes.
    Gemm {
        a_t: bool,
        b_t: bool,
        wide: bool,
    },
}

impl Module {
    /// How many there are.
    pub(crate) const COUNT: usize = 25;

    /// Place among a runtime's kernels, SPIR-V, specialisation constants from id 0 on, and name.
    fn parts(self) -> (usize, &'static [u8], Vec<u32>, &'static str) {
        match self {
            Self::FillWords => (0, FILL, vec![], "vkhmm fill"),
            Self::CopyWords => (1, COPY, vec![], "vkhmm copy"),
            Self::Fill => (2, ELEMENTWISE, vec![0], "vkhmm fill"),
            Self::Copy => (3, ELEMENTWISE, vec![1], "vkhmm copy"),
            Self::Axpy => (4, ELEMENTWISE, vec![2], "vkhmm axpy"),
            Self::Scale => (5, ELEMENTWISE, vec![3], "vkhmm scale"),
            Self::Exp => (6, ELEMENTWISE, vec![4], "vkhmm softmax"),
            Self::Divide => (7, ELEMENTWISE, vec![5], "vkhmm softmax"),
            Self::Sum => (8, REDUCE, vec![0], "vkhmm sum"),
            Self::Max => (9, REDUCE, vec![1], "vkhmm max"),
            Self::ArgMin => (10, REDUCE, vec![2], "vkhmm arg_min"),
            Self::ArgMinPairs => (11, REDUCE, vec![3], "vkhmm arg_min"),
            Self::Dot => (12, REDUCE, vec![4], "vkhmm dot"),
            Self::Transpose => (13, TRANSPOSE, vec![], "vkhmm transpose"),
            Self::Conv2d => (14, CONV2D, vec![], "vkhmm conv2d"),
            Self::Spmv => (15, SPMV, vec![], "vkhmm spmv"),
            Self::Softmax => (16, SOFTMAX, vec![], "vkhmm softmax"),
            Self::Gemm { a_t, b_t, wide } => {
                let constants = [a_t, b_t, wide].map(u32::from);
                let slot = constants.iter().fold(0, |slot, bit| 2 * slot + *bit as usize);
                (17 + slot, GEMM, constants.to_vec(), "vkhmm gemm")
            }
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
            builder = builder.spec(id, value);
        }
        // SAFETY: our modules end, write each element from one invocation or behind a barrier, and touch only elements whose number
        // the callers in this folder have checked against the accesses they pass.
        let kernel = unsafe { builder.build()? };
        Ok(rt.inner.shipped[slot].get_or_init(|| kernel))
    }
}
