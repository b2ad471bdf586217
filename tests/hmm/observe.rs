//! The kernel's cases about who sees what: snapshots, exclusive access, two devices on the same data, and system calls on pages
//! that the device has.

use crate::common::{self, BLOCK, PAGE, SUB, Scratch, WORDS, skipped, spv, system_calls_fault};
use crate::rig::{
    PAGES_ALL, Places, Rig, WORDS_ALL, expect, expect_zeros, fill, home_bytes, pattern, places,
};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use vkhmm::{Error, Grid, Location, PageFlags, Residency};

const SUB_WORDS: usize = SUB / 4;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

/// One snapshot of pages in every state, of a hole and of another device's memory: each is named for what it is, and looking
/// moves nothing, touches nothing and waits for nothing.
#[test]
fn snapshot() {
    Rig::each_counted(|rig| {
        let other = Rig::open(rig.setup, rig.setup.builder());
        let sub = |i: usize| i * SUB_WORDS..(i + 1) * SUB_WORDS;
        let mut theirs = other.filled(SUB_WORDS, 1);
        other.migrate(theirs.write());
        let gone = rig.filled(1, 2);
        let mut x = rig.fresh(6 * SUB_WORDS);
        expect_zeros(&x.slice(sub(1)));
        fill(&mut x.slice_mut(sub(2)), 0, 50);
        fill(&mut x.slice_mut(sub(3)), 0, 51);
        rig.read(x.slice(sub(3)).read(), SUB_WORDS).expect("read");
        rig.migrate(x.slice_mut(sub(4)).write());
        let pinned = x.slice(sub(5));
        let _guard = pinned.host().expect("guard");
        let hole = gone.as_ptr();
        drop(gone);
        rig.rt.sync().expect("sync");

        let before = (rig.rt.stats(), other.rt.stats());
        let runs = x.residency().expect("residency");
        let seen: Vec<_> =
            runs.iter().map(|r| (r.bytes.len() / SUB as u64, r.location, r.dirty, r.pinned)).collect();
        let untouched = if rig.by_blocks() { Location::Host } else { Location::Absent };
        let mut want = vec![
            (1, untouched, false, false),
            (2, Location::Host, false, false),
            (1, Location::Shared, false, false),
            (1, Location::Device, true, false),
            (1, Location::Host, false, true),
        ];
        if rig.by_blocks() {
            want.splice(..2, [(3, Location::Host, false, false)]);
        }
        assert_eq!(seen, want);
        let flags = |i: usize| rig.rt.page_flags(x.as_ptr().wrapping_add(sub(i).start)).expect("managed");
        let (shown, writable) = (PageFlags::MAY_BE_MAPPED, PageFlags::MAY_BE_WRITABLE);
        assert_eq!(flags(0).location(), untouched);
        assert!(rig.by_blocks() || flags(0) == PageFlags::empty());
        assert_eq!(flags(2) & !(shown | writable), PageFlags::HOST_VALID);
        assert_eq!(flags(3) & !shown, PageFlags::HOST_VALID | PageFlags::DEVICE_VALID, "both, and no store");
        assert_eq!(flags(4), PageFlags::DEVICE_VALID, "the host's view is gone");
        assert_eq!(flags(5) & !(shown | writable), PageFlags::HOST_VALID | PageFlags::PINNED);
        if !rig.declared() {
            assert!(flags(2).contains(shown | writable) && flags(3).contains(shown));
        }
        let addressable = |i: usize| rig.rt.is_addressable(x.as_ptr().wrapping_add(sub(i).start));
        assert_eq!([0, 2, 3, 4, 5].map(addressable), [true, true, true, false, true]);
        // The kernel sees the other device's page as none of its own; so do we, and its owner sees it.
        assert_eq!((rig.rt.page_flags(hole), rig.rt.page_flags(theirs.as_ptr())), (None, None));
        assert_eq!(other.rt.page_flags(theirs.as_ptr()), Some(PageFlags::DEVICE_VALID));
        assert_eq!((rig.rt.stats(), other.rt.stats()), before, "a snapshot changes nothing");
        common::clean(&other.rt);
    });
}

/// What is in one state as a whole is reported as one run; a store takes a part out of it, no more than a sub-block.
#[test]
fn compound() {
    Rig::each_counted(|rig| {
        let mut x = rig.filled(WORDS_ALL, 52);
        let (shown, writable) = (PageFlags::MAY_BE_MAPPED, PageFlags::MAY_BE_WRITABLE);
        let every = |x: &vkhmm::Managed<u32>, wanted: PageFlags, unwanted: PageFlags| {
            (0..PAGES_ALL as usize).all(|page| {
                let flags = rig.rt.page_flags(x.as_ptr().wrapping_add(page * WORDS)).expect("managed");
                flags.contains(wanted) && !flags.intersects(unwanted)
            })
        };
        let one = |x: &vkhmm::Managed<u32>, location: Location| {
            let runs = x.residency().expect("residency");
            assert_eq!(runs.len(), 1, "{runs:?}");
            assert_eq!((runs[0].bytes.len(), runs[0].location), ((WORDS_ALL * 4) as u64, location));
        };
        one(&x, Location::Host);
        assert!(rig.declared() || every(&x, shown | writable, PageFlags::DEVICE_VALID));
        rig.read_only(&x);
        one(&x, Location::Shared);
        assert!(every(&x, PageFlags::HOST_VALID | PageFlags::DEVICE_VALID, writable));
        // A store takes no more than a sub-block (or what R is changed by) away from the device's copy, which is stale there from now on.
        let granule = rig.granule();
        x.slice_mut(3 * SUB_WORDS..3 * SUB_WORDS + 1)[0] = 7;
        let host = granule / PAGE as u64;
        assert_eq!(places(x.residency()), Places { host, shared: PAGES_ALL - host, ..Places::NONE });
        let report = rig.migrate(x.write());
        assert_eq!(report.pages, host, "{}", report.moved);
        assert_eq!(x.slice(3 * SUB_WORDS..3 * SUB_WORDS + 1)[0], 7);
        rig.migrate(x.write());
        one(&x, Location::Device);
        assert!(every(&x, PageFlags::DEVICE_VALID, PageFlags::HOST_VALID | shown));
        let at = BLOCK / 4 + 5 * SUB_WORDS + 77;
        x.slice_mut(at..at + 1)[0] = 0;
        let runs = x.residency().expect("residency");
        let (home, away): (Vec<&Residency>, Vec<&Residency>) =
            runs.iter().partition(|run| run.location == Location::Host);
        assert!(away.iter().all(|run| run.location == Location::Device), "{runs:?}");
        let first = (at * 4) as u64 / granule * granule;
        assert!(home.len() == 1 && home[0].bytes == (first..first + granule).into(), "{runs:?}");
    });
}

/// Two devices with the same read-only data, each its own copy of it: then one has it for itself and the other reads it again.
/// One device is never handed the other's memory.
#[test]
fn double_map() {
    Rig::each(|rig| {
        let mut other = Rig::open(rig.setup, rig.setup.builder());
        let mut x = rig.filled(WORDS_ALL, 53);
        let mut y = other.fresh(WORDS_ALL);
        y.copy_from_slice(&x);
        let (here, _) = rig.read(x.read(), WORDS_ALL).expect("read");
        let (there, report) = other.read(y.read(), WORDS_ALL).expect("read");
        expect(&here, 0, 53, 0);
        assert!(here == there);
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        assert_eq!(places(x.residency()), places(y.residency()));
        let foreign = rig.rt.copy(y.read(), x.write());
        assert!(matches!(foreign, Err(Error::ForeignRuntime { argument: 0 })), "{foreign:?}");
        // To the other device, changed there, and back.
        other.add_one(y.write(), WORDS_ALL).expect("write");
        assert_eq!(places(y.residency()).device, PAGES_ALL);
        x.copy_from_slice(&y);
        let (here, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&here, 0, 53, 1);
        assert_eq!((report.pages, report.faults), (PAGES_ALL, 1), "{}", report.moved);
        common::clean(&other.rt);
    });
}

/// The device has the buffer for itself; the host increments every word, sees old + 1, and nothing is exclusive any more. With
/// the device still at work, the host's increments come after the device's.
#[test]
fn exclusive() {
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 54);
        rig.migrate(x.write());
        assert!((0..PAGES_ALL as usize).all(|p| !rig.rt.is_addressable(x.as_ptr().wrapping_add(p * WORDS))));
        x.iter_mut().for_each(|w| *w = w.wrapping_add(1));
        expect(&x, 0, 54, 1);
        assert_eq!(places(x.residency()), Places { host: PAGES_ALL, ..Places::NONE });
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("read");
        expect(&seen, 0, 54, 1);
        assert_eq!(report.pages, PAGES_ALL, "its own copy is stale: {}", report.moved);
        for _ in 0..NTIMES_IN_FLIGHT {
            rig.rt.launch(rig.storing(), Grid::linear(WORDS_ALL), (x.write(),)).expect("launch");
            x.iter_mut().for_each(|w| *w = w.wrapping_add(1));
        }
        expect(&x, 0, 54, 1 + 2 * NTIMES_IN_FLIGHT);
    });
}

const NTIMES_IN_FLIGHT: u32 = 5;

/// The device has the buffer for itself, and is then given it for reading only: a kernel that stores is refused, and the buffer
/// stays where it is, as it is.
#[test]
fn exclusive_mprotect() {
    Rig::each(|rig| {
        let mut x = rig.filled(WORDS_ALL, 55);
        rig.migrate(x.write());
        let before = rig.rt.stats();
        let refused = rig.add_one(x.read(), WORDS_ALL);
        assert!(matches!(&refused, Err(Error::WritesReadOnlyArgument { argument: 0, .. })), "{refused:?}");
        assert_eq!(rig.rt.stats().since(&before).launches, 0);
        assert_eq!(places(x.residency()), Places { device: PAGES_ALL, ..Places::NONE });
        let (seen, report) = rig.read(x.read(), WORDS_ALL).expect("reading is fine");
        expect(&seen, 0, 55, 0);
        assert_eq!((report.pages, report.faults), (0, 0), "{}", report.moved);
        expect(&x, 0, 55, 0);
    });
}

// ── system calls on what the device has ────────────────────────────────────────────────────────────────────────────────────

#[repr(C)]
struct IoVec {
    base: *mut u8,
    len: usize,
}

unsafe extern "C" {
    fn process_vm_readv(
        pid: i32,
        local: *const IoVec,
        locals: usize,
        remote: *const IoVec,
        remotes: usize,
        flags: usize,
    ) -> isize;
}

/// Reads this process's memory as another process would: the kernel gets the pages by address. `None` where it has no such call.
fn read_as_another(from: &[u8]) -> Option<std::io::Result<Vec<u8>>> {
    let mut to = vec![0; from.len()];
    let local = IoVec { base: to.as_mut_ptr(), len: to.len() };
    let remote = IoVec { base: from.as_ptr().cast_mut(), len: from.len() };
    // SAFETY: both vectors name live memory of this process; the remote one is only read.
    let got =
        unsafe { process_vm_readv(std::process::id() as i32, &raw const local, 1, &raw const remote, 1, 0) };
    let refused = std::io::Error::last_os_error();
    match refused.raw_os_error() {
        _ if got == from.len() as isize => Some(Ok(to)),
        Some(ENOSYS) => None,
        _ => Some(Err(refused)),
    }
}

/// A file for which the kernel pins the caller's pages instead of copying; `None` where the file system has no such thing.
fn direct_file(scratch: &Scratch) -> Option<File> {
    const O_DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0x1_0000 } else { 0x4000 };
    let opened =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(O_DIRECT).open(&scratch.0);
    match opened {
        Ok(file) => Some(file),
        Err(error) if error.raw_os_error() == Some(EINVAL) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The ways in which the kernel is handed a page of ours, one page each: loads by copy, by address and by pinning, and stores.
/// What each left in the place that it can be seen in.
fn kernel_accesses(
    pages: [&[u8]; 3],
    into: &mut [u8],
    words: &[u8],
) -> [Option<std::io::Result<Vec<u8>>>; 4] {
    let plain = Scratch::new("plain");
    let direct = Scratch::new("direct");
    let source = Scratch::new("source");
    std::fs::write(&source.0, words).expect("write");
    let back = |file: &Scratch| std::fs::read(&file.0);
    let by_copy =
        File::create(&plain.0).and_then(|f| f.write_all_at(pages[0], 0)).and_then(|()| back(&plain));
    let by_address = read_as_another(pages[1]);
    let by_pinning = direct_file(&direct).map(|f| f.write_all_at(pages[2], 0).and_then(|()| back(&direct)));
    let stored = File::open(&source.0).and_then(|f| f.read_exact_at(into, 0)).map(|()| into.to_vec());
    [Some(by_copy), by_address, by_pinning, Some(stored)]
}

/// Four migrated pages, each given to the kernel in another way. Where system calls may fault, each page comes home and the
/// others stay; where they may not, the call fails with EFAULT and the page stays; under a guard all of them work everywhere.
/// (The kernel's distinction of long-term pins in coherent memory has no counterpart here.)
#[test]
fn hmm_gup_test() {
    Rig::each(|rig| {
        let replaced: Vec<u32> = (0..WORDS).map(|i| pattern(i, 57)).collect();
        let replaced: &[u8] = bytemuck::cast_slice(&replaced);
        let sub = |i: usize| i * SUB_WORDS..i * SUB_WORDS + WORDS;
        if !rig.declared() {
            let mut x = rig.filled(4 * SUB_WORDS, 56);
            rig.migrate(x.write());
            let start = x.as_mut_ptr();
            // SAFETY: pages of the live buffer, apart from each other; no other reference to them is used meanwhile. A call
            // that may not touch them fails, and nothing is loaded or stored here.
            let (pages, into) = unsafe {
                let page = |i: usize| std::slice::from_raw_parts(start.add(sub(i).start).cast::<u8>(), PAGE);
                let into = std::slice::from_raw_parts_mut(start.add(sub(3).start).cast::<u8>(), PAGE);
                ([page(0), page(1), page(2)], into)
            };
            let fault = system_calls_fault(&rig.rt);
            for (i, result) in kernel_accesses(pages, into, replaced).into_iter().enumerate() {
                let Some(result) = result else {
                    skipped(&format!(
                        "access {i}: no process_vm_readv in this kernel, or no O_DIRECT in this file system"
                    ));
                    continue;
                };
                let location = places(x.slice(sub(i)).residency());
                let kept = Places { device: 1, ..Places::NONE };
                match result {
                    Ok(bytes) if fault => {
                        let words: &[u32] = bytemuck::cast_slice(&bytes);
                        let (first, seed) = if i < 3 { (sub(i).start, 56) } else { (0, 57) };
                        expect(words, first, seed, 0);
                        assert_eq!(location.device + location.absent, 0, "access {i} brought its page home");
                    }
                    Err(error) if !fault => {
                        assert_eq!(
                            (error.raw_os_error(), location),
                            (Some(EFAULT), kept),
                            "access {i}: {error}"
                        );
                    }
                    other => panic!("access {i} with{} faults: {other:?}", if fault { "" } else { "out" }),
                }
            }
            expect(&x.slice(..sub(3).start), 0, 56, 0);
            if fault {
                expect(&x.slice(sub(3)), 0, 57, 0);
            }
        }
        let mut x = rig.filled(4 * SUB_WORDS, 58);
        rig.migrate(x.write());
        let mut guard = x.host_mut().expect("guard");
        let (loads, store) = guard.split_at_mut(sub(3).start);
        let page = |i: usize| bytemuck::cast_slice(&loads[sub(i)]);
        let into = bytemuck::cast_slice_mut(&mut store[..WORDS]);
        for (i, result) in
            kernel_accesses([page(0), page(1), page(2)], into, replaced).into_iter().enumerate()
        {
            let Some(result) = result else { continue };
            let bytes = result.expect("the pages are the host's");
            let (first, seed) = if i < 3 { (sub(i).start, 58) } else { (0, 57) };
            expect(bytemuck::cast_slice(&bytes), first, seed, 0);
        }
        drop(guard);
        let (seen, _) = rig.read(x.read(), 4 * SUB_WORDS).expect("read");
        expect(&seen[..sub(3).start], 0, 58, 0);
        expect(&seen[sub(3)], 0, 57, 0);
    });
}

/// Our memory is userfaultfd memory: whoever reads it, another runtime for its device too, gets what the handler supplies, here
/// bytes that only the first device has. Even the module of the second device's kernel may lie there.
#[test]
fn userfaultfd_read() {
    Rig::each(|rig| {
        let other = Rig::open(rig.setup, rig.setup.builder());
        let mut x = rig.fresh(WORDS_ALL);
        rig.rt.fill(x.overwrite(), 0xabab_abab).expect("fill").wait().expect("wait");
        let mut module = rig.rt.alloc::<u8>(spv::ADD_ONE.len()).expect("alloc");
        module.copy_from_slice(spv::ADD_ONE);
        rig.migrate(module.write());
        assert_eq!((places(x.residency()).device, places(module.residency()).device), (PAGES_ALL, 1));
        let before = rig.rt.stats();
        // SAFETY: the bytes are a shipped module, which is valid, ends, has no data race and stays inside its arguments.
        let add_one = unsafe { other.rt.kernel(&module[..]) }.expect("a module that was on the first device");
        let mut y = other.fresh(WORDS_ALL);
        y.copy_from_slice(&x);
        other.rt.launch(&add_one, Grid::linear(WORDS_ALL), (y.write(),)).expect("launch");
        assert!(y.iter().all(|w| *w == 0xabab_abac));
        let moved = rig.rt.stats().since(&before);
        assert_eq!(home_bytes(&moved), (PAGES_ALL + 1) * PAGE as u64, "each page once: {moved}");
        assert_eq!(moved.faults_read == 0, rig.declared(), "{moved}");
        // What is read into may be away, too.
        let mut from = rig.rt.alloc::<u32>(WORDS).expect("alloc");
        rig.rt.fill(from.overwrite(), 0xcdcd_cdcd).expect("fill");
        y.slice_mut(..WORDS).read_from(&mut bytemuck::cast_slice(&from)).expect("read_from");
        assert!(y.slice(..WORDS).iter().all(|w| *w == 0xcdcd_cdcd) && y.slice(WORDS..)[0] == 0xabab_abac);
        common::clean(&other.rt);
    });
}
