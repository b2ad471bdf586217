//! Pins: bytes that stay on a side until they are unpinned, whatever else wants to move them.
//!
//! *To the host* a pin is a host guard without a borrow: the bytes are home, and launches that name them are refused (`Guarded`).
//! *To the device* a pin keeps their frames: no eviction, limit or launch takes them. The laws about touches stand: a load brings
//! home a duplicate, and the device's copy stays; a store takes the page home, its frame stays, and the next launch that names it
//! copies it in again. What pins hold is in `WorkingSetTooLarge::held`.

use crate::admit::Aim;
use crate::launch::{AccessKind, Argument, BindTo, LaunchSpec};
use crate::range::RangeCell;
use crate::{Engine, EngineError, GuardKind, Ports};
use alloc::sync::Arc;
use alloc::vec::Vec;
use vkhmm_core::advice::Side;
use vkhmm_core::mask::PageMask;
use vkhmm_core::placement::Placement;
use vkhmm_core::units::{ByteRange, OpId};
use vkhmm_port::{HostMemory, Mutex, Signal};

/// A pin that [`Engine::unpin`] undoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinId {
    op: OpId,
    to: Side,
}

impl<P: Ports> Engine<P> {
    /// Brings bytes to a side and keeps them there until [`Engine::unpin`]. To the host it returns once they are there; to the
    /// device it waits as a launch does, for capacity that earlier launches use, and the bytes may still be on their way. Pages
    /// that the bytes touch are pinned whole, on the device whole frames. Of a range that is used in place a pin to the device
    /// moves and keeps nothing: it is there.
    ///
    /// # Errors
    /// To the host those of [`Engine::bring_home`]; to the device those of [`Engine::launch`]. `UnknownRange`. Nothing is pinned then.
    pub fn pin(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange, to: Side) -> Result<PinId, EngineError> {
        self.check_named(range, bytes)?;
        match to {
            Side::Host => self.guard(range, bytes, GuardKind::Read).map(|op| PinId { op, to }),
            Side::Device => self.pin_to_device(range, bytes).map(|op| PinId { op, to }),
        }
    }

    fn pin_to_device(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange) -> Result<OpId, EngineError> {
        self.check_alive()?;
        self.check(range, bytes)?;
        let op = self.new_op(&range.label);
        if bytes.is_empty() || self.settle_way(range) {
            self.forget_ops(&[op.id]);
            return Ok(op.id);
        }
        let argument = Argument {
            range: Some(Arc::clone(range)),
            bytes,
            access: AccessKind::Read,
            bind: BindTo::Nothing,
        };
        let subs = argument.subs(self.config.geometry.frame_bytes());
        let arguments = alloc::vec![argument];
        let label = Arc::clone(&range.label);
        let spec = LaunchSpec { kernel: None, groups: [0; 3], arguments, push: Vec::new(), label };
        // Before the frames are: whoever is refused for them finds it.
        range.device_pins.lock().push((op.id, subs));
        let outcome = self.launch_admitted(&op, &spec, Aim::Pin, None);
        if let Err(error) = outcome {
            if let EngineError::DeviceLost { cause } = &error {
                self.note_loss(cause); // a port may have said so first to this pin
            }
            range.device_pins.lock().retain(|(pin, _)| *pin != op.id);
            self.forget_ops(&[op.id]);
            return Err(error);
        }
        self.see_submitted();
        Ok(op.id)
    }

    /// Lets pinned bytes go. `bytes` are those that were pinned. Never waits; in a forked child nothing happens.
    pub fn unpin(&self, range: &Arc<RangeCell<P>>, bytes: ByteRange, pin: PinId) {
        if !self.host.owned() {
            return;
        }
        if pin.to == Side::Host {
            return self.drop_guard(range, bytes, pin.op);
        }
        let subs = {
            let mut pins = range.device_pins.lock();
            let at = pins.iter().position(|(op, _)| *op == pin.op);
            at.map(|at| pins.swap_remove(at).1)
        };
        if let Some(subs) = subs {
            self.arena.lock().placement.unpin(range.id, subs);
            // Whoever met the pin asks again.
            self.progress.notify();
        }
    }

    /// Pages of a block that a pin keeps on the device, where a copy home on a hint or guess would end the device's: one that is not
    /// to `keep` it, or any, where R cannot show a page read-only.
    pub(crate) fn kept_on_device(&self, range: &RangeCell<P>, index: u32, keep: bool) -> PageMask {
        let mut kept = PageMask::EMPTY;
        if keep && self.duplicates {
            return kept;
        }
        let g = self.config.geometry;
        let (first, end) = (index * g.subs_per_block(), (index + 1) * g.subs_per_block());
        for (_, subs) in range.device_pins.lock().iter() {
            let (from, to) = (subs.start.max(first), subs.end.min(end));
            if from < to {
                let pages = (from - first) * g.pages_per_sub..(to - first) * g.pages_per_sub;
                kept.insert(&PageMask::range(pages));
            }
        }
        kept
    }

    /// The error for a request that would have to move what is pinned, if a pin of ours is what it met.
    pub(crate) fn pinned_apart(&self, range: &RangeCell<P>) -> Option<EngineError> {
        let pinned = !range.device_pins.lock().is_empty();
        pinned.then(|| EngineError::PinnedApart { label: Arc::clone(&range.label) })
    }
}
