//! Every constant of every modelled machine, with its source. Nothing else in the model has a number of its own.
//!
//! Sources: "here" is this project's own measurement on a two-core nested virtual machine (AMD EPYC, Linux 6.18, Mesa 22.3.6);
//! `./x calibrate` measures a machine's constants and prints them in this form. "data sheet" is the maker's. "public" is a figure
//! from the published measurements that the comment names. "estimate" is a figure between known ones, and is to be replaced by a
//! calibration on such a machine. Rates are what programs reach, not peaks, where a measurement exists.

use super::LinkModel;
use vkhmm_core::pagemap::MemoryKind;

/// Every preset.
pub const ALL: [LinkModel; 6] = [LAVAPIPE, PCIE3X16, PCIE4X16_A5000, PCIE5X16_H200, UMA_APU, SLOW_LINK];

/// The preset of that name.
pub fn find(name: &str) -> Option<LinkModel> {
    ALL.into_iter().find(|model| model.name == name)
}

/// Mesa's software device, on this machine when it was quiet. Calibrated beside other work, the rates came out 0.5 to 0.8 of
/// these and page-table work up to ten times slower; submits, regions and the shape agreed.
pub const LAVAPIPE: LinkModel = LinkModel {
    name: "lavapipe",
    about: "software device on two cores: device memory is host memory, one queue",
    h2d: 8.0e9,           // here: vkCmdCopyBuffer of 64 MiB (7.8)
    d2h: 8.4e9,           // here: likewise
    duplex: false,        // here: both ways at once take 1.9 times as long as one
    queues: false,        // here: one family, one queue
    per_submit_us: 10.0,  // here: one of 32 empty submissions with one wait (9.2 to 11.7)
    per_region_us: 0.4,   // here: 256 scattered pages against one run (0.35 to 0.49)
    per_edge_us: 0.0,     // one queue has no edges
    per_wait_us: 55.0,    // here: waking a thread on the other core; 5 where it stays on the same one
    revoke_ns: 110.0,     // here: MADV_DONTNEED of 2 MiB runs
    publish_ns: 230.0,    // here: UFFDIO_CONTINUE of 2 MiB runs
    populate_ns: 500.0,   // estimate: fallocate with host memory at hand
    pin_ns: 0.0,          // here: an import is a pointer
    bind_ns: 0.3,         // here: buffer over a span of 2 MiB
    rebind_us: 45.0,      // here, Mesa 25: bind and wait of one frame 49, of 16 150, of 256 1100 to 1400
    rebind_frame_us: 5.0, // here: the slope of these
    host_copy: 10.0e9,    // here: memcpy of 64 MiB
    flops: 10.0e9,        // here: register-blocked gemm (7.3 to 13.6)
    device_bytes: 2.3e9,  // here: scalar triad (1.9 to 2.7)
    kind: MemoryKind::DevicePrivate,
};

/// A card of 2017 in a PCIe 3 slot (GTX 1080 Ti).
pub const PCIE3X16: LinkModel = LinkModel {
    name: "pcie3x16",
    about: "PCIe 3 x16, 11.3 TFLOP/s, 484 GB/s (a GTX 1080 Ti)",
    h2d: 12.0e9,           // public: explicit copies reach 12 GB/s (DREAM, ICS 2025)
    d2h: 12.0e9,           // likewise
    duplex: true,          // data sheet: two copy engines
    queues: true,          // public: two transfer-only queues
    per_submit_us: 5.0,    // estimate: a driver's submit call
    per_region_us: 1.0,    // estimate: 1 to 3 microseconds a region
    per_edge_us: 5.0,      // estimate: semaphores resolved by the device
    per_wait_us: 20.0,     // estimate: interrupt and wake-up without virtualisation
    revoke_ns: 95.0,       // here: MADV_DONTNEED of 2 MiB runs, nobody else running
    publish_ns: 215.0,     // here: UFFDIO_CONTINUE of 2 MiB runs, quiet
    populate_ns: 400.0,    // estimate: allocating and clearing a page
    pin_ns: 200.0,         // estimate: 100 to 300 ns for pinning and the IOMMU
    bind_ns: 2.0,          // estimate: 1 microsecond for 2 MiB
    rebind_us: 50.0, // estimate: a submission through the kernel, and the device's translations forgotten
    rebind_frame_us: 1.0, // estimate: a page-table range of its own for each frame
    host_copy: 10.0e9, // here: memcpy by one thread
    flops: 11.3e12,  // data sheet
    device_bytes: 400.0e9, // data sheet 484, of which triads reach about 0.83
    kind: MemoryKind::DevicePrivate,
};

/// A workstation card in a PCIe 4 slot (RTX A5000).
pub const PCIE4X16_A5000: LinkModel = LinkModel {
    name: "pcie4x16-a5000",
    about: "PCIe 4 x16, 27.8 TFLOP/s, 768 GB/s (an RTX A5000)",
    h2d: 25.0e9,           // estimate: twice PCIe 3
    d2h: 25.0e9,           // likewise
    per_submit_us: 4.0,    // estimate, as PCIE3X16
    host_copy: 15.0e9,     // estimate: memcpy by two threads
    flops: 27.8e12,        // data sheet
    device_bytes: 640.0e9, // data sheet 768, of which triads reach about 0.83
    ..PCIE3X16             // the same kernel interfaces and driver
};

/// A data-centre card in a PCIe 5 slot (H200).
pub const PCIE5X16_H200: LinkModel = LinkModel {
    name: "pcie5x16-h200",
    about: "PCIe 5 x16, 50 TFLOP/s, 4.8 TB/s (an H200)",
    h2d: 50.0e9,          // estimate: what PCIe 5 x16 carries of 63
    d2h: 50.0e9,          // likewise
    per_submit_us: 3.0,   // estimate, as PCIE3X16
    host_copy: 40.0e9,    // estimate: memcpy by several threads
    flops: 50.0e12,       // estimate: fp32 of 67 in the data sheet
    device_bytes: 4.0e12, // data sheet 4.8, of which triads reach about 0.83
    ..PCIE3X16            // the same kernel interfaces and driver
};

/// An integrated device (Radeon 8060S). The engine still copies here; working in place is to come.
pub const UMA_APU: LinkModel = LinkModel {
    name: "uma-apu",
    about: "integrated, 29 TFLOP/s, 256 GB/s shared (a Radeon 8060S); bytes are still copied, within the one memory",
    h2d: 80.0e9,           // estimate: a copy reads and writes the one memory
    d2h: 80.0e9,           // likewise
    duplex: false,         // one memory
    queues: false,         // public: a transfer queue only adds synchronisation (llama.cpp #22455)
    host_copy: 40.0e9,     // estimate: memcpy by several threads
    flops: 20.0e12,        // estimate: fp32 of 29 in the data sheet
    device_bytes: 200.0e9, // data sheet 256
    kind: MemoryKind::UnifiedMemory,
    ..PCIE3X16 // the same kernel interfaces
};

/// A fast device behind a slow link: what a policy wastes shows a thousandfold.
pub const SLOW_LINK: LinkModel = LinkModel {
    name: "slow-link",
    about: "2.5 GB/s shared by both ways, 2.5 TFLOP/s, 200 GB/s (a thousand operations per link byte)",
    h2d: 2.5e9,            // estimate: an external card
    d2h: 2.5e9,            // likewise
    duplex: false,         // the worst case
    flops: 2.5e12,         // by construction: h2d times a thousand
    device_bytes: 200.0e9, // estimate: a laptop's card
    ..PCIE3X16             // the same kernel interfaces and driver
};
