//! Ranges whose device address stays.

use crate::range::{PlacementKind, RangeCell};
use crate::{Engine, EngineError, Ports};
use alloc::sync::Arc;

impl<P: Ports> Engine<P> {
    /// As [`Engine::alloc`], for a range whose device address never changes.
    ///
    /// # Errors
    /// As [`Engine::alloc`]; `NotStable`.
    pub fn alloc_stable(&self, bytes: u64, label: &str) -> Result<Arc<RangeCell<P>>, EngineError> {
        let range = self.alloc(bytes, label)?;
        let (kind, why) = range.placement();
        if kind == PlacementKind::Span {
            self.free(&range);
            return Err(EngineError::NotStable { label: Arc::clone(range.label()), bytes, why });
        }
        Ok(range)
    }
}
