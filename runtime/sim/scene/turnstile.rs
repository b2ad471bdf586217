//! A lock of the application: it may be held across calls of the engine and across touches, as an application's own locks are.

use super::Stage;
use super::array::Array;
use crate::{SimExec, SimSignal};
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_port::{Exec, Signal};

/// An array and its lock: who has taken the array out has it to himself.
pub(super) struct Locked {
    /// Lock: owns the place · blocks on nothing, as it is held for a moment only.
    array: Mutex<Option<Array>>,
    left: SimSignal,
}

impl Locked {
    pub(super) fn new(stage: &Stage, array: Array) -> Arc<Self> {
        let exec: &SimExec = &stage.exec;
        Arc::new(Self { array: Mutex::new(Some(array)), left: exec.signal() })
    }

    /// Waits for the array and takes it.
    pub(super) fn take(&self) -> Array {
        loop {
            let seen = self.left.epoch();
            if let Some(array) = self.array.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return array;
            }
            self.left.wait(seen, None);
        }
    }

    /// Gives it back.
    pub(super) fn put(&self, array: Array) {
        *self.array.lock().unwrap_or_else(PoisonError::into_inner) = Some(array);
        self.left.notify();
    }
}
