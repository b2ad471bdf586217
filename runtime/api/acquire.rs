//! Managed memory in an application's own command buffers: acquire, submit, release.

#[cfg(doc)]
use crate::MemoryError;
use crate::Result;
use crate::access::Access;
use crate::error::Error;
use crate::ports::Real;
use crate::runtime::Runtime;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use vkhmm_engine::{Argument, BindTo};
use vkhmm_vulkan::vk;

/// Where the bytes of one access lie on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePlace {
    /// The buffer; null for an empty access. It is shared by the queue families that the runtime was told of.
    pub buffer: vk::Buffer,
    /// First byte, from the buffer's start.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
    /// Device address of the first byte; zero for an empty access.
    pub address: u64,
    /// Buffer, offset and address are the same at every acquire of these bytes, as long as the allocation lives: descriptors
    /// may be written once.
    pub stable: bool,
}

/// Several accesses: a tuple of up to twelve, an array, or a vector.
pub trait Accesses<'a> {
    /// The list.
    #[doc(hidden)]
    fn list(self) -> Vec<Access<'a>>;
}

impl<'a> Accesses<'a> for Vec<Access<'a>> {
    fn list(self) -> Self {
        self
    }
}

impl<'a, const N: usize> Accesses<'a> for [Access<'a>; N] {
    fn list(self) -> Vec<Access<'a>> {
        self.into()
    }
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<'a, $($name: Into<Access<'a>>),*> Accesses<'a> for ($($name,)*) {
            #[allow(non_snake_case, reason = "type and variable share a name in this macro")]
            fn list(self) -> Vec<Access<'a>> {
                let ($($name,)*) = self;
                vec![$($name.into()),*]
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);
tuples!(A B C D E F G H I);
tuples!(A B C D E F G H I J);
tuples!(A B C D E F G H I J K);
tuples!(A B C D E F G H I J K L);

/// Managed memory that an application's own Vulkan work uses, from [`Runtime::acquire`] until it is released or cancelled. It
/// keeps the borrows of its accesses, so nothing else in safe code touches what is written meanwhile. Dropping it cancels it, with
/// a line on stderr that names its label; forgetting it (`mem::forget`) keeps the memory for ever: touches park, launches fail
/// with [`MemoryError::Acquired`].
#[must_use = "dropped at once, it is cancelled"]
pub struct Acquired<'a> {
    acquired: vkhmm_engine::Acquired<Real>,
    places: Vec<DevicePlace>,
    wait: (vk::Semaphore, u64),
    borrow: PhantomData<&'a mut ()>,
}

impl Acquired<'_> {
    /// Where the accesses lie, in their order; valid until release. Work that uses them waits for [`Acquired::wait`] first.
    pub fn places(&self) -> &[DevicePlace] {
        &self.places
    }

    /// The timeline semaphore and the value that the application's submission waits for. The runtime makes it reach the value
    /// without a further call. The semaphore is the runtime's: only wait for it, on its device.
    pub fn wait(&self) -> (vk::Semaphore, u64) {
        self.wait
    }

    /// The label in errors and reports.
    pub fn label(&self) -> &str {
        self.acquired.label()
    }

    /// Gives the memory back after work that is submitted: everything that touches it from now on comes after `value`, without a
    /// wait here, and the next acquire of it is granted at once. After the loss of the device, and in a forked child, nothing
    /// happens.
    ///
    /// # Safety
    /// * Work is submitted that makes `semaphore` reach `value`, and nothing keeps it from being done (a wait for a value that is
    ///   not submitted, or that only work on this memory would bring).
    /// * `semaphore` is a timeline semaphore of the runtime's device and lives until it has reached `value`, and the runtime has
    ///   seen it: until a later launch or touch of this memory is through, [`Runtime::sync`] returned, or the runtime is closed.
    /// * All work that uses this memory waited for [`Acquired::wait`], stays inside its bytes, stores only to what was acquired
    ///   with `write` or `overwrite`, reads nothing of an `overwrite` that it did not store, and is done, with its stores
    ///   available to the device, when `value` is reached.
    pub unsafe fn release(self, semaphore: vk::Semaphore, value: u64) {
        self.acquired.release(semaphore, value);
    }

    /// Gives the memory back; no work that uses it was submitted. What was acquired with `overwrite` is zero from now on,
    /// or, where the memory is used in place, what it was.
    pub fn cancel(self) {
        self.acquired.cancel();
    }
}

impl std::fmt::Debug for Acquired<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquired").field("label", &self.label()).field("places", &self.places).finish()
    }
}

impl Runtime {
    /// Brings memory to the device for the application's own command buffers on the runtime's device: all accesses, or none.
    /// It comes after everything launched before on the same bytes, and like a launch takes the host's views away. Labelled with
    /// the caller's place.
    ///
    /// Never waits for the device. Between this and its release the frames stay where they are: later launches have the rest of
    /// the device memory limit. Launches and acquires that conflict with it are refused, CPU touches wait. Reads beside reads are
    /// granted.
    ///
    /// # Errors
    /// On every error nothing has changed. `Busy`: it would have to wait (bytes on their way home, a launch that waits for room):
    /// ask again later. `WorkingSetTooLarge`: it does not fit beside what is acquired already; [`Runtime::can_acquire`] tells.
    /// `Acquired`: somebody else has it. `ForeignRuntime`, and the other [`MemoryError`]s of a launch.
    #[track_caller]
    pub fn acquire<'a>(&self, accesses: impl Accesses<'a>) -> Result<Acquired<'a>> {
        let place = Location::caller();
        self.acquire_named(accesses, &format!("{}:{}", place.file(), place.line()))
    }

    /// Like [`Runtime::acquire`], with a label for reports and errors.
    ///
    /// # Errors
    /// As [`Runtime::acquire`].
    pub fn acquire_named<'a>(&self, accesses: impl Accesses<'a>, label: &str) -> Result<Acquired<'a>> {
        let accesses = accesses.list();
        if let Some(argument) = accesses.iter().position(|a| !Arc::ptr_eq(&a.inner, &self.inner)) {
            return Err(Error::ForeignRuntime { argument });
        }
        let argument = |a: Access<'_>| Argument {
            range: a.range,
            bytes: a.bytes,
            access: a.kind,
            bind: BindTo::Nothing,
        };
        let arguments = accesses.into_iter().map(argument).collect();
        let engine = &self.inner.engine;
        let acquired = engine.acquire(arguments, label.into())?;
        let place = |part: &vkhmm_engine::AcquiredPart<Real>| DevicePlace {
            buffer: part.buffer.as_ref().map_or_else(vk::Buffer::null, |buffer| buffer.handle()),
            offset: part.offset,
            size: part.bytes,
            address: part.address,
            stable: part.stable,
        };
        let places = acquired.parts().iter().map(place).collect();
        let ticket = acquired.wait();
        let wait = (engine.device().timeline_semaphore(ticket.timeline), ticket.value);
        Ok(Acquired { acquired, places, wait, borrow: PhantomData })
    }

    /// Whether accesses of `bytes` bytes in all fit the device memory limit beside what is acquired now. Takes and moves nothing,
    /// so an application can ask it before it cuts its work.
    pub fn can_acquire(&self, bytes: u64) -> bool {
        self.inner.owned() && self.inner.engine.can_acquire(bytes)
    }
}
