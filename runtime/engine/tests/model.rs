//! Random operations against a twin of plain bytes: whatever the interleaving, memory is as if each launch had run inside
//! `launch`. Which operations and which states of a page were met is counted, and a missed one fails.

mod common;

use common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_core::pagemap::{Location, PageFlags};
use vkhmm_core::units::PageIndex;
use vkhmm_engine::{AccessKind, EngineError, GuardKind};
use vkhmm_port::Fault;
use vkhmm_port::fake::FakeKernel;

/// Bytes that a thread has to itself: part of a range, on page bounds, and their twin.
struct Area {
    range: Range,
    start: u64,
    twin: Vec<u8>,
    /// It is all of the range, and may be freed.
    whole: bool,
    read_only: bool,
}

impl Area {
    fn whole(w: &World, bytes: u64) -> Self {
        Self { range: w.alloc(bytes), start: 0, twin: vec![0; bytes as usize], whole: true, read_only: false }
    }

    fn len(&self) -> u64 {
        self.twin.len() as u64
    }
}

/// What was met: operations by name, and pairs of a page's location and hold.
#[derive(Default)]
struct Met {
    operations: BTreeMap<&'static str, u64>,
    states: BTreeSet<(char, &'static str)>,
}

impl Met {
    fn merge(&mut self, other: Self) {
        for (name, n) in other.operations {
            *self.operations.entry(name).or_default() += n;
        }
        self.states.extend(other.states);
    }
}

/// Sums the bytes of its read bindings, adds the sum and one to each byte it writes, and fills what it overwrites with the sum.
/// The push constants say which binding is which.
fn kernel(what: String, expected: Vec<Vec<u8>>, wrong: Arc<Mutex<Vec<String>>>) -> FakeKernel {
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

struct Player<'a> {
    w: &'a World,
    random: Random,
    areas: Vec<Area>,
    met: Met,
    last: Option<Operation>,
    alone: bool,
    log: Vec<String>,
    /// What kernels found that differs from the twin.
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Player<'_> {
    /// An interval of an area: any bounds, often cut at pages, sometimes empty.
    fn interval(&mut self, area: usize) -> core::ops::Range<u64> {
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

    fn pick(&mut self) -> usize {
        self.random.below(self.areas.len() as u64) as usize
    }

    fn in_range(area: &Area, i: &core::ops::Range<u64>) -> core::ops::Range<u64> {
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
        let expected = list.iter().map(|(area, i, _)| {
            self.areas[*area].twin[i.start as usize..i.end as usize].to_vec()
        });
        let kernel = kernel(named.join(", "), expected.collect(), Arc::clone(&self.wrong));
        let mut spec = self.w.spec(&kernel, &accesses);
        spec.push = list.iter().map(|(_, _, kind)| *kind).collect();
        match self.w.engine.launch(spec) {
            Ok(op) => self.last = Some(op),
            Err(EngineError::WorkingSetTooLarge { .. }) => {
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
        self.log.push(format!("load {}:{:?}", self.areas[area].range.offset(), Self::in_range(&self.areas[area], &i)));
        self.compare(area, i);
    }

    fn compare(&self, area: usize, i: core::ops::Range<u64>) {
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
        self.log.push(format!("store {}:{:?}", self.areas[area].range.offset(), Self::in_range(&self.areas[area], &i)));
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

    fn step(&mut self) {
        let engine = Arc::clone(&self.w.engine);
        let area = self.pick();
        let interval = self.interval(area);
        let (range, at) =
            (Arc::clone(&self.areas[area].range), Self::in_range(&self.areas[area], &interval).into());
        let frame = self.w.frame();
        let roll = self.random.below(100);
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
                match engine.prefetch_to_device(&range, at) {
                    Ok(_) | Err(EngineError::WorkingSetTooLarge { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
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
            _ if self.alone && self.random.below(4) == 0 => {
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

    fn finish(&mut self) {
        for area in 0..self.areas.len() {
            self.compare(area, 0..self.areas[area].len());
        }
    }
}

/// Everything is at rest: no operation, and once all is freed no frame and no import is left.
fn settle(w: &World, ranges: Vec<Range>) {
    w.rest();
    ranges.iter().for_each(|range| w.engine.free(range));
    drop(ranges);
    until("all frames are back", || w.engine.device_memory().1 == 0);
    until("all imports are gone", || w.imports.count() == 0);
}

fn alone(setup: Setup, seed: u64, steps: u32) -> Met {
    within(30, move || {
        let w = World::new(Setup { limit_frames: 12, ..setup });
        let areas = [1, 5, 3].map(|blocks| Area::whole(&w, blocks * w.block() - (seed + blocks) % 17));
        let mut player = Player {
            w: &w,
            random: Random::new(seed),
            areas: areas.into(),
            met: Met::default(),
            last: None,
            alone: true,
            log: Vec::new(),
            wrong: Arc::default(),
        };
        for _ in 0..steps {
            player.step();
        }
        player.finish();
        let (met, ranges) = (player.met, player.areas.into_iter().map(|a| a.range).collect());
        settle(&w, ranges);
        met
    })
}

fn together(setup: Setup, seed: u64, threads: u64, steps: u32) -> Met {
    within(30, move || {
        let w = World::new(Setup { limit_frames: 24, ..setup });
        let page = w.page();
        let shared = w.alloc(3 * w.block());
        let twin: Vec<u8> = (0..shared.bytes()).map(|i| (i * 7) as u8).collect();
        w.store(&shared, 0, &twin);
        let (one, other) = (w.alloc(6 * w.block()), w.alloc(2 * w.block() + 5));
        // Cuts on pages, in the middle of blocks: the threads share blocks, but no page.
        let cut = |range: &Range, t: u64| {
            let pages = range.bytes().div_ceil(page);
            (pages * t / threads * page, (pages * (t + 1) / threads * page).min(range.bytes()))
        };
        let met = Mutex::new(Met::default());
        std::thread::scope(|scope| {
            for t in 0..threads {
                let (w, met, shared, twin) = (&w, &met, &shared, &twin);
                let mine = [&one, &other].map(|range| {
                    let (start, end) = cut(range, t);
                    let twin = vec![0; (end - start) as usize];
                    Area { range: Arc::clone(range), start, twin, whole: false, read_only: false }
                });
                scope.spawn(move || {
                    let common = Area {
                        range: Arc::clone(shared),
                        start: 0,
                        twin: twin.clone(),
                        whole: false,
                        read_only: true,
                    };
                    let mut areas: Vec<Area> = mine.into();
                    areas.push(common);
                    areas.push(Area::whole(w, w.block()));
                    let mut player = Player {
                        w,
                        random: Random::new(seed * 31 + t),
                        areas,
                        met: Met::default(),
                        last: None,
                        alone: false,
                        log: Vec::new(),
            wrong: Arc::default(),
                    };
                    for _ in 0..steps {
                        player.step();
                    }
                    player.finish();
                    w.engine.free(&player.areas[3].range);
                    met.lock().unwrap().merge(player.met);
                });
            }
        });
        settle(&w, vec![shared, one, other]);
        met.into_inner().unwrap()
    })
}

fn seeds(usual: u64) -> u64 {
    std::env::var("VKHMM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}

/// Runs `body` over combinations and seeds; on failure says which it was.
fn every(usual: u64, body: impl Fn(Setup, u64) -> Met + Copy) -> Met {
    let mut met = Met::default();
    for seed in 0..seeds(usual) {
        for (i, setup) in combinations().into_iter().enumerate() {
            let delay = Duration::from_micros([0, 0, 300][((seed + i as u64) % 3) as usize]);
            let setup = Setup { delay, ..setup };
            if std::env::var("VKHMM_ONLY").is_ok_and(|only| only != i.to_string()) {
                continue;
            }
            let run = || body(setup.clone(), seed);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
                Ok(part) => met.merge(part),
                Err(panic) => {
                    eprintln!("seed {seed}, combination {i}: {setup:?}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    met
}

#[test]
fn one_thread_sees_plain_memory() {
    let met = every(8, |setup, seed| alone(setup, seed, 120));
    let named: Vec<_> = met.operations.keys().copied().collect();
    let all = [
        "bring home",
        "disturb",
        "flush",
        "free and allocate",
        "guard",
        "launch",
        "limit",
        "load",
        "prefetch to device",
        "prefetch to host",
        "refused launch",
        "residency",
        "store",
        "sync",
        "trim",
        "unregister",
        "wait",
    ];
    assert_eq!(named, all, "operations met: {:?}", met.operations);
    // Impossible, so not wanted: an absent page held or pinned (a launch gives it a location in the same call, a guard gives it
    // birth), a device page pinned (a guard brings it home first), and Lost, which is `loss.rs`.
    let wanted = [
        (Location::Absent, "free"),
        (Location::Host, "free"),
        (Location::Host, "shared"),
        (Location::Host, "exclusive"),
        (Location::Host, "pinned"),
        (Location::Shared, "free"),
        (Location::Shared, "shared"),
        (Location::Shared, "exclusive"),
        (Location::Shared, "pinned"),
        (Location::Device, "free"),
        (Location::Device, "shared"),
        (Location::Device, "exclusive"),
    ];
    for (location, hold) in wanted {
        assert!(met.states.contains(&(letter(location), hold)), "{location:?} and {hold} was never met");
    }
    for (location, hold) in [('D', "pinned"), ('.', "pinned")] {
        assert!(!met.states.contains(&(location, hold)), "{location} and {hold} is impossible");
    }
}

#[test]
fn two_threads_see_plain_memory_each() {
    every(4, |setup, seed| together(setup, seed, 2, 80));
}

#[test]
fn three_threads_see_plain_memory_each() {
    every(3, |setup, seed| together(setup, seed + 1000, 3, 60));
}
