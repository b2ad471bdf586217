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
];
