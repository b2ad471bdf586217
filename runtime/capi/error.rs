//! Result codes, the text of the last error, and the border that no panic crosses.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use vkhmm::{Error, KernelError, MemoryError};

/// What a call answers: zero for success, positive for an answer that is not an error, negative for an error. On every error nothing
/// has changed, and vkhmm_last_error says what was wrong, what was allowed and what to do.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vkhmm_result {
    /// Done.
    VKHMM_OK = 0,
    /// The time was over before the work was.
    VKHMM_TIMEOUT = 1,
    /// The caller's array or text was too small: it has what fits, and *needed says how much there is.
    VKHMM_INCOMPLETE = 2,
    /// There is no such thing: no clock, no pagemap at that address, no managed memory at that pointer.
    VKHMM_NONE = 3,
    /// A bug of vkhmm: a broken invariant. Nothing of this runtime should be used any more.
    VKHMM_ERROR_INTERNAL = -1,
    /// A pointer that is NULL or misaligned, a size, a kind or an option that cannot be.
    VKHMM_ERROR_INVALID_ARGUMENT = -2,
    /// No handle: zero, or of another type.
    VKHMM_ERROR_INVALID_HANDLE = -3,
    /// A handle of something that was destroyed or freed.
    VKHMM_ERROR_STALE_HANDLE = -4,
    /// Memory or a kernel of another runtime.
    VKHMM_ERROR_FOREIGN = -5,
    /// This process was forked from the one that owns the handle.
    VKHMM_ERROR_FORKED = -6,
    /// The device is gone.
    VKHMM_ERROR_DEVICE_LOST = -7,
    /// The bytes existed on a lost device only.
    VKHMM_ERROR_LOST = -8,
    /// More than can be on the device at once.
    VKHMM_ERROR_WORKING_SET_TOO_LARGE = -9,
    /// A host guard keeps the pages on the host.
    VKHMM_ERROR_GUARDED = -10,
    /// No host memory.
    VKHMM_ERROR_OUT_OF_HOST_MEMORY = -11,
    /// No device memory.
    VKHMM_ERROR_OUT_OF_DEVICE_MEMORY = -12,
    /// The reservation is full, or no allocation can be that large.
    VKHMM_ERROR_OUT_OF_ADDRESS_SPACE = -13,
    /// Bytes that are not inside the buffer.
    VKHMM_ERROR_OUT_OF_RANGE = -14,
    /// No usable Vulkan device.
    VKHMM_ERROR_NO_DEVICE = -15,
    /// No usable host memory or fault engine.
    VKHMM_ERROR_NO_HOST = -16,
    /// The module cannot become a kernel.
    VKHMM_ERROR_KERNEL = -17,
    /// The module needs what the device lacks.
    VKHMM_ERROR_UNSUPPORTED = -18,
    /// A setting, in the options or the environment, has a value that it cannot have.
    VKHMM_ERROR_SETTING = -19,
    /// The system has no thread, or no file.
    VKHMM_ERROR_SYSTEM = -20,
    /// The kernel can write a binding that is given to it for reading.
    VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT = -21,
    /// Number or sizes of arguments do not fit the kernel.
    VKHMM_ERROR_ARGUMENTS = -22,
    /// More groups than the device runs.
    VKHMM_ERROR_GRID_TOO_LARGE = -23,
    /// A binding longer than the device can bind.
    VKHMM_ERROR_BINDING_TOO_LARGE = -24,
    /// A binding that starts where the device cannot bind.
    VKHMM_ERROR_MISALIGNED = -25,
    /// A fill or copy of something that is not whole 32-bit words, or of two lengths.
    VKHMM_ERROR_WORDS = -26,
    /// A pagemap that is unknown, live, dead or in use.
    VKHMM_ERROR_PAGEMAP = -27,
    /// The driver or the system refused.
    VKHMM_ERROR_REFUSED = -28,
    /// The buffer cannot keep its device address.
    VKHMM_ERROR_NOT_STABLE = -29,
    /// The pages are acquired by the application, whose queues may be using them.
    VKHMM_ERROR_ACQUIRED = -30,
    /// It would have to wait for the device, and never does: ask again later.
    VKHMM_ERROR_BUSY = -31,
    /// The process is ending.
    VKHMM_ERROR_ENDING = -32,
    /// The application shares its only queue, and CPU touches of this kind of memory would have to use it.
    VKHMM_ERROR_SHARED_QUEUE = -33,
    /// An operand of a vkhmm_kernels_ function has a size, a stride or a kind of access that it cannot work with.
    VKHMM_ERROR_SHAPE = -34,
}
use vkhmm_result::*;

/// A refused call: its code and its text.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: vkhmm_result,
    text: String,
}

impl Failure {
    pub(crate) fn new(code: vkhmm_result, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Whether it was refused because this is a forked child.
    pub(crate) fn is_forked(&self) -> bool {
        self.code == VKHMM_ERROR_FORKED
    }

    pub(crate) fn prefix(&mut self, text: &str) {
        self.text.insert_str(0, text);
    }

    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(VKHMM_ERROR_INVALID_ARGUMENT, text)
    }
}

/// What the body of a function of the ABI returns.
pub(crate) type Answer = Result<vkhmm_result, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Memory(memory) => memory_code(memory),
            Error::Device(_) => VKHMM_ERROR_NO_DEVICE,
            Error::SharedQueue { .. } => VKHMM_ERROR_SHARED_QUEUE,
            Error::Host(_) => VKHMM_ERROR_NO_HOST,
            Error::Kernel(KernelError::Unsupported { .. }) => VKHMM_ERROR_UNSUPPORTED,
            Error::Kernel(KernelError::Device(_)) => VKHMM_ERROR_REFUSED,
            Error::Kernel(_) => VKHMM_ERROR_KERNEL,
            Error::Setting { .. } | Error::NoSparse { .. } => VKHMM_ERROR_SETTING,
            Error::System { .. } => VKHMM_ERROR_SYSTEM,
            Error::Layout { .. } => VKHMM_ERROR_OUT_OF_ADDRESS_SPACE,
            Error::WritesReadOnlyArgument { .. } => VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT,
            Error::Arguments { .. } => VKHMM_ERROR_ARGUMENTS,
            Error::GridTooLarge { .. } => VKHMM_ERROR_GRID_TOO_LARGE,
            Error::BindingTooLarge { .. } => VKHMM_ERROR_BINDING_TOO_LARGE,
            Error::Misaligned { .. } | Error::Unaligned { .. } => VKHMM_ERROR_MISALIGNED,
            Error::ForeignRuntime { .. } => VKHMM_ERROR_FOREIGN,
            Error::Words { .. } => VKHMM_ERROR_WORDS,
            Error::Shape { .. } => VKHMM_ERROR_SHAPE,
            _ => VKHMM_ERROR_REFUSED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        Error::from(error).into()
    }
}

fn memory_code(error: &MemoryError) -> vkhmm_result {
    match error {
        MemoryError::ForkedChild => VKHMM_ERROR_FORKED,
        MemoryError::DeviceLost { .. } => VKHMM_ERROR_DEVICE_LOST,
        MemoryError::Lost { .. } => VKHMM_ERROR_LOST,
        MemoryError::WorkingSetTooLarge { .. } => VKHMM_ERROR_WORKING_SET_TOO_LARGE,
        MemoryError::NotStable { .. } => VKHMM_ERROR_NOT_STABLE,
        MemoryError::Acquired { .. } => VKHMM_ERROR_ACQUIRED,
        MemoryError::Busy { .. } => VKHMM_ERROR_BUSY,
        MemoryError::Guarded { .. } | MemoryError::PinnedApart { .. } => VKHMM_ERROR_GUARDED,
        MemoryError::OutOfHostMemory { .. } => VKHMM_ERROR_OUT_OF_HOST_MEMORY,
        MemoryError::OutOfAddressSpace { .. } => VKHMM_ERROR_OUT_OF_ADDRESS_SPACE,
        MemoryError::UnknownRange { .. } => VKHMM_ERROR_STALE_HANDLE,
        MemoryError::OutOfRange { .. } => VKHMM_ERROR_OUT_OF_RANGE,
        MemoryError::NoPagemap | MemoryError::Pagemap(_) => VKHMM_ERROR_PAGEMAP,
        MemoryError::Device(device) => device_code(device),
        _ => VKHMM_ERROR_REFUSED,
    }
}

fn device_code(error: &vkhmm::DeviceError) -> vkhmm_result {
    match error {
        vkhmm::DeviceError::Lost { .. } => VKHMM_ERROR_DEVICE_LOST,
        vkhmm::DeviceError::OutOfDeviceMemory { .. } => VKHMM_ERROR_OUT_OF_DEVICE_MEMORY,
        vkhmm::DeviceError::OutOfHostMemory { .. } => VKHMM_ERROR_OUT_OF_HOST_MEMORY,
        vkhmm::DeviceError::Refused { .. } => VKHMM_ERROR_REFUSED,
    }
}

thread_local! {
    /// What the last call on this thread complained about; empty after a success.
    static LAST: RefCell<CString> = RefCell::default();
}

fn set_last(text: String) {
    let bytes: Vec<u8> = text.into_bytes().into_iter().filter(|b| *b != 0).collect();
    // A thread that is ending has no place for it any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = CString::new(bytes).unwrap_or_default());
}

/// Runs the body of a function of the ABI: notes its error, and turns a panic into one.
pub(crate) fn call(body: impl FnOnce() -> Answer) -> vkhmm_result {
    let answer = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(Failure::new(VKHMM_ERROR_INTERNAL, format!("a bug of vkhmm, please report it: {said}")))
    });
    match answer {
        Ok(code) => {
            let _ = LAST.try_with(|last| {
                if !last.borrow().is_empty() {
                    *last.borrow_mut() = CString::default();
                }
            });
            code
        }
        Err(failure) => {
            set_last(failure.text);
            failure.code
        }
    }
}

/// Runs the body of a function that has no code to answer with, and leaves the text of the last error as it is; `None` for a panic.
pub(crate) fn quietly<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}

/// What the last call on this thread complained about, in words; empty if it succeeded. Never NULL. Valid until the next call of any
/// other function of this library on this thread. Each thread has its own.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

macro_rules! names {
    ($($code:ident)*) => {
        const NAMES: &[(vkhmm_result, &CStr)] = &[$(($code, {
            // SAFETY: the literal ends with the only NUL it has: an identifier has none.
            unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($code), "\0").as_bytes()) }
        })),*];
    };
}
names!(VKHMM_OK VKHMM_TIMEOUT VKHMM_INCOMPLETE VKHMM_NONE VKHMM_ERROR_INTERNAL VKHMM_ERROR_INVALID_ARGUMENT
    VKHMM_ERROR_INVALID_HANDLE VKHMM_ERROR_STALE_HANDLE VKHMM_ERROR_FOREIGN VKHMM_ERROR_FORKED VKHMM_ERROR_DEVICE_LOST
    VKHMM_ERROR_LOST VKHMM_ERROR_WORKING_SET_TOO_LARGE VKHMM_ERROR_GUARDED VKHMM_ERROR_OUT_OF_HOST_MEMORY
    VKHMM_ERROR_OUT_OF_DEVICE_MEMORY VKHMM_ERROR_OUT_OF_ADDRESS_SPACE VKHMM_ERROR_OUT_OF_RANGE VKHMM_ERROR_NO_DEVICE
    VKHMM_ERROR_NO_HOST VKHMM_ERROR_KERNEL VKHMM_ERROR_UNSUPPORTED VKHMM_ERROR_SETTING VKHMM_ERROR_SYSTEM
    VKHMM_ERROR_WRITES_READ_ONLY_ARGUMENT VKHMM_ERROR_ARGUMENTS VKHMM_ERROR_GRID_TOO_LARGE VKHMM_ERROR_BINDING_TOO_LARGE
    VKHMM_ERROR_MISALIGNED VKHMM_ERROR_WORDS VKHMM_ERROR_PAGEMAP VKHMM_ERROR_REFUSED VKHMM_ERROR_NOT_STABLE
    VKHMM_ERROR_ACQUIRED VKHMM_ERROR_BUSY VKHMM_ERROR_ENDING VKHMM_ERROR_SHARED_QUEUE VKHMM_ERROR_SHAPE);

/// The name of a result code, such as "VKHMM_ERROR_LOST"; "unknown" for any other number. Never NULL, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn vkhmm_result_name(result: i32) -> *const c_char {
    NAMES.iter().find(|(code, _)| *code as i32 == result).map_or(c"unknown", |(_, name)| *name).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the text is NUL-terminated, and no other call is made while it is read.
        unsafe { CStr::from_ptr(vkhmm_last_error()) }.to_str().expect("UTF-8").into()
    }

    #[test]
    fn panics_become_errors_with_their_text_and_success_clears_it() {
        assert_eq!(call(|| panic!("it is {}", 7)), VKHMM_ERROR_INTERNAL);
        assert!(last().contains("it is 7"), "{}", last());
        assert_eq!(call(|| Ok(VKHMM_TIMEOUT)), VKHMM_TIMEOUT);
        assert_eq!(last(), "");
        assert_eq!(call(|| Err(Failure::argument("a\0b"))), VKHMM_ERROR_INVALID_ARGUMENT);
        assert_eq!(last(), "ab");
        std::thread::spawn(|| assert_eq!(last(), "")).join().expect("joined");
    }

    #[test]
    fn every_code_has_a_name() {
        for code in -40..10 {
            // SAFETY: the names are static and NUL-terminated.
            let name = unsafe { CStr::from_ptr(vkhmm_result_name(code)) }.to_str().expect("UTF-8");
            assert_eq!(name != "unknown", (VKHMM_ERROR_SHAPE as i32..=VKHMM_NONE as i32).contains(&code));
        }
    }
}
