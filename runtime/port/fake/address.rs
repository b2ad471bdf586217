//! Device addresses of a FakeDevice: which bytes are where a kernel says that they are.

use super::device::Shared;
use super::memory::{Bytes, FakeImport};
use super::sparse::SparseBuffer;
use super::{FakeDevice, locked};
use crate::{Exec, RawBytes};
use core::any::Any;
use std::sync::{Arc, Weak};

/// What has addresses, beside the arena's pieces.
pub(super) enum Other {
    Control(Weak<Bytes>),
    InPlace(Weak<FakeImport>),
    Sparse(Weak<SparseBuffer>),
}

/// Bytes, and what they live as long as.
pub(super) struct Found {
    pub(super) bytes: RawBytes,
    _keeps: Arc<dyn Any + Send + Sync>,
}

impl<X: Exec> FakeDevice<X> {
    /// The `bytes` bytes at `address` now, which are there until the piece is shrunk, the buffer's or the control memory's last owner
    /// is gone, or a bind changes what lies there.
    ///
    /// # Panics
    /// If nothing is there, or they are not all in one place.
    pub fn at(&self, address: u64, bytes: u64) -> RawBytes {
        self.shared().find(address, bytes).bytes
    }
}

impl<X: Exec> Shared<X> {
    /// See [`FakeDevice::at`].
    pub(super) fn find(&self, address: u64, bytes: u64) -> Found {
        let frame_bytes = self.geometry.frame_bytes();
        let mut state = locked(&self.state);
        let piece = state.pieces.values().find(|piece| {
            (piece.address..piece.address + u64::from(piece.count) * frame_bytes).contains(&address)
        });
        if let Some(piece) = piece {
            let memory = Arc::clone(&piece.memory);
            let bytes = memory.raw().slice((address - piece.address) as usize, bytes as usize);
            return Found { bytes, _keeps: memory };
        }
        let nothing = || -> Found { panic!("nothing has the device address {address:#x}") };
        let Some((first, other)) = state.others.range(..=address).next_back() else { return nothing() };
        let (first, at) = (*first, address - *first);
        let part = |all: RawBytes| all.slice(at as usize, bytes as usize);
        let found = match other {
            Other::Control(memory) => {
                memory.upgrade().map(|memory| Found { bytes: part(memory.raw()), _keeps: memory })
            }
            Other::InPlace(import) => {
                import.upgrade().map(|import| Found { bytes: part(import.bytes), _keeps: import })
            }
            Other::Sparse(buffer) => {
                let buffer = buffer.upgrade();
                drop(state);
                return buffer.map_or_else(nothing, |buffer| {
                    let (bytes, keeps) = buffer.at(at, bytes, frame_bytes);
                    Found { bytes, _keeps: keeps }
                });
            }
        };
        if found.is_none() {
            state.others.remove(&first);
        }
        drop(state);
        found.unwrap_or_else(nothing)
    }
}
