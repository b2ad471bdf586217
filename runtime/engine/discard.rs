//! Discard: the caller has no use for what bytes are. What only the device has is not copied home; the host's bytes stand for it from
//! now on: earlier ones of the same allocation, or zeros. In program order, like everything else: launches that still run write
//! frames that nobody reads, and whoever touches the bytes waits for them.

use crate::home::{Park, Taken};
use crate::range::RangeCell;
use crate::stats::Counters;
use crate::{Engine, EngineError, Ports};
use alloc::sync::Arc;
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::{EvictGoal, Placement};
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Mutex, Signal};

impl<P: Ports> Engine<P> {
    /// Gives up what the pages wholly inside `bytes` are; those partly inside keep it. Until they are written again they read as some
    /// earlier bytes of theirs, or zeros, the same ones every time. Waits for nothing on the device: what a paged launch
    /// that is not over may still touch keeps its bytes. Frames of spans that lie
    /// inside are given back, unless something that is not submitted yet uses them; others are given up without a copy.
    ///
    /// The caller has what a `&mut` of the bytes gives. Returns the bytes whose copy home is saved.
    ///
    /// # Errors
    /// `Lost`, `UnknownRange`, `OutOfRange`, `ForkedChild`; nothing has changed then.
    pub fn discard(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange) -> Result<u64, EngineError> {
        self.check_named(range, bytes)?;
        self.check(range, bytes)?;
        let g = self.config.geometry;
        let mut saved = 0;
        for (index, _, covered) in range.cut(bytes) {
            loop {
                let seen = self.progress.epoch();
                let mut block = range.blocks[index as usize].lock();
                let dead = (covered & block.device_valid()).minus(&block.paged_pages());
                if dead.is_empty() {
                    break;
                }
                let Taken::After(uses) = self.take_from_gate(range, index, Park::No) else {
                    drop(block);
                    // A launch of another thread, on other bytes, is between decision and submit.
                    self.await_progress(seen, Some(self.config.watchdog));
                    continue;
                };
                block.add_uses(&uses);
                let (_, spared) = block.discard(dead);
                saved += u64::from(spared.count()) * u64::from(g.page_bytes);
                self.resume(range, index, &mut block, PageMask::EMPTY);
                self.refresh_gate(range, index, &block);
                break;
            }
        }
        Counters::add(&self.counters.discarded_bytes, saved);
        self.give_frames_back(range, bytes);
        Ok(saved)
    }

    /// Gives up the spans that lie in the sub-blocks inside `bytes`, if nobody is in the way.
    fn give_frames_back(&self, range: &RangeCell<P>, bytes: ByteRange) {
        let frame_bytes = self.config.geometry.frame_bytes();
        let from = bytes.start.div_ceil(frame_bytes) as u32;
        let end = if bytes.end == range.bytes { bytes.end.next_multiple_of(frame_bytes) } else { bytes.end };
        let to = (end / frame_bytes) as u32;
        let there = {
            let mut arena = self.arena.lock();
            if from < to {
                arena.placement.note_clean(range.id, from..to);
            }
            (from..to).any(|sub| arena.placement.frame_of(range.id, sub).is_some())
        };
        if !there {
            return;
        }
        // Alive in one's turn: a loss is settled in a turn, and ends nothing that comes after.
        if let Some(_turn) = self.take_turn_at_once().filter(|_| self.check_alive().is_ok()) {
            // What cannot go now goes later, without a copy; a loss is settled by itself.
            let _ = self.evict_at_once(EvictGoal::Within(range.id, from, to));
        }
    }
}
