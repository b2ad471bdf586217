//! How much device memory a program takes, and what it says of the bytes that moved: `--memory-limit`, `--over`, `--stats`.

use super::{Failure, amount, size};
use anyhow::ensure;
use vkhmm::{PlacementKind, Runtime, Stats};

/// The options that the programs share.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Memory {
    /// Most device memory to use [default: so much that the data is --over times larger]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_limit: Option<u64>,
    /// How many times larger the data is than the device memory
    #[arg(long, value_name = "TIMES", default_value_t = 4.0, conflicts_with = "memory_limit")]
    over: f64,
    /// Prints all counters, too
    #[arg(long)]
    stats: bool,
}

impl Memory {
    /// A runtime for data of so many bytes, in whole granules of 64 KiB.
    pub(crate) fn runtime(&self, bytes: u64) -> Result<Runtime, Failure> {
        let over = self.over;
        let limit = (|| {
            ensure!(over.is_finite() && over > 0.0, "--over {over}: a positive number");
            // Room for a granule of two arrays, however small they are.
            let share = ((bytes as f64 / over) as u64 / 65536 * 65536).max(2 * 65536);
            Ok(self.memory_limit.unwrap_or(share))
        })();
        // Small arrays are not used in place, but move as all others do: so that all bytes are counted.
        super::built(Runtime::builder().device_memory_limit(limit.map_err(Failure::Input)?).in_place_bytes(0))
    }

    /// The counters, for whoever asked for them.
    pub(crate) fn print(&self, moved: &Stats) -> Result<(), Failure> {
        if self.stats { super::print(&moved.to_string()) } else { Ok(()) }
    }
}

/// The device, and the data beside its memory: the first lines of a report.
pub(crate) fn head(rt: &Runtime, data: &str, bytes: u64) -> String {
    let (device, software) = super::device(rt);
    let note = if software { " (a software device: its times say little)" } else { "" };
    let limit = rt.device_memory().0;
    let over = bytes as f64 / limit as f64;
    format!(
        "data       {data}: {}, {over:.1} times the {} of device memory\ndevice     {device}{note}",
        amount(bytes),
        amount(limit)
    )
}

/// What moved, both ways, over what cannot be saved.
pub(crate) fn times(moved: &Stats, bound: u64) -> f64 {
    (moved.in_bytes() + moved.out_bytes()) as f64 / bound.max(1) as f64
}

/// The line about what moved: against the least, and why no run can do with less.
pub(crate) fn moved(moved: &Stats, kind: PlacementKind, bound: u64, why: &str) -> String {
    let (to, home) = (amount(moved.in_bytes()), amount(moved.out_bytes()));
    if kind == PlacementKind::InPlace {
        return format!("moved      {to} in, {home} home: kernels work on the host's own bytes");
    }
    let times = times(moved, bound);
    format!(
        "moved      {to} in, {home} home: {times:.2} times the least, {}\nleast      {why}",
        amount(bound)
    )
}
