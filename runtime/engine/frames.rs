//! Which frames hold pages, told to devices that check accesses ([`Device::watches_frames`]): at every look, what changed since the
//! last one. A frame is released once it is idle: its owner is gone and all that used it is done; a frame that passes from one owner
//! to the next without a pause stays claimed, and the order between them is the timelines' business.

use crate::arena::Arena;
use crate::{Engine, Ports};
use alloc::vec::Vec;
use vkhmm_core::placement::Placement;
use vkhmm_core::units::{FrameIndex, FrameRun};
use vkhmm_port::{Device, Mutex};

impl<P: Ports> Arena<P> {
    /// Tells the device what changed. Called wherever frames may be used for the first time, or may have been used for the last.
    pub(crate) fn tell_frames(&mut self, device: &P::Device) {
        if !device.watches_frames() {
            return;
        }
        let idle = self.placement.idle();
        for run in minus(&self.idle_told, &idle) {
            device.frames_claimed(run);
        }
        for run in minus(&idle, &self.idle_told) {
            device.frames_released(run);
        }
        self.idle_told = idle;
    }

    /// A piece is gone; its frames were idle.
    pub(crate) fn forget_frames(&mut self, piece: FrameRun) {
        self.idle_told = minus(&self.idle_told, &[piece]);
    }
}

impl<P: Ports> Engine<P> {
    /// After completions: what was retired until then may be idle now.
    pub(crate) fn release_frames(&self) {
        if !self.device.watches_frames() {
            return;
        }
        let completed = *self.completed.lock();
        let mut arena = self.arena.lock();
        arena.placement.reap(&completed);
        arena.tell_frames(&self.device);
    }
}

/// The frames of `from` that are not in `less`; both ascending.
fn minus(from: &[FrameRun], less: &[FrameRun]) -> Vec<FrameRun> {
    let mut out = Vec::new();
    for run in from {
        let mut at = run.first.0;
        for cut in less.iter().filter(|cut| cut.first.0 < run.end() && run.first.0 < cut.end()) {
            if at < cut.first.0 {
                out.push(FrameRun { first: FrameIndex(at), count: cut.first.0 - at });
            }
            at = cut.end();
        }
        if at < run.end() {
            out.push(FrameRun { first: FrameIndex(at), count: run.end() - at });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(list: &[(u32, u32)]) -> Vec<FrameRun> {
        list.iter().map(|(first, end)| FrameRun { first: FrameIndex(*first), count: end - first }).collect()
    }

    #[test]
    fn runs_are_cut_out_of_runs() {
        for (from, less, left) in [
            (runs(&[(0, 10)]), runs(&[]), runs(&[(0, 10)])),
            (runs(&[(0, 10)]), runs(&[(0, 10)]), runs(&[])),
            (
                runs(&[(0, 10), (20, 30)]),
                runs(&[(3, 5), (8, 22), (29, 40)]),
                runs(&[(0, 3), (5, 8), (22, 29)]),
            ),
            (runs(&[(5, 6)]), runs(&[(0, 5), (6, 9)]), runs(&[(5, 6)])),
        ] {
            assert_eq!(minus(&from, &less), left, "{from:?} less {less:?}");
        }
    }
}
