//! Paged launches: a kernel may touch anything of the ranges it is given, and what it really touches moves. What host and shaders agree
//! on is in [`layout`]; what a round holds and runs is decided by [`plan`].

pub mod layout;
pub mod plan;
