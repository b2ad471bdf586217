//! The Vulkan instance, with validation if asked for.

use crate::error::OpenError;
use crate::loader;
use crate::validation::{LAYER, ValidationLog};
use ash::vk;
use std::ffi::{CStr, c_char};

/// The instance and what hangs off it. Dropped last of everything that came from it; an application's is left alone.
pub(crate) struct Instance {
    pub(crate) raw: ash::Instance,
    owned: bool,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    pub(crate) log: ValidationLog,
    /// Keeps libvulkan mapped; with an application's instance that is the application's business.
    _entry: Option<ash::Entry>,
}

impl Instance {
    /// Makes one. With `validation`, a missing layer is an error.
    pub(crate) fn new(validation: bool) -> Result<Self, OpenError> {
        let entry = loader::load()?;
        let log = ValidationLog::default();
        let mut layers: Vec<*const c_char> = Vec::new();
        let mut extensions: Vec<*const c_char> = Vec::new();
        if validation {
            require_validation(&entry)?;
            layers.push(LAYER.as_ptr());
            extensions.push(ash::ext::debug_utils::NAME.as_ptr());
            extensions.push(ash::ext::validation_features::NAME.as_ptr());
        }
        let app = vk::ApplicationInfo::default()
            .engine_name(c"vkhmm")
            .application_name(c"vkhmm")
            .api_version(vk::API_VERSION_1_3);
        let enables = [vk::ValidationFeatureEnableEXT::SYNCHRONIZATION_VALIDATION];
        let mut features = vk::ValidationFeaturesEXT::default().enabled_validation_features(&enables);
        let mut messenger_info = log.messenger();
        let mut info = vk::InstanceCreateInfo::default()
            .application_info(&app)
            .enabled_layer_names(&layers)
            .enabled_extension_names(&extensions);
        if validation {
            // The second chain entry lets the layer report on creation and destruction of the instance itself.
            info = info.push_next(&mut features).push_next(&mut messenger_info);
        }
        // SAFETY: vkCreateInstance: all pointers in `info` are to locals that outlive the call; layer and extensions were
        // enumerated by `require_validation`.
        let raw = unsafe { entry.create_instance(&info, None) }.map_err(|e| match e {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => {
                OpenError::NoDriver { reason: "incompatible driver".into() }
            }
            other => OpenError::Device(crate::error::driver("create the instance", 0, other)),
        })?;
        let debug = validation.then(|| ash::ext::debug_utils::Instance::new(&entry, &raw));
        let mut instance = Self { raw, owned: true, messenger: None, log, _entry: Some(entry) };
        if let Some(debug) = debug {
            // SAFETY: the extension was enabled above; the log that `user_data` points to lives as long as `instance`.
            let messenger = unsafe { debug.create_debug_utils_messenger(&instance.log.messenger(), None) }
                .map_err(|e| crate::error::driver("create the debug messenger", 0, e))?;
            instance.messenger = Some((debug, messenger));
        }
        Ok(instance)
    }

    /// An application's.
    pub(crate) fn borrowed(raw: ash::Instance) -> Self {
        Self { raw, owned: false, messenger: None, log: ValidationLog::default(), _entry: None }
    }

    /// Every physical device, in the loader's order.
    pub(crate) fn physical_devices(&self) -> Result<Vec<vk::PhysicalDevice>, OpenError> {
        // SAFETY: the instance is alive.
        match unsafe { self.raw.enumerate_physical_devices() } {
            Ok(list) if list.is_empty() => {
                Err(OpenError::NoDriver { reason: "no driver offers a device".into() })
            }
            Ok(list) => Ok(list),
            Err(vk::Result::ERROR_INITIALIZATION_FAILED | vk::Result::ERROR_INCOMPATIBLE_DRIVER) => {
                Err(OpenError::NoDriver { reason: "no driver could be initialised".into() })
            }
            Err(e) => Err(OpenError::Device(crate::error::driver("enumerate devices", 0, e))),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _section = crate::exit::section();
        // SAFETY: everything made from the instance is gone: `Context` destroys the device before it drops this, and `open`
        // holds no object across a failure. The messenger goes first, as its owner does.
        unsafe {
            if let Some((debug, messenger)) = self.messenger.take() {
                debug.destroy_debug_utils_messenger(messenger, None);
            }
            if self.owned {
                self.raw.destroy_instance(None);
            }
        }
    }
}

/// Whether the layer and the extensions that carry its settings and messages are there.
fn require_validation(entry: &ash::Entry) -> Result<(), OpenError> {
    // SAFETY: vkEnumerateInstanceLayerProperties has no valid-usage conditions.
    let layers = unsafe { entry.enumerate_instance_layer_properties() }.unwrap_or_default();
    if !layers.iter().any(|l| l.layer_name_as_c_str() == Ok(LAYER)) {
        return Err(OpenError::NoValidation { missing: "VK_LAYER_KHRONOS_validation" });
    }
    // SAFETY: the layer was just enumerated.
    let of_layer = unsafe { entry.enumerate_instance_extension_properties(Some(LAYER)) }.unwrap_or_default();
    let has = |name: &CStr| of_layer.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
    if !has(ash::ext::debug_utils::NAME) {
        return Err(OpenError::NoValidation { missing: "the layer's VK_EXT_debug_utils" });
    }
    if !has(ash::ext::validation_features::NAME) {
        return Err(OpenError::NoValidation { missing: "the layer's VK_EXT_validation_features" });
    }
    Ok(())
}
