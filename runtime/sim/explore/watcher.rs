//! Looks on while a scenario runs: at every taking and letting go of a block's lock, which event meets which page in which state;
//! and whether the block keeps the invariants whenever nobody works on it.
//!
//! Nothing in the engine is made for this. The simulated lock shows its value if that is a [`Block`]; who holds it, and what that
//! thread was asked to do, says what the event is.

use super::coverage::{Coverage, Event};
use crate::world::Observer;
use crate::{SimExec, SimFaults};
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vkhmm_core::block::{Block, HoldKind};
use vkhmm_core::units::{FrameIndex, Geometry, PageIndex};
use vkhmm_port::{Fault, FaultSource, HostError};

/// A page of a scenario: which block, and which page in it.
pub(super) type Place = (usize, u32);

/// What a thread has been asked to do to which pages.
#[derive(Clone, Debug)]
struct Doing {
    event: Event,
    places: Vec<Place>,
    /// A launch has its holds: its later visits are its own business.
    holds: bool,
}

#[derive(Default)]
struct Seen {
    coverage: Coverage,
    states: HashSet<u64>,
    /// Lock number → block of the scenario.
    blocks: BTreeMap<usize, usize>,
    /// The next lock that nobody knows is of this block.
    expected: Option<usize>,
    /// First page of a block in the reservation → block.
    places: BTreeMap<u64, usize>,
    doing: BTreeMap<usize, Doing>,
    before: BTreeMap<usize, Block>,
    /// State of each block when its lock was last let go.
    last: BTreeMap<usize, u64>,
    lost: bool,
    settled: HashSet<usize>,
    broken: Option<String>,
}

/// The one who looks on.
#[derive(Default)]
pub(super) struct Watcher {
    /// Lock: the watcher's own. Owns what was seen · never held across a call of the world.
    seen: Mutex<Seen>,
}

impl Watcher {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next new lock that is taken is that of `block`, whose pages start at `first`.
    pub(super) fn expect(&self, block: usize, first: PageIndex) {
        let mut seen = self.seen();
        seen.expected = Some(block);
        seen.places.insert(first.0, block);
    }

    /// `f` is what this thread does now: `event`, to `places`.
    pub(super) fn during<T>(
        &self,
        exec: &SimExec,
        event: Event,
        places: &[Place],
        f: impl FnOnce() -> T,
    ) -> T {
        self.begin(exec.thread(), event, places);
        let done = f();
        self.seen().doing.remove(&exec.thread());
        done
    }

    fn begin(&self, thread: usize, event: Event, places: &[Place]) {
        self.seen().doing.insert(thread, Doing { event, places: places.to_vec(), holds: false });
    }

    /// The device is lost from now on.
    pub(super) fn lost(&self) {
        self.seen().lost = true;
    }

    /// What was seen, and the first broken invariant.
    pub(super) fn finish(&self) -> (Coverage, HashSet<u64>, Option<String>) {
        let mut seen = self.seen();
        (core::mem::take(&mut seen.coverage), core::mem::take(&mut seen.states), seen.broken.take())
    }
}

impl Observer for Watcher {
    fn taken(&self, _: usize, lock: usize, block: &Block) {
        let mut seen = self.seen();
        if !seen.blocks.contains_key(&lock) {
            let Some(expected) = seen.expected.take() else { return };
            seen.blocks.insert(lock, expected);
        }
        seen.before.insert(lock, block.clone());
    }

    fn let_go(&self, thread: usize, lock: usize, block: &Block) {
        let mut seen = self.seen();
        let (Some(before), Some(at)) = (seen.before.remove(&lock), seen.blocks.get(&lock).copied()) else {
            return;
        };
        if let Err(broken) = vkhmm_core::check::check(block) {
            seen.broken.get_or_insert_with(|| format!("block {at}: {broken}"));
        }
        for page in before.used().runs().flatten() {
            seen.visit(thread, at, page, &before, block);
        }
        let mut hasher = DefaultHasher::new();
        hash_block(block, &mut hasher);
        seen.last.insert(at, hasher.finish());
        let mut hasher = DefaultHasher::new();
        seen.last.iter().for_each(|state| state.hash(&mut hasher));
        let state = hasher.finish();
        seen.states.insert(state);
    }
}

impl Seen {
    /// A thread worked on a page: before and after.
    fn visit(&mut self, thread: usize, at: usize, page: u32, before: &Block, after: &Block) {
        let has = |block: &Block, op| block.holds().iter().any(|h| h.op == op && h.mask.contains(page));
        let ended = before.holds().iter().any(|h| h.mask.contains(page) && !has(after, h.op));
        let begun = |kind| {
            after.holds().iter().any(|h| h.mask.contains(page) && h.kind == kind && !has(before, h.op))
        };
        let any_begun = begun(HoldKind::Exclusive) || begun(HoldKind::Reading) || begun(HoldKind::InPlace);
        let mut asked = None;
        let mut own_abort = false;
        if let Some(doing) = self.doing.get_mut(&thread) {
            let own = doing.places.contains(&(at, page));
            let launch =
                matches!(doing.event, Event::Read | Event::Write | Event::Overwrite | Event::PrefetchIn);
            if own && !(launch && doing.holds) {
                asked = Some(doing.event);
            }
            own_abort = own && launch && doing.holds && ended;
            if own && launch {
                doing.holds = (doing.holds || any_begun) && !own_abort;
            }
        }
        let foreign = asked.is_none_or(|event| matches!(event, Event::Load | Event::Store));
        let had_frame = before.frame(page / before.geometry().pages_per_sub) != FrameIndex::NONE;
        let has_frame = after.frame(page / after.geometry().pages_per_sub) != FrameIndex::NONE;
        let on_device = before.device_valid().contains(page);
        if let Some(event) = asked {
            self.coverage.saw(before, page, event);
        }
        if self.lost && !self.settled.contains(&at) && after.is_idle() && after.device_valid().is_empty() {
            self.coverage.saw(before, page, Event::Loss);
            self.settled.insert(at);
            return;
        }
        let moving = |block: &Block| block.moving().contains(page);
        let taken_home = moving(after) && !moving(before);
        if foreign && on_device && begun(HoldKind::Exclusive) && !taken_home
            || had_frame && !has_frame && !on_device && !self.lost
        {
            self.coverage.saw(before, page, Event::Evict);
        }
        if ended && !own_abort {
            self.coverage.saw(before, page, Event::End);
        }
    }
}

/// What tells two states of a block apart, without the numbers of operations.
fn hash_block(block: &Block, hasher: &mut impl Hasher) {
    for page in block.used().runs().flatten() {
        block.flags(page).bits().hash(hasher);
        (block.parked().0.contains(page), block.parked().1.contains(page)).hash(hasher);
        (block.frame(page / block.geometry().pages_per_sub) != FrameIndex::NONE).hash(hasher);
        let mut holds: Vec<u8> =
            block.holds().iter().filter(|h| h.mask.contains(page)).map(|h| h.kind as u8).collect();
        holds.sort_unstable();
        holds.hash(hasher);
        let cause = block.transfers().iter().find(|t| t.mask.contains(page)).map(|t| t.cause as u8);
        cause.hash(hasher);
    }
}

/// The messages of the host, handed to the engine one at a time, so that it is known which one a handler is at.
pub(super) struct WatchedFaults {
    faults: SimFaults,
    exec: SimExec,
    geometry: Geometry,
    watcher: Arc<Watcher>,
    /// Lock: the wrapper's own. Owns messages that were taken and not handed on · never held across a call of the world.
    rest: Mutex<VecDeque<Fault>>,
}

impl WatchedFaults {
    pub(super) fn new(faults: SimFaults, exec: SimExec, geometry: Geometry, watcher: Arc<Watcher>) -> Self {
        Self { faults, exec, geometry, watcher, rest: Mutex::default() }
    }

    fn rest(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultSource for WatchedFaults {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        let thread = self.exec.thread();
        self.watcher.seen().doing.remove(&thread);
        if self.rest().is_empty() {
            let mut got = Vec::new();
            self.faults.next(&mut got, timeout)?;
            self.rest().extend(got);
        }
        let Some(fault) = self.rest().pop_front() else { return Ok(()) };
        let block = self.geometry.first_page(self.geometry.block_of(fault.page));
        let known = self.watcher.seen().places.get(&block.0).copied();
        if let Some(at) = known {
            let event = if fault.write { Event::Store } else { Event::Load };
            self.watcher.begin(thread, event, &[(at, self.geometry.page_in_block(fault.page))]);
        }
        faults.push(fault);
        Ok(())
    }

    fn interrupt(&self) {
        self.faults.interrupt();
    }
}
