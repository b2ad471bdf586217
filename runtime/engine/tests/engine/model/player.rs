//! One player of the model: what it has, what it may do, and the twin that it compares with.

use crate::common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_core::pagemap::PageFlags;
use vkhmm_core::units::PageIndex;
use vkhmm_engine::{AccessKind, EngineError, GuardKind};
use vkhmm_port::Fault;
use vkhmm_port::fake::FakeKernel;

/// Bytes that a thread has to itself: part of a range, on page bounds, and their twin.
pub(crate) struct Area {
    pub(crate) range: Range,
    pub(crate) start: u64,
    pub(crate) twin: Vec<u8>,
    /// It is all of the range, and may be freed.
    pub(crate) whole: bool,
    pub(crate) read_only: bool,
}

impl Area {
    pub(crate) fn whole(w: &World, bytes: u64) -> Self {
        Self { range: w.alloc(bytes), start: 0, twin: vec![0; bytes as usize], whole: true, read_only: false }
    }

    fn len(&self) -> u64 {
        self.twin.len() as u64
    }
}

/// What was met: operations by name, and pairs of a page's location and hold.
#[derive(Default)]
pub(crate) struct Met {
    pub(crate) operations: BTreeMap<&'static str, u64>,
    pub(crate) states: BTreeSet<(char, &'static str)>,
}

impl Met {
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, n) in other.operations {
            *self.operations.entry(name).or_default() += n;
        }
        self.states.extend(other.states);
    }
}

/// Sums the bytes of its read bindings, adds the sum and one to each byte it writes, and fills what it overwrites with the sum.
/// The push constants say which binding is which.
pub(crate) fn kernel(what: String, expected: Vec<Vec<u8>>, wrong: Arc<Mutex<Vec<String>>>) -> FakeKernel {
    FakeKernel::new(move |bindings, push, _| {
        for ((binding, kind), want) in bindings.iter().zip(push).zip(&expected) {
            let got = binding.to_vec();
            if *kind < 2 && got != *want {
                wrong.lock().unwrap().push(format!("{what}: the kernel found {got:?} instead of {want:?}"));
            }
        }
        let reads = bindings.iter().zip(push).filter(|(_, kind)| **kind == 0);
        let sum = reads.fold(0_u8, |sum, (b, _)| b.to_vec().iter().fold(sum, |s, v| s.wrapping_add(*v)));
        for (binding, kind) in bindings.iter().zip(push) {
            match kind {
                1 => map(*binding, |v| v.wrapping_add(sum).wrapping_add(1)),
                2 => binding.fill(sum),
                _ => {}
            }
        }
    })
}

pub(crate) struct Player<'a> {
    pub(crate) w: &'a World,
    pub(crate) random: Random,
    pub(crate) areas: Vec<Area>,
    pub(crate) met: Met,
    pub(crate) last: Option<Operation>,
    /// Paged launches that nobody has waited for.
    pub(crate) open_paged: Vec<Operation>,
    pub(crate) alone: bool,
    pub(crate) log: Vec<String>,
    /// What kernels found that differs from the twin.
    pub(crate) wrong: Arc<Mutex<Vec<String>>>,
}

impl Player<'_> {
    /// An interval of an area: any bounds, often cut at pages, sometimes empty.
    pub(crate) fn interval(&mut self, area: usize) -> core::ops::Range<u64> {
        let len = self.areas[area].len();
        let page = self.w.page();
        let a = self.random.below(len + 1);
        let mut b = (a + self.random.below(len + 1) / (1 + self.random.below(4))).min(len);
        let mut a = a;
        if self.random.below(3) > 0 {
            a = a / page * page;
            b = (b.div_ceil(page) * page).min(len).max(a);
        }
        a..b
    }

    pub(crate) fn pick(&mut self) -> usize {
        self.random.below(self.areas.len() as u64) as usize
    }

    pub(crate) fn in_range(area: &Area, i: &core::ops::Range<u64>) -> core::ops::Range<u64> {
        area.start + i.start..area.start + i.end
    }

    fn launch(&mut self) {
        let count = 1 + self.random.below(3);
        let mut list = Vec::new();
        for _ in 0..count {
            let area = self.pick();
            let kind = if self.areas[area].read_only { 0 } else { self.random.below(3) as u8 };
            list.push((area, self.interval(area), kind));
        }
        let accesses: Vec<Access<'_>> = list
            .iter()
            .map(|(area, i, kind)| {
                let area = &self.areas[*area];
                let access = [AccessKind::Read, AccessKind::Write, AccessKind::Overwrite][usize::from(*kind)];
                (&area.range, Self::in_range(area, i), access)
            })
            .collect();
        let named: Vec<_> = accesses.iter().map(|(r, i, a)| format!("{}:{i:?} {a:?}", r.offset())).collect();
        self.log.push(format!("launch {}", named.join(", ")));
        let expected =
            list.iter().map(|(area, i, _)| self.areas[*area].twin[i.start as usize..i.end as usize].to_vec());
        let kernel = kernel(named.join(", "), expected.collect(), Arc::clone(&self.wrong));
        let mut spec = self.w.spec(&kernel, &accesses);
        spec.push = list.iter().map(|(_, _, kind)| *kind).collect();
        match self.w.engine.launch(spec) {
            Ok(op) => self.last = Some(op),
            Err(EngineError::WorkingSetTooLarge { .. } | EngineError::PinnedApart { .. }) => {
                *self.met.operations.entry("refused launch").or_default() += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let bytes = |area: &Area, i: &core::ops::Range<u64>| {
            area.twin[i.start as usize..i.end as usize].iter().fold(0_u8, |s, v| s.wrapping_add(*v))
        };
        let reads = list.iter().filter(|(_, _, kind)| *kind == 0);
        let sum = reads.fold(0_u8, |sum, (area, i, _)| sum.wrapping_add(bytes(&self.areas[*area], i)));
        for (area, i, kind) in list {
            let twin = &mut self.areas[area].twin[i.start as usize..i.end as usize];
            match kind {
                1 => twin.iter_mut().for_each(|v| *v = v.wrapping_add(sum).wrapping_add(1)),
                2 => twin.fill(sum),
                _ => {}
            }
        }
    }

    fn load(&mut self) {
        let area = self.pick();
        let i = self.interval(area);
        self.log.push(format!(
            "load {}:{:?}",
            self.areas[area].range.offset(),
            Self::in_range(&self.areas[area], &i)
        ));
        self.compare(area, i);
    }

    pub(crate) fn compare(&self, area: usize, i: core::ops::Range<u64>) {
        let area = &self.areas[area];
        if i.is_empty() {
            return;
        }
        let got = self.w.load(&area.range, Self::in_range(area, &i));
        let want = &area.twin[i.start as usize..i.end as usize];
        if let Some(at) = got.iter().zip(want).position(|(g, w)| g != w) {
            let tail = &self.log[self.log.len().saturating_sub(12)..];
            panic!(
                "byte {} of {:?} at {}:\n{got:?} instead of\n{want:?}\n{}\n{}",
                area.start + i.start + at as u64,
                area.range.id(),
                area.range.offset(),
                self.w.map(&area.range),
                [tail, &self.wrong.lock().unwrap()].concat().join("\n")
            );
        }
    }

    fn store(&mut self) {
        let area = self.pick();
        if self.areas[area].read_only {
            return;
        }
        let i = self.interval(area);
        let bytes: Vec<u8> = i.clone().map(|_| self.random.next() as u8).collect();
        self.log.push(format!(
            "store {}:{:?}",
            self.areas[area].range.offset(),
            Self::in_range(&self.areas[area], &i)
        ));
        let area = &mut self.areas[area];
        if !i.is_empty() {
            self.w.store(&area.range, area.start + i.start, &bytes);
        }
        area.twin[i.start as usize..i.end as usize].copy_from_slice(&bytes);
    }

    fn guard(&mut self) {
        let area = self.pick();
        if self.areas[area].read_only {
            return;
        }
        let i = self.interval(area);
        let kind = if self.random.below(2) == 0 { GuardKind::Read } else { GuardKind::Write };
        let at = Self::in_range(&self.areas[area], &i);
        let range = Arc::clone(&self.areas[area].range);
        let guard = self.w.engine.guard(&range, at.clone().into(), kind).unwrap();
        self.look();
        self.compare(area, i.clone());
        if kind == GuardKind::Write && !i.is_empty() {
            let value = self.random.next() as u8;
            self.w.store(&range, at.start, &[value]);
            self.areas[area].twin[i.start as usize] = value;
        }
        if !i.is_empty() {
            let refused = self.w.try_launch(&look(), &[(&range, at.clone(), AccessKind::Read)]);
            assert!(matches!(refused, Err(EngineError::Guarded { .. })));
        }
        self.w.engine.drop_guard(&range, at.into(), guard);
    }

    fn renew(&mut self) {
        let at = self.pick();
        if !self.areas[at].whole {
            return;
        }
        let len = self.areas[at].len();
        self.w.engine.free(&self.areas[at].range);
        let bytes = 1 + self.random.below(2 * len).min(6 * self.w.block());
        self.areas[at] = Area::whole(self.w, bytes);
        self.compare(at, 0..1);
    }

    /// The kernel drops a mapping behind our back, or a message comes that nobody stands behind.
    fn disturb(&mut self) {
        if self.w.declared() {
            return;
        }
        let area = self.pick();
        let area = &self.areas[area];
        let offset = area.start + self.random.below(area.len());
        let page = PageIndex((area.range.offset() + offset) / self.w.page());
        if self.random.below(2) == 0 {
            self.w.host.zap(page);
        } else {
            // A store nobody makes would break the borrow of whoever else reads the page.
            let write = self.alone && self.random.below(2) == 0;
            self.w.host.inject(Fault { page, write });
        }
    }

    /// Notes the states of one range's pages.
    fn look(&mut self) {
        let area = self.pick();
        let range = &self.areas[area].range;
        for page in 0..range.bytes().div_ceil(self.w.page()) {
            let flags = self.w.engine.page_flags(range, page * self.w.page());
            let location = letter(flags.location());
            let named = [
                (PageFlags::HELD_EXCLUSIVE, "exclusive"),
                (PageFlags::HELD_SHARED, "shared"),
                (PageFlags::PINNED, "pinned"),
            ];
            let mut free = true;
            for (flag, name) in named {
                if flags.contains(flag) {
                    self.met.states.insert((location, name));
                    free = false;
                }
            }
            if free {
                self.met.states.insert((location, "free"));
            }
        }
    }

    pub(crate) fn step(&mut self) {
        let engine = Arc::clone(&self.w.engine);
        let area = self.pick();
        let interval = self.interval(area);
        let (range, at) =
            (Arc::clone(&self.areas[area].range), Self::in_range(&self.areas[area], &interval).into());
        let frame = self.w.frame();
        let roll = self.random.below(122);
        let (offset, step) = (range.offset(), self.log.len());
        let name = match roll {
            0..30 => {
                self.launch();
                "launch"
            }
            30..48 => {
                self.load();
                "load"
            }
            48..64 => {
                self.store();
                "store"
            }
            64..70 => {
                engine.prefetch_to_device(&range, at).unwrap();
                "prefetch to device"
            }
            70..76 => {
                engine.prefetch_to_host(&range, at).unwrap();
                "prefetch to host"
            }
            76..80 => {
                self.guard();
                "guard"
            }
            80..83 => {
                let kind = if self.areas[area].read_only { GuardKind::Read } else { GuardKind::Write };
                engine.bring_home(&range, at, kind).unwrap();
                "bring home"
            }
            83..86 => {
                engine.trim(frame * self.random.below(8)).unwrap();
                "trim"
            }
            86..88 => {
                self.end_paged();
                let frames = 2 + self.random.below(u64::from(self.w.setup.limit_frames));
                engine.set_device_memory_limit(frame * frames).unwrap();
                "limit"
            }
            88..91 => {
                self.renew();
                "free and allocate"
            }
            91..95 => {
                self.disturb();
                "disturb"
            }
            95..97 => {
                if let Some(op) = self.last.take() {
                    self.w.wait(&op);
                }
                "wait"
            }
            97 => {
                engine.flush();
                "flush"
            }
            98 => {
                engine.residency(&range, at).unwrap();
                engine.check(&range, at).unwrap();
                "residency"
            }
            100..104 => {
                self.advise();
                "advise"
            }
            104..108 => {
                self.batch();
                "batch"
            }
            108..112 => {
                self.discard();
                "discard"
            }
            112..116 => {
                self.end_paged();
                self.pin();
                "pin"
            }
            116.. => {
                self.paged();
                "paged launch"
            }
            _ if self.alone && self.random.below(4) == 0 => {
                self.end_paged();
                for map in engine.pagemaps().into_iter().filter(vkhmm_core::pagemap::Pagemap::is_live) {
                    engine.kill_pagemap(map.id()).unwrap();
                    engine.unregister_pagemap(map.id(), Duration::from_secs(10)).unwrap();
                }
                "unregister"
            }
            _ => {
                if self.alone {
                    engine.sync().unwrap();
                }
                "sync"
            }
        };
        *self.met.operations.entry(name).or_default() += 1;
        self.log.push(format!("{step}: {name} {offset}:{at:?}"));
        self.look();
    }

    pub(crate) fn finish(&mut self) {
        for area in 0..self.areas.len() {
            self.compare(area, 0..self.areas[area].len());
        }
    }
}
