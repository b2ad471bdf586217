//! What kernels are given, checked: words of managed memory, of which windows go to launches.

use crate::access::{Access, Collected};
use crate::error::Error;
use crate::launch::{Grid, Launch};
use crate::view::Part;
use crate::{AccessKind, Result, Runtime};
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use vkhmm_core::units::ByteRange;
use vkhmm_engine::GuardKind;
use vkhmm_port::{Device, HostMemory};

use super::modules::Module;

/// Most words that one launch touches of an array: kernels count them in 32 bits, and addresses of arrays in signed ones.
pub(super) const WORDS_MAX: usize = 1 << 30;

/// What a kernel does with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads it.
    In,
    /// Reads and writes it.
    InOut,
    /// Writes all of it.
    Out,
}

/// An error of shape.
pub(super) fn refuse<T>(
    kernel: &'static str,
    operand: &'static str,
    have: impl Into<String>,
    need: impl Into<String>,
) -> Result<T> {
    Err(Error::Shape { kernel, operand, have: have.into(), need: need.into() })
}

/// The error of an operand that is written and has memory of another one, which is read.
pub(super) fn refuse_shared<T>(kernel: &'static str, operand: &'static str, read: &str) -> Result<T> {
    let need = "what is written lies apart from what is read: pass another array, and copy afterwards";
    refuse(kernel, operand, format!("in memory that {read} has, too"), need)
}

/// Whole 32-bit words, given in a way that allows what the kernel does with them.
pub(super) struct Words<'a> {
    access: Access<'a>,
    len: usize,
}

impl<'a> Words<'a> {
    pub(super) fn new(
        kernel: &'static str,
        operand: &'static str,
        access: Access<'a>,
        role: Role,
    ) -> Result<Self> {
        let bytes = access.bytes;
        if bytes.len() % 4 != 0 || (bytes.start % 4 != 0 && !bytes.is_empty()) {
            let have = format!("bytes {}..{} of its allocation", bytes.start, bytes.end);
            return refuse(kernel, operand, have, "whole 32-bit elements are needed: pass a slice of f32");
        }
        match (role, access.kind) {
            (Role::InOut | Role::Out, AccessKind::Read) => {
                refuse(kernel, operand, "given for reading", "it is written: pass write() or overwrite()")
            }
            (Role::In | Role::InOut, AccessKind::Overwrite) if !bytes.is_empty() => {
                let need = "it is read: pass read(), or write() where it is written, too";
                refuse(kernel, operand, "given for overwriting", need)
            }
            _ => Ok(Self { access, len: (bytes.len() / 4) as usize }),
        }
    }

    /// Number of words.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Refuses what is written where it has bytes of one of those that are read: no borrow says so in C.
    pub(super) fn apart(
        &self,
        kernel: &'static str,
        operand: &'static str,
        read: &[(&'static str, &Words<'_>)],
    ) -> Result<()> {
        let bytes = self.access.bytes;
        let meets = |other: &Words<'_>| {
            self.len > 0 && other.len > 0 && self.same_memory(other) && other.access.bytes.overlaps(bytes)
        };
        match read.iter().find(|(_, other)| meets(other)) {
            Some((name, _)) => refuse_shared(kernel, operand, name),
            None => Ok(()),
        }
    }

    /// Whether both are of one allocation.
    pub(super) fn same_memory(&self, other: &Words<'_>) -> bool {
        match (&self.access.range, &other.access.range) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Which word of the allocation is its word `word`.
    pub(super) fn place(&self, word: usize) -> i64 {
        (self.access.bytes.start / 4) as i64 + word as i64
    }

    /// Words `words`, for a launch.
    pub(super) fn part(&self, words: Range<usize>, kind: AccessKind) -> Access<'a> {
        let at = |word: usize| self.access.bytes.start + 4 * word as u64;
        Access {
            inner: Arc::clone(&self.access.inner),
            range: self.access.range.clone(),
            bytes: ByteRange { start: at(words.start), end: at(words.end) },
            kind,
            borrow: PhantomData,
        }
    }

    /// Words `words`, for a launch that reads them.
    pub(super) fn read(&self, words: Range<usize>) -> Access<'a> {
        self.part(words, AccessKind::Read)
    }

    /// Most words that a binding has, wherever they begin.
    pub(super) fn binding_words(&self) -> usize {
        let profile = self.access.inner.engine.device().profile();
        usize::try_from((profile.binding_bytes_max - binding_alignment(profile)) / 4).unwrap_or(usize::MAX)
    }

    /// Words `words` for reading, from the nearest place below where a binding may begin; and how many words that is before them.
    /// What is read in addition lies in the same page.
    pub(super) fn bound(&self, words: Range<usize>) -> (Access<'a>, usize) {
        let mut access = self.part(words, AccessKind::Read);
        let extra = access.bytes.start % binding_alignment(self.access.inner.engine.device().profile());
        access.bytes.start -= extra;
        (access, (extra / 4) as usize)
    }

    /// Whether word `word` begins a frame.
    pub(super) fn begins_frame(&self, word: usize) -> bool {
        (self.access.bytes.start + 4 * word as u64) % 65536 == 0
    }

    /// The same words for reading, once more.
    pub(super) fn again(&self) -> Self {
        Self { access: self.part(0..self.len, AccessKind::Read), len: self.len }
    }

    /// The words on the host: waits for whatever writes them.
    pub(super) fn host(&self) -> Result<&[u32]> {
        let Access { inner, range: Some(range), bytes, .. } = &self.access else { return Ok(&[]) };
        let address = inner.engine.host().base() + range.offset() as usize;
        let ptr = NonNull::new(std::ptr::with_exposed_provenance_mut(address));
        let (inner, range) = (Arc::clone(inner), Some(Arc::clone(range)));
        let ptr = ptr.expect("R is not at address zero");
        let whole = Part::<u32> { inner, range, ptr, start: 0, len: (bytes.end / 4) as usize };
        let part = whole.part((bytes.start / 4) as usize..);
        part.bring_home(GuardKind::Read)?;
        // SAFETY: the access borrows its bytes for 'a, which outlives `self`; a borrow that reads is shared at least.
        Ok(unsafe { part.slice() })
    }

    /// Nothing, where a kernel has an address that it does not use.
    pub(super) fn none(&self) -> Access<'a> {
        let inner = Arc::clone(&self.access.inner);
        let bytes = ByteRange { start: 0, end: 0 };
        Access { inner, range: None, bytes, kind: AccessKind::Read, borrow: PhantomData }
    }
}

/// Bindings begin at multiples of so many bytes, and of 16 for wide loads; a power of two of at most 256.
fn binding_alignment(profile: &vkhmm_port::DeviceProfile) -> u64 {
    profile.binding_alignment_bytes.max(16)
}

/// The launches of one call.
pub(super) struct Launches<'r> {
    rt: &'r Runtime,
    launch: Launch,
}

impl<'r> Launches<'r> {
    pub(super) fn new(rt: &'r Runtime) -> Self {
        Self { rt, launch: Launch::new(Arc::clone(&rt.inner), Vec::new()) }
    }

    /// One more: addresses, then the words behind them in the push constants.
    pub(super) fn add<const A: usize>(
        &mut self,
        module: Module,
        grid: Grid,
        accesses: [Access<'_>; A],
        values: &[u32],
    ) -> Result<()> {
        let kernel = module.kernel(self.rt)?;
        let mut arguments = Collected::default();
        accesses.into_iter().for_each(|access| arguments.access(access));
        arguments.value(bytemuck::cast_slice(values));
        self.launch.append(self.rt.launch(kernel, grid, arguments)?);
        Ok(())
    }

    /// All of another call.
    pub(super) fn append(&mut self, launch: Launch) {
        self.launch.append(launch);
    }

    pub(super) fn done(self) -> Result<Launch> {
        Ok(self.launch)
    }
}

/// Windows of `count` items with `bytes` bytes each in all arrays together: one if two of them fit the device's memory.
pub(super) fn windows(rt: &Runtime, count: usize, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let windows = rt.windows(count, bytes, 2);
    let step = windows.step().min(WORDS_MAX);
    (0..count.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(count))
}
