//! Kinds and flags of device memory, and the flags of one page of it.

/// Which kind of device memory a pagemap describes, from the Vulkan memory type. Zero is no kind, so that a request that nobody
/// filled in is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum MemoryKind {
    /// No host access; copy queues only.
    DevicePrivate = 1,
    /// Host-visible, not host-cached: the CPU may write it in whole lines, never read it.
    DeviceBar = 2,
    /// Host-cached: the CPU may read and write it.
    DeviceCoherent = 3,
    /// The device's heap is the host's.
    UnifiedMemory = 4,
}

impl MemoryKind {
    /// Every kind.
    pub const ALL: [Self; 4] =
        [Self::DevicePrivate, Self::DeviceBar, Self::DeviceCoherent, Self::UnifiedMemory];

    /// The kind with this code, if there is one.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::DevicePrivate),
            2 => Some(Self::DeviceBar),
            3 => Some(Self::DeviceCoherent),
            4 => Some(Self::UnifiedMemory),
            _ => None,
        }
    }

    /// The number that [`super::PagemapRequest::kind`] carries.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The flags that a pagemap of this kind must carry, every one of them stated by the caller.
    pub const fn required_flags(self) -> PagemapFlags {
        match self {
            Self::DevicePrivate => PagemapFlags::DEVICE_MEMORY.union(PagemapFlags::UNADDRESSABLE),
            Self::DeviceBar => PagemapFlags::DEVICE_MEMORY.union(PagemapFlags::HOST_WRITABLE),
            Self::DeviceCoherent | Self::UnifiedMemory => PagemapFlags::DEVICE_MEMORY
                .union(PagemapFlags::HOST_WRITABLE)
                .union(PagemapFlags::HOST_READABLE),
        }
    }

    /// The flags that contradict this kind, apart from [`PagemapFlags::DESCRIPTORS_IN_DEVICE`], which has a check of its own.
    pub const fn refused_flags(self) -> PagemapFlags {
        self.required_flags().union(PagemapFlags::DESCRIPTORS_IN_DEVICE).complement()
    }

    /// Whether the CPU can load and store what lies in this memory, so that descriptors could live there.
    pub const fn can_hold_descriptors(self) -> bool {
        matches!(self, Self::DeviceCoherent | Self::UnifiedMemory)
    }

    /// Whether the CPU has any way to address this memory. Addressable is not readable: see [`Self::DeviceBar`].
    pub const fn is_addressable(self) -> bool {
        !matches!(self, Self::DevicePrivate)
    }
}

bitflags::bitflags! {
    /// What is true of a pagemap's memory, apart from its kind.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PagemapFlags: u32 {
        /// It is device memory. Required of every pagemap.
        const DEVICE_MEMORY = 1;
        /// The CPU cannot address it. Required of DevicePrivate, refused for every other kind.
        const UNADDRESSABLE = 1 << 1;
        /// The CPU may store to it.
        const HOST_WRITABLE = 1 << 2;
        /// The CPU may load from it at memory speed.
        const HOST_READABLE = 1 << 3;
        /// The descriptors live in the device memory itself (Linux's altmap).
        const DESCRIPTORS_IN_DEVICE = 1 << 4;
    }
}

/// Which side holds the current bytes of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// Nobody: a hole, or zeros that nobody has written. First touch decides where it is born.
    Absent,
    /// The host.
    Host,
    /// Both sides hold the same bytes.
    Shared,
    /// The device, and only it.
    Device,
    /// The device held the only copy, and is gone.
    Lost,
}

bitflags::bitflags! {
    /// The descriptor of one page: the column through the planes of its block. No bit is set in the descriptor of a page that
    /// nothing is known of, and a freed page returns to that: residue would mislead the next tenant.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct PageFlags: u8 {
        /// The host's copy is current.
        const HOST_VALID = 1;
        /// The device's copy is current.
        const DEVICE_VALID = 1 << 1;
        /// The application's view may have the page mapped.
        const MAY_BE_MAPPED = 1 << 2;
        /// The application's view may have the page mapped writable.
        const MAY_BE_WRITABLE = 1 << 3;
        /// Somebody reads one of the copies.
        const HELD_SHARED = 1 << 4;
        /// Somebody changes the page or its mapping.
        const HELD_EXCLUSIVE = 1 << 5;
        /// The page stays where it is until it is unpinned.
        const PINNED = 1 << 6;
        /// The only copy is gone with the device.
        const LOST = 1 << 7;
    }
}

impl PageFlags {
    /// Which side holds the current bytes. Total: every combination of bits has an answer, and a lost page is lost whatever
    /// else is set.
    pub const fn location(self) -> Location {
        if self.contains(Self::LOST) {
            return Location::Lost;
        }
        match (self.contains(Self::HOST_VALID), self.contains(Self::DEVICE_VALID)) {
            (false, false) => Location::Absent,
            (true, false) => Location::Host,
            (true, true) => Location::Shared,
            (false, true) => Location::Device,
        }
    }

    /// Whether the page must be copied home before its frame may be given up: device-valid and not host-valid.
    pub const fn is_dirty(self) -> bool {
        matches!(self.location(), Location::Device)
    }
}
