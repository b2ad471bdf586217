//! What the seed makes of the world: its device, its host, its limits, and what goes wrong in it.

use super::trouble::Kind;
use crate::Random;
use core::fmt;
use core::time::Duration;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_core::units::Geometry;
use vkhmm_engine::Config;
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions, FakeImports};
use vkhmm_port::{FaultMode, SparseProfile};

/// A world so small that every limit is met: 16-byte pages, 64-byte frames, 128-byte blocks.
pub const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

/// Everything that is fixed before the first step.
pub(super) struct Setting {
    pub(super) host: FakeHostOptions,
    pub(super) device: FakeDeviceOptions,
    pub(super) config: Config,
    pub(super) imports: FakeImports,
    /// Blocks of the reservation.
    pub(super) blocks: u32,
    /// Frames of the limit at the start.
    pub(super) limit: u64,
    /// Whether there are paged launches.
    pub(super) paged: bool,
    /// Whether the application changes the limit.
    pub(super) limit_moves: bool,
    pub(super) threads: u64,
    /// Steps of each thread in each phase.
    pub(super) steps: u64,
    /// What goes wrong in the first phase.
    pub(super) trouble: Vec<Kind>,
}

impl Setting {
    /// `steps` of each thread in each phase; in a `long` world the device is not lost.
    pub(super) fn draw(random: &mut Random, steps: Option<u64>, long: bool) -> Self {
        let imports = FakeImports::default();
        let kinds = [
            MemoryKind::DevicePrivate,
            MemoryKind::DevicePrivate,
            MemoryKind::DevicePrivate,
            MemoryKind::DeviceBar,
            MemoryKind::DeviceCoherent,
            MemoryKind::UnifiedMemory,
        ];
        let faults = match random.below(8) {
            0 => FaultMode::Declared,
            1 | 2 => FaultMode::UserOnly,
            _ => FaultMode::Full,
        };
        let threads = 2 + random.below(3);
        let paged = Random::new(random.clone().number() ^ 0x7061_6765_6400).one_in(3);
        // Their groups want some frames at once.
        let limit = (2 + random.below(7)) * if paged { 2 } else { 1 };
        let blocks = 6 + 3 * threads as u32;
        let host = FakeHostOptions {
            faults,
            publish_read_only: !random.one_in(6),
            protect: !random.one_in(6),
            populated_pages_max: if random.one_in(16) {
                u64::from(blocks * SMALL.pages_per_block) / 2
            } else {
                u64::MAX
            },
            imports: imports.clone(),
            ..FakeHostOptions::default()
        };
        let device = FakeDeviceOptions {
            kind: kinds[random.below(6) as usize],
            timelines: if random.one_in(3) { 1 } else { 3 },
            import: random.one_in(2).then(|| imports.clone()),
            staging_slots: 1 + random.below(4) as u32,
            frames_max: if random.one_in(8) { 1 + random.below(limit) as u32 } else { 64 },
            piece_frames_max: if random.one_in(4) { 2 + random.below(3) as u32 } else { u32::MAX },
            regions_max: 1 + random.below(4) as u32,
            inline_copy_bytes: random.below(2) * 128,
            delay: Duration::from_micros(random.below(3) * 20),
            reversed: random.one_in(2),
            ..FakeDeviceOptions::default()
        };
        let config = Config {
            geometry: SMALL,
            device_memory_limit: Some(limit * SMALL.frame_bytes()),
            import_limit: if random.one_in(4) { 3 * SMALL.block_bytes() } else { u64::MAX },
            import_bytes_min: random.below(2) * 2 * SMALL.block_bytes(),
            strict_io: random.one_in(4),
            batch_launches_max: 1 + random.below(3) as usize,
            // Nobody may depend on a watchdog to look again.
            watchdog: Duration::from_secs(3600),
            fault_threads: 1 + random.below(2) as usize,
            ..Config::default()
        };
        let (mut host, mut device, mut config) = (host, device, config);
        Self::draw_engine(&mut random.clone(), &mut host);
        config.part_bytes = Self::draw_parts(&mut random.clone());
        let parked = host.faults != FaultMode::Declared;
        Self::draw_places(&mut random.clone(), parked, &mut device, &mut config);
        let limit_moves = random.one_in(3);
        let trouble = Kind::draw(random, !long);
        let steps = steps.unwrap_or(6 + random.below(10));
        Self { host, device, config, imports, blocks, limit, paged, limit_moves, threads, steps, trouble }
    }

    /// Whether kernels work in place, and on what; whose the queues are; what sparse buffers there are. From a stream of its own, so that a seed's other
    /// properties do not depend on it.
    fn draw_places(random: &mut Random, parked: bool, device: &mut FakeDeviceOptions, config: &mut Config) {
        let mut random = Random::new(random.number() ^ 0x706C_6163_6573);
        config.in_place_bytes =
            [0, 0, SMALL.block_bytes(), 2 * SMALL.block_bytes()][random.below(4) as usize];
        if random.one_in(2) {
            // Now and then less than the longest array.
            device.in_place_bytes_max =
                Some(if random.one_in(4) { 2 * SMALL.block_bytes() } else { 1 << 20 });
        }
        let cpu_reads = matches!(device.kind, MemoryKind::DeviceCoherent | MemoryKind::UnifiedMemory);
        device.queue_is_shared = parked && cpu_reads && random.one_in(3);
        let block = SMALL.block_bytes();
        device.sparse = random.one_in(2).then(|| SparseProfile {
            page_bytes: u64::from(SMALL.page_bytes),
            buffer_bytes_max: if random.one_in(6) { 2 * block } else { 1 << 30 },
            space_bytes: if random.one_in(3) { (2 + random.below(6)) * block } else { 1 << 30 },
        });
    }

    /// Who is asked about a touch first, and what R is best changed in: from a stream of its own, too.
    fn draw_engine(random: &mut Random, host: &mut FakeHostOptions) {
        let mut random = Random::new(random.number() ^ 0x656E_6769_6E65);
        host.in_thread = host.faults != FaultMode::Declared && random.one_in(3);
        host.granule_pages = if random.one_in(4) { SMALL.pages_per_block } else { 1 };
    }

    /// How much is copied at once while R is still being taken from the rest: from a stream of its own, too.
    fn draw_parts(random: &mut Random) -> u64 {
        let mut random = Random::new(random.number() ^ 0x7061_7274_7300);
        [u64::MAX, 1, SMALL.block_bytes(), 2 * SMALL.block_bytes()][random.below(4) as usize]
    }

    /// Whether nobody can be parked: bytes are brought home before they are touched.
    pub(super) fn declared(&self) -> bool {
        self.host.faults == FaultMode::Declared
    }

    /// Whether a launch of at most `limit` frames always finds room.
    pub(super) fn has_room(&self) -> bool {
        !self.limit_moves
            && u64::from(self.device.frames_max) >= self.limit
            && u64::from(self.device.piece_frames_max) >= self.limit
            && !self.trouble.contains(&Kind::DeviceCall)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, device, config) = (&self.host, &self.device, &self.config);
        write!(
            f,
            "{:?}, {} timelines (shared: {}), import {}, in place {:?} ({} bytes), sparse space {:?}, {} slots, {} regions, inline {}, pieces of {}, {} frames, delay {} us, reversed {}; faults \
             {:?} (in their threads: {}), by {} pages, read-only {}, protect {}, at most {} pages; limit {} frames (moves: {}), paged {}, strict {}, batches of {}, parts of {}; {} threads of {} \
             steps; trouble: {:?}",
            device.kind,
            device.timelines,
            device.queue_is_shared,
            device.import.is_some(),
            device.in_place_bytes_max,
            config.in_place_bytes,
            device.sparse.map(|sparse| sparse.space_bytes),
            device.staging_slots,
            device.regions_max,
            device.inline_copy_bytes,
            device.piece_frames_max,
            device.frames_max,
            device.delay.as_micros(),
            device.reversed,
            host.faults,
            host.in_thread,
            host.granule_pages,
            host.publish_read_only,
            host.protect,
            host.populated_pages_max,
            self.limit,
            self.limit_moves,
            self.paged,
            config.strict_io,
            config.batch_launches_max,
            config.part_bytes,
            self.threads,
            self.steps,
            self.trouble,
        )
    }
}
