//! Launches: random arguments over the arrays, windows over an array that is larger than the limit.

use super::super::SMALL;
use super::super::array::Array;
use super::super::kernel::{Access, apply, kernel};
use super::super::ledger::Strength;
use super::super::turnstile::Locked;
use super::Actor;
use crate::SimPorts;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, Argument, BindTo, LaunchSpec};
use vkhmm_port::fake::FakeKernel;

impl Actor {
    pub(super) fn launch(&mut self) -> &'static str {
        if self.arrays.is_empty() {
            return "nothing";
        }
        let (cells, mut arrays, accesses) = self.some_accesses();
        self.launch_on(&mut arrays, &accesses);
        if self.random.one_in(3) {
            let read = accesses.iter().find(|access| !access.bytes.is_empty());
            if let Some(Access { array, bytes, .. }) = read {
                let array = &mut arrays[*array];
                if let Some(at) = (bytes.start..bytes.end).find(|at| array.owns(*at)) {
                    self.note("store at once", array, (at..at + 1).into());
                    let value = self.random.number() as u8;
                    self.stage.store(array, at, &[value]);
                }
            }
        }
        for (cell, array) in cells.iter().zip(arrays) {
            cell.put(array);
        }
        "launch"
    }

    /// Some arrays, taken, with their cells; and what is to be done with them.
    pub(super) fn some_accesses(&mut self) -> (Vec<Arc<Locked>>, Vec<Array>, Vec<Access>) {
        let mut which: Vec<usize> = (0..1 + self.random.below(3))
            .map(|_| self.random.below(self.arrays.len() as u64) as usize)
            .collect();
        which.sort_unstable();
        which.dedup();
        let cells: Vec<_> = which.iter().map(|i| Arc::clone(&self.arrays[*i])).collect();
        let arrays: Vec<Array> = cells.iter().map(|cell| self.take(cell)).collect();
        let accesses: Vec<Access> = (0..1 + self.random.below(3))
            .map(|_| {
                let array = self.random.below(arrays.len() as u64) as usize;
                let bytes = self.some_bytes(&arrays[array]);
                let kinds = [AccessKind::Read, AccessKind::Write, AccessKind::Overwrite];
                let kind = kinds[self.random.below(if arrays[array].is_mixed() { 2 } else { 3 }) as usize];
                Access { array, bytes, kind }
            })
            .collect();
        (cells, arrays, accesses)
    }

    /// Launches the scene's kernel. Whether it was accepted.
    pub(super) fn launch_on(&mut self, arrays: &mut [Array], accesses: &[Access]) -> bool {
        let salt = self.random.number() as u8;
        let names: Vec<_> = accesses
            .iter()
            .map(|a| format!("{:?} {}:{}..{}", a.kind, arrays[a.array].name, a.bytes.start, a.bytes.end))
            .collect();
        let what = format!("launch {}", names.join(", "));
        self.stage.exec.note(format_args!("{what}"));
        let spec =
            self.spec(arrays, accesses, kernel(&what, Arc::downgrade(&self.stage), arrays, accesses, salt));
        let borrows = borrows(arrays, accesses);
        let before = self.before();
        let stage = Arc::clone(&self.stage);
        let launched = stage.timed("a launch", || stage.ledger.lend(&borrows, || stage.engine.launch(spec)));
        match launched {
            Ok(op) => {
                apply(arrays, accesses, salt);
                note_written(arrays, accesses);
                self.last = Some(op);
                true
            }
            Err(error) => {
                self.explain(&error, &before, Some((arrays, accesses)));
                for access in accesses {
                    self.stage.find_lost(&mut arrays[access.array], access.bytes);
                }
                false
            }
        }
    }

    pub(super) fn spec(
        &self,
        arrays: &[Array],
        accesses: &[Access],
        kernel: FakeKernel,
    ) -> LaunchSpec<SimPorts> {
        let argument = |access: &Access| Argument {
            range: Some(Arc::clone(&arrays[access.array].range)),
            bytes: access.bytes,
            access: access.kind,
            bind: BindTo::Binding,
        };
        LaunchSpec {
            kernel: Some(Arc::new(kernel)),
            groups: [1; 3],
            arguments: accesses.iter().map(argument).collect(),
            push: Vec::new(),
            label: format!("kernel of app{}", self.me).into(),
        }
    }

    /// An own array in windows of half the limit, launched upon one after the other.
    pub(super) fn windows(&mut self) -> &'static str {
        if self.own == 0 {
            return "nothing";
        }
        let cell = Arc::clone(&self.arrays[self.random.below(self.own as u64) as usize]);
        let mut arrays = vec![self.take(&cell)];
        let step = (self.stage.setting.limit / 2).max(1) * SMALL.frame_bytes();
        let mut start = 0;
        while start < arrays[0].len() {
            let bytes = ByteRange { start, end: (start + step).min(arrays[0].len()) };
            let kind = if self.random.one_in(2) { AccessKind::Write } else { AccessKind::Overwrite };
            if !self.launch_on(&mut arrays, &[Access { array: 0, bytes, kind }]) {
                break;
            }
            start += step;
        }
        arrays.into_iter().for_each(|array| cell.put(array));
        "windows"
    }
}

/// What a call with these accesses is given.
pub(super) fn borrows(arrays: &[Array], accesses: &[Access]) -> Vec<(ByteRange, Strength)> {
    let borrow = |a: &Access| {
        let strength = if a.kind.writes() { Strength::Exclusive } else { Strength::Shared };
        (arrays[a.array].place(a.bytes), strength)
    };
    accesses.iter().map(borrow).collect()
}

/// The device alone may have what it was given to write.
pub(super) fn note_written(arrays: &mut [Array], accesses: &[Access]) {
    for access in accesses.iter().filter(|a| a.kind.writes()) {
        let array = &mut arrays[access.array];
        for (page, _) in Array::by_page(access.bytes) {
            assert!(!array.lost[page], "lost: a launch took page {page} of `{}`", array.name);
            array.on_device[page] = true;
        }
    }
}
