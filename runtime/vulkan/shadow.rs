//! What is known of every frame, kept beside the device under [`crate::Switches::frame_guard`]: who holds it since when, and which
//! tickets last read and wrote each of its pages. Every map, release and access is compared with it:
//!
//! * only frames that hold pages are read and written;
//! * a frame is released only when everything that used it is done (what the engine's own accounting says is checked against the
//!   tickets that the device saw);
//! * what one timeline does to a page is known to have happened before another timeline or the CPU touches the page;
//! * two commands of one submission that touch the same bytes, one of them writing, have a barrier between them.
//!
//! Kernels that take device addresses may touch anything they were given; only [`crate::guard`] sees what they do.

use std::collections::{BTreeMap, VecDeque};
use vkhmm_core::units::{FrameRun, Geometry, Ticket};
use vkhmm_core::uses::Uses;

const FRAME_BYTES: u64 = Geometry::PRODUCTION.frame_bytes();
const PAGE_BYTES: u64 = 4096;
const PAGES: usize = (FRAME_BYTES / PAGE_BYTES) as usize;
/// Submissions whose knowledge is remembered, per timeline; older ones count as known by everybody who names a later one.
const CLOCKS_MAX: usize = 4096;

/// A frame.
#[derive(Clone, Debug)]
enum Frame {
    /// Holds nothing: nobody may touch it.
    Free,
    /// Holds pages since that change of hands.
    Held { since: u64, pages: Vec<Page> },
}

/// The last uses of one page.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    read: Uses,
    written: Uses,
}

/// Bytes of device memory that one command touches.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) write: bool,
    /// Which command of the submission, and how many barriers come before it.
    pub(crate) command: usize,
    pub(crate) barriers: usize,
    pub(crate) what: &'static str,
}

impl Access {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// All frames of one device. No lock of its own.
#[derive(Default)]
pub(crate) struct Shadow {
    frames: BTreeMap<u32, Frame>,
    /// Changes of hands so far.
    epoch: u64,
    /// For each timeline, what each of its submissions knows to have happened on the others.
    clocks: [VecDeque<(u64, Uses)>; Uses::TIMELINES_MAX],
}

impl Shadow {
    fn held(&mut self) -> Frame {
        self.epoch += 1;
        Frame::Held { since: self.epoch, pages: vec![Page::default(); PAGES] }
    }

    /// A new piece: its frames count as held until they are released.
    pub(crate) fn grown(&mut self, run: FrameRun) -> Result<(), String> {
        for frame in run.first.0..run.end() {
            let held = self.held();
            if self.frames.insert(frame, held).is_some() {
                return Err(format!("frame {frame} is new, and exists"));
            }
        }
        Ok(())
    }

    /// A piece is gone.
    pub(crate) fn shrunk(&mut self, run: FrameRun) -> Result<(), String> {
        self.frames.retain(|frame, _| !(run.first.0..run.end()).contains(frame));
        Ok(())
    }

    /// Frames begin to hold pages.
    pub(crate) fn claimed(&mut self, run: FrameRun) -> Result<(), String> {
        for number in run.first.0..run.end() {
            let held = self.held();
            match self.frames.get_mut(&number) {
                Some(frame @ Frame::Free) => *frame = held,
                Some(Frame::Held { since, .. }) => {
                    return Err(format!("frame {number} is claimed, and held since change {since}"));
                }
                None => return Err(format!("frame {number} is claimed, and does not exist")),
            }
        }
        Ok(())
    }

    /// Frames hold nothing any more, now that the timelines have reached `done`.
    pub(crate) fn released(&mut self, run: FrameRun, done: &Uses) -> Result<(), String> {
        for number in run.first.0..run.end() {
            match self.frames.get_mut(&number) {
                Some(frame @ Frame::Held { .. }) => {
                    let Frame::Held { since, pages } = &*frame else { continue };
                    for (at, page) in pages.iter().enumerate() {
                        if !page.read.done(done) || !page.written.done(done) {
                            return Err(format!(
                                "frame {number} (held since change {since}) is released while page {at} is in use: {page:?}, \
                                 reached {done:?}"
                            ));
                        }
                    }
                    *frame = Frame::Free;
                }
                Some(Frame::Free) => return Err(format!("frame {number} is released, and is free")),
                None => return Err(format!("frame {number} is released, and does not exist")),
            }
        }
        Ok(())
    }

    /// The pages of `start..end`, each with its number for messages; an error if one is in no held frame.
    fn pages(
        &mut self,
        what: &str,
        start: u64,
        end: u64,
        mut each: impl FnMut(u64, &mut Page) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut at = start / PAGE_BYTES;
        while at * PAGE_BYTES < end {
            let number = u32::try_from(at / PAGES as u64).unwrap_or(u32::MAX);
            match self.frames.get_mut(&number) {
                Some(Frame::Held { pages, .. }) => each(at, &mut pages[at as usize % PAGES])?,
                Some(Frame::Free) => {
                    return Err(format!("{what} touches frame {number}, which holds nothing"));
                }
                None => return Err(format!("{what} touches frame {number}, which does not exist")),
            }
            at += 1;
        }
        Ok(())
    }

    /// A submission that waits for `waits` (all that its queue ever waited for) and then does `accesses`.
    pub(crate) fn submitted(
        &mut self,
        signals: Ticket,
        waits: &Uses,
        accesses: &[Access],
    ) -> Result<(), String> {
        let mut known = *waits;
        for wait in waits.iter() {
            let clock = &self.clocks[usize::from(wait.timeline.0)];
            // The last submission up to the value waited for: it knows all that earlier ones know.
            let at = clock.partition_point(|(value, _)| *value <= wait.value);
            if let Some((_, theirs)) = at.checked_sub(1).map(|i| &clock[i]) {
                known.merge(theirs);
            }
        }
        let own = &mut self.clocks[usize::from(signals.timeline.0)];
        if let Some((_, before)) = own.back() {
            known.merge(before);
        }
        // A queue's own past is over before its next submission begins: each ends with a barrier.
        known.add(Ticket { timeline: signals.timeline, value: signals.value });
        own.push_back((signals.value, known));
        if own.len() > CLOCKS_MAX {
            own.pop_front();
        }
        for (i, a) in accesses.iter().enumerate() {
            for b in &accesses[..i] {
                let meet = a.start < b.end() && b.start < a.end() && (a.write || b.write);
                if meet && a.command != b.command && a.barriers == b.barriers {
                    return Err(format!(
                        "{} and {} of one submission meet at {:#x} without a barrier ({signals:?})",
                        b.what,
                        a.what,
                        a.start.max(b.start)
                    ));
                }
            }
        }
        for access in accesses {
            self.pages(access.what, access.start, access.end(), |at, page| {
                let ordered = page.written.done(&known) && (!access.write || page.read.done(&known));
                if !ordered {
                    return Err(format!(
                        "{} ({signals:?}) touches page {at} of the device without waiting for its last uses: {page:?}, \
                         known {known:?}",
                        access.what
                    ));
                }
                let uses = if access.write { &mut page.written } else { &mut page.read };
                uses.add(signals);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The CPU reads or writes frames by itself, now that the timelines have reached `done`.
    pub(crate) fn by_cpu(&mut self, start: u64, bytes: u64, write: bool, done: &Uses) -> Result<(), String> {
        self.pages("the CPU", start, start + bytes, |at, page| {
            if page.written.done(done) && (!write || page.read.done(done)) {
                return Ok(());
            }
            Err(format!(
                "the CPU touches page {at} of the device while it is in use: {page:?}, reached {done:?}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkhmm_core::units::{FrameIndex, Timeline};

    fn run(first: u32, count: u32) -> FrameRun {
        FrameRun { first: FrameIndex(first), count }
    }

    fn ticket(timeline: u8, value: u64) -> Ticket {
        Ticket { timeline: Timeline(timeline), value }
    }

    fn uses(tickets: &[Ticket]) -> Uses {
        let mut out = Uses::NONE;
        tickets.iter().for_each(|t| out.add(*t));
        out
    }

    fn access(page: u64, write: bool, command: usize, barriers: usize) -> Access {
        Access { start: page * PAGE_BYTES, bytes: 64, write, command, barriers, what: "a copy" }
    }

    fn shadow() -> Shadow {
        let mut shadow = Shadow::default();
        shadow.grown(run(0, 4)).expect("new");
        shadow
    }

    #[test]
    fn only_held_frames_are_touched_and_change_hands_in_turn() {
        let mut shadow = shadow();
        shadow.released(run(1, 2), &Uses::NONE).expect("never used");
        assert!(shadow.released(run(1, 1), &Uses::NONE).is_err(), "twice");
        let stray = shadow.submitted(ticket(0, 1), &Uses::NONE, &[access(16, false, 0, 0)]);
        assert!(stray.expect_err("a free frame").contains("frame 1"));
        shadow.claimed(run(1, 1)).expect("it is free");
        assert!(shadow.claimed(run(1, 1)).is_err(), "twice");
        shadow.submitted(ticket(0, 2), &Uses::NONE, &[access(16, false, 0, 0)]).expect("held again");
        assert!(shadow.by_cpu(2 * FRAME_BYTES, 64, false, &Uses::NONE).is_err(), "free");
        assert!(shadow.by_cpu(4 * FRAME_BYTES, 64, false, &Uses::NONE).is_err(), "no such frame");
        assert!(shadow.released(run(9, 1), &Uses::NONE).is_err(), "no such frame");
        shadow.shrunk(run(0, 4)).expect("there");
        assert!(shadow.claimed(run(2, 1)).is_err(), "gone");
    }

    #[test]
    fn frames_are_released_after_their_last_use() {
        let mut shadow = shadow();
        shadow.submitted(ticket(1, 5), &Uses::NONE, &[access(0, false, 0, 0)]).expect("fresh");
        assert!(shadow.released(run(0, 1), &uses(&[ticket(1, 4)])).is_err());
        assert!(shadow.by_cpu(0, 64, false, &Uses::NONE).is_ok(), "two readers");
        assert!(shadow.by_cpu(0, 64, true, &uses(&[ticket(1, 4)])).is_err());
        assert!(shadow.released(run(0, 1), &uses(&[ticket(1, 5)])).is_ok());
    }

    #[test]
    fn other_timelines_are_waited_for_also_through_a_third() {
        let mut shadow = shadow();
        shadow.submitted(ticket(0, 1), &Uses::NONE, &[access(0, true, 0, 0)]).expect("fresh");
        let at_once = shadow.submitted(ticket(1, 1), &Uses::NONE, &[access(0, false, 0, 0)]);
        assert!(at_once.is_err(), "a read that does not wait for the write");
        shadow.submitted(ticket(2, 1), &uses(&[ticket(0, 1)]), &[]).expect("touches nothing");
        let after = uses(&[ticket(2, 1)]);
        shadow.submitted(ticket(1, 2), &after, &[access(0, false, 0, 0)]).expect("through timeline 2");
        shadow.submitted(ticket(1, 3), &Uses::NONE, &[access(0, false, 0, 0)]).expect("known for good");
        assert!(shadow.submitted(ticket(0, 2), &Uses::NONE, &[access(0, true, 0, 0)]).is_err(), "a reader");
        let read = uses(&[ticket(1, 3)]);
        shadow.submitted(ticket(0, 3), &read, &[access(0, true, 0, 0)]).expect("waits for the reader");
    }

    #[test]
    fn commands_of_one_submission_that_meet_have_a_barrier_between_them() {
        let mut shadow = shadow();
        let both = |barriers| [access(3, true, 0, 0), access(3, false, 1, barriers)];
        assert!(shadow.submitted(ticket(0, 1), &Uses::NONE, &both(0)).is_err());
        shadow.submitted(ticket(0, 2), &Uses::NONE, &both(1)).expect("a barrier");
        let apart = [access(3, true, 0, 0), access(4, true, 1, 0)];
        shadow.submitted(ticket(0, 3), &Uses::NONE, &apart).expect("other pages");
    }
}
