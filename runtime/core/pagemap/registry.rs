//! The registry: checks, registers, counts references, tears down.

use super::{MemoryKind, PagemapError, PagemapFlags, RegisterError, TeardownError};
use crate::units::{ByteRange, DeviceIndex, FrameIndex, FrameRun, Geometry};
use alloc::collections::BTreeMap;
use core::ops::Range;

/// A registered pagemap. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PagemapId(pub u64);

/// Who device memory belongs to: an opaque identity, compared for equality and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u64);

/// What a caller claims about a piece of device memory. Kind and flags are plain numbers on purpose: the gateway decides what
/// they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagemapRequest {
    /// Code of a [`MemoryKind`].
    pub kind: u32,
    /// Bits of [`PagemapFlags`]: all that are true, none that is not.
    pub flags: u32,
    /// Whose memory it is.
    pub device: DeviceIndex,
    /// The device addresses of the piece, in bytes. Whole frames, on a frame's boundary.
    pub device_addresses: Range<u64>,
    /// The piece's first frame; how many follow is the length of `device_addresses` in frames.
    pub frames: FrameIndex,
    /// Who owns the memory.
    pub owner: Option<OwnerId>,
}

/// A registered description of device memory. Only [`PagemapRegistry::register`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pagemap {
    id: PagemapId,
    kind: MemoryKind,
    flags: PagemapFlags,
    addresses: ByteRange,
    frames: FrameRun,
    owner: OwnerId,
    references: u32,
    live: bool,
}

impl Pagemap {
    /// Its name.
    pub const fn id(&self) -> PagemapId {
        self.id
    }

    /// Which kind of memory it describes.
    pub const fn kind(&self) -> MemoryKind {
        self.kind
    }

    /// What else is true of the memory.
    pub const fn flags(&self) -> PagemapFlags {
        self.flags
    }

    /// Its device addresses, in bytes.
    pub const fn device_addresses(&self) -> ByteRange {
        self.addresses
    }

    /// Its frames.
    pub const fn frames(&self) -> FrameRun {
        self.frames
    }

    /// Who owns the memory.
    pub const fn owner(&self) -> OwnerId {
        self.owner
    }

    /// How many of its frames are in use.
    pub const fn references(&self) -> u32 {
        self.references
    }

    /// Whether it hands out frames; false once killed.
    pub const fn is_live(&self) -> bool {
        self.live
    }
}

/// The frames of a pagemap that was registered and live when they were taken. Nothing else makes one, so whoever is given a
/// `FrameSource` knows that the gateway has checked the frames.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameSource {
    pagemap: PagemapId,
    run: FrameRun,
}

impl FrameSource {
    /// Whose frames.
    pub const fn pagemap(&self) -> PagemapId {
        self.pagemap
    }

    /// Which frames.
    pub const fn run(&self) -> FrameRun {
        self.run
    }
}

/// All pagemaps of one device. Life of one: registered (live) → [killed](Self::kill) (frames come back, none go out) →
/// [unregistered](Self::unregister), once the last reference is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagemapRegistry {
    device: DeviceIndex,
    frame_bytes: u64,
    maps: BTreeMap<PagemapId, Pagemap>,
    by_address: BTreeMap<u64, PagemapId>,
    by_frame: BTreeMap<FrameIndex, PagemapId>,
    registered: u64,
}

impl PagemapRegistry {
    /// A registry for `device`'s memory, empty. Frames are as long as `geometry` says.
    pub const fn new(device: DeviceIndex, geometry: Geometry) -> Self {
        Self {
            device,
            frame_bytes: geometry.frame_bytes(),
            maps: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_frame: BTreeMap::new(),
            registered: 0,
        }
    }

    /// Registers a piece of device memory: the only way to get a pagemap. Every precondition is checked, in this order, and
    /// nothing is filled in for the caller. A refused request leaves no trace.
    ///
    /// | the request must | else |
    /// |---|---|
    /// | be for this registry's device | [`WrongDevice`](RegisterError::WrongDevice) |
    /// | carry the code of a [`MemoryKind`]; 0 is none | [`UnknownKind`](RegisterError::UnknownKind) |
    /// | carry no bit that is not a [`PagemapFlags`] | [`UnknownFlags`](RegisterError::UnknownFlags) |
    /// | carry all of [`MemoryKind::required_flags`] | [`MissingFlags`](RegisterError::MissingFlags) |
    /// | carry none of [`MemoryKind::refused_flags`] | [`RefusedFlags`](RegisterError::RefusedFlags) |
    /// | not keep descriptors in memory that the CPU cannot both load and store | [`DescriptorsUnreachable`](RegisterError::DescriptorsUnreachable) |
    /// | name an owner | [`NoOwner`](RegisterError::NoOwner) |
    /// | have `device_addresses.start <= device_addresses.end` | [`InvertedRange`](RegisterError::InvertedRange) |
    /// | have at least one byte | [`EmptyRange`](RegisterError::EmptyRange) |
    /// | start on a multiple of the frame's bytes | [`UnalignedStart`](RegisterError::UnalignedStart) |
    /// | be whole frames long | [`UnalignedLength`](RegisterError::UnalignedLength) |
    /// | number its frames below [`FrameIndex::NONE`] | [`FramesOutOfRange`](RegisterError::FramesOutOfRange) |
    /// | share no address, anywhere inside, with a pagemap that is not unregistered yet | [`AddressesOverlap`](RegisterError::AddressesOverlap) |
    /// | share no frame with one | [`FramesOverlap`](RegisterError::FramesOverlap) |
    ///
    /// # Errors
    /// As the table says.
    ///
    /// # Examples
    /// ```
    /// use vkhmm_core::pagemap::{MemoryKind, OwnerId, PagemapFlags, PagemapRegistry, PagemapRequest, RegisterError};
    /// use vkhmm_core::units::{DeviceIndex, FrameIndex, Geometry};
    ///
    /// let mut registry = PagemapRegistry::new(DeviceIndex(0), Geometry::PRODUCTION);
    /// let request = PagemapRequest {
    ///     kind: MemoryKind::DevicePrivate.code(),
    ///     flags: (PagemapFlags::DEVICE_MEMORY | PagemapFlags::UNADDRESSABLE).bits(),
    ///     device: DeviceIndex(0),
    ///     device_addresses: 0x10_0000..0x20_0000,
    ///     frames: FrameIndex(0),
    ///     owner: Some(OwnerId(1)),
    /// };
    /// let id = registry.register(request.clone())?;
    /// assert_eq!(registry.frames(id).unwrap().run().count, 16);
    ///
    /// // A flag that nobody stated is missing; it is not assumed.
    /// let silent = PagemapRequest { flags: PagemapFlags::DEVICE_MEMORY.bits(), ..request.clone() };
    /// assert!(matches!(registry.register(silent), Err(RegisterError::MissingFlags { .. })));
    ///
    /// // Descriptors cannot live in memory that the CPU cannot address.
    /// let altmap = PagemapRequest { flags: request.flags | PagemapFlags::DESCRIPTORS_IN_DEVICE.bits(), ..request };
    /// assert!(matches!(registry.register(altmap), Err(RegisterError::DescriptorsUnreachable { .. })));
    /// # Ok::<(), RegisterError>(())
    /// ```
    pub fn register(&mut self, request: PagemapRequest) -> Result<PagemapId, RegisterError> {
        if request.device != self.device {
            return Err(RegisterError::WrongDevice { device: request.device, registry: self.device });
        }
        let (kind, flags) = checked_kind(request.kind, request.flags)?;
        let owner = request.owner.ok_or(RegisterError::NoOwner)?;
        let addresses = self.checked_interval(&request.device_addresses)?;
        let frames = self.checked_frames(request.frames, addresses)?;
        self.check_overlap(addresses, frames)?;

        // From here on nothing can fail.
        let id = PagemapId(self.registered);
        self.registered += 1;
        self.by_address.insert(addresses.start, id);
        self.by_frame.insert(frames.first, id);
        self.maps
            .insert(id, Pagemap { id, kind, flags, addresses, frames, owner, references: 0, live: true });
        Ok(id)
    }

    /// The pagemap `id`, live or dying.
    ///
    /// # Errors
    /// [`PagemapError::Unknown`].
    pub fn get(&self, id: PagemapId) -> Result<&Pagemap, PagemapError> {
        self.maps.get(&id).ok_or(PagemapError::Unknown { id })
    }

    /// The frames of `id`, for a placement to hand out. References are counted apart, by [`Self::acquire`].
    ///
    /// # Errors
    /// [`PagemapError::Unknown`]; [`PagemapError::Dead`] once it was killed.
    pub fn frames(&self, id: PagemapId) -> Result<FrameSource, PagemapError> {
        let map = self.get(id)?;
        if !map.live {
            return Err(PagemapError::Dead { id });
        }
        Ok(FrameSource { pagemap: id, run: map.frames })
    }

    /// Counts `frames` more frames of `id` as in use.
    ///
    /// # Errors
    /// [`PagemapError::Unknown`]; [`PagemapError::Dead`] once it was killed; [`PagemapError::Exhausted`] if it has fewer
    /// frames without a reference. Nothing has changed then.
    pub fn acquire(&mut self, id: PagemapId, frames: u32) -> Result<(), PagemapError> {
        let map = self.maps.get_mut(&id).ok_or(PagemapError::Unknown { id })?;
        if !map.live {
            return Err(PagemapError::Dead { id });
        }
        let left = map.frames.count - map.references;
        if frames > left {
            return Err(PagemapError::Exhausted { id, asked: frames, left });
        }
        map.references += frames;
        Ok(())
    }

    /// Counts `frames` frames of `id` as given back. A killed pagemap takes them, too.
    ///
    /// # Errors
    /// [`PagemapError::Unknown`]; [`PagemapError::NotHeld`] if fewer are in use. Nothing has changed then.
    pub fn release(&mut self, id: PagemapId, frames: u32) -> Result<(), PagemapError> {
        let map = self.maps.get_mut(&id).ok_or(PagemapError::Unknown { id })?;
        map.references = map.references.checked_sub(frames).ok_or(PagemapError::NotHeld {
            id,
            released: frames,
            held: map.references,
        })?;
        Ok(())
    }

    /// Ends the handing out of frames: from now on references only go away. Killing twice is killing once.
    ///
    /// # Errors
    /// [`PagemapError::Unknown`].
    pub fn kill(&mut self, id: PagemapId) -> Result<(), PagemapError> {
        self.maps.get_mut(&id).ok_or(PagemapError::Unknown { id })?.live = false;
        Ok(())
    }

    /// Removes a killed pagemap that nobody references; where it lay is taken from what registration stored. Waiting for the
    /// last reference is the caller's: try again after a [`Self::release`].
    ///
    /// # Errors
    /// [`TeardownError::Unknown`]; [`TeardownError::Live`] if it was not killed, since a reference could appear at any time;
    /// [`TeardownError::StillReferenced`]. It stays as it was then.
    pub fn unregister(&mut self, id: PagemapId) -> Result<(), TeardownError> {
        let map = self.maps.get(&id).ok_or(TeardownError::Unknown { id })?;
        if map.live {
            return Err(TeardownError::Live { id });
        }
        if map.references > 0 {
            return Err(TeardownError::StillReferenced { id, frames: map.references });
        }
        self.by_address.remove(&map.addresses.start);
        self.by_frame.remove(&map.frames.first);
        self.maps.remove(&id);
        Ok(())
    }

    /// The pagemap, live or dying, that owns a device address.
    pub fn find_pagemap(&self, device_address: u64) -> Option<&Pagemap> {
        let (_, id) = self.by_address.range(..=device_address).next_back()?;
        self.maps.get(id).filter(|map| device_address < map.addresses.end)
    }

    /// The pagemap, live or dying, that owns a frame.
    pub fn by_frame(&self, frame: FrameIndex) -> Option<&Pagemap> {
        let (_, id) = self.by_frame.range(..=frame).next_back()?;
        self.maps.get(id).filter(|map| frame.0 < map.frames.end())
    }

    /// Whether the CPU can address a page whose bytes are in `frame` (`None`: in host memory). Total: a page that is not
    /// device memory is addressable, device memory as its kind is, and a frame that no pagemap owns is not, since nobody
    /// vouches for what lies there.
    pub fn is_addressable(&self, frame: Option<FrameIndex>) -> bool {
        match frame {
            None | Some(FrameIndex::NONE) => true,
            Some(frame) => self.by_frame(frame).is_some_and(|map| map.kind.is_addressable()),
        }
    }

    /// Every pagemap, in order of registration.
    pub fn iter(&self) -> impl Iterator<Item = &Pagemap> + '_ {
        self.maps.values()
    }

    fn checked_interval(&self, addresses: &Range<u64>) -> Result<ByteRange, RegisterError> {
        let (start, end, frame_bytes) = (addresses.start, addresses.end, self.frame_bytes);
        if end < start {
            return Err(RegisterError::InvertedRange { start, end });
        }
        if end == start {
            return Err(RegisterError::EmptyRange { start });
        }
        if start % frame_bytes != 0 {
            return Err(RegisterError::UnalignedStart { start, frame_bytes });
        }
        if (end - start) % frame_bytes != 0 {
            return Err(RegisterError::UnalignedLength { bytes: end - start, frame_bytes });
        }
        Ok(ByteRange { start, end })
    }

    fn checked_frames(&self, first: FrameIndex, addresses: ByteRange) -> Result<FrameRun, RegisterError> {
        let count = addresses.len() / self.frame_bytes;
        if u64::from(first.0).saturating_add(count) > u64::from(FrameIndex::NONE.0) {
            return Err(RegisterError::FramesOutOfRange { first, count });
        }
        Ok(FrameRun { first, count: count as u32 })
    }

    /// Every pagemap is compared over its whole interval: an overlap may lie strictly inside either.
    fn check_overlap(&self, addresses: ByteRange, frames: FrameRun) -> Result<(), RegisterError> {
        for map in self.maps.values() {
            let start = addresses.start.max(map.addresses.start);
            let end = addresses.end.min(map.addresses.end);
            if start < end {
                return Err(RegisterError::AddressesOverlap {
                    with: map.id,
                    overlap: ByteRange { start, end },
                });
            }
        }
        for map in self.maps.values() {
            let first = frames.first.max(map.frames.first);
            let end = frames.end().min(map.frames.end());
            if first.0 < end {
                let overlap = FrameRun { first, count: end - first.0 };
                return Err(RegisterError::FramesOverlap { with: map.id, overlap });
            }
        }
        Ok(())
    }
}

fn checked_kind(code: u32, bits: u32) -> Result<(MemoryKind, PagemapFlags), RegisterError> {
    let kind = MemoryKind::from_code(code).ok_or(RegisterError::UnknownKind { code })?;
    let flags = PagemapFlags::from_bits(bits)
        .ok_or(RegisterError::UnknownFlags { bits: bits & !PagemapFlags::all().bits() })?;
    let missing = kind.required_flags().difference(flags);
    if !missing.is_empty() {
        return Err(RegisterError::MissingFlags { kind, missing });
    }
    let refused = flags.intersection(kind.refused_flags());
    if !refused.is_empty() {
        return Err(RegisterError::RefusedFlags { kind, flags: refused });
    }
    if flags.contains(PagemapFlags::DESCRIPTORS_IN_DEVICE) && !kind.can_hold_descriptors() {
        return Err(RegisterError::DescriptorsUnreachable { kind });
    }
    Ok((kind, flags))
}
