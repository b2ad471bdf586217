//! The host's constants: page-table work in runs of one block, fresh pages, bulk copies.

use crate::{BULK, Constant, GEOMETRY, median, nanoseconds, rate, timed};
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;
use vkhmm_core::units::{ByteRange, PageIndex, PageRun};
use vkhmm_linux::{LinuxExec, LinuxHost};
use vkhmm_port::{Access, CopyJob, Exec, HostMemory};

/// Blocks that each round works on, one call for each.
const BLOCKS: u32 = 32;

fn blocks() -> impl Iterator<Item = PageRun> {
    let count = GEOMETRY.pages_per_block;
    (0..BLOCKS).map(move |block| PageRun { first: PageIndex(u64::from(block * count)), count })
}

/// Measures page-table work and copies of this host.
///
/// # Errors
/// What the system refused.
pub(crate) fn measure(host: &Arc<LinuxHost>) -> Result<Vec<Constant>> {
    let pages = BLOCKS * GEOMETRY.pages_per_block;
    let (mut publish, mut revoke) = (Vec::new(), Vec::new());
    let populate = median(|| {
        for run in blocks() {
            host.punch(run)?;
        }
        timed(|| Ok(blocks().try_for_each(|run| host.populate(run))?))
    })?;
    median(|| {
        publish.push(timed(|| Ok(blocks().try_for_each(|run| host.publish(run, Access::ReadWrite))?))?);
        revoke.push(timed(|| Ok(blocks().try_for_each(|run| host.revoke(run))?))?);
        Ok(Duration::ZERO)
    })?;
    let middle = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let runs = format!("{BLOCKS} runs of 2 MiB");
    Ok(vec![
        nanoseconds("revoke_ns", middle(&mut revoke), pages, format!("HostMemory::revoke, {runs}")),
        nanoseconds("publish_ns", middle(&mut publish), pages, format!("HostMemory::publish, {runs}")),
        nanoseconds("populate_ns", populate, pages, format!("HostMemory::populate of holes, {runs}")),
        host_copy(host)?,
    ])
}

/// What the staging rings' copies reach: the runtime's own bulk copy, in jobs of a slot.
fn host_copy(host: &Arc<LinuxHost>) -> Result<Constant> {
    let exec = LinuxExec::new();
    let slot = GEOMETRY.block_bytes();
    let at = |start: u64| host.alias(ByteRange { start, end: start + slot });
    let starts = (0..BULK / slot).map(|i| i * slot);
    let jobs: Vec<CopyJob> = starts.map(|s| CopyJob { from: at(s), to: at(BULK + s) }).collect();
    let time = median(|| {
        timed(|| {
            exec.copy(&jobs);
            Ok(())
        })
    })?;
    Ok(rate("host_copy", BULK as f64, time, "Exec::copy of 64 MiB in slots of 2 MiB".into()))
}
