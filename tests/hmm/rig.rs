//! What the kernel's test driver does, on our runtime: one device in two variants of memory, a mirror that the device copies to
//! and from, and for each device operation the pages that moved and whether it missed.

pub(crate) use crate::common::until;
use crate::common::{BLOCK, PAGE, SUB, Setup, by_blocks, clean, declared, open, spv, watchdog};
use vkhmm::{
    Access, Builder, Error, Grid, Kernel, Launch, Location, Managed, MemoryError, MemoryKind, Residency,
    Result, Runtime, Stats,
};

/// 32-bit words of the kernel's usual buffer of 4 MiB: two blocks.
pub(crate) const WORDS_ALL: usize = 1 << 20;
/// Pages of it.
pub(crate) const PAGES_ALL: u64 = (WORDS_ALL * 4 / PAGE) as u64;
/// How often the kernel's tests repeat what they repeat.
pub(crate) const NTIMES: usize = 10;

/// The kernel's two variants. Private memory is reached by copies straight from host pages; coherent memory through staging on
/// the way in, and is read by the CPU on the way home.
pub(crate) const VARIANTS: [Setup; 2] = [
    Setup { kind: MemoryKind::DevicePrivate, import: true, strict: false },
    Setup { kind: MemoryKind::DeviceCoherent, import: false, strict: false },
];

/// What one device operation did, in the kernel's terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// Pages that came to the device for it, copied or filled with zeros there.
    pub(crate) pages: u64,
    /// Whether it missed: something named was not resident.
    pub(crate) faults: u64,
    pub(crate) moved: Stats,
}

pub(crate) struct Rig {
    pub(crate) rt: Runtime,
    pub(crate) setup: Setup,
    mirror: Managed<u32>,
    bump: Kernel,
    add_one: Kernel,
}

impl Rig {
    /// Runs a case in both variants. Each ends with everything done and nothing said by the validation layers.
    pub(crate) fn each(case: impl FnMut(&mut Rig)) {
        Self::each_with(|builder| builder, case);
    }

    /// The same, for cases that count pages where touches have made something come along: nothing is guessed, a touch brings what
    /// it must.
    pub(crate) fn each_counted(case: impl FnMut(&mut Rig)) {
        Self::each_with(|builder| builder.policy("plain"), case);
    }

    /// The same, with more settings.
    pub(crate) fn each_with(settings: impl Fn(Builder) -> Builder, mut case: impl FnMut(&mut Rig)) {
        let test = std::thread::current().name().unwrap_or("a case").to_owned();
        for setup in VARIANTS {
            let _dog = watchdog(&format!("{test}, {:?}", setup.kind), 60);
            let mut rig = Self::open(setup, settings(setup.builder()));
            case(&mut rig);
            clean(&rig.rt);
        }
    }

    pub(crate) fn open(setup: Setup, builder: Builder) -> Self {
        Self::try_open(setup, builder).expect("kernels")
    }

    /// The same for a device that may be lost by then.
    pub(crate) fn try_open(setup: Setup, builder: Builder) -> Result<Self> {
        // What the kernel's tests are about moves, however small.
        let rt = open(builder.in_place_bytes(0));
        // SAFETY: the shipped modules are valid, end, have no data race and stay inside their arguments.
        let [bump, add_one] = unsafe { [rt.kernel(spv::BUMP)?, rt.kernel(spv::ADD_ONE)?] };
        let mirror = rt.alloc_named(WORDS_ALL, "mirror")?;
        Ok(Self { rt, setup, mirror, bump, add_one })
    }

    /// A buffer that nobody has touched.
    pub(crate) fn fresh(&self, words: usize) -> Managed<u32> {
        self.rt.alloc_named(words, "x").expect("alloc")
    }

    /// A buffer that the host has filled with the pattern of `seed`.
    pub(crate) fn filled(&self, words: usize, seed: u32) -> Managed<u32> {
        let mut x = self.fresh(words);
        fill(&mut x, 0, seed);
        x
    }

    /// Leaves free device memory full of what is not zeros, so that fresh pages are not zeros there by luck.
    pub(crate) fn stain(&self) {
        let mut dirt = self.fresh(4 * WORDS_ALL);
        self.rt.fill(dirt.overwrite(), 0xd1d1_d1d1).expect("fill").wait().expect("wait");
        drop(dirt);
        until("its frames", || (self.rt.device_memory().1 == 0).then_some(()));
    }

    /// Runs one device operation and reports it.
    pub(crate) fn report(&self, launch: impl FnOnce(&Runtime) -> Result<Launch>) -> Result<Report> {
        report_of(&self.rt, launch)
    }

    /// The device takes the elements for itself and changes none: the kernel's migration to the device.
    pub(crate) fn migrate(&self, access: Access<'_>) -> Report {
        self.try_migrate(access).expect("migrate")
    }

    /// The same, where it may fail.
    pub(crate) fn try_migrate(&self, access: Access<'_>) -> Result<Report> {
        // From a word that is past every end, so that nothing is changed.
        self.report(|rt| rt.launch(&self.bump, Grid::linear(1), (access, u32::MAX, 1u32)))
    }

    /// The device adds one to each of `words` elements.
    pub(crate) fn add_one(&self, access: Access<'_>, words: usize) -> Result<Report> {
        self.report(|rt| rt.launch(&self.add_one, Grid::linear(words), (access,)))
    }

    /// The kernel that stores to its only argument.
    pub(crate) fn storing(&self) -> &Kernel {
        &self.add_one
    }

    /// The device reads `words` elements. What it saw, as the mirror shows it.
    pub(crate) fn read(&mut self, access: Access<'_>, words: usize) -> Result<(Vec<u32>, Report)> {
        // The mirror is the device's before the operation, so that the report is about the argument alone.
        self.migrate(self.mirror_for_device());
        let Self { rt, mirror, .. } = self;
        let mut to = mirror.slice_mut(..words);
        let report = report_of(rt, |rt| rt.copy(access, to.overwrite()))?;
        Ok((to.to_vec(), report))
    }

    /// The device reads all of a buffer and what it saw is left alone: both have it afterwards.
    pub(crate) fn read_only(&self, x: &Managed<u32>) {
        self.report(|_| x.prefetch_to_device().map(Launch::from)).expect("prefetch");
    }

    /// The device writes `values`, which it has in the mirror.
    pub(crate) fn write(&mut self, access: Access<'_>, values: &[u32]) -> Result<Report> {
        self.mirror.slice_mut(..values.len()).copy_from_slice(values);
        self.mirror.prefetch_to_device()?.wait()?;
        self.report(|rt| rt.copy(self.mirror.slice(..values.len()).read(), access))
    }

    /// Sets the whole mirror, so that a refused operation can be seen to have left it alone.
    pub(crate) fn set_mirror(&mut self, word: u32) {
        self.mirror.fill(word);
    }

    pub(crate) fn mirror(&self) -> &[u32] {
        &self.mirror
    }

    fn mirror_for_device(&self) -> Access<'static> {
        // SAFETY: no reference to the mirror lives across a device operation of this type.
        unsafe { self.mirror.raw(vkhmm::AccessKind::Write, ..) }
    }

    pub(crate) fn declared(&self) -> bool {
        declared(&self.rt)
    }

    /// Bytes that one touch takes from the device, at least: under `declared` what the slice names.
    pub(crate) fn granule(&self) -> u64 {
        let bytes = if self.declared() {
            PAGE
        } else if self.by_blocks() {
            BLOCK
        } else {
            SUB
        };
        bytes as u64
    }

    pub(crate) fn by_blocks(&self) -> bool {
        by_blocks(&self.rt)
    }

    /// Pages of a sub-block that nobody has touched, in a block that was touched: the touch brings them along where R is changed
    /// by blocks.
    pub(crate) fn untouched_sub(&self) -> u64 {
        if self.by_blocks() { 0 } else { (SUB / PAGE) as u64 }
    }
}

fn report_of(rt: &Runtime, launch: impl FnOnce(&Runtime) -> Result<Launch>) -> Result<Report> {
    let before = rt.stats();
    launch(rt)?.wait()?;
    let moved = rt.stats().since(&before);
    let pages = (moved.in_bytes() + moved.zeroed_bytes) / PAGE as u64;
    Ok(Report { pages, faults: moved.launches - moved.launches_resident, moved })
}

/// Word `i` of the pattern of `seed`.
pub(crate) fn pattern(i: usize, seed: u32) -> u32 {
    (i as u32).wrapping_mul(0x9e37_79b1).rotate_left(seed % 31) ^ seed.wrapping_mul(0x85eb_ca6b) | 1
}

/// Stores the pattern; `first` is the number of the first word.
pub(crate) fn fill(words: &mut [u32], first: usize, seed: u32) {
    words.iter_mut().enumerate().for_each(|(i, w)| *w = pattern(first + i, seed));
}

/// Every word is the pattern's plus `plus`.
#[track_caller]
pub(crate) fn expect(words: &[u32], first: usize, seed: u32, plus: u32) {
    let wrong = words.iter().enumerate().find(|(i, w)| **w != pattern(first + i, seed).wrapping_add(plus));
    if let Some((i, w)) = wrong {
        panic!("word {} is {w:#x}, not {:#x} + {plus}", first + i, pattern(first + i, seed));
    }
}

/// Every word is zero.
#[track_caller]
pub(crate) fn expect_zeros(words: &[u32]) {
    if let Some(i) = words.iter().position(|w| *w != 0) {
        panic!("word {i} is {:#x}, not zero", words[i]);
    }
}

/// Pages by location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) absent: u64,
    pub(crate) host: u64,
    pub(crate) shared: u64,
    pub(crate) device: u64,
    pub(crate) lost: u64,
}

impl Places {
    pub(crate) const NONE: Self = Self { absent: 0, host: 0, shared: 0, device: 0, lost: 0 };
}

/// Where the pages are. Touches nothing.
pub(crate) fn places(runs: Result<Vec<Residency>>) -> Places {
    let mut out = Places::NONE;
    for run in runs.expect("residency") {
        let pages = run.bytes.len().div_ceil(PAGE as u64);
        *match run.location {
            Location::Absent => &mut out.absent,
            Location::Host => &mut out.host,
            Location::Shared => &mut out.shared,
            Location::Device => &mut out.device,
            Location::Lost => &mut out.lost,
        } += pages;
    }
    out
}

/// Bytes that came home because the host asked: by touch, or under `declared` by making a slice.
pub(crate) fn home_bytes(moved: &Stats) -> u64 {
    moved.out_fault_bytes + moved.out_ahead_bytes + moved.out_prefetch_bytes
}

/// Allocates, waiting for blocks that were dropped to come back.
#[track_caller]
pub(crate) fn alloc_again(rt: &Runtime, words: usize) -> Managed<u32> {
    until("the dropped blocks", || match rt.alloc_named(words, "x") {
        Ok(x) => Some(x),
        Err(Error::Memory(MemoryError::OutOfAddressSpace { .. })) => None,
        Err(other) => panic!("{other}"),
    })
}
