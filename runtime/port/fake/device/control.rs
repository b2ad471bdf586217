//! The test's side of a FakeDevice: what it has seen, which calls fail, when it stalls and when it is lost.

use super::super::locked;
use super::FakeDevice;
use crate::{DeviceError, Exec, Signal};
use core::time::Duration;
use std::sync::Arc;

/// How often each call was made, and what the submissions held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCalls {
    /// `grow`
    pub grow: u64,
    /// `buffer`
    pub buffer: u64,
    /// `reserve`
    pub reserve: u64,
    /// `import`
    pub import: u64,
    /// `in_place`
    pub in_place: u64,
    /// `control`
    pub control: u64,
    /// `submit`
    pub submit: u64,
    /// `wait`, but not by way of `reach`
    pub wait: u64,
    /// `read_frames` and `write_frames`
    pub frames: u64,
    /// Bytes copied in, by submissions.
    pub bytes_in: u64,
    /// Bytes copied out, by submissions.
    pub bytes_out: u64,
    /// Barriers in submissions.
    pub barriers: u64,
    /// Kernels in submissions.
    pub dispatches: u64,
    /// Submissions that bind.
    pub binds: u64,
}

impl<X: Exec> FakeDevice<X> {
    /// How often each call was made so far.
    pub fn calls(&self) -> DeviceCalls {
        locked(&self.shared().state).calls
    }

    /// Buffers that exist right now.
    pub fn buffers(&self) -> usize {
        Arc::strong_count(&self.shared().alive) - 1
    }

    /// Frames that are in pieces right now.
    pub fn frames(&self) -> u32 {
        locked(&self.shared().state).pieces.values().map(|p| p.count).sum()
    }

    /// Frames that lie in sparse buffers right now.
    pub fn frames_bound(&self) -> usize {
        self.shared().sparse.bound()
    }

    /// Lets the `n`-th fallible call from now (grow, buffer, reserve, import, in_place, submit, read or write of frames) fail with
    /// nothing done
    /// (1: the next one). Zero: none.
    pub fn fail_call(&self, n: u64) {
        let mut state = locked(&self.shared().state);
        (state.fail_in, state.fail_error) = (n, None);
    }

    /// As [`Self::fail_call`]; the call says `error`.
    pub fn fail_call_with(&self, n: u64, error: DeviceError) {
        let mut state = locked(&self.shared().state);
        (state.fail_in, state.fail_error) = (n, Some(error));
    }

    /// The calls that failed because they were told to, in order.
    pub fn told_to_fail(&self) -> Vec<&'static str> {
        locked(&self.shared().state).failed.clone()
    }

    /// Lets no submission end for `time` from now.
    pub fn stall(&self, time: Duration) {
        let until = self.shared().exec.now() + time.as_nanos() as u64;
        let mut state = locked(&self.shared().state);
        state.stalled_until = state.stalled_until.max(until);
    }

    /// Lets the `n`-th look at the counters (completed, wait) from now say `error` (1: the next one); the device itself goes on.
    pub fn fail_look(&self, n: u64, error: DeviceError) {
        locked(&self.shared().state).look_fails = Some((n, error));
    }

    /// Loses the device at the `n`-th such call from now.
    pub fn lose_at_call(&self, n: u64) {
        locked(&self.shared().state).lose_in = n;
    }

    /// Loses the device now: what is running stops, counters stand still, every call fails.
    pub fn lose(&self) {
        locked(&self.shared().state).lost = true;
        self.shared().changed.notify();
    }
}
