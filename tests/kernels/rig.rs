//! What the tests of kernels share: runtimes with room and without, random elements, and how far f32 may be off.

use crate::common::{checked, clean, moving, open, watchdog};
use vkhmm::{Error, Managed, Pod, Runtime};

/// Sizes that are none of a kernel's tiles.
pub(crate) const SIZES: [usize; 8] = [0, 1, 2, 7, 64, 65, 257, 1009];

/// Runs a test, and ends it as every test ends.
pub(crate) fn with(limit: Option<u64>, test: impl FnOnce(&Runtime)) {
    let _watchdog = watchdog("a kernel", 60);
    let rt = match limit {
        Some(limit) => open(moving().device_memory_limit(limit)),
        None => open(checked()),
    };
    test(&rt);
    clean(&rt);
}

/// Random elements between -1 and 1.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.next();
        (self.0 >> 33) as usize % end
    }

    pub(crate) fn vector(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// Managed memory with these elements.
pub(crate) fn managed<T: Pod>(rt: &Runtime, elements: &[T]) -> Managed<T> {
    let mut memory = rt.alloc(elements.len()).expect("memory");
    memory.copy_from_slice(elements);
    memory
}

/// Fails unless each element is within `allowed` of what is wanted, both being given by index.
#[track_caller]
pub(crate) fn near(what: &str, have: &[f32], want: impl Fn(usize) -> (f64, f64)) {
    for (i, have) in have.iter().enumerate() {
        let (want, allowed) = want(i);
        let off = (f64::from(*have) - want).abs();
        assert!(
            off <= allowed,
            "{what}: element {i} is {have}, {want} wanted (off by {off}, allowed {allowed})"
        );
    }
}

/// The words of an error of shape.
#[track_caller]
pub(crate) fn shape<T>(result: vkhmm::Result<T>) -> String {
    match result {
        Err(error @ Error::Shape { .. }) => error.to_string(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}
