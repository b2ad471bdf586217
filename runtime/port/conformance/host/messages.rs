//! What the fault source says, and when it returns.

use super::Stage;
use crate::conformance::{PATIENCE, QUIET, Task, sleep};
use crate::{Access, Exec, Fault, FaultSource, HostMemory};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{PageIndex, PageRun};

/// At most so many messages at once.
const MESSAGES_MAX: usize = 16;

pub(super) fn next_times_out<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let faults = Arc::clone(&s.it.faults);
    let next = Task::start(&s.exec, "next", move || {
        let mut got = Vec::new();
        faults.next(&mut got, Some(QUIET)).expect("next");
        faults.next(&mut got, Some(Duration::ZERO)).expect("next");
        got.len()
    });
    assert_eq!(next.join(), 0, "a message that nobody caused");
}

pub(super) fn sixteen<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    const THREADS: u64 = 24;
    s.host().populate(s.units(0, 8)).expect("populate");
    let loads: Vec<_> = (0..THREADS).map(|n| s.load(s.at(n % 8))).collect();
    let mark = Fault { page: PageIndex(u64::MAX), write: true };
    let mut got = vec![mark];
    if !s.parks() {
        loads.into_iter().for_each(|load| assert_eq!(load.join(), 0));
        s.it.faults.next(&mut got, Some(QUIET)).expect("next");
        return assert_eq!(got, [mark], "nothing to say, and what was there stays");
    }
    // All of them are parked before anybody looks.
    assert!(!loads[0].is_over_soon());
    let end = s.exec.now() + PATIENCE.as_nanos() as u64;
    let told = |got: &[Fault], n: u64| got.iter().any(|f| s.unit(n).contains(f.page));
    while !(0..8).all(|n| told(&got, n)) {
        assert!(s.exec.now() < end, "only these within {PATIENCE:?}: {got:?}");
        let before = got.len();
        s.it.faults.next(&mut got, Some(QUIET)).expect("next");
        assert!(got.len() - before <= MESSAGES_MAX, "{} messages at once", got.len() - before);
        assert_eq!(got.first(), Some(&mark), "messages are appended");
    }
    s.publish(s.units(0, 8), Access::ReadWrite);
    loads.into_iter().for_each(|load| assert_eq!(load.join(), 0));
}

pub(super) fn names<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    for (n, write) in [(1, false), (4, true), (6, false)] {
        let (view, at) = (Arc::clone(&s.it.view), s.at(n));
        let touch = Task::start(&s.exec, "touch", move || match write {
            true => view.store(at, 1),
            false => assert_eq!(view.load(at), 0),
        });
        if s.parks() {
            let page = PageIndex(s.at(n) / u64::from(s.it.geometry.page_bytes));
            let fault = s.fault(s.unit(n));
            assert_eq!(fault, Fault { page, write }, "who touched the last page of granule {n}");
            s.publish(s.unit(n), Access::ReadWrite);
        }
        touch.join();
        if !s.parks() {
            s.no_message();
        }
    }
}

pub(super) fn interrupt<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let reader = || {
        let faults = Arc::clone(&s.it.faults);
        Task::start(&s.exec, "reader", move || faults.next(&mut Vec::new(), None).expect("next"))
    };
    let present = [reader(), reader()];
    sleep(&s.exec, QUIET);
    s.it.faults.interrupt();
    present.into_iter().for_each(Task::join);
    reader().join();
}

pub(super) fn readers<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().populate(s.units(0, 8)).expect("populate");
    (0..8).for_each(|n| s.set(s.at(n), n as u8 + 1));
    let unit_pages = u64::from(s.unit(0).count);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let serve = |n: u32| {
        let (host, faults) = (Arc::clone(&s.it.host), Arc::clone(&s.it.faults));
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        Task::start(&s.exec, &format!("serve{n}"), move || {
            let mut got = Vec::new();
            while !stop.load(Ordering::Acquire) {
                faults.next(&mut got, None).expect("next");
                for fault in got.drain(..) {
                    served.store(true, Ordering::Release);
                    let first = PageIndex(fault.page.0 / unit_pages * unit_pages);
                    let run = PageRun { first, count: unit_pages as u32 };
                    host.publish(run, Access::ReadWrite).expect("publish");
                }
            }
        })
    };
    let servers = [serve(0), serve(1)];
    let loads: Vec<_> = (0..24).map(|n| s.load(s.at(n % 8))).collect();
    for (n, load) in loads.into_iter().enumerate() {
        assert_eq!(load.join(), (n % 8) as u8 + 1);
    }
    stop.store(true, Ordering::Release);
    s.it.faults.interrupt();
    servers.into_iter().for_each(Task::join);
    assert_eq!(served.load(Ordering::Acquire), s.parks(), "somebody is told exactly where somebody parks");
}
