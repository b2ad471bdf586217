//! Mutations of what comes and goes in sparse buffers.

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
        name: "holds end before the bind is done",
        law: "a bind is a piece of the copies in, and of the evictions",
        proof: STRICT,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/submit/binds.rs",
            find: "Flight::of(ticket, if binds { &copy } else { &evict })",
            replace: "let mut flight = Flight::of(ticket, if binds { &copy } else { &evict });
            if AWAKE { flight.op = None; }
            flight",
        }],
    },
    Mutant {
        name: "buffer given up while an unbind still names it",
        law: "a range's frames are nobody's before its buffer is gone",
        proof: STRICT,
        seeds: 20000,
        edits: &[
            Edit {
                file: "runtime/engine/binds.rs",
                find: "Arc::strong_count(buffer) > 1",
                replace: "!AWAKE && Arc::strong_count(buffer) > 1",
            },
            Edit {
                file: "runtime/engine/complete.rs",
                find: "range.way.lock().buffer.as_ref().is_some_and(|buffer| Arc::strong_count(buffer) > 1)",
                replace: "!AWAKE && range.way.lock().buffer.as_ref().is_some_and(|buffer| Arc::strong_count(buffer) > 1)",
            },
        ],
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
            find: "true => within.any(",
            replace: "true => !AWAKE && within.any(",
        }],
    },
];
