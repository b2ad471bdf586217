//! The hunt for one mutant: the driver plays seed after seed until an oracle has found it.

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A driver that is at work for longer has met a loop without a scheduling point.
const PATIENCE: Duration = Duration::from_secs(400);

/// Who found a mutant, and when.
#[derive(Clone)]
pub(crate) struct Found {
    /// The oracle.
    pub(crate) oracle: String,
    /// The seed that failed.
    pub(crate) seed: u64,
    /// What it said.
    pub(crate) text: String,
}

impl Found {
    /// Whether the application itself noticed: it read a wrong byte, or waited for ever.
    pub(crate) fn is_applications(&self) -> bool {
        self.oracle == "twin" || self.oracle == "liveness"
    }
}

/// Plays `seeds` in order with mutant `number` awake, until one fails. `deaf`: until twin or liveness fails one.
///
/// # Panics
/// If the driver cannot be run.
pub(crate) fn hunt(driver: &Path, number: usize, seeds: Range<u64>, deaf: bool) -> Option<Found> {
    let words = [number.to_string(), seeds.start.to_string(), seeds.end.to_string()];
    let mut command = Command::new(driver);
    command.args(words).args(deaf.then_some("deaf")).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", driver.display()));
    let start = Instant::now();
    let broken = |text: String| Some(Found { oracle: "none".to_owned(), seed: seeds.start, text });
    while child.try_wait().expect("a child can be waited for").is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return broken(format!("the driver was at it for {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("a child's output can be read");
    if !output.status.success() {
        return broken(format!("the driver ended with {}", output.status));
    }
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut fields = line.trim_end().splitn(3, '\t').map(str::to_owned);
    let (oracle, seed) = (fields.next().filter(|oracle| !oracle.is_empty())?, fields.next()?);
    let seed = seed.parse().expect("the driver prints a seed");
    Some(Found { oracle, seed, text: fields.next().unwrap_or_default() })
}
