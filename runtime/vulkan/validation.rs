//! What the validation layer says, counted and kept. The callback runs inside driver calls: it never panics, never blocks for
//! long and calls nothing of Vulkan.

use ash::vk;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The layer that `Config::validation` asks for.
pub(crate) const LAYER: &CStr = c"VK_LAYER_KHRONOS_validation";

/// Not about the program: the layer's own thread lost sight of a timeline for ten seconds, and says that itself (issue 4968 of
/// Vulkan-ValidationLayers; those of 2022 and 2023 on busy machines). Told on stderr, and not kept.
const OF_ITSELF: &str = "UNASSIGNED-VkSemaphore-state-timeout";

/// The messages of one instance. Clones share them; it outlives the device, so what the layer says about teardown is kept too.
#[derive(Clone, Debug, Default)]
pub struct ValidationLog {
    shared: Arc<Shared>,
}

/// Lock contract: `messages` owns the kept texts; held for one push or clone; never while calling anything.
#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    messages: Mutex<Vec<String>>,
}

impl ValidationLog {
    /// How many messages are kept as text; all are counted.
    pub const KEPT: usize = 64;

    /// Errors and warnings so far.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Acquire)
    }

    /// The first [`Self::KEPT`] messages.
    pub fn messages(&self) -> Vec<String> {
        self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the instance is told about us. `self` must outlive the instance.
    pub(crate) fn messenger(&self) -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
        vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(
                vk::DebugUtilsMessageSeverityFlagsEXT::WARNING | vk::DebugUtilsMessageSeverityFlagsEXT::ERROR,
            )
            .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION)
            .pfn_user_callback(Some(on_message))
            .user_data(Arc::as_ptr(&self.shared).cast_mut().cast::<c_void>())
    }
}

impl Shared {
    fn push(&self, text: String) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < ValidationLog::KEPT {
            messages.push(text);
        }
        drop(messages);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// The callback of VK_EXT_debug_utils.
///
/// # Safety
/// Called by the layer only, with `user` as given to `messenger` and `data` valid for the call.
unsafe extern "system" fn on_message(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: `user` is the `Arc::as_ptr` of `messenger`, and the log outlives the instance that calls back.
    let shared = unsafe { &*user.cast::<Shared>() };
    // SAFETY: the layer passes a valid structure, or null (which `as_ref` answers with `None`).
    let data = unsafe { data.as_ref() };
    let string = |p: *const c_char| {
        // SAFETY: PFN_vkDebugUtilsMessengerCallbackEXT: its strings are null-terminated and valid during the call.
        (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned())
    };
    let text = data.and_then(|d| string(d.p_message)).unwrap_or_else(|| String::from("(no text)"));
    match data.and_then(|d| string(d.p_message_id_name)) {
        Some(id) if id == OF_ITSELF => eprintln!("vkhmm: the validation layer failed: {text}"),
        _ => shared.push(text),
    }
    vk::FALSE
}
