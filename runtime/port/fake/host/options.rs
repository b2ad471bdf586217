//! What a FakeHost may be told to be, and what R says of a page.

use super::super::{FakeImports, Watch};
use crate::FaultMode;
use std::sync::Arc;
use vkhmm_core::units::PageIndex;

#[cfg(doc)]
use super::FakeHost;

/// What a [`FakeHost`] is like.
#[derive(Clone)]
pub struct FakeHostOptions {
    /// Who can be parked. In `Declared` nobody is: R is mapped always, but for poison.
    pub faults: FaultMode,
    /// Touches are put to the resolver in their own threads, and are messages only where it says no.
    pub in_thread: bool,
    /// Pages of the unit in which R is best changed.
    pub granule_pages: u32,
    /// Whether pages can be published read-only.
    pub publish_read_only: bool,
    /// Whether mapped pages can be made read-only.
    pub protect: bool,
    /// Most pages that may be populated at once; more is `OutOfMemory`.
    pub populated_pages_max: u64,
    /// The imports of the device that works on this memory.
    pub imports: FakeImports,
    /// Is told of every call.
    pub watch: Option<Watch>,
    /// Is told of every page whose mapping a call has weakened.
    pub weakened: Option<Weakened>,
}

impl Default for FakeHostOptions {
    /// The best engine: one-page granule, everything supported, no limit.
    fn default() -> Self {
        Self {
            faults: FaultMode::Full,
            in_thread: false,
            granule_pages: 1,
            publish_read_only: true,
            protect: true,
            populated_pages_max: u64::MAX,
            imports: FakeImports::default(),
            watch: None,
            weakened: None,
        }
    }
}

/// Is told, on the thread that made the call and with no lock of the fake held, that a call took rights on a page away.
pub type Weakened = Arc<dyn Fn(Weakening) + Send + Sync>;

/// A page that R shows less of than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weakening {
    /// Which call did it.
    pub operation: &'static str,
    /// Which page.
    pub page: PageIndex,
    /// What R allowed.
    pub from: Mapping,
    /// What R allows now.
    pub to: Mapping,
}

/// What R allows on a page of a [`FakeHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// A touch parks.
    Absent,
    /// Loads.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
    /// A touch fails.
    Poisoned,
}

impl Mapping {
    /// How much R allows.
    pub(super) fn rights(self) -> u8 {
        match self {
            Self::Absent | Self::Poisoned => 0,
            Self::ReadOnly => 1,
            Self::ReadWrite => 2,
        }
    }
}
