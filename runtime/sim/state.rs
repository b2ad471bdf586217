//! What the scheduler knows and decides: threads, locks, signals, time, and who is next.

use crate::Limits;
use crate::chooser::{Chooser, Point};
use crate::crew::Body;
use core::fmt::{Arguments, Write};
use vkhmm_port::Rank;

/// A script lets a timer fire although a thread could go on only if it is due so soon: threads are slow, but not for ever, and the
/// long timers are there to cover up what must not happen.
const STALL_NS: u64 = 1_000_000;

/// What a blocked thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// A lock, by its number.
    Lock(usize),
    /// A signal, by its number.
    Signal(usize),
    /// Time alone.
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Runnable,
    Blocked { key: Key, until: Option<u64> },
    Over,
}

pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// How often it is chosen, against the others.
    pub(crate) weight: u64,
    pub(crate) last_note: String,
}

#[derive(Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) rank: Rank,
    /// What it owns is written for people and read by no decision.
    pub(crate) record: bool,
    pub(crate) held_by: Option<usize>,
}

pub(crate) struct State {
    pub(crate) chooser: Chooser,
    /// Room for the threads that can run, while one is chosen.
    runnable: Vec<(usize, u64)>,
    pub(crate) limits: Limits,
    pub(crate) now: u64,
    pub(crate) steps: u64,
    /// A hash over every decision.
    pub(crate) sum: u64,
    pub(crate) current: usize,
    pub(crate) threads: Vec<Thread>,
    /// What threads do that have not had a turn yet, after those that the crew knows.
    pub(crate) newborn: Vec<Body>,
    pub(crate) locks: Vec<Lock>,
    pub(crate) signals: Vec<u32>,
    pub(crate) trace: Vec<String>,
    /// The run is over: every thread unwinds, and no call blocks any more.
    pub(crate) ending: bool,
    pub(crate) failure: Option<String>,
}

impl State {
    /// Nothing has run yet.
    pub(crate) fn new(chooser: Chooser, limits: Limits) -> Self {
        Self {
            chooser,
            runnable: Vec::new(),
            limits,
            now: 0,
            steps: 0,
            sum: 0,
            current: 0,
            threads: Vec::new(),
            newborn: Vec::new(),
            locks: Vec::new(),
            signals: Vec::new(),
            trace: Vec::new(),
            ending: false,
            failure: None,
        }
    }

    pub(crate) fn write(&mut self, who: usize, line: Arguments<'_>) {
        if !self.ending && self.chooser.traces() {
            let name = &self.threads[who].name;
            self.trace.push(format!("{:>9} t{who} {name}: {line}", self.now));
            if self.trace.len() >= self.limits.trace_lines.saturating_mul(2) {
                self.trace.drain(..self.limits.trace_lines);
            }
            self.threads[who].last_note = line.to_string();
        }
    }

    pub(crate) fn wake(&mut self, key: Key) {
        for thread in &mut self.threads {
            if matches!(thread.status, Status::Blocked { key: k, .. } if k == key) {
                thread.status = Status::Runnable;
            }
        }
    }

    /// Lets time pass and timers fire. False: the run is over, for want of a thread that can go on or for having gone on too long.
    pub(crate) fn step(&mut self) -> bool {
        self.steps += 1;
        self.now += self.chooser.jump();
        if !self.threads.iter().any(|t| t.status == Status::Runnable) {
            let Some(at) = self.next_timer() else {
                let report = self.report("deadlock: no thread can go on, and no timer is set");
                self.end(Some(report));
                return false;
            };
            self.now = self.now.max(at);
        }
        self.fire();
        if self.steps > self.limits.steps || self.now > self.limits.time_ns {
            let report = self.report("the run does not end");
            self.end(Some(report));
            return false;
        }
        true
    }

    fn next_timer(&self) -> Option<u64> {
        let timers = self.threads.iter().filter_map(|t| match t.status {
            Status::Blocked { until, .. } => until,
            Status::Runnable | Status::Over => None,
        });
        timers.min()
    }

    /// Wakes those whose time has come.
    fn fire(&mut self) {
        let now = self.now;
        for thread in &mut self.threads {
            if matches!(thread.status, Status::Blocked { until: Some(at), .. } if at <= now) {
                thread.status = Status::Runnable;
            }
        }
    }

    /// Whether the thread that has the baton passes it on at this point although it could go on.
    pub(crate) fn passes(&mut self, at: Point) -> bool {
        if matches!(self.chooser, Chooser::Scripted(_)) {
            return self.follow(Some(at));
        }
        let yields = self.chooser.yields();
        if yields {
            self.choose();
        }
        yields
    }

    /// Does what the script says; where a thread has blocked there is no point to name. Whether the baton has been passed on.
    fn follow(&mut self, at: Option<Point>) -> bool {
        // A thread that has blocked may have been woken again by its own timer.
        let me = at.map(|_| self.current);
        let able = |(id, t): &(usize, &Thread)| Some(*id) != me && t.status == Status::Runnable;
        let others = self.threads.iter().enumerate().filter(able).count();
        let near = self.next_timer().filter(|at| *at <= self.now + STALL_NS);
        let all = others + usize::from(near.is_some());
        let Chooser::Scripted(script) = &mut self.chooser else { unreachable!("asked of a script alone") };
        let Some(nth) = (match at {
            Some(at) => script.decide(Some(at), all).checked_sub(1),
            None => Some(script.decide(None, all - 1)),
        }) else {
            return false;
        };
        let count = self.threads.len();
        let from = self.current;
        let circle = (1..=count).map(|i| (from + i) % count);
        if nth < others {
            let mut able =
                circle.filter(|id| Some(*id) != me && self.threads[*id].status == Status::Runnable);
            self.current = able.nth(nth).expect("counted above");
        } else {
            self.now = near.expect("an alternative is a thread or a timer");
            let due =
                |t: &Thread| matches!(t.status, Status::Blocked { until: Some(at), .. } if at <= self.now);
            let woken = circle.clone().find(|id| due(&self.threads[*id])).expect("a timer is somebody's");
            self.fire();
            self.current = woken;
        }
        true
    }

    /// Gives the baton to one that can run.
    pub(crate) fn choose(&mut self) {
        if matches!(self.chooser, Chooser::Scripted(_)) {
            self.follow(None);
            return;
        }
        let mut runnable = core::mem::take(&mut self.runnable);
        runnable.clear();
        let able = self.threads.iter().enumerate().filter(|(_, t)| t.status == Status::Runnable);
        runnable.extend(able.map(|(id, t)| (id, t.weight)));
        self.current = self.chooser.next(self.current, &runnable);
        self.runnable = runnable;
        self.sum = (self.sum.rotate_left(5) ^ self.current as u64).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    pub(crate) fn report(&self, headline: &str) -> String {
        let mut text = format!("{headline} (after {} decisions, at {} ns)", self.steps, self.now);
        for (id, thread) in self.threads.iter().enumerate() {
            let why = match thread.status {
                Status::Over => continue,
                Status::Runnable => "can run".to_owned(),
                Status::Blocked { key: Key::Lock(lock), .. } => {
                    let lock = &self.locks[lock];
                    let holder = lock.held_by.map_or("nobody".to_owned(), |t| self.threads[t].name.clone());
                    format!("waits for a {:?} lock, held by {holder}", lock.rank)
                }
                Status::Blocked { key: Key::Time, until } => {
                    format!("is at work until {} ns", until.unwrap_or(u64::MAX))
                }
                Status::Blocked { key: Key::Signal(signal), until: None } => {
                    format!("waits for signal {signal}")
                }
                Status::Blocked { key: Key::Signal(signal), until: Some(at) } => {
                    format!("waits for signal {signal}, or {at} ns")
                }
            };
            let _ = write!(text, "\n  t{id} {}: {why}; its last note: {}", thread.name, thread.last_note);
        }
        text
    }

    pub(crate) fn panic_of(&self, thread: usize) -> String {
        format!("thread `{}` panicked", self.threads[thread].name)
    }

    /// The first end counts.
    pub(crate) fn end(&mut self, failure: Option<String>) {
        if self.ending {
            return;
        }
        self.ending = true;
        self.failure = failure;
    }
}
