//! The scheduler: one baton, virtual time, the trace, and the end of a run.

use crate::SimExec;
use crate::chooser::Chooser;
use crate::state::{Key, Lock, State, Status, Thread};
use core::cell::Cell;
use core::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// When a run has gone on for too long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Scheduling decisions.
    pub steps: u64,
    /// Virtual nanoseconds.
    pub time_ns: u64,
}

impl Default for Limits {
    /// A million decisions, twenty minutes.
    fn default() -> Self {
        Self { steps: 1_000_000, time_ns: 1_200_000_000_000 }
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

fn run_chosen(
    seed: u64,
    chooser: Chooser,
    limits: Limits,
    main: impl FnOnce(&SimExec) + Send + 'static,
) -> Run {
    let world = Arc::new(World { state: Mutex::new(State::new(chooser, limits)) });
    let exec = SimExec::new(Arc::clone(&world));
    let body = move || {
        main(&exec);
        exec.world().end(None);
    };
    world.spawn("main", Box::new(body)).expect("a thread for the world's main");
    // Thread 0 first; whatever it started is joined too, so that worlds do not pile up.
    loop {
        let Some(handle) = world.state().handles.pop() else { break };
        // A body's panic was caught and recorded; nothing is left to hear.
        let _ = handle.join();
    }
    let mut state = world.state();
    let summary = format!("end: {} decisions, {} ns, sum {:016x}", state.steps, state.now, state.sum);
    state.trace.push(summary);
    let trace = core::mem::take(&mut state.trace);
    Run { seed, time_ns: state.now, trace, failure: state.failure.take(), steps: state.steps }
}

/// Who has the baton, and why the others do not.
pub(crate) struct World {
    /// Lock: the world's own. Owns the schedule · may block on the baton · must never run a thread's code.
    state: Mutex<State>,
}

thread_local! {
    static ME: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The panic that ends a thread whose run is over.
struct Ended;

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn me() -> usize {
        ME.get().expect("a simulated port is used by threads of its world only")
    }

    /// The state, for a call that may switch. `None`: the run is over and this thread is unwinding, so the call has no effect on
    /// the schedule. Unwinds if the run is over and the thread does not know yet.
    fn enter(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state();
        if std::thread::panicking() {
            // The first to panic ends the run at once: its clean-up may need locks that sleepers hold, and they let go only
            // by unwinding too.
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

    /// A scheduling point: somebody else may run now.
    pub(crate) fn point(&self) {
        if let Some(mut state) = self.enter() {
            let me = Self::me();
            if !state.step() {
                drop(self.wait_for_turn(state, me));
                return;
            }
            if state.chooser.yields() {
                state.choose();
                drop(self.wait_for_turn(state, me));
            }
        }
    }

    /// One line of the trace, then a scheduling point.
    pub(crate) fn note(&self, line: Arguments<'_>) {
        if let Some(mut state) = self.enter() {
            state.write(Self::me(), line);
            drop(state);
            self.point();
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.point();
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
            let turn = Arc::clone(&state.threads[me].turn);
            state.threads[state.current].turn.notify_one();
            while !state.ending && state.current != me {
                state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if state.ending {
            drop(state);
            resume_unwind(Box::new(Ended));
        }
        state
    }

    pub(crate) fn new_lock(&self, what: String) -> usize {
        let mut state = self.state();
        state.locks.push(Lock { what, held_by: None });
        state.locks.len() - 1
    }

    /// Takes lock `id`; waits for it if `wait`. Whether it was taken.
    pub(crate) fn lock(&self, id: usize, wait: bool) -> bool {
        self.point();
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
        let over = state.ending;
        drop(state);
        // A guard that is dropped by an unwinding thread, or after the end, only lets go.
        if !over && !std::thread::panicking() {
            self.point();
        }
    }

    pub(crate) fn new_signal(&self) -> usize {
        let mut state = self.state();
        state.signals.push(0);
        state.signals.len() - 1
    }

    pub(crate) fn epoch(&self, id: usize) -> u32 {
        self.point();
        self.state().signals[id]
    }

    pub(crate) fn notify(&self, id: usize) {
        if let Some(mut state) = self.enter() {
            state.signals[id] = state.signals[id].wrapping_add(1);
            state.wake(Key::Signal(id));
            drop(state);
            self.point();
        }
    }

    pub(crate) fn wait(&self, id: usize, seen: u32, timeout_ns: Option<u64>) {
        self.point();
        if let Some(state) = self.enter() {
            if state.signals[id] == seen {
                let until = timeout_ns.map(|t| state.now.saturating_add(t));
                drop(self.block(state, Key::Signal(id), until));
            }
        }
    }

    /// Starts a thread; it runs when it is first chosen.
    pub(crate) fn spawn(self: &Arc<Self>, name: &str, body: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        let world = Arc::clone(self);
        let mut state = self.state();
        if state.ending {
            return Ok(());
        }
        let me = state.threads.len();
        let weight = state.chooser.weight();
        let turn = Arc::new(Condvar::new());
        let thread = Thread {
            name: name.to_owned(),
            status: Status::Runnable,
            weight,
            turn,
            last_note: String::new(),
        };
        state.threads.push(thread);
        let start = move || {
            ME.set(Some(me));
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                drop(world.wait_for_turn(world.state(), me));
                body();
            }));
            world.over(me, outcome);
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).stack_size(1 << 20).spawn(start)?;
        state.handles.push(handle);
        if let Some(parent) = ME.get() {
            state.write(parent, format_args!("spawn t{me} {name}"));
            drop(state);
            self.point();
        }
        Ok(())
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
            state.threads[state.current].turn.notify_one();
        }
    }

    fn end(&self, failure: Option<String>) {
        self.state().end(failure);
    }
}
