//! What R allows: publish, revoke, protect, populate.

use super::Stage;
use crate::conformance::is_stopped;
use crate::{Access, Exec, FaultSource, HostMemory};
use vkhmm_core::units::ByteRange;

pub(super) fn profile<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let (p, g) = (s.host().profile(), s.it.geometry);
    assert!(s.host().owned(), "the process that made the memory owns it");
    assert!(!p.engine.is_empty(), "the fault engine has a name");
    assert_eq!(p.map_granule_bytes % g.page_bytes, 0, "the granule is whole pages");
    assert_eq!(g.block_bytes() % u64::from(p.map_granule_bytes), 0, "a block is whole granules");
    assert_eq!(p.reservation_bytes % g.block_bytes(), 0, "the reservation is whole blocks");
    assert!(p.reservation_bytes >= 8 * u64::from(p.map_granule_bytes), "cases need eight granules");
    let base = s.host().base();
    assert_eq!(base % g.page_bytes as usize, 0, "R starts at a page");
    let before = format!("{p:?}");
    s.publish(s.units(0, 3), Access::ReadWrite);
    s.host().punch(s.units(0, 3)).expect("punch");
    assert_eq!((format!("{:?}", s.host().profile()), s.host().base()), (before, base), "it is constant");
}

pub(super) fn alias<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    assert_eq!((s.get(s.at(0)), s.get(s.at(7))), (0, 0));
    s.set(s.at(0), 11);
    s.set(s.at(7), 12);
    assert_eq!((s.get(s.at(0)), s.get(s.at(7))), (11, 12));
}

pub(super) fn alias_end<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    let end = s.host().profile().reservation_bytes;
    assert_eq!(s.host().alias(ByteRange { start: end - 5, end }).to_vec(), [0; 5], "A is mapped to its end");
    let past = ByteRange { start: end - 5, end: end + 1 };
    assert!(is_stopped(|| Ok::<_, ()>(s.host().alias(past))), "A was handed out past its end");
}

pub(super) fn populate<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().populate(s.unit(1)).expect("populate");
    s.set(s.at(1), 5);
    s.host().populate(s.units(0, 3)).expect("populate");
    s.host().populate(s.units(0, 3)).expect("populate again");
    assert_eq!([s.get(s.at(0)), s.get(s.at(1)), s.get(s.at(2))], [0, 5, 0]);
}

pub(super) fn read_only<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.set(s.at(1), 7);
    if !s.parks() {
        // R is mapped whatever is published, and nobody is told.
        s.publish(s.unit(1), Access::ReadWrite);
        assert_eq!(s.load(s.at(1)).join(), 7);
        s.store(s.at(1), 8).join();
        assert_eq!(s.get(s.at(1)), 8);
        return s.no_message();
    }
    if !s.host().profile().publish_read_only {
        s.host().populate(s.unit(1)).expect("populate");
        s.read_only_is_refused(s.unit(1));
        let load = s.load(s.at(1));
        s.fault(s.unit(1));
        assert!(!load.is_over_soon(), "a load passed a page that was not published");
        s.publish(s.unit(1), Access::ReadWrite);
        assert_eq!(load.join(), 7);
        return;
    }
    s.publish(s.unit(1), Access::ReadOnly);
    assert_eq!(s.load(s.at(1)).join(), 7);
    let store = s.store(s.at(1), 8);
    assert!(s.fault(s.unit(1)).write, "a store is a write fault");
    assert!(!store.is_over_soon(), "a store passed a read-only page");
    assert_eq!(s.get(s.at(1)), 7);
    s.publish(s.unit(1), Access::ReadWrite);
    store.join();
    assert_eq!(s.get(s.at(1)), 8);
}

pub(super) fn read_write<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.set(s.at(2), 3);
    s.publish(s.unit(2), Access::ReadWrite);
    assert_eq!(s.load(s.at(2)).join(), 3);
    s.store(s.at(2), 4).join();
    assert_eq!((s.get(s.at(2)), s.load(s.at(2)).join()), (4, 4));
    s.no_message();
}

pub(super) fn revoke<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.publish(s.unit(1), Access::ReadWrite);
    s.store(s.at(1), 42).join();
    s.host().revoke(s.unit(1)).expect("revoke");
    s.host().revoke(s.unit(1)).expect("revoke of an absent page");
    assert_eq!(s.get(s.at(1)), 42, "bytes in A stay");
    let load = s.load(s.at(1));
    if !s.parks() {
        assert_eq!(load.join(), 42, "R is mapped always");
        return s.no_message();
    }
    assert!(!s.fault(s.unit(1)).write, "a load is no write fault");
    assert!(!load.is_over_soon(), "a load passed an absent page");
    s.set(s.at(1), 43);
    s.publish(s.unit(1), Access::ReadWrite);
    assert_eq!(load.join(), 43);
}

pub(super) fn revoke_run<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.publish(s.units(0, 5), Access::ReadWrite);
    (0..5).for_each(|n| s.store(s.at(n), n as u8 + 1).join());
    s.host().revoke(s.units(1, 3)).expect("revoke");
    assert_eq!([0, 4].map(|n| s.load(s.at(n)).join()), [1, 5]);
    s.no_message();
    for n in 1..4 {
        let load = s.load(s.at(n));
        if s.parks() {
            s.fault(s.unit(n));
            assert!(!load.is_over(), "granule {n} of the run is still there");
            s.publish(s.unit(n), Access::ReadWrite);
        }
        assert_eq!(load.join(), n as u8 + 1);
    }
}

pub(super) fn protect<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.publish(s.unit(3), Access::ReadWrite);
    s.store(s.at(3), 1).join();
    if s.host().profile().protect {
        s.host().protect(s.unit(3)).expect("protect");
    } else {
        s.protect_is_refused(s.unit(3));
    }
    assert_eq!(s.load(s.at(3)).join(), 1);
    let store = s.store(s.at(3), 2);
    if s.parks() && s.host().profile().protect {
        assert!(s.fault(s.unit(3)).write, "a store is a write fault");
        assert!(!store.is_over_soon(), "a store passed a protected page");
        assert_eq!(s.get(s.at(3)), 1);
        s.publish(s.unit(3), Access::ReadWrite);
    } else {
        s.no_message();
    }
    store.join();
    assert_eq!(s.get(s.at(3)), 2);
}

pub(super) fn protect_absent<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().populate(s.units(0, 2)).expect("populate");
    s.publish(s.unit(0), Access::ReadWrite);
    if s.host().profile().protect {
        s.host().protect(s.units(0, 2)).expect("protect of a partly absent run");
    } else {
        s.protect_is_refused(s.units(0, 2));
    }
    assert_eq!(s.load(s.at(0)).join(), 0);
    let load = s.load(s.at(1));
    if s.parks() {
        s.fault(s.unit(1));
        assert!(!load.is_over_soon(), "protect mapped an absent page");
    }
    // What protect left behind on the absent page must not outlive a publish.
    s.publish(s.unit(1), Access::ReadWrite);
    load.join();
    s.store(s.at(1), 9).join();
    assert_eq!(s.get(s.at(1)), 9);
}

pub(super) fn publish_again<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.set(s.at(1), 21);
    for _ in 0..3 {
        s.publish(s.unit(1), Access::ReadWrite);
    }
    s.store(s.at(1), 22).join();
    s.publish(s.units(0, 2), Access::ReadWrite);
    assert_eq!((s.get(s.at(1)), s.load(s.at(1)).join()), (22, 22));
    if s.host().profile().publish_read_only {
        s.host().revoke(s.unit(1)).expect("revoke");
        for access in [Access::ReadOnly, Access::ReadOnly, Access::ReadWrite, Access::ReadWrite] {
            s.publish(s.unit(1), access);
        }
    } else if s.parks() {
        s.read_only_is_refused(s.unit(1));
    }
    s.store(s.at(1), 23).join();
    assert_eq!(s.get(s.at(1)), 23);
}

pub(super) fn partly_present<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.publish(s.unit(1), Access::ReadWrite);
    s.store(s.at(1), 1).join();
    s.publish(s.units(0, 3), Access::ReadWrite);
    s.store(s.at(0), 2).join();
    s.store(s.at(2), 3).join();
    assert_eq!([s.get(s.at(0)), s.get(s.at(1)), s.get(s.at(2))], [2, 1, 3]);
}
