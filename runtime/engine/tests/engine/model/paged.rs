//! Paged launches of the model: each group works on its part of a few areas, whose ranges are passed whole.

use super::player::Player;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use vkhmm_core::paging::layout::{READ, WRITE};
use vkhmm_engine::{AccessKind, EngineError};
use vkhmm_port::fake::FakeKernel;

/// A part of an area that one group works on.
type Part = core::ops::Range<usize>;

/// What a launch does to one area.
#[derive(Clone)]
struct Work {
    area: usize,
    access: AccessKind,
    /// Where the area begins in its range.
    start: u64,
    before: Vec<u8>,
}

impl Work {
    fn part(&self, group: u32, bytes: usize) -> Part {
        let (from, to) = (group as usize * bytes, (group as usize + 1) * bytes);
        from.min(self.before.len())..to.min(self.before.len())
    }

    fn in_range(&self, part: &Part) -> core::ops::Range<u64> {
        self.start + part.start as u64..self.start + part.end as u64
    }
}

/// What is stored where `was` is: the sum of all that is read is added, or is all there is.
fn stored(access: AccessKind, was: &[u8], sum: u8) -> Vec<u8> {
    match access {
        AccessKind::Write => was.iter().map(|v| v.wrapping_add(sum).wrapping_add(1)).collect(),
        _ => vec![sum; was.len()],
    }
}

fn sum_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u8 {
    parts.flatten().fold(0, |sum, v| sum.wrapping_add(*v))
}

impl Player<'_> {
    pub(crate) fn paged(&mut self) {
        let bytes = 1 + self.random.below(self.w.page() + 8) as usize;
        let mut works: Vec<Work> = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let at = self.pick();
            let area = &self.areas[at];
            if works.iter().any(|work| work.area == at) {
                continue;
            }
            let access = match self.random.below(3) {
                _ if area.read_only => AccessKind::Read,
                0 => AccessKind::Read,
                // Others have the rest of the range.
                2 if area.whole => AccessKind::Overwrite,
                _ => AccessKind::Write,
            };
            works.push(Work { area: at, access, start: area.start, before: area.twin.clone() });
        }
        let groups = works.iter().map(|work| work.before.len().div_ceil(bytes)).max().unwrap_or(0) as u32;
        let done = Arc::new(Mutex::new(BTreeSet::new()));
        let kernel = self.paged_kernel(&works, bytes, &done);
        let ranges: Vec<_> = works.iter().map(|work| (&self.areas[work.area].range, work.access)).collect();
        self.log
            .push(format!("paged launch {:?}", works.iter().map(|w| (w.area, w.access)).collect::<Vec<_>>()));
        let op = match self.w.engine.launch_paged(self.w.paged_spec(&kernel, groups, &ranges)) {
            Ok(op) => op,
            Err(EngineError::PinnedApart { .. } | EngineError::Guarded { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        // A group straddles a block of each at most.
        let need = works.len() as u64 * 2 * self.w.block();
        let rests = self.alone && self.random.below(2) == 0 && self.w.engine.device_memory().0 >= need;
        let ended = if rests { Ok(true) } else { self.w.engine.wait(&op, None) };
        match ended {
            Ok(_) => {
                self.open_paged.extend(rests.then_some(op));
                (0..groups).for_each(|group| self.note_group(&works, group, bytes));
            }
            Err(EngineError::WorkingSetTooLarge { .. }) => {
                *self.met.operations.entry("paged launch that does not fit").or_default() += 1;
                done.lock().unwrap().iter().for_each(|group| self.note_group(&works, *group, bytes));
                for work in works.iter().filter(|work| work.access == AccessKind::Overwrite) {
                    let area = &self.areas[work.area];
                    self.w.store(&area.range, area.start, &area.twin);
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for paged launches: what is to come may take frames that they need.
    pub(crate) fn end_paged(&mut self) {
        self.open_paged.drain(..).for_each(|op| self.w.wait(&op));
    }

    fn paged_kernel(&self, works: &[Work], bytes: usize, done: &Arc<Mutex<BTreeSet<u32>>>) -> FakeKernel {
        let (works, wrong, done) = (works.to_vec(), Arc::clone(&self.wrong), Arc::clone(done));
        FakeKernel::paged(&self.w.device, move |group| {
            let id = group.id();
            let parts: Vec<Part> = works.iter().map(|work| work.part(id, bytes)).collect();
            for ((at, work), part) in works.iter().enumerate().zip(&parts) {
                let access = match work.access {
                    AccessKind::Read => READ,
                    AccessKind::Write => READ | WRITE,
                    AccessKind::Overwrite => WRITE,
                };
                group.want(at as u32, work.in_range(part), access);
            }
            if !group.vote() {
                return;
            }
            done.lock().unwrap().insert(id);
            let mut read = Vec::new();
            for ((at, work), part) in works.iter().enumerate().zip(&parts) {
                if work.access != AccessKind::Overwrite {
                    let got = group.load(at as u32, work.in_range(part));
                    if got != work.before[part.clone()] {
                        let line =
                            format!("paged group {id} found {got:?} in {part:?} of area {}", work.area);
                        wrong.lock().unwrap().push(line);
                    }
                    read.extend((work.access == AccessKind::Read).then_some(got));
                }
            }
            let sum = sum_of(read.iter().map(Vec::as_slice));
            for ((at, work), part) in works.iter().enumerate().zip(parts) {
                if work.access.writes() && !part.is_empty() {
                    let bytes = stored(work.access, &work.before[part.clone()], sum);
                    group.store(at as u32, work.in_range(&part).start, &bytes);
                }
            }
        })
    }

    fn note_group(&mut self, works: &[Work], group: u32, bytes: usize) {
        let reads = works.iter().filter(|work| work.access == AccessKind::Read);
        let sum = sum_of(reads.map(|work| &work.before[work.part(group, bytes)]));
        for work in works.iter().filter(|work| work.access.writes()) {
            let part = work.part(group, bytes);
            let bytes = stored(work.access, &work.before[part.clone()], sum);
            self.areas[work.area].twin[part].copy_from_slice(&bytes);
        }
    }
}
