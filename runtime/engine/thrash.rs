//! The thrash guard at work: `core::thrash` says when a block is being taken back and forth; here it is told, counted, and its
//! frames are favoured. Touches and hints ask the block itself whether it is guarded.

use crate::range::RangeCell;
use crate::stats::Counters;
use crate::{Engine, Ports};
use core::sync::atomic::Ordering;
use vkhmm_core::block::Block;
use vkhmm_core::mask::PageMask;
use vkhmm_core::thrash::Verdict;
use vkhmm_port::{Exec, Mutex};

/// How many launches a guarded block's frames seem younger by.
const FAVOUR: u64 = 64;

impl<P: Ports> Engine<P> {
    /// A launch has pages of a block copied in. Under the block's lock.
    pub(crate) fn note_brought(&self, block: &mut Block, copied: PageMask) {
        if !copied.is_empty() {
            block.thrash.brought_in(self.exec.now());
        }
    }

    /// A touch takes pages of a block from the device. Under the block's lock.
    pub(crate) fn note_taken(&self, range: &RangeCell<P>, index: u32, block: &mut Block) {
        let verdict = block.thrash.taken_home(self.exec.now());
        if verdict == Verdict::Calm {
            return;
        }
        Counters::add(&self.counters.thrash_events, 1);
        if verdict != Verdict::Guard {
            return;
        }
        Counters::add(&self.counters.thrash_guards, 1);
        let per = self.config.geometry.subs_per_block();
        // Tried only: whoever answers touches waits for nobody, and this is a hint.
        if let Some(mut arena) = self.arena.try_lock() {
            arena.placement.favour(range.id, index * per..(index + 1) * per, FAVOUR);
        }
    }

    /// As [`Engine::note_taken`], in the touching thread. `None`, with nothing noted, where a guard begins: that takes memory.
    pub(crate) fn note_taken_now(&self, block: &mut Block) -> Option<()> {
        let mut thrash = block.thrash;
        let verdict = thrash.taken_home(self.exec.now());
        if verdict == Verdict::Guard {
            return None;
        }
        block.thrash = thrash;
        Counters::add(&self.counters.thrash_events, u64::from(verdict == Verdict::Event));
        Some(())
    }

    /// How many blocks of all ranges the guard keeps where they are now.
    pub fn thrash_guarded_blocks(&self) -> u64 {
        let now = self.exec.now();
        let ranges = self.space.lock().all();
        let guarded = |range: &RangeCell<P>| {
            range.blocks.iter().filter(|block| block.lock().thrash.is_guarded(now)).count() as u64
        };
        match self.counters.thrash_guards.load(Ordering::Relaxed) {
            0 => 0, // the usual case visits nothing
            _ => ranges.iter().map(|range| guarded(range)).sum(),
        }
    }
}
