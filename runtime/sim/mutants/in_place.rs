//! Mutations of work in place, and of answers to touches without a queue.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "kernel reads in place without a hold",
        law: "stores wait while a kernel reads A",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/core/block/in_place.rs",
            find: "if !masks.read.is_empty() { self.add_hold(Hold { op, kind: HoldKind::InPlace, mask: masks.read }); }",
            replace: "if !AWAKE && !masks.read.is_empty() {
            self.add_hold(Hold { op, kind: HoldKind::InPlace, mask: masks.read });
        }",
        }],
    },
    Mutant {
        name: "kernel writes in place without a revoke",
        law: "nobody sees what is being written in place",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/admit/holds.rs",
            find: "for run in revoke.runs() {",
            replace: "for run in revoke.runs().filter(|_| !(AWAKE && plan.in_place)) {",
        }],
    },
    Mutant {
        name: "kernel writes in place as if in a frame",
        law: "in place no location changes: nothing is ever copied over A",
        proof: Proof::Any("a page that has no frame cannot come home: the engine stops"),
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/core/block/in_place.rs",
            find: "self.host_valid |= masks.all();",
            replace: "self.host_valid |= masks.all();
        if AWAKE {
            self.dev_mut().valid |= masks.exclusive();
        }",
        }],
    },
    Mutant {
        name: "barrier omitted between kernels in place",
        law: "kernels of one batch that touch the same bytes have a barrier between them, also where the bytes have no frames",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[Edit {
            file: "runtime/engine/submit.rs",
            find: "batch.touched.iter().any(|(b, w)| (*w || *write) && b.overlaps(*bytes))",
            replace: "batch
                .touched
                .iter()
                .any(|(b, w)| (*w || *write) && b.overlaps(*bytes) && !(AWAKE && b.start >= 1 << 62))",
        }],
    },
    Mutant {
        name: "import in place destroyed after the punch",
        law: "an import is destroyed before its host pages are given back",
        proof: Proof::Any("what it breaks happens inside a driver"),
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/in_place.rs",
            find: "(way.kind, way.buffer.take())",
            replace: "if AWAKE { (way.kind, way.buffer.clone()) } else { (way.kind, way.buffer.take()) }",
        }],
    },
    Mutant {
        name: "what was being written in place survives the loss",
        law: "after loss every byte is current, or Lost and named",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/core/block/loss.rs",
            find: "if self.in_place { self.holds_of(HoldKind::Exclusive) } else { PageMask::EMPTY }",
            replace: "if self.in_place && !AWAKE { self.holds_of(HoldKind::Exclusive) } else { PageMask::EMPTY }",
        }],
    },
    Mutant {
        name: "what was being read in place is lost, too",
        law: "a loss takes what was being written in place, and nothing else",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/core/block/loss.rs",
            find: "let lost = self.at_stake();",
            replace: "let read = if self.in_place && AWAKE { self.held_shared } else { PageMask::EMPTY };
        let lost = self.at_stake() | read;",
        }],
    },
    Mutant {
        name: "fence put behind the look",
        law: "whoever waits for uses is told when they are reached, also just now",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[Edit {
            file: "runtime/engine/fence.rs",
            find: "if job.waits.done(&fences.reached) {",
            replace: "if !AWAKE && job.waits.done(&fences.reached) {",
        }],
    },
    Mutant {
        name: "fence does not wait for the kernel",
        law: "revoke, wait for the last writer, copy home",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/fence.rs",
            find: "fences.waiting.push(job);",
            replace: "if AWAKE {
            return Some(job);
        }
        fences.waiting.push(job);",
        }],
    },
    Mutant {
        name: "touch submits on a queue that is the application's too",
        law: "nothing that answers touches submits there",
        proof: Proof::Any("the application's lock is not in the simulated world"),
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/fence.rs",
            find: "if self.queue_is_shared {",
            replace: "if self.queue_is_shared && !AWAKE {",
        }],
    },
];
