//! What an application says ahead: advice, batches of prefetches, pins; and bytes it has no more use for.

use super::super::SMALL;
use super::super::array::Array;
use super::super::kernel::Access;
use super::super::ledger::Strength;
use super::super::trouble::Kind;
use super::Actor;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::advice::{Advice, Side};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::AccessKind;

impl Actor {
    fn side(&mut self) -> Side {
        if self.random.one_in(2) { Side::Host } else { Side::Device }
    }

    pub(super) fn advise(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        let yes = self.random.one_in(2);
        let advice = match self.random.below(4) {
            0 => Advice::ReadMostly(yes),
            1 => Advice::AccessedBy(yes),
            2 => Advice::PreferredLocation(None),
            _ => Advice::PreferredLocation(Some(self.side())),
        };
        self.note("advise", array, bytes);
        let stage = Arc::clone(&self.stage);
        stage.timed("advice", || stage.engine.advise(&array.range, bytes, advice)).expect("a live array");
        let told = stage.engine.attributes(&array.range, bytes).expect("a live array");
        let placed: u64 = told.iter().map(|a| a.bytes.len()).sum();
        assert!(placed == bytes.len(), "twin: attributes of {bytes:?}: {told:?}");
        "advise"
    }

    /// Two parts in one call; now and then their arrival is waited for.
    pub(super) fn batch(&mut self, array: &mut Array) -> &'static str {
        let (one, other, side) = (self.some_bytes(array), self.some_bytes(array), self.side());
        self.note("batch", array, one);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let borrow = [(array.place(one), Strength::Shared), (array.place(other), Strength::Shared)];
        let parts = [one, other].map(|bytes| (Arc::clone(&array.range), bytes));
        let call = || stage.ledger.lend(&borrow, || stage.engine.prefetch(&parts, side));
        match stage.timed("a batch", call) {
            Ok(hint) if self.random.one_in(4) => {
                // A loss ends it, too.
                hint.ops().iter().for_each(|op| drop(stage.engine.wait(op, None)));
            }
            Ok(_) => {}
            Err(error) => {
                self.explain(&error, &before, None);
                stage.find_lost(array, one);
                stage.find_lost(array, other);
            }
        }
        "batch"
    }

    /// Pages wholly inside are anything afterwards, the same for everybody; all others are what they were. Lends nothing: R is
    /// not weakened.
    pub(super) fn discard(&mut self, array: &mut Array) -> &'static str {
        if array.is_mixed() {
            return "nothing";
        }
        let bytes = self.some_bytes(array);
        self.note("discard", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        if let Err(error) = stage.timed("a discard", || stage.engine.discard(&array.range, bytes)) {
            self.explain(&error, &before, None);
            stage.find_lost(array, bytes);
            return "discard";
        }
        let page = u64::from(SMALL.page_bytes);
        let end = if bytes.end == array.len() { bytes.end } else { bytes.end / page * page };
        let dead = ByteRange { start: bytes.start.next_multiple_of(page), end };
        if !dead.is_empty() {
            stage.adopt(array, dead);
        }
        "discard"
    }

    /// Bytes kept on a side while others go on. To whoever meets it a pin to the device is an acquire, one to the host a guard.
    pub(super) fn pin(&mut self, array: &mut Array) -> &'static str {
        self.let_go();
        let (bytes, side) = (self.some_bytes(array), self.side());
        self.note("pin", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let (asked, gone) = match side {
            Side::Host => (&stage.guards_asked, &stage.guards_gone),
            Side::Device => (&stage.acquires_asked, &stage.acquires_gone),
        };
        asked.fetch_add(1, Ordering::AcqRel);
        let borrow = [(array.place(bytes), Strength::Shared)];
        let call = || stage.ledger.lend(&borrow, || stage.engine.pin(&array.range, bytes, side));
        match stage.timed("a pin", call) {
            Ok(pin) => {
                (0..self.random.below(60)).for_each(|_| stage.exec.pass());
                self.check_pinned(array, bytes, side);
                stage.engine.unpin(&array.range, bytes, pin);
            }
            Err(error) => {
                let access = [Access { array: 0, bytes, kind: AccessKind::Read }];
                self.explain(&error, &before, Some((core::slice::from_ref(array), &access)));
                stage.find_lost(array, bytes);
            }
        }
        gone.fetch_add(1, Ordering::AcqRel);
        "pin"
    }

    /// # Panics
    /// If a pinned page has left its side. On mixed arrays others may have stored to it; and a message that comes late, twice or
    /// from nobody takes a page home as a touch of now does.
    fn check_pinned(&self, array: &Array, bytes: ByteRange, side: Side) {
        let stage = &self.stage;
        let strays = [Kind::LateFaults, Kind::DoubledFaults, Kind::SpuriousFaults];
        let is_touched =
            side == Side::Device && strays.iter().any(|kind| stage.setting.trouble.contains(kind));
        if bytes.is_empty() || stage.is_lost() || array.is_mixed() || is_touched {
            return;
        }
        let told = stage.engine.attributes(&array.range, bytes).expect("a live array");
        for run in told.iter().filter(|run| run.places.lost == 0 && !stage.is_lost()) {
            let (places, all) = (run.places, run.bytes.len());
            let there = match side {
                Side::Host => places.host + places.shared == all && run.pinned_host,
                Side::Device if run.in_place => true,
                Side::Device => places.device + places.shared == all && run.pinned_device,
            };
            assert!(there, "check: `{}` is pinned to {side:?}, and {run:?}", array.name);
        }
    }
}
