//! Sparse buffers: address space of the device in which frames are bound and unbound ([`crate::bind`]). What is bound where is kept
//! here, bit by bit, because drivers and layers check neither a bind of what is bound nor a kernel that is given a hole.

use super::{Arena, FRAME_BYTES, Over, VulkanBuffer, usage};
use crate::context::Context;
use crate::error::refused;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vkhmm_port::{DeviceError, SparseProfile};

/// The device's sparse address space: what buffers in it need, and how much of it they have.
pub(crate) struct SparseSpace {
    profile: SparseProfile,
    taken: Arc<AtomicU64>,
}

impl SparseSpace {
    /// Asks with a buffer of one frame, for an arena of memory type `type_index`. The reason, if there can be none.
    pub(crate) fn query(ctx: &Context, type_index: u32) -> Result<Self, String> {
        let buffer = ctx
            .new_sparse_buffer("ask what sparse buffers need", FRAME_BYTES, usage(ctx.usage))
            .map_err(|e| e.to_string())?;
        // SAFETY: vkGetBufferMemoryRequirements and vkDestroyBuffer of a buffer just made and never used.
        let requirements = unsafe {
            let requirements = ctx.device.get_buffer_memory_requirements(buffer);
            ctx.device.destroy_buffer(buffer, None);
            requirements
        };
        let page_bytes = requirements.alignment.max(1);
        if FRAME_BYTES % page_bytes != 0 {
            return Err(format!("binds are in units of {page_bytes} bytes, frames have {FRAME_BYTES}"));
        }
        if requirements.memory_type_bits & (1 << type_index) == 0 {
            return Err(format!("memory type {type_index}, the arena's, cannot be bound to sparse buffers"));
        }
        let whole = |bytes: u64| bytes / FRAME_BYTES * FRAME_BYTES;
        let space_bytes = whole(ctx.physical.limits.sparse_address_space_size);
        let buffer_bytes_max = whole(ctx.physical.buffer_bytes_max).min(space_bytes);
        if buffer_bytes_max == 0 {
            return Err("the sparse address space has no room for a frame".into());
        }
        let profile = SparseProfile { page_bytes, buffer_bytes_max, space_bytes };
        Ok(Self { profile, taken: Arc::default() })
    }

    pub(crate) fn profile(&self) -> SparseProfile {
        self.profile
    }

    /// A buffer of `bytes` in which nothing lies.
    pub(crate) fn reserve(&self, ctx: &Arc<Context>, bytes: u64) -> Result<VulkanBuffer, DeviceError> {
        const OPERATION: &str = "reserve a sparse buffer";
        let most = self.profile.buffer_bytes_max;
        if bytes == 0 || bytes % FRAME_BYTES != 0 || bytes > most {
            let message =
                format!("{bytes:#x} bytes are not whole frames of {FRAME_BYTES:#x}, at most {most:#x}");
            return Err(refused(OPERATION, message));
        }
        let room = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.profile.space_bytes);
        if self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return Err(DeviceError::OutOfDeviceMemory { operation: OPERATION, bytes });
        }
        let reserved = Reserved {
            bound: Mutex::new(vec![0; (bytes / FRAME_BYTES).div_ceil(64) as usize]),
            bytes,
            taken: Arc::clone(&self.taken),
        };
        let handle = ctx.new_sparse_buffer(OPERATION, bytes, usage(ctx.usage))?;
        // Sparse buffers have their address before anything is bound (VkBufferDeviceAddressInfo, VUID 02600).
        let address = ctx.buffer_address(handle);
        Ok(VulkanBuffer { ctx: Arc::clone(ctx), handle, over: Over::Sparse(reserved), address, bytes })
    }
}

impl Arena {
    /// From now on every piece starts where binds can: `page_bytes` of its memory or a multiple.
    pub(crate) fn align_for_binds(&mut self, page_bytes: u64) {
        self.grain = self.grain.max(page_bytes);
    }
}

/// What is known of one sparse buffer: a bit per frame, set while one lies there.
///
/// Lock contract: `bound` owns the bits; held for one look or change, under the submission lock of some queue; innermost.
pub(crate) struct Reserved {
    bound: Mutex<Vec<u64>>,
    bytes: u64,
    taken: Arc<AtomicU64>,
}

impl Reserved {
    /// The first byte of a frame that `offset..offset + bytes` touches and that is not there.
    pub(crate) fn hole(&self, offset: u64, bytes: u64) -> Option<u64> {
        self.first_that_is(false, offset, bytes)
    }

    fn first_that_is(&self, bound: bool, offset: u64, bytes: u64) -> Option<u64> {
        let bits = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let frames = words(offset, bytes).find_map(|(word, mask)| {
            let wrong = if bound { bits[word] & mask } else { !bits[word] & mask };
            (wrong != 0).then(|| word as u64 * 64 + u64::from(wrong.trailing_zeros()))
        });
        frames.map(|frame| frame * FRAME_BYTES)
    }

    /// Notes that frames lie in whole frames `offset..offset + bytes` from now on, or do not. In words what is wrong, if the stretch
    /// is not the buffer's or if some of it is that way already; nothing has changed then.
    pub(crate) fn change(&self, bound: bool, offset: u64, bytes: u64) -> Result<(), String> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if bytes == 0 || offset % FRAME_BYTES != 0 || bytes % FRAME_BYTES != 0 || !inside {
            return Err(format!(
                "{offset:#x}+{bytes:#x} of {:#x} are not frames of {FRAME_BYTES:#x}, whole and inside",
                self.bytes
            ));
        }
        if let Some(at) = self.first_that_is(bound, offset, bytes) {
            let how = if bound { "lies already" } else { "lies no" };
            return Err(format!("{offset:#x}+{bytes:#x}: there {how} frame at {at:#x}"));
        }
        let mut bits = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        for (word, mask) in words(offset, bytes) {
            if bound { bits[word] |= mask } else { bits[word] &= !mask }
        }
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// The words of bits for the frames that `offset..offset + bytes` touches, each with its part.
fn words(offset: u64, bytes: u64) -> impl Iterator<Item = (usize, u64)> {
    let (first, end) = (offset / FRAME_BYTES, (offset + bytes).div_ceil(FRAME_BYTES));
    let end = if bytes == 0 { first } else { end };
    (first / 64..end.div_ceil(64)).map(move |word| {
        let low = first.saturating_sub(word * 64).min(63);
        let high = (end - word * 64).min(64);
        let below = if high == 64 { u64::MAX } else { (1 << high) - 1 };
        (word as usize, below & (u64::MAX << low))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(frames: u64) -> Reserved {
        let taken = Arc::new(AtomicU64::new(frames * FRAME_BYTES));
        let bound = Mutex::new(vec![0; frames.div_ceil(64) as usize]);
        Reserved { bound, bytes: frames * FRAME_BYTES, taken }
    }

    #[test]
    fn bits_follow_every_stretch() {
        let buffer = reserved(200);
        let mut model = [false; 200];
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (first, len, bound) = (state >> 33, state >> 13 & 0x7f, state >> 62 & 1 == 1);
            let (first, len) = ((first % 200) as usize, (len + 1).min(200 - first % 200) as usize);
            let stretch = &mut model[first..first + len];
            let right = stretch.iter().all(|b| *b != bound);
            let (offset, bytes) = (first as u64 * FRAME_BYTES, len as u64 * FRAME_BYTES);
            assert_eq!(buffer.change(bound, offset, bytes).is_ok(), right);
            if right {
                stretch.fill(bound);
            }
            let hole = model[first..first + len].iter().position(|b| !b);
            let hole = hole.map(|at| (first + at) as u64 * FRAME_BYTES);
            assert_eq!(buffer.hole(offset + 4, bytes - 8), hole);
        }
        assert_eq!(buffer.hole(5, 0), None);
    }

    #[test]
    fn stretches_are_whole_frames_inside_the_buffer() {
        let buffer = reserved(70);
        for (offset, bytes) in
            [(0, 0), (1, FRAME_BYTES), (0, 100), (69 * FRAME_BYTES, 2 * FRAME_BYTES), (FRAME_BYTES, u64::MAX)]
        {
            assert!(buffer.change(true, offset, bytes).expect_err("no").contains("whole and inside"));
        }
        buffer.change(true, 0, 70 * FRAME_BYTES).expect("all of it");
        let twice = buffer.change(true, 60 * FRAME_BYTES, 10 * FRAME_BYTES).expect_err("twice");
        assert!(twice.contains("already"), "{twice}");
        buffer.change(false, 64 * FRAME_BYTES, FRAME_BYTES).expect("bound");
        assert_eq!(buffer.hole(0, 70 * FRAME_BYTES), Some(64 * FRAME_BYTES));
    }
}
