//! The host suite of `port` is worth something: each of these broken memories is caught by it. (In virtual time, so that a wait
//! that runs into its limit costs nothing.)

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::time::Duration;
use std::sync::Arc;
use vkhmm_core::units::{ByteRange, Geometry, PageIndex, PageRun};
use vkhmm_port::conformance::{HostUnderTest, run_host};
use vkhmm_port::fake::{FakeHostOptions, Mapping};
use vkhmm_port::host::Errno;
use vkhmm_port::{
    Access, Fault, FaultMode, FaultSource, HostError, HostMemory, HostProfile, RawBytes, Resolver,
};
use vkhmm_sim::{SimExec, SimFaults, SimHost, host, run};

const SMALL: Geometry = Geometry { page_bytes: 16, pages_per_sub: 4, pages_per_block: 8 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    RevokeNothing,
    RevokeLosesBytes,
    ProtectNothing,
    ProtectMapsAbsent,
    ProtectEverySecondTime,
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
    ProfileChanges,
    AliasPastTheEnd,
    RevokeTooMuch,
    RevokeFirstUnitOnly,
    RevokeKeepsPoison,
    PoisonTwiceIsAnError,
    PublishOverPoisonLies,
    PoisonWakesNobody,
    FaultsOnTheFirstPage,
    NextForgetsWhatWasThere,
    NextTellsAll,
    ReadOnlyThoughItSaysNo,
    ProtectsThoughItSaysNo,
    DeclaredParks,
    DeclaredTells,
    ResolverNotAsked,
    ResolverAskedUnasked,
    ResolverToldOfLoads,
    ResolverKept,
}

impl Mistake {
    /// Made by a source that puts touches to the resolver.
    fn asks(self) -> bool {
        matches!(self, Self::ResolverNotAsked | Self::ResolverToldOfLoads | Self::ResolverKept)
    }
}

struct Broken {
    host: SimHost,
    mistake: Mistake,
    /// What it says it is.
    profile: HostProfile,
    punched: AtomicBool,
    protects: AtomicU32,
}

impl Broken {
    fn is_poisoned(&self, run: PageRun) -> bool {
        (run.first.0..run.end().0).any(|page| self.host.mapping(PageIndex(page)) == Mapping::Poisoned)
    }
}

impl HostMemory for Broken {
    fn profile(&self) -> &HostProfile {
        let other = self.mistake == Mistake::ProfileChanges && self.punched.load(Ordering::Acquire);
        if other { self.host.profile() } else { &self.profile }
    }

    fn base(&self) -> usize {
        self.host.base()
    }

    fn owned(&self) -> bool {
        self.host.owned()
    }

    fn alias(&self, range: ByteRange) -> RawBytes {
        let end = self.host.profile().reservation_bytes;
        if self.mistake == Mistake::AliasPastTheEnd && range.end > end {
            return self.host.alias((range.start..end).into());
        }
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
            Mistake::RevokeTooMuch => self.host.revoke(PageRun { count: run.count + 2, ..run }),
            Mistake::RevokeFirstUnitOnly => self.host.revoke(PageRun { count: 2, ..run }),
            Mistake::RevokeKeepsPoison if self.is_poisoned(run) => Ok(()),
            _ => self.host.revoke(run),
        }
    }

    fn protect(&self, run: PageRun) -> Result<(), HostError> {
        match self.mistake {
            Mistake::ProtectNothing => Ok(()),
            Mistake::ProtectEverySecondTime if self.protects.fetch_add(1, Ordering::Relaxed) % 2 == 1 => {
                Ok(())
            }
            Mistake::ProtectMapsAbsent => self.host.publish(run, Access::ReadOnly),
            Mistake::ProtectsThoughItSaysNo => self.host.protect(run),
            _ if !self.profile.protect => panic!("it says that it cannot"),
            _ => self.host.protect(run),
        }
    }

    fn publish(&self, run: PageRun, access: Access) -> Result<(), HostError> {
        match (self.mistake, access) {
            (Mistake::PublishFirstUnitOnly, _) => self.host.publish(PageRun { count: 2, ..run }, access),
            (Mistake::PublishReadOnlyAsReadWrite, _) => self.host.publish(run, Access::ReadWrite),
            (Mistake::PublishReadWriteAsReadOnly, _) => self.host.publish(run, Access::ReadOnly),
            (Mistake::PublishOverPoisonLies | Mistake::RevokeKeepsPoison, _) if self.is_poisoned(run) => {
                Ok(())
            }
            (Mistake::ReadOnlyThoughItSaysNo, Access::ReadOnly) => self.host.publish(run, access),
            (_, Access::ReadOnly) if !self.profile.publish_read_only => panic!("it says that it cannot"),
            _ => self.host.publish(run, access),
        }
    }

    fn poison(&self, run: PageRun) -> Result<(), HostError> {
        match self.mistake {
            Mistake::PoisonNothing => self.host.publish(run, Access::ReadOnly),
            Mistake::PoisonTwiceIsAnError if self.is_poisoned(run) => {
                let (offset, bytes) = (SMALL.bytes_of(run).start, SMALL.bytes_of(run).len());
                Err(HostError::Refused { operation: "poison", offset, bytes, source: Errno(17) })
            }
            // Whoever parks later is poisoned; who is parked stays so.
            Mistake::PoisonWakesNobody if self.host.calls().faults > 0 => Ok(()),
            _ => self.host.poison(run),
        }
    }

    fn punch(&self, run: PageRun) -> Result<(), HostError> {
        self.punched.store(true, Ordering::Release);
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
        if self.mistake == Mistake::NextForgetsWhatWasThere {
            faults.clear();
        }
        self.faults.next(faults, timeout)?;
        if self.mistake == Mistake::NextTellsAll {
            (0..4).try_for_each(|_| self.faults.next(faults, Some(Duration::ZERO)))?;
        }
        match self.mistake {
            Mistake::FaultsAllReads => faults.iter_mut().for_each(|f| f.write = false),
            Mistake::FaultsSwallowed => faults.truncate(0),
            Mistake::FaultsOnTheFirstPage => {
                faults.iter_mut().filter(|f| f.page.0 < 128).for_each(|f| f.page.0 = f.page.0 / 2 * 2);
            }
            Mistake::DeclaredTells => {
                faults.push(Fault { page: PageIndex(0), write: false });
            }
            Mistake::FaultsInvented if faults.is_empty() => {
                faults.push(Fault { page: SMALL.pages_touched(&(0..1).into()).first, write: false });
            }
            _ => {}
        }
        Ok(())
    }

    fn resolve_with(&self, resolver: Option<Arc<dyn Resolver>>) {
        match (self.mistake, resolver) {
            (Mistake::ResolverNotAsked, _) | (Mistake::ResolverKept, None) => {}
            (Mistake::ResolverToldOfLoads, Some(asked)) => {
                self.faults.resolve_with(Some(Arc::new(OfLoads(asked))));
            }
            (_, resolver) => self.faults.resolve_with(resolver),
        }
    }

    fn interrupt(&self) {
        if self.mistake != Mistake::InterruptForgotten {
            self.faults.interrupt();
        }
    }
}

/// Tells every touch as a load.
struct OfLoads(Arc<dyn Resolver>);

impl Resolver for OfLoads {
    fn resolve(&self, fault: Fault) -> bool {
        self.0.resolve(Fault { write: false, ..fault })
    }
}

/// What the suite says about a memory with this mistake.
fn verdict(mistake: Mistake) -> Option<String> {
    let suite = move |exec: &SimExec| {
        run_host(exec, &|| {
            let options = FakeHostOptions {
                granule_pages: 2,
                in_thread: mistake.asks() || mistake == Mistake::ResolverAskedUnasked,
                faults: if mistake == Mistake::DeclaredTells { FaultMode::Declared } else { FaultMode::Full },
                ..FakeHostOptions::default()
            };
            let host = host(exec, SMALL, 16, options);
            let mut profile = host.profile().clone();
            match mistake {
                Mistake::ReadOnlyThoughItSaysNo => profile.publish_read_only = false,
                Mistake::ProtectsThoughItSaysNo => profile.protect = false,
                Mistake::DeclaredParks => profile.faults = FaultMode::Declared,
                Mistake::ProfileChanges => profile.engine = "another",
                _ => {}
            }
            let faults = BrokenFaults { faults: host.faults(), mistake };
            let broken = Broken {
                host: host.clone(),
                mistake,
                profile,
                punched: AtomicBool::new(false),
                protects: AtomicU32::new(0),
            };
            let it = HostUnderTest::new(SMALL, broken, faults, host);
            if mistake.asks() { it.asking_in_threads() } else { it }
        });
    };
    run(1, suite).failure
}

#[test]
fn every_mistake_is_caught() {
    assert_eq!(verdict(Mistake::None), None);
    // The case that must speak, for those of one case alone.
    let mistakes = [
        (Mistake::RevokeNothing, ""),
        (Mistake::RevokeLosesBytes, ""),
        (Mistake::ProtectNothing, ""),
        (Mistake::ProtectMapsAbsent, ""),
        (Mistake::ProtectEverySecondTime, "no store passes a protected page"),
        (Mistake::PublishFirstUnitOnly, ""),
        (Mistake::PublishReadOnlyAsReadWrite, ""),
        (Mistake::PublishReadWriteAsReadOnly, ""),
        (Mistake::PopulateZeroes, ""),
        (Mistake::PunchKeepsBytes, ""),
        (Mistake::PunchKeepsPoison, ""),
        (Mistake::PunchTooMuch, ""),
        (Mistake::PoisonNothing, ""),
        (Mistake::FaultsAllReads, ""),
        (Mistake::FaultsSwallowed, ""),
        (Mistake::FaultsInvented, ""),
        (Mistake::NextIgnoresTimeout, ""),
        (Mistake::InterruptForgotten, ""),
        (Mistake::ProfileChanges, "the profile is sound and does not change"),
        (Mistake::AliasPastTheEnd, "A ends with the reservation"),
        (Mistake::RevokeTooMuch, "revoke takes its run and nothing beside it"),
        (Mistake::RevokeFirstUnitOnly, "revoke takes its run and nothing beside it"),
        (Mistake::RevokeKeepsPoison, "poison ends with revoke and publish"),
        (Mistake::PoisonTwiceIsAnError, "poison upon poison is no error"),
        (Mistake::PublishOverPoisonLies, "publish over poison shows the page or fails"),
        (Mistake::PoisonWakesNobody, "poison ends a touch that is parked"),
        (Mistake::FaultsOnTheFirstPage, "a message names the page and the access"),
        (Mistake::NextForgetsWhatWasThere, "next appends, sixteen at most"),
        (Mistake::NextTellsAll, "next appends, sixteen at most"),
        (Mistake::ReadOnlyThoughItSaysNo, "a read-only page loads, a store faults"),
        (Mistake::ProtectsThoughItSaysNo, "protect stops stores, not loads"),
        (Mistake::DeclaredParks, ""),
        (Mistake::DeclaredTells, ""),
        (Mistake::ResolverNotAsked, "a resolver is asked, with page and access"),
        (Mistake::ResolverAskedUnasked, "a resolver is asked, with page and access"),
        (Mistake::ResolverToldOfLoads, "a resolver is asked, with page and access"),
        (Mistake::ResolverKept, "nobody is inside a resolver that was taken back"),
    ];
    for (mistake, case) in mistakes {
        let said = verdict(mistake).unwrap_or_else(|| panic!("the suite lets {mistake:?} pass"));
        assert!(said.contains(case), "{mistake:?} is caught by chance: {said}");
    }
}
