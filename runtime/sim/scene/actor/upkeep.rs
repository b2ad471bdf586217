//! The rest of a program: allocations that come and go, limits, waits, questions, the device's memory taken down.

use super::super::SMALL;
use super::super::array::Array;
use super::Actor;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::pagemap::Pagemap;
use vkhmm_engine::EngineError;

impl Actor {
    /// An own array goes, and another one comes, often at the same addresses.
    pub(super) fn renew(&mut self) -> &'static str {
        if self.own == 0 {
            return "nothing";
        }
        self.let_go();
        let at = self.random.below(self.own as u64) as usize;
        let old = self.arrays[at].take();
        self.stage.exec.note(format_args!("free {}", old.name));
        old.free(&self.stage);
        self.named += 1;
        let (bytes, name) =
            (1 + self.random.below(3 * SMALL.block_bytes()), format!("new {}.{}", self.me, self.named));
        self.stage.exec.note(format_args!("allocate {name} of {bytes} bytes"));
        match Array::reserve(&self.stage, &name, bytes) {
            Some(array) => {
                self.arrays[at].put(array);
            }
            None => {
                self.arrays.remove(at);
                self.own -= 1;
            }
        }
        "free and allocate"
    }

    /// Residency is told for every byte once.
    pub(super) fn look(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        self.note("residency of", array, bytes);
        let runs = self.stage.engine.residency(&array.range, bytes).expect("inside the array");
        let mut at = bytes.start;
        for run in &runs {
            assert!(run.bytes.start == at && !run.bytes.is_empty(), "twin: residency of {bytes:?}: {runs:?}");
            at = run.bytes.end;
        }
        assert!(at == bytes.end, "twin: residency of {bytes:?}: {runs:?}");
        "residency"
    }

    pub(super) fn set_limit(&mut self) -> &'static str {
        if !self.stage.setting.limit_moves {
            return self.trim();
        }
        let frames = 1 + self.random.below(self.stage.setting.limit + 2);
        self.stage.exec.note(format_args!("limit of {frames} frames"));
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let call = || stage.engine.set_device_memory_limit(frames * SMALL.frame_bytes());
        if let Err(error) = stage.timed("a limit", call) {
            self.explain(&error, &before, None);
        }
        "set the limit"
    }

    pub(super) fn trim(&mut self) -> &'static str {
        let frames = self.random.below(4);
        self.stage.exec.note(format_args!("trim {frames} frames"));
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        if let Err(error) = stage.timed("a trim", || stage.engine.trim(frames * SMALL.frame_bytes())) {
            self.explain(&error, &before, None);
        }
        "trim"
    }

    pub(super) fn wait(&mut self) -> &'static str {
        let Some(op) = self.last.take() else { return "nothing" };
        self.stage.exec.note(format_args!("wait"));
        let stage = Arc::clone(&self.stage);
        match stage.timed("a wait", || stage.engine.wait(&op, None)) {
            Ok(over) => assert!(over, "twin: a wait without limit ended before the launch"),
            Err(EngineError::DeviceLost { .. }) if stage.is_lost() => {}
            // Whether there was a reason is asked where the arrays are looked at.
            Err(_) if op.failure().is_some() => {}
            Err(error) => panic!("lost: wait: {error}"),
        }
        "wait"
    }

    pub(super) fn sync(&mut self) -> &'static str {
        self.stage.exec.note(format_args!("sync"));
        match self.stage.engine.sync() {
            Ok(()) => {}
            Err(EngineError::DeviceLost { .. }) if self.stage.is_lost() => {}
            Err(error) => panic!("lost: sync: {error}"),
        }
        "sync"
    }

    /// The device's memory is taken down; the next launch takes some again.
    pub(super) fn tear_down(&mut self) -> &'static str {
        self.stage.exec.note(format_args!("tear down the device's memory"));
        self.stage.teardowns.fetch_add(1, Ordering::AcqRel);
        let stage = Arc::clone(&self.stage);
        for map in stage.engine.pagemaps().into_iter().filter(Pagemap::is_live) {
            // Another thread may have been faster.
            let before = self.before();
            if stage.engine.kill_pagemap(map.id()).is_ok() {
                let patience = Duration::from_millis(50);
                if let Err(error) = stage.engine.unregister_pagemap(map.id(), patience) {
                    self.explain(&error, &before, None);
                }
            }
        }
        "tear down"
    }
}
