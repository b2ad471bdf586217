//! Device loss: noticed anywhere, settled once by the completion thread. Afterwards every byte is current, or Lost and named.

use crate::op::OpStatus;
use crate::range::RangeCell;
use crate::{Engine, EngineError, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use vkhmm_core::block::Summary;
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::ByteRange;
use vkhmm_port::{Exec, Mutex, Signal};

impl<P: Ports> Engine<P> {
    /// The device is gone, says `cause`. May be called with any lock but a leaf held; only notes it, and only the first time: whoever
    /// finds it gone while waiting for the settling must not wake himself.
    pub(crate) fn note_loss(&self, cause: &str) {
        let mut story = self.loss.lock();
        if story.is_some() {
            return;
        }
        *story = Some(cause.into());
        self.lost.store(true, Ordering::Release);
        drop(story);
        self.called.notify();
        self.progress.notify();
        self.work.notify();
    }

    /// Settles the loss: locations, holds, parked touches, operations. On the completion thread alone.
    pub(crate) fn settle_loss(&self) {
        // First of all: a touch of what is lost may end the process as soon as it is known to be.
        let cause = self.loss_cause();
        self.exec.report(format_args!(
            "the device was lost ({cause}); bytes that only it had are lost, all others are on the host"
        ));
        // Queued items never run; their operations end below.
        let turn = self.take_turn();
        let unsent = self.submit.lock().take_all();
        drop(unsent);
        let ranges = self.space.lock().all();
        let mut lost_bytes = 0;
        for range in &ranges {
            for index in 0..range.block_count() {
                let mut block = range.blocks[index as usize].lock();
                let (lost, writes) = block.lose();
                range.gate.lock().put(index, Summary { device_valid: false, device_only: false });
                if writes {
                    range.quarantined.store(true, Ordering::Release);
                }
                if !range.is_dead() {
                    lost_bytes += u64::from(lost.count()) * u64::from(self.config.geometry.page_bytes);
                }
                if self.faults_parked {
                    for run in lost.runs() {
                        self.poison(range.run(index, &run));
                    }
                    block.poisoned(lost);
                }
                self.resume(range, index, &mut block, PageMask::EMPTY);
            }
        }
        let open: Vec<_> = core::mem::take(&mut *self.ops.lock()).into_values().collect();
        for op in open {
            op.set_status(OpStatus::Lost);
            drop((op.take_blocks(), op.take_buffers()));
        }
        // Imports stay with their ranges: what the lost device still names keeps the host pages from being punched (`retire`).
        ranges.iter().for_each(|range| range.gate.lock().deciding = 0);
        let lanes = core::mem::take(&mut self.flights.lock().lanes);
        drop(lanes);
        drop(turn);
        let homes = core::mem::take(&mut self.slots.lock().homes);
        drop(homes);
        let fences = core::mem::take(&mut self.fences.lock().waiting);
        drop(fences);
        if lost_bytes > 0 {
            self.exec.report(format_args!("{lost_bytes} bytes were lost with the device"));
        }
        self.progress.notify();
    }

    /// The first lost bytes of an interval, as the error that names them.
    ///
    /// # Errors
    /// `Lost`, `OutOfRange`, `ForkedChild`.
    pub fn check(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange) -> Result<(), EngineError> {
        self.check_owned()?;
        self.check_interval(range, bytes)?;
        let page_bytes = u64::from(self.config.geometry.page_bytes);
        for (index, touched, _) in range.cut(bytes) {
            let block = range.blocks[index as usize].lock();
            // Between the news of the loss and its settling, too: what it would take is as good as lost.
            let gone = self.lost.load(Ordering::Acquire);
            let lost = if gone { block.lost() | block.at_stake() } else { block.lost() } & touched;
            drop(block);
            if let Some(run) = lost.runs().next() {
                let base = u64::from(index) * self.config.geometry.block_bytes();
                return Err(EngineError::Lost {
                    label: Arc::clone(&range.label),
                    start: (base + u64::from(run.start) * page_bytes).max(bytes.start),
                    end: (base + u64::from(run.end) * page_bytes).min(bytes.end),
                    cause: self.loss_cause(),
                });
            }
        }
        Ok(())
    }
}
