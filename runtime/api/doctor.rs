//! What this machine gives vkhmm, in words.

use std::fmt;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_linux::{EngineChoice, EngineReport};
use vkhmm_port::DeviceProfile;
use vkhmm_vulkan::DeviceReport;

/// Everything that was found and chosen. `Display` prints it for people.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// The device side.
    pub device: DeviceReport,
    /// The host side.
    pub host: EngineReport,
    pub(crate) limit: u64,
    import_limit: u64,
    strict_io: bool,
    policy: &'static str,
    arrays: String,
}

impl Doctor {
    pub(crate) fn new(
        device: DeviceReport,
        host: EngineReport,
        config: &vkhmm_engine::Config,
        limit: u64,
        profile: &DeviceProfile,
    ) -> Self {
        let frames = match (profile.sparse, config.sparse) {
            (Some(_), true) => "in a sparse buffer each, one address for life",
            (Some(_), false) => "in spans, as asked for",
            (None, _) => "in spans",
        };
        let arrays = match (profile.in_place_bytes_max, profile.memory.kind, config.in_place_bytes) {
            (Some(_), MemoryKind::UnifiedMemory, _) => "in place, nothing moves".into(),
            (None, ..) | (_, _, 0) => frames.into(),
            (Some(most), _, bytes) => {
                format!("up to {} in place, they never migrate; others {frames}", size(bytes.min(most)))
            }
        };
        let (import_limit, strict_io) = (config.import_limit, config.strict_io);
        Self { device, host, limit, import_limit, strict_io, policy: config.policy.name(), arrays }
    }

    /// One line: what works, and what is missing for more.
    pub fn verdict(&self) -> String {
        match self.host.chosen {
            EngineChoice::UffdThread => "good: CPU touches, system calls and kernels share memory".into(),
            EngineChoice::UffdThreadUserOnly | EngineChoice::UffdSigbus | EngineChoice::SegvMprotect => {
                "good, with one limit: system calls on memory that is on the device need a host() guard"
                    .into()
            }
            EngineChoice::Declared => {
                "works without page faults: whole slices come home when they are borrowed".into()
            }
        }
    }
}

/// The variables that fill what a program leaves open.
const VARIABLES: [(&str, &str); 18] = [
    ("VKHMM_DEVICE", "part of a device's name, or its number"),
    ("VKHMM_FAULT_ENGINE", crate::builder::FAULT_ENGINES),
    ("VKHMM_MEMORY_KIND", "device-private, device-bar, device-coherent or unified-memory"),
    ("VKHMM_MEMORY_LIMIT", "bytes of device memory, as 64MiB"),
    ("VKHMM_PLACEMENT", "span or sparse"),
    ("VKHMM_POLICY", "adaptive or plain: what is brought along, and who is evicted"),
    ("VKHMM_IN_PLACE_BYTES", "arrays up to this size are used in place, as 64KiB; 0: none"),
    ("VKHMM_TRANSFER", "import or staging"),
    ("VKHMM_IMPORT_LIMIT", "bytes of host memory that the device may pin"),
    ("VKHMM_RESERVE", "bytes of address space to reserve"),
    ("VKHMM_STRICT_IO", "1: a missing host() guard fails on the first run"),
    ("VKHMM_VALIDATION", "1: run under the Khronos validation layers"),
    ("VKHMM_UFFD_FEATURES", "no-poison, no-continue-wp: act as an older kernel"),
    ("VKHMM_FRAME_GUARD", "1: device memory that a stray access cannot touch (software devices)"),
    ("VKHMM_COHERENT", "0: act as if no host-visible memory were coherent"),
    ("VKHMM_SPLIT_QUEUE", "1: copies and kernels on timelines of their own, even on one queue"),
    ("VKHMM_WATCHDOG", "seconds after which a wait says who it waits for"),
    ("VKHMM_RECORD", "file for the launch trace"),
];

/// Bytes in the largest unit that leaves a whole number.
fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        writeln!(f, "Device")?;
        writeln!(f, "{}", self.device)?;
        writeln!(
            f,
            "  arena      at most {} MiB of frames; imports at most {} MiB",
            mib(self.limit),
            mib(self.import_limit)
        )?;
        writeln!(f, "  arrays     {}", self.arrays)?;
        writeln!(f, "  policy     {}", self.policy)?;
        writeln!(f, "\nHost")?;
        writeln!(f, "{}", self.host)?;
        let granule = if self.host.chosen == EngineChoice::SegvMprotect { "2 MiB" } else { "4 KiB" };
        writeln!(f, "  map granule {granule}; strict I/O {}", if self.strict_io { "on" } else { "off" })?;
        writeln!(f, "\nVariables (they fill what a program leaves open)")?;
        for (name, meaning) in VARIABLES {
            let now = std::env::var(name).map(|v| format!("  [{v}]")).unwrap_or_default();
            writeln!(f, "  {name:<20} {meaning}{now}")?;
        }
        write!(f, "\nVerdict: {}", self.verdict())
    }
}
