//! What this machine gives vkhmm, in words.

use std::fmt;
use vkhmm_linux::EngineReport;
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
}

impl Doctor {
    pub(crate) fn new(
        device: DeviceReport,
        host: EngineReport,
        config: &vkhmm_engine::Config,
        limit: u64,
    ) -> Self {
        Self { device, host, limit, import_limit: config.import_limit, strict_io: config.strict_io }
    }

    /// One line: what works, and what is missing for more.
    pub fn verdict(&self) -> String {
        use vkhmm_linux::EngineChoice;
        match self.host.chosen {
            EngineChoice::UffdThread => "good: CPU touches, system calls and kernels share memory".into(),
            EngineChoice::UffdThreadUserOnly => {
                "good, with one limit: system calls on memory that is on the device need a host() guard"
                    .into()
            }
            EngineChoice::Declared => {
                "works without page faults: whole slices come home when they are borrowed".into()
            }
            other => format!("works with {}", other.name()),
        }
    }
}

/// The variables that fill what a program leaves open.
const VARIABLES: [(&str, &str); 15] = [
    ("VKHMM_DEVICE", "part of a device's name, or its number"),
    ("VKHMM_FAULT_ENGINE", "uffd-thread, uffd-thread-user or declared"),
    ("VKHMM_MEMORY_KIND", "device-private, device-bar, device-coherent or unified-memory"),
    ("VKHMM_MEMORY_LIMIT", "bytes of device memory, as 64MiB"),
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
        writeln!(f, "\nHost")?;
        writeln!(f, "{}", self.host)?;
        writeln!(f, "  map granule 4 KiB; strict I/O {}", if self.strict_io { "on" } else { "off" })?;
        writeln!(f, "\nVariables (they fill what a program leaves open)")?;
        for (name, meaning) in VARIABLES {
            let now = std::env::var(name).map(|v| format!("  [{v}]")).unwrap_or_default();
            writeln!(f, "  {name:<20} {meaning}{now}")?;
        }
        write!(f, "\nVerdict: {}", self.verdict())
    }
}
