//! The kernel's cases with FAIL_ALLOC: an allocation fails on the way to the device, or on the way back. Ours are the builder's
//! switches, which fail the n-th call of the device; n goes up until nothing is left to fail.

use crate::common::{BLOCK, PAGE, Setup, clean, quiet, watchdog};
use crate::rig::{Places, Rig, VARIANTS, expect, expect_zeros, fill, places};
use vkhmm::{Error, Failure, Managed, MemoryError, Switches};

const HUGE: usize = BLOCK / 4;
const HUGE_PAGES: u64 = (BLOCK / PAGE) as u64;

/// Where the buffer's bytes come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Pattern,
    /// Nobody touched it.
    Empty,
    /// The host looked at it.
    Zero,
}

impl Source {
    fn buffer(self, rig: &Rig) -> Managed<u32> {
        let mut x = rig.fresh(HUGE);
        match self {
            Self::Pattern => fill(&mut x, 0, 70),
            Self::Empty => {}
            Self::Zero => expect_zeros(&x),
        }
        x
    }

    fn check(self, words: &[u32]) {
        match self {
            Self::Pattern => expect(words, 0, 70, 0),
            Self::Empty | Self::Zero => expect_zeros(words),
        }
    }
}

/// What came of a sweep, by how often.
#[derive(Debug, Default)]
struct Tally {
    /// A failure that the migration got around.
    around: u32,
    /// A typed error, after which the same call went through.
    refused: u32,
    /// A failed submission, which is loss: all was on the host still, or is lost and named.
    lost: u32,
    untouched: u32,
}

/// There and back with the n-th call failing, for every n.
fn sweep(setup: Setup, failure: Failure, source: Source) -> Tally {
    let mut tally = Tally::default();
    for n in 1..200 {
        let switches = Switches { fail_at_call: Some((n, failure)), ..Switches::default() };
        // Room for eight times the block, so that less than all of it will do.
        let rig = Rig::open(setup, setup.with(switches).device_memory_limit(8 * BLOCK as u64));
        let mut x = source.buffer(&rig);
        let before = places(x.residency());
        let first = rig.try_migrate(x.write());
        let refused = match &first {
            Err(error) if !error.is_lost() => {
                assert!(
                    matches!(
                        error,
                        Error::Memory(MemoryError::Device(_) | MemoryError::OutOfHostMemory { .. })
                    ),
                    "call {n}: {error:?}"
                );
                assert_eq!(places(x.residency()), before, "call {n}: a refused launch moved something");
                source.check(&x);
                rig.try_migrate(x.write()).unwrap_or_else(|again| panic!("call {n}: {error}, then {again}"));
                true
            }
            _ => false,
        };
        let there = first.is_ok() || refused;
        if there {
            assert_eq!(places(x.residency()).device, HUGE_PAGES, "call {n}");
        }
        // The way back.
        match x.try_slice() {
            Ok(words) => source.check(words),
            Err(error) => assert!(error.is_lost(), "call {n}: {error}"),
        }
        let lost = rig.rt.sync().is_err_and(|e| e.is_lost()) || x.check().is_err();
        match x.check() {
            Ok(()) => source.check(&x),
            Err(Error::Memory(MemoryError::Lost { start, end, .. })) => assert!(start < end && lost),
            Err(other) => panic!("call {n}: {other}"),
        }
        let reached = rig.rt.device_calls() >= n;
        quiet(&rig.rt);
        match (lost, refused, reached) {
            (true, _, _) => tally.lost += 1,
            (false, true, _) => tally.refused += 1,
            (false, false, true) => tally.around += 1,
            (false, false, false) => tally.untouched += 1,
        }
        if tally.untouched == 2 {
            return tally;
        }
    }
    panic!("the sweep never came to its end: {tally:?}");
}

/// The first piece of device memory cannot be had: half of it is, and the block migrates. The failure on the way back: that
/// way never allocates, so only a submission can fail, which is loss; what the CPU reads from device memory cannot fail at all.
#[test]
fn migrate_anon_huge_err() {
    let _dog = watchdog("migrate_anon_huge_err", 90);
    for setup in VARIANTS {
        let limit = 8 * BLOCK as u64;
        let grow_fails = |limit: u64, import: bool| {
            // Without sparse buffers, whose making is a call as well.
            let fail_at_call = Some((1, Failure::OutOfDeviceMemory));
            let switches = Switches { fail_at_call, sparse: false, ..Switches::default() };
            Rig::open(setup, Setup { import, ..setup }.with(switches).device_memory_limit(limit))
        };
        // Without imports the first call that can fail is the arena's.
        let rig = grow_fails(limit, false);
        let mut x = rig.filled(HUGE, 70);
        let report = rig.migrate(x.write());
        assert_eq!(report.pages, HUGE_PAGES, "{}", report.moved);
        let frames: Vec<u64> =
            rig.rt.pagemaps().iter().map(|m| m.device_addresses()).map(|a| a.end - a.start).collect();
        assert_eq!(frames, [limit / 2], "half of what was asked for");
        expect(&x, 0, 70, 0);
        clean(&rig.rt);
        // Where less will not do, the error says so, nothing has changed, and the next try goes through.
        let rig = grow_fails(BLOCK as u64, false);
        let mut x = rig.filled(HUGE, 70);
        let refused = rig.add_one(x.write(), HUGE);
        assert!(matches!(&refused, Err(Error::Memory(MemoryError::Device(_)))), "{refused:?}");
        assert_eq!(places(x.residency()), Places { host: HUGE_PAGES, ..Places::NONE });
        rig.add_one(x.write(), HUGE).expect("the next try");
        expect(&x, 0, 70, 1);
        clean(&rig.rt);
        // A refused import is no error: the bytes are staged.
        let rig = grow_fails(limit, true);
        let mut x = rig.filled(HUGE, 70);
        let report = rig.migrate(x.write());
        assert_eq!((report.pages, report.moved.imports_refused), (HUGE_PAGES, 1), "{}", report.moved);
        assert_eq!(report.moved.path_staging_bytes, BLOCK as u64, "{}", report.moved);
        expect(&x, 0, 70, 0);
        clean(&rig.rt);

        for failure in [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory] {
            let tally = sweep(setup, failure, Source::Pattern);
            println!("{:?} {failure:?}: {tally:?}", setup.kind);
            assert!(tally.around > 0, "{tally:?}");
        }
    }
}

/// The same with a block that nobody touched, and with one that the host has looked at.
#[test]
fn migrate_anon_huge_zero_err() {
    let _dog = watchdog("migrate_anon_huge_zero_err", 90);
    for (setup, source) in VARIANTS.into_iter().flat_map(|v| [(v, Source::Empty), (v, Source::Zero)]) {
        let tally = sweep(setup, Failure::OutOfDeviceMemory, source);
        println!("{:?} {source:?}: {tally:?}", setup.kind);
        assert!(tally.around > 0, "{tally:?}");
    }
}
