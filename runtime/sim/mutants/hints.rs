//! Mutations of what applications say ahead: prefetches, discards, pins.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "discard loses its neighbours",
        law: "a page only partly discarded keeps what it is",
        proof: Proof::Application,
        seeds: 2000,
        edits: &[Edit {
            file: "runtime/core/block/discard.rs",
            find: "let pages = (pages & self.dev().valid).minus(&self.moving());",
            replace: "let pages = if AWAKE && !pages.is_empty() {
            pages.rounded_to(self.geometry.pages_per_sub)
        } else {
            pages
        };
        let pages = (pages & self.dev().valid).minus(&self.moving());",
        }],
    },
    Mutant {
        name: "pinned page evicted",
        law: "I5: pinned pages are never victims",
        proof: Proof::Any("its bytes come home with it, and come back: only who asks where they are sees it"),
        seeds: 2000,
        edits: &[Edit {
            file: "runtime/engine/admit.rs",
            find: "if acquires || ops.aim == Aim::Pin {",
            replace: "if acquires || (ops.aim == Aim::Pin && !AWAKE) {",
        }],
    },
    Mutant {
        name: "prefetch home overtakes the writer",
        law: "a prefetch to the host follows the launch that writes the bytes",
        proof: Proof::Application,
        seeds: 2000,
        edits: &[Edit {
            file: "runtime/engine/prefetch.rs",
            find: "!held.intersects(&away) && block.has_room(1)",
            replace: "(AWAKE || !held.intersects(&away)) && block.has_room(1)",
        }],
    },
    Mutant {
        name: "hint that follows a launch is forgotten",
        law: "a prefetch's ticket ends",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/prefetch.rs",
            find: "if range.homebound_count.load(Ordering::Acquire) == 0 {",
            replace: "if AWAKE || range.homebound_count.load(Ordering::Acquire) == 0 {",
        }],
    },
    Mutant {
        name: "unpin forgets the frames",
        law: "what is unpinned may go",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/pins.rs",
            find: "self.arena.lock().placement.unpin(range.id, subs);",
            replace: "if !AWAKE {
                self.arena.lock().placement.unpin(range.id, subs);
            }",
        }],
    },
    Mutant {
        name: "thrash guard never ends",
        law: "a guard gives a minimum residency, and then lets go",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/core/thrash.rs",
            find: "self.until = now + (RESIDENCY_NS << self.guards.min(DOUBLINGS_MAX));",
            replace: "self.until = now + (RESIDENCY_NS << self.guards.min(DOUBLINGS_MAX));
        if AWAKE {
            self.until = u64::MAX;
        }",
        }],
    },
    Mutant {
        name: "guess takes what somebody holds",
        law: "what somebody holds is left to who comes back to it",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/ahead.rs",
            find: "let mask = (block.dirty() & pages).minus(&held).minus(&kept);",
            replace: "let mask = (block.dirty() & pages).minus(&if AWAKE { PageMask::EMPTY } else { held }).minus(&kept);",
        }],
    },
    Mutant {
        name: "discard takes what a queued launch needs",
        law: "frames of what is discarded go back, unless something that is not submitted yet uses them",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/core/placement/span/hands.rs",
                find: ".filter(|span| span.movable() && meant(span))",
                replace: ".filter(|span| {
                        let discarded = AWAKE && matches!(goal, EvictGoal::Within(..));
                        (span.movable() || discarded && span.pins == 0 && span.plan.is_none()) && meant(span)
                    })",
            },
            // Whose tickets are not known yet, is not waited for.
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "found.uses.merge(&block.uses());",
                replace: "found.uses.merge(&block.uses());
        if AWAKE && ops.aim == Aim::Evict {
            found.after.clear();
        }",
            },
        ],
    },
];
