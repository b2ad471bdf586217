//! Who is parked and woken, and what becomes of stores meanwhile. Where nobody is parked, the same touches go through by themselves.

use super::Stage;
use crate::conformance::{PATIENCE, QUIET, Task};
use crate::{Access, Exec, FaultSource, HostMemory};
use core::time::Duration;
use std::sync::Arc;

pub(super) fn upgrade<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let store = s.store(s.at(1), 6);
    if !s.parks() {
        store.join();
        assert_eq!(s.get(s.at(1)), 6);
        return s.no_message();
    }
    assert!(s.fault(s.unit(1)).write);
    // The wrong answer first.
    s.host().populate(s.unit(1)).expect("populate");
    if s.host().profile().publish_read_only {
        s.publish(s.unit(1), Access::ReadOnly);
        assert!(s.fault(s.unit(1)).write, "a writer that is woken for nothing faults again");
    } else {
        s.read_only_is_refused(s.unit(1));
    }
    assert!(!store.is_over_soon(), "a store passed, and nobody let it");
    s.publish(s.unit(1), Access::ReadWrite);
    store.join();
    assert_eq!(s.get(s.at(1)), 6);
}

pub(super) fn dropped<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.set(s.at(1), 31);
    s.publish(s.unit(1), Access::ReadWrite);
    for _ in 0..20 {
        // As the kernel may: the owner of the page's state knows nothing of it.
        s.host().revoke(s.unit(1)).expect("revoke");
        let load = s.load(s.at(1));
        if s.parks() {
            s.fault(s.unit(1));
            s.publish(s.unit(1), Access::ReadWrite);
        }
        assert_eq!(load.join(), 31);
    }
}

pub(super) fn many_parked<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.set(s.at(1), 17);
    let loads: Vec<_> = (0..4).map(|_| s.load(s.at(1))).collect();
    if s.parks() {
        s.fault(s.unit(1));
        assert!(!loads[3].is_over_soon());
        s.publish(s.unit(1), Access::ReadWrite);
    }
    for load in loads {
        assert_eq!(load.join(), 17);
    }
}

pub(super) fn copied_before_publish<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    for value in 1..50 {
        if !s.parks() {
            // One memory: what is in A is in R.
            s.set(s.at(4), value);
            assert_eq!(s.load(s.at(4)).join(), value);
            continue;
        }
        let load = s.load(s.at(4));
        s.fault(s.unit(4));
        s.host().populate(s.unit(4)).expect("populate");
        s.set(s.at(4), value);
        s.publish(s.unit(4), Access::ReadWrite);
        assert_eq!(load.join(), value);
        s.host().revoke(s.unit(4)).expect("revoke");
    }
}

pub(super) fn spurious<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let loads = [s.load(s.at(1)), s.load(s.at(1)), s.load(s.at(1))];
    if s.parks() {
        s.fault(s.unit(1));
    }
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
}

pub(super) fn no_lost_store<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    const ROUNDS: u64 = 400;
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
        // Where R is no gate, revoke keeps nobody away, and must not harm who goes on.
        if s.parks() {
            let saved = s.host().alias(bytes).to_vec();
            s.host().alias(bytes).fill(0xEE);
            s.host().alias(bytes).write(&saved);
        }
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
}

pub(super) fn no_store_while_protected<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    const ROUNDS: u64 = 400;
    let unit = s.unit(6);
    let gates = s.parks() && s.host().profile().protect;
    s.publish(unit, Access::ReadWrite);
    let (view, at) = (Arc::clone(&s.it.view), s.at(6));
    let writer = Task::start(&s.exec, "writer", move || {
        for _ in 0..ROUNDS {
            view.store(at, view.load(at).wrapping_add(1));
        }
    });
    let mut got = Vec::new();
    let (mut rounds, end) = (0, s.exec.now() + PATIENCE.as_nanos() as u64);
    while !writer.is_over() {
        assert!(s.exec.now() < end, "the writer did not end within {PATIENCE:?}");
        if s.host().profile().protect {
            s.host().protect(unit).expect("protect");
        } else {
            s.protect_is_refused(unit);
        }
        let first = s.get(at);
        // Time for a store that should not be.
        s.it.faults.next(&mut got, Some(Duration::from_micros(50))).expect("next");
        got.clear();
        let second = s.get(at);
        assert!(!gates || first == second, "a store passed a protected page: {first}, then {second}");
        s.host().publish(unit, Access::ReadWrite).expect("publish");
        rounds += 1;
    }
    writer.join();
    assert_eq!(s.get(at), ROUNDS as u8, "stores were lost in {rounds} rounds");
}
