//! The pure search: every state that one small block can reach, whatever the order of events, by core's transitions alone.
//!
//! Breadth first. What the engine does around the transitions (who asks, in which order it calls, what it waits for) is stated here
//! once as the rules of each event; schedules, locks and copies are left out, so this reaches what no short program does. After
//! every event the block keeps the invariants, R shows no page whose bytes are on their way, and once nothing is open no touch is
//! parked.

mod node;

use super::coverage::{Coverage, Event};
use node::{Node, Request, bits, key, mask};
use std::collections::{HashSet, VecDeque};
use vkhmm_core::block::{Block, Cause, Hold, HoldKind, LaunchMasks, pages_of_sub};
use vkhmm_core::mask::PageMask;
use vkhmm_core::units::{FrameIndex, Geometry, OpId};

/// What the pure search is over.
#[derive(Clone, Copy, Debug)]
pub struct Pure {
    /// Pages of the block: 1 or 2.
    pub pages: u32,
    /// Pages of one frame: 1, or 2 of 2.
    pub pages_per_sub: u32,
    /// Whether R can show a page read-only.
    pub duplicates: bool,
    /// Whether launches work in place: then the block never has a frame.
    pub in_place: bool,
    /// Requests that may be open at a time: launches and prefetches, evictions, guards.
    pub requests: usize,
}

/// What it found.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    /// States.
    pub states: usize,
    /// Events that happened in one of them.
    pub transitions: u64,
    /// Which event met which state.
    pub coverage: Coverage,
    /// The first broken rule, with the events that lead to it.
    pub failure: Option<String>,
}

/// An event and the pages it is about, for people.
type By = (&'static str, u8);

const STATES_MAX: usize = 2_000_000;

/// Runs the search to its end.
pub fn reach(pure: Pure) -> Reached {
    let geometry = Geometry { page_bytes: 4, pages_per_sub: pure.pages_per_sub, pages_per_block: pure.pages };
    let mut search = Search {
        pure,
        seen: HashSet::new(),
        stories: Vec::new(),
        open: VecDeque::new(),
        reached: Reached::default(),
    };
    let first = Block::new(geometry, PageMask::range(0..pure.pages));
    search.add(Node { block: first, requests: Vec::new(), lost: false, number: 0 }, ("start", 0));
    while let Some(node) = search.open.pop_front() {
        search.expand(&node);
        if search.reached.failure.is_some() {
            break;
        }
    }
    search.reached.states = search.stories.len();
    search.reached
}

struct Search {
    pure: Pure,
    seen: HashSet<Box<[u8]>>,
    /// Where each state came from first, and by what.
    stories: Vec<(usize, By)>,
    open: VecDeque<Node>,
    reached: Reached,
}

impl Search {
    /// Adds the state that `by` led to from the state that the node was numbered as.
    fn add(&mut self, mut node: Node, by: By) {
        if let Some(broken) = self.broken(&node) {
            self.fail(&broken, node.number, by);
        } else if self.stories.len() == STATES_MAX {
            self.fail("the search does not end", node.number, by);
        } else if self.seen.insert(key(&node, self.pure.pages)) {
            self.stories.push((node.number, by));
            node.number = self.stories.len() - 1;
            self.open.push_back(node);
        }
    }

    fn fail(&mut self, what: &str, mut number: usize, last: By) {
        let mut story = vec![last];
        while number > 0 {
            let (parent, by) = self.stories[number];
            story.push(by);
            number = parent;
        }
        let events: Vec<String> =
            story.iter().rev().map(|(event, pages)| format!("{event} {:?}", mask(*pages))).collect();
        self.reached.failure.get_or_insert_with(|| format!("{what}\nby: {}", events.join(" → ")));
    }

    fn broken(&self, node: &Node) -> Option<String> {
        let block = &node.block;
        if let Err(broken) = vkhmm_core::check::check(block) {
            return Some(broken.to_string());
        }
        if self.pure.in_place && !(block.device_valid() | block.moving()).is_empty() {
            return Some("something moves, and the block is used in place".to_owned());
        }
        let moving = block.moving();
        if block.mapped().intersects(&moving) {
            return Some(format!(
                "R shows pages {:?}, whose bytes are on their way home",
                block.mapped() & moving
            ));
        }
        let (reads, writes) = block.parked();
        if node.requests.is_empty() && !(reads | writes).is_empty() {
            return Some(format!("nothing is open, and touches are parked on {:?}", reads | writes));
        }
        if node.requests.is_empty() && !block.is_idle() {
            return Some("nothing is open, and the block is held".to_owned());
        }
        None
    }

    /// Lets every event happen to the node.
    fn expand(&mut self, node: &Node) {
        for page in 0..self.pure.pages {
            for (write, event) in [(false, Event::Load), (true, Event::Store)] {
                self.saw(node, page, event);
                for extent in 1..=self.pure.pages {
                    let mut to = node.clone();
                    let pages = if extent == 1 { PageMask::single(page) } else { PageMask::range(0..extent) };
                    to.touch(page, write, pages, self.pure.duplicates);
                    self.add(to, (if write { "store" } else { "load" }, bits(PageMask::single(page))));
                }
            }
            self.saw(node, page, Event::Free);
        }
        self.launches(node);
        self.host(node);
        self.evictions(node);
        for (i, request) in node.requests.iter().enumerate() {
            self.goes_on(node, i, *request);
        }
        if !node.lost {
            (0..self.pure.pages).for_each(|page| self.saw(node, page, Event::Loss));
            let mut to = node.clone();
            let (lost, _) = to.block.lose();
            to.block.poisoned(lost);
            to.requests.retain(|r| matches!(r, Request::Guard { .. }));
            to.lost = true;
            to.resume(PageMask::EMPTY, self.pure.duplicates);
            self.add(to, ("loss", 0));
        }
        if node.requests.is_empty() && !node.block.clone().forget() {
            self.fail("nothing is open, and the block is not let go", node.number, ("free", 0));
        }
    }

    fn saw(&mut self, node: &Node, page: u32, event: Event) {
        self.reached.transitions += 1;
        self.reached.coverage.saw(&node.block, page, event);
    }

    fn has_room(&self, node: &Node) -> bool {
        let counted = node.requests.iter().filter(|r| !matches!(r, Request::Moving { .. })).count();
        !node.lost && counted < self.pure.requests
    }

    /// Whether a launch or eviction may be admitted: one at a time is between its holds and what comes of them (the turn).
    fn has_turn(&self, node: &Node) -> bool {
        let admitting = |r: &Request| matches!(r, Request::Held { .. } | Request::Evicting { .. });
        self.has_room(node) && !node.requests.iter().any(admitting)
    }

    /// A launch or prefetch asks, takes its holds, and weakens R: one visit of the block.
    fn launches(&mut self, node: &Node) {
        if node.lost {
            return; // refused before it looks at a block
        }
        for pages in 1..1 << self.pure.pages {
            for (event, by, parts) in [
                (Event::Read, "read", [pages, 0, 0]),
                (Event::PrefetchIn, "prefetch in", [pages, 0, 0]),
                (Event::Write, "write", [0, pages, 0]),
                (Event::Overwrite, "overwrite", [0, 0, pages]),
            ] {
                let [read, write, over] = parts;
                let masks = LaunchMasks { read: mask(read), write: mask(write), overwrite: mask(over) };
                masks.all().runs().flatten().for_each(|page| self.saw(node, page, event));
                if node.block.launch_check(&masks).is_err() || !self.has_turn(node) {
                    continue;
                }
                let mut to = node.clone();
                let [main, copy] = to.two_ops();
                // Host pages for what is absent change no plane.
                if self.pure.in_place {
                    to.block.in_place_hold(OpId(main), &masks);
                } else {
                    to.block.launch_hold(OpId(main), OpId(copy), &masks);
                }
                let revoke = to.block.mapped() & masks.exclusive();
                to.block.revoked(revoke);
                let protect = to.block.writable() & masks.read;
                if self.pure.duplicates {
                    to.block.protected(protect)
                } else {
                    to.block.revoked(protect)
                };
                to.requests.push(Request::Held { main, copy, read, write, over });
                self.add(to, (by, pages));
            }
        }
    }

    /// What the host asks: prefetch home, slices, guards.
    fn host(&mut self, node: &Node) {
        for page in 0..self.pure.pages {
            let pages = PageMask::single(page);
            self.saw(node, page, Event::PrefetchOut);
            let away = (node.block.dirty() & pages).minus(&node.block.holds_of(HoldKind::Exclusive));
            if !away.is_empty() && node.block.has_room(1) {
                let mut to = node.clone();
                to.begin_home(away, self.pure.duplicates, Cause::Prefetch);
                self.add(to, ("prefetch out", bits(pages)));
            }
            self.saw(node, page, Event::Home);
            for write in [false, true] {
                let mut to = node.clone();
                let ready = to.home(pages, write, self.pure.duplicates);
                if ready && self.has_room(node) {
                    let mut guarded = to.clone();
                    let [op, _] = guarded.two_ops();
                    guarded.block.add_guard(OpId(op), pages);
                    guarded.requests.push(Request::Guard { op });
                    self.add(guarded, ("guard", bits(pages)));
                }
                self.add(to, ("home", bits(pages)));
            }
        }
    }

    /// Frames are wanted for others.
    fn evictions(&mut self, node: &Node) {
        if node.lost {
            return;
        }
        let geometry = node.block.geometry();
        for sub in 0..geometry.subs_per_block() {
            let pages = pages_of_sub(sub, geometry);
            if node.block.frame(sub) == FrameIndex::NONE {
                continue;
            }
            pages.runs().flatten().for_each(|page| self.saw(node, page, Event::Evict));
            let valid = pages & node.block.device_valid();
            let may = !node.block.moving().intersects(&pages) && node.block.can_evict(valid);
            if !may || !self.has_turn(node) {
                continue;
            }
            let mut to = node.clone();
            let [op, _] = to.two_ops();
            if !valid.is_empty() {
                to.block.add_hold(Hold { op: OpId(op), kind: HoldKind::Exclusive, mask: valid });
            }
            to.requests.push(Request::Evicting { op, pages: bits(pages) });
            self.add(to, ("evict", bits(pages)));
        }
    }

    /// A request goes on: to its locations, or to its end, or it is taken back.
    fn goes_on(&mut self, node: &Node, i: usize, request: Request) {
        let mut to = node.clone();
        to.requests.remove(i);
        match request {
            Request::Held { main, copy, read, write, over } => {
                let mut back = to.clone();
                back.block.abort(&[OpId(main), OpId(copy)]);
                back.resume(PageMask::EMPTY, self.pure.duplicates);
                self.add(back, ("launch is refused", read | write | over));
                let masks = LaunchMasks { read: mask(read), write: mask(write), overwrite: mask(over) };
                let geometry = to.block.geometry();
                if self.pure.in_place {
                    to.block.in_place_commit(&masks);
                    to.requests.push(Request::Sent { main, copy: 0 });
                    return self.add(to, ("launch commits", read | write | over));
                }
                for sub in 0..geometry.subs_per_block() {
                    if pages_of_sub(sub, geometry).intersects(&masks.all()) {
                        to.block.set_frame(sub, FrameIndex(sub));
                    }
                }
                to.block.launch_commit(OpId(copy), &masks);
                to.requests.push(Request::Sent { main, copy });
                self.add(to, ("launch commits", read | write | over));
            }
            Request::Sent { main, copy } => {
                // A kernel runs after its copies: it ends last.
                self.held_by(node, if copy == 0 { main } else { copy });
                if copy == 0 {
                    to.finish(main, self.pure.duplicates);
                    self.add(to, ("kernel ends", 0));
                } else {
                    to.requests.push(Request::Sent { main, copy: 0 });
                    to.finish(copy, self.pure.duplicates);
                    self.add(to, ("copy in ends", 0));
                }
            }
            Request::Evicting { op, pages } => {
                let mut back = to.clone();
                back.block.abort(&[OpId(op)]);
                back.resume(PageMask::EMPTY, self.pure.duplicates);
                self.add(back, ("eviction is taken back", pages));
                to.block.begin_evict(OpId(op), mask(pages), Cause::Evict);
                if to.block.holds().iter().any(|h| h.op.0 == op) {
                    to.requests.push(Request::Moving { op });
                }
                self.add(to, ("eviction begins", pages));
            }
            Request::Moving { op } | Request::Guard { op } => {
                self.held_by(node, op);
                to.finish(op, self.pure.duplicates);
                self.add(to, ("an operation ends", 0));
            }
        }
    }

    /// The end of `op` meets the pages that it holds.
    fn held_by(&mut self, node: &Node, op: u64) {
        for page in 0..self.pure.pages {
            if node.block.holds().iter().any(|h| h.op.0 == op && h.mask.contains(page)) {
                self.saw(node, page, Event::End);
            }
        }
    }
}
