//! How a runtime is made: the builder, and the environment variables that fill what a program leaves open.

use crate::error::Error;
use crate::ports::{Engine, check_queues};
use crate::record::Recorder;
use crate::runtime::{Inner, Runtime};
use crate::{Doctor, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::policy::{self, Policy};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};
use vkhmm_port::inject::{Injected, Trouble};
use vkhmm_port::{Device, DeviceProfile, HostMemory};
use vkhmm_vulkan::{Parts, Switches, VulkanDevice};

/// Which fault engine answers CPU touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEngine {
    /// Userfaultfd with handler threads; system calls on absent pages work.
    UffdThread,
    /// The same for ordinary users: system calls on absent pages fail with EFAULT outside host guards.
    UffdThreadUser,
    /// The same, answered in the touching thread, in SIGBUS: by request alone, since an application may have a handler of its own.
    UffdSigbus,
    /// Page protection, answered in the touching thread, in SIGSEGV: where userfaultfd is refused.
    SegvMprotect,
    /// No faults: slices are brought home as they are made.
    Declared,
}

/// What `VKHMM_FAULT_ENGINE` may say.
pub(crate) const FAULT_ENGINES: &str =
    "uffd-thread, uffd-thread-user, uffd-sigbus, segv-mprotect or declared";

/// Which buffers ranges get for kernels to reach them through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementChoice {
    /// A buffer over whatever neighbouring frames are free: every device can; addresses change when data comes and goes.
    Span,
    /// One sparse buffer per range, for its life, in which frames come and go: addresses never change, nothing fragments.
    Sparse,
}

/// Settings of a [`Runtime`]. What the program names here stands; what it leaves open is taken from the environment, then from
/// the machine. [`Doctor`] prints what came of it, and lists the variables.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    limit: Option<u64>,
    kind: Option<MemoryKind>,
    engine: Option<FaultEngine>,
    placement: Option<PlacementChoice>,
    policy: Option<String>,
    in_place_bytes: Option<u64>,
    device: Option<String>,
    strict_io: Option<bool>,
    validation: Option<bool>,
    reservation: Option<u64>,
    import_limit: Option<u64>,
    switches: Option<Switches>,
    features: Option<(bool, bool)>,
    record: Option<PathBuf>,
    dump: bool,
}

impl Builder {
    /// Most bytes of device memory that frames may take. Default: what the device offers, times 0.9.
    #[must_use]
    pub fn device_memory_limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Uses this kind of device memory instead of the best one; software devices can play each.
    #[must_use]
    pub fn memory_kind(mut self, kind: MemoryKind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Places ranges this way. Default: sparse where the device has sparse buffers, else spans; [`crate::Managed::placement`]
    /// says what became of each. With sparse asked for, [`Builder::build`] fails where no range could be; a range that does not
    /// fit what is left of the device's sparse address space is placed in spans, and says so.
    #[must_use]
    pub fn placement(mut self, choice: PlacementChoice) -> Self {
        self.placement = Some(choice);
        self
    }

    /// Guesses what to bring along and whom to evict by this policy: `adaptive` (the default) learns how launches come back to their
    /// data, `plain` evicts who was used longest ago. Results are the same, only times differ. [`Builder::build`] fails where there
    /// is none of that name, and says which there are.
    #[must_use]
    pub fn policy(mut self, name: impl Into<String>) -> Self {
        self.policy = Some(name.into());
        self
    }

    /// Arrays of at most this many bytes are used in place: kernels work on the host's own bytes, over the link, and nothing
    /// moves. Where the device can import host memory for kernels; elsewhere they move like larger ones. Default: 65,536; zero
    /// turns it off. On `UnifiedMemory` arrays of any size are used in place.
    #[must_use]
    pub fn in_place_bytes(mut self, bytes: u64) -> Self {
        self.in_place_bytes = Some(bytes);
        self
    }

    /// Uses this fault engine, or fails saying why it cannot be had.
    #[must_use]
    pub fn fault_engine(mut self, engine: FaultEngine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Uses the device whose name contains `name`, or whose number it is.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> Self {
        self.device = Some(name.into());
        self
    }

    /// Launches revoke also what would have stayed shared, so that a system call without a host guard fails on the first run
    /// and not on the rare one. Default: on in debug builds.
    #[must_use]
    pub fn strict_io(mut self, on: bool) -> Self {
        self.strict_io = Some(on);
        self
    }

    /// Runs under Khronos validation with synchronisation validation; [`Runtime::validation_messages`] has what it said.
    #[must_use]
    pub fn validation(mut self, on: bool) -> Self {
        self.validation = Some(on);
        self
    }

    /// Bytes of address space to reserve, exactly. Default: as much as the process's limits allow, at most 1 TiB.
    #[must_use]
    pub fn reservation(mut self, bytes: u64) -> Self {
        self.reservation = Some(bytes);
        self
    }

    /// Most bytes of host memory that the device may have imported (and pinned) at a time. Default: a quarter of the memory that is
    /// available; where device memory is the host's, what the device may have of it, but at most three quarters of what is available.
    #[must_use]
    pub fn import_limit(mut self, bytes: u64) -> Self {
        self.import_limit = Some(bytes);
        self
    }

    /// Test switches: staging only, one queue, forced loss, calls of device and host that fail, faults in disorder.
    #[must_use]
    pub fn switches(mut self, switches: Switches) -> Self {
        self.switches = Some(switches);
        self
    }

    /// Acts as on an older kernel: without UFFDIO_POISON, without read-only UFFDIO_CONTINUE.
    #[must_use]
    pub fn older_kernel(mut self, no_poison: bool, no_continue_wp: bool) -> Self {
        self.features = Some((no_poison, no_continue_wp));
        self
    }

    /// Writes one JSON line per launch (kernel, grid, ranges with accesses) to a file, for later replay.
    #[must_use]
    pub fn record_launches(mut self, path: impl Into<PathBuf>) -> Self {
        self.record = Some(path.into());
        self
    }

    /// Core dumps contain managed memory. Off by default: the bytes are the user's.
    #[must_use]
    pub fn dump_memory(mut self, on: bool) -> Self {
        self.dump = on;
        self
    }

    /// Opens host memory and device, and starts the runtime's threads.
    ///
    /// # Errors
    /// A setting that cannot be, no usable device or fault engine; each says what would help.
    pub fn build(self) -> Result<Runtime> {
        self.open(None)
    }

    /// Builds on an application's device, if there is one: then its contract holds ([`Builder::from_vulkan`]).
    pub(crate) fn open(mut self, parts: Option<Parts>) -> Result<Runtime> {
        if let Some(parts) = &parts {
            self.check_own_device()?;
            self.limit = self.limit.or(parts.limit_bytes);
        }
        let host_config = self.host_config()?;
        let opened = vkhmm_linux::open(&host_config)?;
        let device_config = self.device_config()?;
        let geometry = Geometry::PRODUCTION;
        let first = PageRun { first: PageIndex(0), count: geometry.pages_per_block };
        let trouble = Trouble::new(&device_config.switches.host, geometry, opened.host.profile());
        let host = Arc::new(Injected::new(opened.host, trouble.clone()));
        host.populate(first).map_err(|e| Error::Memory(e.into()))?;
        let probe = host.alias(ByteRange { start: 0, end: geometry.block_bytes() });
        let device = match parts {
            None => VulkanDevice::open(device_config, Some(probe))?,
            // SAFETY: only `from_vulkan` brings parts, and its caller promises their contract.
            Some(parts) => unsafe { VulkanDevice::from_parts(parts, device_config, Some(probe))? },
        };
        check_queues(&device, host.profile())?;
        let device = Arc::new(device);
        host.punch(first).map_err(|e| Error::Memory(e.into()))?;
        let placement = self.placement_choice()?;
        let profile = device.profile();
        if placement == Some(PlacementChoice::Sparse) && profile.sparse.is_none() {
            return Err(Error::NoSparse { why: profile.reasons[0].clone() });
        }
        let mut config = self.engine_config(placement, profile)?;
        if device.is_software() {
            // No other program waits for its queue, and no watchdog looks at it: counts do not depend on how busy the machine is.
            config.round_time = Duration::MAX;
        }
        if let Some(wakes) = opened.report.wakes {
            config.fault_threads = wakes.readers;
        }
        let record = match self.record.or_else(|| std::env::var_os("VKHMM_RECORD").map(PathBuf::from)) {
            Some(path) => Some(Recorder::create(&path)?),
            None => None,
        };
        let exec = vkhmm_linux::LinuxExec::new();
        let engine = Engine::new(exec, host, Arc::clone(&device), config.clone());
        let threads = |source| Error::System { operation: "starting the runtime's threads", source };
        let source = opened.source.map(|source| Arc::new(Injected::new(source, trouble)));
        engine.start(source).map_err(threads)?;
        let limit = engine.device_memory().0;
        let doctor = Doctor::new(device.report().clone(), opened.report, &config, limit, device.profile());
        Ok(Runtime::new(Inner::new(engine, doctor, record)))
    }

    /// What cannot be chosen of a device that is there.
    fn check_own_device(&self) -> Result<()> {
        let no = |setting, have: &str, allowed: &str| {
            Err(Error::Setting { setting, have: have.into(), allowed: allowed.into() })
        };
        if let Some(device) = &self.device {
            return no("device", device, "the application chose its device already: leave this to it");
        }
        if self.validation == Some(true) {
            return no("validation", "true", "the application makes the instance: turn the layer on there");
        }
        Ok(())
    }

    fn host_config(&self) -> Result<vkhmm_linux::Config> {
        let engine = match self.engine {
            Some(engine) => Some(engine),
            None => env("VKHMM_FAULT_ENGINE", FAULT_ENGINES, |v| match v {
                "uffd-thread" => Some(FaultEngine::UffdThread),
                "uffd-thread-user" => Some(FaultEngine::UffdThreadUser),
                "uffd-sigbus" => Some(FaultEngine::UffdSigbus),
                "segv-mprotect" => Some(FaultEngine::SegvMprotect),
                "declared" => Some(FaultEngine::Declared),
                _ => None,
            })?,
        };
        let older = match self.features {
            Some(features) => features,
            None => env("VKHMM_UFFD_FEATURES", "a comma list of no-poison and no-continue-wp", older_kernel)?
                .unwrap_or((false, false)),
        };
        Ok(vkhmm_linux::Config {
            engine: engine.map(|e| match e {
                FaultEngine::UffdThread => vkhmm_linux::EngineChoice::UffdThread,
                FaultEngine::UffdThreadUser => vkhmm_linux::EngineChoice::UffdThreadUserOnly,
                FaultEngine::UffdSigbus => vkhmm_linux::EngineChoice::UffdSigbus,
                FaultEngine::SegvMprotect => vkhmm_linux::EngineChoice::SegvMprotect,
                FaultEngine::Declared => vkhmm_linux::EngineChoice::Declared,
            }),
            reservation_bytes: or_env(self.reservation, "VKHMM_RESERVE", SIZE, size)?,
            dump: self.dump,
            no_poison: older.0,
            no_continue_wp: older.1,
            ..vkhmm_linux::Config::default()
        })
    }

    fn device_config(&self) -> Result<vkhmm_vulkan::Config> {
        let kinds = "device-private, device-bar, device-coherent or unified-memory";
        let mut switches = self.switches.clone().unwrap_or_default();
        if self.switches.is_none() {
            let import = env("VKHMM_TRANSFER", "import or staging", |v| match v {
                "import" => Some(true),
                "staging" => Some(false),
                _ => None,
            })?;
            switches.import = import.unwrap_or(true);
        }
        // Not about what a runtime is, but about what is watched while it runs: also where the program names other switches.
        switches.frame_guard |= env("VKHMM_FRAME_GUARD", "0 or 1", flag)?.unwrap_or(false);
        switches.coherent &= env("VKHMM_COHERENT", "0 or 1", flag)?.unwrap_or(true);
        switches.split_queue |= env("VKHMM_SPLIT_QUEUE", "0 or 1", flag)?.unwrap_or(false);
        Ok(vkhmm_vulkan::Config {
            device: self.device.clone().or_else(|| std::env::var("VKHMM_DEVICE").ok()),
            validation: or_env(self.validation, "VKHMM_VALIDATION", "0 or 1", flag)?.unwrap_or(false),
            memory_kind: or_env(self.kind, "VKHMM_MEMORY_KIND", kinds, |v| match v {
                "device-private" => Some(MemoryKind::DevicePrivate),
                "device-bar" => Some(MemoryKind::DeviceBar),
                "device-coherent" => Some(MemoryKind::DeviceCoherent),
                "unified-memory" => Some(MemoryKind::UnifiedMemory),
                _ => None,
            })?,
            switches,
            ..vkhmm_vulkan::Config::default()
        })
    }

    fn placement_choice(&self) -> Result<Option<PlacementChoice>> {
        or_env(self.placement, "VKHMM_PLACEMENT", "span or sparse", |v| match v {
            "span" => Some(PlacementChoice::Span),
            "sparse" => Some(PlacementChoice::Sparse),
            _ => None,
        })
    }

    fn policy_choice(&self) -> Result<Arc<dyn Policy>> {
        let names = policy::all().map(|policy| policy.name()).join(" or ");
        let (setting, chosen) = match &self.policy {
            Some(name) => ("policy", Some(name.clone())),
            None => ("VKHMM_POLICY", env("VKHMM_POLICY", &names, |name| Some(name.into()))?),
        };
        let Some(have) = chosen else { return Ok(vkhmm_engine::Config::default().policy) };
        policy::find(&have).ok_or_else(|| Error::Setting {
            setting,
            have,
            allowed: format!("it must be {names}"),
        })
    }

    fn engine_config(
        &self,
        placement: Option<PlacementChoice>,
        device: &DeviceProfile,
    ) -> Result<vkhmm_engine::Config> {
        let limit = or_env(self.limit, "VKHMM_MEMORY_LIMIT", SIZE, size)?;
        let block = Geometry::PRODUCTION.frame_bytes();
        if let Some(bytes) = limit.filter(|b| *b < block) {
            return Err(Error::Setting {
                setting: "device_memory_limit (VKHMM_MEMORY_LIMIT)",
                have: bytes.to_string(),
                allowed: format!("at least one frame, {block} bytes"),
            });
        }
        let default = vkhmm_engine::Config::default();
        let available = available_memory().unwrap_or(u64::MAX);
        // Imports are what kernels work on there, as frames are elsewhere; and what is pinned nobody else can have.
        let import_limit = match device.memory.kind {
            MemoryKind::UnifiedMemory => device.limit_bytes_default.min(available / 4 * 3),
            _ => available / 4,
        };
        let watchdog = env("VKHMM_WATCHDOG", "seconds", |v| v.parse::<u64>().ok().filter(|s| *s > 0))?;
        Ok(vkhmm_engine::Config {
            device_memory_limit: limit,
            import_limit: or_env(self.import_limit, "VKHMM_IMPORT_LIMIT", SIZE, size)?
                .unwrap_or(import_limit),
            sparse: placement != Some(PlacementChoice::Span),
            policy: self.policy_choice()?,
            in_place_bytes: or_env(self.in_place_bytes, "VKHMM_IN_PLACE_BYTES", SIZE, size)?
                .unwrap_or(default.in_place_bytes),
            strict_io: or_env(self.strict_io, "VKHMM_STRICT_IO", "0 or 1", flag)?
                .unwrap_or(cfg!(debug_assertions)),
            watchdog: watchdog.map_or(default.watchdog, Duration::from_secs),
            ..default
        })
    }
}

const SIZE: &str = "bytes, or a number with KiB, MiB, GiB or TiB";

fn or_env<T>(
    named: Option<T>,
    setting: &'static str,
    allowed: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>> {
    if named.is_some() { Ok(named) } else { env(setting, allowed, read) }
}

fn env<T>(setting: &'static str, allowed: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(value) = std::env::var_os(setting).filter(|v| !v.is_empty()) else { return Ok(None) };
    let have = value.to_string_lossy().into_owned();
    match read(&have) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::Setting { setting, have, allowed: format!("it must be {allowed}") }),
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn older_kernel(value: &str) -> Option<(bool, bool)> {
    let mut out = (false, false);
    for word in value.split(',') {
        match word {
            "no-poison" => out.0 = true,
            "no-continue-wp" => out.1 = true,
            _ => return None,
        }
    }
    Some(out)
}

/// Reads a size such as `64MiB` or `65536`.
pub(crate) fn size(value: &str) -> Option<u64> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = value[..digits].parse().ok()?;
    let shift = match &value[digits..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_taken_by_name_and_an_unknown_one_is_refused_with_those_there_are() {
        let plain = Builder::default().policy("plain").policy_choice().expect("there is one");
        assert_eq!(plain.name(), "plain");
        let error = Builder::default().policy("clairvoyant").policy_choice().expect_err("there is none");
        let text = error.to_string();
        assert!(["clairvoyant", "adaptive or plain"].iter().all(|part| text.contains(part)), "{text}");
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("1GiB"), Some(1 << 30));
        assert_eq!(size("1GB"), None);
        assert_eq!(size("MiB"), None);
        assert_eq!(size("99999999999TiB"), None);
    }
}
