//! Turns: whoever comes first is admitted first. Who must not wait for the device asks for a turn only while nobody who has one does.

use crate::report::Place;
use crate::{Engine, Ports};
use alloc::collections::BTreeSet;
use vkhmm_port::{Mutex, Signal};

/// Turn numbers.
#[derive(Default)]
pub(crate) struct Turns {
    next: u64,
    serving: u64,
    /// Numbers of those who left before their turn.
    left: BTreeSet<u64>,
    /// Whoever has the turn waits for the device.
    owner_waits: bool,
    /// How many wait who leave then.
    impatient: u32,
}

impl Turns {
    /// Whether nobody's request is being admitted or waits for that.
    pub(crate) fn is_idle(&self) -> bool {
        self.next == self.serving
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl core::fmt::Display for Turns {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let waiting = self.next.saturating_sub(self.serving + 1) - self.left.len() as u64;
        match self.is_idle() {
            true => write!(f, "nobody has the turn"),
            false => write!(f, "turn {} goes on, {waiting} wait behind it", self.serving),
        }
    }
}

/// Held while it is one's turn. A lock by another name: owns admission · may wait for progress · never with a lock held.
pub(crate) struct Turn<'a, P: Ports> {
    engine: &'a Engine<P>,
}

impl<P: Ports> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        let mut turns = self.engine.turns.lock();
        turns.serving += 1;
        while let Some(&gone) = turns.left.first().filter(|gone| **gone == turns.serving) {
            turns.left.remove(&gone);
            turns.serving += 1;
        }
        drop(turns);
        self.engine.progress.notify();
    }
}

impl<P: Ports> Engine<P> {
    /// Waits for one's turn.
    pub(crate) fn take_turn(&self) -> Turn<'_, P> {
        let _at = self.places.enter(Place::Turn);
        let mine = self.turns.lock().take_number();
        loop {
            let seen = self.progress.epoch();
            if self.turns.lock().serving == mine {
                return Turn { engine: self };
            }
            self.await_progress(seen, None);
        }
    }

    /// Waits for one's turn as long as nobody before waits for the device.
    pub(crate) fn take_turn_at_once(&self) -> Option<Turn<'_, P>> {
        let _at = self.places.enter(Place::Turn);
        let mine = {
            let mut turns = self.turns.lock();
            turns.impatient += 1;
            turns.take_number()
        };
        loop {
            let seen = self.progress.epoch();
            {
                let mut turns = self.turns.lock();
                let came = turns.serving == mine;
                if came || turns.owner_waits {
                    turns.impatient -= 1;
                    if came {
                        return Some(Turn { engine: self });
                    }
                    turns.left.insert(mine);
                    return None;
                }
            }
            self.await_progress(seen, None);
        }
    }

    /// Waits, in one's turn, for what the device is to do first.
    pub(crate) fn wait_in_turn(&self, seen: u32) {
        let impatient = {
            let mut turns = self.turns.lock();
            turns.owner_waits = true;
            turns.impatient > 0
        };
        if impatient {
            self.progress.notify();
        }
        self.await_progress(seen, Some(self.config.watchdog));
        self.turns.lock().owner_waits = false;
    }
}
