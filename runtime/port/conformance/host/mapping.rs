//! What R allows: publish, revoke, protect, populate, punch, poison.

use super::{NO_PARKING, NO_PROTECT, NO_READ_ONLY, Stage};
use crate::conformance::Outcome;
use crate::{Access, Exec, FaultSource, HostMemory};

pub(super) fn profile<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    let (p, g) = (s.host().profile(), s.it.geometry);
    assert!(s.host().owned(), "the process that made the memory owns it");
    assert_eq!(p.map_granule_bytes % g.page_bytes, 0, "the granule is whole pages");
    assert_eq!(g.block_bytes() % u64::from(p.map_granule_bytes), 0, "a block is whole granules");
    assert_eq!(p.reservation_bytes % g.block_bytes(), 0, "the reservation is whole blocks");
    assert!(p.reservation_bytes >= 8 * u64::from(p.map_granule_bytes), "cases need eight granules");
    assert_eq!(s.host().base() % g.page_bytes as usize, 0, "R starts at a page");
    Outcome::Ran
}

pub(super) fn alias<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    assert_eq!((s.get(s.at(0)), s.get(s.at(7))), (0, 0));
    s.set(s.at(0), 11);
    s.set(s.at(7), 12);
    assert_eq!((s.get(s.at(0)), s.get(s.at(7))), (11, 12));
    Outcome::Ran
}

pub(super) fn populate<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    s.host().populate(s.unit(1)).expect("populate");
    s.set(s.at(1), 5);
    s.host().populate(s.units(0, 3)).expect("populate");
    s.host().populate(s.units(0, 3)).expect("populate again");
    assert_eq!([s.get(s.at(0)), s.get(s.at(1)), s.get(s.at(2))], [0, 5, 0]);
    Outcome::Ran
}

pub(super) fn read_only<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    if !s.host().profile().publish_read_only {
        return NO_READ_ONLY;
    }
    s.set(s.at(1), 7);
    s.publish(s.unit(1), Access::ReadOnly);
    assert_eq!(s.load(s.at(1)).join(), 7);
    let store = s.store(s.at(1), 8);
    assert!(s.fault(s.unit(1)).write, "a store is a write fault");
    assert!(!store.is_over_soon(), "a store passed a read-only page");
    assert_eq!(s.get(s.at(1)), 7);
    s.publish(s.unit(1), Access::ReadWrite);
    store.join();
    assert_eq!(s.get(s.at(1)), 8);
    Outcome::Ran
}

pub(super) fn read_write<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    s.set(s.at(2), 3);
    s.publish(s.unit(2), Access::ReadWrite);
    assert_eq!(s.load(s.at(2)).join(), 3);
    s.store(s.at(2), 4).join();
    assert_eq!((s.get(s.at(2)), s.load(s.at(2)).join()), (4, 4));
    Outcome::Ran
}

pub(super) fn revoke<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    s.publish(s.unit(1), Access::ReadWrite);
    s.store(s.at(1), 42).join();
    s.host().revoke(s.unit(1)).expect("revoke");
    s.host().revoke(s.unit(1)).expect("revoke of an absent page");
    assert_eq!(s.get(s.at(1)), 42, "bytes in A stay");
    let load = s.load(s.at(1));
    assert!(!s.fault(s.unit(1)).write, "a load is no write fault");
    assert!(!load.is_over_soon(), "a load passed an absent page");
    s.set(s.at(1), 43);
    s.publish(s.unit(1), Access::ReadWrite);
    assert_eq!(load.join(), 43);
    Outcome::Ran
}

pub(super) fn protect<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    if !s.host().profile().protect {
        return NO_PROTECT;
    }
    s.publish(s.unit(3), Access::ReadWrite);
    s.store(s.at(3), 1).join();
    s.host().protect(s.unit(3)).expect("protect");
    assert_eq!(s.load(s.at(3)).join(), 1);
    let store = s.store(s.at(3), 2);
    assert!(s.fault(s.unit(3)).write, "a store is a write fault");
    assert!(!store.is_over_soon(), "a store passed a protected page");
    assert_eq!(s.get(s.at(3)), 1);
    s.publish(s.unit(3), Access::ReadWrite);
    store.join();
    assert_eq!(s.get(s.at(3)), 2);
    Outcome::Ran
}

pub(super) fn protect_absent<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    if !s.host().profile().protect {
        return NO_PROTECT;
    }
    s.host().populate(s.units(0, 2)).expect("populate");
    s.publish(s.unit(0), Access::ReadWrite);
    s.host().protect(s.units(0, 2)).expect("protect of a partly absent run");
    assert_eq!(s.load(s.at(0)).join(), 0);
    let load = s.load(s.at(1));
    s.fault(s.unit(1));
    assert!(!load.is_over_soon(), "protect mapped an absent page");
    // What protect left behind on the absent page must not outlive a publish.
    s.publish(s.unit(1), Access::ReadWrite);
    load.join();
    s.store(s.at(1), 9).join();
    assert_eq!(s.get(s.at(1)), 9);
    Outcome::Ran
}

pub(super) fn publish_again<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
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
        s.store(s.at(1), 23).join();
        assert_eq!(s.get(s.at(1)), 23);
    }
    Outcome::Ran
}

pub(super) fn partly_present<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    s.publish(s.unit(1), Access::ReadWrite);
    s.store(s.at(1), 1).join();
    s.publish(s.units(0, 3), Access::ReadWrite);
    s.store(s.at(0), 2).join();
    s.store(s.at(2), 3).join();
    assert_eq!([s.get(s.at(0)), s.get(s.at(1)), s.get(s.at(2))], [2, 1, 3]);
    Outcome::Ran
}

pub(super) fn punch<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    s.publish(s.units(1, 2), Access::ReadWrite);
    s.store(s.at(1), 61).join();
    s.store(s.at(2), 62).join();
    let next = s.it.geometry.bytes_of(s.unit(2)).start;
    s.set(next, 63);
    if s.host().profile().protect {
        s.host().protect(s.unit(1)).expect("protect");
    }
    s.host().punch(s.unit(1)).expect("punch");
    assert_eq!(s.get(s.at(1)), 0, "zeros");
    assert_eq!((s.get(next), s.get(s.at(2))), (63, 62), "nothing beside the run");
    if s.parks() {
        let load = s.load(s.at(1));
        s.fault(s.unit(1));
        s.publish(s.unit(1), Access::ReadWrite);
        assert_eq!(load.join(), 0);
        s.store(s.at(1), 63).join();
        assert_eq!(s.get(s.at(1)), 63, "the old protection is forgotten");
    }
    Outcome::Ran
}

pub(super) fn poison<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) -> Outcome {
    if !s.parks() {
        return NO_PARKING;
    }
    s.publish(s.units(1, 2), Access::ReadWrite);
    s.host().revoke(s.unit(1)).expect("revoke");
    s.host().poison(s.unit(1)).expect("poison of an absent run");
    let Some(poisoned) = s.it.view.poisoned(s.at(1)) else {
        return Outcome::Skipped("this view cannot touch poison and live");
    };
    assert!(poisoned, "a touch of poison is no ordinary load");
    assert_eq!(s.it.view.poisoned(s.at(2)), Some(false), "poison stays inside its run");
    s.host().punch(s.unit(1)).expect("punch");
    s.publish(s.unit(1), Access::ReadWrite);
    assert_eq!(s.it.view.poisoned(s.at(1)), Some(false), "punch ends poison");
    s.store(s.at(1), 1).join();
    Outcome::Ran
}
