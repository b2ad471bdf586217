//! What is modelled: the link, and how fast kernels are.

use std::time::Duration;
use vkhmm_port::Direction;

/// What PCIe 4 needs for the most that rides in front of a kernel on a real device.
const INLINE: Duration = Duration::from_micros(42);

/// One machine, in so few numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Name, for reports.
    pub name: &'static str,
    /// Host to device, bytes per second.
    pub inward: f64,
    /// Device to host, bytes per second.
    pub outward: f64,
    /// Both ways at once at full speed; otherwise one copy at a time has the link.
    pub duplex: bool,
    /// From the start of a submission with commands to the start of its first.
    pub latency: Duration,
    /// Operations per second that kernels reach.
    pub flops: f64,
    /// Bytes of device memory per second that kernels, fills and moves reach.
    pub device_bytes: f64,
}

impl Link {
    /// So fast that the machine under it decides.
    pub const GENEROUS: Self = Self {
        name: "generous",
        inward: 1e12,
        outward: 1e12,
        duplex: true,
        latency: Duration::ZERO,
        flops: 1e15,
        device_bytes: 1e13,
    };

    /// How long `bytes` take in one direction, once they have the link.
    pub fn transfer(&self, direction: Direction, bytes: u64) -> Duration {
        let rate = match direction {
            Direction::In => self.inward,
            Direction::Out => self.outward,
        };
        Duration::from_secs_f64(bytes as f64 / rate)
    }

    /// What rides in front of a kernel at most: behind a slow link it would hold the kernel up for longer than a submission of its
    /// own costs.
    pub(crate) fn inline_bytes(&self) -> u64 {
        (self.inward.min(self.outward) * INLINE.as_secs_f64()) as u64
    }

    /// How long a kernel takes: the roofline.
    pub fn kernel(&self, flop: f64, bytes: f64) -> Duration {
        Duration::from_secs_f64((flop / self.flops).max(bytes / self.device_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_costs_the_larger_of_its_two() {
        let link = Link { flops: 1e9, device_bytes: 1e6, ..Link::GENEROUS };
        assert_eq!(link.kernel(1e9, 1.0), Duration::from_secs(1));
        assert_eq!(link.kernel(1.0, 2e6), Duration::from_secs(2));
    }

    #[test]
    fn each_direction_has_its_rate() {
        let link = Link { inward: 1e6, outward: 2e6, ..Link::GENEROUS };
        assert_eq!(link.transfer(Direction::In, 1_000_000), Duration::from_secs(1));
        assert_eq!(link.transfer(Direction::Out, 1_000_000), Duration::from_millis(500));
    }
}
