//! What the examples share: how they fail, sizes on the command line, numbers for tests; and their algorithms, so that the demo
//! runs the same code.

pub(crate) mod blocked;
pub(crate) mod graph;
pub(crate) mod memory;
pub(crate) mod neighbours;
pub(crate) mod network;
pub(crate) mod npy;
pub(crate) mod picture;
pub(crate) mod planes;
pub(crate) mod plate;
pub(crate) mod product;
pub(crate) mod scene;
pub(crate) mod source;
pub(crate) mod sparse;
pub(crate) mod stack;
pub(crate) mod tiles;
pub(crate) mod triangle;

use std::io::Write as _;
use std::process::ExitCode;
use vkhmm::{Managed, PlacementKind, Pod, Runtime};

/// Why a run ends without an answer, or with a wrong one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the user gave cannot be used: exit code 2, as for a wrong command line.
    Input(anyhow::Error),
    /// Anything else, a wrong answer among it: exit code 1.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<vkhmm::Error> for Failure {
    fn from(error: vkhmm::Error) -> Self {
        Self::Other(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// Says what went wrong, on stderr, and how the program ends.
pub(crate) fn exit(program: &str, result: Result<(), Failure>) -> ExitCode {
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Input(error)) => (error, 2),
        Err(Failure::Other(error)) => (error, 1),
    };
    eprintln!("{program}: {error:#}");
    ExitCode::from(code)
}

/// A runtime with that much device memory. A limit that no runtime can have is the user's mistake.
pub(crate) fn runtime(limit: u64) -> Result<Runtime, Failure> {
    built(Runtime::builder().device_memory_limit(limit))
}

/// The same, of anything that can be set.
pub(crate) fn built(builder: vkhmm::Builder) -> Result<Runtime, Failure> {
    builder.build().map_err(|error| match error {
        vkhmm::Error::Setting { .. } => Failure::Input(error.into()),
        other => other.into(),
    })
}

/// Reads a size such as `64MiB`, `1GiB` or `65536`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let shift = match &text[digits..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("a size is a whole number of bytes, or one with KiB, MiB or GiB".into()),
    };
    let number: u64 = text[..digits].parse().map_err(|_| "a size starts with a whole number".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "no size is that large".into())
}

/// Prints a report. A reader that has seen enough (`| head`) is no failure.
pub(crate) fn print(report: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{report}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Bytes, for people.
pub(crate) fn amount(bytes: u64) -> String {
    let unit = ["B", "KiB", "MiB", "GiB"].iter().zip([0, 10, 20, 30]);
    match unit.rev().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) if shift > 0 => format!("{:.1} {unit}", bytes as f64 / f64::from(1 << shift)),
        _ => format!("{bytes} B"),
    }
}

/// The name of the device in use, and whether it is a software device (whose times say little).
pub(crate) fn device(rt: &Runtime) -> (String, bool) {
    let report = &rt.doctor().device;
    let chosen = &report.candidates[report.chosen];
    (chosen.name.clone(), chosen.kind == "software")
}

/// Whether kernels work on the host's own bytes, so that nothing has to move: integrated devices. Asked after a launch.
pub(crate) fn in_place<T: Pod>(array: &Managed<T>) -> bool {
    array.placement().kind == PlacementKind::InPlace
}

/// A small generator of numbers: the same seed, the same numbers, everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits: a counter in steps of an odd constant, its bits mixed (the scheme called SplitMix).
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 up to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Below `n`, which is not zero.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}
