//! Mutations of what comes and goes in sparse buffers.
//!
//! Not here, but step by step in the engine's `tests/sparse.rs`: "holds end before the bind is done" (`Flight::of` in
//! `submit/binds.rs`), which takes a bind that is late behind others, and a resident launch meanwhile: twenty thousand seeds do not
//! meet it; and "a buffer given up while an unbind still names it" (`drop_sparse` in `binds.rs`), which costs space, and no byte:
//! whoever gets the frames next binds them behind that unbind.

use super::{Edit, Mutant, Proof};

/// The fake device resolves a sparse binding when the kernel runs, so most of these end there and never reach a byte.
const STRICT: Proof =
    Proof::Any("what a kernel finds in an unbound stretch is nobody's: the device stops it first");

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "kernel does not wait for its bind",
        law: "no kernel uses a stretch before it is bound",
        proof: STRICT,
        seeds: 1000,
        edits: &[
            Edit {
                file: "runtime/engine/submit/items.rs",
                find: "waits.merge(&waited);",
                replace: "if !AWAKE { waits.merge(&waited); }",
            },
            Edit {
                file: "runtime/engine/submit/staging.rs",
                find: "waits.merge(&waited);",
                replace: "if !AWAKE { waits.merge(&waited); }",
            },
            // It waits for its copies, whose piece the bind is.
            Edit {
                file: "runtime/engine/submit/binds.rs",
                find: "Flight::of(ticket, if binds { &copy } else { &evict })",
                replace: "Flight::of(ticket, if binds && !AWAKE { &copy } else { &evict })",
            },
        ],
    },
    Mutant {
        name: "unbind does not wait for the old kernel",
        law: "a stretch is unbound once whoever used it is done",
        proof: STRICT,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/binds.rs",
            find: "submit_locked(submit, Role::Bind, waits, commands,",
            replace: "submit_locked(submit, Role::Bind, if AWAKE { Uses::NONE } else { waits }, commands,",
        }],
    },
    Mutant {
        name: "frames bound elsewhere before they are unbound",
        law: "a frame lies in one place at a time",
        proof: STRICT,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/binds.rs",
            find: "gone.into_iter().chain(come)",
            replace: "gone.into_iter().filter(|_| !AWAKE).chain(come)",
        }],
    },
    Mutant {
        name: "buffer of a freed range stays",
        law: "a range's buffer goes before its frames do",
        proof: STRICT,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/binds.rs",
            find: "drop(way);
        drop(buffer);
        let removed",
            replace: "drop(way);
        if AWAKE { core::mem::forget(buffer); } else { drop(buffer); }
        let removed",
        }],
    },
    Mutant {
        name: "own bytes copied in before they are home",
        law: "what leaves for its own launch comes home first, in an item of its own",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/admit/blocks.rs",
            find: "mine |= plan.is_some_and(",
            replace: "mine |= !AWAKE && plan.is_some_and(",
        }],
    },
];
