//! What a player says ahead: advice, batches, pins; and bytes it has no more use for.

use super::player::Player;
use crate::common::*;
use std::sync::Arc;
use vkhmm_core::advice::{Advice, Side};
use vkhmm_engine::{AccessKind, EngineError};

impl Player<'_> {
    fn side(&mut self) -> Side {
        if self.random.below(2) == 0 { Side::Host } else { Side::Device }
    }

    pub(crate) fn advise(&mut self) {
        let area = self.pick();
        let i = self.interval(area);
        let yes = self.random.below(2) == 0;
        let advice = match self.random.below(4) {
            0 => Advice::ReadMostly(yes),
            1 => Advice::AccessedBy(yes),
            2 => Advice::PreferredLocation(None),
            _ => Advice::PreferredLocation(Some(self.side())),
        };
        let at = Self::in_range(&self.areas[area], &i);
        self.w.engine.advise(&self.areas[area].range, at.into(), advice).unwrap();
    }

    pub(crate) fn batch(&mut self) {
        let side = self.side();
        let parts: Vec<_> = (0..2)
            .map(|_| {
                let area = self.pick();
                let i = self.interval(area);
                (Arc::clone(&self.areas[area].range), Self::in_range(&self.areas[area], &i).into())
            })
            .collect();
        let hint = self.w.engine.prefetch(&parts, side).unwrap();
        if self.alone && self.random.below(2) == 0 {
            hint.ops().iter().for_each(|op| self.w.wait(op));
        }
    }

    /// Pages wholly inside are anything afterwards, the same for everybody; all others are what they were.
    pub(crate) fn discard(&mut self) {
        let area = self.pick();
        if self.areas[area].read_only {
            return;
        }
        let i = self.interval(area);
        let at = Self::in_range(&self.areas[area], &i);
        let (page, range) = (self.w.page(), Arc::clone(&self.areas[area].range));
        self.log.push(format!("discard {}:{at:?}", range.offset()));
        self.w.engine.discard(&range, at.clone().into()).unwrap();
        let end = if at.end == range.bytes() { at.end } else { at.end / page * page };
        let dead = at.start.next_multiple_of(page)..end;
        if dead.start >= dead.end {
            return;
        }
        let start = self.areas[area].start;
        let twin = (dead.start - start) as usize..(dead.end - start) as usize;
        if self.random.below(2) == 0 {
            let bytes: Vec<u8> = dead.clone().map(|_| self.random.next() as u8).collect();
            self.w.store(&range, dead.start, &bytes);
            self.areas[area].twin[twin].copy_from_slice(&bytes);
        } else {
            let now = self.w.load(&range, dead);
            self.areas[area].twin[twin].copy_from_slice(&now);
        }
    }

    /// A pin, and some of what it must stand.
    pub(crate) fn pin(&mut self) {
        let (area, side) = (self.pick(), self.side());
        let i = self.interval(area);
        let at = Self::in_range(&self.areas[area], &i);
        let range = Arc::clone(&self.areas[area].range);
        if side == Side::Host && self.areas[area].read_only {
            return; // it would refuse the launches of others
        }
        let pin = match self.w.engine.pin(&range, at.clone().into(), side) {
            Ok(pin) => pin,
            Err(EngineError::WorkingSetTooLarge { .. } | EngineError::PinnedApart { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let away = |player: &Self| {
            let told = player.w.engine.attributes(&range, at.clone().into()).unwrap();
            told.iter().map(|a| a.places.device + a.places.shared).sum::<u64>()
        };
        if side == Side::Host && !i.is_empty() {
            let refused = self.w.try_launch(&look(), &[(&range, at.clone(), AccessKind::Read)]);
            assert!(matches!(refused, Err(EngineError::Guarded { .. })));
        } else if self.alone && !self.w.in_place(&range) {
            let before = away(self);
            assert_eq!(before, at.end - at.start, "all of it is on the device");
            self.w.engine.trim(u64::MAX).unwrap();
            assert_eq!(away(self), before, "pinned bytes were evicted");
        }
        self.compare(area, i);
        self.w.engine.unpin(&range, at.into(), pin);
    }
}
