//! The link model: the same twice, every byte accounted for, never better than the optimum; the optimum against brute force; and
//! gates on what the engine moves, so that a worse policy fails here.

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, Output};
use std::sync::Arc;
use vkhmm_core::policy::{Adaptive, Plain};
use vkhmm_core::units::{ByteRange, Geometry};
use vkhmm_sim::Random;
use vkhmm_sim::model::table::Row;
use vkhmm_sim::model::traces::{self, LIMIT_MIN, Scale};
use vkhmm_sim::model::{
    Access, LinkModel, Optimum, Part, Placement, Step, Trace, Transfer, Way, play, presets,
};

const FRAME: u64 = Geometry::PRODUCTION.frame_bytes();

fn scale(ratio: f64, hints: bool) -> Scale {
    Scale { limit: LIMIT_MIN, ratio, rounds: 2, hints }
}

fn way(transfer: Transfer, placement: Placement) -> Way {
    Way { transfer, placement, policy: Arc::new(Adaptive) }
}

fn measure(
    model: &LinkModel,
    trace: &str,
    ratio: f64,
    hints: bool,
    transfer: Transfer,
    placement: Placement,
) -> Row {
    let recipe = traces::find(trace).expect("a known trace");
    Row::measure(model, recipe, &scale(ratio, hints), &way(transfer, placement))
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_trace_takes_the_same_nanoseconds() {
    for (trace, hints) in [("random", false), ("ping-pong", true)] {
        for (transfer, placement) in
            [(Transfer::Import, Placement::Span), (Transfer::Staging, Placement::Sparse)]
        {
            let run = || measure(&presets::PCIE4X16_A5000, trace, 1.5, hints, transfer, placement).outcome;
            assert_eq!(run(), run(), "{trace} by {transfer:?}");
        }
    }
}

/// Every machine, both ways to move bytes, all traces: what the device saw is what the engine counted, and nobody beats the
/// optimum in bytes or seconds.
#[test]
fn every_byte_is_accounted_for_and_nobody_beats_the_optimum() {
    for (i, recipe) in traces::ALL.iter().enumerate() {
        for (j, ratio) in [0.9, 1.5, 4.0].into_iter().enumerate() {
            // Each machine and each way meets every trace or size; the product would say no more.
            let model = presets::ALL[(i + j) % presets::ALL.len()];
            let transfer = if (i + j) % 3 == 2 { Transfer::Staging } else { Transfer::Import };
            for hints in [false, true].into_iter().take(1 + usize::from(recipe.hints)) {
                for placement in [Placement::Span, Placement::Sparse] {
                    let row = measure(&model, recipe.name, ratio, hints, transfer, placement);
                    let (stats, moved) = (row.outcome.stats, row.outcome.moved);
                    let what = format!(
                        "{} at {ratio}, hints {hints}, {transfer:?}, {placement:?}, {}",
                        recipe.name, model.name
                    );
                    assert_eq!(moved.bytes_in, stats.in_bytes(), "{what}: in");
                    assert_eq!(moved.bytes_out, stats.out_bytes(), "{what}: out");
                    assert_eq!(moved.bytes_moved, stats.moved_bytes, "{what}: moved");
                    assert_eq!(moved.bytes_filled, stats.zeroed_bytes, "{what}: filled");
                    assert_eq!((moved.kernels, moved.submits), (stats.launches, stats.submits), "{what}");
                    let (staged, direct) = (stats.path_staging_bytes, stats.path_import_bytes);
                    let by_path = staged + direct + stats.path_cpu_bytes;
                    assert_eq!(by_path, stats.in_bytes() + stats.out_bytes(), "{what}: by path");
                    assert!(transfer == Transfer::Import || direct == 0, "{what}: staging imports nothing");
                    assert!(stats.in_bytes() >= row.optimum.fetched, "{what}: fetches less than the optimum");
                    assert!(
                        stats.out_bytes() >= row.optimum.written_min,
                        "{what}: writes less than the bound"
                    );
                    assert!(row.optimum.written >= row.optimum.written_min, "{what}: the bound is a bound");
                    assert!(row.outcome.ns >= row.least_ns, "{what}: faster than the least time");
                    assert!(row.outcome.ns >= moved.kernel_ns, "{what}: faster than its kernels");
                    assert_eq!(moved.bytes_bound, stats.bound_bytes + stats.unbound_bytes, "{what}: bound");
                    let sparse = placement == Placement::Sparse;
                    assert!(
                        if sparse { stats.moved_bytes == 0 } else { stats.binds == 0 },
                        "{what}: neither"
                    );
                }
            }
        }
    }
}

/// What fits is fetched once and never moved but by what the CPU does; imports cost more than staging once, less ever after.
#[test]
fn what_fits_is_fetched_once() {
    for trace in ["gemm", "sweep", "stencil", "zipf", "layers", "stream"] {
        let row = measure(&presets::PCIE5X16_H200, trace, 0.9, false, Transfer::Import, Placement::Span);
        assert_eq!(row.outcome.stats.in_bytes(), row.optimum.fetched, "{trace}");
        assert_eq!(row.outcome.stats.out_bytes(), row.optimum.written_min, "{trace}");
        assert_eq!(row.outcome.stats.moved_bytes, 0, "{trace}");
    }
}

/// The goals at four rounds: fetched over Belady's optimum, written back over the least of any schedule that cannot drop changed
/// bytes, moved inside the device over fetched.
const GOALS: [f64; 3] = [1.15, 1.15, 0.01];

/// Where they are missed, what is reached instead, and why; a line that must rise is a worse policy. docs/MODEL.md says more.
const MISSED: [(&str, f64, [f64; 3], &str); 12] = [
    ("gemm", 1.5, [1.28, 4.05, 0.01], OVERLAPS),
    ("gemm", 4.0, [1.21, 2.75, 0.01], OVERLAPS),
    ("stencil", 1.5, [1.45, 4.0, 2.35], LEARNS),
    ("stencil", 4.0, [1.29, 1.46, 0.46], LEARNS),
    ("zipf", 1.5, [1.62, 3.1, 0.01], UNFORESEEN),
    ("zipf", 4.0, [1.60, 2.3, 0.01], UNFORESEEN),
    ("random", 1.5, [1.75, 4.0, 0.97], UNFORESEEN),
    ("random", 4.0, [1.70, 2.12, 0.27], UNFORESEEN),
    ("layers", 1.5, [1.23, 2.03, 0.01], OVERWRITTEN),
    ("layers", 4.0, [1.15, 1.37, 0.01], OVERWRITTEN),
    ("ping-pong", 0.9, [1.15, 1.25, 0.01], OVERSHOOTS),
    ("ping-pong", 1.5, [1.24, 1.65, 0.01], OVERSHOOTS),
];

const OVERWRITTEN: &str = "results that the next round overwrites unread go home when they are dropped: only the program knows, and may discard";
const OVERLAPS: &str = "frames of the last launches are spared so that copies run beside kernels; and results that the next round overwrites \
                        unread go home when they are dropped: only the program knows, and may discard";
const LEARNS: &str =
    "a two-round cycle is known in the third round; spans are cut where wants with halos begin and end";
const UNFORESEEN: &str = "nobody foresees it: of zipf, what knows each tensor's odds fetches 1.35 and 1.31";
const OVERSHOOTS: &str = "the last run of stores of a sweep takes home up to as much again";

#[test]
fn goals_are_met_but_where_a_reason_is_known() {
    let mut worse = Vec::new();
    for (recipe, ratio) in traces::ALL.iter().flat_map(|recipe| [0.9, 1.5, 4.0].map(|ratio| (recipe, ratio)))
    {
        let scale = Scale { rounds: 4, ..scale(ratio, false) };
        let row =
            Row::measure(&presets::PCIE5X16_H200, recipe, &scale, &way(Transfer::Import, Placement::Span))
                .unwrap_or_else(|error| panic!("{error}"));
        let (stats, optimum) = (row.outcome.stats, row.optimum);
        let over = |have: u64, least: u64| have as f64 / least.max(FRAME) as f64;
        let have = [
            over(stats.in_bytes(), optimum.fetched),
            over(stats.out_bytes(), optimum.written_blind),
            over(stats.moved_bytes, stats.in_bytes()),
        ];
        let missed = MISSED.iter().find(|(trace, at, ..)| *trace == recipe.name && *at == ratio);
        let (most, reason) = missed.map_or((GOALS, "no reason is known"), |(_, _, most, why)| (*most, *why));
        println!("{} at {ratio}: {have:.2?}, at most {most:?}", recipe.name);
        if have.iter().zip(most).any(|(have, most)| *have > most) {
            worse.push(format!("{} at {ratio}: {have:.3?}, at most {most:?} ({reason})", recipe.name));
        }
    }
    assert!(worse.is_empty(), "fetched, written back, moved, over their bounds:\n  {}", worse.join("\n  "));
}

/// 16 GiB through a device of 4, 64 times: nothing real holds a byte of it.
#[test]
fn a_tebibyte_is_fetched_to_the_byte() {
    let sweep = traces::find("sweep").expect("a known trace");
    let scale = Scale { limit: 4 << 30, ratio: 4.0, rounds: 64, hints: false };
    // The default policy keeps a part of it, and fetches only the rest.
    let way = Way { policy: Arc::new(Plain), ..way(Transfer::Import, Placement::Span) };
    let row = Row::measure(&presets::PCIE5X16_H200, sweep, &scale, &way).expect("it plays");
    assert_eq!((row.outcome.stats.in_bytes(), row.outcome.moved.bytes_in), (1 << 40, 1 << 40));
    println!("a tebibyte in {:.2} modelled seconds", row.outcome.ns as f64 / 1e9);
}

#[test]
fn a_slower_link_takes_longer_and_moves_little_else() {
    let fast = measure(&presets::PCIE5X16_H200, "zipf", 4.0, false, Transfer::Import, Placement::Span);
    let slow = LinkModel { h2d: 5e9, d2h: 5e9, ..presets::PCIE5X16_H200 };
    let slow = measure(&slow, "zipf", 4.0, false, Transfer::Import, Placement::Span);
    // Who is busy when room is needed depends on the link, and is spared.
    let (fast_in, slow_in) = (fast.outcome.stats.in_bytes(), slow.outcome.stats.in_bytes());
    assert!(fast_in.abs_diff(slow_in) * 20 < fast_in, "{fast_in} and {slow_in} bytes");
    assert!(slow.outcome.ns > 2 * fast.outcome.ns, "{} against {}", slow.outcome.ns, fast.outcome.ns);
}

// ── the optimum ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Pages as bits.
type Set = u16;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    device: Set,
    host: Set,
    exists: Set,
}

/// What one schedule has fetched and written back.
type Cost = (u64, u64);

fn subsets(of: Set) -> impl Iterator<Item = Set> {
    let mut next = Some(of);
    core::iter::from_fn(move || {
        let now = next?;
        next = (now > 0).then(|| (now - 1) & of);
        Some(now)
    })
}

/// All costs (fetches, write-backs) that some schedule reaches at the end and none beats in both.
fn brute_force(trace: &Trace, frames: u32) -> BTreeSet<Cost> {
    let mut starts = Vec::new();
    let (mut pages, mut filled) = (0, 0);
    for allocation in &trace.allocations {
        starts.push(pages);
        let count = (allocation.bytes / FRAME) as u32;
        if allocation.filled {
            filled |= ((1 << count) - 1) << pages;
        }
        pages += count;
    }
    let set = |part: &Part| -> Set {
        let run = (part.bytes.start / FRAME) as u32..(part.bytes.end / FRAME) as u32;
        run.fold(0, |set, page| set | 1 << (starts[part.allocation] + page))
    };
    let start = State { device: 0, host: filled, exists: filled };
    let mut states: HashMap<State, BTreeSet<Cost>> = HashMap::from([(start, BTreeSet::from([(0, 0)]))]);
    for step in &trace.steps {
        let mut after: HashMap<State, BTreeSet<Cost>> = HashMap::new();
        for (state, costs) in states {
            for (next, fetched, written) in moves(step, state, frames, &set) {
                let into = after.entry(next).or_default();
                into.extend(costs.iter().map(|(f, w)| (f + fetched, w + written)));
                let all: Vec<Cost> = into.iter().copied().collect();
                into.retain(|c| !all.iter().any(|o| o != c && o.0 <= c.0 && o.1 <= c.1));
            }
        }
        states = after;
    }
    let whole = |state: &State| state.exists & !(state.device | state.host) == 0;
    states.into_iter().filter(|(state, _)| whole(state)).flat_map(|(_, costs)| costs).collect()
}

/// Every state that one step can lead to, with what that fetches and writes back.
fn moves(step: &Step, state: State, frames: u32, set: &impl Fn(&Part) -> Set) -> Vec<(State, u64, u64)> {
    let mut out = Vec::new();
    match step {
        Step::Launch { uses, .. } => {
            let of = |wanted: &dyn Fn(Access) -> bool| -> Set {
                uses.iter().filter(|(_, a)| wanted(*a)).fold(0, |all, (part, _)| all | set(part))
            };
            let (all, stored) = (of(&|_| true), of(&Access::writes));
            let read = of(&|a| a != Access::Overwrite) & state.exists;
            for home in subsets(state.device & !state.host & state.exists) {
                for gone in subsets(state.device & !all) {
                    let device = (state.device & !gone) | all;
                    let host = state.host | home;
                    let fetch = read & !state.device;
                    if device.count_ones() > frames || fetch & !host != 0 {
                        continue;
                    }
                    let next = State { device, host: host & !stored, exists: state.exists | stored };
                    out.push((next, u64::from(fetch.count_ones()), u64::from(home.count_ones())));
                }
            }
        }
        Step::Touch { part, write } => {
            let part = set(part);
            let home = part & state.exists & !state.host;
            if home & !state.device == 0 {
                let mut next = State { host: state.host | home, ..state };
                if *write {
                    next = State {
                        device: next.device & !part,
                        host: next.host | part,
                        exists: next.exists | part,
                    };
                }
                out.push((next, 0, u64::from(home.count_ones())));
            }
        }
        Step::ToDevice(_) | Step::ToHost(_) => out.push((state, 0, 0)),
    }
    out
}

fn tiny_trace(random: &mut Random, frames: u64) -> Trace {
    let mut trace = Trace::new("tiny");
    for _ in 0..2 {
        let filled = !random.one_in(3);
        trace.alloc((1 + random.below(3)) * FRAME, filled);
    }
    let mut touched = [false; 6];
    for _ in 0..3 + random.below(6) {
        let part = |random: &mut Random, most: u64| {
            let allocation = random.below(2) as usize;
            let pages = trace.allocations[allocation].bytes / FRAME;
            let len = 1 + random.below(pages.min(most));
            let start = random.below(pages - len + 1);
            Part { allocation, bytes: ByteRange { start: start * FRAME, end: (start + len) * FRAME } }
        };
        if random.one_in(4) {
            let step = Step::Touch { part: part(random, 3), write: random.one_in(2) };
            trace.steps.push(step);
            continue;
        }
        let mut uses = Vec::new();
        for _ in 0..1 + random.below(2) {
            let access = [Access::Read, Access::Write, Access::Overwrite][random.below(3) as usize];
            uses.push((part(random, frames / 2), access));
        }
        // Memory without contents is stored to before it is read, as programs do.
        for (part, access) in &mut uses {
            let first = part.allocation * 3;
            let pages = (part.bytes.start / FRAME) as usize..(part.bytes.end / FRAME) as usize;
            let fresh = pages.clone().any(|page| !touched[first + page]);
            if fresh && !trace.allocations[part.allocation].filled {
                *access = Access::Overwrite;
            }
            pages.for_each(|page| touched[first + page] = true);
        }
        trace.launch(1.0, &uses);
    }
    trace
}

#[test]
fn the_optimum_agrees_with_brute_force() {
    let (mut dropped, mut tight) = (0, 0);
    for seed in 0..1_500 {
        let mut random = Random::new(seed);
        let frames = 2 + random.below(3);
        let trace = tiny_trace(&mut random, frames);
        if trace.check(frames * FRAME).is_err() {
            continue;
        }
        let reached = brute_force(&trace, frames as u32);
        let optimum = Optimum::of(&trace, frames * FRAME);
        let [fetched, written, bound] =
            [optimum.fetched, optimum.written, optimum.written_min].map(|bytes| bytes / FRAME);
        let least = |key: fn(&Cost) -> u64| reached.iter().map(key).min().expect("some schedule exists");
        let what = format!("seed {seed}, {frames} frames, {trace:?}: {optimum:?}, brute force {reached:?}");
        assert_eq!(fetched, least(|c| c.0), "fewest fetches: {what}");
        assert!(bound <= least(|c| c.1), "the bound of write-backs: {what}");
        assert!(reached.iter().any(|c| c.0 <= fetched && c.1 <= written), "not achieved: {what}");
        tight += u32::from(bound == least(|c| c.1));
        dropped += u32::from(least(|c| c.0 + c.1) > 0 && reached.len() > 1);
    }
    println!("{tight} bounds of write-backs were exact; {dropped} traces had a choice to make");
    assert!(dropped > 20, "the traces are too easy: {dropped}");
    assert!(tight > 1_000, "the bound is too weak: {tight}");
}

#[test]
fn a_cyclic_sweep_has_the_optimum_that_is_known() {
    // Ten pages in a circle through four frames: in the long run six of nine accesses miss.
    let mut trace = Trace::new("circle");
    let data = trace.alloc(10 * FRAME, true);
    for page in (0..91).flat_map(|_| 0..10) {
        let bytes = ByteRange { start: page * FRAME, end: (page + 1) * FRAME };
        trace.launch(1.0, &[(Part { allocation: data, bytes }, Access::Read)]);
    }
    let optimum = Optimum::of(&trace, 4 * FRAME);
    assert!(((10 + 600 - 4)..=(10 + 600)).contains(&(optimum.fetched / FRAME)), "{optimum:?}");
    assert_eq!((optimum.written, optimum.written_min), (0, 0));
}

// ── refusals, the command ────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_trace_that_cannot_be_played_is_refused_with_its_step() {
    let mut trace = Trace::new("odd");
    let data = trace.alloc(4 * FRAME, true);
    let part = |start, end| Part { allocation: data, bytes: ByteRange { start, end } };
    trace.launch(1.0, &[(part(0, 4 * FRAME), Access::Read)]);
    let error = |trace: &Trace, limit| {
        play(&presets::LAVAPIPE, &Arc::new(trace.clone()), limit, &way(Transfer::Import, Placement::Span))
            .expect_err("refused")
            .to_string()
    };
    assert!(error(&trace, 3 * FRAME).contains("step 0 of `odd` needs 262144 bytes at once"));
    trace.steps.push(Step::Touch { part: part(100, FRAME), write: false });
    assert!(error(&trace, 4 * FRAME).contains("step 1 of `odd` names"));
}

fn command(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vkhmm-model")).args(words).output().expect("the command runs")
}

#[test]
fn the_command_prints_rows_and_refuses_with_reasons() {
    let play =
        ["--model", "slow-link", "--trace", "sweep", "--ratio", "1.5", "--rounds", "1", "--limit", "64MiB"];
    let table = command(&play);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(table.status.success() && text.contains("class M") && text.contains("| sweep "), "{text}");
    let json = command(&[&play[..], &["--json"]].concat());
    let text = String::from_utf8_lossy(&json.stdout);
    assert!(text.starts_with("{\"bench\":\"model\",\"class\":\"M\",\"model\":\"slow-link\""), "{text}");
    assert_eq!(text.lines().count(), 2, "a row for each placement: {text}");
    let sparse = command(&[&play[..], &["--json", "--placement", "sparse"]].concat());
    assert_eq!(text.lines().nth(1), Some(String::from_utf8_lossy(&sparse.stdout).trim_end()));
    for (words, say) in [
        (&[][..], "--model is missing: one of lavapipe"),
        (&["--model", "abacus"], "no machine is called \"abacus\""),
        (&["--model", "slow-link", "--trace", "poem"], "no trace is called \"poem\""),
        (&["--model", "slow-link", "--placement", "heap"], "no placement is called \"heap\""),
        (&["--model", "slow-link", "--limit", "1MiB"], "at least 64 MiB"),
        (&["--model", "slow-link", "--ratio", "-1"], "is no ratio"),
        (&["--model"], "--model needs a value"),
        (&["--fast"], "\"--fast\" is no option"),
    ] {
        let output = command(words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(say), "{words:?}: {text}");
    }
    let listed = command(&["--list"]);
    let text = String::from_utf8_lossy(&listed.stdout);
    assert!(presets::ALL.iter().all(|m| text.contains(m.name)), "{text}");
    assert!(traces::ALL.iter().all(|t| text.contains(t.name)), "{text}");
}
