//! Who waited, for what, how long: by label, so that the line which waits can be found.

use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use vkhmm_port::{Exec, Mutex};

/// All waits under one label: an allocation's (its touches, guards and slices) or a kernel's (admission, `Launch::wait`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// As given, or file and line of the allocation; the kernel's name.
    pub label: Arc<str>,
    /// How often.
    pub count: u64,
    /// How long, together. For parked touches: from the first of an allocation to the next answer.
    pub time: Duration,
}

pub(crate) type Table = BTreeMap<Arc<str>, (u64, u64)>;

/// Labels kept apart; waits of later ones are counted in [`crate::Stats`] only.
const LABELS_MAX: usize = 4096;

impl<P: Ports> Engine<P> {
    /// Notes a wait that began at `since` (of the engine's clock).
    pub(crate) fn note_wait(&self, label: &Arc<str>, since: u64) {
        let ns = self.exec.now().saturating_sub(since);
        Counters::add(&self.counters.waits, 1);
        Counters::add(&self.counters.wait_ns, ns);
        let mut table = self.waited.lock();
        if table.len() < LABELS_MAX || table.contains_key(label) {
            let entry = table.entry(Arc::clone(label)).or_default();
            *entry = (entry.0 + 1, entry.1 + ns);
        }
    }

    /// Everything that waited, longest first.
    pub fn waits(&self) -> Vec<Waits> {
        let table = self.waited.lock().clone();
        let mut all: Vec<Waits> = table
            .into_iter()
            .map(|(label, (count, ns))| Waits { label, count, time: Duration::from_nanos(ns) })
            .collect();
        all.sort_by_key(|w| core::cmp::Reverse(w.time));
        all
    }
}
