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

    /// Takes its memory, once.
    pub(crate) fn reserve(&mut self) {
        if self.events.capacity() == 0 {
            self.events.reserve_exact(Self::EVENTS_MAX);
        }
    }

    fn push(&mut self, event: TraceEvent) {
        self.reserve();
        if self.events.len() == Self::EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl<P: Ports> Engine<P> {
    pub(crate) fn note(&self, cause: TraceCause, bytes: ByteRange) {
        let event = TraceEvent { at_ns: self.exec.now(), cause, bytes };
        self.trace.lock().push(event);
    }

    /// As [`Self::note`], if nobody else writes just then. Neither waits nor allocates.
    pub(crate) fn try_note(&self, cause: TraceCause, bytes: ByteRange) {
        let event = TraceEvent { at_ns: self.exec.now(), cause, bytes };
        if let Some(mut ring) = self.trace.try_lock().filter(|ring| ring.events.capacity() > 0) {
            ring.push(event);
        }
    }

    /// The last events, oldest first.
    pub fn trace_events(&self) -> Vec<TraceEvent> {
        self.trace.lock().events.iter().copied().collect()
    }
}
