//! A submission's commands, checked against the port's contract and resolved to bytes.

use super::device::{Memory, Shared, State};
use super::memory::Bytes;
use super::sparse::{Binding, Change, Place};
use super::{FakeDevice, FakeKernel};
use crate::{
    Bind, BoundRange, Command, CopyJob, Direction, Exec, RawBytes, Region, Source, Submission, Target,
};
use core::sync::atomic::AtomicU64;
use std::sync::Arc;

/// One thing to do.
pub(super) enum Step {
    Copy(Vec<CopyJob>),
    Fill {
        to: RawBytes,
        word: u32,
    },
    Bind(Vec<Change>),
    Run {
        kernel: FakeKernel,
        bindings: Vec<Binding>,
        /// What earlier commands write, with no barrier since: what a sparse binding shows is known when it runs.
        unordered: Vec<RawBytes>,
        push: Vec<u8>,
        groups: [u32; 3],
        elapsed_ns: Arc<AtomicU64>,
    },
}

/// What a submission adds to the counters.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) barriers: u64,
    pub(super) dispatches: u64,
}

/// What happened since the last barrier. On a real device commands between barriers overlap in time.
#[derive(Default)]
struct Hazards {
    written: Vec<RawBytes>,
    read: Vec<RawBytes>,
}

impl Hazards {
    fn reads(&mut self, what: &str, span: RawBytes) {
        assert!(
            !hits(&self.written, span),
            "{what} reads what an earlier command writes, with no barrier between them"
        );
        self.read.push(span);
    }

    fn writes(&mut self, what: &str, span: RawBytes) {
        let clash = hits(&self.written, span) || hits(&self.read, span);
        assert!(!clash, "{what} writes what an earlier command uses, with no barrier between them");
        self.written.push(span);
    }
}

pub(super) fn hits(spans: &[RawBytes], span: RawBytes) -> bool {
    let (start, end) = (span.as_ptr() as usize, span.as_ptr() as usize + span.len());
    spans.iter().any(|s| (s.as_ptr() as usize) < end && start < s.as_ptr() as usize + s.len())
}

/// Resolves `submission`. The caller keeps its commands until the steps are done; pieces are kept by the steps' own handles.
///
/// # Panics
/// If a command breaks the contract: too many regions, bytes outside a piece, slot or import, or a missing barrier.
pub(super) fn resolve<X: Exec>(
    shared: &Shared<X>,
    state: &State,
    submission: &Submission<FakeDevice<X>>,
) -> (Vec<Step>, Vec<Arc<Bytes>>, Tally) {
    let mut pieces = Vec::new();
    let mut frames = |offset, bytes| {
        let (span, piece) = state.frames(shared.geometry, offset, bytes);
        pieces.push(piece);
        span
    };
    let (mut steps, mut tally, mut hazards) = (Vec::new(), Tally::default(), Hazards::default());
    // Where the steps since the last barrier begin.
    let mut since = 0;
    let turn = |steps: &mut [Step]| {
        if shared.options.reversed {
            steps.reverse();
        }
    };
    let count = |regions: &[Region]| {
        let max = shared.options.regions_max as usize;
        assert!(
            !regions.is_empty() && regions.len() <= max,
            "{} regions in one copy, 1..={max} allowed",
            regions.len()
        );
    };
    for command in &submission.commands {
        match command {
            Command::CopyIn { source, regions } => {
                count(regions);
                let host = match source {
                    Source::Import(import) => import.bytes,
                    Source::Slot(slot) => shared.slot(Direction::In, *slot),
                };
                let jobs: Vec<_> = regions
                    .iter()
                    .map(|r| CopyJob {
                        from: host.slice(r.host_offset as usize, r.bytes as usize),
                        to: frames(r.device_offset, r.bytes),
                    })
                    .collect();
                jobs.iter().for_each(|j| hazards.writes("CopyIn", j.to));
                tally.bytes_in += regions.iter().map(|r| r.bytes).sum::<u64>();
                steps.push(Step::Copy(jobs));
            }
            Command::CopyOut { target, regions } => {
                count(regions);
                let host = match target {
                    Target::Import(import) => import.bytes,
                    Target::Slot(slot) => shared.slot(Direction::Out, *slot),
                };
                let jobs: Vec<_> = regions
                    .iter()
                    .map(|r| CopyJob {
                        from: frames(r.device_offset, r.bytes),
                        to: host.slice(r.host_offset as usize, r.bytes as usize),
                    })
                    .collect();
                jobs.iter().for_each(|j| hazards.reads("CopyOut", j.from));
                tally.bytes_out += regions.iter().map(|r| r.bytes).sum::<u64>();
                steps.push(Step::Copy(jobs));
            }
            Command::Move { regions } => {
                count(regions);
                let jobs: Vec<_> = regions
                    .iter()
                    .map(|r| CopyJob {
                        from: frames(r.host_offset, r.bytes),
                        to: frames(r.device_offset, r.bytes),
                    })
                    .collect();
                jobs.iter().for_each(|j| hazards.reads("Move", j.from));
                jobs.iter().for_each(|j| hazards.writes("Move", j.to));
                steps.push(Step::Copy(jobs));
            }
            Command::Fill { device_offset, bytes, word } => {
                assert!(
                    device_offset % 4 == 0 && bytes % 4 == 0,
                    "a fill is in words: {device_offset:#x}+{bytes}"
                );
                let to = frames(*device_offset, *bytes);
                hazards.writes("Fill", to);
                steps.push(Step::Fill { to, word: *word });
            }
            Command::Bind { binds } => {
                steps.push(Step::Bind(binds.iter().map(|bind| change(shared, state, bind)).collect()));
            }
            Command::Barrier => {
                tally.barriers += 1;
                hazards = Hazards::default();
                turn(&mut steps[since..]);
                since = steps.len();
            }
            Command::Dispatch { kernel, bindings, push, groups, elapsed_ns } => {
                tally.dispatches += 1;
                let bindings: Vec<_> = bindings.iter().map(bound).collect();
                // Which bindings a kernel writes only its caller knows, so two kernels are never found to race.
                for binding in &bindings {
                    if let Binding::Bytes(bytes) = binding {
                        hazards.reads("Dispatch", *bytes);
                    }
                }
                let (kernel, push, elapsed_ns) = ((**kernel).clone(), push.clone(), Arc::clone(elapsed_ns));
                let unordered = hazards.written.clone();
                steps.push(Step::Run { kernel, bindings, unordered, push, groups: *groups, elapsed_ns });
            }
        }
    }
    turn(&mut steps[since..]);
    (steps, pieces, tally)
}

pub(super) fn bound<X: Exec>(range: &BoundRange<FakeDevice<X>>) -> Binding {
    let Some(buffer) = range.buffer.as_ref().filter(|_| range.bytes > 0) else {
        // SAFETY: no byte is ever read or written through an empty span.
        return Binding::Bytes(unsafe { RawBytes::new(core::ptr::NonNull::dangling(), 0) });
    };
    match &buffer.memory {
        Memory::Run { bytes, .. } => Binding::Bytes(bytes.slice(range.offset as usize, range.bytes as usize)),
        Memory::Sparse(buffer) => {
            let bytes = range.offset..range.offset + range.bytes;
            assert!(bytes.end <= buffer.bytes, "{bytes:?} of a sparse buffer of {} bytes", buffer.bytes);
            Binding::Sparse { buffer: Arc::clone(buffer), bytes }
        }
    }
}

fn change<X: Exec>(shared: &Shared<X>, state: &State, bind: &Bind<FakeDevice<X>>) -> Change {
    let frame_bytes = shared.geometry.frame_bytes();
    let Memory::Sparse(buffer) = &bind.buffer.memory else { panic!("a bind of a buffer that is not sparse") };
    let whole = bind.offset % frame_bytes == 0 && bind.bytes % frame_bytes == 0 && bind.bytes > 0;
    assert!(whole, "a misaligned bind: {} bytes at {}, frames of {frame_bytes}", bind.bytes, bind.offset);
    let end = bind.offset + bind.bytes;
    assert!(end <= buffer.bytes, "a bind up to byte {end} of a sparse buffer of {} bytes", buffer.bytes);
    let at = (bind.offset / frame_bytes) as u32..(end / frame_bytes) as u32;
    let places = bind.frames.map(|first| {
        let (span, piece) = state.frames(shared.geometry, u64::from(first.0) * frame_bytes, bind.bytes);
        let within = span.as_ptr() as usize - piece.raw().as_ptr() as usize;
        let place = |i: u32| {
            let within = within + (u64::from(i) * frame_bytes) as usize;
            Place { frame: first.0 + i, piece: Arc::clone(&piece), within, users: 0 }
        };
        (0..at.end - at.start).map(place).collect()
    });
    Change { buffer: Arc::clone(buffer), at, places }
}
