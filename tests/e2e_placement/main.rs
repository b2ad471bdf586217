//! How kernels reach an array, end to end: in place nothing moves, in a sparse buffer the device address never changes, in spans it
//! may; and arrays of all three work side by side.

#[path = "../common/mod.rs"]
mod common;

mod in_place;
mod mixed;
mod sparse;

use common::{checked, kernel, memory, open, spv};
use vkhmm::{
    Access, Builder, Error, Grid, Kernel, Managed, MemoryError, MemoryKind, PlacementChoice, PlacementKind,
    Runtime,
};

/// Words of an array that is too large to be used in place where large arrays are not.
const LARGE: usize = 1 << 18;

/// Asks a kernel where arrays are.
struct Finder {
    rt: Runtime,
    kernel: Kernel,
    seen: Managed<[u32; 4]>,
}

impl Finder {
    fn new(rt: &Runtime) -> Self {
        let seen = rt.alloc_named(1, "seen").expect("alloc");
        Self { rt: rt.clone(), kernel: kernel(rt, spv::ADDRESS_OF), seen }
    }

    /// The device address of an access of `words` words, and the sum of every `stride`-th, which the kernel found there.
    fn find(&mut self, x: Access<'_>, words: usize, stride: usize) -> (u64, u32) {
        let Self { rt, kernel, seen } = self;
        let arguments = (seen.write(), x, words as u32, stride as u32, 0u32);
        rt.launch(kernel, Grid::linear(1), arguments).expect("launch");
        let [low, high, sum, counted] = seen[0];
        assert_eq!(counted, words as u32);
        (u64::from(high) << 32 | u64::from(low), sum)
    }
}

/// Settings that insist on sparse buffers, for arrays that move. `None` where there are none: then the refusal says why, and the
/// same is the reason that every array gives for being in spans.
fn sparse() -> Option<Builder> {
    let moving = || checked().memory_kind(MemoryKind::DevicePrivate);
    let why = match moving().placement(PlacementChoice::Sparse).build() {
        Ok(_) => return Some(moving().placement(PlacementChoice::Sparse)),
        Err(Error::NoSparse { why }) => why,
        Err(other) => panic!("{other}"),
    };
    let rt = open(moving());
    let placement = rt.alloc::<u32>(LARGE).expect("alloc").placement();
    assert_eq!((placement.kind, &*placement.why), (PlacementKind::Span, &*why));
    let refused = memory(rt.alloc_stable_named::<u32>(LARGE, "fixed"));
    let said = refused.to_string();
    assert!(
        matches!(&refused, MemoryError::NotStable { label, bytes, .. } if &**label == "fixed" && *bytes == LARGE as u64 * 4)
    );
    assert!(said.contains("`fixed`") && said.contains(&why), "{said}");
    println!("exempt: {why}");
    None
}

/// Settings under which everything is used in place; `None` where nothing can be, which only SwiftShader may say.
fn unified() -> Option<Builder> {
    let unified = || checked().memory_kind(MemoryKind::UnifiedMemory);
    let rt = open(unified());
    let placement = rt.alloc::<u32>(LARGE).expect("alloc").placement();
    if placement.kind == PlacementKind::InPlace {
        return Some(unified());
    }
    let device = &rt.doctor().device;
    let name = &device.candidates[device.chosen].name;
    assert!(name.contains("SwiftShader"), "{name}: {placement}");
    println!("exempt: SwiftShader: {placement}");
    None
}
