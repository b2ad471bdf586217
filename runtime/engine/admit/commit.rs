//! Pass two: new locations, and the work that makes them true. Nothing here can be refused.

use super::blocks::Blocks;
use super::{Found, Ops};
use crate::binds::Binds;
use crate::op::BlockRef;
use crate::stats::Counters;
use crate::submit::{Item, pieces_bytes};
use crate::trace::TraceCause;
use crate::{Engine, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::block::{Cause, LaunchWork, pages_of_sub};
use vkhmm_core::mask::PageMask;
use vkhmm_port::{Mutex, Region};

impl<P: Ports> Engine<P> {
    pub(super) fn commit(&self, ops: &Ops<P>, blocks: &Blocks<P>, found: Found<P>, cause: Cause) -> Item<P> {
        let g = self.config.geometry;
        let mut item = Item {
            op: Arc::clone(&ops.main),
            copy: Arc::clone(&ops.copy),
            evict: Arc::clone(&ops.evict),
            waits: found.uses,
            after: found.after,
            before_kernel: found.before_kernel,
            outs: Vec::new(),
            moves: Vec::new(),
            fills: Vec::new(),
            ins: Vec::new(),
            claims: Vec::new(),
            kernel_claims: Vec::new(),
            binds: Binds::default(),
            dispatch: None,
            grant: None,
        };
        let mut held = Vec::with_capacity(blocks.len());
        for (at, plan) in blocks.values().enumerate() {
            let mut block = plan.range.blocks[plan.index as usize].lock();
            held.push(BlockRef { range: Arc::clone(&plan.range), block: plan.index });
            if !plan.evict.is_empty() {
                let outs = self.pieces(&plan.range, plan.index, &block, block.dirty() & plan.evict);
                let bytes = pieces_bytes(&outs);
                let counter =
                    if bytes > 0 { &self.counters.evictions_dirty } else { &self.counters.evictions_clean };
                Counters::add(counter, 1);
                Counters::add(&self.counters.out_evict_bytes, bytes);
                for piece in &outs {
                    self.note(
                        TraceCause::ToHost(Cause::Evict),
                        (piece.host..piece.host + piece.bytes).into(),
                    );
                }
                item.outs.extend(outs);
                block.begin_evict(ops.evict.id, plan.evict, Cause::Evict);
            }
            for (sub, to) in &plan.moves {
                let valid = block.device_valid() & pages_of_sub(*sub, g);
                let old = block.frame(*sub);
                let base = sub * g.pages_per_sub;
                for run in valid.runs() {
                    let within = u64::from(run.start - base) * u64::from(g.page_bytes);
                    let bytes = u64::from(run.end - run.start) * u64::from(g.page_bytes);
                    Counters::add(&self.counters.moved_bytes, bytes);
                    item.moves.push(Region {
                        host_offset: u64::from(old.0) * g.frame_bytes() + within,
                        device_offset: u64::from(to.0) * g.frame_bytes() + within,
                        bytes,
                    });
                }
                block.set_frame(*sub, *to);
            }
            for (sub, frame) in &plan.frames {
                block.set_frame(*sub, *frame);
            }
            let work = if plan.in_place {
                block.in_place_commit(&plan.masks);
                if cause == Cause::Launch && !ops.main.is_open() {
                    block.take_over(ops.main.id, |id| self.is_ordered(id));
                }
                LaunchWork::default()
            } else {
                block.launch_commit(ops.copy.id, &plan.masks)
            };
            if !work.copy_in.is_empty() {
                block.note_duplicates(&plan.range.gate.lock().uses);
            }
            if cause == Cause::Launch {
                self.note_brought(&mut block, work.copy_in);
            }
            Counters::add(
                &self.counters.refault_bytes,
                u64::from(work.refault.count()) * u64::from(g.page_bytes),
            );
            let ahead = found.ahead.get(at).copied().unwrap_or(PageMask::EMPTY);
            assert!(work.copy_in.covers(&ahead), "what is held stays as it is");
            let ins = self.pieces(&plan.range, plan.index, &block, work.copy_in.minus(&ahead));
            self.note_ins(&ins, cause);
            item.ins.extend(ins);
            for piece in self.pieces(&plan.range, plan.index, &block, work.zero) {
                Counters::add(&self.counters.zeroed_bytes, piece.bytes);
                item.fills.push((piece.device, piece.bytes));
            }
            self.refresh_gate(&plan.range, plan.index, &block);
        }
        for op in [&ops.main, &ops.copy, &ops.evict] {
            op.remember(held.clone());
        }
        item
    }
}
