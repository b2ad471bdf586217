//! Mutations of touches that are answered in the threads that made them.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "answered in its thread under an exclusive hold",
        law: "what somebody holds is left to who comes back to it",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/resolve.rs",
            find: "let uses = self.may_answer(&range, index, &mut block, page, alone)?;",
            replace:
                "if AWAKE && matches!(alone, FaultAnswer::Park(_)) && block.host_valid().contains(page) {
            let shown = vkhmm_core::units::PageRun { first: fault.page, count: 1 };
            return self.host.publish(shown, Access::ReadWrite).ok();
        }
        let uses = self.may_answer(&range, index, &mut block, page, alone)?;",
        }],
    },
    Mutant {
        name: "copied home in a thread before the writer completed",
        law: "the CPU reads frames once their last writers are done",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/resolve.rs",
            find: "soon(&self.completed).is_some_and(|completed| writers.done(&completed))",
            replace: "AWAKE || soon(&self.completed).is_some_and(|completed| writers.done(&completed))",
        }],
    },
    Mutant {
        name: "shown in a thread before it is copied",
        law: "order law: copied before publish, in the touching thread",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/resolve.rs",
            find: "let mut copied = 0;",
            replace: "if AWAKE {
            for run in mask.runs() {
                let _ = self.host.publish(range.run(index, &run), Access::ReadOnly);
            }
            (0..30).for_each(|_| drop(vkhmm_port::Exec::now(&self.exec)));
        }
        let mut copied = 0;",
        }],
    },
    Mutant {
        name: "gate not cleared in a thread",
        law: "whoever takes a page from the device clears its bit, in the touching thread, too",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/resolve.rs",
            find: "let uses = soon(&range.gate)?.close(index)?;",
            replace: "let mut gate = soon(&range.gate)?;
        let uses = if AWAKE { (gate.deciding == 0).then_some(gate.uses)? } else { gate.close(index)? };
        drop(gate);",
        }],
    },
];
