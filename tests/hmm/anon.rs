//! The kernel's `anon_*` cases: the device reads and writes memory that the host has not touched, may not be touched, or that
//! goes away meanwhile. Where the kernel's tests call mprotect, ours have a guard or a shared borrow.

use crate::common::{BLOCK, PAGE, Random, SUB, WORDS, memory};
use crate::rig::{
    NTIMES, PAGES_ALL, Places, Rig, WORDS_ALL, alloc_again, expect, expect_zeros, fill, home_bytes, pattern,
    places,
};
use std::time::{Duration, Instant};
use vkhmm::{AccessKind, Error, MemoryError};

/// Words of a sub-block: first touch takes that much, so it is the smallest part that is surely untouched.
const SUB_WORDS: usize = SUB / 4;

/// Fresh memory, and zeros that the host has looked at, read as zeros on the device; what the host wrote is there. One miss.
#[test]
fn anon_read() {
    Rig::each_counted(|rig| {
        rig.stain();
        let mut x = rig.fresh(WORDS_ALL);
        expect_zeros(&x.slice(SUB_WORDS..2 * SUB_WORDS));
        fill(&mut x.slice_mut(2 * SUB_WORDS..), 2 * SUB_WORDS, 1);
        let sub = rig.untouched_sub();
        assert_eq!(
            places(x.residency()),
            Places { absent: sub, host: PAGES_ALL - sub, ..Places::NONE },
            "nobody touched the first sub-block"
        );
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect_zeros(&seen[..2 * SUB_WORDS]);
        expect(&seen[2 * SUB_WORDS..], 2 * SUB_WORDS, 1, 0);
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        assert_eq!(
            report.moved.zeroed_bytes,
            sub * PAGE as u64,
            "fresh pages are not copied: {}",
            report.moved
        );
        // The host lost nothing by it, and the device needs nothing to read again.
        assert_eq!(places(x.residency()), Places { shared: PAGES_ALL, ..Places::NONE });
        let before = rig.rt.stats();
        expect_zeros(&x.slice(..2 * SUB_WORDS));
        expect(&x.slice(2 * SUB_WORDS..), 2 * SUB_WORDS, 1, 0);
        assert_eq!(rig.rt.stats().since(&before).out_bytes(), 0);
        let (again, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        assert!(again == seen);
        assert_eq!((report.pages, report.faults), (0, 0), "{}", report.moved);
    });
}

/// Memory that the device may not have now (the kernel's PROT_NONE, here a host guard): refused by name; buffer and mirror
/// are as they were. A single guarded page is enough.
#[test]
fn anon_read_prot() {
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 2);
        rig.set_mirror(0xeeee_eeee);
        let before = (places(x.residency()), rig.rt.stats());
        // SAFETY: both launches are refused; nothing is read through these accesses.
        let raw = [(); 2].map(|()| unsafe { x.raw(AccessKind::Read, ..) });
        let [first, second] = raw;
        let mut out = rig.fresh(WORDS_ALL);
        {
            let last = x.slice(WORDS_ALL - 1..);
            let _guard = last.host().expect("guard");
            let error = memory(rig.rt.copy(first, out.overwrite()));
            assert!(matches!(&error, MemoryError::Guarded { label } if &**label == "x"), "{error:?}");
            let error = memory(rig.rt.copy(x.read(), out.overwrite()));
            assert!(matches!(error, MemoryError::Guarded { .. }), "{error:?}");
        }
        {
            let mut part = x.slice_mut(..WORDS);
            let _guard = part.host_mut().expect("guard");
            let error = memory(rig.rt.copy(second, out.overwrite()));
            assert!(matches!(error, MemoryError::Guarded { .. }), "{error:?}");
        }
        let moved = rig.rt.stats().since(&before.1);
        assert_eq!((moved.launches, moved.in_bytes() + moved.zeroed_bytes), (0, 0), "{moved}");
        assert_eq!(places(x.residency()), before.0);
        assert_eq!(places(out.residency()).absent, PAGES_ALL, "a refused copy brought its target into being");
        expect(&x, 0, 2, 0);
        assert!(rig.mirror().iter().all(|w| *w == 0xeeee_eeee));
        let (seen, _) = rig.read(x.read(), WORDS_ALL).expect("the guards are gone");
        expect(&seen, 0, 2, 0);
    });
}

/// The device writes memory that nobody has touched: nothing is copied in, and the host sees every word.
#[test]
fn anon_write() {
    Rig::each(|rig| {
        let values: Vec<u32> = (0..WORDS_ALL).map(|i| pattern(i, 3)).collect();
        for access in [AccessKind::Write, AccessKind::Overwrite] {
            let mut x = rig.fresh(WORDS_ALL);
            let to = if access == AccessKind::Write { x.write() } else { x.overwrite() };
            let report = rig.write(to, &values).expect("write");
            assert_eq!((report.faults, report.moved.in_bytes()), (1, 0), "{}", report.moved);
            // What is overwritten is not even filled with zeros first.
            let zeroed = if access == AccessKind::Write { PAGES_ALL } else { 0 };
            assert_eq!(report.pages, zeroed, "{}", report.moved);
            assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });
            let before = rig.rt.stats();
            expect(&x, 0, 3, 0);
            let moved = rig.rt.stats().since(&before);
            assert_eq!(home_bytes(&moved), PAGES_ALL * PAGE as u64, "each page home once: {moved}");
        }
    });
}

/// Read-only memory (here a shared borrow): the device may read it, a kernel that stores is refused by name and the bytes stay
/// zeros; with an exclusive borrow it may write.
#[test]
fn anon_write_prot() {
    Rig::each(|rig| {
        rig.stain();
        let mut x = rig.fresh(WORDS_ALL);
        let (seen, report) = rig.read(x.slice(..WORDS).read(), WORDS).expect("read");
        expect_zeros(&seen);
        assert_eq!((report.pages, report.faults), (1, 1), "{}", report.moved);
        let before = (places(x.residency()), rig.rt.stats());
        assert_eq!(before.0, Places { absent: PAGES_ALL - 1, shared: 1, ..Places::NONE });
        let refused = rig.add_one(x.read(), WORDS_ALL);
        assert!(
            matches!(&refused, Err(Error::WritesReadOnlyArgument { argument: 0, binding: 0, .. })),
            "{refused:?}"
        );
        assert!(matches!(rig.rt.fill(x.read(), 7), Err(Error::Words { operation: "fill", .. })));
        assert_eq!(places(x.residency()), before.0);
        assert_eq!(rig.rt.stats().since(&before.1).launches, 0);
        expect_zeros(&x);
        rig.add_one(x.write(), WORDS_ALL).expect("write");
        assert!(x.iter().all(|w| *w == 1));
    });
}

/// A whole block at once, where the kernel has a huge page: one miss, one piece of device memory of exactly that size.
#[test]
fn anon_write_huge() {
    Rig::each(|rig| {
        let words = BLOCK / 4;
        let values: Vec<u32> = (0..words).map(|i| pattern(i, 4)).collect();
        // The mirror's place is taken with the first.
        let mut first = rig.fresh(words);
        rig.write(first.overwrite(), &values).expect("write");
        let owned = rig.rt.device_memory().1;
        let mut x = rig.fresh(words);
        assert_eq!(x.as_ptr().addr() % BLOCK, 0, "an allocation is whole blocks");
        let report = rig.write(x.overwrite(), &values).expect("write");
        assert_eq!((report.pages, report.faults), (0, 1), "{}", report.moved);
        assert_eq!(rig.rt.device_memory().1 - owned, BLOCK as u64);
        assert_eq!(
            x.residency().expect("residency").len(),
            1,
            "one state for the whole block: {:?}",
            x.residency()
        );
        expect(&x, 0, 4, 0);
    });
}

/// An element as large and as aligned as a huge page.
#[derive(Clone, Copy)]
#[repr(C, align(2097152))]
struct Huge([u32; BLOCK / 4]);

// SAFETY: words without padding (size and alignment are equal); all zeros are valid.
unsafe impl bytemuck::Zeroable for Huge {}
// SAFETY: words without padding, any of which are valid.
unsafe impl bytemuck::Pod for Huge {}

/// Memory made of 2 MiB units, where the kernel has hugetlbfs: elements of a block each, aligned to it. Host memory that is not
/// the runtime's own (a real hugetlb mapping) cannot be named at all.
#[test]
fn anon_write_hugetlbfs() {
    Rig::each(|rig| {
        let mut x = rig.rt.alloc_named::<Huge>(2, "huge elements").expect("alloc");
        assert_eq!(x.as_ptr().addr() % BLOCK, 0);
        let values: Vec<u32> = (0..WORDS_ALL).map(|i| pattern(i, 5)).collect();
        let report = rig.write(x.write(), &values).expect("write");
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        for element in 0..2 {
            let part = x.slice(element..element + 1);
            expect(bytemuck::cast_slice(&part), element * (BLOCK / 4), 5, 0);
        }
    });
}

/// One buffer after another at the same address: the device reads this one's bytes, never an earlier one's.
#[test]
fn anon_read_multiple() {
    // Room for the mirror and one buffer.
    Rig::each_with(
        |builder| builder.reservation(4 * BLOCK as u64),
        |rig| {
            let mut addresses = Vec::new();
            for round in 0..NTIMES {
                let mut x = alloc_again(&rig.rt, WORDS_ALL);
                fill(&mut x, 0, round as u32);
                addresses.push(x.as_ptr().addr());
                let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("read");
                expect(&seen, 0, round as u32, 0);
                assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
            }
            assert!(addresses.iter().all(|a| *a == addresses[0]), "the address is reused");
        },
    );
}

/// The buffer is freed at a random moment while the device is told to read it, or does: an error that says so, or all of its
/// bytes; and the next buffer at that address is zeros.
#[test]
fn anon_teardown() {
    let mut came = [0, 0];
    Rig::each_with(
        |builder| builder.reservation(6 * BLOCK as u64),
        |rig| {
            let seed = Random::fresh_seed();
            println!("seed {seed}");
            let mut random = Random::new(seed);
            let mut out = rig.fresh(WORDS_ALL);
            for round in 0..3 * NTIMES {
                out.fill(0xdddd_dddd);
                let mut x = alloc_again(&rig.rt, WORDS_ALL);
                expect_zeros(&x.slice(..WORDS));
                fill(&mut x, 0, round as u32);
                // SAFETY: nothing uses a reference to the elements until the launch is over.
                let access = unsafe { x.raw(AccessKind::Read, ..) };
                let delays =
                    [random.below(1500), random.below(500)].map(|us| Duration::from_micros(us as u64));
                let launched = std::thread::scope(|scope| {
                    scope.spawn(move || {
                        spin_for(delays[0]);
                        drop(x);
                    });
                    spin_for(delays[1]);
                    rig.rt.copy(access, out.overwrite())
                });
                match launched {
                    Ok(launch) => {
                        launch.wait().expect("a launch outlives what it reads");
                        expect(&out, 0, round as u32, 0);
                        came[0] += 1;
                    }
                    Err(Error::Memory(MemoryError::UnknownRange { argument: 0 })) => {
                        assert!(out.iter().all(|w| *w == 0xdddd_dddd), "a refused launch wrote");
                        came[1] += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        },
    );
    println!("{} read in full, {} refused", came[0], came[1]);
}

/// Short delays, which a sleep would round up.
fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
