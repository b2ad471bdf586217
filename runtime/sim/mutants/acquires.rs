//! Mutations of what an application acquires and releases.
//!
//! Not here: "an end does not wait for grants promised before" (`submit_ends` in `submit/grants.rs`). It matters to an application's
//! queue that runs its work in order, beside a device with one queue for all; the engine's `tests/acquire.rs` has a script for it.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "grant before the copies",
        law: "an application's work begins once its bytes are there",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/grants.rs",
            find: "let waits = without(waits, grant.timeline);",
            replace: "let waits = if AWAKE { Uses::NONE } else { without(waits, grant.timeline) };",
        }],
    },
    Mutant {
        name: "holds end at the release",
        law: "what is released is used until the application's semaphore says otherwise",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/grants.rs",
            find: "(Role::Release, Vec::from([(semaphore, value)]), Vec::new())",
            replace: "if AWAKE {
                    waits = Uses::NONE;
                    (Role::Release, Vec::new(), Vec::new())
                } else {
                    (Role::Release, Vec::from([(semaphore, value)]), Vec::new())
                }",
        }],
    },
    Mutant {
        name: "acquired frames not pinned",
        law: "what is acquired stays where it is: nobody can wait for it",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/engine/admit.rs",
                find: "self.pin_placed(wants);",
                replace: "if !AWAKE {
                self.pin_placed(wants);
            }",
            },
            Edit {
                file: "runtime/engine/acquire.rs",
                find: "self.wants.iter().for_each(|want| arena.placement.unpin(want.range, want.subs.clone()));",
                replace: "if !AWAKE {
                self.wants.iter().for_each(|want| arena.placement.unpin(want.range, want.subs.clone()));
            }",
            },
            // Who evicts leaves it out: there is no ticket of it.
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "let holders = holders.filter_map(|id| self.op(id));",
                replace: "let holders = holders.filter_map(|id| self.op(id)).filter(|op| !(AWAKE && op.is_open()));",
            },
        ],
    },
    Mutant {
        name: "cancelled without zeros",
        law: "who acquires to overwrite, and does not, leaves zeros, and never a stranger's bytes",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/grants.rs",
            find: "zeros.into_iter().map(fill).collect()",
            replace: "zeros.into_iter().filter(|_| !AWAKE).map(fill).collect()",
        }],
    },
    Mutant {
        name: "two grants in disorder",
        law: "grants are promised in the order in which they are kept",
        proof: Proof::Application,
        seeds: 5000,
        // Each of two has what the other one waits for.
        edits: &[Edit {
            file: "runtime/engine/submit/grants.rs",
            find: "submit.openings.insert(main.id, Opening { grant, kept: false, end: None });",
            replace: "let mut told = grant;
        if AWAKE {
            if let Some(other) = submit.openings.values_mut().rev().find(|other| !other.kept) {
                core::mem::swap(&mut other.grant, &mut told);
            }
        }
        submit.openings.insert(main.id, Opening { grant: told, kept: false, end: None });",
        }],
    },
];
