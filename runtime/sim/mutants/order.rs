//! Mutations of the order law (revoke before copy out, copied before publish, published before wake), of L0 and of I8.

use super::{Edit, Mutant, Proof};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "copy before revoke",
        law: "order law: revoke before copy out",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "self.host.revoke(pages)?;",
                replace: "let exclusive = |p: &Part| group[p.at].0.masks.exclusive().covers(&PageMask::range(p.run.clone()));
                if !(AWAKE && parts.iter().all(exclusive)) {
                    self.host.revoke(pages)?;
                }",
            },
            Edit {
                file: "runtime/engine/admit.rs",
                find: "self.put(item);",
                replace: "self.put(item);
                if AWAKE {
                    (0..30).for_each(|_| drop(vkhmm_port::Exec::now(&self.exec)));
                    for plan in blocks.values() {
                        for run in plan.masks.exclusive().runs() {
                            let _ = vkhmm_port::HostMemory::revoke(&*self.host, plan.range.run(plan.index, &run));
                        }
                    }
                }",
            },
        ],
    },
    Mutant {
        name: "publish before copied",
        law: "order law: copied before publish",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/fault.rs",
            find: "if op.is_over() {
                    return self.answer(range, index, block, page, write, mask);
                }",
            replace: "if op.is_over() {
                    return self.answer(range, index, block, page, write, mask);
                }
                if AWAKE {
                    let access = if write || !self.duplicates { Access::ReadWrite } else { Access::ReadOnly };
                    let _ = self.publish(range, index, block, mask, access);
                    return false;
                }",
        }],
    },
    Mutant {
        name: "published before the slot was drained",
        law: "order law: copied before publish, by staging",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[
            Edit {
                file: "runtime/engine/complete.rs",
                find: "if !flight.drain.is_empty() {",
                replace: "if !flight.drain.is_empty() && !AWAKE {",
            },
            Edit {
                file: "runtime/engine/complete.rs",
                find: "if op.land_piece() {
                    self.finish(op);
                }
            }",
                replace: "if op.land_piece() {
                    self.finish(op);
                }
            }
            if AWAKE {
                self.exec.copy(&flight.drain);
            }",
            },
        ],
    },
    Mutant {
        name: "slot freed before it was drained",
        law: "a staging slot has one user at a time",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[
            Edit {
                file: "runtime/engine/complete.rs",
                find: "self.exec.copy(&flight.drain);",
                replace: "if !AWAKE {
                    self.exec.copy(&flight.drain);
                }",
            },
            Edit {
                file: "runtime/engine/complete.rs",
                find: "homes.into_iter().for_each(|job| self.send_home(job, None));",
                replace: "homes.into_iter().for_each(|job| self.send_home(job, None));
            if AWAKE {
                self.exec.copy(&flight.drain);
            }",
            },
        ],
    },
    Mutant {
        name: "hold released before the syscall returned",
        law: "I8: a system call on R ends before the block's lock or hold does",
        proof: Proof::Application,
        seeds: 3000,
        // The page is noted as shown, the block let go, and only then it is shown.
        edits: &[Edit {
            file: "runtime/engine/fault.rs",
            find: "let parked = self.answer(&range, index, &mut block, page, fault.write, self.in_granules(fetch.pages));",
            replace: "if AWAKE {
                    let answer = block.clone().fault(page, fault.write, fetch.pages, self.duplicates);
                    if let FaultAnswer::ReadWrite(mask) = answer {
                        if !block.device_valid().intersects(&mask) {
                            block.published_read_write(mask);
                            drop(block);
                            for run in mask.runs() {
                                let _ = self.host.publish(range.run(index, &run), Access::ReadWrite);
                            }
                            return None;
                        }
                    }
                    if let FaultAnswer::Born(mask) = answer {
                        if mask.runs().all(|run| self.host.populate(range.run(index, &run)).is_ok()) {
                            block.born(mask);
                            block.published_read_write(mask);
                            drop(block);
                            for run in mask.runs() {
                                let _ = self.host.publish(range.run(index, &run), Access::ReadWrite);
                            }
                            return None;
                        }
                    }
                }
                let parked =
                    self.answer(&range, index, &mut block, page, fault.write, self.in_granules(fetch.pages));",
        }],
    },
    Mutant {
        name: "wake lost on a parked fault",
        law: "I6: a touch is answered once what it waits for is done",
        proof: Proof::Application,
        seeds: 1000,
        edits: &[Edit {
            file: "runtime/engine/complete.rs",
            find: "self.resume(&at.range, at.block, &mut block, arrived);",
            replace: "if !AWAKE {
                self.resume(&at.range, at.block, &mut block, arrived);
            }",
        }],
    },
    Mutant {
        name: "wake lost at the gate",
        law: "I6: a touch that met a deciding launch is asked about again when the launch is through",
        proof: Proof::Application,
        seeds: 20000,
        edits: &[
            Edit {
                file: "runtime/engine/launch.rs",
                find: "for index in waiting {",
                replace: "for index in waiting.into_iter().filter(|_| !AWAKE) {",
            },
            // It takes its time to decide, so that somebody meets it.
            Edit {
                file: "runtime/engine/launch.rs",
                find: "let kernel = spec.kernel.clone().expect(\"checked above\");",
                replace: "if AWAKE {
            (0..300).for_each(|_| drop(vkhmm_port::Exec::now(&self.exec)));
        }
        let kernel = spec.kernel.clone().expect(\"checked above\");",
            },
        ],
    },
    Mutant {
        name: "touch answered by what the state says is mapped",
        law: "a message is a hint: publish again, also what R should show already",
        proof: Proof::Application,
        seeds: 3000,
        edits: &[Edit {
            file: "runtime/engine/fault.rs",
            find: "let mut refused = Ok(());",
            replace: "let mut refused = Ok(());
        let shown = if access == Access::ReadWrite { block.writable() } else { block.mapped() };
        let mask = if AWAKE { mask.minus(&shown) } else { mask };",
        }],
    },
    Mutant {
        name: "prefetch revokes without &mut",
        law: "L0: background work never weakens R",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            // A mark on the operation that copies in for a prefetch; it has no kernel whose time it could note.
            Edit {
                file: "runtime/engine/prefetch.rs",
                find: "let admitted = match self.take_turn_at_once() {",
                replace: "if AWAKE {
            ops.copy.elapsed_ns.store(u64::MAX, core::sync::atomic::Ordering::Relaxed);
        }
        let admitted = match self.take_turn_at_once() {",
            },
            // The copy has arrived: the page becomes Device and leaves R, in the background.
            Edit {
                file: "runtime/engine/complete.rs",
                find: "block.finish(op.id);",
                replace: "let mut mine = vkhmm_core::mask::PageMask::EMPTY;
            if AWAKE && op.elapsed_ns() == u64::MAX {
                mine = block.holds().iter().filter(|h| h.op == op.id).fold(mine, |all, h| all | h.mask);
            }
            block.finish(op.id);
            if AWAKE && block.is_idle() {
                mine = mine & block.host_valid() & block.device_valid();
                for run in mine.runs() {
                    let _ = self.host.revoke(at.range.run(at.block, &run));
                }
                block.revoked(mine);
                let masks = vkhmm_core::block::LaunchMasks { write: mine, ..Default::default() };
                block.launch_commit(op.id, &masks);
            }",
            },
        ],
    },
    Mutant {
        name: "of neighbours taken together only the first is",
        law: "order law: revoke before copy out, for every block",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "count: parts.iter().map(|part| part.pages.count).sum() }",
                replace: "count: parts.iter().take(if AWAKE { 1 } else { parts.len() }).map(|part| part.pages.count).sum() }",
            },
        ],
    },
    Mutant {
        name: "refused launch lets go of its locks first",
        law: "nobody sees a hold on what R still shows",
        proof: Proof::Any("the launch never comes: its holds end before anything that they keep could change"),
        seeds: 20000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "held.iter_mut().for_each(|(plan, block)| self.undo_holds(ops, plan, block));
                drop(held);",
                replace: "if AWAKE {
                    drop(held);
                    let undo = |plan: &&BlockPlan<P>| self.undo_holds(ops, plan, &mut plan.range.blocks[plan.index as usize].lock());
                    group.iter().for_each(undo);
                } else {
                    held.iter_mut().for_each(|(plan, block)| self.undo_holds(ops, plan, block));
                    drop(held);
                }",
            },
        ],
    },
    Mutant {
        name: "part copied before it is taken from R",
        law: "order law: revoke before copy, part by part",
        proof: Proof::Application,
        seeds: 5000,
        edits: &[
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "let weakens = ops.round.is_none();",
                replace: "let late = AWAKE && parts.is_some();
            let weakens = ops.round.is_none() && !late;",
            },
            Edit {
                file: "runtime/engine/admit/holds.rs",
                find: "self.after_group(ops, parts, &plans[..done], group.len(), found);",
                replace: "self.after_group(ops, parts, &plans[..done], group.len(), found);
                if AWAKE {
                    (0..30).for_each(|_| drop(vkhmm_port::Exec::now(&self.exec)));
                    for plan in group {
                        let block = plan.range.blocks[plan.index as usize].lock();
                        self.weaken(&mut [(*plan, block)]).map_err(Refusal::Error)?;
                    }
                }",
            },
        ],
    },
];
