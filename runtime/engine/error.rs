//! What can go wrong for a caller of the engine. On every error the state is as it was.

use alloc::string::String;
use alloc::sync::Arc;
use vkhmm_port::{DeviceError, HostError};

/// A refused or failed request.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// This process was forked from the one that owns the runtime.
    #[error(
        "this process is a forked child: the runtime belongs to its parent; use spawn or exec instead of fork"
    )]
    ForkedChild,
    /// No registered, live pagemap: no frame can be had.
    #[error("no live pagemap is registered for the device: it was killed, so nothing can be placed on it")]
    NoPagemap,
    /// The device is gone.
    #[error(
        "the device was lost: {cause}; data that was on the host is intact, build a new runtime to go on"
    )]
    DeviceLost {
        /// The call that noticed.
        cause: Arc<str>,
    },
    /// The named bytes existed on a lost device only.
    #[error("bytes {start}..{end} of `{label}` were lost with the device: {cause}")]
    Lost {
        /// The allocation's label.
        label: Arc<str>,
        /// First lost byte within the named interval, from the allocation's start.
        start: u64,
        /// One past the last byte of that run.
        end: u64,
        /// The call that noticed the loss.
        cause: Arc<str>,
    },
    /// The launch names more than can be on the device at once.
    #[error(
        "the launch needs {need} bytes of device memory at once and can have {have} (limit {limit}, held by guards and other \
         work {held}, largest free run {largest_run}); use windows, or raise the limit"
    )]
    WorkingSetTooLarge {
        /// Bytes needed.
        need: u64,
        /// Bytes that could be had.
        have: u64,
        /// The device memory limit.
        limit: u64,
        /// Bytes that cannot be evicted.
        held: u64,
        /// Longest run of frames that could be had.
        largest_run: u64,
    },
    /// A host guard or pin keeps pages of the named range on the host.
    #[error(
        "a host guard on `{label}` keeps its pages on the host; drop the guard (or pin) before the launch"
    )]
    Guarded {
        /// The allocation's label.
        label: Arc<str>,
    },
    /// A pin keeps a part of what the request names where it is on the device, and the rest cannot come beside it.
    #[error(
        "a part of `{label}` is pinned to the device apart from the rest: unpin it, or pin all of it at once"
    )]
    PinnedApart {
        /// The allocation's label.
        label: Arc<str>,
    },
    /// An application has pages of the named range acquired, and may be using them.
    #[error("`{label}` is acquired by `{by}`: release (or cancel) that first")]
    Acquired {
        /// The allocation's label.
        label: Arc<str>,
        /// The label of the acquire.
        by: Arc<str>,
    },
    /// An acquire would have to wait for the device.
    #[error("`{label}` cannot be acquired without a wait: {why}; ask again later")]
    Busy {
        /// The label of the acquire.
        label: Arc<str>,
        /// What it would wait for.
        why: Arc<str>,
    },
    /// The range cannot keep its address on the device.
    #[error("`{label}` of {bytes} bytes cannot keep its device address: {why}")]
    NotStable {
        /// The allocation's label.
        label: Arc<str>,
        /// Its length.
        bytes: u64,
        /// What stands against it.
        why: Arc<str>,
    },
    /// No host memory for pages.
    #[error("no host memory for {bytes} bytes: {source}")]
    OutOfHostMemory {
        /// How much was asked.
        bytes: u64,
        /// What the system said.
        source: HostError,
    },
    /// The reservation is full.
    #[error(
        "no {need} bytes of address space left in the reservation of {reservation}: set a larger reservation"
    )]
    OutOfAddressSpace {
        /// Bytes needed, whole blocks.
        need: u64,
        /// Bytes of the whole reservation.
        reservation: u64,
    },
    /// The handle names nothing of this runtime.
    #[error("argument {argument} belongs to another runtime or was freed")]
    UnknownRange {
        /// Which argument.
        argument: usize,
    },
    /// A grid of more groups, or items in all, than paged kernels count.
    #[error(
        "a paged launch of {groups} groups: at most {most}, so that kernels count groups and items in 32 bits; launch parts"
    )]
    TooManyGroups {
        /// Groups of the grid.
        groups: u64,
        /// Most that a kernel with so many items a group may have.
        most: u64,
    },
    /// A paged kernel asked for what it was not given. Its other groups may have finished.
    #[error(
        "the paged kernel of `{label}` asked for {count} elements outside its ranges, or for another access than given: it may touch \
         only what the launch names"
    )]
    Outside {
        /// The launch's label.
        label: Arc<str>,
        /// How many, in one round.
        count: u32,
    },
    /// A group of a paged kernel found all that it asked for, and did not end. Its other groups may have finished.
    #[error(
        "group {group} of the paged kernel of `{label}` found all that it asked for and did not finish: each group must vote, or end \
         its items"
    )]
    Unfinished {
        /// The launch's label.
        label: Arc<str>,
        /// Its number in the grid.
        group: u32,
    },
    /// The system has no thread for the rounds of a paged launch.
    #[error("no thread for a paged launch: {why}")]
    NoThread {
        /// What the system said.
        why: Arc<str>,
    },
    /// The interval ends past the allocation.
    #[error("bytes {start}..{end} are not inside `{label}` of {len} bytes")]
    OutOfRange {
        /// The allocation's label.
        label: Arc<str>,
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// Length of the allocation.
        len: u64,
    },
    /// The host's memory refused.
    #[error(transparent)]
    Host(HostError),
    /// The device refused.
    #[error(transparent)]
    Device(DeviceError),
    /// A registration or teardown of a pagemap was refused.
    #[error("pagemap: {0}")]
    Pagemap(String),
}

impl From<HostError> for EngineError {
    fn from(source: HostError) -> Self {
        match source {
            HostError::ForkedChild => Self::ForkedChild,
            HostError::OutOfMemory { bytes, .. } => Self::OutOfHostMemory { bytes, source },
            other => Self::Host(other),
        }
    }
}

impl From<DeviceError> for EngineError {
    fn from(source: DeviceError) -> Self {
        match source {
            DeviceError::Lost { operation } => Self::DeviceLost { cause: operation.into() },
            other => Self::Device(other),
        }
    }
}
