//! An application's own work: acquired, submitted to a queue of its own, released; or cancelled, or forgotten about.
//!
//! To the twin an acquire whose work runs is a launch at the moment of the acquire.

use super::super::array::Array;
use super::super::kernel::{Access, apply, kernel};
use super::super::{SMALL, Stage};
use super::Actor;
use super::launches::{borrows, note_written};
use crate::SimPorts;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Acquired, Argument, BindTo, EngineError, PlacementKind};
use vkhmm_port::fake::{FakeKernel, FakeSemaphore};
use vkhmm_port::{BoundRange, Device, Exec, Signal};

/// How often a busy acquire is tried again before the program does something else.
const TRIES: u32 = 5;

impl Actor {
    /// One to three rounds on the same arrays, without a wait between them.
    pub(super) fn acquire(&mut self) -> &'static str {
        if self.arrays.is_empty() {
            return "nothing";
        }
        let (cells, mut arrays, accesses) = self.some_accesses();
        for _ in 0..1 + self.random.below(3) {
            if !self.acquire_on(&mut arrays, &accesses) {
                break;
            }
        }
        for (cell, array) in cells.iter().zip(arrays) {
            cell.put(array);
        }
        "acquire"
    }

    fn acquire_on(&mut self, arrays: &mut [Array], accesses: &[Access]) -> bool {
        let salt = self.random.number() as u8;
        let names: Vec<_> = accesses
            .iter()
            .map(|a| format!("{:?} {}:{}..{}", a.kind, arrays[a.array].name, a.bytes.start, a.bytes.end))
            .collect();
        let what = format!("acquire {}", names.join(", "));
        let work = kernel(&what, Arc::downgrade(&self.stage), arrays, accesses, salt);
        self.stage.exec.note(format_args!("{what}"));
        let stage = Arc::clone(&self.stage);
        stage.acquires_asked.fetch_add(1, Ordering::AcqRel);
        let acquired = self.ask(arrays, accesses);
        let granted = acquired.is_some();
        if let Some(acquired) = acquired {
            note_written(arrays, accesses);
            self.meanwhile();
            match self.random.below(8) {
                0 => {
                    zero_what_was_given_up(arrays, accesses);
                    stage.exec.note(format_args!("cancel"));
                    acquired.cancel();
                }
                1 => {
                    zero_what_was_given_up(arrays, accesses);
                    stage.exec.note(format_args!("drop what was acquired"));
                    drop(acquired);
                }
                _ => {
                    apply(arrays, accesses, salt);
                    let (semaphore, value) = self.submit(&acquired, work);
                    if self.random.one_in(3) {
                        self.meanwhile();
                    }
                    stage.exec.note(format_args!("release"));
                    acquired.release(semaphore, value);
                }
            }
        }
        stage.acquires_gone.fetch_add(1, Ordering::AcqRel);
        granted
    }

    fn ask(&mut self, arrays: &mut [Array], accesses: &[Access]) -> Option<Acquired<SimPorts>> {
        let borrows = borrows(arrays, accesses);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let argument = |access: &Access| Argument {
            range: Some(Arc::clone(&arrays[access.array].range)),
            bytes: access.bytes,
            access: access.kind,
            bind: BindTo::Nothing,
        };
        for _ in 0..TRIES {
            let arguments = accesses.iter().map(argument).collect();
            let label = format!("acquire of app{}", self.me).into();
            let call = || stage.ledger.lend(&borrows, || stage.engine.acquire(arguments, label));
            match stage.timed("an acquire", call) {
                Ok(acquired) => return Some(acquired),
                Err(EngineError::Busy { why, .. }) => {
                    stage.exec.note(format_args!("busy: {why}"));
                    stage.met().note("error: busy");
                    let pause = stage.exec.signal();
                    pause.wait(pause.epoch(), Some(Duration::from_micros(50)));
                }
                Err(error) => {
                    self.explain(&error, &before, Some((arrays, accesses)));
                    for access in accesses {
                        stage.find_lost(&mut arrays[access.array], access.bytes);
                    }
                    return None;
                }
            }
        }
        None
    }

    /// What a program does while it has something acquired: nothing that waits for another thread's lock.
    fn meanwhile(&mut self) {
        match self.random.below(8) {
            0 => drop(self.trim()),
            1 => drop(self.set_limit()),
            2 => drop(self.sync()),
            3 => drop(self.wait()),
            4 => self.stage.engine.flush(),
            5 => (0..self.random.below(60)).for_each(|_| self.stage.exec.pass()),
            _ => {}
        }
    }

    /// Puts `work` on a queue of the application's own. What it signals once it is done.
    fn submit(&mut self, acquired: &Acquired<SimPorts>, work: FakeKernel) -> (FakeSemaphore, u64) {
        let (semaphore, value) = (FakeSemaphore::default(), 1 + self.random.below(9));
        let bound = |part: &vkhmm_engine::AcquiredPart<SimPorts>| BoundRange {
            buffer: part.buffer.clone(),
            offset: part.offset,
            bytes: part.bytes,
        };
        let parts: Vec<_> = acquired.parts().iter().map(bound).collect();
        let (stage, theirs, wait) = (Arc::clone(&self.stage), semaphore.clone(), acquired.wait());
        let lag = self.random.below(40);
        let body = move || {
            loop {
                let reached = match stage.device.completed() {
                    Ok(seen) if seen.on(wait.timeline) >= wait.value => break,
                    Ok(seen) => stage.device.wait(&seen, Duration::from_millis(1)),
                    Err(error) => Err(error),
                };
                // What the engine gave up it never submits; what it submitted before that is not to wait for ever.
                if stage.is_lost() || reached.is_err() && stage.device.completed().is_err() {
                    return theirs.signal(value);
                }
            }
            (0..lag).for_each(|_| stage.exec.pass());
            stage.exec.note(format_args!("the application's queue runs"));
            stage.device.work_on(&parts, |bytes| work.run(bytes, &[], [1; 3]));
            theirs.signal(value);
        };
        self.stage.exec.spawn("app queue", Box::new(body)).expect("a thread for the application's queue");
        (semaphore, value)
    }
}

impl Stage {
    /// With nothing under way. Whether that was granted, or refused for good.
    pub(in super::super) fn acquire_at_rest(&self, array: &Array) -> bool {
        let bytes = ByteRange { start: 0, end: 1 };
        let argument = Argument {
            range: Some(Arc::clone(&array.range)),
            bytes,
            access: AccessKind::Read,
            bind: BindTo::Nothing,
        };
        let borrow = [(array.place(bytes), super::super::ledger::Strength::Shared)];
        match self.ledger.lend(&borrow, || self.engine.acquire(vec![argument], "at rest".into())) {
            Ok(acquired) => acquired.cancel(),
            Err(EngineError::Busy { .. }) => return false,
            Err(_) => {}
        }
        true
    }
}

/// What a cancelled acquire leaves: zeros on pages whose old bytes every access to them gave up, but in place.
fn zero_what_was_given_up(arrays: &mut [Array], accesses: &[Access]) {
    let page_bytes = u64::from(SMALL.page_bytes);
    let in_frames = |array: &&mut Array| array.range.placement().0 != PlacementKind::InPlace;
    for (i, array) in arrays.iter_mut().enumerate().filter(|(_, array)| in_frames(array)) {
        for (page, whole) in Array::by_page(array.all()) {
            let on_it: Vec<&Access> = accesses
                .iter()
                .filter(|a| a.array == i && !a.bytes.is_empty() && a.bytes.overlaps(whole))
                .collect();
            let gives_up = |a: &&Access| {
                a.kind == AccessKind::Overwrite && a.bytes.start <= whole.start && whole.end <= a.bytes.end
            };
            if !on_it.is_empty() && on_it.iter().all(gives_up) {
                let start = page * page_bytes as usize;
                array.twin[start..start + whole.len() as usize].fill(0);
            }
        }
    }
}
