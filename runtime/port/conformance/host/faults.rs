//! Who is parked and woken, and what the messages say.

use super::{NO_PARKING, NO_READ_ONLY, Stage};
use crate::conformance::{Outcome, PATIENCE, QUIET, Task, sleep};
use crate::{Access, Exec, FaultSource, HostMemory};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{PageIndex, PageRun};

pub(super) fn upgrade<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    if !s.host().profile().publish_read_only {
        return NO_READ_ONLY;
    }
    let store = s.store(s.at(1), 6);
    assert!(s.fault(s.unit(1)).write);
    // The wrong answer first: woken, it must park again and say so.
    s.publish(s.unit(1), Access::ReadOnly);
    assert!(s.fault(s.unit(1)).write, "a writer that is woken for nothing faults again");
    assert!(!store.is_over_soon());
    s.publish(s.unit(1), Access::ReadWrite);
    store.join();
    assert_eq!(s.get(s.at(1)), 6);
    Outcome::Ran
}

pub(super) fn dropped<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    s.set(s.at(1), 31);
    s.publish(s.unit(1), Access::ReadWrite);
    for _ in 0..20 {
        // As the kernel may: the owner of the page's state knows nothing of it.
        s.host().revoke(s.unit(1)).expect("revoke");
        let load = s.load(s.at(1));
        s.fault(s.unit(1));
        s.publish(s.unit(1), Access::ReadWrite);
        assert_eq!(load.join(), 31);
    }
    Outcome::Ran
}

pub(super) fn many_parked<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    let loads: Vec<_> = (0..4).map(|_| s.load(s.at(1))).collect();
    s.fault(s.unit(1));
    assert!(!loads[3].is_over_soon());
    s.set(s.at(1), 17);
    s.publish(s.unit(1), Access::ReadWrite);
    for load in loads {
        assert_eq!(load.join(), 17);
    }
    Outcome::Ran
}

pub(super) fn copied_before_publish<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    for value in 1..50 {
        let load = s.load(s.at(4));
        s.fault(s.unit(4));
        s.host().populate(s.unit(4)).expect("populate");
        s.set(s.at(4), value);
        s.publish(s.unit(4), Access::ReadWrite);
        assert_eq!(load.join(), value);
        s.host().revoke(s.unit(4)).expect("revoke");
    }
    Outcome::Ran
}

pub(super) fn next_times_out<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    let faults = Arc::clone(&s.it.faults);
    let next = Task::start(&s.exec, "next", move || {
        let mut got = Vec::new();
        faults.next(&mut got, Some(QUIET)).expect("next");
        faults.next(&mut got, Some(Duration::ZERO)).expect("next");
        got.len()
    });
    assert_eq!(next.join(), 0, "a message that nobody caused");
    Outcome::Ran
}

pub(super) fn interrupt<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    let reader = || {
        let faults = Arc::clone(&s.it.faults);
        Task::start(&s.exec, "reader", move || faults.next(&mut Vec::new(), None).expect("next"))
    };
    let present = [reader(), reader()];
    sleep(&s.exec, QUIET);
    s.it.faults.interrupt();
    present.into_iter().for_each(Task::join);
    reader().join();
    Outcome::Ran
}

pub(super) fn readers<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    s.host().populate(s.units(0, 8)).expect("populate");
    (0..8).for_each(|n| s.set(s.at(n), n as u8 + 1));
    let unit_pages = u64::from(s.unit(0).count);
    let stop = Arc::new(AtomicBool::new(false));
    let serve = |n: u32| {
        let (host, faults, stop) = (Arc::clone(&s.it.host), Arc::clone(&s.it.faults), Arc::clone(&stop));
        Task::start(&s.exec, &format!("serve{n}"), move || {
            let mut got = Vec::new();
            while !stop.load(Ordering::Acquire) {
                faults.next(&mut got, None).expect("next");
                for fault in got.drain(..) {
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
    Outcome::Ran
}

pub(super) fn spurious<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    let loads = [s.load(s.at(1)), s.load(s.at(1)), s.load(s.at(1))];
    s.fault(s.unit(1));
    s.publish(s.unit(1), Access::ReadWrite);
    loads.into_iter().for_each(|l| assert_eq!(l.join(), 0));
    s.store(s.at(1), 5).join();
    // Every message that is left is answered once more, as a handler would that came late.
    let mut rest = Vec::new();
    s.it.faults.next(&mut rest, Some(QUIET)).expect("next");
    for _ in 0..=rest.len() {
        s.publish(s.unit(1), Access::ReadWrite);
    }
    assert_eq!((s.get(s.at(1)), s.load(s.at(1)).join()), (5, 5));
    Outcome::Ran
}

pub(super) fn no_lost_store<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    const ROUNDS: u64 = 400;
    if !s.parks() {
        return NO_PARKING;
    }
    let unit = s.unit(5);
    let bytes = s.it.geometry.bytes_of(unit);
    s.publish(unit, Access::ReadWrite);
    let (view, at) = (Arc::clone(&s.it.view), s.at(5));
    let writer = Task::start(&s.exec, "writer", move || {
        for _ in 0..ROUNDS {
            view.store(at, view.load(at).wrapping_add(1));
        }
    });
    // The migrator: away, the host copy spoiled, home again; only then the fault is answered.
    let mut got = Vec::new();
    let (mut moves, end) = (0, s.exec.now() + PATIENCE.as_nanos() as u64);
    while !writer.is_over() {
        assert!(s.exec.now() < end, "the writer did not end within {PATIENCE:?}");
        s.host().revoke(unit).expect("revoke");
        let saved = s.host().alias(bytes).to_vec();
        s.host().alias(bytes).fill(0xEE);
        s.host().alias(bytes).write(&saved);
        s.host().publish(unit, Access::ReadWrite).expect("publish");
        s.it.faults.next(&mut got, Some(Duration::ZERO)).expect("next");
        if !got.is_empty() {
            s.host().publish(unit, Access::ReadWrite).expect("publish");
            got.clear();
        }
        moves += 1;
    }
    writer.join();
    assert_eq!(s.get(at), ROUNDS as u8, "stores were lost in {moves} moves");
    Outcome::Ran
}
