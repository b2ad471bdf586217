//! Placement under test: rule by rule, against a naive model, and in the simulations that chose the rules.

extern crate std;

mod hints;
mod model;
mod rules;
mod scale;
mod scatter;
mod sweeps;

use super::*;
use crate::pagemap::{MemoryKind, OwnerId, PagemapRegistry, PagemapRequest};
use crate::policy::{Adaptive, Plain, Policy};
use crate::units::{DeviceIndex, Geometry, Ticket, Timeline};
use alloc::sync::Arc;

/// Sub-blocks of a unit here: small, so that a few frames hold several.
const UNIT: u32 = 4;

fn used(written: bool) -> Use {
    if written { Use::Write } else { Use::Read }
}

/// A placement over pieces of these lengths, their frames numbered from 0 without gaps.
fn placement(pieces: &[u32]) -> SpanPlacement {
    placement_of(pieces, UNIT)
}

/// The same with units of another length.
fn placement_of(pieces: &[u32], unit: u32) -> SpanPlacement {
    placement_by(pieces, unit, Arc::new(Adaptive))
}

/// The same with another policy.
fn placement_by(pieces: &[u32], unit: u32, policy: Arc<dyn Policy>) -> SpanPlacement {
    let mut registry = PagemapRegistry::new(DeviceIndex(0), Geometry::PRODUCTION);
    let mut placement = SpanPlacement::new(pieces.iter().sum(), unit, policy);
    let mut first = 0;
    for count in pieces {
        let bytes = |frames: u32| u64::from(frames) * Geometry::PRODUCTION.frame_bytes();
        let id = registry
            .register(PagemapRequest {
                kind: MemoryKind::DevicePrivate.code(),
                flags: MemoryKind::DevicePrivate.required_flags().bits(),
                device: DeviceIndex(0),
                device_addresses: bytes(first)..bytes(first + count),
                frames: FrameIndex(first),
                owner: Some(OwnerId(1)),
            })
            .unwrap();
        placement.add_frames(registry.frames(id).unwrap());
        first += count;
    }
    placement
}

fn range(slot: u32) -> RangeId {
    RangeId { slot, generation: 0 }
}

fn want(slot: u32, range_subs: u32, subs: Range<u32>) -> Want {
    Want { range: range(slot), range_subs, subs, scattered: false }
}

fn scattered(slot: u32, range_subs: u32, subs: Range<u32>) -> Want {
    Want { scattered: true, ..want(slot, range_subs, subs) }
}

/// Admits, commits and submits a launch whose ticket is its own number.
fn launch(p: &mut SpanPlacement, op: u64, wants: &[Want]) -> Plan {
    let plan = p.admit(OpId(op), wants, op).unwrap();
    p.commit(OpId(op), &Uses::NONE);
    p.submitted(OpId(op), &uses(op));
    plan
}

fn run(first: u32, count: u32) -> FrameRun {
    FrameRun { first: FrameIndex(first), count }
}

fn uses(value: u64) -> Uses {
    let mut uses = Uses::NONE;
    uses.add(Ticket { timeline: Timeline(0), value });
    uses
}

/// A small generator: the same seed, the same numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % n
    }

    /// A run inside `0..len`, at least one long.
    fn run(&mut self, len: u32) -> Range<u32> {
        let start = self.below(len);
        start..start + 1 + self.below(len - start)
    }
}
