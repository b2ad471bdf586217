//! Errors of opening a device and of making kernels, and the one translation of what a driver returns.

use ash::vk;
use vkhmm_core::pagemap::MemoryKind;
use vkhmm_port::DeviceError;

/// Why no device could be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no Vulkan loader.
    #[error(
        "the Vulkan loader could not be opened ({reason}): install libvulkan1 (Debian, Ubuntu), vulkan-loader (Fedora) or \
         vulkan-icd-loader (Arch)"
    )]
    NoLoader {
        /// What the system said.
        reason: String,
    },
    /// The loader found no driver.
    #[error(
        "no Vulkan driver is installed ({reason}): install the driver of your card, or the software one: mesa-vulkan-drivers \
         (Debian, Ubuntu, Fedora), vulkan-swrast (Arch)"
    )]
    NoDriver {
        /// What the loader said.
        reason: String,
    },
    /// The loader is too old.
    #[error("the Vulkan loader speaks version {have}, vkhmm needs 1.2: update the loader")]
    LoaderTooOld {
        /// Its version.
        have: String,
    },
    /// Validation was asked for and is not there.
    #[error(
        "validation was asked for, but {missing} is not installed: install vulkan-validationlayers, or ask for none"
    )]
    NoValidation {
        /// The layer or extension.
        missing: &'static str,
    },
    /// Drivers, but no device that can serve.
    #[error("none of the {} Vulkan devices can serve: {}", refused.len(), refused.join("; "))]
    NoUsableDevice {
        /// Name and reason of each.
        refused: Vec<String>,
    },
    /// The device asked for does not exist, or cannot serve.
    #[error("the device {asked:?} cannot be used: {reason}; there are: {}", have.join(", "))]
    NoSuchDevice {
        /// What was asked for.
        asked: String,
        /// Why not.
        reason: String,
        /// The devices, as `number: name`.
        have: Vec<String>,
    },
    /// The memory kind asked for needs a memory type that the device lacks.
    #[error("the device has no memory type for {kind:?} (needs {need}): leave the kind to the device")]
    NoMemoryOfKind {
        /// What was asked for.
        kind: MemoryKind,
        /// Which properties it takes.
        need: &'static str,
    },
    /// The device cannot place frames.
    #[error("the device wants buffers aligned to {alignment} bytes, frames are aligned to {frame}")]
    FrameAlignment {
        /// What the device wants.
        alignment: u64,
        /// What frames have.
        frame: u64,
    },
    /// The application created its device without what vkhmm does not run without.
    #[error(
        "the device was created without {}: turn it on in vkCreateDevice (Requirements::query lists everything that is wanted)",
        required.join(", ")
    )]
    NotEnabled {
        /// Extensions and features.
        required: Vec<String>,
    },
    /// What an application handed over does not fit together.
    #[error("the application's device cannot be used: {reason}")]
    Parts {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The import probe copied and got other bytes back, or the driver failed while it ran.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a module could not become a kernel. Nothing was made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The module cannot be read, or holds what vkhmm does not serve.
    #[error("kernel {kernel}: {reason}")]
    Module {
        /// Name of the kernel.
        kernel: String,
        /// What was found.
        reason: String,
    },
    /// The module needs what the device does not have.
    #[error("kernel {kernel} needs {what}: {need}; the device has {have}")]
    Unsupported {
        /// Name of the kernel.
        kernel: String,
        /// What it is about.
        what: &'static str,
        /// What the module needs.
        need: String,
        /// What the device has.
        have: String,
    },
    /// A specialisation constant that the module does not have, or of another size.
    #[error("kernel {kernel}: specialisation constant {id}: {reason}")]
    Specialisation {
        /// Name of the kernel.
        kernel: String,
        /// Its SpecId.
        id: u32,
        /// What is wrong.
        reason: String,
    },
    /// The driver refused it.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Translates what a driver returned. `bytes` is what an allocation asked for, else zero.
pub(crate) fn driver(operation: &'static str, bytes: u64, result: vk::Result) -> DeviceError {
    match result {
        vk::Result::ERROR_DEVICE_LOST => DeviceError::Lost { operation },
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => DeviceError::OutOfDeviceMemory { operation, bytes },
        vk::Result::ERROR_OUT_OF_HOST_MEMORY => DeviceError::OutOfHostMemory { operation },
        other => DeviceError::Refused { operation, message: format!("{other:?}") },
    }
}

/// A refusal of ours.
pub(crate) fn refused(operation: &'static str, message: impl Into<String>) -> DeviceError {
    DeviceError::Refused { operation, message: message.into() }
}
