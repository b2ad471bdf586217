//! The ports' own contract suites, run on the real thing.

mod common;

use common::{PAGE, SMALL, load, store};
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vkhmm_core::units::Geometry;
use vkhmm_linux::{Config, EngineChoice, LinuxExec, OpenError, open};
use vkhmm_port::conformance::{AppView, HostUnderTest, run_exec, run_host};
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

    fn poisoned(&self, offset: u64) -> Option<bool> {
        let sink = memfd_create(c"sink", MemfdFlags::CLOEXEC).ok()?;
        let from = core::ptr::with_exposed_provenance(self.base + offset as usize);
        // SAFETY: the kernel checks the address.
        let wrote = unsafe { libc::write(sink.as_raw_fd(), from, 1) };
        Some(wrote < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT))
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

fn case(
    config: &Config,
) -> Result<(Arc<vkhmm_linux::LinuxHost>, Option<Arc<vkhmm_linux::LinuxFaults>>), OpenError> {
    open(config).map(|opened| (opened.host, opened.source))
}

#[test]
fn hosts_with_faults_keep_the_contract() {
    assert_eq!(PAGE, 4096);
    let mut counts = Vec::new();
    for engine in [EngineChoice::UffdThread, EngineChoice::UffdThreadUserOnly] {
        for (no_poison, no_continue_wp) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = Config { engine: Some(engine), no_poison, no_continue_wp, ..SMALL };
            if let Err(e @ OpenError::Engine { .. }) = open(&config) {
                println!("skipped: {e}");
                continue;
            }
            let ran = run_host(&LinuxExec::new(), &|| {
                let (host, source) = case(&config).expect("opened a moment ago");
                let base = host.base();
                let host = Arc::into_inner(host).expect("the only handle");
                let source = source.and_then(Arc::into_inner).expect("an engine with faults");
                HostUnderTest::new(Geometry::PRODUCTION, host, source, View { base })
            });
            counts.push((host_can_read_only(&config), ran));
        }
    }
    for (read_only, ran) in &counts {
        assert!(
            counts.iter().all(|(r, n)| r != read_only || n == ran),
            "equal profiles, unequal suites: {counts:?}"
        );
    }
}

fn host_can_read_only(config: &Config) -> bool {
    open(config).is_ok_and(|opened| opened.host.profile().publish_read_only)
}

#[test]
fn declared_keeps_the_contract() {
    let config = Config { engine: Some(EngineChoice::Declared), ..SMALL };
    run_host(&LinuxExec::new(), &|| {
        let (host, _) = case(&config).expect("declared works everywhere");
        let base = host.base();
        let host = Arc::into_inner(host).expect("the only handle");
        let faults = NoFaults { signal: LinuxExec::new().signal(), interrupted: AtomicBool::new(false) };
        HostUnderTest::new(Geometry::PRODUCTION, host, faults, View { base })
    });
}

#[test]
fn exec_keeps_the_contract() {
    run_exec(&LinuxExec::new());
}
