//! LinkModel: what one machine's link, device and page tables cost.

use super::trace::Step;
use vkhmm_core::pagemap::MemoryKind;

/// The constants of a machine. [`super::presets`] has them all, with their sources.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkModel {
    /// Name, as on the command line.
    pub name: &'static str,
    /// What it stands for.
    pub about: &'static str,
    /// Host to device, bytes per second.
    pub h2d: f64,
    /// Device to host, bytes per second.
    pub d2h: f64,
    /// Both ways at once at full speed; otherwise one copy at a time has the link.
    pub duplex: bool,
    /// Copies in, copies out and kernels have queues of their own; otherwise one queue runs all of it in order.
    pub queues: bool,
    /// Microseconds of the caller and of the queue for one submission.
    pub per_submit_us: f64,
    /// Microseconds for one region of a copy, beside its bytes.
    pub per_region_us: f64,
    /// Microseconds from the signal of one queue to the start of work that waits for it on another.
    pub per_edge_us: f64,
    /// Microseconds until a sleeping thread runs: after a completion, a touch, an answer.
    pub per_wait_us: f64,
    /// Nanoseconds a page for taking a mapping away or making it read-only.
    pub revoke_ns: f64,
    /// Nanoseconds a page for giving a mapping.
    pub publish_ns: f64,
    /// Nanoseconds a page for a fresh host page of zeros.
    pub populate_ns: f64,
    /// Nanoseconds a page for an import, once in the life of an allocation.
    pub pin_ns: f64,
    /// Nanoseconds a page for the buffer of a new span.
    pub bind_ns: f64,
    /// Microseconds of the bind queue for one submission of binds, beside its frames.
    pub rebind_us: f64,
    /// Microseconds for each frame of 64 KiB that it puts into a sparse buffer or takes out.
    pub rebind_frame_us: f64,
    /// Host memory to host memory, bytes per second: what staging adds.
    pub host_copy: f64,
    /// Operations per second that kernels reach.
    pub flops: f64,
    /// Bytes of device memory per second that kernels reach.
    pub device_bytes: f64,
    /// What the device's memory is.
    pub kind: MemoryKind,
}

impl LinkModel {
    /// Nanoseconds of a kernel: the roofline.
    pub fn kernel_ns(&self, flop: f64, bytes: f64) -> u64 {
        ns(flop, self.flops).max(ns(bytes, self.device_bytes))
    }

    /// Nanoseconds that a step computes.
    pub(super) fn step_ns(&self, step: &Step) -> u64 {
        match step {
            Step::Launch { flop, bytes, .. } => self.kernel_ns(*flop, *bytes),
            Step::Touch { .. } | Step::ToDevice(_) | Step::ToHost(_) => 0,
        }
    }

    /// Nanoseconds that the link needs at least for so many bytes in and out.
    pub fn link_ns(&self, bytes_in: u64, bytes_out: u64) -> u64 {
        let (inward, outward) = (ns(bytes_in as f64, self.h2d), ns(bytes_out as f64, self.d2h));
        if self.duplex && self.queues { inward.max(outward) } else { inward + outward }
    }

    /// Every number with its name and unit, in a fixed order.
    pub fn constants(&self) -> [(&'static str, f64); 16] {
        [
            ("h2d GB/s", self.h2d / 1e9),
            ("d2h GB/s", self.d2h / 1e9),
            ("submit us", self.per_submit_us),
            ("region us", self.per_region_us),
            ("edge us", self.per_edge_us),
            ("wait us", self.per_wait_us),
            ("revoke ns/page", self.revoke_ns),
            ("publish ns/page", self.publish_ns),
            ("populate ns/page", self.populate_ns),
            ("pin ns/page", self.pin_ns),
            ("bind ns/page", self.bind_ns),
            ("rebind us", self.rebind_us),
            ("rebind us/frame", self.rebind_frame_us),
            ("host copy GB/s", self.host_copy / 1e9),
            ("kernel GFLOP/s", self.flops / 1e9),
            ("device GB/s", self.device_bytes / 1e9),
        ]
    }
}

/// Nanoseconds for `amount` at `per_second`, rounded up.
pub(super) fn ns(amount: f64, per_second: f64) -> u64 {
    (amount / per_second * 1e9).ceil() as u64
}

/// Microseconds as nanoseconds.
pub(super) fn us(microseconds: f64) -> u64 {
    (microseconds * 1e3).ceil() as u64
}

/// `count` times a price in nanoseconds.
pub(super) fn each(count: u64, price_ns: f64) -> u64 {
    (count as f64 * price_ns).ceil() as u64
}
