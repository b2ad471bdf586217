//! Copies that go ahead of their launch, part by part, while R is still being taken away from the rest.

use crate::common::*;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vkhmm_core::units::{ByteRange, Geometry, PageRun};
use vkhmm_engine::AccessKind::{Overwrite, Read, Write};
use vkhmm_engine::EngineError;
use vkhmm_port::fake::{FakeHost, Mapping};
use vkhmm_port::host::Errno;
use vkhmm_port::{Access, Device, HostError, HostMemory, HostProfile, RawBytes};

const MIB: u64 = 1 << 20;

/// Real sizes: a part is a group of four blocks of 2 MiB.
fn production() -> Setup {
    Setup {
        geometry: Geometry::PRODUCTION,
        blocks: 40,
        limit_frames: 1024,
        part_bytes: vkhmm_engine::Config::default().part_bytes,
        ..Setup::default()
    }
}

/// The same, two thousandfold smaller.
fn small() -> Setup {
    Setup { geometry: LARGE, limit_frames: 1024, part_bytes: 4 * LARGE.block_bytes(), ..Setup::default() }
}

/// A host that refuses to revoke, once, when the count comes to it.
struct Refusing {
    host: FakeHost,
    left: Arc<AtomicU32>,
}

impl HostMemory for Refusing {
    fn profile(&self) -> &HostProfile {
        self.host.profile()
    }
    fn base(&self) -> usize {
        self.host.base()
    }
    fn owned(&self) -> bool {
        true
    }
    fn alias(&self, range: ByteRange) -> RawBytes {
        self.host.alias(range)
    }
    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        self.host.populate(run)
    }
    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(HostError::Refused { operation: "revoke", offset: 0, bytes: 0, source: Errno(5) });
        }
        self.host.revoke(run)
    }
    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        self.host.protect(run)
    }
    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        self.host.publish(run, access)
    }
    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        self.host.poison(run)
    }
    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.host.punch(run)
    }
}

/// A world over such a host.
fn refusing(setup: Setup) -> (World<Refusing>, Arc<AtomicU32>) {
    let left = Arc::new(AtomicU32::new(u32::MAX));
    let count = Arc::clone(&left);
    (World::with_host(setup, |host| Refusing { host, left: count }), left)
}

/// A world that writes down which calls that change R, or submit, are made, in order: `r` and `s`.
fn logged(setup: Setup) -> (World, Arc<Mutex<String>>) {
    let log: Arc<Mutex<String>> = Arc::default();
    let to = Arc::clone(&log);
    let w = World::with_log(setup, move |line| {
        let call = match line.to_string().split(' ').next() {
            Some("revoke" | "protect") => 'r',
            Some("submit") => 's',
            _ => return,
        };
        to.lock().expect("nobody panicked").push(call);
    });
    (w, log)
}

/// An array of so many bytes, every one of them stored.
fn stored<H: HostMemory>(w: &World<H>, bytes: u64, value: u8) -> Range<H> {
    let x = w.alloc(bytes);
    w.store(&x, 0, &vec![value; bytes as usize]);
    x
}

#[test]
fn a_launch_copies_its_first_bytes_before_r_is_taken_from_its_last() {
    // A submission is the copies, the last one is the kernel.
    for (mib, calls) in
        [(2, "rss"), (8, "rss"), (14, "rrss"), (16, "rsrss"), (32, "rsrsrsrss"), (34, "rsrsrsrrss")]
    {
        for access in [Read, Write] {
            within(60, move || {
                let (w, log) = logged(production());
                let x = stored(&w, mib * MIB, 3);
                log.lock().expect("nobody panicked").clear();
                w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), access)]));
                assert_eq!(*log.lock().expect("nobody panicked"), calls, "{mib} MiB, {access:?}");
                assert_eq!(w.engine.stats().in_launch_bytes, x.bytes());
                // Nothing is shown that a second one would have to take, or has to be copied.
                log.lock().expect("nobody panicked").clear();
                w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), access)]));
                assert_eq!(*log.lock().expect("nobody panicked"), "s");
            });
        }
    }
}

/// Where R has less to lose than a part, or nothing is copied, a launch is as many submissions as ever.
#[test]
fn what_shortens_nothing_is_not_cut() {
    within(30, || {
        let (w, log) = logged(small());
        let (x, y) = (stored(&w, 16 * w.block(), 3), stored(&w, 16 * w.block(), 4));
        w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), Read), (&y, 0..y.bytes(), Read)]));
        // Stores bring some pages of the last blocks back.
        w.store(&x, 15 * w.block(), &[5]);
        log.lock().expect("nobody panicked").clear();
        w.wait(&w.launch(&look(), &[(&x, 0..x.bytes(), Read)]));
        w.wait(&w.launch(&set(6), &[(&y, 0..y.bytes(), Overwrite)]));
        assert_eq!(*log.lock().expect("nobody panicked"), "rssrrrrs");
        assert_eq!(w.load_all(&y), vec![6; y.bytes() as usize]);
    });
}

/// The system refuses R for a later part: what went ahead is waited for, and everything is as it was.
#[test]
fn a_refusal_after_parts_leaves_every_page_as_it_was() {
    for (import, timelines) in [(true, 3), (true, 1), (false, 3)] {
        within(60, move || {
            let delay = Duration::from_millis(3);
            let (w, left) = refusing(Setup { import, timelines, delay, ..small() });
            let x = stored(&w, 16 * w.block(), 7);
            let y = stored(&w, 4 * w.block(), 8);
            let all = [(&x, 0..x.bytes(), Write), (&y, 0..y.bytes(), Overwrite)];
            for n in 2..=5 {
                let (calls, owned) = (w.device.calls().bytes_in, w.engine.device_memory().1);
                left.store(n, Ordering::Relaxed);
                let refused = w.try_launch(&add(1), &all);
                assert!(matches!(refused, Err(EngineError::Host(_))), "{n}: {:?}", refused.map(drop));
                let copied = w.device.calls().bytes_in - calls;
                assert_eq!(copied, (u64::from(n) - 1).min(4) * 4 * w.block(), "{n}: copied for nothing");
                let before = w.device.completed().expect("no loss");
                std::thread::sleep(3 * delay);
                assert_eq!(w.device.completed().expect("no loss"), before, "{n}: still on its way");
                // Nothing reads A any more, nobody holds anything, and no frame is owned.
                assert_eq!(w.engine.who_is_busy(), "no operation is open");
                assert_eq!(w.engine.device_memory().1, owned);
                assert!(w.map(&x).chars().chain(w.map(&y).chars()).all(|c| c == 'H'));
                w.store(&x, 0, &vec![n as u8; x.bytes() as usize]);
                assert_eq!(w.load_all(&x), vec![n as u8; x.bytes() as usize]);
                assert_eq!(w.load_all(&y), vec![8; y.bytes() as usize]);
            }
            w.launch(&add(1), &all);
            assert_eq!(w.host.mapping(w.page_at(&x, 0)), Mapping::Absent);
            assert_eq!(w.load_all(&x), vec![6; x.bytes() as usize]);
            w.rest();
        });
    }
}

/// The device is lost while parts are on their way: all that the launch named is still there.
#[test]
fn a_loss_between_parts_takes_nothing() {
    within(60, || {
        for n in 1..=8 {
            let (w, left) = refusing(small());
            let x = stored(&w, 16 * w.block(), 7);
            w.wait(&w.launch(&look(), &[]));
            w.device.lose_at_call(n);
            left.store(4, Ordering::Relaxed);
            let refused = w.try_launch(&add(1), &[(&x, 0..x.bytes(), Write)]);
            assert!(refused.is_err());
            until("the loss is settled", || w.engine.who_is_busy() == "no operation is open");
            assert_eq!(w.load_all(&x), vec![7; x.bytes() as usize], "{n}");
        }
    });
}
