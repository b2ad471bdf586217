//! The ports' own contract suites, run on the real thing.

mod common;

use common::{PAGE, SMALL, load, segv, store};
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::units::Geometry;
use vkhmm_linux::{Config, EngineChoice, LinuxExec, LinuxFaults, OpenError, open};
use vkhmm_port::conformance::{AppView, EXEC_CASES, HOST_CASES, HostUnderTest, run_exec, run_host};
use vkhmm_port::fake::FakeExec;
use vkhmm_port::inject::Injected;
use vkhmm_port::{Exec, Fault, FaultSource, HostError, HostMemory, Signal};

/// R at its address; used only while the host of the same case lives.
struct View {
    base: usize,
}

impl AppView for View {
    fn load(&self, offset: u64) -> u8 {
        load(self.base + offset as usize)
    }

    fn store(&self, offset: u64, value: u8) {
        store(self.base + offset as usize, value);
    }

    fn poisoned(&self, offset: u64) -> bool {
        let sink = memfd_create(c"sink", MemfdFlags::CLOEXEC).expect("a file");
        let from = core::ptr::with_exposed_provenance(self.base + offset as usize);
        // SAFETY: the kernel checks the address.
        let wrote = unsafe { libc::write(sink.as_raw_fd(), from, 1) };
        wrote < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
    }
}

/// The source of an engine without faults: never a message.
struct NoFaults {
    signal: <LinuxExec as Exec>::Signal,
    interrupted: AtomicBool,
}

impl FaultSource for NoFaults {
    fn next(&self, _: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        let seen = self.signal.epoch();
        if !self.interrupted.load(Ordering::SeqCst) {
            self.signal.wait(seen, timeout);
        }
        Ok(())
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::SeqCst);
        self.signal.notify();
    }
}

/// Runs the suite over the host that `config` asks for, through the wrapper that production has; how many cases ran. `None`, and a
/// line that says so, where this system has no such engine.
///
/// Its threads are those of `exec`: where touches are answered by signals, of one that blocks none.
fn run<X: Exec>(exec: &X, config: &Config) -> Option<usize> {
    if let Err(e @ OpenError::Engine { .. }) = open(config) {
        println!("skipped: {e}");
        return None;
    }
    Some(run_host(exec, &|| {
        let opened = open(config).expect("opened a moment ago");
        let base = opened.host.base();
        let host = Injected::new(opened.host, None);
        let source: Source = match opened.source {
            Some(source) => Source::Linux(Injected::new(source, None)),
            None => Source::None(NoFaults {
                signal: LinuxExec::new().signal(),
                interrupted: AtomicBool::new(false),
            }),
        };
        HostUnderTest::new(Geometry::PRODUCTION, host, source, View { base })
    }))
}

/// The source of whichever engine it is.
enum Source {
    Linux(Injected<LinuxFaults>),
    None(NoFaults),
}

impl FaultSource for Source {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        match self {
            Self::Linux(source) => source.next(faults, timeout),
            Self::None(source) => source.next(faults, timeout),
        }
    }

    fn interrupt(&self) {
        match self {
            Self::Linux(source) => source.interrupt(),
            Self::None(source) => source.interrupt(),
        }
    }
}

#[test]
fn every_engine_keeps_the_contract() {
    assert_eq!(PAGE, 4096);
    for engine in [EngineChoice::UffdThread, EngineChoice::UffdThreadUserOnly] {
        for (no_poison, no_continue_wp) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = Config { engine: Some(engine), no_poison, no_continue_wp, ..SMALL };
            assert_eq!(run(&LinuxExec::new(), &config).unwrap_or(HOST_CASES), HOST_CASES, "{engine:?}");
        }
    }
    for (no_poison, no_continue_wp) in [(false, false), (true, true)] {
        let engine = Some(EngineChoice::UffdSigbus);
        let config = Config { engine, no_poison, no_continue_wp, ..SMALL };
        assert_eq!(run(&FakeExec::new(), &config).unwrap_or(HOST_CASES), HOST_CASES, "{config:?}");
    }
    for bare in [false, true] {
        assert_eq!(run(&FakeExec::new(), &segv(bare)), Some(HOST_CASES), "segv-mprotect works everywhere");
    }
    let declared = Config { engine: Some(EngineChoice::Declared), ..SMALL };
    assert_eq!(run(&LinuxExec::new(), &declared), Some(HOST_CASES), "declared works everywhere");
}

#[test]
fn exec_keeps_the_contract() {
    assert_eq!(run_exec(&LinuxExec::new()), EXEC_CASES);
}
