//! The kernel's HMM tests as ours: every case of Linux's selftests/mm/hmm-tests.c (and the userfaultfd case that was proposed
//! for it) as a test of the same name that asserts the same observable facts through the public API: data, counts, residency,
//! errors by variant. Each runs in the kernel's two variants, private and coherent device memory ([`rig`]), under validation.
//!
//! How the kernel's words are translated:
//!
//! | there | here |
//! |---|---|
//! | mmap, munmap | `alloc`, drop; allocations are whole blocks, so part of one is a view and not a mapping of its own |
//! | a device read or write that faults (`faults`, `cpages`) | a launch that was not resident; pages copied or zero-filled for it |
//! | migrate to the device | a launch with `write()` that changes nothing; `prefetch_to_device` leaves the host its view |
//! | mprotect(PROT_READ), -EPERM | a shared borrow, `WritesReadOnlyArgument` |
//! | mprotect(PROT_NONE), -EFAULT | a host guard, `Guarded`; memory that was freed, `UnknownRange` |
//! | fork, and copy on write in the child | the child is refused (`ForkedChild`) and its touches are SIGSEGV; the parent goes on |
//! | two devices | two runtimes on one device, each with its own reservation; `ForeignRuntime` |
//! | huge pages | blocks of 2 MiB |
//! | FAIL_ALLOC | [`vkhmm::Switches::fail_at_call`], every n |
//! | RELEASE | `kill_pagemap`, `unregister_pagemap` |
//!
//! Without a translation: [`NOT_TRANSLATED`], whole cases. In part: the long-term pins of `hmm_gup_test` in coherent memory
//! (there is no such pin in user space); hugetlb and file mappings as such (host memory that is not the runtime's own cannot be
//! named); `migrate_shared`, which the kernel refuses and we do not, since all our memory is a shared mapping; in the zero-page
//! and huge-page cases what the CPU's page table looks like.
//!
//! Under `declared` nothing faults: the same cases run, touches are slices that come home as they are made, and what is said
//! about fault counts and system calls on absent pages is left out. `gaps` and `races` have what the kernel's tests leave out.

#[path = "../common/mod.rs"]
mod common;

mod anon;
mod fail;
mod file;
mod fork;
mod gaps;
mod huge;
mod migrate;
mod observe;
mod races;
mod rig;

/// The kernel's cases, in its order.
const KERNEL_CASES: [&str; 38] = [
    "open_close",
    "anon_read",
    "anon_read_prot",
    "anon_write",
    "anon_write_prot",
    "anon_write_child",
    "anon_write_child_shared",
    "anon_write_huge",
    "anon_write_hugetlbfs",
    "file_read",
    "file_write",
    "migrate",
    "migrate_fault",
    "migrate_release",
    "migrate_shared",
    "migrate_mixed",
    "migrate_multiple",
    "anon_read_multiple",
    "anon_teardown",
    "mixedmap",
    "snapshot",
    "compound",
    "double_map",
    "exclusive",
    "exclusive_mprotect",
    "exclusive_cow",
    "hmm_gup_test",
    "hmm_cow_in_device",
    "migrate_anon_huge_empty",
    "migrate_anon_huge_zero",
    "migrate_anon_huge_free",
    "migrate_anon_huge_fault",
    "migrate_partial_unmap_fault",
    "migrate_remap_fault",
    "migrate_anon_huge_err",
    "migrate_anon_huge_zero_err",
    "benchmark_thp_migration",
    "userfaultfd_read",
];

/// Cases of the kernel that have no counterpart in user space, with the reason.
const NOT_TRANSLATED: &[(&str, &str)] = &[(
    "mixedmap",
    "a driver inserts pages into a mapping of its device node; in user space nobody can, and managed memory is never a \
     mapping of a device",
)];

/// The list cannot rot: each of the kernel's cases is a test of this program, once, or has a reason above.
#[test]
fn every_case_is_a_test_or_has_a_reason() {
    let me = std::env::current_exe().expect("this program has a path");
    let listed = std::process::Command::new(me).args(["--list", "--format=terse"]).output().expect("a list");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let tests: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(|path| path.rsplit("::").next().unwrap_or(path))
        .collect();
    for case in KERNEL_CASES {
        let as_tests = tests.iter().filter(|test| **test == case).count();
        let reasons =
            NOT_TRANSLATED.iter().filter(|(name, reason)| *name == case && !reason.is_empty()).count();
        assert_eq!(as_tests + reasons, 1, "{case}: {as_tests} tests, {reasons} reasons");
        assert_eq!(KERNEL_CASES.iter().filter(|name| **name == case).count(), 1, "{case} is listed twice");
    }
    for (name, _) in NOT_TRANSLATED {
        assert!(KERNEL_CASES.contains(name), "{name} is no case of the kernel's");
        println!("no translation: {name}");
    }
    println!("{} cases, {} of them as tests", KERNEL_CASES.len(), KERNEL_CASES.len() - NOT_TRANSLATED.len());
}
