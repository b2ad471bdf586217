//! What an application moves by hand: prefetches, bringing home, guards.

use super::super::SMALL;
use super::super::array::Array;
use super::super::kernel::Access;
use super::super::ledger::Strength;
use super::super::trouble::Kind;
use super::{Actor, Guarded};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::{AccessKind, GuardKind};
use vkhmm_port::HostMemory;
use vkhmm_port::fake::Mapping;

impl Actor {
    pub(super) fn prefetch_to_device(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        self.prefetch(array, bytes);
        "prefetch to the device"
    }

    pub(super) fn prefetch(&mut self, array: &mut Array, bytes: ByteRange) {
        self.note("prefetch to the device", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let borrow = [(array.place(bytes), Strength::Shared)];
        let call = || stage.ledger.lend(&borrow, || stage.engine.prefetch_to_device(&array.range, bytes));
        if let Err(error) = stage.timed("a prefetch", call) {
            let access = [Access { array: 0, bytes, kind: AccessKind::Read }];
            self.explain(&error, &before, Some((core::slice::from_ref(array), &access)));
            stage.find_lost(array, bytes);
        }
    }

    pub(super) fn prefetch_to_host(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        self.note("prefetch to the host", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        let call = || stage.engine.prefetch_to_host(&array.range, bytes);
        if let Err(error) = stage.timed("a prefetch to the host", call) {
            self.explain(&error, &before, None);
            stage.find_lost(array, bytes);
        }
        "prefetch to the host"
    }

    pub(super) fn bring_home(&mut self, array: &mut Array) -> &'static str {
        let bytes = self.some_bytes(array);
        let kind = if self.random.one_in(2) { GuardKind::Read } else { GuardKind::Write };
        self.note("bring home", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        match stage.timed("bring home", || stage.engine.bring_home(&array.range, bytes, kind)) {
            Ok(()) => Array::by_page(bytes).for_each(|(page, _)| array.on_device[page] = false),
            Err(error) => {
                self.explain(&error, &before, None);
                stage.find_lost(array, bytes);
            }
        }
        "bring home"
    }

    /// A guard, and what it is for: bytes that are read or written past R while it is held. Some are kept for later.
    pub(super) fn guard(&mut self, array: &mut Array) -> &'static str {
        self.let_go();
        let bytes = self.some_bytes(array);
        let kind = if self.random.one_in(2) { GuardKind::Read } else { GuardKind::Write };
        self.note("guard", array, bytes);
        let (before, stage) = (self.before(), Arc::clone(&self.stage));
        // Before the call: a launch of another thread may meet it from then on.
        stage.guards_asked.fetch_add(1, Ordering::AcqRel);
        match stage.timed("a guard", || stage.engine.guard(&array.range, bytes, kind)) {
            Ok(guard) => {
                self.guard = Some(Guarded { range: Arc::clone(&array.range), bytes, guard });
                self.use_guarded(array, bytes, kind);
                if self.random.one_in(2) {
                    self.let_go();
                }
            }
            Err(error) => {
                stage.guards_gone.fetch_add(1, Ordering::AcqRel);
                self.explain(&error, &before, None);
                stage.find_lost(array, bytes);
            }
        }
        "guard"
    }

    pub(super) fn use_guarded(&mut self, array: &mut Array, bytes: ByteRange, kind: GuardKind) {
        let stage = Arc::clone(&self.stage);
        for (page, piece) in Array::by_page(bytes) {
            array.on_device[page] = false;
            let place = array.place(piece);
            let shown = stage.host.mapping(SMALL.pages_touched(&place).first);
            let enough = match kind {
                GuardKind::Read => matches!(shown, Mapping::ReadOnly | Mapping::ReadWrite),
                GuardKind::Write => shown == Mapping::ReadWrite,
            };
            // A guard does not show again what the kernel dropped behind the engine's back.
            let zapped = stage.setting.trouble.contains(&Kind::Zaps);
            let excused = stage.setting.declared() || zapped;
            assert!(
                enough || excused,
                "check: page {page} of `{}` is guarded, and R shows {shown:?}",
                array.name
            );
            stage.exec.pass();
            let alias = stage.host.alias(place);
            array.compare(piece, &alias.to_vec(), "under a guard");
            if kind == GuardKind::Write {
                let owned: Vec<u64> = (piece.start..piece.end).filter(|at| array.owns(*at)).collect();
                for at in owned {
                    let value = self.random.number() as u8;
                    alias.slice((at - piece.start) as usize, 1).write(&[value]);
                    array.twin[at as usize] = value;
                }
            }
        }
    }

    pub(super) fn let_go(&mut self) {
        if let Some(Guarded { range, bytes, guard }) = self.guard.take() {
            self.stage.engine.drop_guard(&range, bytes, guard);
            self.stage.guards_gone.fetch_add(1, Ordering::AcqRel);
        }
    }
}
