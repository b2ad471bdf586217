//! The host suite of `port` is worth something: each of these broken memories is caught by it. (In virtual time, so that a wait
//! that runs into its limit costs nothing.)

use core::time::Duration;
use vkhmm_core::units::{ByteRange, Geometry, PageRun};
use vkhmm_port::conformance::{HostUnderTest, run_host};
use vkhmm_port::fake::FakeHostOptions;
use vkhmm_port::{Access, Fault, FaultSource, HostError, HostMemory, HostProfile, RawBytes};
use vkhmm_sim::{SimExec, SimFaults, SimHost, host, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    RevokeNothing,
    RevokeLosesBytes,
    ProtectNothing,
    ProtectMapsAbsent,
    PublishFirstUnitOnly,
    PublishReadOnlyAsReadWrite,
    PublishReadWriteAsReadOnly,
    PopulateZeroes,
    PunchKeepsBytes,
    PunchKeepsPoison,
    PunchTooMuch,
    PoisonNothing,
    FaultsAllReads,
    FaultsSwallowed,
    FaultsInvented,
    NextIgnoresTimeout,
    InterruptForgotten,
}

struct Broken {
    host: SimHost,
    mistake: Mistake,
}

impl HostMemory for Broken {
    fn profile(&self) -> &HostProfile {
        self.host.profile()
    }

    fn base(&self) -> usize {
        self.host.base()
    }

    fn owned(&self) -> bool {
        self.host.owned()
    }

    fn alias(&self, range: ByteRange) -> RawBytes {
        self.host.alias(range)
    }

    fn populate(&self, run: PageRun) -> Result<(), HostError> {
        if self.mistake == Mistake::PopulateZeroes {
            self.alias(SMALL.bytes_of(run)).fill(0);
        }
        self.host.populate(run)
    }

    fn revoke(&self, run: PageRun) -> Result<(), HostError> {
        match self.mistake {
            Mistake::RevokeNothing => Ok(()),
            Mistake::RevokeLosesBytes => {
                self.alias(SMALL.bytes_of(run)).fill(0);
                self.host.revoke(run)
            }
            _ => self.host.revoke(run),
        }
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        match self.mistake {
            Mistake::ProtectNothing => Ok(()),
            Mistake::ProtectMapsAbsent => self.host.publish(run, Access::ReadOnly),
            _ => self.host.protect(run),
        }
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        match (self.mistake, access) {
            (Mistake::PublishFirstUnitOnly, _) => self.host.publish(PageRun { count: 2, ..run }, access),
            (Mistake::PublishReadOnlyAsReadWrite, _) => self.host.publish(run, Access::ReadWrite),
            (Mistake::PublishReadWriteAsReadOnly, _) => self.host.publish(run, Access::ReadOnly),
            _ => self.host.publish(run, access),
        }
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        match self.mistake {
            Mistake::PoisonNothing => self.host.publish(run, Access::ReadOnly),
            _ => self.host.poison(run),
        }
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        let bytes = self.alias(SMALL.bytes_of(run));
        match self.mistake {
            Mistake::PunchKeepsBytes => {
                let kept = bytes.to_vec();
                self.host.punch(run)?;
                bytes.write(&kept);
                Ok(())
            }
            Mistake::PunchKeepsPoison if self.host.poison(run).is_ok() => Ok(()),
            Mistake::PunchTooMuch => self.host.punch(PageRun { count: run.count + 1, ..run }),
            _ => self.host.punch(run),
        }
    }
}

struct BrokenFaults {
    faults: SimFaults,
    mistake: Mistake,
}

impl FaultSource for BrokenFaults {
    fn next(&self, faults: &mut Vec<Fault>, timeout: Option<Duration>) -> Result<(), HostError> {
        let timeout = if self.mistake == Mistake::NextIgnoresTimeout { None } else { timeout };
        self.faults.next(faults, timeout)?;
        match self.mistake {
            Mistake::FaultsAllReads => faults.iter_mut().for_each(|f| f.write = false),
            Mistake::FaultsSwallowed => faults.truncate(0),
            Mistake::FaultsInvented if faults.is_empty() => {
                faults.push(Fault { page: SMALL.pages_touched(&(0..1).into()).first, write: false });
            }
            _ => {}
        }
        Ok(())
    }

    fn interrupt(&self) {
        if self.mistake != Mistake::InterruptForgotten {
            self.faults.interrupt();
        }
    }
}

/// What the suite says about a memory with this mistake.
fn verdict(mistake: Mistake) -> Option<String> {
    let suite = move |exec: &SimExec| {
        run_host(exec, &|| {
            let options = FakeHostOptions { granule_pages: 2, ..FakeHostOptions::default() };
            let host = host(exec, SMALL, 16, options);
            let faults = BrokenFaults { faults: host.faults(), mistake };
            HostUnderTest::new(SMALL, Broken { host: host.clone(), mistake }, faults, host)
        });
    };
    run(1, suite).failure
}

#[test]
fn every_mistake_is_caught() {
    assert_eq!(verdict(Mistake::None), None);
    let mistakes = [
        Mistake::RevokeNothing,
        Mistake::RevokeLosesBytes,
        Mistake::ProtectNothing,
        Mistake::ProtectMapsAbsent,
        Mistake::PublishFirstUnitOnly,
        Mistake::PublishReadOnlyAsReadWrite,
        Mistake::PublishReadWriteAsReadOnly,
        Mistake::PopulateZeroes,
        Mistake::PunchKeepsBytes,
        Mistake::PunchKeepsPoison,
        Mistake::PunchTooMuch,
        Mistake::PoisonNothing,
        Mistake::FaultsAllReads,
        Mistake::FaultsSwallowed,
        Mistake::FaultsInvented,
        Mistake::NextIgnoresTimeout,
        Mistake::InterruptForgotten,
    ];
    for mistake in mistakes {
        assert!(verdict(mistake).is_some(), "the suite lets {mistake:?} pass");
    }
}
