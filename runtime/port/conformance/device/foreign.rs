//! Waits for an application's timelines.

use super::{Bench, words};
use crate::{Command, Device, Exec, Role};

pub(super) fn waits_for_a_value<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let theirs = (b.semaphore)();
    let first = b.submit_after(Role::Release, &[], vec![(theirs.semaphore.clone(), 2)], Vec::new());
    let second = b.submit_after(Role::Release, &[], vec![(theirs.semaphore.clone(), 5)], Vec::new());
    assert!(!b.is_reached(first), "it stands at zero");
    (theirs.signal)(1);
    assert!(!b.is_reached(first), "it stands at one");
    // No more than is waited for: the validation layer of 1.3.239 takes a host's signal above that for pending.
    (theirs.signal)(2);
    b.finish(first);
    assert!(!b.is_reached(second), "it stands at two");
    (theirs.signal)(5);
    b.finish(second);
    // Reached before it is asked for.
    let third = b.submit_after(Role::Release, &[], vec![(theirs.semaphore, 4)], Vec::new());
    b.finish(third);
}

pub(super) fn waits_for_all<X: Exec, D: Device>(mut b: Bench<X, D>) {
    // Whichever comes last.
    for last in 0..2 {
        let theirs = [(b.semaphore)(), (b.semaphore)()];
        let both = theirs.iter().map(|foreign| (foreign.semaphore.clone(), 7)).collect();
        let ticket = b.submit_after(Role::Release, &[], both, Vec::new());
        (theirs[1 - last].signal)(7);
        assert!(!b.is_reached(ticket), "one of two is not enough");
        (theirs[last].signal)(7);
        b.finish(ticket);
    }
}

pub(super) fn among_our_own<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let fill = |word| vec![Command::Fill { device_offset: 0, bytes, word }];
    let before = b.submit(Role::Compute, &[], fill(1));
    let theirs = (b.semaphore)();
    let granted = b.submit(Role::Grant, &[before], Vec::new());
    let released = b.submit_after(Role::Release, &[granted], vec![(theirs.semaphore, 1)], Vec::new());
    let after = b.submit(Role::Compute, &[released], fill(2));
    b.finish(granted);
    assert!(!b.is_reached(after), "what comes after a release waits as long");
    (theirs.signal)(1);
    b.finish(after);
    assert_eq!(b.get(0, bytes), words(2, bytes));
}
