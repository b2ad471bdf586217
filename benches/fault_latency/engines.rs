//! The fault engines, and the floor of each: the same mechanism with nothing of vkhmm around it.

use anyhow::Result;
use vkhmm::{FaultEngine, MemoryKind, Runtime};
use vkhmm_floors::{Mechanism, Spin};

/// A fault engine and what it is compared with.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    choice: FaultEngine,
    /// None where nothing is noticed, so nothing can be compared.
    pub(crate) floor: Option<Mechanism>,
}

/// Two readers of one descriptor, each looking for more before it sleeps: what the runtime has, too.
const READERS: Mechanism = Mechanism::Thread { handlers: 2, spin: Spin::Micros(50), core: None };

/// Every fault engine by its name in doctor, best first.
pub(crate) const ENGINES: [Engine; 5] = [
    Engine { name: "uffd-thread", choice: FaultEngine::UffdThread, floor: Some(READERS) },
    Engine { name: "uffd-thread-user", choice: FaultEngine::UffdThreadUser, floor: Some(READERS) },
    Engine { name: "uffd-sigbus", choice: FaultEngine::UffdSigbus, floor: Some(Mechanism::Sigbus) },
    Engine { name: "segv-mprotect", choice: FaultEngine::SegvMprotect, floor: Some(Mechanism::Segv) },
    Engine { name: "declared", choice: FaultEngine::Declared, floor: None },
];

impl Engine {
    /// A runtime with this engine on a device whose memory the CPU can read, so that a copy home is a memcpy as the floor's is;
    /// or why there is none.
    ///
    /// # Errors
    /// A device that cannot be had.
    pub(crate) fn open(&self, limit: u64) -> Result<Result<Runtime, String>> {
        if self.floor.is_none() {
            return Ok(Err("nothing is noticed: whole slices come home as they are borrowed".into()));
        }
        let builder = Runtime::builder().fault_engine(self.choice).memory_kind(MemoryKind::DeviceCoherent);
        let rt = match builder.device_memory_limit(limit).in_place_bytes(0).strict_io(false).build() {
            Ok(rt) => rt,
            Err(error) => return Ok(Err(format!("the machine refuses it: {error}"))),
        };
        Ok(Ok(rt))
    }
}
