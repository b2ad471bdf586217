//! Submissions: order on one timeline and across, tickets, waiting.

use super::{Bench, pattern, words};
use crate::conformance::{PATIENCE, QUIET, Task};
use crate::{Command, Device, Direction, Exec, Region, Role, Source, Target};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::uses::Uses;

pub(super) fn empty<X: Exec, D: Device>(mut b: Bench<X, D>) {
    for role in Role::ALL {
        b.run(role, &[], Vec::new());
    }
}

pub(super) fn one_timeline<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    // Within one submission by barriers, across submissions by order alone.
    let mut last = None;
    for round in 0..16_u32 {
        let fill = |word| Command::Fill { device_offset: 0, bytes, word };
        let regions = vec![Region { host_offset: 0, device_offset: b.frame(1), bytes }];
        let commands = vec![
            fill(2 * round),
            Command::Barrier,
            fill(2 * round + 1),
            Command::Barrier,
            Command::Move { regions },
        ];
        last = Some(b.submit(Role::Compute, &[], commands));
    }
    b.finish(last.expect("sixteen rounds"));
    assert_eq!(b.get(b.frame(1), bytes), words(31, bytes));
}

pub(super) fn across_timelines<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let mut outs = Vec::new();
    for round in 0..8_u8 {
        if let Some(previous) = outs.last() {
            b.finish(*previous);
            assert_eq!(
                b.device.slot(Direction::Out, 0).slice(0, bytes as usize).to_vec(),
                pattern(round - 1, bytes)
            );
        }
        b.device.slot(Direction::In, 0).slice(0, bytes as usize).write(&pattern(round, bytes));
        let region = |host_offset, device_offset| vec![Region { host_offset, device_offset, bytes }];
        let regions = region(0, 0);
        let copied =
            b.submit(Role::CopyIn, &outs, vec![Command::CopyIn { source: Source::Slot(0), regions }]);
        let regions = region(0, b.frame(1));
        let moved = b.submit(Role::Compute, &[copied], vec![Command::Move { regions }]);
        let out = Command::CopyOut { target: Target::Slot(0), regions: region(0, b.frame(1)) };
        outs.push(b.submit(Role::CopyOut, &[moved], vec![out]));
    }
    b.finish(outs[7]);
    assert_eq!(b.device.slot(Direction::Out, 0).slice(0, bytes as usize).to_vec(), pattern(7, bytes));
}

pub(super) fn between_submissions<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let bytes = b.frame(1);
    let mut last = None;
    for n in 0..7 {
        // Each copies what the one before wrote.
        if n == 0 {
            let fill = Command::Fill { device_offset: 0, bytes, word: 0xABCD };
            b.submit(Role::Compute, &[], vec![fill]);
        }
        let regions = vec![Region { host_offset: b.frame(n), device_offset: b.frame(n + 1), bytes }];
        last = Some(b.submit(Role::Compute, &[], vec![Command::Move { regions }]));
    }
    b.finish(last.expect("seven moves"));
    assert_eq!(b.get(b.frame(7), bytes), words(0xABCD, bytes));
}

pub(super) fn completed<X: Exec, D: Device>(mut b: Bench<X, D>) {
    b.grow();
    let mut tickets = Vec::new();
    for n in 0..24 {
        let fill = Command::Fill { device_offset: b.frame(n % 8), bytes: b.frame(1), word: n as u32 };
        tickets.push(b.submit(Role::Compute, &[], vec![fill]));
    }
    let mut seen = b.device.completed().expect("completed");
    for ticket in tickets {
        b.finish(ticket);
        let now = b.device.completed().expect("completed");
        assert!(seen.done(&now), "a counter fell from {seen:?} to {now:?}");
        seen = now;
    }
    assert!(seen.done(&b.last), "a counter is past what was submitted: {seen:?}, {:?}", b.last);
}

pub(super) fn wait_times_out<X: Exec, D: Device>(b: Bench<X, D>) {
    let theirs = Arc::clone(&b.device);
    let wait = Task::start(&b.exec, "wait", move || {
        let seen = theirs.completed().expect("completed");
        theirs.wait(&seen, QUIET).expect("a timeout is no error");
        theirs.wait(&seen, Duration::ZERO).expect("a timeout is no error");
        theirs.completed().expect("completed") == seen
    });
    assert!(wait.join(), "nothing was submitted, and something completed");
}

pub(super) fn wait_sees_progress<X: Exec, D: Device>(mut b: Bench<X, D>) {
    let theirs = Arc::clone(&b.device);
    let seen = theirs.completed().expect("completed");
    let wait = Task::start(&b.exec, "wait", move || {
        while theirs.completed().expect("completed").done(&seen) {
            theirs.wait(&seen, PATIENCE).expect("wait");
        }
    });
    assert!(!wait.is_over_soon(), "a counter moved by itself");
    b.submit(Role::CopyOut, &[], Vec::new());
    wait.join();
    // Already past: no wait at all.
    let past = Uses::NONE;
    b.device.wait(&past, PATIENCE).expect("wait");
}
