//! Opening a device: find, choose and create one, or take an application's (`parts.rs`); then probe, and write the report.

use crate::VulkanDevice;
use crate::allocator::DeviceMemory;
use crate::choice::{self, Choice};
use crate::config::Config;
use crate::context::{self, Context, Given};
use crate::device::KernelCache;
use crate::error::OpenError;
use crate::features::Features;
use crate::inject::Injector;
use crate::instance::Instance;
use crate::kind;
use crate::memory::{Arena, Demands, FRAME_BYTES, Scratch, SparseSpace};
use crate::parts::OwnQueue;
use crate::physical::Physical;
use crate::placement::{self, Imports};
use crate::queues::{self, Plan, Queue};
use crate::report::DeviceReport;
use crate::requirements::{Level, Requirements};
use crate::staging::Staging;
use crate::wait::{Submitted, share_one};
use ash::vk;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use vkhmm_core::units::Timeline;
use vkhmm_port::{DeviceProfile, RawBytes, Role, SparseProfile};

/// Most regions of one copy command: validation layers compare them pairwise, and more do not copy faster.
const REGIONS_MAX: u32 = 256;
/// Copies up to this ride in front of their kernel.
const INLINE_COPY_BYTES: u64 = 1 << 20;
/// Pieces are whole blocks.
const BLOCK_BYTES: u64 = 2 << 20;

/// A logical device, and how it was made.
pub(crate) struct Opened {
    pub(crate) instance: Instance,
    pub(crate) device: ash::Device,
    /// Whether the device is ours to destroy.
    pub(crate) owned: bool,
    /// With the extensions that are on.
    pub(crate) physical: Physical,
    /// The features that are on.
    pub(crate) features: Features,
    /// The queues to use.
    pub(crate) queues: Vec<OwnQueue>,
    /// The queue families that touch managed buffers, each once.
    pub(crate) families: Vec<u32>,
    /// What managed buffers are used as besides.
    pub(crate) usage: vk::BufferUsageFlags,
    /// What is optional and not on, in words.
    pub(crate) not_enabled: Vec<String>,
}

impl VulkanDevice {
    /// Opens the device that `config` names, else the best one.
    ///
    /// `probe` is memory of the kind that will be imported later (a stretch of the alias A, whole multiples of 64 KiB, at least
    /// 128 KiB): imports are offered only if copies through an import of it come back right. Its contents are destroyed; it is
    /// zero afterwards. `None` means that nothing will be imported.
    ///
    /// # Errors
    /// [`OpenError`] says in words what is missing and what to install or change.
    pub fn open(config: Config, probe: Option<RawBytes>) -> Result<Self, OpenError> {
        let instance = Instance::new(config.validation)?;
        let none = vk::BufferUsageFlags::empty();
        let mut devices: Vec<Physical> = instance
            .physical_devices()?
            .into_iter()
            .map(|handle| Physical::query(&instance.raw, handle, vk::API_VERSION_1_3, none))
            .collect();
        if config.switches.mock {
            devices.iter_mut().for_each(Physical::assume_features);
        }
        let choice = choice::choose(&devices, config.device.as_deref())?;
        let physical = devices.swap_remove(choice.index);
        let mut asked = Requirements::of(&physical, Level::Everything, &config);
        let device = context::create_device(&instance, &physical, &mut asked)?;
        let counts = asked.queue_counts();
        let queues = counts.iter().flat_map(|(family, count)| (0..*count).map(|index| (*family, index)));
        let opened = Opened {
            queues: queues
                .map(|(family, index)| OwnQueue {
                    family,
                    // SAFETY: vkGetDeviceQueue: family and index were just asked for.
                    handle: unsafe { device.get_device_queue(family, index) },
                    lock: None,
                })
                .collect(),
            families: counts.iter().map(|(family, _)| *family).collect(),
            usage: none,
            features: physical.features.wanted(),
            not_enabled: Vec::new(),
            owned: true,
            instance,
            device,
            physical,
        };
        Self::assemble(opened, choice, &config, probe)
    }

    /// The device over a logical one, whoever made that.
    pub(crate) fn assemble(
        opened: Opened,
        choice: Choice,
        config: &Config,
        probe: Option<RawBytes>,
    ) -> Result<Self, OpenError> {
        let Opened { instance, device, owned, physical, features, queues: own, families, usage, not_enabled } =
            opened;
        let binds = placement::wants_binds(&physical.features, &features, config).is_ok();
        let there = queues::families_of(&physical.families, &own);
        let plan = Plan::new(&there, config.switches.shared_queue, binds);
        let split = config.switches.split_queue && !config.switches.shared_queue;
        let mut plan = if split { plan.split() } else { plan };
        let used = |queue: &(u32, u32)| queues::find(&own, *queue).is_some_and(|at| own[at].lock.is_some());
        let queue_is_shared = plan.queues.iter().any(used);
        if queue_is_shared {
            plan.words += "; the application uses queues of these, too, under its lock";
        }
        let log = instance.log.clone();
        let given = Given { instance, device, owned, physical, features, families, usage };
        let ctx = Arc::new(Context::new(given, &config.switches));
        // The submissions of the probe and the first kernel.
        let _section = crate::exit::section();
        let guarded = config.switches.frame_guard;
        let demands = Demands::query(&ctx, guarded)?;
        let kind = kind::arena(&ctx.physical, demands.types, config)?;
        let memory = Arc::new(DeviceMemory::new(&ctx)?);
        let queues = Queue::all(&ctx, &plan, &own)?;
        let staging = Staging::new(&memory, config.staging_slots.unwrap_or(Config::STAGING_SLOTS))?;
        let scratch = if ctx.features.robust.null_descriptor == vk::TRUE {
            None
        } else {
            Some(Scratch::new(&memory, kind.index)?)
        };
        let mut arena = Arena::new(&memory, kind, &demands, guarded);
        let cache = KernelCache::new(&ctx)?;
        let compute = &queues[plan.roles[Role::Compute as usize]];
        let empty = scratch.as_ref().map_or(vk::Buffer::null(), |s| s.buffer);
        let imports = placement::imports(&ctx, cache.handle, &arena, compute, empty, config, probe)?;
        let (sparse, sparse_words) = placement::sparse(&ctx, &mut arena, &staging, &queues, &plan, config)?;
        let (sparse, binder) = sparse.unzip();
        let found = Found { imports, sparse: sparse.as_ref().map(SparseSpace::profile), sparse_words };
        let mut profile = profile(&ctx, &arena, &staging, &plan, config, &found);
        profile.queue_is_shared = queue_is_shared;
        let report = DeviceReport {
            candidates: choice.candidates,
            chosen: choice.index,
            why: choice.why,
            roles: plan.words.clone(),
            memory: arena.kind.words.clone(),
            staging: staging.words(),
            limits: limits(&profile, &ctx),
            features: ctx.features.named(),
            not_enabled,
            import: found.imports.words,
            placement: found.sparse_words,
            in_place: found.imports.in_place_words,
        };
        if ctx.physical.is_software() {
            crate::warm::up(&ctx, cache.handle, compute, empty)?;
        }
        crate::exit::register();
        Ok(Self {
            profile,
            report,
            injector: Injector::new(&config.switches),
            shadow: guarded.then(Mutex::default),
            one_queue: share_one(&queues),
            submitted: Submitted::default(),
            orders: AtomicU64::new(0),
            queues,
            roles: plan.roles,
            arena,
            sparse,
            binder,
            staging,
            scratch,
            cache,
            log,
            ctx,
            section: None,
        })
    }
}

/// What was tried out.
struct Found {
    imports: Imports,
    sparse: Option<SparseProfile>,
    sparse_words: String,
}

fn profile(
    ctx: &Context,
    arena: &Arena,
    staging: &Staging,
    plan: &Plan,
    config: &Config,
    found: &Found,
) -> DeviceProfile {
    let limits = &ctx.physical.limits;
    let heap = arena.kind.heap_bytes;
    let available = arena.budget().unwrap_or(heap).min(heap);
    let longest = ctx.physical.allocation_bytes_max.min(ctx.physical.buffer_bytes_max).min(heap);
    let piece = longest.saturating_sub(arena.overhead());
    DeviceProfile {
        name: ctx.physical.name.clone(),
        memory: arena.kind.profile(),
        timelines: plan.roles.map(|place| Timeline(place as u8)),
        timeline_count: plan.queues.len() as u8,
        limit_bytes_default: (available / 10 * 9) / BLOCK_BYTES * BLOCK_BYTES,
        // A frame less: `Arena::grow` takes one more than asked for.
        piece_bytes_max: (piece - FRAME_BYTES) / BLOCK_BYTES * BLOCK_BYTES,
        staging: staging.profile(),
        import: found.imports.profile,
        sparse: found.sparse,
        in_place_bytes_max: found.imports.in_place_bytes_max,
        reasons: [found.sparse_words.clone(), found.imports.in_place_words.clone()],
        queue_is_shared: false,
        regions_max: config.switches.regions_max.unwrap_or(REGIONS_MAX).clamp(1, REGIONS_MAX),
        inline_copy_bytes: INLINE_COPY_BYTES,
        groups_max: limits.max_compute_work_group_count,
        binding_bytes_max: limits.max_storage_buffer_range.into(),
        binding_alignment_bytes: limits.min_storage_buffer_offset_alignment.max(1),
    }
}

fn limits(profile: &DeviceProfile, ctx: &Context) -> Vec<(&'static str, String)> {
    let limits = &ctx.physical.limits;
    let (least, most) = ctx.physical.subgroup_sizes;
    vec![
        ("device memory, default limit", format!("{} MiB", profile.limit_bytes_default >> 20)),
        ("longest arena piece", format!("{} MiB", profile.piece_bytes_max >> 20)),
        ("work groups", format!("{:?}", profile.groups_max)),
        ("invocations per group", limits.max_compute_work_group_invocations.to_string()),
        ("shared memory", format!("{} KiB", limits.max_compute_shared_memory_size >> 10)),
        ("push constants", format!("{} bytes", limits.max_push_constants_size)),
        ("longest binding", format!("{} MiB", profile.binding_bytes_max >> 20)),
        ("binding alignment", format!("{} bytes", profile.binding_alignment_bytes)),
        ("subgroup sizes", if most == 0 { "fixed".into() } else { format!("{least} to {most}") }),
    ]
}
