//! The L0 oracle: who was given a borrow of which pages. A mapping is weakened only by a thread that is inside a call which was
//! given the page in that strength; everything else that weakens one fails the run.

use crate::SimExec;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};
use vkhmm_port::fake::{Mapping, Weakened, Weakening};

/// How an application gives bytes to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strength {
    /// `&`: stores may be taken away.
    Shared,
    /// `&mut`: loads, too.
    Exclusive,
}

/// Which pages are the application's, and which of them are lent to a call.
pub(super) struct Ledger {
    exec: SimExec,
    geometry: Geometry,
    /// `&` allows to take loads away, too: the host cannot protect, or strict I/O wants it.
    lenient: bool,
    /// Lock: owns both tables · blocks on nothing · never held across a call.
    pages: Mutex<Pages>,
}

struct Pages {
    live: Vec<bool>,
    /// By thread.
    lent: BTreeMap<usize, Vec<(PageRun, Strength)>>,
}

impl Ledger {
    pub(super) fn new(exec: &SimExec, geometry: Geometry, blocks: u32, lenient: bool) -> Arc<Self> {
        let live = vec![false; (blocks * geometry.pages_per_block) as usize];
        let pages = Mutex::new(Pages { live, lent: BTreeMap::new() });
        Arc::new(Self { exec: exec.clone(), geometry, lenient, pages })
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application has these bytes of the reservation from now on, or has them no more.
    pub(super) fn set_live(&self, bytes: ByteRange, live: bool) {
        let run = self.geometry.pages_touched(&bytes);
        self.pages().live[run.first.0 as usize..run.end().0 as usize].fill(live);
    }

    /// Runs `call`, which is given these bytes.
    pub(super) fn lend<T>(&self, borrows: &[(ByteRange, Strength)], call: impl FnOnce() -> T) -> T {
        let me = self.exec.thread();
        let lent = borrows.iter().map(|(bytes, strength)| (self.geometry.pages_touched(bytes), *strength));
        self.pages().lent.insert(me, lent.collect());
        let result = call();
        self.pages().lent.remove(&me);
        result
    }

    /// What the host is to ask.
    pub(super) fn hook(self: &Arc<Self>) -> Weakened {
        let ledger = Arc::clone(self);
        Arc::new(move |weakening| ledger.judge(weakening))
    }

    /// # Panics
    /// If nobody lent the page to this thread in that strength.
    fn judge(&self, Weakening { operation, page, from, to }: Weakening) {
        let allowed = {
            let pages = self.pages();
            let given = |strength| {
                let lent = pages.lent.get(&self.exec.thread()).map_or(&[][..], Vec::as_slice);
                lent.iter().any(|(run, s)| run.contains(page) && *s == strength)
            };
            let dead = !pages.live[page.0 as usize];
            let shared_is_enough = to == Mapping::ReadOnly || self.lenient;
            dead || given(Strength::Exclusive) || (shared_is_enough && given(Strength::Shared))
        };
        let PageIndex(page) = page;
        assert!(
            allowed,
            "L0: {operation} took page {page} from {from:?} to {to:?} inside no call that was given it so"
        );
    }
}
