//! What waking a thread costs here, measured once per process at the first start: a ping-pong of two threads over futexes, on one
//! processor and on two. From it follow how many threads read touches, and how long one that served a touch looks for the next.
//!
//! On two processors the sleeper's has to be interrupted, which costs between one and fifty microseconds by machine. Where that is
//! dear, looking for the next touch for as long as a wake-up would take saves it for every touch of a stream, and a reader on each
//! processor gives the kernel one to wake that is beside the toucher.

use crate::exec::monotonic_ns;
use crate::futex::timespec;
use crate::signals::spawn_blocked;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use rustix::thread::futex::{self, Flags};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// Longest that one of the two ping-pongs may take; a machine that is too busy for it is measured no further.
const PATIENCE: Duration = Duration::from_millis(6);
/// How much longer the caller waits for the result.
const SLACK: Duration = Duration::from_millis(2);
/// Round trips of one ping-pong.
const ROUNDS: usize = 64;
/// With less of them nothing is concluded.
const ROUNDS_MIN: usize = 8;
/// A reader looks for the next touch at least and at most so long: below, a look is over before it began; above, it costs whoever
/// wants the processor more than it saves.
const SPIN_NS: core::ops::RangeInclusive<u64> = 5_000..=100_000;
/// What is chosen where nothing could be measured.
const SPIN_UNKNOWN_NS: u64 = 50_000;
/// More readers than this wake each other for nothing.
const READERS_MAX: usize = 4;
/// Where a wake on another processor costs at most so many times one on the same, it matters little where a reader is.
const NEAR: u64 = 3;

/// What was measured, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakes {
    /// Processors that the process may use.
    pub processors: usize,
    /// Nanoseconds of a futex round trip on one processor; `None` if it could not be measured.
    pub same_ns: Option<u64>,
    /// The same between two processors.
    pub other_ns: Option<u64>,
    /// Threads that read touches.
    pub readers: usize,
    /// Nanoseconds for which one that served a touch looks for the next before it sleeps.
    pub spin_ns: u64,
}

impl Wakes {
    /// Measured at the first call (at most 20 ms), remembered afterwards.
    pub fn of_this_machine() -> Self {
        static MEASURED: OnceLock<Wakes> = OnceLock::new();
        *MEASURED.get_or_init(|| {
            let processors = usable();
            let (first, last) = (processors.first().copied(), processors.last().copied());
            let same = first.and_then(|cpu| ping_pong(cpu, cpu));
            let other = first.zip(last).filter(|(a, b)| a != b).and_then(|(a, b)| ping_pong(a, b));
            Self::choose(processors.len().max(1), same, other)
        })
    }

    /// What follows from what was measured.
    fn choose(processors: usize, same_ns: Option<u64>, other_ns: Option<u64>) -> Self {
        // One processor: whoever looks keeps the toucher from running.
        let (readers, spin_ns) = match (processors, same_ns, other_ns) {
            (1, ..) => (1, 0),
            (_, Some(same), Some(other)) => {
                let readers = if other <= same * NEAR { 2 } else { processors.min(READERS_MAX) };
                // Looking for as long as being woken takes costs at most twice what the better of both would have.
                (readers, other.clamp(*SPIN_NS.start(), *SPIN_NS.end()))
            }
            _ => (2, SPIN_UNKNOWN_NS),
        };
        Self { processors, same_ns, other_ns, readers, spin_ns }
    }
}

impl fmt::Display for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: Option<u64>| ns.map_or("unknown".into(), |ns| format!("{:.1} us", ns as f64 / 1e3));
        let (same, other) = (us(self.same_ns), us(self.other_ns));
        write!(
            f,
            "{} readers of touches, each looks for the next one for {:.0} us ({} processors; a futex round trip takes {same} on one, \
             {other} between two)",
            self.readers,
            self.spin_ns as f64 / 1e3,
            self.processors
        )
    }
}

/// The processors that the calling thread may run on.
fn usable() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Nanoseconds of a round trip between two threads of ours, bound to these processors; the caller's own binding stays. The lower
/// quartile: what else the machine does only adds.
fn ping_pong(a: usize, b: usize) -> Option<u64> {
    let ball = Arc::new(AtomicU32::new(0));
    let (send, receive): (Sender<Vec<u64>>, Receiver<Vec<u64>>) = channel();
    let until = monotonic_ns() + PATIENCE.as_nanos() as u64;
    let theirs = Arc::clone(&ball);
    // Contract of both: own nothing · block on each other, for at most PATIENCE · never touch R or take a lock.
    spawn_blocked("vkhmm-probe", move || {
        if bind(b) {
            while pass(&theirs, 1, 0, until) {}
        }
    })
    .ok()?;
    spawn_blocked("vkhmm-probe", move || {
        let mut trips = Vec::with_capacity(ROUNDS);
        let mut start = monotonic_ns();
        while bind(a) && trips.len() < ROUNDS {
            give(&ball, 1);
            if !take(&ball, 0, until) {
                break;
            }
            let now = monotonic_ns();
            trips.push(now - start);
            start = now;
        }
        give(&ball, OVER);
        let _ = send.send(trips); // nobody waits any more if it took too long
    })
    .ok()?;
    let mut trips = receive.recv_timeout(PATIENCE + SLACK).ok()?;
    trips.sort_unstable();
    (trips.len() >= ROUNDS_MIN).then(|| trips[trips.len() / 4])
}

/// The value of the ball that ends the game.
const OVER: u32 = 2;

fn bind(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).is_ok()
}

fn give(ball: &AtomicU32, to: u32) {
    ball.store(to, Ordering::Release);
    let _ = futex::wake(ball, Flags::PRIVATE, 1);
}

/// Sleeps until the ball is `mine`; false if it is over, or too late.
fn take(ball: &AtomicU32, mine: u32, until: u64) -> bool {
    loop {
        let now = ball.load(Ordering::Acquire);
        let left = until.saturating_sub(monotonic_ns());
        if now == mine || now == OVER || left == 0 {
            return now == mine;
        }
        let _ = futex::wait(ball, Flags::PRIVATE, now, Some(&timespec(Duration::from_nanos(left))));
    }
}

fn pass(ball: &AtomicU32, mine: u32, to: u32, until: u64) -> bool {
    let had = take(ball, mine, until);
    if had {
        give(ball, to);
    }
    had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_wakes_get_more_readers_and_longer_looks() {
        let cases = [
            ((1, Some(5_000), None), (1, 0)),
            ((2, Some(5_000), Some(54_000)), (2, 54_000)),
            ((16, Some(5_000), Some(54_000)), (4, 54_000)),
            ((16, Some(3_000), Some(6_000)), (2, 6_000)),
            ((16, Some(1_000), Some(2_000)), (2, 5_000)),
            ((16, Some(5_000), Some(900_000)), (4, 100_000)),
            ((16, None, None), (2, 50_000)),
            ((16, Some(5_000), None), (2, 50_000)),
        ];
        for ((processors, same, other), chosen) in cases {
            let wakes = Wakes::choose(processors, same, other);
            assert_eq!((wakes.readers, wakes.spin_ns), chosen, "{wakes}");
        }
    }

    #[test]
    fn it_is_measured_once_in_time_and_leaves_the_callers_binding() {
        let before = usable();
        let start = monotonic_ns();
        let first = Wakes::of_this_machine();
        let took = monotonic_ns() - start;
        let start = monotonic_ns();
        assert_eq!(Wakes::of_this_machine(), first);
        let again = monotonic_ns() - start;
        assert_eq!(usable(), before);
        // Twice the patience, and what a busy machine takes to run the caller again.
        assert!(2 * (PATIENCE + SLACK) <= Duration::from_millis(20));
        assert!(took < 1_000_000_000, "{took} ns");
        assert!(again < took.max(1_000_000), "{again} ns");
        assert_eq!(first.processors, before.len());
        assert!(first.same_ns.is_none_or(|ns| (100..6_000_000).contains(&ns)), "{first}");
    }
}
