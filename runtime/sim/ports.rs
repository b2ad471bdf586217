//! Host memory and device of a world: the fakes over [`SimExec`], every call of theirs in the trace.

use crate::SimExec;
use std::sync::Arc;
use vkhmm_core::units::Geometry;
use vkhmm_engine::Ports;
use vkhmm_port::fake::{FakeDevice, FakeDeviceOptions, FakeFaults, FakeHost, FakeHostOptions, Watch};

/// Simulated host memory: application threads park through the scheduler.
pub type SimHost = FakeHost<SimExec>;
/// The messages of a [`SimHost`].
pub type SimFaults = FakeFaults<SimExec>;
/// Simulated device: queues lag and interleave as the scheduler likes.
pub type SimDevice = FakeDevice<SimExec>;

/// The ports of a world, for its engine.
pub struct SimPorts;

impl Ports for SimPorts {
    type Exec = SimExec;
    type Host = SimHost;
    type Device = SimDevice;
}

/// A reservation of `blocks` blocks in the world of `exec`.
pub fn host(exec: &SimExec, geometry: Geometry, blocks: u32, options: FakeHostOptions) -> SimHost {
    let options = FakeHostOptions { watch: Some(watch(exec)), ..options };
    FakeHost::with_exec(exec.clone(), geometry, blocks, options)
}

/// A device in the world of `exec`.
///
/// # Panics
/// As [`FakeDevice::new`]. Where the queues are the application's too, a thread that answers touches panics if it submits.
pub fn device(exec: &SimExec, geometry: Geometry, options: FakeDeviceOptions) -> SimDevice {
    let (noted, shared, who) = (watch(exec), options.queue_is_shared, exec.clone());
    let watch: Watch = Arc::new(move |line| {
        let answers = shared && matches!(&*who.thread_name(), "vkhmm-fault" | "vkhmm-complete");
        assert!(!answers || !line.to_string().starts_with("submit"), "queue: {} submits", who.thread_name());
        noted(line);
    });
    let options = FakeDeviceOptions { watch: Some(watch), ..options };
    FakeDevice::with_exec(exec.clone(), geometry, options)
}

fn watch(exec: &SimExec) -> Watch {
    let exec = exec.clone();
    Arc::new(move |line| exec.note(line))
}
