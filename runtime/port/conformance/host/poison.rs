//! Pages that must not be touched, and pages given back.

use super::{Stage, Task};
use crate::{Access, Exec, FaultMode, FaultSource, HostMemory};
use std::sync::Arc;

pub(super) fn punch<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
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
    let load = s.load(s.at(1));
    if s.parks() {
        s.fault(s.unit(1));
        assert!(!load.is_over_soon(), "a hole is present");
        s.publish(s.unit(1), Access::ReadWrite);
    }
    assert_eq!(load.join(), 0);
    s.store(s.at(1), 63).join();
    assert_eq!(s.get(s.at(1)), 63, "the old protection is forgotten");
    s.host().punch(s.unit(5)).expect("punch of a hole");
}

pub(super) fn poison<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.publish(s.units(1, 2), Access::ReadWrite);
    s.host().revoke(s.unit(1)).expect("revoke");
    s.host().poison(s.unit(1)).expect("poison of an absent run");
    assert!(s.poisoned(s.at(1)), "a touch of poison is no ordinary load");
    assert!(!s.poisoned(s.at(2)), "poison stays inside its run");
    s.no_message();
    s.host().punch(s.unit(1)).expect("punch");
    s.publish(s.unit(1), Access::ReadWrite);
    assert!(!s.poisoned(s.at(1)), "punch ends poison");
    s.store(s.at(1), 1).join();
}

pub(super) fn poison_again<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().poison(s.unit(1)).expect("poison of a hole");
    s.host().poison(s.unit(1)).expect("poison of poison");
    s.host().poison(s.units(0, 3)).expect("poison of a run that is partly poisoned");
    assert_eq!([0, 1, 2].map(|n| s.poisoned(s.at(n))), [true; 3]);
    s.no_message();
}

pub(super) fn revoke_ends_poison<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().populate(s.unit(1)).expect("populate");
    s.set(s.at(1), 44);
    s.host().poison(s.unit(1)).expect("poison");
    assert!(s.poisoned(s.at(1)));
    s.host().revoke(s.unit(1)).expect("revoke of poison");
    s.publish(s.unit(1), Access::ReadWrite);
    assert!(!s.poisoned(s.at(1)), "what is published is not poisoned");
    assert_eq!(s.load(s.at(1)).join(), 44, "poison takes no bytes");
    s.store(s.at(1), 45).join();
    assert_eq!(s.get(s.at(1)), 45);
}

pub(super) fn publish_over_poison<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    s.host().populate(s.units(0, 3)).expect("populate");
    s.host().poison(s.unit(1)).expect("poison");
    let shown = s.host().publish(s.units(0, 3), Access::ReadWrite);
    assert_eq!(s.poisoned(s.at(1)), shown.is_err(), "publish says {shown:?}");
}

pub(super) fn poison_parked<X: Exec, H: HostMemory, F: FaultSource>(s: Stage<X, H, F>) {
    if s.host().profile().faults != FaultMode::Full {
        // System calls are not parked here, so no touch is found out about while it is: the poison must be there before.
        s.host().poison(s.unit(1)).expect("poison");
        assert!(s.poisoned(s.at(1)));
        return s.no_message();
    }
    let touch = |n: u64| {
        let (view, at) = (Arc::clone(&s.it.view), s.at(n));
        Task::start(&s.exec, "touch", move || view.poisoned(at))
    };
    let touches = [touch(1), touch(1), touch(2)];
    s.fault(s.units(1, 2));
    assert!(!touches[2].is_over_soon(), "a touch passed an absent page");
    s.host().poison(s.units(1, 2)).expect("poison");
    assert_eq!(touches.map(Task::join), [true; 3]);
}
