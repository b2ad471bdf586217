//! The one kernel of the scene: it checks what it finds against the twin, then changes its owner's bytes in a way in which order
//! matters. The same function changes the twin.

use super::Stage;
use super::array::Array;
use super::paged::Pending;
use std::sync::{Arc, Weak};
use vkhmm_core::units::ByteRange;
use vkhmm_engine::AccessKind;
use vkhmm_port::fake::FakeKernel;

/// One argument of a launch.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// Which of the arrays that the launch was given.
    pub(super) array: usize,
    pub(super) bytes: ByteRange,
    pub(super) kind: AccessKind,
}

/// What one argument must look like when the kernel begins.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) kind: AccessKind,
    pub(super) owned: Vec<bool>,
    pub(super) expected: Vec<u8>,
}

impl Found {
    /// Some of it.
    pub(super) fn part(&self, bytes: ByteRange) -> Self {
        let at = bytes.start as usize..bytes.end as usize;
        Self { kind: self.kind, owned: self.owned[at.clone()].to_vec(), expected: self.expected[at].to_vec() }
    }

    /// The first owned byte that is not what it must be.
    pub(super) fn differs(&self, got: &[u8]) -> Option<usize> {
        (0..got.len()).find(|at| self.owned[*at] && got[*at] != self.expected[*at])
    }

    pub(super) fn sum(&self, bytes: &[u8]) -> u8 {
        let owned = bytes.iter().zip(&self.owned).filter(|(_, owned)| **owned);
        owned.fold(0, |sum: u8, (byte, _)| sum.wrapping_mul(3).wrapping_add(*byte))
    }

    pub(super) fn change(&self, bytes: &mut [u8], sum: u8, salt: u8) {
        for (byte, _) in bytes.iter_mut().zip(&self.owned).filter(|(_, owned)| **owned) {
            *byte = match self.kind {
                AccessKind::Read => *byte,
                AccessKind::Write => byte.rotate_left(1).wrapping_add(sum).wrapping_add(salt),
                AccessKind::Overwrite => sum ^ salt,
            };
        }
    }
}

pub(super) fn look(arrays: &[Array], accesses: &[Access]) -> Vec<Found> {
    accesses
        .iter()
        .map(|access| {
            let (array, bytes) = (&arrays[access.array], access.bytes);
            let owned = (bytes.start..bytes.end).map(|at| array.owns(at)).collect();
            Found { kind: access.kind, owned, expected: array.expected(bytes).to_vec() }
        })
        .collect()
}

/// The kernel of a launch that is made now on `stage`.
///
/// Once a submission was refused the engine gives the device up and lets stores go on, while what was queued may still run: what
/// such a kernel finds means nothing, as all it writes is lost.
pub(super) fn kernel(
    what: &str,
    stage: Weak<Stage>,
    arrays: &[Array],
    accesses: &[Access],
    salt: u8,
) -> FakeKernel {
    let (what, found) = (what.to_owned(), look(arrays, accesses));
    let pending: Vec<_> = arrays.iter().flat_map(|array| array.pending.clone()).collect();
    let means_nothing = move || {
        stage.upgrade().is_none_or(|stage| stage.is_lost()) || pending.iter().any(|pending| pending.failed())
    };
    FakeKernel::new(move |bindings, _, _| {
        let mut sum = 0_u8;
        for (i, (binding, found)) in bindings.iter().zip(&found).enumerate() {
            let got = binding.to_vec();
            let dead = found.kind == AccessKind::Overwrite;
            if let Some(at) = found.differs(&got).filter(|_| !dead && !means_nothing()) {
                panic!(
                    "twin: kernel of {what}: byte {at} of argument {i} is {}, not {}",
                    got[at], found.expected[at]
                );
            }
            if found.kind == AccessKind::Read {
                sum = sum.wrapping_add(found.sum(&got));
            }
        }
        for (binding, found) in bindings.iter().zip(&found) {
            if found.kind != AccessKind::Read {
                let mut bytes = binding.to_vec();
                found.change(&mut bytes, sum, salt);
                binding.write(&bytes);
            }
        }
    })
}

/// Does to the twins what the kernel does to the bytes.
pub(super) fn apply(arrays: &mut [Array], accesses: &[Access], salt: u8) {
    let found = look(arrays, accesses);
    let reads = accesses.iter().zip(&found).filter(|(access, _)| access.kind == AccessKind::Read);
    let sum = reads.fold(0_u8, |sum, (_, found)| sum.wrapping_add(found.sum(&found.expected)));
    for (access, found) in accesses.iter().zip(&found) {
        let (start, end) = (access.bytes.start as usize, access.bytes.end as usize);
        found.change(&mut arrays[access.array].twin[start..end], sum, salt);
    }
    inherit(arrays, accesses, None);
}

/// What a launch wrote depends on the end of paged launches: of `own`, and of those that its arguments come from.
pub(super) fn inherit(arrays: &mut [Array], accesses: &[Access], own: Option<&Arc<Pending>>) {
    let all: Vec<Arc<Pending>> =
        accesses.iter().flat_map(|access| arrays[access.array].pending.clone()).chain(own.cloned()).collect();
    for access in accesses.iter().filter(|access| access.kind.writes()) {
        let pending = &mut arrays[access.array].pending;
        for one in &all {
            if !pending.iter().any(|known| Arc::ptr_eq(known, one)) {
                pending.push(Arc::clone(one));
            }
        }
    }
}
