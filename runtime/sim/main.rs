//! `vkhmm-sim`: plays the scene under seeds; `--help` says how. Exit status 1 if a run failed, 2 if it was called wrongly.

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vkhmm_sim::scene;
use vkhmm_sim::{Random, Run};

const HELP: &str = "vkhmm-sim: the production engine in a simulated world; a seed decides everything

  vkhmm-sim SEED                   replays one seed: the trace to stdout, a failure to stderr
  vkhmm-sim --seeds A..B           plays the seeds A to B-1; stops at the first that fails and names it
  vkhmm-sim --minutes N            plays fresh seeds, from the clock, for N minutes (may be a fraction)
      both together                plays from A on, until B or the end of the time
      --quiet                      says nothing but the failure
      --all                        does not stop at a failure: lists them all
  vkhmm-sim --long STEPS [SEED]    one world of at least so many scheduling decisions; prints the end of its trace
  vkhmm-sim --help

Exit status: 0 all runs were clean, 1 a run failed, 2 called wrongly.";

/// Lines of a long run's trace that are printed.
const TAIL: usize = 1000;

enum Task {
    Replay(u64),
    Long { decisions: u64, seed: u64 },
    Many { seeds: Range<u64>, time: Option<Duration>, quiet: bool, all: bool },
    Help,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match parse(&arguments) {
        Ok(Task::Help) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Task::Replay(seed)) => show(&scene::play(seed), usize::MAX),
        Ok(Task::Long { decisions, seed }) => {
            let (run, met) = scene::play_long(seed, decisions);
            let status = show(&run, TAIL);
            println!("{} decisions, {:.1} s of virtual time\n{met}", run.steps, run.time_ns as f64 / 1e9);
            status
        }
        Ok(Task::Many { seeds, time, quiet, all }) => many(seeds, time, quiet, all),
        Err(wrong) => {
            eprintln!("vkhmm-sim: {wrong}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Task, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number"));
    let (mut seeds, mut minutes, mut long, mut seed) = (None, None, None, None);
    let (mut quiet, mut all) = (false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Task::Help),
            "--quiet" => quiet = true,
            "--all" => all = true,
            "--long" => long = Some(number(value()?)?),
            "--minutes" => {
                let text = value()?;
                let wrong = || format!("`{text}` is no number of minutes");
                let n = text.parse::<f64>().map_err(|_| wrong())?;
                minutes = Some(Duration::try_from_secs_f64(n * 60.0).map_err(|_| wrong())?);
            }
            "--seeds" => {
                let text = value()?;
                let (from, to) = text.split_once("..").ok_or_else(|| format!("`{text}` is no range A..B"))?;
                seeds = Some(number(from)?..number(to)?);
            }
            other if other.starts_with('-') => return Err(format!("unknown option {other}")),
            text if seed.is_none() => seed = Some(number(text)?),
            text => return Err(format!("one seed is enough: {text}")),
        }
    }
    let many = seeds.is_some() || minutes.is_some();
    match (seed, long) {
        (seed, Some(decisions)) if !many => Ok(Task::Long { decisions, seed: seed.unwrap_or(1) }),
        (Some(seed), None) if !many => Ok(Task::Replay(seed)),
        (None, None) if many => {
            let first = || Random::new(clock()).below(1 << 40);
            let seeds = seeds.unwrap_or_else(|| first()..u64::MAX);
            Ok(Task::Many { seeds, time: minutes, quiet, all })
        }
        (None, None) => Err("what shall be played?".to_owned()),
        _ => Err("a seed, --long, or --seeds and --minutes: one of them".to_owned()),
    }
}

fn clock() -> u64 {
    // A clock before 1970 is as good a seed as any.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn show(run: &Run, lines: usize) -> ExitCode {
    for line in &run.trace[run.trace.len().saturating_sub(lines)..] {
        println!("{line}");
    }
    match &run.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("seed {} failed: {failure}", run.seed);
            ExitCode::FAILURE
        }
    }
}

fn many(seeds: Range<u64>, time: Option<Duration>, quiet: bool, all: bool) -> ExitCode {
    // A failed run says what happened; where in the code, its replay says.
    std::panic::set_hook(Box::new(|_| ()));
    let first = seeds.start;
    let played = scene::play_many(seeds, time, all);
    if !quiet {
        let (runs, decisions, rate) = (played.runs, played.decisions, played.rate());
        println!("{}", played.met);
        println!(
            "longest call when all was calm: {:.1} ms of virtual time",
            played.met.longest_ns() as f64 / 1e6
        );
        println!("seeds {first}..{}: {runs} runs, {decisions} decisions, {rate:.0} runs/s", played.end);
    }
    for run in &played.failed {
        let (seed, failure) = (run.seed, run.failure.as_deref().unwrap_or_default());
        eprintln!("seed {seed} failed: {failure}\nreplay: cargo run --release -p vkhmm-sim -- {seed}");
    }
    if played.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
