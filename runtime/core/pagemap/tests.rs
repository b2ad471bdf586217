//! The gateway, check by check: each bad request has its own error and leaves no trace.

extern crate std;
use super::*;
use crate::units::{ByteRange, DeviceIndex, FrameIndex, FrameRun, Geometry};
use std::string::ToString;
use std::vec::Vec;

const FRAME: u64 = Geometry::PRODUCTION.frame_bytes();

fn registry() -> PagemapRegistry {
    PagemapRegistry::new(DeviceIndex(0), Geometry::PRODUCTION)
}

fn request(kind: MemoryKind, frames: core::ops::Range<u32>) -> PagemapRequest {
    PagemapRequest {
        kind: kind.code(),
        flags: kind.required_flags().bits(),
        device: DeviceIndex(0),
        device_addresses: u64::from(frames.start) * FRAME..u64::from(frames.end) * FRAME,
        frames: FrameIndex(frames.start),
        owner: Some(OwnerId(7)),
    }
}

fn private() -> PagemapRequest {
    request(MemoryKind::DevicePrivate, 16..32)
}

/// Registers next to one pagemap that is there already, and checks that a refusal changes nothing.
#[track_caller]
fn refused(request: PagemapRequest) -> RegisterError {
    let mut registry = registry();
    registry.register(private()).unwrap();
    let before = registry.clone();
    let error = registry.register(request).unwrap_err();
    assert_eq!(registry, before, "{error}: left a trace");
    assert!(!error.to_string().is_empty());
    error
}

fn apart() -> PagemapRequest {
    request(MemoryKind::DevicePrivate, 64..80)
}

#[test]
fn every_kind_registers_with_exactly_its_flags() {
    for kind in MemoryKind::ALL {
        let mut registry = registry();
        let id = registry.register(request(kind, 16..32)).unwrap();
        let map = registry.get(id).unwrap();
        assert_eq!((map.kind(), map.flags()), (kind, kind.required_flags()));
        assert_eq!((map.owner(), map.references(), map.is_live()), (OwnerId(7), 0, true));
        assert_eq!(map.frames(), FrameRun { first: FrameIndex(16), count: 16 });
        assert_eq!(map.device_addresses(), ByteRange { start: 16 * FRAME, end: 32 * FRAME });
    }
}

#[test]
fn r4_an_unknown_kind_fails() {
    for code in [0, 5, u32::MAX] {
        let bad = PagemapRequest { kind: code, ..apart() };
        assert_eq!(refused(bad), RegisterError::UnknownKind { code });
    }
}

#[test]
fn r5_each_required_flag_is_missed() {
    for kind in MemoryKind::ALL {
        for flag in kind.required_flags().iter() {
            let flags = kind.required_flags().difference(flag).bits();
            let bad = PagemapRequest { flags, ..request(kind, 64..80) };
            assert_eq!(refused(bad), RegisterError::MissingFlags { kind, missing: flag });
        }
    }
}

#[test]
fn r5_unknown_flag_bits_fail() {
    let bad = PagemapRequest { flags: apart().flags | 1 << 5 | 1 << 31, ..apart() };
    assert_eq!(refused(bad), RegisterError::UnknownFlags { bits: 1 << 5 | 1 << 31 });
}

#[test]
fn r5_flags_that_contradict_the_kind_fail() {
    for kind in MemoryKind::ALL {
        for flag in kind.refused_flags().iter() {
            let bad =
                PagemapRequest { flags: (kind.required_flags() | flag).bits(), ..request(kind, 64..80) };
            assert_eq!(refused(bad), RegisterError::RefusedFlags { kind, flags: flag });
        }
    }
}

#[test]
fn r1_descriptors_live_only_where_the_cpu_can_use_them() {
    for kind in MemoryKind::ALL {
        let flags = (kind.required_flags() | PagemapFlags::DESCRIPTORS_IN_DEVICE).bits();
        let asked = PagemapRequest { flags, ..request(kind, 64..80) };
        if kind.can_hold_descriptors() {
            registry().register(asked).unwrap();
        } else {
            assert_eq!(refused(asked), RegisterError::DescriptorsUnreachable { kind });
        }
    }
}

#[test]
fn no_owner_fails() {
    assert_eq!(refused(PagemapRequest { owner: None, ..apart() }), RegisterError::NoOwner);
}

#[test]
fn another_devices_memory_fails() {
    let bad = PagemapRequest { device: DeviceIndex(1), ..apart() };
    assert_eq!(refused(bad), RegisterError::WrongDevice { device: DeviceIndex(1), registry: DeviceIndex(0) });
}

#[test]
fn r11_an_empty_interval_fails() {
    let bad = PagemapRequest { device_addresses: 64 * FRAME..64 * FRAME, ..apart() };
    assert_eq!(refused(bad), RegisterError::EmptyRange { start: 64 * FRAME });
}

#[test]
#[allow(clippy::reversed_empty_ranges)]
fn r11_an_inverted_interval_fails() {
    let bad = PagemapRequest { device_addresses: 65 * FRAME..64 * FRAME, ..apart() };
    assert_eq!(refused(bad), RegisterError::InvertedRange { start: 65 * FRAME, end: 64 * FRAME });
}

#[test]
fn r11_alignment_is_checked_not_repaired() {
    let start = 64 * FRAME + 4096;
    let bad = PagemapRequest { device_addresses: start..start + FRAME, ..apart() };
    assert_eq!(refused(bad), RegisterError::UnalignedStart { start, frame_bytes: FRAME });
    let bad = PagemapRequest { device_addresses: 64 * FRAME..65 * FRAME + 1, ..apart() };
    assert_eq!(refused(bad), RegisterError::UnalignedLength { bytes: FRAME + 1, frame_bytes: FRAME });
}

#[test]
fn frames_beyond_their_numbers_fail() {
    let bad = PagemapRequest { frames: FrameIndex(u32::MAX - 15), ..apart() };
    assert_eq!(refused(bad), RegisterError::FramesOutOfRange { first: FrameIndex(u32::MAX - 15), count: 16 });
    registry().register(PagemapRequest { frames: FrameIndex(u32::MAX - 16), ..apart() }).unwrap();
    let whole = PagemapRequest { device_addresses: 0..u64::MAX / FRAME * FRAME, ..apart() };
    assert!(matches!(refused(whole), RegisterError::FramesOutOfRange { .. }));
}

#[test]
fn r11_overlap_is_seen_anywhere_inside() {
    // The pagemap that is there has 16..32: same, inside, around, over either end, one frame at either end.
    for (frames, overlap) in [
        (16..32, 16..32),
        (20..24, 20..24),
        (0..64, 16..32),
        (8..17, 16..17),
        (31..40, 31..32),
        (16..17, 16..17),
        (31..32, 31..32),
    ] {
        let by_address =
            PagemapRequest { frames: FrameIndex(1000), ..request(MemoryKind::DevicePrivate, frames.clone()) };
        let bytes = ByteRange { start: overlap.start * FRAME, end: overlap.end * FRAME };
        assert_eq!(
            refused(by_address),
            RegisterError::AddressesOverlap { with: PagemapId(0), overlap: bytes }
        );
        let far = 1000 * FRAME;
        let by_frame = PagemapRequest {
            device_addresses: far..far + u64::from(frames.end - frames.start) * FRAME,
            ..request(MemoryKind::DevicePrivate, frames)
        };
        let run =
            FrameRun { first: FrameIndex(overlap.start as u32), count: (overlap.end - overlap.start) as u32 };
        assert_eq!(refused(by_frame), RegisterError::FramesOverlap { with: PagemapId(0), overlap: run });
    }
    // Neighbours are fine.
    let mut registry = registry();
    registry.register(private()).unwrap();
    registry.register(request(MemoryKind::DevicePrivate, 0..16)).unwrap();
    registry.register(request(MemoryKind::DevicePrivate, 32..33)).unwrap();
}

#[test]
fn a_dying_pagemap_still_owns_its_place() {
    let mut registry = registry();
    let id = registry.register(private()).unwrap();
    registry.kill(id).unwrap();
    assert!(matches!(registry.register(private()), Err(RegisterError::AddressesOverlap { .. })));
    assert_eq!(registry.find_pagemap(16 * FRAME).map(Pagemap::id), Some(id));
    assert_eq!(registry.by_frame(FrameIndex(31)).map(Pagemap::id), Some(id));
}

#[test]
fn r9_no_frames_after_kill_and_no_teardown_before_the_last_reference() {
    let mut registry = registry();
    let id = registry.register(private()).unwrap();
    assert_eq!(registry.frames(id).unwrap().run(), FrameRun { first: FrameIndex(16), count: 16 });
    assert_eq!(registry.frames(id).unwrap().pagemap(), id);
    registry.acquire(id, 10).unwrap();
    assert_eq!(registry.acquire(id, 7), Err(PagemapError::Exhausted { id, asked: 7, left: 6 }));
    assert_eq!(registry.unregister(id), Err(TeardownError::Live { id }));
    registry.kill(id).unwrap();
    registry.kill(id).unwrap();
    assert_eq!(registry.acquire(id, 1), Err(PagemapError::Dead { id }));
    assert_eq!(registry.frames(id), Err(PagemapError::Dead { id }));
    registry.release(id, 9).unwrap();
    assert_eq!(registry.unregister(id), Err(TeardownError::StillReferenced { id, frames: 1 }));
    assert_eq!(registry.release(id, 2), Err(PagemapError::NotHeld { id, released: 2, held: 1 }));
    registry.release(id, 1).unwrap();
    registry.unregister(id).unwrap();
}

#[test]
fn r7_teardown_removes_what_registration_stored_and_leaves_no_residue() {
    let mut registry = registry();
    let id = registry.register(private()).unwrap();
    registry.acquire(id, 3).unwrap();
    registry.release(id, 3).unwrap();
    registry.kill(id).unwrap();
    registry.unregister(id).unwrap();
    assert!(registry.find_pagemap(16 * FRAME).is_none() && registry.by_frame(FrameIndex(16)).is_none());
    assert_eq!(registry.iter().count(), 0);
    let again = registry.register(private()).unwrap();
    assert_ne!(again, id, "ids are never reused");
    let map = registry.get(again).unwrap();
    assert_eq!((map.references(), map.is_live()), (0, true));
}

#[test]
fn unknown_ids_are_errors_everywhere() {
    let mut registry = registry();
    let id = PagemapId(3);
    let unknown = PagemapError::Unknown { id };
    assert_eq!(registry.get(id), Err(unknown));
    assert_eq!(registry.frames(id), Err(unknown));
    assert_eq!(registry.acquire(id, 1), Err(unknown));
    assert_eq!(registry.release(id, 1), Err(unknown));
    assert_eq!(registry.kill(id), Err(unknown));
    assert_eq!(registry.unregister(id), Err(TeardownError::Unknown { id }));
}

#[test]
fn lookups_find_the_owner_and_nobody_beside_it() {
    let mut registry = registry();
    let a = registry.register(request(MemoryKind::DevicePrivate, 16..32)).unwrap();
    let b = registry.register(request(MemoryKind::DeviceCoherent, 40..48)).unwrap();
    let found = |address: u64| registry.find_pagemap(address).map(Pagemap::id);
    assert_eq!(found(16 * FRAME - 1), None);
    assert_eq!(found(16 * FRAME), Some(a));
    assert_eq!(found(32 * FRAME - 1), Some(a));
    assert_eq!(found(32 * FRAME), None);
    assert_eq!(found(40 * FRAME + 5), Some(b));
    let framed: Vec<_> =
        [15, 16, 31, 32, 40, 48].map(|f| registry.by_frame(FrameIndex(f)).map(Pagemap::id)).into();
    assert_eq!(framed, [None, Some(a), Some(a), None, Some(b), None]);
}

#[test]
fn r10_is_addressable_is_total() {
    let mut registry = registry();
    for (i, kind) in MemoryKind::ALL.into_iter().enumerate() {
        let first = i as u32 * 16;
        registry.register(request(kind, first..first + 16)).unwrap();
        assert_eq!(registry.is_addressable(Some(FrameIndex(first + 3))), kind != MemoryKind::DevicePrivate);
    }
    assert!(registry.is_addressable(None), "host memory");
    assert!(registry.is_addressable(Some(FrameIndex::NONE)), "no frame");
    assert!(!registry.is_addressable(Some(FrameIndex(64))), "a frame that nobody registered");
}

#[test]
fn every_descriptor_has_a_location() {
    for bits in 0..=u8::MAX {
        let page = PageFlags::from_bits_retain(bits);
        let (host, device) = (page.contains(PageFlags::HOST_VALID), page.contains(PageFlags::DEVICE_VALID));
        let want = match (page.contains(PageFlags::LOST), host, device) {
            (true, ..) => Location::Lost,
            (_, true, true) => Location::Shared,
            (_, true, false) => Location::Host,
            (_, false, true) => Location::Device,
            (_, false, false) => Location::Absent,
        };
        assert_eq!(page.location(), want);
        assert_eq!(page.is_dirty(), want == Location::Device);
    }
    assert_eq!(PageFlags::default().location(), Location::Absent, "a free descriptor carries nothing");
}
