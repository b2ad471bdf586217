//! The last events, each with its cause, for people and tests; older ones are overwritten.

use crate::{Engine, Ports};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use vkhmm_core::block::Cause;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Exec, Mutex};

/// What happened to some bytes, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceCause {
    /// Host pages born by first touch.
    FirstTouch,
    /// Published because of a touch.
    Touch,
    /// On their way to the device.
    ToDevice(Cause),
    /// On their way home.
    ToHost(Cause),
    /// Mapping taken away or made read-only.
    Revoke,
    /// Lies in its range's sparse buffer from now on.
    Bind,
    /// Lies there no more.
    Unbind,
    /// Poisoned.
    Poison,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct TraceEvent {
    /// When, in nanoseconds of the engine's clock.
    pub at_ns: u64,
    /// What and why.
    pub cause: TraceCause,
    /// Which bytes of the reservation.
    pub bytes: ByteRange,
}

#[derive(Default)]
pub(crate) struct Ring {
    events: VecDeque<TraceEvent>,
}

impl Ring {
    const EVENTS_MAX: usize = 4096;
}

impl<P: Ports> Engine<P> {
    pub(crate) fn note(&self, cause: TraceCause, bytes: ByteRange) {
        let event = TraceEvent { at_ns: self.exec.now(), cause, bytes };
        let mut ring = self.trace.lock();
        if ring.events.capacity() == 0 {
            ring.events.reserve_exact(Ring::EVENTS_MAX);
        }
        if ring.events.len() == Ring::EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
    }

    /// The last events, oldest first.
    pub fn trace_events(&self) -> Vec<TraceEvent> {
        self.trace.lock().events.iter().copied().collect()
    }
}
