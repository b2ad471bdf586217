//! The scheduler: one baton, virtual time, the trace, and the end of a run.

use crate::SimExec;
use crate::chooser::{Chooser, Point};
use crate::crew::{self, Body};
use crate::script::Script;
use crate::state::{Key, Lock, State, Status, Thread};
use core::cell::Cell;
use core::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vkhmm_core::block::Block;
use vkhmm_port::Rank;

/// When a run has gone on for too long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Scheduling decisions.
    pub steps: u64,
    /// Virtual nanoseconds.
    pub time_ns: u64,
    /// Lines of the trace that are kept at least: the last ones.
    pub trace_lines: usize,
}

impl Default for Limits {
    /// A million decisions, twenty minutes, the whole trace.
    fn default() -> Self {
        Self { steps: 1_000_000, time_ns: 1_200_000_000_000, trace_lines: usize::MAX }
    }
}

/// What one seed led to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The seed; zero if there was none.
    pub seed: u64,
    /// Virtual nanoseconds that passed.
    pub time_ns: u64,
    /// One line per port call and decision of note; the last one has the sum over all decisions.
    pub trace: Vec<String>,
    /// What went wrong: a panic's message, or the report of a deadlock or a run without end.
    pub failure: Option<String>,
    /// Scheduling decisions taken.
    pub steps: u64,
}

impl Run {
    /// The run, if nothing went wrong.
    ///
    /// # Panics
    /// With the last lines of the trace and the failure, if there was one.
    pub fn expect_success(self) -> Self {
        if let Some(failure) = &self.failure {
            let tail = self.trace[self.trace.len().saturating_sub(60)..].join("\n");
            panic!("seed {}: {failure}\nthe end of the trace:\n{tail}", self.seed);
        }
        self
    }
}

/// Runs `main` and all threads it starts under `seed`, until `main` returns. Threads that are left then are ended where they wait.
pub fn run(seed: u64, main: impl FnOnce(&SimExec) + Send + 'static) -> Run {
    run_within(seed, Limits::default(), main)
}

/// As [`run`], with limits of one's own.
pub fn run_within(seed: u64, limits: Limits, main: impl FnOnce(&SimExec) + Send + 'static) -> Run {
    run_chosen(seed, Chooser::seeded(seed), limits, main)
}

/// Runs `main` and all threads it starts with nothing left to chance: a thread runs until it blocks, and time passes only while
/// all of them wait. Nothing is traced.
pub fn run_steady(limits: Limits, main: impl FnOnce(&SimExec) + Send + 'static) -> Run {
    run_chosen(0, Chooser::Steady, limits, main)
}

/// Runs `main` and all threads it starts as `script` says, while `observer` looks on. Also returns the script, which knows the
/// branch points that it met.
pub(crate) fn run_scripted(
    script: Script,
    limits: Limits,
    observer: Arc<dyn Observer>,
    main: impl FnOnce(&SimExec) + Send + 'static,
) -> (Run, Script) {
    let state = Mutex::new(State::new(Chooser::Scripted(script), limits));
    let world = Arc::new(World { state, observer: Some(observer) });
    let run = run_in(&world, 0, main);
    let last = Chooser::Scripted(Script::default());
    let Chooser::Scripted(script) = core::mem::replace(&mut world.state().chooser, last) else {
        unreachable!("a chooser stays what it is")
    };
    (run, script)
}

fn run_chosen(
    seed: u64,
    chooser: Chooser,
    limits: Limits,
    main: impl FnOnce(&SimExec) + Send + 'static,
) -> Run {
    let world = Arc::new(World { state: Mutex::new(State::new(chooser, limits)), observer: None });
    run_in(&world, seed, main)
}

fn run_in(world: &Arc<World>, seed: u64, main: impl FnOnce(&SimExec) + Send + 'static) -> Run {
    let exec = SimExec::new(Arc::clone(world));
    let body = move || {
        main(&exec);
        exec.world().end(None);
    };
    world.spawn("main", Box::new(body));
    crew::run(world);
    let mut state = world.state();
    let summary = format!("end: {} decisions, {} ns, sum {:016x}", state.steps, state.now, state.sum);
    state.trace.push(summary);
    let trace = core::mem::take(&mut state.trace);
    Run { seed, time_ns: state.now, trace, failure: state.failure.take(), steps: state.steps }
}

/// Sees every block whenever its lock is taken or let go. Called with the lock held; must not call into the world.
pub(crate) trait Observer: Send + Sync {
    /// `thread` has taken the lock numbered `lock`.
    fn taken(&self, thread: usize, lock: usize, block: &Block);
    /// `thread` is about to let it go.
    fn let_go(&self, thread: usize, lock: usize, block: &Block);
}

/// Who has the baton, and why the others do not.
pub(crate) struct World {
    /// Lock: the world's own. Owns the schedule · never contended: one thread runs · never held while another one does.
    state: Mutex<State>,
    observer: Option<Arc<dyn Observer>>,
}

thread_local! {
    static ME: Cell<Option<usize>> = const { Cell::new(None) };
    /// This thread looks at the world from outside: nothing it does is a scheduling point.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The panic that ends a thread whose run is over.
struct Ended;

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn me() -> usize {
        ME.get().expect("a simulated port is used by threads of its world only")
    }

    /// The state, for a call that may switch. `None`: the run is over and this thread is unwinding, so the call has no effect on
    /// the schedule. Unwinds if the run is over and the thread does not know yet.
    fn enter(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        if std::thread::panicking() {
            // The first to panic ends the run at once: its clean-up may need locks that sleepers hold, and they let go only
            // by unwinding too (see `SimMutex::guard`).
            let message = state.panic_of(Self::me());
            state.end(Some(message));
            return None;
        }
        if state.ending {
            drop(state);
            resume_unwind(Box::new(Ended));
        }
        Some(state)
    }

    /// Runs `look` with no scheduling point in it. It may only try locks: there is nobody it could wait for.
    pub(crate) fn quietly<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = QUIET.replace(true);
        let seen = look();
        QUIET.set(before);
        seen
    }

    /// Who sees every block, if anybody does.
    pub(crate) fn observer(&self) -> Option<&Arc<dyn Observer>> {
        self.observer.as_ref()
    }

    /// Lets the script deviate from now on, or no more. Nothing without a script.
    pub(crate) fn open_script(&self, open: bool) {
        if let Chooser::Scripted(script) = &mut self.state().chooser {
            script.open(open);
        }
    }

    /// Every thread that is not over.
    pub(crate) fn who_waits(&self) -> String {
        self.state().report("threads")
    }

    /// Scheduling decisions so far.
    pub(crate) fn decisions(&self) -> u64 {
        self.state().steps
    }

    /// Threads that are not over.
    pub(crate) fn threads_alive(&self) -> usize {
        self.state().threads.iter().filter(|t| t.status != Status::Over).count()
    }

    /// The name of the thread that asks.
    pub(crate) fn thread_name(&self) -> String {
        self.state().threads[Self::me()].name.clone()
    }

    /// A scheduling point: somebody else may run now.
    pub(crate) fn point(&self, at: Point) {
        if QUIET.get() {
            return;
        }
        if let Some(mut state) = self.enter() {
            let me = Self::me();
            if !state.step() {
                drop(self.wait_for_turn(state, me));
                return;
            }
            if state.passes(at) {
                drop(self.wait_for_turn(state, me));
            }
        }
    }

    /// One line of the trace, then a scheduling point.
    pub(crate) fn note(&self, line: Arguments<'_>) {
        if let Some(mut state) = self.enter() {
            state.write(Self::me(), line);
            drop(state);
            self.point(Point::Port);
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.point(Point::Clock);
        self.state().now
    }

    /// Blocks this thread for `key` and hands the baton on. Comes back when woken, or at `until`.
    fn block<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        key: Key,
        until: Option<u64>,
    ) -> MutexGuard<'a, State> {
        let me = Self::me();
        state.threads[me].status = Status::Blocked { key, until };
        if state.step() {
            state.choose();
        }
        self.wait_for_turn(state, me)
    }

    /// Unwinds if the run ends meanwhile.
    fn wait_for_turn<'a>(&'a self, mut state: MutexGuard<'a, State>, me: usize) -> MutexGuard<'a, State> {
        if !state.ending && state.current != me {
            drop(state);
            crew::switch();
            state = self.state();
        }
        if state.ending {
            drop(state);
            resume_unwind(Box::new(Ended));
        }
        state
    }

    /// A lock. `record`: what it owns is read by no decision.
    pub(crate) fn new_lock(&self, rank: Rank, record: bool) -> usize {
        let mut state = self.state();
        state.locks.push(Lock { rank, record, held_by: None });
        state.locks.len() - 1
    }

    /// Takes lock `id`; waits for it if `wait`. Whether it was taken.
    pub(crate) fn lock(&self, id: usize, wait: bool) -> bool {
        let Lock { rank, record, .. } = self.state().locks[id];
        self.point(if record { Point::Record } else { Point::Lock(rank) });
        let me = Self::me();
        let Some(mut state) = self.enter() else { return true };
        loop {
            match state.locks[id].held_by {
                None => {
                    state.locks[id].held_by = Some(me);
                    return true;
                }
                Some(_) if !wait => return false,
                Some(_) => state = self.block(state, Key::Lock(id), None),
            }
        }
    }

    pub(crate) fn unlock(&self, id: usize) {
        let mut state = self.state();
        state.locks[id].held_by = None;
        state.wake(Key::Lock(id));
        let Lock { rank, record, .. } = state.locks[id];
        let over = state.ending;
        drop(state);
        // A guard that is dropped by an unwinding thread, or after the end, only lets go.
        if !over && !std::thread::panicking() {
            self.point(if record { Point::Record } else { Point::Unlock(rank) });
        }
    }

    pub(crate) fn new_signal(&self) -> usize {
        let mut state = self.state();
        state.signals.push(0);
        state.signals.len() - 1
    }

    pub(crate) fn epoch(&self, id: usize) -> u32 {
        self.point(Point::Signal);
        self.state().signals[id]
    }

    pub(crate) fn notify(&self, id: usize) {
        if let Some(mut state) = self.enter() {
            state.signals[id] = state.signals[id].wrapping_add(1);
            state.wake(Key::Signal(id));
            drop(state);
            self.point(Point::Signal);
        }
    }

    pub(crate) fn wait(&self, id: usize, seen: u32, timeout_ns: Option<u64>) {
        self.point(Point::Signal);
        if let Some(state) = self.enter() {
            if state.signals[id] == seen {
                let until = timeout_ns.map(|t| state.now.saturating_add(t));
                drop(self.block(state, Key::Signal(id), until));
            }
        }
    }

    /// Is at work for `ns`, with whatever locks the thread holds.
    pub(crate) fn elapse(&self, ns: u64) {
        if let Some(state) = self.enter() {
            let until = state.now.saturating_add(ns);
            drop(self.block(state, Key::Time, Some(until)));
        }
    }

    /// Whose turn it is now, for the crew; `None` once all threads are over. Hands over the bodies of threads started meanwhile.
    /// After the end of the run, everybody who is left has turns to unwind.
    pub(crate) fn next_turn(&self, hire: impl FnOnce(std::vec::Drain<'_, Body>)) -> Option<usize> {
        let mut state = self.state();
        hire(state.newborn.drain(..));
        if state.ending {
            let count = state.threads.len();
            let mut others = (1..=count).map(|i| (state.current + i) % count);
            let Some(next) = others.find(|id| state.threads[*id].status != Status::Over) else {
                ME.set(None);
                return None;
            };
            state.current = next;
        }
        ME.set(Some(state.current));
        Some(state.current)
    }

    /// Starts a thread; it runs when it is first chosen.
    pub(crate) fn spawn(self: &Arc<Self>, name: &str, body: Box<dyn FnOnce() + Send>) {
        let world = Arc::clone(self);
        let mut state = self.state();
        if state.ending {
            return;
        }
        let me = state.threads.len();
        let weight = state.chooser.weight();
        let thread =
            Thread { name: name.to_owned(), status: Status::Runnable, weight, last_note: String::new() };
        state.threads.push(thread);
        state.newborn.push(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                drop(world.wait_for_turn(world.state(), me));
                body();
            }));
            world.over(me, outcome);
        }));
        if let Some(parent) = ME.get() {
            state.write(parent, format_args!("spawn t{me} {name}"));
            drop(state);
            self.point(Point::Spawn);
        }
    }

    fn over(&self, me: usize, outcome: std::thread::Result<()>) {
        let mut state = self.state();
        state.threads[me].status = Status::Over;
        if let Err(payload) = outcome {
            if !payload.is::<Ended>() {
                let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                let failure =
                    format!("thread `{}` panicked: {}", state.threads[me].name, text.unwrap_or_default());
                // The clean-up of this very panic may have ended the run already, with less to say.
                state.ending = false;
                state.failure = None;
                state.end(Some(failure));
            }
        }
        if !state.ending && state.step() {
            state.choose();
        }
    }

    fn end(&self, failure: Option<String>) {
        self.state().end(failure);
    }
}
