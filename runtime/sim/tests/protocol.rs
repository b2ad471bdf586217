//! The world itself, on a small protocol of its own: one page, two application threads, and a migrator that carries the page to
//! the device and back in the order law — or in a wrong order, which the world must find.

use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, FrameIndex, Geometry, PageIndex, PageRun, Ticket};
use vkhmm_core::uses::Uses;
use vkhmm_port::fake::{FakeDeviceOptions, FakeHostOptions};
use vkhmm_port::{
    Access, Command, Device, Direction, Exec, FaultSource, HostMemory, Mutex, Rank, Region, Role, Signal,
    Source, Submission, Target,
};
use vkhmm_sim::{Run, SimDevice, SimExec, SimHost, device, host, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };
const PAGE: PageRun = PageRun { first: PageIndex(3), count: 1 };
const INCREMENTS: u8 = 6;

/// In which order the migrator takes its steps.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Right,
    /// The page is copied out of the host while threads still write it.
    CopyBeforeRevoke,
    /// The page is given back before its bytes are there.
    PublishBeforeCopy,
    /// A fault is answered by nothing at all.
    NoAnswer,
}

struct Migrator {
    exec: SimExec,
    host: SimHost,
    device: SimDevice,
    used: Uses,
    order: Order,
}

impl Migrator {
    fn submit(&mut self, role: Role, command: Command<SimDevice>) {
        let timeline = self.device.profile().timeline(role);
        let signals = Ticket { timeline, value: self.used.on(timeline) + 1 };
        let submission =
            Submission { waits: Uses::NONE, foreign: Vec::new(), commands: vec![command], signals };
        self.device.submit(role, submission).expect("submit");
        self.used.add(signals);
        loop {
            let seen = self.device.completed().expect("completed");
            if self.used.done(&seen) {
                return;
            }
            self.device.wait(&seen, Duration::from_secs(1)).expect("wait");
        }
    }

    fn page(&self) -> vkhmm_port::RawBytes {
        self.host.alias(SMALL.bytes_of(PAGE))
    }

    fn send(&mut self) {
        let slot = self.device.slot(Direction::In, 0).slice(0, 16);
        let fill_slot = |m: &Self| m.exec.copy(&[vkhmm_port::CopyJob { from: m.page(), to: slot }]);
        if self.order == Order::CopyBeforeRevoke {
            fill_slot(self);
            self.host.revoke(PAGE).expect("revoke");
        } else {
            self.host.revoke(PAGE).expect("revoke");
            fill_slot(self);
        }
        let regions = vec![Region { host_offset: 0, device_offset: 0, bytes: 16 }];
        self.submit(Role::CopyIn, Command::CopyIn { source: Source::Slot(0), regions });
        self.page().fill(0xEE);
    }

    fn fetch(&mut self) {
        if self.order == Order::PublishBeforeCopy {
            self.host.publish(PAGE, Access::ReadWrite).expect("publish");
        }
        let regions = vec![Region { host_offset: 0, device_offset: 0, bytes: 16 }];
        self.submit(Role::CopyOut, Command::CopyOut { target: Target::Slot(0), regions });
        let slot = self.device.slot(Direction::Out, 0).slice(0, 16);
        self.exec.copy(&[vkhmm_port::CopyJob { from: slot, to: self.page() }]);
        if self.order == Order::Right || self.order == Order::CopyBeforeRevoke {
            self.host.publish(PAGE, Access::ReadWrite).expect("publish");
        }
    }
}

/// Two threads count in bytes of their own on one page while it moves to and fro.
fn program(exec: &SimExec, order: Order) {
    let imports = vkhmm_port::fake::FakeImports::default();
    let host =
        host(exec, SMALL, 1, FakeHostOptions { imports: imports.clone(), ..FakeHostOptions::default() });
    let device =
        device(exec, SMALL, FakeDeviceOptions { import: Some(imports), ..FakeDeviceOptions::default() });
    device.grow(FrameIndex(0), 1).expect("grow");
    host.populate(PAGE).expect("populate");
    host.publish(PAGE, Access::ReadWrite).expect("publish");
    let at = SMALL.bytes_of(PAGE).start;
    let over = Arc::new((exec.mutex(Rank::Leaf, 0_u32), exec.signal()));
    for n in 0..2 {
        let (app, over) = (host.clone(), Arc::clone(&over));
        let body = move || {
            let byte = ByteRange { start: at + 8 * n, end: at + 8 * n + 1 };
            for _ in 0..INCREMENTS {
                let old = app.load(byte).expect("not poisoned")[0];
                app.store(byte.start, &[old + 1]).expect("not poisoned");
            }
            *over.0.lock() += 1;
            over.1.notify();
        };
        exec.spawn(&format!("app{n}"), Box::new(body)).expect("spawn");
    }
    let mut migrator = Migrator { exec: exec.clone(), host: host.clone(), device, used: Uses::NONE, order };
    let migrate = move || {
        let faults = migrator.host.faults();
        loop {
            migrator.send();
            let mut got = Vec::new();
            while got.is_empty() {
                faults.next(&mut got, None).expect("next");
            }
            migrator.fetch();
        }
    };
    exec.spawn("migrator", Box::new(migrate)).expect("spawn");
    loop {
        let seen = over.1.epoch();
        if *over.0.lock() == 2 {
            break;
        }
        over.1.wait(seen, None);
    }
    let read =
        |n: u64| host.load(ByteRange { start: at + 8 * n, end: at + 8 * n + 1 }).expect("not poisoned")[0];
    let counts = [read(0), read(1)];
    assert_eq!(counts, [INCREMENTS; 2], "updates were lost");
}

fn play(seed: u64, order: Order) -> Run {
    run(seed, move |exec| program(exec, order))
}

#[test]
fn the_right_order_loses_nothing() {
    for seed in 0..1_000 {
        play(seed, Order::Right).expect_success();
    }
}

/// How many of 100 seeds find the mistake.
fn found(order: Order, what: &str) -> usize {
    let told = |run: &Run| run.failure.as_ref().is_some_and(|f| f.contains(what));
    (0..100).filter(|seed| told(&play(*seed, order))).count()
}

#[test]
fn wrong_orders_are_found() {
    let early_copy = found(Order::CopyBeforeRevoke, "updates were lost");
    assert!(early_copy >= 10, "copy before revoke: {early_copy} of 100 seeds");
    let early_publish = found(Order::PublishBeforeCopy, "panicked");
    assert!(early_publish >= 10, "publish before copy: {early_publish} of 100 seeds");
    println!("found in 100 seeds: copy before revoke {early_copy}, publish before copy {early_publish}");
}

#[test]
fn a_fault_without_an_answer_is_a_deadlock_with_a_report() {
    let parked = |failure: &String| failure.contains("app0: waits for signal");
    let failure = (0..100).find_map(|seed| play(seed, Order::NoAnswer).failure.filter(parked));
    let failure = failure.expect("an application thread that nobody answers");
    assert!(failure.starts_with("deadlock"), "{failure}");
    assert!(failure.contains("its last note: touch page 3"), "{failure}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut distinct = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let (first, second) = (play(seed, Order::Right), play(seed, Order::Right));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        distinct.insert(first.trace.join("\n"));
    }
    assert!(distinct.len() >= 49, "only {} schedules in 50 seeds", distinct.len());
}

#[test]
fn a_failure_is_replayed_by_its_seed() {
    let seed = (0..100).find(|s| play(*s, Order::CopyBeforeRevoke).failure.is_some()).expect("see above");
    let (first, second) = (play(seed, Order::CopyBeforeRevoke), play(seed, Order::CopyBeforeRevoke));
    assert_eq!((first.failure, first.trace), (second.failure, second.trace));
}
