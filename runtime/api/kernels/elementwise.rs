//! fill, copy, axpy, scale: element by element, in windows that stream.

use super::modules::Module;
use super::operand::{Launches, Role, Words, refuse, windows};
use crate::launch::{Grid, Launch};
use crate::{Access, AccessKind, Result, Runtime};

/// `to[i] = value`.
///
/// # Errors
/// As the [module](super) says.
pub fn fill(rt: &Runtime, to: Access<'_>, value: f32) -> Result<Launch> {
    words(rt, Module::Fill, value.to_bits(), None, None, &Words::new("fill", "to", to, Role::Out)?)
}

/// `to[i] = from[i]`, bit by bit. Both have the same length.
///
/// # Errors
/// As the [module](super) says.
pub fn copy(rt: &Runtime, from: Access<'_>, to: Access<'_>) -> Result<Launch> {
    let from = Words::new("copy", "from", from, Role::In)?;
    let to = Words::new("copy", "to", to, Role::Out)?;
    same_length("copy", ("from", &from), ("to", &to))?;
    to.apart("copy", "to", &[("from", &from)])?;
    words(rt, Module::Copy, 0, None, Some(&from), &to)
}

/// `y[i] += a * x[i]`. Both have the same length.
///
/// # Errors
/// As the [module](super) says.
pub fn axpy(rt: &Runtime, a: f32, x: Access<'_>, y: Access<'_>) -> Result<Launch> {
    let x = Words::new("axpy", "x", x, Role::In)?;
    let y = Words::new("axpy", "y", y, Role::InOut)?;
    same_length("axpy", ("x", &x), ("y", &y))?;
    y.apart("axpy", "y", &[("x", &x)])?;
    words(rt, Module::Axpy, a.to_bits(), None, Some(&x), &y)
}

/// `x[i] *= a`.
///
/// # Errors
/// As the [module](super) says.
pub fn scale(rt: &Runtime, a: f32, x: Access<'_>) -> Result<Launch> {
    words(rt, Module::Scale, a.to_bits(), None, None, &Words::new("scale", "x", x, Role::InOut)?)
}

/// Refuses two vectors of different lengths.
pub(super) fn same_length(
    kernel: &'static str,
    (first, x): (&'static str, &Words<'_>),
    (second, y): (&'static str, &Words<'_>),
) -> Result<()> {
    if x.len() == y.len() {
        return Ok(());
    }
    let need = format!("as many are needed as {first} has, {}: pass slices of one length", x.len());
    refuse(kernel, second, format!("{} elements", y.len()), need)
}

/// One of these over windows of words: one element that all need, what is read, and what is written.
pub(super) fn words(
    rt: &Runtime,
    module: Module,
    a: u32,
    s: Option<&Words<'_>>,
    x: Option<&Words<'_>>,
    y: &Words<'_>,
) -> Result<Launch> {
    let mut launches = Launches::new(rt);
    let kind = match module {
        Module::Fill | Module::Copy | Module::Exp => AccessKind::Overwrite,
        _ => AccessKind::Write,
    };
    let each = if x.is_some() { 8 } else { 4 };
    for window in windows(rt, y.len(), each) {
        let s = s.map_or_else(|| y.none(), |s| s.read(0..1));
        let x = x.map_or_else(|| y.none(), |x| x.read(window.clone()));
        let accesses = [s, x, y.part(window.clone(), kind)];
        launches.add(module, Grid::linear(window.len()), accesses, &[a, window.len() as u32])?;
    }
    launches.done()
}
