//! A plain Vulkan application, as engines have it: its own instance under validation, its own device, a queue that it uses itself.

use ash::vk;
use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use vkhmm::vulkan::{Level, Need, OwnQueue, Parts, QueueLock, Requirements};

const LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";
/// What the application's instance is made with.
pub(crate) const API: u32 = vk::API_VERSION_1_3;

/// The application's lock of its queue. Lock: owns the queue between the application and vkhmm · blocks on nothing inside.
#[derive(Default)]
pub(crate) struct AppLock {
    taken: Mutex<bool>,
    free: Condvar,
}

impl QueueLock for AppLock {
    fn lock(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = self.free.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner);
        *taken = true;
    }

    fn unlock(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.free.notify_one();
    }
}

impl AppLock {
    /// Runs `work` with the lock held.
    pub(crate) fn hold<T>(&self, work: impl FnOnce() -> T) -> T {
        self.lock();
        let out = work();
        self.unlock();
        out
    }
}

/// What the layer said.
type Messages = Mutex<Vec<String>>;

/// The application. Dropping it destroys its device and instance, and fails the test if the layer said anything.
pub(crate) struct App {
    _entry: ash::Entry,
    pub(crate) instance: ash::Instance,
    debug: ash::ext::debug_utils::Instance,
    messenger: vk::DebugUtilsMessengerEXT,
    messages: Box<Messages>,
    pub(crate) physical: vk::PhysicalDevice,
    pub(crate) device: ash::Device,
    pub(crate) extensions: Vec<CString>,
    pub(crate) requirements: Requirements,
    /// The application's own queue.
    pub(crate) queue: (u32, vk::Queue),
    pub(crate) lock: Arc<AppLock>,
    /// For vkhmm.
    pub(crate) queues: Vec<OwnQueue>,
}

/// What an application may do otherwise than it should.
pub(crate) struct Choices {
    pub(crate) level: Level,
    /// Share one queue even where the device has more.
    pub(crate) share: bool,
    /// Features and extensions to leave off.
    pub(crate) without: &'static [&'static str],
}

impl Default for Choices {
    fn default() -> Self {
        Self { level: Level::Everything, share: false, without: &[] }
    }
}

impl App {
    /// An instance, and a device with what vkhmm asks for.
    pub(crate) fn new(choices: &Choices) -> Self {
        // SAFETY: the system's Vulkan loader, kept to the end of the application.
        let entry = unsafe { ash::Entry::load() }.expect("a Vulkan loader");
        let messages = Box::<Messages>::default();
        let (instance, debug, messenger) = instance(&entry, &messages);
        // SAFETY: the instance is alive.
        let found = unsafe { instance.enumerate_physical_devices() }.expect("a Vulkan driver");
        let asked = found.into_iter().find_map(|physical| {
            // SAFETY: the instance is alive, and the device is one of its.
            let asked = unsafe { Requirements::query(&instance, physical, choices.level) };
            asked.ok().map(|asked| (physical, asked))
        });
        let (physical, mut requirements) = asked.expect("a device that can serve");
        println!("{requirements}");
        let extensions: Vec<CString> = requirements
            .extensions
            .iter()
            .filter(|e| !choices.without.iter().any(|w| e.what.to_str() == Ok(w)))
            .map(|e| e.what.to_owned())
            .collect();
        leave_off(&mut requirements, choices.without);
        // SAFETY: the handle is of this instance.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let required =
            requirements.queues.iter().find(|q| q.need == Need::Required).expect("a required queue");
        let own_family = required.family;
        // The application's own queue comes first in its family; vkhmm's after it, as far as there are any.
        let wanted = |family: u32| -> u32 {
            requirements.queues.iter().filter(|q| q.family == family).map(|q| q.count).sum()
        };
        let shared = choices.share || families[own_family as usize].queue_count < 2;
        let plan: Vec<(u32, u32, u32)> = (0..)
            .zip(&families)
            .map(|(family, properties)| {
                let mine = u32::from(family == own_family);
                let theirs = if choices.share { 0 } else { wanted(family) };
                (family, mine, theirs.min(properties.queue_count.saturating_sub(mine)))
            })
            .filter(|(_, mine, theirs)| mine + theirs > 0)
            .collect();
        let priorities = [1.0_f32; 64];
        let infos: Vec<vk::DeviceQueueCreateInfo<'_>> = plan
            .iter()
            .map(|(family, mine, theirs)| {
                vk::DeviceQueueCreateInfo::default()
                    .queue_family_index(*family)
                    .queue_priorities(&priorities[..(mine + theirs) as usize])
            })
            .collect();
        let names: Vec<_> = extensions.iter().map(|e| e.as_ptr()).collect();
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&infos)
            .enabled_extension_names(&names)
            .push_next(requirements.features.head());
        // SAFETY: families, extensions and features are those of this device; all pointers outlive the call.
        let device = unsafe { instance.create_device(physical, &info, None) }.expect("a device");
        // SAFETY: families and indices were just asked for.
        let get = |family, index| unsafe { device.get_device_queue(family, index) };
        let lock = Arc::new(AppLock::default());
        let mut queues: Vec<OwnQueue> = plan
            .iter()
            .flat_map(|(family, mine, theirs)| (*mine..mine + theirs).map(|index| (*family, index)))
            .map(|(family, index)| OwnQueue { family, handle: get(family, index), lock: None })
            .collect();
        let queue = (own_family, get(own_family, 0));
        if shared {
            let lock = Arc::clone(&lock) as Arc<dyn QueueLock>;
            queues.push(OwnQueue { family: queue.0, handle: queue.1, lock: Some(lock) });
        }
        Self {
            _entry: entry,
            instance,
            debug,
            messenger,
            messages,
            physical,
            device,
            extensions,
            requirements,
            queue,
            lock,
            queues,
        }
    }

    /// Whether vkhmm has to share the application's queue.
    pub(crate) fn shares(&self) -> bool {
        self.queues.iter().any(|queue| queue.lock.is_some())
    }

    /// What vkhmm gets.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            instance: self.instance.clone(),
            physical: self.physical,
            device: self.device.clone(),
            api_version: API,
            extensions: self.extensions.clone(),
            features: self.requirements.features.as_ptr(),
            enabled_features: None,
            queues: self.queues.clone(),
            families: vec![self.queue.0],
            usage: vk::BufferUsageFlags::INDIRECT_BUFFER,
            limit_bytes: Some(64 << 20),
        }
    }

    /// Work of the application's own on its queue, under its lock: fills a small buffer, waits, and looks.
    pub(crate) fn work(&self, word: u32) {
        let (family, queue) = self.queue;
        let device = &self.device;
        let info = vk::BufferCreateInfo::default().size(4096).usage(vk::BufferUsageFlags::TRANSFER_DST);
        // SAFETY: plain Vulkan by the book: every handle is made here, used by this thread, waited for and destroyed; the queue is used
        // under its lock.
        unsafe {
            let buffer = device.create_buffer(&info, None).expect("a buffer");
            let needs = device.get_buffer_memory_requirements(buffer);
            let memory = self.instance.get_physical_device_memory_properties(self.physical);
            let want = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
            let index = (0..memory.memory_type_count)
                .find(|i| {
                    let flags = memory.memory_types[*i as usize].property_flags;
                    needs.memory_type_bits & (1 << i) != 0 && flags.contains(want)
                })
                .expect("host-visible memory");
            let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(index);
            let memory = device.allocate_memory(&info, None).expect("memory");
            device.bind_buffer_memory(buffer, memory, 0).expect("bind");
            let pool = vk::CommandPoolCreateInfo::default().queue_family_index(family);
            let pool = device.create_command_pool(&pool, None).expect("a pool");
            let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let cmd = device.allocate_command_buffers(&info).expect("a command buffer")[0];
            device.begin_command_buffer(cmd, &vk::CommandBufferBeginInfo::default()).expect("begin");
            device.cmd_fill_buffer(cmd, buffer, 0, 4096, word);
            let barrier = vk::MemoryBarrier::default()
                .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
                .dst_access_mask(vk::AccessFlags::HOST_READ);
            let (from, to) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::HOST);
            device.cmd_pipeline_barrier(cmd, from, to, vk::DependencyFlags::empty(), &[barrier], &[], &[]);
            device.end_command_buffer(cmd).expect("end");
            let fence = device.create_fence(&vk::FenceCreateInfo::default(), None).expect("a fence");
            let commands = [cmd];
            let submit = [vk::SubmitInfo::default().command_buffers(&commands)];
            self.lock.hold(|| device.queue_submit(queue, &submit, fence)).expect("submit");
            device.wait_for_fences(&[fence], true, u64::MAX).expect("wait");
            let bytes = device.map_memory(memory, 0, 4096, vk::MemoryMapFlags::empty()).expect("map");
            assert!(std::slice::from_raw_parts(bytes.cast::<u32>(), 1024).iter().all(|w| *w == word));
            device.destroy_fence(fence, None);
            device.destroy_command_pool(pool, None);
            device.destroy_buffer(buffer, None);
            device.free_memory(memory, None);
        }
    }

    /// What the layer said so far.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // SAFETY: the test closed every runtime on the device (the layer would name what is left of one), and nothing runs.
        unsafe {
            self.device.device_wait_idle().expect("idle");
            self.device.destroy_device(None);
            self.debug.destroy_debug_utils_messenger(self.messenger, None);
            self.instance.destroy_instance(None);
        }
        let messages = self.messages();
        if !std::thread::panicking() {
            assert!(
                messages.is_empty(),
                "{} validation messages, the first: {}",
                messages.len(),
                messages[0]
            );
        }
    }
}

fn instance(
    entry: &ash::Entry,
    messages: &Messages,
) -> (ash::Instance, ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT) {
    let app = vk::ApplicationInfo::default().api_version(API);
    let layers = [LAYER.as_ptr()];
    let extensions = [ash::ext::debug_utils::NAME.as_ptr(), ash::ext::validation_features::NAME.as_ptr()];
    let enables = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
    let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enables);
    let messenger = || {
        vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(
                vk::DebugUtilsMessageSeverityFlagsEXT::WARNING | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR,
            )
            .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION)
            .pfn_user_callback(Some(on_message))
            .user_data((&raw const *messages).cast_mut().cast::<c_void>())
    };
    let mut chained = messenger();
    let info = vk::InstanceCreateInfo::default()
        .application_info(&app)
        .enabled_layer_names(&layers)
        .enabled_extension_names(&extensions)
        .push_next(&mut features)
        .push_next(&mut chained);
    // SAFETY: all pointers outlive the call; the messages live as long as the application. A missing layer fails the test.
    let instance = unsafe { entry.create_instance(&info, None) }.expect("an instance under validation");
    let debug = ash::ext::debug_utils::Instance::new(entry, &instance);
    // SAFETY: the extension is on, and the messages live as long as the application.
    let messenger = unsafe { debug.create_debug_utils_messenger(&messenger(), None) }.expect("a messenger");
    (instance, debug, messenger)
}

/// Turns features off by name, as an application does that does not know them.
fn leave_off(requirements: &mut Requirements, without: &[&str]) {
    let head = requirements.features.head();
    let mut next = head.p_next.cast::<vk::BaseOutStructure<'_>>();
    for name in without {
        match *name {
            "shaderInt64" => head.features.shader_int64 = vk::FALSE,
            "timelineSemaphore" | "maintenance4" | "VK_EXT_robustness2" => {}
            other => panic!("no way to leave off {other}"),
        }
    }
    let mut before = (&raw mut *head).cast::<vk::BaseOutStructure<'_>>();
    // SAFETY: the chain is alive, each link is what its sType says, and nobody else looks at it.
    while let Some(link) = unsafe { next.as_mut() } {
        let this = next;
        next = link.p_next;
        match link.s_type {
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES
                if without.contains(&"timelineSemaphore") =>
            {
                // SAFETY: as above: this sType is this structure's.
                unsafe {
                    (*this.cast::<vk::PhysicalDeviceVulkan12Features<'_>>()).timeline_semaphore = vk::FALSE
                };
            }
            vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_3_FEATURES if without.contains(&"maintenance4") => {
                // SAFETY: as above: this sType is this structure's.
                unsafe { (*this.cast::<vk::PhysicalDeviceVulkan13Features<'_>>()).maintenance4 = vk::FALSE };
            }
            vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT
                if without.contains(&"VK_EXT_robustness2") =>
            {
                // SAFETY: as above: both are links of the chain.
                unsafe { (*before).p_next = next };
                continue;
            }
            _ => {}
        }
        before = this;
    }
}

/// Keeps what the layer says.
///
/// # Safety
/// Called by the layer only, with `user` as given to the messenger and `data` valid for the call.
unsafe extern "system" fn on_message(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: the messages outlive the instance; the layer passes a valid structure with a terminated message, or null.
    let (messages, text) = unsafe {
        let message = data.as_ref().map(|d| d.p_message).filter(|p| !p.is_null());
        let text = message.map_or(c"(no text)", |text| CStr::from_ptr(text));
        (&*user.cast::<Messages>(), text.to_string_lossy().into_owned())
    };
    messages.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    vk::FALSE
}
