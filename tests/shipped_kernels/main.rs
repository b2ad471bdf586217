//! `vkhmm::kernels` against the CPU: every kernel at sizes that fit nothing, and larger than the device.

#[path = "../common/mod.rs"]
mod common;

mod apart;
mod elementwise;
mod gemm;
mod moved;
mod planes;
mod reduce;
mod rig;
mod spmv;
