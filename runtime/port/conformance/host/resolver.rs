//! Touches that are put to a resolver in the threads that made them. A source that cannot ask there ignores it, and says all in messages.

use super::{AppView, Stage};
use crate::conformance::{QUIET, Task, sleep};
use crate::{Access, Exec, Fault, FaultSource, HostMemory, Resolver};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use vkhmm_core::units::{PageIndex, PageRun};

/// Notes what it is asked, waits for leave, then shows the page or leaves it. It runs in a signal handler: atomics only.
struct Noting<X, H> {
    exec: X,
    host: Arc<H>,
    shows: bool,
    leave: AtomicBool,
    asked: AtomicU64,
    page: AtomicU64,
    write: AtomicBool,
}

impl<X: Exec, H: HostMemory> Resolver for Noting<X, H> {
    fn resolve(&self, fault: Fault) -> bool {
        self.page.store(fault.page.0, Ordering::SeqCst);
        self.write.store(fault.write, Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst);
        while !self.leave.load(Ordering::SeqCst) {
            self.exec.now(); // others may run
        }
        let run = PageRun { first: fault.page, count: 1 };
        self.shows && self.host.publish(run, Access::ReadWrite).is_ok()
    }
}

impl<X: Exec, H: HostMemory> Noting<X, H> {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn last(&self) -> Fault {
        let page = PageIndex(self.page.load(Ordering::SeqCst));
        Fault { page, write: self.write.load(Ordering::SeqCst) }
    }
}

impl<X: Exec, H: HostMemory, F: FaultSource> Stage<X, H, F> {
    fn resolver(&self, shows: bool, leave: bool) -> Arc<Noting<X, H>> {
        self.host().populate(self.units(0, 8)).expect("populate");
        let resolver = Arc::new(Noting {
            exec: self.exec.clone(),
            host: Arc::clone(&self.it.host),
            shows,
            leave: AtomicBool::new(leave),
            asked: AtomicU64::new(0),
            page: AtomicU64::new(u64::MAX),
            write: AtomicBool::new(false),
        });
        self.it.faults.resolve_with(Some(Arc::clone(&resolver) as Arc<dyn Resolver>));
        resolver
    }

    fn touch(&self, n: u64, write: bool) -> Task<X, u8> {
        let (view, at): (Arc<dyn AppView>, _) = (Arc::clone(&self.it.view), self.at(n));
        Task::start(&self.exec, "touch", move || {
            if write {
                view.store(at, 5);
            }
            view.load(at)
        })
    }

    fn page(&self, n: u64) -> PageIndex {
        PageIndex(self.at(n) / u64::from(self.it.geometry.page_bytes))
    }
}

pub(super) fn asked<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let resolver = s.resolver(true, true);
    s.set(s.at(1), 8);
    for (n, write, value) in [(1, false, 8), (3, true, 5)] {
        let (before, touch) = (resolver.asked(), s.touch(n, write));
        if s.it.asks_in_threads {
            assert_eq!(touch.join(), value);
            assert!(resolver.asked() > before, "a touch was not put to the resolver");
            assert_eq!(resolver.last(), Fault { page: s.page(n), write }, "what was touched in granule {n}");
            s.no_message();
            continue;
        }
        if s.parks() {
            s.fault(s.unit(n));
            s.publish(s.unit(n), Access::ReadWrite);
        }
        assert_eq!(touch.join(), value);
    }
    assert!(s.it.asks_in_threads || resolver.asked() == 0, "asked, by a source that says it never does");
    s.it.faults.resolve_with(None);
}

pub(super) fn left<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let resolver = s.resolver(false, true);
    for (n, write) in [(2, true), (4, false)] {
        let touch = s.touch(n, write);
        if s.parks() {
            assert_eq!(s.fault(s.unit(n)), Fault { page: s.page(n), write });
            assert!(!touch.is_over_soon(), "a touch passed that nobody served");
            s.publish(s.unit(n), Access::ReadWrite);
        }
        assert_eq!(touch.join(), if write { 5 } else { 0 });
    }
    assert_eq!(resolver.asked() > 0, s.it.asks_in_threads);
    s.it.faults.resolve_with(None);
}

pub(super) fn taken_back<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let resolver = s.resolver(true, false);
    let touch = s.touch(1, true);
    let faults = Arc::clone(&s.it.faults);
    let taken = Task::start(&s.exec, "take back", move || faults.resolve_with(None));
    if s.it.asks_in_threads {
        // Either it was asked before it was taken back, or it is never asked.
        sleep(&s.exec, QUIET);
        assert!(resolver.asked() == 0 || !taken.is_over_soon(), "taken back with a thread inside");
    }
    resolver.leave.store(true, Ordering::SeqCst);
    taken.join();
    let asked = resolver.asked();
    if asked == 0 && s.parks() {
        s.fault(s.unit(1));
        s.publish(s.unit(1), Access::ReadWrite);
    }
    assert_eq!(touch.join(), 5);
    let touch = s.touch(5, false);
    if s.parks() {
        s.fault(s.unit(5));
        s.publish(s.unit(5), Access::ReadWrite);
    }
    assert_eq!(touch.join(), 0);
    assert_eq!(resolver.asked(), asked, "asked after it was taken back");
    assert_eq!(Arc::strong_count(&resolver), 1, "somebody keeps a resolver that was taken back");
}
