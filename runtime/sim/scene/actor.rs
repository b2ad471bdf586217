//! An application thread: its arrays, and the steps of its program.

mod acquires;
mod explain;
mod hints;
mod launches;
mod moves;
mod paged;
mod upkeep;

use super::array::Array;
use super::turnstile::Locked;
use super::{SMALL, Stage};
use crate::{Random, SimPorts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::units::{ByteRange, OpId};
use vkhmm_engine::Op;
use vkhmm_port::{HostMemory, Signal};

/// A guard that is held.
struct Guarded {
    range: Arc<vkhmm_engine::RangeCell<SimPorts>>,
    bytes: ByteRange,
    guard: OpId,
}

/// One application thread.
pub(super) struct Actor {
    me: u64,
    stage: Arc<Stage>,
    random: Random,
    /// A stream of its own for paged launches, so that worlds without them do not depend on it.
    paging: Random,
    /// Own ones first, then shared ones in the same order for every thread.
    arrays: Vec<Arc<Locked>>,
    /// How many are its own.
    own: usize,
    /// The last launch.
    last: Option<Arc<Op<SimPorts>>>,
    guard: Option<Guarded>,
    /// Reservations so far, for names.
    named: u64,
}

impl Actor {
    pub(super) fn new(me: u64, stage: &Arc<Stage>, seed: u64, arrays: Vec<Arc<Locked>>, own: usize) -> Self {
        let (random, paging) = (Random::new(seed), Random::new(seed ^ 0x70_6167_6564));
        Self { me, stage: Arc::clone(stage), random, paging, arrays, own, last: None, guard: None, named: 0 }
    }

    /// Both phases, and what comes after each.
    pub(super) fn play(mut self) {
        self.phase();
        self.arrive();
        let stage = Arc::clone(&self.stage);
        loop {
            let seen = stage.phase.epoch();
            if stage.is_calm() {
                break;
            }
            stage.phase.wait(seen, None);
        }
        self.each_array(|stage, array| stage.repair(array));
        self.phase();
        self.each_array(|stage, array| {
            stage.find_lost(array, array.all());
            stage.load(array, array.all());
        });
        for own in self.arrays.drain(..self.own) {
            own.take().free(&stage);
        }
        self.arrive();
    }

    fn arrive(&mut self) {
        self.let_go();
        self.stage.arrived.fetch_add(1, Ordering::AcqRel);
        self.stage.phase.notify();
    }

    fn phase(&mut self) {
        let stage = Arc::clone(&self.stage);
        match stage.decisions {
            None => (0..stage.setting.steps).for_each(|_| self.step()),
            Some(all) => {
                let end = if stage.is_calm() { all } else { all / 2 };
                while stage.exec.decisions() < end {
                    self.step();
                }
            }
        }
    }

    fn each_array(&mut self, mut each: impl FnMut(&Stage, &mut Array)) {
        for array in &self.arrays {
            let mut taken = self.take(array);
            each(&self.stage, &mut taken);
            array.put(taken);
        }
    }

    /// Waits for an array and takes it.
    fn take(&self, cell: &Locked) -> Array {
        let mut array = cell.take();
        self.stage.tame(&mut array);
        array
    }

    /// One step, then the check of every block.
    fn step(&mut self) {
        let paged = self.stage.setting.paged && self.paging.one_in(5);
        let name = match if paged { 116 } else { self.random.below(116) } {
            116 => self.launch_paged(),
            0..14 => self.with_one(Self::store),
            14..27 => self.with_one(Self::load),
            27..51 => self.launch(),
            51..58 => self.acquire(),
            58..63 => self.with_one(Self::prefetch_to_device),
            63..68 => self.with_one(Self::prefetch_to_host),
            68..71 => self.with_one(Self::bring_home),
            71..76 => self.with_one(Self::guard),
            76..79 => self.with_one(Self::transfer),
            79..83 => self.renew(),
            83..86 => self.with_one(Self::look),
            86..89 => self.set_limit(),
            89..91 => self.trim(),
            91..94 => self.wait(),
            94..97 => self.windows(),
            97 => self.sync(),
            98 => self.tear_down(),
            100..104 => self.with_one(Self::advise),
            104..108 => self.with_one(Self::batch),
            108..112 => self.with_one(Self::discard),
            112.. => self.with_one(Self::pin),
            _ => {
                self.stage.engine.flush();
                "flush"
            }
        };
        self.stage.met().note(format!("step: {name}"));
        self.stage.audit();
    }

    /// A step on one array, taken for it.
    fn with_one(&mut self, step: fn(&mut Self, &mut Array) -> &'static str) -> &'static str {
        if self.arrays.is_empty() {
            return "nothing";
        }
        let array = Arc::clone(&self.arrays[self.random.below(self.arrays.len() as u64) as usize]);
        let mut taken = self.take(&array);
        let name = step(self, &mut taken);
        array.put(taken);
        name
    }

    /// Some bytes: all, any, or cut at pages; now and then none.
    fn some_bytes(&mut self, array: &Array) -> ByteRange {
        let (len, page) = (array.len(), u64::from(SMALL.page_bytes));
        if self.random.one_in(3) {
            return array.all();
        }
        let start = self.random.below(len);
        let end = start + 1 + self.random.below(len - start);
        match self.random.below(16) {
            0 => ByteRange { start, end: start },
            1..8 => ByteRange { start: start / page * page, end: end.next_multiple_of(page).min(len) },
            _ => ByteRange { start, end },
        }
    }

    fn few_bytes(&mut self, array: &Array) -> ByteRange {
        let start = self.random.below(array.len());
        let count = if array.is_mixed() { 1 } else { 1 + self.random.below(24) };
        let start = (start..array.len()).find(|at| array.owns(*at)).unwrap_or(self.me % array.len());
        ByteRange { start, end: (start + count).min(array.len()) }
    }

    fn store(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.few_bytes(array);
        if !array.owns(bytes.start) {
            return "nothing";
        }
        let values: Vec<u8> = (0..bytes.len()).map(|_| self.random.number() as u8).collect();
        self.note("store", array, bytes);
        self.stage.store(array, bytes.start, &values);
        "store"
    }

    fn load(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        self.note("load", array, bytes);
        self.stage.load(array, bytes);
        "load"
    }

    /// As a system call with the bytes in the device's hands (DMA): pinned by a touch, written past R some time later, all under
    /// one `&mut`.
    fn transfer(&mut self, array: &mut Array) -> &'static str {
        if array.is_mixed() {
            return self.guard(array);
        }
        let bytes = self.few_bytes(array);
        if self.random.one_in(2) {
            self.prefetch(array, bytes);
        }
        self.note("transfer into", array, bytes);
        for (page, piece) in Array::by_page(bytes) {
            let old = array.expected(piece).to_vec();
            self.stage.store(array, piece.start, &old);
            if array.lost[page] || array.on_device[page] || self.stage.is_scarce() {
                continue;
            }
            (0..self.random.below(40)).for_each(|_| self.stage.exec.pass());
            let values: Vec<u8> = old.iter().map(|_| self.random.number() as u8).collect();
            self.stage.host.alias(array.place(piece)).write(&values);
            array.twin[piece.start as usize..piece.end as usize].copy_from_slice(&values);
        }
        "transfer"
    }

    fn note(&self, what: &str, array: &Array, bytes: ByteRange) {
        self.stage.exec.note(format_args!("{what} {}:{}..{}", array.name, bytes.start, bytes.end));
    }
}
