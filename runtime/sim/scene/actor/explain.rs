//! Errors: each must have a reason that the scene knows of.

use super::super::array::Array;
use super::super::kernel::Access;
use super::Actor;
use std::sync::atomic::Ordering;
use vkhmm_engine::EngineError;

/// What had happened before a call: an error is explained by what happened during it.
pub(super) struct Before {
    /// Calls of host and device that failed because they were told to.
    failed: [usize; 2],
    guards_gone: u64,
    acquires_gone: u64,
}

impl Actor {
    pub(super) fn before(&self) -> Before {
        let stage = &self.stage;
        Before {
            failed: [stage.host_failed(), stage.device.told_to_fail().len()],
            guards_gone: stage.guards_gone.load(Ordering::Acquire),
            acquires_gone: stage.acquires_gone.load(Ordering::Acquire),
        }
    }

    /// # Panics
    /// If nothing explains the error of a call.
    pub(super) fn explain(&self, error: &EngineError, before: &Before, asked: Option<(&[Array], &[Access])>) {
        let stage = &self.stage;
        let failed = self.before().failed != before.failed;
        let guarded = stage.guards_asked.load(Ordering::Acquire) > before.guards_gone;
        let acquired = stage.acquires_asked.load(Ordering::Acquire) > before.acquires_gone;
        let (what, explained) = match error {
            EngineError::DeviceLost { .. } => ("device lost", stage.is_lost()),
            EngineError::Lost { .. } => ("lost", stage.is_lost()),
            EngineError::Guarded { .. } => ("guarded", guarded),
            EngineError::Acquired { .. } => ("acquired", acquired),
            EngineError::PinnedApart { .. } => ("pinned apart", acquired),
            EngineError::NoPagemap => ("no pagemap", stage.teardowns.load(Ordering::Acquire) > 0),
            EngineError::Pagemap(_) => ("pagemap", stage.teardowns.load(Ordering::Acquire) > 0),
            EngineError::WorkingSetTooLarge { .. } => {
                let need = asked.map_or(0, |(arrays, accesses)| {
                    accesses.iter().map(|a| stage.frames_of(&arrays[a.array], a.bytes)).sum()
                });
                ("too large", acquired || !stage.setting.has_room() || need > stage.setting.limit)
            }
            EngineError::OutOfHostMemory { .. } => ("out of host memory", failed || stage.is_scarce()),
            EngineError::Host(_) => ("host refused", failed),
            EngineError::Device(_) => (
                "device refused",
                failed || u64::from(stage.setting.device.frames_max) < stage.setting.limit + 3,
            ),
            _ => ("unknown", false),
        };
        stage.met().note(format!("error: {what}"));
        assert!(explained, "twin: nothing explains this: {error}");
    }
}
