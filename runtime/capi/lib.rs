//! The C ABI: what `include/vkhmm.h` declares, over the Rust API. Each function reads its arguments (`input`), finds its objects
//! (`handles`), calls the API, and answers with a code (`error`).
//!
//! Nothing a program passes as a handle, a kind or a size can crash it; pointers are checked for NULL and alignment. No lock of this
//! crate is held while the API is called, and no thread of the runtime's ever calls the program.

#![allow(non_camel_case_types, reason = "these are C's names")]
#![deny(missing_docs)]

pub mod acquire;
pub mod allocator;
pub mod buffer;
pub mod diagnose;
pub mod error;
pub mod guard;
mod handles;
pub mod hints;
mod input;
pub mod kernel;
pub mod kernels;
pub mod launch;
pub mod pagemap;
pub mod parts;
pub mod requirements;
pub mod runtime;
pub mod vk;
