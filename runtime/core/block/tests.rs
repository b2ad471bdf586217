//! Every transition from every state that two pages and three operations can reach, against the invariants and a twin that knows
//! where the current bytes physically are.

extern crate std;

use super::*;
use crate::check::check;
use std::collections::{BTreeSet, VecDeque};
use std::vec::Vec;

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 2, pages_per_block: 2 };
fn all() -> PageMask {
    PageMask::range(0..2)
}

/// An operation in flight, and what its end means for bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flight {
    /// A guard.
    Guard,
    /// A kernel, which waits on the device for this copy in.
    Kernel(OpId),
    /// Copies these pages (bits) to A.
    Home(u8),
    /// Copies these pages from A: nobody may write A meanwhile.
    In(u8),
}

#[derive(Clone, Debug)]
struct World {
    block: Block,
    /// Pages whose bytes in A are the current ones, physically.
    in_a: u8,
    flights: Vec<(OpId, Flight)>,
    /// Where nothing can be published read-only, nothing is duplicated on the way home.
    duplicates: bool,
    /// No device any more: nothing is launched.
    gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Touch {
        page: u32,
        write: bool,
    },
    Launch {
        read: u8,
        write: u8,
        overwrite: u8,
        aborted: bool,
    },
    /// Of all pages: a span goes as a whole.
    Evict,
    PrefetchHome(u8),
    Guard(u8),
    Finish(usize),
    Lose,
}

fn mask(bits: u8) -> PageMask {
    (0..2).filter(|p| bits >> p & 1 == 1).fold(PageMask::EMPTY, |m, p| m | PageMask::single(p))
}

fn bits(mask: PageMask) -> u8 {
    (0..2).filter(|p| mask.contains(*p)).fold(0, |b, p| b | 1 << p)
}

impl World {
    fn new(duplicates: bool) -> Self {
        let mut block = Block::new(SMALL, all());
        block.set_frame(0, FrameIndex(7));
        Self { block, in_a: 0, flights: Vec::new(), duplicates, gone: false }
    }

    fn op(&self) -> Option<OpId> {
        (1..=3).map(OpId).find(|id| self.flights.iter().all(|(op, _)| op != id))
    }

    fn second_op(&self, taken: OpId) -> Option<OpId> {
        (1..=3).map(OpId).find(|id| *id != taken && self.flights.iter().all(|(op, _)| op != id))
    }

    fn copied_in(&self) -> u8 {
        self.flights
            .iter()
            .map(|(_, f)| if let Flight::In(pages) = f { *pages } else { 0 })
            .fold(0, |a, b| a | b)
    }

    fn show(&mut self, pages: PageMask, write: bool) {
        assert_eq!(bits(pages) & !self.in_a, 0, "published before copied");
        if write {
            assert_eq!(bits(pages) & self.copied_in(), 0, "writable while it is copied in");
            self.block.published_read_write(pages);
        } else {
            self.block.published_read_only(pages);
        }
    }

    fn home(&mut self, pages: PageMask, keep: bool, cause: Cause) {
        let Some(op) = self.op() else { return };
        self.block.begin_home(op, pages, keep && self.duplicates, cause);
        self.flights.push((op, Flight::Home(bits(pages))));
    }

    /// What the engine does about a touch. Whether the toucher was let through.
    fn touch(&mut self, page: u32, write: bool, extent: PageMask) -> bool {
        let duplicates = self.duplicates;
        match self.block.fault(page, write, extent, duplicates) {
            FaultAnswer::Poison => self.block.poisoned(PageMask::single(page)),
            FaultAnswer::Born(pages) => {
                assert!(pages.contains(page));
                self.in_a |= bits(pages);
                self.block.born(pages);
                self.show(pages, true);
            }
            FaultAnswer::ReadWrite(pages) => {
                assert!(pages.contains(page), "the page itself is served");
                self.block.make_host(pages);
                self.show(pages, true);
            }
            FaultAnswer::ReadOnly(pages) => {
                assert!(pages.contains(page) && !write);
                self.show(pages, false);
            }
            FaultAnswer::Home(pages) => {
                assert!(pages.contains(page));
                self.home(pages, !write, Cause::Fault);
                self.block.park(page, write);
                return false;
            }
            FaultAnswer::Park(op) => {
                assert!(self.flights.iter().any(|(o, _)| *o == op), "parked on somebody who will end");
                return false;
            }
            FaultAnswer::ParkFull => unreachable!("there is room for all three"),
        }
        true
    }

    fn resume(&mut self) {
        let (reads, writes) = self.block.parked();
        for (pages, write) in [(writes, true), (reads, false)] {
            for page in pages.runs().flatten() {
                let (reads, writes) = self.block.parked();
                if (if write { writes } else { reads }).contains(page) {
                    self.block.take_parked(page, write);
                    self.touch(page, write, PageMask::single(page));
                }
            }
        }
    }

    fn launch(&mut self, masks: LaunchMasks, aborted: bool) -> bool {
        if self.gone || self.flights.len() > 1 || self.block.launch_check(&masks).is_err() {
            return false;
        }
        let Some(main) = self.op() else { return false };
        let Some(copy) = self.second_op(main) else { return false };
        self.flights.push((main, Flight::Kernel(copy)));
        self.in_a |= bits(masks.all() & self.block.absent());
        self.block.launch_hold(main, copy, &masks);
        self.block.revoked(masks.exclusive());
        self.block.protected(masks.read);
        // Loads and stores between the two passes are answered or parked, never both.
        self.flights.push((copy, Flight::In(0)));
        for (page, write) in [(0, false), (1, false), (1, true)] {
            let mut other = self.clone();
            other.touch(page, write, all());
            assert_eq!(check(&other.block), Ok(()), "between the passes: {other:?}");
        }
        if aborted {
            self.block.abort(&[main, copy]);
            self.flights.truncate(self.flights.len() - 2);
            self.resume();
            return true;
        }
        let work = self.block.launch_commit(copy, &masks);
        self.flights.pop();
        assert_eq!(bits(work.copy_in) & !self.in_a, 0, "copied in before it was home");
        self.in_a &= !bits(masks.exclusive());
        if !(work.copy_in | work.zero).is_empty() {
            self.flights.push((copy, Flight::In(bits(work.copy_in))));
        }
        true
    }

    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Touch { page, write } => {
                let shown = if write { self.block.writable() } else { self.block.mapped() };
                if shown.contains(page) || self.block.parked().0.contains(page) || self.flights.len() > 2 {
                    return false;
                }
                self.touch(page, write, all());
            }
            Event::Launch { read, write, overwrite, aborted } => {
                let masks = LaunchMasks { read: mask(read), write: mask(write), overwrite: mask(overwrite) };
                return self.launch(masks, aborted);
            }
            Event::Evict => {
                let leaving = self.block.device_valid();
                if leaving.is_empty()
                    || self.block.moving().intersects(&all())
                    || !self.block.can_evict(leaving)
                {
                    return false;
                }
                let Some(op) = self.op() else { return false };
                self.block.add_hold(Hold { op, kind: HoldKind::Exclusive, mask: leaving });
                let (clean, dirty) =
                    (self.block.host_valid(), self.block.begin_evict(op, all(), Cause::Evict));
                assert!(!clean.intersects(&dirty), "only what the device alone has is copied home");
                self.block.set_frame(0, FrameIndex(7));
                self.flights.push((op, Flight::Home(bits(dirty))));
            }
            Event::PrefetchHome(pages) => {
                let away =
                    (self.block.dirty() & mask(pages)).minus(&self.block.holds_of(HoldKind::Exclusive));
                if away.is_empty() || self.op().is_none() {
                    return false;
                }
                self.home(away, true, Cause::Prefetch);
            }
            Event::Guard(pages) => {
                let pages = mask(pages);
                let free = pages.minus(&self.block.holds_of(HoldKind::Exclusive)) & self.block.host_valid();
                let Some(op) = self.op().filter(|_| free.covers(&pages)) else { return false };
                self.block.add_guard(op, pages);
                self.flights.push((op, Flight::Guard));
            }
            Event::Finish(at) => {
                if at >= self.flights.len() {
                    return false;
                }
                if let (_, Flight::Kernel(copy)) = self.flights[at] {
                    if self.flights.iter().any(|(op, flight)| *op == copy && matches!(flight, Flight::In(_)))
                    {
                        return false;
                    }
                }
                let (op, flight) = self.flights.remove(at);
                if let Flight::Home(pages) = flight {
                    self.in_a |= pages;
                }
                self.block.finish(op);
                self.resume();
            }
            Event::Lose => {
                self.gone = true;
                let (lost, _) = self.block.lose();
                self.block.poisoned(lost);
                self.flights.retain(|(op, _)| self.block.is_guarded_by(*op));
                self.resume();
                let (reads, writes) = self.block.parked();
                assert!((reads | writes).is_empty(), "a loss answers everybody");
                assert_eq!(bits(self.block.host_valid()) & !self.in_a, 0, "not lost, and not there");
            }
        }
        true
    }

    /// What tells two worlds apart, whatever numbers their operations have.
    fn key(&self) -> Vec<u64> {
        let b = &self.block;
        let (reads, writes) = b.parked();
        let mut key = std::vec![
            u64::from(self.gone),
            u64::from(self.in_a) << 4 | u64::from(bits(reads)) << 2 | u64::from(bits(writes)),
        ];
        key.extend((0..2).map(|p| u64::from(b.flags(p).bits())));
        key.push(u64::from(bits(b.evicted)));
        // An operation is what it does: its flight, its holds, its transfers.
        let mut ops: Vec<u64> = self
            .flights
            .iter()
            .map(|(op, flight)| {
                let mut code = match flight {
                    Flight::Guard => 1,
                    Flight::Kernel(copy) => {
                        let waits = self.flights.iter().any(|(o, f)| o == copy && matches!(f, Flight::In(_)));
                        2 + u64::from(waits)
                    }
                    Flight::Home(m) => 4 + u64::from(*m),
                    Flight::In(m) => 8 + u64::from(*m),
                };
                for kind in [HoldKind::Reading, HoldKind::InPlace, HoldKind::Exclusive] {
                    let own = b.holds().iter().filter(|h| h.op == *op && h.kind == kind);
                    code = code << 2 | u64::from(own.fold(0, |all, h| all | bits(h.mask)));
                }
                let guards = b.guards.iter().filter(|(o, _)| o == op).fold(0, |all, (_, m)| all | bits(*m));
                code << 4 | u64::from(guards) << 2 | u64::from(bits(b.moving_by(*op)))
            })
            .collect();
        ops.sort_unstable();
        key.extend(ops);
        key
    }
}

fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for page in 0..2 {
        events.extend([false, true].map(|write| Event::Touch { page, write }));
    }
    for aborted in [false, true] {
        for (read, write, overwrite) in [
            (1, 0, 0),
            (3, 0, 0),
            (0, 1, 0),
            (0, 3, 0),
            (0, 0, 1),
            (0, 0, 3),
            (2, 1, 0),
            (1, 0, 2),
            (0, 2, 1),
        ] {
            events.push(Event::Launch { read, write, overwrite, aborted });
        }
    }
    for pages in 1..4 {
        events.extend([Event::PrefetchHome(pages), Event::Guard(pages)]);
    }
    events.extend((0..4).map(Event::Finish));
    events.extend([Event::Evict, Event::Lose]);
    events
}

fn walk(duplicates: bool) -> BTreeSet<(u8, &'static str, bool)> {
    let (events, mut seen, mut met) = (events(), BTreeSet::new(), BTreeSet::new());
    let mut next = VecDeque::from([World::new(duplicates)]);
    while let Some(world) = next.pop_front() {
        for event in &events {
            let mut after = world.clone();
            if !after.apply(*event) {
                continue;
            }
            assert_eq!(check(&after.block), Ok(()), "{event:?} from {world:?}");
            assert_eq!(
                bits(after.block.mapped()) & !after.in_a,
                0,
                "R shows what is not current: {event:?} from {world:?}"
            );
            if let Event::Touch { page, write } = event {
                let kinds = [
                    (HoldKind::Reading, "reading"),
                    (HoldKind::InPlace, "in-place"),
                    (HoldKind::Exclusive, "exclusive"),
                ];
                let held = kinds.iter().filter(|(kind, _)| world.block.holds_of(*kind).contains(*page));
                let location = world.block.location(*page) as u8;
                met.extend(held.map(|(_, name)| (location, *name, *write)));
            }
            if seen.insert(after.key()) {
                next.push_back(after);
            }
        }
        assert!(seen.len() < 100_000, "the walk is meant to be small");
    }
    met
}

#[test]
fn every_transition_from_every_state_keeps_the_invariants() {
    let met = walk(true);
    let at = |location: Location, hold, write| met.contains(&(location as u8, hold, write));
    for write in [false, true] {
        // Absent pages are held between the passes only, Host pages in place, too (`World::launch` touches there).
        for (location, hold) in [
            (Location::Host, "reading"),
            (Location::Host, "exclusive"),
            (Location::Shared, "reading"),
            (Location::Shared, "exclusive"),
            (Location::Device, "reading"),
            (Location::Device, "exclusive"),
        ] {
            assert!(at(location, hold, write), "{location:?} {hold}: store {write} was never met");
        }
    }
    assert!(at(Location::Shared, "in-place", true), "a store to a page that is being copied in");
}

#[test]
fn the_same_where_nothing_can_be_published_read_only() {
    let met = walk(false);
    assert!(met.contains(&(Location::Shared as u8, "in-place", false)), "a load of a page that is copied in");
}

#[test]
fn a_forgotten_block_has_no_page_left() {
    let mut block = Block::new(SMALL, all());
    block.born(all());
    block.add_guard(OpId(1), all());
    assert!(!block.forget(), "a guard uses it");
    block.finish(OpId(1));
    assert!(block.forget());
    assert!(block.used().is_empty() && block.host_valid().is_empty());
    assert_eq!(block.fault(0, false, all(), true), FaultAnswer::Poison);
}
