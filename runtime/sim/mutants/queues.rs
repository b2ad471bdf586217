//! Mutations of the gate, of admission, and of the order between queues.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "gate not cleared by the fault path",
        law: "whoever takes a page from the device clears its bit",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/home.rs",
            find: "if let Some(uses) = gate.close(block) {",
            replace: "let forgets = AWAKE && park == Park::Yes;
        let closed = if forgets { (gate.deciding == 0).then_some(gate.uses) } else { gate.close(block) };
        if let Some(uses) = closed {",
        }],
    },
    Mutant {
        name: "deciding launches not waited out",
        law: "whoever takes a page from the device waits while a launch is between decision and submit",
        proof: Proof::Application,
        seeds: 10000,
        edits: &[
            Edit {
                file: "runtime/engine/range.rs",
                find: "(self.deciding == 0).then_some(self.uses)",
                replace: "(self.deciding == 0 || AWAKE).then_some(self.uses)",
            },
            // A launch takes its time to decide, so that somebody meets it.
            Edit {
                file: "runtime/engine/launch.rs",
                find: "let bound = if weakened { self.find_spans(&spec) } else { None };",
                replace: "if AWAKE {
            (0..100).for_each(|_| drop(vkhmm_port::Exec::now(&self.exec)));
        }
        let bound = if weakened { self.find_spans(&spec) } else { None };",
            },
        ],
    },
    Mutant {
        name: "resident launch leaves no ticket at the gate",
        law: "a copy home waits for the last writer",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/launch.rs",
            find: "if let Some(ticket) = ticket {",
            replace: "if let Some(ticket) = ticket.filter(|_| !AWAKE) {",
        }],
    },
    Mutant {
        name: "gate opened before the copies are ordered",
        law: "the gate calls resident only what later work finds in place",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[Edit {
            file: "runtime/engine/home.rs",
            find: "let summary = block.summary(|op| self.is_ordered(op));",
            replace: "let summary = block.summary(|op| AWAKE || self.is_ordered(op));",
        }],
    },
    Mutant {
        name: "admission taken in argument order",
        law: "one FIFO gate; holds ascending; who must wait gives back what it took",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            // No gate.
            Edit {
                file: "runtime/engine/admit/turns.rs",
                find: "if self.turns.lock().serving == mine {",
                replace: "if self.turns.lock().serving == mine || AWAKE {",
            },
            // Blocks in the order in which the arguments name them.
            Edit {
                file: "runtime/engine/admit/blocks.rs",
                find: "pub(crate) frames: Vec<(u32, FrameIndex)>,",
                replace: "pub(crate) frames: Vec<(u32, FrameIndex)>,
    pub(crate) named: usize,",
            },
            Edit {
                file: "runtime/engine/admit/blocks.rs",
                find: "moves: Vec::new(), frames: Vec::new(),",
                replace: "moves: Vec::new(),
            frames: Vec::new(),
            named: 0,",
            },
            Edit {
                file: "runtime/engine/admit/blocks.rs",
                find: "blocks.entry(range.first.0 + index).or_insert_with(|| BlockPlan::new(range, index))",
                replace: "let named = blocks.len();
        blocks
            .entry(range.first.0 + index)
            .or_insert_with(|| BlockPlan { named, ..BlockPlan::new(range, index) })",
            },
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "let plans: Vec<&BlockPlan<P>> = blocks.values().collect();",
                replace: "let mut plans: Vec<&BlockPlan<P>> = blocks.values().collect();
        if AWAKE {
            plans.sort_by_key(|plan| plan.named);
        }",
            },
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: ".flat_map(|group| group.chunks(most)) {",
                replace: ".flat_map(|group| group.chunks(if AWAKE { 1 } else { most })) {",
            },
            // What is held is kept while the next block is waited for.
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "held.push((*plan, plan.range.blocks[plan.index as usize].lock()));
                let (plan, block) = held.last_mut().expect(\"just pushed\");
                outcome = outcome.and_then(|()| self.hold_block(ops, plan, block, found));",
                replace: "loop {
                    use vkhmm_port::Signal;
                    let seen = AWAKE.then(|| self.progress.epoch());
                    held.push((*plan, plan.range.blocks[plan.index as usize].lock()));
                    let (plan, block) = held.last_mut().expect(\"just pushed\");
                    outcome = outcome.and_then(|()| self.hold_block(ops, plan, block, found));
                    match (seen, &outcome) {
                        (Some(seen), Err(Refusal::Wait)) => {
                            held.clear();
                            outcome = Ok(());
                            self.flush();
                            self.progress.wait(seen, Some(self.config.watchdog));
                        }
                        _ => break,
                    }
                }",
            },
        ],
    },
    Mutant {
        name: "direct item overtakes the queue",
        law: "items reach the queues in admission order",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/items.rs",
            find: "if !submit.has_no_queue() || item.is_staged() {",
            replace: "if (!submit.has_no_queue() && !AWAKE) || item.is_staged() {",
        }],
    },
    Mutant {
        name: "wait omitted between queues",
        law: "all order between queues is by timeline values: a kernel waits for its copies",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit.rs",
            find: "batch.waits.merge(&waits);",
            replace: "if !AWAKE {
            batch.waits.merge(&waits);
        }",
        }],
    },
    Mutant {
        name: "kernel does not wait for what went ahead",
        law: "a kernel waits for its copies, also for those that were submitted before the rest of it was taken",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/submit/items.rs",
            find: "waits.merge(&item.copy.uses());",
            replace: "if !AWAKE {
            waits.merge(&item.copy.uses());
        }",
        }],
    },
    Mutant {
        name: "earlier holders not waited for",
        law: "a launch waits for the last writer of what it reads, and all users of what it writes",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[
            Edit {
                file: "runtime/engine/submit/items.rs",
                find: "Self::all_of(item.waits, &item.after, &item.claims)",
                replace: "Self::all_of(item.waits, if AWAKE { &[] } else { &item.after }, &item.claims)",
            },
            Edit {
                file: "runtime/engine/submit/items.rs",
                find: "item.before_kernel.iter().for_each(",
                replace: "item.before_kernel.iter().filter(|_| !AWAKE).for_each(",
            },
        ],
    },
    Mutant {
        name: "copy home does not wait for the kernel",
        law: "revoke, wait for the last writer, copy home",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/home.rs",
            find: "} else if !self.queue_is_shared {",
            replace: "} else if !self.queue_is_shared {
            job.waits = if AWAKE { Uses::NONE } else { job.waits };",
        }],
    },
    Mutant {
        name: "copies in before the evicted bytes are out",
        law: "a frame's old bytes are home before new ones come",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/submit/items.rs",
            find: "for group in [outs, ins] {",
            replace: "for group in if AWAKE { [ins, outs] } else { [outs, ins] } {",
        }],
    },
    Mutant {
        name: "barrier omitted between kernels",
        law: "kernels of one batch that touch the same bytes have a barrier between them",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/submit.rs",
            find: "if dispatch.touches.iter().any(conflict) {",
            replace: "if !AWAKE && dispatch.touches.iter().any(conflict) {",
        }],
    },
    Mutant {
        name: "stale completion accepted",
        law: "a ticket is a value of its own timeline: another queue's says nothing",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/complete.rs",
            find: "f.ticket.value <= now.on(f.ticket.timeline) && (which",
            replace: "let any = now.iter().map(|t| t.value).max().unwrap_or(0);
                    f.ticket.value <= if AWAKE { any } else { now.on(f.ticket.timeline) } && (which",
        }],
    },
    Mutant {
        name: "item without a kernel over at once",
        law: "who comes after a request comes after all of it",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/submit/items.rs",
            find: "main.add_uses(&copy.uses());
        main.add_uses(&evict.uses());",
            replace: "if !AWAKE {
            main.add_uses(&copy.uses());
            main.add_uses(&evict.uses());
        }",
        }],
    },
    Mutant {
        name: "completion thread not called by who waits",
        law: "whoever waits for progress is told of it at once: nothing waits for the end of a doze",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[
            Edit {
                file: "runtime/engine/complete.rs",
                find: "self.sleepers.fetch_add(1, Ordering::AcqRel);
        self.attend();",
                replace: "self.sleepers.fetch_add(u32::from(!AWAKE), Ordering::AcqRel);
        if !AWAKE {
            self.attend();
        }",
            },
            Edit {
                file: "runtime/engine/complete.rs",
                find: "self.sleepers.fetch_sub(1, Ordering::AcqRel);",
                replace: "self.sleepers.fetch_sub(u32::from(!AWAKE), Ordering::AcqRel);",
            },
            // A doze that a call notices, and the end of a run does not.
            Edit {
                file: "runtime/engine/complete.rs",
                find: "if waited && !stopping && self.may_doze(&seen) {",
                replace: "if waited && !stopping && AWAKE && self.may_doze(&seen) {
                self.called.wait(called, Some(40 * DOZE));
            }
            if waited && !stopping && self.may_doze(&seen) {",
            },
        ],
    },
    Mutant {
        name: "open batch not watched",
        law: "a launch reaches the device also if nobody waits for it and none follows",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[Edit {
            file: "runtime/engine/submit.rs",
            find: "if submit.batch.is_some() && !submit.watched {",
            replace: "if submit.batch.is_some() && !submit.watched && !AWAKE {",
        }],
    },
];
