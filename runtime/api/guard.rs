//! Host guards: elements held on the host, so that system calls on them work under every fault engine.

use crate::Result;
use crate::view::Part;
use bytemuck::Pod;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use vkhmm_core::units::OpId;
use vkhmm_engine::GuardKind;

struct Hold<T: Pod> {
    part: Part<T>,
    op: Option<OpId>,
}

impl<T: Pod> Hold<T> {
    fn new(part: Part<T>, kind: GuardKind) -> Result<Self> {
        let op = match &part.range {
            Some(range) if part.len > 0 => Some(part.inner.engine.guard(range, part.bytes(), kind)?),
            _ => None,
        };
        Ok(Self { part, op })
    }
}

impl<T: Pod> Drop for Hold<T> {
    fn drop(&mut self) {
        if let (Some(range), Some(op)) = (&self.part.range, self.op) {
            self.part.inner.engine.drop_guard(range, self.part.bytes(), op);
        }
    }
}

/// Elements held on the host for reading. Derefs to the slice.
pub struct HostGuard<'a, T: Pod> {
    hold: Hold<T>,
    borrow: PhantomData<&'a [T]>,
}

/// Elements held on the host for reading and writing. Derefs to the slice.
pub struct HostGuardMut<'a, T: Pod> {
    hold: Hold<T>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T: Pod> HostGuard<'_, T> {
    pub(crate) fn new(part: Part<T>) -> Result<Self> {
        Ok(Self { hold: Hold::new(part, GuardKind::Read)?, borrow: PhantomData })
    }
}

impl<T: Pod> HostGuardMut<'_, T> {
    pub(crate) fn new(part: Part<T>) -> Result<Self> {
        Ok(Self { hold: Hold::new(part, GuardKind::Write)?, borrow: PhantomData })
    }
}

impl<T: Pod> Deref for HostGuard<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the guard lives inside a shared borrow of the part ('a), and keeps its pages on the host.
        unsafe { self.hold.part.slice() }
    }
}

impl<T: Pod> Deref for HostGuardMut<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the guard lives inside a borrow of the part ('a), and keeps its pages on the host.
        unsafe { self.hold.part.slice() }
    }
}

impl<T: Pod> DerefMut for HostGuardMut<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: the guard lives inside an exclusive borrow of the part ('a), and keeps its pages on the host.
        unsafe { self.hold.part.slice_mut() }
    }
}

// SAFETY: a guard is a `&[T]`; what it holds belongs to no thread.
unsafe impl<T: Pod + Sync> Send for HostGuard<'_, T> {}
// SAFETY: a shared guard gives out `&[T]` only.
unsafe impl<T: Pod + Sync> Sync for HostGuard<'_, T> {}
// SAFETY: a guard is a `&mut [T]`; what it holds belongs to no thread.
unsafe impl<T: Pod + Send> Send for HostGuardMut<'_, T> {}
// SAFETY: a shared guard gives out `&[T]` only.
unsafe impl<T: Pod + Sync> Sync for HostGuardMut<'_, T> {}
