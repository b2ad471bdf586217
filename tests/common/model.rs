//! Random operations on managed memory, each beside the same on a `Vec`: one seed decides a run of them.

use super::{PAGE, Random, Scratch, Setup, WORDS, clean, declared, kernel, moves, open, spv};
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use vkhmm::{
    AccessKind, Error, Grid, HostGuard, Kernel, Launch, Location, Managed, Runtime, SkipReason, Skipped,
    Switches,
};

/// Device memory: less than the arrays together.
pub(crate) const LIMIT: u64 = 3 << 20;
/// Operations of one run.
pub(crate) const STEPS: usize = 400;

/// An array and what it must contain.
struct Pair {
    real: Managed<u32>,
    twin: Vec<u32>,
}

struct Model<'a> {
    rt: &'a Runtime,
    random: Random,
    pairs: Vec<Pair>,
    seen: BTreeMap<&'static str, u32>,
    states: BTreeMap<(u8, bool), u32>,
    bump: Kernel,
    add_one: Kernel,
    saxpy: Kernel,
    gather: Kernel,
    /// The last paged launch.
    paged: Option<Launch>,
    trail: Vec<String>,
}

fn location_code(location: Location) -> u8 {
    match location {
        Location::Absent => 0,
        Location::Host => 1,
        Location::Shared => 2,
        Location::Device => 3,
        Location::Lost => 4,
    }
}

impl<'a> Model<'a> {
    fn new(rt: &'a Runtime, seed: u64) -> Self {
        let mut model = Self {
            rt,
            random: Random::new(seed),
            pairs: Vec::new(),
            seen: BTreeMap::new(),
            states: BTreeMap::new(),
            bump: kernel(rt, spv::BUMP),
            add_one: kernel(rt, spv::ADD_ONE),
            saxpy: kernel(rt, spv::SAXPY_ADDRESS),
            // SAFETY: shipped with vkhmm: stays inside its ranges, and stores nothing before an item's last try.
            gather: unsafe { rt.kernel_paged(spv::PAGED_GATHER) }.expect("a paged kernel"),
            paged: None,
            trail: Vec::new(),
        };
        (0..3).for_each(|_| model.allocate());
        model
    }

    fn allocate(&mut self) {
        let words = match self.random.below(4) {
            0 => 1 + self.random.below(3 * WORDS),
            1 => (1 + self.random.below(40)) * WORDS,
            _ => 1 + self.random.below(700 * WORDS),
        };
        let real = self.rt.alloc::<u32>(words).expect("alloc");
        self.pairs.push(Pair { real, twin: vec![0; words] });
    }

    /// Bounds that like the edges of pages: every offset inside a page comes up.
    fn bounds(&mut self, len: usize, align: usize) -> (usize, usize) {
        let edge = |random: &mut Random| {
            let page = random.below(len / WORDS + 1) * WORDS;
            let near = match random.below(4) {
                0 => page,
                1 => page + 1,
                2 => (page + WORDS).saturating_sub(1),
                _ => page + random.below(WORDS),
            };
            near.min(len)
        };
        let (a, b) = (edge(&mut self.random), edge(&mut self.random));
        let b = if self.random.chance(50) { (a + self.random.below(2 * WORDS)).min(len) } else { b };
        let (from, to) = (a.min(b) / align * align, a.max(b));
        (from, to.max(from))
    }

    /// One operation. Its name.
    fn step(&mut self) -> &'static str {
        let which = self.random.below(self.pairs.len());
        let len = self.pairs[which].twin.len();
        let (from, to) = self.bounds(len, 64);
        let (odd_from, odd_to) = self.bounds(len, 1);
        let number = self.random.next() as u32;
        let kind = self.random.below(25);
        self.trail.push(format!("{kind} on {which} ({len}): {from}..{to} or {odd_from}..{odd_to}"));
        let rt = self.rt;
        // A smaller limit could leave it without room.
        if let (12, Some(launch)) = (kind, &self.paged) {
            launch.wait().expect("wait");
        }
        let Pair { real, twin } = &mut self.pairs[which];
        match kind {
            0 => {
                real.slice_mut(odd_from..odd_to).fill(number);
                twin[odd_from..odd_to].fill(number);
                "host fill"
            }
            1 => {
                for at in (odd_from..odd_to).step_by(WORDS / 2 + 3) {
                    real.slice_mut(at..at + 1)[0] ^= number;
                    twin[at] ^= number;
                }
                "host store"
            }
            2 | 3 => {
                assert_eq!(real.slice(odd_from..odd_to)[..], twin[odd_from..odd_to]);
                "host load"
            }
            4 | 5 => {
                let launch =
                    rt.launch(&self.add_one, Grid::linear(to - from), (real.slice_mut(from..to).write(),));
                launch.expect("launch");
                twin[from..to].iter_mut().for_each(|v| *v = v.wrapping_add(1));
                "launch write"
            }
            6 => {
                let (offset, stride) = (number as usize % 50, 1 + number as usize / 50 % 3000);
                let mut part = real.slice_mut(from..to);
                let arguments = (part.write(), offset as u32, stride as u32);
                rt.launch(&self.bump, Grid::linear(to - from), arguments).expect("launch");
                twin[from..to].iter_mut().skip(offset).step_by(stride).for_each(|v| *v = v.wrapping_add(1));
                "launch bump"
            }
            7 | 8 => {
                rt.fill(real.slice_mut(from..to).overwrite(), number).expect("fill");
                twin[from..to].fill(number);
                "overwrite"
            }
            9 => {
                drop(real.slice(odd_from..odd_to).prefetch_to_device().expect("prefetch"));
                "prefetch to device"
            }
            10 => {
                drop(real.slice(odd_from..odd_to).prefetch_to_host().expect("prefetch"));
                "prefetch to host"
            }
            11 => {
                rt.trim(1 + u64::from(number) % (2 * LIMIT)).expect("trim");
                "trim"
            }
            12 => {
                let limit = LIMIT / 2 + u64::from(number) % LIMIT;
                rt.set_device_memory_limit(limit).expect("limit");
                rt.set_device_memory_limit(LIMIT).expect("limit");
                "limit"
            }
            13 => {
                let part = real.slice(from..to);
                let guard: HostGuard<'_, u32> = part.host().expect("guard");
                assert_eq!(guard[..], twin[from..to]);
                if from < to {
                    let hint = part.prefetch_to_device().expect("a hint");
                    // What goes back and forth, or a paged launch still reads, is left out before anybody asks who guards it.
                    let left_out = |s: &Skipped| {
                        matches!(s.why, SkipReason::Guarded | SkipReason::Thrashing | SkipReason::Busy)
                    };
                    // What is used in place has nowhere to go.
                    let stays = hint.skipped().iter().any(left_out) == moves(real);
                    assert!(stays && hint.moved_bytes() == 0, "{hint:?}");
                }
                "guard"
            }
            14 => {
                let mut part = real.slice_mut(odd_from..odd_to);
                let mut guard = part.host_mut().expect("guard");
                guard.iter_mut().for_each(|v| *v = v.wrapping_mul(3));
                twin[odd_from..odd_to].iter_mut().for_each(|v| *v = v.wrapping_mul(3));
                "guard for writing"
            }
            15 => {
                let mut bytes = Vec::new();
                real.slice(odd_from..odd_to).write_to(&mut bytes).expect("write_to");
                assert_eq!(bytes, bytemuck::cast_slice::<u32, u8>(&twin[odd_from..odd_to]));
                let mut from = Cursor::new(bytes.iter().map(|b| b ^ 1).collect::<Vec<u8>>());
                real.slice_mut(odd_from..odd_to).read_from(&mut from).expect("read_from");
                twin[odd_from..odd_to].iter_mut().for_each(|v| *v ^= 0x0101_0101);
                "reader and writer"
            }
            16 => {
                let file = Scratch::new("model");
                let mut out = std::fs::File::create(&file.0).expect("create");
                out.write_all(bytemuck::cast_slice(&twin[odd_from..odd_to])).expect("write");
                drop(out);
                let opened = std::fs::File::open(&file.0).expect("open");
                rt.fill(real.slice_mut(from..to).overwrite(), number).expect("fill");
                twin[from..to].fill(number);
                // The file has what was there before, so the overlap goes back, and the rest is number.
                let mut old = vec![0u32; odd_to - odd_from];
                (&opened).read_exact(bytemuck::cast_slice_mut(&mut old)).expect("read");
                real.slice_mut(odd_from..odd_to).read_exact_at(&opened, 0).expect("read_exact_at");
                twin[odd_from..odd_to].copy_from_slice(&old);
                "file"
            }
            17 => {
                let page = (from / WORDS * WORDS).min(len);
                let (mut left, mut right) = real.split_at_mut(page).expect("on a page");
                if page > 0 {
                    rt.launch(&self.add_one, Grid::linear(page), (left.write(),)).expect("launch");
                }
                right.iter_mut().for_each(|v| *v = v.wrapping_add(2));
                left.iter_mut().for_each(|v| *v = v.wrapping_add(1));
                twin[..page].iter_mut().for_each(|v| *v = v.wrapping_add(2));
                twin[page..].iter_mut().for_each(|v| *v = v.wrapping_add(2));
                "split"
            }
            18 => {
                let before = (real.residency().expect("residency"), rt.stats().launches);
                let refused = rt.launch(&self.add_one, Grid::groups(u32::MAX, 1, 1), (real.write(),));
                assert!(matches!(refused, Err(Error::GridTooLarge { .. })));
                assert_eq!((rt.stats().launches, real.count()), (before.1, len));
                "refused"
            }
            19 => {
                // Two arguments of one launch that share a page: copies the front of the part behind itself.
                let n = (to - from) / 128 * 64;
                if n == 0 {
                    return "too short for two parts";
                }
                // SAFETY: nothing else uses the two parts until the launch is over; they do not overlap.
                let parts = unsafe {
                    (
                        real.raw(AccessKind::Read, from..from + n),
                        real.raw(AccessKind::Overwrite, from + n..from + 2 * n),
                    )
                };
                rt.copy(parts.0, parts.1).expect("copy");
                twin.copy_within(from..from + n, from + n);
                "two arguments on one page"
            }
            20 => {
                let runs = real.residency().expect("residency");
                assert_eq!(runs.iter().map(|r| r.bytes.len()).sum::<u64>(), len as u64 * 4);
                for run in runs {
                    *self.states.entry((location_code(run.location), run.held)).or_default() += 1;
                }
                "residency"
            }
            21 => {
                drop(self.pairs.swap_remove(which));
                self.allocate();
                "free and allocate"
            }
            22 => self.between_two(which, from, to),
            23 => self.gather(which),
            _ => {
                rt.sync().expect("sync");
                "sync"
            }
        }
    }

    /// An operation with two arrays; odd offsets by address.
    fn between_two(&mut self, which: usize, from: usize, to: usize) -> &'static str {
        let other = (which + 1) % self.pairs.len();
        let (front, back) = self.pairs.split_at_mut(which.max(other));
        let (low, high) = (&mut front[which.min(other)], &mut back[0]);
        let (target, source) = if which < other { (low, high) } else { (high, low) };
        let n = (to - from).min(source.twin.len()).min(300 * WORDS); // both fit the limit
        let (source_from, by_address) = (source.twin.len() - n, from % 128 == 0);
        if by_address || source_from % 64 != 0 {
            // Small whole numbers, as f32: sums stay exact.
            let small = |v: &mut u32| *v = ((*v % 1000) as f32).to_bits();
            source.real.slice_mut(source_from..source_from + n).iter_mut().for_each(small);
            source.twin[source_from..source_from + n].iter_mut().for_each(small);
            target.real.slice_mut(from..from + n).iter_mut().for_each(small);
            target.twin[from..from + n].iter_mut().for_each(small);
            let (a, b) =
                (source.real.slice(source_from..source_from + n), &mut target.real.slice_mut(from..from + n));
            self.rt
                .launch(&self.saxpy, Grid::linear(n), (a.read(), b.write(), 2.0f32, n as u32))
                .expect("launch");
            for i in 0..n {
                let sum = 2.0 * f32::from_bits(source.twin[source_from + i])
                    + f32::from_bits(target.twin[from + i]);
                target.twin[from + i] = sum.to_bits();
            }
            return "saxpy by address";
        }
        let (a, mut b) = (source.real.slice(source_from..), target.real.slice_mut(from..from + n));
        self.rt.copy(a.read(), b.write()).expect("copy");
        target.twin[from..from + n].copy_from_slice(&source.twin[source_from..]);
        "copy"
    }

    /// A paged launch: words of one array go where an index says, and the index is dropped while it runs.
    fn gather(&mut self, which: usize) -> &'static str {
        let other = (which + 1) % self.pairs.len();
        let (front, back) = self.pairs.split_at_mut(which.max(other));
        let (low, high) = (&mut front[which.min(other)], &mut back[0]);
        let (target, source) = if which < other { (low, high) } else { (high, low) };
        let (words, from) = (target.twin.len(), source.twin.len());
        let n = 1 + self.random.below(words);
        let frames = |words: usize| (words * 4).div_ceil(16 * PAGE);
        // Rounds hold whole blocks, and one group may want one of each.
        if (frames(words) + frames(from) + frames(n)) * 16 * PAGE > LIMIT as usize {
            return "too much for one group";
        }
        let mut index = self.rt.alloc::<u32>(n).expect("alloc");
        index.iter_mut().for_each(|v| *v = self.random.below(from) as u32);
        for (to, at) in target.twin.iter_mut().zip(&*index) {
            *to = source.twin[*at as usize];
        }
        let arguments = (target.real.write(), index.read(), source.real.read(), n as u32);
        let grid = Grid::groups(n.div_ceil(8192) as u32, 1, 1);
        self.paged = Some(self.rt.launch_paged(&self.gather, grid, arguments).expect("launch"));
        "paged launch"
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let name = self.step();
            *self.seen.entry(name).or_default() += 1;
        }
        for (i, pair) in self.pairs.iter().enumerate() {
            assert_eq!(pair.real.check().map_err(|e| e.to_string()), Ok(()));
            if let Some(at) = pair.real.iter().zip(&pair.twin).position(|(a, b)| a != b) {
                panic!(
                    "array {i}, word {at} (byte {} of its page): {} is not {}",
                    at * 4 % PAGE,
                    pair.real[at],
                    pair.twin[at]
                );
            }
        }
    }
}

/// The names of all operations.
pub(crate) const OPERATIONS: [&str; 23] = [
    "host fill",
    "host store",
    "host load",
    "launch write",
    "launch bump",
    "overwrite",
    "prefetch to device",
    "prefetch to host",
    "trim",
    "limit",
    "guard",
    "guard for writing",
    "reader and writer",
    "file",
    "split",
    "refused",
    "two arguments on one page",
    "residency",
    "free and allocate",
    "saxpy by address",
    "copy",
    "paged launch",
    "sync",
];

/// Plays `seed` in a runtime of its own; what was done and seen is added up.
pub(crate) fn run(
    setup: Setup,
    switches: Switches,
    seed: u64,
    seen: &mut BTreeMap<&str, u32>,
    states: &mut BTreeMap<(u8, bool), u32>,
) {
    // Arrays of any size in frames; small ones in place; beside them half of the others, too.
    let in_place_bytes = [0, 64 << 10, 1 << 20][(seed % 3) as usize];
    let rt = open(setup.with(switches).device_memory_limit(LIMIT).in_place_bytes(in_place_bytes));
    let mut model = Model::new(&rt, seed);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| model.run()));
    if let Err(panic) = outcome {
        let tail = model.trail.len().saturating_sub(15);
        eprintln!(
            "seed {seed}, {setup:?}, up to {in_place_bytes} bytes in place, step {}:\n  {}",
            model.trail.len(),
            model.trail[tail..].join("\n  ")
        );
        std::panic::resume_unwind(panic);
    }
    for (name, count) in &model.seen {
        *seen.entry(name).or_default() += count;
    }
    for (state, count) in &model.states {
        *states.entry(*state).or_default() += count;
    }
    drop(model);
    clean(&rt);
}
