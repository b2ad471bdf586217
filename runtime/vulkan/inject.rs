//! Failures on demand: software devices never run out of memory and are never lost, so tests say when.

use crate::config::{Failure, Switches};
use crate::context::Context;
use crate::error::refused;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vkhmm_port::DeviceError;

/// What was injected, in the errors' texts.
const INJECTED: &str = "injected by a test switch";

/// Counts the calls of the port that can fail, and fails the ones it is told to.
pub(crate) struct Injector {
    calls: AtomicU64,
    lose_at: Option<u64>,
    fail_at: Option<(u64, Failure)>,
    failed: AtomicBool,
}

/// How a call can fail besides loss.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Can {
    /// It takes memory or asks the driver for something that it may refuse. The bytes it is about.
    Fail(u64),
    /// It can only find the device lost.
    BeLost,
}

impl Injector {
    pub(crate) fn new(switches: &Switches) -> Self {
        Self {
            calls: AtomicU64::new(0),
            lose_at: switches.lose_at_call,
            fail_at: switches.fail_at_call,
            failed: AtomicBool::new(false),
        }
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Acquire)
    }

    /// Counts one call of `operation`, and says how it fails before it does anything.
    pub(crate) fn enter(&self, ctx: &Context, operation: &'static str, can: Can) -> Result<(), DeviceError> {
        let call = self.calls.fetch_add(1, Ordering::AcqRel) + 1;
        if self.lose_at.is_some_and(|n| call >= n) {
            ctx.lose();
        }
        if ctx.is_lost() {
            return Err(DeviceError::Lost { operation });
        }
        let (Some((n, failure)), Can::Fail(bytes)) = (self.fail_at, can) else { return Ok(()) };
        if call < n || self.failed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        Err(match failure {
            Failure::OutOfDeviceMemory => DeviceError::OutOfDeviceMemory { operation, bytes },
            Failure::OutOfHostMemory => DeviceError::OutOfHostMemory { operation },
            Failure::Refused => refused(operation, INJECTED),
        })
    }
}
