//! The ports: what the engine asks of the world, and nothing else.
//!
//! ```text
//!            engine (decisions of core, performed in the order law)
//!      HostMemory      FaultSource       Device            Exec
//!   map, protect,     which page was   copies, kernels,  locks, signals,
//!   revoke pages      touched, how     timelines         threads, time
//! ```
//!
//! Three implementations of each exist: the real one (`linux`, `vulkan`), the fakes of [`fake`] (plain memory, `memcpy`), and
//! the simulated ones of `sim`. [`conformance`] is each port's contract as a suite that all of them run; [`inject`] lets any of
//! the host's fail on demand.

#![deny(missing_docs)]

pub mod bytes;
pub mod conformance;
pub mod device;
pub mod exec;
pub mod fake;
pub mod host;
pub mod inject;

pub use bytes::RawBytes;
pub use device::{
    Bind, BoundRange, Command, Device, DeviceError, DeviceProfile, Direction, ImportProfile,
    MemoryKindProfile, Region, Role, Source, SparseProfile, StagingProfile, Submission, Target,
};
pub use exec::{CopyJob, Exec, Mutex, Rank, Signal};
pub use host::{Access, Fault, FaultMode, FaultSource, HostError, HostMemory, HostProfile, Resolver};
