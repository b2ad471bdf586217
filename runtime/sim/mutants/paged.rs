//! Mutations of paged launches: what holds their pages, what the tables say, what the planner remembers.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "paged launch without holds",
        law: "a paged launch looks as if it ran inside its call",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/admit/paged.rs",
            find: "block.hold_paged(op.id, &plan.masks);",
            replace: "if !AWAKE {
            block.hold_paged(op.id, &plan.masks);
        }",
        }],
    },
    Mutant {
        name: "paged launch reads without a hold",
        law: "stores wait while a paged launch reads, also between its rounds",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/core/block/paged.rs",
            find: "if !mask.is_empty() { assert!(self.paged.len()",
            replace: "if !mask.is_empty() && !(AWAKE && kind == HoldKind::InPlace) { assert!(self.paged.len()",
        }],
    },
    Mutant {
        name: "launch between two rounds",
        law: "who meets a paged launch comes after all of it",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/core/block/paged.rs",
            find: "self.paged.iter().find(conflicts).map(|hold| hold.op)",
            replace: "self.paged.iter().find(conflicts).map(|hold| hold.op).filter(|_| !AWAKE)",
        }],
    },
    Mutant {
        name: "entry of what is not there",
        law: "what a table says is there is an argument of its round",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/paged/tables.rs",
            find: "let bits = (of_block(subs.start)..of_block(subs.end))",
            replace: "let bits = (if AWAKE { 0..per_block } else { of_block(subs.start)..of_block(subs.end) })",
        }],
    },
    Mutant {
        name: "entry of the round before stays",
        law: "what is no argument of a round has no entry",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/paged/tables.rs",
            find: "if !entries.contains_key(&(range, block)) {",
            replace: "if !entries.contains_key(&(range, block)) && !AWAKE {",
        }],
    },
    Mutant {
        name: "stores to what a round only reads",
        law: "what a kernel stores to is held for writing",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/paged/tables.rs",
            find: "*writable |= if argument.access.writes() { bits } else { 0 };",
            replace: "*writable |= if AWAKE || argument.access.writes() { bits } else { 0 };",
        }],
    },
    Mutant {
        name: "group run again though it is done",
        law: "a group does its work once",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/core/paging/plan/choose.rs",
            find: "if is_set(&self.done, group) {",
            replace: "if is_set(&self.done, group) && !(AWAKE && self.finished + 1 < self.groups) {",
        }],
    },
    Mutant {
        name: "overwritten twice",
        law: "what one round overwrote the next ones keep",
        proof: Proof::Application,
        seeds: 10000,
        edits: &[Edit {
            file: "runtime/core/paging/plan/choose.rs",
            find: "Use::Overwrite if self.stored[at][sub.1 as usize] => Use::Write,",
            replace: "Use::Overwrite if self.stored[at][sub.1 as usize] && !AWAKE => Use::Write,",
        }],
    },
    Mutant {
        name: "what a paged launch was to write survives the loss",
        law: "after loss every byte is current, or Lost and named",
        proof: Proof::Application,
        seeds: 10000,
        edits: &[Edit {
            file: "runtime/core/block/paged.rs",
            find: "let written = self.paged.iter().filter(|hold| hold.kind == HoldKind::Exclusive);",
            replace: "let written = self.paged.iter().filter(|hold| hold.kind == HoldKind::Exclusive && !AWAKE);",
        }],
    },
    Mutant {
        name: "feedback of the round before stays",
        law: "a round tells of itself alone",
        proof: Proof::Any(
            "a planner that is told old misses holds what nobody wants: it takes more rounds, or ends early",
        ),
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/paged/tables.rs",
            find: "out.slice(at as usize, (u64::from(plane) * 2 * WORD) as usize).fill(0);",
            replace: "if !AWAKE {
                out.slice(at as usize, (u64::from(plane) * 2 * WORD) as usize).fill(0);
            };",
        }],
    },
];
