//! Blocks that come and go and come again: kernels read them where they are, in A, and nothing moves.
//!
//! The entry of such a block points at the import of its host bytes. It takes no frame and is never planned for; the kernel goes on
//! setting its touched bits. Only of ranges that the launch reads and nothing else, where the device can work on host memory, and where
//! all pages of the block are at home.
//!
//! * **That is coherent** because the launch holds these pages in place for its whole life, as whoever reads A does: nobody stores to
//!   them until it is over, from either side, so a page that is host-valid when the entry is written stays so. A page that only the
//!   device has keeps its block from it, until it has come home. What came home did so before the round is submitted.
//! * **Entries are written between rounds alone**, like all others; the tables keep the buffers they point at, and go before the
//!   operation ends, so that an import outlives every entry.
//! * **A block is worth it** when the sub-blocks of it that were ever brought have each come again so often as
//!   [`Config::remote_after`](crate::Config::remote_after) says. After [`Config::remote_rounds`](crate::Config::remote_rounds) it is
//!   asked again: if half of it was touched since, it is moved again, and if it becomes remote once more, then for twice as long. The
//!   clock is the number of the round, so that the same launch always takes the same way.

use super::Tables;
use super::tables::{Place, Told};
use crate::launch::AccessKind;
use crate::range::{PlacementKind, RangeCell};
use crate::stats::Counters;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::block::pages_of_sub;
use vkhmm_core::paging::plan::{Planner, Round};
use vkhmm_core::units::{ByteRange, PageRun};
use vkhmm_port::{Device, Mutex};

/// What is known of a block.
#[derive(Clone, Default)]
struct Seen {
    /// Sub-blocks that were brought.
    brought: u32,
    /// How often one of these was brought again.
    again: u32,
    /// It was found worth it, and is remote or to be so.
    chosen: bool,
    /// Sub-blocks that were touched since it was asked last.
    touched: u32,
    /// The round in which it became remote, or was asked again.
    since: u64,
    /// How often it became so.
    times: u32,
}

/// Sub-blocks of a block that are on their way: a bit for each.
pub(super) struct Coming {
    range: u32,
    block: u32,
    subs: u32,
}

/// A range that may be read where it is.
struct Source<P: Ports> {
    range: Arc<RangeCell<P>>,
    subs: u32,
    blocks: Vec<Seen>,
    /// Blocks that are worth it, and those that are remote.
    worth: Vec<u32>,
    remote: Vec<u32>,
    /// Buffers over imports, and which bytes of the reservation each has.
    buffers: Vec<(ByteRange, Arc<<P::Device as Device>::Buffer>)>,
    /// The device would not: it is not asked again.
    refused: bool,
}

/// See the file.
pub(super) struct Remote<P: Ports> {
    /// By argument.
    sources: Vec<Option<Source<P>>>,
    per_block: u32,
    /// How often a block became remote.
    pub(super) count: u64,
}

impl<P: Ports> Remote<P> {
    pub(super) fn new(
        engine: &Engine<P>,
        arguments: &[super::PagedArgument<P>],
        ways: &[Option<PlacementKind>],
    ) -> Self {
        let per_block = engine.config.geometry.subs_per_block();
        let able = engine.config.remote_after > 0 && engine.device.profile().in_place_bytes_max.is_some();
        let source = |argument: &super::PagedArgument<P>, way: &Option<PlacementKind>| {
            let range = argument.range.as_ref()?;
            let same = |other: &&super::PagedArgument<P>| {
                other.range.as_ref().is_some_and(|other| Arc::ptr_eq(range, other))
            };
            // Under two numbers it would have two entries, and one frame.
            let alone = arguments.iter().filter(same).count() == 1;
            if !able || !alone || argument.access != AccessKind::Read || *way == Some(PlacementKind::InPlace)
            {
                return None;
            }
            Some(Source {
                range: Arc::clone(range),
                subs: range.bytes.div_ceil(engine.config.geometry.frame_bytes()) as u32,
                blocks: alloc::vec![Seen::default(); range.blocks.len()],
                worth: Vec::new(),
                remote: Vec::new(),
                buffers: Vec::new(),
                refused: false,
            })
        };
        let sources = arguments.iter().zip(ways).map(|(argument, way)| source(argument, way)).collect();
        Self { sources, per_block, count: 0 }
    }

    /// What a round will bring, before it is admitted.
    pub(super) fn expect(&self, engine: &Engine<P>, round: &Round) -> Vec<Coming> {
        let per_block = self.per_block;
        let mut coming = Vec::new();
        for held in &round.hold {
            let Some(source) = self.sources[held.range as usize].as_ref().filter(|of| !of.refused) else {
                continue;
            };
            for block in held.subs.start / per_block..held.subs.end.div_ceil(per_block) {
                let first = block * per_block;
                let state = source.range.blocks[block as usize].lock();
                let gone = state.used().minus(&state.device_valid());
                let subs = held.subs.start.max(first)..held.subs.end.min(first + per_block);
                let is_gone = |sub: &u32| pages_of_sub(sub - first, engine.config.geometry).intersects(&gone);
                let subs = subs.filter(is_gone).fold(0_u32, |bits, sub| bits | 1 << (sub - first));
                coming.push(Coming { range: held.range, block, subs });
            }
        }
        coming
    }

    /// Notes what a round has brought.
    pub(super) fn brought(&mut self, engine: &Engine<P>, coming: Vec<Coming>) {
        for Coming { range, block, subs } in coming {
            let Some(source) = &mut self.sources[range as usize] else { continue };
            let seen = &mut source.blocks[block as usize];
            seen.again += (seen.brought & subs).count_ones();
            seen.brought |= subs;
            // Once: while it waits for bytes to come home, others of its sub-blocks may come for the first time, and again.
            if !seen.chosen && seen.is_worth_it(engine) {
                seen.chosen = true;
                source.worth.push(block);
            }
        }
    }

    /// Notes what a round touched, and decides anew who is remote. Between two rounds.
    pub(super) fn decide(
        &mut self,
        engine: &Engine<P>,
        told: &Told,
        planner: &mut Planner,
        tables: &Tables<P>,
    ) {
        let per_block = self.per_block;
        let now = planner.report().rounds;
        for (at, source) in (0..).zip(&mut self.sources) {
            let Some(source) = source.as_mut().filter(|source| !source.is_quiet()) else { continue };
            let subs_of = |block: u32| block * per_block..source.subs.min((block + 1) * per_block);
            let touched = told.touched(at);
            for block in &source.remote {
                let is_touched = |sub: &u32| touched[*sub as usize / 32] & 1 << (sub % 32) != 0;
                let bits =
                    subs_of(*block).filter(is_touched).fold(0, |bits, sub| bits | 1 << (sub % per_block));
                source.blocks[*block as usize].touched |= bits;
            }
            if !planner.is_between() {
                continue;
            }
            let mut stays = |block: &u32| {
                let seen = &mut source.blocks[*block as usize];
                if now - seen.since < seen.period(engine) {
                    return true;
                }
                let subs = subs_of(*block);
                let dense = seen.touched.count_ones() * 2 >= subs.end - subs.start;
                (seen.since, seen.touched) = (now, 0);
                if dense {
                    (seen.brought, seen.again, seen.chosen) = (0, 0, false);
                    tables.set_remote(&engine.device, at, *block, None);
                    planner.set_remote(at, subs, false);
                }
                !dense
            };
            source.remote.retain(&mut stays);
            let mut later = Vec::new();
            for block in core::mem::take(&mut source.worth) {
                if !source.is_home(block) {
                    later.push(block);
                    continue;
                }
                let Some(place) = source.place(engine, block, self.per_block) else { continue };
                let subs = block * per_block..block * per_block + place.subs;
                tables.set_remote(&engine.device, at, block, Some(place));
                planner.set_remote(at, subs, true);
                let seen = &mut source.blocks[block as usize];
                (seen.since, seen.touched, seen.times) = (now, 0, seen.times + 1);
                source.remote.push(block);
                self.count += 1;
                Counters::add(&engine.counters.paged_remote_blocks, 1);
            }
            source.worth = later;
        }
    }
}

impl Seen {
    fn is_worth_it<P: Ports>(&self, engine: &Engine<P>) -> bool {
        let often = u64::from(engine.config.remote_after) * u64::from(self.brought.count_ones());
        self.again > 0 && u64::from(self.again) >= often
    }

    /// Rounds until it is asked again.
    fn period<P: Ports>(&self, engine: &Engine<P>) -> u64 {
        u64::from(engine.config.remote_rounds) << self.times.saturating_sub(1).min(16)
    }
}

impl<P: Ports> Source<P> {
    /// Nothing of it is remote, nor to be.
    fn is_quiet(&self) -> bool {
        self.worth.is_empty() && self.remote.is_empty()
    }

    /// Whether A has all bytes of a block, and nothing is on its way there.
    fn is_home(&self, block: u32) -> bool {
        let state = self.range.blocks[block as usize].lock();
        state.host_valid().covers(&state.used()) && !state.moving().intersects(&state.used())
    }

    /// Where the host bytes of a block are. `None`: they are not imported, or the device would not.
    fn place(&mut self, engine: &Engine<P>, block: u32, per_block: u32) -> Option<Place<P>> {
        let g = engine.config.geometry;
        let bytes = g.bytes_of(PageRun { first: self.range.first_page(block), count: g.pages_per_block });
        let covers = |piece: &ByteRange| piece.start <= bytes.start && bytes.end <= piece.end;
        if !self.refused && !self.buffers.iter().any(|(piece, _)| covers(piece)) {
            let imports = self.range.imports.lock();
            let found = imports.pieces.iter().find(|(piece, _)| covers(piece)).cloned();
            drop(imports);
            let most = engine.device.profile().in_place_bytes_max.unwrap_or(0);
            let found = found.filter(|(piece, _)| piece.len() <= most);
            // Whatever it says: without it, bytes move as before.
            match found.and_then(|(piece, import)| Some((piece, engine.device.in_place(&import).ok()?))) {
                Some((piece, buffer)) => self.buffers.push((piece, Arc::new(buffer))),
                None => self.refused = true,
            }
        }
        let (piece, buffer) = self.buffers.iter().find(|(piece, _)| covers(piece))?;
        Some(Place {
            buffer: Arc::clone(buffer),
            address: engine.device.address(buffer) + (bytes.start - piece.start),
            subs: per_block.min(self.subs - block * per_block),
        })
    }
}
