//! The one kernel of the scene: it checks what it finds against the twin, then changes its owner's bytes in a way in which order
//! matters. The same function changes the twin.

use super::Stage;
use super::array::Array;
use std::sync::Weak;
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
struct Found {
    kind: AccessKind,
    owned: Vec<bool>,
    expected: Vec<u8>,
}

impl Found {
    fn sum(&self, bytes: &[u8]) -> u8 {
        let owned = bytes.iter().zip(&self.owned).filter(|(_, owned)| **owned);
        owned.fold(0, |sum: u8, (byte, _)| sum.wrapping_mul(3).wrapping_add(*byte))
    }

    fn change(&self, bytes: &mut [u8], sum: u8, salt: u8) {
        for (byte, _) in bytes.iter_mut().zip(&self.owned).filter(|(_, owned)| **owned) {
            *byte = match self.kind {
                AccessKind::Read => *byte,
                AccessKind::Write => byte.rotate_left(1).wrapping_add(sum).wrapping_add(salt),
                AccessKind::Overwrite => sum ^ salt,
            };
        }
    }
}

fn look(arrays: &[Array], accesses: &[Access]) -> Vec<Found> {
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
    let means_nothing = move || stage.upgrade().is_none_or(|stage| stage.is_lost());
    FakeKernel::new(move |bindings, _, _| {
        let mut sum = 0_u8;
        for (i, (binding, found)) in bindings.iter().zip(&found).enumerate() {
            let got = binding.to_vec();
            let wrong = |at: &usize| found.owned[*at] && got[*at] != found.expected[*at];
            let dead = found.kind == AccessKind::Overwrite;
            if let Some(at) = (0..got.len()).find(wrong).filter(|_| !dead && !means_nothing()) {
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
}
