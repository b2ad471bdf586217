//! Paged launches over the fakes: the one that all tests know, and one that is held up where a test wants it.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::{PagedArgument, PagedSpec};
use vkhmm_port::fake::paged::PagedGroup;

/// Bytes of one group's part of each range: no page, sub-block or block is one.
pub const PART: u64 = 24;

/// Lets so many groups begin.
#[derive(Clone)]
pub struct Brake(Arc<AtomicU32>);

impl Brake {
    pub fn new(groups: u32) -> Self {
        Self(Arc::new(AtomicU32::new(groups)))
    }

    /// All groups may begin.
    pub fn release(&self) {
        self.0.store(u32::MAX, Ordering::Release);
    }

    /// So many more may begin.
    pub fn allow(&self, groups: u32) {
        self.0.fetch_add(groups, Ordering::AcqRel);
    }

    /// Whether all that may begin have begun.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// Waits for one's group.
    pub fn pass(&self) {
        until("the brake is released", || {
            let step = |left: u32| if left == u32::MAX { Some(left) } else { left.checked_sub(1) };
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
        });
    }
}

/// z[i] = x[i] + y[i], then y[i] += 1, by parts.
pub fn triad<H: HostMemory>(w: &World<H>, brake: &Brake) -> FakeKernel {
    let brake = brake.clone();
    FakeKernel::paged(&w.device, move |group| {
        brake.pass();
        let part = part_of(group);
        group.want(0, part.clone(), READ);
        group.want(1, part.clone(), READ | WRITE);
        group.want(2, part.clone(), WRITE);
        if !group.vote() {
            return;
        }
        let (x, y) = (group.load(0, part.clone()), group.load(1, part.clone()));
        let z: Vec<u8> = x.iter().zip(&y).map(|(x, y)| x.wrapping_add(*y)).collect();
        group.store(2, part.start, &z);
        group.store(1, part.start, &y.iter().map(|y| y.wrapping_add(1)).collect::<Vec<u8>>());
    })
}

pub fn part_of(group: &PagedGroup<'_>) -> core::ops::Range<u64> {
    u64::from(group.id()) * PART..u64::from(group.id() + 1) * PART
}

pub fn values(bytes: u64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes).map(|_| random.next() as u8).collect()
}

/// Three ranges and what they are to be.
pub struct Triad<H: HostMemory = FakeHost> {
    pub groups: u32,
    pub x: Range<H>,
    pub y: Range<H>,
    pub z: Range<H>,
    pub a: Vec<u8>,
    pub b: Vec<u8>,
}

impl<H: HostMemory> Triad<H> {
    pub fn new(w: &World<H>, groups: u32) -> Self {
        let bytes = u64::from(groups) * PART;
        let [x, y, z] = [(); 3].map(|()| w.alloc(bytes));
        let (a, b) = (values(bytes, 1), values(bytes, 2));
        w.store(&x, 0, &a);
        w.store(&y, 0, &b);
        Self { groups, x, y, z, a, b }
    }

    pub fn accesses(&self) -> [(&Range<H>, AccessKind); 3] {
        [(&self.x, AccessKind::Read), (&self.y, AccessKind::Write), (&self.z, AccessKind::Overwrite)]
    }

    pub fn launch(&self, w: &World<H>, brake: &Brake) -> Operation<H> {
        w.launch_paged(&triad(w, brake), self.groups, &self.accesses())
    }

    /// x + y, as it was.
    pub fn sums(&self) -> Vec<u8> {
        self.a.iter().zip(&self.b).map(|(a, b)| a.wrapping_add(*b)).collect()
    }

    /// After the first launch.
    pub fn verify(&self, w: &World<H>) {
        assert_eq!(w.load_all(&self.z), self.sums());
        assert_eq!(w.load_all(&self.y), self.b.iter().map(|b| b.wrapping_add(1)).collect::<Vec<u8>>());
        assert_eq!(w.load_all(&self.x), self.a);
    }
}

impl<H: HostMemory> World<H> {
    pub fn paged_spec(
        &self,
        kernel: &FakeKernel,
        groups: u32,
        ranges: &[(&Range<H>, AccessKind)],
    ) -> PagedSpec<TestPorts<H>> {
        let argument = |(range, access): &(&Range<H>, AccessKind)| PagedArgument {
            range: Some(Arc::clone(range)),
            access: *access,
        };
        PagedSpec {
            kernel: Arc::new(kernel.clone()),
            groups: [groups, 1, 1],
            items: 0,
            arguments: ranges.iter().map(argument).collect(),
            push: vec![0; 8],
            label: "paged".into(),
        }
    }

    pub fn launch_paged(
        &self,
        kernel: &FakeKernel,
        groups: u32,
        ranges: &[(&Range<H>, AccessKind)],
    ) -> Operation<H> {
        self.engine.launch_paged(self.paged_spec(kernel, groups, ranges)).expect("a paged launch")
    }
}

/// Those of all combinations in which rounds run beside the caller, with as many frames as a quarter of what `groups` groups touch.
pub fn beside(groups: u32) -> Vec<Setup> {
    let mut setups = combinations();
    setups.retain(|setup| !setup.queue_is_shared);
    for setup in &mut setups {
        let frames = 3 * (u64::from(groups) * PART).div_ceil(setup.geometry.frame_bytes()) as u32 / 4;
        setup.limit_frames = frames.max(6 * setup.geometry.subs_per_block());
    }
    setups
}
