//! Paged launches on the link model: the same twice, nobody beats the bound, and gates on rounds, bytes and modelled seconds, so that a
//! worse planner fails here.

use std::process::Command;
use std::sync::Arc;
use vkhmm_core::policy::Adaptive;
use vkhmm_sim::model::paged::Row;
use vkhmm_sim::model::traces::LIMIT_MIN;
use vkhmm_sim::model::{LinkModel, PROGRAMS, Placement, Program, Transfer, Way, presets};

fn measure(model: &LinkModel, program: Program, ratio: f64, placement: Placement) -> Row {
    let way = Way { transfer: Transfer::Import, placement, policy: Arc::new(Adaptive) };
    Row::measure(model, program, ratio, LIMIT_MIN, &way).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_launch_takes_the_same_nanoseconds() {
    let run = || {
        let row = measure(&presets::PCIE4X16_A5000, Program::Gather, 1.5, Placement::Sparse);
        (row.run, row.fits)
    };
    assert_eq!(run(), run());
}

/// At 1, 2 and 4 times the memory: most rounds; group runs over groups; bytes moved over bytes needed; time over the time where all
/// fits, of the first launch and of the next; time of the next launch alone over the least that link and kernel take. What is reached, and
/// a little room.
const GATES: [(Program, f64, [f64; 6]); 9] = [
    (Program::Triad, 1.0, [2.0, 1.15, 1.0, 1.0, 1.0, 1.0]),
    (Program::Triad, 2.0, [4.0, 1.15, 1.0, 1.1, 1.6, 2.5]),
    (Program::Triad, 4.0, [8.0, 1.15, 1.0, 1.1, 1.65, 2.5]),
    (Program::Gemm, 1.0, [12.0, 2.05, 1.0, 1.0, 1.0, 2.0]),
    (Program::Gemm, 2.0, [16.0, 2.05, 1.0, 1.1, 1.4, 4.0]),
    (Program::Gemm, 4.0, [26.0, 2.05, 1.0, 1.1, 1.4, 4.0]),
    (Program::Gather, 1.0, [4.0, 2.2, 1.0, 1.0, 1.0, 1.0]),
    (Program::Gather, 2.0, [6.0, 4.2, 1.0, 1.1, 2.3, 1.3]),
    (Program::Gather, 4.0, [16.0, 8.0, 2.1, 1.3, 4.0, 2.6]),
];

#[test]
fn rounds_bytes_and_times_stay_what_they_are() {
    let mut worse = Vec::new();
    for (program, ratio, most) in GATES {
        let row = measure(&presets::PCIE5X16_H200, program, ratio, Placement::Span);
        let [first, next] = row.fits_ratio();
        let rounds = row.run.paging.rounds as f64;
        let have = [rounds, row.runs(), row.moved_ratio(), first, next, row.bound_ratio()];
        println!(
            "{} at {ratio}: {have:.3?}, at most {most:?}; against resident {:.2?}",
            program.name(),
            row.resident_ratio()
        );
        if have.iter().zip(most).any(|(have, most)| *have > most) {
            worse.push(format!("{} at {ratio}: {have:.3?}, at most {most:?}", program.name()));
        }
    }
    assert!(worse.is_empty(), "rounds, runs, moved, first, next, over the bound:\n  {}", worse.join("\n  "));
}

#[test]
fn nobody_moves_less_than_is_needed_or_beats_its_kernel_and_link() {
    // Every machine, and both ways to place; the product would say no more.
    for (i, model) in presets::ALL.iter().enumerate() {
        let program = PROGRAMS[i % 3];
        let placement = [Placement::Span, Placement::Sparse][i % 2];
        for ratio in [1.0, 2.0] {
            let row = measure(model, program, ratio, placement);
            let what = format!("{} at {ratio}, {placement:?}, {}", program.name(), model.name);
            assert!(row.run.bytes[0] >= row.needed[0], "{what}: fetched {:?}, {:?}", row.run, row.needed);
            assert!(row.run.bytes[1] >= row.needed[1], "{what}: written {:?}, {:?}", row.run, row.needed);
            assert!(
                row.run.ns >= row.bound_ns && row.fits.ns >= row.bound_ns,
                "{what}: faster than possible"
            );
            assert!(row.fits.again_launch_ns >= row.kernel_ns, "{what}: faster than its kernel");
            assert!(row.run.launch_ns < row.run.ns, "{what}: results came home in no time");
        }
    }
}

#[test]
fn the_command_prints_a_row_for_each_kernel() {
    let words =
        ["--model", "slow-link", "--paged", "--limit", "64MiB", "--ratio", "1", "--placement", "span"];
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vkhmm-model")).args(words).args(more).output();
        let output = output.expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let (table, json) = (run(&[]), run(&["--json"]));
    for program in PROGRAMS {
        assert!(table.contains(&format!("| {}", program.name())), "{table}");
        assert!(json.contains(&format!("\"kernel\":\"{}\"", program.name())), "{json}");
    }
    assert!(table.contains("class M") && json.starts_with("{\"bench\":\"model-paged\",\"class\":\"M\""));
}
