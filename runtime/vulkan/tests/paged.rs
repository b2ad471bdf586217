//! Paged kernels by hand: what `shaders/vkhmm.glsl` records, and what it never does. The tables are made here, in rounds that no engine
//! drives; what is compared is bits.

mod common;

use common::paging::{BOTH, Launch, Outcome, Paged};
use common::{FRAME, Rig, pattern};
use std::sync::Arc;
use vkhmm_core::paging::layout::{ITEMS_ID, MAGIC, MARKER_ID, READ, VERSION, WRITE};
use vkhmm_core::units::FrameIndex;
use vkhmm_port::Device;
use vkhmm_vulkan::reflect::{self, PushKind};
use vkhmm_vulkan::{KernelError, KernelOptions, VulkanKernel};

/// Words of a sub-block.
const SUB: u32 = FRAME as u32 / 4;
/// Words of a block.
const BLOCK: u32 = 32 * SUB;
const MIB: u64 = 1 << 20;

macro_rules! shipped {
    ($name:literal) => {
        include_bytes!(concat!("../../../shaders/spv/", $name, ".spv"))
    };
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect()
}

fn kernel(rig: &Rig, spirv: &[u8]) -> Arc<VulkanKernel> {
    rig.device().kernel(&words(spirv), KernelOptions::default()).expect("a shipped kernel")
}

/// Memory for `blocks` blocks.
fn rig(blocks: u32) -> Rig {
    let rig = Rig::open(|_| {});
    rig.device().grow(FrameIndex(0), blocks * 32).expect("grow");
    rig
}

fn numbers(seed: u64, n: u32) -> Vec<u32> {
    words(&pattern(seed, n as usize * 4))
}

/// Floats whose sums and products are exact, as words.
fn floats(seed: u64, n: u32) -> Vec<u32> {
    numbers(seed, n).into_iter().map(|x| ((x >> 16) as f32).to_bits()).collect()
}

/// z = x + 3 y over three ranges of 4 MiB less 20 bytes, their blocks in disorder; with its inputs and the right result.
struct Triad {
    launch: Launch,
    kernel: Arc<VulkanKernel>,
    n: u32,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Triad {
    const GROUPS: u32 = 64;

    fn new(rig: &mut Rig, capacity: u32) -> Self {
        let n = (4 * MIB / 4) as u32 - 5;
        let range = |access, blocks: &[u32]| Paged::new(rig, u64::from(n) * 4, access, blocks);
        let ranges = vec![range(WRITE, &[96, 0]), range(READ, &[160, 64]), range(READ, &[32, 128])];
        let (before, x, y) = (numbers(1, n), floats(2, n), floats(3, n));
        [&before, &x, &y].into_iter().zip(&ranges).for_each(|(words, range)| range.fill(rig, words));
        let sum = |(x, y): (&u32, &u32)| (f32::from_bits(*x) + 3.0 * f32::from_bits(*y)).to_bits();
        let after = x.iter().zip(&y).map(sum).collect();
        let kernel = kernel(rig, shipped!("paged_triad"));
        let launch = Launch::new(rig, [Self::GROUPS, 1, 1], 0, ranges, 192, capacity);
        Self { launch, kernel, n, before, after }
    }

    fn round(&mut self, rig: &mut Rig, ids: &[u32]) -> Outcome {
        let push = [3.0_f32.to_bits(), self.n];
        self.launch.round(rig, &self.kernel, &push, ids, u32::MAX, [ids.len() as u32, 1, 1])
    }

    /// What z must be when just these groups have run.
    fn expected(&self, done: impl Fn(u32) -> bool) -> Vec<u32> {
        let group = |i: usize| i as u32 / SUB;
        (0..self.n as usize).map(|i| if done(group(i)) { self.after[i] } else { self.before[i] }).collect()
    }

    fn check(&self, rig: &mut Rig, done: impl Fn(u32) -> bool) {
        let z = self.launch.ranges[0].read(rig);
        let expected = self.expected(done);
        let wrong = z.iter().zip(&expected).position(|(have, want)| have != want);
        assert_eq!(wrong, None, "a word that is not what it should be");
    }
}

#[test]
fn a_paged_kernel_says_so_and_of_which_version() {
    assert_eq!(MAGIC & 0xff, VERSION, "vkhmm.glsl adds the version to the rest");
    let found = |spirv: &[u8]| reflect::reflect(&words(spirv), None).expect("a shipped kernel");
    let triad = found(shipped!("paged_triad"));
    assert_eq!(triad.paged, Some(reflect::Paged { version: VERSION, items: 0 }));
    let first = &triad.push.members[0];
    assert_eq!((first.name.as_str(), first.offset, first.kind), ("vkhmm_launch", 0, PushKind::Address));
    let gather = found(shipped!("paged_gather"));
    assert_eq!(gather.paged, Some(reflect::Paged { version: VERSION, items: 8192 }));
    assert_eq!(found(shipped!("plain_triad")).paged, None);
    let wide = ["Int64", "Float64", "Int64Atomics", "GroupNonUniform", "VulkanMemoryModel"];
    for reflection in [triad, gather] {
        let found = reflection.capabilities.iter().find(|c| wide.contains(&c.as_str()));
        assert_eq!(found, None, "not portable");
    }
    // The constants are what the module says of itself, not something to choose.
    let rig = rig(1);
    for id in [MARKER_ID, ITEMS_ID] {
        let options = KernelOptions { spec: vec![(id, 1_u32.into())], ..KernelOptions::default() };
        let error = rig.device().kernel(&words(shipped!("paged_gather")), options).err();
        assert!(
            matches!(error, Some(KernelError::Specialisation { id: told, .. }) if told == id),
            "{error:?}"
        );
    }
    let mut other = words(shipped!("paged_triad"));
    let marker = other.iter().position(|word| *word == MARKER_ID).expect("the marker is in the module");
    let named = other[marker - 2];
    let at = (0..other.len() - 3).find(|i| other[*i] & 0xffff == 50 && other[i + 2] == named);
    other[at.expect("its OpSpecConstant") + 3] = VERSION + 1;
    let error = rig.device().kernel(&other, KernelOptions::default()).err().map(|e| e.to_string());
    assert!(error.as_ref().is_some_and(|e| e.contains("version 2 of vkhmm.glsl")), "{error:?}");
}

#[test]
fn with_everything_there_the_result_is_right_and_what_was_used_is_told() {
    let mut rig = rig(6);
    let mut triad = Triad::new(&mut rig, 64);
    triad.launch.map_all(&rig);
    let all: Vec<u32> = (0..Triad::GROUPS).rev().collect();
    assert_eq!(triad.round(&mut rig, &all), Outcome::default());
    assert_eq!(triad.launch.open(), []);
    triad.check(&mut rig, |_| true);
    let subs: Vec<u32> = (0..64).collect();
    for (range, used, other) in [(0, WRITE, READ), (1, READ, WRITE), (2, READ, WRITE)] {
        let range = &triad.launch.ranges[range];
        assert_eq!((range.touched(used), range.touched(other)), (subs.clone(), vec![]));
        assert_eq!((range.missing(READ), range.missing(WRITE)), (vec![], vec![]));
    }
    // A group that is not among the ids does not run.
    triad.launch.ranges[0].fill(&mut rig, &triad.before);
    assert_eq!(triad.round(&mut rig, &[3, 40]), Outcome::default());
    triad.check(&mut rig, |group| group == 3 || group == 40);
    assert_eq!(triad.launch.ranges[1].touched(READ), [3, 40]);
}

#[test]
fn what_is_absent_is_told_exactly_once_and_its_groups_store_nothing() {
    let mut rig = rig(6);
    let mut triad = Triad::new(&mut rig, 100);
    let (span, ranges) = (Arc::clone(&triad.launch.span), &triad.launch.ranges);
    // z: all there, every fifth not writable. x: every third absent. y: only the first block.
    ranges[0].map(&span, &rig, |_| true, |sub| sub % 5 != 0);
    ranges[1].map(&span, &rig, |sub| sub % 3 != 0, |_| false);
    ranges[2].map(&span, &rig, |sub| sub < 32, |_| false);
    let all: Vec<u32> = (0..Triad::GROUPS).collect();
    let outcome = triad.round(&mut rig, &all);
    let missed = |range: u32, group: u32| match range {
        0 => group % 5 == 0,
        1 => group % 3 == 0,
        _ => group >= 32,
    };
    let mut expected: Vec<[u32; 4]> = Vec::new();
    for range in 0..3 {
        let access = if range == 0 { WRITE } else { READ };
        let groups: Vec<u32> = (0..64).filter(|group| missed(range, *group)).collect();
        expected.extend(groups.iter().map(|group| [range, *group, *group, access]));
        let there = &triad.launch.ranges[range as usize];
        assert_eq!(there.missing(access), groups, "range {range}");
        assert_eq!(there.missing(BOTH - access), [], "range {range}");
        let touched: Vec<u32> = (0..64).filter(|group| !missed(range, *group)).collect();
        assert_eq!(there.touched(access), touched, "range {range}");
    }
    expected.sort_unstable();
    assert_eq!(outcome, Outcome { count: expected.len() as u32, outside: 0, misses: expected });
    let open: Vec<u32> = (0..64).filter(|group| (0..3).any(|range| missed(range, *group))).collect();
    assert_eq!(triad.launch.open(), open);
    triad.check(&mut rig, |group| !open.contains(&group));
    // The next round, of those alone, with all there, ends it.
    triad.launch.map_all(&rig);
    assert_eq!(triad.round(&mut rig, &open), Outcome::default());
    assert_eq!(triad.launch.open(), []);
    triad.check(&mut rig, |_| true);
}

#[test]
fn a_full_list_goes_on_counting_and_no_bit_is_lost() {
    let mut rig = rig(6);
    for capacity in [0, 7] {
        let mut triad = Triad::new(&mut rig, capacity);
        let all: Vec<u32> = (0..Triad::GROUPS).collect();
        for range in &triad.launch.ranges {
            range.map(&triad.launch.span, &rig, |_| false, |_| false);
        }
        let outcome = triad.round(&mut rig, &all);
        assert_eq!((outcome.count, outcome.misses.len(), outcome.outside), (192, capacity as usize, 0));
        for (range, access) in [(0, WRITE), (1, READ), (2, READ)] {
            assert_eq!(triad.launch.ranges[range].missing(access), all);
        }
        triad.check(&mut rig, |_| false);
    }
}

#[test]
fn what_no_range_has_is_counted_and_its_groups_store_nothing() {
    let mut rig = rig(6);
    let mut triad = Triad::new(&mut rig, 64);
    triad.launch.map_all(&rig);
    // One word more than there is: the last group asks for it three times, in 64 invocations.
    let end = triad.n;
    triad.n += 1;
    let outcome = triad.round(&mut rig, &[0, 63]);
    assert_eq!(outcome, Outcome { outside: 3 * 64, ..Outcome::default() });
    assert!(triad.launch.open().contains(&63) && !triad.launch.open().contains(&0));
    triad.n = end;
    triad.check(&mut rig, |group| group == 0);
    // So many that the sum would wrap: still outside.
    let push = [3.0_f32.to_bits(), u32::MAX];
    let kernel = Arc::clone(&triad.kernel);
    let outcome = triad.launch.round(&mut rig, &kernel, &push, &[0x3ffff], u32::MAX, [1, 1, 1]);
    assert_eq!(outcome.outside, 3 * 64);
    // A range that was given for reading.
    let push = [3.0_f32.to_bits(), triad.n];
    let mut ranges: Vec<Paged> = triad.launch.ranges.drain(..).collect();
    ranges[0].access = READ;
    let mut launch = Launch::new(&rig, [64, 1, 1], 0, ranges, 192, 64);
    for range in &launch.ranges {
        range.map(&launch.span, &rig, |_| true, |_| true);
    }
    let outcome = launch.round(&mut rig, &kernel, &push, &[1, 2], u32::MAX, [2, 1, 1]);
    assert_eq!(outcome, Outcome { outside: 2 * 64, ..Outcome::default() });
    assert_eq!(launch.open().len(), 64);
    triad.launch = launch;
    triad.check(&mut rig, |group| group == 0);
}

/// to[i] = source[index[i]]: 12 blocks of 2 MiB in disorder.
struct Gather {
    launch: Launch,
    kernel: Arc<VulkanKernel>,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Gather {
    const TILE: u32 = 8192;

    fn new(rig: &mut Rig, n: u32, blocks: u32, edit: impl FnOnce(&mut Vec<u32>)) -> Self {
        let words = blocks * BLOCK - 3;
        let each = (n * 4).div_ceil(BLOCK * 4);
        let place =
            |from: u32, count: u32| (0..count).rev().map(move |i| (from + i) * 32).collect::<Vec<_>>();
        let range =
            |words: u32, access, blocks: Vec<u32>| Paged::new(rig, u64::from(words) * 4, access, &blocks);
        let ranges = vec![
            range(n, WRITE, place(0, each)),
            range(n, READ, place(each, each)),
            range(words, READ, place(2 * each, blocks)),
        ];
        let (before, source) = (numbers(5, n), numbers(6, words));
        let mut index: Vec<u32> = numbers(7, n).into_iter().map(|x| x % words).collect();
        edit(&mut index);
        [&before, &index, &source].into_iter().zip(&ranges).for_each(|(words, range)| range.fill(rig, words));
        let look = |i: usize| source.get(index[i] as usize).copied().unwrap_or(before[i]);
        let after = (0..n as usize).map(look).collect();
        let kernel = kernel(rig, shipped!("paged_gather"));
        let frames = (2 * each + blocks) * 32;
        let launch = Launch::new(rig, [n.div_ceil(Self::TILE), 1, 1], Self::TILE, ranges, frames, 4096);
        Self { launch, kernel, before, after }
    }

    fn check(&self, rig: &mut Rig) {
        assert!(self.launch.ranges[0].read(rig) == self.after);
    }
}

#[test]
fn items_go_on_from_round_to_round_until_all_are_done() {
    let mut rig = rig(10);
    let n = 40 * Gather::TILE - 77;
    let mut gather = Gather::new(&mut rig, n, 6, |_| {});
    let kernel = Arc::clone(&gather.kernel);
    // An eighth of all sub-blocks at a time: no group of 8,192 random places would ever be whole.
    let rounds = gather.launch.run_at_random(&mut rig, &kernel, &[n], 160, 60);
    assert!(rounds > 3, "done after {rounds}: nothing was missed");
    // Those beyond the last element had nothing to do, and said so.
    assert_eq!(gather.launch.items(), n.next_multiple_of(8192));
    gather.check(&mut rig);
    assert_ne!(gather.before, gather.after);
}

#[test]
fn no_more_items_of_a_group_miss_than_the_host_lets() {
    let mut rig = rig(10);
    let n = 2 * Gather::TILE;
    let mut index = Vec::new();
    let mut gather = Gather::new(&mut rig, n, 6, |of| index.clone_from(of));
    let kernel = Arc::clone(&gather.kernel);
    gather.launch.map_all(&rig);
    gather.launch.ranges[2].map(&gather.launch.span, &rig, |_| false, |_| false);
    // Where the item of a group looks.
    let place = |group: u32, item: u32| {
        let element = item % 32 * 64 + item / 32;
        index[(group * Gather::TILE + element) as usize] / SUB
    };
    // None, one, up to the middle of a word, over words, all.
    for lanes in [0, 1, 40, 1000, Gather::TILE] {
        let outcome = gather.launch.round(&mut rig, &kernel, &[n], &[0, 1], lanes, [2, 1, 1]);
        let mut subs: Vec<u32> = (0..2)
            .flat_map(|group| (0..lanes).map(move |item| (group, item)))
            .map(|(g, i)| place(g, i))
            .collect();
        subs.sort_unstable();
        subs.dedup();
        assert_eq!(gather.launch.ranges[2].missing(READ), subs, "{lanes} items");
        assert_eq!((outcome.count as usize, outcome.outside), (subs.len(), 0));
        assert_eq!((gather.launch.open(), gather.launch.items()), (vec![0, 1], 0));
    }
    // What is found lets later ones begin; one each is sure.
    gather.launch.map_all(&rig);
    gather.launch.round(&mut rig, &kernel, &[n], &[0, 1], 1, [2, 1, 1]);
    assert!(gather.launch.items() >= 2);
    gather.launch.round(&mut rig, &kernel, &[n], &[0, 1], Gather::TILE, [2, 1, 1]);
    assert_eq!((gather.launch.open(), gather.launch.items()), (vec![], n));
    gather.check(&mut rig);
}

#[test]
fn runs_and_tiles_ask_for_just_their_sub_blocks_over_any_number_of_blocks() {
    let mut rig = rig(1);
    let gemm = kernel(&rig, shipped!("paged_gemm"));
    // Rows of B and C that lie closer together than a sub-block, then rows that lie further apart.
    for [m, n, k] in [[64, 32, 20_000], [64, 65_536 + 32, 4]] {
        let range = |words: u32, access| {
            Paged::new(&rig, u64::from(words) * 4, access, &vec![0; words.div_ceil(BLOCK) as usize])
        };
        let ranges = vec![range(m * n, WRITE), range(m * k, READ), range(k * n, READ)];
        let mut launch = Launch::new(&rig, [n / 32, 1, 1], 0, ranges, 32, 512);
        for range in &launch.ranges {
            range.map(&launch.span, &rig, |_| false, |_| false);
        }
        let outcome = launch.round(&mut rig, &gemm, &[m, n, k], &[0], u32::MAX, [1, 1, 1]);
        let subs = |rows: u32, apart: u32, count: u32| {
            let mut subs: Vec<u32> =
                (0..rows).flat_map(|row| row * apart / SUB..=(row * apart + count - 1) / SUB).collect();
            subs.dedup();
            subs
        };
        let expected = [(WRITE, subs(m, n, 32)), (READ, subs(m, k, k)), (READ, subs(k, n, 32))];
        for (range, (access, subs)) in launch.ranges.iter().zip(&expected) {
            assert_eq!(range.missing(*access), *subs, "{m} x {n} x {k}");
        }
        let all: usize = expected.iter().map(|(_, subs)| subs.len()).sum();
        assert_eq!((outcome.count as usize, outcome.misses.len(), outcome.outside), (all, all, 0));
    }
}

#[test]
fn nor_do_more_where_items_begin_one_by_one() {
    let mut rig = rig(4);
    let (n, slots) = (128_u32, 1_u32 << 18);
    let hash = |x: u32| {
        let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    };
    let ranges = vec![
        Paged::new(&rig, 512, WRITE, &[64]),
        Paged::new(&rig, 512, READ, &[96]),
        Paged::new(&rig, u64::from(slots) * 8, READ, &[32]),
    ];
    ranges[1].fill(&mut rig, &(0..n).collect::<Vec<_>>());
    let probe = kernel(&rig, shipped!("paged_hash_probe"));
    let mut launch = Launch::new(&rig, [2, 1, 1], 64, ranges, 128, 64);
    launch.map_all(&rig);
    launch.ranges[2].map(&launch.span, &rig, |_| false, |_| false);
    for lanes in [0, 1, 33, 64] {
        launch.round(&mut rig, &probe, &[n, slots], &[0, 1], lanes, [2, 1, 1]);
        let keys = (0..n).filter(|key| key % 64 < lanes);
        let mut subs: Vec<u32> = keys.map(|key| (hash(key) & (slots - 1)) / (SUB / 2)).collect();
        subs.sort_unstable();
        subs.dedup();
        assert_eq!(launch.ranges[2].missing(READ), subs, "{lanes} items");
        assert_eq!((launch.open(), launch.items()), (vec![0, 1], 0));
    }
}
