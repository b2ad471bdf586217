//! What the engine is doing right now, for people who see it wait: operations, queues, threads, blocks that are not quiet. Locks are
//! only tried, so a report may be asked for at any moment, also when everything hangs; what somebody holds is said to be busy.

use crate::range::RangeCell;
use crate::{Engine, Ports};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use vkhmm_core::block::Block;
use vkhmm_core::mask::PageMask;
use vkhmm_port::{Exec, Mutex};

/// Where a thread of ours, or of the application in a call, may be for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Turn,
    Admission,
    Paged,
    EmptyQueue,
    Eviction,
    Operation,
    Home,
    SlotIn,
    SlotOut,
    Device,
    Landing,
    Loss,
    Touches,
}

impl Place {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Turn, "wait for their turn to be admitted"),
        (Self::Admission, "are being admitted, or wait for room"),
        (Self::Paged, "wait until a paged launch is over, to be admitted"),
        (Self::EmptyQueue, "wait until every admitted request is submitted, to evict"),
        (Self::Eviction, "evict"),
        (Self::Operation, "wait for an operation"),
        (Self::Home, "bring bytes home"),
        (Self::SlotIn, "wait for an inward staging slot (vkhmm-submit)"),
        (Self::SlotOut, "wait for an outward staging slot (vkhmm-submit)"),
        (Self::Device, "wait for the device (vkhmm-complete)"),
        (Self::Landing, "end what the device has done (vkhmm-complete)"),
        (Self::Loss, "settle the loss (vkhmm-complete)"),
        (Self::Touches, "read touches (vkhmm-fault)"),
    ];
}

/// How many threads are where.
#[derive(Default)]
pub(crate) struct Places {
    counts: [AtomicU32; Place::ALL.len()],
    /// Ranges with a parked touch.
    pub(crate) parked_ranges: AtomicU32,
    /// When the last touch that was reported for its long wait was parked.
    told_parked: AtomicU64,
}

/// A thread is there until this is dropped.
pub(crate) struct At<'a>(&'a AtomicU32);

impl Drop for At<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    #[must_use]
    pub(crate) fn enter(&self, place: Place) -> At<'_> {
        let count = &self.counts[place as usize];
        count.fetch_add(1, Ordering::Relaxed);
        At(count)
    }
}

/// Lines about one kind of thing; a program may have millions.
const LINES_MAX: usize = 60;
/// Runs of pages shown of one mask.
const RUNS_MAX: usize = 6;

impl<P: Ports> Engine<P> {
    /// Everything that is open: operations with their status, tickets and age, queues, staging slots, who is in which call, and
    /// every block that an operation, a guard or a parked touch uses. Takes no lock that anybody holds, and never blocks.
    pub fn report(&self) -> String {
        let mut out = String::new();
        let now = self.exec.now();
        // Writing to a String cannot fail.
        let _ = self.report_queues(&mut out, now);
        let _ = self.report_acquires(&mut out, now);
        let _ = self.report_ops(&mut out, now);
        let _ = self.report_ranges(&mut out, now);
        out
    }

    fn report_queues(&self, out: &mut String, now: u64) -> core::fmt::Result {
        if self.lost.load(Ordering::Acquire) {
            let cause = self.loss.try_lock().and_then(|story| story.clone());
            writeln!(out, "the device is lost: {}", cause.as_deref().unwrap_or("(busy)"))?;
        }
        if self.stopping.load(Ordering::Acquire) {
            writeln!(out, "the runtime is being dropped")?;
        }
        match self.turns.try_lock() {
            Some(turns) => writeln!(out, "admission: {}", *turns)?,
            None => writeln!(out, "admission: busy")?,
        }
        match self.submit.try_lock() {
            Some(submit) => writeln!(out, "submission: {}", submit.describe(now))?,
            None => writeln!(out, "submission: busy")?,
        }
        let completed = self.completed.try_lock().map(|uses| *uses);
        match self.flights.try_lock() {
            Some(flights) => {
                for (timeline, lane) in flights.lanes.iter().enumerate() {
                    let (Some(first), Some(last)) = (lane.front(), lane.back()) else { continue };
                    let done = completed.map(|uses| uses.on(first.ticket.timeline));
                    writeln!(
                        out,
                        "timeline {timeline}: {} in flight, tickets {} to {}, reached {done:?}",
                        lane.len(),
                        first.ticket.value,
                        last.ticket.value
                    )?;
                }
            }
            None => writeln!(out, "flights: busy")?,
        }
        match self.slots.try_lock() {
            Some(slots) => writeln!(
                out,
                "staging slots: {} in and {} out are free; {} copies home wait for one",
                slots.free_in.len(),
                slots.free_out.len(),
                slots.homes.len()
            )?,
            None => writeln!(out, "staging slots: busy")?,
        }
        match self.fences.try_lock().map(|fences| fences.waiting.len()) {
            Some(0) => {}
            Some(waiting) => writeln!(out, "fences: {waiting} copies home wait for the last writers")?,
            None => writeln!(out, "fences: busy")?,
        }
        for (place, what) in Place::ALL {
            let count = self.places.counts[place as usize].load(Ordering::Relaxed);
            if count > 0 {
                writeln!(out, "threads: {count} {what}")?;
            }
        }
        Ok(())
    }

    fn report_acquires(&self, out: &mut String, now: u64) -> core::fmt::Result {
        let Some(ops) = self.ops.try_lock() else { return Ok(()) };
        let open: Vec<_> = ops.values().filter(|op| op.is_open()).cloned().collect();
        drop(ops);
        for op in open.iter().take(LINES_MAX) {
            writeln!(
                out,
                "acquired and not released: #{} `{}`, for {:.3} s",
                op.id.0,
                op.label,
                age(now, op.since)
            )?;
        }
        more(out, open.len())
    }

    fn report_ops(&self, out: &mut String, now: u64) -> core::fmt::Result {
        let Some(ops) = self.ops.try_lock().map(|table| table.values().cloned().collect::<Vec<_>>()) else {
            return writeln!(out, "operations: busy");
        };
        writeln!(out, "operations: {} open", ops.len())?;
        for op in ops.iter().take(LINES_MAX) {
            let age = age(now, op.since);
            write!(out, "  #{} `{}` {:?}, open for {age:.3} s", op.id.0, op.label, op.status())?;
            if let Some(paging) = op.try_paging() {
                let (rounds, runs, groups) = (paging.rounds, paging.group_runs, paging.groups);
                write!(out, ", paged: {rounds} rounds of {runs} groups in all for {groups}")?;
            }
            match op.try_uses() {
                Some(uses) if uses.is_none() => writeln!(out, ", no ticket yet")?,
                Some(uses) => {
                    write!(out, ", tickets")?;
                    for ticket in uses.iter() {
                        write!(out, " {}:{}", ticket.timeline.0, ticket.value)?;
                    }
                    writeln!(out)?;
                }
                None => writeln!(out, ", busy")?,
            }
        }
        more(out, ops.len())
    }

    fn report_ranges(&self, out: &mut String, now: u64) -> core::fmt::Result {
        let Some(ranges) = self.space.try_lock().map(|space| space.all()) else {
            return writeln!(out, "ranges: busy");
        };
        writeln!(out, "ranges: {}", ranges.len())?;
        let mut lines = 0;
        for range in &ranges {
            let since = range.parked_since.load(Ordering::Acquire);
            if since > 0 {
                writeln!(out, "  `{}`: a touch waits for {:.3} s", range.label, age(now, since))?;
            }
            if range.is_dead() {
                writeln!(out, "  `{}` is dropped and not reclaimed yet", range.label)?;
            }
            match range.gate.try_lock() {
                Some(gate) if gate.deciding > 0 || gate.awaited => writeln!(
                    out,
                    "  `{}`: {} launches between decision and submit, awaited: {}, by blocks {:?}",
                    range.label, gate.deciding, gate.awaited, gate.waiting
                )?,
                Some(_) => {}
                None => writeln!(out, "  `{}`: its gate is busy", range.label)?,
            }
            for index in 0..range.block_count() {
                let before = out.len();
                if lines < LINES_MAX {
                    self.report_block(out, range, index)?;
                }
                lines += usize::from(out.len() > before);
            }
        }
        more(out, if lines < LINES_MAX { 0 } else { LINES_MAX + 1 })
    }

    /// One line, if anything uses the block.
    fn report_block(&self, out: &mut String, range: &RangeCell<P>, index: u32) -> core::fmt::Result {
        let Some(block) = range.blocks[index as usize].try_lock() else {
            return writeln!(out, "  `{}` block {index}: busy", range.label);
        };
        let (reads, writes) = block.parked();
        if block.is_idle() && (reads | writes).is_empty() {
            return Ok(());
        }
        write!(out, "  `{}` block {index} ({}):", range.label, Locations(&block))?;
        for hold in block.holds() {
            write!(out, " #{} holds {} {:?};", hold.op.0, Pages(hold.mask), hold.kind)?;
        }
        for hold in block.paged_holds() {
            write!(out, " #{} pages {} {:?};", hold.op.0, Pages(hold.mask), hold.kind)?;
        }
        for transfer in block.transfers() {
            write!(
                out,
                " #{} brings {} home for {:?};",
                transfer.op.0,
                Pages(transfer.mask),
                transfer.cause
            )?;
        }
        for (what, mask) in
            [("guarded", block.pinned()), ("parked loads on", reads), ("parked stores on", writes)]
        {
            if !mask.is_empty() {
                write!(out, " {what} {};", Pages(mask))?;
            }
        }
        writeln!(out)
    }

    /// Says, once per touch, that one is parked for longer than the watchdog allows (I6). For a thread that is idle.
    pub(crate) fn watch_parked(&self) {
        if self.places.parked_ranges.load(Ordering::Acquire) == 0 {
            return;
        }
        let Some(ranges) = self.space.try_lock().map(|space| space.all()) else { return };
        let (now, told) = (self.exec.now(), self.places.told_parked.load(Ordering::Acquire));
        let limit = self.config.watchdog.as_nanos() as u64;
        let late = ranges.iter().find_map(|range| {
            let since = range.parked_since.load(Ordering::Acquire);
            let late = since > told && now.saturating_sub(since) >= limit;
            // Whoever published for another reason may have answered it.
            let parked = |block: &<P::Exec as Exec>::Mutex<Block>| {
                block.try_lock().is_some_and(|block| !(block.parked().0 | block.parked().1).is_empty())
            };
            (late && range.blocks.iter().any(parked)).then_some((range, since))
        });
        let Some((range, since)) = late else { return };
        let by = range.blocks.iter().find_map(|block| self.acquirer_of_parked(&*block.try_lock()?));
        let by = by.map_or_else(String::new, |by| alloc::format!(", acquired by `{by}`,"));
        if self.places.told_parked.fetch_max(since, Ordering::AcqRel) < since {
            let (label, waited) = (&range.label, age(now, since));
            self.exec
                .report(format_args!("a touch of `{label}`{by} waits for {waited:.1} s\n{}", self.report()));
        }
    }
}

fn age(now: u64, since: u64) -> f64 {
    now.saturating_sub(since) as f64 / 1e9
}

fn more(out: &mut String, count: usize) -> core::fmt::Result {
    if count > LINES_MAX { writeln!(out, "  … and more") } else { Ok(()) }
}

/// Pages as runs: `0..16 20..21`.
struct Pages(PageMask);

impl core::fmt::Display for Pages {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut runs = self.0.runs();
        f.write_str("pages")?;
        for run in runs.by_ref().take(RUNS_MAX) {
            write!(f, " {}..{}", run.start, run.end)?;
        }
        if runs.next().is_some() { write!(f, " … ({} in all)", self.0.count()) } else { Ok(()) }
    }
}

/// How many pages are where.
struct Locations<'a>(&'a Block);

impl core::fmt::Display for Locations<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let block = self.0;
        let shared = block.host_valid() & block.device_valid();
        let counts = [
            ("absent", block.absent()),
            ("on the host", block.host_valid().minus(&shared)),
            ("shared", shared),
            ("on the device", block.dirty()),
            ("lost", block.lost()),
        ];
        let shown: Vec<_> = counts.into_iter().filter(|(_, mask)| !mask.is_empty()).collect();
        for (i, (what, mask)) in shown.iter().enumerate() {
            write!(f, "{}{} {what}", if i == 0 { "" } else { ", " }, mask.count())?;
        }
        Ok(())
    }
}
