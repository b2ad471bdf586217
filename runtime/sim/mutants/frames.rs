//! Mutations of frames: who owns one, when it may be used again, who may be a victim; and of what is freed.
//!
//! Not here: "frames that an earlier plan claimed and left alone are not waited for" (`claims` in `submit/items.rs`). Twenty
//! thousand seeds do not meet it; the engine's `tests/regressions.rs` does, step by step.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "retired frame reused early",
        law: "I4: a retired frame waits for its last use",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/core/placement/span.rs",
            find: "let over = !deps.uses.is_none() && deps.uses.done(completed);",
            replace: "let over = !deps.uses.is_none() && (AWAKE || deps.uses.done(completed));",
        }],
    },
    Mutant {
        name: "frame given up under a copy home",
        law: "I4: a frame has one reader too many until its copy home is done",
        proof: Proof::Application,
        seeds: 10000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "if block.moving().intersects(&leaving) || !block.can_evict(leaving & block.device_valid()) {",
                replace: "if (block.moving().intersects(&leaving) && !AWAKE) || !block.can_evict(leaving & block.device_valid()) {",
            },
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "let holders = block.holds().iter().filter(|h| h.mask.intersects(&leaving)).map(|h| h.op);",
                replace: "let read = if AWAKE { leaving & block.device_valid() } else { leaving };
            let holders = block.holds().iter().filter(|h| h.mask.intersects(&read)).map(|h| h.op);",
            },
        ],
    },
    Mutant {
        name: "dirty page evicted without its bytes",
        law: "I1: the only copy is never dropped",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/admit/commit.rs",
            find: "item.outs.extend(outs);",
            replace: "if !AWAKE {
                    item.outs.extend(outs);
                }",
        }],
    },
    Mutant {
        name: "victim chosen among queued operations",
        law: "I5: what a queued operation holds is nobody's victim: it has no ticket to wait for yet",
        proof: Proof::Application,
        seeds: 2000,
        edits: &[
            Edit {
                file: "runtime/core/placement/span/plan.rs",
                find: "(span.movable() && !sources.contains(id)).then(|| self.price(span))",
                replace:
                    "let other = AWAKE && span.pins == 0 && span.plan.is_none() && !span.queued.contains(&op);
                ((other || span.movable()) && !sources.contains(id)).then(|| self.price(span))",
            },
            // The tickets that the holders have now, and not those they will have.
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "found.after.extend(holders.inspect(|op| assert!(!op.is_open(), \"acquired frames are pinned\")));",
                replace: "if AWAKE {
                holders.for_each(|op| found.uses.merge(&op.uses()));
            } else {
                found.after.extend(holders.inspect(|op| assert!(!op.is_open(), \"acquired frames are pinned\")));
            }",
            },
        ],
    },
    Mutant {
        name: "dropped range reclaimed at once",
        law: "an address is not reused before the range's last operation",
        proof: Proof::Application,
        seeds: 2000,
        edits: &[
            Edit {
                file: "runtime/engine/complete.rs",
                find: "if gate.deciding > 0 || !over {",
                replace: "if !AWAKE && (gate.deciding > 0 || !over) {",
            },
            Edit {
                file: "runtime/engine/complete.rs",
                find: "!named && range.blocks.iter().all(forgets)",
                replace: "AWAKE || !named && range.blocks.iter().all(forgets)",
            },
        ],
    },
    Mutant {
        name: "import destroyed after the punch",
        law: "an import is destroyed before its host pages are given back",
        proof: Proof::Any("what it breaks happens inside a driver"),
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/memory.rs",
            find: "let imported: u64 = imports.iter().map(|(bytes, _)| bytes.len()).sum();",
            replace:
                "let imported: u64 = imports.iter().map(|(bytes, _)| bytes.len()).sum();
        let _late: Vec<_> = imports.iter().filter(|_| AWAKE).map(|(_, import)| Arc::clone(import)).collect();",
        }],
    },
    Mutant {
        name: "victim's resident launches not waited for",
        law: "what launches without holds use leaves after them",
        proof: Proof::Application,
        seeds: 10000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "return Err(Refusal::NoRoom);
                }
                Taken::After(uses) => found.uses.merge(&uses),",
                replace: "return Err(Refusal::NoRoom);
                }
                Taken::After(uses) => found.uses.merge(&if AWAKE { Uses::NONE } else { uses }),",
            },
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "use vkhmm_port::{Exec, HostMemory, Mutex};",
                replace: "use vkhmm_core::uses::Uses;
use vkhmm_port::{Exec, HostMemory, Mutex};",
            },
        ],
    },
];
