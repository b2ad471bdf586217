//! The wrapper adds what it is told to, and nothing else.

use super::faults::MESSAGES_MAX;
use super::*;
use crate::FaultMode;
use crate::conformance::{HOST_CASES, HostUnderTest, run_host};
use crate::fake::{FakeExec, FakeHost, FakeHostOptions};
use std::time::Instant;
use vkhmm_core::units::PageIndex;

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

fn run(first: u64, count: u32) -> PageRun {
    PageRun { first: PageIndex(first), count }
}

fn injected(host: &FakeHost, switches: &HostSwitches) -> Injected<FakeHost> {
    Injected::new(Arc::new(host.clone()), Trouble::new(switches, SMALL, host.profile()))
}

/// The suite of the port, over a fake with these switches.
fn suite(switches: &HostSwitches) -> usize {
    run_host(&FakeExec::new(), &|| {
        let host = FakeHost::new(SMALL, 16, FakeHostOptions::default());
        let trouble = Trouble::new(switches, SMALL, host.profile());
        let faults = Injected::new(Arc::new(host.faults()), trouble.clone());
        HostUnderTest::new(SMALL, Injected::new(Arc::new(host.clone()), trouble), faults, host)
    })
}

#[test]
fn the_contract_is_kept_with_trouble_and_without() {
    assert_eq!(suite(&HostSwitches::default()), HOST_CASES);
    let faults = FaultTrouble {
        seed: 7,
        late: Duration::from_millis(3),
        twice_percent: 50,
        // A case answers what it caused; who invents more is none of its business.
        spurious_percent: 0,
    };
    let slow = Some((3, Duration::from_micros(300)));
    assert_eq!(suite(&HostSwitches { fail: None, slow, faults: Some(faults) }), HOST_CASES);
}

#[test]
fn the_named_calls_fail_and_do_nothing() {
    let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
    let fail = HostFailure { call: Some(HostCall::Publish), n: 2, times: 2, errno: Errno(17) };
    let it = injected(&host, &HostSwitches { fail: Some(fail), ..HostSwitches::default() });
    it.populate(run(0, 8)).unwrap();
    it.publish(run(0, 1), Access::ReadWrite).unwrap();
    for page in [1, 2] {
        let refused = it.publish(run(page, 1), Access::ReadWrite);
        let Err(HostError::Refused { operation: "publish", offset, bytes: 16, source: Errno(17) }) = refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(offset, page * 16);
    }
    it.publish(run(3, 1), Access::ReadWrite).unwrap();
    it.revoke(run(0, 1)).unwrap();
    assert_eq!(host.calls().publish, 2, "the two that failed never came here");
    let calls = |call| it.trouble().unwrap().calls(call);
    assert_eq!((calls(Some(HostCall::Publish)), calls(Some(HostCall::Punch)), calls(None)), (4, 0, 6));
}

#[test]
fn any_call_fails_in_its_own_way() {
    for (n, errno) in [(1, 12), (1, 11), (2, 12), (3, 22)] {
        let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
        let fail = HostFailure { call: None, n, times: 1, errno: Errno(errno) };
        let it = injected(&host, &HostSwitches { fail: Some(fail), ..HostSwitches::default() });
        let errors: Vec<_> = [it.populate(run(0, 1)), it.revoke(run(0, 1)), it.punch(run(0, 1))]
            .into_iter()
            .map(|r| r.err().map(|e| matches!(e, HostError::OutOfMemory { .. })))
            .collect();
        let mut expected = vec![None; 3];
        expected[n as usize - 1] = Some((n, errno) == (1, 12));
        assert_eq!(errors, expected);
    }
}

#[test]
fn calls_take_their_time() {
    let host = FakeHost::new(SMALL, 2, FakeHostOptions::default());
    let slow = Some((2, Duration::from_millis(20)));
    let it = injected(&host, &HostSwitches { slow, ..HostSwitches::default() });
    let start = Instant::now();
    (0..5).for_each(|_| it.revoke(run(0, 1)).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[test]
fn messages_come_late_twice_in_disorder_and_from_nobody() {
    let host = FakeHost::new(SMALL, 512, FakeHostOptions { faults: FaultMode::Full, ..Default::default() });
    let faults =
        FaultTrouble { seed: 3, late: Duration::from_millis(20), twice_percent: 30, spurious_percent: 30 };
    let switches = HostSwitches { faults: Some(faults), ..HostSwitches::default() };
    let trouble = Trouble::new(&switches, SMALL, host.profile());
    let source = Injected::new(Arc::new(host.faults()), trouble);
    for page in 0..100 {
        host.inject(Fault { page: PageIndex(2000 + page), write: false });
    }
    let (mut got, mut calls) = (Vec::new(), 0);
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        let before = got.len();
        source.next(&mut got, Some(Duration::from_millis(50))).unwrap();
        assert!(got.len() - before <= MESSAGES_MAX);
        calls += 1;
    }
    let touched = |f: &Fault| (2000..2100).contains(&f.page.0) && !f.write;
    for page in 2000..2100 {
        assert!(got.iter().any(|f| f.page.0 == page), "page {page} is never told of");
    }
    let (real, invented): (Vec<Fault>, Vec<Fault>) = got.iter().partition(|f| touched(f));
    assert!(real.len() > 110 && invented.len() > 10, "{} real, {} invented", real.len(), invented.len());
    assert!(invented.iter().all(|f| f.page.0 < 4096), "inside the reservation");
    let orderly = real.windows(2).filter(|w| w[0].page.0 <= w[1].page.0).count();
    assert!(orderly < real.len() - 20, "in order: {orderly} of {}", real.len());
    assert!(calls > 7, "{calls}");
    // An interrupt lets go of what is held back.
    host.inject(Fault { page: PageIndex(1), write: true });
    source.interrupt();
    source.next(&mut got, None).unwrap();
}
