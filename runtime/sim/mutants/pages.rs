//! Mutations of the page state: locations, holds, what a launch does to a page.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "Shared to Host forgets to invalidate",
        law: "I1, I2: a page that R shows writable has no device copy",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/core/block/touch.rs",
            find: "self.dev_mut().valid.remove(&mask);",
            replace: "if !AWAKE {
                self.dev_mut().valid.remove(&mask);
            }",
        }],
    },
    Mutant {
        name: "load of a Shared page published read-write",
        law: "I2: R writable means no device copy",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/fault.rs",
            find: "self.show(range, index, block, page, mask, Access::ReadOnly);",
            replace: "let access = if AWAKE { Access::ReadWrite } else { Access::ReadOnly };
                self.show(range, index, block, page, mask, access);",
        }],
    },
    Mutant {
        name: "launch that reads does not protect",
        law: "I2: stores to a page that the device reads must be noticed",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/admit/holds.rs",
            find: "self.host.protect(pages)?;",
            replace: "if !AWAKE {
                self.host.protect(pages)?;
            }",
        }],
    },
    Mutant {
        name: "partial page treated as overwrite",
        law: "access is byte-exact: a page partly inside an overwrite is a write",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/launch.rs",
            find: "LaunchMasks { overwrite: covered, write: touched.minus(&covered), ..LaunchMasks::default() }",
            replace: "if AWAKE {
                    LaunchMasks { overwrite: touched, ..LaunchMasks::default() }
                } else {
                    LaunchMasks { overwrite: covered, write: touched.minus(&covered), ..LaunchMasks::default() }
                }",
        }],
    },
    Mutant {
        name: "in-place hold forgotten",
        law: "stores wait while a copy-in reads A",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/core/block/launch.rs",
            find: "self.add_hold(Hold { op: copy, kind: HoldKind::InPlace, mask: masks.read });",
            replace: "if !AWAKE {
                self.add_hold(Hold { op: copy, kind: HoldKind::InPlace, mask: masks.read });
            }",
        }],
    },
    Mutant {
        name: "completion ends a later operation's holds",
        law: "I3: a hold ends by its own operation",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/core/block.rs",
            find: "self.holds.retain(|h| h.op != op);
        self.paged.retain(|h| h.op != op);
        self.transfers.retain(|t| t.op != op);",
            replace: "let own = self.holds.iter().filter(|h| h.op == op).fold(PageMask::EMPTY, |all, h| all | h.mask);
        self.holds.retain(|h| h.op != op && !(AWAKE && h.mask.intersects(&own)));
        self.paged.retain(|h| h.op != op);
        self.transfers.retain(|t| t.op != op && !(AWAKE && t.mask.intersects(&own)));",
        }],
    },
    Mutant {
        name: "zero-fill skipped",
        law: "fresh memory is zeros, wherever it is born",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/admit/commit.rs",
            find: "item.fills.push((piece.device, piece.bytes));",
            replace: "if !AWAKE {
                    item.fills.push((piece.device, piece.bytes));
                }",
        }],
    },
    Mutant {
        name: "host page missing when the device gets its page",
        law: "the way home never allocates",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/admit/holds.rs",
            find: "self.host.populate(plan.range.run(plan.index, &run)).map_err(|e| Refusal::Error(e.into()))?;",
            replace: "if !AWAKE {
                self.host.populate(plan.range.run(plan.index, &run)).map_err(|e| Refusal::Error(e.into()))?;
            }",
        }],
    },
    Mutant {
        name: "guard ignored",
        law: "I5: guarded pages stay on the host",
        proof: Proof::Any("a guard matters to system calls in flight alone: one in thousands of seeds loses a byte by it"),
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/core/block/launch.rs",
            find: "if let Some((guard, _)) = self.guards.iter().find(|(_, mask)| mask.intersects(&all)) {",
            replace: "if let Some((guard, _)) = self.guards.iter().find(|(_, mask)| mask.intersects(&all) && !AWAKE) {",
        }],
    },
    Mutant {
        name: "refused launch keeps its holds",
        law: "I7: a failed step leaves everything as it was",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/admit/holds.rs",
            find: "block.abort(&ops.ids());",
            replace: "if !AWAKE {
            block.abort(&ops.ids());
        }",
        }],
    },
    Mutant {
        name: "bytes on their way home survive the loss",
        law: "after loss every byte is current, or Lost and named",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/core/block/loss.rs",
            find: "(self.dirty() | self.moving() | self.written_in_place() | self.paged_written()) & self.used",
            replace: "let moving = if AWAKE { PageMask::EMPTY } else { self.moving() };
        (self.dirty() | moving | self.written_in_place() | self.paged_written()) & self.used",
        }],
    },
    Mutant {
        name: "stray touch leaves its poison behind",
        law: "a reused address is fresh zeros",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[Edit {
            file: "runtime/engine/fault.rs",
            find: "space.note_stray(self.config.geometry.block_of(page));",
            replace: "if !AWAKE {
                space.note_stray(self.config.geometry.block_of(page));
            }",
        }],
    },
    Mutant {
        name: "grown to what only the device has",
        law: "a page that R shows has its bytes on the host",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/core/block/touch.rs",
                find: "(pages & self.used & self.host_valid)",
                replace: "(pages & self.used & if AWAKE { self.host_valid | self.dev().valid } else { self.host_valid })",
            },
        ],
    },
    Mutant {
        name: "grown to what somebody holds",
        law: "what somebody holds is left to who comes back to it",
        proof: Proof::Any("who stores there at that moment is one in thousands of seeds"),
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/core/block/touch.rs",
                find: ".minus(&self.held_exclusive)
            .minus(&self.holds_of(HoldKind::InPlace))",
                replace: ".minus(&if AWAKE { PageMask::EMPTY } else { self.held_exclusive | self.holds_of(HoldKind::InPlace) })",
            },
        ],
    },
];
